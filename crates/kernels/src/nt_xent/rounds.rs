//! Visits every pair once, in rounds of disjoint pairs, as in a tournament, so that each call may change both of its
//! items while others run.

use crate::Threads;

/// Runs `meet` once on every pair of `items`, whose order it changes. The schedule depends on the number of items
/// alone, so an item meets the others in the same order for any number of threads.
///
/// The circle method: one place is fixed and the others rotate by one place per round; if the number of items is odd,
/// the item opposite the fixed place rests.
pub fn all_pairs<T: Send>(threads: &Threads, items: &mut [T], meet: impl Fn(&mut T, &mut T) + Sync) {
    let half = items.len() / 2;
    let (front, back) = items.split_at_mut(items.len() - half);
    for _ in 0..(2 * front.len()).saturating_sub(1) {
        threads.run_chunk_pairs(&mut front[..half], back, 1, |_, a, b| meet(&mut a[0], &mut b[0]));
        // The ring runs along `front` and returns along `back`; if the number is even, the last of `back` is fixed.
        let ring = &mut back[..front.len() - 1];
        if let Some(last) = ring.len().checked_sub(1) {
            front.rotate_right(1);
            ring.rotate_left(1);
            std::mem::swap(&mut front[0], &mut ring[last]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Mutex;

    #[test]
    fn everybody_meets_everybody_once() {
        for threads in [1, 3] {
            let threads = Threads::new(threads).unwrap();
            for count in 0..20usize {
                let mut items: Vec<usize> = (0..count).collect();
                let met = Mutex::new(Vec::new());
                all_pairs(&threads, &mut items, |a, b| {
                    met.lock().unwrap().push((*a.min(b), *a.max(b)));
                });
                let met = met.into_inner().unwrap();
                assert_eq!(met.len(), count * count.saturating_sub(1) / 2);
                assert_eq!(met.iter().collect::<HashSet<_>>().len(), met.len());
                assert!(met.iter().all(|(a, b)| a < b));
            }
        }
    }
}
