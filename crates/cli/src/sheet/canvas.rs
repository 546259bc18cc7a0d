//! A sheet to put pictures and words on.

use image::RgbImage;
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width};

/// Height of a line of text in pixels.
pub const LINE: usize = RasterHeight::Size16.val();
/// Width of a letter in pixels.
pub const LETTER: usize = get_raster_width(FontWeight::Regular, RasterHeight::Size16);

/// Off white, so that a view that is all white shows.
const PAPER: u8 = 238;

/// `name` if the font has all its letters, as it has those of European languages in Latin script; else `thing` and
/// `number`, such as `class 7`.
pub fn written(name: &str, thing: &str, number: u32) -> String {
    match name.chars().all(|letter| raster(letter).is_some()) {
        true => name.to_owned(),
        false => format!("{thing} {number}"),
    }
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
    fn names_that_cannot_be_written_are_numbers() {
        for name in ["daisy", "Gänseblümchen", "mák", "pâquerette", "stokrotka łąkowa"] {
            assert_eq!(written(name, "class", 3), name);
        }
        // The font has a raster for the last, but without ink.
        for name in ["ромашка", "雛菊", "a\u{301}", "a\u{200b}", "\u{ad}"] {
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
