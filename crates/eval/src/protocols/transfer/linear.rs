//! The linear protocol on a data set of a suite.

use std::time::Instant;

use serde_json::{Map, json};
use simclr_data::Reading;
use simclr_metrics::Features;
use simclr_train::{Embedding, Model};

use super::outcome::Outcome;
use super::set::TransferSet;
use crate::logistic::{Labelled, PathOptions, fit_path};
use crate::protocols::encode::encode_images;
use crate::protocols::evaluation::BrokenImage;
use crate::protocols::examples::Examples;
use crate::protocols::versus::{Progress, Side};
use crate::{EvalError, Targets};

/// Fits a classifier on h of the central crops of `set`'s images by L-BFGS with each L2 weight, keeps the one with the
/// best metric on the validation images, and refits on those and the training images. The test images are used once,
/// at the end.
///
/// # Errors
/// Features that are not finite, a part without any readable image, or the first unreadable image where reading is
/// strict.
pub(super) fn linear(
    side: Side,
    model: &Model,
    set: &TransferSet,
    strict: bool,
    watch: &mut dyn FnMut(Progress),
) -> Result<Outcome, EvalError> {
    let start = Instant::now();
    let reading = Reading { threads: model.device.threads(), strict };
    let mut encode = |name, part: &Examples| EncodedPart::of(side, name, model, part, reading, watch);
    let train = encode("training", &set.train)?;
    let validation = encode("validation", &set.validation)?;
    let test = encode("test", &set.test)?;
    let metric = set.spec.metric;
    let options = PathOptions { metric, ..PathOptions::default() };
    let classes = set.classes.len();
    let mut fitting = |tried, weights| watch(Progress::Fitting { side, tried, weights });
    let fitted =
        fit_path(&model.device, train.labelled()?, validation.labelled()?, classes, &options, &mut fitting)?;
    let scores = fitted.model.scores(test.features()?)?;
    Ok(Outcome {
        score: metric.of(&scores, &test.targets, classes)?,
        validation: fitted.chosen.score,
        chosen: Map::from_iter([("l2".to_owned(), json!(fitted.chosen.l2))]),
        train_images: train.targets.rows() + validation.targets.rows(),
        validation_images: validation.targets.rows(),
        test_images: test.targets.rows(),
        unlearnt: train.targets.then(&validation.targets)?.missing(&set.classes),
        broken: [train.broken, validation.broken, test.broken].concat(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// h of the images of a part, and their targets.
struct EncodedPart {
    embedding: Embedding,
    targets: Targets,
    broken: Vec<BrokenImage>,
}

impl EncodedPart {
    fn of(
        side: Side,
        name: &'static str,
        model: &Model,
        part: &Examples,
        reading: Reading,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<EncodedPart, EvalError> {
        let embedding = encode_images(side, name, model, &part.images, false, reading, watch)?;
        let targets = part.targets.select(&embedding.indices);
        let broken = BrokenImage::of(name, &embedding.skipped);
        Ok(EncodedPart { embedding, targets, broken })
    }

    fn features(&self) -> Result<Features<'_>, EvalError> {
        Ok(self.embedding.features()?)
    }

    fn labelled(&self) -> Result<Labelled<'_>, EvalError> {
        Ok(Labelled { features: self.features()?, targets: &self.targets })
    }
}
