//! Nearest neighbours as pictures.

use simclr_augment::{Scratch, Stream, central_crop, central_crop_box};
use simclr_data::{Dataset, DecodeScratch};
use simclr_metrics::nearest_neighbours;
use simclr_train::Embedding;

use super::encode::Encoded;
use super::maps::file_name;
use super::splits::Splits;
use crate::EvalError;
use crate::report::{NeighbourRow, Picture};

/// Replaces the image number in the key of the stream that draws the queries.
const QUERIES: u64 = u64::from_le_bytes(*b"queries.");
/// The longest side of a picture, in pixels.
const SIDE: u32 = 96;

/// Query images shown, drawn from [`SEED`].
const SHOWN: usize = 10;
/// Neighbours shown beside each.
const NEIGHBOURS: usize = 8;
const SEED: u64 = 0;

/// Ten test images, from as many classes as possible, each with the eight training images whose h is most similar to
/// its own.
///
/// Pictures are central crops at the encoder's `image_size`, at most 96 pixels.
///
/// # Errors
/// Features that are not finite, an image that can no longer be read.
pub(super) fn neighbour_rows(
    encoded: &Encoded,
    data: &Splits,
    image_size: usize,
) -> Result<Vec<NeighbourRow>, EvalError> {
    let (train, test) = (&encoded.train, &encoded.test);
    let shown = choose(&test.labels, data.classes().len(), SHOWN, SEED);
    let (train, test) = ((train, data.train().as_ref()), (test, data.test().as_ref()));
    rows(test, &shown, Some(train), Camera::new(image_size))
}

/// Ten of `images`, drawn at random, each with the eight others whose h is most similar to its own; without classes.
///
/// # Errors
/// As [`neighbour_rows`].
pub(super) fn unlabelled_rows(
    embedding: &Embedding,
    images: &dyn Dataset,
    image_size: usize,
) -> Result<Vec<NeighbourRow>, EvalError> {
    let shown = choose(&vec![0; embedding.indices.len()], 1, SHOWN, SEED);
    rows((embedding, images), &shown, None, Camera { with_class: false, ..Camera::new(image_size) })
}

/// The embedding of images, and the images.
type Images<'a> = (&'a Embedding, &'a dyn Dataset);

/// The rows `shown` of `queries`, each with its neighbours among `others`, or without these among the queries
/// themselves.
fn rows(
    queries: Images<'_>,
    shown: &[usize],
    others: Option<Images<'_>>,
    mut camera: Camera,
) -> Result<Vec<NeighbourRow>, EvalError> {
    if shown.is_empty() {
        return Ok(Vec::new());
    }
    let among = others.unwrap_or(queries);
    // One more among its own: the most similar image is the query itself.
    let nearest = nearest(queries.0, shown, among.0, NEIGHBOURS + usize::from(others.is_none()))?;
    let mut picture =
        |(embedding, images): Images<'_>, row: usize| camera.picture(images, embedding.indices[row] as usize);
    let shown = shown.iter().zip(nearest).map(|(&row, near)| {
        let near = near.into_iter().filter(|&(near, _)| others.is_some() || near != row).take(NEIGHBOURS);
        let near = near.map(|(near, similarity)| Ok((picture(among, near)?, similarity)));
        let neighbours = near.collect::<Result<_, EvalError>>()?;
        Ok(NeighbourRow { query: picture(queries, row)?, neighbours })
    });
    shown.collect()
}

/// For each of `rows` of `queries`, the `count` most similar rows of `among`, with their cosines.
fn nearest(
    queries: &Embedding,
    rows: &[usize],
    among: &Embedding,
    count: usize,
) -> Result<Vec<Vec<(usize, f64)>>, EvalError> {
    let nearest = nearest_neighbours(queries.select(rows).features()?, among.features()?, count)?;
    let of = |query: usize| {
        let found = nearest.indices(query).iter().zip(nearest.similarities(query));
        found.map(|(&row, &similarity)| (row as usize, f64::from(similarity))).collect()
    };
    Ok((0..rows.len()).map(of).collect())
}

/// Draws at most `count` rows at random, from classes spread evenly over all that occur; ordered by class.
pub(super) fn choose(labels: &[u32], classes: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut by_class = vec![Vec::new(); classes];
    for (row, &label) in labels.iter().enumerate() {
        by_class[label as usize].push(row);
    }
    by_class.retain(|rows| !rows.is_empty());
    let count = count.min(labels.len());
    let mut chosen = Vec::with_capacity(count);
    let mut stream = Stream::new(seed, 0, QUERIES, 0);
    while chosen.len() < count {
        by_class.retain(|rows| !rows.is_empty());
        let (present, wanted) = (by_class.len(), count - chosen.len());
        // Each class once while there is room for all of them; then evenly spread ones.
        for i in 0..wanted.min(present) {
            let rows = &mut by_class[if wanted < present { i * present / wanted } else { i }];
            let place = stream.below(rows.len() as u32) as usize;
            chosen.push(rows.swap_remove(place));
        }
    }
    chosen.sort_by_key(|&row| (labels[row], row));
    chosen
}

/// Makes pictures of images.
struct Camera {
    side: u32,
    /// Whether a picture is labelled with its class.
    with_class: bool,
    decode: DecodeScratch,
    resize: Scratch,
    pixels: Vec<u8>,
}

impl Camera {
    fn new(image_size: usize) -> Camera {
        let side = u32::try_from(image_size).unwrap_or(SIDE).clamp(1, SIDE);
        let pixels = vec![0; 3 * (side as usize).pow(2)];
        let (decode, resize) = (DecodeScratch::default(), Scratch::default());
        Camera { side, with_class: true, decode, resize, pixels }
    }

    fn picture(&mut self, dataset: &dyn Dataset, index: usize) -> Result<Picture, EvalError> {
        let needed = |width, height| central_crop_box(width, height, self.side).into();
        let image = dataset.read_part(index, &needed, &mut self.decode)?;
        central_crop(image, self.side, &mut self.resize, &mut self.pixels)?;
        let label = dataset.label(index).filter(|_| self.with_class);
        let class = label.map(|label| dataset.classes()[label as usize].clone());
        let name = file_name(&dataset.name(index)).to_owned();
        Ok(Picture::new(self.side, self.side, &self.pixels, name, class)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::{SIDE, Toy, models, splits};
    use crate::protocols::{Versus, encode};

    #[test]
    fn rows_after_a_broken_image_are_shown_as_the_images_that_they_are() {
        let classes = ["a", "b", "c", "d"];
        let train = Toy { broken: vec![1], ..Toy::new(&classes, 4, 1) };
        let data = Splits::new(train.shared(), Toy::new(&classes, 4, 2).shared()).unwrap();
        // One axis per class; the second training image has no row.
        let embedding = |indices: &[u32]| Embedding {
            h: indices.iter().flat_map(|&own| (0..4).map(move |axis| f32::from(axis == own))).collect(),
            h_dim: 4,
            indices: indices.to_vec(),
            labels: indices.to_vec(),
            ..Embedding::default()
        };
        let classes = data.classes().to_vec();
        let encoded =
            Encoded { train: embedding(&[0, 2, 3]), test: embedding(&[0, 2, 3]), classes, seconds: 0.0 };
        let rows = neighbour_rows(&encoded, &data, SIDE).unwrap();
        let shown = rows.iter().map(|row| (row.query.class.clone(), row.neighbours[0].0.class.clone()));
        let same = |class: &str| (Some(class.to_owned()), Some(class.to_owned()));
        assert_eq!(shown.collect::<Vec<_>>(), ["a", "c", "d"].map(same));
    }

    #[test]
    fn neighbours_come_nearest_first() {
        let (models, data) = (Versus::alone(models(2).trained), splits());
        let encoded = encode(&models, &data, false, &mut |_| ()).unwrap().trained;
        let rows = neighbour_rows(&encoded, &data, SIDE).unwrap();
        assert_eq!(rows.iter().map(|row| row.neighbours.len()).collect::<Vec<_>>(), [NEIGHBOURS; SHOWN]);
        assert!(rows.iter().all(|row| row.neighbours.windows(2).all(|pair| pair[0].1 >= pair[1].1)));
    }

    #[test]
    fn queries_are_spread_over_classes() {
        let labels: Vec<u32> = (0..100).map(|row| row / 10).collect();
        let choose = |count| choose(&labels, 12, count, 3);
        let classes = |rows: &[usize]| rows.iter().map(|&row| labels[row]).collect::<Vec<_>>();
        assert_eq!(classes(&choose(10)), (0..10).collect::<Vec<_>>());
        assert_eq!(classes(&choose(5)), [0, 2, 4, 6, 8]);
        assert_eq!(classes(&choose(13)).len(), 13);
        let mut all = choose(1000);
        all.sort_unstable();
        assert!(all.into_iter().eq(0..100));
        assert!(choose(0).is_empty());
    }
}
