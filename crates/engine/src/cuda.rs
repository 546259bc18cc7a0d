//! The GPU as a device: calls the kernels of `simclr-cuda` on tensors.

/// Evaluates an expression with `$E` standing for the Rust type of a tensor's values: the CPU's types, and f16.
macro_rules! typed {
    ($tensor:expr, $E:ident => $body:expr) => {
        match $tensor.dtype() {
            crate::DType::F16 => {
                type $E = half::f16;
                $body
            }
            _ => crate::tensor::typed!($tensor, $E => $body),
        }
    };
}

mod batch_norm;
mod convolve;
mod first_layer;
mod norm_conv2d;
mod norm_pair;

use std::sync::atomic::{AtomicBool, Ordering};

use half::{bf16, f16};
use simclr_cuda::ops::stem::{self, Packing};
use simclr_cuda::{Device, DeviceBuffer, Epilogue, Matrix, Slice, ops};
use simclr_kernels::batch_norm::NormConstants;
use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::pair_loss::PairLoss;
use simclr_kernels::verdict::TAKEN;
use simclr_kernels::{AvgPoolGeometry, Conv2dGeometry, PoolGeometry, Write};

use crate::{
    Arithmetic, BackwardSums, Bytes, DType, Deferred, FirstLayer, Gate, Kernels, LossScale, Mask, NormConv2d,
    NormPair, NormParameters, ParameterUpdate, Result, Rule, StepInputs, Tensor,
};
use batch_norm::typed_gate;

pub(crate) struct CudaKernels {
    gpu: Device,
    /// 1 on the GPU: the factor that leaves gradients as they are.
    one: DeviceBuffer<f32>,
    /// 1 on the GPU: the verdict for a step that is known to be sound before its update starts.
    sound: DeviceBuffer<f64>,
    /// Whether the same step must give the same bits each time.
    deterministic: AtomicBool,
    /// Whether products of f32 may round to tf32.
    tf32: AtomicBool,
}

impl CudaKernels {
    pub(crate) fn new(gpu: &Device) -> Result<CudaKernels> {
        Ok(CudaKernels {
            gpu: gpu.clone(),
            one: gpu.buffer_of(&[1.0])?,
            sound: gpu.buffer_of(&[1.0])?,
            deterministic: AtomicBool::new(true),
            tf32: AtomicBool::new(false),
        })
    }
}

/// A tensor as a matrix whose rows have the tensor's last size.
fn rows(x: &Tensor) -> Result<Matrix<'_, f32>> {
    Ok(Matrix::new(x.gpu()?, x.last_dim())?)
}

impl Kernels for CudaKernels {
    fn conv2d_forward(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
        sums: Option<&mut Tensor>,
    ) -> Result<()> {
        typed!(x, E => {
            let y = y.gpu_mut(&self.gpu)?;
            if stem::pays::<E>(g) {
                let packing = Packing::of(g)?;
                let x = self.packed::<E>(&packing, x)?;
                let mut packed = self.gpu.buffer::<E>(packing.geometry().weight_len())?;
                stem::pack_weights(&self.gpu, &packing, w.gpu()?, packed.write())?;
                self.convolve(packing.geometry(), x.read(), packed.read(), y, sums)?
            } else {
                let w = self.narrowed::<E>(w)?;
                self.convolve(g, x.gpu()?, w.read(), y, sums)?
            }
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
            let (w, dx) = (self.narrowed::<E>(w)?, dx.gpu_mut(&self.gpu)?);
            self.gpu.conv2d_backward_input(g, self.convolutions(), dy.gpu()?, w.read(), dx, write)?
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
        let dw = dw.gpu_mut(&self.gpu)?;
        typed!(x, E => {
            if stem::pays::<E>(g) {
                let packing = Packing::of(g)?;
                let (x, packed) = (self.packed::<E>(&packing, x)?, packing.geometry());
                let mut packed_dw = self.gpu.buffer(packed.weight_len())?;
                let (x, to) = (x.read(), packed_dw.write());
                self.gpu.conv2d_backward_weight::<E>(packed, self.convolutions(), x, dy.gpu()?, to)?;
                stem::unpack_weights(&self.gpu, &packing, packed_dw.read(), dw)?
            } else {
                self.gpu.conv2d_backward_weight::<E>(g, self.convolutions(), x.gpu()?, dy.gpu()?, dw)?
            }
        });
        Ok(())
    }

    fn norm_conv2d(&self) -> Option<&dyn NormConv2d> {
        Some(self)
    }

    fn first_layer(&self, g: &Conv2dGeometry, images: &Tensor) -> Option<&dyn FirstLayer> {
        let serves = match images.dtype() {
            DType::Bf16 => ops::first_layer::serves::<bf16>(g),
            DType::F16 => ops::first_layer::serves::<f16>(g),
            DType::F32 | DType::F64 => false,
        };
        serves.then_some(self)
    }

    fn norm_pair(&self) -> Option<&dyn NormPair> {
        Some(self)
    }

    fn channel_sums(&self, x: &Tensor, sums: &mut Tensor) -> Result<()> {
        let sums = sums.gpu_mut(&self.gpu)?;
        typed!(x, E => ops::sums::channel_sums::<E>(&self.gpu, x.gpu()?, x.last_dim(), sums)?);
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
        let averages = ops::batch_norm::Averages {
            keep: f64::from(constants.decay),
            running: [averages[0].gpu()?, averages[1].gpu()?],
            moved: [mean.gpu_mut(&self.gpu)?, variance.gpu_mut(&self.gpu)?],
        };
        let (gamma, beta) = (gamma.gpu()?, beta.map(Tensor::gpu).transpose()?);
        let (epsilon, coefficients) = (f64::from(constants.epsilon), coefficients.gpu_mut(&self.gpu)?);
        let (gpu, sums) = (&self.gpu, sums.gpu()?);
        Ok(ops::batch_norm::coefficients(
            gpu,
            sums,
            count,
            gamma,
            beta,
            epsilon,
            Some(averages),
            coefficients,
        )?)
    }

    fn frozen_coefficients(
        &self,
        epsilon: f32,
        parameters: NormParameters,
        coefficients: &mut Tensor,
    ) -> Result<()> {
        let NormParameters { gamma, beta, averages: [mean, variance] } = parameters;
        let averages = [mean.gpu()?, variance.gpu()?];
        let (gamma, beta) = (gamma.gpu()?, beta.map(Tensor::gpu).transpose()?);
        let coefficients = coefficients.gpu_mut(&self.gpu)?;
        Ok(ops::batch_norm::frozen_coefficients(&self.gpu, averages, gamma, beta, epsilon, coefficients)?)
    }

    fn batch_norm_mask(&self, x: &Tensor) -> Result<usize> {
        Ok(typed!(x, E => ops::batch_norm::mask_len::<E>(x.len(), x.last_dim())))
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
        let coefficients = coefficients.gpu()?;
        let mask = mask.map(|mask| mask.gpu_mut(&self.gpu)).transpose()?;
        typed!(x, E => {
            let (residual, y) = (residual.map(Tensor::gpu).transpose()?, y.gpu_mut::<E>(&self.gpu)?);
            ops::batch_norm::forward(&self.gpu, x.gpu()?, coefficients, residual, relu, y, mask)?
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
        let (gpu, to) = (&self.gpu, self.backward_sums(to)?);
        typed!(x, E => {
            let (dy, gate, x) = (dy.gpu_mut::<E>(gpu)?, typed_gate(gate)?, x.gpu()?);
            ops::batch_norm::backward_sums(gpu, dy, gate, x, coefficients.gpu()?, keep, to)?
        });
        Ok(())
    }

    fn batch_norm_backward_coefficients(
        &self,
        sums: &Tensor,
        count: Option<f64>,
        coefficients: &Tensor,
        to: &mut Tensor,
    ) -> Result<()> {
        let (sums, coefficients, to) = (sums.gpu()?, coefficients.gpu()?, to.gpu_mut(&self.gpu)?);
        Ok(ops::batch_norm::backward_coefficients(&self.gpu, sums, count, coefficients, to)?)
    }

    fn batch_norm_backward_input(
        &self,
        dy: &Tensor,
        gate: Gate,
        x: &mut Tensor,
        coefficients: &Tensor,
        backward: &Tensor,
    ) -> Result<()> {
        let (coefficients, backward) = (coefficients.gpu()?, backward.gpu()?);
        typed!(x, E => {
            let (dy, gate, x) = (dy.gpu()?, typed_gate::<E>(gate)?, x.gpu_mut(&self.gpu)?);
            ops::batch_norm::backward_input(&self.gpu, dy, gate, x, coefficients, backward)?
        });
        Ok(())
    }

    fn max_pool_forward(&self, g: &PoolGeometry, x: &Tensor, y: &mut Tensor) -> Result<()> {
        typed!(x, E => ops::pooling::max_pool_forward::<E>(&self.gpu, g, x.gpu()?, y.gpu_mut(&self.gpu)?)?);
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
            let (x, y, dy) = (x.gpu::<E>()?, y.gpu()?, dy.gpu()?);
            ops::pooling::max_pool_backward(&self.gpu, g, x, y, dy, dx.gpu_mut(&self.gpu)?)?
        });
        Ok(())
    }

    fn avg_pool_forward(&self, g: &AvgPoolGeometry, x: &Tensor, y: &mut Tensor) -> Result<()> {
        typed!(x, E => ops::avg_pool::avg_pool_forward::<E>(&self.gpu, g, x.gpu()?, y.gpu_mut(&self.gpu)?)?);
        Ok(())
    }

    fn avg_pool_backward(
        &self,
        g: &AvgPoolGeometry,
        dy: &Tensor,
        dx: &mut Tensor,
        write: Write,
    ) -> Result<()> {
        typed!(dy, E => {
            let dx = dx.gpu_mut(&self.gpu)?;
            ops::avg_pool::avg_pool_backward::<E>(&self.gpu, g, dy.gpu()?, dx, write)?
        });
        Ok(())
    }

    fn global_avg_pool_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let (pixels, channels) = (x.len() / y.len(), y.last_dim());
        let y = y.gpu_mut(&self.gpu)?;
        typed!(x, E => ops::pooling::global_avg_pool_forward::<E>(&self.gpu, x.gpu()?, pixels, channels, y)?);
        Ok(())
    }

    fn global_avg_pool_backward(&self, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
        let (pixels, channels) = (dx.len() / dy.len(), dy.last_dim());
        typed!(dx, E => {
            let dx = dx.gpu_mut::<E>(&self.gpu)?;
            ops::pooling::global_avg_pool_backward(&self.gpu, dy.gpu()?, pixels, channels, dx)?
        });
        Ok(())
    }

    fn fuse_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let (pixels, channels) = (x.pixels(), y.last_dim());
        let y = y.gpu_mut(&self.gpu)?;
        typed!(x, E => ops::selective::fuse_forward::<E>(&self.gpu, x.gpu()?, pixels, channels, y)?);
        Ok(())
    }

    fn fuse_backward(&self, dy: &Tensor, dx: &mut Tensor, write: Write) -> Result<()> {
        let (pixels, channels) = (dx.pixels(), dy.last_dim());
        typed!(dx, E => {
            let dx = dx.gpu_mut::<E>(&self.gpu)?;
            ops::selective::fuse_backward(&self.gpu, dy.gpu()?, pixels, channels, dx, write)?
        });
        Ok(())
    }

    fn select_forward(&self, x: &Tensor, logits: &Tensor, y: &mut Tensor) -> Result<()> {
        let (pixels, channels) = (x.pixels(), y.last_dim());
        typed!(x, E => {
            let (x, y) = (x.gpu::<E>()?, y.gpu_mut(&self.gpu)?);
            ops::selective::select_forward(&self.gpu, x, logits.gpu()?, pixels, channels, y)?
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
        let (logits, dlogits) = (logits.gpu()?, dlogits.gpu_mut(&self.gpu)?);
        typed!(dy, E => {
            let (dy, x) = (dy.gpu::<E>()?, x.gpu_mut(&self.gpu)?);
            ops::selective::select_backward(&self.gpu, dy, logits, pixels, channels, x, dlogits)?
        });
        Ok(())
    }

    fn linear_forward(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, y: &mut Tensor) -> Result<()> {
        let epilogue = match bias {
            Some(bias) => Epilogue::Bias(bias.gpu()?),
            None => Epilogue::None,
        };
        let y = y.gpu_mut::<f32>(&self.gpu)?;
        Ok(self.gpu.product(rows(x)?, rows(w)?.t(), epilogue, self.products(), y, Write::Over)?)
    }

    fn linear_backward_input(&self, dy: &Tensor, w: &Tensor, dx: &mut Tensor) -> Result<()> {
        let dx = dx.gpu_mut::<f32>(&self.gpu)?;
        Ok(self.gpu.product(rows(dy)?, rows(w)?, Epilogue::None, self.products(), dx, Write::Over)?)
    }

    fn linear_backward_weight(&self, x: &Tensor, dy: &Tensor, dw: &mut Tensor) -> Result<()> {
        let dw = dw.gpu_mut::<f32>(&self.gpu)?;
        Ok(self.gpu.product(rows(dy)?.t(), rows(x)?, Epilogue::None, self.products(), dw, Write::Over)?)
    }

    fn column_sums(&self, x: &Tensor, sums: &mut Tensor) -> Result<()> {
        Ok(ops::sums::column_sums::<f32>(&self.gpu, x.gpu()?, sums.gpu_mut(&self.gpu)?)?)
    }

    fn relu_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        typed!(x, E => ops::elementwise::relu_forward::<E>(&self.gpu, x.gpu()?, y.gpu_mut(&self.gpu)?)?);
        Ok(())
    }

    fn relu_backward(&self, y: &Tensor, dy: &mut Tensor) -> Result<()> {
        typed!(y, E => ops::elementwise::relu_backward::<E>(&self.gpu, y.gpu()?, dy.gpu_mut(&self.gpu)?)?);
        Ok(())
    }

    fn add_assign(&self, a: &mut Tensor, b: &Tensor) -> Result<()> {
        typed!(b, E => ops::elementwise::add_assign::<E>(&self.gpu, a.gpu_mut(&self.gpu)?, b.gpu()?)?);
        Ok(())
    }

    fn scale(&self, a: &mut Tensor, factor: &Tensor) -> Result<()> {
        Ok(ops::elementwise::scale_by::<f32>(&self.gpu, a.gpu_mut(&self.gpu)?, factor.gpu()?)?)
    }

    fn fill(&self, a: &mut Tensor, value: f32) -> Result<()> {
        Ok(ops::elementwise::fill::<f32>(&self.gpu, a.gpu_mut(&self.gpu)?, value)?)
    }

    fn unit_from_bytes(&self, bytes: Bytes, y: &mut Tensor) -> Result<()> {
        let uploaded;
        let bytes = match bytes {
            Bytes::Host(bytes) => {
                uploaded = self.gpu.buffer_of(bytes)?;
                uploaded.read()
            }
            Bytes::Gpu(bytes) => bytes,
        };
        typed!(y, E => {
            let y = y.gpu_mut::<E>(&self.gpu)?;
            ops::elementwise::unit_from_bytes(&self.gpu, bytes, y)?
        });
        Ok(())
    }

    fn sum_of_squares(&self, list: &mut dyn Iterator<Item = &Tensor>, sum: &mut Tensor) -> Result<()> {
        let mut gradients = ops::optimizer::TensorList::new();
        for x in list {
            gradients.push_gradient(x.gpu()?)?;
        }
        Ok(ops::optimizer::gradient_squares(&self.gpu, &gradients, sum.gpu_mut(&self.gpu)?)?)
    }

    fn l2_normalize_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let y = y.gpu_mut(&self.gpu)?;
        Ok(ops::l2_normalize::l2_normalize_forward(&self.gpu, x.gpu()?, x.last_dim(), y)?)
    }

    fn l2_normalize_backward(&self, x: &Tensor, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
        let (dy, dx) = (dy.gpu()?, dx.gpu_mut(&self.gpu)?);
        Ok(ops::l2_normalize::l2_normalize_backward(&self.gpu, x.gpu()?, dy, x.last_dim(), dx)?)
    }

    fn nt_xent_forward(&self, shape: &ContrastiveShape, all: &Tensor, anchors: &mut Tensor) -> Result<()> {
        let (all, anchors) = (all.gpu()?, anchors.gpu_mut(&self.gpu)?);
        Ok(ops::nt_xent::forward(&self.gpu, shape, all, anchors)?)
    }

    fn nt_xent_figures(&self, anchors: &Tensor, lse: &mut Tensor, sums: &mut Tensor) -> Result<()> {
        let (lse, sums) = (lse.gpu_mut(&self.gpu)?, sums.gpu_mut(&self.gpu)?);
        Ok(ops::nt_xent::figures(&self.gpu, anchors.gpu()?, sums, lse)?)
    }

    fn mean_loss(&self, sums: &Tensor, views: usize, loss: &mut Tensor) -> Result<()> {
        let (sums, loss) = (sums.gpu()?, loss.gpu_mut(&self.gpu)?);
        Ok(ops::nt_xent::mean(&self.gpu, sums, views, loss)?)
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
        let (all, found) = (all.gpu()?, (anchors.gpu()?, lse.gpu()?));
        let (factor, dz) = (1.0 / shape.views as f32, dz.gpu_mut(&self.gpu)?);
        Ok(ops::nt_xent::backward(&self.gpu, shape, all, found, factor, dy.gpu()?, dz)?)
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
        let (all, anchors) = (all.gpu()?, anchors.gpu()?);
        let (pairs, losses) = (pairs.gpu_mut(&self.gpu)?, losses.gpu_mut(&self.gpu)?);
        Ok(ops::pair_loss::forward(&self.gpu, shape, loss, all, anchors, pairs, losses)?)
    }

    fn pair_loss_figures(&self, anchors: &Tensor, losses: &Tensor, sums: &mut Tensor) -> Result<()> {
        let sums = sums.gpu_mut(&self.gpu)?;
        Ok(ops::pair_loss::figures(&self.gpu, anchors.gpu()?, losses.gpu()?, sums)?)
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
        let (all, pairs) = (all.gpu()?, pairs.gpu()?);
        let (factor, dz) = (1.0 / shape.views as f32, dz.gpu_mut(&self.gpu)?);
        Ok(ops::pair_loss::backward(&self.gpu, shape, loss, all, pairs, factor, dy.gpu()?, dz)?)
    }

    fn softmax_cross_entropy(&self, logits: &Tensor, labels: &[u32], dlogits: &mut Tensor) -> Result<f64> {
        let (classes, dlogits) = (logits.last_dim(), dlogits.gpu_mut(&self.gpu)?);
        let (rows, labels) = (labels.len(), self.gpu.buffer_of(labels)?);
        let (mut losses, mut mean) = (self.gpu.buffer::<f32>(rows)?, self.gpu.buffer::<f64>(1)?);
        let (gpu, logits, each) = (&self.gpu, logits.gpu()?, losses.write());
        ops::cross_entropy::softmax_cross_entropy(gpu, logits, labels.read(), classes, each, dlogits)?;
        ops::reductions::sum_values(gpu, losses.read(), 1.0 / rows as f64, mean.write())?;
        Ok(gpu.values(mean.read())?[0])
    }

    fn update(&self, rule: &Rule, inputs: StepInputs, list: &mut [ParameterUpdate]) -> Result<()> {
        let known;
        let (hyper, finite, unscale) = match inputs {
            StepInputs::Deferred(Deferred { hyper, verdict, scale }) => {
                let unscale = scale.map(|scale| scale.unscale.gpu()).transpose()?;
                (hyper.gpu()?, taken(&verdict.values)?, unscale.unwrap_or(self.one.read()))
            }
            StepInputs::Now { rate, step } => {
                known = self.gpu.buffer_of(&rule.hyper(rate, step))?;
                (known.read(), self.sound.read(), self.one.read())
            }
        };
        let mut tensors = ops::optimizer::TensorList::new();
        for ParameterUpdate { gradient, value, state, adapted } in list {
            let (w, v) = (value.gpu_mut(&self.gpu)?, state.gpu_mut(&self.gpu)?);
            tensors.push(w, gradient.gpu()?, Some(v), *adapted)?;
        }
        let guard = ops::optimizer::Guard { unscale, finite };
        let momentum = |momentum, decay, nesterov, trust_coefficient| ops::optimizer::Momentum {
            momentum,
            decay,
            nesterov,
            trust_coefficient,
        };
        let settings = match *rule {
            Rule::AdamW { betas, epsilon, decay } => {
                let settings = ops::optimizer::AdamW { betas, epsilon, decay };
                return Ok(ops::optimizer::adamw_update(&self.gpu, &mut tensors, settings, hyper, guard)?);
            }
            Rule::Lars { trust_coefficient, momentum: m, decay } => {
                momentum(m, decay, false, Some(trust_coefficient as f32))
            }
            Rule::Momentum { momentum: m, decay, nesterov } => momentum(m, decay, nesterov, None),
        };
        Ok(ops::optimizer::momentum_update(&self.gpu, &mut tensors, settings, hyper, guard)?)
    }

    fn replace(&self, verdict: &Tensor, list: &mut [(&mut Tensor, &Tensor)]) -> Result<()> {
        let mut tensors = ops::optimizer::TensorList::new();
        for (to, from) in list {
            tensors.push(to.gpu_mut(&self.gpu)?, from.gpu()?, None, false)?;
        }
        Ok(ops::optimizer::replace(&self.gpu, &mut tensors, taken(verdict)?)?)
    }

    fn judge(
        &self,
        sums: &Tensor,
        squares: &Tensor,
        views: usize,
        scale: Option<&LossScale>,
        verdict: &mut Tensor,
    ) -> Result<()> {
        let (sums, squares, verdict) = (sums.gpu()?, squares.gpu()?, verdict.gpu_mut(&self.gpu)?);
        let scale = match scale {
            Some(LossScale { scale, unscale, .. }) => Some([scale.gpu()?, unscale.gpu()?]),
            None => None,
        };
        Ok(ops::reductions::judge(&self.gpu, sums, squares, views, scale, verdict)?)
    }

    fn update_loss_scale(&self, verdict: &Tensor, scale: &mut LossScale) -> Result<()> {
        let LossScale { scale, unscale, steps } = scale;
        let state = [scale.gpu_mut(&self.gpu)?, unscale.gpu_mut(&self.gpu)?, steps.gpu_mut(&self.gpu)?];
        Ok(ops::reductions::update_loss_scale(&self.gpu, taken(verdict)?, state, LossScale::INTERVAL)?)
    }

    fn set_arithmetic(&self, Arithmetic { deterministic, tf32 }: Arithmetic) -> Arithmetic {
        Arithmetic {
            deterministic: self.deterministic.swap(deterministic, Ordering::Relaxed),
            tf32: self.tf32.swap(tf32, Ordering::Relaxed),
        }
    }
}

/// The value of a verdict that tells whether the last step is taken.
fn taken(verdict: &Tensor) -> Result<Slice<'_, f64>> {
    Ok(verdict.gpu::<f64>()?.part(TAKEN, 1)?)
}
