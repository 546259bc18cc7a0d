//! A text or CSV file that lists image files, with or without labels.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Files, ImageFiles, in_test_alone, labels_among};
use crate::decode::{DecodeOptions, read_file};
use crate::error::{DataError, inert};
use crate::layout::{Classes, Split, split_named};
use crate::names::{Names, bytes_of, has_extension, os_name};

/// Names of the columns, in the order of preference.
const PATH_COLUMNS: [&str; 9] =
    ["path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "name"];
const LABEL_COLUMNS: [&str; 5] = ["label", "class", "category", "class_name", "target"];
const SPLIT_COLUMNS: [&str; 2] = ["split", "set"];

/// The largest list that is read, in bytes.
const MAX_LIST_BYTES: u64 = 4 << 30;

/// True for a file that may be a list, by its name.
pub(crate) fn is_list(path: &Path) -> bool {
    has_extension(path, &["txt", "csv", "tsv", "lst"])
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    path: String,
    label: Option<String>,
    split: Option<Split>,
}

/// Image files by their paths, absolute or relative to the folder of their list.
pub(crate) struct ListedFiles {
    folder: PathBuf,
    paths: Names,
}

impl Files for ListedFiles {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn name(&self, index: usize) -> String {
        inert(&String::from_utf8_lossy(self.paths.get(index)))
    }

    fn read(&self, index: usize, out: &mut Vec<u8>) -> Result<(), String> {
        read_file(&self.folder.join(os_name(self.paths.get(index))), out)
    }
}

/// The images to train and to test on that a list names.
pub(crate) fn open(
    list: &Path,
    options: DecodeOptions,
) -> Result<(ImageFiles<ListedFiles>, Option<ImageFiles<ListedFiles>>), DataError> {
    let bytes = std::fs::metadata(list).map_err(|e| DataError::io(list, e))?.len();
    let bad = |reason: String| DataError::Unrecognised {
        path: list.to_owned(),
        found: format!("is no list of images: {reason}"),
    };
    if bytes > MAX_LIST_BYTES {
        return Err(bad(format!(
            "it has {bytes} bytes, more than the {MAX_LIST_BYTES} that are read as a list"
        )));
    }
    let text = std::fs::read(list).map_err(|e| DataError::io(list, e))?;
    let folder = list.parent().unwrap_or(Path::new("")).to_owned();
    let exists = |path: &str| folder.join(path).is_file();
    let tabs = has_extension(list, &["tsv"]);
    let rows = match has_extension(list, &["csv"]) || tabs {
        true => parse_table(&text, if tabs { b'\t' } else { b',' }).map_err(bad)?,
        false => parse_lines(&text, exists).map_err(bad)?,
    };
    // A list of what is not there is a list of something else.
    let looked_at = rows.iter().take(100);
    if !looked_at.clone().any(|row| exists(&row.path)) {
        let which = match (rows.first(), looked_at.count()) {
            (None, _) => "it is empty".to_owned(),
            (Some(row), 1) => format!("the one path in it, {:?}, is no file", row.path),
            (Some(row), count) => {
                format!("none of the first {count} paths in it, such as {:?}, is a file", row.path)
            }
        };
        return Err(bad(which));
    }
    // Whoever gives a validation part only by name wants to train on the rest.
    let (test, train): (Vec<Row>, Vec<Row>) =
        rows.into_iter().partition(|row| matches!(row.split, Some(Split::Test(_))));
    let (train, test) = if train.is_empty() { (test, train) } else { (train, test) };
    let train = collect(&folder, train, options);
    let test = match test.is_empty() {
        true => None,
        false => {
            let mut test = collect(&folder, test, options);
            test.relabel(&train.classes, |class| in_test_alone(list, class))?;
            Some(test)
        }
    };
    Ok((train, test))
}

fn collect(folder: &Path, rows: Vec<Row>, options: DecodeOptions) -> ImageFiles<ListedFiles> {
    let labels = || rows.iter().map(|row| row.label.as_deref());
    let classes = in_order(labels().flatten().collect());
    let labels = match classes.is_empty() {
        true => Vec::new(),
        false => labels_among(labels(), classes.iter().copied()),
    };
    let names = classes.into_iter().map(inert).collect();
    let mut paths = Names::default();
    rows.iter().for_each(|row| paths.push(bytes_of(row.path.as_ref()).unwrap_or_default()));
    paths.shrink_to_fit();
    let files = ListedFiles { folder: folder.to_owned(), paths };
    ImageFiles::new(files, Classes { names, labels }, options)
}

/// Class names sorted: by their numbers where they all are numbers, else as text.
fn in_order(names: BTreeSet<&str>) -> Vec<&str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    let numbers: Option<Vec<u64>> = names.iter().map(|name| name.parse().ok()).collect();
    if numbers.is_some() {
        names.sort_by_key(|name| name.parse::<u64>().unwrap_or(0));
    }
    names
}

/// One path a line; what follows a tab, or a last blank where the whole line is no file, is a label.
pub(crate) fn parse_lines(text: &[u8], exists: impl Fn(&str) -> bool) -> Result<Vec<Row>, String> {
    let text = std::str::from_utf8(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text))
        .map_err(|error| format!("it is not text in UTF-8, from byte {} on", error.valid_up_to()))?;
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let first = lines.first().ok_or("it holds no paths")?;
    let tabs = first.contains('\t');
    let blanks =
        !tabs && !exists(first) && first.rsplit_once(' ').is_some_and(|(path, _)| exists(path.trim_end()));
    Ok(lines
        .into_iter()
        .map(|line| {
            let parted = match (tabs, blanks) {
                (true, _) => line.split_once('\t'),
                (_, true) => line.rsplit_once(' '),
                _ => None,
            };
            let (path, label) =
                parted.map_or((line, None), |(path, label)| (path.trim_end(), Some(label.trim())));
            Row { path: path.to_owned(), label: label.map(str::to_owned), split: None }
        })
        .collect())
}

/// A table with a column of paths, and maybe one of labels and one of parts; without a head, the first column holds the
/// paths and the second the labels.
pub(crate) fn parse_table(text: &[u8], delimiter: u8) -> Result<Vec<Row>, String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(text);
    let mut records = reader.records().enumerate().map(|(line, record)| {
        record.map_err(|error| format!("line {} is not read as CSV: {error}", line + 1))
    });
    let first = records.next().ok_or("it holds no lines")??;
    let column = |names: &[&str]| {
        names.iter().find_map(|name| first.iter().position(|cell| cell.trim().eq_ignore_ascii_case(name)))
    };
    let head = column(&PATH_COLUMNS);
    let (path_at, label_at, split_at) = match head {
        Some(path) => (path, column(&LABEL_COLUMNS).filter(|&label| label != path), column(&SPLIT_COLUMNS)),
        None => (0, Some(1), None),
    };
    let mut rows = Vec::new();
    for record in head.is_none().then_some(Ok(first)).into_iter().chain(records) {
        let record = record?;
        let cell = |at: Option<usize>| {
            at.and_then(|at| record.get(at)).map(str::trim).filter(|cell| !cell.is_empty())
        };
        if let Some(path) = cell(Some(path_at)) {
            rows.push(Row {
                path: path.to_owned(),
                label: cell(label_at).map(str::to_owned),
                split: cell(split_at).and_then(split_named),
            });
        }
    }
    match rows.is_empty() {
        true => Err("it holds no paths; a column called \"path\" would be right".to_owned()),
        false => Ok(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Dataset;

    fn row(path: &str, label: Option<&str>) -> Row {
        Row { path: path.to_owned(), label: label.map(str::to_owned), split: None }
    }

    #[test]
    fn lines_with_and_without_labels() {
        let none = |_: &str| false;
        let text = b"\xef\xbb\xbfa b.jpg\r\n# note\n\nc.jpg\n";
        assert_eq!(parse_lines(text, none).unwrap(), [row("a b.jpg", None), row("c.jpg", None)]);
        let labelled = parse_lines(b"a b.jpg 3\nc.jpg  4\n", |path| path == "a b.jpg").unwrap();
        assert_eq!(labelled, [row("a b.jpg", Some("3")), row("c.jpg", Some("4"))]);
        assert_eq!(parse_lines(b"a b.jpg\tbig cat\n", none).unwrap(), [row("a b.jpg", Some("big cat"))]);
        assert!(parse_lines(b"\xff\xfe", none).unwrap_err().contains("UTF-8"));
        assert!(parse_lines(b"\n", none).is_err());
    }

    #[test]
    fn tables_with_and_without_a_head() {
        let table =
            parse_table(b"id,Path,label,split\n1,\"a,b.jpg\",cat,val\n2,c.jpg,,train\n", b',').unwrap();
        assert_eq!(table[0], Row { split: Some(Split::Test(2)), ..row("a,b.jpg", Some("cat")) });
        assert_eq!(table[1], Row { split: Some(Split::Train), ..row("c.jpg", None) });
        assert_eq!(parse_table(b"a.jpg\tdog\n", b'\t').unwrap(), [row("a.jpg", Some("dog"))]);
        assert!(parse_table(b"", b',').is_err());
        assert!(parse_table(b"path\n", b',').is_err());
    }

    #[test]
    fn many_rows_of_many_classes() {
        let name = |at: usize| format!("class\t{:05}", at % 30_000);
        let mut rows: Vec<Row> = (0..300_000).map(|at| row("a.jpg", Some(&name(at)))).collect();
        rows.push(row("a.jpg", None));
        let files = collect(Path::new(""), rows, DecodeOptions::default());
        assert_eq!(files.classes().len(), 30_000);
        // The names are escaped, and still find their images.
        assert_eq!(files.classes()[7], "class\\t00007");
        assert!((0..300_000).all(|at| files.label(at) == Some(at as u32 % 30_000)));
        assert_eq!(files.label(300_000), None);
    }

    #[test]
    fn numbers_are_in_the_order_of_numbers() {
        assert_eq!(in_order(BTreeSet::from(["10", "9", "1"])), ["1", "9", "10"]);
        assert_eq!(in_order(BTreeSet::from(["10", "9", "a"])), ["10", "9", "a"]);
    }
}
