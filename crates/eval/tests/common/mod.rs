//! A toy data set and encoders for it.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use simclr_augment::{Stream, ViewConfig};
use simclr_data::{
    DataError, Dataset, DecodeScratch, Decoded, HashExtent, LeftOut, Region, Source, SourceKind,
};
use simclr_engine::Device;
use simclr_eval::protocols::{Splits, Versus, random_encoder};
use simclr_train::{Config, Model};

/// Side of the images, in pixels.
pub const SIDE: usize = 16;

/// Images of noise around the colour of their class.
#[derive(Clone)]
pub struct Toy {
    pub classes: Vec<String>,
    pub labels: Vec<Option<u32>>,
    pub broken: Vec<usize>,
    pub pixels: Vec<Vec<u8>>,
}

/// The colour of each class, whatever its label.
const COLOURS: [(&str, [u8; 3]); 3] =
    [("red", [200, 40, 40]), ("green", [40, 200, 40]), ("blue", [40, 40, 200])];

impl Toy {
    /// `count` images, cycling through `classes`.
    pub fn new(classes: &[&str], count: usize, seed: u64) -> Toy {
        let image = |index: usize| {
            let name = classes[index % classes.len()];
            let (_, colour) = COLOURS.into_iter().find(|(known, _)| *known == name).unwrap_or(("", [128; 3]));
            let mut stream = Stream::new(seed, 0, index as u64, 0);
            let mut noisy = |value: u8| value - 40 + stream.below(80) as u8;
            (0..SIDE * SIDE).flat_map(|_| colour.map(&mut noisy)).collect()
        };
        Toy {
            classes: classes.iter().map(|&name| name.to_owned()).collect(),
            labels: (0..count).map(|index| Some((index % classes.len()) as u32)).collect(),
            broken: Vec::new(),
            pixels: (0..count).map(image).collect(),
        }
    }

    pub fn shared(self) -> Arc<dyn Dataset> {
        Arc::new(self)
    }
}

impl Dataset for Toy {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels[index]
    }

    fn name(&self, index: usize) -> String {
        format!("toy {index}")
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        _: &dyn Fn(u32, u32) -> Region,
        _: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        if self.broken.contains(&index) {
            return Err(DataError::Image { name: self.name(index), reason: "torn".to_owned() });
        }
        Ok(Decoded { width: SIDE as u32, height: SIDE as u32, pixels: &self.pixels[index] })
    }
}

/// Toy images, and how often they were read and compared.
pub struct Counted {
    pub images: Toy,
    pub reads: AtomicUsize,
    pub hashes: AtomicUsize,
}

impl Counted {
    pub fn new(images: Toy) -> Arc<Counted> {
        Arc::new(Counted { images, reads: AtomicUsize::new(0), hashes: AtomicUsize::new(0) })
    }
}

impl Dataset for Counted {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> &[String] {
        self.images.classes()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.images.label(index)
    }

    fn name(&self, index: usize) -> String {
        self.images.name(index)
    }

    fn content_hash(&self, index: usize, extent: HashExtent, scratch: &mut DecodeScratch) -> Option<u64> {
        self.hashes.fetch_add(1, Ordering::Relaxed);
        self.images.content_hash(index, extent, scratch)
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        part: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.images.read_part(index, part, scratch)
    }
}

/// Toy images as an opened data source.
pub fn source(train: Toy, test: Option<Toy>) -> Source {
    Source {
        train: train.shared(),
        test: test.map(Toy::shared),
        unlabelled: None,
        kind: SourceKind::Synthetic,
        left_out: LeftOut::default(),
    }
}

pub const RGB: [&str; 3] = ["red", "green", "blue"];

pub fn splits() -> Splits {
    Splits::new(Toy::new(&RGB, 120, 1).shared(), Toy::new(&RGB, 60, 2).shared()).unwrap()
}

/// ResNet-18 with 64 features.
pub fn config() -> Config {
    let mut config = Config::default();
    config.data.image_size = SIDE as u32;
    config.encoder.width = 0.125;
    config.head.dim = 16;
    config.view = ViewConfig::crop_flip();
    config
}

/// A random encoder in place of a trained one, and another random one.
pub fn models(threads: usize) -> Versus<Model> {
    let device = Device::cpu(threads).unwrap();
    let few = Toy::new(&RGB, 24, 9).shared();
    let mut other = config();
    other.train.seed = 5;
    Versus {
        trained: random_encoder(&other, &few, &device, &mut |_| ()).unwrap(),
        random: Some(random_encoder(&config(), &few, &device, &mut |_| ()).unwrap()),
    }
}
