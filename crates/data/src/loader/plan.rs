//! How the places of training are cut into runs.

use std::ops::Range;

use super::Position;

/// The sequence of runs that workers claim, numbered from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub start: Position,
    /// The total number of places; `None` if epoch follows epoch.
    pub end: Option<u64>,
    /// Places in a run.
    pub run: u64,
}

impl Plan {
    /// The places of run `number`; `None` past the end.
    pub fn places(&self, number: u64) -> Option<Range<u64>> {
        let first = self.start.0.saturating_add(number.saturating_mul(self.run));
        let last = self.end.unwrap_or(u64::MAX).min(first.saturating_add(self.run));
        (first < last).then_some(first..last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_place_once_from_any_start() {
        for start in [0, 3, 10, 25] {
            let plan = Plan { start: Position(start), end: None, run: 4 };
            let places = (0..9).flat_map(|number| plan.places(number).unwrap());
            assert!(places.eq(start..start + 36), "from {start}");
        }
    }

    #[test]
    fn a_single_pass_ends() {
        let plan = Plan { start: Position::default(), end: Some(5), run: 4 };
        assert_eq!(plan.places(1), Some(4..5));
        assert_eq!(plan.places(2), None);
    }
}
