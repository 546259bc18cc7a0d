//! Batches whose views the consumer makes: the same images and the same views, whichever images it keeps.

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::numbered::torn;
use common::{damaged_jpegs, loading};
use simclr_augment::{ImageRef, Scratch};
use simclr_data::{
    Batch, DataError, Dataset, DecodeScratch, Decoded, KeptImages, Loader, LoaderConfig, PixelSource,
    Position, Reading, Region, open,
};

/// Images of many sizes; every seventh is broken. Pixels that are not asked for are black.
struct Sizes(usize);

const SEED: u64 = 3;

fn is_broken(index: usize) -> bool {
    index % 7 == 3
}

impl Dataset for Sizes {
    fn len(&self) -> usize {
        self.0
    }
    fn classes(&self) -> &[String] {
        &[]
    }
    fn label(&self, _: usize) -> Option<u32> {
        None
    }
    fn name(&self, index: usize) -> String {
        format!("image {index}")
    }
    fn read_part<'a>(
        &'a self,
        index: usize,
        needed: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        if is_broken(index) {
            return Err(torn(self, index));
        }
        let (width, height) = (9 + index as u32 % 11, 8 + index as u32 % 5);
        let boxes = needed(width, height).boxes();
        let mut picture = image::RgbImage::new(width, height);
        for (x, y, pixel) in picture.enumerate_pixels_mut() {
            let seen = boxes
                .iter()
                .any(|b| (b.left..b.left + b.width).contains(&x) && (b.top..b.top + b.height).contains(&y));
            if seen {
                pixel.0 = [x * 19, y * 23, index as u32 * 7 + x * y].map(|v| v as u8);
            }
        }
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
        simclr_data::decode_part(
            &self.name(index),
            png.get_ref(),
            &Default::default(),
            &Region::whole,
            scratch,
        )
    }
}

fn config(threads: usize) -> LoaderConfig {
    loading(8, SEED, threads)
}

/// Does on the CPU what a GPU does: makes the views of raw batches, and keeps at most `room` whole images.
struct Maker {
    kept: Option<Arc<KeptImages>>,
    images: HashMap<u32, Vec<u8>>,
    room: usize,
    /// The number of images whose pixels were sent.
    brought: usize,
}

impl Maker {
    fn new(images: usize, room: Option<usize>) -> Maker {
        let kept = room.map(|_| Arc::new(KeptImages::new(images)));
        Maker { kept, images: HashMap::new(), room: room.unwrap_or(0), brought: 0 }
    }

    fn make(&mut self, mut batch: Batch) -> Batch {
        let raw = std::mem::take(&mut batch.raw);
        let family = &config(1).views[0];
        let (count, view) = (batch.indices.len(), family.view_len());
        assert!(batch.views.is_empty() && raw.images.len() == count && raw.recipes.len() == 2 * count);
        batch.views = vec![0; 2 * count * view];
        let mut scratch = Scratch::default();
        for (i, (image, &index)) in raw.images.iter().zip(&batch.indices).enumerate() {
            let pixels = match image.at {
                PixelSource::Whole(at) | PixelSource::Part(at) => &raw.pixels[at..at + image.bytes()],
                PixelSource::Kept => &self.images[&index][..],
            };
            let picture = ImageRef::new(image.width, image.height, pixels).unwrap();
            for (branch, recipe) in raw.recipes[2 * i..][..2].iter().enumerate() {
                let out = &mut batch.views[(branch * count + i) * view..][..view];
                family.apply(picture, recipe, &mut scratch, out);
            }
            self.brought += usize::from(image.at != PixelSource::Kept);
            if let (PixelSource::Whole(_), Some(kept)) = (image.at, &self.kept) {
                if self.images.len() < self.room {
                    self.images.insert(index, pixels.to_vec());
                    kept.keep(index, image.width, image.height);
                } else {
                    kept.close();
                }
            }
        }
        batch
    }
}

/// Batches with their views, and the images that were skipped.
fn take(mut loader: Loader, batches: usize, mut each: impl FnMut(Batch) -> Batch) -> (Vec<Batch>, Vec<u32>) {
    let mut taken = Vec::new();
    for _ in 0..batches {
        let mut batch = each(loader.next_batch().unwrap());
        batch.waited = Default::default();
        taken.push(batch);
    }
    (taken, loader.skipped().iter().map(|skipped| skipped.index).collect())
}

#[test]
fn the_views_are_those_that_the_loader_would_have_made() {
    let dataset: Arc<dyn Dataset> = Arc::new(Sizes(61));
    let batches = 3 * 6;
    let plain = take(Loader::new(dataset.clone(), config(2), Position::default()), batches, |batch| batch);
    for (threads, room) in
        [(1, None), (3, None), (1, Some(1000)), (3, Some(1000)), (2, Some(20)), (2, Some(0))]
    {
        let mut maker = Maker::new(61, room);
        let loader = Loader::raw(dataset.clone(), config(threads), Position::default(), maker.kept.clone());
        let got = take(loader, batches, |batch| maker.make(batch));
        assert!(got == plain, "{threads} threads, room for {room:?}");
    }
}

#[test]
fn what_can_be_kept_does_not_decide_which_images_are_broken() {
    let folder = damaged_jpegs();
    let set = open(folder.path()).unwrap().to_pretrain();
    let batches = 30;
    let plain = Loader::new(set.clone(), config(2), Position::default());
    let (expected, _) = take(plain, batches, |batch| batch);
    for (threads, room) in [(2, None), (1, Some(100)), (3, Some(100)), (2, Some(5)), (2, Some(0))] {
        let mut maker = Maker::new(set.len(), room);
        let loader = Loader::raw(set.clone(), config(threads), Position::default(), maker.kept.clone());
        let (got, _) = take(loader, batches, |batch| maker.make(batch));
        assert!(got == expected, "{threads} threads, room for {room:?}");
    }
}

#[test]
fn what_is_kept_is_not_brought_again() {
    let mut maker = Maker::new(61, Some(1000));
    let loader = Loader::raw(Arc::new(Sizes(61)), config(1), Position::default(), maker.kept.clone());
    let (epochs, good) = (40, 52);
    take(loader, epochs * 6, |batch| maker.make(batch));
    // The loader is some epochs ahead: images already on their way are sent again.
    assert!((good..epochs * good / 3).contains(&maker.brought), "{}", maker.brought);
}

#[test]
fn it_goes_on_in_the_middle() {
    let dataset: Arc<dyn Dataset> = Arc::new(Sizes(61));
    let (plain, _) = take(Loader::new(dataset.clone(), config(2), Position::default()), 20, |batch| batch);
    for start in [0, 3, 5, 8] {
        let mut maker = Maker::new(61, Some(1000));
        let loader = Loader::raw(dataset.clone(), config(2), plain[start].position, maker.kept.clone());
        let (rest, _) = take(loader, 9, |batch| maker.make(batch));
        assert!(rest == plain[start + 1..start + 10], "after batch {start}");
    }
}

#[test]
fn the_first_broken_image_ends_it_where_reading_is_strict() {
    let dataset: Arc<dyn Dataset> = Arc::new(Sizes(61));
    let strict = || LoaderConfig { reading: Reading { threads: 2, strict: true }, ..config(2) };
    let error = |mut loader: Loader| loop {
        if let Err(error) = loader.next_batch() {
            return error.to_string();
        }
    };
    let plain = error(Loader::new(dataset.clone(), strict(), Position::default()));
    assert!(plain.contains("torn"), "{plain}");
    assert_eq!(error(Loader::raw(dataset, strict(), Position::default(), None)), plain);
}
