//! What is done to one view after the crop.

use std::ops::Deref;

use super::blur::BlurPadding;

/// One operator with its parameters. Values are clipped to [0, 1] after each.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// A rectangle is filled.
    Cutout {
        /// First column and the one after the last.
        columns: [u32; 2],
        /// First row and the one after the last.
        rows: [u32; 2],
        /// With what, in [0, 1].
        fill: f32,
    },
    /// Counterclockwise by right angles.
    Rotate {
        /// How many: 1 to 3.
        quarters: u32,
    },
    /// Normal noise is added.
    Noise {
        /// Its standard deviation in units of the full range.
        sigma: f32,
        /// The random stream that it comes from.
        key: u64,
    },
    /// Each channel becomes the length of its gradient.
    Sobel,
    /// Each channel is stretched to the full range.
    AutoContrast,
    /// The levels of each channel become about equally frequent.
    Equalize,
    /// Every value becomes 1 minus it.
    Invert,
    /// Only the highest bits of every 8-bit value stay.
    Posterize {
        /// How many, 1 to 8.
        bits: u32,
    },
    /// Distance from a smoothed view times this factor, at least 0.
    Sharpness(f32),
    /// Counterclockwise about the centre, the nearest pixel, black beyond the border.
    Turn {
        /// By how many degrees.
        degrees: f32,
    },
    /// Rows move to the left by this times their distance from the upper border.
    ShearX(f32),
}

impl Step {
    /// Whether it changes colours, pixel by pixel or by the mean of the view.
    pub fn is_color(&self) -> bool {
        use Step::*;
        matches!(self, Brightness(_) | BrightnessShift(_) | Contrast(_) | Saturation(_) | Hue(_) | Gray)
    }

    /// What it makes of a grey view.
    fn on_gray(&self) -> OnGray {
        match self {
            Self::Saturation(_) | Self::Hue(_) | Self::Gray => OnGray::Same,
            Self::Noise { .. } => OnGray::Colors,
            Self::Brightness(_)
            | Self::BrightnessShift(_)
            | Self::Contrast(_)
            | Self::Solarize(_)
            | Self::Flip
            | Self::Blur { .. }
            | Self::Cutout { .. }
            | Self::Rotate { .. }
            | Self::Sobel
            | Self::AutoContrast
            | Self::Equalize
            | Self::Invert
            | Self::Posterize { .. }
            | Self::Sharpness(_)
            | Self::Turn { .. }
            | Self::ShearX(_) => OnGray::Gray,
        }
    }

    /// Whether it is a blur.
    pub fn is_blur(&self) -> bool {
        matches!(self, Self::Blur { .. })
    }

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
            Self::Cutout { columns, rows, .. } => {
                format!("cutout {} x {}", columns[1] - columns[0], rows[1] - rows[0])
            }
            Self::Rotate { quarters } => format!("rotate {}", 90 * quarters),
            Self::Noise { sigma, .. } => format!("noise {sigma:.2}"),
            Self::Sobel => "sobel".to_owned(),
            Self::AutoContrast => "auto contrast".to_owned(),
            Self::Equalize => "equalize".to_owned(),
            Self::Invert => "invert".to_owned(),
            Self::Posterize { bits } => format!("posterize {bits}"),
            Self::Sharpness(factor) => format!("sharpness x{factor:.2}"),
            Self::Turn { degrees } => format!("turn {degrees:+.0}"),
            Self::ShearX(level) => format!("shear {level:+.2}"),
        }
    }
}

/// What a step makes of a grey view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnGray {
    /// The same view.
    Same,
    /// Another grey one.
    Gray,
    /// One with colours.
    Colors,
}

/// The most steps of one view.
pub(crate) const MAX_STEPS: usize = 32;

/// The steps of one view, in their order: at most 32, without memory of their own.
#[derive(Clone, Copy)]
pub struct Steps {
    length: usize,
    steps: [Step; MAX_STEPS],
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

impl Steps {
    /// Leaves out what changes nothing on an image that is grey: saturation, hue and greyscale, as long as no noise
    /// has coloured it.
    pub(crate) fn for_gray_image(&mut self) {
        let mut gray = true;
        let keeps = |step: &&Step| {
            let on_gray = step.on_gray();
            gray &= on_gray != OnGray::Colors;
            !(gray && on_gray == OnGray::Same)
        };
        *self = self.iter().filter(keeps).copied().collect();
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self { length: 0, steps: [Step::Gray; MAX_STEPS] }
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
