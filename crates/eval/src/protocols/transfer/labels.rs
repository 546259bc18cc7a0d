//! Reads, from a table, the classes of images that show several.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use simclr_train::TrainError;

use crate::{EvalError, Targets};

/// A table of images and the classes that each shows.
///
/// A line is an image's path, then its classes, in CSV; an image may have several lines, or one without classes. A
/// first line that matches no image is a header, and ignored.
pub(super) struct ShownClasses {
    origin: String,
    /// The path of the first line.
    first: String,
    /// The classes of each path.
    shown: Vec<(String, BTreeSet<String>)>,
    /// The indices into `shown` of the paths with a given file name.
    by_name: HashMap<String, Vec<usize>>,
}

impl ShownClasses {
    /// Reads the table at `path`.
    pub fn read(path: &Path) -> Result<ShownClasses, EvalError> {
        let expected = "a table of images and the classes that each shows, in CSV";
        let text = EvalError::read(path, expected, std::fs::read)?;
        ShownClasses::parse(&text, &path.display().to_string())
    }

    fn parse(text: &[u8], origin: &str) -> Result<ShownClasses, EvalError> {
        // Looked at before it is split: a record may begin lines before the one that is at fault.
        let text = str::from_utf8(text).map_err(|error| {
            let before = &text[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
            bad(origin, format!("line {line} is not text in UTF-8"))
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).as_bytes();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        let mut first = None;
        let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for record in reader.records() {
            let record = record.map_err(|error| bad(origin, format!("is not read as CSV: {error}")))?;
            let mut cells = record.iter().map(str::trim).filter(|cell| !cell.is_empty());
            let Some(path) = cells.next() else { continue };
            let path = path.replace('\\', "/");
            first.get_or_insert_with(|| path.clone());
            shown.entry(path).or_default().extend(cells.map(str::to_owned));
        }
        let shown: Vec<_> = shown.into_iter().collect();
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, (path, _)) in shown.iter().enumerate() {
            by_name.entry(last(path).to_owned()).or_default().push(place);
        }
        let first = first.unwrap_or_default();
        Ok(ShownClasses { origin: origin.to_owned(), first, shown, by_name })
    }

    /// All classes, sorted, and the targets of `images`, the paths of all images of a data set. A line belongs to an
    /// image if the path of one is the end of the other's path.
    ///
    /// # Errors
    /// An image without a line, or with lines of different paths; a line that belongs to two images; a class that no
    /// image shows; fewer than two classes.
    pub fn of(&self, images: &[String]) -> Result<(Vec<String>, Targets), EvalError> {
        let bad = |message| bad(&self.origin, message);
        // The image that each line belongs to.
        let mut owners: Vec<Option<&str>> = vec![None; self.shown.len()];
        let mut lines = Vec::with_capacity(images.len());
        for image in images {
            let line = self.line_of(image)?;
            match owners[line].replace(image) {
                Some(other) if other != image => {
                    return Err(bad(format!(
                        "has the line {} for both {other} and {image}; give paths with more of their folders",
                        self.shown[line].0
                    )));
                }
                _ => lines.push(line),
            }
        }
        let classes_of = |line: usize| &self.shown[line].1;
        let seen: BTreeSet<&String> = lines.iter().flat_map(|&line| classes_of(line)).collect();
        let counts = |&line: &usize| owners[line].is_some() || self.shown[line].0 != self.first;
        let mut named = (0..self.shown.len()).filter(counts).flat_map(classes_of);
        if let Some(class) = named.find(|class| !seen.contains(class)) {
            return Err(bad(format!(
                "names the class {class:?}, which no image of the data set shows; take its lines out, or give the images that show it"
            )));
        }
        if seen.len() < 2 {
            return Err(bad(format!(
                "names {} classes, expected at least two: a line an image, its path and then the classes that it shows",
                seen.len()
            )));
        }
        let row = |&line: &usize| seen.iter().map(move |&class| classes_of(line).contains(class));
        let shown = lines.iter().flat_map(row).collect();
        let classes: Vec<String> = seen.iter().map(|&class| class.clone()).collect();
        Ok((classes, Targets::Several { classes: seen.len(), shown }))
    }

    /// The index of the line that belongs to an image.
    fn line_of(&self, image: &str) -> Result<usize, EvalError> {
        let bad = |message| bad(&self.origin, message);
        let same_name = self.by_name.get(last(image)).map_or(&[][..], Vec::as_slice);
        let fits = |&&line: &&usize| {
            let path = self.shown[line].0.as_str();
            ends(image, path) || ends(path, image)
        };
        let mut fitting = same_name.iter().filter(fits).copied();
        match (fitting.next(), fitting.next()) {
            (Some(line), None) => Ok(line),
            (None, _) => Err(bad(format!(
                "has no line for the image {image}; add one, without classes if it shows none"
            ))),
            (Some(one), Some(other)) => Err(bad(format!(
                "has lines for {} and for {}, either of which may be the image {image}; give paths with more of their folders",
                self.shown[one].0, self.shown[other].0
            ))),
        }
    }
}

fn bad(origin: &str, message: String) -> EvalError {
    TrainError::Syntax { origin: origin.to_owned(), message }.into()
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether `path` ends with `end`, in whole components.
fn ends(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, images: &[&str]) -> Result<(Vec<String>, Targets), String> {
        let images: Vec<String> = images.iter().map(|&image| image.to_owned()).collect();
        let table = ShownClasses::parse(text.as_bytes(), "labels.csv").unwrap();
        table.of(&images).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_of_images() {
        let [t, f] = [true, false];
        let images = ["voc/train/1.jpg", "voc/3.jpg", "voc/test/1.jpg", "voc/test/2.jpg"];
        for head in ["image,classes", "img,what it shows", ""] {
            let text = format!(
                "\u{feff}{head}\ntrain/1.jpg,cat,\"sofa, old\"\ntest/1.jpg,dog\n2.jpg\n/data/voc/3.jpg,cat\n/data/voc/3.jpg,dog,dog\n"
            );
            let (classes, targets) = of(&text, &images).unwrap();
            assert_eq!(classes, ["cat", "dog", "sofa, old"]);
            let shown = vec![t, f, t, /**/ t, t, f, /**/ f, t, f, /**/ f, f, f];
            assert_eq!(targets, Targets::Several { classes: 3, shown });
        }
    }

    /// Blank lines and line breaks within quotes count.
    #[test]
    fn a_line_that_is_no_text_is_named_by_its_number() {
        let text = b"a/1.jpg,cat\n\n\n\"b/1\n.jpg\",dog\n\n2.jpg,\xff\xfe\n3.jpg,cat\n";
        let error = ShownClasses::parse(text, "labels.csv").err().unwrap().to_string();
        assert_eq!(error, "labels.csv: line 7 is not text in UTF-8");
    }

    #[test]
    fn tables_of_classes_that_do_not_fit_the_images_are_refused() {
        let lines = "a/1.jpg,cat\nb/1.jpg,dog\n2.jpg,cat\n";
        let images = ["a/1.jpg", "a/2.jpg", "b/1.jpg"];
        // An image that occurs twice has one line.
        assert!(of(lines, &[&images[..], &images].concat()).is_ok());
        let cases = [
            (lines, "1.jpg", "has lines for a/1.jpg and for b/1.jpg, either of which may be the image 1.jpg"),
            (lines, "c/1.jpg", "has no line for the image c/1.jpg"),
            (lines, "a/12.jpg", "has no line for"),
            (lines, "b/2.jpg", "has the line 2.jpg for both a/2.jpg and b/2.jpg; give paths with more"),
            (&format!("{lines}3.jpg,bird\n"), "a/2.jpg", "names the class \"bird\", which no image"),
            ("a/1.jpg,cat\nb/1.jpg\n2.jpg\n", "a/2.jpg", "names 1 classes"),
            ("", "a/1.jpg", "has no line for"),
        ];
        for (text, image, expected) in cases {
            let error = of(text, &[&images[..], &[image]].concat()).unwrap_err();
            assert!(error.starts_with("labels.csv: ") && error.contains(expected), "{image}: {error}");
        }
    }
}
