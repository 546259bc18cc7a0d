//! The form for bounded similarities: each pair of views is visited once, with one exponential for both directions.

use std::cell::Cell;

use super::packed::{BLOCK, Blocks, Packed, Panels};
use super::rounds::all_pairs;
use super::tile::{Left, PANEL, multiply};
use super::{Anchor, Known};
use crate::contrastive::ContrastiveShape;
use crate::math::{dot, exp};
use crate::recycle::emptied;
use crate::simd::{Kernel, Simd, dispatch};
use crate::{Cpu, scratch};

/// The greatest bound b for which e^(s - b), its inverse and their sums are normal floats wherever |s| <= b.
const LIMIT: f32 = 42.0;
/// Lanes of the passes over similarities.
const LANES: usize = 16;

/// The greatest |z|^2 / tau, which no |s| exceeds, or `None` if it is too large for this form.
pub fn bound(cpu: &Cpu, shape: &ContrastiveShape, all: &[f32]) -> Option<f32> {
    cpu.isa.vectorize(
        #[inline(always)]
        || {
            let mut greatest = 0f32;
            for z in all.chunks_exact(shape.dim) {
                let bound = (dot(z, z) / f64::from(shape.temperature)) as f32;
                greatest = greatest.max(bound);
                // Also false for a NaN.
                let small = bound <= LIMIT;
                if !small {
                    return None;
                }
            }
            Some(greatest)
        },
    )
}

/// The inputs that all tiles of a pass share.
#[derive(Clone, Copy)]
struct Setting<'a> {
    shape: &'a ContrastiveShape,
    blocks: Blocks,
    transposed: Panels<'a>,
    bound: f32,
}

impl Setting<'_> {
    /// z_i . z_k for i in block `a` and k in block `b`, as rows of [`BLOCK`].
    #[inline(always)]
    fn products<S: Simd>(&self, simd: S, a: usize, b: usize, tile: &mut [f32]) {
        let ((_, rows), (_, columns)) = (self.blocks.range(a), self.blocks.range(b));
        for (i, left) in self.transposed.of(a).enumerate() {
            let rows = rows.saturating_sub(i * PANEL).min(PANEL);
            let left = Left { values: left, row_step: 1, col_step: PANEL };
            for (k, right) in self.transposed.of(b).enumerate() {
                let size = (rows, self.shape.dim, columns.saturating_sub(k * PANEL).min(PANEL));
                let part = &mut tile[i * PANEL * BLOCK + k * PANEL..];
                multiply(simd, size, left, right, part, BLOCK, false);
            }
        }
    }

    /// The column of row `row`'s positive in a tile whose columns are `columns` views from `first` on, if it is there.
    /// Rows are always this worker's anchors.
    #[inline(always)]
    fn positive(&self, (first_row, row): (usize, usize), (first, columns): (usize, usize)) -> Option<usize> {
        let column = self.shape.positive(first_row + row - self.shape.offset).wrapping_sub(first);
        (column < columns).then_some(column)
    }
}

thread_local! {
    /// The memory of a call's list of blocks, kept for the next call.
    static SEEN: Cell<Vec<Seen<'static>>> = const { Cell::new(Vec::new()) };
    static GRADIENTS: Cell<Vec<Gradient<'static>>> = const { Cell::new(Vec::new()) };
}

/// The forward pass's figures of a block's views so far: over their negatives the sums of e^(s - bound) and of
/// (s - bound) e^(s - bound) and the greatest s, and s of the positive.
struct Seen<'a> {
    block: usize,
    mass: &'a mut [f32],
    moment: &'a mut [f32],
    hardest: &'a mut [f32],
    positive: &'a mut [f32],
}

/// [`super::nt_xent_forward`].
pub fn forward(cpu: &Cpu, shape: &ContrastiveShape, all: &[f32], bound: f32, anchors: &mut [Anchor]) {
    let blocks = Blocks::new(shape);
    let transposed = Packed::transposed(cpu, blocks, all, shape.dim);
    let setting = Setting { shape, blocks, transposed: transposed.panels(), bound };
    let mut values = scratch::take::<f32>(4 * blocks.own() * BLOCK);
    let mut seen: Vec<Seen> = emptied(SEEN.take());
    seen.extend(values.chunks_exact_mut(4 * BLOCK).enumerate().map(Seen::new));
    let first_block = |own: &mut Seen| {
        let mut tile = scratch::take::<f32>(BLOCK * BLOCK);
        for other in std::iter::once(own.block).chain(blocks.own()..blocks.count()) {
            dispatch(
                cpu.isa,
                Forward { setting, rows: own, columns: Columns::Others(other), tile: &mut tile },
            );
        }
    };
    cpu.threads.run_chunks(&mut seen, 1, |_, own| first_block(&mut own[0]));
    all_pairs(&cpu.threads, &mut seen, |a, b| {
        let mut tile = scratch::take::<f32>(BLOCK * BLOCK);
        dispatch(cpu.isa, Forward { setting, rows: a, columns: Columns::Own(b), tile: &mut tile });
    });
    for seen in &seen {
        let first = seen.block * BLOCK;
        for (i, anchor) in anchors[first..].iter_mut().take(BLOCK).enumerate() {
            let negatives = (seen.mass[i], seen.moment[i]);
            *anchor = Anchor::new(bound, negatives, seen.positive[i], seen.hardest[i]);
        }
    }
    SEEN.set(emptied(seen));
}

impl<'a> Seen<'a> {
    fn new((block, values): (usize, &'a mut [f32])) -> Seen<'a> {
        values.fill(0.0);
        let (mass, values) = values.split_at_mut(BLOCK);
        let (moment, values) = values.split_at_mut(BLOCK);
        let (hardest, positive) = values.split_at_mut(BLOCK);
        hardest.fill(f32::NEG_INFINITY);
        Seen { block, mass, moment, hardest, positive }
    }

    #[inline(always)]
    fn add(&mut self, view: usize, mass: f32, moment: f32) {
        self.mass[view] += mass;
        self.moment[view] += moment;
    }
}

/// The columns of a tile: a block of this worker, which is updated too, or one that is only read.
enum Columns<'s, 'a> {
    Own(&'s mut Seen<'a>),
    Others(usize),
}

struct Forward<'s, 'a> {
    setting: Setting<'s>,
    rows: &'s mut Seen<'a>,
    columns: Columns<'s, 'a>,
    tile: &'s mut [f32],
}

impl Kernel for Forward<'_, '_> {
    type Output = ();
    const BF16: bool = false;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Forward { setting, rows, mut columns, tile } = self;
        let other = match &columns {
            Columns::Own(seen) => seen.block,
            Columns::Others(block) => *block,
        };
        setting.products(simd, rows.block, other, tile);
        let ((first_row, count), (first, width)) =
            (setting.blocks.range(rows.block), setting.blocks.range(other));
        let scale = 1.0 / setting.shape.temperature;
        // Of each column: mass, moment and greatest value.
        let mut down = [[0f32; BLOCK]; 3];
        down[2] = [f32::NEG_INFINITY; BLOCK];
        for (row, s) in tile.chunks_exact_mut(BLOCK).take(count).enumerate() {
            s.iter_mut().for_each(|s| *s *= scale);
            // -infinity weighs nothing: padding, the anchor itself, and its positive, which is no negative.
            s[width..].fill(f32::NEG_INFINITY);
            if rows.block == other {
                s[row] = f32::NEG_INFINITY;
            }
            if let Some(column) = setting.positive((first_row, row), (first, width)) {
                let value = std::mem::replace(&mut s[column], f32::NEG_INFINITY);
                rows.positive[row] = value;
                if let Columns::Own(seen) = &mut columns {
                    seen.positive[column] = value;
                }
            }
            let [mass, moment, greatest] = sums(s, setting.bound, &mut down);
            rows.add(row, mass, moment);
            rows.hardest[row] = rows.hardest[row].max(greatest);
        }
        if let Columns::Own(seen) = columns {
            for view in 0..BLOCK {
                seen.add(view, down[0][view], down[1][view]);
                seen.hardest[view] = seen.hardest[view].max(down[2][view]);
            }
        }
    }
}

/// Returns mass, moment and greatest value of a row of similarities, which it also adds to the columns' in `down`.
#[inline(always)]
fn sums(s: &[f32], bound: f32, down: &mut [[f32; BLOCK]; 3]) -> [f32; 3] {
    let [down_mass, down_moment, down_greatest] = down;
    let columns = down_mass
        .chunks_exact_mut(LANES)
        .zip(down_moment.chunks_exact_mut(LANES))
        .zip(down_greatest.chunks_exact_mut(LANES));
    let (mut mass, mut moment, mut greatest) = ([0f32; LANES], [0f32; LANES], [f32::NEG_INFINITY; LANES]);
    for (s, ((column_mass, column_moment), column_greatest)) in s.chunks_exact(LANES).zip(columns) {
        for lane in 0..LANES {
            let value = s[lane];
            let below = value - bound;
            let e = exp(below);
            let m = if e > 0.0 { below * e } else { 0.0 };
            mass[lane] += e;
            moment[lane] += m;
            greatest[lane] = if value > greatest[lane] { value } else { greatest[lane] };
            column_mass[lane] += e;
            column_moment[lane] += m;
            column_greatest[lane] = if value > column_greatest[lane] { value } else { column_greatest[lane] };
        }
    }
    [mass.iter().sum(), moment.iter().sum(), greatest.into_iter().fold(f32::NEG_INFINITY, f32::max)]
}

/// A block's gradient so far, in panels of [`PANEL`] coordinates.
struct Gradient<'a> {
    block: usize,
    dz: &'a mut [f32],
}

/// [`super::nt_xent_backward`].
pub fn backward(
    cpu: &Cpu,
    shape: &ContrastiveShape,
    all: &[f32],
    known: Known,
    bound: f32,
    factor: f32,
    dz: &mut [f32],
) {
    let (blocks, dim) = (Blocks::new(shape), shape.dim);
    let transposed = Packed::transposed(cpu, blocks, all, dim);
    let rows = Packed::rows(cpu, blocks, all, dim);
    let setting = Setting { shape, blocks, transposed: transposed.panels(), bound };
    // p(i,k) + p(k,i) = e^(s - bound) (e^(bound - lse_i) + e^(bound - lse_k)).
    let mut inverse = scratch::take::<f32>(blocks.count() * BLOCK);
    for (block, inverse) in inverse.chunks_exact_mut(BLOCK).enumerate() {
        let (first, len) = blocks.range(block);
        let (values, padding) = inverse.split_at_mut(len);
        values.iter_mut().zip(&known.lse[first..]).for_each(|(inverse, lse)| *inverse = exp(bound - lse));
        padding.fill(0.0);
    }
    let panels = dim.div_ceil(PANEL) * PANEL;
    let mut values = scratch::take::<f32>(blocks.own() * BLOCK * panels);
    let mut gradients: Vec<Gradient> = emptied(GRADIENTS.take());
    let blocks_of_dz = values.chunks_exact_mut(BLOCK * panels).enumerate();
    gradients.extend(blocks_of_dz.map(|(block, dz)| Gradient { block, dz }));
    let (rows, inverse) = (rows.panels(), &*inverse);
    cpu.threads.run_chunks(&mut gradients, 1, |_, own| {
        let own = &mut own[0];
        let mut tile = scratch::take::<f32>(BLOCK * BLOCK);
        for other in std::iter::once(own.block).chain(blocks.own()..blocks.count()) {
            let columns = ToColumns::Others(other);
            dispatch(cpu.isa, Backward { setting, known, rows, inverse, to: own, columns, tile: &mut tile });
        }
    });
    all_pairs(&cpu.threads, &mut gradients, |a, b| {
        let mut tile = scratch::take::<f32>(BLOCK * BLOCK);
        let columns = ToColumns::Own(b);
        dispatch(cpu.isa, Backward { setting, known, rows, inverse, to: a, columns, tile: &mut tile });
    });
    GRADIENTS.set(emptied(gradients));
    let (scale, values) = (factor / shape.temperature, &*values);
    cpu.threads.run_chunks(dz, BLOCK * dim, |block, dz| {
        let values = &values[block * BLOCK * panels..][..BLOCK * panels];
        for (i, dz) in dz.chunks_exact_mut(dim).enumerate() {
            for (dz, panel) in dz.chunks_mut(PANEL).zip(values.chunks_exact(BLOCK * PANEL)) {
                dz.iter_mut().zip(&panel[i * PANEL..]).for_each(|(dz, value)| *dz = scale * value);
            }
        }
    });
}

/// The columns of a tile: a block of this worker, whose gradient is updated too, or one that is only read, which is
/// another worker's or that of the rows themselves.
enum ToColumns<'s, 'a> {
    Own(&'s mut Gradient<'a>),
    Others(usize),
}

struct Backward<'s, 'a> {
    setting: Setting<'s>,
    known: Known<'s>,
    rows: Panels<'s>,
    /// e^(bound - lse), by block.
    inverse: &'s [f32],
    to: &'s mut Gradient<'a>,
    columns: ToColumns<'s, 'a>,
    tile: &'s mut [f32],
}

impl Kernel for Backward<'_, '_> {
    type Output = ();
    const BF16: bool = false;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Backward { setting, known, rows, inverse, to, columns, tile } = self;
        let other = match &columns {
            ToColumns::Own(gradient) => gradient.block,
            ToColumns::Others(block) => *block,
        };
        setting.products(simd, to.block, other, tile);
        let ((first_row, count), (first, width)) =
            (setting.blocks.range(to.block), setting.blocks.range(other));
        let scale = 1.0 / setting.shape.temperature;
        let columns_inverse = &inverse[other * BLOCK..][..BLOCK];
        for (row, weights) in tile.chunks_exact_mut(BLOCK).take(count).enumerate() {
            let own = inverse[to.block * BLOCK + row];
            for (w, inverse) in weights.iter_mut().zip(columns_inverse) {
                *w = exp(*w * scale - setting.bound) * (own + inverse);
            }
            if to.block == other {
                weights[row] = 0.0;
            }
            if let Some(column) = setting.positive((first_row, row), (first, width)) {
                let anchor = first_row + row - setting.shape.offset;
                weights[column] = known.positive_weight(setting.shape, anchor);
            }
        }
        // The tile of a block with itself comes first and starts the sum.
        let accumulate = to.block != other;
        let weights = Left { values: tile, row_step: BLOCK, col_step: 1 };
        let panels = rows.of(other).zip(to.dz.chunks_exact_mut(BLOCK * PANEL)).enumerate();
        for (p, (z, dz)) in panels {
            let size = (count, width, PANEL.min(setting.shape.dim - p * PANEL));
            multiply(simd, size, weights, z, dz, PANEL, accumulate);
        }
        if let ToColumns::Own(gradient) = columns {
            let weights = Left { values: tile, row_step: 1, col_step: BLOCK };
            let panels = rows.of(to.block).zip(gradient.dz.chunks_exact_mut(BLOCK * PANEL)).enumerate();
            for (p, (z, dz)) in panels {
                let size = (width, count, PANEL.min(setting.shape.dim - p * PANEL));
                multiply(simd, size, weights, z, dz, PANEL, true);
            }
        }
    }
}
