//! The whole family of views: draw a recipe, apply it.

use crate::{
    AugmentError, BlurPadding, ImageRef, Recipe, Scratch, Stream, ViewConfig, blur, crop::CropLaw,
    grayscale::grayscale, jitter::JitterLaw, planes,
};

/// Largest side of a view: 3 x 16,384^2 values are 3 GiB of `f32`, far beyond any encoder.
pub(crate) const MAX_SIZE: u32 = 16_384;

/// A law of augmentations with views of S x S pixels (arXiv:2002.05709, section 2.1 and appendix A).
#[derive(Debug, Clone)]
pub struct ViewFamily {
    size: u32,
    crop: CropLaw,
    flip: f32,
    jitter: JitterLaw,
    color_prob: f32,
    gray_prob: f32,
    blur_prob: f32,
    blur_sigma: [f64; 2],
    blur_padding: BlurPadding,
}

impl ViewFamily {
    /// The family of `config` with views of `size` x `size` pixels.
    ///
    /// # Errors
    /// [`AugmentError::OutOfRange`] for the first key of `config` that is not usable, or for a `size` outside
    /// of 1 to 16,384.
    pub fn new(config: &ViewConfig, size: u32) -> Result<Self, AugmentError> {
        config.validate()?;
        check_size(size)?;
        Ok(Self {
            size,
            crop: CropLaw::new(config),
            flip: config.flip,
            jitter: JitterLaw::new(config),
            // Without strength each operator would be the identity, at full price.
            color_prob: if config.color_strength > 0.0 { config.color_prob } else { 0.0 },
            gray_prob: config.gray_prob,
            blur_prob: config.blur_prob_at(size),
            blur_sigma: config.blur_sigma.map(f64::from),
            blur_padding: config.blur_padding,
        })
    }

    /// Side S of the views in pixels.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Bytes of one view, `3 * size * size`.
    pub fn view_len(&self) -> usize {
        view_len(self.size)
    }

    /// Draws the parameters of one view of an image of `width` x `height` pixels, both at least 1.
    pub fn draw(&self, width: u32, height: u32, stream: &mut Stream) -> Recipe {
        Recipe {
            image: (width, height),
            crop: self.crop.draw(width, height, stream),
            flip: stream.chance(self.flip),
            color: stream.chance(self.color_prob).then(|| self.jitter.draw(stream)),
            gray: stream.chance(self.gray_prob),
            blur: stream.chance(self.blur_prob).then(|| stream.uniform(self.blur_sigma) as f32),
        }
    }

    /// Writes the view of `image` that `recipe` describes into `out`: `size * size * 3` bytes, rows from the
    /// top, interleaved red, green, blue.
    ///
    /// After the resize all arithmetic is `f32` in [0, 1], clipped after each operator, and rounded to 8 bits
    /// once, at the end. Equal images and recipes give equal bytes.
    ///
    /// # Panics
    /// When `out` is not [`ViewFamily::view_len`] bytes long, or when `recipe` was drawn for an image of
    /// another size.
    pub fn apply(&self, image: ImageRef<'_>, recipe: &Recipe, scratch: &mut Scratch, out: &mut [u8]) {
        assert_eq!(out.len(), self.view_len(), "length of the view's buffer");
        assert_eq!(
            recipe.image,
            (image.width, image.height),
            "size of the image that the recipe was drawn for"
        );
        assert!(recipe.crop.fits(image.width, image.height), "{:?} lies outside of the image", recipe.crop);
        let side = self.size as usize;
        scratch.planes.resize(self.view_len(), 0.0);
        let view = &mut scratch.planes[..];
        scratch.resizer.resize(image, recipe.crop, self.size, recipe.flip, view);
        for operator in recipe.color.iter().flatten() {
            operator.apply(view);
        }
        if recipe.gray {
            grayscale(view);
        }
        if let Some(sigma) = recipe.blur {
            let radius = blur::radius(self.size);
            scratch.blurrer.blur(view, side, radius, sigma, self.blur_padding);
        }
        planes::quantize(view, out);
    }
}

/// Bytes of a view of `size` x `size` pixels.
pub(crate) fn view_len(size: u32) -> usize {
    3 * size as usize * size as usize
}

/// Refuses sizes that no view can have.
pub(crate) fn check_size(size: u32) -> Result<(), AugmentError> {
    if (1..=MAX_SIZE).contains(&size) {
        return Ok(());
    }
    Err(AugmentError::OutOfRange {
        key: "data.image_size",
        value: size.to_string(),
        expected: "a side in pixels from 1 to 16384",
    })
}
