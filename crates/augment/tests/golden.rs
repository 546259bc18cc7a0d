//! Compares each operator with torchvision's, at the same parameters. `tools/golden/views.py` made the values.

use std::path::Path;

use simclr_augment::{
    BlurPadding, CropBox, ImageRef, Isa, Recipe, Scratch, Step, Steps, ViewConfig, ViewFamily, central_crop,
};

/// The image of `tools/golden/views.py`.
fn made_image(width: i32, height: i32) -> Vec<u8> {
    let triangle = |a: i32| ((a.rem_euclid(512)) - 256).abs().min(255) as u8;
    let pixel = |x: i32, y: i32| {
        if (x - width / 3).pow(2) + (y - height / 2).pow(2) < (height / 6).pow(2) {
            [0, 0, 0]
        } else if (2 * width / 3..2 * width / 3 + 2).contains(&x) {
            [255, 255, 255]
        } else if x < width / 8 && y < height / 8 {
            [255, 0, 40]
        } else {
            [triangle(5 * x + 3 * y), triangle(7 * x - 2 * y + x * y / 16), triangle(x * x / 8 + 4 * y)]
        }
    };
    (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect()
}

/// Pixels of `tests/golden/NAME.ppm`, after its three header lines.
fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.ppm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut parts = bytes.splitn(4, |&byte| byte == b'\n');
    assert_eq!(parts.next(), Some(&b"P6"[..]));
    parts.nth(2).unwrap().to_vec()
}

/// Fails unless the mean absolute difference is at most `mean` and no difference is above `largest`.
fn assert_close(name: &str, got: &[u8], mean: f64, largest: u8) {
    let expected = golden(name);
    assert_eq!(got.len(), expected.len(), "{name}");
    let differences: Vec<u8> = got.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: f64 = differences.iter().map(|&d| f64::from(d)).sum();
    let got_mean = sum / differences.len() as f64;
    let got_largest = *differences.iter().max().unwrap();
    println!("{name}: mean {got_mean:.4}, largest {got_largest}");
    assert!(got_mean <= mean, "{name}: mean difference {got_mean}");
    assert!(got_largest <= largest, "{name}: largest difference {got_largest}");
}

fn apply(image: (u32, u32), size: u32, recipe: &Recipe) -> Vec<u8> {
    let family = ViewFamily::first_branch(&ViewConfig::default(), size).unwrap();
    let pixels = made_image(image.0 as i32, image.1 as i32);
    let mut out = vec![0; family.view_len()];
    let image = ImageRef::new(image.0, image.1, &pixels).unwrap();
    family.apply(image, recipe, &mut Scratch::default(), &mut out);
    for isa in Isa::all() {
        let mut other = vec![1; family.view_len()];
        family.apply(image, recipe, &mut Scratch::with_isa(isa), &mut other);
        assert!(out == other, "{isa} differs from {}", Isa::detect());
    }
    out
}

/// A blur with torchvision's padding.
fn blur(sigma: f32) -> Step {
    Step::Blur { sigma, padding: BlurPadding::Reflect }
}

/// One colour operator, the other three neutral.
fn color(operator: Step) -> Vec<u8> {
    let recipe = Recipe {
        steps: Steps::from([Step::Saturation(1.0), operator, Step::Hue(0.0), Step::Contrast(1.0)]),
        ..Recipe::identity(32, 32)
    };
    apply((32, 32), 32, &recipe)
}

fn cropped(left: u32, top: u32, width: u32, height: u32) -> Recipe {
    Recipe { crop: CropBox { left, top, width, height }, ..Recipe::identity(100, 76) }
}

#[test]
fn color_operators() {
    for (name, operator) in [
        ("brightness_up", Step::Brightness(1.6)),
        ("brightness_down", Step::Brightness(0.35)),
        ("contrast_up", Step::Contrast(1.7)),
        ("contrast_down", Step::Contrast(0.3)),
        ("saturation_up", Step::Saturation(1.8)),
        ("saturation_down", Step::Saturation(0.25)),
        ("hue_up", Step::Hue(0.17)),
        ("hue_down", Step::Hue(-0.2)),
    ] {
        assert_close(name, &color(operator), 0.02, 1);
    }
}

#[test]
fn additive_brightness_is_the_formula() {
    let pixels = made_image(32, 32);
    for shift in [-0.8f32, -0.1, 0.3] {
        let got = color(Step::BrightnessShift(shift));
        for (got, pixel) in got.iter().zip(&pixels) {
            let expected = (f32::from(*pixel) + 255.0 * shift).clamp(0.0, 255.0);
            assert!((f32::from(*got) - expected).abs() <= 0.501);
        }
    }
}

/// A fifth of the brightest value is 51, and 0.4 above the darkest is 102, only if values were clipped in between.
#[test]
fn each_color_operator_clips_before_the_next() {
    let of_two = |steps: [Step; 2]| {
        let recipe = Recipe { steps: Steps::from(steps), ..Recipe::identity(32, 32) };
        apply((32, 32), 32, &recipe).into_iter()
    };
    for up in [Step::Brightness(1.6), Step::BrightnessShift(0.8), Step::Contrast(1.7), Step::Saturation(1.8)]
    {
        assert_eq!(of_two([up, Step::Brightness(0.2)]).max(), Some(51), "{up:?}");
    }
    for down in [Step::BrightnessShift(-0.8), Step::Contrast(1.7), Step::Saturation(1.8)] {
        assert_eq!(of_two([down, Step::BrightnessShift(0.4)]).min(), Some(102), "{down:?}");
    }
}

#[test]
fn grayscale() {
    let recipe = Recipe { steps: Steps::from([Step::Gray]), ..Recipe::identity(32, 32) };
    assert_close("gray", &apply((32, 32), 32, &recipe), 0.02, 1);
}

#[test]
fn gaussian_blur() {
    for (name, side, sigma) in [("blur_32", 32, 2.0), ("blur_40", 40, 0.8)] {
        let recipe = Recipe { steps: Steps::from([blur(sigma)]), ..Recipe::identity(side, side) };
        assert_close(name, &apply((side, side), side, &recipe), 0.02, 1);
    }
}

#[test]
fn crop_resize_and_flip() {
    // Pillow rounds and clips to 8 bits between the two directions: values differ by a level here and there, and by
    // more where the filter overshoots at the edges of the bar and of the disc.
    let enlarge = Recipe { image: (32, 32), ..cropped(5, 9, 17, 12) };
    assert_close("crop_enlarge", &apply((32, 32), 32, &enlarge), 0.5, 20);
    let shrink = cropped(3, 1, 95, 74);
    assert_close("crop_shrink", &apply((100, 76), 32, &shrink), 0.5, 20);
    let mixed = Recipe { flip: true, ..cropped(20, 30, 51, 19) };
    assert_close("crop_mixed_flip", &apply((100, 76), 32, &mixed), 0.5, 20);
}

#[test]
fn a_crop_of_the_view_size_is_a_copy() {
    let pixels = made_image(32, 32);
    assert_eq!(apply((32, 32), 32, &Recipe::identity(32, 32)), pixels);
    let flipped = Recipe { flip: true, ..Recipe::identity(32, 32) };
    let mirrored: Vec<u8> =
        pixels.chunks_exact(3 * 32).flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
    assert_eq!(apply((32, 32), 32, &flipped), mirrored);
}

#[test]
fn evaluation_view() {
    let pixels = made_image(100, 76);
    let image = ImageRef::new(100, 76, &pixels).unwrap();
    let mut out = vec![0; 33 * 33 * 3];
    central_crop(image, 33, &mut Scratch::default(), &mut out).unwrap();
    assert_close("central_33", &out, 0.5, 20);
}

#[test]
fn the_whole_family_in_order() {
    let recipe = Recipe {
        flip: true,
        steps: Steps::from([
            Step::Hue(-0.11),
            Step::Contrast(1.4),
            Step::Brightness(1.2),
            Step::Saturation(0.6),
            blur(1.3),
        ]),
        ..cropped(10, 4, 60, 70)
    };
    assert_close("family_40", &apply((100, 76), 40, &recipe), 0.2, 2);
}

/// Applies `steps` to the small image.
fn steps<const N: usize>(steps: [Step; N]) -> Vec<u8> {
    apply((32, 32), 32, &Recipe { steps: Steps::from(steps), ..Recipe::identity(32, 32) })
}

#[test]
fn operators_of_the_ablations() {
    for (name, step) in [
        ("rotate_90", Step::Rotate { quarters: 1 }),
        ("rotate_270", Step::Rotate { quarters: 3 }),
        ("invert", Step::Invert),
        ("solarize", Step::Solarize(127.5 / 255.0)),
        ("sobel", Step::Sobel),
    ] {
        assert_close(name, &steps([step]), 0.02, 1);
    }
    let half_turn = steps([Step::Rotate { quarters: 1 }, Step::Rotate { quarters: 1 }]);
    assert_eq!(half_turn, steps([Step::Rotate { quarters: 2 }]));
}

#[test]
fn operators_of_auto_augment() {
    for (name, step) in [
        ("posterize", Step::Posterize { bits: 4 }),
        ("equalize", Step::Equalize),
        ("turn", Step::Turn { degrees: 26.7 }),
        ("shear", Step::ShearX(0.17)),
    ] {
        assert_close(name, &steps([step]), 0.02, 1);
    }
    // torchvision truncates to 8 bits after each operator.
    assert_close("sharpness", &steps([Step::Sharpness(1.7)]), 0.6, 2);
    assert_close("auto_contrast", &steps([Step::Contrast(0.4), Step::AutoContrast]), 1.0, 3);
}

#[test]
fn cutout_and_noise_are_their_formulas() {
    let pixels = made_image(32, 32);
    let cut = steps([Step::Cutout { columns: [3, 9], rows: [30, 32], fill: 0.5 }]);
    for (i, (got, pixel)) in cut.chunks(3).zip(pixels.chunks(3)).enumerate() {
        let inside = (3..9).contains(&(i % 32)) && i / 32 >= 30;
        assert_eq!(got, if inside { &[128, 128, 128] } else { pixel });
    }
    let sigma = 0.05;
    let noisy = steps([Step::Noise { sigma, key: 7 }]);
    let inner = |(_, pixel): &(&u8, &u8)| (80..176).contains(*pixel);
    let differences: Vec<f64> = noisy
        .iter()
        .zip(&pixels)
        .filter(inner)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)) / 255.0)
        .collect();
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let deviation = (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!(mean.abs() < 5.0 * f64::from(sigma) / n.sqrt(), "{mean}");
    assert!((deviation / f64::from(sigma) - 1.0).abs() < 0.1, "{deviation}");
    assert_ne!(noisy, steps([Step::Noise { sigma, key: 8 }]));
}
