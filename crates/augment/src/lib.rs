//! Views: an 8-bit RGB image and a random stream in, an S x S view out.
//!
//! A [`ViewFamily`] is the distribution from which the augmentations of an image are drawn: random resized crop,
//! horizontal flip, colour jitter, greyscale and Gaussian blur, in the order and with the ranges of SimCLR
//! (arXiv:2002.05709, appendix A). Drawing and applying are separate: [`ViewFamily::draw`] turns a random
//! [`Stream`] into a [`Recipe`], a plain list of parameters, and [`ViewFamily::apply`] turns an image and a
//! recipe into pixels. The stream is a function of (seed, epoch, image, view) alone, so the same four numbers
//! give the same view whichever thread computes it, and in whatever order.
//!
//! One image to two views:
//!
//! ```
//! use simclr_augment::{ImageRef, Scratch, Stream, ViewConfig};
//!
//! # fn main() -> Result<(), simclr_augment::AugmentError> {
//! let pixels: Vec<u8> = (0..48 * 40 * 3).map(|i| (i % 251) as u8).collect();
//! let image = ImageRef::new(48, 40, &pixels)?;
//!
//! let config = ViewConfig { color_strength: 0.5, ..ViewConfig::default() };
//! // One for each branch: their laws may differ.
//! let families = config.families(32)?;
//! let mut scratch = Scratch::default();
//! let mut views = [vec![0; families[0].view_len()], vec![0; families[1].view_len()]];
//!
//! let (seed, epoch, index) = (1, 0, 17);
//! for (branch, (family, out)) in families.iter().zip(&mut views).enumerate() {
//!     let mut stream = Stream::new(seed, epoch, index, branch as u64);
//!     let recipe = family.draw(image.width, image.height, &mut stream);
//!     println!("view {branch}: {}", recipe.describe().join(", "));
//!     family.apply(image, &recipe, &mut scratch, out);
//! }
//! # assert_ne!(views[0], views[1]);
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod central_crop;
mod check;
mod config;
mod decimal;
mod error;
mod family;
mod image;
mod ops;
mod passes;
mod planes;
mod recipe;
mod resize;
mod scratch;
#[allow(unsafe_code)]
mod simd;
mod stream;

pub use central_crop::{central_crop, central_crop_box};
pub use config::{ViewConfig, ViewPreset};
pub use error::AugmentError;
pub use family::ViewFamily;
pub use image::ImageRef;
pub use ops::auto_augment::{AutoAugment, Policy};
pub use ops::blur::{BlurPadding, GaussianBlur};
pub use ops::color_jitter::{Brightness, ColorJitter};
pub use ops::cutout::Cutout;
pub use ops::gaussian_noise::GaussianNoise;
pub use ops::grayscale::Grayscale;
pub use ops::horizontal_flip::HorizontalFlip;
pub use ops::random_resized_crop::{AspectLaw, CropBox, RandomResizedCrop};
pub use ops::rotation::Rotation;
pub use ops::sobel::Sobel;
pub use ops::solarize::Solarize;
pub use ops::{Step, Steps, ViewOp};
pub use recipe::Recipe;
pub use scratch::Scratch;
pub use simclr_isa::Isa;
pub use stream::Stream;
