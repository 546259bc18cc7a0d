//! Reading and writing a file at an offset, by any number of threads at the same time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

/// Fills `out` from the bytes of `file` that start at `offset`.
pub(crate) fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, out, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < out.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut out[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

/// Writes all of `bytes` to `file` from `offset` on.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            match std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => done += written,
            }
        }
        Ok(())
    }
}

/// A reader with its own position in a file that others read too.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Cursor {
    /// Reads the bytes from `at` up to `end`, which lies within the file.
    pub fn new(file: Arc<File>, at: u64, end: u64) -> Self {
        Self { file, at, end }
    }
}

impl Read for Cursor {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = out.len().min(usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX));
        read_exact_at(&self.file, &mut out[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Reads the `len` bytes of `file` at `offset` into `out`; returns an error instead of aborting if memory is short.
pub(crate) fn read_range(file: &File, offset: u64, len: u64, out: &mut Vec<u8>) -> Result<(), String> {
    out.clear();
    let len = usize::try_from(len).map_err(|_| format!("{len} bytes are more than fit into memory"))?;
    out.try_reserve(len).map_err(|_| format!("no memory for its {len} bytes"))?;
    out.resize(len, 0);
    read_exact_at(file, out, offset).map_err(|error| error.to_string())
}
