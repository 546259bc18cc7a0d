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
    let (step, left) = (side as usize + GAP, 6 * LETTER + 2 * GAP);
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
    canvas.write("identity", left, GAP, FAINT);
    // Headings of the names beside the rows and above the columns.
    canvas.write("first:", GAP, top + side as usize - LINE, FAINT);
    canvas.write("then:", GAP, GAP, FAINT);
    for (i, (first, ops)) in operators.iter().enumerate() {
        canvas.write(first, left + at(i + 1), GAP, TEXT);
        canvas.write(first, GAP, top + at(i + 1) + (side as usize - LINE) / 2, TEXT);
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
        let left = (6 * LETTER + 2 * GAP) as u32;
        assert_eq!(sheet.dimensions(), (left + count * step, (LINE + 2 * GAP) as u32 + count * step));
        // The same seed gives the same table.
        assert_eq!(sheet, draw(ImageRef::new(40, 30, &pixels).unwrap(), 3, 32, 1).unwrap());
    }
}
