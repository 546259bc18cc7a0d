//! Which series of a run go on which chart.

use super::History;
use super::chart::{Chart, Series};
use super::history::Kind;
use Kind::{Epoch, Step};

/// How values are shown.
#[derive(Clone, Copy)]
enum Scale {
    /// Fractions, as percentages from 0.
    Percent,
    /// From 0.
    Zero,
    /// Around the values.
    Free,
}

/// Title, note, scale, and the lines: name, records, key.
type Curve = (&'static str, &'static str, Scale, &'static [(&'static str, Kind, &'static str)]);

const CURVES: &[Curve] = &[
    ("Loss", "of the training batches, lower is better", Scale::Free, &[("", Step, "loss")]),
    (
        "Contrastive accuracy",
        "the other view of the image ranked first",
        Scale::Percent,
        &[("training", Step, "contrastive_accuracy"), ("held out", Epoch, "holdout_contrastive_accuracy")],
    ),
    ("kNN accuracy", "on labelled images, while training", Scale::Percent, &[("", Epoch, "knn_top1")]),
    (
        "Effective rank",
        "RankMe of features h and projections z",
        Scale::Zero,
        &[("h", Epoch, "rank_me_h"), ("z", Epoch, "rank_me_z")],
    ),
    ("Alignment", "distance of the two views, lower is closer", Scale::Zero, &[("", Epoch, "alignment")]),
    ("Uniformity", "lower is more evenly spread", Scale::Free, &[("", Epoch, "uniformity")]),
    ("Spread of z", "falls to 0 on collapse", Scale::Zero, &[("", Epoch, "spread")]),
    ("Entropy", "of the softmax over the other views, nats", Scale::Free, &[("", Step, "entropy")]),
    ("Learning rate", "", Scale::Zero, &[("", Step, "rate")]),
    ("Gradient norm", "", Scale::Zero, &[("", Step, "gradient_norm")]),
    ("Weight norm", "", Scale::Free, &[("", Step, "weight_norm")]),
    ("Speed", "views a second", Scale::Zero, &[("", Step, "views_per_s")]),
];

/// All charts that have something to show.
pub(super) fn section(history: &History) -> String {
    let charts: String = CURVES.iter().map(|curve| chart(history, curve).render()).collect();
    if charts.is_empty() {
        return String::new();
    }
    format!("<section>\n<h2>Training</h2>\n<div class=\"charts\">\n{charts}</div>\n</section>\n")
}

fn chart(history: &History, &(title, note, scale, lines): &Curve) -> Chart {
    let series = (lines.iter())
        .map(|&(name, kind, key)| Series { name: name.to_owned(), points: history.series(kind, key) })
        .collect();
    Chart {
        title: title.to_owned(),
        note: note.to_owned(),
        series,
        percent: matches!(scale, Scale::Percent),
        from_zero: matches!(scale, Scale::Percent | Scale::Zero),
    }
}
