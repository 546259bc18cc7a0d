//! Zstandard decompression, for archives and the pages of tables.

use std::io::{BufRead, Read};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

type Frame<R> = StreamingDecoder<R, FrameDecoder>;

/// Replaces the decoder's messages, which mean something only to its authors.
const BROKEN: &str = "incomplete or damaged Zstandard data";

/// A decompressing reader of Zstandard frames one after another, as parallel compressors write them. The checksum of a
/// frame, if it has one, is checked at its end.
pub(crate) struct ZstdFrames<R: BufRead> {
    /// The input, between two frames.
    reader: Option<R>,
    /// The current frame, within one.
    frame: Option<Frame<R>>,
}

impl<R: BufRead> ZstdFrames<R> {
    pub fn new(reader: R) -> Self {
        Self { reader: Some(reader), frame: None }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let count = frame.read(out).map_err(|error| std::io::Error::new(error.kind(), BROKEN))?;
                if count > 0 || out.is_empty() {
                    return Ok(count);
                }
                let stored = frame.decoder.get_checksum_from_data();
                if stored.is_some() && stored != frame.decoder.get_calculated_checksum() {
                    return Err(std::io::Error::other("the Zstandard data do not match their checksum"));
                }
                self.reader = self.frame.take().map(Frame::into_inner);
            }
            let Some(mut reader) = self.reader.take() else { return Ok(0) };
            let head = reader.fill_buf()?;
            if head.is_empty() {
                return Ok(0);
            }
            let skippable = head.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) && head[0] & 0xf0 == 0x50;
            if skippable {
                let mut head = [0; 8];
                reader.read_exact(&mut head)?;
                let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
                std::io::copy(&mut reader.by_ref().take(len.into()), &mut std::io::sink())?;
                self.reader = Some(reader);
                continue;
            }
            self.frame = Some(Frame::new(reader).map_err(std::io::Error::other)?);
        }
    }
}
