//! Convolutions of bf16 by AMX's products of tiles: implicit matrix products, as the direct form, with another layout.
//!
//! A tile has 16 rows at equal distances in memory. Pixels are therefore copied to a [`lattice`] on which 16
//! consecutive output pixels read source pixels at equal distances, for every tap and across the ends of rows and
//! images. Between the rows and images lie zeros that both neighbours share; a product is computed for every place of
//! the lattice, and those of places that are no pixel are dropped (or, where products are summed over pixels, the other
//! factor is 0 there). What a run of taps lacks to a whole tile is multiplied by 0 too: a NaN or an infinity
//! therefore reaches the sums of a neighbouring place as well.

pub mod correlate;
mod lattice;
mod output;
mod pack;
pub mod weight;

use crate::simd::amx::Amx;
use crate::{Element, Isa};

/// The longest step between output pixels for which a lattice, which has a plane for each, is not a waste.
const LONGEST_STEP: usize = 4;

/// Whether convolutions of E whose output pixels are `step` apart are computed by products of tiles.
pub fn chosen<E: Element>(isa: Isa, step: usize) -> Option<Amx> {
    if E::BF16 && step <= LONGEST_STEP { Amx::of(isa) } else { None }
}
