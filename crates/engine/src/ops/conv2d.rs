//! 2-D convolution without bias: the BatchNorm that follows has one.

use crate::ops::image_shape;
use crate::tape::BackwardContext;
use crate::{Conv2dGeometry, DType, EngineError, Result, Tape, Tensor, Var};

/// How a convolution steps over its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Pixels between outputs, both ways.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
    /// Whether to sum the output by channel for the BatchNorm that follows, while the values are in registers.
    pub channel_sums: bool,
}

/// y (N, P, Q, K) = x (N, H, W, C) convolved (as in PyTorch: correlated) with w (K, R, S, C).
///
/// P = (H + 2 padding - R) / stride + 1, rounded down, Q likewise. x may be f32 or bf16, and on a GPU f16, and y has
/// the type of x; w is f32. Products accumulate in f32.
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if x and w do not fit together,
/// [`EngineError::Value`](crate::EngineError::Value) for a window that does not fit, or w that is not f32;
/// errors of the device.
pub fn conv2d(tape: &mut Tape, x: &Var, w: &Var, conv: Conv2d) -> Result<Var> {
    let geometry = geometry(x.tensor(), w.tensor(), conv)?;
    let device = x.tensor().device();
    let mut y = Tensor::empty_of(device, &output_shape(&geometry), x.tensor().dtype());
    // On a GPU, the convolution with sums may be a different algorithm than the one without, and round differently.
    let summed = conv.channel_sums && (device.is_gpu() || !tape.knows_coefficients());
    let mut sums = summed.then(|| Tensor::empty_of(device, &[2 * geometry.out_channels], DType::F64));
    device.kernels().conv2d_forward(&geometry, x.tensor(), w.tensor(), &mut y, sums.as_mut())?;
    let y =
        tape.record(&[x, w], y, || Conv2dBackward { geometry, x: x.tensor().clone(), w: w.tensor().clone() });
    Ok(y.with_channel_sums(sums))
}

/// The geometry of a convolution, after checking that the operands fit together.
pub(super) fn geometry(x: &Tensor, w: &Tensor, conv: Conv2d) -> Result<Conv2dGeometry> {
    let [batch, in_height, in_width, in_channels] = image_shape("conv2d", x)?;
    let [out_channels, kernel_height, kernel_width, weight_channels] = image_shape("conv2d weights", w)?;
    if weight_channels != in_channels {
        let expected = format!("weights (out, h, w, {in_channels}) for images {:?}", x.shape());
        return Err(EngineError::shape("conv2d", expected, w.shape()));
    }
    let geometry = Conv2dGeometry {
        batch,
        in_height,
        in_width,
        in_channels,
        out_channels,
        kernel_height,
        kernel_width,
        stride: conv.stride,
        padding: conv.padding,
    };
    if !geometry.is_valid() {
        let what =
            format!("a kernel that fits into the padded image and positive sizes are needed: {geometry:?}");
        return Err(EngineError::Value { op: "conv2d", what });
    }
    w.expect_type("conv2d weights", DType::F32)?;
    Ok(geometry)
}

/// (N, P, Q, K).
pub(super) fn output_shape(g: &Conv2dGeometry) -> [usize; 4] {
    [g.batch, g.out_height(), g.out_width(), g.out_channels]
}

pub(crate) struct Conv2dBackward {
    geometry: Conv2dGeometry,
    x: Tensor,
    w: Tensor,
}

impl Conv2dBackward {
    pub(crate) fn backward(self, dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let device = dy.device().clone();
        if context.wants(1) {
            let mut dw = Tensor::empty(&device, self.w.shape());
            device.kernels().conv2d_backward_weight(&self.geometry, &self.x, &dy, &mut dw)?;
            context.give(1, dw)?;
        }
        if context.wants(0) {
            let (mut dx, write) = context.sum(0, || Tensor::empty_of(&device, self.x.shape(), dy.dtype()));
            // x is not needed any more: its memory can be reused by what follows.
            drop(self.x);
            device.kernels().conv2d_backward_input(&self.geometry, &dy, &self.w, &mut dx, write)?;
            context.give(0, dx)?;
        }
        Ok(())
    }
}
