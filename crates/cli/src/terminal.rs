//! Lines for a person on standard error, clear of the progress bar; results on standard output.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;
pub use simclr_words::text::{counted, grouped, percent};

/// How many items of a long list are shown to a person.
pub const LISTED: usize = 20;

/// The message comes last: a narrow terminal cuts it off.
const TEMPLATE: &str = "{bar:10} {percent:>3}%  {time_left} left  {wide_msg}";

/// The bar that is on the screen, if one is: lines go above it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);
static HUSHED: AtomicBool = AtomicBool::new(false);

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A progress bar, on the screen until it is dropped. There is one at a time.
pub struct Bar(ProgressBar);

impl Deref for Bar {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.0
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        *shown() = None;
        self.0.finish_and_clear();
    }
}

/// Shows a bar of `length` steps; none where standard error is no terminal.
pub fn bar(length: u64) -> Option<Bar> {
    if !is_interactive() {
        return None;
    }
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        let time_left = |state: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = write!(out, "{}", clock(state.eta()));
        };
        bar.set_style(style.with_key("time_left", time_left).progress_chars("=> "));
    }
    *shown() = Some(bar.clone());
    Some(Bar(bar))
}

/// Whether standard error is a terminal that can redraw a line.
pub fn is_interactive() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether colour is welcome on standard error (<https://no-color.org>).
pub fn has_color() -> bool {
    is_interactive() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether to print errors only, for a process whose parent reports everything else.
pub fn hush(hushed: bool) {
    HUSHED.store(hushed, Ordering::Relaxed);
}

/// Prints a line to standard error. Failing to is no reason to stop.
pub fn say(line: &str) {
    show(&inert(line));
}

fn show(line: &str) {
    if !HUSHED.load(Ordering::Relaxed) {
        write_line(line);
    }
}

fn write_line(line: &str) {
    let write = || {
        let _ = writeln!(io::stderr(), "{line}");
    };
    match shown().as_ref() {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Prints a warning.
pub fn warn(message: &str) {
    show(&marked("warning", "33", message));
}

/// Prints an error, even if [`hush`] silences other lines.
pub fn error(message: &str) {
    write_line(&marked("error", "31", message));
}

fn marked(word: &str, color: &str, message: &str) -> String {
    let message = inert(message);
    if has_color() {
        format!("\x1b[1;{color}m{word}:\x1b[0m {message}")
    } else {
        format!("{word}: {message}")
    }
}

/// Replaces control characters other than line breaks: file names are data and must not drive a terminal.
pub fn inert(text: &str) -> String {
    text.chars().map(|c| if acts(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a terminal does something at this character other than showing it or breaking the line.
fn acts(c: char) -> bool {
    // The second: marks that turn the direction of what follows.
    (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Prints a value as a line of JSON to standard output, without characters that act on a terminal.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> Result<()> {
    Ok(print(&inert_json(&serde_json::to_string(value)?))?)
}

/// Such characters are within strings, where each has another spelling.
fn inert_json(json: &str) -> String {
    let mut inert = String::with_capacity(json.len());
    for c in json.chars() {
        match acts(c) {
            true => inert.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => inert.push(c),
        }
    }
    inert
}

/// Prints a line to standard output.
///
/// # Errors
/// Whatever writing to it returns; a closed pipe is not a failure of the program.
pub fn print(line: &str) -> io::Result<()> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot write to standard output: {error}"));
    writeln!(io::stdout(), "{line}").map_err(named)
}

/// Hours, minutes and seconds: "1:02:03", "2:03".
pub fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// How long ago something was, in its largest unit: "just now", "1 minute ago", "3 days ago".
pub fn ago(duration: Duration) -> String {
    let seconds = duration.as_secs() as usize;
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    match units.into_iter().find(|&(length, _)| seconds >= length) {
        Some((length, unit)) => format!("{} ago", counted(seconds / length, unit)),
        None => "just now".to_owned(),
    }
}

/// Quotes a word of a command line for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Quotes a path of a command line for a shell.
pub fn quoted_path(path: &Path) -> String {
    let path = path.display().to_string();
    // A dash would begin an option.
    quoted(&if path.starts_with('-') { format!("./{path}") } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_for_people() {
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
        assert_eq!(clock(Duration::from_secs(63)), "1:03");
        let past = [59, 60, 7199, 86_400 * 40].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(past, ["just now", "1 minute ago", "1 hour ago", "40 days ago"]);
        assert_eq!(quoted("a/b.c"), "a/b.c");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(inert("a\x1b[31m\nb"), "a\u{fffd}[31m\nb");
        assert_eq!(inert("a\u{202e}gpj.b"), "a\u{fffd}gpj.b");
        let json = inert_json(&serde_json::to_string("a\u{9b}31m\u{202e}\x7f\n").unwrap());
        assert_eq!(json, r#""a\u009b31m\u202e\u007f\n""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), "a\u{9b}31m\u{202e}\x7f\n");
        assert_eq!(quoted_path(Path::new("-o")), "./-o");
    }
}
