//! Several data sets as one.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common_folder::{common_folder, whole};
use crate::copies::HashExtent;
use crate::dataset::{Dataset, Decoded};
use crate::decode::{DecodeScratch, Region};
use crate::error::DataError;
use crate::files::new_labels;
use crate::loader::NO_LABEL;
use crate::locality::Locality;

/// Several data sets one after another. Its classes are those of all of them, matched by name; images of a data set
/// without labels have no label.
pub struct Concat {
    parts: Vec<Part>,
    classes: Vec<String>,
    len: usize,
}

struct Part {
    set: Arc<dyn Dataset>,
    first: usize,
    /// The prefix of its images' names.
    prefix: String,
    /// What of the prefix stays wherever the parts lie.
    prefix_within: String,
    /// The label in the whole for each label of the part.
    labels: Vec<u32>,
}

impl Concat {
    /// Joins `sets`, each with a prefix for the names of its images. `classes` must contain all of their classes.
    pub fn new(sets: Vec<(String, Arc<dyn Dataset>)>, classes: Vec<String>) -> Self {
        let mut len = 0;
        let within = prefixes_within(sets.iter().map(|(prefix, _)| prefix.as_str()));
        let parts = sets
            .into_iter()
            .zip(within)
            .map(|((prefix, set), prefix_within)| {
                let labels = new_labels(set.classes(), &classes);
                let first = len;
                len += set.len();
                Part { set, first, prefix_within, prefix, labels }
            })
            .collect();
        Self { parts, classes, len }
    }

    /// The classes of several data sets, of which `sets` yields the lists. Where one list begins with each of the
    /// others, its order is kept, sorted or not; else the classes are sorted.
    pub fn classes_of<'a>(sets: impl Iterator<Item = &'a [String]>) -> Vec<String> {
        let labelled: Vec<&[String]> = sets.filter(|classes| !classes.is_empty()).collect();
        match labelled.iter().max_by_key(|classes| classes.len()) {
            Some(longest) if labelled.iter().all(|classes| longest.starts_with(classes)) => longest.to_vec(),
            _ => labelled.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().cloned().collect(),
        }
    }

    fn part(&self, index: usize) -> (&Part, usize) {
        let part = &self.parts[self.parts.partition_point(|part| part.first <= index) - 1];
        (part, index - part.first)
    }
}

impl fmt::Debug for Concat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, classes) = (&self.len, &self.classes);
        f.debug_struct("Concat").field("images", images).field("classes", classes).finish_non_exhaustive()
    }
}

impl Dataset for Concat {
    fn len(&self) -> usize {
        self.len
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> Option<u32> {
        let (part, index) = self.part(index);
        part.set.label(index).map(|label| part.labels[label as usize]).filter(|&label| label != NO_LABEL)
    }

    fn name(&self, index: usize) -> String {
        let (part, index) = self.part(index);
        format!("{}{}", part.prefix, part.set.name(index))
    }

    fn name_within(&self, index: usize) -> String {
        let (part, index) = self.part(index);
        format!("{}{}", part.prefix_within, part.set.name_within(index))
    }

    fn stored_bytes(&self, index: usize) -> Option<u64> {
        let (part, index) = self.part(index);
        part.set.stored_bytes(index)
    }

    fn content_hash(&self, index: usize, extent: HashExtent, scratch: &mut DecodeScratch) -> Option<u64> {
        let (part, index) = self.part(index);
        part.set.content_hash(index, extent, scratch)
    }

    fn locality(&self) -> Locality {
        Locality::chain(self.parts.iter().map(|part| part.set.locality()))
    }

    fn read_part<'a>(
        &'a self,
        index: usize,
        needed: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError> {
        let (part, index) = self.part(index);
        part.set.read_part(index, needed, scratch).map_err(|error| match error {
            DataError::Image { name, reason } => {
                DataError::Image { name: format!("{}{name}", part.prefix), reason }
            }
            other => other,
        })
    }
}

/// What of each prefix stays wherever the parts lie: the last folder or file of a prefix that is a path, with its
/// slash. Where that does not tell the parts apart, the path below the folder that all have in common.
fn prefixes_within<'p>(prefixes: impl Iterator<Item = &'p str>) -> Vec<String> {
    // A path like "." has a last folder only as a whole; no prefix is no path.
    let path = |prefix: &str| if prefix.is_empty() { PathBuf::new() } else { whole(prefix) };
    let paths: Vec<PathBuf> = prefixes.map(path).collect();
    let slashed = |path: &Path| match path.to_string_lossy() {
        path if path.is_empty() => String::new(),
        path => format!("{path}/"),
    };
    let last: Vec<String> =
        paths.iter().map(|path| slashed(path.file_name().unwrap_or_default().as_ref())).collect();
    if last.iter().collect::<BTreeSet<_>>().len() == last.len() {
        return last;
    }
    let common = common_folder(paths.iter().map(PathBuf::as_path));
    paths.iter().map(|path| slashed(path.strip_prefix(&common).unwrap_or(path))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_of_prefixes_stays_wherever_the_parts_lie() {
        let here = std::env::current_dir().unwrap();
        let own = format!("{}/", here.file_name().unwrap().to_string_lossy());
        let of = |prefixes: &[&str]| prefixes_within(prefixes.iter().copied());
        assert_eq!(of(&["a/", "../c/b/", "/x/c/", "/"]), ["a/", "b/", "c/", ""]);
        for path in ["./".to_owned(), format!("{}/./", here.display())] {
            assert_eq!(of(&[path.as_str()]), [own.as_str()]);
        }
        // Parts of the same last folder are told apart, so that their order matters.
        for at in ["", "/x/", "../"] {
            let [a, b] = ["a/train/", "b/train/"].map(|path| format!("{at}{path}"));
            assert_eq!(of(&[&a, &b]), ["a/train/", "b/train/"]);
            assert_eq!(of(&[&b, &a]), ["b/train/", "a/train/"]);
        }
        assert_eq!(of(&["", ""]), ["", ""]);
        assert_eq!(of(&["/x/a/", "/x/a/"]), ["a/", "a/"]);
    }

    #[test]
    fn classes_keep_the_order_of_those_that_begin_with_the_others() {
        let joined = |sets: &[&str]| {
            let sets: Vec<Vec<String>> =
                sets.iter().map(|set| set.split_whitespace().map(str::to_owned).collect()).collect();
            Concat::classes_of(sets.iter().map(Vec::as_slice)).join(" ")
        };
        // Classes that only a test part has come after those that are learnt.
        assert_eq!(joined(&["b a c", "", "b a c aa"]), "b a c aa");
        assert_eq!(joined(&["b a c aa", "b"]), "b a c aa");
        assert_eq!(joined(&["b a", "a b"]), "a b");
        assert_eq!(joined(&["b c", "a"]), "a b c");
        assert_eq!(joined(&[]), "");
    }
}
