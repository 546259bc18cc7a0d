//! Convolutions by cuDNN, channels last, summed in f32.
//!
//! Which algorithm serves a geometry is found by timing all of them once, and remembered on disk for the version of cuDNN and the GPU's name.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::Arc;

use cudarc::cudnn::result;
use cudarc::cudnn::sys;
use cudarc::driver::CudaContext;
use simclr_kernels::Conv2dGeometry;
use simclr_kernels::conv2d::Write;

use super::cudnn::{
    Choice, FMA, MOST, NAME, Operands, Parts, Pass, Timed, algorithms, failed, find, operands, run, set_math,
    workspace,
};
use super::{Device, lock};
use crate::launcher::{Launcher, expect, expect_len};
use crate::{CudaError, Element, ElementType, Result, Slice, SliceMut, cache};

/// The most that an algorithm may take for itself, and what it is tried with where that is not free.
const WORKSPACES: [usize; 3] = [1 << 30, 256 << 20, 32 << 20];

/// How convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvolutionMode {
    /// Whether f32 may be rounded to tf32, 10 bits of precision.
    pub tf32: bool,
    /// Whether only algorithms may serve that give the same bits each time.
    pub deterministic: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    geometry: Conv2dGeometry,
    element: ElementType,
    mode: ConvolutionMode,
    pass: Pass,
}

/// The library's handle, and the algorithms that were chosen.
pub(super) struct Convolutions {
    context: Arc<CudaContext>,
    handle: sys::cudnnHandle_t,
    /// What choices on disk are for.
    machine: String,
    folder: Option<PathBuf>,
    chosen: HashMap<Key, Choice>,
}

// SAFETY: the handle may be used by any thread, one at a time; it is behind a lock.
unsafe impl Send for Convolutions {}

impl Drop for Convolutions {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the handle was created and is destroyed once. There is nobody to tell a failure.
            let _ = unsafe { result::destroy_handle(self.handle) };
        }
    }
}

impl Device {
    /// y = x * w. x (N, H, W, C), w (K, R, S, C), y (N, P, Q, K).
    ///
    /// # Errors
    /// `Lengths` where shapes do not belong together, `Call` where cuDNN refuses.
    pub fn conv2d_forward<E: Element>(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        x: Slice<E>,
        w: Slice<E>,
        y: SliceMut<E>,
    ) -> Result<()> {
        let operands = operands(x.address(), w.address(), y.address());
        let lengths = [x.len(), w.len(), y.len()];
        self.convolve::<E>(g, mode, Pass::Forward, lengths, operands, Write::Over)
    }

    /// dx of a convolution, written or added to what is there.
    ///
    /// # Errors
    /// As [`Device::conv2d_forward`].
    pub fn conv2d_backward_input<E: Element>(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        dy: Slice<E>,
        w: Slice<E>,
        dx: SliceMut<E>,
        write: Write,
    ) -> Result<()> {
        let operands = operands(w.address(), dy.address(), dx.address());
        let lengths = [dx.len(), w.len(), dy.len()];
        self.convolve::<E>(g, mode, Pass::BackwardInput, lengths, operands, write)
    }

    /// dw of a convolution, of the type of the activations: sums are in f32, and rounded once.
    ///
    /// # Errors
    /// As [`Device::conv2d_forward`].
    pub fn conv2d_backward_weight<E: Element>(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        x: Slice<E>,
        dy: Slice<E>,
        dw: SliceMut<E>,
    ) -> Result<()> {
        let operands = operands(x.address(), dy.address(), dw.address());
        let lengths = [x.len(), dw.len(), dy.len()];
        self.convolve::<E>(g, mode, Pass::BackwardWeight, lengths, operands, Write::Over)
    }

    fn convolve<E: Element>(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        pass: Pass,
        [x, w, y]: [usize; 3],
        operands: Operands,
        write: Write,
    ) -> Result<()> {
        expect(NAME, g.is_valid(), || format!("a kernel that fits into the padded image is needed: {g:?}"))?;
        expect_len(NAME, "the input", x, g.input_len())?;
        expect_len(NAME, "the weights", w, g.weight_len())?;
        expect_len(NAME, "the output", y, g.output_len())?;
        self.bind()?;
        let mut convolutions = lock(&self.shared.convolutions);
        let convolutions = match &mut *convolutions {
            Some(convolutions) => convolutions,
            empty => empty.insert(Convolutions::new(self)?),
        };
        let key = Key { geometry: *g, element: E::TYPE, mode, pass };
        let parts = Parts::new(g, E::TYPE, mode.tf32)?;
        let choice = convolutions.choice(self, &key, &parts, operands, write)?;
        let workspace = (choice.workspace > 0).then(|| self.scratch(choice.workspace)).transpose()?;
        let room = workspace.as_ref().map_or(std::ptr::null_mut(), |memory| memory.address() as *mut c_void);
        // SAFETY: the descriptions are those of operands whose lengths were checked; the workspace is as long as the choice says.
        unsafe { run(convolutions.handle, pass, &parts, choice, operands, write, room) }
    }
}

impl Convolutions {
    fn new(device: &Device) -> Result<Convolutions> {
        let handle = result::create_handle().map_err(failed)?;
        let convolutions = Convolutions {
            context: device.shared.context.clone(),
            handle,
            machine: format!("cuDNN {} on {}", result::get_version(), device.name()),
            folder: device.shared.cache.as_ref().map(|folder| folder.join("convolutions")),
            chosen: HashMap::new(),
        };
        // SAFETY: the handle was created, and the stream lives as long as the device.
        unsafe { result::set_stream(handle, device.raw_stream().cast()) }.map_err(failed)?;
        Ok(convolutions)
    }

    /// The algorithm for a key: remembered, or found by timing all of them on the operands, of which `out` is overwritten where it will be.
    fn choice(
        &mut self,
        device: &Device,
        key: &Key,
        parts: &Parts,
        operands: Operands,
        write: Write,
    ) -> Result<Choice> {
        if let Some(choice) = self.chosen.get(key) {
            return Ok(*choice);
        }
        let text = format!("{} {key:?}", self.machine);
        let name = format!("{:032x}", cache::fingerprint(&[text.as_bytes()]));
        let stored = self.folder.as_ref().and_then(|folder| cache::read(folder, &name));
        let known = stored.and_then(|bytes| Choice::read(key.pass, &bytes)).filter(|choice| {
            // What is stored may be of a driver that had it otherwise.
            set_math(parts, choice.math).is_ok()
                // SAFETY: the descriptions are whole.
                && unsafe { workspace(self.handle, key.pass, parts, choice.algorithm) } == Ok(choice.workspace)
        });
        let choice = match known {
            Some(choice) => choice,
            None => {
                device.refuse_in_capture("choosing an algorithm")?;
                // What the result is added to must outlive the search.
                let bytes = key.geometry.input_len() * key.element.size();
                let aside = (write == Write::Add).then(|| device.scratch(bytes)).transpose()?;
                let out = aside.as_ref().map_or(operands.out, |memory| memory.address() as *mut c_void);
                let choice = self.time(device, key, parts, Operands { out, ..operands })?;
                if let Some(folder) = &self.folder {
                    cache::write(folder, &name, choice.text().as_bytes());
                }
                choice
            }
        };
        self.chosen.insert(*key, choice);
        Ok(choice)
    }

    fn time(&self, device: &Device, key: &Key, parts: &Parts, operands: Operands) -> Result<Choice> {
        let mut room = None;
        for size in WORKSPACES {
            if let Ok(memory) = device.scratch(size) {
                room = Some((memory, size));
                break;
            }
        }
        let (address, size) = room.as_ref().map_or((0, 0), |(memory, size)| (memory.address(), *size));
        let mut timed = [Timed::default(); MOST];
        // SAFETY: the descriptions are those of operands whose lengths were checked; the workspace has `size` bytes, and `timed` room for `MOST`.
        let count = unsafe {
            find(self.handle, key.pass, parts, operands, &mut timed, address as *mut c_void, size)
        }?;
        let usable = |timed: &&Timed| {
            timed.status == 0
                && timed.memory <= size
                && (timed.determinism == 1 || !key.mode.deterministic)
                && timed.algorithm < algorithms(key.pass)
                // Exact f32 stays exact.
                && (key.element != ElementType::F32 || key.mode.tf32 || timed.math == FMA)
        };
        let fastest = timed[..count.min(MOST)].iter().filter(usable).min_by(|a, b| a.time.total_cmp(&b.time));
        fastest
            .map(|timed| Choice { algorithm: timed.algorithm, math: timed.math, workspace: timed.memory })
            .ok_or_else(|| CudaError::Call {
                what: NAME,
                reason: format!("{} has no algorithm for {key:?}", self.machine),
            })
    }
}

impl Choice {
    fn text(&self) -> String {
        format!("{} {} {}", self.algorithm, self.math, self.workspace)
    }

    fn read(pass: Pass, bytes: &[u8]) -> Option<Choice> {
        let mut numbers = std::str::from_utf8(bytes).ok()?.split(' ').map(|word| word.parse::<usize>().ok());
        let (algorithm, math, workspace) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let choice = Choice { algorithm: algorithm as u32, math: math as u32, workspace };
        (numbers.next().is_none() && choice.algorithm < algorithms(pass) && choice.math <= FMA)
            .then_some(choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_was_written() {
        let choice = Choice { algorithm: 5, math: 1, workspace: 1 << 20 };
        assert_eq!(Choice::read(Pass::BackwardInput, choice.text().as_bytes()), Some(choice));
        for damaged in ["", "5", "5 1", "5 1 x", "5 1 0 0", "6 1 0", "5 4 0"] {
            assert_eq!(Choice::read(Pass::BackwardInput, damaged.as_bytes()), None, "{damaged}");
        }
        assert!(Choice::read(Pass::Forward, b"7 1 0").is_some());
    }
}
