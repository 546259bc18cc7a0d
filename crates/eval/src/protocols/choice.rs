//! What a setting that validation images chose is worth.

use simclr_words::words;

/// With fewer validation images than this, a choice is a matter of chance: each image is 5 points or more, and the 95%
/// interval of an accuracy reaches up to 20 points or more to either side.
pub const FEW_TO_CHOOSE_BY: usize = 20;

words! {
    /// Where the best value lies among those tried, if others beyond it may do better.
    Edge {
        /// No lower value was tried.
        Lowest = "lowest",
        /// No higher value was tried.
        Highest = "highest",
    }
}

impl Edge {
    /// Where others lie that may do better.
    pub fn beyond(self) -> &'static str {
        match self {
            Edge::Lowest => "lower",
            Edge::Highest => "higher",
        }
    }

    /// The edge at which `chosen` lies among the values `tried`, each with its score, `None` if its training diverged.
    /// None if the next value did as well: then the best is not known to lie outside.
    pub(super) fn of(chosen: f64, tried: impl Iterator<Item = (f64, Option<f64>)>) -> Option<Edge> {
        let mut tried: Vec<(f64, Option<f64>)> = tried.collect();
        tried.sort_by(|one, other| one.0.total_cmp(&other.0));
        let at = tried.iter().position(|&(value, _)| value == chosen)?;
        let score = tried[at].1?;
        let beats = |next: usize| tried.get(next).is_some_and(|next| next.1.is_none_or(|next| next < score));
        match at.checked_sub(1) {
            None => beats(1).then_some(Edge::Lowest),
            Some(before) if at + 1 == tried.len() => beats(before).then_some(Edge::Highest),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_may_lie_outside() {
        let of = |chosen, scores: [Option<f64>; 3]| Edge::of(chosen, [0.3, 0.1, 0.2].into_iter().zip(scores));
        let [low, mid, high] = [0.1, 0.5, 0.9].map(Some);
        assert_eq!(of(0.1, [low, high, mid]), Some(Edge::Lowest));
        assert_eq!(of(0.3, [high, low, mid]), Some(Edge::Highest));
        assert_eq!(of(0.2, [mid, low, high]), None);
        // All higher ones diverge.
        assert_eq!(of(0.1, [None, high, None]), Some(Edge::Lowest));
        // The next does as well, or better but diverges on all images.
        assert_eq!(of(0.1, [low, high, high]), None);
        assert_eq!(of(0.1, [low, mid, high]), None);
        assert_eq!(Edge::of(0.1, [(0.1, high)].into_iter()), None);
    }
}
