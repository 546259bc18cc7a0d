//! Data sets, decoding and the loader: a stream of batches of view pairs.

#![forbid(unsafe_code)]

mod cached;
pub mod cifar;
mod dataset;
mod decode;
mod error;
mod evaluation;
mod folder;
pub mod idx;
mod listing;
mod loader;
mod made;
mod permutation;
mod source;
mod subset;

pub use cached::Cached;
pub use dataset::{Dataset, Decoded};
pub use decode::{DecodeScratch, Format, MAX_FILE_BYTES, MAX_PIXELS, decode_bytes, decode_file};
pub use error::DataError;
pub use evaluation::{EvalLoader, for_each_evaluation_batch};
pub use folder::Folder;
pub use listing::{LeftOut, LeftOutFile};
pub use loader::{Batch, Loader, LoaderConfig, NO_LABEL, Position, Skipped};
pub use made::{Made, Shape, made};
pub use permutation::permutation;
pub use source::{Source, SourceKind, open};
pub use subset::{Subset, balanced_subset};
