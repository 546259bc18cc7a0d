//! The results of a study.

use std::fmt;

use serde::Serialize;
use simclr_metrics::wilson;
use simclr_words::text::{counted, percent};
use simclr_words::words;

use super::{Study, Variant};

words! {
    /// The measures of a variant, in the order of the columns. All are fractions.
    Measure {
        /// kNN accuracy on h.
        Knn = "knn",
        /// Accuracy of logistic regression on h.
        Linear = "linear",
        /// Accuracy of logistic regression on z.
        LinearOfZ = "linear_of_z",
        /// Contrastive accuracy in the last epoch of training.
        Contrastive = "contrastive",
    }
}

impl Measure {
    /// The title of its column.
    pub fn title(self) -> &'static str {
        match self {
            Measure::Knn => "kNN",
            Measure::Linear => "linear",
            Measure::LinearOfZ => "linear on z",
            Measure::Contrastive => "contrastive",
        }
    }

    /// The measure whose published figures it is compared with. There are none of kNN or z, which are accuracies of
    /// the same task as the linear one.
    pub fn published_counterpart(self) -> Measure {
        match self {
            Measure::Knn | Measure::Linear | Measure::LinearOfZ => Measure::Linear,
            Measure::Contrastive => Measure::Contrastive,
        }
    }
}

/// One run of a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The index of its variant in the study.
    pub variant: usize,
    /// Its seed.
    pub seed: u64,
    /// The scores, in the order of [`Measure::ALL`]; `None` if not measured, or if the run failed.
    pub scores: [Option<f64>; 4],
    /// Why there is no encoder, if there is none.
    pub failure: Option<String>,
}

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// The standard deviation over seeds (n - 1), if there are several.
    pub deviation: Option<f64>,
    /// The number of seeds.
    pub seeds: usize,
}

impl Mean {
    fn of(values: &[f64]) -> Option<Mean> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let deviation = (count > 1).then(|| (squares / (count - 1) as f64).sqrt());
        Some(Mean { mean, deviation, seeds: count })
    }
}

/// "56.4%", or "56.4 ± 0.3%" of several seeds.
impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.deviation {
            Some(deviation) => f.pad(&format!("{:.1} ± {}", 100.0 * self.mean, percent(deviation))),
            None => f.pad(&percent(self.mean)),
        }
    }
}

/// The results of a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'s> {
    /// The variant.
    pub variant: &'s Variant,
    /// In the order of [`Measure::ALL`].
    pub means: [Option<Mean>; 4],
    /// Why seeds failed, a line each.
    pub failures: Vec<String>,
}

impl Row<'_> {
    /// The mean score by `measure`.
    pub fn mean(&self, measure: Measure) -> Option<Mean> {
        self.means[measure as usize]
    }
}

/// A row for each variant, from the trials so far.
pub fn rows<'s>(study: &'s Study, trials: &[Trial]) -> Vec<Row<'s>> {
    let row = |(number, variant): (usize, &'s Variant)| {
        let own = || trials.iter().filter(move |trial| trial.variant == number);
        let means = std::array::from_fn(|measure| {
            Mean::of(&own().filter_map(|trial| trial.scores[measure]).collect::<Vec<f64>>())
        });
        let failure = |trial: &Trial| Some(format!("seed {}: {}", trial.seed, trial.failure.as_ref()?));
        Row { variant, means, failures: own().filter_map(failure).collect() }
    };
    study.variants.iter().enumerate().map(row).collect()
}

/// A column of a study's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// What was measured.
    Measured(Measure),
    /// The published figures of the same measure.
    Published(Measure),
}

impl Column {
    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Column::Measured(measure) => measure.title(),
            Column::Published(_) => "paper",
        }
    }
}

/// The columns that hold a figure: each measure, and published figures directly after what they are compared with.
pub fn columns(rows: &[Row]) -> Vec<Column> {
    let of = |measure: Measure| {
        let measured = rows.iter().any(|row| row.mean(measure).is_some());
        let published = rows.iter().any(|row| row.variant.published(measure).is_some());
        // Accuracies stand there even if nothing could be measured.
        let published = published && (measured || measure == Measure::Linear);
        let measured = measured.then_some(Column::Measured(measure));
        measured.into_iter().chain(published.then_some(Column::Published(measure)))
    };
    Measure::ALL.into_iter().flat_map(of).collect()
}

/// The measure that variants are compared by: the linear one, as in the paper, or else the first that told anything.
pub fn main_measure(rows: &[Row]) -> Option<Measure> {
    let told = |measure: &Measure| rows.iter().any(|row| row.mean(*measure).is_some());
    Some(Measure::Linear).filter(told).or_else(|| Measure::ALL.iter().copied().find(told))
}

/// How much two variants may differ by chance alone, because of how few test images there are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Chance {
    /// Images that every variant was judged by.
    pub test_images: usize,
    /// A smaller difference of two accuracies, as a fraction, is within chance.
    pub difference: f64,
}

impl Chance {
    /// Of the accuracies by `measure`: half the 95% interval ([`wilson`]) of their mean, times the square root of 2,
    /// since either of the two that are compared may be off. It leaves out what another seed would change. Nothing
    /// where no variant was measured, or not by test images.
    pub fn of(rows: &[Row], measure: Measure, test_images: usize) -> Option<Chance> {
        let means: Vec<f64> = rows.iter().filter_map(|row| Some(row.mean(measure)?.mean)).collect();
        if means.is_empty() || test_images == 0 || measure == Measure::Contrastive {
            return None;
        }
        let mean = means.iter().sum::<f64>() / means.len() as f64;
        let [low, high] = wilson((mean * test_images as f64).round() as u64, test_images as u64);
        Some(Chance { test_images, difference: (high - low) / 2.0 * 2_f64.sqrt() })
    }
}

/// "24 test images: differences below about 24 points are within chance".
impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points = 100.0 * self.difference;
        // A tenth of a point counts only where there are thousands of images.
        let decimals = usize::from(points < 9.5);
        write!(
            f,
            "{}: differences below about {points:.decimals$} points are within chance",
            counted(self.test_images, "test image")
        )
    }
}

/// How far variants come out in the order of the figures beside them: "what matters is the order".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Order {
    /// Pairs of variants with different figures, both measured, and not the same here.
    pub pairs: usize,
    /// Those of them in the same order here.
    pub agreeing: usize,
    /// Pairs of variants with different figures that are exactly the same here: they tell nothing of the order.
    pub tied: usize,
}

impl Order {
    /// The agreement by `measure` with the figures [beside](Measure::published_counterpart) it; `None` if no two
    /// variants with different figures were measured.
    pub fn of(rows: &[Row], measure: Measure) -> Option<Order> {
        let figures = measure.published_counterpart();
        let known: Vec<(f64, f64)> = rows
            .iter()
            .filter_map(|row| Some((row.variant.published(figures)?, row.mean(measure)?.mean)))
            .collect();
        let mut order = Order { pairs: 0, agreeing: 0, tied: 0 };
        for (at, a) in known.iter().enumerate() {
            for b in known[..at].iter().filter(|b| b.0 != a.0) {
                let tied = a.1 == b.1;
                order.tied += usize::from(tied);
                order.pairs += usize::from(!tied);
                order.agreeing += usize::from(!tied && (a.0 > b.0) == (a.1 > b.1));
            }
        }
        (order.pairs + order.tied > 0).then_some(order)
    }
}

/// "8 of 12 pairs rank as in the paper (chance: 6); 3 pairs are tied".
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Order { pairs, agreeing, tied } = *self;
        let (rank, are) =
            (if pairs == 1 { "pair ranks" } else { "pairs rank" }, if tied == 1 { "is" } else { "are" });
        let ties = format!("{} {are} tied", counted(tied, "pair"));
        if pairs == 0 {
            return write!(f, "{ties}, and no other can be compared with the paper");
        }
        write!(f, "{agreeing} of {pairs} {rank} as in the paper (chance: {})", pairs as f64 / 2.0)?;
        if tied > 0 { write!(f, "; {ties}") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(variant: usize, seed: u64, knn: f64) -> Trial {
        Trial { variant, seed, scores: [Some(knn), None, None, None], failure: None }
    }

    #[test]
    fn seeds_become_means_and_pairs_an_order() {
        let study = Study::find("head").unwrap();
        let failed = Trial { failure: Some("diverged".to_owned()), scores: [None; 4], ..trial(0, 1, 0.0) };
        let trials = [trial(0, 0, 0.4), failed, trial(1, 0, 0.5), trial(1, 1, 0.6), trial(2, 0, 0.45)];
        let rows = rows(&study, &trials);
        assert_eq!(rows[0].failures, ["seed 1: diverged"]);
        let mean = rows[1].mean(Measure::Knn).unwrap();
        assert_eq!((mean.mean, mean.seeds), (0.55, 2));
        assert!((mean.deviation.unwrap() - 0.005_f64.sqrt()).abs() < 1e-12);
        assert_eq!(mean.to_string(), "55.0 ± 7.1%");
        assert_eq!(rows[0].mean(Measure::Knn).unwrap().to_string(), "40.0%");
        // None before linear before nonlinear in the paper; here the last two are the other way round.
        assert_eq!(Order::of(&rows, Measure::Knn), Some(Order { pairs: 3, agreeing: 2, tied: 0 }));
        let order = Order::of(&rows, Measure::Knn).unwrap();
        assert_eq!(order.to_string(), "2 of 3 pairs rank as in the paper (chance: 1.5)");
        assert_eq!(Order::of(&rows, Measure::Linear), None);
        // Ties tell nothing of the order, whether of the two or of all.
        let order = |scores: [f64; 3]| {
            let trials: Vec<Trial> = (0..3).map(|variant| trial(variant, 0, scores[variant])).collect();
            Order::of(&super::rows(&study, &trials), Measure::Knn).unwrap().to_string()
        };
        assert_eq!(order([0.4, 0.5, 0.5]), "2 of 2 pairs rank as in the paper (chance: 1); 1 pair is tied");
        assert_eq!(order([0.5; 3]), "3 pairs are tied, and no other can be compared with the paper");
        assert_eq!(main_measure(&rows), Some(Measure::Knn));
    }

    #[test]
    fn published_figures_stand_beside_what_they_are_of() {
        use Column::{Measured, Published};
        let study = Study::find("temperature").unwrap();
        // Table 5.
        let figures: Vec<f64> =
            study.variants.iter().filter_map(|it| it.published(Measure::Contrastive)).collect();
        assert_eq!(figures, [90.5, 87.8, 68.2, 59.1, 91.7, 92.1]);
        let found = |scores| columns(&rows(&study, &[Trial { scores, ..trial(0, 0, 0.0) }]));
        assert_eq!(
            found([Some(0.4), Some(0.5), None, Some(0.9)]),
            [
                Measured(Measure::Knn),
                Measured(Measure::Linear),
                Published(Measure::Linear),
                Measured(Measure::Contrastive),
                Published(Measure::Contrastive)
            ]
        );
        assert_eq!(found([None; 4]), [Published(Measure::Linear)]);
        // What was published of the two has opposite orders for accuracies and contrastive accuracies.
        let trial = |variant, score| Trial { scores: [Some(score); 4], ..trial(variant, 0, 0.0) };
        let order = |study: &Study| {
            let rows = rows(study, &[trial(0, 0.9), trial(1, 0.8)]);
            let agreeing =
                |measure: &Measure| Order::of(&rows, *measure).map(|order| (order.pairs, order.agreeing));
            Measure::ALL.iter().map(agreeing).collect::<Vec<_>>()
        };
        assert_eq!(order(&study), [Some((1, 0)), Some((1, 0)), Some((1, 0)), Some((1, 1))]);
        let head = Study::find("head").unwrap();
        assert_eq!(order(&head)[Measure::Contrastive as usize], None);
    }

    #[test]
    fn few_images_leave_much_to_chance() {
        let study = Study::find("head").unwrap();
        let rows = rows(&study, &[trial(0, 0, 0.25), trial(1, 0, 0.35)]);
        let chance = |images| Chance::of(&rows, Measure::Knn, images);
        // Half the interval of 7 of 24 by the formula in Python, times the square root of 2.
        assert!((chance(24).unwrap().difference - 0.242_206).abs() < 1e-6, "{:?}", chance(24));
        assert_eq!(
            [chance(24), chance(10_000)].map(|chance| chance.unwrap().to_string()),
            [
                "24 test images: differences below about 24 points are within chance",
                "10,000 test images: differences below about 1.3 points are within chance"
            ]
        );
        assert_eq!((chance(0), Chance::of(&rows, Measure::Linear, 24)), (None, None));
    }
}
