//! `simclr linear`: how good an encoder is, judged by a linear classifier on its features.

use anyhow::Result;
use clap::{Args, ValueEnum};
use simclr_eval::protocols::{self, Evaluation, LogisticOptions, Sgd, Splits, TrainedEncoder};

use crate::encoding::check_head;
use crate::evaluating::{EvaluationArgs, NOTHING_WRITTEN, warn_of_chosen};
use crate::evaluation_progress::{EvaluationProgress, at_rate, training_plan};
use crate::exit::{Done, usage};
use crate::interrupt::Watch;
use crate::settings::{above_zero, at_least_one, seed, zero_or_more};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  simclr linear runs/cifar --train cifar/
  simclr linear runs/cifar --train cifar/train --test cifar/test \\
      --method sgd --epochs 30 --json
  simclr linear runs/cifar --train cifar/ --projection --method sgd";

/// Evaluate an encoder by a linear classifier on its frozen features
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Linear {
    #[command(flatten)]
    args: EvaluationArgs,

    /// How the classifier is trained
    #[arg(long, value_enum, default_value_t = Method::Logistic)]
    method: Method,

    /// Evaluate z, the output of the projection head, instead of h (the paper, on ImageNet: 56 to 58% on z, over 10
    /// points less than on h)
    #[arg(long)]
    projection: bool,

    /// Epochs of --method sgd [default: 100 for images up to 32 pixels, 90 above]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    epochs: Option<u64>,

    /// Images per step of --method sgd [default: 512 for images up to 32 pixels, 4096 above; at most a tenth of
    /// those learnt from]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u32>)]
    batch: Option<u32>,

    /// Initial learning rate of --method sgd [default: 0.1 for images up to 32 pixels, 0.1 x batch / 256 above]
    #[arg(long, value_name = "X", value_parser = above_zero)]
    rate: Option<f64>,

    /// Weight decay of --method sgd [default: 0; 1e-6 in the official code]
    #[arg(long, value_name = "X", value_parser = zero_or_more)]
    weight_decay: Option<f64>,

    /// Seed for the classifier
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed)]
    seed: u64,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Logistic regression by L-BFGS on the features of central crops, standardised (mean 0 and deviation 1 each),
    /// with the L2 penalty chosen on a validation split, of 45 from 1e-6 to 1e5, those left out that come long after
    /// the best
    Logistic,
    /// SGD on random crops and flips: the paper's protocol; each epoch is one pass over the images
    Sgd,
}

impl Linear {
    pub fn run(self) -> Result<Done> {
        self.check()?;
        let (encoder, splits) = self.args.load()?;
        if self.projection {
            check_head(&encoder, &self.args.run)?;
        }
        let mut progress = EvaluationProgress::default();
        let signals = Watch::ending(NOTHING_WRITTEN);
        let evaluation = self.measure(&encoder, &splits, &mut progress)?;
        drop((progress, signals));
        warn_of_chosen("the weight of L2 was", &evaluation);
        self.args.write_and_print((&encoder, &splits), evaluation)?;
        Ok(Done::Finished)
    }

    /// Rejects arguments that only the other method takes, and that would be ignored.
    fn check(&self) -> Result<()> {
        let given = [
            ("--epochs", self.epochs.is_some()),
            ("--batch", self.batch.is_some()),
            ("--rate", self.rate.is_some()),
            ("--weight-decay", self.weight_decay.is_some()),
        ];
        match given.into_iter().find(|&(_, given)| given && self.method == Method::Logistic) {
            Some((name, _)) => Err(usage(format!(
                "{name} is for --method sgd; logistic regression has none: leave it out, or add --method sgd"
            ))),
            None => Ok(()),
        }
    }

    fn measure(
        &self,
        encoder: &TrainedEncoder,
        splits: &Splits,
        progress: &mut EvaluationProgress,
    ) -> Result<Evaluation> {
        if self.method == Method::Logistic {
            let models = self.args.encoders(encoder, splits, progress)?;
            let mut watch = |report| progress.see(report);
            let encoded = protocols::encode(&models, splits, self.projection, &mut watch)?;
            let options = LogisticOptions { seed: self.seed, ..LogisticOptions::default() };
            let fit = if self.projection { protocols::logistic_z } else { protocols::logistic };
            return Ok(fit(&encoder.model.device, &encoded, &options, &mut watch)?);
        }
        let batch = self.batch.map(|batch| batch as usize);
        let usual = Sgd::linear(encoder.model.image_size(), splits.train().len(), batch);
        let options = Sgd {
            epochs: self.epochs.unwrap_or(usual.epochs),
            rate: self.rate.unwrap_or(usual.rate),
            weight_decay: self.weight_decay.unwrap_or(usual.weight_decay),
            seed: self.seed,
            ..usual
        };
        let images = splits.train().len();
        options.check(images)?;
        terminal::say(&format!(
            "{}: {}, {}",
            terminal::counted(images, "image"),
            training_plan(images, options.epochs, options.batch),
            at_rate(options.rate)
        ));
        let models = self.args.encoders(encoder, splits, progress)?;
        let fit = if self.projection { protocols::linear_sgd_z } else { protocols::linear_sgd };
        Ok(fit(&models, splits, &options, &mut |report| progress.see(report))?)
    }
}
