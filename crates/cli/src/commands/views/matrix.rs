//! The paper's table of compositions (arXiv:2002.05709, figure 5) on one image: a row and a column for each operator.

use anyhow::Result;
use image::RgbImage;
use image::imageops::{FilterType, resize};
use simclr_augment::{
    ColorJitter, CropBox, Cutout, GaussianBlur, GaussianNoise, Grayscale, ImageRef, RandomResizedCrop,
    Rotation, Scratch, Sobel, Stream, ViewFamily, ViewOp,
};

use crate::sheet::canvas::{Canvas, LETTER, LINE};
use crate::sheet::picture;

/// Views smaller than this are shown enlarged, pixel by pixel.
const LEAST_SIDE: u32 = 112;
const GAP: usize = 10;
/// What the operators are composed with, too: the name of the first row and of the first column.
const IDENTITY: &str = "identity";
/// Place for the names of rows.
const LEFT: usize = IDENTITY.len() * LETTER + 2 * GAP;
const TEXT: u8 = 40;
const FAINT: u8 = 110;

/// The operators of the figure, in its order.
fn operators() -> Vec<(&'static str, Vec<ViewOp>)> {
    let jitter = ColorJitter { prob: 1.0, ..ColorJitter::default() };
    let blur = GaussianBlur { prob: Some(1.0), sigma: [1.0, 2.0], ..GaussianBlur::default() };
    vec![
        ("crop", vec![ViewOp::RandomResizedCrop(RandomResizedCrop::default())]),
        ("cutout", vec![ViewOp::Cutout(Cutout::default())]),
        ("color", vec![ViewOp::ColorJitter(jitter), ViewOp::Grayscale(Grayscale::default())]),
        ("sobel", vec![ViewOp::Sobel(Sobel::default())]),
        ("noise", vec![ViewOp::GaussianNoise(GaussianNoise::default())]),
        ("blur", vec![ViewOp::GaussianBlur(blur)]),
        ("rotate", vec![ViewOp::Rotation(Rotation::default())]),
    ]
}

/// Draws the table of views of `size` x `size` pixels. Row i, column j shows operator i, then operator j; the diagonal
/// shows each operator alone, and the corner the identity, as the other branch sees it. All operators but `crop` act on
/// the same crop.
pub fn draw(image: ImageRef<'_>, index: u32, size: u32, seed: u64) -> Result<RgbImage> {
    let operators = operators();
    let side = size * LEAST_SIDE.div_ceil(size).max(1);
    let (step, left) = (side as usize + GAP, LEFT);
    let extent = step * operators.len();
    let mut canvas = Canvas::new(left + step + extent, LINE + 2 * GAP + step + extent);
    let mut scratch = Scratch::default();
    let mut stream = Stream::new(seed, 0, index.into(), 0);
    let shared = RandomResizedCrop { area: [0.6, 1.0], ..RandomResizedCrop::default() };
    let shared = ViewFamily::from_ops(&[ViewOp::RandomResizedCrop(shared)], size)?
        .draw(image.width, image.height, &mut stream)
        .crop;
    let mut cell = |ops: &[ViewOp], stream: &mut Stream| -> Result<RgbImage> {
        let view = view(image, ops, shared, size, stream, &mut scratch)?;
        Ok(resize(&view, side, side, FilterType::Nearest))
    };
    let at = |place: usize| place * step;
    let top = LINE + 2 * GAP;
    canvas.put(&cell(&[], &mut stream)?, left, top);
    // Heading of the names beside the rows; each name above a column has its own.
    canvas.write("first", GAP, GAP, FAINT);
    for (i, name) in std::iter::once(IDENTITY).chain(operators.iter().map(|(name, _)| *name)).enumerate() {
        canvas.write("then", left + at(i), GAP, FAINT);
        canvas.write(name, left + at(i) + 5 * LETTER, GAP, TEXT);
        canvas.write(name, GAP, top + at(i) + (side as usize - LINE) / 2, TEXT);
    }
    for (i, (_, ops)) in operators.iter().enumerate() {
        // In the column of the identity, too, the operator is alone, with random numbers of its own.
        canvas.put(&cell(ops, &mut Stream::new(seed, 1 + i as u64, index.into(), 0))?, left, top + at(i + 1));
        for (j, (_, others)) in operators.iter().enumerate() {
            let both: Vec<ViewOp> = match i == j {
                true => ops.clone(),
                // A crop comes first, whether it is the row's or the column's.
                false if others.iter().any(is_crop) => others.iter().chain(ops).cloned().collect(),
                false => ops.iter().chain(others).cloned().collect(),
            };
            let mut stream = Stream::new(seed, 1 + i as u64, index.into(), 1 + j as u64);
            canvas.put(&cell(&both, &mut stream)?, left + at(j + 1), top + at(i + 1));
        }
    }
    for (j, (_, ops)) in operators.iter().enumerate() {
        let mut stream = Stream::new(seed, 0, index.into(), 1 + j as u64);
        canvas.put(&cell(ops, &mut stream)?, left + at(j + 1), top);
    }
    Ok(canvas.into_image())
}

fn is_crop(op: &ViewOp) -> bool {
    matches!(op, ViewOp::RandomResizedCrop(_))
}

fn view(
    image: ImageRef<'_>,
    ops: &[ViewOp],
    shared: CropBox,
    size: u32,
    stream: &mut Stream,
    scratch: &mut Scratch,
) -> Result<RgbImage> {
    let family = ViewFamily::from_ops(ops, size)?;
    let mut recipe = family.draw(image.width, image.height, stream);
    if !ops.iter().any(is_crop) {
        recipe.crop = shared;
    }
    let mut pixels = vec![0; family.view_len()];
    family.apply(image, &recipe, scratch, &mut pixels);
    picture(size, size, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_and_a_column_for_each_operator_and_the_identity() {
        let pixels: Vec<u8> = (0..40 * 30 * 3).map(|i| (i * 7 % 251) as u8).collect();
        let sheet = draw(ImageRef::new(40, 30, &pixels).unwrap(), 3, 32, 1).unwrap();
        let (count, step) = (operators().len() as u32 + 1, 128 + GAP as u32);
        let (left, top) = (LEFT as u32, (LINE + 2 * GAP) as u32);
        assert_eq!(sheet.dimensions(), (left + count * step, top + count * step));
        // Each row has its name, and so has each column.
        let ink = |x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
            x.into_iter().any(|x| y.clone().any(|y| sheet.get_pixel(x, y).0[0] < 100))
        };
        for i in 0..count {
            assert!(ink(0..left - GAP as u32, top + i * step..top + (i + 1) * step), "row {i}");
            assert!(ink(left + i * step..left + (i + 1) * step, 0..top - 4), "column {i}");
        }
        // The same seed gives the same table.
        assert_eq!(sheet, draw(ImageRef::new(40, 30, &pixels).unwrap(), 3, 32, 1).unwrap());
    }
}
