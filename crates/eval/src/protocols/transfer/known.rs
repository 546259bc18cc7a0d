//! The twelve data sets of the paper's transfer study, with their metrics and the paper's results.

use super::Protocol;
use crate::Metric;

/// The network of the paper's results.
pub const PAPERS_NETWORK: &str = "ResNet-50 (4x) trained on ImageNet";

/// A data set that a suite may name without giving its metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Its name in a suite.
    pub name: &'static str,
    /// Its name in the paper.
    pub title: &'static str,
    /// The number of classes.
    pub classes: usize,
    /// The metric that judges it.
    pub metric: Metric,
    /// The results of [`PAPERS_NETWORK`], as fractions: with a linear classifier, fine-tuned, and trained from
    /// scratch.
    paper: [f64; 3],
    /// Those of the same network trained on ImageNet's labels: with a linear classifier, and fine-tuned.
    supervised: [f64; 2],
}

const fn known(
    name: &'static str,
    title: &'static str,
    classes: usize,
    metric: Metric,
    (paper, supervised): ([f64; 3], [f64; 2]),
) -> Known {
    Known { name, title, classes, metric, paper, supervised }
}

/// Metrics: arXiv:2002.05709, B.8; results: its table 8. Classes: arXiv:1805.08974, table 1, which counts the
/// background class of Caltech-101.
pub const KNOWN: [Known; 12] = [
    known("food101", "Food-101", 101, Metric::Top1, ([0.769, 0.894, 0.883], [0.752, 0.887])),
    known("cifar10", "CIFAR-10", 10, Metric::Top1, ([0.953, 0.986, 0.960], [0.957, 0.983])),
    known("cifar100", "CIFAR-100", 100, Metric::Top1, ([0.802, 0.890, 0.819], [0.812, 0.887])),
    known("birdsnap", "Birdsnap", 500, Metric::Top1, ([0.484, 0.782, 0.770], [0.564, 0.778])),
    known("sun397", "SUN397", 397, Metric::Top1, ([0.659, 0.681, 0.537], [0.649, 0.670])),
    known("cars", "Stanford Cars", 196, Metric::Top1, ([0.600, 0.921, 0.913], [0.688, 0.914])),
    known("aircraft", "FGVC Aircraft", 100, Metric::MeanPerClass, ([0.612, 0.870, 0.848], [0.638, 0.880])),
    known("voc2007", "PASCAL VOC2007", 20, Metric::ElevenPointMap, ([0.842, 0.866, 0.694], [0.838, 0.865])),
    known("dtd", "DTD", 47, Metric::Top1, ([0.789, 0.778, 0.641], [0.787, 0.788])),
    known("pets", "Oxford-IIIT Pets", 37, Metric::MeanPerClass, ([0.892, 0.921, 0.827], [0.923, 0.932])),
    known("caltech101", "Caltech-101", 102, Metric::MeanPerClass, ([0.939, 0.941, 0.725], [0.941, 0.942])),
    known(
        "flowers102",
        "Oxford Flowers-102",
        102,
        Metric::MeanPerClass,
        ([0.950, 0.976, 0.925], [0.942, 0.980]),
    ),
];

impl Known {
    /// The data set of that name; whether the images are the same is not known.
    pub fn of(name: &str) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// Whether a data set of `classes` classes can be this one; Caltech-101 may come without its background class.
    pub fn has(&self, classes: usize) -> bool {
        classes == self.classes || (self.name == "caltech101" && classes == 101)
    }

    /// The result of the paper's network, as a fraction.
    pub fn paper(&self, protocol: Protocol) -> f64 {
        let [linear, fine_tuned, scratch] = self.paper;
        match protocol {
            Protocol::Linear => linear,
            Protocol::FineTune => fine_tuned,
            Protocol::Scratch => scratch,
        }
    }

    /// The result of the same network after supervised training; there is none from scratch.
    pub fn supervised(&self, protocol: Protocol) -> Option<f64> {
        let [linear, fine_tuned] = self.supervised;
        match protocol {
            Protocol::Linear => Some(linear),
            Protocol::FineTune => Some(fine_tuned),
            Protocol::Scratch => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(figure: impl Fn(&Known) -> Option<f64>) -> String {
        let figures = KNOWN.iter().filter_map(|known| Some(format!("{:.1}", 100.0 * figure(known)?)));
        figures.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_papers_figures() {
        // Table 8, in per cent, in the order of the table.
        for (protocol, row) in [
            (Protocol::Linear, "76.9 95.3 80.2 48.4 65.9 60.0 61.2 84.2 78.9 89.2 93.9 95.0"),
            (Protocol::FineTune, "89.4 98.6 89.0 78.2 68.1 92.1 87.0 86.6 77.8 92.1 94.1 97.6"),
            (Protocol::Scratch, "88.3 96.0 81.9 77.0 53.7 91.3 84.8 69.4 64.1 82.7 72.5 92.5"),
        ] {
            assert_eq!(row_of(|known| Some(known.paper(protocol))), row, "{protocol:?}");
        }
        for (protocol, row) in [
            (Protocol::Linear, "75.2 95.7 81.2 56.4 64.9 68.8 63.8 83.8 78.7 92.3 94.1 94.2"),
            (Protocol::FineTune, "88.7 98.3 88.7 77.8 67.0 91.4 88.0 86.5 78.8 93.2 94.2 98.0"),
            (Protocol::Scratch, ""),
        ] {
            assert_eq!(row_of(|known| known.supervised(protocol)), row, "supervised, {protocol:?}");
        }
    }

    #[test]
    fn the_papers_metrics() {
        let of = |metric| KNOWN.iter().filter(move |known| known.metric == metric).map(|known| known.name);
        assert!(of(Metric::MeanPerClass).eq(["aircraft", "pets", "caltech101", "flowers102"]));
        assert!(of(Metric::ElevenPointMap).eq(["voc2007"]));
        assert_eq!(of(Metric::Top1).count(), 7);
    }
}
