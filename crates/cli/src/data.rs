//! Opening data sets, and saying what they are.

use std::path::Path;

use anyhow::Result;
use simclr_data::Source;

use crate::terminal;

/// Opens a data set and says what it is.
pub fn open(path: &Path) -> Result<Source> {
    let source = simclr_data::open(path)?;
    let (train, classes) = (source.train.len(), source.train.classes().len());
    let mut line = format!(
        "{}: {}, {} images",
        terminal::inert(&path.display().to_string()),
        source.kind,
        terminal::grouped(train as u64)
    );
    if let Some(test) = &source.test {
        line += &format!(" to train on, {} to test on", terminal::grouped(test.len() as u64));
    }
    if classes > 0 {
        line += &format!(", {classes} classes");
    }
    if source.left_out.count > 0 {
        line += &format!("; {} other files left out", terminal::grouped(source.left_out.count as u64));
    }
    terminal::say(&line);
    Ok(source)
}
