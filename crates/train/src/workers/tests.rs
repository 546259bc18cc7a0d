use std::io::Write;
use std::net::TcpStream;
use std::thread::{scope, spawn};
use std::time::Duration;

use super::*;
use crate::TrainError;

fn wait(check: &mut dyn FnMut() -> std::result::Result<(), TrainError>) -> Wait<'_> {
    Wait { timeout: Duration::from_secs(30), check }
}

/// Runs `work` with `size` workers of this process, each in its own thread, and returns the results by rank.
fn together<R: Send>(size: usize, work: impl Fn(Workers) -> R + Sync) -> Vec<R> {
    let host = Host::listen("127.0.0.1:0").unwrap();
    let address = host.address().unwrap().to_string();
    scope(|scope| {
        let (work, address) = (&work, &address);
        let others: Vec<_> = (1..size)
            .map(|rank| {
                scope.spawn(move || work(Workers::join(rank, size, address, wait(&mut || Ok(()))).unwrap()))
            })
            .collect();
        let first = work(host.meet(size, wait(&mut || Ok(()))).unwrap());
        std::iter::once(first).chain(others.into_iter().map(|other| other.join().unwrap())).collect()
    })
}

/// Values that are not round numbers, different for each worker.
fn values(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|i| ((i * 7 + rank * 13) as f32).sin() / (1 + rank) as f32).collect()
}

#[test]
fn sums_are_those_of_threads_bit_for_bit() {
    // Below and above the size from which sums are cut into pieces; lengths that do not divide.
    for (size, length) in [(2, 5), (3, 8191), (3, 8195), (4, 100_003)] {
        let expected: Vec<u32> = {
            let mut sums = vec![0f64; length];
            (0..size).for_each(|rank| {
                sums.iter_mut().zip(values(rank, length)).for_each(|(sum, v)| *sum += f64::from(v))
            });
            sums.into_iter().map(|sum| (sum as f32).to_bits()).collect()
        };
        let sums = together(size, |workers| {
            assert_eq!((workers.size(), workers.local_size()), (size, size));
            let mut own = values(workers.rank(), length);
            workers.all_reduce_sum_f32(&mut own).unwrap();
            let mut few = [workers.rank() as f64, 0.25];
            workers.all_reduce_sum(&mut few).unwrap();
            assert_eq!(few, [(size * (size - 1) / 2) as f64, size as f64 / 4.0]);
            own.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        });
        assert!(sums.iter().all(|sums| *sums == expected), "{size} workers, {length} values");
    }
}

#[test]
fn gathers_have_the_order_of_ranks_and_exchanges_any_length() {
    let gathered = together(3, |workers| {
        let mut all = vec![0.0; 3 * 1000];
        for _ in 0..20 {
            workers.all_gather(&values(workers.rank(), 1000), &mut all).unwrap();
        }
        let words = workers.exchange(&vec![7; workers.rank() * 100_000]).unwrap();
        assert!(words.iter().enumerate().all(|(rank, word)| *word == vec![7; rank * 100_000]));
        all
    });
    let expected: Vec<f32> = (0..3).flat_map(|rank| values(rank, 1000)).collect();
    assert!(gathered.iter().all(|all| *all == expected));
}

#[test]
fn a_worker_that_stops_says_why() {
    let errors = together(3, |workers| {
        if workers.rank() == 1 {
            workers.leave("its disk is full");
            return String::new();
        }
        let error = workers.all_reduce_sum(&mut [1.0]).unwrap_err().to_string();
        workers.leave(&error);
        error
    });
    assert!(errors[0].contains("worker 1 stopped: its disk is full"), "{}", errors[0]);
    assert!(errors[2].contains("its disk is full"), "{}", errors[2]);
}

#[test]
fn a_worker_that_does_something_else_is_noticed() {
    let errors = together(2, |workers| {
        let mut own = vec![1.0; 1 + workers.rank()];
        workers.all_reduce_sum(&mut own).unwrap_err().to_string()
    });
    assert!(errors[0].contains("worker 1 sent 16 bytes where 8 were expected"), "{}", errors[0]);
    // The first to notice may have gone before the other looks.
    assert!(errors[1].contains("worker 0"), "{}", errors[1]);
}

#[test]
fn a_worker_that_vanishes_is_noticed() {
    let errors = together(2, |workers| {
        if workers.rank() == 1 {
            return String::new();
        }
        workers.exchange(b"").unwrap_err().to_string()
    });
    assert!(errors[0].contains("worker 1 has gone"), "{}", errors[0]);
}

#[test]
fn strangers_are_passed_over_and_wrong_workers_refused() {
    let host = Host::listen("127.0.0.1:0").unwrap();
    let address = host.address().unwrap();
    let text = address.to_string();
    TcpStream::connect(address).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let of_three = {
        let text = text.clone();
        spawn(move || Workers::join(1, 3, &text, wait(&mut || Ok(()))).unwrap_err().to_string())
    };
    let right =
        spawn(move || Workers::join(1, 2, &text, wait(&mut || Ok(()))).unwrap().exchange(b"1").unwrap());
    // The right worker is met whether the stranger and the wrong worker come before or after it.
    let workers = host.meet(2, wait(&mut || Ok(()))).unwrap();
    assert_eq!(workers.exchange(b"0").unwrap(), [b"0", b"1"]);
    assert_eq!(right.join().unwrap(), [b"0", b"1"]);
    // It may not learn the reason: worker 0 may have met the right worker first.
    let refused = of_three.join().unwrap();
    assert!(refused.contains("worker 0"), "{refused}");
}

#[test]
fn a_worker_that_went_before_all_had_come_may_come_again() {
    let host = Host::listen("127.0.0.1:0").unwrap();
    let address = host.address().unwrap().to_string();
    let join = |rank| {
        let address = address.clone();
        spawn(move || {
            Workers::join(rank, 3, &address, wait(&mut || Ok(()))).unwrap().exchange(&[rank as u8]).unwrap()
        })
    };
    let met = spawn(move || host.meet(3, wait(&mut || Ok(()))).unwrap().exchange(&[0]).unwrap());
    // It gives up at once, after its greeting.
    let given_up = Workers::join(1, 3, &address, Wait { timeout: Duration::ZERO, check: &mut || Ok(()) });
    assert!(given_up.is_err());
    let (again, other) = (join(1), join(2));
    for words in [met, again, other] {
        assert_eq!(words.join().unwrap(), [[0], [1], [2]]);
    }
}

#[test]
fn who_does_not_come_is_named() {
    fn soon(check: &mut dyn FnMut() -> std::result::Result<(), TrainError>) -> Wait<'_> {
        Wait { timeout: Duration::from_millis(100), check }
    }
    let host = Host::listen("127.0.0.1:0").unwrap();
    let address = host.address().unwrap().to_string();
    let error = host.meet(3, soon(&mut || Ok(()))).unwrap_err().to_string();
    assert!(error.contains("no word from workers 1, 2 of 3") && !error.contains("--"), "{error}");
    let error = Workers::join(1, 3, &address, soon(&mut || Ok(()))).unwrap_err().to_string();
    assert!(error.contains("worker 0 could not be reached"), "{error}");
    for address in ["127.0.0.1", "127.0.0.1:notaport", "192.0.2.1:9"] {
        let error = Host::listen(address).unwrap_err().to_string();
        assert!(error.contains("cannot listen at") && error.contains("HOST:PORT"), "{error}");
    }
    let stop = &mut || Err(TrainError::Workers("enough".to_owned()));
    let error = Host::listen("127.0.0.1:0").unwrap().meet(2, wait(stop)).unwrap_err();
    assert_eq!(error.to_string(), "enough");
}
