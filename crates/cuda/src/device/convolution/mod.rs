//! Convolutions by cuDNN, channels last, summed in f32.
//!
//! A convolution is a cuDNN graph of one operation, for which cuDNN proposes engines. The best one for a geometry is
//! found by timing the first few once, and remembered on disk for the version of cuDNN and the GPU's name. A 1 x 1
//! convolution is also tried as a matrix product. A BatchNorm and a ReLU before a convolution may be fused into it.

mod backend;
mod engines;
mod legacy;
mod normalised;
mod operation;
mod pays;
mod pieces;
mod pointwise;
mod prologue;
mod report;
mod route;
mod search;
mod second;
mod strided;

use std::collections::HashMap;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;

use cudarc::cudnn::result::{self, CudnnError};
use cudarc::cudnn::sys;
use cudarc::driver::CudaContext;
use simclr_kernels::{Conv2dGeometry, Write};

use super::{CONVOLUTIONS, Device, destroy_between_captures, lock, product};
use crate::cache::Remembered;
use crate::launcher::{Launcher, Scratch, expect, expect_len};
use crate::{CudaError, Element, ElementType, Result, Slice, SliceMut};
use legacy::Parts;
pub use pieces::ConvolutionLimits;
pub use report::ConvolutionTiming;
use route::Route;
use second::{channel_sums, second, sums_apart, widen_sums};

/// The operation's name in errors.
const NAME: &str = "a convolution";

/// How convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvolutionMode {
    /// Whether f32 inputs may be rounded to tf32, 10 bits of precision.
    pub tf32: bool,
    /// Whether only algorithms that give the same bits every time may be used.
    pub deterministic: bool,
}

/// The pass that is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvolutionPass {
    /// y from x and w.
    Forward,
    /// y from x and w, and the sums of each channel of y and of its squares.
    ForwardWithSums,
    /// dx from dy and w.
    BackwardInput,
    /// dw from x and dy.
    BackwardWeight,
}

/// Everything that the choice of a route depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    geometry: Conv2dGeometry,
    /// The type of the operands that are read.
    element: ElementType,
    /// The type of the result: `element`, or f32 for a gradient of weights.
    output: ElementType,
    mode: ConvolutionMode,
    pass: ConvolutionPass,
    /// Whether the result is added to the old values.
    adds: bool,
    /// Whether x is read through a BatchNorm's scale and shift and a ReLU.
    normalised: bool,
}

impl Key {
    /// The first stage of [`Route::InTwo`]: a result of the operands' type, overwriting what is there. None where that
    /// is already the whole computation.
    fn first(&self) -> Option<Key> {
        let pass = match self.pass {
            // With a fused normalisation, cuDNN's only precompiled forward engines compute the sums as well.
            ConvolutionPass::ForwardWithSums if !self.normalised => ConvolutionPass::Forward,
            pass => pass,
        };
        let first = Key { output: self.element, adds: false, pass, ..*self };
        (first != *self).then_some(first)
    }

    /// Whether the pass has sums and cuDNN's are not good enough: they are in f32, and their order of addition is not
    /// documented.
    fn sums_apart(&self) -> bool {
        let sums = self.pass == ConvolutionPass::ForwardWithSums;
        sums && (self.element == ElementType::F32 || self.mode.deterministic)
    }

    /// Whether two stages are used without a search: for sums apart from cuDNN ([`Key::sums_apart`]), and for weight
    /// gradients with a fused normalisation, which cuDNN computes in the operands' type only.
    fn in_two(&self) -> bool {
        self.sums_apart() || (self.normalised && self.first().is_some())
    }

    /// Whether cuDNN's older interface may be able to compute this.
    fn is_plain(&self) -> bool {
        !self.normalised && self.first().is_none()
    }

    /// The types of x, w and y, or of the gradients in their place.
    fn types(&self) -> [ElementType; 3] {
        let (of, result) = (self.element, self.output);
        match self.pass {
            ConvolutionPass::Forward | ConvolutionPass::ForwardWithSums => [of, of, result],
            ConvolutionPass::BackwardInput => [result, of, of],
            ConvolutionPass::BackwardWeight => [of, result, of],
        }
    }

    /// The number of values of the result.
    fn len(&self) -> usize {
        match self.pass {
            ConvolutionPass::Forward | ConvolutionPass::ForwardWithSums => self.geometry.output_len(),
            ConvolutionPass::BackwardInput => self.geometry.input_len(),
            ConvolutionPass::BackwardWeight => self.geometry.weight_len(),
        }
    }
}

/// Addresses of x, w and y, or of the gradients in their place.
///
/// Wherever they accompany a key, the memory has the lengths of the key and is borrowed until its pass is launched, the
/// result and the sums exclusively. [`Key::operands`] checks the lengths; code that replaces an address must keep this.
#[derive(Debug, Clone, Copy)]
struct Operands {
    x: u64,
    w: u64,
    y: u64,
    /// For [`ConvolutionPass::ForwardWithSums`] only: an f64 sum of each channel of y, then one of each channel's
    /// squares.
    sums: u64,
    /// For a fused normalisation only: the scales, then the shifts, a value of the key's type for each channel of x.
    norm: u64,
}

impl Operands {
    /// The address of the result.
    fn result(&self, pass: ConvolutionPass) -> u64 {
        match pass {
            ConvolutionPass::Forward | ConvolutionPass::ForwardWithSums => self.y,
            ConvolutionPass::BackwardInput => self.x,
            ConvolutionPass::BackwardWeight => self.w,
        }
    }

    /// The same operands with another address for the result.
    fn into(self, pass: ConvolutionPass, result: u64) -> Operands {
        match pass {
            ConvolutionPass::Forward | ConvolutionPass::ForwardWithSums => Operands { y: result, ..self },
            ConvolutionPass::BackwardInput => Operands { x: result, ..self },
            ConvolutionPass::BackwardWeight => Operands { w: result, ..self },
        }
    }

    fn pointers(self) -> [*mut c_void; 3] {
        [self.x, self.w, self.y].map(|address| address as *mut c_void)
    }
}

/// An operand that a pass borrows.
struct Lent {
    address: u64,
    len: usize,
}

fn lent<T>(operand: Slice<T>) -> Lent {
    Lent { address: operand.address(), len: operand.len() }
}

fn lent_mut<T>(operand: SliceMut<T>) -> Lent {
    Lent { address: operand.address(), len: operand.len() }
}

fn failed(error: CudnnError) -> CudaError {
    CudaError::Call { what: NAME, reason: format!("cuDNN: {error}") }
}

/// The library's handle, and the routes that were chosen.
pub(super) struct Convolutions {
    context: Arc<CudaContext>,
    handle: sys::cudnnHandle_t,
    /// Routes chosen before, also by other processes.
    remembered: Remembered,
    routes: HashMap<Key, Rc<Route>>,
    /// Whether a fused normalisation is faster: see [`Device::norm_conv2d_pays`].
    pays: HashMap<Key, bool>,
    limits: ConvolutionLimits,
    /// Whether a route was not run for lack of memory, since the search began that goes on now.
    starved: bool,
}

// SAFETY: the handle and descriptors may be used by any thread, one at a time; they are behind a lock, and so are all
// clones of each `Rc`, which are dropped before the lock is released.
unsafe impl Send for Convolutions {}

impl Drop for Convolutions {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            self.routes.clear();
            // SAFETY: the handle was created and is destroyed once. A failure cannot be reported from a drop.
            destroy_between_captures(|| unsafe { result::destroy_handle(self.handle) });
        }
    }
}

impl Device {
    /// y = x * w. x (N, H, W, C), w (K, R, S, C), y (N, P, Q, K).
    ///
    /// # Errors
    /// `Lengths` where lengths do not match the geometry, `Call` where cuDNN fails.
    pub fn conv2d_forward<E: Element>(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        x: Slice<E>,
        w: Slice<E>,
        y: SliceMut<E>,
    ) -> Result<()> {
        let key = Key::of::<E, E>(g, mode, ConvolutionPass::Forward, Write::Over);
        self.convolve(&key, [lent(x), lent(w), lent_mut(y)], [0; 2])
    }

    /// y = x * w with `sums` = [sum of y; K values, sum of y^2; K values], each over all images and pixels. They are
    /// summed in f64, or, for 16-bit types that need not repeat bit by bit, in f32 as y is computed if that is faster.
    ///
    /// # Errors
    /// As [`Device::conv2d_forward`].
    pub fn conv2d_forward_with_sums<E: Element>(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        x: Slice<E>,
        w: Slice<E>,
        y: SliceMut<E>,
        sums: SliceMut<f64>,
    ) -> Result<()> {
        expect_len(NAME, "sums", sums.len(), 2 * g.out_channels)?;
        let key = Key::of::<E, E>(g, mode, ConvolutionPass::ForwardWithSums, Write::Over);
        self.convolve(&key, [lent(x), lent(w), lent_mut(y)], [sums.address(), 0])
    }

    /// dx of a convolution, written or added to the values of `dx`. It may be rounded before it is added.
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
        let key = Key::of::<E, E>(g, mode, ConvolutionPass::BackwardInput, write);
        self.convolve(&key, [lent_mut(dx), lent(w), lent(dy)], [0; 2])
    }

    /// dw of a convolution, in f32 whatever the type of the activations. The f32 sums are kept if that is hardly
    /// slower, else they are rounded to the activations' type.
    ///
    /// # Errors
    /// As [`Device::conv2d_forward`].
    pub fn conv2d_backward_weight<E: Element>(
        &self,
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        x: Slice<E>,
        dy: Slice<E>,
        dw: SliceMut<f32>,
    ) -> Result<()> {
        let key = Key::of::<E, f32>(g, mode, ConvolutionPass::BackwardWeight, Write::Over);
        self.convolve(&key, [lent(x), lent_mut(dw), lent(dy)], [0; 2])
    }

    /// Computes a convolution of x, w and y, or of the gradients in their place. `others` are the addresses of the sums
    /// and of scale and shift, for passes that have them.
    fn convolve(&self, key: &Key, operands: [Lent; 3], others: [u64; 2]) -> Result<()> {
        let operands = key.operands(operands, others)?;
        self.with_convolutions(|convolutions| convolutions.compute(self, key, operands))
    }

    fn with_convolutions<T>(&self, work: impl FnOnce(&mut Convolutions) -> Result<T>) -> Result<T> {
        self.bind()?;
        let mut convolutions = lock(&self.shared.convolutions);
        work(match &mut *convolutions {
            Some(convolutions) => convolutions,
            empty => empty.insert(Convolutions::new(self)?),
        })
    }
}

impl Key {
    /// A key for operands of type `E` and a result of type `D`.
    fn of<E: Element, D: Element>(
        g: &Conv2dGeometry,
        mode: ConvolutionMode,
        pass: ConvolutionPass,
        write: Write,
    ) -> Key {
        // tf32 has no meaning for other types: clear it, so that one search serves both settings.
        let mode = ConvolutionMode { tf32: mode.tf32 && E::TYPE == ElementType::F32, ..mode };
        let adds = write == Write::Add;
        Key { geometry: *g, element: E::TYPE, output: D::TYPE, mode, pass, adds, normalised: false }
    }

    /// Checks the lengths of x, w and y, and returns the operands with the addresses of sums and of scale and shift.
    fn operands(&self, [x, w, y]: [Lent; 3], [sums, norm]: [u64; 2]) -> Result<Operands> {
        let g = &self.geometry;
        expect(NAME, g.is_valid(), || format!("a kernel that fits into the padded image is needed: {g:?}"))?;
        expect_len(NAME, "the input", x.len, g.input_len())?;
        expect_len(NAME, "the weights", w.len, g.weight_len())?;
        expect_len(NAME, "the output", y.len, g.output_len())?;
        Ok(Operands { x: x.address, w: w.address, y: y.address, sums, norm })
    }
}

impl Convolutions {
    fn new(device: &Device) -> Result<Convolutions> {
        let handle = result::create_handle().map_err(failed)?;
        let machine = format!("cuDNN {}, {} on {}", result::get_version(), product::version(), device.name());
        let convolutions = Convolutions {
            context: device.shared.context.clone(),
            handle,
            remembered: Remembered::new(device.shared.cache.as_deref(), CONVOLUTIONS, machine),
            routes: HashMap::new(),
            pays: HashMap::new(),
            limits: ConvolutionLimits::default(),
            starved: false,
        };
        // SAFETY: the handle was created, and the stream lives as long as the device.
        unsafe { result::set_stream(handle, device.raw_stream().cast()) }.map_err(failed)?;
        Ok(convolutions)
    }

    /// Computes a convolution of operands with the key's lengths.
    fn compute(&mut self, device: &Device, key: &Key, operands: Operands) -> Result<()> {
        if let Some(images) = key.piece(&self.limits) {
            return self.in_pieces(device, key, images, operands);
        }
        let route = self.route(device, key, operands)?;
        self.run(device, key, &route, operands)
    }

    /// Computes a convolution, of one piece, on a given route.
    fn run(&mut self, device: &Device, key: &Key, route: &Route, operands: Operands) -> Result<()> {
        let done = self.run_on(device, key, route, operands);
        self.starved |= matches!(done, Err(CudaError::OutOfMemory { .. }));
        done
    }

    /// As [`Convolutions::run`], which takes note of what lacks memory.
    fn run_on(&mut self, device: &Device, key: &Key, route: &Route, operands: Operands) -> Result<()> {
        let room = |bytes: usize| (bytes > 0).then(|| device.scratch(bytes)).transpose();
        match route {
            Route::Engine(plan) => {
                let room = room(plan.workspace)?;
                let address = room.as_ref().map_or(0, |memory| memory.address());
                if key.pass == ConvolutionPass::ForwardWithSums {
                    let mut narrow = Scratch::<f32>::new(device, 2 * sums_apart(key.geometry.out_channels))?;
                    // cuDNN does not document whether it adds to the values that are there.
                    device.clear(narrow.as_mut())?;
                    let with = Operands { sums: narrow.address(), ..operands };
                    // SAFETY: as below; the two kinds of sums lie as far apart as the plan expects.
                    unsafe { plan.run(self.handle, key, with, address) }?;
                    // SAFETY: these are the operands of a pass with sums.
                    return unsafe { widen_sums(device, key, &narrow, operands) };
                }
                // SAFETY: operands have the key's lengths, and the workspace the plan's.
                unsafe { plan.run(self.handle, key, operands, address) }
            }
            Route::Algorithm(algorithm) => {
                let parts = Parts::new(&key.geometry, key.element, key.mode.tf32)?;
                let room = room(algorithm.workspace)?;
                let address = room.as_ref().map_or(0, |memory| memory.address());
                // SAFETY: the descriptors describe operands of the key's lengths; the workspace has the algorithm's
                // size.
                unsafe { legacy::run(self.handle, key.pass, &parts, *algorithm, operands, address) }
            }
            // SAFETY: operands have the key's lengths, and the result is borrowed exclusively.
            Route::Product => unsafe { pointwise::run(device, key, operands) },
            // SAFETY: the same.
            Route::Strided => unsafe { self.strided(device, key, operands) },
            Route::InTwo => match key.first() {
                Some(first) if key.pass == ConvolutionPass::ForwardWithSums => {
                    self.compute(device, &first, operands)?;
                    // SAFETY: these are the operands of a pass with sums, and y was just computed.
                    unsafe { channel_sums(device, key, operands) }
                }
                Some(first) => {
                    let aside = device.scratch(key.len() * key.element.size())?;
                    self.compute(device, &first, operands.into(key.pass, aside.address()))?;
                    // SAFETY: the memory was allocated for that many values, and just filled; the result is borrowed
                    // exclusively.
                    unsafe { second(device, key, aside.address(), operands.result(key.pass)) }
                }
                None => Err(CudaError::Call { what: NAME, reason: format!("{key:?} has no second stage") }),
            },
        }
    }
}
