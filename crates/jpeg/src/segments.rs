//! The segments of a file before its coded data.

use crate::Error;

/// A segment: the second byte of its marker, and the data after its length.
pub(crate) struct Segment<'a> {
    pub marker: u8,
    pub data: &'a [u8],
}

/// Walks the segments of a file.
pub(crate) struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    /// The segments of `bytes`, a whole file.
    pub fn of(bytes: &'a [u8]) -> Result<Self, Error> {
        match bytes {
            [0xff, 0xd8, rest @ ..] => Ok(Self { rest }),
            _ => Err(Error::Declined("no start-of-image marker")),
        }
    }

    /// The next segment. Bytes between segments are declined, and so are markers without a length.
    pub fn next(&mut self) -> Result<Segment<'a>, Error> {
        let [0xff, rest @ ..] = self.rest else {
            return Err(Error::Declined("bytes between segments"));
        };
        let fill = rest.iter().take_while(|&&byte| byte == 0xff).count();
        let [marker, high, low, rest @ ..] = &rest[fill..] else {
            return Err(Error::Declined("the file ends within its headers"));
        };
        if matches!(marker, 0x00..=0x01 | 0xd0..=0xd9) {
            return Err(Error::Declined("a marker that does not belong in headers"));
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((data, rest)) = length.checked_sub(2).and_then(|length| rest.split_at_checked(length))
        else {
            return Err(Error::Declined("a segment of a wrong length"));
        };
        self.rest = rest;
        Ok(Segment { marker: *marker, data })
    }

    /// The bytes after the last segment.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}
