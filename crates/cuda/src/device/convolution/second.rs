//! The stages after cuDNN, by our own kernels: adding or widening a result, and widening or computing sums.

use super::{Key, Operands};
use crate::device::Device;
use crate::element::typed;
use crate::launcher::Scratch;
use crate::ops::{elementwise, reductions, sums};
use crate::{Element, Result, Slice, SliceMut};

/// The second stage of [`super::route::Route::InTwo`]: adds or widens the result that lies at `from`.
///
/// # Safety
/// `from` and `to` must have the length of the key's result; `from` must be of the operands' type, and filled by work
/// that was started before; `to` must be borrowed exclusively.
pub(super) unsafe fn second(device: &Device, key: &Key, from: u64, to: u64) -> Result<()> {
    // SAFETY: the caller's promise, and this is the key's type.
    unsafe { typed!(key.element, E => second_of::<E>(device, key, from, to)) }
}

/// The same for operands of type `E`.
///
/// # Safety
/// As [`second`], and the type must be that of the key.
unsafe fn second_of<E: Element>(device: &Device, key: &Key, from: u64, to: u64) -> Result<()> {
    let len = key.len();
    // SAFETY: the caller's promise.
    let from = unsafe { Slice::<E>::from_raw(from, len) };
    if key.adds {
        // SAFETY: the caller's promise; the result of an addition has the operands' type.
        return elementwise::add_assign(device, unsafe { SliceMut::from_raw(to, len) }, from);
    }
    // SAFETY: the caller's promise; if nothing is added, the two stages are for a result in f32.
    elementwise::widen(device, from, unsafe { SliceMut::from_raw(to, len) })
}

/// The distance, in f32 values, from the sums of channels to those of their squares: both begin at multiples of 16
/// bytes.
pub(super) fn sums_apart(channels: usize) -> usize {
    channels.next_multiple_of(4)
}

/// Widens cuDNN's f32 sums into the operands' f64 sums.
///
/// # Safety
/// The pass must have sums, and these must be borrowed exclusively.
pub(super) unsafe fn widen_sums(
    device: &Device,
    key: &Key,
    narrow: &Scratch<f32>,
    operands: Operands,
) -> Result<()> {
    let channels = key.geometry.out_channels;
    // SAFETY: the caller's promise.
    let sums = unsafe { SliceMut::from_raw(operands.sums, 2 * channels) };
    reductions::widen_sums(device, narrow.as_ref(), sums_apart(channels), sums)
}

/// The second stage of [`super::route::Route::InTwo`] for a pass with sums: computes them from y.
///
/// # Safety
/// As [`widen_sums`]; y must have the key's length, and be filled by work that was started before.
pub(super) unsafe fn channel_sums(device: &Device, key: &Key, operands: Operands) -> Result<()> {
    // SAFETY: the caller's promise, and this is the key's type.
    unsafe { typed!(key.element, E => channel_sums_of::<E>(device, key, operands)) }
}

/// The same for operands of type `E`.
///
/// # Safety
/// As [`channel_sums`], and the type must be that of the key.
unsafe fn channel_sums_of<E: Element>(device: &Device, key: &Key, operands: Operands) -> Result<()> {
    let channels = key.geometry.out_channels;
    // SAFETY: the caller's promise.
    let (y, sums) = unsafe {
        (Slice::<E>::from_raw(operands.y, key.len()), SliceMut::from_raw(operands.sums, 2 * channels))
    };
    sums::channel_sums(device, y, channels, sums)
}
