//! `simclr data`: what a data set holds, and what is wrong with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use clap::Args;
use image::RgbImage;
use serde_json::{Value, json};
use simclr_data::{
    Concat, Dataset, DecodeOptions, DecodeScratch, LeftOut, LeftOutFile, Source, Spread, Survey, Values,
    contradicting, survey,
};

use crate::copies::labelled;
use crate::data::{DEEP, FORMS, Opening, ReadBy, dark};
use crate::exit::Done;
use crate::out;
use crate::settings::{DataSettings, Threads};
use crate::sheet::canvas::{Canvas, LETTER, LINE, written};
use crate::sheet::grid::{fitted, shortened};
use crate::sheet::{self, check_out, picture};
use crate::terminal::{self, LISTED};

/// The sheet of samples has this many columns and rows, of squares this many pixels wide.
const COLUMNS: usize = 8;
const ROWS: usize = 6;
const SIDE: u32 = 128;
const GAP: usize = 12;

/// Show what a data set holds: counts, classes, sizes, formats, broken images, duplicates
#[derive(Args, Debug)]
#[command(after_help = FORMS)]
pub struct Data {
    /// The images, as for pretrain
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// Draw samples into this .png file
    #[arg(long, value_name = "PNG")]
    out: Option<PathBuf>,

    /// Stop at the first image that cannot be read (data.strict)
    #[arg(long)]
    strict: bool,

    #[command(flatten)]
    settings: DataSettings,

    #[command(flatten)]
    threads: Threads,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl Data {
    pub fn run(self) -> Result<Done> {
        self.out.as_deref().map(|out| check_out(out, &self.data)).transpose()?;
        let config = self.settings.resolve()?;
        let strict = self.strict || config.strict;
        let source = Opening::new(&config, self.threads.count()).strict(strict).open(&self.data)?;
        let check = |out| out::check_no_image(out, &source, &self.data);
        self.out.as_deref().map(check).transpose()?;
        let whole = whole(&source);
        let found = self.look(&whole, strict)?;
        if self.json {
            terminal::print_json(&object(&source, &whole, &found))?;
        } else {
            for line in lines(&source, &whole, &found, config.decode()) {
                terminal::print(&line)?;
            }
        }
        let Some(out) = &self.out else { return Ok(Done::Finished) };
        if found.readable == 0 {
            bail!("--out {}: none of the images can be read, so there are no samples to draw", out.display());
        }
        let (sheet, shown) = samples(&whole)?;
        sheet::save(&sheet, out)?;
        let (shown_classes, classes) = (shown.len(), whole.classes().len());
        let of = match shown_classes < classes {
            true => format!(", {shown_classes} of {classes} classes"),
            false => String::new(),
        };
        terminal::say(&format!("samples: {}{of}", out.display()));
        for label in shown {
            let (name, caption) = (&whole.classes()[label as usize], caption(&whole, label));
            if *name != caption {
                terminal::say(&format!("  {caption} is {}", terminal::inert(name)));
            }
        }
        Ok(Done::Finished)
    }

    fn look(&self, whole: &Concat, strict: bool) -> Result<Survey> {
        let threads = self.threads.counted();
        let bar = terminal::bar(whole.len() as u64);
        bar.iter().for_each(|bar| bar.set_message("images read"));
        let most = AtomicUsize::new(0);
        let see = |done| {
            let done = most.fetch_max(done, Ordering::Relaxed).max(done);
            bar.iter().for_each(|bar| bar.set_position(done as u64));
        };
        Ok(survey(whole, threads, strict, &see)?)
    }
}

/// All parts as one data set, the test part last: an image in two parts is a duplicate.
fn whole(source: &Source) -> Concat {
    let mut sets: Vec<(String, Arc<dyn Dataset>)> = vec![(String::new(), source.to_pretrain())];
    sets.extend(source.test.iter().map(|test| ("test: ".to_owned(), test.clone())));
    let classes = Concat::classes_of(sets.iter().map(|(_, set)| set.classes()));
    Concat::new(sets, classes)
}

/// Classes that occur only in the test part.
fn in_test_alone<'a>(source: &Source, whole: &'a Concat) -> &'a [String] {
    match source.train.classes().len() {
        0 => &[],
        learnt => whole.classes().get(learnt..).unwrap_or_default(),
    }
}

fn lines(source: &Source, whole: &Concat, found: &Survey, decoding: DecodeOptions) -> Vec<String> {
    let mut lines = vec![row("kind", source.kind.to_string()), row("images", images(source, whole))];
    lines.extend(size_lines(found));
    lines.extend(tone_lines(found, decoding));
    lines.extend(class_lines(source, whole, found));
    lines.extend(problem_lines(source, whole, found));
    lines
}

fn row(name: &str, text: String) -> String {
    format!("{name:<12} {text}")
}

fn grouped(number: usize) -> String {
    terminal::grouped(number as u64)
}

/// Formats and sizes.
fn size_lines(found: &Survey) -> Vec<String> {
    let range = |Spread { least, median, most }| match least == most {
        true => format!("{least}"),
        false => format!("{least} to {most}, median {median}"),
    };
    let mut lines = Vec::new();
    let formats: Vec<String> =
        found.formats.iter().map(|(name, &n)| format!("{name} {}", grouped(n))).collect();
    if !formats.is_empty() {
        lines.push(row("formats", formats.join(", ")));
    }
    if found.readable > 0 {
        lines.push(row("width", range(found.width)));
        lines.push(row("height", range(found.height)));
    }
    lines
}

/// Brightness, colours, opacity and further pages.
fn tone_lines(found: &Survey, decoding: DecodeOptions) -> Vec<String> {
    let mut lines = Vec::new();
    let Values { images: deep, least, most } = found.tones.deep;
    let dark: Vec<_> = dark(&found.tones, decoding.window, ReadBy::Command).collect();
    if deep > 0 && !dark.iter().any(|(kind, _)| *kind == DEEP) {
        let images = terminal::counted(deep, "image");
        lines.push(row(DEEP, format!("{images} of {least} to {most} out of 255, as data.window maps them")));
    }
    lines.extend(dark.into_iter().map(|(kind, values)| row(kind, values)));
    let grey = match found.grey == found.readable {
        true => "all; operators that change colours mean nothing here".to_owned(),
        false => grouped(found.grey),
    };
    if found.readable > 0 {
        lines.push(row("grey", grey));
    }
    if found.transparent > 0 {
        let (images, [r, g, b]) = (terminal::counted(found.transparent, "image"), decoding.background);
        lines.push(row("transparent", format!("{images}, laid over data.background=[{r}, {g}, {b}]")));
    }
    if found.with_pages > 0 {
        let files = terminal::counted(found.with_pages, "file");
        lines.push(row("pages", format!("{files} with several, of which only the first is read")));
    }
    lines
}

/// The classes, and images without one.
fn class_lines(source: &Source, whole: &Concat, found: &Survey) -> Vec<String> {
    let classes = whole.classes();
    let mut lines = vec![row(
        "classes",
        match (classes.len(), source.test.as_ref().is_some_and(|test| !test.classes().is_empty())) {
            (0, _) => "none".to_owned(),
            (classes, false) => grouped(classes),
            (classes, true) => {
                format!("{}; the counts include test images", grouped(classes))
            }
        },
    )];
    let (names, without) = (classes.iter().zip(&found.per_class), found.per_class.last());
    lines.extend(
        names.take(LISTED).map(|(name, &n)| row("", format!("{} {}", grouped(n), terminal::inert(name)))),
    );
    lines.extend(more(classes.len()));
    let alone = in_test_alone(source, whole);
    if !alone.is_empty() {
        let names: Vec<String> = alone.iter().take(LISTED).map(|name| terminal::inert(name)).collect();
        let rest = if alone.len() > LISTED { ", ..." } else { "" };
        let count = grouped(alone.len());
        let names = names.join(", ") + rest;
        lines.push(row("", format!("{count} in the test part alone, which evaluations refuse: {names}")));
    }
    if let Some(&without) = without.filter(|&&n| n > 0 && !classes.is_empty()) {
        lines.push(row("", format!("{} without a label", grouped(without))));
    }
    lines
}

/// Broken images, what was left out, duplicates, and classes that contradict each other.
fn problem_lines(source: &Source, whole: &Concat, found: &Survey) -> Vec<String> {
    let mut lines = vec![row("broken", grouped(found.broken.len()))];
    let broken = found.broken.iter().take(LISTED);
    lines.extend(broken.map(|image| row("", format!("{}: {}", terminal::inert(&image.name), image.reason))));
    lines.extend(more(found.broken.len()));
    // Folders, links and archives: nobody knows how many images are lost with them.
    let LeftOut { broken, doubtful, .. } = &source.left_out;
    for (name, files) in [("unreadable", broken), ("doubtful", doubtful)] {
        if !files.is_empty() {
            lines.push(row(name, grouped(files.len())));
            let listed = files.iter().take(LISTED);
            lines.extend(listed.map(|file| row("", format!("{}: {}", file.name, file.reason))));
            lines.extend(more(files.len()));
        }
    }
    lines.push(row("duplicates", grouped(found.superfluous())));
    for group in found.duplicates.iter().take(LISTED) {
        let names: Vec<String> =
            group.iter().take(4).map(|&image| terminal::inert(&whole.name(image as usize))).collect();
        let rest = if group.len() > 4 { format!(" and {} more", group.len() - 4) } else { String::new() };
        lines.push(row("", names.join(" = ") + &rest));
    }
    lines.extend(more(found.duplicates.len()));
    let contradicting = contradicting(whole, &found.duplicates);
    if !contradicting.is_empty() {
        lines.push(row("mislabelled", format!("{}, of several classes", grouped(contradicting.len()))));
        lines.extend(contradicting.iter().take(LISTED).map(|group| row("", labelled(whole, group))));
        lines.extend(more(contradicting.len()));
    }
    if source.left_out.count > 0 {
        lines.push(row("left out", terminal::counted(source.left_out.count, "file")));
        let files = source.left_out.files.iter().take(LISTED);
        lines.extend(files.map(|file| row("", format!("{}: {}", file.name, file.reason))));
        lines.extend(more(source.left_out.count));
    }
    lines
}

/// The number of images, and of each part if there are several.
fn images(source: &Source, whole: &Concat) -> String {
    let parts: Vec<String> = [
        (Some(&source.train), "to train on"),
        (source.unlabelled.as_ref(), "more without labels"),
        (source.test.as_ref(), "to test on"),
    ]
    .into_iter()
    .filter_map(|(part, what)| Some(format!("{} {what}", grouped(part?.len()))))
    .collect();
    match &parts[..] {
        [_] => grouped(whole.len()),
        several => format!("{}: {}", grouped(whole.len()), several.join(", ")),
    }
}

fn more(count: usize) -> Option<String> {
    (count > LISTED).then(|| format!("{:<12} and {} more", "", grouped(count - LISTED)))
}

fn object(source: &Source, whole: &Concat, found: &Survey) -> Value {
    let spread = |s: Spread| json!({ "least": s.least, "median": s.median, "most": s.most });
    let len = |part: &Option<Arc<dyn Dataset>>| part.as_ref().map_or(0, |part| part.len());
    let classes: Vec<Value> = whole
        .classes()
        .iter()
        .zip(&found.per_class)
        .map(|(name, images)| json!({ "name": name, "images": images }))
        .collect();
    let duplicates: Vec<Vec<String>> = found
        .duplicates
        .iter()
        .map(|group| group.iter().map(|&image| whole.name(image as usize)).collect())
        .collect();
    let class = |label: u32| whole.classes().get(label as usize);
    let image = |&image: &u32| {
        let image = image as usize;
        json!({ "name": whole.name(image), "class": whole.label(image).and_then(class) })
    };
    let mislabelled: Vec<Vec<Value>> = contradicting(whole, &found.duplicates)
        .into_iter()
        .map(|group| group.iter().map(image).collect())
        .collect();
    let listed = |files: &[LeftOutFile]| -> Vec<Value> {
        files.iter().map(|file| json!({ "name": file.name, "reason": file.reason })).collect()
    };
    let LeftOut { count, files, images, outside, broken, doubtful, notes } = &source.left_out;
    let Values { images: deep, least, most } = found.tones.deep;
    json!({
        "kind": source.kind.to_string(),
        "images": whole.len(),
        "train_images": source.train.len(),
        "test_images": len(&source.test),
        "unlabelled_images": len(&source.unlabelled),
        "readable": found.readable,
        "broken": found.broken,
        "classes": classes,
        "classes_in_test_alone": in_test_alone(source, whole),
        "formats": found.formats,
        "grey": found.grey,
        "transparent": found.transparent,
        "with_several_pages": found.with_pages,
        "sixteen_bit": deep,
        "sixteen_bit_values": (deep > 0).then(|| json!({ "least": least, "most": most })),
        "sixteen_bit_stored_values": found.tones.deep_stored.map(|[least, most]| json!({ "least": least, "most": most })),
        "width": spread(found.width),
        "height": spread(found.height),
        "duplicates": duplicates,
        "mislabelled": mislabelled,
        "left_out": { "count": count, "images": images, "outside": outside, "files": listed(files) },
        "unreadable": listed(broken),
        "doubtful": listed(doubtful),
        "notes": notes,
    })
}

/// What is written below the images of a class.
fn caption(whole: &Concat, label: u32) -> String {
    written(&whole.classes()[label as usize], "class", label)
}

/// Draws a sheet of samples: a row for each of some classes, or images spread over the whole set. Returns also which
/// classes it shows.
fn samples(whole: &Concat) -> Result<(RgbImage, Vec<u32>)> {
    let mut scratch = DecodeScratch::default();
    // Broken images are reported elsewhere.
    let mut readable = |images: &mut dyn Iterator<Item = u32>, most: usize| -> Vec<u32> {
        let readable = |&image: &u32| whole.read(image as usize, &mut scratch).is_ok();
        let mut shown: Vec<u32> = images.filter(readable).take(most).collect();
        shown.sort_unstable();
        shown
    };
    let rows: Vec<Vec<u32>> = match whole.classes() {
        [] => {
            let all: Vec<u32> = (0..whole.len() as u32).collect();
            let shown = readable(&mut spread(&all, COLUMNS * ROWS), COLUMNS * ROWS);
            shown.chunks(COLUMNS).map(<[u32]>::to_vec).collect()
        }
        _ => by_class(whole).into_iter().map(|images| readable(&mut images.into_iter(), COLUMNS)).collect(),
    };
    let class_of = |row: &Vec<u32>| row.first().and_then(|&image| whole.label(image as usize));
    let classes = rows.iter().filter_map(class_of).collect();
    let (side, cell) = (SIDE as usize, SIDE as usize + 4 + LINE + GAP);
    let mut canvas = Canvas::new(COLUMNS * (side + GAP) + GAP, rows.len().max(1) * cell + GAP);
    for (row, images) in rows.into_iter().enumerate() {
        for (column, index) in images.into_iter().enumerate() {
            let image = whole.read(index as usize, &mut scratch)?;
            let shown = fitted(&picture(image.width, image.height, image.pixels.to_vec())?, SIDE);
            let (x, y) = (GAP + column * (side + GAP), GAP + row * cell);
            canvas.put(&shown, x, y + side - shown.height() as usize);
            let text = match whole.label(index as usize) {
                Some(label) => caption(whole, label),
                None => written(&whole.name(index as usize), "image", index),
            };
            canvas.write(&shortened(&text, side / LETTER), x, y + side + 4, 40);
        }
    }
    Ok((canvas.into_image(), classes))
}

/// About `count` images spread evenly over `images`, and then as many between them, to stand in for broken ones.
fn spread(images: &[u32], count: usize) -> impl Iterator<Item = u32> {
    let step = images.len().div_ceil(2 * count).max(1);
    images.iter().step_by(2 * step).chain(images.iter().skip(step).step_by(2 * step)).copied()
}

/// The images of each row of the sheet: one row per class for some classes, and last, if there are any, the unlabelled.
fn by_class(whole: &Concat) -> Vec<Vec<u32>> {
    let mut by_class = vec![Vec::new(); whole.classes().len()];
    let mut without = Vec::new();
    for image in 0..whole.len() as u32 {
        match whole.label(image as usize) {
            Some(label) => by_class[label as usize].push(image),
            None => without.push(image),
        }
    }
    let rows = if without.is_empty() { ROWS } else { ROWS - 1 };
    let mut chosen: Vec<Vec<u32>> =
        by_class.into_iter().filter(|images| !images.is_empty()).take(rows).collect();
    chosen.extend(Some(without).filter(|images| !images.is_empty()));
    chosen.into_iter().map(|images| spread(&images, COLUMNS).collect()).collect()
}
