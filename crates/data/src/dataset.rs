//! The [`Dataset`] trait: numbered images, some with a label.

use simclr_augment::ImageRef;

use crate::copies::{HashExtent, hash_pixels};
use crate::decode::{DecodeScratch, Region};
use crate::error::DataError;
use crate::locality::Locality;

/// One decoded image: 8-bit RGB, rows from the top, channels interleaved (height, width, 3).
///
/// It borrows from the data set (binary formats, caches) or from the scratch space (files): in the steady state no
/// memory is allocated for pixels.
pub type Decoded<'a> = ImageRef<'a>;

/// Images numbered from 0 to `len() - 1`, each the same at every read. [`InMemory`](crate::InMemory) is one for images
/// in memory, and shows how another is written.
pub trait Dataset: Send + Sync {
    /// The number of images, broken ones included.
    fn len(&self) -> usize;

    /// True if there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the classes, in the order of their labels; empty when the data set is unlabelled.
    fn classes(&self) -> &[String];

    /// The label of image `index`, less than `classes().len()`; `None` in an unlabelled data set, and for an image
    /// without a label in one whose others have some.
    fn label(&self, index: usize) -> Option<u32>;

    /// The name of image `index` in messages: its path within the data set, or its number.
    fn name(&self, index: usize) -> String;

    /// The name of image `index` as far as it does not depend on where the data set lies, nor on the folder from which
    /// paths start: by these a run recognises its images.
    fn name_within(&self, index: usize) -> String {
        self.name(index)
    }

    /// The encoded size of image `index` in bytes, for image files and for members of archives that record it. Does not
    /// read the image.
    fn stored_bytes(&self, _index: usize) -> Option<u64> {
        None
    }

    /// A hash by which copies of image `index` are found, of the whole image or of a sample: of a file's bytes, which
    /// are not decoded, or else of the pixels. `None` if the image cannot be read, or has no sample that is quicker to
    /// read than the whole.
    fn content_hash(&self, index: usize, extent: HashExtent, scratch: &mut DecodeScratch) -> Option<u64> {
        match extent {
            HashExtent::Sample => None,
            HashExtent::Whole => self.read(index, scratch).ok().map(hash_pixels),
        }
    }

    /// Which images are best read together; the order of an epoch respects it.
    fn locality(&self) -> Locality {
        Locality::free(self.len())
    }

    /// Reads and decodes image `index`.
    ///
    /// # Errors
    /// [`DataError::Image`] with the image's name and the reason, if it is broken.
    fn read<'a>(&'a self, index: usize, scratch: &'a mut DecodeScratch) -> Result<Decoded<'a>, DataError> {
        self.read_part(index, &Region::whole, scratch)
    }

    /// Reads image `index` and decodes the part that `needed` returns for its width and height. The image has its full
    /// size all the same: pixels inside the part are those of the whole image, pixels outside are unspecified. Data
    /// sets that can only read whole images do not call `needed`. Those that decode parts call it again if the part
    /// cannot be decoded, and decode the other part that it may then return: a cache wants all of an image, but makes
    /// do with what is needed of it.
    ///
    /// # Errors
    /// As [`Dataset::read`]; damage outside the part may go unnoticed.
    fn read_part<'a>(
        &'a self,
        index: usize,
        needed: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError>;
}
