//! Properties that hold for any image, any size and any configuration.

use fast_image_resize::images::{Image, ImageRef as Source};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use proptest::prelude::*;
use simclr_augment::{
    AspectLaw, BlurPadding, Brightness, GaussianBlur, ImageRef, Isa, RandomResizedCrop, Recipe, Scratch,
    Stream, ViewConfig, ViewFamily, ViewOp, central_crop,
};

fn noise(width: u32, height: u32, seed: u64) -> Vec<u8> {
    let mut stream = Stream::new(seed, 0, 0, 0);
    (0..3 * width * height).map(|_| stream.below(256) as u8).collect()
}

fn view(family: &ViewFamily, image: ImageRef<'_>, stream: [u64; 4], scratch: &mut Scratch) -> Vec<u8> {
    let [seed, epoch, index, branch] = stream;
    let mut stream = Stream::new(seed, epoch, index, branch);
    let recipe = family.draw(image.width, image.height, &mut stream);
    // The two buffers begin with different values, so that a byte that is not written is found.
    let mut out = vec![0xA5; family.view_len()];
    family.apply(image, &recipe, scratch, &mut out);
    let mut again = vec![0x5A; family.view_len()];
    family.apply(image, &recipe, &mut Scratch::default(), &mut again);
    assert_eq!(out, again, "a used scratch changed the view");
    for isa in Isa::all() {
        family.apply(image, &recipe, &mut Scratch::with_isa(isa), &mut again);
        assert!(out == again, "{isa} differs from {}: {recipe:?}", Isa::detect());
    }
    out
}

/// Every operator that may follow the crop.
fn all_ops() -> Vec<ViewOp> {
    let default = |name: &&str| serde_json::from_str(&format!(r#"{{"op": "{name}"}}"#)).unwrap();
    let ops = ViewOp::NAMES.iter().map(default);
    ops.filter(|op| !matches!(op, ViewOp::RandomResizedCrop(_)))
        .map(|op| match op {
            // Of views this small none is blurred unless that is asked for.
            ViewOp::GaussianBlur(law) => ViewOp::GaussianBlur(GaussianBlur { prob: Some(1.0), ..law }),
            other => other,
        })
        .collect()
}

fn any_config() -> impl Strategy<Value = ViewConfig> {
    let probability = 0.0f32..=1.0;
    (
        (0.01f32..=1.0, 0.01f32..=1.0, 0.1f32..=10.0, 0.1f32..=10.0),
        (probability.clone(), probability.clone(), probability.clone(), probability),
        (0.0f32..=2.5, 0.01f32..=8.0, 0.01f32..=8.0),
        any::<[bool; 3]>(),
    )
        .prop_map(|(crop, probabilities, (strength, sigma, other_sigma), switches)| ViewConfig {
            crop_area: [crop.0.min(crop.1), crop.0.max(crop.1)],
            crop_aspect: [crop.2.min(crop.3), crop.2.max(crop.3)],
            crop_aspect_law: if switches[0] { AspectLaw::Uniform } else { AspectLaw::LogUniform },
            flip: probabilities.0,
            color_strength: strength,
            color_prob: probabilities.1,
            brightness: if switches[1] { Brightness::Additive } else { Brightness::Multiplicative },
            gray_prob: probabilities.2,
            blur_prob: Some(probabilities.3),
            blur_sigma: [sigma.min(other_sigma), sigma.max(other_sigma)],
            blur_padding: if switches[2] { BlurPadding::Zero } else { BlurPadding::Reflect },
            ..ViewConfig::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn any_image_any_family(
        (width, height) in (1u32..=300, 1u32..=300),
        size in 1u32..=97,
        config in any_config(),
        seed in any::<u64>(),
    ) {
        let family = ViewFamily::first_branch(&config, size).unwrap();
        let pixels = noise(width, height, seed);
        let image = ImageRef::new(width, height, &pixels).unwrap();
        let mut scratch = Scratch::default();
        for branch in 0..3 {
            view(&family, image, [seed, 1, 2, branch], &mut scratch);
        }
        let mut out = vec![0; family.view_len()];
        central_crop(image, size, &mut scratch, &mut out).unwrap();
    }

    /// Every operator, at awkward sizes.
    #[test]
    fn any_list(
        (width, height) in (1u32..=60, 1u32..=60),
        size in 1u32..=49,
        order in Just(all_ops()).prop_shuffle(),
        seed in any::<u64>(),
    ) {
        let mut ops = vec![ViewOp::RandomResizedCrop(RandomResizedCrop::default())];
        ops.extend(order);
        let family = ViewFamily::from_ops(&ops, size).unwrap();
        let pixels = noise(width, height, seed);
        let image = ImageRef::new(width, height, &pixels).unwrap();
        let mut scratch = Scratch::default();
        for branch in 0..3 {
            view(&family, image, [seed, 1, 2, branch], &mut scratch);
        }
    }

    /// An image of one colour stays so under crop, resize, flip and a mirrored blur.
    #[test]
    fn flat_images_stay_flat(
        (width, height) in (1u32..=300, 1u32..=300),
        size in 1u32..=97,
        color in any::<[u8; 3]>(),
        seed in any::<u64>(),
    ) {
        let config = ViewConfig {
            blur_prob: Some(0.5),
            blur_padding: BlurPadding::Reflect,
            ..ViewConfig::crop_flip()
        };
        let family = ViewFamily::first_branch(&config, size).unwrap();
        let pixels = color.repeat((width * height) as usize);
        let image = ImageRef::new(width, height, &pixels).unwrap();
        let out = view(&family, image, [seed, 0, 0, 0], &mut Scratch::default());
        prop_assert_eq!(out, color.repeat((size * size) as usize));
    }

    /// An independent implementation of the same filter, which rounds to 8 bits between the two directions. It
    /// also clips there, so the image keeps away from black and white, where the filter would overshoot.
    #[test]
    fn resize_equals_another_library(
        (width, height) in (1u32..=300, 1u32..=300),
        size in 1u32..=97,
        seed in any::<u64>(),
    ) {
        let pixels: Vec<u8> = noise(width, height, seed).iter().map(|v| 64 + v / 2).collect();
        let family = ViewFamily::first_branch(&ViewConfig::default(), size).unwrap();
        let image = ImageRef::new(width, height, &pixels).unwrap();
        let mut got = vec![0; family.view_len()];
        family.apply(image, &Recipe::identity(width, height), &mut Scratch::default(), &mut got);

        let source = Source::new(width, height, &pixels, PixelType::U8x3).unwrap();
        let mut expected = Image::new(size, size, PixelType::U8x3);
        let bicubic = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
        Resizer::new().resize(&source, &mut expected, &bicubic).unwrap();

        let differences: Vec<u8> = got.iter().zip(expected.buffer()).map(|(a, b)| a.abs_diff(*b)).collect();
        prop_assert!(differences.iter().all(|&d| d <= 2), "{:?}", differences.iter().max());
    }
}

#[test]
fn equal_streams_give_equal_views_and_any_other_number_another() {
    let family = ViewFamily::first_branch(&ViewConfig::default(), 32).unwrap();
    let pixels = noise(40, 50, 3);
    let image = ImageRef::new(40, 50, &pixels).unwrap();
    let mut scratch = Scratch::default();
    let reference = view(&family, image, [1, 2, 3, 0], &mut scratch);
    assert_eq!(reference, view(&family, image, [1, 2, 3, 0], &mut scratch));
    for other in [[9, 2, 3, 0], [1, 9, 3, 0], [1, 2, 9, 0], [1, 2, 3, 1]] {
        assert_ne!(reference, view(&family, image, other, &mut scratch));
    }
}

#[test]
fn extreme_shapes_work_at_every_size() {
    let mut scratch = Scratch::default();
    for (width, height) in [(1, 1), (30_000, 1), (1, 30_000), (2, 9_000)] {
        let pixels = noise(width, height, 1);
        let image = ImageRef::new(width, height, &pixels).unwrap();
        for size in [1, 2, 32, 224] {
            let config = ViewConfig { blur_prob: Some(1.0), ..ViewConfig::default() };
            let family = ViewFamily::first_branch(&config, size).unwrap();
            for branch in 0..4 {
                view(&family, image, [1, 0, 0, branch], &mut scratch);
            }
            let mut out = vec![0; family.view_len()];
            central_crop(image, size, &mut scratch, &mut out).unwrap();
        }
    }
}

#[test]
fn sizes_without_pixels_are_refused() {
    for size in [0, 16_385, u32::MAX] {
        let message = ViewFamily::first_branch(&ViewConfig::default(), size).unwrap_err().to_string();
        assert_eq!(message, format!("size = {size}: must be a side in pixels from 1 to 16384"));
    }
}
