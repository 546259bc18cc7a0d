//! Reports errors, and turns them into exit codes: 0 success, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Error, Result};
use simclr_augment::AugmentError;
use simclr_data::DataError;
use simclr_eval::EvalError;
use simclr_exchange::ExchangeError;
use simclr_train::TrainError;
use simclr_train::config::KEYS;
use simclr_train::run_folder::{ENCODER, RunFolder};

use crate::terminal;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
/// The code that a shell reports for a process ended by an interrupt: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The command did all its work.
    Finished,
    /// The command stopped at the user's request, after saving what it had done.
    Interrupted,
}

/// The command was given something that it cannot work with. The message says what would be right.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Ctrl-C came before there was anything to save. The reply to it has already been printed.
#[derive(Debug)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

/// How to continue a run after an error from outside. Printed after the error.
#[derive(Debug)]
pub struct Rescued(pub String);

impl fmt::Display for Rescued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns a [`Usage`] error with this message.
pub fn usage(message: impl Into<String>) -> Error {
    Usage(message.into()).into()
}

/// Prints an error to standard error, and returns the exit code of the process.
pub fn code(result: Result<Done>) -> ExitCode {
    match result {
        Ok(Done::Finished) => ExitCode::SUCCESS,
        Ok(Done::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) if error.is::<Stopped>() => ExitCode::from(INTERRUPTED),
        // The reader of our output has seen enough: `simclr ... | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error);
            ExitCode::from(if is_usage(&error) { USAGE } else { FAILURE })
        }
    }
}

fn tell(error: &Error) {
    let mut lines = lines(error).into_iter();
    terminal::error(&lines.next().unwrap_or_default());
    lines.for_each(|cause| terminal::say(&format!("  because: {cause}")));
    if let Some(Rescued(rescued)) = error.downcast_ref() {
        terminal::say(rescued);
    }
}

/// Formats an error and its causes on one line, for an error that does not end the command.
pub fn in_a_line(error: &Error) -> String {
    lines(error).join("; because: ")
}

/// The error and its causes, without those that the line above already contains.
fn lines(error: &Error) -> Vec<String> {
    let rescued = error.downcast_ref::<Rescued>().map(ToString::to_string);
    let mut lines: Vec<String> = Vec::new();
    for line in error.chain().map(with_advice).filter(|line| Some(line) != rescued.as_ref()) {
        if !lines.last().is_some_and(|said| said.contains(&line)) {
            lines.push(line);
        }
    }
    lines
}

/// Formats an error, with advice on which argument or command does what it asks for.
pub fn with_advice(error: &(dyn std::error::Error + 'static)) -> String {
    let advice = error.downcast_ref().and_then(advice_on_evaluation);
    let advice = advice.or_else(|| error.downcast_ref().and_then(advice_on_exchange));
    let advice = advice.or_else(|| error.downcast_ref().and_then(advice_on_training));
    match advice.or_else(|| error.downcast_ref().and_then(advice_on_data)) {
        Some(advice) => format!("{error}: {advice}"),
        None if is_no_run(error) => format!("{error}; a run is the folder that was given to pretrain --out"),
        None => error.to_string(),
    }
}

/// Whether the error says that a folder is no run.
pub fn is_no_run(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_evaluation = matches!(error.downcast_ref(), Some(EvalError::Train(TrainError::NoRun { .. })));
    of_evaluation || matches!(error.downcast_ref(), Some(TrainError::NoRun { .. }))
}

fn advice_on_evaluation(error: &EvalError) -> Option<String> {
    Some(match error {
        EvalError::Train(error) => return advice_on_training(error),
        EvalError::Data(error) => return advice_on_data(error),
        EvalError::NoCheckpoint { run, imported: Some(_), .. } => {
            format!("simclr import FILE --out {}", terminal::quoted_path(run))
        }
        EvalError::NoCheckpoint { run, imported: None, failure } => {
            let change = if failure.is_some() { " --set optim.rate=..." } else { "" };
            format!("simclr pretrain DATA --out {} --resume{change}", terminal::quoted_path(run))
        }
        EvalError::Labels { problem: DataError::SubsetSize { images, classes, .. }, .. }
            if images < classes =>
        {
            format!("--labels {classes}")
        }
        EvalError::Labels { .. } => "--labels 100%".to_owned(),
        EvalError::NoSplit { .. } => "leave --split out".to_owned(),
        EvalError::NoFeatures { .. } => "simclr embed RUN DATA --out FILE.parquet".to_owned(),
        EvalError::Taken { .. } => "give another --out".to_owned(),
        EvalError::UnknownFormat { .. } => "give --out such a name".to_owned(),
        _ => return None,
    })
}

fn advice_on_exchange(error: &ExchangeError) -> Option<String> {
    let advice = match error {
        ExchangeError::Train(error) => return advice_on_training(error),
        ExchangeError::NotFineTuned { .. } => {
            "`simclr finetune` writes one, such as RUN/evaluation/finetune-10%.safetensors"
        }
        ExchangeError::TooLarge { .. } => "--to torchvision",
        ExchangeError::Graph { .. } => {
            "what `simclr export RUN --to torchvision` writes, or a file of torch.save"
        }
        ExchangeError::Useless { .. } => "--best",
        ExchangeError::Several { .. } => "give it as --prefix",
        ExchangeError::Unnormalized { .. } => "--normalize imagenet, or --normalize none",
        _ => return None,
    };
    Some(advice.to_owned())
}

fn advice_on_training(error: &TrainError) -> Option<String> {
    let advice = match error {
        TrainError::Data(error) => return advice_on_data(error),
        TrainError::RunExists { trains: true, .. } => "--resume; --force replaces it",
        TrainError::CannotResume { path, .. } if is_imported(path) => {
            return Some(format!("simclr pretrain DATA --from {} --out NEW", terminal::quoted_path(path)));
        }
        TrainError::NoGoodCheckpoint { folder, .. } => {
            let encoder = folder.parent()?.join(ENCODER);
            let file = encoder.is_file().then(|| terminal::quoted_path(&encoder))?;
            return Some(format!(
                "its encoder is in {file}; a run to evaluate, or to begin another with (pretrain --from NEW): simclr import {file} --out NEW"
            ));
        }
        TrainError::NoBest { .. } | TrainError::BestLost { .. } => "leave --best out",
        TrainError::SharedGpu { .. } => "--device cuda:0, --device cuda:1 and so on, or --device cpu",
        _ => return None,
    };
    Some(advice.to_owned())
}

fn is_imported(run: &Path) -> bool {
    RunFolder::open(run).is_ok_and(|(run, _)| run.imported().is_some())
}

fn advice_on_data(error: &DataError) -> Option<String> {
    match error {
        DataError::TooFewImages { usable: 0 | 1, .. } => {
            Some("`simclr data` tells what is wrong with each".to_owned())
        }
        DataError::NotFound(path) => {
            let set = path.to_str()?;
            let (key, _) = set.split_once('=')?;
            let is_key = KEYS.iter().any(|known| known.path == key);
            is_key.then(|| format!("to set a key of the configuration, --set {}", terminal::quoted(set)))
        }
        _ => None,
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Whether the user caused the error.
pub fn is_usage(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || cause.is::<AugmentError>()
            || cause.downcast_ref().is_some_and(TrainError::is_misuse)
            || cause.downcast_ref().is_some_and(DataError::is_misuse)
            || cause.downcast_ref().is_some_and(EvalError::is_misuse)
            || cause.downcast_ref().is_some_and(ExchangeError::is_misuse)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use simclr_eval::embedding::Split;

    #[test]
    fn what_is_asked_for_is_said_as_on_the_command_line() {
        let imported = Some("a.pth".to_owned());
        let told = |error: Error| with_advice(&*error);
        for (error, end) in [
            (
                EvalError::NoCheckpoint { run: "my run".into(), imported, failure: None },
                "has no checkpoint yet; its import was interrupted; import a.pth again: simclr import FILE --out 'my run'",
            ),
            (
                EvalError::NoCheckpoint { run: "run".into(), imported: None, failure: None },
                "train it first: simclr pretrain DATA --out run --resume",
            ),
            (
                EvalError::NoSplit { split: Split::Test, there: Vec::new() },
                "take all of them: leave --split out",
            ),
            (
                EvalError::Taken { path: "a.csv".into(), what: "list" },
                "or write elsewhere: give another --out",
            ),
            (
                EvalError::NoFeatures { path: "a.npy".into(), reason: "is not a .parquet file".to_owned() },
                "a.npy: is not a .parquet file: simclr embed RUN DATA --out FILE.parquet",
            ),
            (EvalError::UnknownFormat { path: "a.b".into() }, ".npy or .safetensors: give --out such a name"),
            (
                TrainError::NoBest { folder: "run".into() }.into(),
                "the newest can be used instead: leave --best out",
            ),
            (EvalError::OneClass { class: "cat".to_owned() }, "give images of at least two classes"),
        ] {
            let told = told(error.into());
            assert!(told.ends_with(end), "{told}");
        }
        let path = || "a.pth".into();
        let prefixes = ["`q.`", "`k.`"].map(str::to_owned).to_vec();
        for (error, end) in [
            (
                ExchangeError::TooLarge { bytes: 3 << 30, limit: 2 << 30 },
                "in another format: --to torchvision",
            ),
            (
                ExchangeError::Graph { path: "a.onnx".into() },
                "in safetensors or a file of PyTorch's: what `simclr export RUN --to torchvision` writes, or a file of torch.save",
            ),
            (
                ExchangeError::Useless { name: "a".to_owned(), what: "NaN" },
                "export an earlier checkpoint: --best",
            ),
            (
                ExchangeError::Several { path: path(), prefixes },
                "names begin with, one of `q.`, `k.`: give it as --prefix",
            ),
            (
                ExchangeError::Unnormalized { path: path() },
                "as SimCLR has them: --normalize imagenet, or --normalize none",
            ),
            (
                ExchangeError::NotFineTuned { path: path(), problem: "it has no classifier".to_owned() },
                "give a network that was fine-tuned: `simclr finetune` writes one, such as RUN/evaluation/finetune-10%.safetensors",
            ),
            (
                TrainError::BestLost { reason: "torn".to_owned(), newest: "b".into() }.into(),
                "torn; the newest can be used instead, b: leave --best out",
            ),
        ] {
            let told = told(error.into());
            assert!(told.ends_with(end), "{told}");
        }
        for (error, end) in [
            (
                TrainError::RunExists { path: path(), trains: true },
                "give another folder, or continue this one: --resume; --force replaces it",
            ),
            (
                TrainError::RunExists { path: path(), trains: false },
                "already holds a run; give another folder",
            ),
            (
                TrainError::SharedGpu { one: 0, other: 1, gpu: "H200".to_owned() },
                "or the processor: --device cuda:0, --device cuda:1 and so on, or --device cpu",
            ),
            (
                DataError::TooFewImages { batch: 2, usable: 1, broken: 3 }.into(),
                "give images that can be read: `simclr data` tells what is wrong with each",
            ),
            (DataError::TooFewImages { batch: 9, usable: 4, broken: 3 }.into(), "choose a smaller batch"),
        ] {
            let told = told(error.into());
            assert!(told.ends_with(end), "{told}");
        }
    }

    #[test]
    fn the_user_and_the_world_are_told_apart() {
        let missing = || DataError::NotFound("x".into());
        assert!(is_usage(&missing().into()));
        assert!(is_usage(&TrainError::from(missing()).into()));
        assert!(is_usage(&Err::<(), _>(missing()).context("while opening").unwrap_err()));
        assert!(is_usage(&usage("no")));
        assert!(!is_usage(&anyhow::anyhow!("disk on fire")));
        let damaged = TrainError::Damaged { path: "run.toml".into(), reason: "torn".into() };
        assert!(!is_usage(&damaged.into()));
    }
}
