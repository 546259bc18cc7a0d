//! Convolutions by cuDNN, channels last, summed in f32.
//!
//! Which algorithm serves a geometry is found by timing all of them once, and remembered on disk for the version of cuDNN and the GPU's name.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::path::PathBuf;
use std::sync::Arc;

use cudarc::cudnn::result::{self, CudnnError};
use cudarc::cudnn::sys;
use cudarc::driver::CudaContext;
use simclr_kernels::Conv2dGeometry;
use simclr_kernels::conv2d::Write;

use super::{Device, lock};
use crate::launcher::{Launcher, expect, expect_len};
use crate::{CudaError, Element, ElementType, Result, Slice, SliceMut, cache};

const NAME: &str = "a convolution";
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
enum Pass {
    Forward,
    BackwardInput,
    BackwardWeight,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    geometry: Conv2dGeometry,
    element: ElementType,
    mode: ConvolutionMode,
    pass: Pass,
}

/// An algorithm, by its numbers in cuDNN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Choice {
    algorithm: u32,
    math: u32,
    workspace: usize,
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

fn failed(error: CudnnError) -> CudaError {
    CudaError::Call { what: NAME, reason: format!("cuDNN: {error}") }
}

/// What an algorithm did when it was timed: `cudnnConvolutionFwdAlgoPerf_t` and its like, with numbers in place of enumerations, since a newer
/// cuDNN may know more of them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Timed {
    algorithm: u32,
    status: u32,
    time: f32,
    memory: usize,
    determinism: u32,
    math: u32,
    reserved: [c_int; 3],
}

const _: () = assert!(size_of::<Timed>() == size_of::<sys::cudnnConvolutionFwdAlgoPerf_t>());
const _: () = assert!(size_of::<Timed>() == size_of::<sys::cudnnConvolutionBwdDataAlgoPerf_t>());
const _: () = assert!(size_of::<Timed>() == size_of::<sys::cudnnConvolutionBwdFilterAlgoPerf_t>());
/// More than any pass has.
const MOST: usize = 16;

/// The descriptions of a convolution's parts.
struct Parts {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
}

impl Parts {
    fn new(key: &Key) -> Result<Parts> {
        let g = &key.geometry;
        let mut sizes = [0; 11];
        let of = [
            g.batch,
            g.in_height,
            g.in_width,
            g.in_channels,
            g.out_channels,
            g.kernel_height,
            g.kernel_width,
            g.stride,
            g.padding,
            g.out_height(),
            g.out_width(),
        ];
        for (size, of) in sizes.iter_mut().zip(of) {
            *size = c_int::try_from(of)
                .map_err(|_| CudaError::Lengths { kernel: NAME, what: format!("{g:?} is too large") })?;
        }
        let [n, h, w, c, k, r, s, stride, padding, p, q] = sizes;
        let (element, math) = match key.element {
            ElementType::F32 if key.mode.tf32 => {
                (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH)
            }
            ElementType::F32 => {
                (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnMathType_t::CUDNN_FMA_MATH)
            }
            ElementType::Bf16 => {
                (sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH)
            }
            ElementType::F16 => {
                (sys::cudnnDataType_t::CUDNN_DATA_HALF, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH)
            }
        };
        let last = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        // Null where one could not be created: `drop` leaves those out.
        let mut parts = Parts {
            x: std::ptr::null_mut(),
            w: std::ptr::null_mut(),
            y: std::ptr::null_mut(),
            convolution: std::ptr::null_mut(),
        };
        parts.x = result::create_tensor_descriptor().map_err(failed)?;
        parts.w = result::create_filter_descriptor().map_err(failed)?;
        parts.y = result::create_tensor_descriptor().map_err(failed)?;
        parts.convolution = result::create_convolution_descriptor().map_err(failed)?;
        // SAFETY: all four were created above and live as long as `parts`.
        unsafe {
            result::set_tensor4d_descriptor(parts.x, last, element, [n, c, h, w]).map_err(failed)?;
            result::set_filter4d_descriptor(parts.w, element, last, [k, c, r, s]).map_err(failed)?;
            result::set_tensor4d_descriptor(parts.y, last, element, [n, k, p, q]).map_err(failed)?;
            result::set_convolution2d_descriptor(
                parts.convolution,
                padding,
                padding,
                stride,
                stride,
                1,
                1,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            )
            .map_err(failed)?;
            result::set_convolution_math_type(parts.convolution, math).map_err(failed)?;
        }
        Ok(parts)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // SAFETY: each was created, where it is not null, and is destroyed once. There is nobody to tell a failure.
        unsafe {
            if !self.x.is_null() {
                let _ = result::destroy_tensor_descriptor(self.x);
            }
            if !self.w.is_null() {
                let _ = result::destroy_filter_descriptor(self.w);
            }
            if !self.y.is_null() {
                let _ = result::destroy_tensor_descriptor(self.y);
            }
            if !self.convolution.is_null() {
                let _ = result::destroy_convolution_descriptor(self.convolution);
            }
        }
    }
}

/// The operands of a pass in cuDNN's order: what is read, then what is written.
#[derive(Clone, Copy)]
struct Operands {
    first: *const c_void,
    second: *const c_void,
    out: *mut c_void,
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
        let parts = Parts::new(&key)?;
        let choice = convolutions.choice(self, &key, &parts, operands, write)?;
        let workspace = (choice.workspace > 0).then(|| self.scratch(choice.workspace)).transpose()?;
        let room = workspace.as_ref().map_or(std::ptr::null_mut(), |memory| memory.address() as *mut c_void);
        // SAFETY: the descriptions are those of operands whose lengths were checked; the workspace is as long as the choice says.
        unsafe { run(convolutions.handle, pass, &parts, choice, operands, write, room) }
    }
}

fn operands(first: u64, second: u64, out: u64) -> Operands {
    Operands { first: first as *const c_void, second: second as *const c_void, out: out as *mut c_void }
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

/// `CUDNN_FMA_MATH`.
const FMA: u32 = 3;

/// How many algorithms a pass has.
fn algorithms(pass: Pass) -> u32 {
    match pass {
        Pass::Forward => sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_COUNT as u32,
        Pass::BackwardInput => {
            sys::cudnnConvolutionBwdDataAlgo_t::CUDNN_CONVOLUTION_BWD_DATA_ALGO_COUNT as u32
        }
        Pass::BackwardWeight => {
            sys::cudnnConvolutionBwdFilterAlgo_t::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_COUNT as u32
        }
    }
}

fn set_math(parts: &Parts, math: u32) -> Result<()> {
    use sys::cudnnMathType_t::*;
    let math = match math {
        1 => CUDNN_TENSOR_OP_MATH,
        2 => CUDNN_TENSOR_OP_MATH_ALLOW_CONVERSION,
        FMA => CUDNN_FMA_MATH,
        _ => CUDNN_DEFAULT_MATH,
    };
    // SAFETY: the description lives.
    unsafe { result::set_convolution_math_type(parts.convolution, math) }.map_err(failed)
}

fn forward(number: u32) -> sys::cudnnConvolutionFwdAlgo_t {
    use sys::cudnnConvolutionFwdAlgo_t::*;
    [
        CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
        CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
        CUDNN_CONVOLUTION_FWD_ALGO_GEMM,
        CUDNN_CONVOLUTION_FWD_ALGO_DIRECT,
        CUDNN_CONVOLUTION_FWD_ALGO_FFT,
        CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING,
        CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD,
        CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED,
    ][number as usize]
}

fn backward_input(number: u32) -> sys::cudnnConvolutionBwdDataAlgo_t {
    use sys::cudnnConvolutionBwdDataAlgo_t::*;
    [
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT,
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING,
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD,
        CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED,
    ][number as usize]
}

fn backward_weight(number: u32) -> sys::cudnnConvolutionBwdFilterAlgo_t {
    use sys::cudnnConvolutionBwdFilterAlgo_t::*;
    [
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT,
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_3,
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD,
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
        CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING,
    ][number as usize]
}

/// The bytes that an algorithm, a number below [`algorithms`], takes for itself.
///
/// # Safety
/// The handle and the descriptions must live.
unsafe fn workspace(
    handle: sys::cudnnHandle_t,
    pass: Pass,
    parts: &Parts,
    number: u32,
) -> std::result::Result<usize, CudnnError> {
    let Parts { x, w, y, convolution } = *parts;
    // SAFETY: the caller's promise.
    unsafe {
        match pass {
            Pass::Forward => {
                result::get_convolution_forward_workspace_size(handle, x, w, convolution, y, forward(number))
            }
            Pass::BackwardInput => result::get_convolution_backward_data_workspace_size(
                handle,
                w,
                y,
                convolution,
                x,
                backward_input(number),
            ),
            Pass::BackwardWeight => result::get_convolution_backward_filter_workspace_size(
                handle,
                x,
                y,
                convolution,
                w,
                backward_weight(number),
            ),
        }
    }
}

/// Times every algorithm; returns how many entries were written.
///
/// # Safety
/// The handle and the descriptions must live, operands be as they describe, and the workspace as long as is said.
unsafe fn find(
    handle: sys::cudnnHandle_t,
    pass: Pass,
    parts: &Parts,
    operands: Operands,
    timed: &mut [Timed; MOST],
    room: *mut c_void,
    size: usize,
) -> Result<usize> {
    let Parts { x, w, y, convolution } = *parts;
    let Operands { first, second, out } = operands;
    let (most, mut count) = (MOST as c_int, 0);
    // SAFETY: the caller's promise; `timed` has room for `most` entries of the same layout (asserted above).
    let status = unsafe {
        match pass {
            Pass::Forward => sys::cudnnFindConvolutionForwardAlgorithmEx(
                handle,
                x,
                first,
                w,
                second,
                convolution,
                y,
                out,
                most,
                &mut count,
                timed.as_mut_ptr().cast(),
                room,
                size,
            ),
            Pass::BackwardInput => sys::cudnnFindConvolutionBackwardDataAlgorithmEx(
                handle,
                w,
                first,
                y,
                second,
                convolution,
                x,
                out,
                most,
                &mut count,
                timed.as_mut_ptr().cast(),
                room,
                size,
            ),
            Pass::BackwardWeight => sys::cudnnFindConvolutionBackwardFilterAlgorithmEx(
                handle,
                x,
                first,
                y,
                second,
                convolution,
                w,
                out,
                most,
                &mut count,
                timed.as_mut_ptr().cast(),
                room,
                size,
            ),
        }
    };
    status.result().map_err(failed)?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Runs a pass.
///
/// # Safety
/// As [`find`], with as much workspace as the choice says.
unsafe fn run(
    handle: sys::cudnnHandle_t,
    pass: Pass,
    parts: &Parts,
    choice: Choice,
    operands: Operands,
    write: Write,
    room: *mut c_void,
) -> Result<()> {
    set_math(parts, choice.math)?;
    let Parts { x, w, y, convolution } = *parts;
    let Operands { first, second, out } = operands;
    let (one, old) = (1f32, if write == Write::Add { 1f32 } else { 0f32 });
    let (one, old) = (std::ptr::from_ref(&one).cast::<c_void>(), std::ptr::from_ref(&old).cast::<c_void>());
    let (number, size) = (choice.algorithm, choice.workspace);
    // SAFETY: the caller's promise; the factors are read before the call returns.
    unsafe {
        match pass {
            Pass::Forward => result::convolution_forward(
                handle,
                one,
                x,
                first,
                w,
                second,
                convolution,
                forward(number),
                room,
                size,
                old,
                y,
                out,
            ),
            Pass::BackwardInput => result::convolution_backward_data(
                handle,
                one,
                w,
                first,
                y,
                second,
                convolution,
                backward_input(number),
                room,
                size,
                old,
                x,
                out,
            ),
            Pass::BackwardWeight => result::convolution_backward_filter(
                handle,
                one,
                x,
                first,
                y,
                second,
                convolution,
                backward_weight(number),
                room,
                size,
                old,
                w,
                out,
            ),
        }
    }
    .map_err(failed)
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
