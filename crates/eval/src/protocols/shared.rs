//! Test images that are learnt from as well.

/// Test images that equal others to learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedImages {
    /// How many.
    pub images: usize,
    /// The first of them, as the test images are numbered.
    pub first: usize,
    /// An image to learn from that equals it, as those are numbered.
    pub like: usize,
}

impl SharedImages {
    /// Of groups of the `same` images ([`simclr_data::copies`]) in a data set that has `learnt` images to learn from
    /// and behind them those to test on; `None` where none is in both.
    pub fn of(same: &[Vec<u32>], learnt: usize) -> Option<SharedImages> {
        let split = |group: &Vec<u32>| {
            let at = group.partition_point(|&image| (image as usize) < learnt);
            (at > 0 && at < group.len()).then(|| (group[0], group[at], group.len() - at))
        };
        let found: Vec<(u32, u32, usize)> = same.iter().filter_map(split).collect();
        let &(like, first, _) = found.iter().min_by_key(|&&(_, first, _)| first)?;
        let images = found.iter().map(|&(.., images)| images).sum();
        Some(SharedImages { images, first: first as usize - learnt, like: like as usize })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_in_both_parts_count() {
        // Five to learn from, four to test on.
        let same = [vec![0, 1], vec![2, 7], vec![3, 4, 5, 8]];
        assert_eq!(SharedImages::of(&same, 5), Some(SharedImages { images: 3, first: 0, like: 3 }));
        assert_eq!(SharedImages::of(&same[..1], 5), None);
    }
}
