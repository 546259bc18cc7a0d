//! Sheets of pictures with words, as PNG files.

pub mod canvas;
pub mod grid;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{ImageFormat, RgbImage};
use simclr_train::file_system::{Disk, write_atomically};

use crate::out::{check_ending, check_new_image, check_place};

/// Rejects a path that a sheet cannot be written to, such as one among the images of `data`.
pub fn check_out(path: &Path, data: &[PathBuf]) -> Result<()> {
    check_ending(path, "png")?;
    check_place(path)?;
    check_new_image(path, data)
}

/// Writes a sheet, whole or not at all.
pub fn save(sheet: &RgbImage, path: &Path) -> Result<()> {
    let mut png = Vec::new();
    sheet.write_to(&mut Cursor::new(&mut png), ImageFormat::Png)?;
    Ok(write_atomically(&Disk, path, |out| out.write_all(&png))?)
}

/// RGB pixels as a picture.
pub fn picture(width: u32, height: u32, pixels: Vec<u8>) -> Result<RgbImage> {
    RgbImage::from_raw(width, height, pixels)
        .with_context(|| format!("a picture of {width} x {height} pixels has too few bytes"))
}
