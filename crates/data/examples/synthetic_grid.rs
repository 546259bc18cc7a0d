//! Draws synthetic images, one column per class: `cargo run --release --example synthetic_grid -- OUT.png [ROWS] [SIZE]`.

use image::{Rgb, RgbImage};
use simclr_data::{Dataset, DecodeScratch, Synthetic};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments.next().ok_or("usage: synthetic_grid OUT.png [ROWS] [SIZE]")?;
    let rows: u32 = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let size: u32 = arguments.next().map_or(Ok(32), |text| text.parse())?;

    let set = Synthetic::new(10 * rows as usize, size, 1);
    let cell = size + 2;
    let mut grid = RgbImage::from_pixel(10 * cell, rows * cell, Rgb([255; 3]));
    let mut scratch = DecodeScratch::default();
    for index in 0..set.len() {
        let image = set.read(index, &mut scratch)?;
        let (left, top) = (index as u32 % 10 * cell, index as u32 / 10 * cell);
        for (i, pixel) in image.pixels.as_chunks::<3>().0.iter().enumerate() {
            let (x, y) = (i as u32 % size, i as u32 / size);
            grid.put_pixel(left + x, top + y, Rgb(*pixel));
        }
    }
    grid.save(out)?;
    Ok(())
}
