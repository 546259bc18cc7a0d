//! Zstandard decompression, for archives and the pages of tables.

use std::io::{BufRead, Error, Read, copy, sink};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Replaces the decoder's messages, which mean something only to its authors.
const BROKEN: &str = "incomplete or damaged Zstandard data";

/// A decompressing reader of Zstandard frames one after another, as parallel compressors write them. The checksum of a
/// frame, if it has one, is checked at its end.
pub(crate) struct ZstdFrames<R: BufRead> {
    reader: R,
    /// The current frame, within one.
    frame: Option<FrameDecoder>,
}

impl<R: BufRead> ZstdFrames<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, frame: None }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                while frame.can_collect() == 0 && !frame.is_finished() {
                    frame
                        .decode_blocks(&mut self.reader, BlockDecodingStrategy::UptoBlocks(1))
                        .map_err(|_| Error::other(BROKEN))?;
                }
                let count = frame.read(out)?;
                if count > 0 || out.is_empty() {
                    return Ok(count);
                }
                let stored = frame.get_checksum_from_data();
                if stored.is_some() && stored != frame.get_calculated_checksum() {
                    return Err(Error::other("the Zstandard data do not match their checksum"));
                }
                self.frame = None;
            }
            if self.reader.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let mut frame = FrameDecoder::new();
            match frame.init(&mut self.reader) {
                Ok(()) => self.frame = Some(frame),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    copy(&mut self.reader.by_ref().take(length.into()), &mut sink())?;
                }
                Err(error) => return Err(Error::other(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    #[test]
    fn frames_to_skip_lie_anywhere_in_the_buffer() {
        let frame = |bytes: &[u8]| compress_to_vec(bytes, CompressionLevel::Fastest);
        let skipped = [&[0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"size"].concat();
        let packed =
            [&skipped, &frame(b"one")[..], &skipped, &skipped, &frame(b" and two"), &skipped].concat();
        for buffer in 1..=packed.len() {
            let mut read = String::new();
            ZstdFrames::new(BufReader::with_capacity(buffer, &packed[..])).read_to_string(&mut read).unwrap();
            assert_eq!(read, "one and two");
        }
        let cut = &packed[..packed.len() - skipped.len() - 3];
        assert!(ZstdFrames::new(cut).read_to_end(&mut Vec::new()).is_err());
    }
}
