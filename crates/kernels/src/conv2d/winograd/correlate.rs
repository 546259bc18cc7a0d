//! The forward pass and the gradient of the input: both correlate a batch with 3 x 3 kernels.
//!
//! The unit of work is a group of tiles: it transforms all its tiles; then, for each block of output channels, it
//! computes 36 small matrix products and transforms them to the output.

use super::tiles::{self, PRODUCTS, Rows, SIDE, Tiles};
use super::transform::{Input, Output, Weight, plane};
use crate::conv2d::epilogue::{self, Epilogue, PieceEpilogue};
use crate::conv2d::images::Images;
use crate::conv2d::pack::{Packing, Source};
use crate::conv2d::tile::{self, Panel, Run};
use crate::shared::SharedMut;
use crate::simd::{self, Kernel, LINE, Simd, dispatch};
use crate::{Cpu, Element, Write, scratch};
use smallvec::SmallVec;

/// Input channels of a transformed tile that lie together: (tile, block of channels, product, channel).
const TOGETHER: usize = 16;
/// Input channels summed before their sum is added to the previous ones.
const INNER: usize = 256;
/// Transformed weights of at least this size are written past the caches.
const STREAM_BYTES: usize = 4 << 20;
/// Tiles whose outputs are summed by channel in f32 before their sum is added to an f64 sum.
const SUMMED: usize = 8;

/// A correlation with 3 x 3 kernels: `to[h, w] = sum of from[h + r - padding, w + s - padding] * weights[r, s]`.
#[derive(Clone, Copy, Debug)]
pub struct Correlation {
    pub batch: usize,
    pub from: Images,
    pub to: Images,
    pub padding: usize,
    pub write: Write,
}

impl Correlation {
    /// How many of `tiles` to process together: with few channels, few enough for the second-level cache; with many,
    /// enough to make streaming the weights past them cheap.
    fn group(&self, tiles: usize) -> usize {
        let most = if self.from.channels * self.to.channels > 256 * 256 { 96 } else { 48 };
        let groups = tiles.div_ceil(most);
        if groups >= 16 {
            return most;
        }
        // If groups are few, their number must divide evenly among threads. Each is of whole register tiles.
        tiles.div_ceil(groups.next_multiple_of(4)).next_multiple_of(6)
    }
}

/// Correlates `src` with the weights, whose nine taps lie at `offsets`, and ends with `epilogue`.
pub fn run<E: Element>(
    cpu: &Cpu,
    shape: &Correlation,
    src: &[E],
    weights: Source,
    offsets: &[usize; 9],
    dst: &mut [E],
    epilogue: Epilogue<E>,
) {
    let lanes = simd::lanes(cpu.isa);
    let vectors = tile::max_vectors(lanes);
    let packing = Packing::whole(shape.to.channels, shape.from.channels, 9, lanes, vectors);
    let mut packed = scratch::take(packing.len());
    packing.pack::<f32>(cpu, weights, shape.from.channels, offsets, &mut packed);
    let products = Packing { taps: PRODUCTS, ..packing };
    let mut transformed = scratch::take::<f32>(products.len());
    // Weights that leave the caches before they are used need not be loaded into them to be written.
    let stream = size_of_val(&*transformed) >= STREAM_BYTES;
    let (packed, block) = (&packed[..], products.outer_block * products.inner * PRODUCTS);
    cpu.threads.run_chunks(&mut transformed, block, |o, to| {
        let from = packing.block(packed, o, 0);
        dispatch(cpu.isa, TransformWeights { from, to, stream });
    });

    let tiles = Tiles::new(shape.batch, &shape.to);
    let group = shape.group(tiles.len());
    let dst = SharedMut::new(dst);
    let weights = &transformed[..];
    let work = |index: usize, epilogue: PieceEpilogue<E>| {
        let first = index * group;
        dispatch(
            cpu.isa,
            Group {
                shape,
                tiles,
                first,
                count: group.min(tiles.len() - first),
                products: &products,
                weights,
                src,
                dst,
                epilogue,
            },
        );
    };
    epilogue::over(cpu, tiles.len().div_ceil(group), epilogue, work);
}

/// Transforms a block of packed weights from nine taps to 36 products, each (input channel, output channel).
struct TransformWeights<'a> {
    from: &'a [f32],
    to: &'a mut [f32],
    stream: bool,
}

impl Kernel for TransformWeights<'_> {
    type Output = ();
    const BF16: bool = false;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let tap = self.from.len() / 9;
        assert!(self.to.len() == tap * PRODUCTS && tap.is_multiple_of(S::LANES));
        let stream = self.stream && self.to.as_ptr().addr().is_multiple_of(LINE);
        for i in (0..tap).step_by(S::LANES) {
            let mut g = [[simd.splat(0.0); 3]; 3];
            // SAFETY: i + LANES <= tap, and there are 9 taps to read and 36 products of this size to write, which
            // begin at multiples of a vector.
            unsafe {
                for r in 0..3 {
                    for s in 0..3 {
                        g[r][s] = simd.load(self.from.as_ptr().add((r * 3 + s) * tap + i));
                    }
                }
                let u = plane::<S, Weight, 3, 6>(simd, &g);
                let to = self.to.as_mut_ptr().add(i);
                if stream {
                    for product in 0..PRODUCTS {
                        simd.stream(to.add(product * tap), u[product / 6][product % 6]);
                    }
                } else {
                    tiles::store_products(simd, &u, to, tap);
                }
            }
        }
        if stream {
            simd.finish_streams();
        }
    }
}

/// The group of tiles `first..first + count`.
struct Group<'a, E> {
    shape: &'a Correlation,
    tiles: Tiles,
    first: usize,
    count: usize,
    products: &'a Packing,
    weights: &'a [f32],
    src: &'a [E],
    dst: SharedMut<E>,
    epilogue: PieceEpilogue<'a, E>,
}

impl<E: Element> Kernel for Group<'_, E> {
    type Output = ();
    const BF16: bool = E::BF16;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let channels = self.shape.from.channels;
        let row = channels.div_ceil(TOGETHER) * PRODUCTS * TOGETHER;
        let mut inputs = scratch::take(self.count * row);
        transform_input(simd, &self, row, &mut inputs);
        let runs: SmallVec<[Run; 128]> = (0..channels)
            .step_by(TOGETHER)
            .map(|channel| Run { offset: channel * PRODUCTS, len: TOGETHER.min(channels - channel) })
            .collect();

        let mut outputs = scratch::take(self.count * PRODUCTS * self.products.width(0));
        if let PieceEpilogue::Sum(sums) = &mut self.epilogue {
            sums.fill(0.0);
        }
        for o in 0..self.products.outer_blocks() {
            let width = self.products.width(o);
            for product in 0..PRODUCTS {
                let weights = &self.products.block(self.weights, o, 0)[product * channels * width..];
                for (i, runs) in runs.chunks(INNER / TOGETHER).enumerate() {
                    let panel = Panel {
                        runs,
                        weights: &weights[i * INNER * width..],
                        channels: width,
                        resume: i > 0,
                    };
                    let rows = Rows {
                        left: self.count,
                        from: product * TOGETHER,
                        from_step: row,
                        to: product * width,
                        to_step: PRODUCTS * width,
                    };
                    let to = SharedMut::new(&mut outputs[..self.count * PRODUCTS * width]);
                    // SAFETY: `inputs` and `to` have `count` rows of `row` and of 36 * width numbers, in which the runs
                    // of a product and its outputs lie.
                    unsafe { tile::over_pixels::<S, f32, f32>(simd, panel, inputs.as_ptr(), to, rows) }
                }
            }
            match width / S::LANES {
                1 => transform_output::<S, E, 1>(simd, &mut self, o, &outputs),
                2 => transform_output::<S, E, 2>(simd, &mut self, o, &outputs),
                3 => transform_output::<S, E, 3>(simd, &mut self, o, &outputs),
                _ => transform_output::<S, E, 4>(simd, &mut self, o, &outputs),
            }
        }
    }
}

/// Transforms the input of all tiles of the group, to `row` numbers for each.
#[inline(always)]
fn transform_input<S: Simd, E: Element>(simd: S, group: &Group<E>, row: usize, inputs: &mut [f32]) {
    let shape = &group.shape.from;
    let padding = group.shape.padding as isize;
    assert!(inputs.len() >= group.count * row && row >= shape.channels.next_multiple_of(TOGETHER) * PRODUCTS);
    let mut zeros = scratch::take(shape.channels);
    zeros.fill(E::default());
    for t in 0..group.count {
        let (image, h, w) = group.tiles.place(group.first + t);
        let first = (image, h - padding, w - padding);
        let pixels = tiles::sources::<E, 6>(group.src, shape, first, &zeros);
        tiles::prefetch_below::<S, E, 6>(simd, group.src, shape, first, 0..shape.channels);
        for channel in (0..shape.channels).step_by(S::LANES) {
            let lanes = S::LANES.min(shape.channels - channel);
            let at = t * row + channel / TOGETHER * PRODUCTS * TOGETHER + channel % TOGETHER;
            // SAFETY: each pixel has `channels >= channel + lanes` numbers; the assertion covers what is written, 36
            // times TOGETHER numbers from the start of a block on.
            unsafe {
                let d = tiles::load(simd, &pixels, channel, lanes);
                let v = plane::<S, Input, 6, 6>(simd, &d);
                tiles::store_products(simd, &v, inputs.as_mut_ptr().add(at), TOGETHER);
            }
        }
    }
}

/// Transforms the products of block `o`, NV vectors each, to output pixels, and sums these by channel or normalises
/// them.
#[inline(always)]
fn transform_output<S: Simd, E: Element, const NV: usize>(
    simd: S,
    group: &mut Group<E>,
    o: usize,
    outputs: &[f32],
) {
    let first = o * group.products.outer_block;
    let channels = group.products.channels(o);
    let width = NV * S::LANES;
    assert!(outputs.len() >= group.count * PRODUCTS * width && channels <= width && width <= 64);
    let add = group.shape.write == Write::Add;
    let norm = match group.epilogue {
        PieceEpilogue::Normalize(prepared) => Some(&prepared.norm),
        PieceEpilogue::Keep | PieceEpilogue::Sum(_) => None,
    };
    let mut t = 0;
    while t < group.count {
        let end = group.count.min(t + SUMMED);
        let mut sum = [0.0f32; 64];
        let mut square = [0.0f32; 64];
        for t in t..end {
            let place = group.tiles.place(group.first + t);
            let (pixels, rows, columns) = tiles::destinations(group.dst, &group.shape.to, place);
            let whole = rows == SIDE && columns == SIDE;
            for channel in (0..channels).step_by(S::LANES) {
                let lanes = S::LANES.min(channels - channel);
                // SAFETY: channel + LANES <= width, which the assertion covers for reading; each of the first `rows` x
                // `columns` pixels has at least `first + channels` channels and is used by this group alone; the sums
                // have 64 >= width numbers; a residual is as long as the output, scale and shift as a pixel.
                unsafe {
                    let m = tiles::load_products(
                        simd,
                        outputs.as_ptr().add(t * PRODUCTS * width + channel),
                        width,
                    );
                    let mut y = plane::<S, Output, 6, 4>(simd, &m);
                    if add {
                        for i in 0..rows {
                            for j in 0..columns {
                                let before = E::load_first(simd, pixels[i][j].add(first + channel), lanes);
                                y[i][j] = simd.add(y[i][j], before);
                            }
                        }
                    }
                    if let Some(norm) = norm {
                        let at = first + channel;
                        let scale = f32::load_some(simd, norm.scale.as_ptr().add(at), lanes);
                        let shift = f32::load_some(simd, norm.shift.as_ptr().add(at), lanes);
                        let floor = simd.splat(norm.floor());
                        for i in 0..rows {
                            for j in 0..columns {
                                let mut v = simd.add(simd.mul(y[i][j], scale), shift);
                                if let Some(residual) = norm.residual {
                                    let pixel = pixels[i][j].offset_from(group.dst.at(0)) as usize;
                                    let residual = residual.as_ptr().add(pixel + at);
                                    v = simd.add(v, E::load_some(simd, residual, lanes));
                                }
                                y[i][j] = simd.max(floor, v);
                            }
                        }
                    }
                    let mut sums = simd.load(sum.as_ptr().add(channel));
                    let mut squares = simd.load(square.as_ptr().add(channel));
                    if whole && lanes == S::LANES {
                        for i in 0..SIDE {
                            for j in 0..SIDE {
                                E::store(simd, pixels[i][j].add(first + channel), y[i][j]);
                                sums = simd.add(sums, y[i][j]);
                                squares = simd.mul_add(y[i][j], y[i][j], squares);
                            }
                        }
                    } else {
                        for i in 0..rows {
                            for j in 0..columns {
                                E::store_first(simd, pixels[i][j].add(first + channel), y[i][j], lanes);
                                sums = simd.add(sums, y[i][j]);
                                squares = simd.mul_add(y[i][j], y[i][j], squares);
                            }
                        }
                    }
                    simd.store(sum.as_mut_ptr().add(channel), sums);
                    simd.store(square.as_mut_ptr().add(channel), squares);
                }
            }
        }
        if let PieceEpilogue::Sum(sums) = &mut group.epilogue {
            let (plain, squares) = sums.split_at_mut(sums.len() / 2);
            for k in 0..channels {
                plain[first + k] += f64::from(sum[k]);
                squares[first + k] += f64::from(square[k]);
            }
        }
        t = end;
    }
}
