//! Elementwise passes.

use crate::launcher::{Argument, BLOCK, Launch, Launcher, arguments, expect_len, grid};
use crate::{Element, Module, Program, Result, Slice, SliceMut};

/// Launches one of the kernels, whose last argument is the number of values.
///
/// # Safety
/// The arguments must be those of `kernel`, and every slice among them `count` values long.
unsafe fn run<E: Element>(
    gpu: &dyn Launcher,
    kernel: &'static str,
    count: usize,
    arguments: &[&dyn Argument],
) -> Result<()> {
    let launch = Launch {
        program: Program::typed(Module::Elementwise, E::TYPE),
        kernel,
        grid: grid(count.div_ceil(E::TYPE.width())),
        block: BLOCK,
        arguments,
    };
    // SAFETY: the caller's promise.
    unsafe { gpu.launch(&launch) }
}

/// y = max(x, 0); NaN propagates.
pub fn relu_forward<E: Element>(gpu: &dyn Launcher, x: Slice<E>, y: SliceMut<E>) -> Result<()> {
    expect_len("relu_forward", "y", y.len(), x.len())?;
    let arguments = arguments![x.address(), y.address(), x.len() as i64];
    // SAFETY: lengths are checked above.
    unsafe { run::<E>(gpu, "relu_forward", x.len(), arguments) }
}

/// Sets dy to 0 where y, the ReLU's output, is not positive.
pub fn relu_backward<E: Element>(gpu: &dyn Launcher, y: Slice<E>, dy: SliceMut<E>) -> Result<()> {
    expect_len("relu_backward", "dy", dy.len(), y.len())?;
    let arguments = arguments![y.address(), dy.address(), y.len() as i64];
    // SAFETY: lengths are checked above.
    unsafe { run::<E>(gpu, "relu_backward", y.len(), arguments) }
}

/// a += b.
pub fn add_assign<E: Element>(gpu: &dyn Launcher, a: SliceMut<E>, b: Slice<E>) -> Result<()> {
    expect_len("add_assign", "b", b.len(), a.len())?;
    let arguments = arguments![a.address(), b.address(), a.len() as i64];
    // SAFETY: lengths are checked above.
    unsafe { run::<E>(gpu, "add_assign", a.len(), arguments) }
}

/// a *= factor, where `factor` is one value on the device.
pub fn scale_by<E: Element>(gpu: &dyn Launcher, a: SliceMut<E>, factor: Slice<f32>) -> Result<()> {
    expect_len("scale_by", "factor", factor.len(), 1)?;
    let arguments = arguments![a.address(), factor.address(), a.len() as i64];
    // SAFETY: lengths are checked above.
    unsafe { run::<E>(gpu, "scale_by", a.len(), arguments) }
}

/// Sets every value of a to `value`.
pub fn fill<E: Element>(gpu: &dyn Launcher, a: SliceMut<E>, value: f32) -> Result<()> {
    let arguments = arguments![a.address(), value, a.len() as i64];
    // SAFETY: the count is the length of the only slice.
    unsafe { run::<E>(gpu, "fill", a.len(), arguments) }
}

/// Converts values to f32, exactly.
pub fn widen<E: Element>(gpu: &dyn Launcher, x: Slice<E>, y: SliceMut<f32>) -> Result<()> {
    expect_len("widen_values", "y", y.len(), x.len())?;
    let arguments = arguments![x.address(), y.address(), x.len() as i64];
    // SAFETY: lengths are checked above.
    unsafe { run::<E>(gpu, "widen_values", x.len(), arguments) }
}

/// Rounds values of f32 to nearest, ties to even.
pub fn narrow<E: Element>(gpu: &dyn Launcher, x: Slice<f32>, y: SliceMut<E>) -> Result<()> {
    expect_len("narrow_values", "y", y.len(), x.len())?;
    let arguments = arguments![x.address(), y.address(), x.len() as i64];
    // SAFETY: lengths are checked above.
    unsafe { run::<E>(gpu, "narrow_values", x.len(), arguments) }
}

/// Maps bytes to [0, 1].
pub fn unit_from_bytes<E: Element>(gpu: &dyn Launcher, bytes: Slice<u8>, y: SliceMut<E>) -> Result<()> {
    expect_len("unit_from_bytes", "y", y.len(), bytes.len())?;
    let arguments = arguments![bytes.address(), y.address(), bytes.len() as i64];
    // SAFETY: lengths are checked above.
    unsafe { run::<E>(gpu, "unit_from_bytes", bytes.len(), arguments) }
}
