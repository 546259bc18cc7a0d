//! A GPU for tests, or its stand-in.

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use simclr_engine::{Device, Result};
use simclr_stand_in::Libraries;

/// A device, for one test at a time: while a step is captured, no other test of the process may synchronise.
pub type Alone = (Device, MutexGuard<'static, ()>);

/// The machine's GPU, with the kernel choices remembered from earlier runs, or its stand-in; `None`, with a message, if
/// there is neither.
#[allow(dead_code, reason = "not every test that includes this uses it")]
pub fn gpu(threads: usize) -> Option<Alone> {
    either(threads, || Device::cuda(0, threads))
}

/// [`gpu`] without any remembered kernel choices, and without remembering new ones.
#[allow(dead_code, reason = "not every test that includes this uses it")]
pub fn gpu_without_memories(threads: usize) -> Option<Alone> {
    either(threads, || Device::cuda_with(&Libraries::find(), 0, threads))
}

fn either(threads: usize, own: impl FnOnce() -> Result<Device>) -> Option<Alone> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let say = |what: &str| drop(writeln!(std::io::stderr(), "SKIPPED {what}"));
    let gpu = own().map_err(|missing| say(&format!("on a GPU: {missing}"))).ok().or_else(|| {
        simclr_stand_in::libraries().map(|libraries| Device::cuda_with(&libraries, 0, threads).unwrap())
    });
    if gpu.is_none() {
        say("on the stand-in for a GPU: it needs a C++ compiler");
    }
    gpu.map(|gpu| (gpu, alone))
}
