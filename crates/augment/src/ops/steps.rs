//! What is done to one view after the crop.

use std::ops::Deref;

use super::blur::BlurPadding;

/// One operator with its parameters. Values are clipped to [0, 1] after each.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Every channel times this factor, at least 0.
    Brightness(f32),
    /// Every channel plus this shift, in units of the full range.
    BrightnessShift(f32),
    /// Distance from the view's mean grey value times this factor, at least 0.
    Contrast(f32),
    /// Distance from the pixel's own grey value times this factor, at least 0.
    Saturation(f32),
    /// Turn of the colour wheel at constant saturation and value (HSV), in turns, in [-1, 1].
    Hue(f32),
    /// Three equal channels.
    Gray,
    /// Values at or above this threshold are inverted.
    Solarize(f32),
    /// Left becomes right.
    Flip,
    /// Gaussian blur.
    Blur {
        /// Standard deviation in pixels of the view.
        sigma: f32,
        /// What it sees beyond the border.
        padding: BlurPadding,
    },
}

impl Step {
    /// A few words, such as "contrast x1.31" or "hue +0.08".
    pub fn describe(self) -> String {
        match self {
            Self::Brightness(factor) => format!("brightness x{factor:.2}"),
            Self::BrightnessShift(shift) => format!("brightness {shift:+.2}"),
            Self::Contrast(factor) => format!("contrast x{factor:.2}"),
            Self::Saturation(factor) => format!("saturation x{factor:.2}"),
            Self::Hue(turn) => format!("hue {turn:+.2}"),
            Self::Gray => "gray".to_owned(),
            Self::Solarize(threshold) => format!("solarize {threshold:.2}"),
            Self::Flip => "flip".to_owned(),
            Self::Blur { sigma, .. } => format!("blur {sigma:.1}"),
        }
    }
}

/// The most steps of one view.
pub(crate) const MOST: usize = 32;

/// The steps of one view, in their order: at most 32, without memory of their own.
#[derive(Clone, Copy)]
pub struct Steps {
    length: usize,
    steps: [Step; MOST],
}

impl Steps {
    /// Adds a step.
    ///
    /// # Panics
    /// When there are 32 already.
    pub fn push(&mut self, step: Step) {
        self.steps[self.length] = step;
        self.length += 1;
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self { length: 0, steps: [Step::Gray; MOST] }
    }
}

impl Deref for Steps {
    type Target = [Step];

    fn deref(&self) -> &[Step] {
        &self.steps[..self.length]
    }
}

impl FromIterator<Step> for Steps {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        let mut all = Self::default();
        steps.into_iter().for_each(|step| all.push(step));
        all
    }
}

impl<const N: usize> From<[Step; N]> for Steps {
    fn from(steps: [Step; N]) -> Self {
        steps.into_iter().collect()
    }
}

impl PartialEq for Steps {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
