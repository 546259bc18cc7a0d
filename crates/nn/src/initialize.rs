//! Initial values of parameters.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Initial {
    /// The same for all values.
    Constant(f32),
    /// Variance scaling by the fan-in, from a normal distribution truncated at two deviations (Keras' default, used
    /// by the official code for convolutions): the variance after truncation is 1 / fan-in.
    VarianceScaling { fan_in: usize },
    /// A normal distribution around 0.
    Normal { deviation: f32 },
}

/// The deviation of a standard normal distribution truncated at two deviations.
const CUT_DEVIATION: f64 = 0.879_625_661_034_239_8;

/// `len` values for the parameter `name`. They depend only on the seed and the name, so that adding a layer leaves
/// the others as they are.
pub(crate) fn initial_values(initial: Initial, len: usize, seed: u64, name: &str) -> Vec<f32> {
    let mut rng = stream(seed, name);
    match initial {
        Initial::Constant(value) => vec![value; len],
        Initial::VarianceScaling { fan_in } => {
            let deviation = (1.0 / fan_in.max(1) as f64).sqrt() / CUT_DEVIATION;
            (0..len).map(|_| (deviation * cut_normal(&mut rng)) as f32).collect()
        }
        Initial::Normal { deviation } => {
            (0..len).map(|_| (f64::from(deviation) * normal(&mut rng)) as f32).collect()
        }
    }
}

/// A separate random stream for each name.
fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    // FNV-1a: names differ in few places, and any hash that is the same everywhere will do.
    let hash =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    key[16..24].copy_from_slice(b"weights\0");
    ChaCha8Rng::from_seed(key)
}

/// A standard normal value (Box-Muller).
fn normal(rng: &mut impl Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// A standard normal value within two deviations.
fn cut_normal(rng: &mut impl Rng) -> f64 {
    loop {
        let value = normal(rng);
        if value.abs() <= 2.0 {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variance_scaling_has_the_variance_and_the_cut() {
        let values = initial_values(Initial::VarianceScaling { fan_in: 50 }, 100_000, 1, "a");
        let variance = values.iter().map(|&v| f64::from(v * v)).sum::<f64>() / 1e5;
        assert!((variance * 50.0 - 1.0).abs() < 0.02, "{variance}");
        let cut = 2.0 / 50f64.sqrt() / CUT_DEVIATION;
        assert!(values.iter().all(|&v| f64::from(v).abs() <= cut * 1.000_001));
    }

    #[test]
    fn normal_has_its_deviation() {
        let values = initial_values(Initial::Normal { deviation: 0.01 }, 100_000, 1, "a");
        let variance = values.iter().map(|&v| f64::from(v * v)).sum::<f64>() / 1e5;
        assert!((variance / 1e-4 - 1.0).abs() < 0.02, "{variance}");
    }

    #[test]
    fn a_parameter_depends_on_seed_and_name_alone() {
        let draw = |seed, name| initial_values(Initial::Normal { deviation: 1.0 }, 4, seed, name);
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
    }
}
