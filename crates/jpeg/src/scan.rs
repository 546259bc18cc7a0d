//! The coded data of a scan, without stuffed bytes and restart markers.

use crate::Error;

/// Zeros after the data, so that eight bytes can be read from any position in them.
const PADDING: usize = 8;
/// Bytes to examine at a time.
const CHUNK: usize = 32;

/// The coded data of a scan: intervals, each a string of bits.
#[derive(Default)]
pub(crate) struct Scan {
    bytes: Vec<u8>,
    /// How many of the bytes belong to this scan, padding included.
    length: usize,
    /// Where each interval ends.
    ends: Vec<usize>,
}

impl Scan {
    /// Reads the coded data at the beginning of `coded`, up to the end-of-image marker that must follow them. Restart
    /// markers are accepted if `restarts`.
    pub fn read(&mut self, coded: &[u8], restarts: bool) -> Result<(), Error> {
        self.ends.clear();
        // Fills only added bytes with zeros.
        self.bytes.resize(self.bytes.len().max(coded.len() + CHUNK + PADDING), 0);
        let (mut from, mut to) = (0, 0);
        loop {
            while let (Some(chunk), Some(out)) =
                (coded[from..].first_chunk::<CHUNK>(), self.bytes[to..].first_chunk_mut::<CHUNK>())
            {
                *out = *chunk;
                // Not `contains`, which stops at the first match and so does not vectorise.
                if chunk.iter().fold(false, |found, &byte| found | (byte == 0xff)) {
                    break;
                }
                from += CHUNK;
                to += CHUNK;
            }
            let rest = &coded[from..];
            let plain = rest.iter().position(|&byte| byte == 0xff);
            let Some(plain) = plain else {
                return Err(Error::Declined("the file ends before its end-of-image marker"));
            };
            self.bytes[to..to + plain].copy_from_slice(&rest[..plain]);
            to += plain;
            from += plain + 1;
            match rest.get(plain + 1) {
                Some(0x00) => {
                    self.bytes[to] = 0xff;
                    to += 1;
                    from += 1;
                }
                // A fill byte before a marker.
                Some(0xff) if matches!(rest.get(plain + 2), Some(0xff | 0xd0..=0xd9)) => {}
                Some(&marker @ 0xd0..=0xd7) if restarts && self.ends.len() & 7 == usize::from(marker & 7) => {
                    self.ends.push(to);
                    from += 1;
                }
                Some(0xd9) => {
                    self.ends.push(to);
                    self.bytes[to..to + PADDING].fill(0);
                    self.length = to + PADDING;
                    return Ok(());
                }
                _ => return Err(Error::Declined("a marker inside the coded data")),
            }
        }
    }

    /// Interval `number`: the bytes of the scan, and the interval's start and end in them.
    pub fn interval(&self, number: usize) -> Option<(&[u8], usize, usize)> {
        let end = *self.ends.get(number)?;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some((&self.bytes[..self.length], start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(coded: &[u8], restarts: bool) -> Result<Vec<Vec<u8>>, Error> {
        let mut scan = Scan::default();
        scan.read(coded, restarts)?;
        Ok((0..)
            .map_while(|n| scan.interval(n))
            .map(|(bytes, start, end)| bytes[start..end].to_vec())
            .collect())
    }

    #[test]
    fn stuffing_and_markers_go() {
        let long: Vec<u8> = (0..200).collect();
        for cut in 0..70 {
            let mut coded = long[..cut].to_vec();
            coded.extend([0xff, 0x00, 7, 0xff, 0xd0]);
            coded.extend(&long[..cut]);
            coded.extend([0xff, 0x00, 0xff, 0xff, 0xd1, 9, 0xff, 0xd9, 1, 2, 3]);
            let seen = intervals(&coded, true).unwrap();
            let first = [&long[..cut], &[0xff, 7]].concat();
            let second = [&long[..cut], &[0xff]].concat();
            assert_eq!(seen, [first, second, vec![9]], "{cut}");
            assert!(intervals(&coded, false).is_err());
        }
    }

    #[test]
    fn odd_markers_are_declined() {
        for odd in [
            &[1, 2, 3][..],
            &[1, 0xff],
            &[1, 0xff, 0xff],
            &[1, 0xff, 0xd1, 2, 0xff, 0xd9],
            &[1, 0xff, 0xda, 2, 0xff, 0xd9],
            &[1, 0xff, 0xff, 0x00, 0xff, 0xd9],
        ] {
            assert!(matches!(intervals(odd, true), Err(Error::Declined(_))), "{odd:?}");
        }
    }
}
