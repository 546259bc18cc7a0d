//! What a run folder is made of.

use std::path::{Path, PathBuf};

use simclr_data::unfinished;

use crate::tensorboard::EVENTS;

/// The file that makes a folder a run.
pub(crate) const MARKER: &str = "run.toml";
/// The key in it that says which file a network was imported from.
pub(super) const IMPORTED: &str = "imported";
pub(super) const CONFIG: &str = "config.toml";
pub(super) const LOCK: &str = "lock";
pub(super) const METRICS: &str = "metrics.jsonl";
pub(super) const CHECKPOINTS: &str = "checkpoints";
pub(super) const EVALUATION: &str = "evaluation";
pub(super) const INDEX: &str = "data.index";
pub(super) const CACHE: &str = "data.cache";
pub(super) const FAILURE: &str = "failure.json";
pub(super) const SKIPPED: &str = "skipped.jsonl";
/// The file of the report.
pub const REPORT: &str = "report.html";
/// The file of the encoder's weights alone.
pub const ENCODER: &str = "encoder.safetensors";
/// The file of the encoder's graph.
pub const ENCODER_ONNX: &str = "encoder.onnx";

/// What a run folder may hold beside [`EVENTS`], in the order in which it is removed: while it is a run, it can be
/// removed again.
pub(super) const PARTS: [&str; 13] = [
    METRICS,
    CHECKPOINTS,
    EVALUATION,
    INDEX,
    CACHE,
    FAILURE,
    SKIPPED,
    REPORT,
    ENCODER,
    ENCODER_ONNX,
    CONFIG,
    MARKER,
    LOCK,
];

/// The file that is the result of an evaluation protocol, in the folder of these.
pub fn result_file(folder: &Path, protocol: &str) -> PathBuf {
    folder.join(format!("{protocol}.json"))
}

/// When an entry of a run folder is removed, or nothing for one that is not of a run.
pub(super) fn place_of(name: &str) -> Option<usize> {
    let whole = unfinished(name).map_or(name, |(whole, _)| whole);
    if whole.starts_with(EVENTS) { Some(0) } else { PARTS.iter().position(|&part| part == whole) }
}
