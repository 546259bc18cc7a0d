//! The functions of `portable` with AVX2. Blocks are transformed in pairs, one in each half of a register.

use std::arch::x86_64::*;

use super::portable;
use crate::block::Coefficients;

/// Loads eight 16-bit values of each of two blocks.
#[inline]
#[target_feature(enable = "avx2")]
fn load_pair(low: &[i16; 8], high: &[i16; 8]) -> __m256i {
    // SAFETY: each points to sixteen bytes; no alignment is needed.
    unsafe { _mm256_loadu2_m128i(high.as_ptr().cast(), low.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_pair(value: __m256i, low: &mut [u8; 16], high: &mut [u8; 16]) {
    // SAFETY: each points to sixteen bytes; no alignment is needed.
    unsafe { _mm256_storeu2_m128i(high.as_mut_ptr().cast(), low.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: `bytes` points to 32 bytes; no alignment is needed.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
pub(super) fn inverse_dct(blocks: [&Coefficients; 2], steps: [&[i16; 64]; 2], out: &mut [[u8; 64]; 2]) {
    let [a, b] = blocks.map(|block| block.as_chunks::<8>().0);
    let [p, q] = steps.map(|steps| steps.as_chunks::<8>().0);
    let mut rows = [_mm256_setzero_si256(); 8];
    for (y, row) in rows.iter_mut().enumerate() {
        *row = _mm256_mullo_epi16(load_pair(&a[y], &b[y]), load_pair(&p[y], &q[y]));
    }
    let columns = transpose(pass::<11>(rows));
    let columns = pass::<18>(columns);
    // Back to rows of bytes: joins columns in pairs, in fours, in eights.
    let side_by_side =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    let pairs = |x: usize| _mm256_shuffle_epi8(_mm256_packs_epi16(columns[x], columns[x + 1]), side_by_side);
    let (c01, c23, c45, c67) = (pairs(0), pairs(2), pairs(4), pairs(6));
    let (low_left, high_left) = (_mm256_unpacklo_epi16(c01, c23), _mm256_unpackhi_epi16(c01, c23));
    let (low_right, high_right) = (_mm256_unpacklo_epi16(c45, c67), _mm256_unpackhi_epi16(c45, c67));
    let rows = [
        _mm256_unpacklo_epi32(low_left, low_right),
        _mm256_unpackhi_epi32(low_left, low_right),
        _mm256_unpacklo_epi32(high_left, high_right),
        _mm256_unpackhi_epi32(high_left, high_right),
    ];
    let [a, b] = out;
    let outs = a.as_chunks_mut::<16>().0.iter_mut().zip(b.as_chunks_mut::<16>().0);
    for (row, (a, b)) in rows.into_iter().zip(outs) {
        // From -128..=127 to 0..=255.
        store_pair(_mm256_xor_si256(row, _mm256_set1_epi8(-128)), a, b);
    }
}

/// Transposes eight rows of each block to eight columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(v: [__m256i; 8]) -> [__m256i; 8] {
    let lo16 = |a, b| _mm256_unpacklo_epi16(a, b);
    let hi16 = |a, b| _mm256_unpackhi_epi16(a, b);
    let lo32 = |a, b| _mm256_unpacklo_epi32(a, b);
    let hi32 = |a, b| _mm256_unpackhi_epi32(a, b);
    let (a0, a1) = (lo16(v[0], v[1]), hi16(v[0], v[1]));
    let (b0, b1) = (lo16(v[2], v[3]), hi16(v[2], v[3]));
    let (c0, c1) = (lo16(v[4], v[5]), hi16(v[4], v[5]));
    let (d0, d1) = (lo16(v[6], v[7]), hi16(v[6], v[7]));
    let upper = [lo32(a0, b0), hi32(a0, b0), lo32(a1, b1), hi32(a1, b1)];
    let lower = [lo32(c0, d0), hi32(c0, d0), lo32(c1, d1), hi32(c1, d1)];
    let mut out = [_mm256_setzero_si256(); 8];
    for (i, pair) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *pair = [_mm256_unpacklo_epi64(upper[i], lower[i]), _mm256_unpackhi_epi64(upper[i], lower[i])];
    }
    out
}

/// One pass over the eight values in each lane: see `portable`.
#[inline]
#[target_feature(enable = "avx2")]
fn pass<const SHIFT: i32>(v: [__m256i; 8]) -> [__m256i; 8] {
    let (sum, difference) = (_mm256_add_epi16(v[0], v[4]), _mm256_sub_epi16(v[0], v[4]));
    let (z3, z4) = (_mm256_add_epi16(v[3], v[7]), _mm256_add_epi16(v[1], v[5]));
    let zero = _mm256_setzero_si256();
    let low = half::<SHIFT>(
        _mm256_unpacklo_epi16(zero, sum),
        _mm256_unpacklo_epi16(zero, difference),
        _mm256_unpacklo_epi16(v[2], v[6]),
        _mm256_unpacklo_epi16(v[7], v[1]),
        _mm256_unpacklo_epi16(v[5], v[3]),
        _mm256_unpacklo_epi16(z3, z4),
    );
    let high = half::<SHIFT>(
        _mm256_unpackhi_epi16(zero, sum),
        _mm256_unpackhi_epi16(zero, difference),
        _mm256_unpackhi_epi16(v[2], v[6]),
        _mm256_unpackhi_epi16(v[7], v[1]),
        _mm256_unpackhi_epi16(v[5], v[3]),
        _mm256_unpackhi_epi16(z3, z4),
    );
    let mut out = low;
    for (out, high) in out.iter_mut().zip(high) {
        *out = _mm256_packs_epi32(*out, high);
    }
    out
}

/// A pass over the lower or the upper four lanes of each block, in 32 bits. Sum and difference of values 0 and 4 are
/// scaled by 2^16, the others interleaved in pairs.
#[inline]
#[target_feature(enable = "avx2")]
fn half<const SHIFT: i32>(
    sum: __m256i,
    difference: __m256i,
    v26: __m256i,
    v71: __m256i,
    v53: __m256i,
    z34: __m256i,
) -> [__m256i; 8] {
    // a x the first + b x the second.
    let both = |v, a: i16, b: i16| {
        _mm256_madd_epi16(v, _mm256_set1_epi32((i32::from(b) << 16) | i32::from(a as u16)))
    };
    let add = |a, b| _mm256_add_epi32(a, b);
    let subtract = |a, b| _mm256_sub_epi32(a, b);
    let (t0, t1) = (_mm256_srai_epi32::<3>(sum), _mm256_srai_epi32::<3>(difference));
    let (t2, t3) = (both(v26, 4433, -10704), both(v26, 10703, 4433));
    let even = [add(t0, t3), add(t1, t2), subtract(t1, t2), subtract(t0, t3)];
    let (z3, z4) = (both(z34, -6436, 9633), both(z34, 9633, 6437));
    let odd = [
        add(both(v71, -7373, 4926), z4),
        add(both(v53, -20995, 4177), z3),
        add(both(v53, -4176, -20995), z4),
        add(both(v71, -4927, -7373), z3),
    ];
    let rounding = _mm256_set1_epi32(1 << (SHIFT - 1));
    let mut out = [rounding; 8];
    for i in 0..4 {
        let even = add(even[i], rounding);
        out[i] = _mm256_srai_epi32::<SHIFT>(add(even, odd[i]));
        out[7 - i] = _mm256_srai_epi32::<SHIFT>(subtract(even, odd[i]));
    }
    out
}

#[target_feature(enable = "avx2")]
pub(super) fn upsample_across(row: &[u8], out: &mut [u8]) {
    portable::upsample_across(row, out);
}

#[target_feature(enable = "avx2")]
pub(super) fn upsample_both(near: &[u8], far: &[u8], out: &mut [u8]) {
    portable::upsample_both(near, far, out);
}

#[target_feature(enable = "avx2")]
pub(super) fn upsample_down(near: &[u8], far: &[u8], bias: u16, out: &mut [u8]) {
    portable::upsample_down(near, far, bias, out);
}

#[target_feature(enable = "avx2")]
pub(super) fn to_rgb(luma: &[u8], cb: &[u8], cr: &[u8], count: usize, out: &mut [u8]) {
    let vectors = |row| <[u8]>::as_chunks::<32>(row).0;
    let rows = vectors(luma).iter().zip(vectors(cb).iter().zip(vectors(cr)));
    for (start, (y, (cb, cr))) in (0..count).step_by(32).zip(rows) {
        let pixels = pixels(load(y), load(cb), load(cr));
        let out = &mut out[3 * start..];
        match out.first_chunk_mut::<96>() {
            Some(out) => store_pixels(pixels, out),
            // The last pixels of the image.
            None => {
                let mut all = [0; 96];
                store_pixels(pixels, &mut all);
                let left = 3 * (count - start);
                out[..left].copy_from_slice(&all[..left]);
            }
        }
    }
}

/// Red, green and blue of 32 pixels.
#[inline]
#[target_feature(enable = "avx2")]
fn pixels(luma: __m256i, cb: __m256i, cr: __m256i) -> [__m256i; 3] {
    let wide = |bytes: __m256i| {
        [
            _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes)),
            _mm256_cvtepu8_epi16(_mm256_extracti128_si256::<1>(bytes)),
        ]
    };
    let (luma, cb, cr) = (wide(luma), wide(cb), wide(cr));
    let low = sixteen(luma[0], cb[0], cr[0]);
    let high = sixteen(luma[1], cb[1], cr[1]);
    let mut out = low;
    for (out, high) in out.iter_mut().zip(high) {
        *out = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(*out, high));
    }
    out
}

/// Red, green and blue of sixteen pixels in 16 bits, not yet clamped to 0 to 255.
#[inline]
#[target_feature(enable = "avx2")]
fn sixteen(luma: __m256i, cb: __m256i, cr: __m256i) -> [__m256i; 3] {
    let middle = _mm256_set1_epi16(128);
    let (cb, cr) = (_mm256_sub_epi16(cb, middle), _mm256_sub_epi16(cr, middle));
    let (cb2, cr2) = (_mm256_add_epi16(cb, cb), _mm256_add_epi16(cr, cr));
    // factor x value / 2^16, rounded, computed from twice the value.
    let scaled = |twice, factor| {
        let high = _mm256_mulhi_epi16(twice, _mm256_set1_epi16(factor));
        _mm256_srai_epi16::<1>(_mm256_add_epi16(high, _mm256_set1_epi16(1)))
    };
    // 91881 = 65536 + 26345 and 116130 = 2 x 65536 - 14942.
    let red = _mm256_add_epi16(scaled(cr2, 26_345), cr);
    let blue = _mm256_add_epi16(scaled(cb2, -14_942), cb2);
    // -46802 = 18734 - 65536.
    let factors = _mm256_set1_epi32((18_734 << 16) | i32::from(-22_554i16 as u16));
    let green = |pairs| {
        let sum = _mm256_add_epi32(_mm256_madd_epi16(pairs, factors), _mm256_set1_epi32(32_768));
        _mm256_srai_epi32::<16>(sum)
    };
    let green =
        _mm256_packs_epi32(green(_mm256_unpacklo_epi16(cb, cr)), green(_mm256_unpackhi_epi16(cb, cr)));
    let green = _mm256_sub_epi16(green, cr);
    [red, green, blue].map(|color| _mm256_add_epi16(luma, color))
}

/// Shuffles of sixteen values of each colour to the three vectors of sixteen pixels: byte 3 i + colour takes value i,
/// and -1 clears the other bytes.
const PLACES: [[[i8; 16]; 3]; 3] = {
    let mut places = [[[-1; 16]; 3]; 3];
    let mut at = 0;
    while at < 48 {
        places[at % 3][at / 16][at % 16] = (at / 3) as i8;
        at += 1;
    }
    places
};

#[inline]
#[target_feature(enable = "avx2")]
fn store_pixels(colors: [__m256i; 3], out: &mut [u8; 96]) {
    let (low, high) = out.as_chunks_mut::<16>().0.split_at_mut(3);
    for (third, (low, high)) in low.iter_mut().zip(high).enumerate() {
        let mut all = _mm256_setzero_si256();
        for (color, places) in colors.into_iter().zip(&PLACES) {
            // SAFETY: `places[third]` is sixteen bytes; no alignment is needed.
            let places = unsafe { _mm_loadu_si128(places[third].as_ptr().cast()) };
            let placed = _mm256_shuffle_epi8(color, _mm256_broadcastsi128_si256(places));
            all = _mm256_or_si256(all, placed);
        }
        store_pair(all, low, high);
    }
}
