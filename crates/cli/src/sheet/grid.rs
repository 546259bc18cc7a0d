//! A sheet of rows: a picture, and beside it those that belong to it, each with words below it.

use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::canvas::{Canvas, LETTER, LINE};

/// Pictures smaller than this are shown enlarged, pixel by pixel.
const LEAST_SIDE: u32 = 128;
const GAP: usize = 12;
const TEXT: u8 = 40;
const FAINT: u8 = 110;

/// A picture and the lines below it.
pub struct Cell {
    /// RGB.
    pub picture: RgbImage,
    /// A few words each.
    pub lines: Vec<String>,
}

/// A picture and those that belong to it.
pub struct Row {
    /// What the others belong to, unless that is what those of the row above belong to. Its words are faint, and cut to
    /// the width of a column.
    pub head: Option<Cell>,
    /// The pictures beside it.
    pub cells: Vec<Cell>,
}

/// Draws the sheet, with `legend` at the top. Pictures are `size` pixels wide or high, and enlarged if that is small; a
/// head may have any size.
pub fn draw(rows: &[Row], size: u32, legend: &str) -> RgbImage {
    let side = size * LEAST_SIDE.div_ceil(size).max(1);
    let letters = rows.iter().flat_map(|row| &row.cells).flat_map(|cell| &cell.lines);
    let words = letters.map(|line| line.chars().count() * LETTER).max().unwrap_or(0);
    let column = words.max(side as usize);
    let height = |row: &Row| {
        let cells = row.head.iter().chain(&row.cells);
        side as usize + 4 + LINE * cells.map(|cell| cell.lines.len()).max().unwrap_or(0)
    };
    let columns = 1 + rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let full_height = rows.iter().map(|row| height(row) + GAP).sum::<usize>() + 2 * GAP + LINE;
    // The legend may be wider than a few narrow columns.
    let full_width = (columns * (column + GAP) + GAP).max(legend.chars().count() * LETTER + 2 * GAP);
    let mut canvas = Canvas::new(full_width, full_height);
    canvas.write(legend, GAP, GAP, FAINT);
    let mut y = 2 * GAP + LINE;
    for row in rows {
        if let Some(head) = &row.head {
            place(&mut canvas, head, (GAP, y, side), FAINT, column);
        }
        for (i, cell) in row.cells.iter().enumerate() {
            let x = GAP + (i + 1) * (column + GAP);
            place(&mut canvas, cell, (x, y, side), TEXT, column);
        }
        y += height(row) + GAP;
    }
    canvas.into_image()
}

fn place(canvas: &mut Canvas, cell: &Cell, (x, y, side): (usize, usize, u32), shade: u8, column: usize) {
    let shown = fitted(&cell.picture, side);
    // At the bottom of its square, right above its words.
    canvas.put(&shown, x, y + (side - shown.height()) as usize);
    for (i, line) in cell.lines.iter().enumerate() {
        let line = shortened(line, column / LETTER);
        canvas.write(&line, x, y + side as usize + 4 + i * LINE, shade);
    }
}

/// The picture within a square of `side` pixels, its shape kept; small ones are enlarged pixel by pixel.
pub fn fitted(picture: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = (picture.width(), picture.height());
    let longer = width.max(height).max(1);
    let scaled = |length: u32| {
        let scaled = (u64::from(length) * u64::from(side) + u64::from(longer) / 2) / u64::from(longer);
        (scaled as u32).clamp(1, side)
    };
    let filter = if longer <= side { FilterType::Nearest } else { FilterType::Triangle };
    resize(picture, scaled(width), scaled(height), filter)
}

/// Shortens a name by cutting its beginning: it is the end that tells names apart.
pub fn shortened(text: &str, letters: usize) -> String {
    let count = text.chars().count();
    if count <= letters {
        return text.to_owned();
    }
    let kept = letters.saturating_sub(1);
    std::iter::once('~').chain(text.chars().skip(count - kept)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(width: u32, height: u32, lines: &[&str]) -> Cell {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        Cell { picture: RgbImage::from_pixel(width, height, image::Rgb([200, 10, 10])), lines }
    }

    #[test]
    fn everything_has_its_place() {
        let row =
            Row { head: Some(cell(300, 100, &["a.jpg"])), cells: vec![cell(32, 32, &["flip", "gray"])] };
        let sheet = draw(&[row], 32, "a legend");
        assert_eq!(sheet.dimensions(), (2 * (128 + 12) + 12, 28 + 12 + 128 + 4 + 2 * LINE as u32 + 12));
        let red = |x, y| sheet.get_pixel(x, y).0 == [200, 10, 10];
        // The cell fills its square; the head, three times as wide as high, the lower third of its own.
        assert!(red(152, 40) && red(279, 167));
        assert!(!red(12, 40) && red(12, 167) && red(139, 167 - 40));
        // There are words below.
        assert!((12..140).any(|x| (172..188).any(|y| sheet.get_pixel(x, y).0[0] < 180)));
    }

    #[test]
    fn a_long_legend_has_room() {
        let legend = "legend ".repeat(20) + "|";
        let row = Row { head: Some(cell(32, 32, &[])), cells: vec![cell(32, 32, &[])] };
        let sheet = draw(&[row], 32, &legend);
        assert_eq!(sheet.width() as usize, 141 * LETTER + 2 * GAP);
        let last = sheet.width() - (GAP + LETTER) as u32..sheet.width() - GAP as u32;
        assert!(last.into_iter().any(|x| (12..28).any(|y| sheet.get_pixel(x, y).0[0] < 180)));
    }

    #[test]
    fn awkward_shapes_fit() {
        assert_eq!(fitted(&RgbImage::new(30_000, 1), 128).dimensions(), (128, 1));
        assert_eq!(fitted(&RgbImage::new(1, 1), 128).dimensions(), (128, 128));
        assert_eq!(shortened("class/image.jpg", 10), "~image.jpg");
        assert_eq!(shortened("a", 10), "a");
    }
}
