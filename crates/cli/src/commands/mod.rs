//! The commands, one per file.

mod ablate;
mod bench;
mod completions;
mod data;
mod doctor;
#[cfg(test)]
mod documented;
mod embed;
mod export;
mod finetune;
mod import;
mod keys;
mod knn;
mod linear;
mod predict;
mod pretrain;
mod probe;
mod quickstart;
mod report;
mod search;
mod tips;
mod transfer;
mod views;

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use simclr_data::FORMS;

use crate::exit::Done;

const EXAMPLES: &str = "\
Examples:
  simclr quickstart
  simclr pretrain photos/ --out runs/first --preset photos
  simclr knn runs/first --train photos/";

const OUTPUT: &str = "\
Results go to standard output, messages to standard error. Exit codes: 0 success, 1 failure, 2 wrong \
usage, 130 stopped by Ctrl-C.";

fn after_help() -> String {
    format!(
        "{EXAMPLES}\n\nDATA is {FORMS}; several are read as one. `simclr data DATA` shows what is detected.\n\n{OUTPUT}"
    )
}

/// Train image encoders on unlabelled images with SimCLR, and evaluate them
#[derive(Parser, Debug)]
#[command(name = "simclr", version, after_help = after_help(), max_term_width = 100)]
pub struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Quickstart(quickstart::Quickstart),
    Pretrain(pretrain::Pretrain),
    Knn(knn::Knn),
    Linear(linear::Linear),
    Finetune(finetune::Finetune),
    Predict(predict::Predict),
    Transfer(transfer::Transfer),
    Ablate(ablate::Ablate),
    Probe(probe::Probe),
    Embed(embed::Embed),
    Search(search::Search),
    Report(report::Report),
    Export(export::Export),
    Import(import::Import),
    Data(data::Data),
    Views(views::Views),
    Bench(bench::Bench),
    Keys(keys::Keys),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
}

impl Program {
    /// Parses the arguments of the process, and exits if they are wrong.
    pub fn from_arguments() -> Program {
        let words = spread_sets(std::env::args_os(), |word| Path::new(word).exists());
        let matches = with_negative_values(Program::command())
            .try_get_matches_from(&words)
            .unwrap_or_else(|error| tips::with_tips(error, &words).exit());
        Program::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Runs the command.
    pub fn run(self) -> Result<Done> {
        match self.command {
            Command::Quickstart(command) => command.run(),
            Command::Pretrain(command) => command.run(),
            Command::Knn(command) => command.run(),
            Command::Linear(command) => command.run(),
            Command::Finetune(command) => command.run(),
            Command::Predict(command) => command.run(),
            Command::Transfer(command) => command.run(),
            Command::Ablate(command) => command.run(),
            Command::Probe(command) => command.run(),
            Command::Embed(command) => command.run(),
            Command::Search(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Data(command) => command.run(),
            Command::Views(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Keys(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Completions(command) => command.run(),
        }
    }
}

/// Has `--k -1` fail because -1 is no number of neighbours, not because there is no argument `-1`.
fn with_negative_values(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| match argument.is_positional() {
        true => argument,
        false => {
            let takes_values = argument.get_action().takes_values();
            argument.allow_negative_numbers(takes_values)
        }
    });
    command.mut_subcommands(with_negative_values)
}

/// Turns `--set a.b=1 c.d=2` into `--set a.b=1 --set c.d=2`: several keys may follow one `--set`, and a path after them
/// is left alone, even a folder called `split=train`.
fn spread_sets(words: impl Iterator<Item = OsString>, exists: impl Fn(&OsStr) -> bool) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    // Whether the word before was a value of --set, and whether it was --set itself.
    let (mut after_value, mut after_set) = (false, false);
    for word in words {
        let text = word.to_string_lossy();
        let assigns = text.split_once('=').is_some_and(|(key, _)| is_key(key)) && !exists(&word);
        if after_value && assigns {
            out.push("--set".into());
        }
        after_value = after_set || (after_value && assigns) || text.starts_with("--set=");
        after_set = text == "--set";
        out.push(word);
    }
    out
}

/// Whether a word may be meant as a configuration key, with its table (`view.a.op`) or without, in which case a later
/// error says which table.
fn is_key(word: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    word.split('.').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_make_sense() {
        with_negative_values(Program::command()).debug_assert();
    }

    #[test]
    fn examples_fit_into_80_columns() {
        let mut program = Program::command();
        for command in program.get_subcommands_mut() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  simclr ")) {
                assert!(line.chars().count() < 80, "{line}");
            }
        }
    }

    #[test]
    fn several_keys_after_one_set() {
        let spread = |words: &str| {
            let folder = |word: &OsStr| word == "split=train";
            let spread = spread_sets(words.split(' ').map(OsString::from), folder);
            spread.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(spread("p --set a.b=1 c.d=2 DATA e.f=3"), "p --set a.b=1 --set c.d=2 DATA e.f=3");
        assert_eq!(spread("p --set=a.b=1 c_d.e2=3 --out x.y=z"), "p --set=a.b=1 --set c_d.e2=3 --out x.y=z");
        assert_eq!(spread("p --set a.b=1 b=2"), "p --set a.b=1 --set b=2");
        assert_eq!(spread("p --set a --resume"), "p --set a --resume");
        assert_eq!(spread("p x.y=z --set a.b=1"), "p x.y=z --set a.b=1");
        for data in ["split=train", "./a.b=c", "a/b.c=d", "A.b=c", ".a=b", "-a.b=c"] {
            assert_eq!(spread(&format!("p --set a.b=1 {data}")), format!("p --set a.b=1 {data}"));
        }
    }
}
