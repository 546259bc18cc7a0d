//! The files and folders in a run folder.

use std::path::{Path, PathBuf};

use simclr_data::unfinished;

use crate::tensorboard::EVENTS;

/// The file that makes a folder a run.
pub(crate) const MARKER: &str = "run.toml";
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
/// The same files, of the best checkpoint.
pub const BEST_ENCODER: &str = "encoder-best.safetensors";
/// See [`BEST_ENCODER`].
pub const BEST_ENCODER_ONNX: &str = "encoder-best.onnx";

/// What a run folder may hold besides [`EVENTS`], in the order of removal. The files that make it a run come late, so
/// that an interrupted removal can be repeated.
pub(super) const PARTS: [&str; 15] = [
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
    BEST_ENCODER,
    BEST_ENCODER_ONNX,
    CONFIG,
    MARKER,
    LOCK,
];

/// The result file of an evaluation protocol in the results folder `folder`.
pub fn result_file(folder: &Path, protocol: &str) -> PathBuf {
    folder.join(format!("{protocol}.json"))
}

/// The place of an entry in the order of removal, or `None` if it does not belong to a run.
pub(super) fn place_of(name: &str) -> Option<usize> {
    let whole = unfinished(name).map_or(name, |(whole, _)| whole);
    if whole.starts_with(EVENTS) { Some(0) } else { PARTS.iter().position(|&part| part == whole) }
}
