//! Decodes the needed part of a baseline JPEG image to 8-bit RGB.
//!
//! The common kind of file is decoded, and fast: 8 bits, baseline or extended sequential, Huffman codes, one scan,
//! grey or YCbCr with luma sampled at most twice as finely as chroma. Everything else (progressive, CMYK,
//! arithmetic coding, other samplings) and every oddity of a file is *declined* and left to a more tolerant
//! decoder: [`Error::Declined`], [`Error::Damaged`].
//!
//! The pixels are those of libjpeg-turbo with its defaults, bit for bit: its accurate integer transform
//! (`jidctint.c`), its "fancy" upsampling (`jdsample.c`) and its colour conversion (`jdcolor.c`). They depend
//! neither on the requested region nor on the instruction set.
//!
//! ```no_run
//! use simclr_jpeg::{Header, Rect, Scratch};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bytes = std::fs::read("photo.jpg")?;
//! let header = Header::read(&bytes)?;
//! let mut pixels = vec![0; header.width as usize * header.height as usize * 3];
//! // Only this rectangle of `pixels` means something afterwards.
//! let corner = Rect { left: 0, top: 0, width: 16.min(header.width), height: 16.min(header.height) };
//! header.decode(&[corner], &mut Scratch::default(), &mut pixels)?;
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod bits;
mod block;
mod decode;
mod error;
mod header;
mod huffman;
mod planes;
mod rect;
mod rows;
mod scan;
mod scratch;
mod segments;
#[allow(unsafe_code)]
mod simd;
mod zigzag;

pub use error::Error;
pub use header::Header;
pub use rect::Rect;
pub use scratch::Scratch;
pub use simclr_isa::Isa;
