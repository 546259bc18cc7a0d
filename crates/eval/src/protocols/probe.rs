//! Measures what h and z retain of a transformation of the image (paper, table 3).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use simclr_augment::{
    GaussianNoise, Grayscale, Recipe, Rotation, Scratch, Sobel, Stream, ViewFamily, ViewOp, central_crop,
};
use simclr_data::{Dataset, DecodeScratch, Skipped};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Embedding, Model};
use simclr_words::text::counted;

use super::encode::Encoded;
use super::evaluation::Scores;
use super::regression::{LogisticOptions, logistic};
use super::versus::{Progress, Side, Versus};
use crate::EvalError;

/// Images used for training and test, at most.
const MAX_IMAGES: usize = 6000;
/// One image in this many is a test image.
const TEST_ONE_IN: usize = 3;
/// Fewer images tell nothing.
const MIN_IMAGES: usize = 30;
/// The file of the results, in a run folder.
const FILE: &str = "probe/transformations";

/// A transformation applied to some of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transformation {
    /// A fifth of the images is turned grey.
    Gray,
    /// Each image is rotated by 0, 90, 180 or 270 degrees.
    Rotation,
    /// Half of the images get Gaussian noise.
    Noise,
    /// Half of the images are replaced by their Sobel edges.
    Sobel,
}

impl Transformation {
    /// All of them, in the order of the paper's table.
    pub const ALL: [Transformation; 4] =
        [Transformation::Gray, Transformation::Rotation, Transformation::Noise, Transformation::Sobel];

    /// What the classifier is to tell apart, for people.
    pub fn title(self) -> &'static str {
        match self {
            Transformation::Gray => "colour or grey",
            Transformation::Rotation => "rotation",
            Transformation::Noise => "original or corrupted by noise",
            Transformation::Sobel => "original or Sobel-filtered",
        }
    }

    /// The paper's accuracies on h and on z, for other networks trained with each transformation among the
    /// augmentations (arXiv:2002.05709, table 3).
    pub fn paper(self) -> [f64; 2] {
        match self {
            Transformation::Gray => [0.993, 0.974],
            Transformation::Rotation => [0.676, 0.256],
            Transformation::Noise => [0.995, 0.596],
            Transformation::Sobel => [0.966, 0.563],
        }
    }

    /// The share of its most frequent class in expectation: what always giving that answer is right on.
    pub fn chance(self) -> f64 {
        match self {
            Transformation::Gray => 0.8,
            Transformation::Rotation => 0.25,
            Transformation::Noise | Transformation::Sobel => 0.5,
        }
    }

    /// The classes: what may have been done to an image, the first being nothing.
    fn classes(self) -> Vec<String> {
        let words: &[&str] = match self {
            Transformation::Gray => &["colour", "grey"],
            Transformation::Rotation => &["0", "90", "180", "270"],
            Transformation::Noise => &["original", "noise"],
            Transformation::Sobel => &["original", "Sobel"],
        };
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// Draws the class of an image, and the operator to apply, if any.
    fn draw(self, stream: &mut Stream) -> (u32, Option<ViewOp>) {
        let class = match self {
            Transformation::Gray => u32::from(stream.below(5) == 0),
            Transformation::Rotation => stream.below(4),
            Transformation::Noise | Transformation::Sobel => stream.below(2),
        };
        let op = || match self {
            Transformation::Gray => ViewOp::Grayscale(Grayscale { prob: 1.0 }),
            Transformation::Rotation => {
                ViewOp::Rotation(Rotation { prob: 1.0, degrees: [90.0 * class as f32; 2] })
            }
            Transformation::Noise => ViewOp::GaussianNoise(GaussianNoise::default()),
            Transformation::Sobel => ViewOp::Sobel(Sobel::default()),
        };
        (class, (class > 0).then(op))
    }
}

/// How well a transformation can be told from h and from z.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRow {
    /// The transformation.
    pub transformation: Transformation,
    /// [`Transformation::chance`]; in results of earlier versions the share of the most frequent class of the test
    /// images.
    pub chance: f64,
    /// Accuracy of logistic regression on h.
    pub h: f64,
    /// The 95% interval of that by the number of test images; `None` in results of earlier versions.
    #[serde(default)]
    pub h_interval: Option<[f64; 2]>,
    /// Accuracy on z, if it was probed.
    pub z: Option<f64>,
    /// Its 95% interval.
    #[serde(default)]
    pub z_interval: Option<[f64; 2]>,
}

/// The results for a run's encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Training steps of the encoder.
    pub step: u64,
    /// The name of the data set, if known.
    #[serde(default)]
    pub data: Option<String>,
    /// Seed of the draws of the transformations.
    #[serde(default)]
    pub seed: u64,
    /// Training images of the classifiers.
    pub train_images: usize,
    /// The fewest of those that chose the L2 weight of one of them; `None` in results of earlier versions.
    #[serde(default)]
    pub validation_images: Option<usize>,
    /// Test images of the classifiers.
    pub test_images: usize,
    /// Images that could not be read.
    pub skipped: usize,
    /// A row per transformation, without the one for grey if all images are grey.
    pub rows: Vec<ProbeRow>,
}

impl Probe {
    /// Sets the name of the data set.
    #[must_use]
    pub fn of(self, data: String) -> Probe {
        Probe { data: Some(data), ..self }
    }

    /// The test images, in words.
    pub fn judged_by(&self) -> String {
        let of = self.data.as_ref().map_or(String::new(), |data| format!(" of {data}"));
        format!("{}{of}", counted(self.test_images, "image"))
    }

    /// Writes these results of the encoder of `run` to a folder, for the run's own folder [`RunFolder::evaluations`].
    /// Returns the file.
    ///
    /// # Errors
    /// [`EvalError::Train`] when it cannot be written.
    pub fn record(&self, run: &RunFolder, folder: &Path) -> Result<PathBuf, EvalError> {
        Ok(run.write_result(folder, FILE, self)?)
    }

    /// Results recorded earlier, if they can be read.
    pub(super) fn recorded(run: &RunFolder) -> Option<Probe> {
        serde_json::from_slice(&std::fs::read(run.evaluation(FILE)).ok()?).ok()
    }
}

/// Settings of [`probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Whether z is probed too.
    pub with_z: bool,
    /// Seed of the draws of the transformations.
    pub seed: u64,
    /// Whether an image that cannot be read is an error, instead of being left out.
    pub strict: bool,
}

/// Transforms some of the `images`, at most 6,000, and measures how well logistic regression on h and on z tells what
/// was done to them: it is fitted on two thirds of the images and tested on the rest. The paper trains networks of one
/// hidden layer instead.
///
/// The transformation of an image depends only on the seed and the image's index; the bits are the same for any number
/// of threads.
///
/// # Errors
/// An image that cannot be read where reading is strict, otherwise [`EvalError::TooFewToProbe`] where fewer than 30
/// can be read; features that are not finite.
pub fn probe(
    (model, step): (&Model, u64),
    images: &Arc<dyn Dataset>,
    options: &ProbeOptions,
    watch: &mut dyn FnMut(Progress),
) -> Result<Probe, EvalError> {
    let stride = images.len().div_ceil(MAX_IMAGES).max(1);
    let chosen: Vec<usize> = (0..images.len()).step_by(stride).collect();
    enough(chosen.len())?;
    let Transformed { embeddings, skipped, without_colour } =
        embed(model, (images, options.strict), &chosen, options.seed, watch)?;
    let mut out = Probe {
        step,
        data: None,
        seed: options.seed,
        train_images: 0,
        validation_images: None,
        test_images: 0,
        skipped: skipped.len(),
        rows: Vec::new(),
    };
    for (transformation, all) in Transformation::ALL.into_iter().zip(embeddings) {
        if transformation == Transformation::Gray && without_colour {
            continue;
        }
        let [train, test] = split(&all);
        drop(all);
        (out.train_images, out.test_images) = (train.labels.len(), test.labels.len());
        let classes = transformation.classes();
        let encoded = Encoded { train, test, classes, seconds: 0.0 };
        let mut fit = |encoded: Encoded| {
            let found = logistic(&model.device, &Versus::alone(encoded), &LogisticOptions::default(), watch)?;
            let fewest =
                [out.validation_images, found.trained.validation_images()].into_iter().flatten().min();
            out.validation_images = fewest;
            Ok::<Scores, EvalError>(found.trained)
        };
        let z = match options.with_z {
            true => encoded.projected().map(&mut fit).transpose()?,
            false => None,
        };
        let h = fit(encoded)?;
        out.rows.push(ProbeRow {
            transformation,
            chance: transformation.chance(),
            h: h.top1,
            h_interval: h.interval,
            z: z.as_ref().map(|z| z.top1),
            z_interval: z.and_then(|z| z.interval),
        });
    }
    Ok(out)
}

/// Checks that `images` are enough to tell anything.
fn enough(images: usize) -> Result<(), EvalError> {
    if images >= MIN_IMAGES { Ok(()) } else { Err(EvalError::TooFewToProbe { images, least: MIN_IMAGES }) }
}

/// Replaces the view's number in the keys of the streams.
const PROBED: u64 = u64::from_le_bytes(*b"probed..");

/// The embeddings of transformed images.
struct Transformed {
    /// Of the images after each transformation; the labels say what was done to each.
    embeddings: [Embedding; Transformation::ALL.len()],
    skipped: Vec<Skipped>,
    /// Whether all images were grey before.
    without_colour: bool,
}

/// The other rows to train on, and every third row to test on.
fn split(all: &Embedding) -> [Embedding; 2] {
    let part = |judged: bool| {
        let rows = (0..all.labels.len()).filter(|row| (row % TEST_ONE_IN == TEST_ONE_IN - 1) == judged);
        all.select(&rows.collect::<Vec<_>>())
    };
    [part(false), part(true)]
}

/// Reads each image once and embeds it after each of the transformations, drawn by `seed`.
fn embed(
    model: &Model,
    (images, strict): (&Arc<dyn Dataset>, bool),
    chosen: &[usize],
    seed: u64,
    watch: &mut dyn FnMut(Progress),
) -> Result<Transformed, EvalError> {
    let mut embeddings = Transformation::ALL.map(|_| Embedding {
        h_dim: model.encoder.features(),
        z_dim: model.head.dim(),
        ..Embedding::default()
    });
    let (mut skipped, mut without_colour) = (Vec::new(), true);
    let size = model.image_size() as u32;
    for (at, chunk) in chosen.chunks(model.images_at_once()).enumerate() {
        let read = chunk.par_iter().map_init(Darkroom::default, |room, &image| {
            room.read(images.as_ref(), image, size).map_err(|error| (image, error))
        });
        let mut crops = Vec::with_capacity(chunk.len());
        for crop in read.collect::<Vec<_>>() {
            match crop {
                Ok(crop) => crops.push(crop),
                Err((_, error)) if strict => return Err(error),
                Err((image, error)) => skipped.push(Skipped {
                    index: image as u32,
                    name: images.name(image),
                    reason: error.to_string(),
                }),
            }
        }
        without_colour &= crops.iter().all(Crop::is_grey);
        for (number, all) in embeddings.iter_mut().enumerate() {
            let made = crops.par_iter().map_init(Darkroom::default, |room, crop| {
                let mut stream = Stream::new(seed, number as u64, crop.image as u64, PROBED);
                room.transform(crop, size, Transformation::ALL[number], &mut stream)
            });
            let (labels, views): (Vec<u32>, Vec<Vec<u8>>) =
                made.collect::<Result<Vec<_>, EvalError>>()?.into_iter().unzip();
            if !labels.is_empty() {
                let (h, z) = model.device.install(|| model.embed(&views.concat()))?;
                all.h.extend_from_slice(&h);
                all.z.extend_from_slice(&z);
            }
            all.labels.extend_from_slice(&labels);
            all.indices.extend(crops.iter().map(|crop| crop.image as u32));
        }
        let done = (at * model.images_at_once() + chunk.len()).min(chosen.len());
        let (side, set) = (Some(Side::Trained), "transformed");
        watch(Progress::Encoding { side, set, done, images: chosen.len() });
    }
    enough(chosen.len() - skipped.len())?;
    Ok(Transformed { embeddings, skipped, without_colour })
}

/// The central crop of an image.
struct Crop {
    /// The image's index in the data set.
    image: usize,
    /// RGB.
    pixels: Vec<u8>,
}

impl Crop {
    fn is_grey(&self) -> bool {
        self.pixels.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b)
    }
}

/// A thread's buffers for making images.
#[derive(Default)]
struct Darkroom {
    decode: DecodeScratch,
    resize: Scratch,
}

impl Darkroom {
    fn read(&mut self, images: &dyn Dataset, image: usize, size: u32) -> Result<Crop, EvalError> {
        let decoded = images.read(image, &mut self.decode)?;
        let mut pixels = vec![0; 3 * (size as usize).pow(2)];
        central_crop(decoded, size, &mut self.resize, &mut pixels)?;
        Ok(Crop { image, pixels })
    }

    /// Draws the class of an image, and makes the image that it stands for.
    fn transform(
        &mut self,
        Crop { pixels, .. }: &Crop,
        size: u32,
        transformation: Transformation,
        stream: &mut Stream,
    ) -> Result<(u32, Vec<u8>), EvalError> {
        let (class, op) = transformation.draw(stream);
        let Some(op) = op else { return Ok((class, pixels.clone())) };
        let family = ViewFamily::from_ops(&[op], size)?;
        let recipe = Recipe { steps: family.draw(size, size, stream).steps, ..Recipe::identity(size, size) };
        let mut changed = vec![0; pixels.len()];
        let plain = simclr_augment::ImageRef::new(size, size, pixels)?;
        family.apply(plain, &recipe, &mut self.resize, &mut changed);
        Ok((class, changed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use simclr_data::Synthetic as Drawn;

    use super::*;
    use crate::common::{Counted, RGB, Toy, models};

    #[test]
    fn what_is_done_is_what_the_class_says() {
        let images = Drawn::new(60, 32, 0);
        let mut room = Darkroom::default();
        for transformation in Transformation::ALL {
            let classes = transformation.classes().len();
            let mut counts = vec![0; classes];
            for image in 0..images.len() {
                let mut stream = Stream::new(7, 0, image as u64, PROBED);
                let crop = room.read(&images, image, 32).unwrap();
                let (class, view) = room.transform(&crop, 32, transformation, &mut stream).unwrap();
                assert!(!crop.is_grey(), "drawn in colour");
                let plain = crop.pixels;
                counts[class as usize] += 1;
                assert_eq!(view == plain, class == 0, "{transformation:?} {class}");
                match transformation {
                    Transformation::Gray if class == 1 => {
                        assert!(view.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
                    }
                    // Two half turns cancel out.
                    Transformation::Rotation if class == 2 => {
                        let turned: Vec<u8> = view.chunks(3).rev().flatten().copied().collect();
                        assert_eq!(turned, plain);
                    }
                    _ => {}
                }
            }
            assert!(counts.iter().all(|&count| count >= 4), "{transformation:?} {counts:?}");
        }
    }

    #[test]
    fn classes_are_drawn_with_their_shares() {
        const DRAWS: u64 = 2000;
        for (transformation, changed) in [
            (Transformation::Gray, 0.2),
            (Transformation::Rotation, 0.75),
            (Transformation::Noise, 0.5),
            (Transformation::Sobel, 0.5),
        ] {
            let class = |image| transformation.draw(&mut Stream::new(7, 0, image, PROBED)).0;
            let mut counts = vec![0u64; transformation.classes().len()];
            (0..DRAWS).for_each(|image| counts[class(image) as usize] += 1);
            let largest = counts.iter().copied().max().unwrap_or(0);
            for (count, expected) in [(DRAWS - counts[0], changed), (largest, transformation.chance())] {
                let share = count as f64 / DRAWS as f64;
                let five_deviations = 5.0 * (expected * (1.0 - expected) / DRAWS as f64).sqrt();
                assert!((share - expected).abs() < five_deviations, "{transformation:?} {share}");
            }
        }
    }

    #[test]
    fn what_the_head_drops_is_told_from_h_alone() {
        let mut model = models(2).trained;
        let last = model.parameters.find("head.1.linear.weight").unwrap();
        let inputs = model.parameters.get(last).last_dim();
        // All of z follows a single unit, which does not know grey from colour.
        for row in model.parameters.get_mut(last).as_mut_slice().unwrap().chunks_exact_mut(inputs) {
            row[..inputs - 1].fill(0.0);
        }
        let options = ProbeOptions { with_z: true, seed: 0, strict: false };
        let found = probe((&model, 3), &Toy::new(&RGB, 120, 1).shared(), &options, &mut |_| ()).unwrap();
        let grey = &found.rows[0];
        assert_eq!(grey.transformation, Transformation::Gray);
        assert!(grey.h > 0.9 && grey.z.is_some_and(|z| z < 0.85), "{found:?}");
    }

    #[test]
    fn each_image_is_read_once() {
        let images = Counted::new(Toy { broken: vec![4], ..Toy::new(&RGB, 60, 1) });
        let shared: Arc<dyn Dataset> = images.clone();
        let options = ProbeOptions { with_z: true, seed: 0, strict: false };
        let found = probe((&models(2).trained, 3), &shared, &options, &mut |_| ()).unwrap();
        assert_eq!(images.reads.load(Ordering::Relaxed), 60);
        assert_eq!((found.rows.len(), found.skipped), (4, 1));
        assert_eq!((found.train_images, found.test_images), (40, 19));
    }

    #[test]
    fn a_third_of_the_rows_judges() {
        let all = Embedding {
            h: (0..14).map(|value| value as f32).collect(),
            h_dim: 2,
            indices: (10..17).collect(),
            labels: (0..7).collect(),
            ..Embedding::default()
        };
        let [train, test] = split(&all);
        assert_eq!((test.labels, test.h), (vec![2, 5], vec![4.0, 5.0, 10.0, 11.0]));
        assert_eq!(train.indices, [10, 11, 13, 14, 16]);
    }
}
