//! Packs weights in the order in which the tiles read them, rounded to bf16 if activations are bf16.

use super::tile::Run;
use crate::{Cpu, Element};
use smallvec::SmallVec;

/// The weights to pack: element (tap, i, o) is `w[tap.offset + i * stride_in + o * stride_out]`.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub weights: &'a [f32],
    pub stride_in: usize,
    pub stride_out: usize,
}

/// The order of packed weights: blocks of output channels; in each, blocks of units of input channels; in each, taps,
/// units, and the block's output channels, padded with zeros to whole vectors. A unit is one input channel in f32, two
/// in bf16.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// Output channels.
    pub outer: usize,
    /// Output channels in a block (the last may have fewer), as many as the widest tile has.
    pub outer_block: usize,
    /// Units of input channels.
    pub inner: usize,
    /// Units in a block (the last may have fewer).
    pub inner_block: usize,
    /// Taps.
    pub taps: usize,
    /// Numbers in a vector.
    pub lanes: usize,
}

/// The most bytes of packed weights in a block: they stay in the second-level cache while all pixels pass by.
const BLOCK_BYTES: usize = 320 << 10;

impl Packing {
    pub fn new(outer: usize, inner: usize, taps: usize, lanes: usize, max_vectors: usize) -> Packing {
        let outer_block = max_vectors * lanes;
        let width = outer_block.min(outer.next_multiple_of(lanes));
        let fitting = (BLOCK_BYTES / 4 / (taps.max(1) * width)).max(16);
        let blocks = inner.div_ceil(fitting);
        // Blocks of about equal size, of whole cache lines if there are several.
        let inner_block = match blocks {
            1 => inner,
            _ => inner.div_ceil(blocks).next_multiple_of(16),
        };
        Packing { outer, outer_block, inner, inner_block, taps, lanes }
    }

    /// Like [`Packing::new`], but with all units in one block.
    pub fn whole(outer: usize, inner: usize, taps: usize, lanes: usize, max_vectors: usize) -> Packing {
        Packing { outer, outer_block: max_vectors * lanes, inner, inner_block: inner, taps, lanes }
    }

    /// The length of the packed weights.
    pub fn len(&self) -> usize {
        self.outer.next_multiple_of(self.lanes) * self.inner * self.taps
    }

    pub fn outer_blocks(&self) -> usize {
        self.outer.div_ceil(self.outer_block)
    }

    pub fn inner_blocks(&self) -> usize {
        self.inner.div_ceil(self.inner_block)
    }

    /// The number of output channels in block `o`.
    pub fn channels(&self, o: usize) -> usize {
        self.outer_block.min(self.outer - o * self.outer_block)
    }

    /// The number of units in block `i`.
    pub fn inner_channels(&self, i: usize) -> usize {
        self.inner_block.min(self.inner - i * self.inner_block)
    }

    /// The number of output channels in block `o`, rounded up to whole vectors.
    pub fn width(&self, o: usize) -> usize {
        self.channels(o).next_multiple_of(self.lanes)
    }

    /// The packed weights of blocks (o, i).
    pub fn block<'a>(&self, packed: &'a [f32], o: usize, i: usize) -> &'a [f32] {
        let start =
            o * self.outer_block * self.inner * self.taps + i * self.inner_block * self.taps * self.width(o);
        &packed[start..][..self.inner_channels(i) * self.taps * self.width(o)]
    }

    /// Packs the weights of all taps, which start at `offsets` and have `channels` input channels each.
    pub fn pack<E: Element>(
        &self,
        cpu: &Cpu,
        source: Source,
        channels: usize,
        offsets: &[usize],
        packed: &mut [f32],
    ) {
        assert_eq!(packed.len(), self.len());
        assert_eq!(self.inner, channels.div_ceil(E::PER_UNIT));
        assert_eq!(offsets.len(), self.taps);
        let block_len = self.outer_block * self.inner * self.taps;
        cpu.threads.run_chunks(packed, block_len, |o, mut packed| {
            let first = o * self.outer_block;
            for i in 0..self.inner_blocks() {
                for offset in offsets {
                    let len = self.inner_channels(i) * self.width(o);
                    let (block, rest) = std::mem::take(&mut packed).split_at_mut(len);
                    let done = i * self.inner_block * E::PER_UNIT;
                    let from =
                        &source.weights[offset + first * source.stride_out + done * source.stride_in..];
                    let size = (channels - done, self.channels(o));
                    let width = self.width(o);
                    cpu.isa.vectorize(
                        #[inline(always)]
                        || pack_block::<E>(source, from, size, width, block),
                    );
                    packed = rest;
                }
            }
        });
    }
}

/// Packs `block.len() / width` units of one tap that starts at `from[0]`; `size` is its numbers of input and output
/// channels.
#[inline(always)]
fn pack_block<E: Element>(
    source: Source,
    from: &[f32],
    size: (usize, usize),
    width: usize,
    block: &mut [f32],
) {
    if source.stride_out == 1 {
        pack_rows::<E>(from, source.stride_in, size, width, block);
    } else {
        assert_eq!(source.stride_in, 1, "weights are contiguous in their input or their output channels");
        transpose::<E>(from, source.stride_out, size, width, block);
    }
}

/// Packs weights whose output channels are contiguous, in one row per input channel, `stride` apart.
#[inline(always)]
fn pack_rows<E: Element>(
    from: &[f32],
    stride: usize,
    (inputs, channels): (usize, usize),
    width: usize,
    block: &mut [f32],
) {
    let unit = |low: f32, high: f32| E::unit([low, high].map(E::narrow));
    for (i, row) in block.chunks_exact_mut(width).enumerate() {
        let at = |input: usize| &from[input * stride..][..channels];
        let low = at(i * E::PER_UNIT);
        if E::PER_UNIT == 1 {
            row[..channels].copy_from_slice(low);
        } else if i * 2 + 1 < inputs {
            let pairs = low.iter().zip(at(i * 2 + 1));
            row.iter_mut().zip(pairs).for_each(|(to, (low, high))| *to = unit(*low, *high));
        } else {
            row.iter_mut().zip(low).for_each(|(to, low)| *to = unit(*low, 0.0));
        }
        row[channels..].fill(0.0);
    }
}

/// Packs and transposes weights whose input channels are contiguous, in one row per output channel, `stride` apart.
/// Works in squares of a cache line: larger ones would exceed the associativity of the first-level cache, since the
/// rows of a filter often lie a power of two apart.
#[inline(always)]
fn transpose<E: Element>(
    from: &[f32],
    stride: usize,
    (inputs, channels): (usize, usize),
    width: usize,
    block: &mut [f32],
) {
    const SIDE: usize = 16;
    for (square, rows) in block.chunks_mut(SIDE * width).enumerate() {
        let begin = square * SIDE * E::PER_UNIT;
        let known = (inputs - begin).min(SIDE * E::PER_UNIT);
        for first in (0..width).step_by(SIDE) {
            let mut units = [[0.0; SIDE]; SIDE];
            for (o, units) in (first..channels).zip(&mut units) {
                let mut values = [E::default(); 2 * SIDE];
                let weights = &from[o * stride + begin..][..known];
                values.iter_mut().zip(weights).for_each(|(to, weight)| *to = E::narrow(*weight));
                *units =
                    std::array::from_fn(|i| E::unit([values[i * E::PER_UNIT], values[i * E::PER_UNIT + 1]]));
            }
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                let to = &mut row[first..width.min(first + SIDE)];
                to.iter_mut().zip(&units).for_each(|(to, units)| *to = units[i]);
            }
        }
    }
}

/// The runs of block `i`: one for each tap, merged where neighbours are contiguous.
///
/// `offsets` are those of the taps in the source, relative to a pixel.
pub fn runs(packing: &Packing, i: usize, offsets: &[usize]) -> SmallVec<[Run; 49]> {
    let len = packing.inner_channels(i);
    let mut runs: SmallVec<[Run; 49]> = SmallVec::new();
    for offset in offsets.iter().map(|offset| offset + i * packing.inner_block) {
        match runs.last_mut() {
            Some(last) if last.offset + last.len == offset => last.len += len,
            _ => runs.push(Run { offset, len }),
        }
    }
    runs
}
