//! Measures how many views one thread makes per second, without decoding, and where the time goes.
//!
//!     cargo run --release -p simclr-augment --example views_per_second [IMAGE_SIDE VIEW_SIDE SECONDS]
//!
//! Prints one JSON object per line: the full family, then crop and flip, then these with one operator each.

use std::time::{Duration, Instant};

use simclr_augment::{ImageRef, Scratch, Stream, ViewConfig, ViewFamily};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: u32| match arguments.get(i) {
        Some(text) => text.parse().map_err(|e| format!("argument {text:?}: {e}")),
        None => Ok(default),
    };
    let (image_side, view_side) = (number(0, 32)?, number(1, 32)?);
    let time = Duration::from_secs(u64::from(number(2, 1)?));

    let strength = if view_side > 64 { 1.0 } else { 0.5 };
    let family = ViewConfig { color_strength: strength, ..ViewConfig::default() };
    let crop_flip = ViewConfig::crop_flip();
    let cases = [
        ("family", family),
        ("crop and flip", crop_flip.clone()),
        ("with colour jitter", ViewConfig { color_strength: strength, color_prob: 1.0, ..crop_flip.clone() }),
        ("with grey", ViewConfig { gray_prob: 1.0, ..crop_flip.clone() }),
        ("with blur", ViewConfig { blur_prob: Some(1.0), ..crop_flip }),
    ];
    for (name, config) in cases {
        let family = ViewFamily::first_branch(&config, view_side)?;
        let views_per_s = measure(&family, image_side, time)?;
        println!(
            r#"{{"case": "{name}", "image": {image_side}, "view": {view_side}, "views_per_s": {views_per_s:.0}}}"#
        );
    }
    Ok(())
}

/// Views per second, drawn and applied, over images of noise.
fn measure(
    family: &ViewFamily,
    image_side: u32,
    time: Duration,
) -> Result<f64, simclr_augment::AugmentError> {
    const IMAGES: usize = 64;
    let image_len = 3 * image_side as usize * image_side as usize;
    let mut noise = Stream::new(0, 0, 0, 0);
    let pixels: Vec<u8> = (0..IMAGES * image_len).map(|_| noise.below(256) as u8).collect();
    let mut scratch = Scratch::default();
    let mut out = vec![0; family.view_len()];
    let mut views = 0u64;
    let start = Instant::now();
    while start.elapsed() < time {
        for pixels in pixels.chunks_exact(image_len) {
            let image = ImageRef::new(image_side, image_side, pixels)?;
            let mut stream = Stream::new(1, 0, views, 0);
            let recipe = family.draw(image_side, image_side, &mut stream);
            family.apply(image, &recipe, &mut scratch, &mut out);
            std::hint::black_box(&mut out);
            views += 1;
        }
    }
    Ok(views as f64 / start.elapsed().as_secs_f64())
}
