//! Encodes all training and test images.

use std::sync::Arc;
use std::time::Duration;

use simclr_data::{Dataset, Reading, Skipped};
use simclr_metrics::Features;
use simclr_train::{Embedding, Model};

use super::splits::Splits;
use super::versus::{Progress, Side, Versus};
use crate::EvalError;

/// The features of the training and the test images, each as a central crop.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Of the training images; every row has a label.
    pub train: Embedding,
    /// Of the test images; likewise.
    pub test: Embedding,
    /// The names of the classes.
    pub classes: Vec<String>,
    /// How long it took: the time in this encoder's network and, of the time waited for the images, half where two
    /// encoders share the reading, else all. Those of two encoders add up to the time that encoding both took.
    pub seconds: f64,
}

impl Encoded {
    /// h of the training images.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn train_features(&self) -> Result<Features<'_>, EvalError> {
        Ok(self.train.features()?)
    }

    /// h of the test images.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn test_features(&self) -> Result<Features<'_>, EvalError> {
        Ok(self.test.features()?)
    }

    /// The same with z in place of h, to evaluate the projection; `None` if it was encoded without z.
    pub fn projected(&self) -> Option<Encoded> {
        let project = |set: &Embedding| {
            let Embedding { z, z_dim, indices, labels, skipped, .. } = set;
            let (indices, labels, skipped) = (indices.clone(), labels.clone(), skipped.clone());
            let present = !z.is_empty();
            present.then(|| Embedding {
                h: z.clone(),
                h_dim: *z_dim,
                indices,
                labels,
                skipped,
                ..Embedding::default()
            })
        };
        let (train, test) = (project(&self.train)?, project(&self.test)?);
        Some(Encoded { train, test, classes: self.classes.clone(), seconds: self.seconds })
    }
}

/// Runs all images of `data` through both encoders, on the threads of their device; every image is read once. `with_z`
/// also keeps the projections.
///
/// # Errors
/// [`EvalError::NoImages`] if no image of a set can be read. Single broken images are left out and listed in
/// [`Embedding::skipped`], or are an error where reading is [strict](Splits::strict). Encoders of different image
/// sizes.
pub fn encode(
    models: &Versus<Model>,
    data: &Splits,
    with_z: bool,
    watch: &mut dyn FnMut(Progress),
) -> Result<Versus<Encoded>, EvalError> {
    let reading = data.reading(&models.trained);
    let train = encode_both("training", models, data.train(), with_z, reading, watch)?;
    let test = encode_both("test", models, data.test(), with_z, reading, watch)?;
    Ok(train.zip(test).map(|((train, took), (test, more))| {
        let (classes, seconds) = (data.classes().to_vec(), (took + more).as_secs_f64());
        Encoded { train, test, classes, seconds }
    }))
}

/// Encodes all `images`, labelled or not, to h and z.
///
/// # Errors
/// As [`encode`].
pub fn encode_all(
    model: &Model,
    images: &Arc<dyn Dataset>,
    strict: bool,
    watch: &mut dyn FnMut(Progress),
) -> Result<Embedding, EvalError> {
    let reading = Reading { threads: model.device.threads(), strict };
    encode_images(Side::Trained, "given", model, images, true, reading, watch)
}

/// Encodes one of the sets, "training" or "test".
pub(super) fn encode_set(
    side: Side,
    model: &Model,
    set: &'static str,
    data: &Splits,
    with_z: bool,
    watch: &mut dyn FnMut(Progress),
) -> Result<Embedding, EvalError> {
    let images = if set == "test" { data.test() } else { data.train() };
    encode_images(side, set, model, images, with_z, data.reading(model), watch)
}

/// Encodes images; progress and errors call them `set`.
pub(super) fn encode_images(
    side: Side,
    set: &'static str,
    model: &Model,
    dataset: &Arc<dyn Dataset>,
    with_z: bool,
    reading: Reading,
    watch: &mut dyn FnMut(Progress),
) -> Result<Embedding, EvalError> {
    let [(embedding, _)] = encode_each(Some(side), set, [model], dataset, with_z, reading, watch)?;
    Ok(embedding)
}

/// Encodes images by both encoders, and returns how long each took.
pub(super) fn encode_both(
    set: &'static str,
    Versus { trained, random }: &Versus<Model>,
    dataset: &Arc<dyn Dataset>,
    with_z: bool,
    reading: Reading,
    watch: &mut dyn FnMut(Progress),
) -> Result<Versus<(Embedding, Duration)>, EvalError> {
    let Some(random) = random else {
        let side = Some(Side::Trained);
        let [trained] = encode_each(side, set, [trained], dataset, with_z, reading, watch)?;
        return Ok(Versus::alone(trained));
    };
    let [trained, random] = encode_each(None, set, [trained, random], dataset, with_z, reading, watch)?;
    Ok(Versus { trained, random: Some(random) })
}

fn encode_each<const N: usize>(
    side: Option<Side>,
    set: &'static str,
    models: [&Model; N],
    dataset: &Arc<dyn Dataset>,
    with_z: bool,
    reading: Reading,
    watch: &mut dyn FnMut(Progress),
) -> Result<[(Embedding, Duration); N], EvalError> {
    let images = dataset.len();
    let mut each = |done| watch(Progress::Encoding { side, set, done, images });
    let found = Embedding::of_each(models, dataset, with_z, reading, &mut each)?;
    for (embedding, _) in &found {
        some_could_be_read(set, embedding.indices.len(), images, &embedding.skipped)?;
    }
    Ok(found)
}

/// Checks that some of the `images` of a set were read.
pub(super) fn some_could_be_read(
    set: &'static str,
    read: usize,
    images: usize,
    skipped: &[Skipped],
) -> Result<(), EvalError> {
    if read > 0 {
        return Ok(());
    }
    let first = skipped.first().map(|file| format!("{}: {}", file.name, file.reason));
    Err(EvalError::NoImages { set, images, first })
}
