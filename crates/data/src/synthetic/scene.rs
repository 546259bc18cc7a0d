//! One image: an object of a given shape, with everything else drawn at random.

use std::f32::consts::TAU;

use simclr_augment::Stream;

use super::pattern::{Colour, Pattern};
use super::shape::Shape;

/// The edge of an object is drawn with this many samples a pixel along each axis.
const SAMPLES: u32 = 4;

/// The least difference in brightness between object and background: with less, a person cannot see the shape.
const LEAST_CONTRAST: f32 = 0.3;

/// The radius of an object as a share of the side of the image.
const RADIUS: [f32; 2] = [0.3, 0.46];

/// The most that an object is turned from upright, to either side, in radians: half a right angle. With full turns,
/// most of the variation within a class would be one that no augmentation of SimCLR undoes, and the short training of a
/// first try would not get past it.
const LARGEST_TURN: f32 = std::f32::consts::FRAC_PI_4;

/// The most that the two colours of a surface differ in each channel. Less than [`LEAST_CONTRAST`]: if the pattern on a
/// surface stood out more than the outline of the object, the encoder would learn to tell images apart by it.
const TEXTURE_CONTRAST: f32 = 0.25;

/// The most blots on a background.
const MOST_BLOTS: u32 = 4;

/// The brightness in the middle of an image, and how much it may rise from edge to edge.
const LIGHT: [f32; 2] = [0.65, 1.1];
const STEEPEST_LIGHT: f32 = 0.5;

/// The largest amplitude of the noise of a pixel.
const MOST_NOISE: f32 = 0.04;

/// A uniform number in [low, high).
pub(super) fn between(rng: &mut Stream, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.unit() as f32
}

/// A small blot on the background: an ellipse, from round to very long.
#[derive(Clone, Debug)]
struct Blot {
    place: Placement,
    colour: Colour,
}

/// The placement of an object: maps points of the unit square to the object's own coordinates.
#[derive(Clone, Debug)]
struct Placement {
    centre: [f32; 2],
    /// Rows of the matrix from the unit square to its own coordinates.
    inverse: [[f32; 2]; 2],
}

impl Placement {
    /// Centred, turned by `angle`, and scaled by `radii` along its own axes.
    fn new(centre: [f32; 2], angle: f32, radii: [f32; 2]) -> Self {
        let (sin, cos) = angle.sin_cos();
        Self { centre, inverse: [[cos / radii[0], sin / radii[0]], [-sin / radii[1], cos / radii[1]]] }
    }

    fn own(&self, x: f32, y: f32) -> (f32, f32) {
        let (x, y) = (x - self.centre[0], y - self.centre[1]);
        let [[a, b], [c, d]] = self.inverse;
        (a * x + b * y, c * x + d * y)
    }
}

/// Everything that is drawn at random for an image.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    shape: Shape,
    place: Placement,
    surface: Pattern,
    background: Pattern,
    blots: Vec<Blot>,
    /// Brightness in the middle, and its slope along x and y.
    light: [f32; 3],
    noise: f32,
}

impl Scene {
    pub fn draw(shape: Shape, rng: &mut Stream) -> Self {
        let (object, ground) = two_colours(rng);
        let radius = between(rng, RADIUS[0], RADIUS[1]);
        let stretch = between(rng, 0.87, 1.15);
        let centre = [0; 2].map(|_: i32| between(rng, radius * 0.9, 1.0 - radius * 0.9));
        let angle = between(rng, -LARGEST_TURN, LARGEST_TURN);
        let mirror = if rng.below(2) == 0 { 1.0 } else { -1.0 };
        let blots = (0..rng.below(MOST_BLOTS + 1)).map(|_| Blot::draw(rng)).collect();
        let slope = between(rng, 0.0, STEEPEST_LIGHT);
        let light_from = between(rng, 0.0, TAU);
        Self {
            shape,
            place: Placement::new(centre, angle, [mirror * radius * stretch, -radius / stretch]),
            surface: Pattern::draw(object, TEXTURE_CONTRAST, rng),
            background: Pattern::draw(ground, TEXTURE_CONTRAST, rng),
            blots,
            light: [between(rng, LIGHT[0], LIGHT[1]), slope * light_from.cos(), slope * light_from.sin()],
            noise: between(rng, 0.0, MOST_NOISE),
        }
    }

    /// Draws the scene as `size` x `size` pixels, 8-bit RGB, rows from the top.
    pub fn render(&self, size: u32, rng: &mut Stream, out: &mut [u8]) {
        let step = 1.0 / size as f32;
        for (row, y) in out.chunks_exact_mut(3 * size as usize).zip(0..size) {
            for (pixel, x) in row.as_chunks_mut::<3>().0.iter_mut().zip(0..size) {
                let (left, top) = (x as f32 * step, y as f32 * step);
                let (middle_x, middle_y) = (left + 0.5 * step, top + 0.5 * step);
                let covered = self.coverage(left, top, step);
                let behind = if covered < 1.0 { self.behind(middle_x, middle_y) } else { [0.0; 3] };
                let front = if covered > 0.0 { self.surface.at(middle_x, middle_y) } else { [0.0; 3] };
                let [light, slope_x, slope_y] = self.light;
                let light = light + slope_x * (middle_x - 0.5) + slope_y * (middle_y - 0.5);
                *pixel = std::array::from_fn(|i| {
                    let value = behind[i] + covered * (front[i] - behind[i]);
                    let noise = self.noise * between(rng, -1.0, 1.0);
                    ((value * light + noise).clamp(0.0, 1.0) * 255.0).round() as u8
                });
            }
        }
    }

    /// The share of the pixel at (left, top) that the object covers.
    fn coverage(&self, left: f32, top: f32, step: f32) -> f32 {
        let (x, y) = self.place.own(left + 0.5 * step, top + 0.5 * step);
        // Outside the circle that holds the shape, by more than a pixel.
        if x * x + y * y > 1.7 {
            return 0.0;
        }
        let sub = step / SAMPLES as f32;
        let inside = (0..SAMPLES * SAMPLES).filter(|i| {
            let (column, row) = ((i % SAMPLES) as f32, (i / SAMPLES) as f32);
            let (x, y) = self.place.own(left + (column + 0.5) * sub, top + (row + 0.5) * sub);
            self.shape.contains(x, y)
        });
        inside.count() as f32 / (SAMPLES * SAMPLES) as f32
    }

    fn behind(&self, x: f32, y: f32) -> Colour {
        let mut colour = self.background.at(x, y);
        for blot in &self.blots {
            let (u, v) = blot.place.own(x, y);
            let share = (3.0 * (1.0 - (u * u + v * v))).clamp(0.0, 1.0);
            colour = std::array::from_fn(|i| colour[i] + share * (blot.colour[i] - colour[i]));
        }
        colour
    }
}

impl Blot {
    fn draw(rng: &mut Stream) -> Self {
        let centre = [0; 2].map(|_: i32| between(rng, 0.0, 1.0));
        let radii = [between(rng, 0.04, 0.3), between(rng, 0.03, 0.07)];
        Self { place: Placement::new(centre, between(rng, 0.0, TAU), radii), colour: colour(rng) }
    }
}

fn colour(rng: &mut Stream) -> Colour {
    [0; 3].map(|_: i32| between(rng, 0.0, 1.0))
}

fn brightness([red, green, blue]: Colour) -> f32 {
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// Two random colours, either of which may be the brighter, that differ enough in brightness.
fn two_colours(rng: &mut Stream) -> (Colour, Colour) {
    for _ in 0..100 {
        let (a, b) = (colour(rng), colour(rng));
        if (brightness(a) - brightness(b)).abs() >= LEAST_CONTRAST {
            return (a, b);
        }
    }
    // Reached with a probability of about 2^-60, but must still be right.
    ([1.0; 3], [0.0; 3])
}
