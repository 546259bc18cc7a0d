//! Checks what the README and the pages in `docs` promise: their commands, keys and links.

use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::CommandFactory;
use simclr_train::config::KEYS;
use simclr_train::{Config, Layers};

use super::{Program, spread_sets, with_negative_values};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Each page for users, and its text.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    assert!(pages.len() >= 6, "{pages:?}");
    pages.extend(
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(|name| root().join(name)),
    );
    pages.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// What stands between backticks, in lines that belong to no block of code.
fn spans(text: &str) -> Vec<String> {
    let mut outside = true;
    let prose: Vec<&str> = text
        .lines()
        .filter(|line| {
            let fence = line.starts_with("```");
            outside ^= fence;
            outside && !fence
        })
        .collect();
    // A span may go on in the next line.
    prose
        .join(" ")
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// The lines of blocks of `sh`, without comments.
fn shell_lines(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => lines.push(line.split(" #").next().unwrap_or_default().trim().to_owned()),
            _ => {}
        }
    }
    lines
}

/// The words of a command as a shell splits them.
fn words(command: &str) -> Vec<String> {
    let unquoted = command.split('\'').enumerate().map(|(i, part)| {
        // Spaces between quotes are kept.
        if i % 2 == 1 { part.replace(' ', "\u{a0}") } else { part.to_owned() }
    });
    let joined: String = unquoted.collect();
    joined.split_whitespace().map(|word| word.replace('\u{a0}', " ")).collect()
}

#[test]
fn every_command_is_one_that_the_program_takes() {
    let mut seen = 0;
    for (page, text) in pages() {
        let lines = shell_lines(&text).into_iter().chain(spans(&text));
        for line in lines {
            let line = line.replace("cargo run --release -- ", "simclr ");
            let Some(rest) = line.strip_prefix("simclr ") else { continue };
            seen += 1;
            // A name alone, as in `simclr probe`, is no command line.
            if rest.chars().all(|letter| letter.is_ascii_lowercase()) {
                let known = Program::command().find_subcommand(rest).is_some();
                assert!(known, "{}: {line}", page.display());
                continue;
            }
            let words = spread_sets(words(&line).into_iter().map(Into::into), |_| false);
            let parsed = with_negative_values(Program::command()).try_get_matches_from(&words);
            if let Err(error) = parsed {
                let help = matches!(error.kind(), clap::error::ErrorKind::DisplayHelp);
                assert!(help, "{}: {line}\n{error}", page.display());
            }
        }
    }
    assert!(seen >= 60, "{seen} commands");
}

/// All long options of a command and of those below it.
fn options(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(|argument| argument.get_long()).map(str::to_owned);
    own.chain(command.get_subcommands().flat_map(options)).collect()
}

#[test]
fn every_option_is_one_that_a_command_has() {
    let known = [options(&Program::command()), vec!["help".to_owned(), "version".to_owned()]].concat();
    // Of other programs, or named because there is none.
    let foreign =
        ["workspace", "release", "test", "nocapture", "locked", "path", "features", "no-fail-fast", "epochs"];
    let mut seen = 0;
    for (page, text) in pages() {
        for span in spans(&text).iter().filter(|span| !span.starts_with("cargo ")) {
            for word in span.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
                let name = word.split('=').next().unwrap_or_default();
                if name.is_empty() || foreign.contains(&name) {
                    continue;
                }
                seen += 1;
                assert!(known.iter().any(|option| option == name), "{}: {span}", page.display());
            }
        }
    }
    assert!(seen >= 60, "{seen} options");
}

#[test]
fn every_setting_of_a_command_can_be_set() {
    let mut seen = 0;
    for (page, text) in pages() {
        for line in
            shell_lines(&text).into_iter().chain(spans(&text)).filter(|line| line.starts_with("simclr "))
        {
            let words = spread_sets(words(&line).into_iter().map(Into::into), |_| false);
            let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            let after = |option: &str| {
                let pairs = words.windows(2).filter(move |pair| pair[0] == option);
                pairs.map(|pair| pair[1].clone()).collect::<Vec<_>>()
            };
            let (presets, sets) = (after("--preset"), after("--set"));
            if presets.is_empty() && sets.is_empty() {
                continue;
            }
            seen += 1;
            // `photos` leaves the batch open, until there are images.
            let sets = [&["train.batch=64".to_owned()][..], &sets].concat();
            let layers =
                Layers { preset: presets.first().map(String::as_str), sets: &sets, ..Layers::default() };
            if let Err(error) = Config::resolve(&layers) {
                panic!("{}: {line}\n{error}", page.display());
            }
        }
    }
    assert!(seen >= 5, "{seen} settings");
}

/// What [`spans`] and [`shell_lines`] rely on.
#[test]
fn code_is_marked_as_the_tests_here_read_it() {
    for (page, text) in pages() {
        let page = page.display();
        assert!(text.matches('`').count().is_multiple_of(2), "{page}: an odd number of backticks");
        assert!(
            !text.lines().any(|line| line.starts_with(' ') && line.trim_start().starts_with("```")),
            "{page}: an indented fence"
        );
        let ends = |line: &String| line.ends_with('\\');
        assert!(!shell_lines(&text).iter().any(ends), "{page}: a command that goes on in the next line");
    }
}

#[test]
fn every_key_is_one_that_the_program_has() {
    let mut seen = 0;
    for (page, text) in pages() {
        let of_commands = shell_lines(&text);
        let words =
            of_commands.iter().flat_map(|line| line.split(' ')).map(str::to_owned).chain(spans(&text));
        for word in words.flat_map(|word| word.split(' ').map(str::to_owned).collect::<Vec<_>>()) {
            let name = word.split('=').next().unwrap_or_default();
            let Some((table, key)) = name.split_once('.') else { continue };
            let tables = ["data", "view", "encoder", "head", "loss", "optim", "train"];
            let is_name = key
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit());
            if !tables.contains(&table)
                || !is_name
                || ["toml", "rs", "cu", "py", "safetensors", "index"].contains(&key)
            {
                continue;
            }
            seen += 1;
            let is_branch = table == "view" && ["a", "b"].contains(&key);
            assert!(is_branch || KEYS.iter().any(|key| key.path == name), "{}: {word}", page.display());
        }
    }
    assert!(seen >= 40, "{seen} keys");
}

#[test]
fn every_link_leads_to_a_file() {
    let mut seen = 0;
    for (page, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            seen += 1;
            let found = page.parent().unwrap().join(file);
            assert!(found.exists(), "{}: {link}", page.display());
        }
    }
    assert!(seen >= 20, "{seen} links");
}

/// Paths between backticks that begin with a folder of the repository, without placeholders.
#[test]
fn every_path_is_one_of_the_repository() {
    let mut seen = 0;
    for (page, text) in pages() {
        for span in spans(&text) {
            let path = span.split([' ', '#']).next().unwrap_or_default();
            let placeholder = path.chars().any(|letter| "*{[<".contains(letter))
                || ["NAME", "DATE"].iter().any(|word| path.contains(word));
            let ours = ["crates/", "bench/", "tools/", "docs/"].iter().any(|folder| path.starts_with(folder));
            if !ours || placeholder {
                continue;
            }
            seen += 1;
            assert!(root().join(path).exists(), "{}: {path}", page.display());
        }
    }
    assert!(seen >= 60, "{seen} paths");
}
