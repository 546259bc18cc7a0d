//! Images whose views the consumer makes: decoded pixels, and the recipes of the views.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use simclr_augment::{CropBox, ImageRef, Recipe};

/// Decoded images and the recipes of their views.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RawBatch {
    /// 8-bit RGB, one after another, of the images that the consumer has not kept.
    pub pixels: Vec<u8>,
    /// The images.
    pub images: Vec<RawImage>,
    /// The recipes of their views, one per image and branch, those of one image side by side.
    pub recipes: Vec<Recipe>,
}

/// One image of [`RawBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawImage {
    /// Width in pixels of the part that is there: the part that its recipes look at, which were drawn for the whole
    /// image and then shifted.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Where its pixels are.
    pub at: PixelSource,
}

/// Where the pixels of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelSource {
    /// In [`RawBatch::pixels`], the whole image, from this byte on.
    Whole(usize),
    /// In [`RawBatch::pixels`], the part that its views look at, from this byte on.
    Part(usize),
    /// Cached by the consumer, which registered it with [`KeptImages::keep`].
    Kept,
}

impl RawImage {
    /// The size of its pixels in bytes.
    pub fn bytes(&self) -> usize {
        3 * self.width as usize * self.height as usize
    }
}

/// Which images of a data set the consumer keeps decoded, so that their pixels need not be sent again. The views are
/// the same whether an image is kept or not.
#[derive(Debug)]
pub struct KeptImages {
    /// Width and height of each image; 0 for those that are not kept, [`DAMAGED`] for those that never will be.
    sizes: Vec<AtomicU64>,
    wanted: AtomicBool,
}

/// No size of an image.
const DAMAGED: u64 = u64::MAX;

impl KeptImages {
    /// Of `images` images, none is kept yet.
    pub fn new(images: usize) -> KeptImages {
        let sizes = (0..images).map(|_| AtomicU64::new(0)).collect();
        KeptImages { sizes, wanted: AtomicBool::new(true) }
    }

    /// Registers that image `index`, of `width` x `height` pixels, is kept from now on.
    pub fn keep(&self, index: u32, width: u32, height: u32) {
        if let Some(size) = self.sizes.get(index as usize) {
            size.store(u64::from(width) << 32 | u64::from(height), Ordering::Relaxed);
        }
    }

    /// Registers that no more images will be kept.
    pub fn close(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    /// Width and height of an image, if it is kept.
    pub fn size(&self, index: u32) -> Option<(u32, u32)> {
        let size = self.sizes.get(index as usize)?.load(Ordering::Relaxed);
        (size != 0 && size != DAMAGED).then_some(((size >> 32) as u32, size as u32))
    }

    /// Registers that image `index` cannot be decoded whole.
    pub(super) fn give_up(&self, index: u32) {
        if let Some(size) = self.sizes.get(index as usize) {
            size.store(DAMAGED, Ordering::Relaxed);
        }
    }

    /// Whether the consumer wants image `index` whole, to keep it.
    pub(super) fn wants(&self, index: u32) -> bool {
        let size = self.sizes.get(index as usize).map(|size| size.load(Ordering::Relaxed));
        self.is_open() && size != Some(DAMAGED)
    }

    /// Whether the consumer wants more whole images to keep.
    fn is_open(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
}

impl RawBatch {
    /// Adds an image that the consumer has kept.
    pub(super) fn add_kept(&mut self, (width, height): (u32, u32), recipes: impl Iterator<Item = Recipe>) {
        self.images.push(RawImage { width, height, at: PixelSource::Kept });
        self.recipes.extend(recipes);
    }

    /// Adds an image: all of it if `kept` still wants images, else the part that its recipes look at.
    pub(super) fn add(
        &mut self,
        image: ImageRef,
        kept: Option<&KeptImages>,
        recipes: impl Iterator<Item = Recipe>,
    ) {
        let (at, first) = (self.pixels.len(), self.recipes.len());
        self.recipes.extend(recipes);
        let whole = CropBox::whole(image.width, image.height);
        if kept.is_some_and(KeptImages::is_open) {
            self.pixels.extend_from_slice(image.pixels);
            self.images.push(RawImage {
                width: image.width,
                height: image.height,
                at: PixelSource::Whole(at),
            });
            return;
        }
        let recipes = &mut self.recipes[first..];
        let part = recipes.iter().map(|recipe| recipe.crop).reduce(around).unwrap_or(whole);
        let (pitch, left) = (3 * image.width as usize, 3 * part.left as usize);
        for row in image.pixels.chunks_exact(pitch).skip(part.top as usize).take(part.height as usize) {
            self.pixels.extend_from_slice(&row[left..left + 3 * part.width as usize]);
        }
        for recipe in recipes {
            recipe.image = (part.width, part.height);
            recipe.crop.left -= part.left;
            recipe.crop.top -= part.top;
        }
        self.images.push(RawImage { width: part.width, height: part.height, at: PixelSource::Part(at) });
    }

    /// Adds image `place` of `others`, with its `branches` recipes.
    pub(super) fn add_from(&mut self, others: &RawBatch, place: usize, branches: usize) {
        let mut image = others.images[place];
        let (start, bytes) = (self.pixels.len(), image.bytes());
        if let PixelSource::Whole(at) | PixelSource::Part(at) = &mut image.at {
            self.pixels.extend_from_slice(&others.pixels[*at..*at + bytes]);
            *at = start;
        }
        self.images.push(image);
        self.recipes.extend_from_slice(&others.recipes[place * branches..][..branches]);
    }

    pub(super) fn clear(&mut self) {
        self.pixels.clear();
        self.images.clear();
        self.recipes.clear();
    }
}

/// The smallest box around two boxes.
fn around(a: CropBox, b: CropBox) -> CropBox {
    let (left, top) = (a.left.min(b.left), a.top.min(b.top));
    let right = (a.left + a.width).max(b.left + b.width);
    let bottom = (a.top + a.height).max(b.top + b.height);
    CropBox { left, top, width: right - left, height: bottom - top }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_image_what_its_views_look_at_is_copied() {
        let pixels: Vec<u8> = (0..5 * 4 * 3).collect();
        let image = ImageRef { width: 5, height: 4, pixels: &pixels };
        let crop = |left, top, width, height| Recipe {
            crop: CropBox { left, top, width, height },
            ..Recipe::identity(5, 4)
        };
        let recipes = [crop(1, 2, 2, 2), crop(2, 1, 2, 2)];
        let mut raw = RawBatch::default();
        raw.add(image, None, recipes.iter().cloned());
        raw.add(image, Some(&KeptImages::new(1)), recipes.iter().cloned());
        let part = RawImage { width: 3, height: 3, at: PixelSource::Part(0) };
        let whole = RawImage { width: 5, height: 4, at: PixelSource::Whole(27) };
        assert_eq!(raw.images, [part, whole]);
        let rows: Vec<u8> = (1..4).flat_map(|y| (15 * y + 3..15 * y + 12).map(|v| v as u8)).collect();
        assert_eq!((&raw.pixels[..27], &raw.pixels[27..]), (&rows[..], &pixels[..]));
        assert_eq!(raw.recipes[0].crop, CropBox { left: 0, top: 1, width: 2, height: 2 });
        assert_eq!((raw.recipes[1].image, raw.recipes[1].crop.top), ((3, 3), 0));
        assert_eq!(raw.recipes[2..], recipes);
        let mut one = RawBatch::default();
        one.add_from(&raw, 1, 2);
        assert_eq!((one.images[0].at, &one.pixels), (PixelSource::Whole(0), &pixels));
        assert_eq!(one.recipes, recipes);
    }

    #[test]
    fn what_is_kept_is_known() {
        let kept = KeptImages::new(2);
        kept.keep(1, 3, 4);
        kept.keep(7, 1, 1);
        assert_eq!((kept.size(0), kept.size(1), kept.size(7)), (None, Some((3, 4)), None));
    }
}
