//! What h and z know of what was done to an image (paper, table 3).

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

use super::encode::Encoded;
use super::regression::{LogisticOptions, logistic};
use super::versus::{Progress, Side, Versus};
use crate::EvalError;

/// Images that a classifier learns from and is judged by, at most.
const MOST: usize = 6000;
/// The share of them that it is judged by.
const JUDGED: usize = 3;
/// Fewer images say nothing.
const LEAST: usize = 30;
/// The file of the results in a run folder.
const FILE: &str = "probe/transformations";

/// What is done to some of the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transformation {
    /// A fifth of the images is made grey.
    Gray,
    /// Each is turned by 0, 90, 180 or 270 degrees.
    Rotation,
    /// Half of them get Gaussian noise.
    Noise,
    /// Of half of them Sobel's edges are taken.
    Sobel,
}

impl Transformation {
    /// All of them, in the order of the paper's table.
    pub const ALL: [Transformation; 4] =
        [Transformation::Gray, Transformation::Rotation, Transformation::Noise, Transformation::Sobel];

    /// What is to be told apart.
    pub fn title(self) -> &'static str {
        match self {
            Transformation::Gray => "colour or grey",
            Transformation::Rotation => "rotation",
            Transformation::Noise => "original or corrupted by noise",
            Transformation::Sobel => "original or Sobel-filtered",
        }
    }

    /// What its images are, in words that go before "images".
    fn images(self) -> &'static str {
        match self {
            Transformation::Gray => "coloured or grey",
            Transformation::Rotation => "turned",
            Transformation::Noise => "original or noisy",
            Transformation::Sobel => "original or Sobel-filtered",
        }
    }

    /// The paper's accuracies on h and on z, of other networks trained with each of these among the augmentations
    /// (arXiv:2002.05709, table 3).
    pub fn paper(self) -> [f64; 2] {
        match self {
            Transformation::Gray => [0.993, 0.974],
            Transformation::Rotation => [0.676, 0.256],
            Transformation::Noise => [0.995, 0.596],
            Transformation::Sobel => [0.966, 0.563],
        }
    }

    /// The classes: what may have been done, nothing being the first.
    fn classes(self) -> Vec<String> {
        let words: &[&str] = match self {
            Transformation::Gray => &["colour", "grey"],
            Transformation::Rotation => &["0", "90", "180", "270"],
            Transformation::Noise => &["original", "noise"],
            Transformation::Sobel => &["original", "Sobel"],
        };
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// What is done to an image, by a draw of its own.
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

/// How well a transformation is found in h and in z.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRow {
    /// Which.
    pub transformation: Transformation,
    /// The share of the commonest class among the images that it is judged by.
    pub chance: f64,
    /// Accuracy of logistic regression on h.
    pub h: f64,
    /// On z, where there is a projection head.
    pub z: Option<f64>,
}

/// The results of a run's encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Steps of training behind the encoder.
    pub step: u64,
    /// The images, as they were named, where that is known.
    #[serde(default)]
    pub data: Option<String>,
    /// What drew what was done to them.
    #[serde(default)]
    pub seed: u64,
    /// Images that classifiers learnt from.
    pub train_images: usize,
    /// Images that they were judged by.
    pub test_images: usize,
    /// Images that could not be read.
    pub skipped: usize,
    /// A row a transformation; that of grey is left out where all images are grey.
    pub rows: Vec<ProbeRow>,
}

impl Probe {
    /// The same, of images that are called `data`.
    #[must_use]
    pub fn of(self, data: String) -> Probe {
        Probe { data: Some(data), ..self }
    }

    /// The images that it was judged by, in words.
    pub fn judged_by(&self) -> String {
        let plural = if self.test_images == 1 { "" } else { "s" };
        let of = self.data.as_ref().map_or(String::new(), |data| format!(" of {data}"));
        format!("{} image{plural}{of}", self.test_images)
    }

    /// Writes the results of the encoder of `run` to a folder, of which the run's is
    /// [`RunFolder::evaluations`]. Returns the file.
    ///
    /// # Errors
    /// [`EvalError::Train`] when it cannot be written.
    pub fn record(&self, run: &RunFolder, folder: &Path) -> Result<PathBuf, EvalError> {
        Ok(run.write_result(folder, FILE, self)?)
    }

    /// What was written before, if anything was that can be read.
    pub(super) fn recorded(run: &RunFolder) -> Option<Probe> {
        serde_json::from_slice(&std::fs::read(run.evaluation(FILE)).ok()?).ok()
    }
}

/// Settings of [`probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Whether z is probed too.
    pub with_z: bool,
    /// Draws what is done to the images.
    pub seed: u64,
    /// Whether the first image that cannot be read is the end.
    pub strict: bool,
}

/// Transforms some of the `images`, at most 6,000, and finds out how well logistic regression on h and on z tells
/// what was done: a third of the images judges what was learnt from the others. The paper trains networks of one
/// hidden layer in its place.
///
/// What is done to an image is a function of the seed and its number; the same bits for any number of threads.
///
/// # Errors
/// An image that cannot be read where reading is strict, else [`EvalError::TooFewToProbe`] where fewer than 30 can
/// be read; features that are not finite.
pub fn probe(
    (model, step): (&Model, u64),
    images: &Arc<dyn Dataset>,
    options: &ProbeOptions,
    watch: &mut dyn FnMut(Progress),
) -> Result<Probe, EvalError> {
    let stride = images.len().div_ceil(MOST).max(1);
    let chosen: Vec<usize> = (0..images.len()).step_by(stride).collect();
    enough(chosen.len())?;
    let seed = options.seed;
    let mut out =
        Probe { step, data: None, seed, train_images: 0, test_images: 0, skipped: 0, rows: Vec::new() };
    for (number, transformation) in Transformation::ALL.into_iter().enumerate() {
        let stream = |image: usize| Stream::new(options.seed, number as u64, image as u64, PROBED);
        let encoded = embed(model, (images, options.strict), &chosen, transformation, &stream, watch)?;
        if transformation == Transformation::Gray && encoded.without_colour {
            continue;
        }
        let [train, test] = encoded.split();
        (out.train_images, out.test_images) = (train.labels.len(), test.labels.len());
        out.skipped = encoded.skipped.len();
        let classes = transformation.classes();
        let mut counts = vec![0usize; classes.len()];
        test.labels.iter().for_each(|&label| counts[label as usize] += 1);
        let chance = counts.into_iter().max().unwrap_or(0) as f64 / test.labels.len() as f64;
        let encoded = Encoded { train, test, classes, seconds: 0.0 };
        let mut fit = |encoded: Encoded| {
            let found = logistic(&Versus::alone(encoded), &LogisticOptions::default(), watch)?;
            Ok::<f64, EvalError>(found.trained.top1)
        };
        let z = match options.with_z {
            true => encoded.projected().map(&mut fit).transpose()?,
            false => None,
        };
        out.rows.push(ProbeRow { transformation, chance, h: fit(encoded)?, z });
    }
    Ok(out)
}

/// Whether `images` are enough to tell anything.
fn enough(images: usize) -> Result<(), EvalError> {
    if images >= LEAST { Ok(()) } else { Err(EvalError::TooFewToProbe { images, least: LEAST }) }
}

/// Takes the place of the view's number in the keys of the streams.
const PROBED: u64 = u64::from_le_bytes(*b"probed..");

/// What the network makes of the transformed images, with what was done to them for labels.
struct Transformed {
    all: Embedding,
    skipped: Vec<Skipped>,
    /// Whether no image had a colour before.
    without_colour: bool,
}

impl Transformed {
    /// Every third row, and the others before it.
    fn split(&self) -> [Embedding; 2] {
        let part = |judged: bool| {
            let rows = (0..self.all.labels.len()).filter(|row| (row % JUDGED == JUDGED - 1) == judged);
            self.all.select(&rows.collect::<Vec<_>>())
        };
        [part(false), part(true)]
    }
}

fn embed(
    model: &Model,
    (images, strict): (&Arc<dyn Dataset>, bool),
    chosen: &[usize],
    transformation: Transformation,
    stream: &(dyn Fn(usize) -> Stream + Sync),
    watch: &mut dyn FnMut(Progress),
) -> Result<Transformed, EvalError> {
    let mut all =
        Embedding { h_dim: model.encoder.features(), z_dim: model.head.dim(), ..Embedding::default() };
    let (mut skipped, mut without_colour) = (Vec::new(), true);
    let size = model.image_size() as u32;
    for (at, chunk) in chosen.chunks(model.images_at_once()).enumerate() {
        let made = chunk.par_iter().map_init(Darkroom::default, |room, &image| {
            let made = room.make(images.as_ref(), image, size, transformation, &mut stream(image));
            made.map_err(|error| (image, error))
        });
        let mut views = Vec::new();
        for made in made.collect::<Vec<_>>() {
            match made {
                Ok(Made { image, class, view, grey }) => {
                    views.extend_from_slice(&view);
                    all.indices.push(image as u32);
                    all.labels.push(class);
                    without_colour &= grey;
                }
                Err((_, error)) if strict => return Err(error),
                Err((image, error)) => skipped.push(Skipped {
                    index: image as u32,
                    name: images.name(image),
                    reason: error.to_string(),
                }),
            }
        }
        if !views.is_empty() {
            let (h, z) = model.device.install(|| model.embed(&views))?;
            all.h.extend_from_slice(&h);
            all.z.extend_from_slice(&z);
        }
        let done = (at * model.images_at_once() + chunk.len()).min(chosen.len());
        watch(Progress::Encoding {
            side: Side::Trained,
            set: transformation.images(),
            done,
            images: chosen.len(),
        });
    }
    enough(all.labels.len())?;
    Ok(Transformed { all, skipped, without_colour })
}

/// An image, transformed or not.
struct Made {
    /// Its number.
    image: usize,
    /// What was done to it.
    class: u32,
    /// Its central crop, RGB.
    view: Vec<u8>,
    /// Whether that had no colour before.
    grey: bool,
}

/// What a thread makes its images with.
#[derive(Default)]
struct Darkroom {
    decode: DecodeScratch,
    resize: Scratch,
}

impl Darkroom {
    /// Reads and transforms an image.
    fn make(
        &mut self,
        images: &dyn Dataset,
        image: usize,
        size: u32,
        transformation: Transformation,
        stream: &mut Stream,
    ) -> Result<Made, EvalError> {
        let decoded = images.read(image, &mut self.decode)?;
        let mut view = vec![0; 3 * (size as usize).pow(2)];
        central_crop(decoded, size, &mut self.resize, &mut view)?;
        let grey = view.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b);
        let (class, op) = transformation.draw(stream);
        if let Some(op) = op {
            let family = ViewFamily::from_ops(&[op], size)?;
            let recipe =
                Recipe { steps: family.draw(size, size, stream).steps, ..Recipe::identity(size, size) };
            let mut changed = vec![0; view.len()];
            let plain = simclr_augment::ImageRef::new(size, size, &view)?;
            family.apply(plain, &recipe, &mut self.resize, &mut changed);
            view = changed;
        }
        Ok(Made { image, class, view, grey })
    }
}

#[cfg(test)]
mod tests {
    use simclr_data::Made as Drawn;

    use super::*;

    #[test]
    fn what_is_done_is_what_the_class_says() {
        let images = Drawn::new(60, 32, 0);
        let mut room = Darkroom::default();
        for transformation in Transformation::ALL {
            let classes = transformation.classes().len();
            let mut counts = vec![0; classes];
            for image in 0..images.len() {
                let mut stream = Stream::new(7, 0, image as u64, PROBED);
                let Made { class, view, grey, .. } =
                    room.make(&images, image, 32, transformation, &mut stream).unwrap();
                let mut plain = vec![0; view.len()];
                let decoded = images.read(image, &mut room.decode).unwrap();
                central_crop(decoded, 32, &mut room.resize, &mut plain).unwrap();
                assert!(!grey, "drawn in colour");
                counts[class as usize] += 1;
                assert_eq!(view == plain, class == 0, "{transformation:?} {class}");
                match transformation {
                    Transformation::Gray if class == 1 => {
                        assert!(view.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
                    }
                    // Twice a half turn is none.
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
    fn a_third_of_the_rows_judges() {
        let all = Embedding {
            h: (0..14).map(|value| value as f32).collect(),
            h_dim: 2,
            indices: (10..17).collect(),
            labels: (0..7).collect(),
            ..Embedding::default()
        };
        let [train, test] = Transformed { all, skipped: vec![], without_colour: false }.split();
        assert_eq!((test.labels, test.h), (vec![2, 5], vec![4.0, 5.0, 10.0, 11.0]));
        assert_eq!(train.indices, [10, 11, 13, 14, 16]);
    }
}
