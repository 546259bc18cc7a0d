//! What becomes of one image: its row of a batch.

use simclr_augment::{ImageRef, Scratch, Stream, ViewFamily, central_crop, central_crop_box};

use crate::decode::Region;
use crate::error::DataError;

/// How an image is turned into the bytes that it contributes to a batch.
pub(crate) enum Rows {
    /// A random view from each family.
    Views { families: Vec<ViewFamily>, seed: u64 },
    /// The central crop, size x size.
    CentralCrop { size: u32 },
}

impl Rows {
    pub fn views(families: Vec<ViewFamily>, seed: u64) -> Self {
        Self::Views { families, seed }
    }

    /// The views of each image.
    pub fn branches(&self) -> usize {
        match self {
            Self::Views { families, .. } => families.len(),
            Self::CentralCrop { .. } => 1,
        }
    }

    /// Bytes of one view.
    pub fn view_bytes(&self) -> usize {
        let size = match self {
            Self::Views { families, .. } => families.first().map_or(0, ViewFamily::size),
            Self::CentralCrop { size } => *size,
        };
        size as usize * size as usize * 3
    }

    pub fn check(&self) -> Result<(), DataError> {
        let wrong = |reason: String| Err(DataError::Setting { key: "views", reason });
        match self {
            Self::CentralCrop { size: 0 } => wrong("size 0; at least 1 would be right".to_owned()),
            Self::CentralCrop { .. } => Ok(()),
            Self::Views { families, .. } => {
                let Some(first) = families.first() else {
                    return wrong("no view family; one or two would be right".to_owned());
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

    /// What the views look at of an image of `width` x `height` pixels.
    pub fn needed(&self, epoch: u64, index: u32, width: u32, height: u32) -> Region {
        match self {
            Self::Views { families, seed } => {
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

    /// Writes the views of `image` one after another into `out`.
    pub fn render(
        &self,
        epoch: u64,
        index: u32,
        image: ImageRef,
        scratch: &mut Scratch,
        out: &mut [u8],
    ) -> Result<(), String> {
        match self {
            Self::Views { families, seed } => {
                let views = out.chunks_exact_mut(self.view_bytes());
                for (branch, (family, out)) in families.iter().zip(views).enumerate() {
                    let mut stream = Stream::new(*seed, epoch, u64::from(index), branch as u64);
                    let recipe = family.draw(image.width, image.height, &mut stream);
                    family.apply(image, &recipe, scratch, out);
                }
                Ok(())
            }
            Self::CentralCrop { size } => {
                central_crop(image, *size, scratch, out).map_err(|error| error.to_string())
            }
        }
    }
}
