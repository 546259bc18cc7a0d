//! The patterns that objects and backgrounds are painted with. They tell nothing about the class.

use std::f32::consts::TAU;

use simclr_augment::Stream;

use super::scene::between;

/// Red, green, blue in [0, 1].
pub(super) type Colour = [f32; 3];

/// How one colour turns into the other over the surface.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Gradient,
    Stripes,
    Checks,
    Dots,
    Noise,
}

const KINDS: [Kind; 6] = [Kind::Plain, Kind::Gradient, Kind::Stripes, Kind::Checks, Kind::Dots, Kind::Noise];

/// Two colours and the pattern they form, over the unit square.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    kind: Kind,
    colours: [Colour; 2],
    /// Cosine and sine of its direction, per wavelength.
    axis: [f32; 2],
    phase: [f32; 2],
    noise: u32,
}

impl Pattern {
    /// Draws a random pattern around `colour`; `contrast` is the most that its second colour may differ in each
    /// channel.
    pub fn draw(colour: Colour, contrast: f32, rng: &mut Stream) -> Self {
        let kind = KINDS[rng.below(KINDS.len() as u32) as usize];
        let mut other = colour;
        for value in &mut other {
            *value = (*value + between(rng, -contrast, contrast)).clamp(0.0, 1.0);
        }
        let angle = between(rng, 0.0, TAU);
        let wavelength = match kind {
            Kind::Gradient => 2.0,
            _ => between(rng, 0.12, 0.4),
        };
        Self {
            kind,
            colours: [colour, other],
            axis: [angle.cos() / wavelength, angle.sin() / wavelength],
            phase: [between(rng, 0.0, 1.0), between(rng, 0.0, 1.0)],
            noise: rng.below(u32::MAX),
        }
    }

    /// The colour at (x, y) in the unit square.
    pub fn at(&self, x: f32, y: f32) -> Colour {
        let [c, s] = self.axis;
        // In wavelengths, along the pattern and across it.
        let (u, v) = (c * x + s * y + self.phase[0], c * y - s * x + self.phase[1]);
        let share = match self.kind {
            Kind::Plain => 0.0,
            Kind::Gradient | Kind::Stripes => soft_step(wave(u)),
            Kind::Checks => soft_step(wave(u) * wave(v)),
            Kind::Dots => soft_step(wave(u) + wave(v) - 0.5),
            Kind::Noise => lattice_noise(2.0 * u, 2.0 * v, self.noise),
        };
        let [a, b] = self.colours;
        std::array::from_fn(|i| a[i] + share * (b[i] - a[i]))
    }
}

/// A triangle wave of period 1 between -1 and 1: cheaper than a sine, and as good here.
fn wave(t: f32) -> f32 {
    4.0 * ((t - t.floor()) - 0.5).abs() - 1.0
}

/// 0 below, 1 above, with an edge about a pixel wide.
fn soft_step(t: f32) -> f32 {
    (0.5 + 2.0 * t).clamp(0.0, 1.0)
}

/// Smooth noise: random values on the whole numbers, interpolated between them.
fn lattice_noise(x: f32, y: f32, seed: u32) -> f32 {
    let (left, top) = (x.floor(), y.floor());
    let value = |dx: i32, dy: i32| {
        let (i, j) = (left as i32 + dx, top as i32 + dy);
        let mut hash = seed ^ (i as u32).wrapping_mul(0x9e37_79b9) ^ (j as u32).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 15)).wrapping_mul(0x2c1b_3c6d);
        hash = (hash ^ (hash >> 12)).wrapping_mul(0x297a_2d39);
        (hash ^ (hash >> 15)) as f32 / u32::MAX as f32
    };
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (fx, fy) = (smooth(x - left), smooth(y - top));
    let upper = value(0, 0) + fx * (value(1, 0) - value(0, 0));
    let lower = value(0, 1) + fx * (value(1, 1) - value(0, 1));
    upper + fy * (lower - upper)
}
