//! A family of views: draws recipes and applies them.

use crate::ops::auto_augment::{affine, histogram, posterize, sharpness};
use crate::ops::blur::{self, Blur};
use crate::ops::{Draw, MAX_STEPS, cutout, gaussian_noise, horizontal_flip, rotation, sobel};
use crate::passes::{Input, Pass, PixelOp};
use crate::planes::Planes;
use crate::simd;
use crate::{
    AugmentError, CropBox, ImageRef, RandomResizedCrop, Recipe, Scratch, Step, Steps, Stream, ViewConfig,
    ViewOp,
};

/// Largest side of a view: 3 x 16,384^2 values are 3 GiB of `f32`, far beyond any encoder.
pub(crate) const MAX_SIZE: u32 = 16_384;

/// A distribution of augmentations that make views of S x S pixels (arXiv:2002.05709, section 2.1 and appendix A).
#[derive(Debug, Clone)]
pub struct ViewFamily {
    size: u32,
    /// A crop that all views of an image share, taken before their own crops.
    shared: Option<RandomResizedCrop>,
    crop: Option<RandomResizedCrop>,
    ops: Vec<ViewOp>,
    /// Whether the images are grey.
    gray: bool,
}

impl ViewFamily {
    /// Creates the family of the first branch of `config`, with views of `size` x `size` pixels;
    /// [`ViewConfig::families`] creates those of both branches.
    ///
    /// # Errors
    /// [`AugmentError::OutOfRange`] for the first invalid key of `config`, or for a `size` outside of 1 to 16,384.
    pub fn first_branch(config: &ViewConfig, size: u32) -> Result<Self, AugmentError> {
        let [first, _] = config.families(size)?;
        Ok(first)
    }

    /// Creates the family that applies `ops` in order, with views of `size` x `size` pixels. Unless the first operator
    /// is a crop, the whole image is resized.
    ///
    /// # Errors
    /// [`AugmentError::OutOfRange`] for the first invalid setting, a crop that is not the first operator, operators
    /// that may make more than 32 steps, or a `size` outside of 1 to 16,384.
    pub fn from_ops(ops: &[ViewOp], size: u32) -> Result<Self, AugmentError> {
        check_size(size)?;
        ops.iter().try_for_each(ViewOp::check)?;
        let (crop, rest) = match ops {
            [ViewOp::RandomResizedCrop(crop), rest @ ..] => (Some(crop.clone()), rest),
            all => (None, all),
        };
        if let Some(place) = rest.iter().position(|op| matches!(op, ViewOp::RandomResizedCrop(_))) {
            return Err(AugmentError::OutOfRange {
                key: "op".to_owned(),
                value: format!("random_resized_crop at position {}", place + ops.len() - rest.len() + 1),
                expected: "the first of its list",
            });
        }
        let most: usize = rest.iter().map(ViewOp::most_steps).sum();
        if most > MAX_STEPS {
            const { assert!(MAX_STEPS == 32, "the message below says 32") };
            return Err(AugmentError::OutOfRange {
                key: "op".to_owned(),
                value: format!("a list of up to {most} steps"),
                expected: "at most 32 steps, four of them for each colour jitter",
            });
        }
        Ok(Self { size, shared: None, crop, ops: rest.to_vec(), gray: false })
    }

    /// Restricts the family to a crop drawn from `law`: the same part of an image for all of its views in an epoch,
    /// whatever their family.
    ///
    /// # Errors
    /// [`AugmentError::OutOfRange`] for an invalid setting of the crop.
    pub fn of_shared_crop(self, law: RandomResizedCrop) -> Result<Self, AugmentError> {
        law.check()?;
        Ok(Self { shared: Some(law), ..self })
    }

    /// Adapts the family to grey images: leaves out saturation, hue and greyscale where they would change nothing, but
    /// keeps those after noise, which colours a view. All other draws stay as they are.
    pub fn for_gray_images(self) -> Self {
        Self { gray: true, ..self }
    }

    /// What [`ViewFamily::for_gray_images`] always leaves out of this family, in words; empty if nothing.
    pub fn left_out_of_gray_images(&self) -> Vec<&'static str> {
        let (mut jitter, mut gray) = (false, false);
        for op in &self.ops {
            match op {
                ViewOp::ColorJitter(law) => jitter |= law.prob > 0.0 && law.strength > 0.0,
                ViewOp::Grayscale(law) => gray |= law.prob > 0.0,
                // What follows has colours to change.
                ViewOp::GaussianNoise(law) if law.prob > 0.0 => break,
                ViewOp::GaussianNoise(_)
                | ViewOp::RandomResizedCrop(_)
                | ViewOp::HorizontalFlip(_)
                | ViewOp::GaussianBlur(_)
                | ViewOp::Solarize(_)
                | ViewOp::Cutout(_)
                | ViewOp::Rotation(_)
                | ViewOp::Sobel(_)
                | ViewOp::AutoAugment(_) => {}
            }
        }
        let words = [("saturation", jitter), ("hue", jitter), ("greyscale", gray)];
        words.into_iter().filter(|word| word.1).map(|word| word.0).collect()
    }

    /// What is done after the crop, in its order.
    pub fn ops(&self) -> &[ViewOp] {
        &self.ops
    }

    /// Side S of the views in pixels.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Bytes of one view, `3 * size * size`.
    pub fn view_len(&self) -> usize {
        view_len(self.size)
    }

    /// Draws only the crop, as [`ViewFamily::draw`] does first: the view reads no other part of the image.
    pub fn draw_crop(&self, width: u32, height: u32, stream: &mut Stream) -> CropBox {
        let whole = match &self.shared {
            Some(law) => law.draw_box(width, height, &mut stream.of_image()),
            None => CropBox::whole(width, height),
        };
        match &self.crop {
            Some(crop) => crop.draw_box(whole.width, whole.height, stream).within(whole),
            None => whole,
        }
    }

    /// Draws the parameters of one view of an image of `width` x `height` pixels, both at least 1.
    pub fn draw(&self, width: u32, height: u32, stream: &mut Stream) -> Recipe {
        let crop = self.draw_crop(width, height, stream);
        let (mut flip, mut steps) = (false, Steps::default());
        for op in &self.ops {
            // Flips before any other step are part of the resize.
            match op {
                ViewOp::HorizontalFlip(law) if steps.is_empty() => flip ^= stream.chance(law.prob),
                other => other.draw(self.size, stream, &mut steps),
            }
        }
        if self.gray {
            steps.for_gray_image();
        }
        Recipe { image: (width, height), crop, flip, steps }
    }

    /// Writes the view of `image` that `recipe` describes into `out`: `size * size * 3` bytes, rows from the
    /// top, interleaved red, green, blue.
    ///
    /// After the resize all arithmetic is `f32` in [0, 1], clipped after each operator, and rounded to 8 bits
    /// once, at the end. Equal images and recipes give equal bytes.
    ///
    /// # Panics
    /// When `out` is not [`ViewFamily::view_len`] bytes long, or when `recipe` was drawn for an image of another size.
    /// Also for a `recipe` that was not drawn and whose crop reaches outside of the image or a [`Step::Cutout`] outside
    /// of the view, and for an `image` whose fields break the promises that [`ImageRef::new`] checks.
    pub fn apply(&self, image: ImageRef<'_>, recipe: &Recipe, scratch: &mut Scratch, out: &mut [u8]) {
        assert_eq!(out.len(), self.view_len(), "length of the view's buffer");
        assert_eq!(
            recipe.image,
            (image.width, image.height),
            "size of the image that the recipe was drawn for"
        );
        assert!(recipe.crop.fits(image.width, image.height), "{:?} lies outside of the image", recipe.crop);
        let Scratch { isa, resizer, blurrer, planes, ops, spare } = scratch;
        planes.prepare(self.size as usize);
        resizer.prepare(recipe.crop, self.size, recipe.flip);
        let mut from = Input::Image(resizer, image, recipe.crop);
        let mut rest = &recipe.steps[..];
        // The mean grey value of the planes, where it is known.
        let mut mean = None;
        loop {
            // One pass runs all consecutive operators that look at one pixel at a time.
            ops.clear();
            while let Some((&step, after)) = rest.split_first() {
                let Some(op) = PixelOp::of(step, mean.filter(|_| ops.is_empty())) else { break };
                ops.push(op);
                rest = after;
            }
            let Some((&step, after)) = rest.split_first() else {
                simd::run(*isa, Pass { planes, from, ops, out: Some(out), mean: false });
                return;
            };
            let contrast = matches!(step, Step::Contrast(_));
            if contrast || !ops.is_empty() || matches!(from, Input::Image(..)) {
                let from = std::mem::replace(&mut from, Input::Planes);
                let pass = Pass { planes: &mut *planes, from, ops, out: None, mean: contrast };
                let value = simd::run(*isa, pass);
                mean = contrast.then_some(value);
            }
            if contrast {
                continue;
            }
            // The next operator looks at more than one pixel.
            mean = None;
            rest = after;
            match step {
                Step::Blur { sigma, padding } if blurrer.prepare(blur::radius(planes.side()), sigma) => {
                    let last = rest.is_empty();
                    let out = last.then_some(&mut *out);
                    simd::run(*isa, Blur { blurrer: &mut *blurrer, planes: &mut *planes, padding, out });
                    if last {
                        return;
                    }
                }
                other => apply_to_planes(other, planes, spare),
            }
        }
    }
}

/// Applies an operator that is not often used, or costs nothing.
fn apply_to_planes(step: Step, planes: &mut Planes, spare: &mut Vec<f32>) {
    match step {
        Step::Flip => horizontal_flip::flip(planes),
        Step::Cutout { columns, rows, fill } => cutout::cutout(planes, columns, rows, fill),
        Step::Rotate { quarters } => rotation::rotate(planes, quarters, spare),
        Step::Noise { sigma, key } => gaussian_noise::noise(planes, sigma, key),
        Step::Sobel => sobel::sobel(planes, spare),
        Step::AutoContrast => histogram::auto_contrast(planes),
        Step::Equalize => histogram::equalize(planes),
        Step::Posterize { bits } => posterize::posterize(planes, bits),
        Step::Sharpness(factor) => sharpness::sharpness(planes, factor, spare),
        Step::Turn { degrees } => affine::turn(planes, degrees, spare),
        Step::ShearX(level) => affine::shear_x(planes, level, spare),
        // One that changes nothing: all others are of the passes.
        Step::Blur { .. } => {}
        // Contrast, and the operators of `PixelOp`, are of the passes.
        Step::Brightness(_)
        | Step::BrightnessShift(_)
        | Step::Contrast(_)
        | Step::Saturation(_)
        | Step::Hue(_)
        | Step::Gray
        | Step::Solarize(_)
        | Step::Invert => {}
    }
}

/// Bytes of a view of `size` x `size` pixels.
pub(crate) fn view_len(size: u32) -> usize {
    3 * size as usize * size as usize
}

/// Returns an error unless `size` is from 1 to [`MAX_SIZE`].
pub(crate) fn check_size(size: u32) -> Result<(), AugmentError> {
    if (1..=MAX_SIZE).contains(&size) {
        return Ok(());
    }
    Err(AugmentError::OutOfRange {
        key: "size".to_owned(),
        value: size.to_string(),
        expected: "a side in pixels from 1 to 16384",
    })
}
