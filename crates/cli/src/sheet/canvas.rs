//! A sheet to put pictures and words on.

use image::RgbImage;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width};

/// Height of a line of text in pixels.
pub const LINE: usize = RasterHeight::Size16.val();
/// Width of a letter in pixels.
pub const LETTER: usize = get_raster_width(FontWeight::Regular, RasterHeight::Size16);

/// Off white, so that a view that is all white shows.
const PAPER: u8 = 238;

/// `name` in the letters of the font, which has those of European languages in Latin script; others become question
/// marks. If it has none of them, beside the ending of a file's name, then `thing` and `number`, such as `class 7`.
pub fn written(name: &str, thing: &str, number: u32) -> String {
    let letters: Vec<char> = name.chars().filter(|&letter| !is_mark(letter)).collect();
    if letters.iter().all(|&letter| raster(letter).is_some()) && !letters.is_empty() {
        return letters.into_iter().collect();
    }
    let file = name.rsplit('/').next().unwrap_or(name);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    match stem.chars().any(|letter| letter.is_alphanumeric() && raster(letter).is_some()) {
        true => letters.into_iter().map(|letter| raster(letter).map_or('?', |_| letter)).collect(),
        false => format!("{thing} {number}"),
    }
}

/// Whether a character only changes the letter before it, as accents do that are written apart from it, or is
/// invisible.
fn is_mark(letter: char) -> bool {
    matches!(letter, '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' | '\u{ad}')
}

/// The raster of a letter, unless it is invisible: the font has some letters without any ink.
fn raster(letter: char) -> Option<RasterizedChar> {
    let raster = get_raster(letter, FontWeight::Regular, RasterHeight::Size16)?;
    let is_seen = letter.is_whitespace() || raster.rows().any(|row| row.iter().any(|&ink| ink > 0));
    is_seen.then_some(raster)
}

/// A picture being made.
pub struct Canvas {
    image: RgbImage,
}

impl Canvas {
    /// An empty canvas of `width` x `height` pixels.
    pub fn new(width: usize, height: usize) -> Canvas {
        Canvas { image: RgbImage::from_pixel(width as u32, height as u32, image::Rgb([PAPER; 3])) }
    }

    /// Puts `picture` with its upper left corner at (x, y).
    pub fn put(&mut self, picture: &RgbImage, x: usize, y: usize) {
        image::imageops::replace(&mut self.image, picture, x as i64, y as i64);
    }

    /// Writes a line, its upper left corner at (x, y); letters that the font lacks become question marks.
    pub fn write(&mut self, text: &str, x: usize, y: usize, shade: u8) {
        for (i, letter) in text.chars().enumerate() {
            let Some(raster) = raster(letter).or_else(|| raster('?')) else { continue };
            for (dy, row) in raster.rows().enumerate() {
                for (dx, &ink) in row.iter().enumerate() {
                    self.ink(x + i * LETTER + dx, y + dy, ink, shade);
                }
            }
        }
    }

    fn ink(&mut self, x: usize, y: usize, ink: u8, shade: u8) {
        if let Some(pixel) = self.image.get_pixel_mut_checked(x as u32, y as u32) {
            let mix = |paper: u8| {
                let (paper, shade, ink) = (u32::from(paper), u32::from(shade), u32::from(ink));
                ((paper * (255 - ink) + shade * ink) / 255) as u8
            };
            pixel.0 = pixel.0.map(mix);
        }
    }

    /// The finished picture.
    pub fn into_image(self) -> RgbImage {
        self.image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_far_as_the_font_goes() {
        for name in ["daisy", "Gänseblümchen", "mák", "pâquerette", "stokrotka łąkowa", ".5", "?"] {
            assert_eq!(written(name, "class", 3), name);
        }
        // The font has a raster for \u{ad}, but without ink.
        let names = [
            ("Löwenzahn 🌼", "Löwenzahn ?"),
            ("a/ünï cödé 🌸.webp", "a/ünï cödé ?.webp"),
            ("雛菊 no. 2", "?? no. 2"),
            ("雛菊/2.jpg", "??/2.jpg"),
            ("a\u{301}\u{200b}b\u{ad}c", "abc"),
        ];
        for (name, told) in names {
            assert_eq!(written(name, "class", 3), told);
        }
    }

    #[test]
    fn names_of_which_nothing_can_be_written_are_numbers() {
        for name in ["猫", "ромашка", "雛菊 🌼", "a/雛菊.jpg", "\u{ad}", ""] {
            assert_eq!(written(name, "class", 3), "class 3");
        }
    }

    #[test]
    fn letters_that_the_font_lacks_are_seen() {
        let ink = |text: &str| {
            let mut canvas = Canvas::new(2 * LETTER, LINE);
            canvas.write(text, 0, 0, 0);
            canvas.into_image().pixels().filter(|pixel| pixel.0[0] < 100).count()
        };
        for letter in ["ж", "雛", "\u{ad}", "\u{85}"] {
            assert_eq!(ink(letter), ink("?"), "{letter:?}");
        }
    }
}
