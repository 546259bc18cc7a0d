//! Whether a run is resumed with the images that it began with.

use std::path::Path;

use serde::{Deserialize, Serialize};
use simclr_data::Dataset;
use simclr_words::text::{counted, grouped};

use crate::TrainError;
use crate::checkpoint::Meta;

/// The most files whose sizes are read.
const SIZED: usize = 4096;

/// What a checkpoint records of a run's images: their number, their names and the sizes of their files, but not their
/// contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The number of images.
    pub images: u64,
    /// The CRC-32C of all names in order, each followed by a zero byte.
    pub names: u32,
    /// The same of the names as far as they do not depend on where the data lie ([`Dataset::name_within`]) where those
    /// are others; older records lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names_within: Option<u32>,
    /// The CRC-32C of file sizes, of at most 4096 evenly spread files; `None` if the data set does not report sizes.
    pub sizes: Option<u32>,
}

impl Identity {
    /// Returns the identity of a data set.
    pub fn of(dataset: &dyn Dataset) -> Identity {
        let checksum = |name: &dyn Fn(usize) -> String| {
            (0..dataset.len()).fold(0, |crc, index| {
                let crc = crc32c::crc32c_append(crc, name(index).as_bytes());
                crc32c::crc32c_append(crc, &[0])
            })
        };
        let names = checksum(&|index| dataset.name(index));
        let names_within =
            Some(checksum(&|index| dataset.name_within(index))).filter(|&within| within != names);
        let stride = dataset.len().div_ceil(SIZED).max(1);
        let sizes: Vec<Option<u64>> =
            (0..dataset.len()).step_by(stride).map(|index| dataset.stored_bytes(index)).collect();
        let crc =
            |crc, bytes: &Option<u64>| crc32c::crc32c_append(crc, &bytes.unwrap_or(u64::MAX).to_le_bytes());
        let sizes = sizes.iter().any(Option::is_some).then(|| sizes.iter().fold(0, crc));
        Identity { images: dataset.len() as u64, names, names_within, sizes }
    }

    /// Whether the images have the same names in the same order, wherever they lie.
    pub fn has_names_of(&self, other: &Identity) -> bool {
        let within = |of: &Identity| of.names_within.unwrap_or(of.names);
        self.names == other.names || within(self) == within(other)
    }

    /// Checks that a run in the folder `run` may be resumed with these images from a checkpoint.
    ///
    /// # Errors
    /// [`TrainError::CannotResume`].
    pub fn check(&self, run: &Path, meta: &Meta) -> Result<(), TrainError> {
        match self.problem(meta) {
            Some(problem) => Err(TrainError::CannotResume { path: run.to_path_buf(), problem }),
            None => Ok(()),
        }
    }

    /// Returns the reason why a run cannot be resumed from a checkpoint on these images, or `None` if it can.
    pub fn problem(&self, meta: &Meta) -> Option<String> {
        if meta.images != self.images {
            return Some(format!(
                "it was trained on a data set of {}, this one has {}; give the same data",
                counted(meta.images as usize, "image"),
                grouped(self.images)
            ));
        }
        let then = meta.names.map(|names| {
            let (images, names_within, sizes) = (meta.images, meta.extra.names_within, meta.extra.sizes);
            Identity { images, names, names_within, sizes }
        });
        if then.is_some_and(|then| !self.has_names_of(&then)) {
            return Some(
                "it was trained on a data set of as many images with other names, or in another order; give the same \
                 data, several data sets and single images in the same order as then"
                    .to_owned(),
            );
        }
        let differ = meta.extra.sizes.zip(self.sizes).is_some_and(|(then, now)| then != now);
        differ.then(|| {
            "it was trained on images of which some have changed since: their files have other sizes; give the same \
             data, or begin another run"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use simclr_data::{DataError, DecodeScratch, Decoded, Region};

    use super::*;

    /// Images with these names. The reported file size is the length of the name plus the given number, if any.
    struct Named(Vec<&'static str>, Option<u64>);

    impl Dataset for Named {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn classes(&self) -> &[String] {
            &[]
        }
        fn label(&self, _: usize) -> Option<u32> {
            None
        }
        fn name(&self, index: usize) -> String {
            self.0[index].to_owned()
        }
        fn name_within(&self, index: usize) -> String {
            let name = self.0[index];
            name.rsplit('/').next().unwrap_or(name).to_owned()
        }
        fn stored_bytes(&self, index: usize) -> Option<u64> {
            self.1.map(|more| self.0[index].len() as u64 + more)
        }
        fn read_part<'a>(
            &'a self,
            _: usize,
            _: &dyn Fn(u32, u32) -> Region,
            _: &'a mut DecodeScratch,
        ) -> Result<Decoded<'a>, DataError> {
            unreachable!("images are not read for their names")
        }
    }

    #[test]
    fn other_images_are_noticed() {
        let of = |names: &[&'static str]| Identity::of(&Named(names.to_vec(), None));
        let whole = of(&["a.jpg", "b.jpg"]);
        let meta = Meta { images: whole.images, names: Some(whole.names), ..Meta::default() };
        assert_eq!(whole.problem(&meta), None);
        assert_eq!(of(&["a.jpg", "b.jpg"]), whole);
        for other in [&["a.jpg", "c.jpg"], &["b.jpg", "a.jpg"], &["a.jpgb", ".jpg"]] {
            assert!(of(other).problem(&meta).unwrap().contains("in the same order as then"), "{other:?}");
        }
        assert!(of(&["a.jpg"]).problem(&meta).unwrap().contains("2 images, this one has 1"));
        // A checkpoint without names.
        assert_eq!(of(&["c.jpg", "d.jpg"]).problem(&Meta { names: None, ..meta }), None);
    }

    #[test]
    fn images_that_lie_elsewhere_are_the_same() {
        let of = |names: &[&'static str]| Identity::of(&Named(names.to_vec(), None));
        let (here, there, moved) =
            (of(&["a.jpg", "b.jpg"]), of(&["x/a.jpg", "x/b.jpg"]), of(&["/y/a.jpg", "/y/b.jpg"]));
        assert_eq!((here.names_within, there.names_within), (None, Some(here.names)));
        let meta = |then: Identity| {
            let mut meta = Meta { images: 2, names: Some(then.names), ..Meta::default() };
            meta.extra.names_within = then.names_within;
            meta
        };
        for then in [here, there, moved] {
            assert!([here, there, moved].iter().all(|now| now.problem(&meta(then)).is_none()), "{then:?}");
        }
        assert!(of(&["x/b.jpg", "x/a.jpg"]).problem(&meta(there)).is_some());
        // A checkpoint that knows only the names as they were given.
        let old = Identity { names_within: None, ..there };
        assert_eq!(there.problem(&meta(old)), None);
        assert!(moved.problem(&meta(old)).is_some());
    }

    #[test]
    fn files_of_other_sizes_are_noticed_where_sizes_are_known() {
        let of = |more| Identity::of(&Named(vec!["a.jpg", "b.jpg"], more));
        let (unknown, then, now) = (of(None), of(Some(0)), of(Some(1)));
        assert_eq!((unknown.sizes, then.names), (None, now.names));
        let before = Meta { images: 2, names: Some(then.names), ..Meta::default() };
        let mut meta = before.clone();
        meta.extra.sizes = then.sizes;
        assert_eq!((then.problem(&meta), unknown.problem(&meta), now.problem(&before)), (None, None, None));
        assert!(now.problem(&meta).unwrap().contains("other sizes"));
    }
}
