//! Patterns that stand for many paths: `shard-{000..146}.tar`, `{train,extra}.tar`.

use std::path::{Path, PathBuf};

use simclr_words::text::grouped;

/// The most paths that a pattern may expand to.
const MAX_PATHS: usize = 100_000;

/// Expands a pattern: `path` itself if it exists or has no braces.
///
/// # Errors
/// A sentence saying what is wrong with the pattern.
pub(crate) fn expand(path: &Path) -> Result<Vec<PathBuf>, String> {
    match path.to_str() {
        Some(text) if text.contains('{') && !path.exists() => {
            let mut paths = vec![String::new()];
            parts(text, &mut paths)?;
            Ok(paths.into_iter().map(PathBuf::from).collect())
        }
        Some(text) if text.contains(['*', '?']) && !path.exists() => {
            Err("no such file; * and ? are expanded by some shells, unless quoted; for images, give the folder that \
                 they are in; for archives, write a pattern as {000..146}"
                .to_owned())
        }
        _ => Ok(vec![path.to_owned()]),
    }
}

/// Appends every expansion of `text` to each of `paths`.
fn parts(text: &str, paths: &mut Vec<String>) -> Result<(), String> {
    let Some((before, rest)) = text.split_once('{') else {
        paths.iter_mut().for_each(|path| path.push_str(text));
        return Ok(());
    };
    let (inside, after) = rest.split_once('}').ok_or("a brace is opened and not closed")?;
    let choices = match inside.split_once("..") {
        Some((first, last)) => numbers(first, last)?,
        None if inside.contains(',') => inside.split(',').map(str::to_owned).collect(),
        None => return Err(format!("{{{inside}}} is neither a range {{000..146}} nor a list {{a,b}}")),
    };
    if paths.len().saturating_mul(choices.len()) > MAX_PATHS {
        return Err(too_many());
    }
    *paths = paths
        .iter()
        .flat_map(|path| choices.iter().map(move |choice| format!("{path}{before}{choice}")))
        .collect();
    parts(after, paths)
}

fn too_many() -> String {
    format!("stands for more than {} paths; give the folder, or several patterns", grouped(MAX_PATHS as u64))
}

fn numbers(first: &str, last: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{{{first}..{last}}} is not a range; expected one like {{000..146}}");
    let (from, to): (u64, u64) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if from > to {
        return Err(wrong());
    }
    if to - from >= MAX_PATHS as u64 {
        return Err(format!("{{{first}..{last}}} {}", too_many()));
    }
    // As in the shell: a leading zero asks for equal lengths.
    let padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded { first.len().max(last.len()) } else { 0 };
    Ok((from..=to).map(|number| format!("{number:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<Vec<String>, String> {
        let paths = expand(Path::new(text))?;
        Ok(paths.into_iter().map(|path| path.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn ranges_and_lists() {
        assert_eq!(expanded("a/s-{008..010}.tar").unwrap(), ["a/s-008.tar", "a/s-009.tar", "a/s-010.tar"]);
        assert_eq!(expanded("{9..10}{a,b}").unwrap(), ["9a", "9b", "10a", "10b"]);
        assert_eq!(expanded("plain.tar").unwrap(), ["plain.tar"]);
    }

    #[test]
    fn wrong_patterns_are_refused() {
        assert!(expanded("a{0..3").unwrap_err().contains("not closed"));
        assert!(expanded("a{x}").unwrap_err().contains("{x}"));
        assert!(expanded("a{5..3}").unwrap_err().contains("not a range"));
        let reason = expanded("a{000..100000}.tar").unwrap_err();
        assert!(reason.starts_with("{000..100000} stands for more than 100,000 paths; "), "{reason}");
        assert_eq!(expanded("{1..100000}").unwrap().len(), 100_000);
        assert!(expanded("{0..999}{0..999}").unwrap_err().starts_with("stands for more than 100,000 paths"));
    }
}
