//! Turning one image into its row of a batch.

use std::sync::Arc;

use simclr_augment::{ImageRef, Recipe, Scratch, Stream, ViewFamily, central_crop, central_crop_box};

use super::raw::{KeptImages, RawBatch};
use crate::dataset::Dataset;
use crate::decode::{DecodeScratch, Greedy, Region};
use crate::error::DataError;

/// How an image is turned into what it contributes to a batch.
pub(crate) enum Rows {
    /// A random view from each family.
    Views { families: Vec<ViewFamily>, seed: u64 },
    /// Its pixels, unless the consumer has kept them, and the recipes of such views.
    Raw { families: Vec<ViewFamily>, seed: u64, kept: Option<Arc<KeptImages>> },
    /// The central crop, size x size.
    CentralCrop { size: u32 },
}

impl Rows {
    /// The number of views of each image.
    pub fn branches(&self) -> usize {
        match self {
            Self::Views { families, .. } | Self::Raw { families, .. } => families.len(),
            Self::CentralCrop { .. } => 1,
        }
    }

    /// Bytes of one view; 0 where views are not made.
    pub fn view_bytes(&self) -> usize {
        match self {
            Self::Raw { .. } => 0,
            Self::Views { families, .. } => families.first().map_or(0, ViewFamily::view_len),
            Self::CentralCrop { size } => *size as usize * *size as usize * 3,
        }
    }

    /// The approximate number of bytes that an image contributes.
    pub fn usual_bytes(&self) -> usize {
        match self {
            // An image is about as large as its views.
            Self::Raw { families, .. } => families.iter().map(ViewFamily::view_len).sum(),
            other => other.branches() * other.view_bytes(),
        }
    }

    pub fn check(&self) -> Result<(), DataError> {
        let wrong = |reason: String| Err(DataError::Setting { key: "views", reason });
        match self {
            // A view family has the same bounds on its size.
            Self::CentralCrop { size } => match ViewFamily::from_ops(&[], *size) {
                Ok(_) => Ok(()),
                Err(error) => wrong(error.to_string()),
            },
            Self::Views { families, .. } | Self::Raw { families, .. } => {
                let Some(first) = families.first() else {
                    return wrong("no view family; give one or two".to_owned());
                };
                match families.iter().find(|family| family.size() != first.size()) {
                    None => Ok(()),
                    Some(other) => wrong(format!(
                        "branches of sizes {} and {}; all must have the same",
                        first.size(),
                        other.size()
                    )),
                }
            }
        }
    }

    /// The part of an image of `width` x `height` pixels that its views look at.
    fn needed(&self, epoch: u64, index: u32, width: u32, height: u32) -> Region {
        match self {
            Self::Views { families, seed } | Self::Raw { families, seed, .. } => {
                let crop = |branch: usize| {
                    let mut stream = Stream::new(*seed, epoch, u64::from(index), branch as u64);
                    families[branch].draw_crop(width, height, &mut stream)
                };
                match families.len() {
                    1 => crop(0).into(),
                    2 => Region::both(crop(0), crop(1)),
                    _ => Region::whole(width, height),
                }
            }
            Self::CentralCrop { size } => central_crop_box(width, height, *size).into(),
        }
    }

    /// Whether the consumer keeps whole images, and may keep this one.
    fn wants_whole(&self, index: u32) -> bool {
        matches!(self, Self::Raw { kept: Some(kept), .. } if kept.wants(index))
    }

    /// Makes what image `index` contributes: writes its views one after another into `out`, or adds it to `raw`.
    ///
    /// # Errors
    /// As [`Dataset::read_part`].
    pub fn make(
        &self,
        dataset: &dyn Dataset,
        (epoch, index): (u64, u32),
        (decode, augment): (&mut DecodeScratch, &mut Scratch),
        out: &mut [u8],
        raw: &mut RawBatch,
    ) -> Result<(), DataError> {
        let broken = |reason| DataError::Image { name: dataset.name(index as usize), reason };
        if let Self::Raw { families, seed, kept: Some(kept) } = self
            && let Some(size) = kept.size(index)
        {
            raw.add_kept(size, recipes(families, (*seed, epoch, index), size));
            return Ok(());
        }
        // The consumer keeps whole images. One that is damaged outside the part that its views look at is not broken,
        // as it would not be if their views were made here.
        let greedy = Greedy::default();
        let part = |width, height| {
            let needed = |width, height| self.needed(epoch, index, width, height);
            greedy.ask((width, height), self.wants_whole(index), needed)
        };
        let image = dataset.read_part(index as usize, &part, decode);
        if let Self::Raw { kept: Some(kept), .. } = self
            && greedy.is_damaged()
        {
            kept.give_up(index);
        }
        let image = image?;
        let size = (image.width, image.height);
        match self {
            Self::Views { families, seed } => {
                let views = out.chunks_exact_mut(self.view_bytes());
                let recipes = recipes(families, (*seed, epoch, index), size);
                for ((family, recipe), out) in families.iter().zip(recipes).zip(views) {
                    family.apply(image, &recipe, augment, out);
                }
                Ok(())
            }
            Self::Raw { families, seed, kept } => {
                let ImageRef { width, height, pixels } = image;
                if pixels.len() != 3 * width as usize * height as usize || pixels.is_empty() {
                    return Err(broken(format!("{} bytes of {width} x {height} pixels", pixels.len())));
                }
                let kept = kept.as_deref().filter(|_| greedy.is_whole());
                raw.add(image, kept, recipes(families, (*seed, epoch, index), size));
                Ok(())
            }
            Self::CentralCrop { size } => {
                central_crop(image, *size, augment, out).map_err(|error| broken(error.to_string()))
            }
        }
    }
}

/// The recipe of each branch for an image of `size`.
fn recipes(
    families: &[ViewFamily],
    (seed, epoch, index): (u64, u64, u32),
    size: (u32, u32),
) -> impl Iterator<Item = Recipe> {
    families.iter().enumerate().map(move |(branch, family)| {
        let mut stream = Stream::new(seed, epoch, u64::from(index), branch as u64);
        family.draw(size.0, size.1, &mut stream)
    })
}
