//! The checksum in the metadata of the safetensors files that this program writes.

use safetensors::Dtype;

/// Its key in the metadata.
pub(crate) const CHECKSUM: &str = "checksum";

/// The sum of the CRC-32Cs of a file's other metadata and of its tensors, each with its name. It does not depend on
/// their order, which other programs may change.
#[derive(Debug)]
pub(crate) struct Checksum(u32);

impl Checksum {
    /// The checksum of a file with these metadata and no tensors.
    pub fn of_metadata<'a>(metadata: impl IntoIterator<Item = (&'a String, &'a String)>) -> Checksum {
        let others = metadata.into_iter().filter(|(name, _)| *name != CHECKSUM);
        let each = others.map(|(name, value)| crc32c::crc32c(format!("{name}\0{value}").as_bytes()));
        Checksum(each.fold(0, u32::wrapping_add))
    }

    /// Adds a tensor, given as one or more runs of bytes.
    pub fn add_tensor(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        parts: impl IntoIterator<Item: AsRef<[u8]>>,
    ) {
        let start = crc32c::crc32c(format!("{name}\0{dtype}{shape:?}").as_bytes());
        let crc = parts.into_iter().fold(start, |crc, part| crc32c::crc32c_append(crc, part.as_ref()));
        self.0 = self.0.wrapping_add(crc);
    }

    /// The checksum as it is written, in hexadecimal digits.
    pub fn digits(&self) -> String {
        format!("{:08x}", self.0)
    }
}
