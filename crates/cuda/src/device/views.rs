//! Making views on the GPU, from images that are uploaded while it works or that are kept there.

use std::collections::VecDeque;
use std::fmt;

use cudarc::driver::result;
use simclr_augment::Recipe;

use super::{Channel, Device, DeviceBuffer, failed};
use crate::launcher::expect;
use crate::ops::views::{self, View};
use crate::{CudaError, Result, SliceMut};

const NAME: &str = "views";
/// The size in bytes of the buffers (stretches) that hold kept images; larger only where a batch needs it.
const STRETCH: usize = 64 << 20;
/// The alignment in bytes of pixels in memory.
const ALIGNMENT: usize = 256;

/// Where an image's pixels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Among those that are sent with its views, from this byte on.
    Sent(usize),
    /// Kept from an earlier batch.
    Kept(KeptAt),
}

/// A place among the images that a [`ViewMaker`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAt {
    stretch: u32,
    byte: usize,
}

impl KeptAt {
    /// The place `bytes` bytes later.
    pub fn after(self, bytes: usize) -> KeptAt {
        KeptAt { byte: self.byte.saturating_add(bytes), ..self }
    }
}

/// Makes views of decoded images. A batch is uploaded, with the recipes of its views, while the GPU works on earlier
/// ones; images may be kept for later batches, within a limit.
///
/// [`ViewMaker::room`] and [`ViewMaker::send`] upload a batch, [`ViewMaker::make`] makes its views; two batches may be
/// under way.
pub struct ViewMaker {
    device: Device,
    ways: [Way; 2],
    /// The ways whose batches are under way, oldest first.
    under_way: VecDeque<usize>,
    next: usize,
    kept: Vec<Stretch>,
    /// Bytes that may still be allocated to keep images.
    left: usize,
}

/// One of the two upload slots: its channel takes a batch's views, then its pixels.
#[derive(Default)]
struct Way {
    channel: Option<Channel>,
    views: Vec<View>,
    /// The first byte of the pixels, and their length in bytes.
    start: usize,
    pixels: usize,
}

struct Stretch {
    buffer: DeviceBuffer<u8>,
    used: usize,
}

impl ViewMaker {
    /// Creates a maker that keeps up to `limit` bytes of images.
    pub fn new(device: &Device, limit: usize) -> ViewMaker {
        ViewMaker {
            device: device.clone(),
            ways: Default::default(),
            under_way: VecDeque::new(),
            next: 0,
            kept: Vec::new(),
            left: limit,
        }
    }

    /// Bytes of the GPU's memory needed to upload and make batches of `views` views of `side` x `side` pixels, from
    /// images of `pixels` bytes in all whose sides are at most `longest` pixels.
    pub fn needs(views: usize, pixels: usize, side: usize, longest: u32) -> usize {
        let ways = 2 * generous(first_pixel(views) + pixels);
        ways + views::room_to_make(views, side, longest)
    }

    /// Bytes of the GPU's memory needed to keep `bytes` bytes of images.
    pub fn to_keep(bytes: usize) -> usize {
        bytes.next_multiple_of(STRETCH)
    }

    /// Memory for the `pixels` bytes of a batch of `views` views, to be filled before [`ViewMaker::send`].
    ///
    /// # Errors
    /// `Lengths` where two batches are under way, `OutOfMemory`, `Call` where the driver fails.
    pub fn room(&mut self, views: usize, pixels: usize) -> Result<&mut [u8]> {
        expect(NAME, self.under_way.len() < self.ways.len(), || "two batches are under way".to_owned())?;
        let way = &mut self.ways[self.next];
        way.start = first_pixel(views);
        way.pixels = pixels;
        let len = way.start + pixels;
        if way.channel.as_ref().is_none_or(|channel| channel.len() < len) {
            way.channel = None;
            way.channel = Some(Channel::new(&self.device, generous(len))?);
        }
        match &mut way.channel {
            Some(channel) => Ok(&mut channel.bytes()?[way.start..len]),
            None => Err(CudaError::Call { what: NAME, reason: "there is no channel".to_owned() }),
        }
    }

    /// Starts uploading the pixels in [`ViewMaker::room`], with these views. Returns without waiting.
    ///
    /// # Errors
    /// `Lengths` for a view that the kernels cannot make or whose image does not exist, and for more views than there
    /// is room for; `Call`.
    pub fn send<'r>(&mut self, views: impl Iterator<Item = (Source, &'r Recipe)>) -> Result<()> {
        let way = &mut self.ways[self.next];
        let Some(channel) = &mut way.channel else {
            return expect(NAME, false, || "views were sent before `room` was called".to_owned());
        };
        way.views.clear();
        for (source, recipe) in views {
            let (at, base, len) = match source {
                Source::Sent(at) => (at, channel.address() + way.start as u64, way.pixels),
                Source::Kept(KeptAt { stretch, byte }) => match self.kept.get(stretch as usize) {
                    Some(kept) => (byte, kept.buffer.read().address(), kept.used),
                    None => return expect(NAME, false, || format!("{source:?} is not there")),
                },
            };
            let view = View::new(recipe, at)
                .ok_or_else(|| wrong(format!("{} cannot be made on a GPU", recipe.describe().join(", "))))?;
            expect(NAME, view.fits(len), || format!("{view:?} does not lie within {len} bytes"))?;
            way.views.push(view.moved(base));
        }
        let bytes: &[u8] = bytemuck::cast_slice(&way.views);
        expect(NAME, bytes.len() <= way.start, || {
            format!("{} views, more than there is room for", way.views.len())
        })?;
        channel.bytes()?[..bytes.len()].copy_from_slice(bytes);
        channel.send_first(way.start + way.pixels)?;
        self.under_way.push_back(self.next);
        self.next = (self.next + 1) % self.ways.len();
        Ok(())
    }

    /// Makes the views of the oldest batch under way, of `side` x `side` pixels, in stream order. With `keep`, also
    /// keeps its pixels and returns where they begin, or `None` where there is no room.
    ///
    /// # Errors
    /// `Lengths` where no batch is under way, or `out` is not as long as all views; `OutOfMemory`; `Call`.
    pub fn make(&mut self, side: usize, keep: bool, out: SliceMut<u8>) -> Result<Option<KeptAt>> {
        let place =
            self.under_way.pop_front().ok_or_else(|| wrong("none are under way to be made".to_owned()))?;
        let pixels = self.ways[place].pixels;
        // Allocate before waiting for the batch.
        let kept = if keep && pixels > 0 { self.stretch(pixels) } else { None };
        let Way { channel, views, start, .. } = &mut self.ways[place];
        let Some(channel) = channel else {
            return Err(wrong("there is no channel".to_owned()));
        };
        let arrived = channel.arrived()?;
        let address = arrived.address();
        // SAFETY: `send` checked that each view's image lies in the channel's buffer or among the kept images, both of
        // which stay; the channel's buffer begins with the views.
        unsafe { views::make_uploaded(&self.device, 0, (views, address), side, out)? };
        if let Some(at) = kept {
            let Stretch { buffer, used } = &mut self.kept[at.stretch as usize];
            let (from, to) = (address + *start as u64, buffer.write().address() + at.byte as u64);
            // SAFETY: `pixels` bytes arrived from `start` on, and as many are free from `byte` on (`stretch`); nothing
            // else uses the latter yet.
            unsafe { result::memcpy_dtod_async(to, from, pixels, self.device.raw_stream()) }
                .map_err(failed("keeping images"))?;
            *used = at.byte + pixels;
        }
        channel.done()?;
        Ok(kept)
    }

    /// A free place to keep `bytes` bytes, if the limit and the GPU's memory allow it.
    fn stretch(&mut self, bytes: usize) -> Option<KeptAt> {
        let place = |number: usize, byte| KeptAt { stretch: number as u32, byte };
        if let Some(last) = self.kept.last() {
            let byte = last.used.next_multiple_of(ALIGNMENT);
            if byte + bytes <= last.buffer.len() {
                return Some(place(self.kept.len() - 1, byte));
            }
        }
        let len = bytes.max(STRETCH.min(self.left));
        let buffer = if len <= self.left { self.device.buffer::<u8>(len).ok() } else { None };
        let Some(buffer) = buffer else {
            self.left = 0;
            return None;
        };
        self.left -= len;
        self.kept.push(Stretch { buffer, used: 0 });
        Some(place(self.kept.len() - 1, 0))
    }

    /// Bytes of images that are kept.
    pub fn kept(&self) -> usize {
        self.kept.iter().map(|stretch| stretch.used).sum()
    }
}

/// The first byte of a batch's pixels, after its views.
fn first_pixel(views: usize) -> usize {
    (views * size_of::<View>()).next_multiple_of(ALIGNMENT)
}

/// A little more than a batch takes: batches differ in size, and the next ones should fit as well.
fn generous(len: usize) -> usize {
    len + len / 8
}

fn wrong(what: String) -> CudaError {
    CudaError::Lengths { kernel: NAME, what }
}

impl fmt::Debug for ViewMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ViewMaker({} bytes kept on {:?})", self.kept(), self.device)
    }
}
