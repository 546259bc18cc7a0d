//! Draws follow their distributions. Seeds are fixed; the bounds are five standard deviations or the 0.1% point of
//! Kolmogorov's statistic.

use std::collections::HashMap;

use simclr_augment::{
    AspectLaw, BlurPadding, Brightness, CropBox, RandomResizedCrop, Recipe, Step, Stream, ViewConfig,
    ViewFamily, ViewOp, ViewPreset,
};

const DRAWS: u64 = 20_000;

fn recipes(config: &ViewConfig, size: u32, side: u32) -> Vec<Recipe> {
    let family = ViewFamily::first_branch(config, size).unwrap();
    (0..DRAWS).map(|image| family.draw(side, side, &mut Stream::new(7, 0, image, 0))).collect()
}

/// The colour operators of a view: four or none.
fn color(recipe: &Recipe) -> Vec<Step> {
    let jitter = |step: &&Step| !matches!(step, Step::Gray | Step::Blur { .. });
    recipe.steps.iter().filter(jitter).copied().collect()
}

fn colored(recipe: &Recipe) -> bool {
    !color(recipe).is_empty()
}

fn gray(recipe: &Recipe) -> bool {
    recipe.steps.contains(&Step::Gray)
}

fn sigma(recipe: &Recipe) -> Option<f64> {
    recipe.steps.iter().find_map(|step| match step {
        Step::Blur { sigma, .. } => Some(f64::from(*sigma)),
        _ => None,
    })
}

fn blurred(recipe: &Recipe) -> bool {
    sigma(recipe).is_some()
}

/// Fails unless `values` look uniform over [low, high] (Kolmogorov and Smirnov).
fn assert_uniform(what: &str, mut values: Vec<f64>, low: f64, high: f64) {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    assert!(values[0] >= low - 1e-6, "{what}: {} below {low}", values[0]);
    let last = values[values.len() - 1];
    assert!(last <= high + 1e-6, "{what}: {last} above {high}");
    let distance = values
        .iter()
        .enumerate()
        .map(|(i, value)| {
            let law = (value - low) / (high - low);
            (law - i as f64 / n).abs().max((law - (i + 1) as f64 / n).abs())
        })
        .fold(0.0, f64::max);
    assert!(distance * n.sqrt() < 1.95, "{what}: distance {distance} over {n} values");
}

fn assert_frequency(what: &str, hits: usize, n: usize, p: f64) {
    let deviation = (n as f64 * p * (1.0 - p)).sqrt();
    let expected = n as f64 * p;
    assert!(
        (hits as f64 - expected).abs() <= 5.0 * deviation,
        "{what}: {hits} of {n}, expected {expected:.0} +- {deviation:.0}"
    );
}

#[test]
fn crop_area_is_uniform() {
    // Square crops of a large square image always fit, so no try is rejected.
    let config = ViewConfig { crop_aspect: [1.0, 1.0], ..ViewConfig::default() };
    let area = |r: &Recipe| f64::from(r.crop.width) * f64::from(r.crop.height) / 1e8;
    let areas: Vec<f64> = recipes(&config, 32, 10_000).iter().map(area).collect();
    // Rounding to whole pixels changes an area by up to one row and one column of pixels.
    assert_uniform("area", areas, 0.08 - 1e-4, 1.0);
}

#[test]
fn crop_aspect_follows_its_law() {
    for (law, map) in [(AspectLaw::Uniform, (|a| a) as fn(f64) -> f64), (AspectLaw::LogUniform, f64::ln)] {
        let config = ViewConfig { crop_area: [0.1, 0.5], crop_aspect_law: law, ..ViewConfig::default() };
        let aspect = |r: &Recipe| map(f64::from(r.crop.width) / f64::from(r.crop.height));
        let aspects: Vec<f64> = recipes(&config, 32, 20_000).iter().map(aspect).collect();
        assert_uniform("aspect", aspects, map(0.75 - 1e-3), map(4.0 / 3.0 + 1e-3));
    }
}

#[test]
fn crop_place_is_uniform_and_reaches_both_ends() {
    let config = ViewConfig { crop_area: [0.25, 0.25], crop_aspect: [1.0, 1.0], ..ViewConfig::default() };
    let mut places = [[0; 17]; 2];
    for recipe in recipes(&config, 32, 32) {
        assert_eq!((recipe.crop.width, recipe.crop.height), (16, 16));
        places[0][recipe.crop.left as usize] += 1;
        places[1][recipe.crop.top as usize] += 1;
    }
    for count in places.into_iter().flatten() {
        assert_frequency("place", count, DRAWS as usize, 1.0 / 17.0);
    }
}

#[test]
fn full_default_crops_of_small_images_keep_their_bounds() {
    for recipe in recipes(&ViewConfig::default(), 32, 32) {
        let (width, height) = (f64::from(recipe.crop.width), f64::from(recipe.crop.height));
        // The bounds of area and aspect, loosened by the rounding of both sides to whole pixels.
        assert!((width + 0.5) * (height + 0.5) >= 0.08 * 1024.0);
        assert!((width - 0.5) / (height + 0.5) <= 4.0 / 3.0 + 1e-6);
        assert!((width + 0.5) / (height - 0.5) >= 0.75 - 1e-6);
    }
}

#[test]
fn probabilities_are_those_of_the_configuration() {
    let n = DRAWS as usize;
    let count = |recipes: &[Recipe], f: fn(&Recipe) -> bool| recipes.iter().filter(|r| f(r)).count();
    let frequencies = |config: &ViewConfig, size: u32, [flip, color, grey, blur]: [f64; 4]| {
        let drawn = recipes(config, size, 64);
        assert_frequency("flip", count(&drawn, |r| r.flip), n, flip);
        assert_frequency("color", count(&drawn, colored), n, color);
        assert_frequency("gray", count(&drawn, gray), n, grey);
        assert_frequency("blur", count(&drawn, blurred), n, blur);
    };
    frequencies(&ViewConfig::default(), 224, [0.5, 0.8, 0.2, 0.5]);
    frequencies(&ViewConfig::default(), 32, [0.5, 0.8, 0.2, 0.0]);
    frequencies(&ViewConfig::crop_flip(), 224, [0.5, 0.0, 0.0, 0.0]);
    let other = ViewConfig {
        flip: 1.0,
        color_prob: 0.3,
        gray_prob: 0.0,
        blur_prob: Some(0.9),
        ..ViewConfig::default()
    };
    frequencies(&other, 32, [1.0, 0.3, 0.0, 0.9]);
    let colorless = ViewConfig { color_strength: 0.0, ..ViewConfig::default() };
    frequencies(&colorless, 32, [0.5, 0.0, 0.2, 0.0]);
}

#[test]
fn operators_are_independent_of_each_other() {
    let drawn = recipes(&ViewConfig::default(), 224, 64);
    let both = drawn.iter().filter(|r| r.flip && gray(r)).count();
    assert_frequency("flip and gray", both, drawn.len(), 0.1);
    let both = drawn.iter().filter(|r| colored(r) && blurred(r)).count();
    assert_frequency("color and blur", both, drawn.len(), 0.4);
}

/// Fails unless two values look independent, by how often a pair lies in each of 3 x 3 cells of equal probability.
fn assert_independent(what: &str, pairs: &[[f64; 2]]) {
    let third = |at: usize| {
        let mut values: Vec<f64> = pairs.iter().map(|pair| pair[at]).collect();
        values.sort_by(f64::total_cmp);
        let bounds = [values[values.len() / 3], values[2 * values.len() / 3]];
        move |pair: &[f64; 2]| bounds.iter().filter(|&&bound| pair[at] >= bound).count()
    };
    let thirds = [third(0), third(1)];
    let mut counts = [[0; 3]; 3];
    pairs.iter().for_each(|pair| counts[thirds[0](pair)][thirds[1](pair)] += 1);
    for (row, column) in (0..9).map(|cell| (cell / 3, cell % 3)) {
        let name = format!("{what}: thirds {row} and {column}");
        assert_frequency(&name, counts[row][column], pairs.len(), 1.0 / 9.0);
    }
}

#[test]
fn parameters_of_one_operator_are_independent_of_each_other() {
    // Crops that always fit, of images so large that rounding to whole pixels does not matter.
    let config = ViewConfig { crop_area: [0.1, 0.5], color_prob: 1.0, ..ViewConfig::default() };
    const SIDE: u32 = 10_000_000;
    let drawn = recipes(&config, 32, SIDE);
    let pairs = |of: &dyn Fn(&Recipe) -> [f64; 2]| drawn.iter().map(of).collect::<Vec<_>>();
    let place = |start: u32, length: u32| f64::from(start) / f64::from(SIDE - length);
    let crop = |r: &Recipe| r.crop;
    assert_independent(
        "left and top",
        &pairs(&|r| [place(crop(r).left, crop(r).width), place(crop(r).top, crop(r).height)]),
    );
    assert_independent(
        "area and aspect",
        &pairs(&|r| {
            let (width, height) = (f64::from(crop(r).width), f64::from(crop(r).height));
            [width * height, width / height]
        }),
    );
    let factor = |r: &Recipe, of: fn(&Step) -> Option<f32>| f64::from(color(r).iter().find_map(of).unwrap());
    let brightness = |step: &Step| match *step {
        Step::Brightness(factor) => Some(factor),
        _ => None,
    };
    let contrast = |step: &Step| match *step {
        Step::Contrast(factor) => Some(factor),
        _ => None,
    };
    assert_independent("brightness and contrast", &pairs(&|r| [factor(r, brightness), factor(r, contrast)]));
}

#[test]
fn the_default_is_the_family_of_the_paper() {
    let config = ViewConfig::default();
    assert_eq!((config.color_strength, config.blur_padding), (1.0, BlurPadding::Zero));
    let preset = ViewConfig { preset: ViewPreset::Simclr, ..ViewConfig::default() };
    let draw = |config: &ViewConfig| recipes(config, 224, 300);
    assert!(draw(&config) == draw(&preset));
    // Factors reach 1 + 0.8 and the blur sees black beyond the border.
    let steps: Vec<Step> = draw(&preset).iter().flat_map(|recipe| recipe.steps.to_vec()).collect();
    assert!(steps.iter().any(|step| matches!(step, Step::Brightness(factor) if *factor > 1.75)));
    let padding = |step: &Step| match step {
        Step::Blur { padding, .. } => Some(*padding),
        _ => None,
    };
    assert!(steps.iter().filter_map(padding).all(|padding| padding == BlurPadding::Zero));
}

#[test]
fn factors_are_uniform_over_their_ranges() {
    for strength in [0.5f32, 1.0, 1.5] {
        let config = ViewConfig { color_strength: strength, color_prob: 1.0, ..ViewConfig::default() };
        let mut values: HashMap<&str, Vec<f64>> = HashMap::new();
        for operator in recipes(&config, 32, 64).iter().flat_map(color) {
            let (name, value) = match operator {
                Step::Brightness(factor) => ("brightness", factor),
                Step::Contrast(factor) => ("contrast", factor),
                Step::Saturation(factor) => ("saturation", factor),
                Step::Hue(turn) => ("hue", turn),
                other => panic!("unexpected step {other:?}"),
            };
            values.entry(name).or_default().push(f64::from(value));
        }
        let s = f64::from(strength);
        for name in ["brightness", "contrast", "saturation"] {
            let values = values.remove(name).unwrap();
            assert_eq!(values.len(), DRAWS as usize);
            assert_uniform(name, values, (1.0 - 0.8 * s).max(0.0), 1.0 + 0.8 * s);
        }
        assert_uniform("hue", values.remove("hue").unwrap(), -0.2 * s, 0.2 * s);
    }
}

#[test]
fn additive_brightness_is_uniform_about_zero() {
    let config = ViewConfig {
        color_strength: 0.5,
        color_prob: 1.0,
        brightness: Brightness::Additive,
        ..ViewConfig::default()
    };
    let shifts: Vec<f64> = recipes(&config, 32, 64)
        .iter()
        .flat_map(color)
        .filter_map(|operator| match operator {
            Step::BrightnessShift(shift) => Some(f64::from(shift)),
            _ => None,
        })
        .collect();
    assert_eq!(shifts.len(), DRAWS as usize);
    assert_uniform("shift", shifts, -0.4, 0.4);
}

#[test]
fn every_order_of_the_color_operators_is_equally_likely() {
    let config = ViewConfig { color_prob: 1.0, ..ViewConfig::default() };
    let mut orders: HashMap<[u8; 4], usize> = HashMap::new();
    for operators in recipes(&config, 32, 64).iter().map(color) {
        let operators: [Step; 4] = operators.try_into().unwrap();
        let order = operators.map(|operator| match operator {
            Step::Brightness(_) => 0,
            Step::Contrast(_) => 1,
            Step::Saturation(_) => 2,
            Step::Hue(_) => 3,
            other => panic!("unexpected step {other:?}"),
        });
        *orders.entry(order).or_default() += 1;
    }
    assert_eq!(orders.len(), 24);
    for (order, count) in orders {
        assert_frequency(&format!("{order:?}"), count, DRAWS as usize, 1.0 / 24.0);
    }
}

#[test]
fn blur_sigma_is_uniform() {
    let sigmas: Vec<f64> = recipes(&ViewConfig::default(), 224, 64).iter().filter_map(sigma).collect();
    assert_uniform("sigma", sigmas, 0.1, 2.0);
}

#[test]
fn grey_images_lose_only_what_means_nothing() {
    let family = ViewFamily::first_branch(&ViewConfig::default(), 224).unwrap();
    assert_eq!(family.left_out_of_gray_images(), ["saturation", "hue", "greyscale"]);
    let plain = ViewFamily::first_branch(&ViewConfig::crop_flip(), 224).unwrap();
    assert!(plain.left_out_of_gray_images().is_empty());
    let gray = family.clone().for_gray_images();
    let mut lost = 0;
    for index in 0..200 {
        let draw = |family: &ViewFamily| family.draw(64, 64, &mut Stream::new(7, 0, index, 0));
        let (whole, part) = (draw(&family), draw(&gray));
        let kept: Vec<Step> = whole
            .steps
            .iter()
            .filter(|step| !matches!(step, Step::Saturation(_) | Step::Hue(_) | Step::Gray))
            .copied()
            .collect();
        assert_eq!((&part.steps[..], part.crop, part.flip), (&kept[..], whole.crop, whole.flip));
        lost += whole.steps.len() - kept.len();
    }
    assert!(lost > 200);
}

#[test]
fn noise_colours_grey_images() {
    let ops = r#"[{"op": "color_jitter", "prob": 1.0}, {"op": "gaussian_noise", "prob": 0.5},
        {"op": "grayscale", "prob": 1.0}]"#;
    let ops: Vec<ViewOp> = serde_json::from_str(ops).unwrap();
    let family = ViewFamily::from_ops(&ops, 32).unwrap().for_gray_images();
    assert_eq!(family.left_out_of_gray_images(), ["saturation", "hue"]);
    let mut noisy = 0;
    for image in 0..100 {
        let recipe = family.draw(64, 64, &mut Stream::new(7, 0, image, 0));
        let noise = recipe.steps.iter().any(|step| matches!(step, Step::Noise { .. }));
        // Brightness and contrast, before the noise, always stay.
        assert_eq!(recipe.steps.len(), if noise { 4 } else { 2 }, "{:?}", recipe.steps);
        assert_eq!(gray(&recipe), noise);
        noisy += u32::from(noise);
    }
    assert!((20..80).contains(&noisy));
}

#[test]
fn ablation_operators_keep_to_their_settings() {
    let ops = r#"[{"op": "rotation", "prob": 0.5, "degrees": [180, 270]}, {"op": "cutout", "side": [0.5, 0.5]},
        {"op": "gaussian_noise", "prob": 0.25, "sigma": [0.1, 0.3]}, {"op": "solarize", "threshold": [0.2, 0.4]}]"#;
    let ops: Vec<ViewOp> = serde_json::from_str(ops).unwrap();
    let family = ViewFamily::from_ops(&ops, 32).unwrap();
    let steps: Vec<Step> = (0..DRAWS)
        .flat_map(|image| family.draw(64, 64, &mut Stream::new(7, 0, image, 0)).steps.to_vec())
        .collect();
    let (mut turns, mut sigmas, mut thresholds, mut full) = ([0; 4], Vec::new(), Vec::new(), 0);
    for step in &steps {
        match *step {
            Step::Rotate { quarters } => turns[quarters as usize] += 1,
            Step::Noise { sigma, .. } => sigmas.push(f64::from(sigma)),
            Step::Solarize(threshold) => thresholds.push(f64::from(threshold)),
            Step::Cutout { columns: [left, right], rows: [top, bottom], .. } => {
                assert!(right > left && bottom > top && right <= 32 && bottom <= 32);
                full += usize::from(right - left == 16);
            }
            other => panic!("unexpected step {other:?}"),
        }
    }
    let n = DRAWS as usize;
    assert_eq!((turns[0], turns[1]), (0, 0));
    assert_frequency("half turns", turns[2], n, 0.25);
    assert_frequency("turns by 270", turns[3], n, 0.25);
    assert_frequency("noise", sigmas.len(), n, 0.25);
    // Squares of half the side are whole where their centre is at least a quarter of the side from the border: 17
    // places of 32.
    assert_frequency("whole squares", full, n, 17.0 / 32.0);
    assert_uniform("sigma", sigmas, 0.1, 0.3);
    assert_uniform("threshold", thresholds, 0.2, 0.4);
}

#[test]
fn a_shared_crop_is_the_same_for_all_views_of_an_image_and_theirs_lie_within() {
    let config = ViewConfig {
        shared_crop: Some([0.2, 0.5]),
        a: Some(vec![]),
        b: Some(vec![ViewOp::RandomResizedCrop(Default::default())]),
        ..ViewConfig::default()
    };
    let [whole, part] = config.families(32).unwrap();
    // So large that rounding to whole pixels does not matter.
    const SIDE: u32 = 10_000_000;
    let alone = RandomResizedCrop::default();
    let mut shares = Vec::new();
    for image in 0..DRAWS {
        let crop = |family: &ViewFamily, epoch, view| {
            family.draw_crop(SIDE, SIDE, &mut Stream::new(7, epoch, image, view))
        };
        let shared = crop(&whole, 0, 0);
        assert_eq!(shared, crop(&whole, 0, 1));
        assert_ne!(shared, crop(&whole, 1, 0));
        let own = crop(&part, 0, 1);
        // A view's own crop is drawn from the view's own stream, as if the shared part were an image.
        let drawn = ViewFamily::from_ops(&[ViewOp::RandomResizedCrop(alone.clone())], 32).unwrap().draw_crop(
            shared.width,
            shared.height,
            &mut Stream::new(7, 0, image, 1),
        );
        assert_eq!(
            (own.left, own.top, own.width, own.height),
            (shared.left + drawn.left, shared.top + drawn.top, drawn.width, drawn.height)
        );
        shares.push(f64::from(shared.width) * f64::from(shared.height) / f64::from(SIDE).powi(2));
    }
    assert_uniform("the shared area", shares, 0.2, 0.5);
}

#[test]
fn a_crop_that_rarely_fits_is_tried_a_hundred_times() {
    // In an image ten times as wide as high, a box fits in 3.2% of the tries: (1 - 0.032)^100 = 3.9% of the images are
    // taken whole.
    let family = ViewFamily::first_branch(&ViewConfig::default(), 32).unwrap();
    let whole = |image: &u64| {
        let crop = family.draw_crop(200, 20, &mut Stream::new(7, 0, *image, 0));
        crop == CropBox::whole(200, 20)
    };
    let share = (0..DRAWS).filter(whole).count() as f64 / DRAWS as f64;
    assert!((0.03..0.05).contains(&share), "{share}");
}

#[test]
fn the_aspect_is_uniform_unless_asked_otherwise() {
    let config = ViewConfig { crop_area: [0.1, 0.5], ..ViewConfig::default() };
    let listed =
        ViewOp::RandomResizedCrop(RandomResizedCrop { area: [0.1, 0.5], ..RandomResizedCrop::default() });
    let listed = ViewConfig { a: Some(vec![listed]), ..ViewConfig::default() };
    for config in [config, listed] {
        let aspect = |r: &Recipe| f64::from(r.crop.width) / f64::from(r.crop.height);
        let aspects = recipes(&config, 32, 20_000).iter().map(aspect).collect();
        assert_uniform("aspect", aspects, 0.75 - 1e-3, 4.0 / 3.0 + 1e-3);
    }
}
