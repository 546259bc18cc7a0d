//! The inner loops over rows of values. Lengths are checked once per row.

use super::{Aligned, BLOCK, Vector, each};

/// Splits a row of interleaved pixels into three lines, red, green, blue, of `pitch` values from 0 to 255 each.
///
/// # Panics
/// If `pitch` is not a whole number of blocks or is less than the pixels, or if `lines` is not `3 * pitch` long.
#[inline(always)]
pub(crate) fn widen_row<V: Vector>(source: &[u8], lines: &mut [f32], pitch: usize) {
    let pixels = source.len() / 3;
    assert!(pixels <= pitch && pitch.is_multiple_of(BLOCK) && lines.len() == 3 * pitch);
    let mut x = 0;
    while x < pixels && pixels >= V::LANES {
        // The last vector ends at the last pixel, and repeats some pixels to be whole.
        x = x.min(pixels - V::LANES);
        // SAFETY: `x + V::LANES <= pixels`, and `source` has three bytes for each pixel, each line a value.
        unsafe {
            let mut bytes = [0.0; 3 * BLOCK];
            for part in 0..3 {
                let values = V::load_bytes(source.as_ptr().add(3 * x + part * V::LANES));
                values.store(bytes.as_mut_ptr().add(part * V::LANES));
            }
            let [red, green, blue] = V::load_pixels(bytes.as_ptr());
            red.store(lines.as_mut_ptr().add(x));
            green.store(lines.as_mut_ptr().add(pitch + x));
            blue.store(lines.as_mut_ptr().add(2 * pitch + x));
        }
        x += V::LANES;
    }
    for x in x..pixels {
        for channel in 0..3 {
            lines[channel * pitch + x] = f32::from(source[3 * x + channel]);
        }
    }
}

/// `out[i]` = sum over t of `weights[t] * source[rows[t] + i]`. `out` is a whole number of blocks.
///
/// # Panics
/// If a row ends outside of `source`, `out` is not a whole number of blocks, or rows and weights differ in number.
#[inline(always)]
pub(crate) fn blend_rows<V: Vector>(source: &[f32], rows: &[usize], weights: &[f32], out: &mut [f32]) {
    assert!(out.len().is_multiple_of(BLOCK) && rows.len() == weights.len());
    assert!(rows.iter().all(|row| row + out.len() <= source.len()));
    let mut at = 0;
    // SAFETY: by the assertions, each row has as many values as `out`, which is a whole number of vectors.
    unsafe {
        while at + 2 * V::LANES <= out.len() {
            let (mut a, mut b) = (V::splat(0.0), V::splat(0.0));
            for (&row, &weight) in rows.iter().zip(weights) {
                let (row, weight) = (source.as_ptr().add(row + at), V::splat(weight));
                a = a + weight * V::load(row);
                b = b + weight * V::load(row.add(V::LANES));
            }
            a.store(out.as_mut_ptr().add(at));
            b.store(out.as_mut_ptr().add(at + V::LANES));
            at += 2 * V::LANES;
        }
        if at < out.len() {
            let mut sum = V::splat(0.0);
            for (&row, &weight) in rows.iter().zip(weights) {
                sum = sum + V::splat(weight) * V::load(source.as_ptr().add(row + at));
            }
            sum.store(out.as_mut_ptr().add(at));
        }
    }
}

/// The taps of a row of outputs, laid out so that a vector of outputs is computed together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Columns {
    /// The number of taps of each output: the most that any output needs.
    taps: usize,
    /// The number of outputs, a whole number of blocks.
    outputs: usize,
    /// Weights, shape (taps, outputs); 0 where an output needs fewer.
    weights: Aligned,
    /// For each block of outputs: the lowest first source value among them.
    bases: Vec<u32>,
    /// For each output: its first source value, relative to that of its block.
    offsets: Vec<u32>,
    /// More than the largest offset.
    reach: usize,
    /// The number of source values that are read, including those that only fill vectors.
    extent: usize,
}

impl Columns {
    /// Lays out the taps of `size` outputs, at least 1: `taps_of` returns the first source value of an output and its
    /// weights. Outputs beyond `size`, which complete the last block, repeat the last output.
    pub fn prepare<'a>(&mut self, size: usize, taps_of: impl Fn(usize) -> (usize, &'a [f32])) {
        let of = |out: usize| taps_of(out.min(size - 1));
        self.taps = (0..size).map(|out| of(out).1.len()).max().unwrap_or(0);
        self.outputs = super::round_up(size);
        self.weights.resize(self.taps * self.outputs);
        self.weights.fill(0.0);
        self.offsets.clear();
        self.bases.clear();
        (self.reach, self.extent) = (0, 0);
        for block in (0..self.outputs).step_by(BLOCK) {
            let base = (block..block + BLOCK).map(|out| of(out).0).min().unwrap_or(0);
            self.bases.push(base as u32);
            self.extent = self.extent.max(base);
            for out in block..block + BLOCK {
                let (first, weights) = of(out);
                self.offsets.push((first - base) as u32);
                self.reach = self.reach.max(first - base + 1);
                for (tap, &weight) in weights.iter().enumerate() {
                    self.weights[tap * self.outputs + out] = weight;
                }
            }
        }
        self.extent += self.taps + self.reach.max(2 * BLOCK);
    }

    /// The length that a line of source values must have.
    pub fn extent(&self) -> usize {
        self.extent
    }
}

/// `outs[c][x]`, clipped to [0, 1], = sum over t of `weights[t][x] * lines[c * pitch + base + offset[x] + t]`.
///
/// # Panics
/// If a slice is too short.
#[inline(always)]
pub(crate) fn blend_columns<V: Vector>(
    lines: &[f32],
    pitch: usize,
    columns: &Columns,
    outs: [&mut [f32]; 3],
) {
    let Columns { taps, outputs, weights, bases, offsets, reach, extent } = columns;
    let (taps, outputs, reach) = (*taps, *outputs, *reach);
    assert!(bases.len() * BLOCK == outputs && offsets.len() == outputs && weights.len() == taps * outputs);
    assert!(2 * pitch + extent <= lines.len());
    assert!(outs.iter().all(|out| outputs <= out.len()));
    let outs = each!(outs, out => out.as_mut_ptr());
    let lines = [lines, &lines[pitch..], &lines[2 * pitch..]];
    let lines = each!(lines, line => line.as_ptr());
    for x in (0..outputs).step_by(V::LANES) {
        // SAFETY: by the assertions: there are as many offsets and weights (for each tap) as outputs, and outputs
        // are whole blocks, hence whole vectors; there is a base for each block; from any base and tap on, the lines
        // have two vectors of values and `reach` values, and `prepare` made `reach` more than any offset.
        unsafe {
            let base = *bases.get_unchecked(x / BLOCK) as usize;
            let index = V::index(offsets.as_ptr().add(x));
            let mut sums = [V::splat(0.0); 3];
            let mut weights = weights.as_ptr().add(x);
            for at in base..base + taps {
                let weight = V::load(weights);
                let values = if reach <= V::LANES {
                    each!(lines, line => V::lookup(line.add(at), index))
                } else if reach <= 2 * V::LANES {
                    each!(lines, line => V::lookup_wide(line.add(at), index))
                } else {
                    each!(lines, line => V::gather(line.add(at), index))
                };
                sums = [
                    sums[0] + weight * values[0],
                    sums[1] + weight * values[1],
                    sums[2] + weight * values[2],
                ];
                weights = weights.add(outputs);
            }
            let [red, green, blue] = each!(sums, sum => sum.clip());
            red.store(outs[0].add(x));
            green.store(outs[1].add(x));
            blue.store(outs[2].add(x));
        }
    }
}

/// `out[x]` = `kernel[0] * line[r + x]` + sum over t of `kernel[t] * (line[r + x - t] + line[r + x + t])`, where r
/// is the radius of the kernel. `out` is a whole number of blocks.
///
/// # Panics
/// If a slice is too short.
#[inline(always)]
pub(crate) fn convolve_row<V: Vector>(line: &[f32], kernel: &[f32], out: &mut [f32]) {
    let radius = kernel.len() - 1;
    assert!(out.len().is_multiple_of(BLOCK) && out.len() + 2 * radius <= line.len());
    let mut x = 0;
    // SAFETY: `out` is a whole number of vectors; every value read is at most `radius` away from the centre
    // `x + radius` of an output `x`, hence from 0 to below `out.len() + 2 * radius`, which `line` has by the assertion.
    unsafe {
        while x + 2 * V::LANES <= out.len() {
            let (near, far) = (line.as_ptr().add(x + radius), line.as_ptr().add(x + radius + V::LANES));
            let weight = V::splat(kernel[0]);
            let (mut a, mut b) = (weight * V::load(near), weight * V::load(far));
            for (t, &weight) in kernel.iter().enumerate().skip(1) {
                let weight = V::splat(weight);
                a = a + weight * (V::load(near.sub(t)) + V::load(near.add(t)));
                b = b + weight * (V::load(far.sub(t)) + V::load(far.add(t)));
            }
            a.store(out.as_mut_ptr().add(x));
            b.store(out.as_mut_ptr().add(x + V::LANES));
            x += 2 * V::LANES;
        }
        if x < out.len() {
            let center = line.as_ptr().add(x + radius);
            let mut sum = V::splat(kernel[0]) * V::load(center);
            for (t, &weight) in kernel.iter().enumerate().skip(1) {
                sum = sum + V::splat(weight) * (V::load(center.sub(t)) + V::load(center.add(t)));
            }
            sum.store(out.as_mut_ptr().add(x));
        }
    }
}

/// Does what `convolve_row` does, across rows: `outs[c][x]`, clipped to [0, 1], from the rows of `ring` that begin at
/// `rows[r - t]` and `rows[r + t]`, r being the radius of the kernel. A row holds `pitch` values for each channel, a
/// whole number of blocks.
///
/// # Panics
/// If a slice is too short.
#[inline(always)]
pub(crate) fn convolve_rows<V: Vector>(
    ring: &[f32],
    rows: &[usize],
    pitch: usize,
    kernel: &[f32],
    outs: [&mut [f32]; 3],
) {
    let radius = kernel.len() - 1;
    assert!(rows.len() == 2 * radius + 1 && pitch.is_multiple_of(BLOCK));
    assert!(
        rows.iter().all(|row| row + 3 * pitch <= ring.len()) && outs.iter().all(|out| pitch <= out.len())
    );
    let outs = each!(outs, out => out.as_mut_ptr());
    for x in (0..pitch).step_by(V::LANES) {
        // SAFETY: `pitch` is a whole number of vectors, so that every read of a row lies within its `3 * pitch` values;
        // by the assertion, the ring has all of these, and the outputs have room for `pitch`; `t` is at most `radius`,
        // so that both indices are within `rows`.
        unsafe {
            let places =
                [ring.as_ptr().add(x), ring.as_ptr().add(pitch + x), ring.as_ptr().add(2 * pitch + x)];
            let (weight, center) = (V::splat(kernel[0]), rows[radius]);
            let mut sums = each!(places, place => weight * V::load(place.add(center)));
            for (t, &weight) in kernel.iter().enumerate().skip(1) {
                let weight = V::splat(weight);
                let (before, after) = (*rows.get_unchecked(radius - t), *rows.get_unchecked(radius + t));
                let sides = each!(places, place => V::load(place.add(before)) + V::load(place.add(after)));
                sums =
                    [sums[0] + weight * sides[0], sums[1] + weight * sides[1], sums[2] + weight * sides[2]];
            }
            let [red, green, blue] = each!(sums, sum => sum.clip());
            red.store(outs[0].add(x));
            green.store(outs[1].add(x));
            blue.store(outs[2].add(x));
        }
    }
}

/// Rounds a row of `side` pixels to interleaved bytes: red, green, blue.
///
/// # Panics
/// If a row is shorter than `side` rounded up to whole blocks, or `out` is shorter than `3 * side`.
#[inline(always)]
pub(crate) fn quantize_row<V: Vector>(rows: [&[f32]; 3], out: &mut [u8], side: usize) {
    let padded = super::round_up(side);
    assert!(rows.iter().all(|row| padded <= row.len()) && 3 * side <= out.len());
    for x in (0..side).step_by(V::LANES) {
        // SAFETY: a vector that begins below `side` ends below `padded`, which the rows reach.
        let pixels = unsafe { each!(rows, row => V::load(row.as_ptr().add(x))) };
        if x + V::LANES <= side {
            // SAFETY: `3 * side` bytes can be written by the assertion, and the vector ends below `side`.
            unsafe { V::store_pixels(pixels, out.as_mut_ptr().add(3 * x)) }
        } else {
            let mut bytes = [0; 3 * BLOCK];
            // SAFETY: the array holds the pixels of a whole block.
            unsafe { V::store_pixels(pixels, bytes.as_mut_ptr()) }
            let length = 3 * (side - x);
            out[3 * x..][..length].copy_from_slice(&bytes[..length]);
        }
    }
}

/// An operation on the pixels of a vector.
pub(crate) trait PixelMap: Copy {
    /// Returns the new values of `pixels`.
    fn map<V: Vector>(self, pixels: [V; 3]) -> [V; 3];
}

/// Applies `map` to rows of a whole number of blocks.
///
/// # Panics
/// If the rows differ in length or are not a whole number of blocks.
#[inline(always)]
pub(crate) fn map_row<V: Vector>(rows: [&mut [f32]; 3], map: impl PixelMap) {
    let length = rows[0].len();
    assert!(length.is_multiple_of(BLOCK) && rows[1].len() == length && rows[2].len() == length);
    let rows = each!(rows, row => row.as_mut_ptr());
    for x in (0..length).step_by(V::LANES) {
        // SAFETY: the rows are a whole number of vectors, `length` values each, by the assertion.
        unsafe {
            let [red, green, blue] = map.map(each!(rows, row => V::load(row.add(x))));
            red.store(rows[0].add(x));
            green.store(rows[1].add(x));
            blue.store(rows[2].add(x));
        }
    }
}

/// Adds the sum over channels of `weights[c] * rows[c][x]` to `sums[x % BLOCK]`, times `mask` in the last block:
/// the same partial sums whatever the width of the vectors.
///
/// # Panics
/// If the rows differ in length or are not a whole number of blocks.
#[inline(always)]
pub(crate) fn sum_row<V: Vector>(
    rows: [&[f32]; 3],
    weights: [f32; 3],
    mask: &[f32; BLOCK],
    sums: &mut [f32; BLOCK],
) {
    let length = rows[0].len();
    assert!(length.is_multiple_of(BLOCK) && rows[1].len() == length && rows[2].len() == length);
    let weights = each!(weights, weight => V::splat(weight));
    for lane in (0..BLOCK).step_by(V::LANES) {
        // SAFETY: the rows are a whole number of blocks, `length` values each, by the assertion; `mask`
        // and `sums` are one block, a whole number of vectors, so that a vector that begins at `lane` ends within it.
        unsafe {
            let mut total = V::load(sums.as_ptr().add(lane));
            for x in (lane..length).step_by(BLOCK) {
                let [red, green, blue] = each!(rows, row => V::load(row.as_ptr().add(x)));
                let sum = weights[0] * red + weights[1] * green + weights[2] * blue;
                let last = x + BLOCK >= length;
                total = total + if last { sum * V::load(mask.as_ptr().add(lane)) } else { sum };
            }
            total.store(sums.as_mut_ptr().add(lane));
        }
    }
}
