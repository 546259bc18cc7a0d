//! Data sets, decoding and the loader: a stream of batches of view pairs.
//!
//! [`open`] recognises what a path holds, a [`Loader`] turns a data set into batches of augmented views, and an
//! [`EvalLoader`] into central crops in order. The batches are a function of (data set, seed, place), whatever the
//! number of threads. An [`Opener`] opens several paths as one, sets how images are decoded, and keeps an index of what
//! it found; [`survey`] reads every image once and summarises the data set; [`copies`] finds images that occur more
//! than once. [`InMemory`] is a data set of images that a program already holds.
//!
//! A folder to batches:
//!
//! ```
//! use simclr_augment::ViewConfig;
//! use simclr_data::{Loader, LoaderConfig, Position, Reading, Share, open};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let photos = tempfile::tempdir()?;
//! # let photos = photos.path();
//! # for number in 0..40 {
//! #     image::RgbImage::from_pixel(40, 30, image::Rgb([number; 3])).save(photos.join(format!("{number}.png")))?;
//! # }
//! let source = open(photos)?;
//! let views = ViewConfig::default().families(32)?.to_vec();
//! let reading = Reading { threads: 2, strict: false };
//! let config = LoaderConfig { batch: 16, share: Share::WHOLE, seed: 1, reading, views };
//! let mut loader = Loader::new(source.to_pretrain(), config, Position::default());
//! for _ in 0..10 {
//!     let batch = loader.next_batch()?;
//!     // Two views of each image: view i and view i + 16 belong together.
//!     assert_eq!(batch.views.len(), 2 * 16 * 32 * 32 * 3);
//!     loader.recycle(batch);
//! }
//! assert!(loader.skipped().is_empty());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod archive_kinds;
mod binary;
mod cached;
mod caught;
mod cifar;
mod common_folder;
mod concat;
mod copies;
mod dataset;
mod decode;
mod error;
mod evaluation;
mod fault;
mod files;
mod glance;
mod idx;
mod in_memory;
mod in_order;
mod index;
mod layout;
mod listing;
mod loader;
mod locality;
mod mark;
mod names;
mod opener;
mod pattern;
mod permutation;
mod positioned;
mod regular;
mod sample;
mod source;
mod stl10;
mod subset;
mod survey;
mod synthetic;
mod temporary;
mod tones;

pub use cached::{Cached, DiskBudget};
pub use caught::{caught, is_panic_caught};
pub use concat::Concat;
pub use copies::{HashExtent, contradicting, copies};
pub use dataset::{Dataset, Decoded};
pub use decode::{
    DecodeOptions, DecodeScratch, Format, MAX_FILE_BYTES, MAX_PIXELS, Region, StoredAs, Window, decode_bytes,
    decode_file, decode_part,
};
pub use error::DataError;
pub use evaluation::EvalLoader;
pub use files::parquet::table_column;
pub use glance::Glance;
pub use in_memory::InMemory;
pub use index::Index;
pub use listing::{LeftOut, LeftOutFile};
pub use loader::{
    Batch, KeptImages, Loader, LoaderConfig, NO_LABEL, PixelSource, Position, RawBatch, RawImage, Reading,
    Share, Skipped,
};
pub use locality::Locality;
pub use opener::Opener;
pub use permutation::permutation;
pub use regular::not_a_file;
pub use sample::{Sample, all_grey};
pub use source::{FORMS, Source, SourceKind, open};
pub use subset::{Subset, balanced_subset};
pub use survey::{Spread, Survey, survey};
pub use synthetic::{Shape, Synthetic, synthetic};
pub use temporary::{Writer, temporary_of, unfinished};
pub use tones::{Tones, Values};
