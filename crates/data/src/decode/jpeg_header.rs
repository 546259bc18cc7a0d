//! What a JPEG's frame header says, found without decoding.

/// The first frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Its marker, from 0xc0 to 0xcf: how the image is coded.
    marker: u8,
    /// Bits per sample.
    bits: u8,
    /// 1 grey, 3 colour, 4 CMYK.
    pub components: u8,
}

impl Frame {
    /// Returns the reason why images of this kind are not read, or `None` if they are.
    pub fn unread_kind(self) -> Option<String> {
        match (self.marker, self.bits) {
            (0xc3, _) => Some("lossless".to_owned()),
            (0xc5..=0xc7, _) => Some("hierarchical".to_owned()),
            (0xc9..=0xcf, _) => Some("arithmetic coding".to_owned()),
            // Other depths do not occur in JPEGs.
            (_, bits @ 9..=16) => Some(format!("{bits} bits a channel")),
            _ => None,
        }
    }
}

/// Finds the first frame header; `None` if there is none.
pub(super) fn frame(bytes: &[u8]) -> Option<Frame> {
    let mut at = 2;
    loop {
        let found = bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        let marker = at + found + 1;
        match *bytes.get(marker)? {
            0xff => at = marker,
            0x00 | 0x01 | 0xd0..=0xd8 => at = marker + 1,
            0xd9 | 0xda => return None,
            // Frame headers, without the Huffman, arithmetic-coding and reserved markers among them.
            kind @ (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) => {
                let &[bits, _, _, _, _, components] = bytes.get(marker + 3..)?.first_chunk()?;
                return Some(Frame { marker: kind, bits, components });
            }
            _ => {
                let length = bytes.get(marker + 1..marker + 3)?;
                at = marker + 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

/// Whether the bytes end before the header of the first scan does.
pub(super) fn is_cut(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) {
        let marker = at + found + 1;
        match bytes.get(marker) {
            None => return true,
            Some(0xff) => at = marker,
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at = marker + 1,
            Some(0xd9) => return false,
            Some(kind) => {
                let Some(length) = bytes.get(marker + 1..marker + 3) else { return true };
                at = marker + 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
                if *kind == 0xda {
                    return at > bytes.len();
                }
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{frame, is_cut};

    #[test]
    fn a_header_ends_with_that_of_its_scan() {
        let head = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, 0xd9, 0xff, 0xff, 0xda, 0, 3, 9];
        assert!((2..head.len()).all(|len| is_cut(&head[..len])) && !is_cut(&head));
        assert!(!is_cut(&[0xff, 0xd8, 0xff, 0xd9]));
    }

    #[test]
    fn the_frame_header_is_found_behind_other_segments() {
        let head = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, 0xc0, 0xff, 0xff, 0xc2, 0, 11, 8, 0, 9, 0, 9, 1, 1];
        let found = frame(&head).unwrap();
        assert_eq!((found.marker, found.bits, found.components), (0xc2, 8, 1));
        assert_eq!(frame(&head[..18]), None);
        assert_eq!(frame(&[0xff, 0xd8, 0xff, 0xda, 0, 2]), None);
    }
}
