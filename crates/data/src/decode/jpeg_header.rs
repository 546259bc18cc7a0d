//! What a JPEG's frame header says, found without decoding.

/// The number of components in the first frame header: 1 grey, 3 colour, 4 CMYK. `None` if there is none.
pub(super) fn components(bytes: &[u8]) -> Option<u8> {
    let mut at = 2;
    loop {
        let found = bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        let marker = at + found + 1;
        match *bytes.get(marker)? {
            0xff => at = marker,
            0x00 | 0x01 | 0xd0..=0xd8 => at = marker + 1,
            0xd9 | 0xda => return None,
            // Frame headers, without the Huffman, arithmetic-coding and reserved markers among them.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return bytes.get(marker + 8).copied(),
            _ => {
                let length = bytes.get(marker + 1..marker + 3)?;
                at = marker + 1 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::components;

    #[test]
    fn the_frame_header_is_found_behind_other_segments() {
        let head = [0xff, 0xd8, 0xff, 0xe0, 0, 4, 0xff, 0xc0, 0xff, 0xff, 0xc2, 0, 11, 8, 0, 9, 0, 9, 1, 1];
        assert_eq!(components(&head), Some(1));
        assert_eq!(components(&head[..18]), None);
        assert_eq!(components(&[0xff, 0xd8, 0xff, 0xda, 0, 2]), None);
    }
}
