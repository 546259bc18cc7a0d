//! Decodes the coefficients of a block from its Huffman codes (ITU T.81, F.2.2).

use crate::bits::BitReader;
use crate::huffman::{Ac, Codes, END, extend};
use crate::zigzag::ZIGZAG;

/// The coefficients of a block by row and column, and room for coefficients that a damaged file writes beyond it.
pub(crate) type Coefficients = [i16; 128];

/// Which coefficients of a block are present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contents {
    /// At most the mean (DC).
    Mean,
    /// Others too.
    Detail,
}

pub(crate) const BAD_CODE: &str = "bad Huffman code";
pub(crate) const BAD_RUN: &str = "a block has too many coefficients";

/// Decodes a block into `out`, which holds zeros, and updates the component's mean `dc`.
#[inline(always)]
pub(crate) fn decode(
    reader: &mut BitReader,
    dc_codes: &Codes,
    ac: &Ac,
    dc: &mut i32,
    out: &mut Coefficients,
) -> Result<Contents, &'static str> {
    reader.refill();
    let (bits, size) = dc_codes.find(reader.buffer).ok_or(BAD_CODE)?;
    reader.consume(bits);
    // At most 15: tables with larger sizes are not accepted.
    let size = u32::from(size & 15);
    *dc = dc.wrapping_add(i32::from(extend(reader.peek(size), size)));
    reader.consume(size);
    out[0] = *dc as i16;

    // The index of the last coefficient.
    let mut at = 0u32;
    let mut contents = Contents::Detail;
    'block: loop {
        reader.refill();
        // Two lookups leave 36 of 56 bits, enough for the longest code with its value.
        for _ in 0..3 {
            let pair = ac.pairs[(reader.buffer >> (64 - crate::huffman::LOOKUP)) as usize];
            if pair.bits() == 0 {
                let (bits, symbol) = ac.codes.find(reader.buffer).ok_or(BAD_CODE)?;
                reader.consume(bits);
                let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
                let value = extend(reader.peek(size), size);
                reader.consume(size);
                at += match (size, run) {
                    (0, 15) => 16,
                    (0, _) => END,
                    _ => run + 1,
                };
                put(out, at, value);
                if at >= 63 {
                    break 'block;
                }
                continue 'block;
            }
            let first = at + pair.step();
            put(out, first, pair.value());
            let second = first + pair.second_step();
            put(out, second, pair.second_value());
            if second >= 63 {
                if at == 0 && first == END {
                    contents = Contents::Mean;
                }
                // If the first coefficient ends the block, the second belongs to another block.
                let ends = first >= 63;
                reader.consume(if ends { pair.first_bits() } else { pair.bits() });
                at = if ends { first } else { second };
                break 'block;
            }
            at = second;
            reader.consume(pair.bits());
        }
    }
    match at {
        64..END => Err(BAD_RUN),
        _ => Ok(contents),
    }
}

#[inline(always)]
fn put(out: &mut Coefficients, at: u32, value: i16) {
    out[usize::from(ZIGZAG[usize::from(at as u8)] & 127)] = value;
}
