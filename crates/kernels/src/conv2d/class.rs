//! What the forward pass and the gradient of the input have in common: classes of output pixels that sum over the same
//! taps. The forward pass is one class; the gradient of the input of a convolution with stride t has t * t classes, by
//! the pixel's row and column modulo t, since only every t-th tap meets an output pixel there.

use super::images::Images;
use crate::Conv2dGeometry;
use smallvec::SmallVec;

/// A list with an entry for each tap, without allocation up to 7 x 7.
pub type PerTap<T> = SmallVec<[T; 49]>;

/// One tap: output pixel (i, j) of a class reads source pixel (i * step + row, j * step + column), and weights from
/// `offset` on.
#[derive(Clone, Copy, Debug)]
pub struct Tap {
    pub row: isize,
    pub column: isize,
    pub offset: usize,
}

/// Output pixels that sum over the same taps.
#[derive(Debug)]
pub struct Class {
    pub batch: usize,
    pub from: Images,
    pub to: Images,
    /// Step in the source from one output pixel of the class to the next.
    pub step: usize,
    /// First output pixel, and the step from one output pixel to the next.
    pub first: (usize, usize),
    pub to_step: usize,
    /// Rows and columns of output pixels.
    pub rows: usize,
    pub columns: usize,
    /// Taps in ascending order of (row, column).
    pub taps: PerTap<Tap>,
}

impl Class {
    /// The forward pass of `g`: all pixels of y.
    pub fn forward(g: &Conv2dGeometry) -> Class {
        let padding = g.padding as isize;
        let taps = (0..g.kernel_height).flat_map(|r| {
            (0..g.kernel_width).map(move |s| Tap {
                row: r as isize - padding,
                column: s as isize - padding,
                offset: (r * g.kernel_width + s) * g.in_channels,
            })
        });
        Class {
            batch: g.batch,
            from: Images::input(g),
            to: Images::output(g),
            step: g.stride,
            first: (0, 0),
            to_step: 1,
            rows: g.out_height(),
            columns: g.out_width(),
            taps: taps.collect(),
        }
    }

    /// The class of input pixels whose row is `row` and whose column is `column` modulo the stride.
    pub fn input(g: &Conv2dGeometry, row: usize, column: usize) -> Class {
        let stride = g.stride as isize;
        // Output row p reads input row h by tap r where p * stride + r - padding = h.
        let steps = |first: usize, taps: usize| {
            (0..taps).rev().filter_map(move |tap| {
                let distance = (first + g.padding) as isize - tap as isize;
                (distance % stride == 0).then_some((tap, distance / stride))
            })
        };
        let taps = steps(row, g.kernel_height).flat_map(|(r, dr)| {
            steps(column, g.kernel_width).map(move |(s, ds)| Tap {
                row: dr,
                column: ds,
                offset: (r * g.kernel_width + s) * g.in_channels,
            })
        });
        Class {
            batch: g.batch,
            from: Images::output(g),
            to: Images::input(g),
            step: 1,
            first: (row, column),
            to_step: g.stride,
            rows: (g.in_height - row).div_ceil(g.stride),
            columns: (g.in_width - column).div_ceil(g.stride),
            taps: taps.collect(),
        }
    }
}
