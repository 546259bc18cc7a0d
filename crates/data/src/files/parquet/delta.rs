//! Counts and lengths of values that are encoded by their differences, which the `parquet` crate allocates memory for.

use parquet::basic::Encoding;

/// Whether values in this encoding are checked here: those of byte arrays.
pub(super) fn is_checked(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY)
}

/// Whether values in such an encoding are at most `most` in number, and the bytes that they repeat of those before them
/// at most `most_bytes`.
pub(super) fn fits(encoding: Encoding, values: &[u8], most: usize, most_bytes: u64) -> bool {
    let Some(first) = Lengths::read(values, most) else { return false };
    match encoding {
        // What is repeated, then the lengths of the rest.
        Encoding::DELTA_BYTE_ARRAY => {
            first.sum <= most_bytes && Lengths::read(&values[first.end..], most).is_some()
        }
        _ => true,
    }
}

/// Lengths in the encoding `DELTA_BINARY_PACKED`.
struct Lengths {
    /// Negative ones, which the crate rejects, count as 0.
    sum: u64,
    /// The bytes that they take.
    end: usize,
}

impl Lengths {
    /// Reads at most `most` lengths; `None` where there are more, or they are damaged.
    fn read(bytes: &[u8], most: usize) -> Option<Lengths> {
        let mut at = 0;
        let [block, parts, count] =
            [number(bytes, &mut at)?, number(bytes, &mut at)?, number(bytes, &mut at)?];
        let mut left = usize::try_from(count).ok().filter(|&count| count <= most)?;
        let parts = usize::try_from(parts).ok().filter(|&parts| parts > 0)?;
        // The lengths in each part of a block.
        let each = usize::try_from(block).ok()? / parts;
        if each == 0 || each % 32 != 0 {
            return None;
        }
        let mut last = signed(number(bytes, &mut at)?) as i32;
        let length = |last: i32| u64::try_from(last).unwrap_or(0);
        let mut sum = if left > 0 { length(last) } else { 0 };
        left = left.saturating_sub(1);
        while left > 0 {
            let least = signed(number(bytes, &mut at)?) as i32;
            let widths = bytes.get(at..at.checked_add(parts)?)?;
            at += parts;
            for &width in widths {
                // Parts after the last length are empty, whatever their widths.
                if left == 0 {
                    break;
                }
                let width = usize::from(width);
                let packed = bytes.get(at..at.checked_add(each.checked_mul(width)? / 8)?)?;
                at += packed.len();
                let here = left.min(each);
                for place in 0..here {
                    last = last.wrapping_add(least).wrapping_add(bits(packed, place * width, width)? as i32);
                    sum += length(last);
                }
                left -= here;
            }
        }
        Some(Lengths { sum, end: at })
    }
}

/// The number of `width` bits, at most 32, that starts at bit `at`.
fn bits(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    if width > 32 {
        return None;
    }
    let (start, end) = (at / 8, (at + width).div_ceil(8));
    let whole = bytes.get(start..end)?.iter().rev().fold(0, |whole, &byte| whole << 8 | u64::from(byte));
    Some((whole >> (at % 8)) & ((1 << width) - 1))
}

fn number(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn signed(zigzag: u64) -> i64 {
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}
