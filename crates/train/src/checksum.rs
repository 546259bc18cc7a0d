//! Checksums that other programs define.

/// The CRC-32C of `bytes` as TensorFlow's files have it, rotated and offset: a checksum of data that contains its
/// own checksum says little.
pub fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}
