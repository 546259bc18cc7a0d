//! Which places of an epoch one of several loaders has.

/// One loader's part of every batch, where several workers train together.
///
/// With batches of n images a loader, the first loader has the first n places of each n x `of` places of an epoch's
/// order, the second the next n, and so on: together they have the batches that one loader would make. What is left
/// behind the last such batch is dealt evenly: it takes the place of broken images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    rank: u64,
    of: u64,
}

impl Share {
    /// All of every batch.
    pub const WHOLE: Share = Share { rank: 0, of: 1 };

    /// The part of loader `rank` (from 0) of `of`; nothing where there is no such part.
    pub fn new(rank: usize, of: usize) -> Option<Share> {
        (rank < of).then_some(Share { rank: rank as u64, of: of as u64 })
    }

    /// How many of `places` places are this loader's, whose batches have `batch` images.
    pub(super) fn places(self, places: u64, batch: u64) -> u64 {
        let whole = batch.saturating_mul(self.of);
        match whole {
            0 => 0,
            whole => places / whole * batch + places % whole / self.of,
        }
    }

    /// Where this loader's place `own` lies among all `places`.
    pub(super) fn place(self, own: u64, places: u64, batch: u64) -> u64 {
        let batches = places / (batch * self.of);
        let (dealt, rest) = (batches * batch, places % (batch * self.of) / self.of);
        match own.checked_sub(dealt) {
            None => own / batch * batch * self.of + self.rank * batch + own % batch,
            Some(left) => dealt * self.of + self.rank * rest + left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loaders_together_have_the_batches_of_one() {
        for (places, batch, of) in [(100, 4, 3), (24, 4, 3), (23, 2, 4), (7, 3, 2), (5, 4, 2), (40, 1, 1)] {
            let shares: Vec<Share> = (0..of).map(|rank| Share::new(rank, of).unwrap()).collect();
            let own = shares[0].places(places, batch);
            assert!(shares.iter().all(|share| share.places(places, batch) == own));
            let all = |range: std::ops::Range<u64>| {
                let places =
                    |share: &Share| range.clone().map(|l| share.place(l, places, batch)).collect::<Vec<_>>();
                shares.iter().flat_map(places).collect::<Vec<u64>>()
            };
            let whole = batch * of as u64;
            for step in 0..places / whole {
                // Batch by batch, in the order of one loader.
                assert!(
                    all(step * batch..(step + 1) * batch).into_iter().eq(step * whole..(step + 1) * whole)
                );
            }
            let mut every = all(0..own);
            every.sort_unstable();
            every.dedup();
            assert_eq!(every.len() as u64, own * of as u64, "no place is dealt twice");
            assert!(every.iter().all(|&place| place < places) && places - own * (of as u64) < of as u64);
        }
    }

    #[test]
    fn one_loader_has_all_places_in_their_order() {
        for (places, batch) in [(100, 8), (7, 8), (0, 3)] {
            assert_eq!(Share::WHOLE.places(places, batch), places);
            assert!((0..places).all(|place| Share::WHOLE.place(place, places, batch) == place));
        }
        assert_eq!(Share::new(2, 2), None);
    }
}
