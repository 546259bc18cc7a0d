//! The one trait that a device implements: every kernel that the operators call.

use simclr_kernels::batch_norm::NormConstants;
use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::pair_loss::PairLoss;
use simclr_kernels::{AvgPoolGeometry, Conv2dGeometry, PoolGeometry, Write};

use crate::{Arithmetic, Bytes, EngineError, LossScale, Mask, Result, Rule, Stride, Tensor, Trained};

/// Where the ReLU behind a BatchNorm let values through: see [`simclr_kernels::batch_norm::Gate`].
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
    /// Bytes that are read to know it.
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

/// Where a BatchNorm's backward pass leaves its sums, and what follows from them.
#[derive(Debug)]
pub struct BackwardSums<'a> {
    /// [sum of g; C, sum of g (x - mean); C].
    pub sums: &'a mut Tensor,
    /// dgamma and dbeta, (C) each, of this worker's share.
    pub gradients: Option<[&'a mut Tensor; 2]>,
    /// What [`Kernels::batch_norm_backward_coefficients`] makes of these sums and of this count, where no other
    /// worker's are added.
    pub coefficients: Option<(Option<f64>, &'a mut Tensor)>,
}

/// A convolution of what a BatchNorm and a ReLU make of x, which is neither written nor kept. Coefficients are the
/// BatchNorm's.
pub trait NormConv2d {
    /// Whether that is faster than one after the other, forward and backward: found out once for each geometry, y
    /// being overwritten, and only outside of a step that is being captured.
    fn pays(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
    ) -> Result<bool>;
    /// y = relu(x scale + shift) * w; `sums` receives [sum of y; K, sum of y^2; K] over all pixels. Only where it
    /// pays, as for [`NormConv2d::backward_weight`].
    fn forward(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
        sums: &mut Tensor,
    ) -> Result<()>;
    /// dw of it.
    fn backward_weight(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        dy: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()>;
}

/// A network's first layer at once: a convolution of images, of which nobody wants the gradient, a BatchNorm and a
/// ReLU. What the convolution puts out, y, is neither written nor kept. Coefficients are the BatchNorm's; g is
/// dy where the ReLU lets values through.
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
    /// What [`BackwardSums`] says of y in x's place; and the correlations, f64, (K + R S C + 1, R S C + 1). With p the
    /// values under the taps of a pixel and a 1 behind them, those are for each channel the sum over pixels of g p,
    /// and below them the sum of p p^T.
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
    /// dw, from the correlations and from what [`Kernels::batch_norm_backward_coefficients`] leaves, (3, K).
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

/// Two BatchNorms, that of a block's branch and that of its shortcut, whose sum passes a ReLU: what the shortcut
/// adds is never in memory. Coefficients are the BatchNorms', the mask tells where the output is positive, and g is dy
/// there.
pub trait NormPair {
    /// y = relu(x scale + shift of both), and its mask.
    fn forward(
        &self,
        x: [&Tensor; 2],
        coefficients: [&Tensor; 2],
        y: &mut Tensor,
        mask: &mut Mask,
    ) -> Result<()>;
    /// Sums over g for both, and what follows from them.
    fn backward_sums(
        &self,
        dy: &Tensor,
        mask: &Mask,
        x: [&Tensor; 2],
        coefficients: [&Tensor; 2],
        to: [BackwardSums; 2],
    ) -> Result<()>;
    /// Each x becomes dx = g a + x b + c.
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
/// Operators check shapes before they call; a kernel may rely on them. Outputs are allocated by the caller and
/// overwritten, unless said otherwise. Sums over many values are f64. What a step computes stays on the device
/// until somebody asks for it: coefficients of a BatchNorm are tensors (4, C), [scale, shift, mean, 1 / deviation].
pub trait Kernels: Send + Sync {
    /// y = x * w; `sums`, where asked for, receives [sum of y; K, sum of y^2; K] over all pixels.
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

    /// The kernels of convolutions that normalise as they read, on a device that has some.
    fn norm_conv2d(&self) -> Option<&dyn NormConv2d> {
        None
    }

    /// The kernels of a first layer of such images, on a device that has some.
    fn first_layer(&self, g: &Conv2dGeometry, images: &Tensor) -> Option<&dyn FirstLayer> {
        let _ = (g, images);
        None
    }

    /// The kernels of pairs of BatchNorms, on a device that has some, and masks.
    fn norm_pair(&self) -> Option<&dyn NormPair> {
        None
    }

    /// [sum of x; C, sum of x^2; C] over rows of C values.
    fn channel_sums(&self, x: &Tensor, sums: &mut Tensor) -> Result<()>;
    /// The coefficients of a batch, from its sums over `count` values a channel; the averages move.
    fn batch_coefficients(
        &self,
        constants: NormConstants,
        sums: (&Tensor, f64),
        parameters: NormParameters,
        averages: [&mut Tensor; 2],
        coefficients: &mut Tensor,
    ) -> Result<()>;
    /// The coefficients of the running averages.
    fn frozen_coefficients(
        &self,
        epsilon: f32,
        parameters: NormParameters,
        coefficients: &mut Tensor,
    ) -> Result<()>;
    /// Bytes of the mask by which backward finds the gate of a ReLU behind a BatchNorm of x and a residual: 0 where
    /// it reads the output instead.
    fn batch_norm_mask(&self, x: &Tensor) -> Result<usize>;
    /// y = act(x scale + shift + residual). `mask`, where there is one, becomes that of y > 0.
    fn batch_norm_forward(
        &self,
        x: &Tensor,
        coefficients: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        y: &mut Tensor,
        mask: Option<&mut Mask>,
    ) -> Result<()>;
    /// Sums over g = dy where the gate is open, and what follows from them; where `keep`, dy becomes g.
    fn batch_norm_backward_sums(
        &self,
        dy: &mut Tensor,
        gate: Gate,
        x: &Tensor,
        coefficients: &Tensor,
        keep: bool,
        to: BackwardSums,
    ) -> Result<()>;
    /// (3, C): a, b and c of dx = g a + x b + c, from the sums of all workers; without a count the statistics were
    /// constants.
    fn batch_norm_backward_coefficients(
        &self,
        sums: &Tensor,
        count: Option<f64>,
        coefficients: &Tensor,
        to: &mut Tensor,
    ) -> Result<()>;
    /// x becomes dx = g a + x b + c a channel, g = dy where the gate is open.
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
    /// (N, H, W, 2 C) to (N, C): the mean of the sum of both streams.
    fn fuse_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()>;
    /// dx of fusing, written or added.
    fn fuse_backward(&self, dy: &Tensor, dx: &mut Tensor, write: Write) -> Result<()>;
    /// (N, H, W, 2 C) to (N, H, W, C): both streams, mixed by the softmax of logits (N, 2 C).
    fn select_forward(&self, x: &Tensor, logits: &Tensor, y: &mut Tensor) -> Result<()>;
    /// Gradients of selecting: x becomes dx.
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
    /// Clears dy where y is not positive.
    fn relu_backward(&self, y: &Tensor, dy: &mut Tensor) -> Result<()>;
    /// a += b.
    fn add_assign(&self, a: &mut Tensor, b: &Tensor) -> Result<()>;
    /// a *= factor, a tensor of one value.
    fn scale(&self, a: &mut Tensor, factor: &Tensor) -> Result<()>;
    /// Every value of a, of f32, becomes `value`.
    fn fill(&self, a: &mut Tensor, value: f32) -> Result<()>;
    /// Bytes to [0, 1].
    fn unit_from_bytes(&self, bytes: Bytes, y: &mut Tensor) -> Result<()>;
    /// The sum of squares of all values of all tensors, f64, (1).
    fn sum_of_squares(&self, list: &mut dyn Iterator<Item = &Tensor>, sum: &mut Tensor) -> Result<()>;

    /// Rows over their norm.
    fn l2_normalize_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()>;
    /// dx of L2 normalisation.
    fn l2_normalize_backward(&self, x: &Tensor, dy: &Tensor, dx: &mut Tensor) -> Result<()>;
    /// NT-Xent's figures of each anchor, from z of all workers: (anchors, 4), one [`simclr_kernels::nt_xent::Anchor`] a row.
    fn nt_xent_forward(&self, shape: &ContrastiveShape, all: &Tensor, anchors: &mut Tensor) -> Result<()>;
    /// Of the anchors: log-sum-exps (anchors), and [sum of losses, anchors whose positive is nearest, sum of
    /// entropies].
    fn nt_xent_figures(&self, anchors: &Tensor, lse: &mut Tensor, sums: &mut Tensor) -> Result<()>;
    /// The mean loss over `views` anchors, (1), from such sums.
    fn mean_loss(&self, sums: &Tensor, views: usize, loss: &mut Tensor) -> Result<()>;
    /// NT-Xent's gradient, of the mean over all views, times dy, a tensor of one value. `anchors` are this worker's,
    /// `lse` those of all views.
    fn nt_xent_backward(
        &self,
        shape: &ContrastiveShape,
        all: &Tensor,
        anchors: &Tensor,
        lse: &Tensor,
        dy: &Tensor,
        dz: &mut Tensor,
    ) -> Result<()>;
    /// Pair losses: of each anchor a row of `pairs` (anchors, 4), [`simclr_kernels::pair_loss::Pair`], and its
    /// loss, (anchors). `anchors` are those of [`Kernels::nt_xent_forward`].
    fn pair_loss_forward(
        &self,
        shape: &ContrastiveShape,
        loss: PairLoss,
        all: &Tensor,
        anchors: &Tensor,
        pairs: &mut Tensor,
        losses: &mut Tensor,
    ) -> Result<()>;
    /// [sum of losses, anchors whose positive is nearest, sum of entropies].
    fn pair_loss_figures(&self, anchors: &Tensor, losses: &Tensor, sums: &mut Tensor) -> Result<()>;
    /// A pair loss's gradient, of the mean over all views, times dy, a tensor of one value. `pairs` are those of
    /// all workers.
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

    /// One step of an optimiser on each of a list.
    fn update(&self, rule: &Rule, stride: Stride, list: &mut [Trained]) -> Result<()>;
    /// Each first tensor gets the values of the second, where a [`crate::Verdict`]'s values say that the last step
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
    /// [`LossScale::update`], after a verdict of these values.
    fn update_loss_scale(&self, verdict: &Tensor, scale: &mut LossScale) -> Result<()>;

    /// Sets what convolutions and products may do to be faster, from here on.
    fn set_arithmetic(&self, arithmetic: Arithmetic);
}

impl dyn Kernels + '_ {
    /// [`Kernels::norm_conv2d`] of a device that had them a moment ago.
    pub(crate) fn norm_conv2d_again(&self) -> Result<&dyn NormConv2d> {
        again("norm_conv2d", self.norm_conv2d())
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
    let what = || "what was computed at once goes back on the device that computed it".into();
    kernels.ok_or_else(|| EngineError::Value { op, what: what() })
}
