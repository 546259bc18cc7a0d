//! Exit codes, and how an error is told: 0 done, 1 failed, 2 used wrongly, 130 stopped by Ctrl-C.

use std::fmt;
use std::io;
use std::process::ExitCode;

use anyhow::{Error, Result};
use simclr_data::DataError;
use simclr_eval::EvalError;
use simclr_exchange::ExchangeError;
use simclr_train::TrainError;

use crate::terminal;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
/// What a shell reports of a process that an interrupt ended: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// How a command ended, where it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// All of it.
    Finished,
    /// Stopped at the user's wish, with what was done saved.
    Interrupted,
}

/// A command that was given something it cannot work with; the message says what would be right.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Ctrl-C came before there was anything to save; it has been answered.
#[derive(Debug)]
pub struct Stopped;

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

/// An error of the user's, from its message.
pub fn usage(message: impl Into<String>) -> Error {
    Usage(message.into()).into()
}

/// Tells an error on standard error and gives the process's exit code.
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

/// The error and its causes, those left out that the line above them says already.
fn tell(error: &Error) {
    let mut said = error.to_string();
    terminal::error(&said);
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            terminal::say(&format!("  because: {}", terminal::inert(&cause)));
            said = cause;
        }
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn is_usage(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || cause.downcast_ref().is_some_and(is_usage_of_training)
            || cause.downcast_ref().is_some_and(is_usage_of_data)
            || cause.downcast_ref().is_some_and(is_usage_of_evaluation)
            || cause.downcast_ref().is_some_and(is_usage_of_exchange)
            || cause.is::<simclr_augment::AugmentError>()
    })
}

fn is_usage_of_training(error: &TrainError) -> bool {
    use TrainError as E;
    match error {
        E::Data(error) => is_usage_of_data(error),
        E::UnknownKey { .. }
        | E::BadValue { .. }
        | E::Syntax { .. }
        | E::UnknownPreset { .. }
        | E::RunExists { .. }
        | E::NotARun { .. }
        | E::NotOnlyARun { .. }
        | E::NoRun { .. }
        | E::CannotResume { .. }
        | E::NoBest { .. }
        | E::FeaturesDoNotFit { .. }
        | E::Views(_) => true,
        other => other.is_before_first_step(),
    }
}

fn is_usage_of_evaluation(error: &EvalError) -> bool {
    use EvalError as E;
    match error {
        E::Train(error) => is_usage_of_training(error),
        E::Data(error) => is_usage_of_data(error),
        E::NoLabels { .. }
        | E::UnknownClass { .. }
        | E::OneClass { .. }
        | E::TooFewToProbe { .. }
        | E::TooFewToSplit { .. }
        | E::NoCheckpoint { .. }
        | E::Option { .. }
        | E::Labels { .. }
        | E::HeadLayers { .. }
        | E::BatchDoesNotFit { .. }
        | E::NoSplit { .. }
        | E::NotThere { .. }
        | E::Taken { .. }
        | E::AllDiverged { .. }
        | E::Views(_) => true,
        _ => false,
    }
}

fn is_usage_of_exchange(error: &ExchangeError) -> bool {
    use ExchangeError as E;
    match error {
        E::Train(error) => is_usage_of_training(error),
        E::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        E::TooLarge { .. } | E::NoWeights { .. } | E::Weights { .. } | E::Unnormalized { .. } => true,
        _ => false,
    }
}

fn is_usage_of_data(error: &DataError) -> bool {
    use DataError as E;
    matches!(
        error,
        E::NotFound(_)
            | E::NoImages { .. }
            | E::Pattern { .. }
            | E::SingleImage(_)
            | E::Unrecognised { .. }
            | E::NoLabels
            | E::SubsetSize { .. }
            | E::HoldoutTooLarge { .. }
            | E::TooFewImages { .. }
            | E::Setting { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

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
