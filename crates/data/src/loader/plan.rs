//! How the places of the epochs are cut into runs.

use std::ops::Range;

use super::Position;

/// The sequence of runs that workers claim, numbered from 0. A run never crosses the end of an epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub start: Position,
    /// Places in an epoch: the images of the data set, or of a share of it.
    pub places: u64,
    /// Places in a run.
    pub run: u64,
    /// Whether epoch follows epoch, or the first is all.
    pub endless: bool,
}

/// One run: some places of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub epoch: u64,
    pub places: Range<u64>,
}

impl Plan {
    /// Run `number`; `None` past the end.
    pub fn span(&self, number: u64) -> Option<Span> {
        let in_first = self.places.saturating_sub(self.start.next).div_ceil(self.run);
        let (epoch, first) = if number < in_first {
            (self.start.epoch, self.start.next + number * self.run)
        } else if self.endless {
            let per_epoch = self.places.div_ceil(self.run);
            let later = number - in_first;
            (self.start.epoch + 1 + later / per_epoch, later % per_epoch * self.run)
        } else {
            return None;
        };
        Some(Span { epoch, places: first..(first + self.run).min(self.places) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_every_place_once_from_any_start() {
        for next in [0, 3, 9, 10, 25] {
            let plan = Plan { start: Position { epoch: 4, next }, places: 10, run: 4, endless: true };
            let mut places = Vec::new();
            for number in 0.. {
                let span = plan.span(number).unwrap();
                if span.epoch > 5 {
                    break;
                }
                places.extend(span.places.map(|place| (span.epoch, place)));
            }
            let expected = (next..10).map(|place| (4, place)).chain((0..10).map(|place| (5, place)));
            assert!(places.into_iter().eq(expected), "from {next}");
        }
    }

    #[test]
    fn a_single_pass_ends() {
        let plan = Plan { start: Position::default(), places: 5, run: 4, endless: false };
        assert_eq!(plan.span(1), Some(Span { epoch: 0, places: 4..5 }));
        assert_eq!(plan.span(2), None);
    }
}
