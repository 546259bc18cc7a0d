//! A run that waits for its images stops when it is asked to.

mod common;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::Disturbed;
use simclr_data::{Dataset, Synthetic};
use simclr_engine::Device;
use simclr_train::pretrain::{Observer, StepRecord, pretrain};
use simclr_train::run_folder::RunFolder;

/// Images of which most cannot be had before the run is asked to stop.
fn slow(images: Synthetic, asked: Arc<AtomicBool>) -> Arc<dyn Dataset> {
    let read = AtomicU64::new(0);
    let before = move |_| {
        // In the end it goes on, so that a run that does not stop ends as well.
        let start = Instant::now();
        let is_late = read.fetch_add(1, Ordering::Relaxed) >= 80;
        while is_late && !asked.load(Ordering::Relaxed) && start.elapsed() < Duration::from_secs(30) {
            sleep(Duration::from_millis(5));
        }
        Ok(())
    };
    Arc::new(Disturbed { images, before })
}

/// Asks to stop once it is asked for the tenth time since a step: more often than a step alone asks.
struct Impatient {
    questions: Cell<u32>,
    asked: Arc<AtomicBool>,
    steps: u64,
}

impl Observer for Impatient {
    fn step(&mut self, record: &StepRecord) {
        self.questions.set(0);
        self.steps = record.step;
    }

    fn stop(&self) -> bool {
        self.questions.set(self.questions.get() + 1);
        let stops = self.questions.get() >= 10;
        self.asked.fetch_or(stops, Ordering::Relaxed);
        stops
    }
}

#[test]
fn a_stop_does_not_wait_for_images() {
    let folder = tempfile::tempdir().unwrap();
    let config = common::usual(&["data.cache=none", "data.holdout=0"], &[]);
    let asked = Arc::new(AtomicBool::new(false));
    let images = slow(Synthetic::new(160, 16, 0), asked.clone());
    let run = RunFolder::create(folder.path(), &config).unwrap();
    let mut observer = Impatient { questions: Cell::new(0), asked: asked.clone(), steps: 0 };
    let outcome = pretrain(&images, &config, &run, None, &Device::cpu(1).unwrap(), &mut observer).unwrap();
    assert!(asked.load(Ordering::Relaxed) && !outcome.finished);
    assert!((1..=5).contains(&outcome.step) && outcome.step == observer.steps, "{outcome:?}");
    assert_eq!(run.checkpoints(1).latest_good().unwrap().unwrap().checkpoint.meta.step, outcome.step);
}
