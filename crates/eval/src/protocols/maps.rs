//! Maps: images as points of a plane, close together where the encoder finds them similar (paper, figure B.4).

use std::thread::scope;

use bhtsne::{Neighbor, tSNE};
use rayon::ThreadPoolBuilder;
use simclr_augment::Stream;
use simclr_data::Dataset;
use simclr_metrics::Features;
use simclr_train::Embedding;

use super::encode::Encoded;
use super::neighbours::choose;
use crate::EvalError;
use crate::report::{ClassMap, MapPoint};

/// Images on a map, at most.
const MAX_POINTS: usize = 1000;
/// The fewest images for a map.
const MIN_POINTS: usize = 20;
/// The number of neighbours that count for an image, in the sense of t-SNE.
const PERPLEXITY: f32 = 30.0;
/// How coarsely distant points are grouped (Barnes-Hut).
const THETA: f32 = 0.5;
/// Steps of gradient descent.
const STEPS: usize = 1000;
/// Replaces the image number in the key of the stream that draws the initial points.
const PLACES: u64 = u64::from_le_bytes(*b"mapplace");

/// Maps of h and, if they were encoded, of z of at most 1,000 test images, evenly from the classes: t-SNE over unit
/// vectors at perplexity 30, or less with fewer than 121 images. No maps of fewer than 20.
///
/// The same for any number of threads.
///
/// # Errors
/// Features that are not finite.
pub(super) fn class_maps(encoded: &Encoded, test: &dyn Dataset) -> Result<Vec<ClassMap>, EvalError> {
    maps(&encoded.test, test, &encoded.classes)
}

/// The same of all of `images`, which `set` is of; without `classes` none is of one.
pub(super) fn maps(
    set: &Embedding,
    images: &dyn Dataset,
    classes: &[String],
) -> Result<Vec<ClassMap>, EvalError> {
    let labels = if classes.is_empty() { &vec![0; set.indices.len()] } else { &set.labels };
    let rows = choose(labels, classes.len().max(1), MAX_POINTS, 0);
    if rows.len() < MIN_POINTS {
        return Ok(Vec::new());
    }
    let sets = [("Features h (encoder)", &set.h, set.h_dim), ("Projections z (head)", &set.z, set.z_dim)];
    let sets: Vec<_> = sets.into_iter().filter(|(_, values, _)| !values.is_empty()).collect();
    for &(_, values, dim) in &sets {
        Features::new(values, dim)?;
    }
    let placed: Vec<Vec<f32>> = scope(|scope| {
        let rows = &rows;
        let running: Vec<_> = sets
            .iter()
            .map(|&(_, values, dim)| scope.spawn(move || place(&unit_rows(values, dim, rows), dim)))
            .collect();
        running.into_iter().map(|map| map.join().unwrap_or_default()).collect()
    });
    let maps = sets.iter().zip(placed).filter(|(_, places)| places.iter().all(|place| place.is_finite()));
    let maps = maps.map(|((title, ..), places)| ClassMap {
        title: (*title).to_owned(),
        classes: classes.to_vec(),
        points: places
            .chunks_exact(2)
            .zip(&rows)
            .map(|(place, &row)| MapPoint {
                x: place[0],
                y: place[1],
                class: labels[row] as usize,
                name: file_name(&images.name(set.indices[row] as usize)).to_owned(),
            })
            .collect(),
    });
    Ok(maps.filter(|map| !map.points.is_empty()).collect())
}

/// An image's name without its folders.
pub(super) fn file_name(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// The chosen rows, each of length 1, so that the distance of two tells their cosine.
fn unit_rows(values: &[f32], dim: usize, rows: &[usize]) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() * dim);
    for &row in rows {
        let row = &values[row * dim..][..dim];
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        out.extend(row.iter().map(|value| value / length));
    }
    out
}

/// x and y of each row; nothing if no thread can be started.
fn place(values: &[f32], dim: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = values.chunks_exact(dim).collect();
    let mut stream = Stream::new(0, 0, PLACES, 0);
    let begin: Vec<f32> = (0..2 * rows.len()).map(|_| 1e-4 * (stream.unit() as f32 - 0.5)).collect();
    // More threads would add up in another order and shift points a little.
    let Ok(pool) = ThreadPoolBuilder::new().num_threads(1).build() else { return Vec::new() };
    pool.install(|| {
        let perplexity = PERPLEXITY.min((rows.len() - 1) as f32 / 4.0);
        let near = neighbours(&rows, (3.0 * perplexity) as usize);
        let mut map: tSNE<f32, &[f32], 2> = tSNE::new(&rows);
        map.perplexity(perplexity).epochs(STEPS).initial_embedding(begin);
        map.barnes_hut_with_neighbors(THETA, &near);
        map.embedding()
    })
}

/// The `count` nearest other rows of each row; ties go to the first. (The crate's own search breaks ties at random.)
fn neighbours(rows: &[&[f32]], count: usize) -> Vec<Vec<Neighbor<f32>>> {
    let of = |at: usize| {
        let distance =
            |other: &[f32]| rows[at].iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        let others = rows.iter().enumerate().filter(|&(index, _)| index != at);
        let mut near: Vec<_> =
            others.map(|(index, other)| Neighbor { index, distance: distance(other) }).collect();
        near.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.index.cmp(&b.index)));
        near.truncate(count.max(1));
        near
    };
    (0..rows.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::Toy;

    /// Rows around one of three directions, and z that is the same for all.
    fn encoded(count: usize) -> Encoded {
        let mut stream = Stream::new(1, 0, 0, 0);
        let mut noise = || stream.unit() as f32;
        let labels: Vec<u32> = (0..count as u32).map(|row| row % 3).collect();
        let h = labels.iter().flat_map(|&label| (0..6).map(move |i| (label, i)).collect::<Vec<_>>());
        let h = h.map(|(label, i)| if i == label { 4.0 } else { 0.0 } + noise()).collect();
        let z = vec![1.0; 2 * count];
        let indices = (0..count as u32).collect();
        let test = Embedding { h, h_dim: 6, z, z_dim: 2, labels, indices, ..Embedding::default() };
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        Encoded { train: Embedding::default(), test, classes, seconds: 0.0 }
    }

    fn maps_of(encoded: &Encoded) -> Result<Vec<ClassMap>, EvalError> {
        class_maps(encoded, Toy::new(&["a", "b", "c"], encoded.test.indices.len(), 1).shared().as_ref())
    }

    #[test]
    fn classes_that_are_apart_lie_apart() {
        let maps = maps_of(&encoded(150)).unwrap();
        let points = &maps[0].points;
        assert_eq!(points.len(), 150);
        assert_eq!((maps[0].title.as_str(), points[149].name.as_str()), ("Features h (encoder)", "toy 149"));
        assert_eq!([file_name("train/a/7.jpg"), file_name(r"a\7.jpg"), file_name("7.jpg")], ["7.jpg"; 3]);
        // The nearest point of each is of its class.
        let same = points.iter().enumerate().filter(|(at, point)| {
            let far = |other: &MapPoint| (other.x - point.x).powi(2) + (other.y - point.y).powi(2);
            let others = points.iter().enumerate().filter(|(other, _)| other != at);
            let nearest = others.min_by(|a, b| far(a.1).total_cmp(&far(b.1))).unwrap().1;
            nearest.class == point.class
        });
        assert!(same.count() >= 147);
        assert_eq!(maps_of(&encoded(150)).unwrap()[0], maps[0], "the same each time");
        // Of z all rows are equal.
        assert!(maps[1..].iter().flat_map(|map| &map.points).all(|point| point.x.is_finite()));
    }

    #[test]
    fn equal_images_leave_nothing_to_chance() {
        let mut twice = encoded(60);
        let half = twice.test.h.len() / 2;
        let (first, second) = twice.test.h.split_at_mut(half);
        second.copy_from_slice(first);
        assert_eq!(maps_of(&twice).unwrap(), maps_of(&twice).unwrap());
    }

    #[test]
    fn few_images_and_many() {
        assert!(maps_of(&encoded(19)).unwrap().is_empty());
        assert_eq!(maps_of(&encoded(20)).unwrap()[0].points.len(), 20);
        assert_eq!(maps_of(&encoded(1200)).unwrap()[0].points.len(), MAX_POINTS);
        let mut broken = encoded(30);
        broken.test.h[7] = f32::NAN;
        assert!(maps_of(&broken).is_err());
    }
}
