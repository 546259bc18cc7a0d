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

/// A line: name, records, key.
type Line = (&'static str, Kind, &'static str);

/// Title, note, scale, and the lines.
type Curve = (&'static str, &'static str, Scale, &'static [Line]);

/// Of keys of steps, the keys of epochs that hold their means.
const MEANS: [(&str, &str); 2] =
    [("loss", "train_loss"), ("contrastive_accuracy", "train_contrastive_accuracy")];

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
    let last = |key| history.series(Epoch, key).last().copied();
    let mean = |&(_, kind, key): &Line| {
        let mean = MEANS.iter().find(|(of, _)| kind == Step && *of == key);
        mean.and_then(|&(_, mean)| last(mean))
    };
    // That dot is not on the noisy line.
    let note = match lines.iter().find(|line| mean(line).is_some()) {
        Some(("", ..)) => format!("{note}; the last dot is the mean of the last epoch"),
        Some((name, ..)) => format!("{note}; the last dot of {name} is the mean of the last epoch"),
        None => note.to_owned(),
    };
    let series = |line: &Line| {
        let &(name, kind, key) = line;
        // What of epochs is drawn is averaged only where there are many.
        let end = if kind == Epoch { last(key) } else { mean(line) };
        Series { name: name.to_owned(), points: history.series(kind, key), end }
    };
    Chart {
        title: title.to_owned(),
        note,
        series: lines.iter().map(series).collect(),
        percent: matches!(scale, Scale::Percent),
        from_zero: matches!(scale, Scale::Percent | Scale::Zero),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noisy_lines_end_at_the_mean_of_the_last_epoch() {
        let mut log: String = (0..450)
            .map(|step| {
                let (epoch, accuracy) = (f64::from(step + 1) / 45.0, f64::from(step % 2));
                format!("{{\"kind\":\"step\",\"step\":{step},\"epoch\":{epoch},\"contrastive_accuracy\":{accuracy},\"rate\":0.5}}\n")
            })
            .collect();
        log += "{\"kind\":\"epoch\",\"epoch\":10,\"train_contrastive_accuracy\":0.261}\n";
        let page = section(&History::parse(log.as_bytes()));
        assert!(page.contains(">26.1%</text>") && page.contains("training, epoch 10: 26.1%"), "{page}");
        let note = "ranked first; the last dot of training is the mean of the last epoch</span>";
        assert!(page.contains(note) && page.matches("the last dot").count() == 1, "{page}");
        // Before an epoch has ended there is no mean.
        let begun = section(&History::parse(log.lines().next().unwrap().as_bytes()));
        assert!(begun.contains("ranked first</span>"), "{begun}");
        // Other keys have no means.
        assert!(page.contains("<title>epoch 9.96: 0.5</title>"), "{page}");
    }
}
