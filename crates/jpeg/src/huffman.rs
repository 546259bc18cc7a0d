//! Huffman tables (ITU T.81, annex C) as lookup tables by the next bits.

use crate::Error;

/// A table as stored in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spec<'a> {
    /// The number of codes of each length from 1 on.
    counts: &'a [u8; 16],
    /// The symbols, in the order of their codes.
    symbols: &'a [u8],
}

impl<'a> Spec<'a> {
    /// Reads a table at the beginning of `data`, and returns it with the data that follow.
    pub fn read(data: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let short = Error::Declined("a short Huffman table");
        let (counts, rest) = data.split_first_chunk::<16>().ok_or(short)?;
        let count: usize = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(count).filter(|_| count <= 256).ok_or(short)?;
        // Shorter codes must leave room for the codes of each length, and no code is all ones.
        let mut code = 0u32;
        for (length, &count) in (1..).zip(counts) {
            code = 2 * code + u32::from(count);
            if count > 0 && code >= 1 << length {
                return Err(Error::Declined("a Huffman table with too many codes"));
            }
        }
        Ok((Self { counts, symbols }, rest))
    }

    /// Whether every symbol can be the size of a DC difference.
    pub fn has_sizes_only(&self) -> bool {
        self.symbols.iter().all(|&symbol| symbol <= 15)
    }

    /// Each code with its length and symbol, shortest first.
    fn codes(&self) -> impl Iterator<Item = (u32, u32, u8)> {
        let mut next = 0u32;
        let lengths = (1u32..).zip(self.counts).flat_map(move |(length, &count)| {
            next <<= 1;
            let first = next;
            next += u32::from(count);
            (first..next).map(move |code| (code, length))
        });
        lengths.zip(self.symbols).map(|((code, length), &symbol)| (code, length, symbol))
    }
}

/// The number of bits that index a lookup table.
pub(crate) const LOOKUP: u32 = 10;

/// Decodes the next bits, one code at a time.
#[derive(Clone)]
pub(crate) struct Codes {
    /// By the next [`LOOKUP`] bits: length of the code << 8 | symbol; 0 where the code is longer.
    short: [u16; 1 << LOOKUP],
    /// For each length, the end of its codes, left-aligned in 16 bits.
    ends: [u32; 17],
    /// For each length, the offset from a code to the index of its symbol.
    offsets: [i32; 17],
    symbols: [u8; 256],
}

impl Default for Codes {
    fn default() -> Self {
        Self { short: [0; 1 << LOOKUP], ends: [0; 17], offsets: [0; 17], symbols: [0; 256] }
    }
}

impl Codes {
    pub fn fill(&mut self, spec: Spec) {
        self.short.fill(0);
        self.ends.fill(0);
        self.symbols.fill(0);
        for (place, (code, length, symbol)) in spec.codes().enumerate() {
            self.symbols[place] = symbol;
            let at = length as usize;
            if self.ends[at] == 0 {
                self.offsets[at] = place as i32 - code as i32;
            }
            self.ends[at] = (code + 1) << (16 - length);
            if length <= LOOKUP {
                let first = (code << (LOOKUP - length)) as usize;
                self.short[first..first + (1 << (LOOKUP - length))]
                    .fill(((length as u16) << 8) | u16::from(symbol));
            }
        }
    }

    /// The length and the symbol of the code at the top of `bits`; `None` if there is no such code.
    #[inline(always)]
    pub fn find(&self, bits: u64) -> Option<(u32, u8)> {
        let entry = self.short[(bits >> (64 - LOOKUP)) as usize];
        if entry != 0 {
            return Some((u32::from(entry >> 8), entry as u8));
        }
        self.find_long(bits)
    }

    #[cold]
    fn find_long(&self, bits: u64) -> Option<(u32, u8)> {
        let top = (bits >> 48) as u32;
        // Lengths without codes have an end of 0.
        let length = (LOOKUP as usize + 1..=16).find(|&length| top < self.ends[length])?;
        let place = (top >> (16 - length)) as i32 + self.offsets[length];
        Some((length as u32, *self.symbols.get(place as usize)?))
    }
}

/// A table of AC coefficients: the next [`LOOKUP`] bits give up to two coefficients at once.
#[derive(Clone)]
pub(crate) struct Ac {
    pub codes: Codes,
    pub pairs: Box<[Pair; 1 << LOOKUP]>,
}

impl Default for Ac {
    fn default() -> Self {
        Self { codes: Codes::default(), pairs: Box::new([Pair::UNKNOWN; 1 << LOOKUP]) }
    }
}

/// The step of an end-of-block code: beyond any coefficient, and beyond any index that a wrong run reaches.
pub(crate) const END: u32 = 128;

/// One or two coefficients, as many as [`LOOKUP`] bits determine.
///
/// From the lowest byte on: bits of both; step to the first, step from there to the second; bits of the first;
/// then two bytes for each value. If there is only one coefficient, the second repeats the first with a step of 0. An
/// end of block is a step of [`END`], a run of 16 zeros is a step to a value of 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair(u64);

impl Pair {
    /// The lookup bits do not determine a coefficient.
    pub const UNKNOWN: Self = Self(0);

    fn one(bits: u32, step: u32, value: i16) -> Self {
        let value = u64::from(value as u16);
        Self(u64::from(bits | (step << 8) | (bits << 24)) | (value << 32) | (value << 48))
    }

    fn and(self, second: Self) -> Self {
        let bits = self.bits() + second.bits();
        let low = bits | (self.step() << 8) | (second.step() << 16) | (self.bits() << 24);
        let values = u64::from(self.value() as u16) | (u64::from(second.value() as u16) << 16);
        Self(u64::from(low) | (values << 32))
    }

    /// Bits of both coefficients; 0 for [`Pair::UNKNOWN`].
    #[inline(always)]
    pub fn bits(self) -> u32 {
        u32::from(self.0 as u8)
    }

    #[inline(always)]
    pub fn step(self) -> u32 {
        u32::from((self.0 >> 8) as u8)
    }

    #[inline(always)]
    pub fn second_step(self) -> u32 {
        u32::from((self.0 >> 16) as u8)
    }

    /// Bits of the first coefficient alone.
    #[inline(always)]
    pub fn first_bits(self) -> u32 {
        u32::from((self.0 >> 24) as u8)
    }

    #[inline(always)]
    pub fn value(self) -> i16 {
        (self.0 >> 32) as i16
    }

    #[inline(always)]
    pub fn second_value(self) -> i16 {
        (self.0 >> 48) as i16
    }
}

impl Ac {
    pub fn fill(&mut self, spec: Spec) {
        self.codes.fill(spec);
        let mut singles = [Pair::UNKNOWN; 1 << LOOKUP];
        for (code, length, symbol) in spec.codes().take_while(|code| code.1 <= LOOKUP) {
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            let first = (code << (LOOKUP - length)) as usize;
            let room = LOOKUP - length;
            let entries = &mut singles[first..first + (1 << room)];
            if size == 0 {
                let step = if run == 15 { 16 } else { END };
                entries.fill(Pair::one(length, step, 0));
            } else if size <= room {
                let each = 1 << (room - size);
                for (bits, entries) in (0..).zip(entries.chunks_exact_mut(each)) {
                    entries.fill(Pair::one(length + size, run + 1, extend(bits, size)));
                }
            }
        }
        for (at, pair) in self.pairs.iter_mut().enumerate() {
            let first = singles[at];
            let second = singles[(at << first.bits()) & ((1 << LOOKUP) - 1)];
            // The second is known if the remaining bits suffice; nothing follows the end of a block.
            let known = second.bits() > 0 && first.bits() + second.bits() <= LOOKUP;
            *pair = match known && first.bits() > 0 && first.step() < END {
                true => first.and(second),
                false => first,
            };
        }
    }
}

/// The value that `size` bits encode (T.81, figure F.12), where the lower half encodes negative values.
#[inline(always)]
pub(crate) fn extend(bits: u32, size: u32) -> i16 {
    let value = bits as i32;
    let negative = value < (1 << size) >> 1;
    (if negative { value - (1 << size) + 1 } else { value }) as i16
}

/// A table that is kept from one image to the next, since most images have the same one.
#[derive(Clone, Default)]
pub(crate) struct Kept<T> {
    counts: [u8; 16],
    symbols: Vec<u8>,
    pub table: T,
}

impl<T> Kept<T> {
    /// Makes `table` that of `spec`, by calling `fill` if it is another one.
    pub fn prepare(&mut self, spec: Spec, fill: impl FnOnce(&mut T, Spec)) {
        if self.counts != *spec.counts || self.symbols != spec.symbols {
            self.counts = *spec.counts;
            self.symbols.clear();
            self.symbols.extend_from_slice(spec.symbols);
            fill(&mut self.table, spec);
        }
    }
}
