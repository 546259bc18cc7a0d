//! Convolutions fused with the BatchNorm and ReLU before them: the activations between two convolutions of a block are
//! then neither written nor kept.
//!
//! cuDNN has engines for that in f16, for the forward pass with sums of channels and for the gradient of weights. It
//! does not promise that they are as fast as those of the convolution alone, or that their sums have the same bits
//! every time: they are used only where both passes together are faster than with a separate BatchNorm, and results
//! need not repeat.

use half::f16;
use simclr_kernels::{Conv2dGeometry, Write};

use super::pays::Layer;
use super::{ConvolutionMode, ConvolutionPass, Convolutions, Device, Key, Lent, NAME, lent, lent_mut};
use crate::launcher::{Scratch, expect, expect_len};
use crate::ops::elementwise;
use crate::{Element, ElementType, Result, Slice, SliceMut};

/// Channels in and out must be multiples of this, so that scale and shift begin at multiples of 16 bytes.
const GROUP: usize = 8;

impl Device {
    /// y = relu(x scale + shift) * w with `sums` of its channels, as [`Device::conv2d_forward_with_sums`]; the ReLU's
    /// output is padded with zeros. `coefficients` are a BatchNorm's, (4, C): scale and shift come first.
    ///
    /// # Errors
    /// As [`Device::conv2d_forward`]; `Lengths` also for the cases that never pay, listed at
    /// [`Device::norm_conv2d_pays`].
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
                    "f16 in one piece, channels by {GROUP} and results that need not repeat are needed: {key:?}"
                )
            })?;
            convolutions.compute(self, key, operands)
        })
    }

    /// Whether [`Device::norm_conv2d_forward`] and [`Device::norm_conv2d_backward_weight`] together take less time
    /// than a BatchNorm and the same passes without it. Never for types other than f16, for deterministic modes, for
    /// channels in or out that are not a multiple of 8, or for batches that are computed in pieces. Otherwise this is
    /// measured once per geometry and remembered on disk; y is then overwritten. The answer is no where cuDNN has no
    /// engine or computes wrong results.
    ///
    /// # Errors
    /// `Lengths` where lengths do not match the geometry, `Call` in a capture if the answer is not known yet, or if the
    /// GPU no longer works.
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
            // SAFETY: x has that many values, of f16 as `may_normalise` checked, and stays borrowed.
            let x = unsafe { Slice::<f16>::from_raw(operands.x, g.input_len()) };
            let layer = Layer { x, coefficients, w, y: operands.y };
            self.counted_search(|| convolutions.searched_pays(self, &passes, layer))
        })
    }
}

/// The keys of the forward pass and of the gradient of weights, as a step computes them.
fn passes<E: Element>(g: &Conv2dGeometry, mode: ConvolutionMode) -> [Key; 2] {
    let forward = Key::of::<E, E>(g, mode, ConvolutionPass::ForwardWithSums, Write::Over);
    let weight = Key::of::<E, f32>(g, mode, ConvolutionPass::BackwardWeight, Write::Over);
    [forward, weight].map(|key| Key { normalised: true, ..key })
}

/// Scale and shift in f16, as cuDNN takes them.
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
    /// Whether a fused normalisation is possible for a geometry, type and mode.
    fn may_normalise(&self, key: &Key) -> bool {
        let g = &key.geometry;
        key.element == ElementType::F16
            && !key.mode.deterministic
            && [g.in_channels, g.out_channels].iter().all(|channels| channels.is_multiple_of(GROUP))
            && key.piece(&self.limits).is_none()
    }
}
