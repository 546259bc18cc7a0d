//! The part of an image that is going to be looked at.

use std::cell::Cell;

use simclr_augment::CropBox;

/// The part of an image that is going to be looked at, so that no more of it need be decoded: one or two boxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region([CropBox; 2]);

impl Region {
    /// All of an image of `width` x `height` pixels.
    pub fn whole(width: u32, height: u32) -> Self {
        Self::from(CropBox::whole(width, height))
    }

    /// The union of the crops of two views.
    pub fn both(a: CropBox, b: CropBox) -> Self {
        Self([a, b])
    }

    /// The two boxes; a region of one box returns it twice.
    pub fn boxes(&self) -> [CropBox; 2] {
        self.0
    }
}

impl From<CropBox> for Region {
    fn from(crop: CropBox) -> Self {
        Self([crop; 2])
    }
}

/// Asks for the whole of an image, for a cache's sake, and for what is needed of it if the whole cannot be decoded.
#[derive(Debug, Default)]
pub(crate) struct Greedy {
    calls: Cell<u32>,
    /// Whether what was asked for last is only a part.
    modest: Cell<bool>,
}

impl Greedy {
    /// The part of an image of `width` x `height` pixels to decode, if the cache `wants` it or not.
    pub fn ask(
        &self,
        (width, height): (u32, u32),
        wants: bool,
        needed: impl FnOnce(u32, u32) -> Region,
    ) -> Region {
        let is_first = self.calls.replace(self.calls.get() + 1) == 0;
        self.modest.set(!(wants && is_first));
        if self.modest.get() { needed(width, height) } else { Region::whole(width, height) }
    }

    /// Whether an image that was decoded is all there.
    pub fn is_whole(&self) -> bool {
        !self.modest.get()
    }

    /// Whether the image turned out to be damaged, so that it need not be asked for as a whole again.
    pub fn is_damaged(&self) -> bool {
        self.calls.get() > 1
    }
}
