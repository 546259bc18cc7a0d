//! The order of images in an epoch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use simclr_augment::Stream;

use crate::dataset::Dataset;
use crate::locality::Locality;

/// Replaces an image number in the key of the stream, so that the order shares no random numbers with any view: no data
/// set has this many images.
pub(crate) const ORDER: u64 = u64::from_le_bytes(*b"ordering");

/// The images 0..`len` in the order in which epoch `epoch` of the run seeded `seed` visits them: a Fisher-Yates
/// shuffle by a ChaCha stream of these two numbers, the same on every machine.
pub fn permutation(len: usize, seed: u64, epoch: u64) -> Vec<u32> {
    Locality::free(len).order(seed, epoch)
}

/// Fisher-Yates.
pub(crate) fn shuffle(items: &mut [u32], stream: &mut Stream) {
    for last in (1..items.len()).rev() {
        items.swap(last, stream.below(last as u32 + 1) as usize);
    }
}

/// How a pass over the data set is ordered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// As the data set is numbered, once.
    Natural,
    /// Shuffled anew in each epoch, epoch after epoch; no image occurs twice within `apart` consecutive places.
    Shuffled { seed: u64, apart: usize },
}

impl Order {
    /// Whether epoch follows epoch.
    pub fn is_endless(self) -> bool {
        matches!(self, Order::Shuffled { .. })
    }
}

/// The orders of the epochs in progress, computed once and shared by all threads.
#[derive(Debug)]
pub(crate) struct Orders {
    order: Order,
    len: usize,
    locality: Locality,
    recent: Mutex<Vec<(u64, Arc<[u32]>)>>,
}

impl Orders {
    pub fn new(order: Order, dataset: &dyn Dataset) -> Self {
        Self { order, len: dataset.len(), locality: dataset.locality(), recent: Mutex::new(Vec::new()) }
    }

    pub fn of_epoch(&self, epoch: u64) -> Arc<[u32]> {
        // Even behind a poisoned lock the list is right: it is only ever pushed to or shortened.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |recent: &[(u64, Arc<[u32]>)], epoch| {
            recent.iter().find(|(known, _)| *known == epoch).map(|(_, order)| Arc::clone(order))
        };
        if let Some(order) = known(&recent, epoch) {
            return order;
        }
        let order: Arc<[u32]> = match self.order {
            Order::Natural => (0..self.len as u32).collect(),
            Order::Shuffled { seed, apart } => {
                let before = epoch.checked_sub(1).map(|before| {
                    known(&recent, before).unwrap_or_else(|| self.shuffled(seed, apart, before).into())
                });
                self.after(before.as_deref(), seed, apart, epoch).into()
            }
        };
        // Two epochs are in progress where one ends and the next begins; more if the data set is smaller than the
        // batches that are made ahead.
        if recent.len() == 2 {
            recent.remove(0);
        }
        recent.push((epoch, Arc::clone(&order)));
        order
    }

    /// The order of an epoch, computed without any of `recent`.
    fn shuffled(&self, seed: u64, apart: usize, epoch: u64) -> Vec<u32> {
        // An order differs from the plain one in its first `apart` places, and the next order depends on as many of its
        // last: if the two do not overlap, the plain order of `epoch` is enough to start from.
        let first = if self.len >= 2 * apart { epoch } else { 0 };
        let plain = self.locality.order(seed, first);
        (first + 1..=epoch).fold(plain, |before, epoch| self.after(Some(&before), seed, apart, epoch))
    }

    /// The order of `epoch`, which follows the one `before`.
    fn after(&self, before: Option<&[u32]>, seed: u64, apart: usize, epoch: u64) -> Vec<u32> {
        let mut order = self.locality.order(seed, epoch);
        if let Some(before) = before {
            keep_apart(before, &mut order, apart);
        }
        order
    }
}

/// Swaps entries of `order`, which follows `before` and has the same images, so that no `apart` consecutive places hold
/// an image twice, wherever a batch begins.
fn keep_apart(before: &[u32], order: &mut [u32], apart: usize) {
    let apart = apart.min(order.len());
    let tail = &before[before.len() - apart.saturating_sub(1)..];
    // The distance of each image in the tail from the end of `before`.
    let places: HashMap<u32, usize> =
        tail.iter().rev().zip(1..).map(|(&image, place)| (image, place)).collect();
    for at in 0..apart.saturating_sub(1) {
        let fits = |image: &u32| places.get(image).is_none_or(|place| at + place >= apart);
        // Of the `apart` - `at` images from place `at` to `apart`, at most all but one are too near to their earlier
        // place.
        if let Some(next) = order[at..].iter().position(fits) {
            order.swap(at, at + next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::Synthetic;

    #[test]
    fn is_a_permutation_and_depends_on_both_numbers() {
        let order = permutation(1000, 7, 3);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..1000));
        assert_eq!(order, permutation(1000, 7, 3));
        assert_ne!(order, permutation(1000, 8, 3));
        assert_ne!(order, permutation(1000, 7, 4));
        assert!(permutation(0, 1, 1).is_empty());
        assert_eq!(permutation(1, 1, 1), [0]);
    }

    #[test]
    fn stays_what_it_is() {
        // Checkpoints store a place in this order: another order under the same seed would break every resume.
        assert_eq!(permutation(10, 42, 0), [9, 5, 1, 0, 3, 6, 7, 2, 8, 4]);
    }

    #[test]
    fn each_order_is_as_likely() {
        let mut counts = std::collections::HashMap::new();
        for epoch in 0..6000 {
            *counts.entry(permutation(3, 1, epoch)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (880..1120).contains(count)), "{counts:?}");
    }

    #[test]
    fn shared_orders_are_the_plain_ones_where_batches_end_with_the_epochs() {
        let orders = Orders::new(Order::Shuffled { seed: 5, apart: 1 }, &Synthetic::new(20, 8, 1));
        for epoch in [0, 1, 0, 2, 3, 0] {
            assert_eq!(*orders.of_epoch(epoch), permutation(20, 5, epoch));
        }
    }

    #[test]
    fn no_image_comes_twice_within_a_batch() {
        for (len, apart) in [(40, 12), (40, 20), (40, 21), (40, 39), (40, 40), (7, 3), (1, 1), (2, 2)] {
            let orders = || Orders::new(Order::Shuffled { seed: 5, apart }, &Synthetic::new(len, 8, 1));
            let shared = orders();
            let all: Vec<Arc<[u32]>> = (0..20).map(|epoch| shared.of_epoch(epoch)).collect();
            for (epoch, order) in all.iter().enumerate() {
                // Wherever a run starts, the order is the same, and it has all images.
                assert_eq!(*order, orders().of_epoch(epoch as u64), "{len}, {apart}, epoch {epoch}");
                let mut sorted = order.to_vec();
                sorted.sort_unstable();
                assert!(sorted.into_iter().eq(0..len as u32));
                if len >= 2 * apart {
                    assert_eq!(order[apart..], permutation(len, 5, epoch as u64)[apart..]);
                }
            }
            let places = all.concat();
            for batch in places.windows(apart) {
                let mut distinct = batch.to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), apart, "{len}, {apart}: {batch:?}");
            }
        }
    }
}
