//! The shapes of convolutions and of pooling.

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
    /// Whether all sizes are positive and the kernel fits into the padded input.
    pub fn is_valid(&self) -> bool {
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

    /// Floating-point operations of one pass by the definition (a multiplication and an addition count as two).
    pub fn flops(&self) -> u64 {
        2 * self.output_len() as u64 * (self.kernel_height * self.kernel_width * self.in_channels) as u64
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
    /// Rows added above and below, and as many columns at the left and at the right.
    pub padding: [usize; 2],
}

impl PoolGeometry {
    /// Whether all sizes are positive and every window touches the image.
    pub fn is_valid(&self) -> bool {
        let positive = [self.batch, self.in_height, self.in_width, self.channels, self.side, self.stride]
            .iter()
            .all(|&v| v > 0);
        let padding: usize = self.padding.iter().sum();
        positive
            && self.padding.iter().all(|&padding| padding < self.side)
            && self.in_height.min(self.in_width) + padding >= self.side
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

    /// Windows along `len` rows or columns.
    fn windows(&self, len: usize) -> usize {
        (len + self.padding[0] + self.padding[1] - self.side) / self.stride + 1
    }
}
