//! Whether a result is of the same images as another.

use super::examples::Examples;

/// A checksum (CRC-32C) of `texts`, of the names of all images, of their classes, and of which of `parts` they are in.
/// The contents of images are not looked at.
pub(super) fn fingerprint<'t>(texts: impl IntoIterator<Item = &'t String>, parts: &[&Examples]) -> u32 {
    let mut crc = 0;
    let mut text = |text: &str| {
        // Where one text ends and the next begins counts.
        crc = crc32c::crc32c_append(crc, &(text.len() as u64).to_le_bytes());
        crc = crc32c::crc32c_append(crc, text.as_bytes());
    };
    texts.into_iter().for_each(|said| text(said));
    for Examples { images, targets } in parts {
        text("part");
        for index in 0..images.len() {
            text(&images.name(index));
        }
        text(&format!("{targets:?}"));
    }
    crc
}
