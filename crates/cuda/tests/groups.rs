//! Exchange between GPUs, or between stand-ins for them.

#![cfg(feature = "cuda")]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, scope};
use std::time::Duration;

use simclr_cuda::{Communicator, Device, DeviceBuffer, GROUP_ID};

/// Two GPUs, if the machine or the stand-in has them.
fn gpus() -> Option<[Device; 2]> {
    let libraries = simclr_stand_in::libraries_for_two_gpus()?;
    Some([0, 1].map(|ordinal| Device::open_with(ordinal, &libraries, None).unwrap()))
}

/// Runs `work` on both GPUs concurrently, each with its rank and its communicator.
fn on_both<R: Send>(gpus: &[Device; 2], work: impl Fn(usize, &Device, Communicator) -> R + Sync) -> Vec<R> {
    let group = gpus[0].new_group().unwrap();
    assert_ne!(group, [0; GROUP_ID]);
    scope(|scope| {
        let run = |rank: usize| {
            let work = &work;
            move || work(rank, &gpus[rank], gpus[rank].join_group(group, rank, 2).unwrap())
        };
        let both = [0, 1].map(|rank| scope.spawn(run(rank)));
        both.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn sums_and_gathers_are_of_all_also_in_a_captured_step() {
    let Some(gpus) = gpus() else { return };
    assert_ne!(gpus[0].uuid().unwrap(), gpus[1].uuid().unwrap());
    let found = on_both(&gpus, |rank, gpu, communicator| {
        let r = rank as f32 + 1.0;
        let mut single: DeviceBuffer<f32> = gpu.buffer_of(&[r, 10.0 * r, 0.5]).unwrap();
        let mut double: DeviceBuffer<f64> = gpu.buffer_of(&[1e-9 * f64::from(r)]).unwrap();
        let own: DeviceBuffer<f32> = gpu.buffer_of(&[r, -r]).unwrap();
        let mut all: DeviceBuffer<f32> = gpu.zeros(4).unwrap();
        let graph = gpu
            .capture(|| {
                communicator.exchange(|exchange| {
                    exchange.all_reduce(single.write())?;
                    exchange.all_reduce(double.write())?;
                    exchange.all_gather(own.read(), all.write())
                })
            })
            .unwrap();
        // The step ran once before it was captured, and now runs twice more.
        graph.replay().unwrap();
        graph.replay().unwrap();
        let wrong = communicator.exchange(|exchange| exchange.all_gather(all.read(), single.write()));
        assert!(wrong.unwrap_err().to_string().contains("4 values of each of 2 GPUs into 3"));
        (
            gpu.values(single.read()).unwrap(),
            gpu.values(double.read()).unwrap(),
            gpu.values(all.read()).unwrap(),
        )
    });
    assert_eq!(found[0], (vec![12.0, 120.0, 4.0], vec![4.0 * (1e-9 + 2e-9)], vec![1.0, -1.0, 2.0, -2.0]));
    assert_eq!(found[0], found[1]);
}

#[test]
fn who_waits_for_one_that_has_gone_is_freed() {
    let Some(gpus) = gpus() else { return };
    let (met, freed) = (Barrier::new(2), AtomicBool::new(false));
    on_both(&gpus, |rank, gpu, communicator| {
        let mut values: DeviceBuffer<f32> = gpu.buffer_of(&[1.0; 5]).unwrap();
        met.wait();
        if rank == 1 {
            return communicator.leave();
        }
        scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(200));
                assert!(!freed.load(Ordering::Relaxed), "nobody has come");
                communicator.leave();
            });
            communicator.exchange(|exchange| exchange.all_reduce(values.write())).unwrap();
            gpu.synchronize().unwrap();
            freed.store(true, Ordering::Relaxed);
        });
        assert!(communicator.has_left());
        let again = communicator.exchange(|exchange| exchange.all_reduce(values.write()));
        assert!(again.unwrap_err().to_string().contains("a worker has gone"));
    });
}

#[test]
fn a_group_is_left_also_while_an_exchange_does_not_come_to_an_end() {
    let Some(gpus) = gpus() else { return };
    on_both(&gpus, |rank, _, communicator| {
        if rank == 1 {
            return;
        }
        let (begun, left) = (Barrier::new(2), Barrier::new(2));
        scope(|scope| {
            // As where NCCL waits for a worker that has gone without a word.
            let waits = scope.spawn(|| {
                communicator.exchange(|_| {
                    begun.wait();
                    left.wait();
                    Ok(())
                })
            });
            begun.wait();
            communicator.leave();
            left.wait();
            let _ = waits.join().unwrap();
        });
        let again = communicator.exchange(|_| Ok(())).unwrap_err().to_string();
        assert!(again.contains("the group was left"), "{again}");
    });
}
