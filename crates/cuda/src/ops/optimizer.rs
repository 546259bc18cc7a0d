//! Parameter updates, one launch for up to 96 tensors.
//!
//! The values that change from step to step are read from the device, so that a captured step can be replayed: the
//! learning rate, the factor that undoes the loss scale, and whether the step is sound.

use std::marker::PhantomData;

use super::reductions::sum_pieces;
use crate::launcher::{BLOCK, Launch, Launcher, Scratch, arguments, expect, expect_len};
use crate::{Module, Program, Result, Slice, SliceMut};

const PROGRAM: Program = Program::of(Module::Optimizer);
/// The most tensors of a launch: ResNet-18 with two layers in its head has 65 that are trained.
const MAX_TENSORS_PER_LAUNCH: usize = 96;
/// Values that a block covers.
const CHUNK: usize = 8192;

/// `TensorList` of `optimizer.cu`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Raw {
    weight: [u64; MAX_TENSORS_PER_LAUNCH],
    gradient: [u64; MAX_TENSORS_PER_LAUNCH],
    state: [u64; MAX_TENSORS_PER_LAUNCH],
    length: [u64; MAX_TENSORS_PER_LAUNCH],
    first_block: [u32; MAX_TENSORS_PER_LAUNCH + 1],
    adapted: [u32; MAX_TENSORS_PER_LAUNCH / 32],
    count: u32,
}

// All arguments of a launch may take 4096 bytes; those beside the list take less than 64.
const _: () = assert!(size_of::<Raw>() <= 4096 - 64);

impl Raw {
    const EMPTY: Raw = Raw {
        weight: [0; MAX_TENSORS_PER_LAUNCH],
        gradient: [0; MAX_TENSORS_PER_LAUNCH],
        state: [0; MAX_TENSORS_PER_LAUNCH],
        length: [0; MAX_TENSORS_PER_LAUNCH],
        first_block: [0; MAX_TENSORS_PER_LAUNCH + 1],
        adapted: [0; MAX_TENSORS_PER_LAUNCH / 32],
        count: 0,
    };

    fn blocks(&self) -> u32 {
        self.first_block[self.count as usize]
    }
}

/// Tensors for one pass. The optimiser's state of a tensor has as many values as the tensor for momentum, twice as
/// many for AdamW, and none for a pass that needs none.
pub struct TensorList<'a> {
    lists: Vec<Raw>,
    /// Values of state per weight, the same for all tensors.
    state: Option<usize>,
    /// Whether any tensor was added without weights.
    read_only: bool,
    borrow: PhantomData<(&'a mut f32, &'a f32)>,
}

impl Default for TensorList<'_> {
    fn default() -> Self {
        TensorList { lists: Vec::new(), state: None, read_only: false, borrow: PhantomData }
    }
}

impl<'a> TensorList<'a> {
    /// An empty list.
    pub fn new() -> Self {
        TensorList::default()
    }

    /// Adds a tensor. `adapted` tensors have weight decay, and LARS adapts their learning rate.
    pub fn push(
        &mut self,
        weight: SliceMut<'a, f32>,
        gradient: Slice<'a, f32>,
        state: Option<SliceMut<'a, f32>>,
        adapted: bool,
    ) -> Result<()> {
        const NAME: &str = "a list of tensors";
        expect_len(NAME, "the gradient", gradient.len(), weight.len())?;
        if weight.is_empty() {
            return Ok(());
        }
        let len = weight.len();
        let held = state.as_ref().map_or(0, |state| state.len());
        let times = held / len;
        expect(NAME, held == times * len && self.state.is_none_or(|other| other == times), || {
            format!("{held} values of state for {len} weights, {:?} per weight in other tensors", self.state)
        })?;
        self.state = Some(times);
        let state = state.map_or(0, |state| state.address());
        self.add([weight.address(), gradient.address(), state], len, adapted)
    }

    /// Adds a gradient without weights, for [`gradient_squares`]: a list that contains one cannot be updated.
    pub fn push_gradient(&mut self, gradient: Slice<'a, f32>) -> Result<()> {
        self.read_only = true;
        self.add([0, gradient.address(), 0], gradient.len(), false)
    }

    fn add(&mut self, [weight, gradient, state]: [u64; 3], len: usize, adapted: bool) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        // Block numbers have 32 bits.
        expect("a list of tensors", len < 1 << 38, || format!("a tensor of {len} values"))?;
        if self.lists.last().is_none_or(|list| list.count as usize == MAX_TENSORS_PER_LAUNCH) {
            self.lists.push(Raw::EMPTY);
        }
        if let Some(list) = self.lists.last_mut() {
            let place = list.count as usize;
            (list.weight[place], list.gradient[place], list.state[place]) = (weight, gradient, state);
            list.length[place] = len as u64;
            list.first_block[place + 1] = list.first_block[place] + len.div_ceil(CHUNK) as u32;
            list.adapted[place / 32] |= u32::from(adapted) << (place % 32);
            list.count += 1;
        }
        Ok(())
    }

    fn expect_weights(&self, kernel: &'static str) -> Result<()> {
        expect(kernel, !self.read_only, || "the list has gradients without weights".to_owned())
    }

    fn expect_state(&self, kernel: &'static str, times: usize) -> Result<()> {
        self.expect_weights(kernel)?;
        let held = self.state.unwrap_or(times);
        expect(kernel, held >= times, || format!("{held} values of state per weight, {times} are needed"))
    }
}

/// Values on the device that an update reads as it runs, one each.
#[derive(Debug, Clone, Copy)]
pub struct Guard<'a> {
    /// The inverse of the loss scale, by which gradients are multiplied.
    pub unscale: Slice<'a, f32>,
    /// 0 if the update must change nothing.
    pub finite: Slice<'a, f64>,
}

impl Guard<'_> {
    fn check(&self, kernel: &'static str) -> Result<()> {
        expect_len(kernel, "unscale", self.unscale.len(), 1)?;
        expect_len(kernel, "finite", self.finite.len(), 1)
    }
}

/// Settings of SGD with momentum, or of LARS where there is a trust coefficient: see
/// `simclr_kernels::optimizer::MomentumStep`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Momentum {
    /// The momentum coefficient, usually 0.9.
    pub momentum: f32,
    /// L2 weight decay of adapted tensors.
    pub decay: f32,
    /// Whether to look ahead by one step of momentum (Nesterov).
    pub nesterov: bool,
    /// The trust coefficient of LARS, usually 0.001. Without it, learning rates are not adapted.
    pub trust_coefficient: Option<f32>,
}

/// One step of momentum, or of LARS, on every tensor. `hyper` is [rate, ...] on the device.
pub fn momentum_update(
    gpu: &dyn Launcher,
    tensors: &mut TensorList,
    settings: Momentum,
    hyper: Slice<f32>,
    guard: Guard,
) -> Result<()> {
    const NAME: &str = "momentum_update";
    tensors.expect_state(NAME, 1)?;
    expect(NAME, !hyper.is_empty(), || "there is no learning rate".to_owned())?;
    guard.check(NAME)?;
    let Momentum { momentum, decay, nesterov, trust_coefficient } = settings;
    let (unscale, nesterov) = (guard.unscale.address(), u32::from(nesterov));
    for list in &tensors.lists {
        let grid = [list.blocks(), 1, 1];
        let mut norms = None;
        if trust_coefficient.is_some() {
            let partials = Scratch::<f64>::new(gpu, 2 * list.blocks() as usize)?;
            let arguments = arguments![*list, decay, unscale, partials.address()];
            let launch = Launch { program: PROGRAM, kernel: "lars_norms", grid, block: BLOCK, arguments };
            // SAFETY: a list holds tensors whose lengths were checked as they were added; there are two partials per
            // block.
            unsafe { gpu.launch(&launch)? };
            norms = Some(partials);
        }
        let norms = norms.as_ref().map_or(0, Scratch::address);
        let coefficient = trust_coefficient.unwrap_or(1.0);
        let arguments = arguments![
            *list,
            hyper.address(),
            unscale,
            guard.finite.address(),
            norms,
            coefficient,
            momentum,
            decay,
            nesterov
        ];
        let launch = Launch { program: PROGRAM, kernel: NAME, grid, block: BLOCK, arguments };
        // SAFETY: as above, and there is a value of state for each weight.
        unsafe { gpu.launch(&launch)? };
    }
    Ok(())
}

/// Settings of AdamW: see `simclr_kernels::optimizer::AdamWStep`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay rates of the first and second moments.
    pub betas: [f32; 2],
    /// Added to the square root of the second moment.
    pub epsilon: f32,
    /// Weight decay of adapted tensors, multiplied by the learning rate.
    pub decay: f32,
}

/// One step of AdamW on every tensor. `hyper` is [rate, 1 - beta1^step, 1 - beta2^step] on the device.
pub fn adamw_update(
    gpu: &dyn Launcher,
    tensors: &mut TensorList,
    settings: AdamW,
    hyper: Slice<f32>,
    guard: Guard,
) -> Result<()> {
    const NAME: &str = "adamw_update";
    tensors.expect_state(NAME, 2)?;
    expect_len(NAME, "hyper", hyper.len(), 3)?;
    guard.check(NAME)?;
    let AdamW { betas: [beta1, beta2], epsilon, decay } = settings;
    for list in &tensors.lists {
        let arguments = arguments![
            *list,
            hyper.address(),
            guard.unscale.address(),
            guard.finite.address(),
            beta1,
            beta2,
            epsilon,
            decay
        ];
        let grid = [list.blocks(), 1, 1];
        let launch = Launch { program: PROGRAM, kernel: NAME, grid, block: BLOCK, arguments };
        // SAFETY: a list holds tensors whose lengths were checked as they were added; there are two values of state
        // for each weight.
        unsafe { gpu.launch(&launch)? };
    }
    Ok(())
}

/// The sum of squares of all gradients.
pub fn gradient_squares(gpu: &dyn Launcher, tensors: &TensorList, sum: SliceMut<f64>) -> Result<()> {
    const NAME: &str = "gradient_squares";
    expect_len(NAME, "sum", sum.len(), 1)?;
    let blocks: usize = tensors.lists.iter().map(|list| list.blocks() as usize).sum();
    let partials = Scratch::<f64>::new(gpu, blocks)?;
    let mut at = partials.address();
    for list in &tensors.lists {
        let arguments = arguments![*list, at];
        let grid = [list.blocks(), 1, 1];
        let launch = Launch { program: PROGRAM, kernel: NAME, grid, block: BLOCK, arguments };
        // SAFETY: a list holds tensors whose lengths were checked as they were added; there is a partial for each
        // block of all lists.
        unsafe { gpu.launch(&launch)? };
        at += u64::from(list.blocks()) * size_of::<f64>() as u64;
    }
    sum_pieces(gpu, partials.as_ref(), blocks, sum)
}

/// Replaces each weight by its gradient if the step is sound: for running averages.
pub fn replace(gpu: &dyn Launcher, tensors: &mut TensorList, finite: Slice<f64>) -> Result<()> {
    const NAME: &str = "replace";
    tensors.expect_weights(NAME)?;
    expect_len(NAME, "finite", finite.len(), 1)?;
    for list in &tensors.lists {
        let arguments = arguments![*list, finite.address()];
        let grid = [list.blocks(), 1, 1];
        let launch = Launch { program: PROGRAM, kernel: NAME, grid, block: BLOCK, arguments };
        // SAFETY: a list holds tensors whose lengths were checked as they were added.
        unsafe { gpu.launch(&launch)? };
    }
    Ok(())
}
