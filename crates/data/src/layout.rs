//! Deriving classes, and parts to train and to test on, from the folders that images lie in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::inert_bytes;
use crate::loader::NO_LABEL;

/// Names of the training and the test part, in order of preference.
pub(crate) const TRAIN_NAMES: [&str; 2] = ["train", "training"];
pub(crate) const TEST_NAMES: [&str; 6] = ["test", "testing", "val", "validation", "valid", "dev"];
/// Names of a folder beside these, whose images have no labels and are to pretrain on.
const UNLABELLED_NAMES: [&str; 2] = ["unlabelled", "unlabeled"];

/// Classes, and a label for each image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Classes {
    /// Sorted; empty where there are none.
    pub names: Vec<String>,
    /// One per image, `NO_LABEL` for an image beside the class folders; empty where there are no classes.
    pub labels: Vec<u32>,
}

/// The classes of images that lie in `folders` (one for each image, relative, components separated by `/`).
///
/// They are labelled if at least two top-level folders hold images at any depth, at least one of them more than one
/// image: then the class of an image is its top-level folder. Where images lie beside these folders, two of them must
/// hold images directly. Otherwise (one folder per image, a single folder) they are not labelled.
pub(crate) fn classes<'a>(folders: impl Iterator<Item = &'a [u8]> + Clone) -> Classes {
    let counts = count(folders.clone());
    let any_beside = folders.clone().any(<[u8]>::is_empty);
    let is_class = |counts: &&Counts| !any_beside || counts.directly > 0;
    // One image in every folder is a way of storing images, not of naming classes.
    let more_than_one = counts.values().any(|counts| counts.in_all > 1);
    if counts.values().filter(is_class).count() < 2 || !more_than_one {
        return Classes::default();
    }
    let number: HashMap<&[u8], u32> = counts.keys().copied().zip(0..).collect();
    Classes {
        names: counts.keys().map(|name| inert_bytes(name)).collect(),
        labels: folders.map(|folder| number.get(first(folder)).copied().unwrap_or(NO_LABEL)).collect(),
    }
}

/// The number of images in a folder.
#[derive(Default)]
struct Counts {
    directly: usize,
    in_all: usize,
}

/// Counts the images in each top-level folder.
fn count<'a>(folders: impl Iterator<Item = &'a [u8]>) -> BTreeMap<&'a [u8], Counts> {
    let mut counts: BTreeMap<&[u8], Counts> = BTreeMap::new();
    for folder in folders.filter(|folder| !folder.is_empty()) {
        let class = first(folder);
        let counts = counts.entry(class).or_default();
        counts.directly += usize::from(folder.len() == class.len());
        counts.in_all += 1;
    }
    counts
}

/// The classes of a test part that does not tell them by itself, as it has one image of each class or a single class:
/// its folders are matched with `names`, the classes of the training part. `None` if an image lies in another folder.
fn known_classes<'a>(
    folders: impl Iterator<Item = &'a [u8]>,
    names: &[String],
    root: Root,
) -> Option<Classes> {
    let number: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
    // With `Root::Common`, a folder that holds everything may lie above the only class.
    let depth = if root == Root::Given { 1 } else { usize::MAX };
    let label = |folder: &[u8]| match folder {
        [] => Some(NO_LABEL),
        _ => folder
            .split(|&byte| byte == b'/')
            .take(depth)
            .find_map(|name| number.get(&*inert_bytes(name)))
            .copied(),
    };
    let labels: Vec<u32> = folders.map(label).collect::<Option<_>>()?;
    let any = labels.iter().any(|&label| label != NO_LABEL);
    any.then(|| Classes { names: names.to_vec(), labels })
}

/// The first component of a path.
pub(crate) fn first(path: &[u8]) -> &[u8] {
    path.split(|&byte| byte == b'/').next().unwrap_or(path)
}

/// Everything before the last `/` of a path.
pub(crate) fn folder_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(b"", |slash| &path[..slash])
}

/// The length of the common prefix of all `folders`, in whole components: archives often hold one folder that holds all
/// else.
pub(crate) fn common_root<'a>(mut folders: impl Iterator<Item = &'a [u8]>) -> usize {
    let Some(first) = folders.next() else { return 0 };
    let mut common = first.len();
    for folder in folders {
        let same = first.iter().zip(folder).take(common).take_while(|(a, b)| a == b).count();
        let whole = |path: &[u8]| path.len() == same || path[same] == b'/';
        common = match whole(first) && whole(folder) {
            true => same,
            false => first[..same].iter().rposition(|&byte| byte == b'/').unwrap_or(0),
        };
    }
    common
}

/// A path after its first `root` bytes and the `/` that follows.
pub(crate) fn below(path: &[u8], root: usize) -> &[u8] {
    path[root..].strip_prefix(b"/").unwrap_or(&path[root..])
}

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Train,
    /// The number is the index of its name in [`TEST_NAMES`].
    Test(usize),
}

/// The part that a word names.
pub(crate) fn split_named(word: &str) -> Option<Split> {
    if TRAIN_NAMES.iter().any(|name| name.eq_ignore_ascii_case(word)) {
        return Some(Split::Train);
    }
    TEST_NAMES.iter().position(|name| name.eq_ignore_ascii_case(word)).map(Split::Test)
}

/// The part that the path of an archive names in one of its words: `data/train-00000-of-00005.parquet`.
pub(crate) fn split_of_path(path: &str) -> Option<Split> {
    path.rsplit('/').find_map(|part| part.split(|c: char| !c.is_ascii_alphabetic()).find_map(split_named))
}

/// Which of several test parts is used: the first that has labels, if the training images have some, else the first.
/// ImageNet's `test/` has no labels, its `val/` has.
pub(crate) fn preferred_test(train_is_labelled: bool, labelled: impl IntoIterator<Item = bool>) -> usize {
    let first = labelled.into_iter().position(|labelled| labelled);
    first.filter(|_| train_is_labelled).unwrap_or(0)
}

/// Images of one part and their classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arranged {
    /// The images, ascending.
    pub chosen: Vec<u32>,
    /// The classes of these images.
    pub classes: Classes,
    /// Notes, in sentences, if other classes may be meant.
    pub notes: Vec<String>,
}

/// The parts of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrangement {
    pub train: Arranged,
    pub test: Option<Arranged>,
    /// More images to pretrain on, without classes.
    pub unlabelled: Option<Arranged>,
}

/// Where parts and classes are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// In the folder that was given.
    Given,
    /// In the deepest folder that holds all images: archives often hold one folder that holds all else.
    Common,
}

impl Root {
    /// The length of the path to it, which all `folders` begin with.
    pub fn len<'a>(self, folders: impl Iterator<Item = &'a [u8]>) -> usize {
        match self {
            Self::Given => 0,
            Self::Common => common_root(folders),
        }
    }
}

/// Finds the parts and classes of images that lie in `folders` (one for each image): `train/`, `test/` (or `val/`) and
/// `unlabelled/` below the root are parts, and folders below the first two are classes. Images beside the parts are
/// left out; images beside the classes have no label.
///
/// If no other folder is named like a part, a folder called `train` is an ordinary folder, perhaps a class; unless it
/// contains classes and the others do not hold images directly, as class folders do.
pub(crate) fn arrange(folders: &[&[u8]], root: Root) -> Arrangement {
    let start = root.len(folders.iter().copied());
    let inside = |image: u32| below(folders[image as usize], start);
    let inside_part = |image: u32| below(inside(image), first(inside(image)).len());
    let all = 0..folders.len() as u32;
    let split = |image: u32| std::str::from_utf8(first(inside(image))).ok().and_then(split_named);
    let splits: Vec<Option<Split>> = all.clone().map(split).collect();
    let part = |wanted: Split| -> Vec<u32> {
        all.clone().filter(|&image| splits[image as usize] == Some(wanted)).collect()
    };
    let whole = || {
        let mut train = classed(all.clone().collect(), inside, root);
        train.notes.extend(named_like_parts(&train.classes.names));
        Arrangement { train, ..Arrangement::default() }
    };
    let train = part(Split::Train);
    if train.is_empty() {
        return whole();
    }
    let is_unlabelled = |image: &u32| {
        UNLABELLED_NAMES.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(first(inside(*image))))
    };
    let unlabelled: Vec<u32> = all.clone().filter(is_unlabelled).collect();
    let train = classed(train, inside_part, root);
    let tests = (0..TEST_NAMES.len()).map(|name| part(Split::Test(name)));
    let mut tests: Vec<Arranged> =
        tests.filter(|test| !test.is_empty()).map(|test| classed(test, inside_part, root)).collect();
    let labelled = |part: &Arranged| !part.classes.names.is_empty();
    for test in tests.iter_mut().filter(|test| labelled(&train) && !labelled(test)) {
        let folders = test.chosen.iter().map(|&image| inside_part(image));
        test.classes = known_classes(folders, &train.classes.names, root).unwrap_or_default();
    }
    if tests.is_empty() && unlabelled.is_empty() && train.chosen.len() < folders.len() {
        let whole = whole();
        let counts = count(all.clone().map(inside));
        let is_class =
            labelled(&whole.train) && counts.values().filter(|counts| counts.directly > 0).count() > 1;
        if is_class || !labelled(&train) {
            return whole;
        }
    }
    let test = preferred_test(labelled(&train), tests.iter().map(labelled));
    let test = (test < tests.len()).then(|| tests.swap_remove(test));
    let unlabelled = (!unlabelled.is_empty()).then(|| Arranged { chosen: unlabelled, ..Arranged::default() });
    Arrangement { train, test, unlabelled }
}

/// The classes of some of the images, which lie in `folder`.
fn classed<'a>(chosen: Vec<u32>, folder: impl Fn(u32) -> &'a [u8], root: Root) -> Arranged {
    let folders = chosen.iter().map(|&image| folder(image));
    let start = root.len(folders.clone());
    let folders = folders.map(|folder| below(folder, start));
    let classes = classes(folders.clone());
    let notes = if classes.names.is_empty() { None } else { classes_below(folders) };
    Arranged { chosen, classes, notes: notes.into_iter().collect() }
}

/// The most names in a list of them.
const NAMED: usize = 4;

/// A note if all class folders hold sub-folders of the same names, several and nothing else, as these may be the
/// classes; `folders` are those of the images, below the folder of the classes.
fn classes_below<'a>(folders: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut held: BTreeMap<&[u8], BTreeSet<&[u8]>> = BTreeMap::new();
    for folder in folders.filter(|folder| !folder.is_empty()) {
        let class = first(folder);
        let inner = first(below(folder, class.len()));
        if inner.is_empty() {
            return None;
        }
        held.entry(class).or_default().insert(inner);
    }
    let shared = held.values().next().filter(|names| names.len() > 1)?;
    let listed = |names: &mut dyn Iterator<Item = &&[u8]>| {
        let mut names: Vec<String> = names.take(NAMED + 1).map(|name| inert_bytes(name)).collect();
        if names.len() > NAMED {
            names[NAMED] = "...".to_owned();
        }
        names.join(", ")
    };
    held.values().all(|names| names == shared).then(|| {
        format!(
            "the classes are the folders of the first level ({}), all of which hold {}; if those are the classes, list the \
             images in a .csv",
            listed(&mut held.keys()),
            listed(&mut shared.iter())
        )
    })
}

/// A note about classes that are called like parts.
fn named_like_parts(classes: &[String]) -> Option<String> {
    let is_part = |class: &&String| {
        let mut names = TRAIN_NAMES.iter().chain(&TEST_NAMES).chain(&UNLABELLED_NAMES);
        names.any(|name| name.eq_ignore_ascii_case(class))
    };
    let named: Vec<&str> = classes.iter().filter(is_part).map(String::as_str).collect();
    let counts = match named.len() {
        0 => return None,
        1 => "counts as a class; if it is none",
        _ => "count as classes; if they are none",
    };
    let named = named.join(", ");
    Some(format!("{named} {counts}, put all classes into train/, with only test/ and unlabelled/ beside it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_whole_components() {
        let root = |folders: &[&str]| common_root(folders.iter().map(|folder| folder.as_bytes()));
        assert_eq!(root(&["set/a", "set/b/c"]), 3);
        assert_eq!(root(&["set/cat", "set/car"]), 3);
        assert_eq!(root(&["a/b", "a/b/c"]), 3);
        assert_eq!(root(&["ab", "ac"]), 0);
        assert_eq!(root(&["", "a"]), 0);
        assert_eq!(below(b"set/a", 3), b"a");
        assert_eq!(below(b"set", 3), b"");
    }

    #[test]
    fn parts_and_classes_below_a_common_root() {
        let folders =
            ["set/train/a", "set/train/b", "set/train/b", "set/val/b", "set/val/b", "set/val/a", "set/extra"];
        let folders: Vec<&[u8]> = folders.iter().map(|folder| folder.as_bytes()).collect();
        let Arrangement { train, test, .. } = arrange(&folders, Root::Common);
        let test = test.unwrap();
        assert_eq!((&train.chosen[..], &train.classes.labels[..]), (&[0, 1, 2][..], &[0, 1, 1][..]));
        assert_eq!((&test.chosen[..], &test.classes.labels[..]), (&[3, 4, 5][..], &[1, 1, 0][..]));
        // Test parts with one class, with one image of each class, with another folder, and with no folder.
        let of = |tests: &[&str]| {
            let train = ["train/a", "train/b", "train/b"];
            let folders: Vec<&[u8]> = train.iter().chain(tests).map(|folder| folder.as_bytes()).collect();
            [Root::Given, Root::Common].map(|root| arrange(&folders, root).test.unwrap().classes.labels)
        };
        assert_eq!(of(&["test/b", "test/b", "test"]), [[1, 1, NO_LABEL]; 2]);
        assert_eq!(of(&["test/b", "test/a"]), [[1, 0]; 2]);
        let none: [Vec<u32>; 2] = [vec![], vec![]];
        assert_eq!(of(&["test/b", "test/c"]), none);
        assert_eq!(of(&["test", "test"]), none);
        assert_eq!(of(&["test/more/b", "test/more/b"]), [vec![], vec![1, 1]]);
        // No parts: an album.
        let Arrangement { train: all, test: none, .. } = arrange(&folders[6..], Root::Common);
        assert!(all.chosen == [0] && all.classes.names.is_empty() && none.is_none());
    }

    #[test]
    fn classes_that_may_be_none_are_noted() {
        let noted = |folders: &[&str], root: Root| {
            let folders: Vec<&[u8]> = folders.iter().map(|folder| folder.as_bytes()).collect();
            arrange(&folders, root).train.notes
        };
        let advice = "put all classes into train/, with only test/ and unlabelled/ beside it";
        let one = noted(&["control", "treated", "treated", "Unlabeled"], Root::Given);
        assert_eq!(one, [format!("Unlabeled counts as a class; if it is none, {advice}")]);
        let several = noted(&["set/control", "set/test", "set/test", "set/val"], Root::Common);
        assert_eq!(several, [format!("test, val count as classes; if they are none, {advice}")]);
        assert_eq!(noted(&["control", "train", "train"], Root::Given).len(), 1);
        let plates = ["p1/a", "p1/a/x", "p1/b", "p2/b", "p2/a"];
        let note = "the classes are the folders of the first level (p1, p2), all of which hold a, b; if those are the \
                    classes, list the images in a .csv";
        assert_eq!(noted(&plates, Root::Given), [note]);
        assert_eq!(
            noted(&plates.map(|plate| format!("train/{plate}")).each_ref().map(|it| &it[..]), Root::Given),
            [note]
        );
        let many: Vec<String> = (0..36).map(|number| format!("{}/{}", number / 6, number % 6)).collect();
        let many = noted(&many.iter().map(String::as_str).collect::<Vec<_>>(), Root::Given);
        assert!(many[0].contains("(0, 1, 2, 3, ...), all of which hold 0, 1, 2, 3, ...;"), "{many:?}");
        for folders in [
            &["control", "treated", "treated"][..],
            // Another name, images beside the sub-folders, and a single sub-folder in each.
            &["p1/a", "p1/b", "p2/a", "p2/c"],
            &["p1/a", "p1/b", "p2/a", "p2/b", "p2"],
            &["p1/images", "p1/images", "p2/images"],
            &["unlabelled", "unlabelled"],
            &["train/a", "train/b", "train/b", "unlabelled", "test/a", "test/b", "test/b"],
        ] {
            assert_eq!(noted(folders, Root::Given), [""; 0], "{folders:?}");
        }
    }

    #[test]
    fn names_tell_parts() {
        assert_eq!(split_of_path("data/train-00000-of-00005.parquet"), Some(Split::Train));
        assert_eq!(split_of_path("plain/validation/0000.parquet"), Some(Split::Test(3)));
        assert_eq!(split_of_path("imagenet_val_000007.tar"), Some(Split::Test(2)));
        assert_eq!(split_of_path("constraints.tar"), None);
    }
}
