//! Reading every image of a data set once, to summarise it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::copies::hash_pixels;
use crate::dataset::Dataset;
use crate::decode::DecodeScratch;
use crate::error::DataError;
use crate::in_order::{in_order, on_threads};
use crate::loader::Skipped;
use crate::tones::{Tones, Values};

/// The smallest, the median and the largest of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// The smallest.
    pub least: u32,
    /// The median.
    pub median: u32,
    /// The largest.
    pub most: u32,
}

/// The summary of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Images that can be read.
    pub readable: usize,
    /// Images that cannot be read, in the order of the data set.
    pub broken: Vec<Skipped>,
    /// Readable images of each class of the data set and, last, of none.
    pub per_class: Vec<usize>,
    /// How many images are stored in which format; empty for binary data sets.
    pub formats: BTreeMap<String, usize>,
    /// Images all of whose pixels have three equal channels.
    pub grey: usize,
    /// Images some of whose pixels are transparent, at least in part: they are laid over the background.
    pub transparent: usize,
    /// Image files with several pages, of which the first is read (TIFF).
    pub with_pages: usize,
    /// The values of the images that the window acts on.
    pub tones: Tones,
    /// Widths in pixels.
    pub width: Spread,
    /// Heights in pixels.
    pub height: Spread,
    /// Images with the same pixels as others, each group in the order of the data set.
    pub duplicates: Vec<Vec<u32>>,
}

impl Survey {
    /// The number of images that equal an earlier one.
    pub fn superfluous(&self) -> usize {
        self.duplicates.iter().map(|group| group.len() - 1).sum()
    }
}

/// The findings of one thread.
#[derive(Default)]
struct Seen {
    survey: Survey,
    widths: Vec<u32>,
    heights: Vec<u32>,
    hashes: Vec<(u64, u32)>,
}

/// Reads every image of `dataset` once with `threads` threads. Reports the number of images read so far to `progress`.
///
/// # Errors
/// [`DataError::Lost`]; with `strict`, the error of the first image that cannot be read.
pub fn survey(
    dataset: &dyn Dataset,
    threads: usize,
    strict: bool,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Survey, DataError> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let all: Mutex<Seen> = Mutex::default();
    let lost: Mutex<Option<DataError>> = Mutex::default();
    on_threads(threads, || {
        let mut seen = Seen::default();
        seen.survey.per_class = vec![0; dataset.classes().len() + 1];
        let mut scratch = DecodeScratch::thorough();
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= dataset.len() {
                break;
            }
            if let Err(error) = seen.look_at(dataset, index, &mut scratch) {
                *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                stop.store(true, Ordering::Relaxed);
            }
            if strict && !seen.survey.broken.is_empty() {
                stop.store(true, Ordering::Relaxed);
            }
            progress(index + 1);
        }
        all.lock().unwrap_or_else(PoisonError::into_inner).join(seen);
    });
    if let Some(error) = lost.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let Seen { mut survey, widths, heights, hashes } =
        all.into_inner().unwrap_or_else(PoisonError::into_inner);
    survey.broken.sort_by_key(|broken| broken.index);
    // Images are claimed in order and every claimed image is looked at: the first broken one is among them.
    if let Some(Skipped { name, reason, .. }) = survey.broken.first().filter(|_| strict) {
        return Err(DataError::Image { name: name.clone(), reason: reason.clone() });
    }
    survey.width = spread(widths);
    survey.height = spread(heights);
    survey.duplicates = duplicates(dataset, threads, hashes);
    Ok(survey)
}

impl Seen {
    /// Fails if images can no longer be read.
    fn look_at(
        &mut self,
        dataset: &dyn Dataset,
        index: usize,
        scratch: &mut DecodeScratch,
    ) -> Result<(), DataError> {
        let (hash, grey, values) = match dataset.read(index, scratch) {
            Ok(image) => {
                self.widths.push(image.width);
                self.heights.push(image.height);
                let grey = image.pixels.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b);
                (hash_pixels(image), grey, Values::of(image))
            }
            Err(error) => {
                let reason = match error {
                    DataError::Image { reason, .. } => reason,
                    lost @ DataError::Lost { .. } => return Err(lost),
                    other => other.to_string(),
                };
                let broken = Skipped { index: index as u32, name: dataset.name(index), reason };
                self.survey.broken.push(broken);
                return Ok(());
            }
        };
        let Survey { readable, per_class, formats, grey: greys, transparent, with_pages, tones, .. } =
            &mut self.survey;
        *readable += 1;
        *greys += usize::from(grey);
        per_class[dataset.label(index).map_or(dataset.classes().len(), |label| label as usize)] += 1;
        if let Some(stored) = scratch.stored() {
            *formats.entry(stored.format.to_string()).or_default() += 1;
            *transparent += usize::from(stored.transparent);
            *with_pages += usize::from(stored.has_pages);
            tones.count(values, stored);
        }
        self.hashes.push((hash, index as u32));
        Ok(())
    }

    fn join(&mut self, other: Self) {
        let Survey { readable, broken, per_class, formats, grey, transparent, with_pages, tones, .. } =
            &mut self.survey;
        *readable += other.survey.readable;
        *grey += other.survey.grey;
        *transparent += other.survey.transparent;
        *with_pages += other.survey.with_pages;
        tones.add(other.survey.tones);
        broken.extend(other.survey.broken);
        per_class.resize(other.survey.per_class.len(), 0);
        per_class.iter_mut().zip(other.survey.per_class).for_each(|(all, more)| *all += more);
        for (format, count) in other.survey.formats {
            *formats.entry(format).or_default() += count;
        }
        self.widths.extend(other.widths);
        self.heights.extend(other.heights);
        self.hashes.extend(other.hashes);
    }
}

fn spread(mut values: Vec<u32>) -> Spread {
    values.sort_unstable();
    let at = |place: usize| values.get(place).copied().unwrap_or(0);
    Spread { least: at(0), median: at(values.len() / 2), most: at(values.len().saturating_sub(1)) }
}

/// Suspects that a thread compares at a time: the image that they may equal is decoded once for all of them.
const COMPARED: usize = 16;

/// Groups of equal images. Equal hashes only raise a suspicion; the pixels decide.
fn duplicates(dataset: &dyn Dataset, threads: usize, mut hashes: Vec<(u64, u32)>) -> Vec<Vec<u32>> {
    hashes.sort_unstable();
    // Each with the first image of the same hash.
    let suspects: Vec<(u32, u32)> = hashes
        .chunk_by(|a, b| a.0 == b.0)
        .flat_map(|same| same[1..].iter().map(|&(_, image)| (same[0].1, image)))
        .collect();
    let compared: Vec<&[(u32, u32)]> = suspects.chunks(COMPARED).collect();
    let equal = in_order(compared.len(), threads, |(one, other): &mut (DecodeScratch, DecodeScratch), at| {
        let mut equal = Vec::new();
        for suspects in compared[at].chunk_by(|a, b| a.0 == b.0) {
            let Ok(first) = dataset.read(suspects[0].0 as usize, one) else { continue };
            equal.extend(suspects.iter().copied().filter(|&(_, image)| {
                dataset.read(image as usize, other).is_ok_and(|image| {
                    (image.width, image.height) == (first.width, first.height) && image.pixels == first.pixels
                })
            }));
        }
        equal
    });
    let mut equal = equal.concat();
    equal.sort_unstable();
    let group = |equal: &[(u32, u32)]| {
        std::iter::once(equal[0].0).chain(equal.iter().map(|&(_, image)| image)).collect()
    };
    equal.chunk_by(|a, b| a.0 == b.0).map(group).collect()
}
