//! `simclr report`: a run as one HTML page.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use simclr_eval::protocols::{Pictures, Versus, assemble_report, encode, pictures, write_report};
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

    /// Labelled images: show nearest neighbours among them, and t-SNE maps of the test images
    #[arg(long, value_name = "DATA")]
    train: Option<PathBuf>,

    /// Test images, whose neighbours and maps are shown [default: the test images of --train, or a fifth of its images]
    #[arg(long, value_name = "DATA", requires = "train")]
    test: Option<PathBuf>,

    #[command(flatten)]
    threads: Threads,
}

impl Report {
    pub fn run(self) -> Result<Done> {
        let (run, config) = RunFolder::open(&self.run, std::sync::Arc::new(Disk))?;
        let pictures = match &self.train {
            None => Pictures::default(),
            Some(train) => {
                let device = training::device(DeviceName::Auto, self.threads.count())?;
                let encoder = load_encoder(&self.run, false, &device)?;
                let splits =
                    splits(&encoder, train, self.test.as_deref())?.strict(encoder.config.data.strict);
                let size = encoder.model.image_size();
                let mut watching = Watching::default();
                let models = Versus::alone(encoder.model);
                let encoded = encode(&models, &splits, true, &mut |progress| watching.see(progress))?;
                pictures(&encoded.trained, &splits, size)?
            }
        };
        let page = write_report(&run, &assemble_report(&run, &config, pictures)?)?;
        terminal::say(&format!("report: {}", page.display()));
        Ok(Done::Finished)
    }
}
