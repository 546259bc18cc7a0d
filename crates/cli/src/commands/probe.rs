//! `simclr probe`: what h and z reveal about the transformation of an image.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use simclr_eval::protocols::{self, Probe as Probed, ProbeOptions, ProbeRow, Transformation, named};
use simclr_train::config::HeadKind;

use crate::encoding::{Encoding, open_for};
use crate::evaluating::{NOTHING_WRITTEN, Results, warn_of_few_validation_images};
use crate::evaluation_progress::EvaluationProgress;
use crate::exit::Done;
use crate::interrupt::Watch;
use crate::settings::seed;
use crate::{data, terminal};

const ABOUT: &str = "\
The paper's table 3: z, which is discarded after training, has lost information that h still holds. Some images are \
made grey, rotated, corrupted by noise, or reduced to their edges, and logistic regression on h and on z has to tell \
which (in the paper a small MLP). At most 6,000 images are used, a third of them to test on. Chance is the share of the \
answer that is right most often: four of five images keep their colours.

Example:
  simclr probe runs/first photos/";

/// Measure what h and z still encode about transformations of an image
#[derive(Args, Debug)]
#[command(after_help = format!("{ABOUT}\n\n{}", data::FORMS))]
pub struct Probe {
    /// The run folder
    run: PathBuf,

    /// The images; no labels are used; several are read as one
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// Seed for the transformations
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed)]
    seed: u64,

    #[command(flatten)]
    results: Results,

    #[command(flatten)]
    encoding: Encoding,
}

impl Probe {
    pub fn run(self) -> Result<Done> {
        let encoder = self.encoding.load_beside(&self.run, &self.data)?;
        self.results.check(&encoder)?;
        let images = open_for(&encoder, &self.data, self.encoding.is_strict(&encoder))?.to_pretrain();
        let options = ProbeOptions {
            with_z: encoder.config.head.kind != HeadKind::None,
            seed: self.seed,
            strict: self.encoding.is_strict(&encoder),
        };
        let mut progress = EvaluationProgress::default();
        let signals = Watch::ending(NOTHING_WRITTEN);
        let of = (&encoder.model, encoder.step);
        let found = protocols::probe(of, &images, &options, &mut |report| progress.see(report))?;
        let found = found.of(named(&self.data));
        drop((progress, signals));
        if found.skipped > 0 {
            let images = terminal::counted(found.skipped, "image");
            terminal::warn(&format!("the figures are without {images} that could not be read"));
        }
        if !found.rows.iter().any(|row| row.transformation == Transformation::Gray) {
            terminal::warn(
                "all images are grey, so whether they were turned grey cannot be measured; that row is left out",
            );
        }
        if let Some(images) = found.validation_images {
            warn_of_few_validation_images("the weights of L2 were", images);
        }
        // The result is printed even if it cannot be written, and written even if it cannot be printed.
        let file = found.record(&encoder.run, &self.results.folder(&encoder));
        self.tell(&found)?;
        terminal::say(&format!("written to {}", file?.display()));
        Ok(Done::Finished)
    }

    fn tell(&self, found: &Probed) -> Result<()> {
        let Probed { train_images, test_images, rows, .. } = found;
        if self.encoding.json {
            let row = |row: &ProbeRow| {
                let [h, z] = row.transformation.paper();
                json!({
                    "transformation": row.transformation, "chance": row.chance, "h": row.h,
                    "h_interval": row.h_interval, "z": row.z, "z_interval": row.z_interval, "paper_h": h,
                    "paper_z": z,
                })
            };
            let rows: Vec<Value> = rows.iter().map(row).collect();
            let object = json!({
                "rows": rows, "train_images": train_images, "validation_images": found.validation_images,
                "test_images": test_images, "skipped": found.skipped, "data": found.data, "seed": found.seed,
            });
            terminal::print_json(&object)?;
            return Ok(());
        }
        terminal::print(&format!(
            "trained on {}, tested on {}",
            terminal::counted(*train_images, "image"),
            terminal::grouped(*test_images as u64)
        ))?;
        let line = |[task, chance, h, h_interval, z, z_interval, paper]: [&str; 7]| {
            terminal::print(&format!(
                "{task:<30} {chance:>6} {h:>6} {h_interval:>14} {z:>6} {z_interval:>14} {paper:>12}"
            ))
        };
        line(["", "chance", "h", "95% of h", "z", "95% of z", "paper: h, z"])?;
        let interval = |found: &Option<[f64; 2]>| {
            found.map_or("-".to_owned(), |[low, high]| {
                format!("{:.1} to {}", 100.0 * low, terminal::percent(high))
            })
        };
        for row @ ProbeRow { transformation, .. } in rows {
            let [paper_h, paper_z] = transformation.paper().map(terminal::percent);
            line([
                transformation.title(),
                &terminal::percent(row.chance),
                &terminal::percent(row.h),
                &interval(&row.h_interval),
                &row.z.map_or("-".to_owned(), terminal::percent),
                &interval(&row.z_interval),
                &format!("{paper_h}, {paper_z}"),
            ])?;
        }
        terminal::print(
            "the paper's are of other networks, with these transformations in their pretraining, and used MLP classifiers (arXiv:2002.05709, table 3)",
        )?;
        Ok(())
    }
}
