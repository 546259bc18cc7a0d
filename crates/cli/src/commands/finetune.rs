//! `simclr finetune`: how much a pretrained encoder helps where there are few labels.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use simclr_eval::protocols::{
    self, Edge, Evaluation, FineTune, FineTuned, Labels, Protocol, Rate, Scores, Splits, TrainedEncoder,
    network_file, network_of_other_data,
};
use simclr_exchange::{StateDict, Trained};

use crate::encoding::{memory_to_train, prepare_to_train};
use crate::evaluating::{EvaluationArgs, NOTHING_WRITTEN, say_edge, warn_of_chosen};
use crate::evaluation_progress::EvaluationProgress;
use crate::exit::{Done, usage};
use crate::interrupt::Watch;
use crate::settings::{at_least_one, seed, zero_or_more};
use crate::terminal;

const EXAMPLES: &str = "\
The paper's semi-supervised protocol: SGD with Nesterov momentum 0.9, a cosine schedule without warm-up, random crops and flips, BatchNorm \
with batch statistics; tested on central crops. For comparison, the same network is trained from random weights with the same labels and \
the same number of steps. With --rate tuned each of the two has the rate that suits it, for about four times the work. Each class gets the same number of labels; the same seed draws the same ones, and the 1% subset is part of the \
10% subset.

The fine-tuned network is saved next to its result, as RUN/evaluation/finetune-10%.safetensors, under torchvision's names: \
the encoder, and the classifier as fc.weight and fc.bias. With --out both lie there, and the run and its report keep what they have. `simclr predict` labels images with it. Settings that are given and not the \
default are part of both names, such as finetune-10%-seed-1. A network that was fine-tuned on other data is never \
replaced: give --out, or move it away. Nothing is saved before the end.

Examples:
  simclr finetune runs/cifar --train cifar/ --labels 1%
  simclr finetune runs/cifar --train cifar/ --labels 1% --rate tuned
  simclr finetune runs/first --train labelled/ --labels 200 \\
      --epochs 100 --no-random
  simclr finetune runs/v2 --train imagenet/train \\
      --test imagenet/val --labels 10% --head-layers 1 --json";

/// In fewer steps than this the paper's low learning rate does not train a network enough.
const FEW_STEPS: u64 = 300;

/// The details of a result that say how the network was trained.
const SETTINGS: [&str; 7] = ["labels", "head_layers", "epochs", "batch", "rate", "weight_decay", "seed"];

/// Fine-tune a copy of an encoder on a few labels, to see what pretraining was worth
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Finetune {
    #[command(flatten)]
    args: EvaluationArgs,

    /// Labels to learn from: a share, such as 1%, 10% or 100%, or a number of images in total
    #[arg(long, value_name = "SHARE", default_value = "10%")]
    labels: Labels,

    /// Epochs [default: 60 with less than 10% of the labels, else 30]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    epochs: Option<u64>,

    /// Images per step [default: 4096 for 1,281,167 labelled images and in proportion for fewer, but at least 32;
    /// at most half of those learnt from, and what fits into memory]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u32>)]
    batch: Option<u32>,

    /// Initial learning rate of both networks; or several, separated by commas, of which each network gets the one
    /// that does best on a fifth of its labels; or tuned: 1, 3, 10 and 30 times the default [default: 0.05 x batch /
    /// 256, the paper's for pretrained networks]
    #[arg(long, value_name = "X")]
    rate: Option<Rate>,

    /// Weight decay
    #[arg(long, value_name = "X", default_value = "0", value_parser = zero_or_more)]
    weight_decay: f64,

    /// Layers of the projection head to keep below the classifier: 0 as in the paper, 1 as in SimCLR v2
    #[arg(long, value_name = "N", default_value_t = 0)]
    head_layers: usize,

    /// Seed for the subset, the classifier, the order and the crops
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed)]
    seed: u64,
}

/// Says how much the choice of a rate is worth, if there was one; `name` is what the encoder is called.
fn tell_of_choice(evaluation: &Evaluation, name: &str) {
    warn_of_chosen("the rates were", evaluation);
    let random = evaluation.random.as_ref().map(|random| (evaluation.baseline(), random));
    for (name, Scores { details, .. }) in [(name, &evaluation.trained)].into_iter().chain(random) {
        let edge = details.get("rate_at_edge").and_then(|edge| Edge::deserialize(edge).ok());
        if let Some((edge, rate)) = edge.zip(details.get("rate").and_then(Value::as_f64)) {
            say_edge(name, rate, edge, "--rate");
        }
    }
}

impl Finetune {
    pub fn run(self) -> Result<Done> {
        let (encoder, splits) = self.args.load()?;
        prepare_to_train(&encoder)?;
        let options = FineTune {
            epochs: self.epochs,
            batch: self.batch.map(|batch| batch as usize),
            rate: self.rate.clone().unwrap_or_default(),
            weight_decay: self.weight_decay,
            head_layers: self.head_layers,
            memory: memory_to_train(&encoder),
            seed: self.seed,
            ..FineTune::new(self.labels)
        };
        self.check_unneeded(&encoder, &splits, &options.check(&encoder.model, &splits)?)?;
        let mut progress = EvaluationProgress::default();
        let signals = Watch::ending(NOTHING_WRITTEN);
        let models = self.args.encoders(&encoder, &splits, &mut progress)?;
        let tuned = protocols::finetune(&models, &splits, &options, &mut |report| progress.see(report))?;
        drop((progress, signals));
        let (evaluation, steps) = (tuned.evaluation.clone(), tuned.steps);
        let compared = evaluation.random.is_some();
        // The network first, so that a result never lies beside the network of another. Without it, the figures are
        // only printed.
        let kept = self.keep(&encoder, tuned);
        if kept.is_err() {
            self.args.print(&evaluation, encoder.name())?;
        }
        let file = kept?;
        // A result that cannot be printed is no reason to hide where the network is.
        let written = self.args.write_and_print((&encoder, &splits), evaluation.clone());
        tell_of_choice(&evaluation, encoder.name());
        if self.rate.is_none() && steps < FEW_STEPS {
            terminal::say(&format!(
                "only {}: --rate tuned or more --epochs usually do better",
                terminal::counted(steps as usize, "step")
            ));
        }
        if self.rate.is_none() && compared {
            terminal::say(
                "the learning rate is the paper's for pretrained networks; for a fair comparison let each have its own: \
                 --rate tuned",
            );
        }
        terminal::say(&format!("the fine-tuned network: {}", file.display()));
        terminal::say(&format!(
            "to label images with it: simclr predict {} PHOTOS --out labels.csv",
            terminal::quoted_path(&file)
        ));
        written?;
        Ok(Done::Finished)
    }

    /// Refuses to replace a network that was fine-tuned on other data: its classes may be others, and only training
    /// brings it back.
    fn check_unneeded(&self, encoder: &TrainedEncoder, splits: &Splits, protocol: &Protocol) -> Result<()> {
        let folder = self.args.results.folder(encoder);
        let train = splits.origin().map_or("", |origin| &*origin.train);
        let Some(before) = network_of_other_data(&folder, protocol, train) else { return Ok(()) };
        let file = network_file(&folder, protocol);
        Err(usage(format!(
            "{} was fine-tuned on {before}, and the network of {train} would replace it; give another folder with --out \
             DIR, or move the file away",
            file.display()
        )))
    }

    /// Writes the fine-tuned network next to its result.
    fn keep(&self, encoder: &TrainedEncoder, tuned: FineTuned) -> Result<PathBuf> {
        let folder = self.args.results.folder(encoder);
        let file = network_file(&folder, &tuned.evaluation.protocol);
        fs::create_dir_all(&folder)
            .map_err(|error| usage(format!("cannot make the folder {}: {error}", folder.display())))?;
        let TrainedEncoder { model, config, step, epoch, .. } = encoder;
        let trained = Trained { model, config, step: step + tuned.steps, epoch: *epoch };
        let classes = serde_json::to_string(&tuned.classes)?;
        let mut settings = tuned.evaluation.trained.details.clone();
        settings.retain(|name, _| SETTINGS.contains(&name.as_str()));
        StateDict::of(&trained, tuned.weights)?
            .with_fact("classes", classes)
            .with_fact("finetune", serde_json::to_string(&settings)?)
            .save(&file)?;
        Ok(file)
    }
}
