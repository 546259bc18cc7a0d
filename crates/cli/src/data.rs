//! Opening data sets, and saying what they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use simclr_data::{DataError, Dataset, DecodeOptions, Index, Opener, Source};

use crate::terminal;

/// What DATA may be, for help texts.
pub const FORMS: &str = "\
DATA is a folder of images (searched recursively), one sub-folder per class, train/ and test/ of either; tar shards \
(WebDataset: a folder of them, one file, or a pattern such as 'shard-{000..146}.tar'; .tar.gz and .tar.zst too); Parquet \
files with a column of images (Hugging Face); a .zip; a list of paths (.txt, .csv); CIFAR-10, CIFAR-100 or STL-10 \
binaries; or IDX files (MNIST). The kind is detected (`simclr data DATA` shows it). Several are read as one.";

/// Opens data sets, and remembers what it finds in their folders and archives.
pub struct Opening {
    opener: Opener,
}

impl Opening {
    /// Decodes images as `decode` says.
    pub fn new(decode: DecodeOptions) -> Opening {
        Opening { opener: Opener { decode, index: Index::default() } }
    }

    /// The same, with what an earlier run found.
    pub fn with_index(decode: DecodeOptions, index: &Path) -> Opening {
        Opening { opener: Opener { decode, index: Index::load(index) } }
    }

    /// Opens one or several data sets as one, and says what it is.
    pub fn open(&mut self, paths: &[PathBuf]) -> Result<Source, DataError> {
        let source = self.opener.open(paths)?;
        let shown: Vec<String> =
            paths.iter().map(|path| terminal::inert(&path.display().to_string())).collect();
        terminal::say(&line(&shown.join(" "), &source));
        Ok(source)
    }

    /// Keeps what was found. Without it a later start only takes longer.
    pub fn save(&mut self, index: &Path) {
        if let Err(error) = self.opener.index.save(index) {
            terminal::warn(&format!("{}: {error}; the data will be listed again", index.display()));
        }
    }
}

/// Says which operators mean nothing on the images, which are grey.
pub fn say_left_out(operators: &[&str]) {
    if !operators.is_empty() {
        terminal::say(&format!("grey images: {} left out of the views", operators.join(", ")));
    }
}

fn line(name: &str, source: &Source) -> String {
    let (train, classes) = (source.train.len(), source.train.classes().len());
    let mut line = format!("{name}: {}, {}", source.kind, terminal::counted(train, "image"));
    if let Some(test) = &source.test {
        line += &format!(" to train on, {} to test on", terminal::grouped(test.len() as u64));
    }
    if let Some(unlabelled) = &source.unlabelled {
        line += &format!(", {} more without labels", terminal::grouped(unlabelled.len() as u64));
    }
    if classes > 0 {
        line += &format!(", {classes} classes");
    }
    // A data set that lacks labels here and there: pretraining uses these images, evaluation does not.
    let parts = [Some(&source.train), source.test.as_ref()].into_iter().flatten();
    let without = |part: &Arc<dyn Dataset>| (0..part.len()).filter(|&i| part.label(i).is_none()).count();
    let without: usize = parts.filter(|part| !part.classes().is_empty()).map(without).sum();
    if without > 0 {
        line += &format!(", {} of no class", terminal::counted(without, "image"));
    }
    if source.left_out.count > 0 {
        line += &format!("; {} left out", terminal::counted(source.left_out.count, "other file"));
    }
    line
}
