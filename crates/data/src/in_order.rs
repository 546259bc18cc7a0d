//! Working on many items with several threads, with results in the order of the items.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

/// Runs `work` on up to `threads` threads at the same time, the caller's own among them: on fewer where the system
/// refuses more, and so `work` must do all that others have not done.
pub(crate) fn on_threads(threads: usize, work: impl Fn() + Sync) {
    on_threads_of(threads, Builder::new, work);
}

fn on_threads_of(threads: usize, builder: impl Fn() -> Builder, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for started in 1..threads {
            if let Err(error) = builder().spawn_scoped(scope, &work) {
                tracing::debug!("{started} of {threads} threads: the system refuses more: {error}");
                break;
            }
        }
        work();
    });
}

/// Returns what `work` makes of each of the numbers below `count`, in their order, with up to `threads` threads. They
/// take the numbers in ascending order. Each has scratch space of its own.
pub(crate) fn in_order<S: Default, T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(&mut S, usize) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let all: Mutex<Vec<(usize, T)>> = Mutex::default();
    let thread = || {
        let (mut done, mut scratch) = (Vec::new(), S::default());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            done.push((number, work(&mut scratch, number)));
        }
        all.lock().unwrap_or_else(PoisonError::into_inner).extend(done);
    };
    on_threads(threads.clamp(1, count.max(1)), thread);
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_unstable_by_key(|&(number, _)| number);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_the_system_refuses_are_done_without() {
        let work = AtomicUsize::new(0);
        let count = || _ = work.fetch_add(1, Ordering::Relaxed);
        // No system has room for such a stack.
        on_threads_of(8, || Builder::new().stack_size(1 << 60), count);
        assert_eq!(work.swap(0, Ordering::Relaxed), 1);
        on_threads(8, count);
        assert_eq!(work.into_inner(), 8);
    }

    #[test]
    fn results_are_in_order_for_any_number_of_threads() {
        for (count, threads) in [(0, 4), (1, 4), (1000, 1), (1000, 7), (5, 0)] {
            let squares = in_order(count, threads, |made: &mut usize, number| {
                *made += 1;
                (number * number, *made)
            });
            assert!(squares.iter().map(|&(square, _)| square).eq((0..count).map(|number| number * number)));
            // Scratch space is kept from one item to the next.
            assert!(count < 1000 || squares.iter().any(|&(_, made)| made >= count / threads));
        }
    }
}
