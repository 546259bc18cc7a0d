//! A GPU that fails in the middle of a run: a process of its own, since it stays so.

#![cfg(feature = "cuda")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::run_in;
use simclr_data::{Dataset, Synthetic};
use simclr_engine::Device;
use simclr_stand_in::Libraries;
use simclr_train::pretrain::{Observer, StepRecord, pretrain};

/// Lets the GPU fail after some steps.
struct Breaks {
    libraries: Libraries,
    after: u64,
    warnings: Vec<String>,
    rescued: Vec<PathBuf>,
}

impl Observer for Breaks {
    fn step(&mut self, record: &StepRecord) {
        if record.step == self.after {
            simclr_stand_in::fail(&self.libraries);
        }
    }

    fn warn(&mut self, message: &str) {
        self.warnings.push(message.to_owned());
    }

    fn rescued(&mut self, checkpoint: &Path, _: u64) {
        self.rescued.push(checkpoint.to_owned());
    }
}

#[test]
fn the_checkpoint_before_a_gpu_fails_is_told() {
    let Some(libraries) = simclr_stand_in::libraries() else { return };
    let device = Device::cuda_with(&libraries, 0, 2).unwrap();
    let own = ["data.image_size=8", "data.holdout=0", "train.precision=f32", "train.checkpoint_every=2"];
    let config = common::usual(&own, &[]);
    let folder = tempfile::tempdir().unwrap();
    let run = run_in(folder.path(), &config, None).unwrap();
    let images: Arc<dyn Dataset> = Arc::new(Synthetic::new(70, 8, 0));
    let mut watch = Breaks { libraries, after: 3, warnings: Vec::new(), rescued: Vec::new() };
    let error = pretrain(&images, &config, &run, None, &device, &mut watch).unwrap_err().to_string();
    assert!(error.contains("lines with Xid in dmesg"), "{error}");
    assert_eq!(watch.rescued, [run.checkpoints(1).path(2)]);
    // Nothing is remembered on this device, which is said.
    assert!(watch.warnings.iter().any(|warning| warning.contains("XDG_CACHE_HOME")), "{:?}", watch.warnings);
}
