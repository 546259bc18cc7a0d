//! The order of images in an epoch.

use std::sync::{Arc, Mutex, PoisonError};

use simclr_augment::Stream;

use crate::dataset::Dataset;
use crate::locality::Locality;

/// Takes the place of an image number in the key of the stream, so that the order shares its random numbers with no
/// view: no data set has this many images.
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
    /// As the data set is numbered.
    Natural,
    /// Shuffled anew in each epoch.
    Shuffled { seed: u64 },
}

/// The orders of the epochs in work, computed once and shared by all threads.
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
        let epoch = match self.order {
            Order::Natural => 0,
            Order::Shuffled { .. } => epoch,
        };
        // A poisoned lock holds a list that is still right: it is only ever pushed to or shortened.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = recent.iter().find(|(known, _)| *known == epoch) {
            return Arc::clone(order);
        }
        let order: Arc<[u32]> = match self.order {
            Order::Natural => (0..self.len as u32).collect(),
            Order::Shuffled { seed } => self.locality.order(seed, epoch).into(),
        };
        // Two epochs are in work where one ends and the next begins; more when the data set is smaller than the
        // prefetch.
        if recent.len() == 2 {
            recent.remove(0);
        }
        recent.push((epoch, Arc::clone(&order)));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made::Made;

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
        // Checkpoints hold a place in this order: another order under the same seed would break every resume.
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
    fn shared_orders_are_the_plain_ones() {
        let orders = Orders::new(Order::Shuffled { seed: 5 }, &Made::new(20, 8, 1));
        for epoch in [0, 1, 0, 2, 3, 0] {
            assert_eq!(*orders.of_epoch(epoch), permutation(20, 5, epoch));
        }
    }
}
