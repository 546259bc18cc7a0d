//! Sheets of pictures with words, as PNG files.

pub mod canvas;
pub mod grid;

use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use image::{ImageFormat, RgbImage};

use crate::out::{check_apart, check_ending, check_place};

/// Refuses what cannot become a sheet's file, before anything is computed: one of the images of `data` among others.
pub fn check_out(path: &Path, data: &[PathBuf]) -> Result<()> {
    check_ending(path, "png")?;
    check_place(path)?;
    check_apart(path, data)
}

/// Writes a sheet.
pub fn save(sheet: &RgbImage, path: &Path) -> Result<()> {
    let mut png = Vec::new();
    sheet.write_to(&mut Cursor::new(&mut png), ImageFormat::Png)?;
    std::fs::write(path, png).with_context(|| format!("cannot write {}", path.display()))
}

/// RGB pixels as a picture.
pub fn picture(width: u32, height: u32, pixels: Vec<u8>) -> Result<RgbImage> {
    RgbImage::from_raw(width, height, pixels)
        .with_context(|| format!("a picture of {width} x {height} pixels has too few bytes"))
}
