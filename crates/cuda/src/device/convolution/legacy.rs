//! cuDNN's older interface, one call per pass, for convolutions that its graphs have no engine for.

use std::ffi::{c_int, c_void};

use cudarc::cudnn::result::{self, CudnnError};
use cudarc::cudnn::sys;
use simclr_kernels::Conv2dGeometry;

use super::operation::data_type;
use super::{ConvolutionPass as Pass, Key, NAME, Operands, failed};
use crate::{CudaError, ElementType, Result};

/// An algorithm, by its numbers in cuDNN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Algorithm {
    pub number: u32,
    pub math: u32,
    pub workspace: usize,
}

/// Whether an algorithm with these numbers exists.
pub(super) fn exists(pass: Pass, number: u32, math: u32) -> bool {
    number < algorithms(pass) && math <= FMA
}

/// The result of timing an algorithm: `cudnnConvolutionFwdAlgoPerf_t` and its like, with numbers in place of
/// enumerations, to which a newer cuDNN may have added values.
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
const MAX_ALGORITHMS: usize = 16;

/// The descriptors of a convolution and its tensors.
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
        let math = match element {
            ElementType::F32 if !tf32 => sys::cudnnMathType_t::CUDNN_FMA_MATH,
            _ => sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
        };
        let element = data_type(element);
        let last = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        // Null until created: `drop` skips those.
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
        // SAFETY: each was created if it is not null, and is destroyed once. A failure cannot be reported from a drop.
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

/// `CUDNN_FMA_MATH`.
const FMA: u32 = 3;

/// The number of algorithms of a pass.
fn algorithms(pass: Pass) -> u32 {
    match pass {
        Pass::Forward | Pass::ForwardWithSums => {
            sys::cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_COUNT as u32
        }
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
    // SAFETY: the descriptor is alive.
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

/// The workspace in bytes of an algorithm, whose number is below [`algorithms`].
///
/// # Safety
/// The handle and the descriptors must be alive.
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
            Pass::Forward | Pass::ForwardWithSums => {
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

/// The algorithm of these numbers for other parts, if cuDNN has it for them.
pub(super) fn again(
    handle: sys::cudnnHandle_t,
    pass: Pass,
    parts: &Parts,
    number: u32,
    math: u32,
) -> Option<Algorithm> {
    set_math(parts, math).ok()?;
    // SAFETY: the handle is alive, and the descriptors are complete.
    let workspace = unsafe { workspace(handle, pass, parts, number) }.ok()?;
    Some(Algorithm { number, math, workspace })
}

/// The fastest algorithm for a key, by cuDNN's own timing on the operands, which overwrites the result.
///
/// # Safety
/// The handle must be alive, operands must match the key, and `room` must be memory of `size` bytes.
pub(super) unsafe fn fastest(
    handle: sys::cudnnHandle_t,
    key: &Key,
    parts: &Parts,
    operands: Operands,
    room: u64,
    size: usize,
) -> Result<Option<Algorithm>> {
    let mut timed = [Timed::default(); MAX_ALGORITHMS];
    // SAFETY: the caller's promise.
    let count = unsafe { find(handle, key.pass, parts, operands, &mut timed, room as *mut c_void, size) }?;
    let usable = |timed: &&Timed| {
        timed.status == 0
            && timed.memory <= size
            && (timed.determinism == 1 || !key.mode.deterministic)
            && timed.algorithm < algorithms(key.pass)
            // Without tf32, f32 must be exact.
            && (key.element != ElementType::F32 || key.mode.tf32 || timed.math == FMA)
    };
    let fastest =
        timed[..count.min(MAX_ALGORITHMS)].iter().filter(usable).min_by(|a, b| a.time.total_cmp(&b.time));
    Ok(fastest.map(|timed| Algorithm { number: timed.algorithm, math: timed.math, workspace: timed.memory }))
}

/// Times every algorithm; returns how many entries were written.
///
/// # Safety
/// The handle and the descriptors must be alive, operands must match them, and the workspace must have `size` bytes.
unsafe fn find(
    handle: sys::cudnnHandle_t,
    pass: Pass,
    parts: &Parts,
    operands: Operands,
    timed: &mut [Timed; MAX_ALGORITHMS],
    room: *mut c_void,
    size: usize,
) -> Result<usize> {
    let Parts { x, w, y, convolution } = *parts;
    let [xs, ws, ys] = operands.pointers();
    let (most, mut count) = (MAX_ALGORITHMS as c_int, 0);
    // SAFETY: the caller's promise; `timed` has room for `most` entries of the same layout (asserted above).
    let status = unsafe {
        match pass {
            Pass::Forward | Pass::ForwardWithSums => sys::cudnnFindConvolutionForwardAlgorithmEx(
                handle,
                x,
                xs,
                w,
                ws,
                convolution,
                y,
                ys,
                most,
                &mut count,
                timed.as_mut_ptr().cast(),
                room,
                size,
            ),
            Pass::BackwardInput => sys::cudnnFindConvolutionBackwardDataAlgorithmEx(
                handle,
                w,
                ws,
                y,
                ys,
                convolution,
                x,
                xs,
                most,
                &mut count,
                timed.as_mut_ptr().cast(),
                room,
                size,
            ),
            Pass::BackwardWeight => sys::cudnnFindConvolutionBackwardFilterAlgorithmEx(
                handle,
                x,
                xs,
                y,
                ys,
                convolution,
                w,
                ws,
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
/// As [`find`], with an algorithm that exists and a workspace of the size that it needs.
pub(super) unsafe fn run(
    handle: sys::cudnnHandle_t,
    pass: Pass,
    parts: &Parts,
    algorithm: Algorithm,
    operands: Operands,
    room: u64,
) -> Result<()> {
    let Algorithm { number, math, workspace: size } = algorithm;
    set_math(parts, math)?;
    let Parts { x, w, y, convolution } = *parts;
    let [xs, ws, ys] = operands.pointers();
    let room = room as *mut c_void;
    let (one, old) = (1f32, 0f32);
    let (one, old) = (std::ptr::from_ref(&one).cast::<c_void>(), std::ptr::from_ref(&old).cast::<c_void>());
    // SAFETY: the caller's promise; the factors are read before the call returns.
    unsafe {
        match pass {
            Pass::Forward | Pass::ForwardWithSums => result::convolution_forward(
                handle,
                one,
                x,
                xs,
                w,
                ws,
                convolution,
                forward(number),
                room,
                size,
                old,
                y,
                ys,
            ),
            Pass::BackwardInput => result::convolution_backward_data(
                handle,
                one,
                w,
                ws,
                y,
                ys,
                convolution,
                backward_input(number),
                room,
                size,
                old,
                x,
                xs,
            ),
            Pass::BackwardWeight => result::convolution_backward_filter(
                handle,
                one,
                x,
                xs,
                y,
                ys,
                convolution,
                backward_weight(number),
                room,
                size,
                old,
                w,
                ws,
            ),
        }
    }
    .map_err(failed)
}
