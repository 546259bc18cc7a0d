//! What a data set is: numbered images, some with a label.

use simclr_augment::ImageRef;

use crate::copies::{Extent, pixel_print};
use crate::decode::{DecodeScratch, Region};
use crate::error::DataError;
use crate::locality::Locality;

/// One decoded image: 8-bit RGB, rows from the top, channels interleaved (height, width, 3).
///
/// It borrows from the data set (binary formats, caches) or from the scratch space (files), so that reading an image
/// allocates nothing in the steady state.
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

    /// How image `index` is called in messages: its path within the data set, or its number.
    fn name(&self, index: usize) -> String;

    /// Bytes that image `index` takes where it is stored, encoded: of images that are files, or members of archives
    /// that tell it. Nothing of it is read.
    fn stored_bytes(&self, _index: usize) -> Option<u64> {
        None
    }

    /// A hash of image `index` by which copies of it are known, of all of it or of a sample: of the bytes of a file,
    /// which is not decoded, or else of the pixels. `None` where it cannot be read.
    fn print(&self, index: usize, extent: Extent, scratch: &mut DecodeScratch) -> Option<u64> {
        match extent {
            Extent::Sample => Some(0),
            Extent::Whole => self.read(index, scratch).ok().map(pixel_print),
        }
    }

    /// Which images are best read together; orders of epochs respect it.
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

    /// Reads image `index` and decodes what `needed` says of it, told its width and height. The image that is
    /// returned has its full size; its pixels outside of that part are unspecified, those inside are the same as of
    /// the whole. Data sets that can only read whole images do not ask.
    ///
    /// # Errors
    /// As [`Dataset::read`]; damage outside of the part may go unnoticed.
    fn read_part<'a>(
        &'a self,
        index: usize,
        needed: &dyn Fn(u32, u32) -> Region,
        scratch: &'a mut DecodeScratch,
    ) -> Result<Decoded<'a>, DataError>;
}
