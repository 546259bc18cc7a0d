//! `simclr report`: a run as one HTML page.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use simclr_eval::protocols::{
    NeighbourOptions, Versus, assemble_report, encode, neighbour_rows, write_report,
};
use simclr_train::config::DeviceName;
use simclr_train::file_system::Disk;
use simclr_train::run_folder::RunFolder;

use crate::encoding::load_encoder;
use crate::exit::Done;
use crate::judging::splits;
use crate::settings::Threads;
use crate::watching::Watching;
use crate::{terminal, training};

/// Write a run as one HTML page: curves, accuracies, configuration
#[derive(Args, Debug)]
pub struct Report {
    /// The run folder
    run: PathBuf,

    /// Show nearest neighbours among these labelled images
    #[arg(long, value_name = "DATA")]
    train: Option<PathBuf>,

    /// Images whose neighbours are shown [default: those of --train, or a fifth of them set apart]
    #[arg(long, value_name = "DATA", requires = "train")]
    test: Option<PathBuf>,

    #[command(flatten)]
    threads: Threads,
}

impl Report {
    pub fn run(self) -> Result<Done> {
        let (run, config) = RunFolder::open(&self.run, std::sync::Arc::new(Disk))?;
        let neighbours = match &self.train {
            None => Vec::new(),
            Some(train) => {
                let device = training::device(DeviceName::Auto, self.threads.count())?;
                let encoder = load_encoder(&self.run, false, &device)?;
                let splits =
                    splits(&encoder, train, self.test.as_deref())?.strict(encoder.config.data.strict);
                let size = encoder.model.image_size();
                let mut watching = Watching::default();
                let models = Versus::alone(encoder.model);
                let encoded = encode(&models, &splits, false, &mut |progress| watching.see(progress))?;
                neighbour_rows(&encoded.trained, &splits, size, &NeighbourOptions::default())?
            }
        };
        let page = write_report(&run, &assemble_report(&run, &config, neighbours)?)?;
        terminal::say(&format!("report: {}", page.display()));
        Ok(Done::Finished)
    }
}
