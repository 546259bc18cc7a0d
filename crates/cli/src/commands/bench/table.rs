//! Time per operator and pass, as rows of a table.

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use simclr_engine::{Cost, Profile, Shape, Work};

use crate::terminal;

/// The arguments that choose what is printed.
#[derive(Args, Clone, Copy, Debug)]
pub struct Output {
    /// Print only the time; the table takes two more rounds on a GPU, synchronised after each kernel
    #[arg(long, conflicts_with = "shapes")]
    pub quick: bool,

    /// Print one row of the table per shape, instead of one for all layers of a kind
    #[arg(long)]
    shapes: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,
}

impl Output {
    /// Whether there is a table.
    pub fn has_table(self, profile: &Profile) -> bool {
        !self.quick && !profile.costs().is_empty()
    }

    /// The rows of the table, if there is one.
    pub fn rows(self, profile: &Profile, scale: Scale) -> Vec<Row> {
        if self.has_table(profile) { rows(profile, scale, self.shapes) } else { Vec::new() }
    }
}

/// One kernel's share of a step.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    operator: String,
    pass: String,
    shape: String,
    calls: f64,
    seconds: f64,
    /// The share of the whole step's time.
    share: f64,
    /// `None` where there are no operations.
    gflops: Option<f64>,
    share_of_peak: Option<f64>,
    /// The bytes of the tensors read and written, divided by the time.
    gb_per_s: Option<f64>,
}

/// What the rows are measured against.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The number of steps measured.
    pub steps: f64,
    /// The seconds of all steps together.
    pub seconds: f64,
    /// The operations per second that the machine reaches.
    pub peak: f64,
}

/// Returns a row per kernel and shape or, if `detailed` is false, one for all layers of a kind. The last row is the
/// time that no kernel accounts for.
fn rows(profile: &Profile, scale: Scale, detailed: bool) -> Vec<Row> {
    let mut groups: Vec<(Work, String, Cost)> = Vec::new();
    for (work, cost) in profile.costs() {
        let shape = if detailed { work.shape.to_string() } else { work.shape.kind() };
        let known = groups.iter_mut().find(|(other, name, _)| {
            (other.operator, other.pass, name.as_str()) == (work.operator, work.pass, shape.as_str())
        });
        match known {
            Some((_, _, sum)) => *sum += cost,
            None => groups.push((work, shape, cost)),
        }
    }
    let counted: f64 = groups.iter().map(|(_, _, cost)| cost.time.as_secs_f64()).sum();
    let rest = Cost {
        time: std::time::Duration::from_secs_f64((scale.seconds - counted).max(0.0)),
        ..Cost::default()
    };
    let other = Work { operator: "everything else", pass: "", shape: Shape::Any };
    groups.push((other, String::new(), rest));
    groups.into_iter().map(|(work, shape, cost)| Row::new(work, shape, cost, scale)).collect()
}

/// The least seconds of a step, if each kernel does its operations at the peak or moves its bytes at `bandwidth` per
/// second, whichever takes longer.
pub fn floor(profile: &Profile, scale: Scale, bandwidth: f64) -> f64 {
    let least = |cost: &Cost| (cost.flops as f64 / scale.peak).max(cost.bytes as f64 / bandwidth);
    profile.costs().iter().map(|(_, cost)| least(cost)).sum::<f64>() / scale.steps
}

impl Row {
    /// Whether the kernel did more operations per second than the machine was seen to reach.
    pub fn is_above_peak(&self) -> bool {
        self.share_of_peak.is_some_and(|share| share > 1.0)
    }

    fn new(work: Work, shape: String, cost: Cost, scale: Scale) -> Row {
        let seconds = cost.time.as_secs_f64();
        let rate = |count: u64| (count > 0 && seconds > 0.0).then(|| count as f64 / seconds);
        let flops = rate(cost.flops);
        Row {
            operator: work.operator.to_owned(),
            pass: work.pass.to_owned(),
            shape,
            calls: cost.calls as f64 / scale.steps,
            seconds: seconds / scale.steps,
            share: seconds / scale.seconds,
            gflops: flops.map(|flops| flops / 1e9),
            share_of_peak: flops.map(|flops| flops / scale.peak),
            gb_per_s: rate(cost.bytes).map(|bytes| bytes / 1e9),
        }
    }
}

/// Prints the table, if there is one.
pub fn print(rows: &[Row]) -> Result<()> {
    if !rows.is_empty() {
        for line in text(rows) {
            terminal::print(&line)?;
        }
    }
    Ok(())
}

/// The rows as text, columns aligned.
fn text(rows: &[Row]) -> Vec<String> {
    let wide = |cell: fn(&Row) -> &str, least: usize| {
        rows.iter().map(|row| cell(row).len()).max().unwrap_or(0).max(least)
    };
    let operator = wide(|row| &row.operator, "operator".len());
    let shape = wide(|row| &row.shape, "shape".len());
    let pass = wide(|row| &row.pass, "pass".len());
    let head = format!(
        "{:operator$}  {:shape$}  {:pass$}  {:>5}  {:>8}  {:>6}  {:>7}  {:>7}  {:>6}",
        "operator", "shape", "pass", "calls", "ms", "share", "GFLOP/s", "of peak", "GB/s"
    );
    let number = |value: Option<f64>, digits: usize| value.map_or(String::new(), |v| format!("{v:.digits$}"));
    let lines = rows.iter().map(|row| {
        let line = format!(
            "{:operator$}  {:shape$}  {:pass$}  {:>5}  {:>8.2}  {:>6}  {:>7}  {:>7}  {:>6}",
            row.operator,
            row.shape,
            row.pass,
            number(Some(row.calls).filter(|&calls| calls > 0.0), 0),
            1e3 * row.seconds,
            terminal::percent(row.share),
            number(row.gflops, 0),
            row.share_of_peak.map_or(String::new(), terminal::percent),
            number(row.gb_per_s, 1),
        );
        line.trim_end().to_owned()
    });
    std::iter::once(head).chain(lines).collect()
}
