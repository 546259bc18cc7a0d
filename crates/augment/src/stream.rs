//! The random numbers of one view.

use std::convert::Infallible;

use rand::{SeedableRng, TryRng};
use rand_chacha::ChaCha8Rng;

/// Takes the place of the view's number in the key of the stream that all views of an image share. No view has this
/// number.
const SHARED: u64 = u64::MAX;

/// The random stream of one view of one image: ChaCha with 8 rounds, keyed by exactly (seed, epoch, image,
/// view).
///
/// The four numbers are the 256 bits of the key, so that no two views share a stream and no stream depends on
/// which thread drew before. It implements `rand`'s `Rng`; the draws of this crate use [`Stream::unit`] and
/// [`Stream::below`], whose definitions will not change under a new version of `rand`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of view `view` (0 or 1 in pretraining) of image `image` of the data set in epoch `epoch` of
    /// the run seeded `seed`.
    pub fn new(seed: u64, epoch: u64, image: u64, view: u64) -> Self {
        let mut key = [0; 32];
        for (bytes, number) in key.chunks_exact_mut(8).zip([seed, epoch, image, view]) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// The stream that all views of the image share in the same epoch of the same run.
    pub(crate) fn of_image(&self) -> Self {
        let mut key = self.0.get_seed();
        key[24..].copy_from_slice(&SHARED.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A uniform number in [0, 1), a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// A uniform number in [`range[0]`, `range[1]`].
    pub(crate) fn uniform(&mut self, range: [f64; 2]) -> f64 {
        range[0] + (range[1] - range[0]) * self.unit()
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f32) -> bool {
        self.unit() < f64::from(p)
    }

    /// A uniform integer in [0, `bound`); 0 when `bound` is 0.
    ///
    /// The high half of a 64 x 32-bit product: its bias, below 2^-32, is too small to show in the draws of a training
    /// run.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u32
    }

    fn bits(&mut self) -> u64 {
        let Ok(bits) = self.0.try_next_u64();
        bits
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(dst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_four_numbers_matters() {
        let first = |a, b, c, d| Stream::new(a, b, c, d).bits();
        let reference = first(1, 2, 3, 4);
        assert_eq!(reference, first(1, 2, 3, 4));
        for other in [
            first(2, 2, 3, 4),
            first(1, 3, 3, 4),
            first(1, 2, 4, 4),
            first(1, 2, 3, 5),
            first(1 + (1 << 63), 2, 3, 4),
            first(2, 1, 3, 4),
        ] {
            assert_ne!(reference, other);
        }
    }

    #[test]
    fn the_stream_is_chacha8_and_stays_so() {
        // First block of the ChaCha8 keystream for the zero key and nonce (ECRYPT test vectors, set 1): 3e 00
        // ef 2f 89 5f 40 d6 ...
        let mut zero = Stream::new(0, 0, 0, 0);
        assert_eq!(zero.bits().to_le_bytes(), [0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6]);
    }

    #[test]
    fn other_crates_can_draw_from_it() {
        fn shuffled(mut rng: impl rand::Rng) -> Vec<u32> {
            use rand::seq::SliceRandom;
            let mut items: Vec<u32> = (0..100).collect();
            items.shuffle(&mut rng);
            items
        }
        let items = shuffled(Stream::new(1, 0, 0, 0));
        assert_eq!(items, shuffled(Stream::new(1, 0, 0, 0)));
        assert_ne!(items, shuffled(Stream::new(2, 0, 0, 0)));
    }

    #[test]
    fn integers_stay_below_their_bound() {
        let mut stream = Stream::new(5, 0, 0, 0);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[stream.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        assert_eq!(stream.below(1), 0);
        assert_eq!(stream.below(0), 0);
    }
}
