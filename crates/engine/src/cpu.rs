//! The CPU as a device: calls the kernels of `simclr-kernels` on the slices of tensors.

mod update;

use simclr_kernels::batch_norm::{Averages, Coefficients, NormConstants};
use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::nt_xent::Anchor;
use simclr_kernels::pair_loss::PairLoss;
use simclr_kernels::verdict::TAKEN;
use simclr_kernels::{
    AvgPoolGeometry, Conv2dGeometry, Cpu, PoolGeometry, Write, avg_pool, batch_norm, columns, conv2d,
    cross_entropy, elementwise, l2_normalize, nt_xent, pair_loss, pooling, selective, verdict,
};

use crate::loss_scale::rescaled;
use crate::tensor::{Stored, typed};
use crate::{
    Arithmetic, BackwardSums, Bytes, Conv2dNorm, EngineError, Gate, Kernels, LossScale, Mask, NormParameters,
    ParameterUpdate, Result, Rule, StepInputs, Tensor,
};

pub(crate) struct CpuKernels {
    pub(crate) cpu: Cpu,
    /// Whether there is a [`Conv2dNorm`]: not where this stands in for a GPU in a dry run.
    pub(crate) fuses_inference: bool,
}

/// A dense layer on the rows of `rows`, as a convolution of images of one pixel.
fn dense(rows: &Tensor, w: &Tensor) -> Conv2dGeometry {
    let (outputs, inputs) = (w.len() / w.last_dim(), w.last_dim());
    Conv2dGeometry {
        batch: rows.len() / rows.last_dim(),
        in_height: 1,
        in_width: 1,
        in_channels: inputs,
        out_channels: outputs,
        kernel_height: 1,
        kernel_width: 1,
        stride: 1,
        padding: 0,
    }
}

/// [sum of losses, number of anchors whose positive is nearest, sum of entropies].
fn totals(anchors: &[Anchor], losses: impl Iterator<Item = f32>) -> [f64; 3] {
    let mut totals = [0.0; 3];
    for (anchor, loss) in anchors.iter().zip(losses) {
        totals[0] += f64::from(loss);
        totals[1] += f64::from(u8::from(anchor.positive > anchor.hardest));
        totals[2] += f64::from(anchor.entropy);
    }
    totals
}

fn optional<E: Stored>(x: Option<&Tensor>) -> Result<Option<&[E]>> {
    x.map(Tensor::values).transpose()
}

fn typed_gate<'a, E: Stored>(
    gate: Gate<'a>,
    coefficients: Coefficients<'a>,
) -> Result<batch_norm::Gate<'a, E>> {
    let Coefficients { scale, shift, .. } = coefficients;
    Ok(match gate {
        Gate::Open => batch_norm::Gate::Open,
        Gate::Output(y) => batch_norm::Gate::Output(y.values()?),
        Gate::Affine => batch_norm::Gate::Affine { scale, shift },
        Gate::Mask(_) => return Err(no_masks()),
    })
}

/// The CPU has no masks: it reads outputs, which are in its caches or soon will be.
fn no_masks() -> EngineError {
    EngineError::Value {
        op: "batch_norm",
        what: "masks are for GPUs only: the CPU finds the gate of a ReLU from its output".to_owned(),
    }
}

/// The first 2C values of a tensor of sums; a count may follow them.
fn sums_of(sums: &Tensor, channels: usize) -> Result<&[f64]> {
    Ok(&sums.values()?[..2 * channels])
}

/// The value of a tensor with one value.
fn one_of(x: &Tensor) -> Result<f32> {
    let mut value = [0.0];
    x.read(&mut value)?;
    Ok(value[0])
}

impl Conv2dNorm for CpuKernels {
    fn forward(
        &self,
        g: &Conv2dGeometry,
        [x, w]: [&Tensor; 2],
        coefficients: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        y: &mut Tensor,
    ) -> Result<()> {
        let Coefficients { scale, shift, .. } = Coefficients::of(coefficients.as_slice()?);
        typed!(x, E => {
            let norm = conv2d::Normalize::<E> { scale, shift, residual: optional(residual)?, relu };
            conv2d::conv2d_normalized(&self.cpu, g, x.values()?, w.as_slice()?, norm, y.values_mut()?)
        });
        Ok(())
    }
}

impl Kernels for CpuKernels {
    fn conv2d_forward(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
        sums: Option<&mut Tensor>,
    ) -> Result<()> {
        let sums = sums.map(Tensor::values_mut).transpose()?;
        typed!(x, E => {
            conv2d::conv2d_forward::<E>(&self.cpu, g, x.values()?, w.as_slice()?, y.values_mut()?, sums)
        });
        Ok(())
    }

    fn conv2d_backward_input(
        &self,
        g: &Conv2dGeometry,
        dy: &Tensor,
        w: &Tensor,
        dx: &mut Tensor,
        write: Write,
    ) -> Result<()> {
        typed!(dy, E => {
            let (dy, w, dx) = (dy.values::<E>()?, w.as_slice()?, dx.values_mut()?);
            conv2d::conv2d_backward_input(&self.cpu, g, dy, w, dx, write)
        });
        Ok(())
    }

    fn conv2d_backward_weight(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        dy: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()> {
        typed!(x, E => {
            conv2d::conv2d_backward_weight::<E>(&self.cpu, g, x.values()?, dy.values()?, dw.as_mut_slice()?)
        });
        Ok(())
    }

    fn conv2d_norm(&self) -> Option<&dyn Conv2dNorm> {
        self.fuses_inference.then_some(self as &dyn Conv2dNorm)
    }

    fn channel_sums(&self, x: &Tensor, sums: &mut Tensor) -> Result<()> {
        let sums = sums.values_mut()?;
        typed!(x, E => batch_norm::channel_sums::<E>(&self.cpu, x.values()?, x.last_dim(), sums));
        Ok(())
    }

    fn batch_coefficients(
        &self,
        constants: NormConstants,
        (sums, count): (&Tensor, f64),
        parameters: NormParameters,
        [mean, variance]: [&mut Tensor; 2],
        coefficients: &mut Tensor,
    ) -> Result<()> {
        let NormParameters { gamma, beta, averages } = parameters;
        let averages = Averages {
            old: [averages[0].as_slice()?, averages[1].as_slice()?],
            new: [mean.as_mut_slice()?, variance.as_mut_slice()?],
        };
        let sums = (sums_of(sums, gamma.len())?, count);
        let (gamma, beta) = (gamma.as_slice()?, optional(beta)?);
        batch_norm::batch_coefficients(constants, sums, gamma, beta, averages, coefficients.as_mut_slice()?);
        Ok(())
    }

    fn frozen_coefficients(
        &self,
        epsilon: f32,
        parameters: NormParameters,
        coefficients: &mut Tensor,
    ) -> Result<()> {
        let NormParameters { gamma, beta, averages: [mean, variance] } = parameters;
        let averages = [mean.as_slice()?, variance.as_slice()?];
        let (gamma, beta) = (gamma.as_slice()?, optional(beta)?);
        batch_norm::frozen_coefficients(epsilon, gamma, beta, averages, coefficients.as_mut_slice()?);
        Ok(())
    }

    fn batch_norm_mask(&self, _: &Tensor) -> Result<usize> {
        Ok(0)
    }

    fn batch_norm_forward(
        &self,
        x: &Tensor,
        coefficients: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        y: &mut Tensor,
        mask: Option<&mut Mask>,
    ) -> Result<()> {
        if mask.is_some() {
            return Err(no_masks());
        }
        let Coefficients { scale, shift, .. } = Coefficients::of(coefficients.as_slice()?);
        typed!(x, E => {
            let (x, residual) = (x.values::<E>()?, optional(residual)?);
            batch_norm::batch_norm_forward(&self.cpu, x, scale, shift, residual, relu, y.values_mut()?)
        });
        Ok(())
    }

    fn batch_norm_backward_sums(
        &self,
        dy: &mut Tensor,
        gate: Gate,
        x: &Tensor,
        coefficients: &Tensor,
        keep: bool,
        to: BackwardSums,
    ) -> Result<()> {
        let all = coefficients.as_slice()?;
        let coefficients = Coefficients::of(all);
        let (mean, sums) = (coefficients.mean, &mut to.sums.values_mut()?[..2 * x.last_dim()]);
        typed!(x, E => {
            let (dy, gate, x) = (dy.values_mut::<E>()?, typed_gate(gate, coefficients)?, x.values()?);
            batch_norm::batch_norm_backward_sums(&self.cpu, dy, gate, x, mean, keep, sums)
        });
        if let Some([dgamma, dbeta]) = to.gradients {
            batch_norm::parameter_gradients(sums, all, dgamma.as_mut_slice()?, dbeta.as_mut_slice()?);
        }
        if let Some((count, abc)) = to.coefficients {
            batch_norm::backward_coefficients(sums, count, all, abc.as_mut_slice()?);
        }
        Ok(())
    }

    fn batch_norm_backward_coefficients(
        &self,
        sums: &Tensor,
        count: Option<f64>,
        coefficients: &Tensor,
        to: &mut Tensor,
    ) -> Result<()> {
        let sums = sums_of(sums, coefficients.len() / 4)?;
        batch_norm::backward_coefficients(sums, count, coefficients.as_slice()?, to.as_mut_slice()?);
        Ok(())
    }

    fn batch_norm_backward_input(
        &self,
        dy: &Tensor,
        gate: Gate,
        x: &mut Tensor,
        coefficients: &Tensor,
        backward: &Tensor,
    ) -> Result<()> {
        let (channels, backward) = (x.last_dim(), backward.as_slice()?);
        let abc = [0, 1, 2].map(|i| &backward[i * channels..][..channels]);
        let coefficients = Coefficients::of(coefficients.as_slice()?);
        typed!(x, E => {
            let (dy, gate, x) = (dy.values()?, typed_gate::<E>(gate, coefficients)?, x.values_mut()?);
            batch_norm::batch_norm_backward_input(&self.cpu, dy, gate, x, abc)
        });
        Ok(())
    }

    fn max_pool_forward(&self, g: &PoolGeometry, x: &Tensor, y: &mut Tensor) -> Result<()> {
        typed!(x, E => pooling::max_pool_forward::<E>(&self.cpu, g, x.values()?, y.values_mut()?));
        Ok(())
    }

    fn max_pool_backward(
        &self,
        g: &PoolGeometry,
        x: &Tensor,
        y: &Tensor,
        dy: &Tensor,
        dx: &mut Tensor,
    ) -> Result<()> {
        typed!(x, E => {
            let (x, y, dy) = (x.values::<E>()?, y.values()?, dy.values()?);
            pooling::max_pool_backward(&self.cpu, g, x, y, dy, dx.values_mut()?)
        });
        Ok(())
    }

    fn avg_pool_forward(&self, g: &AvgPoolGeometry, x: &Tensor, y: &mut Tensor) -> Result<()> {
        typed!(x, E => avg_pool::avg_pool_forward::<E>(&self.cpu, g, x.values()?, y.values_mut()?));
        Ok(())
    }

    fn avg_pool_backward(
        &self,
        g: &AvgPoolGeometry,
        dy: &Tensor,
        dx: &mut Tensor,
        write: Write,
    ) -> Result<()> {
        typed!(dy, E => avg_pool::avg_pool_backward::<E>(&self.cpu, g, dy.values()?, dx.values_mut()?, write));
        Ok(())
    }

    fn global_avg_pool_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let (pixels, channels) = (x.len() / y.len(), y.last_dim());
        typed!(x, E => {
            let x = x.values::<E>()?;
            pooling::global_avg_pool_forward(&self.cpu, x, pixels, channels, y.as_mut_slice()?)
        });
        Ok(())
    }

    fn global_avg_pool_backward(&self, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
        let (pixels, channels) = (dx.len() / dy.len(), dy.last_dim());
        typed!(dx, E => {
            let dx = dx.values_mut::<E>()?;
            pooling::global_avg_pool_backward(&self.cpu, dy.as_slice()?, pixels, channels, dx)
        });
        Ok(())
    }

    fn fuse_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let (pixels, channels) = (x.pixels(), y.last_dim());
        typed!(x, E => selective::fuse_forward::<E>(&self.cpu, x.values()?, pixels, channels, y.as_mut_slice()?));
        Ok(())
    }

    fn fuse_backward(&self, dy: &Tensor, dx: &mut Tensor, write: Write) -> Result<()> {
        let (pixels, channels) = (dx.pixels(), dy.last_dim());
        typed!(dx, E => {
            let dx = dx.values_mut::<E>()?;
            selective::fuse_backward(&self.cpu, dy.as_slice()?, pixels, channels, dx, write)
        });
        Ok(())
    }

    fn select_forward(&self, x: &Tensor, logits: &Tensor, y: &mut Tensor) -> Result<()> {
        let (pixels, channels) = (x.pixels(), y.last_dim());
        typed!(x, E => {
            let (x, y) = (x.values::<E>()?, y.values_mut()?);
            selective::select_forward(&self.cpu, x, logits.as_slice()?, pixels, channels, y)
        });
        Ok(())
    }

    fn select_backward(
        &self,
        dy: &Tensor,
        logits: &Tensor,
        x: &mut Tensor,
        dlogits: &mut Tensor,
    ) -> Result<()> {
        let (pixels, channels) = (x.pixels(), dy.last_dim());
        let (logits, dlogits) = (logits.as_slice()?, dlogits.as_mut_slice()?);
        typed!(dy, E => {
            let (dy, x) = (dy.values::<E>()?, x.values_mut()?);
            selective::select_backward(&self.cpu, dy, logits, pixels, channels, x, dlogits)
        });
        Ok(())
    }

    fn linear_forward(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, y: &mut Tensor) -> Result<()> {
        let (g, y) = (dense(x, w), y.as_mut_slice()?);
        conv2d::conv2d_forward(&self.cpu, &g, x.as_slice()?, w.as_slice()?, y, None);
        if let Some(bias) = bias {
            columns::add_bias(&self.cpu, y, bias.as_slice()?);
        }
        Ok(())
    }

    fn linear_backward_input(&self, dy: &Tensor, w: &Tensor, dx: &mut Tensor) -> Result<()> {
        let (g, dx) = (dense(dy, w), dx.as_mut_slice()?);
        conv2d::conv2d_backward_input(&self.cpu, &g, dy.as_slice()?, w.as_slice()?, dx, Write::Over);
        Ok(())
    }

    fn linear_backward_weight(&self, x: &Tensor, dy: &Tensor, dw: &mut Tensor) -> Result<()> {
        let g = dense(x, dw);
        conv2d::conv2d_backward_weight(&self.cpu, &g, x.as_slice()?, dy.as_slice()?, dw.as_mut_slice()?);
        Ok(())
    }

    fn column_sums(&self, x: &Tensor, sums: &mut Tensor) -> Result<()> {
        columns::column_sums(&self.cpu, x.as_slice()?, sums.as_mut_slice()?);
        Ok(())
    }

    fn relu_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        typed!(x, E => elementwise::relu_forward::<E>(&self.cpu, x.values()?, y.values_mut()?));
        Ok(())
    }

    fn relu_backward(&self, y: &Tensor, dy: &mut Tensor) -> Result<()> {
        typed!(y, E => elementwise::relu_backward::<E>(&self.cpu, y.values()?, dy.values_mut()?));
        Ok(())
    }

    fn add_assign(&self, a: &mut Tensor, b: &Tensor) -> Result<()> {
        typed!(b, E => elementwise::add_assign::<E>(&self.cpu, a.values_mut()?, b.values()?));
        Ok(())
    }

    fn scale(&self, a: &mut Tensor, factor: &Tensor) -> Result<()> {
        let factor = one_of(factor)?;
        if factor != 1.0 {
            elementwise::scale(&self.cpu, a.as_mut_slice()?, factor);
        }
        Ok(())
    }

    fn fill(&self, a: &mut Tensor, value: f32) -> Result<()> {
        a.as_mut_slice()?.fill(value);
        Ok(())
    }

    fn unit_from_bytes(&self, bytes: Bytes, y: &mut Tensor) -> Result<()> {
        let bytes = bytes.host()?;
        typed!(y, E => elementwise::unit_from_bytes::<E>(&self.cpu, bytes, y.values_mut()?));
        Ok(())
    }

    fn sum_of_squares(&self, list: &mut dyn Iterator<Item = &Tensor>, sum: &mut Tensor) -> Result<()> {
        let mut squares = 0.0;
        for x in list {
            squares += elementwise::sum_of_squares(&self.cpu, x.as_slice()?);
        }
        sum.write(&[squares])
    }

    fn l2_normalize_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        l2_normalize::l2_normalize_forward(&self.cpu, x.as_slice()?, x.last_dim(), y.as_mut_slice()?);
        Ok(())
    }

    fn l2_normalize_backward(&self, x: &Tensor, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
        let width = x.last_dim();
        l2_normalize::l2_normalize_backward(
            &self.cpu,
            x.as_slice()?,
            dy.as_slice()?,
            width,
            dx.as_mut_slice()?,
        );
        Ok(())
    }

    fn nt_xent_forward(&self, shape: &ContrastiveShape, all: &Tensor, anchors: &mut Tensor) -> Result<()> {
        let anchors = bytemuck::cast_slice_mut(anchors.as_mut_slice()?);
        nt_xent::nt_xent_forward(&self.cpu, shape, all.as_slice()?, anchors);
        Ok(())
    }

    fn nt_xent_figures(&self, anchors: &Tensor, lse: &mut Tensor, sums: &mut Tensor) -> Result<()> {
        let anchors: &[Anchor] = bytemuck::cast_slice(anchors.as_slice()?);
        for (anchor, lse) in anchors.iter().zip(lse.as_mut_slice()?) {
            *lse = anchor.lse();
        }
        sums.values_mut()?.copy_from_slice(&totals(anchors, anchors.iter().map(|anchor| anchor.loss)));
        Ok(())
    }

    fn mean_loss(&self, sums: &Tensor, views: usize, loss: &mut Tensor) -> Result<()> {
        loss.write(&[(sums.values::<f64>()?[0] / views as f64) as f32])
    }

    fn nt_xent_backward(
        &self,
        shape: &ContrastiveShape,
        all: &Tensor,
        anchors: &Tensor,
        lse: &Tensor,
        dy: &Tensor,
        dz: &mut Tensor,
    ) -> Result<()> {
        let factor = one_of(dy)? / shape.views as f32;
        let all = all.as_slice()?;
        let (anchors, lse) = (bytemuck::cast_slice(anchors.as_slice()?), lse.as_slice()?);
        nt_xent::nt_xent_backward(&self.cpu, shape, all, anchors, lse, factor, dz.as_mut_slice()?);
        Ok(())
    }

    fn pair_loss_forward(
        &self,
        shape: &ContrastiveShape,
        loss: PairLoss,
        all: &Tensor,
        anchors: &Tensor,
        pairs: &mut Tensor,
        losses: &mut Tensor,
    ) -> Result<()> {
        let all = all.as_slice()?;
        let anchors = bytemuck::cast_slice(anchors.as_slice()?);
        let pairs = bytemuck::cast_slice_mut(pairs.as_mut_slice()?);
        let losses = losses.as_mut_slice()?;
        pair_loss::pair_loss_forward(&self.cpu, shape, loss, all, anchors, pairs, losses);
        Ok(())
    }

    fn pair_loss_figures(&self, anchors: &Tensor, losses: &Tensor, sums: &mut Tensor) -> Result<()> {
        let anchors = bytemuck::cast_slice(anchors.as_slice()?);
        sums.values_mut()?.copy_from_slice(&totals(anchors, losses.as_slice()?.iter().copied()));
        Ok(())
    }

    fn pair_loss_backward(
        &self,
        shape: &ContrastiveShape,
        loss: PairLoss,
        all: &Tensor,
        pairs: &Tensor,
        dy: &Tensor,
        dz: &mut Tensor,
    ) -> Result<()> {
        let factor = one_of(dy)? / shape.views as f32;
        let all = all.as_slice()?;
        let (pairs, dz) = (bytemuck::cast_slice(pairs.as_slice()?), dz.as_mut_slice()?);
        pair_loss::pair_loss_backward(&self.cpu, shape, loss, all, pairs, factor, dz);
        Ok(())
    }

    fn softmax_cross_entropy(&self, logits: &Tensor, labels: &[u32], dlogits: &mut Tensor) -> Result<f64> {
        let classes = logits.last_dim();
        let (logits, dlogits) = (logits.as_slice()?, dlogits.as_mut_slice()?);
        Ok(cross_entropy::softmax_cross_entropy(&self.cpu, logits, labels, classes, dlogits))
    }

    fn update(&self, rule: &Rule, inputs: StepInputs, list: &mut [ParameterUpdate]) -> Result<()> {
        update::update(&self.cpu, rule, inputs, list)
    }

    fn replace(&self, verdict: &Tensor, list: &mut [(&mut Tensor, &Tensor)]) -> Result<()> {
        if verdict.values::<f64>()?[TAKEN] != 0.0 {
            for (to, from) in list {
                to.as_mut_slice()?.copy_from_slice(from.as_slice()?);
            }
        }
        Ok(())
    }

    fn judge(
        &self,
        sums: &Tensor,
        squares: &Tensor,
        views: usize,
        scale: Option<&LossScale>,
        verdict: &mut Tensor,
    ) -> Result<()> {
        let scale = match scale {
            Some(LossScale { scale, unscale, .. }) => Some([one_of(scale)?, one_of(unscale)?]),
            None => None,
        };
        verdict::judge(verdict.values_mut()?, sums.values()?, squares.values()?[0], views, scale);
        Ok(())
    }

    fn update_loss_scale(&self, verdict: &Tensor, scale: &mut LossScale) -> Result<()> {
        let taken = verdict.values::<f64>()?[TAKEN] != 0.0;
        let (factor, steps) = rescaled(taken, one_of(&scale.scale)?, one_of(&scale.steps)?);
        scale.scale.write(&[factor])?;
        scale.unscale.write(&[1.0 / factor])?;
        scale.steps.write(&[steps])
    }

    /// Does nothing: on the CPU each precision has one arithmetic, which gives the same bits each time.
    fn set_arithmetic(&self, _: Arithmetic) -> Arithmetic {
        Arithmetic::default()
    }
}
