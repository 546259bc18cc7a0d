//! Packs weights as tiles: rows are units, two neighbouring input channels each, columns 16 output channels.

use super::super::class::{Class, PerTap, Tap};
use super::super::pack::Source;
use super::super::tile::Run;
use crate::Cpu;
use crate::scratch::{self, Scratch};
use crate::simd::amx::{Amx, SIDE, transpose};
use crate::simd::first_lanes;
use smallvec::SmallVec;
use std::arch::x86_64::*;

/// How many input channels to prefetch ahead of packing them.
const AHEAD: usize = 16;
/// Values of a tile.
pub const TILE: usize = SIDE * SIDE;

/// What a place reads: one [`Run`] for each row of taps that are neighbours.
pub type Runs = SmallVec<[Run; 49]>;

/// Packed weights: blocks of 16 output channels, each a list of tiles.
pub struct Weights {
    values: Scratch<f32>,
    block: usize,
}

/// The order of a block's tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Those of each run, without regard to where its taps end; the last is padded with zeros.
    Runs,
    /// For each row of `taps` neighbouring taps, and each 32 input channels of all, those of the taps.
    Rows { taps: usize },
}

impl Weights {
    /// Packs the weights of a class's taps in an order. That of rows wants all rows of the same number of taps, and
    /// whole tiles of input channels.
    pub fn new(cpu: &Cpu, _: Amx, class: &Class, source: Source, order: Order) -> Weights {
        let inputs = class.from.channels;
        let units = inputs.div_ceil(2);
        // Of the runs, whose offsets are those of pixels elsewhere, only the lengths count here.
        let offsets: PerTap<usize> = class.taps.iter().map(|tap| tap.offset).collect();
        let runs = runs(&class.taps, units, &offsets);
        let block = runs.iter().map(|run| tiles(run) * TILE).sum();
        let mut values = scratch::take(class.to.channels.div_ceil(SIDE) * block);
        cpu.threads.run_chunks(&mut values, block, |o, mut to| {
            let first = o * SIDE;
            let channels = (class.to.channels - first).min(SIDE);
            // Packs `inputs` input channels of a tap from `input` on.
            let pack = |offset: usize, input: usize, inputs: usize, to: &mut [f32]| {
                let from = offset + first * source.stride_out + input * source.stride_in;
                // SAFETY: the level of `Amx` includes AVX-512 with AVX512_BF16.
                unsafe {
                    if source.stride_out == 1 {
                        paired(&source.weights[from..], source.stride_in, channels, inputs, to);
                    } else {
                        assert_eq!(source.stride_in, 1, "weights are contiguous in some channels");
                        transposed(&source.weights[from..], source.stride_out, channels, inputs, to);
                    }
                }
            };
            if let Order::Rows { taps } = order {
                let rows = offsets.chunks_exact(taps).zip(to.chunks_exact_mut(taps * units * SIDE));
                for (offsets, to) in rows {
                    for (index, to) in to.chunks_exact_mut(TILE).enumerate() {
                        pack(offsets[index % taps], index / taps * 2 * SIDE, 2 * SIDE, to);
                    }
                }
                return;
            }
            let mut offsets = offsets.iter();
            for run in &runs {
                let (run_to, rest) = std::mem::take(&mut to).split_at_mut(tiles(run) * TILE);
                let (known, beyond) = run_to.split_at_mut(run.len * SIDE);
                beyond.fill(0.0);
                for (to, &offset) in known.chunks_exact_mut(units * SIDE).zip(&mut offsets) {
                    pack(offset, 0, inputs, to);
                }
                to = rest;
            }
        });
        Weights { values, block }
    }

    /// The number of blocks.
    pub fn blocks(&self) -> usize {
        self.values.len() / self.block
    }

    /// The number of values in a block.
    pub fn block_len(&self) -> usize {
        self.block
    }

    /// The values from block `o` on.
    pub fn from(&self, o: usize) -> &[f32] {
        &self.values[o * self.block..]
    }
}

/// What a place reads of pixels of `units` units: a run for each row of taps that are neighbours, from the taps'
/// `offsets` on.
pub fn runs(taps: &[Tap], units: usize, offsets: &[usize]) -> Runs {
    let mut runs = Runs::new();
    let mut before: Option<&Tap> = None;
    for (tap, &offset) in taps.iter().zip(offsets) {
        let joined = before.is_some_and(|before| (before.row, before.column + 1) == (tap.row, tap.column));
        match runs.last_mut() {
            Some(last) if joined => last.len += units,
            _ => runs.push(Run { offset, len: units }),
        }
        before = Some(tap);
    }
    runs
}

/// The tiles of a run.
pub fn tiles(run: &Run) -> usize {
    run.len.div_ceil(SIDE)
}

/// Packs weights whose output channels are contiguous, in one row per input channel, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn paired(from: &[f32], stride: usize, channels: usize, inputs: usize, to: &mut [f32]) {
    let mask = first_lanes(channels);
    let row = |input: usize| {
        if input >= inputs {
            return _mm512_setzero_ps();
        }
        let row = &from[input * stride..][..channels];
        // Rows far apart are too much for the hardware's own prefetching.
        _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(AHEAD * stride).cast());
        // SAFETY: the mask lets through as many numbers as the row has.
        unsafe { _mm512_maskz_loadu_ps(mask, row.as_ptr()) }
    };
    // From the first input channel's 16 values and the second's to pairs.
    let order: [u16; 2 * SIDE] = std::array::from_fn(|i| (i / 2 + i % 2 * SIDE) as u16);
    // SAFETY: the array has 32 numbers of 16 bits.
    let order = unsafe { _mm512_loadu_epi16(order.as_ptr().cast()) };
    for (unit, to) in to.as_chunks_mut::<SIDE>().0.iter_mut().enumerate() {
        // SAFETY: AVX512_BF16 is enabled; any bits make a vector of either type; `to` has 16 numbers.
        unsafe {
            let both = _mm512_cvtne2ps_pbh(row(2 * unit + 1), row(2 * unit));
            let pairs = _mm512_permutexvar_epi16(order, std::mem::transmute::<__m512bh, __m512i>(both));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        }
    }
}

/// Packs and transposes weights whose input channels are contiguous, in one row per output channel, `stride` apart.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn transposed(from: &[f32], stride: usize, channels: usize, inputs: usize, to: &mut [f32]) {
    for (begin, to) in (0..inputs).step_by(2 * SIDE).zip(to.chunks_mut(SIDE * SIDE)) {
        let known = (inputs - begin).min(2 * SIDE);
        let (low, high) = (first_lanes(known.min(SIDE)), first_lanes(known.saturating_sub(SIDE)));
        let mut rows = [_mm512_setzero_ps(); SIDE];
        for (o, units) in rows.iter_mut().take(channels).enumerate() {
            let row = &from[o * stride + begin..][..known];
            // SAFETY: the masks let through as many numbers as the row has; AVX512_BF16 is enabled.
            unsafe {
                let low = _mm512_maskz_loadu_ps(low, row.as_ptr());
                let high = _mm512_maskz_loadu_ps(high, row.as_ptr().wrapping_add(SIDE));
                *units = std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
            }
        }
        // SAFETY: AVX-512 F is enabled.
        let units = unsafe { transpose(rows) };
        for (to, unit) in to.as_chunks_mut::<SIDE>().0.iter_mut().zip(units) {
            // SAFETY: `to` has 16 numbers.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), unit) };
        }
    }
}
