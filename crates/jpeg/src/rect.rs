//! The part of an image to decode.

use std::ops::Range;

/// A rectangle of pixels. Several form a region; their parts beyond the image are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Number of columns.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

impl Rect {
    /// The whole of an image.
    pub fn whole(width: u32, height: u32) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    fn rows(&self) -> Range<usize> {
        self.top as usize..self.top as usize + self.height as usize
    }

    fn columns(&self) -> Range<usize> {
        self.left as usize..self.left as usize + self.width as usize
    }
}

/// The smallest range of columns that holds the part of `region` in `rows`; empty if it has none there.
pub(crate) fn columns(region: &[Rect], rows: Range<usize>) -> Range<usize> {
    join(region.iter().filter(|rect| meet(&rect.rows(), &rows)).map(Rect::columns))
}

/// The smallest range of rows that holds all of `region`.
pub(crate) fn rows(region: &[Rect]) -> Range<usize> {
    join(region.iter().filter(|rect| rect.width > 0).map(Rect::rows))
}

fn meet(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

fn join(ranges: impl Iterator<Item = Range<usize>>) -> Range<usize> {
    ranges
        .filter(|range| !range.is_empty())
        .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
        .unwrap_or(0..0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_the_rectangles_that_rows_meet() {
        let rect = |left, top, width, height| Rect { left, top, width, height };
        let region = [rect(10, 0, 5, 20), rect(40, 10, 10, 30), rect(0, 0, 0, 100)];
        assert_eq!(columns(&region, 0..10), 10..15);
        assert_eq!(columns(&region, 9..11), 10..50);
        assert_eq!(columns(&region, 20..21), 40..50);
        assert_eq!(columns(&region, 40..60), 0..0);
        assert_eq!(rows(&region), 0..40);
        assert_eq!(rows(&[]), 0..0);
        assert_eq!(columns(&[rect(u32::MAX, 0, u32::MAX, 1)], 0..1).start, u32::MAX as usize);
    }
}
