//! The share of one of several loaders in the places of training.

/// One loader's part of every batch, where several workers train together.
///
/// With batches of n images per loader, the first loader has the first n of each n x `world_size` places, the second
/// the next n, and so on: together they make the batches that one loader would make. A loader that meets more broken
/// images than another reaches its later places sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    rank: u64,
    world_size: u64,
}

impl Share {
    /// All of every batch.
    pub const WHOLE: Share = Share { rank: 0, world_size: 1 };

    /// The part of loader `rank` (from 0) of `world_size`; `None` if `rank` is not below that.
    pub fn new(rank: usize, world_size: usize) -> Option<Share> {
        (rank < world_size).then_some(Share { rank: rank as u64, world_size: world_size as u64 })
    }

    /// The images in the joint batch of all loaders, of which this one contributes `batch`.
    pub(super) fn whole(self, batch: usize) -> usize {
        batch.saturating_mul(self.world_size as usize)
    }

    /// The least number of an epoch's `images` that this loader has.
    pub(super) fn of_epoch(self, images: usize) -> usize {
        images / self.world_size as usize
    }

    /// The place among all that is this loader's place `own`, with `batch` images in its batches.
    pub(super) fn place(self, own: u64, batch: u64) -> u64 {
        (own / batch * self.world_size + self.rank) * batch + own % batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_together_have_the_batches_of_one() {
        for (batch, of) in [(4, 3), (2, 4), (7, 2), (1, 5), (40, 1)] {
            let shares: Vec<Share> = (0..of).map(|rank| Share::new(rank, of).unwrap()).collect();
            let whole = shares[0].whole(batch) as u64;
            for step in 0..5 {
                let own = step * batch as u64..(step + 1) * batch as u64;
                let places =
                    shares.iter().flat_map(|share| own.clone().map(|place| share.place(place, batch as u64)));
                assert!(places.eq(step * whole..(step + 1) * whole));
            }
        }
        assert_eq!(Share::new(2, 2), None);
    }
}
