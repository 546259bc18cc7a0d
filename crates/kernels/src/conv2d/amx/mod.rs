//! Convolutions of bf16 by AMX's products of tiles: implicit matrix products, as the direct form, with another layout.
//!
//! A tile has 16 rows at equal distances in memory. Pixels are therefore copied to a [`lattice`] on which 16
//! consecutive output pixels read source pixels at equal distances, for every tap and across the ends of rows and
//! images. Between the rows and images lie zeros that both neighbours share; a product is computed for every place of
//! the lattice, and those of places that are no pixel are dropped (or, where products are summed over pixels, the other
//! factor is 0 there).

pub mod correlate;
mod lattice;
pub mod weight;

use crate::{Element, Isa, Level};

/// Whether convolutions of E are computed by products of tiles.
pub fn multiplies<E: Element>(isa: Isa) -> bool {
    E::BF16 && isa.level() >= Level::Amx
}
