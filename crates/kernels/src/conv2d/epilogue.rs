//! The epilogue of a convolution: what else is done with its output while it is in registers or in the caches.

use super::class::Class;
use super::images::Piece;
use super::sums::channel_sums;
use crate::batch_norm::{InPlace, in_place};
use crate::pieces::{repeated, repeats, sum_pieces};
use crate::scratch::Scratch;
use crate::shared::SharedMut;
use crate::simd::Simd;
use crate::{Cpu, Element};

/// A BatchNorm whose scale and shift are known before the convolution, as they are from running averages:
/// act(y scale + shift + residual), with act the ReLU or the identity.
#[derive(Clone, Copy, Debug)]
pub struct Normalize<'a, E> {
    /// One factor per channel of y.
    pub scale: &'a [f32],
    /// One addend per channel of y.
    pub shift: &'a [f32],
    /// Added before the ReLU, in the shape of y.
    pub residual: Option<&'a [E]>,
    /// Whether negative values become 0.
    pub relu: bool,
}

impl<E> Normalize<'_, E> {
    /// Below which values are raised to it.
    pub(super) fn floor(&self) -> f32 {
        if self.relu { 0.0 } else { f32::NEG_INFINITY }
    }
}

/// What to do with the output of a forward pass.
pub(super) enum Epilogue<'a, E> {
    /// Nothing more.
    Keep,
    /// Write [sum per channel, sum of squares per channel].
    Sum(&'a mut [f64]),
    /// Normalise it before it is stored for good.
    Normalize(Normalize<'a, E>),
}

impl<'a, E: Element> Epilogue<'a, E> {
    /// The same for values that are known to be of type `F`.
    pub fn cast<F: Element>(self) -> Epilogue<'a, F> {
        match self {
            Epilogue::Keep => Epilogue::Keep,
            Epilogue::Sum(sums) => Epilogue::Sum(sums),
            Epilogue::Normalize(Normalize { scale, shift, residual, relu }) => {
                let residual = residual.map(bytemuck::cast_slice);
                Epilogue::Normalize(Normalize { scale, shift, residual, relu })
            }
        }
    }
}

/// What to do with one piece of the output.
pub(super) enum PieceEpilogue<'a, E> {
    Keep,
    /// Write the piece's sums.
    Sum(&'a mut [f64]),
    Normalize(&'a Prepared<'a, E>),
}

/// A normalisation with rows wide enough for passes over memory.
pub(super) struct Prepared<'a, E> {
    pub norm: Normalize<'a, E>,
    /// Scale and shift, repeated.
    wide: [Scratch<f32>; 2],
}

/// Runs `work` on all pieces, each with what is to be done with it, and adds the pieces' sums up in order.
pub(super) fn over<E: Element>(
    cpu: &Cpu,
    pieces: usize,
    epilogue: Epilogue<E>,
    work: impl Fn(usize, PieceEpilogue<E>) + Sync,
) {
    match epilogue {
        Epilogue::Keep => cpu.threads.run(pieces, |index| work(index, PieceEpilogue::Keep)),
        Epilogue::Sum(sums) => {
            sum_pieces(cpu, pieces, sums, |index, sums| work(index, PieceEpilogue::Sum(sums)))
        }
        Epilogue::Normalize(norm) => {
            let times = repeats(norm.scale.len());
            let wide = [norm.scale, norm.shift].map(|values| repeated(values, times));
            let prepared = &Prepared { norm, wide };
            cpu.threads.run(pieces, |index| work(index, PieceEpilogue::Normalize(prepared)));
        }
    }
}

impl<E: Element> PieceEpilogue<'_, E> {
    /// Does it with `piece` of `y`, which must consist of whole rows of the class's pixels and was just written.
    ///
    /// # Safety
    ///
    /// Nothing else may use the piece's part of `y` meanwhile.
    #[inline(always)]
    pub unsafe fn finish<S: Simd>(self, simd: S, class: &Class, piece: &Piece, y: SharedMut<E>) {
        let row_len = class.to.width * class.to.channels;
        let (start, len) =
            (piece.image * class.to.len() + piece.row * row_len, piece.images * piece.rows * row_len);
        match self {
            PieceEpilogue::Keep => {}
            // SAFETY: the caller's promise.
            PieceEpilogue::Sum(sums) => channel_sums(simd, unsafe { y.slice(start, len) }, sums),
            PieceEpilogue::Normalize(Prepared { norm, wide: [scale, shift] }) => {
                // SAFETY: the caller's promise.
                let y = unsafe { y.slice(start, len) };
                let residual = norm.residual.map(|residual| &residual[start..][..len]);
                in_place(simd, InPlace { y, scale, shift, residual, floor: norm.floor() });
            }
        }
    }
}
