//! Convolutions that read their input through a BatchNorm's scale and shift and a ReLU: what stands between two
//! convolutions of a block is then neither written nor kept.
//!
//! cuDNN has engines for that in f16, with sums of channels and for the gradient of weights. Nobody says that they
//! are as fast as those of the convolution alone, or that their sums are the same bits each time: they serve where
//! both passes together are faster than with a BatchNorm before them, and nothing is asked to repeat.

use half::f16;
use simclr_kernels::{Conv2dGeometry, Write};

use super::pays::Layer;
use super::{ConvolutionMode, ConvolutionPass, Convolutions, Device, Key, Lent, NAME, lent, lent_mut};
use crate::launcher::{Scratch, expect, expect_len};
use crate::ops::elementwise;
use crate::{Element, ElementType, Result, Slice, SliceMut};

/// Channels in and out come in multiples of so many: scale and shift begin at multiples of 16 bytes then.
const GROUP: usize = 8;

impl Device {
    /// y = relu(x scale + shift) * w with `sums` of its channels, as [`Device::conv2d_forward_with_sums`]; zeros are
    /// padded to what the ReLU leaves. `coefficients` are a BatchNorm's, (4, C): scale and shift come first.
    ///
    /// # Errors
    /// As [`Device::conv2d_forward`]; `Lengths` also for what never pays, as [`Device::norm_conv2d_pays`] lists it.
    pub fn norm_conv2d_forward(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        x: Slice<f16>,
        coefficients: Slice<f32>,
        w: Slice<f16>,
        y: SliceMut<f16>,
        sums: SliceMut<f64>,
    ) -> Result<()> {
        expect_len(NAME, "sums", sums.len(), 2 * g.out_channels)?;
        let [forward, _] = passes::<f16>(g, mode);
        self.norm_convolve(&forward, coefficients, [lent(x), lent(w), lent_mut(y)], sums.address())
    }

    /// dw of the same convolution: summed in f32, rounded to f16, and widened.
    ///
    /// # Errors
    /// As [`Device::norm_conv2d_forward`].
    pub fn norm_conv2d_backward_weight(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        x: Slice<f16>,
        coefficients: Slice<f32>,
        dy: Slice<f16>,
        dw: SliceMut<f32>,
    ) -> Result<()> {
        let [_, weight] = passes::<f16>(g, mode);
        self.norm_convolve(&weight, coefficients, [lent(x), lent_mut(dw), lent(dy)], 0)
    }

    fn norm_convolve(
        &self,
        key: &Key,
        coefficients: Slice<f32>,
        operands: [Lent; 3],
        sums: u64,
    ) -> Result<()> {
        let norm = Norm::new(self, key, coefficients)?;
        let operands = key.operands(operands, [sums, norm.address()])?;
        self.with_convolutions(|convolutions| {
            let serves = convolutions.may_normalise(key);
            expect(NAME, serves, || {
                format!(
                    "f16 that need not repeat, in channels by {GROUP} and one piece, is normalised: {key:?}"
                )
            })?;
            convolutions.compute(self, key, operands)
        })
    }

    /// Whether [`Device::norm_conv2d_forward`] and [`Device::norm_conv2d_backward_weight`] together take less time
    /// than a BatchNorm and the same passes without it. Never where values are not f16, where the same bits are
    /// asked for each time, where channels in or out are no multiple of 8, or where the batch is computed in pieces.
    /// Elsewhere it is found out once, for each geometry, and remembered on disk; y is then overwritten. Where cuDNN
    /// has no engine, or what it computes is something else, it does not pay.
    ///
    /// # Errors
    /// `Lengths` where shapes do not belong together, `Call` in a capture where the answer is not known yet, and
    /// where the GPU does not work any more.
    pub fn norm_conv2d_pays<E: Element>(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        x: Slice<E>,
        coefficients: Slice<f32>,
        w: Slice<f32>,
        y: SliceMut<E>,
    ) -> Result<bool> {
        let passes = passes::<E>(g, mode);
        let operands = passes[0].operands([lent(x), lent(w), lent_mut(y)], [0; 2])?;
        expect_len(NAME, "coefficients", coefficients.len(), 4 * g.in_channels)?;
        self.with_convolutions(|convolutions| {
            if !convolutions.may_normalise(&passes[0]) {
                return Ok(false);
            }
            if let Some(known) = convolutions.pays.get(&passes[0]) {
                return Ok(*known);
            }
            self.refuse_in_capture("choosing whether to normalise as a convolution reads")?;
            if let Some(recalled) = convolutions.recalled_pays(&passes) {
                return Ok(recalled);
            }
            // SAFETY: x has so many values, of f16 as was just found, and stays lent.
            let x = unsafe { Slice::<f16>::from_raw(operands.x, g.input_len()) };
            let layer = Layer { x, coefficients, w, y: operands.y };
            self.counted_search(|| convolutions.searched_pays(self, &passes, layer))
        })
    }
}

/// Forward and the gradient of weights, as a step computes them.
fn passes<E: Element>(g: &Conv2dGeometry, mode: ConvolutionMode) -> [Key; 2] {
    let forward = Key::of::<E, E>(g, mode, ConvolutionPass::ForwardWithSums, Write::Over);
    let weight = Key::of::<E, f32>(g, mode, ConvolutionPass::BackwardWeight, Write::Over);
    [forward, weight].map(|key| Key { normalised: true, ..key })
}

/// Scale and shift as cuDNN takes them.
pub(super) struct Norm(Scratch<f16>);

impl Norm {
    pub fn new(device: &Device, key: &Key, coefficients: Slice<f32>) -> Result<Norm> {
        let channels = key.geometry.in_channels;
        expect_len(NAME, "coefficients", coefficients.len(), 4 * channels)?;
        let mut narrow = Scratch::<f16>::new(device, 2 * channels)?;
        elementwise::narrow(device, coefficients.part(0, 2 * channels)?, narrow.as_mut())?;
        Ok(Norm(narrow))
    }

    pub fn address(&self) -> u64 {
        self.0.address()
    }
}

impl Convolutions {
    /// Whether a geometry and mode are such that cuDNN may normalise as it reads.
    fn may_normalise(&self, key: &Key) -> bool {
        let g = &key.geometry;
        key.element == ElementType::F16
            && !key.mode.deterministic
            && [g.in_channels, g.out_channels].iter().all(|channels| channels.is_multiple_of(GROUP))
            && key.piece(&self.limits).is_none()
    }
}
