//! Exchange of tensors between GPUs, or between stand-ins for them: sums, gathers, and a worker that never comes.

#![cfg(feature = "cuda")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use simclr_engine::{Collective, DType, Device, Result, Tensor, ThreadGroup, between_gpus};

/// Workers of one process, with a flag that tells them that another has gone.
struct Watched {
    group: ThreadGroup,
    gone: Arc<AtomicBool>,
}

impl Collective for Watched {
    fn rank(&self) -> usize {
        self.group.rank()
    }

    fn size(&self) -> usize {
        self.group.size()
    }

    fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.group.exchange(own)
    }

    fn gone(&self) -> Option<Arc<AtomicBool>> {
        Some(self.gone.clone())
    }
}

fn gpus() -> Option<[Device; 2]> {
    let libraries = simclr_stand_in::libraries_for_two_gpus()?;
    Some([0, 1].map(|ordinal| Device::cuda_with(&libraries, ordinal, 1).unwrap()))
}

#[test]
fn tensors_are_exchanged_and_who_never_comes_is_given_up() {
    let Some(gpus) = gpus() else { return };
    let gone = Arc::new(AtomicBool::new(false));
    scope(|scope| {
        for (group, gpu) in ThreadGroup::new(2).into_iter().zip(&gpus) {
            let host = Watched { group, gone: gone.clone() };
            let gone = &gone;
            scope.spawn(move || {
                let between = between_gpus(&host, gpu).unwrap().expect("two workers on GPUs");
                let rank = between.rank() as f32;
                let mut single = Tensor::from_slice(gpu, &[3], &[rank, 1.0, -2.5]).unwrap();
                let (shared, own) = (single.clone(), Tensor::from_slice(gpu, &[1, 2], &[rank, 7.0]).unwrap());
                let mut double = Tensor::empty_of(gpu, &[2], DType::F64);
                double.write(&[1e-3, f64::from(rank)]).unwrap();
                between.all_reduce_tensors(&mut [&mut single, &mut double].into_iter()).unwrap();
                let mut all = Tensor::empty(gpu, &[2, 2]);
                between.all_gather_tensor(&own, &mut all).unwrap();
                assert_eq!(single.to_vec().unwrap(), [1.0, 2.0, -5.0]);
                assert_eq!(shared.to_vec().unwrap(), [rank, 1.0, -2.5], "clones keep their values");
                let mut sums = [0.0; 2];
                double.read(&mut sums).unwrap();
                assert_eq!(sums, [2e-3, 1.0]);
                assert_eq!(all.to_vec().unwrap(), [0.0, 7.0, 1.0, 7.0]);
                between.check().unwrap();

                if rank == 1.0 {
                    sleep(Duration::from_millis(300));
                    gone.store(true, Ordering::Relaxed);
                    return;
                }
                between.all_reduce_tensors(&mut std::iter::once(&mut single)).unwrap();
                gpu.synchronize().unwrap();
                assert!(gone.load(Ordering::Relaxed), "the exchange ended although no other worker came");
                let told = between.check().unwrap_err().to_string();
                assert!(told.contains("another worker has stopped"), "{told}");
            });
        }
    });
}

#[test]
fn what_is_no_gpu_or_alone_exchanges_as_before() {
    let cpu = Device::cpu(1).unwrap();
    let mut group = ThreadGroup::new(2);
    assert!(between_gpus(&group.pop().unwrap(), &cpu).unwrap().is_none());
    let Some([gpu, _]) = gpus() else { return };
    assert!(between_gpus(&simclr_engine::SingleProcess, &gpu).unwrap().is_none());
}
