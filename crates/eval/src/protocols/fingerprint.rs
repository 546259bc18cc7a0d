//! Tells whether two results are of the same images.

use super::examples::Examples;

/// A checksum (CRC-32C) of `texts`, of the names and targets of all images, and of which of `parts` each is in. It
/// does not cover the contents of the images.
pub(super) fn fingerprint<'t>(texts: impl IntoIterator<Item = &'t String>, parts: &[&Examples]) -> u32 {
    let mut crc = 0;
    let mut text = |text: &str| {
        // The length keeps the boundaries between texts significant.
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
