//! Encoder, kept layers of the head and classifier, trained together.

use simclr_engine::{BufferUpdates, DType, Gradients, Mode, SingleProcess, Tape, Tensor};
use simclr_nn::Linear;
use simclr_train::checkpoint::NamedTensor;
use simclr_train::config::{Auto, Memory};
use simclr_train::memory::{self, Needs};
use simclr_train::optim::Optimizer;
use simclr_train::{Model, TrainError};

use super::loss::backward_from_loss;
use super::sgd::{Learner, Sgd, Step, count_correct};
use crate::{EvalError, Targets};

/// A model with a classifier among its parameters, under torchvision's names, and its optimiser.
pub(super) struct Network {
    model: Model,
    top: TopLayers,
    optimizer: Optimizer,
}

/// The model with f16 activations changed to f32, so that the loss needs no scaling.
pub(super) fn trainable(model: &Model) -> Model {
    match model.activations() {
        DType::F16 => model.clone().with_activations(DType::F32),
        _ => model.clone(),
    }
}

/// The part above the encoder: the kept layers of the head and the classifier.
#[derive(Debug)]
pub(super) struct TopLayers {
    head_layers: usize,
    classifier: Linear,
}

/// The layer of the head to which the tensor called `name` belongs, if any.
pub(super) fn head_layer(name: &str) -> Option<usize> {
    name.strip_prefix("head.")?.split('.').next()?.parse().ok()
}

impl Network {
    /// A copy of `model` with a new classifier on the output of the first `head_layers` layers of its head.
    pub(super) fn new(
        model: &Model,
        classes: usize,
        head_layers: usize,
        sgd: &Sgd,
    ) -> Result<Network, EvalError> {
        let mut model = model.clone();
        let top = TopLayers::new(&mut model, classes, head_layers, sgd.seed)?;
        let optimizer = sgd.optimizer(&model.parameters)?;
        Ok(Network { model, top, optimizer })
    }

    /// The model with all parameters, those of the classifier among them.
    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// The same network, keeping for the backward pass what `memory` says.
    pub(super) fn with_memory(self, memory: Memory) -> Network {
        Network { model: self.model.with_memory(memory), ..self }
    }

    /// Chooses what to keep for the backward pass in batches of `batch` images, where `memory` is automatic.
    ///
    /// # Errors
    /// [`EvalError::BatchDoesNotFit`], with the largest batch that fits.
    pub(super) fn choose_memory(
        &self,
        memory: Auto<Memory>,
        batch: usize,
    ) -> Result<memory::Choice, EvalError> {
        let needs = |memory, batch| self.needs(memory, batch);
        memory::choose_for(&self.model.device, memory, batch, &needs).map_err(|error| match error {
            TrainError::DoesNotFit { batch, needed, available, largest_batch, .. } => {
                EvalError::BatchDoesNotFit { batch, needed, available, largest: largest_batch }
            }
            other => other.into(),
        })
    }

    fn needs(&self, memory: Memory, batch: usize) -> Result<Needs, TrainError> {
        Needs::of_labelled(&self.model, &self.optimizer, memory, batch, &|model, images| {
            let classes = Targets::One(vec![0; images.shape()[0]]);
            drop(self.top.forward_backward(model, images, &classes)?);
            Ok(())
        })
    }

    /// Class scores for rows of h; BatchNorm uses its running averages.
    pub(super) fn scores(&self, h: &[f32]) -> Result<Vec<f32>, EvalError> {
        self.top.scores(&self.model, h)
    }

    /// All tensors in use, in PyTorch's layouts; the unused layers of the head are left out.
    pub(super) fn tensors(&self) -> Result<Vec<NamedTensor>, EvalError> {
        let mut tensors = self.model.store()?;
        tensors.retain(|tensor| head_layer(&tensor.name).is_none_or(|layer| layer < self.top.head_layers));
        Ok(tensors)
    }

    fn update(&mut self, images: &[u8], targets: &Targets, rate: f64) -> Result<Step, EvalError> {
        let Network { model, top, optimizer } = self;
        let images = model.images(images)?;
        let Pass { loss, scores, gradients, mut averages } = top.forward_backward(model, images, targets)?;
        let loss = f64::from(loss.to_vec()?[0]);
        let correct = count_correct(&scores, targets)?;
        let squares = model.device.sum_of_squares(gradients.iter().map(|(_, gradient)| gradient))?;
        let finite = loss.is_finite() && squares.is_finite();
        if finite {
            for (id, average) in averages.drain() {
                model.parameters.set(id, average)?;
            }
            optimizer.step(rate, &mut model.parameters, &gradients)?;
        }
        Ok(Step { loss, correct, finite })
    }
}

impl Learner for Network {
    const NAME: &'static str = "fine-tuning";

    fn step(&mut self, images: &[u8], targets: &Targets, rate: f64) -> Result<Step, EvalError> {
        let device = self.model.device.clone();
        device.install(|| self.update(images, targets, rate))
    }
}

/// The results of a forward and a backward pass.
struct Pass {
    loss: Tensor,
    scores: Tensor,
    gradients: Gradients,
    averages: BufferUpdates,
}

impl TopLayers {
    /// A new classifier; its parameters join those of `model`.
    pub(super) fn new(
        model: &mut Model,
        classes: usize,
        head_layers: usize,
        seed: u64,
    ) -> Result<TopLayers, EvalError> {
        let inputs = model.head.dim_after(head_layers);
        let classifier =
            Linear::classifier("fc", inputs, classes, &model.device, seed, &mut model.parameters)?;
        Ok(TopLayers { head_layers, classifier })
    }

    /// Class scores for rows of h; BatchNorm uses its running averages.
    pub(super) fn scores(&self, model: &Model, h: &[f32]) -> Result<Vec<f32>, EvalError> {
        let dim = model.encoder.features();
        let mut tape = Tape::new(&model.parameters, Mode::Eval, &SingleProcess);
        let h = tape.input(Tensor::from_slice(&model.device, &[h.len() / dim, dim], h)?);
        let kept = model.head.forward_first(&mut tape, &h, self.head_layers)?;
        Ok(self.classifier.forward(&mut tape, &kept)?.tensor().to_vec()?)
    }

    /// Runs forward and backward from images and targets to the gradients of all parameters of `model` in use.
    fn forward_backward(&self, model: &Model, images: Tensor, targets: &Targets) -> Result<Pass, TrainError> {
        let mut tape = Tape::new(&model.parameters, Mode::Train, &SingleProcess);
        let images = tape.input(images);
        let h = model.encoder.forward(&mut tape, &images)?;
        let kept = model.head.forward_first(&mut tape, &h, self.head_layers)?;
        let scores = self.classifier.forward(&mut tape, &kept)?;
        drop((images, h, kept));
        let (loss, gradients) = backward_from_loss(&mut tape, &scores, targets)?;
        let scores = scores.tensor().clone();
        Ok(Pass { loss, scores, gradients, averages: tape.into_buffer_updates() })
    }
}

#[cfg(test)]
#[path = "../../../train/tests/formula/mod.rs"]
mod formula;

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use simclr_engine::Device;
    use simclr_train::Config;

    use super::formula::{IMAGES, set_weights, values, views};
    use super::*;

    const CONFIG: &str = r#"
[data]
image_size = 32
[encoder]
name = "resnet18"
width = 0.25
[head]
batch_norm = false
[train]
precision = "f32"
"#;

    /// `tools/golden/finetune.py` computed the curve and the weights, in f64.
    #[test]
    fn ten_steps_follow_pytorch() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/finetune.json")).unwrap();
        let numbers = |value: &Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
        };
        let config = Config::from_toml(CONFIG, "the test").unwrap();
        let model = Model::new(&config, &Device::cpu(1).unwrap()).unwrap();
        let (epochs, steps, batch) = (1, None, 2 * IMAGES);
        let sgd = Sgd { epochs, steps, batch, rate: 2e-4, weight_decay: 0.1, seed: 0 };
        let mut network = Network::new(&model, 10, 1, &sgd).unwrap();
        set_weights(&mut network.model);
        let after = golden["parameters_after"].as_object().unwrap();
        let before: Vec<Vec<f32>> = after.keys().map(|name| values(&network.model, name)).collect();
        let labels = Targets::One((0..2 * IMAGES as u32).map(|image| image % 10).collect());
        let (rates, losses) = (numbers(&golden["rates"]), numbers(&golden["losses"]));
        for (step, (&rate, &want)) in rates.iter().zip(&losses).enumerate() {
            let Step { loss, finite, .. } = network.step(&views(step), &labels, rate).unwrap();
            let off = (loss - want).abs() / want;
            println!("step {step}: {loss:.7}, PyTorch {want:.7}, off by {off:.1e}");
            assert!(finite && off < 1e-4, "step {step}: loss {loss} and not {want}: {off:.1e}");
        }
        // How far each value moved, to within a share of the largest movement.
        for ((name, want), before) in after.iter().zip(before) {
            let pairs = numbers(want).into_iter().zip(before.iter().zip(values(&network.model, name)));
            let (mut longest, mut worst) = (0.0f64, 0.0f64);
            for (want, (&before, after)) in pairs {
                longest = longest.max((want - f64::from(before)).abs());
                worst = worst.max((f64::from(after) - want).abs());
            }
            println!("{name}: moved by up to {longest:.1e}, off by {worst:.1e}");
            assert!(worst <= 0.1 * longest, "{name} moved by up to {longest:.1e} and is off by {worst:.1e}");
        }
    }
}
