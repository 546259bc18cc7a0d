//! Average precision of one class's scores, for data sets where an image shows several classes.

use crate::MetricsError;

/// Average precision as defined by PASCAL VOC2007: the mean, over recalls 0, 0.1, ..., 1, of the best precision at
/// that recall or more. `None` if nothing is relevant.
///
/// `scores` are higher for images likelier to be `relevant`; images of equal score are retrieved together.
///
/// # Errors
/// The two differ in length, or a score is NaN.
pub fn eleven_point_average_precision(
    scores: &[f32],
    relevant: &[bool],
) -> Result<Option<f64>, MetricsError> {
    let curve = Curve::new(scores, relevant)?;
    if curve.relevant == 0 {
        return Ok(None);
    }
    let best_at = |tenths: usize| {
        // In whole numbers, because a recall cannot be compared exactly with 0.1.
        let reached = curve.points.iter().filter(|point| 10 * point.hits >= tenths * curve.relevant);
        reached.map(Point::precision).fold(0.0, f64::max)
    };
    Ok(Some((0..=10).map(best_at).sum::<f64>() / 11.0))
}

/// Mean of [`eleven_point_average_precision`] over the classes that some image shows: the mAP of PASCAL VOC2007. 0
/// if no class is shown.
///
/// `scores` and `shown` are row-major, with `classes` values per image.
///
/// # Errors
/// The two differ in length or are not whole rows, or a score is NaN.
pub fn eleven_point_map(scores: &[f32], shown: &[bool], classes: usize) -> Result<f64, MetricsError> {
    if scores.len() != shown.len() || !scores.len().is_multiple_of(classes.max(1)) {
        return Err(MetricsError::Shape {
            what: "scores, one for each class of each image",
            expected: shown.len(),
            got: scores.len(),
        });
    }
    let (mut sum, mut present) = (0.0, 0);
    for class in 0..classes {
        let scores: Vec<f32> = scores.iter().skip(class).step_by(classes).copied().collect();
        let relevant: Vec<bool> = shown.iter().skip(class).step_by(classes).copied().collect();
        if let Some(precision) = eleven_point_average_precision(&scores, &relevant)? {
            sum += precision;
            present += 1;
        }
    }
    Ok(sum / f64::from(present.max(1)))
}

/// Precision and recall at every distinct score, highest score first.
struct Curve {
    points: Vec<Point>,
    relevant: usize,
}

/// The images retrieved down to some score.
struct Point {
    retrieved: usize,
    hits: usize,
}

impl Point {
    fn precision(&self) -> f64 {
        self.hits as f64 / self.retrieved as f64
    }
}

impl Curve {
    fn new(scores: &[f32], relevant: &[bool]) -> Result<Curve, MetricsError> {
        if scores.len() != relevant.len() {
            return Err(MetricsError::Shape {
                what: "scores, one per image",
                expected: relevant.len(),
                got: scores.len(),
            });
        }
        if let Some(row) = scores.iter().position(|score| score.is_nan()) {
            return Err(MetricsError::NotFinite { row });
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut points = Vec::new();
        let mut hits = 0;
        for (place, &image) in order.iter().enumerate() {
            hits += usize::from(relevant[image]);
            let next = order.get(place + 1);
            if next.is_none_or(|&next| scores[next] != scores[image]) {
                points.push(Point { retrieved: place + 1, hits });
            }
        }
        Ok(Curve { points, relevant: hits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Retrieved in the order yes, no, yes: precisions 1 at recall 1/2, then 2/3 at recall 1.
        let (scores, relevant) = ([0.9, 0.8, 0.7, 0.1], [true, false, true, false]);
        let eleven = eleven_point_average_precision(&scores, &relevant).unwrap().unwrap();
        assert!((eleven - (6.0 + 5.0 * 2.0 / 3.0) / 11.0).abs() < 1e-12);
    }

    #[test]
    fn the_mean_over_classes_leaves_out_those_that_nothing_shows() {
        // Class 0 as by hand, 28/33; class 1 is retrieved first; class 2 is on no image.
        let scores =
            [0.9, 0.1, 0.5, /**/ 0.8, 0.9, 0.5, /**/ 0.7, 0.2, 0.5, /**/ 0.1, 0.3, 0.5];
        let [t, f] = [true, false];
        let shown = [t, f, f, /**/ f, t, f, /**/ t, f, f, /**/ f, f, f];
        let map = eleven_point_map(&scores, &shown, 3).unwrap();
        assert!((map - (28.0 / 33.0 + 1.0) / 2.0).abs() < 1e-12, "{map}");
        assert_eq!(eleven_point_map(&scores, &[f; 12], 3), Ok(0.0));
        assert!(eleven_point_map(&scores, &shown[1..], 3).is_err());
        assert!(eleven_point_map(&scores, &shown, 5).is_err());
    }

    #[test]
    fn ties_are_retrieved_together() {
        let relevant = [true, false, false, false];
        assert_eq!(eleven_point_average_precision(&[0.5; 4], &relevant), Ok(Some(0.25)));
    }

    #[test]
    fn nothing_relevant_and_bad_input() {
        assert_eq!(eleven_point_average_precision(&[0.5], &[false]), Ok(None));
        assert_eq!(eleven_point_average_precision(&[], &[]), Ok(None));
        assert!(eleven_point_average_precision(&[0.5], &[]).is_err());
        assert!(eleven_point_average_precision(&[f32::NAN], &[true]).is_err());
    }
}
