//! AutoAugment with the policy found on ImageNet (Cubuk et al., arXiv:1805.09501), as torchvision applies it.

pub(crate) mod affine;
pub(crate) mod histogram;
pub(crate) mod posterize;
pub(crate) mod sharpness;

use serde::{Deserialize, Serialize};
use simclr_words::words;

use super::{Draw, Step, Steps};
use crate::{AugmentError, Stream, check, decimal};

/// Applies one of 25 pairs of operators, each operator with its own probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoAugment {
    /// Probability.
    #[serde(serialize_with = "decimal::one")]
    pub prob: f32,
    /// The policy.
    pub policy: Policy,
}

words! {
    /// Where a policy was found.
    #[derive(Default)]
    Policy {
        /// On ImageNet.
        #[default]
        Imagenet = "imagenet",
    }
}

impl Default for AutoAugment {
    fn default() -> Self {
        Self { prob: 1.0, policy: Policy::Imagenet }
    }
}

/// An operator of a policy.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    AutoContrast,
    Color,
    Contrast,
    Equalize,
    Invert,
    Posterize,
    Rotate,
    Sharpness,
    ShearX,
    Solarize,
}

use Op::*;

/// Operator, probability, magnitude from 0 to 9 (ignored by some operators).
type Choice = (Op, f32, u32);

const IMAGENET: [[Choice; 2]; 25] = [
    [(Posterize, 0.4, 8), (Rotate, 0.6, 9)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
    [(Posterize, 0.6, 7), (Posterize, 0.6, 6)],
    [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
    [(Equalize, 0.4, 0), (Rotate, 0.8, 8)],
    [(Solarize, 0.6, 3), (Equalize, 0.6, 0)],
    [(Posterize, 0.8, 5), (Equalize, 1.0, 0)],
    [(Rotate, 0.2, 3), (Solarize, 0.6, 8)],
    [(Equalize, 0.6, 0), (Posterize, 0.4, 6)],
    [(Rotate, 0.8, 8), (Color, 0.4, 0)],
    [(Rotate, 0.4, 9), (Equalize, 0.6, 0)],
    [(Equalize, 0.0, 0), (Equalize, 0.8, 0)],
    [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Rotate, 0.8, 8), (Color, 1.0, 2)],
    [(Color, 0.8, 8), (Solarize, 0.8, 7)],
    [(Sharpness, 0.4, 7), (Invert, 0.6, 0)],
    [(ShearX, 0.6, 5), (Equalize, 1.0, 0)],
    [(Color, 0.4, 0), (Equalize, 0.6, 0)],
    [(Equalize, 0.4, 0), (Solarize, 0.2, 4)],
    [(Solarize, 0.6, 5), (AutoContrast, 0.6, 0)],
    [(Invert, 0.6, 0), (Equalize, 1.0, 0)],
    [(Color, 0.6, 4), (Contrast, 1.0, 8)],
    [(Equalize, 0.8, 0), (Equalize, 0.6, 0)],
];

impl Draw for AutoAugment {
    fn most_steps(&self) -> usize {
        2
    }

    fn check(&self) -> Result<(), AugmentError> {
        check::probability("auto_augment.prob", self.prob)
    }

    fn draw(&self, _side: u32, stream: &mut Stream, steps: &mut Steps) {
        if !stream.chance(self.prob) {
            return;
        }
        let Policy::Imagenet = self.policy;
        for (op, prob, magnitude) in IMAGENET[stream.below(IMAGENET.len() as u32) as usize] {
            let (acts, negative) = (stream.chance(prob), stream.chance(0.5));
            if acts {
                steps.push(step(op, magnitude, negative));
            }
        }
    }
}

/// The step of an operator at one of its ten magnitudes; `negative` chooses between the two sides of an operator that
/// has them.
fn step(op: Op, magnitude: u32, negative: bool) -> Step {
    let share = magnitude as f32 / 9.0;
    let signed = |largest: f32| if negative { -largest * share } else { largest * share };
    match op {
        AutoContrast => Step::AutoContrast,
        Color => Step::Saturation(1.0 + signed(0.9)),
        Contrast => Step::Contrast(1.0 + signed(0.9)),
        Equalize => Step::Equalize,
        Invert => Step::Invert,
        Posterize => Step::Posterize { bits: 8 - (magnitude as f32 / 2.25).round_ties_even() as u32 },
        Rotate => Step::Turn { degrees: signed(30.0) },
        Sharpness => Step::Sharpness(1.0 + signed(0.9)),
        ShearX => Step::ShearX(signed(0.3)),
        Solarize => Step::Solarize((f32::from(solarized(magnitude)) - 0.5) / 255.0),
    }
}

/// The lowest 8-bit level that solarizing inverts. The threshold is half a level below, where no rounding decides.
fn solarized(magnitude: u32) -> u16 {
    (255 * 9_u32.saturating_sub(magnitude)).div_ceil(9) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_are_those_of_torchvision() {
        assert_eq!(step(Posterize, 8, false), Step::Posterize { bits: 4 });
        assert_eq!(step(Posterize, 5, true), Step::Posterize { bits: 6 });
        assert_eq!(step(Rotate, 9, true), Step::Turn { degrees: -30.0 });
        assert_eq!(step(Color, 0, true), Step::Saturation(1.0));
        assert_eq!(step(ShearX, 9, false), Step::ShearX(0.3));
        assert_eq!(step(Contrast, 9, true), Step::Contrast(1.0 - 0.9));
        assert_eq!(step(Sharpness, 9, false), Step::Sharpness(1.9));
        // The lowest level that torchvision 0.29's `solarize` inverts, at the magnitudes of the policy.
        for (magnitude, level) in [(3, 170.0), (4, 142.0), (5, 114.0), (7, 57.0), (8, 29.0)] {
            let Step::Solarize(from) = step(Solarize, magnitude, false) else { panic!("another step") };
            assert!(((level - 1.0) / 255.0..level / 255.0).contains(&from), "{magnitude}: {from}");
        }
    }

    /// `policy` is how often each operator acts at each magnitude in 25 draws, as torchvision 0.29 lists the policy.
    #[test]
    fn every_operator_is_drawn_as_often_as_the_policy_says() {
        const DRAWS: u64 = 20_000;
        let policy = [
            (Posterize, 5, 0.8),
            // Together with magnitude 7, which keeps as many bits.
            (Posterize, 6, 1.6),
            (Posterize, 8, 0.4),
            (Rotate, 3, 0.2),
            (Rotate, 8, 2.4),
            (Rotate, 9, 1.0),
            (Solarize, 3, 0.6),
            (Solarize, 4, 0.4),
            (Solarize, 5, 1.2),
            (Solarize, 7, 0.8),
            (Solarize, 8, 0.6),
            (AutoContrast, 0, 1.2),
            (Equalize, 0, 11.2),
            (Invert, 0, 1.8),
            (Color, 0, 0.8),
            (Color, 2, 1.0),
            (Color, 4, 1.2),
            (Color, 8, 0.8),
            (Contrast, 8, 2.0),
            (Sharpness, 7, 0.4),
            (ShearX, 5, 0.6),
        ];
        let mut drawn: Vec<Step> = Vec::new();
        let mut none = 0;
        for index in 0..DRAWS {
            let mut steps = Steps::default();
            AutoAugment::default().draw(32, &mut Stream::new(3, 0, index, 0), &mut steps);
            drawn.extend_from_slice(&steps);
            none += usize::from(steps.is_empty());
        }
        let mut known = 0;
        for (op, magnitude, share) in policy {
            let sides = [false, true].map(|negative| step(op, magnitude, negative));
            let sides = if sides[0] == sides[1] { &sides[..1] } else { &sides };
            let expected = share / 25.0 * DRAWS as f64 / sides.len() as f64;
            for side in sides {
                let count = drawn.iter().filter(|step| *step == side).count();
                // Five standard deviations, and some slack for pairs that have an operator twice.
                let off = (count as f64 - expected).abs() / expected.sqrt();
                assert!(off < 6.0, "{side:?}: {count} times, expected {expected}");
                known += count;
            }
        }
        assert_eq!(known, drawn.len());
        // On average neither operator acts in 3.76 of 25 pairs: in 3008 draws, give or take five standard deviations.
        assert!((2755..3261).contains(&none), "{none}");
    }
}
