//! Tracks which parts of a few long stretches of memory are in use, without owning the memory.

/// Ranges are handed out in multiples of a page.
const PAGE: usize = 4096;
/// The least length of a stretch.
const LEAST: usize = 256 << 20;

/// The start of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The stretch, from 0 in the order in which they were added.
    pub stretch: usize,
    /// Bytes from its start.
    pub offset: usize,
}

/// Allocates ranges of stretches of memory by best fit, and merges adjacent free ranges.
///
/// A network's tensors come in many sizes, each alive at another time: if free memory were kept by size, the late
/// layers could not use what the early ones leave.
#[derive(Debug, Default)]
pub struct Arena {
    /// The length of each stretch, and how much of it was ever handed out, from its start.
    stretches: Vec<(usize, usize)>,
    /// Free ranges sorted by place, no two of them adjacent. They are few, so a sorted list suffices, which allocates
    /// nothing.
    free: Vec<(Place, usize)>,
}

impl Arena {
    /// Takes a range of `bytes` from the smallest free range that is large enough.
    pub fn take(&mut self, bytes: usize) -> Option<Place> {
        let size = size(bytes);
        let fitting = self.free.iter().enumerate().filter(|(_, (_, len))| *len >= size);
        let (index, &(place, len)) = fitting.min_by_key(|(_, (_, len))| *len)?;
        if len > size {
            self.free[index] = (Place { offset: place.offset + size, ..place }, len - size);
        } else {
            self.free.remove(index);
        }
        let used = &mut self.stretches[place.stretch].1;
        *used = (*used).max(place.offset + size);
        Some(place)
    }

    /// The length of the stretch to add for `bytes` that do not fit: as long as all existing ones together, so that
    /// there are few stretches. Memory that is never handed out is never touched.
    pub fn next_stretch(&self, bytes: usize) -> usize {
        let all: usize = self.stretches.iter().map(|(len, _)| len).sum();
        size(bytes).max(all).max(LEAST)
    }

    /// Adds a stretch of `len` bytes.
    pub fn add(&mut self, len: usize) {
        self.free.push((Place { stretch: self.stretches.len(), offset: 0 }, len));
        self.stretches.push((len, 0));
    }

    /// Takes a range of `bytes` back.
    pub fn give_back(&mut self, place: Place, bytes: usize) {
        let size = size(bytes);
        let index = self.free.partition_point(|(free, _)| *free < place);
        let end = Place { offset: place.offset + size, ..place };
        let before = index.checked_sub(1).filter(|&before| {
            let (free, len) = self.free[before];
            Place { offset: free.offset + len, ..free } == place
        });
        let after = self.free.get(index).filter(|(free, _)| *free == end).map(|(_, len)| *len);
        match (before, after) {
            (Some(before), Some(after)) => {
                self.free[before].1 += size + after;
                self.free.remove(index);
            }
            (Some(before), None) => self.free[before].1 += size,
            (None, Some(after)) => self.free[index] = (place, size + after),
            (None, None) => self.free.insert(index, (place, size)),
        }
    }

    /// Whether no range is in use.
    pub fn is_idle(&self) -> bool {
        let whole = |(stretch, &(len, _))| (Place { stretch, offset: 0 }, len);
        self.free.iter().copied().eq(self.stretches.iter().enumerate().map(whole))
    }

    /// The bytes of all stretches that were ever handed out.
    pub fn used_in_all(&self) -> usize {
        self.stretches.iter().map(|(_, used)| used).sum()
    }
}

/// `bytes` rounded up to whole pages; on overflow, more than the length of any stretch.
fn size(bytes: usize) -> usize {
    bytes.max(1).checked_next_multiple_of(PAGE).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_become_one_again() {
        let mut arena = Arena::default();
        assert_eq!(arena.take(1), None);
        arena.add(arena.next_stretch(1));
        assert_eq!(arena.take(usize::MAX), None);
        let places: Vec<Place> = (0..4).map(|_| arena.take(2 * PAGE).unwrap()).collect();
        assert_eq!(arena.used_in_all(), 8 * PAGE);
        // Leaves a hole of two pages, then one of four: the best fit is taken.
        arena.give_back(places[0], 2 * PAGE);
        assert_eq!(arena.take(PAGE).unwrap(), places[0]);
        arena.give_back(places[0], PAGE);
        arena.give_back(places[1], 2 * PAGE);
        assert_eq!(arena.take(3 * PAGE).unwrap(), places[0]);
        assert!(!arena.is_idle());
        arena.give_back(places[0], 3 * PAGE);
        arena.give_back(places[3], 2 * PAGE);
        arena.give_back(places[2], 2 * PAGE);
        assert!(arena.is_idle());
        assert_eq!((arena.used_in_all(), arena.free.len()), (8 * PAGE, 1));
    }

    proptest! {
        #[test]
        fn ranges_in_use_never_overlap(sizes in prop::collection::vec((1usize..40 << 20, 0usize..5), 1..60)) {
            let mut arena = Arena::default();
            let mut alive: Vec<(Place, usize)> = Vec::new();
            for (bytes, drops) in sizes {
                let place = arena.take(bytes).unwrap_or_else(|| {
                    arena.add(arena.next_stretch(bytes));
                    arena.take(bytes).unwrap()
                });
                for &(other, len) in &alive {
                    let apart = other.stretch != place.stretch
                        || other.offset + len <= place.offset
                        || place.offset + bytes <= other.offset;
                    prop_assert!(apart, "{place:?} {bytes} and {other:?} {len}");
                }
                prop_assert!(place.offset + bytes <= arena.stretches[place.stretch].1);
                alive.push((place, bytes));
                for _ in 0..drops.min(alive.len()) {
                    let (place, bytes) = alive.remove(drops * 7 % alive.len());
                    arena.give_back(place, bytes);
                }
            }
            alive.into_iter().for_each(|(place, bytes)| arena.give_back(place, bytes));
            prop_assert!(arena.is_idle());
        }
    }
}
