//! The shapes of convolutions and of pooling.

/// Whether a tensor of `sizes` fits the address space, with room for what kernels add to it: whole vectors, an even
/// number of channels, sums in f64. A size is `None` if it overflows a `usize` itself.
pub(crate) fn addressable<const N: usize>(sizes: [Option<usize>; N]) -> bool {
    let values = sizes.into_iter().try_fold(1usize, |values, size| values.checked_mul(size?));
    values.is_some_and(|values| values <= isize::MAX as usize >> 6)
}

/// The sum of `parts`, or `None` if it overflows.
pub(crate) fn sum<const N: usize>(parts: [usize; N]) -> Option<usize> {
    parts.into_iter().try_fold(0usize, usize::checked_add)
}

/// Shapes of a 2-D convolution on channels-last data, without dilation or groups.
///
/// Input (N, H, W, C), weights (K, R, S, C), output (N, P, Q, K), all contiguous.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Conv2dGeometry {
    /// N, images.
    pub batch: usize,
    /// H, input rows.
    pub in_height: usize,
    /// W, input columns.
    pub in_width: usize,
    /// C, input channels.
    pub in_channels: usize,
    /// K, output channels.
    pub out_channels: usize,
    /// R, kernel rows.
    pub kernel_height: usize,
    /// S, kernel columns.
    pub kernel_width: usize,
    /// Step between output pixels, in both directions.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
}

impl Conv2dGeometry {
    /// Whether all sizes are positive, the kernel fits into the padded input, and the tensors fit the address space,
    /// even with padding, a kernel and a step around each image, so that no length computed from the geometry wraps.
    pub fn is_valid(&self) -> bool {
        let around = |size, kernel| sum([size, self.padding, self.padding, kernel, self.stride]);
        let (height, width) =
            (around(self.in_height, self.kernel_height), around(self.in_width, self.kernel_width));
        let channels = self.in_channels.max(self.out_channels);
        let weights = [self.out_channels, self.kernel_height, self.kernel_width, self.in_channels].map(Some);
        let positive = [
            self.batch,
            self.in_height,
            self.in_width,
            self.in_channels,
            self.out_channels,
            self.kernel_height,
            self.kernel_width,
            self.stride,
        ];
        positive.iter().all(|&v| v > 0)
            && addressable([Some(self.batch), height, width, Some(channels)])
            && addressable(weights)
            && self.in_height + 2 * self.padding >= self.kernel_height
            && self.in_width + 2 * self.padding >= self.kernel_width
    }

    /// P, output rows.
    pub fn out_height(&self) -> usize {
        (self.in_height + 2 * self.padding - self.kernel_height) / self.stride + 1
    }

    /// Q, output columns.
    pub fn out_width(&self) -> usize {
        (self.in_width + 2 * self.padding - self.kernel_width) / self.stride + 1
    }

    /// Values in the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_height * self.in_width * self.in_channels
    }

    /// Values in the weights.
    pub fn weight_len(&self) -> usize {
        self.out_channels * self.kernel_height * self.kernel_width * self.in_channels
    }

    /// Values in the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.out_channels
    }

    /// Floating-point operations of one pass by the definition (a multiply-add counts as two).
    pub fn flops(&self) -> u64 {
        let products = (self.kernel_height * self.kernel_width * self.in_channels) as u64;
        (2 * self.output_len() as u64).saturating_mul(products)
    }
}

/// Shapes of 2-D max pooling on channels-last data: windows of `side` x `side` pixels, `stride` apart both ways.
///
/// Input (N, H, W, C), output (N, P, Q, C), both contiguous.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PoolGeometry {
    /// N, images.
    pub batch: usize,
    /// H, input rows.
    pub in_height: usize,
    /// W, input columns.
    pub in_width: usize,
    /// C, channels.
    pub channels: usize,
    /// Rows and columns of a window.
    pub side: usize,
    /// Step between windows, in both directions.
    pub stride: usize,
    /// Rows added above and below, and likewise columns added on the left and on the right.
    pub padding: [usize; 2],
}

impl PoolGeometry {
    /// Whether all sizes are positive, every window touches the image, and the tensors fit the address space, even
    /// with the padding, a window and a step around each image.
    pub fn is_valid(&self) -> bool {
        let [before, after] = self.padding;
        let around = |size| sum([size, before, after, self.side, self.stride]);
        let (height, width) = (around(self.in_height), around(self.in_width));
        let positive = [self.batch, self.in_height, self.in_width, self.channels, self.side, self.stride]
            .iter()
            .all(|&v| v > 0);
        positive
            && addressable([Some(self.batch), height, width, Some(self.channels)])
            && before.max(after) < self.side
            && self.in_height.min(self.in_width) + before + after >= self.side
    }

    /// P, output rows.
    pub fn out_height(&self) -> usize {
        self.windows(self.in_height)
    }

    /// Q, output columns.
    pub fn out_width(&self) -> usize {
        self.windows(self.in_width)
    }

    /// Values in the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.in_height * self.in_width * self.channels
    }

    /// Values in the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.channels
    }

    /// The number of windows along `len` rows or columns.
    fn windows(&self, len: usize) -> usize {
        (len + self.padding[0] + self.padding[1] - self.side) / self.stride + 1
    }
}

/// Shapes of 2 x 2 average pooling of images (N, H, W, C) to (N, ceil(H / stride), ceil(W / stride), C). The
/// windows at the bottom and right edges may reach one pixel beyond the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AvgPoolGeometry {
    /// N, images.
    pub batch: usize,
    /// H, rows.
    pub height: usize,
    /// W, columns.
    pub width: usize,
    /// C, channels.
    pub channels: usize,
    /// Step between windows, in both directions: 1 or 2.
    pub stride: usize,
    /// Whether pixels beyond the image count as zeros. Otherwise a mean is over the pixels of its window that lie
    /// inside.
    pub zeros: bool,
}

impl AvgPoolGeometry {
    /// Whether all sizes are positive, windows leave no pixel out, and the tensors fit the address space.
    pub fn is_valid(&self) -> bool {
        let sizes = [self.batch, self.height, self.width, self.channels];
        sizes.iter().all(|&size| size > 0) && addressable(sizes.map(Some)) && [1, 2].contains(&self.stride)
    }

    /// Output rows.
    pub fn out_height(&self) -> usize {
        self.height.div_ceil(self.stride)
    }

    /// Output columns.
    pub fn out_width(&self) -> usize {
        self.width.div_ceil(self.stride)
    }

    /// Values in the input.
    pub fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// Values in the output.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONV: Conv2dGeometry = Conv2dGeometry {
        batch: 2,
        in_height: 5,
        in_width: 5,
        in_channels: 3,
        out_channels: 4,
        kernel_height: 3,
        kernel_width: 3,
        stride: 2,
        padding: 1,
    };

    const POOL: PoolGeometry = PoolGeometry {
        batch: 2,
        in_height: 5,
        in_width: 5,
        channels: 3,
        side: 3,
        stride: 2,
        padding: [1, 1],
    };

    /// The largest sizes, and sizes whose products wrap to small ones.
    const HUGE: [usize; 5] = [1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, usize::MAX];

    #[test]
    fn what_has_no_addresses_is_not_valid() {
        assert!(CONV.is_valid() && POOL.is_valid());
        for huge in HUGE {
            for g in [
                Conv2dGeometry { in_height: huge, in_width: huge, ..CONV },
                Conv2dGeometry { in_height: huge, in_width: huge, stride: huge, ..CONV },
                Conv2dGeometry { padding: huge, stride: huge, ..CONV },
                Conv2dGeometry { kernel_height: huge, kernel_width: huge, padding: huge, ..CONV },
                Conv2dGeometry { in_channels: huge, out_channels: huge, ..CONV },
                Conv2dGeometry { batch: huge, out_channels: huge, ..CONV },
            ] {
                assert!(!g.is_valid(), "{g:?}");
            }
            for g in [
                PoolGeometry { in_height: huge, in_width: huge, ..POOL },
                PoolGeometry { side: huge, padding: [huge - 1; 2], stride: huge, ..POOL },
                PoolGeometry { batch: huge, channels: huge, ..POOL },
            ] {
                assert!(!g.is_valid(), "{g:?}");
            }
        }
    }
}
