//! Colour jitter: brightness, contrast, saturation and hue, in a random order.

use crate::{Brightness, Stream, ViewConfig, brightness, contrast, hue, saturation};

/// One colour operator with its parameter. After each, values are clipped to [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ColorOp {
    /// Every channel times this factor, at least 0.
    Brightness(f32),
    /// Every channel plus this shift, in units of the full range.
    BrightnessShift(f32),
    /// Distance from the image's mean grey value times this factor, at least 0.
    Contrast(f32),
    /// Distance from the pixel's own grey value times this factor, at least 0.
    Saturation(f32),
    /// Turn of the colour wheel at constant saturation and value (HSV), in turns, in [-1, 1].
    Hue(f32),
}

impl ColorOp {
    /// Applies the operator to planes in [0, 1].
    pub(crate) fn apply(self, planes: &mut [f32]) {
        match self {
            Self::Brightness(factor) => brightness::multiply(planes, factor),
            Self::BrightnessShift(shift) => brightness::add(planes, shift),
            Self::Contrast(factor) => contrast::contrast(planes, factor),
            Self::Saturation(factor) => saturation::saturation(planes, factor),
            Self::Hue(turn) => hue::hue(planes, turn),
        }
    }

    /// A few words, such as "contrast x1.31" or "hue +0.08".
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Brightness(factor) => format!("brightness x{factor:.2}"),
            Self::BrightnessShift(shift) => format!("brightness {shift:+.2}"),
            Self::Contrast(factor) => format!("contrast x{factor:.2}"),
            Self::Saturation(factor) => format!("saturation x{factor:.2}"),
            Self::Hue(turn) => format!("hue {turn:+.2}"),
        }
    }
}

/// The law of the four operators.
#[derive(Debug, Clone)]
pub(crate) struct JitterLaw {
    strength: f64,
    brightness: Brightness,
}

impl JitterLaw {
    /// `config` has been validated.
    pub fn new(config: &ViewConfig) -> Self {
        Self { strength: f64::from(config.color_strength), brightness: config.brightness }
    }

    /// Draws the four parameters, then the order, uniform over all 24.
    pub fn draw(&self, stream: &mut Stream) -> [ColorOp; 4] {
        let reach = 0.8 * self.strength;
        let factors = [(1.0 - reach).max(0.0), 1.0 + reach];
        let brightness = match self.brightness {
            Brightness::Multiplicative => ColorOp::Brightness(stream.uniform(factors) as f32),
            Brightness::Additive => ColorOp::BrightnessShift(stream.uniform([-reach, reach]) as f32),
        };
        let turn = 0.2 * self.strength;
        let mut operators = [
            brightness,
            ColorOp::Contrast(stream.uniform(factors) as f32),
            ColorOp::Saturation(stream.uniform(factors) as f32),
            ColorOp::Hue(stream.uniform([-turn, turn]) as f32),
        ];
        for last in (1..operators.len()).rev() {
            operators.swap(last, stream.below(last as u32 + 1) as usize);
        }
        operators
    }
}
