//! Convolutions of bf16 by AMX's products of tiles: implicit matrix products, as the direct form, with another layout.
//!
//! A tile has 16 rows at equal distances in memory. Pixels are therefore copied to a [`lattice`] on which 16
//! consecutive output pixels read source pixels at equal distances, for every tap and across the ends of rows and
//! images. Between the rows and images lie zeros that both neighbours share; a product is computed for every place of
//! the lattice, and those of places that are no pixel are dropped (or, where products are summed over pixels, the other
//! factor is 0 there). What a run of taps lacks to a whole tile is multiplied by 0 too: a NaN or an infinity
//! therefore reaches the sums of a neighbouring place as well.
//!
//! Small images have nearly as many zeros as pixels on a lattice. They are [`stacked`]: the 16 rows of a tile are one
//! pixel of 16 images, and no product is one with zeros.

/// Calls a kernel's method with the step between output pixels and the taps in a row of taps as constants: those of
/// [`in_rows`].
macro_rules! with_row {
    ($step:expr, $taps:expr, $kernel:ident.$method:ident($($argument:expr),*)) => {
        match ($step, $taps) {
            (1, 1) => $kernel.$method::<1, 1>($($argument),*),
            (1, 2) => $kernel.$method::<1, 2>($($argument),*),
            (1, 3) => $kernel.$method::<1, 3>($($argument),*),
            (2, 1) => $kernel.$method::<2, 1>($($argument),*),
            (2, 2) => $kernel.$method::<2, 2>($($argument),*),
            (2, 3) => $kernel.$method::<2, 3>($($argument),*),
            (step, taps) => unreachable!("{taps} taps in a row with step {step} are not stacked"),
        }
    };
}

pub mod correlate;
mod lattice;
mod output;
mod pack;
mod stacked;
mod stacked_weight;
pub mod weight;

use super::class::Class;
use crate::simd::amx::Amx;
use crate::{Element, Isa};

/// The longest step between output pixels for which a lattice, which has a plane for each, is not a waste.
const LONGEST_STEP: usize = 4;

/// Whether convolutions of E whose output pixels are `step` apart are computed by products of tiles.
pub fn chosen<E: Element>(isa: Isa, step: usize) -> Option<Amx> {
    if E::BF16 && step <= LONGEST_STEP { Amx::of(isa) } else { None }
}

/// Whether images can be stacked: the registers hold the taps of a row of taps, of which there is more than one in all.
fn in_rows(class: &Class) -> bool {
    matches!((class.step, class.taps_in_row()), (1 | 2, 1..=3)) && class.taps.len() > 1
}
