//! A text or CSV file that lists image files, with or without labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::archive::Opened;
use super::disk::DiskFiles;
use super::{ImageFiles, labels_among};
use crate::decode::DecodeOptions;
use crate::error::{DataError, inert, shown};
use crate::layout::{Classes, Split, TEST_NAMES, TRAIN_NAMES, preferred_test, split_named};
use crate::listing::{LeftOut, is_image_name};
use crate::names::has_extension;

/// The names of the columns, in order of preference.
const PATH_COLUMNS: [&str; 9] =
    ["path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "name"];
const LABEL_COLUMNS: [&str; 5] = ["label", "class", "category", "class_name", "target"];
const SPLIT_COLUMNS: [&str; 2] = ["split", "set"];

/// The largest list that is read, in bytes.
const MAX_LIST_BYTES: u64 = 4 << 30;

/// How many of its paths are looked for, to tell whether it is a list.
const SAMPLE_SIZE: usize = 100;

/// Whether a file may be a list, by its extension.
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

/// Opens the images to train and to test on that a list names.
pub(crate) fn open(list: &Path, options: DecodeOptions) -> Result<Opened, DataError> {
    let bytes = std::fs::metadata(list).map_err(|e| DataError::io(list, e))?.len();
    let bad = |reason: String| DataError::Unrecognised {
        path: list.to_owned(),
        found: format!("is not a list of images: {reason}"),
    };
    if bytes > MAX_LIST_BYTES {
        return Err(bad(format!(
            "it has {bytes} bytes, more than the {MAX_LIST_BYTES} that are read as a list"
        )));
    }
    let text = std::fs::read(list).map_err(|e| DataError::io(list, e))?;
    let folder = list.parent().unwrap_or(Path::new("")).to_owned();
    let exists = |path: &str| folder.join(path).is_file();
    let usual = if has_extension(list, &["tsv"]) { b'\t' } else { b',' };
    let is_table = has_extension(list, &["csv", "tsv"]);
    let delimiter = is_table.then(|| delimiter_of(&text, usual, exists));
    let Table { rows, note } = match delimiter {
        Some(delimiter) => parse_table(&text, delimiter, exists).map_err(bad)?,
        None => Table { rows: parse_lines(&text, exists).map_err(bad)?, note: None },
    };
    check_paths_exist(&rows, &folder, delimiter).map_err(bad)?;
    let mut left_out = LeftOut::default();
    left_out.notes.extend(note.map(|note| format!("{}: {note}", shown(list))));
    let (train, test) = split_rows(rows, &mut left_out);
    let train = collect(&folder, train, options);
    let mut test = test.map(|test| collect(&folder, test, options));
    if let Some(test) = &mut test {
        test.relabel(train.classes());
    }
    Ok(Opened { train, test, unlabelled: None, left_out })
}

/// If none of the first paths exists in `folder`, this is not a list of images.
fn check_paths_exist(rows: &[Row], folder: &Path, delimiter: Option<u8>) -> Result<(), String> {
    let looked_at = rows.iter().take(SAMPLE_SIZE);
    if looked_at.clone().any(|row| folder.join(&row.path).is_file()) {
        return Ok(());
    }
    let which = match (rows.first(), looked_at.count()) {
        (None, _) => return Err("it is empty".to_owned()),
        (Some(row), 1) => format!("the one path in it, {:?}, is not a file", row.path),
        (Some(row), count) => {
            format!("none of the first {count} paths in it, such as {:?}, is a file", row.path)
        }
    };
    let cells = delimiter.map_or_else(String::new, |delimiter| {
        format!(", and {} taken to separate cells", words_of(delimiter))
    });
    let from = if folder.as_os_str().is_empty() { ".".to_owned() } else { shown(folder) };
    Err(format!("{which}; relative paths are looked up from its folder, {from}{cells}"))
}

/// Parts the rows to train on from those to test on; those of further test parts are left out.
fn split_rows(rows: Vec<Row>, left_out: &mut LeftOut) -> (Vec<Row>, Option<Vec<Row>>) {
    // A list that names only a validation part means the rest to be trained on.
    let (mut train, mut tests) = (Vec::new(), BTreeMap::<usize, Vec<Row>>::new());
    for row in rows {
        match row.split {
            Some(Split::Test(name)) => tests.entry(name).or_default().push(row),
            Some(Split::Train) | None => train.push(row),
        }
    }
    let mut tests: Vec<Vec<Row>> = tests.into_values().collect();
    if train.is_empty() {
        train = tests.drain(..).flatten().collect();
    }
    let labelled = |rows: &Vec<Row>| rows.iter().any(|row| row.label.is_some());
    let used = preferred_test(labelled(&train), tests.iter().map(labelled));
    let test = (used < tests.len()).then(|| tests.remove(used));
    for row in tests.into_iter().flatten() {
        left_out.push(inert(&row.path), "in a test part other than the one that is used");
        left_out.images += 1;
        if let Some(Split::Test(name)) = row.split {
            left_out.outside.insert(TEST_NAMES[name].to_owned());
        }
    }
    (train, test)
}

fn collect(folder: &Path, rows: Vec<Row>, options: DecodeOptions) -> ImageFiles {
    let labels = || rows.iter().map(|row| row.label.as_deref());
    let classes = in_order(labels().flatten().collect());
    let labels = match classes.is_empty() {
        true => Vec::new(),
        false => labels_among(labels(), classes.iter().copied()),
    };
    let names = classes.into_iter().map(inert).collect();
    // The paths as given, absolute or relative to the list's folder.
    let files = DiskFiles::at(folder, rows.iter().map(|row| row.path.as_bytes()));
    ImageFiles::new(Arc::new(files), Classes { names, labels }, options)
}

/// Sorts class names: as numbers if all are numbers, else as text.
fn in_order(names: BTreeSet<&str>) -> Vec<&str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    let numbers: Option<Vec<u64>> = names.iter().map(|name| name.parse().ok()).collect();
    if numbers.is_some() {
        names.sort_by_key(|name| name.parse::<u64>().unwrap_or(0));
    }
    names
}

/// Parses one path per line, with a label after a tab or, where the whole line is not a file, after the last blank; the
/// first line decides which.
pub(crate) fn parse_lines(text: &[u8], exists: impl Fn(&str) -> bool) -> Result<Vec<Row>, String> {
    let text = std::str::from_utf8(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text))
        .map_err(|error| format!("it is not text in UTF-8, from byte {} on", error.valid_up_to()))?;
    // Not every line with a # is a comment: an image may be called `#1.png`.
    let is_image = |line: &str| {
        let parted = [line.split_once('\t'), line.rsplit_once(' ')].into_iter().flatten();
        exists(line) || parted.into_iter().any(|(path, _)| exists(path.trim_end()))
    };
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && (!line.starts_with('#') || is_image(line)))
        .collect();
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

/// Guesses the delimiter of a table from its first line: the first one, `usual` before others, that makes some cell the
/// name of a column or of a file; else the first that occurs in the line; else `usual`.
fn delimiter_of(text: &[u8], usual: u8, exists: impl Fn(&str) -> bool) -> u8 {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let line = String::from_utf8_lossy(text.split(|&byte| byte == b'\n').next().unwrap_or_default());
    let known = [&PATH_COLUMNS[..], &LABEL_COLUMNS, &SPLIT_COLUMNS].concat();
    let is_cell = |cell: &str| {
        let cell = cell.trim().trim_matches('"');
        known.iter().any(|name| name.eq_ignore_ascii_case(cell)) || (!cell.is_empty() && exists(cell))
    };
    let separators = [usual, b',', b';', b'\t'];
    let fits = |&&separator: &&u8| line.split(char::from(separator)).any(is_cell);
    let separates = |&&separator: &&u8| line.contains(char::from(separator));
    *separators.iter().find(fits).or_else(|| separators.iter().find(separates)).unwrap_or(&usual)
}

fn words_of(delimiter: u8) -> &'static str {
    match delimiter {
        b',' => "commas are",
        b';' => "semicolons are",
        _ => "tabs are",
    }
}

/// The rows of a table.
pub(crate) struct Table {
    rows: Vec<Row>,
    /// A note for the user about its columns.
    note: Option<String>,
}

/// Parses a table with a column of paths, and perhaps columns of labels and of parts; without a header, the first
/// column holds the paths and the second the labels.
pub(crate) fn parse_table(
    text: &[u8],
    delimiter: u8,
    exists: impl Fn(&str) -> bool,
) -> Result<Table, String> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(text);
    // Not the number of the record: empty lines are none, and a cell in quotes may hold several lines. A record begins
    // with the empty lines before it.
    let line_of = |position: Option<&csv::Position>| {
        position.map_or(0, |position| {
            let record = text.get(position.byte() as usize..).unwrap_or_default();
            let empty = record.iter().take_while(|byte| b"\r\n".contains(byte));
            position.line() + empty.filter(|&&byte| byte == b'\n').count() as u64
        })
    };
    let mut records = reader.into_records().map(|record| match record {
        Ok(record) => Ok((line_of(record.position()), record)),
        Err(error) => Err(format!("line {} is not read as CSV: {error}", line_of(error.position()))),
    });
    let first = records.next().ok_or("it holds no lines")??;
    let columns = Columns::of(&first.1, &exists);
    let note = columns.note(&first.1);
    let head: Vec<&str> = first.1.iter().map(str::trim).collect();
    let head = head.join(char::from(delimiter).encode_utf8(&mut [0; 4]));
    let mut rows = Vec::new();
    for record in (!columns.headed).then_some(Ok(first)).into_iter().chain(records) {
        let (line, record) = record?;
        let cell = |at: Option<usize>| {
            at.and_then(|at| record.get(at)).map(str::trim).filter(|cell| !cell.is_empty())
        };
        if let Some(path) = cell(Some(columns.path)) {
            let split = match cell(columns.split) {
                Some(word) => Some(split_named(word).ok_or_else(|| {
                    let known = [&TRAIN_NAMES[..], &TEST_NAMES].concat().join(", ");
                    let word = inert(word);
                    format!("line {line} names a part {word:?} that is not known; expected one of {known}")
                })?),
                None => None,
            };
            rows.push(Row { path: path.to_owned(), label: cell(columns.label).map(str::to_owned), split });
        }
    }
    if !columns.headed && seems_headed(&rows, exists) {
        return Err(format!(
            "its first row, {head:?}, seems to be a header, as it names no file and rows after it do, but none of its \
             columns is known; call that of the paths one of {}, and that of the labels one of {}",
            PATH_COLUMNS.join(", "),
            LABEL_COLUMNS.join(", ")
        ));
    }
    match rows.is_empty() {
        true => Err("it holds no paths; expected them in a column called \"path\"".to_owned()),
        false => Ok(Table { rows, note }),
    }
}

/// Whether the first row has names of columns that are not known: what it has for a path is neither a file nor named
/// like an image, which might have gone, while one of the next paths is a file.
fn seems_headed(rows: &[Row], exists: impl Fn(&str) -> bool) -> bool {
    rows.split_first().is_some_and(|(first, rows)| {
        !is_image_name(first.path.as_bytes())
            && !exists(&first.path)
            && rows.iter().take(SAMPLE_SIZE).any(|row| exists(&row.path))
    })
}

/// The columns of a table.
struct Columns {
    path: usize,
    label: Option<usize>,
    split: Option<usize>,
    /// Whether the first row is a header.
    headed: bool,
}

impl Columns {
    /// Finds the columns by the first row. It is a header if it names a column of paths; or if it names one of labels
    /// or parts and the first of its other cells is not a file, and then that column holds the paths.
    fn of(first: &csv::StringRecord, exists: impl Fn(&str) -> bool) -> Self {
        let column = |names: &[&str]| {
            names.iter().find_map(|name| first.iter().position(|cell| cell.trim().eq_ignore_ascii_case(name)))
        };
        let (label, split) = (column(&LABEL_COLUMNS), column(&SPLIT_COLUMNS));
        let other = || {
            let other = (0..first.len()).find(|&at| Some(at) != label && Some(at) != split)?;
            let named = label.is_some() || split.is_some();
            (named && !exists(first[other].trim())).then_some(other)
        };
        match column(&PATH_COLUMNS).or_else(other) {
            Some(path) => Self { path, label: label.filter(|&label| label != path), split, headed: true },
            None => Self { path: 0, label: Some(1), split: None, headed: false },
        }
    }

    /// The note about a header that has other columns, none of them known to hold labels.
    fn note(&self, head: &csv::StringRecord) -> Option<String> {
        let others = (0..head.len()).filter(|&at| at != self.path && Some(at) != self.split);
        let others: Vec<String> = others.map(|at| format!("{:?}", head[at].trim())).collect();
        (self.headed && self.label.is_none() && !others.is_empty()).then(|| {
            let (others, known) = (others.join(", "), LABEL_COLUMNS.join(", "));
            format!("no labels: of the other columns, {others}, none is called {known}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Dataset;
    use crate::decode::DecodeScratch;

    fn row(path: &str, label: Option<&str>) -> Row {
        Row { path: path.to_owned(), label: label.map(str::to_owned), split: None }
    }

    fn rows_of(text: &[u8], delimiter: u8, exists: impl Fn(&str) -> bool) -> Result<Vec<Row>, String> {
        parse_table(text, delimiter, exists).map(|table| table.rows)
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
        let lines = parse_lines(b"#1.png cat\n# note\n2.png dog\n", |path| path.ends_with(".png")).unwrap();
        assert_eq!(lines, [row("#1.png", Some("cat")), row("2.png", Some("dog"))]);
    }

    #[test]
    fn tables_with_and_without_a_head() {
        let none = |_: &str| false;
        let table =
            rows_of(b"id,Path,label,split\n1,\"a,b.jpg\",cat,val\n2,c.jpg,,train\n", b',', none).unwrap();
        assert_eq!(table[0], Row { split: Some(Split::Test(2)), ..row("a,b.jpg", Some("cat")) });
        assert_eq!(table[1], Row { split: Some(Split::Train), ..row("c.jpg", None) });
        assert_eq!(rows_of(b"a.jpg\tdog\n", b'\t', none).unwrap(), [row("a.jpg", Some("dog"))]);
        assert!(rows_of(b"", b',', none).is_err());
        assert!(rows_of(b"path\n", b',', none).is_err());
        // A header with unknown names; and no header, where the first cell is a file.
        let expected = [row("a.jpg", Some("dog"))];
        assert_eq!(rows_of(b"img_path,label\na.jpg,dog\n", b',', none).unwrap(), expected);
        assert_eq!(rows_of(b"label,where\ndog,a.jpg\n", b',', none).unwrap(), expected);
        let class = rows_of(b"a.jpg,class\n", b',', |path| path == "a.jpg").unwrap();
        assert_eq!(class, [row("a.jpg", Some("class"))]);
    }

    #[test]
    fn a_header_that_is_not_understood_is_no_image() {
        let exists = |path: &str| path.starts_with("there");
        for (text, delimiter) in [("photo,species\nthere.jpg,dog\n", b','), ("Datei;Art\nthere;dog\n", b';')]
        {
            let error = rows_of(text.as_bytes(), delimiter, exists).unwrap_err();
            let head = text.lines().next().unwrap();
            assert!(error.starts_with(&format!("its first row, {head:?}, seems to be a header")), "{error}");
            assert!(error.contains("path, file, ") && error.contains("label, class, "), "{error}");
        }
        // An image that has gone, and a list without any.
        assert_eq!(rows_of(b"gone.jpg,cat\nthere.jpg,dog\n", b',', exists).unwrap().len(), 2);
        assert_eq!(rows_of(b"gone,cat\nelsewhere,dog\n", b',', exists).unwrap().len(), 2);
    }

    #[test]
    fn separators_are_seen_in_the_first_line() {
        let delimiter =
            |text: &[u8], usual| char::from(delimiter_of(text, usual, |path| path.ends_with(".jpg")));
        assert_eq!(delimiter(b"path;label\na.jpg;cat\n", b','), ';');
        assert_eq!(delimiter(b"\xef\xbb\xbf\"File\"\tx,y\n", b','), '\t');
        assert_eq!(delimiter(b"x,y.jpg;cat\n", b','), ';');
        assert_eq!(delimiter(b"a.jpg,cat;dog\n", b','), ',');
        assert_eq!(delimiter(b"path,label\n", b'\t'), ',');
        assert_eq!(delimiter(b"path\n", b'\t'), '\t');
        // No cell is known.
        assert_eq!(delimiter(b"where;what\n", b','), ';');
        assert_eq!(delimiter(b"where,what;who\n", b','), ',');
    }

    #[test]
    fn columns_that_are_not_understood_are_named() {
        let note = |text: &[u8]| parse_table(text, b',', |_| false).unwrap().note;
        let told = note(b"path,breed,split,age\na.jpg,pug,train,3\n").unwrap();
        assert!(told.contains("\"breed\", \"age\", none is called label, class, "), "{told}");
        assert_eq!(note(b"path,breed,label\na.jpg,pug,dog\n"), None);
        assert_eq!(note(b"path,split\na.jpg,train\n"), None);
        assert_eq!(note(b"a.jpg,pug\n"), None);
    }

    #[test]
    fn parts_that_are_not_known_are_named() {
        let error = rows_of(b"path,split\na.jpg,train\nb.jpg,holdout\n", b',', |_| true).unwrap_err();
        assert!(error.starts_with("line 3 names a part \"holdout\""), "{error}");
        assert!(error.contains("train, training, test"), "{error}");
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        for (text, said) in [
            (&b"path,split\na.jpg,train\n\n\r\nb.jpg,holdout\n"[..], "line 5 names a part"),
            (b"path,split\n\"a\nb.jpg\",train\nb.jpg,holdout\n", "line 4 names a part"),
            (b"\n\npath,label\n\na.jpg,\xff\n", "line 5 is not read as CSV"),
        ] {
            let error = rows_of(text, b',', |_| true).unwrap_err();
            assert!(error.starts_with(said), "{error}");
        }
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
    fn a_broken_image_of_a_list_in_the_working_directory_is_broken_and_no_more() {
        // Tests run in the folder of their crate.
        let rows = ["Cargo.toml", "tests/golden/colour.jpg", "gone.jpg"].map(|path| row(path, None));
        let files = collect(Path::new(""), rows.to_vec(), DecodeOptions::default());
        let mut scratch = DecodeScratch::default();
        let mut read = |index| files.read(index, &mut scratch).map(|_| ());
        for _ in 0..2 {
            for broken in [0, 2] {
                assert!(matches!(read(broken), Err(DataError::Image { .. })), "{:?}", read(broken));
            }
            read(1).unwrap();
        }
    }

    #[test]
    fn numbers_are_in_the_order_of_numbers() {
        assert_eq!(in_order(BTreeSet::from(["10", "9", "1"])), ["1", "9", "10"]);
        assert_eq!(in_order(BTreeSet::from(["10", "9", "a"])), ["10", "9", "a"]);
    }
}
