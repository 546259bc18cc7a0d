//! A suite: data sets, where they lie, and what judges them.

use std::path::{Path, PathBuf};

use simclr_train::config::nearest;

use super::known::{KNOWN, Known};
use crate::toml_file::{Keys, TomlFile};
use crate::{EvalError, Metric};

/// The most letters in a name: even with a suffix, it still fits in a file name.
const MAX_NAME_LEN: usize = 100;
/// The keys of a data set.
const KEYS: [&str; 6] = ["name", "train", "test", "validation", "metric", "labels"];

/// The contents of a suite's file.
#[derive(Clone, Debug, PartialEq)]
pub struct Suite {
    /// Its file.
    pub path: PathBuf,
    /// The data sets, in the order of the file.
    pub sets: Vec<SetSpec>,
}

/// A data set as a suite describes it; paths are resolved, ready to open.
#[derive(Clone, Debug, PartialEq)]
pub struct SetSpec {
    /// Its name, fit for use in a file name.
    pub name: String,
    /// The images to train on.
    pub train: PathBuf,
    /// The images to test on; if `None`, the test images of `train`.
    pub test: Option<PathBuf>,
    /// The images to choose settings by; if `None`, some of the training images.
    pub validation: Option<PathBuf>,
    /// The table of classes, for images that show several.
    pub labels: Option<PathBuf>,
    /// The metric that judges it.
    pub metric: Metric,
    /// The paper's data set of that name, if there is one.
    pub known: Option<&'static Known>,
    /// Its keys and their values as the suite writes them, sorted.
    pub written: String,
}

impl Suite {
    /// Reads a suite. Its paths are relative to its folder.
    ///
    /// # Errors
    /// A file that does not exist or cannot be read, and through [`EvalError::Train`] text that is not TOML, an
    /// unknown key (with the nearest suggested), an invalid value, and a data set without a metric that is not
    /// [`Known`].
    pub fn read(path: &Path) -> Result<Suite, EvalError> {
        let text = EvalError::read(path, "a suite of data sets, a TOML file", std::fs::read_to_string)?;
        Suite::parse(&text, path)
    }

    /// Parses the suite in `text`, which was read from `path`.
    ///
    /// # Errors
    /// As [`Suite::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Suite, EvalError> {
        let origin = path.display().to_string();
        let file = TomlFile::parse(text, &origin)?;
        if let Some(key) = file.top().table.keys().find(|key| *key != "set") {
            let hint = "a suite is a list of data sets, each a table [[set]]".to_owned();
            return Err(file.top().unknown(key, hint));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut sets: Vec<SetSpec> = Vec::new();
        for keys in file.tables("set")? {
            let table = SetTable(keys);
            let set = table.read(folder)?;
            if sets.iter().any(|other| other.name.eq_ignore_ascii_case(&set.name)) {
                let again = format!("{:?} again", set.name);
                return Err(table.0.bad("name", again, "another name for each data set"));
            }
            sets.push(set);
        }
        match sets.is_empty() {
            false => Ok(Suite { path: path.to_path_buf(), sets }),
            true => {
                let expected = "a table [[set]] for each data set, with name, train and test";
                Err(file.top().bad("set", "nowhere".to_owned(), expected))
            }
        }
    }
}

/// A data set's table.
struct SetTable<'t>(Keys<'t>);

impl SetTable<'_> {
    fn read(&self, folder: &Path) -> Result<SetSpec, EvalError> {
        let SetTable(keys) = self;
        keys.check(&KEYS)?;
        let name = keys.required("name", "a name, such as \"cifar10\"")?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if !(1..=MAX_NAME_LEN).contains(&name.len()) || name.starts_with('.') || !name.chars().all(fits) {
            let expected =
                format!("up to {MAX_NAME_LEN} letters, digits, and - _ . between them: it names a file");
            return Err(keys.bad("name", format!("{name:?}"), expected));
        }
        let path = |key| Ok::<_, EvalError>(keys.text(key)?.map(|path| folder.join(path)));
        let train = folder.join(keys.required("train", "the path of the images to learn from")?);
        let (test, validation, labels) = (path("test")?, path("validation")?, path("labels")?);
        let known = Known::of(name);
        let metric = match (keys.text("metric")?, known) {
            (Some(word), _) => self.metric(word)?,
            (None, Some(known)) => known.metric,
            (None, None) => return Err(self.without_metric(name)),
        };
        match (&labels, metric.of_several()) {
            (None, true) => Err(keys.bad(
                "labels",
                "nowhere".to_owned(),
                "a table of images and the classes that each shows, which map11 judges",
            )),
            (Some(_), false) => Err(keys.bad(
                "metric",
                format!("{:?}", metric.word()),
                "\"map11\" where labels gives several classes to an image; else leave labels out",
            )),
            _ => {
                let written = keys.table.to_string();
                Ok(SetSpec { name: name.to_owned(), train, test, validation, labels, metric, known, written })
            }
        }
    }

    fn metric(&self, word: &str) -> Result<Metric, EvalError> {
        let words = Metric::ALL.map(Metric::word);
        let found = Metric::ALL.into_iter().find(|metric| metric.word() == word);
        found.ok_or_else(|| self.0.bad("metric", format!("{word:?}"), one_of(word, &words)))
    }

    fn without_metric(&self, name: &str) -> EvalError {
        let names = KNOWN.map(|known| known.name);
        let words = Metric::ALL.map(|metric| format!("{:?}", metric.word())).join(", ");
        let expected = format!(
            "one of {words}, or one of the names whose metric is known: {}",
            suggestion(name, &names)
        );
        self.0.bad("metric", "nowhere".to_owned(), expected)
    }
}

/// Suggests the nearest name, or lists all.
fn suggestion(word: &str, names: &[&str]) -> String {
    match nearest(word, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => names.join(", "),
    }
}

fn one_of(word: &str, names: &[&str]) -> String {
    match nearest(word, names.iter().copied()) {
        Some(near) => format!("one of {}; did you mean {near}?", names.join(", ")),
        None => format!("one of {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Suite, String> {
        Suite::parse(text, Path::new("suites/few.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn paths_are_relative_to_the_suite_and_known_names_have_metrics() {
        let suite = parse(
            "[[set]]\nname = \"flowers102\"\ntrain = \"flowers/train\"\ntest = \"/data/test\"\n\
             [[set]]\nname = \"own\"\ntrain = \"own\"\nvalidation = \"val\"\nmetric = \"top1\"\n\
             [[set]]\nname = \"voc2007\"\ntrain = \"voc/train.txt\"\ntest = \"voc/test.txt\"\nlabels = \"voc/labels.csv\"\n",
        )
        .unwrap();
        let [flowers, own, voc] = &suite.sets[..] else { panic!("{suite:?}") };
        assert_eq!((flowers.metric, voc.metric), (Metric::MeanPerClass, Metric::ElevenPointMap));
        assert_eq!((own.metric, own.known, own.test.as_deref()), (Metric::Top1, None, None));
        assert_eq!(flowers.train, Path::new("suites/flowers/train"));
        assert_eq!(flowers.test.as_deref(), Some(Path::new("/data/test")));
        assert_eq!(own.validation.as_deref(), Some(Path::new("suites/val")));
        assert_eq!(voc.labels.as_deref(), Some(Path::new("suites/voc/labels.csv")));
    }

    #[test]
    fn wrong_suites_are_refused_by_file_and_key() {
        let set = |lines: &str| format!("[[set]]\nname = \"own\"\n{lines}\n");
        let whole = "train = \"a\"\nmetric = \"top1\"";
        let cases = [
            ("", "few.toml: `set` is nowhere, expected a table [[set]] for each"),
            ("sets = 1", "unknown key `sets`"),
            (
                "[set]\nname = \"a\"",
                "few.toml, line 1: `set` is one table, expected tables, each below a line [[set]]",
            ),
            ("set = [1]", "line 1: `set[0]` is 1, expected tables"),
            ("\n[[set]]\ntrain = \"a\"", "few.toml, line 2: `set[0].name` is nowhere"),
            ("[[set]]\nname = ", "few.toml: TOML parse error"),
            (&set("trian = \"a\""), "few.toml, line 3: unknown key `set.own.trian`; did you mean `train`?"),
            (&set(""), "`set.own.train` is nowhere"),
            (&set("train = 3"), "few.toml, line 3: `set.own.train` is 3, expected text"),
            (&set("train = \"a\""), "`set.own.metric` is nowhere"),
            (&set("train = \"a\"\nmetric = \"top-1\""), "did you mean top1?"),
            (&set("train = \"a\"\nmetric = \"map11\""), "`set.own.labels` is nowhere"),
            (&set(&format!("{whole}\nlabels = \"l.csv\"")), "`set.own.metric` is \"top1\""),
            (&(set(whole) + &set(whole)), "`set.own.name` is \"own\" again"),
            ("[[set]]\nname = \"flowrs102\"\ntrain = \"a\"", "did you mean flowers102?"),
            ("[[set]]\nname = \"../up\"\ntrain = \"a\"\nmetric = \"top1\"", "it names a file"),
            (&set(whole).replace("own", &"a".repeat(101)), "up to 100 letters"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("suites/few.toml") && error.contains(expected), "{text}: {error}");
        }
    }
}
