//! A wrapper around [`Kernels`] that sees each call with its FLOPs and bytes: to time it, or to skip it in the dry run
//! that measures memory.

mod at_once;

use simclr_kernels::batch_norm::NormConstants;
use simclr_kernels::contrastive::ContrastiveShape;
use simclr_kernels::pair_loss::PairLoss;
use simclr_kernels::{AvgPoolGeometry, Write};

use crate::profile::{Shape, Work};
use crate::{
    Arithmetic, BackwardSums, Bytes, Conv2dGeometry, Conv2dNorm, FirstLayer, Gate, Kernels, LossScale, Mask,
    NormConv2d, NormPair, NormParameters, ParameterUpdate, PoolGeometry, Result, Rule, StepInputs, Tensor,
};

/// What to do about each kernel call.
pub(crate) trait Watch: Send + Sync {
    /// Runs `kernel` or skips it. `cost` holds its operations and bytes.
    fn watch<R: Default>(
        &self,
        work: Work,
        cost: (u64, u64),
        kernel: impl FnOnce() -> Result<R>,
    ) -> Result<R>;
}

/// Runs no kernel at all.
pub(crate) struct Skip;

impl Watch for Skip {
    fn watch<R: Default>(&self, _: Work, _: (u64, u64), _: impl FnOnce() -> Result<R>) -> Result<R> {
        Ok(R::default())
    }
}

/// The kernels of `inner`, with `watch` watching each call.
pub(crate) struct Watched<K, W> {
    pub(crate) inner: K,
    pub(crate) watch: W,
}

const FORWARD: &str = "forward";
const INPUT: &str = "input gradient";
const WEIGHT: &str = "weight gradient";
const BACKWARD: &str = "backward";
const PAIR_LOSS: &str = "pair_loss";
const COEFFICIENTS: &str = "coefficients";
const STATISTICS: &str = "statistics";
const BACKWARD_SUMS: &str = "backward sums";

fn bytes<const COUNT: usize>(tensors: [&Tensor; COUNT]) -> u64 {
    tensors.into_iter().map(|x| (x.len() * x.dtype().size()) as u64).sum()
}

fn bytes_of(tensor: Option<&Tensor>) -> u64 {
    tensor.map_or(0, |x| bytes([x]))
}

/// The operations for the similarities of the anchors to all views.
fn similarities(shape: &ContrastiveShape) -> u64 {
    2 * (shape.anchors * shape.views * shape.dim) as u64
}

/// The operations for a product of the rows of `rows` with a weight matrix.
fn product(rows: &Tensor, w: &Tensor) -> u64 {
    2 * (rows.len() / rows.last_dim().max(1) * w.len()) as u64
}

impl<K: Kernels, W: Watch> Watched<K, W> {
    fn time<R: Default>(
        &self,
        (operator, pass, shape): (&'static str, &'static str, Shape),
        cost: (u64, u64),
        run: impl FnOnce(&dyn Kernels) -> Result<R>,
    ) -> Result<R> {
        self.watch.watch(Work { operator, pass, shape }, cost, || run(&self.inner))
    }
}

impl<K: Kernels, W: Watch> Kernels for Watched<K, W> {
    fn conv2d_forward(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
        sums: Option<&mut Tensor>,
    ) -> Result<()> {
        let cost = (g.flops(), bytes([x, w, y]));
        self.time(("conv2d", FORWARD, Shape::window(g)), cost, |k| k.conv2d_forward(g, x, w, y, sums))
    }

    fn conv2d_backward_input(
        &self,
        g: &Conv2dGeometry,
        dy: &Tensor,
        w: &Tensor,
        dx: &mut Tensor,
        write: Write,
    ) -> Result<()> {
        let read = (write == Write::Add).then_some(&*dx);
        let cost = (g.flops(), bytes([dy, w, dx]) + bytes_of(read));
        self.time(("conv2d", INPUT, Shape::window(g)), cost, |k| k.conv2d_backward_input(g, dy, w, dx, write))
    }

    fn conv2d_backward_weight(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        dy: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()> {
        let cost = (g.flops(), bytes([x, dy, dw]));
        self.time(("conv2d", WEIGHT, Shape::window(g)), cost, |k| k.conv2d_backward_weight(g, x, dy, dw))
    }

    fn norm_conv2d(&self) -> Option<&dyn NormConv2d> {
        self.inner.norm_conv2d().map(|_| self as &dyn NormConv2d)
    }

    fn conv2d_norm(&self) -> Option<&dyn Conv2dNorm> {
        self.inner.conv2d_norm().map(|_| self as &dyn Conv2dNorm)
    }

    fn first_layer(&self, g: &Conv2dGeometry, images: &Tensor) -> Option<&dyn FirstLayer> {
        self.inner.first_layer(g, images).map(|_| self as &dyn FirstLayer)
    }

    fn norm_pair(&self) -> Option<&dyn NormPair> {
        self.inner.norm_pair().map(|_| self as &dyn NormPair)
    }

    fn channel_sums(&self, x: &Tensor, sums: &mut Tensor) -> Result<()> {
        let work = ("batch_norm", STATISTICS, Shape::Rows(x.last_dim()));
        self.time(work, (0, bytes([x])), |k| k.channel_sums(x, sums))
    }

    fn batch_coefficients(
        &self,
        constants: NormConstants,
        sums: (&Tensor, f64),
        parameters: NormParameters,
        averages: [&mut Tensor; 2],
        coefficients: &mut Tensor,
    ) -> Result<()> {
        let work = ("batch_norm", COEFFICIENTS, Shape::Rows(parameters.gamma.len()));
        let cost = (0, bytes([sums.0, coefficients]));
        self.time(work, cost, |k| k.batch_coefficients(constants, sums, parameters, averages, coefficients))
    }

    fn frozen_coefficients(
        &self,
        epsilon: f32,
        parameters: NormParameters,
        coefficients: &mut Tensor,
    ) -> Result<()> {
        let work = ("batch_norm", COEFFICIENTS, Shape::Rows(parameters.gamma.len()));
        let cost = (0, bytes([coefficients]));
        self.time(work, cost, |k| k.frozen_coefficients(epsilon, parameters, coefficients))
    }

    fn batch_norm_mask(&self, x: &Tensor) -> Result<usize> {
        self.inner.batch_norm_mask(x)
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
        let work = ("batch_norm", FORWARD, Shape::Rows(x.last_dim()));
        let masked = mask.as_ref().map_or(0, |mask| mask.bytes() as u64);
        let cost = (0, bytes([x, y]) + bytes_of(residual) + masked);
        self.time(work, cost, |k| k.batch_norm_forward(x, coefficients, residual, relu, y, mask))
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
        let work = ("batch_norm", BACKWARD_SUMS, Shape::Rows(x.last_dim()));
        let kept = keep.then_some(&*dy);
        let cost = (0, bytes([dy, x]) + gate.bytes() as u64 + bytes_of(kept));
        self.time(work, cost, |k| k.batch_norm_backward_sums(dy, gate, x, coefficients, keep, to))
    }

    fn batch_norm_backward_coefficients(
        &self,
        sums: &Tensor,
        count: Option<f64>,
        coefficients: &Tensor,
        to: &mut Tensor,
    ) -> Result<()> {
        let work = ("batch_norm", COEFFICIENTS, Shape::Rows(coefficients.last_dim()));
        let cost = (0, bytes([sums, coefficients, to]));
        self.time(work, cost, |k| k.batch_norm_backward_coefficients(sums, count, coefficients, to))
    }

    fn batch_norm_backward_input(
        &self,
        dy: &Tensor,
        gate: Gate,
        x: &mut Tensor,
        coefficients: &Tensor,
        backward: &Tensor,
    ) -> Result<()> {
        let work = ("batch_norm", INPUT, Shape::Rows(x.last_dim()));
        let cost = (0, bytes([dy, x, x]) + gate.bytes() as u64);
        self.time(work, cost, |k| k.batch_norm_backward_input(dy, gate, x, coefficients, backward))
    }

    fn max_pool_forward(&self, g: &PoolGeometry, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let work = ("max_pool", FORWARD, Shape::pool(g));
        self.time(work, (0, bytes([x, y])), |k| k.max_pool_forward(g, x, y))
    }

    fn max_pool_backward(
        &self,
        g: &PoolGeometry,
        x: &Tensor,
        y: &Tensor,
        dy: &Tensor,
        dx: &mut Tensor,
    ) -> Result<()> {
        let work = ("max_pool", INPUT, Shape::pool(g));
        self.time(work, (0, bytes([x, y, dy, dx])), |k| k.max_pool_backward(g, x, y, dy, dx))
    }

    fn avg_pool_forward(&self, g: &AvgPoolGeometry, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let work = ("avg_pool", FORWARD, Shape::avg_pool(g));
        self.time(work, (0, bytes([x, y])), |k| k.avg_pool_forward(g, x, y))
    }

    fn avg_pool_backward(
        &self,
        g: &AvgPoolGeometry,
        dy: &Tensor,
        dx: &mut Tensor,
        write: Write,
    ) -> Result<()> {
        let work = ("avg_pool", INPUT, Shape::avg_pool(g));
        let read = (write == Write::Add).then_some(&*dx);
        let cost = (0, bytes([dy, dx]) + bytes_of(read));
        self.time(work, cost, |k| k.avg_pool_backward(g, dy, dx, write))
    }

    fn global_avg_pool_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let work = ("global_avg_pool", FORWARD, Shape::Rows(x.last_dim()));
        self.time(work, (0, bytes([x, y])), |k| k.global_avg_pool_forward(x, y))
    }

    fn global_avg_pool_backward(&self, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
        let work = ("global_avg_pool", INPUT, Shape::Rows(dy.last_dim()));
        self.time(work, (0, bytes([dy, dx])), |k| k.global_avg_pool_backward(dy, dx))
    }

    fn fuse_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let work = ("fuse", FORWARD, Shape::Rows(x.last_dim()));
        self.time(work, (0, bytes([x, y])), |k| k.fuse_forward(x, y))
    }

    fn fuse_backward(&self, dy: &Tensor, dx: &mut Tensor, write: Write) -> Result<()> {
        let work = ("fuse", INPUT, Shape::Rows(dx.last_dim()));
        let read = (write == Write::Add).then_some(&*dx);
        let cost = (0, bytes([dy, dx]) + bytes_of(read));
        self.time(work, cost, |k| k.fuse_backward(dy, dx, write))
    }

    fn select_forward(&self, x: &Tensor, logits: &Tensor, y: &mut Tensor) -> Result<()> {
        let work = ("select", FORWARD, Shape::Rows(x.last_dim()));
        self.time(work, (0, bytes([x, logits, y])), |k| k.select_forward(x, logits, y))
    }

    fn select_backward(
        &self,
        dy: &Tensor,
        logits: &Tensor,
        x: &mut Tensor,
        dlogits: &mut Tensor,
    ) -> Result<()> {
        let work = ("select", BACKWARD, Shape::Rows(x.last_dim()));
        let cost = (0, bytes([dy, logits, x, x, dlogits]));
        self.time(work, cost, |k| k.select_backward(dy, logits, x, dlogits))
    }

    fn linear_forward(&self, x: &Tensor, w: &Tensor, bias: Option<&Tensor>, y: &mut Tensor) -> Result<()> {
        let work = ("linear", FORWARD, Shape::Product([x.last_dim(), y.last_dim()]));
        let cost = (product(x, w), bytes([x, w, y]));
        self.time(work, cost, |k| k.linear_forward(x, w, bias, y))
    }

    fn linear_backward_input(&self, dy: &Tensor, w: &Tensor, dx: &mut Tensor) -> Result<()> {
        let work = ("linear", INPUT, Shape::Product([dx.last_dim(), dy.last_dim()]));
        let cost = (product(dy, w), bytes([dy, w, dx]));
        self.time(work, cost, |k| k.linear_backward_input(dy, w, dx))
    }

    fn linear_backward_weight(&self, x: &Tensor, dy: &Tensor, dw: &mut Tensor) -> Result<()> {
        let work = ("linear", WEIGHT, Shape::Product([x.last_dim(), dy.last_dim()]));
        let cost = (product(x, dw), bytes([x, dy, dw]));
        self.time(work, cost, |k| k.linear_backward_weight(x, dy, dw))
    }

    fn column_sums(&self, x: &Tensor, sums: &mut Tensor) -> Result<()> {
        let work = ("linear", "bias gradient", Shape::Rows(x.last_dim()));
        self.time(work, (0, bytes([x])), |k| k.column_sums(x, sums))
    }

    fn relu_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        self.time(("relu", FORWARD, Shape::Any), (0, bytes([x, y])), |k| k.relu_forward(x, y))
    }

    fn relu_backward(&self, y: &Tensor, dy: &mut Tensor) -> Result<()> {
        self.time(("relu", INPUT, Shape::Any), (0, bytes([y, dy])), |k| k.relu_backward(y, dy))
    }

    fn add_assign(&self, a: &mut Tensor, b: &Tensor) -> Result<()> {
        self.time(("add", "a += b", Shape::Any), (0, bytes([a, b])), |k| k.add_assign(a, b))
    }

    fn scale(&self, a: &mut Tensor, factor: &Tensor) -> Result<()> {
        self.time(("scale", "a *= b", Shape::Any), (0, bytes([a])), |k| k.scale(a, factor))
    }

    fn fill(&self, a: &mut Tensor, value: f32) -> Result<()> {
        // Not watched: this is not part of a step, but of the work before it.
        self.inner.fill(a, value)
    }

    fn unit_from_bytes(&self, values: Bytes, y: &mut Tensor) -> Result<()> {
        let cost = (0, y.len() as u64 + bytes([y]));
        self.time(("images", "from bytes", Shape::Any), cost, |k| k.unit_from_bytes(values, y))
    }

    fn sum_of_squares(&self, list: &mut dyn Iterator<Item = &Tensor>, sum: &mut Tensor) -> Result<()> {
        // The number of bytes is known only after going through the list.
        self.time(("optimizer", "sum of squares", Shape::Any), (0, 0), |k| k.sum_of_squares(list, sum))
    }

    fn l2_normalize_forward(&self, x: &Tensor, y: &mut Tensor) -> Result<()> {
        let work = ("l2_normalize", FORWARD, Shape::Rows(x.last_dim()));
        self.time(work, (0, bytes([x, y])), |k| k.l2_normalize_forward(x, y))
    }

    fn l2_normalize_backward(&self, x: &Tensor, dy: &Tensor, dx: &mut Tensor) -> Result<()> {
        let work = ("l2_normalize", INPUT, Shape::Rows(x.last_dim()));
        self.time(work, (0, bytes([x, dy, dx])), |k| k.l2_normalize_backward(x, dy, dx))
    }

    fn nt_xent_forward(&self, shape: &ContrastiveShape, all: &Tensor, anchors: &mut Tensor) -> Result<()> {
        let work = ("nt_xent", FORWARD, Shape::Rows(shape.dim));
        self.time(work, (similarities(shape), bytes([all])), |k| k.nt_xent_forward(shape, all, anchors))
    }

    fn nt_xent_figures(&self, anchors: &Tensor, lse: &mut Tensor, sums: &mut Tensor) -> Result<()> {
        let work = ("nt_xent", "figures", Shape::Any);
        self.time(work, (0, bytes([anchors, lse])), |k| k.nt_xent_figures(anchors, lse, sums))
    }

    fn mean_loss(&self, sums: &Tensor, views: usize, loss: &mut Tensor) -> Result<()> {
        let work = ("nt_xent", "figures", Shape::Any);
        self.time(work, (0, bytes([sums, loss])), |k| k.mean_loss(sums, views, loss))
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
        let work = ("nt_xent", BACKWARD, Shape::Rows(shape.dim));
        // Recomputes the similarities, and multiplies their weights with the views.
        let cost = (2 * similarities(shape), bytes([all, dz]));
        self.time(work, cost, |k| k.nt_xent_backward(shape, all, anchors, lse, dy, dz))
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
        let work = (PAIR_LOSS, FORWARD, Shape::Rows(shape.dim));
        let cost = (similarities(shape), bytes([all, anchors, pairs, losses]));
        self.time(work, cost, |k| k.pair_loss_forward(shape, loss, all, anchors, pairs, losses))
    }

    fn pair_loss_figures(&self, anchors: &Tensor, losses: &Tensor, sums: &mut Tensor) -> Result<()> {
        let work = (PAIR_LOSS, "figures", Shape::Any);
        self.time(work, (0, bytes([anchors, losses])), |k| k.pair_loss_figures(anchors, losses, sums))
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
        let work = (PAIR_LOSS, BACKWARD, Shape::Rows(shape.dim));
        // The same as in NT-Xent's backward; or, for each view, only the few negatives that count.
        let products = if loss.semi_hard { 0 } else { 2 * similarities(shape) };
        let cost = (products, bytes([all, pairs, dz]));
        self.time(work, cost, |k| k.pair_loss_backward(shape, loss, all, pairs, dy, dz))
    }

    fn softmax_cross_entropy(&self, logits: &Tensor, labels: &[u32], dlogits: &mut Tensor) -> Result<f64> {
        let work = ("softmax_cross_entropy", "both", Shape::Rows(logits.last_dim()));
        let cost = (0, bytes([logits, dlogits]));
        self.time(work, cost, |k| k.softmax_cross_entropy(logits, labels, dlogits))
    }

    fn update(&self, rule: &Rule, inputs: StepInputs, list: &mut [ParameterUpdate]) -> Result<()> {
        // LARS reads weights and gradients a second time, for their norms.
        let twice = matches!(rule, Rule::Lars { .. });
        let moved = list.iter().map(|ParameterUpdate { gradient: g, value: w, state: v, adapted }| {
            bytes([g, w, v, w, v]) + if twice && *adapted { bytes([w, g]) } else { 0 }
        });
        let cost = (0, moved.sum());
        self.time(("optimizer", "update", Shape::Any), cost, |k| k.update(rule, inputs, list))
    }

    fn replace(&self, verdict: &Tensor, list: &mut [(&mut Tensor, &Tensor)]) -> Result<()> {
        let cost = (0, list.iter().map(|(to, from)| bytes([to, from])).sum());
        self.time(("optimizer", "averages", Shape::Any), cost, |k| k.replace(verdict, list))
    }

    fn judge(
        &self,
        sums: &Tensor,
        squares: &Tensor,
        views: usize,
        scale: Option<&LossScale>,
        verdict: &mut Tensor,
    ) -> Result<()> {
        self.time(("optimizer", "verdict", Shape::Any), (0, 0), |k| {
            k.judge(sums, squares, views, scale, verdict)
        })
    }

    fn update_loss_scale(&self, verdict: &Tensor, scale: &mut LossScale) -> Result<()> {
        self.time(("optimizer", "loss scale", Shape::Any), (0, 0), |k| k.update_loss_scale(verdict, scale))
    }

    fn set_arithmetic(&self, arithmetic: Arithmetic) -> Arithmetic {
        self.inner.set_arithmetic(arithmetic)
    }
}

#[cfg(test)]
mod tests {
    use simclr_kernels::pair_loss::Term;

    use super::*;
    use crate::{Device, Isa, Mode, ParameterKind, Parameters, SingleProcess, Tape, ops};

    #[test]
    fn a_dry_device_computes_nothing_and_counts_all() {
        let device = Device::dry().unwrap();
        let x = Tensor::empty(&device, &[1 << 20, 1 << 10]);
        let mut y = Tensor::empty(&device, x.shape());
        device.kernels().relu_forward(&x, &mut y).unwrap();
        assert_eq!(device.memory().peak, 2 << 32);
        assert_eq!(device.sum_of_squares([&y]).unwrap(), 0.0);
    }

    #[test]
    fn every_kernel_of_a_step_is_counted() {
        let (device, profile) = Device::cpu_profiled(1, Isa::detect()).unwrap();
        let mut parameters = Parameters::new();
        let w = Tensor::full(&device, &[2, 3, 3, 1], 0.5).unwrap();
        let id = parameters.add("w", ParameterKind::Weight, w).unwrap();
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let x = tape.input(Tensor::full(&device, &[4, 5, 5, 1], 1.0).unwrap());
        let w = tape.parameter(id);
        let options = ops::Conv2d { stride: 1, padding: 1, channel_sums: false };
        let y = ops::conv2d(&mut tape, &x, &w, options).unwrap();
        let dy = Tensor::full(&device, y.tensor().shape(), 1.0).unwrap();
        tape.backward(&y, dy).unwrap();

        let costs = profile.costs();
        let passes: Vec<_> = costs.iter().map(|(work, cost)| (work.pass, cost.calls)).collect();
        // No input gradient: the images need none.
        assert_eq!(passes, [(FORWARD, 1), (WEIGHT, 1)]);
        let (work, cost) = costs[0];
        assert_eq!(work.shape.to_string(), "3x3 /1 5x5, 1 to 2");
        assert_eq!((cost.flops, cost.bytes), (2 * 4 * 25 * 2 * 9, 4 * (100 + 18 + 200)));
        profile.clear();
        assert!(profile.costs().is_empty());
    }
    /// The operations that shares of the peak are based on: 2 for each product that a definition adds up.
    #[test]
    fn operations_are_those_of_the_definition() {
        let (device, profile) = Device::cpu_profiled(1, Isa::detect()).unwrap();
        let zeros = |shape: &[usize]| Tensor::zeros(&device, shape).unwrap();
        let cost = |run: &dyn Fn(&dyn Kernels) -> Result<()>| {
            profile.clear();
            run(device.kernels()).unwrap();
            let costs = profile.costs();
            assert_eq!(costs.len(), 1);
            (costs[0].1.flops, costs[0].1.bytes)
        };

        let g = Conv2dGeometry {
            batch: 4,
            in_height: 5,
            in_width: 5,
            in_channels: 1,
            out_channels: 2,
            kernel_height: 3,
            kernel_width: 3,
            stride: 1,
            padding: 1,
        };
        let (x, w, y) = (zeros(&[4, 5, 5, 1]), zeros(&[2, 3, 3, 1]), zeros(&[4, 5, 5, 2]));
        let (flops, bytes) = (2 * 4 * 25 * 2 * 9, 4 * (100 + 18 + 200));
        let forward = cost(&|k| k.conv2d_forward(&g, &x, &w, &mut zeros(y.shape()), None));
        let weight = cost(&|k| k.conv2d_backward_weight(&g, &x, &y, &mut zeros(w.shape())));
        let [input, added] = [Write::Over, Write::Add]
            .map(|write| cost(&|k| k.conv2d_backward_input(&g, &y, &w, &mut zeros(x.shape()), write)));
        assert_eq!([forward, weight, input], [(flops, bytes); 3]);
        assert_eq!(added, (flops, bytes + 4 * 100));

        // 4 anchors and 8 views, of 3 values each.
        let shape = ContrastiveShape { anchors: 4, views: 8, offset: 0, dim: 3, temperature: 1.0 };
        let (all, dy) = (zeros(&[8, 3]), zeros(&[1]));
        let (found, lse, pairs) = (zeros(&[4, 4]), zeros(&[8]), zeros(&[8, 4]));
        let similarities = 2 * 4 * 8 * 3;
        let (forward, _) = cost(&|k| k.nt_xent_forward(&shape, &all, &mut zeros(&[4, 4])));
        let (backward, _) =
            cost(&|k| k.nt_xent_backward(&shape, &all, &found, &lse, &dy, &mut zeros(&[4, 3])));
        assert_eq!([forward, backward], [similarities, 2 * similarities]);
        for (semi_hard, products) in [(false, 2 * similarities), (true, 0)] {
            let loss = PairLoss { term: Term::Logistic, semi_hard };
            let (forward, _) = cost(&|k| {
                let (mut own, mut losses) = (zeros(&[4, 4]), zeros(&[4]));
                k.pair_loss_forward(&shape, loss, &all, &found, &mut own, &mut losses)
            });
            let (backward, _) =
                cost(&|k| k.pair_loss_backward(&shape, loss, &all, &pairs, &dy, &mut zeros(&[4, 3])));
            assert_eq!([forward, backward], [similarities, products]);
        }
    }
}
