//! Which parts of a few large stretches of memory are in use: bookkeeping alone, without the memory.

use std::collections::BTreeMap;

/// Ranges are handed out in multiples of a page.
const PAGE: usize = 4096;
/// The least that a stretch has.
const LEAST: usize = 256 << 20;

/// Where a range lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stretch, from 0 in the order in which they were added.
    pub stretch: usize,
    /// Bytes from its start.
    pub offset: usize,
}

/// Stretches of memory, from which ranges are taken where they fit most closely, and whose free neighbours become one again.
///
/// A network's tensors come in many sizes, each alive at another time: kept by size, what the early layers leave would be of no use to
/// the late ones.
#[derive(Debug, Default)]
pub struct Arena {
    /// Lengths, and how much of each was ever handed out, from its start.
    stretches: Vec<(usize, usize)>,
    /// Lengths of free ranges by stretch and offset.
    free: BTreeMap<(usize, usize), usize>,
}

impl Arena {
    /// A free range of `bytes`: the smallest that is large enough.
    pub fn take(&mut self, bytes: usize) -> Option<Place> {
        let size = size(bytes);
        let fitting = self.free.iter().filter(|&(_, &len)| len >= size).min_by_key(|&(_, &len)| len);
        let (&(stretch, offset), &len) = fitting?;
        self.free.remove(&(stretch, offset));
        if len > size {
            self.free.insert((stretch, offset + size), len - size);
        }
        let used = &mut self.stretches[stretch].1;
        *used = (*used).max(offset + size);
        Some(Place { stretch, offset })
    }

    /// How long the stretch should be that is added for `bytes` that do not fit: as long as all before it, so that there
    /// are few. What is never handed out is never touched.
    pub fn next_stretch(&self, bytes: usize) -> usize {
        let all: usize = self.stretches.iter().map(|(len, _)| len).sum();
        size(bytes).max(all).max(LEAST)
    }

    /// Adds a stretch of `len` bytes.
    pub fn add(&mut self, len: usize) {
        self.free.insert((self.stretches.len(), 0), len);
        self.stretches.push((len, 0));
    }

    /// Takes a range of `bytes` back.
    pub fn give_back(&mut self, place: Place, bytes: usize) {
        let Place { stretch, mut offset } = place;
        let mut len = size(bytes);
        if let Some(after) = self.free.remove(&(stretch, offset + len)) {
            len += after;
        }
        let before = self.free.range(..(stretch, offset)).next_back().map(|(&key, &len)| (key, len));
        if let Some((key, before)) = before.filter(|&(key, before)| key == (stretch, offset - before)) {
            self.free.remove(&key);
            (offset, len) = (offset - before, len + before);
        }
        self.free.insert((stretch, offset), len);
    }

    /// Whether nothing is in use.
    pub fn is_idle(&self) -> bool {
        let free = |(index, &(len, _)): (usize, &(usize, usize))| self.free.get(&(index, 0)) == Some(&len);
        self.stretches.iter().enumerate().all(free)
    }

    /// Bytes of a stretch that were ever handed out, from its start.
    pub fn used(&self, stretch: usize) -> usize {
        self.stretches[stretch].1
    }

    /// Bytes that were ever handed out.
    pub fn used_in_all(&self) -> usize {
        self.stretches.iter().map(|(_, used)| used).sum()
    }
}

fn size(bytes: usize) -> usize {
    bytes.max(1).next_multiple_of(PAGE)
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
        let places: Vec<Place> = (0..4).map(|_| arena.take(2 * PAGE).unwrap()).collect();
        assert_eq!(arena.used_in_all(), 8 * PAGE);
        // A hole of two pages, then of four: what fits closest is taken.
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
        assert_eq!((arena.used(0), arena.free.len()), (8 * PAGE, 1));
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
                prop_assert!(place.offset + bytes <= arena.used(place.stretch));
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
