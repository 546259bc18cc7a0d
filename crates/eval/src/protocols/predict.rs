//! The predictions of a fine-tuned network, as a table.

use std::cmp::Ordering;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use simclr_data::Reading;
use simclr_engine::Device;
use simclr_metrics::likeliest;
use simclr_nn::load_tensor;
use simclr_train::checkpoint::NamedTensor;
use simclr_train::{Config, Model, TrainError};

use super::network::{TopLayers, head_layer, trainable};
use crate::EvalError;
use crate::embedding::{Broken, Images, Split, for_each_batch};

/// A network trained by [`finetune`](super::finetune()), ready for use.
#[derive(Debug)]
pub struct Classifier {
    model: Model,
    top: TopLayers,
    classes: Vec<String>,
}

/// A table that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// Its number of rows.
    pub images: usize,
    /// For each class, in the order of the network's, how many of the images it is the label of.
    pub per_class: Vec<usize>,
    /// How many images were recognised, for each split.
    pub recognised: Vec<Recognised>,
    /// The images that could not be read, which have no row.
    pub broken: Vec<Broken>,
}

/// How many images of a split were recognised: their class had the highest score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// The split; `None` where the data set is not divided.
    pub split: Option<Split>,
    /// Its labelled images; 0 where the network does not know all of the classes.
    pub labelled: usize,
    /// Those recognised.
    pub right: usize,
}

impl Recognised {
    /// The fraction recognised; `None` without labels.
    pub fn top1(self) -> Option<f64> {
        (self.labelled > 0).then(|| self.right as f64 / self.labelled as f64)
    }
}

impl Predicted {
    /// The class, as its index, that is the label of all images, if the network knows others.
    pub fn only_label(&self) -> Option<usize> {
        let only = self.per_class.iter().position(|&images| images > 0)?;
        (self.per_class.len() > 1 && self.per_class[only] == self.images).then_some(only)
    }

    /// The fraction recognised, of the test split if there is one, else of all images.
    pub fn top1(&self) -> Option<f64> {
        let test = self.recognised.iter().find(|part| part.split == Some(Split::Test)).copied();
        let all = |of: fn(&Recognised) -> usize| self.recognised.iter().map(of).sum();
        let all =
            || Recognised { split: None, labelled: all(|part| part.labelled), right: all(|part| part.right) };
        test.unwrap_or_else(all).top1()
    }
}

impl Classifier {
    /// Builds the network from the configuration it was pretrained with and its `weights`, as in
    /// [`FineTuned`](super::FineTuned): the encoder, the kept layers of the head, and the classifier, whose outputs
    /// are `classes`.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape, [`EvalError::HeadLayers`] for more layers than the head has.
    pub fn new(
        config: &Config,
        weights: &[NamedTensor],
        classes: Vec<String>,
        device: &Device,
    ) -> Result<Classifier, EvalError> {
        let mut model = trainable(&Model::new(config, device)?);
        let kept = weights.iter().filter_map(|tensor| head_layer(&tensor.name)).max();
        let kept = kept.map_or(0, |last| last.saturating_add(1));
        let layers = model.head.layers().len();
        if kept > layers {
            return Err(EvalError::HeadLayers { asked: kept, layers });
        }
        let top = TopLayers::new(&mut model, classes.len(), kept, 0)?;
        for id in model.parameters.ids() {
            let name = model.parameters.name(id);
            if head_layer(name).is_some_and(|layer| layer >= kept) {
                continue;
            }
            let Some(stored) = weights.iter().find(|tensor| tensor.name == name) else {
                return Err(TrainError::MissingTensor { name: name.to_owned() }.into());
            };
            load_tensor(&mut model.parameters, id, &stored.shape, &stored.data)?;
        }
        Ok(Classifier { model, top, classes })
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Side S of its input images, in pixels.
    pub fn image_size(&self) -> usize {
        self.model.image_size()
    }

    /// The probability of each class by softmax, row-major (n, classes), for images (n, S, S, 3) in memory: 8-bit RGB
    /// as in [`Model::embed`], [central crops](simclr_augment::central_crop()) of larger ones.
    ///
    /// # Errors
    /// As [`Model::embed`], and [`TrainError::FeaturesNotFinite`], which names images by their index.
    pub fn probabilities(&self, bytes: &[u8]) -> Result<Vec<f64>, EvalError> {
        let (h, _) = self.model.embed(bytes)?;
        if h.is_empty() {
            return Ok(Vec::new());
        }
        let scores = self.top.scores(&self.model, &h)?;
        let rows = scores.chunks_exact(self.classes.len()).enumerate().map(|(image, scores)| {
            check_finite(scores, || format!("image {image}"))?;
            Ok(softmax(scores))
        });
        Ok(rows.collect::<Result<Vec<_>, EvalError>>()?.concat())
    }

    /// The device it computes on.
    pub fn device(&self) -> &Device {
        &self.model.device
    }

    /// Writes a table of all readable `images`, in order, as CSV to `out`, which errors call `name`. Its columns: the
    /// image's name, its likeliest class as `label` with its `probability`, then `label_2` and so on up to the `top`
    /// likeliest; after the name the `split`, where the images have several. Images are prepared as
    /// [`finetune`](super::finetune()) prepares test images. The bits are the same for any number of threads.
    ///
    /// After every batch `watch` gets the number of images done, and may stop the work.
    ///
    /// # Errors
    /// [`EvalError::Option`] for a `top` of 0 or of more classes than there are, [`EvalError::Write`],
    /// [`EvalError::NoImages`], [`EvalError::Stopped`]; an image that cannot be read where reading is strict.
    pub fn predict(
        &self,
        images: &Images,
        top: usize,
        reading: Reading,
        (out, name): (&mut dyn Write, &Path),
        watch: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Predicted, EvalError> {
        let count = self.classes.len();
        if !(1..=count).contains(&top) {
            let expected = "a number from 1 to that of the classes";
            let found = format!("{top}, of {count} classes");
            return Err(EvalError::Option { name: "top", found, expected });
        }
        let mut table = Table { lines: csv::Writer::from_writer(out), with_split: images.is_divided() };
        table.head(top).map_err(EvalError::write_line(name))?;
        let known = self.numbers_of(images.dataset().classes());
        let part = |split| Recognised { split, labelled: 0, right: 0 };
        let mut recognised: Vec<Recognised> = images.splits().map(part).collect();
        let mut per_class = vec![0; count];
        let (done, broken) = for_each_batch(&self.model, images, reading, &mut |batch, done| {
            let scores = self.top.scores(&self.model, batch.h)?;
            for (&index, scores) in batch.indices.iter().zip(scores.chunks_exact(count)) {
                check_finite(scores, || images.image(index).name)?;
                let ranked = self.likeliest(scores, top);
                table.row(images, index, &ranked).map_err(EvalError::write_line(name))?;
                let label = likeliest(scores);
                per_class[label as usize] += 1;
                let image = images.image(index);
                let part = recognised.iter_mut().find(|part| part.split == image.split);
                if let (Some(known), Some(class), Some(part)) = (&known, image.label, part) {
                    part.labelled += 1;
                    part.right += usize::from(label == known[class as usize]);
                }
            }
            match watch(done) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(EvalError::Stopped),
            }
        })?;
        table.lines.flush().map_err(EvalError::write(name))?;
        Ok(Predicted { images: done, per_class, recognised, broken })
    }

    /// The indices that `classes` have in this network; `None` if it does not know one of them.
    fn numbers_of(&self, classes: &[String]) -> Option<Vec<u32>> {
        let number = |class: &String| self.classes.iter().position(|known| known == class);
        classes.iter().map(|class| number(class).map(|number| number as u32)).collect()
    }

    /// The `top` likeliest classes and their probabilities by softmax; ties go to the lower class.
    fn likeliest(&self, scores: &[f32], top: usize) -> Vec<(&str, f64)> {
        let probabilities = softmax(scores);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal));
        let class = |class: usize| (self.classes[class].as_str(), probabilities[class]);
        order.into_iter().take(top).map(class).collect()
    }
}

/// The probabilities of the classes with these scores.
fn softmax(scores: &[f32]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shares: Vec<f64> = scores.iter().map(|&score| f64::from(score - most).exp()).collect();
    let total: f64 = shares.iter().sum();
    shares.into_iter().map(|share| share / total).collect()
}

/// Checks the class scores of the image called `name`.
///
/// # Errors
/// [`TrainError::FeaturesNotFinite`].
fn check_finite(scores: &[f32], name: impl FnOnce() -> String) -> Result<(), TrainError> {
    match scores.iter().all(|score| score.is_finite()) {
        true => Ok(()),
        false => Err(TrainError::FeaturesNotFinite { image: name() }),
    }
}

/// The lines of a table.
struct Table<'o> {
    lines: csv::Writer<&'o mut dyn Write>,
    with_split: bool,
}

impl Table<'_> {
    fn head(&mut self, top: usize) -> csv::Result<()> {
        let mut fields = vec!["name".to_owned()];
        fields.extend(self.with_split.then(|| "split".to_owned()));
        for rank in 1..=top {
            let end = if rank == 1 { String::new() } else { format!("_{rank}") };
            fields.extend([format!("label{end}"), format!("probability{end}")]);
        }
        self.line(&fields)
    }

    fn row(&mut self, images: &Images, index: u32, likeliest: &[(&str, f64)]) -> csv::Result<()> {
        let image = images.image(index);
        let mut fields = vec![image.name];
        fields.extend(image.split.map(|split| split.to_string()));
        for (class, probability) in likeliest {
            fields.extend([(*class).to_owned(), format!("{probability:.6}")]);
        }
        self.line(&fields)
    }

    fn line(&mut self, fields: &[String]) -> csv::Result<()> {
        self.lines.write_record(fields)
    }
}
