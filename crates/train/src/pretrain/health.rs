//! Figures that show whether an encoder is learning, without labels, on images that training never sees.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use simclr_augment::ViewFamily;
use simclr_data::{Dataset, Loader, LoaderConfig, Position, Reading, Share, Skipped, Subset};
use simclr_metrics::{Features, Knn, alignment, pair_figures, rank_me, spread, uniformity};

use crate::config::LossConfig;
use crate::embedding::check_finite;
use crate::{Embedding, Model, TrainError};

/// The most training images that kNN accuracy compares with.
const BANK: usize = 10_000;
/// The most pairs of views in a batch, and the most pixels of one branch: the same on every device, since they decide
/// which images are left over.
const MAX_PAIRS: usize = 128;
const MAX_PIXELS: usize = 128 * 224 * 224;
/// The fewest batches that the held-out images are split into.
const MIN_BATCHES: usize = 4;
/// Seed of the views of held-out images: the same views every epoch, and none that training draws.
const VIEW_SEED: u64 = 0x6865_616c_7468;

/// Held-out figures of an epoch. They are serialised under their names in `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// NT-Xent of the held-out views, whatever loss is minimised.
    pub loss: f64,
    /// The fraction of held-out anchors for which the positive is the most similar view.
    pub contrastive_accuracy: f64,
    /// Mean |z_i - z_j|^2 over positive pairs, z normalised (Wang and Isola, arXiv:2005.10242).
    pub alignment: f64,
    /// log of the mean of exp(-2 |z_i - z_j|^2) over all pairs of one branch, averaged over both branches (likewise).
    pub uniformity: f64,
    /// Effective rank of h (RankMe, arXiv:2210.02885).
    pub rank_me_h: f64,
    /// Effective rank of z.
    pub rank_me_z: f64,
    /// Mean standard deviation of normalised z's coordinates, times sqrt(d): about 1 if healthy, 0 at collapse.
    pub spread: f64,
}

/// A figure's name in `metrics.jsonl`, its tag in TensorBoard, and its value.
type Figure = (&'static str, &'static str, fn(&Health) -> f64);

impl Health {
    /// All figures.
    pub(super) const FIGURES: [Figure; 7] = [
        ("holdout_loss", "holdout/loss", |health| health.loss),
        ("holdout_contrastive_accuracy", "holdout/contrastive_accuracy", |health| {
            health.contrastive_accuracy
        }),
        ("alignment", "holdout/alignment", |health| health.alignment),
        ("uniformity", "holdout/uniformity", |health| health.uniformity),
        ("rank_me_h", "holdout/rank_me_h", |health| health.rank_me_h),
        ("rank_me_z", "holdout/rank_me_z", |health| health.rank_me_z),
        ("spread", "holdout/spread_z", |health| health.spread),
    ];
}

impl Serialize for Health {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Health::FIGURES.map(|(name, _, figure)| (name, figure(self))))
    }
}

/// h and z of both views of a set of images: first views first.
struct Embedded {
    h: Vec<f32>,
    z: Vec<f32>,
}

/// Computes [`Health`] on `holdout`, with views drawn from `views` (one family per branch). Also returns the broken
/// images of `holdout`, each once.
///
/// # Errors
/// [`TrainError::FeaturesNotFinite`], and errors of the images.
pub fn health(
    model: &Model,
    loss: &LossConfig,
    holdout: &Arc<dyn Dataset>,
    views: &[ViewFamily],
    reading: Reading,
) -> Result<(Health, Vec<Skipped>), TrainError> {
    let (Embedded { h, z }, skipped) = embed_pairs(model, holdout, views, reading)?;
    let h = Features::new(&h, model.encoder.features())?;
    let branches = z.split_at(z.len() / 2);
    let z = Features::new(&z, model.head.dim())?;
    let pairs = pair_figures(z, loss.temperature, loss.normalize)?;
    let health = Health {
        loss: pairs.loss,
        contrastive_accuracy: pairs.contrastive_accuracy,
        alignment: alignment(z)?,
        uniformity: uniformity_of(branches, z.dim())?,
        rank_me_h: rank_me(h)?,
        rank_me_z: rank_me(z)?,
        spread: spread(z)? * (z.dim() as f64).sqrt(),
    };
    Ok((health, skipped))
}

/// The mean of both branches' uniformities, as its authors compute it: the two views of an image are not independent.
fn uniformity_of((first, second): (&[f32], &[f32]), dim: usize) -> Result<f64, TrainError> {
    let of = |branch| uniformity(Features::new(branch, dim)?);
    Ok((of(first)? + of(second)?) / 2.0)
}

/// The number of pairs of views in a batch of `held_out` images: several batches, so that some images may be broken; as
/// even as possible, so that few images are left over.
pub(crate) fn pairs_at_once(model: &Model, held_out: usize) -> usize {
    let most = model.images_within(MAX_PIXELS).clamp(1, MAX_PAIRS);
    (held_out / held_out.div_ceil(most).max(MIN_BATCHES)).max(1)
}

fn embed_pairs(
    model: &Model,
    holdout: &Arc<dyn Dataset>,
    views: &[ViewFamily],
    reading: Reading,
) -> Result<(Embedded, Vec<Skipped>), TrainError> {
    let batch = pairs_at_once(model, holdout.len());
    let config = LoaderConfig { batch, share: Share::WHOLE, seed: VIEW_SEED, reading, views: views.to_vec() };
    let mut loader = Loader::new(holdout.clone(), config, Position::default());
    let (mut first, mut second) = (Embedded { h: vec![], z: vec![] }, Embedded { h: vec![], z: vec![] });
    // Use the whole batches of the first epoch; also read the partial last one, so that every image has been read.
    let (mut end, images) = (0, holdout.len() as u64);
    while end < images {
        let batch = loader.next_batch()?;
        end = batch.position.0;
        if end > images {
            break;
        }
        let (h, z) = model.embed(&batch.views)?;
        let both = [&batch.indices[..], &batch.indices].concat();
        check_finite([&h, &z], holdout.as_ref(), &both)?;
        let (h_half, z_half) = (h.len() / 2, z.len() / 2);
        first.h.extend_from_slice(&h[..h_half]);
        first.z.extend_from_slice(&z[..z_half]);
        second.h.extend_from_slice(&h[h_half..]);
        second.z.extend_from_slice(&z[z_half..]);
        loader.recycle(batch);
    }
    first.h.append(&mut second.h);
    first.z.append(&mut second.z);
    Ok((first, loader.skipped()))
}

/// Computes the kNN accuracy ([`Knn::among`], cosine, weights exp(s / 0.1)) of held-out images against at most 10,000
/// training images; `None` without labels. Also returns the broken held-out images.
///
/// # Errors
/// As [`health`].
pub fn holdout_knn(
    model: &Model,
    train: &Arc<dyn Dataset>,
    holdout: &Arc<dyn Dataset>,
    reading: Reading,
) -> Result<(Option<f64>, Vec<Skipped>), TrainError> {
    if !can_measure_knn(train, holdout) {
        return Ok((None, Vec::new()));
    }
    let (bank, asked) = (labelled(train, BANK), labelled(holdout, usize::MAX));
    let embedded = |set: Subset| Embedding::of(model, &(Arc::new(set) as _), false, reading, &mut |_| ());
    let Embedding { h: train_h, labels: train_labels, .. } = embedded(bank)?;
    let numbers = asked.indices().to_vec();
    let Embedding { h: test_h, labels: test_labels, mut skipped, .. } = embedded(asked)?;
    // Renumber by the held-out images.
    skipped.iter_mut().for_each(|skipped| skipped.index = numbers[skipped.index as usize]);
    if train_labels.is_empty() || test_labels.is_empty() {
        return Ok((None, skipped));
    }
    let dim = model.encoder.features();
    let outcome = Knn::among(train_labels.len()).evaluate(
        Features::new(&train_h, dim)?,
        &train_labels,
        Features::new(&test_h, dim)?,
        &test_labels,
        train.classes().len(),
    )?;
    Ok((Some(outcome.top1), skipped))
}

/// Whether there are labels for [`holdout_knn`].
pub(super) fn can_measure_knn(train: &Arc<dyn Dataset>, holdout: &Arc<dyn Dataset>) -> bool {
    let has_labels = |set: &Arc<dyn Dataset>| (0..set.len()).any(|image| set.label(image).is_some());
    train.classes().len() >= 2 && has_labels(train) && has_labels(holdout)
}

/// At most `most` of the images with a label, spread evenly; images without a label are of no use here.
fn labelled(set: &Arc<dyn Dataset>, most: usize) -> Subset {
    let labelled: Vec<u32> =
        (0..set.len() as u32).filter(|&image| set.label(image as usize).is_some()).collect();
    let stride = labelled.len().div_ceil(most).max(1);
    Subset::new(set.clone(), labelled.into_iter().step_by(stride).collect())
}

#[cfg(test)]
mod tests {
    use simclr_data::{DataError, DecodeScratch, Decoded, Region, Synthetic};
    use simclr_engine::{Device, Tensor};

    use super::*;
    use crate::{Config, Layers};

    /// Number of held-out images; they divide into whole batches.
    const IMAGES: usize = 64;

    fn config(sets: &[&str]) -> Config {
        let usual = ["data.image_size=8", "encoder.width=0.125", "loss.temperature=0.5"];
        let sets: Vec<String> = usual.iter().chain(sets).map(|&set| set.to_owned()).collect();
        Config::resolve(&Layers { sets: &sets, ..Layers::default() }).unwrap()
    }

    fn model(config: &Config) -> Model {
        Model::new(config, &Device::cpu(1).unwrap()).unwrap()
    }

    /// A linear head of `dim` coordinates with the weights `values(coordinate, feature)` and a constant bias.
    fn with_head(dim: usize, values: impl Fn(usize, usize) -> f32, bias: f32) -> Model {
        let sets = ["head.kind=linear", "head.batch_norm=false", &format!("head.dim={dim}")];
        let mut model = model(&config(&sets));
        let features = model.encoder.features();
        let weight = (0..dim * features).map(|i| values(i / features, i % features)).collect();
        for (name, shape, values) in [
            ("head.0.linear.weight", &[dim, features][..], weight),
            ("head.0.linear.bias", &[dim], vec![bias; dim]),
        ] {
            let id = model.parameters.find(name).unwrap();
            let value = Tensor::from_vec(&model.device, shape, values).unwrap();
            model.parameters.set(id, value).unwrap();
        }
        model
    }

    /// An arbitrary direction for each coordinate.
    fn direction(coordinate: usize, feature: usize) -> f32 {
        ((7 * coordinate + 3 * feature) as f32).sin()
    }

    fn health_of(config: &Config, model: &Model) -> Health {
        let holdout: Arc<dyn Dataset> = Arc::new(Synthetic::new(IMAGES, 8, 0));
        let views = config.view.families(8).unwrap();
        let reading = Reading { threads: 1, strict: true };
        health(model, &config.loss, &holdout, &views, reading).unwrap().0
    }

    #[test]
    fn ranks_are_those_of_h_and_of_z() {
        let same = config(&["head.kind=none"]);
        let health = health_of(&same, &model(&same));
        assert!(health.rank_me_h == health.rank_me_z && health.rank_me_h > 4.5, "{health:?}");
        let health = health_of(&same, &with_head(4, direction, 0.0));
        assert!(health.rank_me_z <= 4.0 + 1e-3 && health.rank_me_h > 4.5, "{health:?}");
    }

    #[test]
    fn views_that_are_the_same_agree() {
        let whole = ["view.crop_area=[1, 1]", "view.crop_aspect=[1, 1]", "view.flip=0"];
        let colours = ["view.color_prob=0", "view.gray_prob=0"];
        let config = config(&[&whole[..], &colours].concat());
        let health = health_of(&config, &model(&config));
        assert!(health.alignment.abs() < 1e-6 && health.contrastive_accuracy == 1.0, "{health:?}");
        assert!(health.uniformity < -1e-3, "{health:?}");
    }

    #[test]
    fn a_head_that_says_always_the_same_has_collapsed() {
        let health = health_of(&config(&[]), &with_head(8, |_, _| 0.0, 0.5));
        let others = (2 * IMAGES - 1) as f64;
        assert!(health.spread < 1e-6 && (health.loss - others.ln()).abs() < 1e-5, "{health:?}");
        assert!((health.contrastive_accuracy - 1.0 / others).abs() < 1e-9, "{health:?}");
        assert!(health.alignment < 1e-6 && health.uniformity.abs() < 1e-6, "{health:?}");
        assert!((health.rank_me_z - 1.0).abs() < 1e-3, "{health:?}");
    }

    #[test]
    fn the_loss_is_of_unit_length_where_training_is() {
        for (normalize, scale_matters) in [("loss.normalize=true", false), ("loss.normalize=false", true)] {
            let config = config(&[normalize]);
            let [one, two] =
                [1.0, 2.0].map(|by| health_of(&config, &with_head(8, |i, j| by * direction(i, j), 0.0)));
            assert_eq!((one.loss - two.loss).abs() > 1e-3, scale_matters, "{one:?} {two:?}");
            assert!((one.spread - two.spread).abs() < 1e-6);
        }
    }

    /// The views of one branch are all the same, those of the other far apart.
    #[test]
    fn uniformity_is_the_mean_of_both_branches() {
        let (same, apart) = ([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, -1.0, 0.0]);
        let of = |first, second| uniformity_of((first, second), 2).unwrap();
        assert!(of(&same, &same).abs() < 1e-6 && (of(&apart, &apart) + 8.0).abs() < 1e-6);
        assert!((of(&same, &apart) + 4.0).abs() < 1e-6 && (of(&apart, &same) + 4.0).abs() < 1e-6);
    }

    /// Synthetic images, all of one class.
    struct OfClass(Synthetic, u32);

    impl Dataset for OfClass {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn classes(&self) -> &[String] {
            self.0.classes()
        }
        fn label(&self, _: usize) -> Option<u32> {
            Some(self.1)
        }
        fn name(&self, index: usize) -> String {
            self.0.name(index)
        }
        fn read_part<'a>(
            &'a self,
            index: usize,
            part: &dyn Fn(u32, u32) -> Region,
            scratch: &'a mut DecodeScratch,
        ) -> Result<Decoded<'a>, DataError> {
            self.0.read_part(index, part, scratch)
        }
    }

    #[test]
    fn held_out_images_ask_those_trained_on() {
        let config = config(&[]);
        let of = |class| Arc::new(OfClass(Synthetic::new(16, 8, 0), class)) as Arc<dyn Dataset>;
        let reading = Reading { threads: 1, strict: true };
        let top1 = |held_out| holdout_knn(&model(&config), &of(0), &of(held_out), reading).unwrap().0;
        assert_eq!([top1(0), top1(1)], [Some(1.0), Some(0.0)]);
    }

    /// Repeating the coordinates four times halves each normalised one but does not change the spread.
    #[test]
    fn spreads_of_heads_of_any_size_compare() {
        let config = config(&[]);
        let [few, many] =
            [4, 16].map(|dim| health_of(&config, &with_head(dim, |i, j| direction(i % 4, j), 0.0)));
        assert!(few.spread > 1e-3 && (many.spread / few.spread - 1.0).abs() < 1e-4, "{few:?} {many:?}");
    }
}
