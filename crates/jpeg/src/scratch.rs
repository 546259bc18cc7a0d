//! Memory that decoding needs besides the pixels, kept from one image to the next.

use simclr_isa::Isa;

use crate::header::Component;
use crate::huffman::{Ac, Codes, Kept};
use crate::planes::Planes;
use crate::rows::Lines;
use crate::scan::Scan;

/// Buffers and tables that are kept from one image to the next.
#[derive(Default)]
pub struct Scratch {
    pub(crate) isa: Isa,
    pub(crate) scan: Scan,
    pub(crate) tables: Tables,
    pub(crate) planes: Planes,
    pub(crate) lines: Lines,
}

impl Scratch {
    /// Creates scratch space for decoding with the vectors of `isa` instead of the best of this processor.
    pub fn with_isa(isa: Isa) -> Self {
        Self { isa, ..Self::default() }
    }
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("isa", &self.isa).finish_non_exhaustive()
    }
}

/// The Huffman tables of the components.
#[derive(Default)]
pub(crate) struct Tables {
    dc: [Kept<Codes>; 3],
    ac: [Kept<Ac>; 3],
    /// The indices of the DC and the AC table of each component: equal tables are built once.
    places: [(usize, usize); 3],
}

impl Tables {
    pub fn prepare(&mut self, components: &[Component; 3]) {
        for (number, component) in components.iter().enumerate() {
            let before = |same: fn(&Component, &Component) -> bool| {
                components[..number].iter().position(|other| same(other, component)).unwrap_or(number)
            };
            let (dc, ac) = (before(|a, b| a.dc == b.dc), before(|a, b| a.ac == b.ac));
            self.places[number] = (dc, ac);
            self.dc[dc].prepare(component.dc, Codes::fill);
            self.ac[ac].prepare(component.ac, Ac::fill);
        }
    }

    pub fn of(&self, component: usize) -> (&Codes, &Ac) {
        let (dc, ac) = self.places[component];
        (&self.dc[dc].table, &self.ac[ac].table)
    }
}
