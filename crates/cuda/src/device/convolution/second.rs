//! What kernels of ours do once cuDNN is done: a result is added or widened, sums are brought to where they are wanted,
//! or made.

use super::{Key, Operands};
use crate::device::Device;
use crate::element::typed;
use crate::launcher::Scratch;
use crate::ops::{elementwise, reductions, sums};
use crate::{Element, Result, Slice, SliceMut};

/// The second half of [`super::route::Route::InTwo`]: adds or widens the result that lies at `from`.
pub(super) fn second(device: &Device, key: &Key, from: u64, to: u64) -> Result<()> {
    typed!(key.element, E => second_of::<E>(device, key, from, to))
}

fn second_of<E: Element>(device: &Device, key: &Key, from: u64, to: u64) -> Result<()> {
    let len = key.len();
    // SAFETY: the scratch memory was made for so many values of this type, and what was started before fills it.
    let from = unsafe { Slice::<E>::from_raw(from, len) };
    if key.adds {
        // SAFETY: the result's length was checked, and it is lent exclusively.
        return elementwise::add_assign(device, unsafe { SliceMut::from_raw(to, len) }, from);
    }
    // SAFETY: as above; without an addition, what is done in two is a result in f32.
    elementwise::widen(device, from, unsafe { SliceMut::from_raw(to, len) })
}

/// How many f32 sums of channels are from those of their squares: enough that both begin at a multiple of 16 bytes.
pub(super) fn sums_apart(channels: usize) -> usize {
    channels.next_multiple_of(4)
}

/// Brings sums that cuDNN left in f32 to where they are wanted.
pub(super) fn widen_sums(
    device: &Device,
    key: &Key,
    narrow: &Scratch<f32>,
    operands: Operands,
) -> Result<()> {
    let channels = key.geometry.out_channels;
    // SAFETY: the caller of the pass lends so many sums exclusively; their length was checked.
    let sums = unsafe { SliceMut::from_raw(operands.sums, 2 * channels) };
    reductions::widen_sums(device, narrow.as_ref(), sums_apart(channels), sums)
}

/// The second half of [`super::route::Route::InTwo`] where sums are wanted.
pub(super) fn channel_sums(device: &Device, key: &Key, operands: Operands) -> Result<()> {
    typed!(key.element, E => channel_sums_of::<E>(device, key, operands))
}

fn channel_sums_of<E: Element>(device: &Device, key: &Key, operands: Operands) -> Result<()> {
    let channels = key.geometry.out_channels;
    // SAFETY: y was just computed, and its length checked; the sums are lent exclusively, and their length was
    // checked too.
    let (y, sums) = unsafe {
        (Slice::<E>::from_raw(operands.y, key.len()), SliceMut::from_raw(operands.sums, 2 * channels))
    };
    sums::channel_sums(device, y, channels, sums)
}
