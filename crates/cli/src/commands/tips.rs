//! What is said of an option that a command does not have: clap knows only how options are spelt.

use std::borrow::Cow;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};
use simclr_train::config::key_called;

use super::Program;

/// Options of other programs, and those that mean the same here.
const ALSO: [(&str, &str); 9] = [
    ("top", "k"),
    ("neighbors", "k"),
    ("neighbours", "k"),
    ("count", "images"),
    ("count", "k"),
    ("output", "out"),
    ("image", "query"),
    ("limit", "images"),
    ("limit", "k"),
];

/// A misspelling differs by no more letters than this.
const MISSPELT: usize = 2;

/// An error of the arguments `words`, with a tip that helps: the key or the option that was meant, or the command that
/// has it. Tips to pass what was given as a file's name, or another option that only looks alike, go.
pub fn with_tips(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return error };
    let (mut program, given) = (Program::command(), given.clone());
    program.build();
    let nested = |command, word: &OsString| Command::find_subcommand(command, word).unwrap_or(command);
    let command = words.iter().skip(1).fold(&program, nested);
    let tip = key_tip(command, &given, words).or_else(|| option_tip(&program, command, &given));
    let is_near = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(near)) => edits(&given, near) <= MISSPELT,
        _ => false,
    };
    error.remove(ContextKind::Suggested);
    if is_near && tip.is_none() {
        return error;
    }
    error.remove(ContextKind::SuggestedArg);
    // That of clap has the option that only looks alike.
    error.insert(ContextKind::Usage, ContextValue::StyledStr(command.clone().render_usage()));
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// How a key is set that was given like an option, `--epochs 5`.
fn key_tip(command: &Command, given: &str, words: &[OsString]) -> Option<String> {
    if !has(command, "preset") || !has(command, "set") {
        return None;
    }
    let key = key_called(&given.strip_prefix("--")?.replace('-', "_"))?;
    let words = words.iter().map(|word| word.to_string_lossy());
    let mut after = words.skip_while(|word| word.split('=').next() != Some(given));
    let value = after.next().and_then(|word| word.split_once('=').map(|(_, value)| value.to_owned()));
    let value = value.or_else(|| after.next().filter(|word| !word.starts_with("--")).map(Cow::into_owned));
    let value = value.as_deref().unwrap_or("...");
    Some(format!("this is a key of the configuration: --set {}={value}", key.path))
}

/// The option that was meant, or the commands that have it.
fn option_tip(program: &Command, command: &Command, given: &str) -> Option<String> {
    let Some(name) = given.strip_prefix("--") else {
        let letter = given.strip_prefix('-')?;
        let mut long = longs(command).filter(|long| long.starts_with(letter));
        return match (long.next(), long.next()) {
            (Some(long), None) => Some(format!("options have no short forms here: --{long}")),
            _ => None,
        };
    };
    if let Some((_, meant)) = ALSO.iter().find(|(other, meant)| *other == name && has(command, meant)) {
        return Some(format!("--{meant} may be what is meant"));
    }
    let others: Vec<String> = (program.get_subcommands())
        .filter(|other| has(other, name))
        .map(|other| format!("simclr {}", other.get_name()))
        .collect();
    (!others.is_empty()).then(|| format!("{given} is an option of {}", others.join(", ")))
}

fn longs(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().filter_map(|known| known.get_long())
}

fn has(command: &Command, long: &str) -> bool {
    longs(command).any(|known| known == long)
}

/// Letters to be put in, left out or changed to make one word of another.
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, theirs) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *theirs);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_so_many_letters_apart() {
        for (one, other, letters) in
            [("", "", 0), ("--epoch", "--epochs", 1), ("--count", "--config", 3), ("ab", "ba", 2)]
        {
            assert_eq!((edits(one, other), edits(other, one)), (letters, letters), "{one} {other}");
        }
    }

    #[test]
    fn what_other_programs_call_options_is_none_here() {
        let program = Program::command();
        for (other, meant) in ALSO {
            assert!(program.get_subcommands().any(|command| has(command, meant)), "{other} {meant}");
        }
    }
}
