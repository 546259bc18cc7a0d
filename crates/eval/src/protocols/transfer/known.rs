//! The twelve data sets of the paper's transfer study: what judges each, and what the paper reached.

use super::Protocol;
use crate::Metric;

/// The network of the paper's figures.
pub const PAPERS_NETWORK: &str = "ResNet-50 (4x) trained on ImageNet";

/// A data set that a suite may name without saying its metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// As a suite names it.
    pub name: &'static str,
    /// As the paper names it.
    pub title: &'static str,
    /// What judges it.
    pub metric: Metric,
    /// What [`PAPERS_NETWORK`] reached, as a fraction: with a linear classifier.
    linear: f64,
}

const fn known(name: &'static str, title: &'static str, metric: Metric, linear: f64) -> Known {
    Known { name, title, metric, linear }
}

/// Metrics: arXiv:2002.05709, B.8; figures: its table 8.
pub const KNOWN: [Known; 12] = [
    known("food101", "Food-101", Metric::Top1, 0.769),
    known("cifar10", "CIFAR-10", Metric::Top1, 0.953),
    known("cifar100", "CIFAR-100", Metric::Top1, 0.802),
    known("birdsnap", "Birdsnap", Metric::Top1, 0.484),
    known("sun397", "SUN397", Metric::Top1, 0.659),
    known("cars", "Stanford Cars", Metric::Top1, 0.600),
    known("aircraft", "FGVC Aircraft", Metric::MeanPerClass, 0.612),
    known("voc2007", "PASCAL VOC2007", Metric::ElevenPointMap, 0.842),
    known("dtd", "DTD", Metric::Top1, 0.789),
    known("pets", "Oxford-IIIT Pets", Metric::MeanPerClass, 0.892),
    known("caltech101", "Caltech-101", Metric::MeanPerClass, 0.939),
    known("flowers102", "Oxford Flowers-102", Metric::MeanPerClass, 0.950),
];

impl Known {
    /// That of a name.
    pub fn of(name: &str) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.name == name)
    }

    /// What the paper's network reached, as a fraction.
    pub fn paper(&self, protocol: Protocol) -> f64 {
        match protocol {
            Protocol::Linear => self.linear,
        }
    }
}
