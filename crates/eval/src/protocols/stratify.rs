//! Splits off a share of every class.

use std::collections::{HashMap, HashSet};

use simclr_augment::Stream;

/// Replaces the image number in the keys of the streams that draw parts.
const STRATIFY: u64 = u64::from_le_bytes(*b"stratify");

/// Splits the rows `0..labels.len()` at random into (the rest, a part), both ascending. Of each class the part gets
/// the share `fraction`, rounded, but at least one row and not all. A class with a single row stays in the rest.
///
/// The rows of each group in `together`, ascending, stay on one side. A group counts as of the class of its first row,
/// and joins the part only if the part then stays within its share, unless the part would be empty.
///
/// The same seed makes the same split.
pub(super) fn stratify(
    labels: &[u32],
    together: &[Vec<u32>],
    fraction: f64,
    seed: u64,
) -> (Vec<usize>, Vec<usize>) {
    let with: HashMap<usize, &[u32]> =
        together.iter().filter_map(|group| Some((*group.first()? as usize, &group[1..]))).collect();
    let followers: HashSet<usize> = with.values().copied().flatten().map(|&row| row as usize).collect();
    let size = |row: &usize| 1 + with.get(row).map_or(0, |others| others.len());
    let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let mut by_class = vec![Vec::new(); classes];
    for (row, &label) in labels.iter().enumerate() {
        if !followers.contains(&row) {
            by_class[label as usize].push(row);
        }
    }
    let (mut rest, mut part) = (Vec::new(), Vec::new());
    for (label, mut rows) in by_class.into_iter().enumerate() {
        let mut stream = Stream::new(seed, label as u64, STRATIFY, 0);
        for i in (1..rows.len()).rev() {
            rows.swap(i, stream.below(i as u32 + 1) as usize);
        }
        let all: usize = rows.iter().map(size).sum();
        let wanted = ((all as f64 * fraction).round() as usize).max(1);
        let mut taken = 0;
        let mut fits = |row: &usize| {
            let fits = taken + size(row) <= wanted;
            taken += if fits { size(row) } else { 0 };
            fits
        };
        let (mut chosen, mut others): (Vec<usize>, Vec<usize>) =
            if rows.len() > 1 { rows.into_iter().partition(&mut fits) } else { (Vec::new(), rows) };
        // Every group is larger than the share, or all of them fit.
        if chosen.is_empty() && others.len() > 1 {
            let smallest = (0..others.len()).min_by_key(|&at| size(&others[at])).unwrap_or(0);
            chosen.push(others.remove(smallest));
        } else if others.is_empty() {
            others.extend(chosen.pop());
        }
        part.extend(chosen);
        rest.extend(others);
    }
    for side in [&mut rest, &mut part] {
        let others: Vec<usize> =
            side.iter().filter_map(|row| with.get(row)).copied().flatten().map(|&row| row as usize).collect();
        side.extend(others);
    }
    rest.sort_unstable();
    part.sort_unstable();
    (rest, part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_gives_its_share() {
        // 100 of class 0, 50 of class 1, none of class 2, two of class 3, one of class 4.
        let labels: Vec<u32> = [vec![0; 100], vec![1; 50], vec![3; 2], vec![4; 1]].concat();
        let (rest, part) = stratify(&labels, &[], 0.1, 7);
        let count = |rows: &[usize], class| rows.iter().filter(|&&row| labels[row] == class).count();
        assert_eq!([0, 1, 3, 4].map(|class| count(&part, class)), [10, 5, 1, 0]);
        assert_eq!([0, 1, 3, 4].map(|class| count(&rest, class)), [90, 45, 1, 1]);
        let mut all = [rest.clone(), part.clone()].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..labels.len()));
        assert_eq!(stratify(&labels, &[], 0.1, 7), (rest, part.clone()));
        assert_ne!(stratify(&labels, &[], 0.1, 8).1, part);
        assert_eq!(stratify(&[], &[], 0.1, 7), (vec![], vec![]));
    }

    #[test]
    fn groups_stay_on_one_side() {
        let labels: Vec<u32> = [vec![0; 60], vec![1; 60]].concat();
        // Fifteen pairs in class 0; in class 1 one image thirty times, and one pair.
        let pairs: Vec<Vec<u32>> = (0..15).map(|row| vec![row, 59 - row]).collect();
        let groups = [pairs, vec![(60..90).collect(), vec![90, 91]]].concat();
        let (rest, part) = stratify(&labels, &groups, 0.2, 3);
        let count = |class| part.iter().filter(|&&row| labels[row] == class).count();
        assert_eq!([count(0), count(1)], [12, 12]);
        for group in &groups {
            let inside = group.iter().filter(|&&row| part.contains(&(row as usize))).count();
            assert!(inside == 0 || inside == group.len(), "{group:?}");
        }
        let mut all = [rest, part].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..labels.len()));
        // Of two images, ten copies each, one goes to the part; a single image stays in the rest.
        let two = [(0..10).collect(), (10..20).collect::<Vec<u32>>()];
        assert_eq!(stratify(&[0; 20], &two, 0.2, 1).1.len(), 10);
        assert_eq!(stratify(&[0; 10], &two[..1], 0.2, 1).1.len(), 0);
        // A group with two classes counts as of the class of its first row.
        let (rest, part) = stratify(&[0, 1, 0, 1, 0, 1], &[vec![0, 1], vec![2, 3], vec![4, 5]], 0.2, 1);
        assert_eq!((rest.len(), part.len()), (4, 2));
    }
}
