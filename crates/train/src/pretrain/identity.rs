//! Whether a run is taken up with the images that it began with.

use simclr_data::Dataset;

use crate::checkpoint::Meta;

/// What a checkpoint knows of the images of a run: how many there are, and how they are called. Their contents are
/// not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// How many images there are.
    pub images: u64,
    /// The CRC-32C of all names in order, each followed by a zero byte.
    pub names: u32,
}

impl Identity {
    /// That of a data set.
    pub fn of(dataset: &dyn Dataset) -> Identity {
        let names = (0..dataset.len()).fold(0, |crc, index| {
            let crc = crc32c::crc32c_append(crc, dataset.name(index).as_bytes());
            crc32c::crc32c_append(crc, &[0])
        });
        Identity { images: dataset.len() as u64, names }
    }

    /// What is wrong with going on from a checkpoint with these images, if anything is.
    pub fn problem(&self, meta: &Meta) -> Option<String> {
        if meta.images != self.images {
            return Some(format!(
                "it was trained on a data set of {} images, this one has {}; give the same data",
                meta.images, self.images
            ));
        }
        meta.names.filter(|&names| names != self.names).map(|_| {
            "it was trained on a data set of as many images with other names, or in another order; give the same data, \
             several data sets by the same paths as then"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use simclr_data::{DataError, DecodeScratch, Decoded, Region};

    use super::*;

    struct Named(Vec<&'static str>);

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
        let of = |names: &[&'static str]| Identity::of(&Named(names.to_vec()));
        let whole = of(&["a.jpg", "b.jpg"]);
        let meta = Meta { images: whole.images, names: Some(whole.names), ..Meta::default() };
        assert_eq!(whole.problem(&meta), None);
        assert_eq!(of(&["a.jpg", "b.jpg"]), whole);
        for other in [&["a.jpg", "c.jpg"], &["b.jpg", "a.jpg"], &["a.jpgb", ".jpg"]] {
            assert!(of(other).problem(&meta).unwrap().contains("by the same paths"), "{other:?}");
        }
        assert!(of(&["a.jpg"]).problem(&meta).unwrap().contains("2 images, this one has 1"));
        // A checkpoint that knows no names.
        assert_eq!(of(&["c.jpg", "d.jpg"]).problem(&Meta { names: None, ..meta }), None);
    }
}
