//! Helpers for tests on a device.

mod values;

use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use simclr_cuda::{Device, DeviceBuffer, Libraries};
use simclr_kernels::Conv2dGeometry;

pub use values::*;

/// The device that all tests share, one test at a time, since some check how much memory is in use.
pub fn device() -> Option<(Device, MutexGuard<'static, ()>)> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let device = DEVICE.get_or_init(another_device);
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    device.clone().map(|device| (device, alone))
}

/// A new device: a GPU, or a stand-in for one; None where neither is available.
pub fn another_device() -> Option<Device> {
    open(None)
}

/// Takes all memory of a device but scraps: for the stand-in, which has little.
pub fn all_memory(device: &Device) -> Vec<DeviceBuffer<u8>> {
    let of = |bits| std::iter::from_fn(move || device.buffer::<u8>(1_usize << bits).ok());
    (12..30).rev().flat_map(of).collect()
}

/// As [`another_device`], with a given cache folder; without one, a GPU uses the user's.
pub fn open(cache: Option<&Path>) -> Option<Device> {
    let opened = match cache {
        Some(_) => Device::open_with(0, &Libraries::find(), cache),
        None => Device::open(0),
    };
    let missing = match opened {
        Ok(device) => return Some(device),
        Err(error) => error,
    };
    // Directly, since the test harness captures other output.
    let _ = writeln!(std::io::stderr(), "SKIPPED on a GPU: {missing}");
    let libraries = simclr_stand_in::libraries()?;
    Some(Device::open_with(0, &libraries, cache).expect("the stand-in is a whole device"))
}

/// Images wider than high, padded so that a stride of 1 keeps their size.
pub fn geometry(
    batch: usize,
    side: usize,
    channels: usize,
    out: usize,
    kernel: usize,
    stride: usize,
) -> Conv2dGeometry {
    Conv2dGeometry {
        batch,
        in_height: side,
        in_width: side + 1,
        in_channels: channels,
        out_channels: out,
        kernel_height: kernel,
        kernel_width: kernel,
        stride,
        padding: kernel / 2,
    }
}
