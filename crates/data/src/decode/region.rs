//! The part of an image that is going to be looked at.

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
