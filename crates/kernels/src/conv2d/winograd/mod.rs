//! 3 x 3 convolutions with stride 1 in fewer multiplications, by Winograd's F(4 x 4, 3 x 3). See the README.

mod correlate;
mod tiles;
mod transform;
mod weight;

use super::epilogue::Epilogue;
use super::images::Images;
use super::pack::Source;
use crate::{Conv2dGeometry, Cpu, Element, Write};
use correlate::Correlation;
use tiles::SIDE;

pub use weight::backward_weight;

/// Whether this form can compute the convolution at all.
pub fn can(g: &Conv2dGeometry) -> bool {
    (g.kernel_height, g.kernel_width, g.stride) == (3, 3, 1) && g.padding <= 2
}

/// Whether this form is the faster one, judged by the geometry from measurements in the README.
pub fn pays<E: Element>(g: &Conv2dGeometry) -> bool {
    if !can(g) {
        return false;
    }
    // With few channels the transforms cost more than they save.
    let channels = g.in_channels.min(g.out_channels);
    // Tiles at an edge compute pixels that do not exist.
    let computed = g.out_height().next_multiple_of(SIDE) * g.out_width().next_multiple_of(SIDE);
    let wanted = g.out_height() * g.out_width();
    // The cost of transforming the weights must be spread over several tiles, and over more where the weights exceed
    // the caches and the direct form multiplies in bf16, which is twice as fast.
    let tiles = g.batch * computed / (SIDE * SIDE);
    let streaming = E::PER_UNIT == 2 && g.in_channels * g.out_channels > 256 * 256;
    channels >= 16 && 2 * wanted >= computed && tiles >= if streaming { 192 } else { 16 }
}

/// The forward pass; see [`super::conv2d_forward`].
pub fn forward<E: Element>(
    cpu: &Cpu,
    g: &Conv2dGeometry,
    x: &[E],
    w: &[f32],
    y: &mut [E],
    epilogue: Epilogue<E>,
) {
    let (from, to) = (Images::input(g), Images::output(g));
    let shape = Correlation { batch: g.batch, from, to, padding: g.padding, write: Write::Over };
    let weights = Source { weights: w, stride_in: 1, stride_out: 9 * g.in_channels };
    let offsets = std::array::from_fn(|tap| tap * g.in_channels);
    correlate::run(cpu, &shape, x, weights, &offsets, y, epilogue);
}

/// The gradient of the input, a correlation with the mirrored weights; see [`super::conv2d_backward_input`].
pub fn backward_input<E: Element>(
    cpu: &Cpu,
    g: &Conv2dGeometry,
    dy: &[E],
    w: &[f32],
    dx: &mut [E],
    write: Write,
) {
    let (from, to) = (Images::output(g), Images::input(g));
    let shape = Correlation { batch: g.batch, from, to, padding: 2 - g.padding, write };
    let weights = Source { weights: w, stride_in: 9 * g.in_channels, stride_out: 1 };
    let offsets = std::array::from_fn(|tap| (8 - tap) * g.in_channels);
    correlate::run(cpu, &shape, dy, weights, &offsets, dx, Epilogue::Keep);
}
