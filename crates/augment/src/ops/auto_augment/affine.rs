//! Rotation and shear by any amount, with the nearest pixel, and black beyond the border.

use crate::planes::Planes;

/// Turns the view counterclockwise about its centre.
pub(crate) fn turn(planes: &mut Planes, degrees: f32, spare: &mut Vec<f32>) {
    let (sin, cos) = f64::from(degrees).to_radians().sin_cos();
    let center = (planes.side() as f64 - 1.0) / 2.0;
    sample(planes, spare, |x, y| {
        let (x, y) = (x - center, y - center);
        (cos * x - sin * y + center, sin * x + cos * y + center)
    });
}

/// Moves each row to the left by `level` times its distance from the upper border.
pub(crate) fn shear_x(planes: &mut Planes, level: f32, spare: &mut Vec<f32>) {
    sample(planes, spare, |x, y| (x + f64::from(level) * (y + 0.5), y));
}

/// Sets each pixel (x, y) to the old pixel nearest to `from(x, y)`, or to black outside of the view.
fn sample(planes: &mut Planes, spare: &mut Vec<f32>, from: impl Fn(f64, f64) -> (f64, f64)) {
    let side = planes.side() as f64;
    planes.resample(spare, |x, y| {
        let (x, y) = from(x as f64, y as f64);
        let (x, y) = (x.round_ties_even(), y.round_ties_even());
        let inside = |place: f64| (0.0..side).contains(&place);
        (inside(x) && inside(y)).then_some((x as usize, y as usize))
    });
}
