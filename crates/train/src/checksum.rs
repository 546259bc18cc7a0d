//! Checksums defined by other programs.

/// The masked CRC-32C of `bytes` that TensorFlow's files use, rotated and offset because the plain CRC of data that
/// contains its own CRC is weak.
pub fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
