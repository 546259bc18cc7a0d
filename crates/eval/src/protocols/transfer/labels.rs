//! The classes of images that show several, read from a table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use simclr_data::Dataset;
use simclr_train::TrainError;

use crate::{EvalError, Targets};

/// First cells of a line that names columns.
const HEADS: [&str; 5] = ["path", "image", "file", "filename", "name"];

/// A table of images and the classes that each shows.
///
/// A line is an image's path, then its classes, in CSV; an image may have several lines, or one without classes. A first line that
/// names its columns is passed over.
pub(super) struct ShownClasses {
    origin: String,
    /// The classes of each path.
    shown: Vec<(String, BTreeSet<String>)>,
    /// The places of the paths that end in a name.
    by_name: HashMap<String, Vec<usize>>,
    /// All classes, sorted.
    pub classes: Vec<String>,
}

impl ShownClasses {
    /// Reads the table at `path`.
    pub fn read(path: &Path) -> Result<ShownClasses, EvalError> {
        let text = std::fs::read(path)
            .map_err(EvalError::read(path, "a table of images and the classes that each shows, in CSV"))?;
        ShownClasses::parse(&text, &path.display().to_string())
    }

    fn parse(text: &[u8], origin: &str) -> Result<ShownClasses, EvalError> {
        let bad = |message: String| TrainError::Syntax { origin: origin.to_owned(), message };
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text);
        let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (line, record) in reader.records().enumerate() {
            let record =
                record.map_err(|error| bad(format!("line {} is not read as CSV: {error}", line + 1)))?;
            let mut cells = record.iter().map(str::trim).filter(|cell| !cell.is_empty());
            let Some(path) = cells.next() else { continue };
            if line == 0 && HEADS.iter().any(|head| path.eq_ignore_ascii_case(head)) {
                continue;
            }
            shown.entry(path.replace('\\', "/")).or_default().extend(cells.map(str::to_owned));
        }
        let classes: BTreeSet<&String> = shown.values().flatten().collect();
        if classes.len() < 2 {
            let found = classes.len();
            return Err(bad(format!(
                "names {found} classes, expected at least two: a line an image, its path and then the classes that it shows"
            ))
            .into());
        }
        let classes = classes.into_iter().cloned().collect();
        let shown: Vec<_> = shown.into_iter().collect();
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, (path, _)) in shown.iter().enumerate() {
            by_name.entry(last(path).to_owned()).or_default().push(place);
        }
        Ok(ShownClasses { origin: origin.to_owned(), shown, by_name, classes })
    }

    /// What the images of a data set show, which was opened at `root`. A line is an image's where the path of one is the end of the other's.
    ///
    /// # Errors
    /// An image without a line, or with lines of several paths.
    pub fn of(&self, dataset: &dyn Dataset, root: &Path) -> Result<Targets, EvalError> {
        let mut shown = Vec::with_capacity(dataset.len() * self.classes.len());
        for index in 0..dataset.len() {
            // A list may name its images by whole paths.
            let image = root.join(dataset.name(index));
            let own = self.classes_of(&image.to_string_lossy().replace('\\', "/"))?;
            shown.extend(self.classes.iter().map(|class| own.contains(class)));
        }
        Ok(Targets::Several { classes: self.classes.len(), shown })
    }

    fn classes_of(&self, image: &str) -> Result<&BTreeSet<String>, EvalError> {
        let bad = |message| TrainError::Syntax { origin: self.origin.clone(), message };
        let same_name = self.by_name.get(last(image)).map_or(&[][..], Vec::as_slice);
        let fits = |&&place: &&usize| {
            let path = self.shown[place].0.as_str();
            ends(image, path) || ends(path, image)
        };
        let mut fitting = same_name.iter().filter(fits).map(|&place| &self.shown[place]);
        match (fitting.next(), fitting.next()) {
            (Some((_, classes)), None) => Ok(classes),
            (None, _) => Err(bad(format!("has no line for the image {image}; add one, without classes if it shows none")).into()),
            (Some((one, _)), Some((other, _))) => Err(bad(format!(
                "has lines for {one} and for {other}, either of which may be the image {image}; give paths with more of their folders"
            ))
            .into()),
        }
    }
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether whole components of `path` end with those of `end`.
fn ends(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ShownClasses, String> {
        ShownClasses::parse(text.as_bytes(), "labels.csv").map_err(|error| error.to_string())
    }

    #[test]
    fn lines_of_images() {
        let table = parse(
            "\u{feff}image,classes\ntrain/1.jpg,cat,\"sofa, old\"\ntest/1.jpg,dog\n2.jpg\n3.jpg,cat\n3.jpg,dog,dog\n",
        )
        .unwrap();
        assert_eq!(table.classes, ["cat", "dog", "sofa, old"]);
        let of = |image| table.classes_of(image).map(|classes| classes.iter().cloned().collect::<Vec<_>>());
        assert_eq!(of("voc/train/1.jpg").unwrap(), ["cat", "sofa, old"]);
        assert_eq!(of("voc/test/1.jpg").unwrap(), ["dog"]);
        assert_eq!(of("1.jpg").unwrap_err().to_string().matches("train/1.jpg").count(), 1);
        assert!(of("voc/test/2.jpg").unwrap().is_empty());
        assert_eq!(of("3.jpg").unwrap(), ["cat", "dog"]);
        for image in ["voc/other/1.jpg", "voc/13.jpg", "4.jpg"] {
            let error = of(image).unwrap_err().to_string();
            assert!(error.starts_with("labels.csv: has no line for") && error.contains(image), "{error}");
        }
        assert!(parse("a.jpg,cat\n").err().unwrap().contains("names 1 classes"));
        assert!(parse("").is_err());
    }
}
