//! Watching fused operators, which some devices have.

use super::{BACKWARD_SUMS, FORWARD, INPUT, STATISTICS, WEIGHT, Watch, Watched, bytes, bytes_of};
use crate::profile::Shape;
use crate::{
    BackwardSums, Conv2dGeometry, Conv2dNorm, FirstLayer, Kernels, Mask, NormConv2d, NormPair, Result, Tensor,
};

const NORM_CONV2D: &str = "norm_conv2d";
const CONV2D_NORM: &str = "conv2d_norm";
const FIRST_LAYER: &str = "first_layer";
const NORM_PAIR: &str = "norm_pair";

impl<K: Kernels, W: Watch> NormConv2d for Watched<K, W> {
    fn pays(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
    ) -> Result<bool> {
        // Not watched: this only asks, and is not part of a step.
        self.inner.norm_conv2d().map_or(Ok(false), |fused| fused.pays(g, x, coefficients, w, y))
    }

    fn forward(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        w: &Tensor,
        y: &mut Tensor,
        sums: &mut Tensor,
    ) -> Result<()> {
        let cost = (g.flops(), bytes([x, w, y]));
        self.time((NORM_CONV2D, FORWARD, Shape::window(g)), cost, |k| {
            k.norm_conv2d_again()?.forward(g, x, coefficients, w, y, sums)
        })
    }

    fn backward_weight(
        &self,
        g: &Conv2dGeometry,
        x: &Tensor,
        coefficients: &Tensor,
        dy: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()> {
        let cost = (g.flops(), bytes([x, dy, dw]));
        self.time((NORM_CONV2D, WEIGHT, Shape::window(g)), cost, |k| {
            k.norm_conv2d_again()?.backward_weight(g, x, coefficients, dy, dw)
        })
    }
}

impl<K: Kernels, W: Watch> Conv2dNorm for Watched<K, W> {
    fn forward(
        &self,
        g: &Conv2dGeometry,
        operands: [&Tensor; 2],
        coefficients: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        y: &mut Tensor,
    ) -> Result<()> {
        let cost = (g.flops(), bytes(operands) + bytes([y]) + bytes_of(residual));
        self.time((CONV2D_NORM, FORWARD, Shape::window(g)), cost, |k| {
            k.conv2d_norm_again()?.forward(g, operands, coefficients, residual, relu, y)
        })
    }
}

impl<K: Kernels, W: Watch> FirstLayer for Watched<K, W> {
    fn sums(&self, g: &Conv2dGeometry, images: &Tensor, w: &Tensor, sums: &mut Tensor) -> Result<()> {
        let cost = (g.flops(), bytes([images, w, sums]));
        self.time((FIRST_LAYER, STATISTICS, Shape::window(g)), cost, |k| {
            k.first_layer_again(g, images)?.sums(g, images, w, sums)
        })
    }

    fn forward(
        &self,
        g: &Conv2dGeometry,
        images: &Tensor,
        w: &Tensor,
        coefficients: &Tensor,
        to: &mut Tensor,
    ) -> Result<()> {
        let cost = (g.flops(), bytes([images, w, to]));
        self.time((FIRST_LAYER, FORWARD, Shape::window(g)), cost, |k| {
            k.first_layer_again(g, images)?.forward(g, images, w, coefficients, to)
        })
    }

    fn backward_sums(
        &self,
        g: &Conv2dGeometry,
        images: &Tensor,
        w: &Tensor,
        coefficients: &Tensor,
        dy: &Tensor,
        correlations: &mut Tensor,
        to: BackwardSums,
    ) -> Result<()> {
        // Recomputes y, and multiplies its gradient with the images.
        let cost = (2 * g.flops(), bytes([images, w, dy, correlations]));
        self.time((FIRST_LAYER, BACKWARD_SUMS, Shape::window(g)), cost, |k| {
            let kernels = k.first_layer_again(g, images)?;
            kernels.backward_sums(g, images, w, coefficients, dy, correlations, to)
        })
    }

    fn backward_weight(
        &self,
        g: &Conv2dGeometry,
        images: &Tensor,
        w: &Tensor,
        correlations: &Tensor,
        backward: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()> {
        let cost = (0, bytes([w, correlations, backward, dw]));
        self.time((FIRST_LAYER, WEIGHT, Shape::window(g)), cost, |k| {
            let kernels = k.first_layer_again(g, images)?;
            kernels.backward_weight(g, images, w, correlations, backward, dw)
        })
    }
}

impl<K: Kernels, W: Watch> NormPair for Watched<K, W> {
    fn forward(
        &self,
        x: [&Tensor; 2],
        coefficients: [&Tensor; 2],
        y: &mut Tensor,
        mask: &mut Mask,
    ) -> Result<()> {
        let work = (NORM_PAIR, FORWARD, Shape::Rows(x[0].last_dim()));
        let cost = (0, bytes([x[0], x[1], y]) + mask.bytes() as u64);
        self.time(work, cost, |k| k.norm_pair_again()?.forward(x, coefficients, y, mask))
    }

    fn backward_sums(
        &self,
        dy: &Tensor,
        mask: &Mask,
        x: [&Tensor; 2],
        coefficients: [&Tensor; 2],
        to: [BackwardSums; 2],
    ) -> Result<()> {
        let work = (NORM_PAIR, BACKWARD_SUMS, Shape::Rows(dy.last_dim()));
        let cost = (0, bytes([dy, x[0], x[1]]) + mask.bytes() as u64);
        self.time(work, cost, |k| k.norm_pair_again()?.backward_sums(dy, mask, x, coefficients, to))
    }

    fn backward_input(
        &self,
        dy: &Tensor,
        mask: &Mask,
        x: [&mut Tensor; 2],
        backward: [&Tensor; 2],
    ) -> Result<()> {
        let work = (NORM_PAIR, INPUT, Shape::Rows(dy.last_dim()));
        let cost = (0, bytes([dy]) + 2 * bytes([&*x[0], &*x[1]]) + mask.bytes() as u64);
        self.time(work, cost, |k| k.norm_pair_again()?.backward_input(dy, mask, x, backward))
    }
}
