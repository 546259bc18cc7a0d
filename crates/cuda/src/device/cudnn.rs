//! cuDNN's descriptions of a convolution, and its calls for the three passes.

use std::ffi::{c_int, c_void};

use cudarc::cudnn::result::{self, CudnnError};
use cudarc::cudnn::sys;
use simclr_kernels::Conv2dGeometry;
use simclr_kernels::conv2d::Write;

use crate::{CudaError, ElementType, Result};

/// What is asked for, in errors.
pub(super) const NAME: &str = "a convolution";

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pass {
    Forward,
    BackwardInput,
    BackwardWeight,
}

/// An algorithm, by its numbers in cuDNN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub algorithm: u32,
    pub math: u32,
    pub workspace: usize,
}

pub(super) fn failed(error: CudnnError) -> CudaError {
    CudaError::Call { what: NAME, reason: format!("cuDNN: {error}") }
}

/// What an algorithm did when it was timed: `cudnnConvolutionFwdAlgoPerf_t` and its like, with numbers in place of enumerations, since a newer
/// cuDNN may know more of them.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timed {
    pub algorithm: u32,
    pub status: u32,
    pub time: f32,
    pub memory: usize,
    pub determinism: u32,
    pub math: u32,
    reserved: [c_int; 3],
}

const _: () = assert!(size_of::<Timed>() == size_of::<sys::cudnnConvolutionFwdAlgoPerf_t>());
const _: () = assert!(size_of::<Timed>() == size_of::<sys::cudnnConvolutionBwdDataAlgoPerf_t>());
const _: () = assert!(size_of::<Timed>() == size_of::<sys::cudnnConvolutionBwdFilterAlgoPerf_t>());
/// More than any pass has.
pub(super) const MOST: usize = 16;

/// The descriptions of a convolution's parts.
pub(super) struct Parts {
    x: sys::cudnnTensorDescriptor_t,
    w: sys::cudnnFilterDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
}

impl Parts {
    pub fn new(g: &Conv2dGeometry, element: ElementType, tf32: bool) -> Result<Parts> {
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
        let (element, math) = match element {
            ElementType::F32 if tf32 => {
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
pub(super) struct Operands {
    pub first: *const c_void,
    pub second: *const c_void,
    pub out: *mut c_void,
}

pub(super) fn operands(first: u64, second: u64, out: u64) -> Operands {
    Operands { first: first as *const c_void, second: second as *const c_void, out: out as *mut c_void }
}

/// `CUDNN_FMA_MATH`.
pub(super) const FMA: u32 = 3;

/// How many algorithms a pass has.
pub(super) fn algorithms(pass: Pass) -> u32 {
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

pub(super) fn set_math(parts: &Parts, math: u32) -> Result<()> {
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
pub(super) unsafe fn workspace(
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
pub(super) unsafe fn find(
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
pub(super) unsafe fn run(
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
