//! Tips for options that a command does not have: clap suggests only those with a similar spelling.

use std::borrow::Cow;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory};
use simclr_train::config::key_called;

use super::Program;

/// Options of other programs, each with the one that means the same here.
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

/// The most letters by which a misspelt option differs from the right one.
const MISSPELT: usize = 2;

/// Adds a tip to the error of the arguments `words`: the key or option that was meant, or the commands that have it.
/// Removes clap's tips to pass the option as a value, or to use another that only looks similar.
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
    // clap's usage line names the option that only looks similar.
    error.insert(ContextKind::Usage, ContextValue::StyledStr(command.clone().render_usage()));
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// How to set a key that was given like an option, such as `--epochs 5`.
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
        return Some(format!("did you mean --{meant}?"));
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

/// The edit distance of two words: how many letters to insert, remove or change to turn one into the other.
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
            [("", "", 0), ("--epoch", "--epochs", 1), ("--count", "--config", 4), ("ab", "ba", 2)]
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
