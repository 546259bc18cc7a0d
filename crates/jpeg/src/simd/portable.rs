//! The specification of the functions of this module, in plain Rust.

use crate::block::Coefficients;

/// Fraction bits of the transform's constants.
const CONST_BITS: u32 = 13;
/// Fraction bits of the values between its passes.
const PASS1_BITS: u32 = 2;

pub(super) fn inverse_dct(blocks: [&Coefficients; 2], steps: [&[i16; 64]; 2], out: &mut [[u8; 64]; 2]) {
    for ((block, steps), out) in blocks.into_iter().zip(steps).zip(out) {
        let mut work = [0i16; 64];
        for (value, (&coefficient, &step)) in work.iter_mut().zip(block.iter().zip(steps)) {
            *value = coefficient.wrapping_mul(step);
        }
        for x in 0..8 {
            let column = pass::<{ CONST_BITS - PASS1_BITS }>(std::array::from_fn(|y| work[8 * y + x]));
            for (y, value) in column.into_iter().enumerate() {
                work[8 * y + x] = value;
            }
        }
        for (row, out) in work.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<8>().0) {
            *out = pass::<{ CONST_BITS + PASS1_BITS + 3 }>(*row)
                .map(|value| (value.clamp(-128, 127) + 128) as u8);
        }
    }
}

/// One pass over eight values: the algorithm of Loeffler, Ligtenberg and Moschytz, rounded and scaled down by 2^SHIFT.
fn pass<const SHIFT: u32>(v: [i16; 8]) -> [i16; 8] {
    let wide = |value: i16| i32::from(value);
    // Even part.
    let t2 = wide(v[2]) * 4433 + wide(v[6]) * -10704;
    let t3 = wide(v[2]) * 10703 + wide(v[6]) * 4433;
    let t0 = wide(v[0].wrapping_add(v[4])) << CONST_BITS;
    let t1 = wide(v[0].wrapping_sub(v[4])) << CONST_BITS;
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];
    // Odd part.
    let (z3, z4) = (wide(v[3].wrapping_add(v[7])), wide(v[1].wrapping_add(v[5])));
    let (z3, z4) = (z3 * -6436 + z4 * 9633, z3 * 9633 + z4 * 6437);
    let odd = [
        wide(v[7]) * -7373 + wide(v[1]) * 4926 + z4,
        wide(v[5]) * -20995 + wide(v[3]) * 4177 + z3,
        wide(v[5]) * -4176 + wide(v[3]) * -20995 + z4,
        wide(v[7]) * -4927 + wide(v[1]) * -7373 + z3,
    ];
    let scale = |value: i32| {
        (value.wrapping_add(1 << (SHIFT - 1)) >> SHIFT).clamp(i16::MIN.into(), i16::MAX.into()) as i16
    };
    std::array::from_fn(|i| match i {
        0..4 => scale(even[i].wrapping_add(odd[i])),
        _ => scale(even[7 - i].wrapping_sub(odd[7 - i])),
    })
}

#[inline(always)]
pub(super) fn upsample_across(row: &[u8], out: &mut [u8]) {
    let out = out.as_chunks_mut::<2>().0;
    let row = &row[..out.len() + 2];
    for (i, out) in out.iter_mut().enumerate() {
        let (before, here, after) = (u16::from(row[i]), u16::from(row[i + 1]), u16::from(row[i + 2]));
        *out = [((3 * here + before + 1) >> 2) as u8, ((3 * here + after + 2) >> 2) as u8];
    }
}

#[inline(always)]
pub(super) fn upsample_both(near: &[u8], far: &[u8], out: &mut [u8]) {
    let out = out.as_chunks_mut::<2>().0;
    let (near, far) = (&near[..out.len() + 2], &far[..out.len() + 2]);
    for (i, out) in out.iter_mut().enumerate() {
        let sum = |at: usize| 3 * u16::from(near[at]) + u16::from(far[at]);
        let (before, here, after) = (sum(i), sum(i + 1), sum(i + 2));
        *out = [((3 * here + before + 8) >> 4) as u8, ((3 * here + after + 7) >> 4) as u8];
    }
}

#[inline(always)]
pub(super) fn upsample_down(near: &[u8], far: &[u8], bias: u16, out: &mut [u8]) {
    for (out, (&near, &far)) in out.iter_mut().zip(near.iter().zip(far)) {
        *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
    }
}

pub(super) fn repeat_across(row: &[u8], out: &mut [u8]) {
    for (out, &sample) in out.as_chunks_mut::<2>().0.iter_mut().zip(row) {
        *out = [sample; 2];
    }
}

pub(super) fn to_rgb(luma: &[u8], cb: &[u8], cr: &[u8], count: usize, out: &mut [u8]) {
    let out = &mut out.as_chunks_mut::<3>().0[..count];
    for (out, (&y, (&cb, &cr))) in out.iter_mut().zip(luma.iter().zip(cb.iter().zip(cr))) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        // 1.402, -0.34414, -0.71414 and 1.772 with 16 fraction bits.
        let red = y + ((91_881 * cr + 32_768) >> 16);
        let green = y + ((-22_554 * cb - 46_802 * cr + 32_768) >> 16);
        let blue = y + ((116_130 * cb + 32_768) >> 16);
        *out = [red, green, blue].map(|value| value.clamp(0, 255) as u8);
    }
}
