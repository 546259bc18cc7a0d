use simclr_augment::{
    BlurPadding, CropBox, ImageRef, Isa, Recipe, Scratch, Step, Steps, Stream, ViewConfig, ViewFamily,
};
use simclr_cuda::ops::views::{self, View};

use crate::support::noise;
use simclr_stand_in::{Values, compiler, in_every_order};

struct Images {
    bytes: Vec<u8>,
    /// The first byte, the width and the height of each image.
    places: Vec<(usize, u32, u32)>,
}

impl Images {
    fn new(sizes: &[(u32, u32)]) -> Images {
        let mut images = Images { bytes: Vec::new(), places: Vec::new() };
        for (i, &(width, height)) in sizes.iter().enumerate() {
            images.places.push((images.bytes.len(), width, height));
            let len = 3 * (width * height) as usize;
            // Smooth, with added noise and saturated areas of black and white.
            let bytes = noise(len, i as u32 + 1).into_iter().enumerate().map(|(at, v)| {
                let (x, y) = ((at / 3) as u32 % width, (at / 3) as u32 / width);
                let wave = ((x as f32 * 0.21).sin() + (y as f32 * 0.13 + at as f32 % 3.0).cos()) * 90.0;
                (128.0 + wave + v * 60.0).clamp(0.0, 255.0) as u8
            });
            images.bytes.extend(bytes);
        }
        images
    }

    fn image(&self, number: usize) -> ImageRef<'_> {
        let (at, width, height) = self.places[number];
        ImageRef::new(width, height, &self.bytes[at..at + 3 * (width * height) as usize]).unwrap()
    }
}

/// Makes all views with the kernels and on the CPU; returns the number of bytes that differ, the greatest difference,
/// and the number of all bytes.
fn compare(images: &Images, recipes: &[(usize, Recipe)], side: u32) -> (usize, u8, usize) {
    let family = ViewFamily::first_branch(&ViewConfig::default(), side).unwrap();
    let mut scratch = Scratch::with_isa(Isa::PORTABLE);
    let mut want = vec![0; recipes.len() * family.view_len()];
    for ((number, recipe), out) in recipes.iter().zip(want.chunks_exact_mut(family.view_len())) {
        family.apply(images.image(*number), recipe, &mut scratch, out);
    }
    let made: Vec<View> =
        recipes.iter().map(|(number, recipe)| View::new(recipe, images.places[*number].0).unwrap()).collect();
    let got = in_every_order(|gpu| {
        let (bytes, mut out) = (Values::of(&images.bytes), Values::<u8>::fresh(want.len()));
        views::make(gpu, bytes.read(), &made, side as usize, out.write()).unwrap();
        out.get()
    });
    let differences: Vec<u8> = got.iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).collect();
    let most = differences.iter().copied().max().unwrap();
    (differences.iter().filter(|d| **d > 0).count(), most, differences.len())
}

#[test]
fn views_are_those_of_the_cpu_but_for_rounding() {
    if compiler().is_none() {
        return;
    }
    // Small images are enlarged, large ones shrunk; one is a single pixel, one nearly a line.
    let images = Images::new(&[(32, 32), (50, 37), (200, 150), (1, 1), (90, 2), (3, 64)]);
    for (side, config) in [
        (32, ViewConfig { color_strength: 0.5, ..ViewConfig::default() }),
        (
            21,
            ViewConfig { blur_prob: Some(0.5), blur_padding: BlurPadding::Reflect, ..ViewConfig::default() },
        ),
        (72, ViewConfig { blur_prob: Some(0.8), ..ViewConfig::default() }),
    ] {
        let family = ViewFamily::first_branch(&config, side).unwrap();
        let recipes: Vec<(usize, Recipe)> = (0..images.places.len() * 3)
            .map(|i| {
                let (_, width, height) = images.places[i % images.places.len()];
                let mut stream = Stream::new(5, u64::from(side), i as u64, 0);
                (i % images.places.len(), family.draw(width, height, &mut stream))
            })
            .collect();
        let (different, most, all) = compare(&images, &recipes, side);
        assert!(most <= 1 && different * 1000 <= all, "side {side}: {different} of {all}, by up to {most}");
    }
}

#[test]
fn without_means_and_blurs_every_byte_is_equal() {
    if compiler().is_none() {
        return;
    }
    let images = Images::new(&[(40, 30)]);
    let crop = CropBox { left: 3, top: 2, width: 33, height: 21 };
    let steps = [
        Step::Hue(0.13),
        Step::Hue(-0.2),
        Step::Saturation(1.7),
        Step::Brightness(1.3),
        Step::BrightnessShift(-0.2),
        Step::Solarize(0.5),
        Step::Invert,
        Step::Gray,
    ];
    let mut recipes = vec![(0, Recipe { image: (40, 30), crop, flip: true, steps: Steps::default() })];
    for step in steps {
        recipes.push((0, Recipe { image: (40, 30), crop, flip: false, steps: Steps::from([step]) }));
    }
    recipes.push((0, Recipe { image: (40, 30), crop, flip: false, steps: steps.into_iter().collect() }));
    // A flip among operators is the same as one before them.
    let flipped = Steps::from([Step::Hue(0.1), Step::Flip, Step::Saturation(0.3)]);
    recipes.push((0, Recipe { image: (40, 30), crop, flip: true, steps: flipped }));
    for side in [1, 24, 33, 50] {
        assert_eq!(compare(&images, &recipes, side).0, 0, "side {side}");
    }
}

#[test]
fn contrasts_and_what_follows_a_blur() {
    if compiler().is_none() {
        return;
    }
    let images = Images::new(&[(64, 48)]);
    let of = |steps: Steps| (0, Recipe { steps, ..Recipe::identity(64, 48) });
    let blur = Step::Blur { sigma: 1.1, padding: BlurPadding::Zero };
    let recipes = [
        of(Steps::from([Step::Contrast(1.6)])),
        of(Steps::from([Step::Contrast(0.3), Step::Hue(0.1), Step::Contrast(1.4), Step::Contrast(0.8)])),
        of(Steps::from([Step::Brightness(0.7), Step::Contrast(1.5), blur, Step::Solarize(0.5), Step::Gray])),
        of(Steps::from([Step::Blur { sigma: 0.01, padding: BlurPadding::Reflect }])),
        of(Steps::from([Step::Blur { sigma: 1e-30, padding: BlurPadding::Zero }, Step::Invert])),
    ];
    for side in [45, 66] {
        let (different, most, all) = compare(&images, &recipes, side);
        assert!(different * 1000 <= all, "side {side}: {different} of {all}");
        // If solarising's threshold lies between two roundings of a value, the results may differ by the whole range.
        assert!(most <= 1 || different <= 3, "side {side}: {most}");
    }
}

#[test]
fn what_the_kernels_cannot_make_is_left_to_the_cpu() {
    let with = |steps: Steps| View::new(&Recipe { steps, ..Recipe::identity(8, 8) }, 0);
    let blur = Step::Blur { sigma: 1.0, padding: BlurPadding::Zero };
    assert!(with(Steps::from([blur, Step::Gray])).is_some());
    assert!(with(Steps::from([blur, Step::Contrast(1.0)])).is_none());
    assert!(with(Steps::from([blur, blur])).is_none());
    assert!(with(Steps::from([Step::Sobel])).is_none());
    assert!(with([Step::Gray; 17].into_iter().collect()).is_none());
}

#[test]
fn images_that_are_not_there_are_refused() {
    if compiler().is_none() {
        return;
    }
    in_every_order(|gpu| {
        let (bytes, mut out) = (Values::of(&[0u8; 100]), Values::<u8>::fresh(3 * 16));
        let view = View::new(&Recipe::identity(6, 6), 0).unwrap();
        let error = views::make(gpu, bytes.read(), &[view], 4, out.write()).unwrap_err();
        assert!(error.to_string().contains("does not lie within 100 bytes"), "{error}");
    });
}
