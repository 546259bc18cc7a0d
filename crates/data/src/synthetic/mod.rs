//! A data set that needs no files: coloured, textured objects that differ between classes in their shape alone.
//!
//! Each image shows one of ten shapes. Its colour, texture, size, place and angle, the background, its clutter, and the
//! light are drawn from the same distribution for every class, and either the object or the background may be the
//! brighter: no pixel and no average of pixels tells the class. What two random crops of an image share, whatever their
//! colours, is the shape.

mod pattern;
mod scene;
mod shape;

use std::sync::Arc;

use simclr_augment::Stream;

pub use shape::Shape;

use crate::dataset::{Dataset, Decoded};
use crate::decode::{DecodeScratch, Region};
use crate::error::DataError;
use crate::listing::LeftOut;
use crate::source::{Source, SourceKind};
use scene::Scene;

/// These replace the image number and the epoch in the keys of the streams; see `permutation`.
const SCENE: u64 = u64::from_le_bytes(*b"scene...");
const NOISE: u64 = u64::from_le_bytes(*b"noise...");

/// Rendered images. Image i is a function of (seed, i) and of the size that it is rendered at; its class is i mod 10.
///
/// Rendering takes about as long as decoding a small JPEG: wrap it in [`crate::Cached`] to render each image once.
#[derive(Clone, Debug)]
pub struct Synthetic {
    count: usize,
    size: u32,
    seed: u64,
    classes: Vec<String>,
}

impl Synthetic {
    /// `count` images of `size` x `size` pixels, `size` at least 1.
    pub fn new(count: usize, size: u32, seed: u64) -> Self {
        let classes = Shape::ALL.map(|shape| shape.name().to_owned()).to_vec();
        Self { count, size: size.max(1), seed, classes }
    }
}

/// A synthetic data set of `train` and `test` images, which have no image in common.
pub fn synthetic(train: usize, test: usize, size: u32, seed: u64) -> Source {
    Source {
        train: Arc::new(Synthetic::new(train, size, seed)),
        test: Some(Arc::new(Synthetic::new(test, size, !seed))),
        unlabelled: None,
        kind: SourceKind::Synthetic,
        left_out: LeftOut::default(),
    }
}

impl Dataset for Synthetic {
    fn len(&self) -> usize {
        self.count
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<u32> {
        Some((index % Shape::ALL.len()) as u32)
    }

    fn name(&self, index: usize) -> String {
        format!("made image {index}, {}", self.classes[index % Shape::ALL.len()])
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        _: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        let shape = Shape::ALL[index % Shape::ALL.len()];
        let scene = Scene::draw(shape, &mut Stream::new(self.seed, SCENE, index as u64, 0));
        scratch.pixels.resize(3 * (self.size as usize).pow(2), 0);
        // A stream of its own, so that an image is the same scene at every size.
        let mut noise = Stream::new(self.seed, NOISE, index as u64, 0);
        scene.render(self.size, &mut noise, &mut scratch.pixels);
        Ok(Decoded { width: self.size, height: self.size, pixels: &scratch.pixels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_depends_on_seed_and_number_alone() {
        let read =
            |set: &Synthetic, index| set.read(index, &mut DecodeScratch::default()).unwrap().pixels.to_vec();
        let (short, long) = (Synthetic::new(20, 32, 5), Synthetic::new(5000, 32, 5));
        assert_eq!(read(&short, 13), read(&long, 13));
        assert_ne!(read(&short, 13), read(&short, 3));
        assert_ne!(read(&short, 13), read(&Synthetic::new(20, 32, 6), 13));
        assert_eq!(short.name(13), "made image 13, star");
        assert_eq!(short.label(13), Some(3));
        assert_eq!(read(&Synthetic::new(20, 7, 5), 0).len(), 7 * 7 * 3);
    }

    #[test]
    fn no_image_to_train_on_is_one_to_test_on() {
        let parts = synthetic(30, 30, 16, 3);
        let images = |set: &Arc<dyn Dataset>| -> Vec<Vec<u8>> {
            let mut scratch = DecodeScratch::default();
            (0..set.len()).map(|index| set.read(index, &mut scratch).unwrap().pixels.to_vec()).collect()
        };
        let (train, test) = (images(&parts.train), images(&parts.test.unwrap()));
        assert!(train.iter().all(|image| !test.contains(image)));
    }

    #[test]
    fn classes_do_not_differ_in_their_mean_colour() {
        let set = Synthetic::new(2000, 16, 1);
        let mut scratch = DecodeScratch::default();
        let mut means = [0.0; 10];
        for index in 0..set.len() {
            let image = set.read(index, &mut scratch).unwrap();
            let sum: f64 = image.pixels.iter().map(|&value| f64::from(value)).sum();
            means[index % 10] += sum / image.pixels.len() as f64 / 200.0;
        }
        // The mean of an image has a standard deviation of about 40, that of 200 images of about 3.
        let all = means.iter().sum::<f64>() / 10.0;
        assert!(means.iter().all(|mean| (mean - all).abs() < 11.0), "{means:?}");
    }
}
