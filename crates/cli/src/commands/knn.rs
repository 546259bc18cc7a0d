//! `simclr knn`: how good an encoder is, judged by nearest neighbours among its features.

use anyhow::Result;
use clap::Args;
use simclr_eval::protocols;
use simclr_metrics::Knn as Classifier;

use crate::evaluating::{EvaluationArgs, NOTHING_WRITTEN};
use crate::evaluation_progress::EvaluationProgress;
use crate::exit::Done;
use crate::interrupt::Watch;
use crate::settings::{above_zero, at_least_one};

const EXAMPLES: &str = "\
Examples:
  simclr knn runs/first --train photos/
  simclr knn runs/cifar --train cifar/train --test cifar/test --json";

/// Evaluate an encoder by nearest neighbours: quick, nothing is trained
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Knn {
    #[command(flatten)]
    args: EvaluationArgs,

    /// Number of neighbours that vote [default: a tenth of the training images, at least 1 and at most 200]
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>)]
    k: Option<usize>,

    /// A neighbour with cosine similarity s votes with weight exp(s / T)
    #[arg(long, value_name = "T", default_value = "0.1", value_parser = above_zero)]
    temperature: f64,
}

impl Knn {
    pub fn run(self) -> Result<Done> {
        let (encoder, splits) = self.args.load()?;
        let mut progress = EvaluationProgress::default();
        let signals = Watch::ending(NOTHING_WRITTEN);
        let models = self.args.encoders(&encoder, &splits, &mut progress)?;
        let usual = Classifier::among(splits.train().len());
        let options = Classifier { k: self.k.unwrap_or(usual.k), temperature: self.temperature };
        let mut watch = |report| progress.see(report);
        let evaluation = protocols::knn_of_images(&models, &splits, &options, &mut watch)?;
        drop((progress, signals));
        self.args.write_and_print((&encoder, &splits), evaluation)?;
        Ok(Done::Finished)
    }
}
