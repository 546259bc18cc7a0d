//! The one trait that a device implements: every kernel that the operators call.

use simclr_kernels::batch_norm::NormConstants;
use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::pair_loss::PairLoss;
use simclr_kernels::{AvgPoolGeometry, Conv2dGeometry, PoolGeometry, Write};

use crate::{
    Arithmetic, Bytes, EngineError, LossScale, Mask, ParameterUpdate, Result, Rule, StepInputs, Tensor,
};

/// Where the ReLU after a BatchNorm let values through: see [`simclr_kernels::batch_norm::Gate`].
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a> {
    /// Everywhere: there is no ReLU.
    Open,
    /// Where its output is positive.
    Output(&'a Tensor),
    /// Where x scale + shift is positive, as the BatchNorm's coefficients say.
    Affine,
    /// Where its output is positive, as a mask says.
    Mask(&'a Mask),
}

impl Gate<'_> {
    /// Bytes that a kernel reads to evaluate the gate.
    pub fn bytes(&self) -> usize {
        match self {
            Gate::Output(y) => y.len() * y.dtype().size(),
            Gate::Mask(mask) => mask.bytes(),
            Gate::Open | Gate::Affine => 0,
        }
    }
}

/// A BatchNorm's parameters and running averages, (C) each.
#[derive(Clone, Copy, Debug)]
pub struct NormParameters<'a> {
    /// Scale.
    pub gamma: &'a Tensor,
    /// Shift, where there is one.
    pub beta: Option<&'a Tensor>,
    /// Running mean and variance.
    pub averages: [&'a Tensor; 2],
}

/// Where a BatchNorm's backward pass writes its sums and what is computed from them.
#[derive(Debug)]
pub struct BackwardSums<'a> {
    /// [sum of g; C, sum of g (x - mean); C].
    pub sums: &'a mut Tensor,
    /// dgamma and dbeta, (C) each, of this worker's share.
    pub gradients: Option<[&'a mut Tensor; 2]>,
    /// The count and the output of [`Kernels::batch_norm_backward_coefficients`], computed from these sums if no
    /// other worker's are to be added.
    pub coefficients: Option<(Option<f64>, &'a mut Tensor)>,
}

/// A fused BatchNorm, ReLU and convolution of x: the ReLU's output is neither written nor kept. Coefficients are the
/// BatchNorm's.
pub trait NormConv2d {
    /// Whether this is faster than the separate operators, forward and backward. Measured once for each geometry,
    /// which overwrites y, and never while a step is being captured.
    fn pays(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
    ) -> Result<bool>;
    /// y = relu(x scale + shift) * w; `sums` receives [sum of y; K, sum of y^2; K] over all pixels. Call this and
    /// [`NormConv2d::backward_weight`] only where [`NormConv2d::pays`] returned true.
    fn forward(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
        sums: &mut Tensor,
    ) -> Result<()>;
    /// dw of the convolution.
    fn backward_weight(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        dy: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()>;
}

/// A network's fused first layer: a convolution of images, whose gradient is not needed, a BatchNorm and a ReLU. The
/// convolution's output, y, is neither written nor kept. Coefficients are the BatchNorm's; g is dy where the ReLU
/// lets values through.
pub trait FirstLayer {
    /// `sums` receives [sum of y; K, sum of y^2; K] over all pixels.
    fn sums(&self, g: &Conv2dGeometry, images: &Tensor, w: &Tensor, sums: &mut Tensor) -> Result<()>;
    /// `to` becomes relu(y scale + shift).
    fn forward(
        &self,
        g: &Conv2dGeometry,
        images: &Tensor,
        w: &Tensor,
        coefficients: &Tensor,
        to: &mut Tensor,
    ) -> Result<()>;
    /// The [`BackwardSums`], with y in the place of x, and the correlations, f64, (K + R S C + 1, R S C + 1). With p
    /// the values under the taps of a pixel, followed by a 1, the first K rows are the sums over pixels of g p, one for
    /// each channel, and the rows below them are the sum of p p^T.
    fn backward_sums(
        &self,
        g: &Conv2dGeometry,
        images: &Tensor,
        w: &Tensor,
        coefficients: &Tensor,
        dy: &Tensor,
        correlations: &mut Tensor,
        to: BackwardSums,
    ) -> Result<()>;
    /// dw, from the correlations and the output of [`Kernels::batch_norm_backward_coefficients`], (3, K).
    fn backward_weight(
        &self,
        g: &Conv2dGeometry,
        images: &Tensor,
        w: &Tensor,
        correlations: &Tensor,
        backward: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()>;
}

/// A fused convolution and the BatchNorm behind it, whose coefficients are known before: the convolution's output is
/// neither written nor kept.
pub trait Conv2dNorm {
    /// y = act(convolution of x with w, times scale, + shift + residual), with act the ReLU if `relu`.
    fn forward(
        &self,
        g: &Conv2dGeometry,
        operands: [&Tensor; 2],
        coefficients: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        y: &mut Tensor,
    ) -> Result<()>;
}

/// The fused end of a residual block: the BatchNorms of its branch and of its shortcut, their sum, and a ReLU. What
/// the shortcut adds is never written to memory. Coefficients are the BatchNorms', the mask marks where the output is
/// positive, and g is dy there.
pub trait NormPair {
    /// y = relu(sum of both x scale + shift), and its mask.
    fn forward(
        &self,
        x: [&Tensor; 2],
        coefficients: [&Tensor; 2],
        y: &mut Tensor,
        mask: &mut Mask,
    ) -> Result<()>;
    /// The [`BackwardSums`] over g of both.
    fn backward_sums(
        &self,
        dy: &Tensor,
        mask: &Mask,
        x: [&Tensor; 2],
        coefficients: [&Tensor; 2],
        to: [BackwardSums; 2],
    ) -> Result<()>;
    /// Overwrites each x with dx = g a + x b + c.
    fn backward_input(
        &self,
        dy: &Tensor,
        mask: &Mask,
        x: [&mut Tensor; 2],
        backward: [&Tensor; 2],
    ) -> Result<()>;
}

/// The kernels of a device.
///
/// Operators check shapes before they call a kernel, which may rely on them. Outputs are allocated by the caller and
/// overwritten, unless stated otherwise. Sums over many values are f64. Results stay on the device until they are
/// read: coefficients of a BatchNorm are tensors (4, C), [scale, shift, mean, 1 / deviation].
pub trait Kernels: Send + Sync {
    /// y = x * w; `sums`, if given, receives [sum of y; K, sum of y^2; K] over all pixels.
    fn conv2d_forward(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
        sums: Option<&mut Tensor>,
    ) -> Result<()>;
    /// dx of a convolution, written or added.
    fn conv2d_backward_input(
        &self,
        g: &Conv2dGeometry,
        dy: &Tensor,
        w: &Tensor,
        dx: &mut Tensor,
        write: Write,
    ) -> Result<()>;
    /// dw of a convolution.
    fn conv2d_backward_weight(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        dy: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()>;

    /// The kernels for a fused BatchNorm, ReLU and convolution, if the device has any.
    fn norm_conv2d(&self) -> Option<&dyn NormConv2d> {
        None
    }

    /// The kernel for a fused convolution and BatchNorm, if the device has one.
    fn conv2d_norm(&self) -> Option<&dyn Conv2dNorm> {
        None
    }

    /// The kernels for a fused first layer on such images, if the device has any.
    fn first_layer(&self, g: &Conv2dGeometry, images: &Tensor) -> Option<&dyn FirstLayer> {
        let _ = (g, images);
        None
    }

    /// The kernels for fused pairs of BatchNorms, if the device has any: it then has masks too.
    fn norm_pair(&self) -> Option<&dyn NormPair> {
        None
    }

    /// [sum of x; C, sum of x^2; C] over rows of C values.
    fn channel_sums(&self, x: &Tensor, sums: &mut Tensor) -> Result<()>;
    /// The coefficients of a batch, from its sums and their count of values per channel; `averages` receives the new
    /// running averages.
    fn batch_coefficients(
        &self,
        constants: NormConstants,
        sums: (&Tensor, f64),
        parameters: NormParameters,
        averages: [&mut Tensor; 2],
        coefficients: &mut Tensor,
    ) -> Result<()>;
    /// The coefficients from the running averages.
    fn frozen_coefficients(
        &self,
        epsilon: f32,
        parameters: NormParameters,
        coefficients: &mut Tensor,
    ) -> Result<()>;
    /// The size in bytes of the mask that tells backward the gate of a ReLU after a BatchNorm of x plus a residual; 0
    /// if backward reads the output instead.
    fn batch_norm_mask(&self, x: &Tensor) -> Result<usize>;
    /// y = act(x scale + shift + residual). `mask`, if given, receives where y > 0.
    fn batch_norm_forward(
        &self,
        x: &Tensor,
        coefficients: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        y: &mut Tensor,
        mask: Option<&mut Mask>,
    ) -> Result<()>;
    /// The [`BackwardSums`] over g, which is dy where the gate is open; if `keep`, overwrites dy with g.
    fn batch_norm_backward_sums(
        &self,
        dy: &mut Tensor,
        gate: Gate,
        x: &Tensor,
        coefficients: &Tensor,
        keep: bool,
        to: BackwardSums,
    ) -> Result<()>;
    /// (3, C): a, b and c of dx = g a + x b + c, from the sums of all workers. Without a count, the statistics are
    /// constants.
    fn batch_norm_backward_coefficients(
        &self,
        sums: &Tensor,
        count: Option<f64>,
        coefficients: &Tensor,
        to: &mut Tensor,
    ) -> Result<()>;
    /// Overwrites x with dx = g a + x b + c, by channel, where g is dy where the gate is open.
    fn batch_norm_backward_input(
        &self,
        dy: &Tensor,
        gate: Gate,
        x: &mut Tensor,
        coefficients: &Tensor,
        backward: &Tensor,
    ) -> Result<()>;

    /// Max pooling.
    fn max_pool_forward(&self, g: &PoolGeometry, x: &Tensor, y: &mut Tensor) -> Result<()>;
    /// dx of max pooling, from its input, its output and dy.
    fn max_pool_backward(
        &self,
        g: &PoolGeometry,
        x: &Tensor,
        y: &Tensor,
        dy: &Tensor,
        dx: &mut Tensor,
    ) -> Result<()>;
    /// Average pooling by windows of 2 x 2.
    fn avg_pool_forward(&self, g: &AvgPoolGeometry, x: &Tensor, y: &mut Tensor) -> Result<()>;
    /// dx of average pooling, written or added.
    fn avg_pool_backward(
        &self,
        g: &AvgPoolGeometry,
        dy: &Tensor,
        dx: &mut Tensor,
        write: Write,
    ) -> Result<()>;
    /// (N, H, W, C) to (N, C).
    fn global_avg_pool_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()>;
    /// dx of global average pooling.
    fn global_avg_pool_backward(&self, dy: &Tensor, dx: &mut Tensor) -> Result<()>;
    /// (N, H, W, 2 C) to (N, C): the mean over pixels of the sum of both streams.
    fn fuse_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()>;
    /// dx of fusing, written or added.
    fn fuse_backward(&self, dy: &Tensor, dx: &mut Tensor, write: Write) -> Result<()>;
    /// (N, H, W, 2 C) to (N, H, W, C): both streams, mixed by the softmax of logits (N, 2 C).
    fn select_forward(&self, x: &Tensor, logits: &Tensor, y: &mut Tensor) -> Result<()>;
    /// The gradients of selecting; overwrites x with dx.
    fn select_backward(
        &self,
        dy: &Tensor,
        logits: &Tensor,
        x: &mut Tensor,
        dlogits: &mut Tensor,
    ) -> Result<()>;

    /// y = x w^T + b.
    fn linear_forward(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, y: &mut Tensor) -> Result<()>;
    /// dx = dy w.
    fn linear_backward_input(&self, dy: &Tensor, w: &Tensor, dx: &mut Tensor) -> Result<()>;
    /// dw = dy^T x.
    fn linear_backward_weight(&self, x: &Tensor, dy: &Tensor, dw: &mut Tensor) -> Result<()>;
    /// The sum of every column.
    fn column_sums(&self, x: &Tensor, sums: &mut Tensor) -> Result<()>;

    /// y = max(x, 0).
    fn relu_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()>;
    /// Sets dy to 0 where y is not positive.
    fn relu_backward(&self, y: &Tensor, dy: &mut Tensor) -> Result<()>;
    /// a += b.
    fn add_assign(&self, a: &mut Tensor, b: &Tensor) -> Result<()>;
    /// a *= factor, a tensor of one value.
    fn scale(&self, a: &mut Tensor, factor: &Tensor) -> Result<()>;
    /// Sets every value of a, which is f32, to `value`.
    fn fill(&self, a: &mut Tensor, value: f32) -> Result<()>;
    /// Maps bytes to [0, 1].
    fn unit_from_bytes(&self, bytes: Bytes, y: &mut Tensor) -> Result<()>;
    /// The sum of squares of all values of all tensors, f64, (1).
    fn sum_of_squares(&self, list: &mut dyn Iterator<Item = &Tensor>, sum: &mut Tensor) -> Result<()>;

    /// Divides each row by its L2 norm.
    fn l2_normalize_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()>;
    /// dx of L2 normalisation.
    fn l2_normalize_backward(&self, x: &Tensor, dy: &Tensor, dx: &mut Tensor) -> Result<()>;
    /// NT-Xent's figures per anchor, from all workers' z: (anchors, 4), a [`simclr_kernels::nt_xent::Anchor`] per row.
    fn nt_xent_forward(&self, shape: &ContrastiveShape, all: &Tensor, anchors: &mut Tensor) -> Result<()>;
    /// From the anchors: their log-sum-exps, (anchors), and [sum of losses, number of anchors whose positive is
    /// nearest, sum of entropies].
    fn nt_xent_figures(&self, anchors: &Tensor, lse: &mut Tensor, sums: &mut Tensor) -> Result<()>;
    /// The mean loss over `views` anchors, (1), from those sums.
    fn mean_loss(&self, sums: &Tensor, views: usize, loss: &mut Tensor) -> Result<()>;
    /// The gradient of NT-Xent's mean over all views, times dy, a tensor of one value. `anchors` are this worker's,
    /// `lse` the log-sum-exps of all views.
    fn nt_xent_backward(
        &self,
        shape: &ContrastiveShape,
        all: &Tensor,
        anchors: &Tensor,
        lse: &Tensor,
        dy: &Tensor,
        dz: &mut Tensor,
    ) -> Result<()>;
    /// Pair losses: for each anchor a [`simclr_kernels::pair_loss::Pair`], a row of `pairs` (anchors, 4), and its loss,
    /// (anchors). `anchors` are those of [`Kernels::nt_xent_forward`].
    fn pair_loss_forward(
        &self,
        shape: &ContrastiveShape,
        loss: PairLoss,
        all: &Tensor,
        anchors: &Tensor,
        pairs: &mut Tensor,
        losses: &mut Tensor,
    ) -> Result<()>;
    /// [sum of losses, number of anchors whose positive is nearest, sum of entropies].
    fn pair_loss_figures(&self, anchors: &Tensor, losses: &Tensor, sums: &mut Tensor) -> Result<()>;
    /// The gradient of a pair loss's mean over all views, times dy, a tensor of one value. `pairs` are those of all
    /// workers.
    fn pair_loss_backward(
        &self,
        shape: &ContrastiveShape,
        loss: PairLoss,
        all: &Tensor,
        pairs: &Tensor,
        dy: &Tensor,
        dz: &mut Tensor,
    ) -> Result<()>;
    /// Mean cross-entropy and its gradient.
    fn softmax_cross_entropy(&self, logits: &Tensor, labels: &[u32], dlogits: &mut Tensor) -> Result<f64>;

    /// One optimiser step on each parameter of `list`.
    fn update(&self, rule: &Rule, inputs: StepInputs, list: &mut [ParameterUpdate]) -> Result<()>;
    /// Copies the second tensor of each pair to the first, if the values of a [`crate::Verdict`] say that the last step
    /// is taken.
    fn replace(&self, verdict: &Tensor, list: &mut [(&mut Tensor, &Tensor)]) -> Result<()>;
    /// [`crate::Verdict::judge`].
    fn judge(
        &self,
        sums: &Tensor,
        squares: &Tensor,
        views: usize,
        scale: Option<&LossScale>,
        verdict: &mut Tensor,
    ) -> Result<()>;
    /// [`LossScale::update`], after a verdict with these values.
    fn update_loss_scale(&self, verdict: &Tensor, scale: &mut LossScale) -> Result<()>;

    /// Sets the [`Arithmetic`] of convolutions and products from now on, and returns the one until now.
    fn set_arithmetic(&self, arithmetic: Arithmetic) -> Arithmetic;
}

impl dyn Kernels + '_ {
    /// [`Kernels::norm_conv2d`] in backward, on the device whose forward pass used them.
    pub(crate) fn norm_conv2d_again(&self) -> Result<&dyn NormConv2d> {
        again("norm_conv2d", self.norm_conv2d())
    }

    /// [`Kernels::conv2d_norm`] where it was found before.
    pub(crate) fn conv2d_norm_again(&self) -> Result<&dyn Conv2dNorm> {
        again("conv2d_norm", self.conv2d_norm())
    }

    /// [`Kernels::first_layer`] likewise.
    pub(crate) fn first_layer_again(&self, g: &Conv2dGeometry, images: &Tensor) -> Result<&dyn FirstLayer> {
        again("first_layer", self.first_layer(g, images))
    }

    /// [`Kernels::norm_pair`] likewise.
    pub(crate) fn norm_pair_again(&self) -> Result<&dyn NormPair> {
        again("norm_pair", self.norm_pair())
    }
}

fn again<T>(op: &'static str, kernels: Option<T>) -> Result<T> {
    let what =
        || "the backward pass of a fused operator must run on the device that ran its forward pass".into();
    kernels.ok_or_else(|| EngineError::Value { op, what: what() })
}
