//! Convolutions by cuDNN, channels last, summed in f32.
//!
//! A convolution is a graph of one operation, for which cuDNN proposes engines. Which of them serves a geometry is
//! found by timing the first few once, and remembered on disk for the version of cuDNN and the GPU's name. A
//! convolution of single pixels is also tried as a product of matrices. One whose input passes a BatchNorm and a ReLU
//! may do these as it reads.

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

use super::{Device, destroy_between_captures, lock, product};
use crate::cache::Remembered;
use crate::launcher::{Launcher, Scratch, expect, expect_len};
use crate::{CudaError, Element, ElementType, Result, Slice, SliceMut};
use legacy::Parts;
pub use pieces::ConvolutionLimits;
pub use report::ConvolutionTiming;
use route::Route;
use second::{channel_sums, second, sums_apart, widen_sums};

/// What is asked for, in errors.
const NAME: &str = "a convolution";

/// How convolutions are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvolutionMode {
    /// Whether f32 may be rounded to tf32, 10 bits of precision.
    pub tf32: bool,
    /// Whether only algorithms may serve that give the same bits each time.
    pub deterministic: bool,
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConvolutionPass {
    /// y of x and w.
    Forward,
    /// The same, and the sums of each channel of y and of its square.
    ForwardWithSums,
    /// dx of dy and w.
    BackwardInput,
    /// dw of x and dy.
    BackwardWeight,
}

/// All that a choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    geometry: Conv2dGeometry,
    /// The type of what is read.
    element: ElementType,
    /// The type of the result: `element`, or f32 for a gradient of weights.
    output: ElementType,
    mode: ConvolutionMode,
    pass: ConvolutionPass,
    /// Whether the result is added to what is there.
    adds: bool,
    /// Whether x is read through a BatchNorm's scale and shift and a ReLU.
    normalised: bool,
}

impl Key {
    /// What [`Route::InTwo`] computes first: a result of the type of what is read, written over what is there. None
    /// where that is all.
    fn first(&self) -> Option<Key> {
        let pass = match self.pass {
            // Of what is normalised as it is read, cuDNN has no engines without sums that are compiled already.
            ConvolutionPass::ForwardWithSums if !self.normalised => ConvolutionPass::Forward,
            pass => pass,
        };
        let first = Key { output: self.element, adds: false, pass, ..*self };
        (first != *self).then_some(first)
    }

    /// Whether sums are wanted that cuDNN's do not serve for: those are in f32, and nobody says in which order they
    /// are added.
    fn sums_apart(&self) -> bool {
        let sums = self.pass == ConvolutionPass::ForwardWithSums;
        sums && (self.element == ElementType::F32 || self.mode.deterministic)
    }

    /// Whether it is done in two without a search: see [`Key::sums_apart`], and what is normalised as it is read has
    /// a gradient of weights in its own type alone.
    fn in_two(&self) -> bool {
        self.sums_apart() || (self.normalised && self.first().is_some())
    }

    /// Whether cuDNN's older interface may compute it.
    fn is_plain(&self) -> bool {
        !self.normalised && self.first().is_none()
    }

    /// The types of x, w and y, or of the gradients that are read or written in their place.
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

/// Addresses of x, w and y, or of the gradient that is read or written in their place.
///
/// Wherever they go with a key, they are as long as it says, and lent until its pass is launched, the result and the
/// sums exclusively: [`Key::operands`] checks it, and who puts another address in the place of one sees to it.
#[derive(Debug, Clone, Copy)]
struct Operands {
    x: u64,
    w: u64,
    y: u64,
    /// Of [`ConvolutionPass::ForwardWithSums`] alone: an f64 for each channel of y, then one for its square.
    sums: u64,
    /// Where x is normalised as it is read: scale and shift, one after the other, a value of the key's type for each
    /// channel of x.
    norm: u64,
}

impl Operands {
    /// Where the result is.
    fn result(&self, pass: ConvolutionPass) -> u64 {
        match pass {
            ConvolutionPass::Forward | ConvolutionPass::ForwardWithSums => self.y,
            ConvolutionPass::BackwardInput => self.x,
            ConvolutionPass::BackwardWeight => self.w,
        }
    }

    /// The same with the result elsewhere.
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

/// An operand as it is lent to a pass.
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
    /// What was found in other processes.
    remembered: Remembered,
    routes: HashMap<Key, Rc<Route>>,
    /// Whether it is faster to normalise as a convolution reads: see [`Device::norm_conv2d_pays`].
    pays: HashMap<Key, bool>,
    limits: ConvolutionLimits,
}

// SAFETY: the handle and descriptors may be used by any thread, one at a time; they are behind a lock, and so are
// all clones of each `Rc`, which are dropped before the lock is given back.
unsafe impl Send for Convolutions {}

impl Drop for Convolutions {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            self.routes.clear();
            // SAFETY: the handle was created and is destroyed once. There is nobody to tell a failure.
            destroy_between_captures(|| unsafe { result::destroy_handle(self.handle) });
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
        let key = Key::of::<E, E>(g, mode, ConvolutionPass::Forward, Write::Over);
        self.convolve(&key, [lent(x), lent(w), lent_mut(y)], [0; 2])
    }

    /// y = x * w with `sums` = [sum of y; K values, sum of y^2; K values], each over all images and pixels: summed
    /// in f64, or where the type has 16 bits and it is faster, in f32 as y is made.
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

    /// dx of a convolution, written or added to what is there. Where it is added, it may be rounded before.
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

    /// dw of a convolution in f32, whatever the type of the activations: as it was summed where that is no slower,
    /// else rounded to that type.
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

    /// Computes a convolution of x, w and y, or of the gradients that are read or written in their place, with the
    /// addresses of sums, where the pass has some, and of what x is normalised by, where it is.
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
        // Only f32 can be rounded to tf32: where it says nothing, it makes no two searches of one.
        let mode = ConvolutionMode { tf32: mode.tf32 && E::TYPE == ElementType::F32, ..mode };
        let adds = write == Write::Add;
        Key { geometry: *g, element: E::TYPE, output: D::TYPE, mode, pass, adds, normalised: false }
    }

    /// Operands of the right lengths: x, w and y, and the addresses of sums and of what x is normalised by.
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
            remembered: Remembered::new(device.shared.cache.as_deref(), "convolutions", machine),
            routes: HashMap::new(),
            pays: HashMap::new(),
            limits: ConvolutionLimits::default(),
        };
        // SAFETY: the handle was created, and the stream lives as long as the device.
        unsafe { result::set_stream(handle, device.raw_stream().cast()) }.map_err(failed)?;
        Ok(convolutions)
    }

    /// Computes a convolution of operands that are as long as the key says.
    fn compute(&mut self, device: &Device, key: &Key, operands: Operands) -> Result<()> {
        if let Some(images) = key.piece(&self.limits) {
            return self.in_pieces(device, key, images, operands);
        }
        let route = self.route(device, key, operands)?;
        self.run(device, key, &route, operands)
    }

    /// The same on a given route.
    fn run(&mut self, device: &Device, key: &Key, route: &Route, operands: Operands) -> Result<()> {
        let room = |bytes: usize| (bytes > 0).then(|| device.scratch(bytes)).transpose();
        match route {
            Route::Engine(plan) => {
                let room = room(plan.workspace)?;
                let address = room.as_ref().map_or(0, |memory| memory.address());
                if key.pass == ConvolutionPass::ForwardWithSums {
                    let mut narrow = Scratch::<f32>::new(device, 2 * sums_apart(key.geometry.out_channels))?;
                    // cuDNN does not say whether it adds to what is there.
                    device.clear(narrow.as_mut())?;
                    let with = Operands { sums: narrow.address(), ..operands };
                    // SAFETY: as below; the sums lie as far apart as the plan's tensors are placed.
                    unsafe { plan.run(self.handle, key, with, address) }?;
                    // SAFETY: these are the operands of a pass with sums.
                    return unsafe { widen_sums(device, key, &narrow, operands) };
                }
                // SAFETY: operands are as long as the key says; the workspace is as long as the plan says.
                unsafe { plan.run(self.handle, key, operands, address) }
            }
            Route::Algorithm(algorithm) => {
                let parts = Parts::new(&key.geometry, key.element, key.mode.tf32)?;
                let room = room(algorithm.workspace)?;
                let address = room.as_ref().map_or(0, |memory| memory.address());
                // SAFETY: the descriptions are those of operands as long as the key says; the workspace is as long
                // as the algorithm's.
                unsafe { legacy::run(self.handle, key.pass, &parts, *algorithm, operands, address) }
            }
            // SAFETY: operands are as long as the key says, and the result is lent exclusively.
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
                    // SAFETY: the memory was made for as many values, and just filled; the result is lent exclusively.
                    unsafe { second(device, key, aside.address(), operands.result(key.pass)) }
                }
                None => Err(CudaError::Call { what: NAME, reason: format!("{key:?} is not done in two") }),
            },
        }
    }
}
