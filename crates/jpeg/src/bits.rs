//! A bit reader, which starts at the highest bit of each byte.

/// Reads the bits of an interval of the coded data. Bits beyond its end are arbitrary; [`BitReader::overrun`] reports
/// their use.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Index of the next eight bytes to read.
    next: usize,
    /// Index of the interval's end.
    end: usize,
    /// The next bits, from the highest on.
    pub buffer: u64,
    /// How many bits of the buffer are valid.
    bits: u32,
}

impl<'a> BitReader<'a> {
    pub fn new((bytes, start, end): (&'a [u8], usize, usize)) -> Self {
        Self { bytes, next: start, end, buffer: 0, bits: 0 }
    }

    /// Fills the buffer to at least 56 bits.
    #[inline(always)]
    pub fn refill(&mut self) {
        let word = match self.bytes.get(self.next..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(&word) => u64::from_be_bytes(word),
            None => 0,
        };
        // Bits already in the buffer beyond `bits` are ORed once more, with the same values.
        self.buffer |= word >> self.bits;
        self.next += ((63 - self.bits) >> 3) as usize;
        self.bits |= 56;
    }

    /// Skips `bits` bits of the buffer.
    #[inline(always)]
    pub fn consume(&mut self, bits: u32) {
        self.buffer <<= bits & 63;
        self.bits = self.bits.wrapping_sub(bits) & 63;
    }

    /// The next `bits` bits, 0 to 16, as a number.
    #[inline(always)]
    pub fn peek(&self, bits: u32) -> u32 {
        (self.buffer >> 1 >> ((63 - bits) & 63)) as u32
    }

    /// Whether bits beyond the end of the interval were consumed.
    pub fn overrun(&self) -> bool {
        8 * self.next - self.bits as usize > 8 * self.end
    }
}
