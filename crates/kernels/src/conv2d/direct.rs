//! The direct forward pass and gradient of the input: an implicit matrix product with pixels as rows.
//!
//! Both passes consist of one or more [`Class`]es of output pixels that sum over the same taps. A class is cut into
//! pieces of some rows of an image or some whole images. A piece copies its part of the source with the padding around
//! it, so that all taps are at the same distances from every pixel; then it loops over blocks of output channels,
//! blocks of input channels and tiles of pixels.
//!
//! Factors are units of 32 bits: a channel in f32, two neighbouring channels in bf16, so that bf16 needs no
//! rearrangement. An odd last channel is copied with a zero beside it.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::class::{Class, PerTap, Tap};
use super::epilogue::{self, Epilogue, PieceEpilogue};
use super::images::{Cut, Images, Piece, Window};
use super::pack::{self, Packing, Source};
use super::tile::{self, Panel, Pixels};
use crate::shared::SharedMut;
use crate::simd::{self, Kernel, Simd, dispatch};
use crate::{Conv2dGeometry, Cpu, Element, Write, scratch};

/// The forward pass; see [`super::conv2d_forward`].
pub fn forward<E: Element>(
    cpu: &Cpu,
    g: &Conv2dGeometry,
    x: &[E],
    w: &[f32],
    y: &mut [E],
    epilogue: Epilogue<E>,
) {
    let weights = Source { weights: w, stride_in: 1, stride_out: g.weight_len() / g.out_channels };
    run(cpu, &Class::forward(g), x, weights, y, Write::Over, epilogue);
}

/// The gradient of the input; see [`super::conv2d_backward_input`].
pub fn backward_input<E: Element>(
    cpu: &Cpu,
    g: &Conv2dGeometry,
    dy: &[E],
    w: &[f32],
    dx: &mut [E],
    write: Write,
) {
    // Remainders beyond the image's rows or columns have no pixels.
    let classes = || {
        (0..g.stride.min(g.in_height))
            .flat_map(|row| (0..g.stride.min(g.in_width)).map(move |column| Class::input(g, row, column)))
    };
    if write == Write::Over && classes().any(|class| class.taps.is_empty()) {
        cpu.threads.run_chunks(dx, 1 << 16, |_, dx| dx.fill(E::default()));
    }
    let weights = Source { weights: w, stride_in: g.weight_len() / g.out_channels, stride_out: 1 };
    for class in classes().filter(|class| !class.taps.is_empty()) {
        run(cpu, &class, dy, weights, dx, write, Epilogue::Keep);
    }
}

/// Cuts a class into pieces, depending on the shapes alone.
fn cut(class: &Class) -> Cut {
    // Enough pixels to make streaming the weights past them cheap, few enough to stay in the second-level cache.
    let channels = class.from.channels.max(class.to.channels);
    let pixels = ((96 << 10) / channels).clamp(192, 1536);
    // A small batch must leave work for all threads.
    let fair = (class.batch * class.rows * class.columns).div_ceil(16);
    Cut::new(class.batch, class.rows, class.columns, pixels.min(fair.max(96)))
}

fn run<E: Element>(
    cpu: &Cpu,
    class: &Class,
    src: &[E],
    weights: Source,
    dst: &mut [E],
    write: Write,
    epilogue: Epilogue<E>,
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(amx) = amx::chosen::<E>(cpu.isa, class.step) {
        return amx::correlate::run(cpu, amx, class, src, weights, dst, write, epilogue);
    }
    let lanes = simd::lanes(cpu.isa);
    let vectors = tile::max_vectors(lanes);
    let channels = class.from.channels;
    let packing =
        Packing::new(class.to.channels, channels.div_ceil(E::PER_UNIT), class.taps.len(), lanes, vectors);
    let cut = cut(class);
    let offsets: PerTap<usize> = class.taps.iter().map(|tap| tap.offset).collect();
    let dst = SharedMut::new(dst);
    let mut packed = scratch::take(packing.len());
    packing.pack::<E>(cpu, weights, channels, &offsets, &mut packed);
    let packed = &packed[..];
    let work = |index: usize, epilogue: PieceEpilogue<E>| {
        dispatch(
            cpu.isa,
            PieceKernel {
                class,
                packing: &packing,
                packed,
                piece: cut.piece(index),
                src,
                dst,
                write,
                epilogue,
            },
        )
    };
    epilogue::over(cpu, cut.pieces(), epilogue, work);
}

struct PieceKernel<'a, E> {
    class: &'a Class,
    packing: &'a Packing,
    packed: &'a [f32],
    piece: Piece,
    src: &'a [E],
    dst: SharedMut<E>,
    write: Write,
    epilogue: PieceEpilogue<'a, E>,
}

impl<E: Element> Kernel for PieceKernel<'_, E> {
    type Output = ();
    const BF16: bool = E::BF16;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let window = window(self.class, &self.piece);
        let from = self.class.from;
        let images = &self.src[self.piece.image * from.len()..][..self.piece.images * from.len()];
        let units = self.packing.inner;
        let width = units * E::PER_UNIT;
        if window.inside(&from) && width == from.channels {
            let shape = Images { channels: units, ..from };
            let first = (window.row as usize * shape.width + window.column as usize) * units;
            self.products(simd, images, first, shape);
        } else {
            let shape = Images { height: window.rows, width: window.columns, channels: units };
            let mut padded = scratch::take(self.piece.images * shape.len() * E::PER_UNIT);
            window.copy(images, &from, width, &mut padded);
            self.products(simd, &padded, 0, shape);
        }
    }
}

impl<E: Element> PieceKernel<'_, E> {
    /// Computes all products of the piece. `src` holds images of `shape`, whose channels are units; the first tap of
    /// the first pixel is at unit `first`.
    #[inline(always)]
    fn products<S: Simd>(self, simd: S, src: &[E], first: usize, shape: Images) {
        let class = self.class;
        let (row, column) = least(&class.taps);
        let offsets: PerTap<usize> = class
            .taps
            .iter()
            .map(|tap| {
                ((tap.row - row) as usize * shape.width + (tap.column - column) as usize) * shape.channels
            })
            .collect();
        let walk = Walk::new(class, &self.piece, first, &shape);
        walk.check(&offsets, shape.channels, src.len() / E::PER_UNIT);
        let src: *const f32 = src.as_ptr().cast();
        let blocks = self.packing.inner_blocks();
        let add = self.write == Write::Add;
        // Sums over several blocks are kept aside in f32, since the destination may round.
        let mut aside = scratch::take(if blocks > 1 { walk.left * self.packing.width(0) } else { 0 });
        for o in 0..self.packing.outer_blocks() {
            let channels = self.packing.channels(o);
            let dst = self.dst.from(o * self.packing.outer_block);
            for i in 0..blocks {
                let runs = pack::runs(self.packing, i, &offsets);
                let panel = Panel {
                    runs: &runs,
                    weights: self.packing.block(self.packed, o, i),
                    channels,
                    resume: i > 0 || add && blocks == 1,
                };
                // SAFETY: `check` has verified the farthest unit that a pixel of this walk reads; the walk writes
                // only pixels of this class and piece, which nothing else uses, or `aside`, which has room for all
                // of them.
                unsafe {
                    if blocks == 1 {
                        tile::over_pixels::<S, E, E>(simd, panel, src, dst, walk.clone());
                    } else {
                        let pixels = Aside { walk: walk.clone(), to: 0, step: channels };
                        let aside = SharedMut::new(&mut aside[..walk.left * channels]);
                        tile::over_pixels::<S, E, f32>(simd, panel, src, aside, pixels);
                    }
                }
            }
            if blocks > 1 {
                let mut walk = walk.clone();
                for sums in aside.chunks_exact(channels).take(walk.left) {
                    let (_, to) = walk.next();
                    // SAFETY: as above, and `channels` numbers belong to this block.
                    let pixel = unsafe { dst.slice(to, channels) };
                    for (to, sum) in pixel.iter_mut().zip(sums) {
                        *to = E::narrow(if add { to.widen() + sum } else { *sum });
                    }
                }
            }
        }
        // SAFETY: only the forward pass does more, and its piece is a stretch of whole rows, which this thread has just
        // written.
        unsafe { self.epilogue.finish(simd, class, &self.piece, self.dst) };
    }
}

/// The pixels of a walk, written one after the other instead of to their final places.
#[derive(Clone)]
struct Aside {
    walk: Walk,
    to: usize,
    step: usize,
}

impl Pixels for Aside {
    #[inline(always)]
    fn next(&mut self) -> (usize, usize) {
        let (from, _) = self.walk.next();
        let to = self.to;
        self.to += self.step;
        (from, to)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.walk.left
    }
}

/// The least row and the least column of the taps.
fn least(taps: &[Tap]) -> (isize, isize) {
    let row = taps.iter().map(|tap| tap.row).min().unwrap_or(0);
    let column = taps.iter().map(|tap| tap.column).min().unwrap_or(0);
    (row, column)
}

/// The source pixels that a piece reads.
fn window(class: &Class, piece: &Piece) -> Window {
    let (row, column) = least(&class.taps);
    let last_row = class.taps.iter().map(|tap| tap.row).max().unwrap_or(0);
    let last_column = class.taps.iter().map(|tap| tap.column).max().unwrap_or(0);
    Window {
        row: (piece.row * class.step) as isize + row,
        column,
        rows: (piece.rows - 1) * class.step + (last_row - row) as usize + 1,
        columns: (class.columns - 1) * class.step + (last_column - column) as usize + 1,
    }
}

/// Iterates over the pixels of a piece, row by row.
#[derive(Clone, Debug)]
struct Walk {
    left: usize,
    columns: usize,
    rows: usize,
    column: usize,
    row: usize,
    from: usize,
    to: usize,
    /// Distances in source and destination: to the next pixel, from the end of a row to the start of the next, and from
    /// the end of an image's rows to the next image.
    pixel: (usize, usize),
    line: (usize, usize),
    image: (usize, usize),
}

impl Walk {
    fn new(class: &Class, piece: &Piece, first: usize, shape: &Images) -> Walk {
        let pixel = (class.step * shape.channels, class.to_step * class.to.channels);
        let row =
            (class.step * shape.width * shape.channels, class.to_step * class.to.width * class.to.channels);
        let image = (shape.len(), class.to.len());
        let to_pixel = (class.first.0 + piece.row * class.to_step) * class.to.width + class.first.1;
        Walk {
            left: piece.images * piece.rows * class.columns,
            columns: class.columns,
            rows: piece.rows,
            column: 0,
            row: 0,
            from: first,
            to: piece.image * class.to.len() + to_pixel * class.to.channels,
            pixel,
            // Wrapping, so that a step back is the complement of a step forward.
            line: (row.0.wrapping_sub(pixel.0 * class.columns), row.1.wrapping_sub(pixel.1 * class.columns)),
            image: (image.0.wrapping_sub(row.0 * piece.rows), image.1.wrapping_sub(row.1 * piece.rows)),
        }
    }

    /// Panics unless the last pixel's farthest unit lies within the source's `len` units.
    fn check(&self, offsets: &[usize], channels: usize, len: usize) {
        let farthest = offsets.iter().max().map_or(0, |offset| offset + channels);
        // Only the last corner matters, since offsets increase along columns, rows and images.
        let images = self.left / (self.columns * self.rows);
        let row = self.line.0.wrapping_add(self.pixel.0 * self.columns);
        let image = self.image.0.wrapping_add(row * self.rows);
        let last = (images - 1) * image + (self.rows - 1) * row + (self.columns - 1) * self.pixel.0;
        let end = self.from + last + farthest;
        assert!(end <= len, "a piece reads {end} numbers of {len}");
    }
}

impl Pixels for Walk {
    #[inline(always)]
    fn next(&mut self) -> (usize, usize) {
        let here = (self.from, self.to);
        self.left -= 1;
        self.from = self.from.wrapping_add(self.pixel.0);
        self.to = self.to.wrapping_add(self.pixel.1);
        self.column += 1;
        if self.column == self.columns {
            self.column = 0;
            self.from = self.from.wrapping_add(self.line.0);
            self.to = self.to.wrapping_add(self.line.1);
            self.row += 1;
            if self.row == self.rows {
                self.row = 0;
                self.from = self.from.wrapping_add(self.image.0);
                self.to = self.to.wrapping_add(self.image.1);
            }
        }
        here
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.left
    }
}
