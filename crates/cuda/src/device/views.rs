//! Views made on the GPU, of images that go up while it works, or that stay there.

use std::collections::VecDeque;
use std::fmt;

use cudarc::driver::result;
use simclr_augment::Recipe;

use super::{Channel, Device, DeviceBuffer, failed};
use crate::launcher::expect;
use crate::ops::views::{self, View};
use crate::{CudaError, Result, SliceMut};

const NAME: &str = "views";
/// Images that are kept are put together in stretches of this many bytes.
const STRETCH: usize = 64 << 20;
/// Where what follows one another in memory may begin.
const ALIGNMENT: usize = 256;

/// Where an image's pixels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Among those that go up with its views, from this byte on.
    Sent(usize),
    /// Kept from a batch before.
    Kept(KeptAt),
}

/// A place among what a [`ViewMaker`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptAt {
    stretch: u32,
    byte: usize,
}

impl KeptAt {
    /// The place so many bytes later.
    pub fn after(self, bytes: usize) -> KeptAt {
        KeptAt { byte: self.byte.saturating_add(bytes), ..self }
    }
}

/// Makes views of decoded images: a batch goes up, with the recipes of its views, while the GPU works on those
/// before; images may be kept for later batches, within a limit.
///
/// [`ViewMaker::room`] and [`ViewMaker::send`] bring a batch, [`ViewMaker::make`] makes its views; two batches may
/// be under way.
pub struct ViewMaker {
    device: Device,
    ways: [Way; 2],
    /// The ways whose batches are under way, oldest first.
    under_way: VecDeque<usize>,
    next: usize,
    kept: Vec<Stretch>,
    /// Bytes that may still be taken to keep images.
    left: usize,
}

/// What brings a batch: its views, then its pixels.
#[derive(Default)]
struct Way {
    channel: Option<Channel>,
    views: Vec<View>,
    /// Where the pixels begin, and how many bytes there are.
    start: usize,
    pixels: usize,
}

struct Stretch {
    buffer: DeviceBuffer<u8>,
    used: usize,
}

impl ViewMaker {
    /// One that keeps up to `limit` bytes of images.
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

    /// Bytes of the GPU's memory that bringing and making batches of `views` views of `side` x `side` pixels takes,
    /// of images of `pixels` bytes in all, whose sides have no more than `longest` pixels each.
    pub fn needs(views: usize, pixels: usize, side: usize, longest: u32) -> usize {
        let ways = 2 * generous(first_pixel(views) + pixels);
        ways + views::room_to_make(views, side, longest)
    }

    /// Bytes of the GPU's memory that keeping `bytes` bytes of images takes.
    pub fn to_keep(bytes: usize) -> usize {
        bytes.next_multiple_of(STRETCH)
    }

    /// Room for `pixels` bytes of a batch of `views` views, to be filled; [`ViewMaker::send`] follows.
    ///
    /// # Errors
    /// `Lengths` where two batches are under way, `OutOfMemory`, `Call` where the driver refuses.
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

    /// Sends what was put into [`ViewMaker::room`] off, with these views. Returns at once.
    ///
    /// # Errors
    /// `Lengths` for a view that the kernels cannot make, that is not of an image that is there, or where there are
    /// more of them than room; `Call`.
    pub fn send<'r>(&mut self, views: impl Iterator<Item = (Source, &'r Recipe)>) -> Result<()> {
        let way = &mut self.ways[self.next];
        let Some(channel) = &mut way.channel else {
            return expect(NAME, false, || "sent before there was room".to_owned());
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
        expect(NAME, bytes.len() <= way.start, || format!("{} views, more than room", way.views.len()))?;
        channel.bytes()?[..bytes.len()].copy_from_slice(bytes);
        channel.send_first(way.start + way.pixels)?;
        self.under_way.push_back(self.next);
        self.next = (self.next + 1) % self.ways.len();
        Ok(())
    }

    /// Makes the views of the oldest batch under way, of `side` x `side` pixels, in the order of all work; with
    /// `keep`, keeps its pixels: where they begin, or nothing where there is no room.
    ///
    /// # Errors
    /// `Lengths` where none is under way, or `out` is not as long as all views; `OutOfMemory`; `Call`.
    pub fn make(&mut self, side: usize, keep: bool, out: SliceMut<u8>) -> Result<Option<KeptAt>> {
        let place =
            self.under_way.pop_front().ok_or_else(|| wrong("none are under way to be made".to_owned()))?;
        let pixels = self.ways[place].pixels;
        // Memory is found before the batch is waited for.
        let kept = if keep && pixels > 0 { self.stretch(pixels) } else { None };
        let Way { channel, views, start, .. } = &mut self.ways[place];
        let Some(channel) = channel else {
            return Err(wrong("there is no channel".to_owned()));
        };
        let arrived = channel.arrived()?;
        let address = arrived.address();
        // SAFETY: `send` saw to it that each view's image lies in the channel's buffer or among what is kept, which
        // stay; the buffer holds the views.
        unsafe { views::make_uploaded(&self.device, 0, (views, address), side, out)? };
        if let Some(at) = kept {
            let Stretch { buffer, used } = &mut self.kept[at.stretch as usize];
            let (from, to) = (address + *start as u64, buffer.write().address() + at.byte as u64);
            // SAFETY: so many bytes arrived from `start` on, and as many are free from `byte` on (`stretch`);
            // nobody else knows of them yet.
            unsafe { result::memcpy_dtod_async(to, from, pixels, self.device.raw_stream()) }
                .map_err(failed("keeping images"))?;
            *used = at.byte + pixels;
        }
        channel.done()?;
        Ok(kept)
    }

    /// A free place for `bytes` bytes.
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

/// Where the pixels of a batch begin, behind its views.
fn first_pixel(views: usize) -> usize {
    (views * size_of::<View>()).next_multiple_of(ALIGNMENT)
}

/// A little more than a batch takes: they differ in size, and the next ones shall fit.
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
