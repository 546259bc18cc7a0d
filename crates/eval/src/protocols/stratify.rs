//! A part of every class.

use simclr_augment::Stream;

/// Takes the place of the image number in the keys of the streams that draw parts.
const STRATIFY: u64 = u64::from_le_bytes(*b"stratify");

/// Splits the rows `0..labels.len()` at random into (the rest, a part), both ascending: of each class the part
/// holds the share `fraction`, rounded, but at least one row and not all. A class with a single row stays whole in
/// the rest.
///
/// The same seed makes the same split.
pub(super) fn stratify(labels: &[u32], fraction: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    let mut by_class = vec![Vec::new(); classes];
    for (row, &label) in labels.iter().enumerate() {
        by_class[label as usize].push(row);
    }
    let (mut rest, mut part) = (Vec::new(), Vec::new());
    for (label, mut rows) in by_class.into_iter().enumerate() {
        let mut stream = Stream::new(seed, label as u64, STRATIFY, 0);
        for i in (1..rows.len()).rev() {
            rows.swap(i, stream.below(i as u32 + 1) as usize);
        }
        let most = rows.len().saturating_sub(1);
        let count = ((rows.len() as f64 * fraction).round() as usize).max(1).min(most);
        part.extend(rows.drain(..count));
        rest.extend(rows);
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
        let (rest, part) = stratify(&labels, 0.1, 7);
        let count = |rows: &[usize], class| rows.iter().filter(|&&row| labels[row] == class).count();
        assert_eq!([0, 1, 3, 4].map(|class| count(&part, class)), [10, 5, 1, 0]);
        assert_eq!([0, 1, 3, 4].map(|class| count(&rest, class)), [90, 45, 1, 1]);
        let mut all = [rest.clone(), part.clone()].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..labels.len()));
        assert_eq!(stratify(&labels, 0.1, 7), (rest, part.clone()));
        assert_ne!(stratify(&labels, 0.1, 8).1, part);
        assert_eq!(stratify(&[], 0.1, 7), (vec![], vec![]));
    }
}
