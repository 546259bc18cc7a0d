//! Timing every route of a convolution, for measurements.

use simclr_kernels::{Conv2dGeometry, Write};

use super::route::Route;
use super::{ConvolutionMode, ConvolutionPass, Device, Key, NAME, Operands};
use crate::launcher::expect;
use crate::ops::elementwise;
use crate::{Element, Result, SliceMut};

/// The time of one way to compute a convolution.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvolutionTiming {
    /// The way, in the form in which it is remembered: "engine", its number in cuDNN and its knobs; "algorithm" of the
    /// older interface, likewise; "product", a matrix product; "strided", a matrix product of the pixels that the
    /// stride selects; or "in two", another way followed by one of our kernels.
    pub what: String,
    /// The time in seconds.
    pub seconds: f64,
}

impl Device {
    /// Times the ways to compute a pass of a convolution of type `E`. The chosen one comes first; that of cuDNN's older
    /// interface comes last, if it has one and the pass has no sums. Weight gradients are in f32; `write` matters only
    /// for input gradients. Nothing is remembered except the first stage of "in two".
    ///
    /// # Errors
    /// As [`Device::conv2d_forward`], also where cuDNN's graphs have no engine; `OutOfMemory` where there is no memory
    /// for the operands.
    pub fn time_convolution<E: Element>(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        pass: ConvolutionPass,
        write: Write,
    ) -> Result<Vec<ConvolutionTiming>> {
        self.refuse_in_capture("timing a convolution")?;
        expect(NAME, g.is_valid(), || format!("a kernel that fits into the padded image is needed: {g:?}"))?;
        let key = match pass {
            ConvolutionPass::Forward | ConvolutionPass::ForwardWithSums => {
                Key::of::<E, E>(g, mode, pass, Write::Over)
            }
            ConvolutionPass::BackwardInput => Key::of::<E, E>(g, mode, pass, write),
            ConvolutionPass::BackwardWeight => Key::of::<E, f32>(g, mode, pass, Write::Over),
        };
        let whole = self.with_convolutions(|convolutions| Ok(key.piece(&convolutions.limits).is_none()))?;
        expect(NAME, whole, || format!("fewer images are needed: these are computed in pieces: {g:?}"))?;
        let (x, w, y) = (
            self.buffer::<u8>(g.input_len() * E::TYPE.size())?,
            // A gradient is in f32.
            self.buffer::<u8>(g.weight_len() * size_of::<f32>())?,
            self.buffer::<u8>(g.output_len() * E::TYPE.size())?,
        );
        let sums = self.buffer::<f64>(2 * g.out_channels)?;
        let [x, w, y, sums] =
            [x.read().address(), w.read().address(), y.read().address(), sums.read().address()];
        let operands = Operands { x, w, y, sums, norm: 0 };
        // SAFETY: the buffers have room for that many values, and nothing else uses them.
        unsafe {
            self.noise::<E>(operands.x, g.input_len())?;
            self.noise::<E>(operands.w, g.weight_len())?;
            self.noise::<E>(operands.y, g.output_len())?;
        }
        self.with_convolutions(|convolutions| {
            let mut timed = convolutions.timed(self, &key, operands)?;
            let plain = key.first().unwrap_or(key);
            if pass != ConvolutionPass::ForwardWithSums
                && let Some(algorithm) = convolutions.algorithm(self, &plain, operands)?
            {
                let route = Route::Algorithm(algorithm);
                timed.push(convolutions.time(self, &plain, route, operands, f64::INFINITY)?);
            }
            let told =
                |(seconds, route): (f64, Route)| ConvolutionTiming { what: route.memo().text(), seconds };
            Ok(timed.into_iter().map(told).collect())
        })
    }

    /// Fills memory of `len` values with noise in [-1, 1): a GPU multiplies constant values faster than real data.
    ///
    /// # Safety
    /// The caller must own that many values there.
    unsafe fn noise<E: Element>(&self, at: u64, len: usize) -> Result<()> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let values: Vec<f32> = (0..len.min(1 << 20)).map(|_| next()).collect();
        let noise = self.buffer_of(&values)?;
        for start in (0..len).step_by(values.len().max(1)) {
            let count = values.len().min(len - start);
            // SAFETY: the noise has at least `count` values, and these are some of the values that the caller owns.
            let (from, to) = unsafe {
                let to = at + (start * E::TYPE.size()) as u64;
                (crate::Slice::from_raw(noise.read().address(), count), SliceMut::<E>::from_raw(to, count))
            };
            elementwise::narrow(self, from, to)?;
        }
        Ok(())
    }
}
