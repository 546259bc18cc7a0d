//! Where the first image of a GIF lies on its canvas, found without decoding.

/// Whether the first image lies entirely outside the canvas of `width` x `height` pixels, which is then all background.
/// Files too damaged to tell are left to the decoder.
pub(super) fn is_off_canvas(bytes: &[u8], width: u32, height: u32) -> bool {
    first_image(bytes).is_some_and(|(left, top)| u32::from(left) >= width || u32::from(top) >= height)
}

/// The left and top offsets of the first image.
fn first_image(bytes: &[u8]) -> Option<(u16, u16)> {
    // The signature and the size, then a palette of 2 to 256 colours, if the first bit of this byte says so.
    let flags = *bytes.get(10)?;
    let palette = if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut at = 13 + palette;
    loop {
        match *bytes.get(at)? {
            // An extension: its kind, then length-prefixed blocks, the last of them empty.
            0x21 => {
                at += 2;
                while let len @ 1.. = *bytes.get(at)? {
                    at += 1 + usize::from(len);
                }
                at += 1;
            }
            0x2c => {
                let &[left, more_left, top, more_top] = bytes.get(at + 1..)?.first_chunk()?;
                return Some((u16::from_le_bytes([left, more_left]), u16::from_le_bytes([top, more_top])));
            }
            _ => return None,
        }
    }
}
