//! `simclr report`: a run as one HTML page.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use simclr_eval::embedding::Images;
use simclr_eval::protocols::{
    Opened, Pictures, Versus, assemble_report, encode, encode_all, pictures, trained_with,
    unlabelled_pictures, write_report,
};
use simclr_train::run_folder::{REPORT, RunFolder};
use simclr_train::{Config, TrainError};

use super::ablate;
use crate::encoding::{load_encoder, open_for};
use crate::evaluating::pair;
use crate::evaluation_progress::EvaluationProgress;
use crate::exit::{Done, usage};
use crate::settings::{OnDevice, Threads};
use crate::{out, terminal, training};

/// Write a run as one HTML page: curves, accuracies, configuration
#[derive(Args, Debug)]
pub struct Report {
    /// The run folder
    run: PathBuf,

    /// Images: show nearest neighbours among them and t-SNE maps, of the test images if they have labels, else of all
    /// [default: keep those of the page before, if they are of the same checkpoint]
    #[arg(long, value_name = "DATA")]
    train: Option<PathBuf>,

    /// Labelled test images, whose neighbours and maps are shown [default: the test images of --train, or a fifth of
    /// its images]
    #[arg(long, value_name = "DATA", requires = "train")]
    test: Option<PathBuf>,

    /// The .html file to write [default: report.html in the run folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    on: OnDevice,
}

impl Report {
    pub fn run(self) -> Result<Done> {
        let (run, config) = match RunFolder::open(&self.run) {
            Err(TrainError::NoRun { .. }) if ablate::is_study(&self.run) => {
                let page = self.run.join(REPORT);
                let page = match page.exists() {
                    true => format!("its page is {}", page.display()),
                    false => "none of its runs is finished yet, so it has no page".to_owned(),
                };
                return Err(usage(format!(
                    "{} is the folder of a study, not a run; {page}; for the page of one run, give that run's folder",
                    self.run.display(),
                )));
            }
            found => found?,
        };
        let page = self.page(&run)?;
        let (pictures, config) = match &self.train {
            None => (kept(&run, &page)?, trained_with(&run, config)),
            Some(train) => self.pictures(train)?,
        };
        write_report(&assemble_report(&run, &config, pictures)?, &page)?;
        terminal::say(&format!("report: {}", page.display()));
        Ok(Done::Finished)
    }

    /// The file of the page. One that cannot be written is an error before any work is done.
    fn page(&self, run: &RunFolder) -> Result<PathBuf> {
        let Some(page) = &self.out else {
            out::check_folder(run.path(), "write the page elsewhere: --out FILE")?;
            return Ok(run.report());
        };
        out::check_ending(page, "html")?;
        out::check_place(page)?;
        let data: Vec<PathBuf> = self.train.iter().chain(&self.test).cloned().collect();
        out::check_apart(page, &data)?;
        Ok(page.clone())
    }

    /// Pictures of labelled images if at least two classes are known, else of images without labels; and the
    /// configuration that their encoder was trained with.
    fn pictures(&self, train: &Path) -> Result<(Pictures, Config)> {
        let device = training::device(self.on.device.unwrap_or_default(), self.threads.count())?;
        let encoder = load_encoder(&self.run, false, &device)?;
        let strict = encoder.config.data.strict;
        let open = |path: &Path| {
            let paths = vec![path.to_owned()];
            anyhow::Ok(Opened { source: open_for(&encoder, &paths, strict)?, paths })
        };
        let train = open(train)?;
        let mut progress = EvaluationProgress::default();
        let mut watch = |report| progress.see(report);
        let images = Images::of(&train.source, None)?;
        if self.test.is_none() && images.dataset().classes().len() < 2 {
            terminal::say("no classes: neighbours and maps are of all images");
            let embedding = encode_all(&encoder.model, images.dataset(), strict, &mut watch)?;
            let pictures = unlabelled_pictures(&embedding, images.dataset().as_ref(), &encoder)?;
            return Ok((pictures, encoder.config));
        }
        let test = self.test.as_deref().map(open).transpose()?;
        let splits = pair(train, test, device.threads())?.strict(strict);
        let encoded = encode(&Versus::alone(encoder.model.clone()), &splits, true, &mut watch)?;
        Ok((pictures(&encoded.trained, &splits, &encoder)?, encoder.config))
    }
}

/// The image section of the existing page if it is of the newest checkpoint; warns of what the new page loses.
fn kept(run: &RunFolder, page: &Path) -> Result<Pictures> {
    let newest = run.checkpoints(1).list()?.last().map(|&(step, _)| step);
    let lost = match Pictures::before(&run.report()) {
        Some(before) if newest == Some(before.step()) => {
            terminal::say("neighbours and maps of images are those of the page before; --train shows others");
            return Ok(before);
        }
        Some(before) => {
            format!("those before are of step {}, and there is another checkpoint now", before.step())
        }
        // It may be of another run.
        None if Pictures::before(page).is_some() => {
            format!("only the run's own page keeps them, not {}", page.display())
        }
        None => return Ok(Pictures::default()),
    };
    terminal::warn(&format!(
        "neighbours and maps of images are left out: {lost}; --train DATA shows them anew"
    ));
    Ok(Pictures::default())
}
