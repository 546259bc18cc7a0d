//! Opening data sets, and describing them to the user.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use simclr_cuda::cache_folder;
use simclr_data::{
    DataError, Dataset, DecodeScratch, Glance, Index, LeftOut, LeftOutFile, Opener, Source, Tones, Values,
    Window,
};
use simclr_eval::protocols::named;
use simclr_train::config::DataConfig;

use crate::terminal::{self, LISTED};

/// What DATA may be, for help texts.
pub const FORMS: &str = "\
DATA is a folder of images (searched recursively), one sub-folder per class, train/ and test/ of either (and unlabelled/, \
to pretrain on); image files, one by one; tar shards \
(WebDataset: a folder of them, one file, or a pattern such as 'shard-{000..146}.tar'; .tar.gz and .tar.zst too); Parquet \
files with a column of images (Hugging Face); a .zip; a list of paths (.txt, one a line; .csv or .tsv, its columns \
path, or file, image and the like; label or class; and split, with train and test; relative paths are looked up from the \
list's folder); CIFAR-10, CIFAR-100 or STL-10 \
binaries; or IDX files (MNIST). The kind is detected (`simclr data DATA` shows it). Several are read as one.";

/// Opens data sets, and remembers what it finds in their folders and archives.
pub struct Opening {
    opener: Opener,
    /// Whether the user's cache folder has all that was found.
    kept: bool,
}

impl Opening {
    /// Decodes images as `config` says. Archives are looked through with `threads` threads; 0 means one per processor.
    pub fn new(config: &DataConfig, threads: usize) -> Opening {
        let index = shared(Index::default());
        let opener = Opener { decode: config.decode(), index, strict: config.strict, threads };
        Opening { opener, kept: false }
    }

    /// Sets the index to the one that an earlier run saved.
    pub fn with_index(self, index: &Path) -> Opening {
        Opening { opener: Opener { index: shared(Index::load(index)), ..self.opener }, ..self }
    }

    /// Sets whether anything unreadable is an error, whatever the configuration says.
    pub fn strict(self, strict: bool) -> Opening {
        Opening { opener: Opener { strict, ..self.opener }, ..self }
    }

    /// Opens one or several data sets as one, prints a description, and warns of what cannot be read.
    pub fn open(&mut self, paths: &[PathBuf]) -> Result<Source, DataError> {
        let opened = self.opener.open(paths);
        let shared = self.opener.index.share();
        self.kept = shared.is_ok() && cache_folder().is_some();
        if let Err(error) = shared {
            tracing::debug!("what was found in the data is not kept for other commands: {error}");
        }
        let source = opened.map_err(|error| match error {
            DataError::Image { name, reason } => {
                DataError::Image { name, reason: format!("{reason} (data.strict)") }
            }
            error => error,
        })?;
        terminal::say(&line(&shown(paths), &source));
        source.left_out.notes.iter().for_each(|note| terminal::say(note));
        warn_of(&source.left_out.broken, "folders or files cannot be read");
        warn_of(&source.left_out.doubtful, "archives may be cut short");
        Ok(source)
    }

    /// Saves the index. A failure is at most a warning: without an index, later starts take longer.
    pub fn save(&mut self, index: &Path) {
        if let Err(error) = self.opener.index.save(index)
            && !self.kept
        {
            terminal::warn(&format!("{}: {error}; the data will be listed again", index.display()));
        }
    }
}

/// The paths of the data, the first of them if they are many.
pub fn shown(paths: &[PathBuf]) -> String {
    terminal::inert(&named(paths))
}

/// An index that is also kept in the user's cache folder, if there is one.
fn shared(index: Index) -> Index {
    match cache_folder() {
        Some(folder) => index.sharing(folder.join("index")),
        None => index,
    }
}

/// Data sets with fewer images than this get a warning: contrastive learning needs many.
const FEW: usize = 100;

/// Looks at a sample of the images, and warns if nothing or little can be learnt from them.
///
/// # Errors
/// Fails if none of the images can be read.
pub fn look_at(images: &dyn Dataset, window: Window) -> Result<()> {
    let Glance { images: looked_at, superfluous, tones } = Glance::at(images);
    if looked_at == 0 {
        check_any_is_readable(images)?;
    }
    for (kind, values) in dark(&tones, window, ReadBy::Command) {
        terminal::warn(&format!("{kind} (of {looked_at} looked at): {values}"));
    }
    if 2 * superfluous >= looked_at.max(2) {
        terminal::warn(&format!(
            "{superfluous} of {looked_at} images looked at have the same pixels as another of them: nothing is learnt \
             from telling equal images apart; `simclr data` lists duplicates"
        ));
    }
    if images.len() < FEW {
        terminal::warn(&format!(
            "only {}: an encoder learns by telling each image from many others; give some hundreds at least",
            terminal::counted(images.len(), "image")
        ));
    }
    Ok(())
}

/// Looks at a few images of each of some data sets, which are read with `window`, and warns of the first of these sets
/// whose images that leaves dark or flat. `of` precedes the message and names the data.
pub fn warn_of_dark<'a>(
    of: &str,
    sets: impl IntoIterator<Item = &'a Arc<dyn Dataset>>,
    window: Window,
    by: ReadBy,
) {
    for images in sets {
        let Glance { images: looked_at, tones, .. } = Glance::at(images.as_ref());
        let dark: Vec<_> = dark(&tones, window, by).collect();
        for (kind, values) in &dark {
            terminal::warn(&format!("{of}{kind} (of {looked_at} looked at): {values}"));
        }
        if !dark.is_empty() {
            return;
        }
    }
}

/// The parts of a data set.
pub fn parts(source: &Source) -> impl Iterator<Item = &Arc<dyn Dataset>> {
    [Some(&source.train), source.test.as_ref(), source.unlabelled.as_ref()].into_iter().flatten()
}

/// # Errors
/// Fails if none of the images can be read, and says why the first cannot.
fn check_any_is_readable(images: &dyn Dataset) -> Result<()> {
    let (mut scratch, mut first) = (DecodeScratch::default(), None);
    for index in 0..images.len() {
        match images.read(index, &mut scratch) {
            Ok(_) => return Ok(()),
            Err(error) => first = first.or(Some(error.to_string())),
        }
    }
    let first = first.unwrap_or_default();
    bail!("none of the images can be read; `simclr data` tells what is wrong with each (the first: {first})")
}

/// The kind of images that are stored with 16 bits a channel.
pub const DEEP: &str = "16 bits";

/// The kind of grey images that are stored with 8 bits.
const GREY: &str = "8 bits, grey";

/// What says how images are read: the window that is advised is set there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBy {
    /// The configuration of this command.
    Command,
    /// That of a run, as in its training.
    Run,
}

/// The kinds of images that `window` leaves dark or flat, each with its range of values and advice.
pub fn dark(tones: &Tones, window: Window, by: ReadBy) -> impl Iterator<Item = (&'static str, String)> {
    let of_only = |Values { images, least, most }| {
        format!("{} of only {least} to {most} out of 255", terminal::counted(images, "image"))
    };
    let advised = move |values: Values, stored: Option<[u16; 2]>| {
        let of_only = of_only(values);
        let example = stored.filter(|[low, high]| low < high).map_or(String::new(), |[low, high]| {
            format!("; these store {low} to {high}, for example --set data.window=[{low},{high}]")
        });
        match by {
            ReadBy::Command => format!(
                "{of_only}: set data.window to the stored values that are to become [black, white], or to \
                 \"image\"{example}"
            ),
            ReadBy::Run => format!(
                "{of_only}, as data.window={} of the run maps them: if the network was trained on brighter ones, it tells \
                 little of these; then give copies of 8 bits that are as bright",
                written(window)
            ),
        }
    };
    let deep = (tones.deep.are_narrow() && window != Window::Image)
        .then(|| (DEEP, advised(tones.deep, tones.deep_stored)));
    let grey = match window {
        Window::Values { high, .. } if high > u16::from(u8::MAX) && tones.grey.images > 0 => {
            let advice = match by {
                ReadBy::Command => "data.window=\"image\" suits images of both kinds",
                ReadBy::Run => "give images that are stored like those that it was trained on",
            };
            let of_run = if by == ReadBy::Run { " of the run" } else { "" };
            Some((
                GREY,
                format!(
                    "{}: data.window={}{of_run} lies beyond the 255 that these store; {advice}",
                    of_only(tones.grey),
                    written(window)
                ),
            ))
        }
        Window::Values { .. } if tones.grey.are_narrow() => Some((GREY, advised(tones.grey, None))),
        _ => None,
    };
    deep.into_iter().chain(grey)
}

/// A window as configurations have it.
fn written(window: Window) -> String {
    match window {
        Window::Full => "\"full\"".to_owned(),
        Window::Image => "\"image\"".to_owned(),
        Window::Values { low, high } => format!("[{low}, {high}]"),
    }
}

/// Prints which operators are left out of the views because the images are grey.
pub fn say_left_out(operators: &[&str]) {
    if !operators.is_empty() {
        terminal::say(&format!("grey images: {} left out of the views", operators.join(", ")));
    }
}

fn warn_of(files: &[LeftOutFile], what: &str) {
    for LeftOutFile { name, reason } in files.iter().take(LISTED) {
        terminal::warn(&format!("{name}: {reason}"));
    }
    if let Some(more) = files.len().checked_sub(LISTED).filter(|&more| more > 0) {
        let more = terminal::grouped(more as u64);
        terminal::warn(&format!("{more} more {what}; simclr data --json lists all"));
    }
}

fn line(name: &str, source: &Source) -> String {
    let mut line = format!("{name}: {}, {}", source.kind, terminal::counted(source.train.len(), "image"));
    if let Some(test) = &source.test {
        line += &format!(" to train on, {} to test on", terminal::grouped(test.len() as u64));
    }
    if let Some(unlabelled) = &source.unlabelled {
        line += &format!(", {} more without labels", terminal::grouped(unlabelled.len() as u64));
    }
    // Those of the part to test on are the others, followed by any that only it has.
    let classes = [Some(&source.train), source.test.as_ref()].into_iter().flatten();
    match classes.map(|part| part.classes().len()).max() {
        Some(1) => line += ", 1 class",
        Some(classes @ 2..) => line += &format!(", {} classes", terminal::grouped(classes as u64)),
        Some(0) | None => {}
    }
    // Some images of a labelled data set may lack a label: pretraining uses them, evaluation does not.
    let parts = [Some(&source.train), source.test.as_ref()].into_iter().flatten();
    let without = |part: &Arc<dyn Dataset>| (0..part.len()).filter(|&i| part.label(i).is_none()).count();
    let without: usize = parts.filter(|part| !part.classes().is_empty()).map(without).sum();
    if without > 0 {
        line += &format!(", {} of no class", terminal::counted(without, "image"));
    }
    let LeftOut { count, images, ref outside, .. } = source.left_out;
    if images > 0 {
        let images = terminal::counted(images, "image");
        /// The most places that a message names.
        const NAMED: usize = 4;
        let places: Vec<&str> = outside.iter().take(NAMED).map(String::as_str).collect();
        let rest = if outside.len() > NAMED { ", ..." } else { "" };
        line += &format!(
            "; {images} left out, outside of the parts that are used ({}{rest})",
            terminal::inert(&places.join(", "))
        );
    }
    if count > images {
        line += &format!("; {} left out", terminal::counted(count - images, "other file"));
    }
    line
}
