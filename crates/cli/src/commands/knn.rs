//! `simclr knn`: how good an encoder is, judged by nearest neighbours among its features.

use anyhow::Result;
use clap::Args;
use simclr_eval::protocols;
use simclr_metrics::Knn as Classifier;

use crate::exit::Done;
use crate::judging::Judged;
use crate::settings::{above_zero, at_least_one};
use crate::watching::Watching;

const EXAMPLES: &str = "\
Examples:
  simclr knn runs/first --train photos/
  simclr knn runs/cifar --train cifar/train --test cifar/test --json";

/// Evaluate an encoder by nearest neighbours: quick, nothing is trained
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Knn {
    #[command(flatten)]
    judged: Judged,

    /// Number of neighbours that vote [default: a tenth of the training images, at least 1 and at most 200]
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>)]
    k: Option<usize>,

    /// A neighbour with cosine similarity s votes with weight exp(s / T)
    #[arg(long, value_name = "T", default_value = "0.1", value_parser = above_zero)]
    temperature: f64,
}

impl Knn {
    pub fn run(self) -> Result<Done> {
        let (encoder, splits) = self.judged.load()?;
        let mut watching = Watching::default();
        let models = self.judged.versus(&encoder, &splits, &mut watching)?;
        let usual = Classifier::among(splits.train().len());
        let options = Classifier { k: self.k.unwrap_or(usual.k), temperature: self.temperature };
        let mut watch = |progress| watching.see(progress);
        let evaluation = protocols::knn_of_images(&models, &splits, &options, &mut watch)?;
        drop(watching);
        self.judged.conclude((&encoder, &splits), evaluation)?;
        Ok(Done::Finished)
    }
}
