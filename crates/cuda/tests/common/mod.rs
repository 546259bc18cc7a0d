//! What tests on a device share.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use half::{bf16, f16};
use simclr_cuda::{Device, Element, ElementType, Libraries};
use simclr_kernels::Conv2dGeometry;

/// The device that all tests share, one at a time: what memory is in use is looked at.
pub fn device() -> Option<(Device, MutexGuard<'static, ()>)> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let device = DEVICE.get_or_init(another_device);
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    device.clone().map(|device| (device, alone))
}

/// A device of its own: a GPU, or what stands in for one; none where that cannot be had either.
pub fn another_device() -> Option<Device> {
    open(None)
}

/// The same, which remembers what it chooses in a given folder; without one, where a GPU's user has it.
pub fn open(cache: Option<&Path>) -> Option<Device> {
    let opened = match cache {
        Some(_) => Device::open_with(0, &Libraries::find(), cache),
        None => Device::open(0),
    };
    let missing = match opened {
        Ok(device) => return Some(device),
        Err(error) => error,
    };
    // Past what the test harness keeps to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED on a GPU: {missing}");
    let libraries = simclr_stand_in::libraries()?;
    Some(Device::open_with(0, &libraries, cache).expect("the stand-in is a whole device"))
}

pub fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..len).map(|_| next()).collect()
}

pub trait Stored: Element + bytemuck::Pod {
    fn narrow(x: f32) -> Self;
    fn widen(self) -> f32;
}

impl Stored for f32 {
    fn narrow(x: f32) -> f32 {
        x
    }
    fn widen(self) -> f32 {
        self
    }
}

impl Stored for bf16 {
    fn narrow(x: f32) -> bf16 {
        bf16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Stored for f16 {
    fn narrow(x: f32) -> f16 {
        f16::from_f32(x)
    }
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

pub fn narrowed<E: Stored>(values: &[f32]) -> Vec<E> {
    values.iter().map(|v| E::narrow(*v)).collect()
}

pub fn widened<E: Stored>(values: &[E]) -> Vec<f32> {
    values.iter().map(|v| v.widen()).collect()
}

pub fn assert_close<E: Element>(what: &str, got: &[f32], want: &[f32]) {
    let tolerance = match E::TYPE {
        ElementType::F32 => 1e-5,
        ElementType::Bf16 => 1e-2,
        ElementType::F16 => 2e-3,
    };
    assert_eq!(got.len(), want.len());
    let square = |v: f64| v * v;
    let error: f64 = got.iter().zip(want).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let size: f64 = want.iter().map(|v| square(f64::from(*v))).sum();
    let relative = (error / size.max(f64::MIN_POSITIVE)).sqrt();
    assert!(relative <= tolerance, "{what} of {:?}: off by {relative:e}", E::TYPE);
}

/// An image wider than high, padded so that a stride of 1 keeps its size.
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
