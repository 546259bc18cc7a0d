//! Whether fusing a normalisation into the convolution after it is faster: timed once, and remembered.

use std::rc::Rc;

use half::f16;
use simclr_kernels::Conv2dGeometry;

use super::normalised::Norm;
use super::{ConvolutionPass, Convolutions, Device, Key, Operands};
use crate::device::timing;
use crate::launcher::Scratch;
use crate::ops::{batch_norm, elementwise};
use crate::{CudaError, Result, Slice};

/// The relative error above which results are considered wrong: after each of scale, shift and ReLU values are rounded
/// to f16.
const FAR: f64 = 0.05;

/// The answers in the cache: fused, and separate.
const AT_ONCE: &[u8] = b"at once";
const APART: &[u8] = b"apart";

/// The operands of the passes of a step: x, the BatchNorm's coefficients and the weights in f32, which are read, and y,
/// which is written.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub x: Slice<'a, f16>,
    pub coefficients: Slice<'a, f32>,
    pub w: Slice<'a, f32>,
    pub y: u64,
}

/// The results of the passes besides y.
struct Left {
    sums: Scratch<f64>,
    dw: Scratch<f32>,
}

impl Left {
    fn new(device: &Device, g: &Conv2dGeometry) -> Result<Left> {
        let sums = Scratch::<f64>::new(device, 2 * g.out_channels)?;
        Ok(Left { sums, dw: Scratch::<f32>::new(device, g.weight_len())? })
    }

    fn is_close(&self, device: &Device, other: &Left) -> Result<bool> {
        let sums = |of: &Left| device.values(of.sums.as_ref());
        let dw =
            |of: &Left| Ok(device.values(of.dw.as_ref())?.into_iter().map(f64::from).collect::<Vec<_>>());
        Ok(is_close(&sums(self)?, &sums(other)?) && is_close(&dw(self)?, &dw(other)?))
    }
}

/// Whether values equal the wanted ones up to rounding and to the range of f16. If a wanted value is NaN, there is
/// nothing to compare with, and the answer is yes.
fn is_close(got: &[f64], want: &[f64]) -> bool {
    let held = |value: f64| value.clamp(f64::from(f16::MIN), f64::from(f16::MAX));
    let (mut off, mut size) = (0.0, 0.0);
    for (got, want) in got.iter().zip(want) {
        off += (held(*got) - held(*want)).powi(2);
        size += held(*want).powi(2);
    }
    !size.is_finite() || off.sqrt() <= FAR * size.sqrt()
}

impl Convolutions {
    /// The answer on disk, if the routes that it was found with still exist.
    pub(super) fn recalled_pays(&mut self, passes: &[Key; 2]) -> Option<bool> {
        let pays = self.remembered_pays(&passes[0])?;
        if pays {
            for key in passes.map(|key| key.first().unwrap_or(key)) {
                let route = self.known(&key)?;
                self.routes.insert(key, Rc::new(route));
            }
        }
        self.pays.insert(passes[0], pays);
        Some(pays)
    }

    /// Finds the answer by timing. An answer that another process has stored meanwhile wins.
    pub(super) fn searched_pays(&mut self, device: &Device, passes: &[Key; 2], layer: Layer) -> Result<bool> {
        let key = &passes[0];
        let name = name(key);
        // Before the search: what is there afterwards is of another process.
        self.remembered.forget(&name);
        let (works, faster) = match self.is_faster(device, passes, layer) {
            Ok(faster) => (true, faster),
            // Not stored: another time there may be enough memory.
            Err(CudaError::OutOfMemory { .. }) => {
                self.pays.insert(*key, false);
                return Ok(false);
            }
            Err(error) => {
                timing::survived(device, None, error)?;
                (false, false)
            }
        };
        self.remembered.put(&name, if faster { AT_ONCE } else { APART });
        let pays = works && self.remembered_pays(key).unwrap_or(faster);
        self.pays.insert(*key, pays);
        Ok(pays)
    }

    fn remembered_pays(&self, key: &Key) -> Option<bool> {
        let stored = self.remembered.get(&name(key))?;
        [(AT_ONCE, true), (APART, false)].into_iter().find(|(text, _)| *text == stored).map(|(_, pays)| pays)
    }

    /// Whether both passes together are correct and take less time than with a separate BatchNorm before them. y stands
    /// in for its gradient.
    fn is_faster(&mut self, device: &Device, passes: &[Key; 2], layer: Layer) -> Result<bool> {
        let g = passes[0].geometry;
        let mut w = Scratch::<f16>::new(device, g.weight_len())?;
        elementwise::narrow(device, layer.w, w.as_mut())?;
        let operands = Operands { x: layer.x.address(), w: w.address(), y: layer.y, sums: 0, norm: 0 };
        let [at_once, apart] = [Left::new(device, &g)?, Left::new(device, &g)?];
        let fused = |this: &mut Convolutions| {
            passes.iter().try_for_each(|key| {
                // As in a step, each pass narrows the coefficients for itself.
                let norm = Norm::new(device, key, layer.coefficients)?;
                this.pass(device, key, Operands { norm: norm.address(), ..operands }, &at_once)
            })
        };
        // The first run chooses each pass's route.
        fused(self)?;

        let plain = passes.map(|key| Key { normalised: false, ..key });
        let mut activation = Scratch::<f16>::new(device, g.input_len())?;
        let from = Operands { x: activation.address(), ..operands };
        let mut composed = |this: &mut Convolutions| {
            let to = activation.as_mut();
            batch_norm::forward(device, layer.x, layer.coefficients, None, true, to, None)?;
            plain.iter().try_for_each(|key| this.pass(device, key, from, &apart))
        };
        composed(self)?;
        if !at_once.is_close(device, &apart)? {
            return Ok(false);
        }
        let other = timing::seconds(device, f64::INFINITY, &mut || composed(self))?;
        Ok(timing::seconds(device, other, &mut || fused(self))? < other)
    }

    /// Runs one pass, whose results besides y go to `left`.
    fn pass(&mut self, device: &Device, key: &Key, operands: Operands, left: &Left) -> Result<()> {
        let operands = match key.pass {
            ConvolutionPass::BackwardWeight => Operands { w: left.dw.address(), ..operands },
            _ => Operands { sums: left.sums.address(), ..operands },
        };
        self.compute(device, key, operands)
    }
}

fn name(key: &Key) -> String {
    format!("at once or apart: {key:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rounded_is_close_and_what_is_something_else_is_not() {
        assert!(is_close(&[1.001, -2.0], &[1.0, -2.001]));
        assert!(!is_close(&[1.0, 2.0], &[1.0, -2.0]));
        assert!(!is_close(&[f64::NAN, 2.0], &[1.0, 2.0]));
        assert!(!is_close(&[0.0, 0.0], &[1.0, 2.0]));
        // Beyond the range of f16, and with nothing to compare with.
        assert!(is_close(&[f64::INFINITY, 1.0], &[1e6, 1.0]));
        assert!(is_close(&[3.0], &[f64::NAN]));
        assert!(is_close(&[0.0], &[0.0]));
    }
}
