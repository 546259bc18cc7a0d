//! Test images that are training images too.

/// Test images that equal training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedImages {
    /// How many.
    pub images: usize,
    /// The first of them, as an index among the test images.
    pub first: usize,
    /// An equal training image, as an index among the training images.
    pub like: usize,
}

impl SharedImages {
    /// Finds them from the groups of the `same` image ([`simclr_data::copies`]) in a data set of `learnt` training
    /// images followed by the test images; `None` if no image is in both.
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
        // Five training images, four test images.
        let same = [vec![0, 1], vec![2, 7], vec![3, 4, 5, 8]];
        assert_eq!(SharedImages::of(&same, 5), Some(SharedImages { images: 3, first: 0, like: 3 }));
        assert_eq!(SharedImages::of(&same[..1], 5), None);
    }
}
