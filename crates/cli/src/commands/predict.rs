//! `simclr predict`: the classes that a fine-tuned network predicts for images.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use simclr_data::Reading;
use simclr_eval::EvalError;
use simclr_eval::embedding::{Images, Split};
use simclr_eval::protocols::{Classifier, Predicted, Recognised, SavedNetwork, saved_networks};
use simclr_exchange::FineTunedFile;
use simclr_train::file_system::{AtomicFile, Disk};
use simclr_train::run_folder::RunFolder;

use crate::data::{Opening, ReadBy};
use crate::encoding::{perhaps_swapped, warn_of_broken};
use crate::evaluation_progress::EvaluationProgress;
use crate::exit::{Done, usage};
use crate::interrupt::{self, Watch};
use crate::settings::{OnDevice, Threads, at_least_one, part};
use crate::{data, out, terminal, training};

const EXAMPLES: &str = "\
Examples:
  simclr finetune runs/first --train labelled/ --labels 100%
  simclr predict runs/first photos/ --out labels.csv
  simclr predict runs/first/evaluation/finetune-10%.safetensors photos/ \\
      --top 3 --json
  simclr predict runs/first cat.jpg

The table has the columns name (escaped as in `simclr embed --help`), label and probability, in the \
order of the images; with --top N also label_2, probability_2 and so on; and split after name where \
DATA has train/ and test/. Images are looked at as `simclr finetune` looks at its test images: central \
crops. Where the images have labels, all of classes that the network knows, the accuracy is printed, \
separately for training and test images: the network may have learnt from the former. \
`top1` of --json is that of the test images, where DATA has train/ and test/.";

/// So many images of one label are hardly a matter of chance.
const MANY: usize = 20;

/// Label images with a network that `finetune` made, as a CSV table
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", data::FORMS))]
pub struct Predict {
    /// A fine-tuned network (RUN/evaluation/finetune-*.safetensors), or the folder of a run that has one
    #[arg(value_name = "FILE|RUN")]
    network: PathBuf,

    /// The images; several are read as one; train/ and test/ are both included
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// The .csv file to write; - is standard output [default: -]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Classes to name of each image, the likeliest first
    #[arg(long, value_name = "N", default_value = "1", value_parser = at_least_one::<usize>)]
    top: usize,

    /// Use only this part of the images: train, test or unlabelled
    #[arg(long, value_name = "PART", value_parser = part(), hide_possible_values = true)]
    split: Option<Split>,

    /// Stop at the first image that cannot be read, instead of skipping it
    #[arg(long)]
    strict: bool,

    #[command(flatten)]
    threads: Threads,

    #[command(flatten)]
    on: OnDevice,

    /// Print one JSON object on standard output, after the table if that is there too
    #[arg(long)]
    json: bool,
}

impl Predict {
    pub fn run(mut self) -> Result<Done> {
        self.out = self.out.filter(|out| out != Path::new("-"));
        if let Some(out) = &self.out {
            out::check_ending(out, "csv")?;
            out::check_place(out)?;
            out::check_apart(out, &self.data)?;
        }
        let file = network_of(&self.network).map_err(|error| perhaps_swapped(error, &self.data))?;
        let read = FineTunedFile::read(&file).map_err(anyhow::Error::from);
        let network = read.map_err(|error| perhaps_swapped(error, &self.data))?;
        if self.top > network.classes.len() {
            return Err(usage(format!(
                "--top {}: {} knows {} classes; give at most that",
                self.top,
                file.display(),
                network.classes.len()
            )));
        }
        let device = training::device(self.on.device.unwrap_or_default(), self.threads.count())?;
        let classifier = Classifier::new(&network.config, &network.tensors, network.classes, &device)?;
        terminal::say(&format!(
            "{}: {} of width {}, {} classes, {device}",
            file.display(),
            network.config.encoder.name,
            network.config.encoder.width,
            classifier.classes().len(),
        ));
        let source =
            Opening::new(&network.config.data, device.threads()).strict(self.strict).open(&self.data)?;
        let images = Images::of(&source, self.split)?;
        data::warn_of_dark("", [images.dataset()], network.config.data.window, ReadBy::Run);

        let start = Instant::now();
        let predicted = match self.write(&classifier, &images) {
            Err(EvalError::Stopped) => return Ok(Done::Interrupted),
            // The reader of the table may have closed the pipe.
            Err(EvalError::Write { source, .. }) if self.out.is_none() => {
                let error = format!("cannot write to standard output: {source}");
                return Err(io::Error::new(source.kind(), error).into());
            }
            predicted => predicted?,
        };
        self.conclude(&predicted, classifier.classes(), start.elapsed().as_secs_f64())?;
        Ok(Done::Finished)
    }

    /// Writes the table to its file, whole or not at all, or to standard output.
    fn write(&self, classifier: &Classifier, images: &Images) -> Result<Predicted, EvalError> {
        let reading = Reading { threads: classifier.device().threads(), strict: self.strict };
        let count = images.dataset().len();
        let mut progress = EvaluationProgress::default();
        let mut each = |done| {
            progress.embedding(done, count);
            if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let Some(out) = &self.out else {
            let _watch = Watch::start("stopping");
            let name = Path::new("standard output");
            return classifier.predict(images, self.top, reading, (&mut io::stdout(), name), &mut each);
        };
        let _watch = Watch::start("stopping: nothing will be written");
        let failed = |source| EvalError::Write { path: out.clone(), source };
        let mut file = AtomicFile::create(&Disk, out).map_err(failed)?;
        let predicted = classifier.predict(images, self.top, reading, (&mut file, out), &mut each)?;
        file.commit().map_err(failed)?;
        Ok(predicted)
    }

    fn conclude(&self, predicted: &Predicted, classes: &[String], seconds: f64) -> Result<()> {
        let Predicted { images, recognised, broken, .. } = predicted;
        warn_of_broken(broken, "will have no row");
        if let Some(only) =
            predicted.only_label().filter(|_| *images >= MANY && predicted.top1() != Some(1.0))
        {
            terminal::warn(&format!(
                "all {} images got the label {:?}, one of {}: the network may tell nothing of them, if it was made from few \
                 labels or of other images",
                terminal::grouped(*images as u64),
                classes[only],
                classes.len()
            ));
        }
        if let Some(out) = &self.out {
            terminal::say(&format!("{}: {}", out.display(), terminal::counted(*images, "row")));
        }
        for part in recognised {
            let Some(top1) = part.top1() else { continue };
            let (which, rest) = match part.split {
                None => ("", ", but the network may have learnt from some of them"),
                Some(Split::Test) => ("test ", ""),
                Some(Split::Train) => ("training ", ", but the network may have learnt from them"),
                Some(Split::Unlabelled) => ("other ", ""),
            };
            let top1 = terminal::percent(top1);
            terminal::say(&format!("of the {which}images with a label {top1} are recognised{rest}"));
        }
        if self.json {
            let part = |part: &Recognised| json!({ "split": part.split, "labelled": part.labelled, "top1": part.top1() });
            let parts: Vec<Value> = recognised.iter().map(part).collect();
            let object = json!({
                "images": images,
                "skipped": broken.len(),
                "broken": broken,
                "top1": predicted.top1(),
                "splits": parts,
                "seconds": seconds,
                "out": self.out.as_ref().map(|out| out.to_string_lossy()),
            });
            terminal::print_json(&object)?;
        }
        Ok(())
    }
}

/// The file of a network: `path` itself or, if it is a run, the file of its only fine-tuned network.
fn network_of(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let (run, _) = RunFolder::open(path)?;
    let found = saved_networks(&run)?;
    let run = terminal::quoted_path(path);
    match &found[..] {
        [network] => Ok(network.path.clone()),
        [] => Err(usage(format!(
            "{run} has no fine-tuned network; make one: simclr finetune {run} --train LABELLED"
        ))),
        several => {
            let networks: String =
                several.iter().map(|network| format!("\n  {}", described(network))).collect();
            Err(usage(format!(
                "{run} has {} fine-tuned networks; give one of them, in place of the run:{networks}",
                several.len()
            )))
        }
    }
}

/// Describes a fine-tuned network: its path, its accuracy, its settings and its age.
fn described(SavedNetwork { path, written, evaluation }: &SavedNetwork) -> String {
    let known = match evaluation {
        Some(found) => vec![terminal::percent(found.trained.top1), found.settings()],
        None => vec!["no result".to_owned()],
    };
    let age = written.and_then(|written| written.elapsed().ok()).map(terminal::ago);
    let known: Vec<_> = known.into_iter().chain(age).filter(|part| !part.is_empty()).collect();
    format!("{}  {}", terminal::quoted_path(path), known.join(", "))
}
