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

impl Tap {
    /// How many of `outputs` rows (or columns) `step` apart read one of `size` rows of the source by this tap, at
    /// `distance` from the first.
    fn met(distance: isize, step: usize, outputs: usize, size: usize) -> usize {
        let read = |output: usize| usize::try_from((output * step) as isize + distance);
        (0..outputs).filter(|&output| read(output).is_ok_and(|source| source < size)).count()
    }
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

    /// In how many cases an output pixel of an image meets a pixel of the source by a tap.
    pub fn meetings(&self) -> usize {
        let met = |tap: &Tap| {
            Tap::met(tap.row, self.step, self.rows, self.from.height)
                * Tap::met(tap.column, self.step, self.columns, self.from.width)
        };
        self.taps.iter().map(met).sum()
    }

    /// The taps in a row of taps: all rows have the same.
    pub fn taps_in_row(&self) -> usize {
        self.taps.iter().take_while(|tap| tap.row == self.taps[0].row).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::geometry;
    use super::*;

    #[test]
    fn taps_beyond_the_image_meet_no_pixel() {
        let meetings = |side: usize, stride: usize| {
            Class::forward(&geometry(1, side, side, 1, 1, (3, 3), stride, 1)).meetings()
        };
        assert_eq!(meetings(4, 1), 10 * 10);
        assert_eq!(meetings(7, 1), 19 * 19);
        assert_eq!(meetings(8, 2), 11 * 11);
        assert_eq!(meetings(1, 1), 1);
    }
}
