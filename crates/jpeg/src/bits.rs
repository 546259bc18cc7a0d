//! Bits from the highest of each byte on.

/// Reads bits of an interval of the coded data. Beyond its end come whatever bits; [`BitReader::overrun`] tells.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Where the next eight bytes are read.
    next: usize,
    /// Where the interval ends.
    end: usize,
    /// The next bits, from the highest on.
    pub buffer: u64,
    /// How many of them count.
    bits: u32,
}

impl<'a> BitReader<'a> {
    pub fn new((bytes, start, end): (&'a [u8], usize, usize)) -> Self {
        Self { bytes, next: start, end, buffer: 0, bits: 0 }
    }

    /// Makes it 56 bits or more.
    #[inline(always)]
    pub fn refill(&mut self) {
        let word = match self.bytes.get(self.next..).and_then(|rest| rest.first_chunk::<8>()) {
            Some(&word) => u64::from_be_bytes(word),
            None => 0,
        };
        // Bits that are there already are written once more.
        self.buffer |= word >> self.bits;
        self.next += ((63 - self.bits) >> 3) as usize;
        self.bits |= 56;
    }

    /// Passes over `bits` bits, of those that are there.
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

    /// Whether bits were used that lie beyond the end.
    pub fn overrun(&self) -> bool {
        8 * self.next - self.bits as usize > 8 * self.end
    }
}
