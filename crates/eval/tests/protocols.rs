//! The protocols on a toy data set that any encoder separates.

mod common;

use std::sync::atomic::Ordering;

use common::{Counted, RGB, SIDE, Toy, config, models, splits};
use serde_json::Value;
use simclr_augment::ViewPreset;
use simclr_engine::{Device, Mode, SingleProcess, Tape};
use simclr_eval::EvalError;
use simclr_eval::protocols::{
    Evaluation, LogisticOptions, Progress, Sgd, Side, Splits, Versus, encode, knn, knn_of_images, linear_sgd,
    linear_sgd_z, logistic, logistic_z, random_encoder,
};
use simclr_metrics::Knn;
use simclr_train::Model;
use simclr_train::config::HeadKind;

fn quick() -> Sgd {
    Sgd { epochs: 8, batch: 16, rate: 0.5, ..Sgd::linear(SIDE, 120, None) }
}

/// Everything but the times.
fn timeless(evaluation: &Evaluation) -> Value {
    fn strip(value: &mut Value) {
        if let Value::Object(map) = value {
            map.retain(|key, _| key != "seconds" && !key.ends_with("_s"));
            map.values_mut().for_each(strip);
        }
    }
    let mut value = serde_json::to_value(evaluation).unwrap();
    strip(&mut value);
    value
}

#[test]
fn linear_sgd_learns_and_leaves_the_encoder_alone() {
    let models = models(2);
    let before = models.trained.store().unwrap();
    let mut epochs = Vec::new();
    let evaluation = linear_sgd(&models, &splits(), &quick(), &mut |progress| {
        if let Progress::Epoch { side: Side::Trained, epoch, loss, rate, .. } = progress {
            epochs.push((epoch, loss, rate));
        }
    })
    .unwrap();
    for (before, after) in before.iter().zip(models.trained.store().unwrap()) {
        let bits = |data: &[f32]| data.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!((&before.name, bits(&before.data)), (&after.name, bits(&after.data)));
    }
    assert!(evaluation.trained.top1 > 0.95, "{evaluation:?}");
    assert!(evaluation.random.is_some_and(|random| random.top1 > 0.9));
    assert_eq!((evaluation.train_images, evaluation.test_images, evaluation.classes), (120, 60, 3));
    assert!(epochs.iter().map(|(epoch, ..)| *epoch).eq(1..=8));
    assert!(epochs[7].1 < 0.5 * epochs[0].1, "{epochs:?}");
    // The rate falls to nearly 0 as a cosine.
    assert!(epochs.windows(2).all(|pair| pair[1].2 < pair[0].2) && epochs[7].2 < 0.02, "{epochs:?}");
}

#[test]
fn linear_sgd_of_z_reads_the_frozen_head() {
    let models = models(2);
    let before = models.trained.fingerprint().unwrap();
    let of_z = linear_sgd_z(&models, &splits(), &quick(), &mut |_| ()).unwrap();
    assert_eq!(models.trained.fingerprint().unwrap(), before);
    assert_eq!(of_z.protocol.title(), "linear on z, SGD");
    assert!(of_z.trained.top1 > 0.6, "{of_z:?}");
    let of_h = linear_sgd(&models, &splits(), &quick(), &mut |_| ()).unwrap();
    let loss = |evaluation: &Evaluation| evaluation.trained.details["train_loss"].as_f64().unwrap();
    assert_ne!(loss(&of_z), loss(&of_h));
    // Without a head z is h.
    let mut config = config();
    config.head.kind = HeadKind::None;
    let headless = Versus::alone(Model::new(&config, &Device::cpu(2).unwrap()).unwrap());
    let [of_z, of_h] = [linear_sgd_z, linear_sgd]
        .map(|fit| loss(&fit(&headless, &splits(), &quick(), &mut |_| ()).unwrap()));
    assert_eq!(of_z, of_h);
}

#[test]
fn decay_keeps_the_classifier_small() {
    let models = Versus::alone(models(2).trained);
    let fit = |weight_decay| {
        let options = Sgd { weight_decay, ..quick() };
        linear_sgd(&models, &splits(), &options, &mut |_| ()).unwrap()
    };
    let (none, some) = (fit(0.0), fit(0.5));
    let loss = |evaluation: &Evaluation| evaluation.trained.details["train_loss"].as_f64().unwrap();
    assert!(loss(&some) > loss(&none), "{} {}", loss(&some), loss(&none));
    assert!(!none.settings().contains("decay") && some.settings().ends_with(", weight decay 0.5"));
}

#[test]
fn steps_end_it_in_the_middle_of_an_epoch() {
    let mut told = Vec::new();
    let options = Sgd { steps: Some(10), ..quick() };
    linear_sgd(&Versus::alone(models(2).trained), &splits(), &options, &mut |progress| {
        if let Progress::Epoch { epoch, epochs, rate, .. } = progress {
            told.push((epoch, epochs, rate));
        }
    })
    .unwrap();
    // An epoch ends within the 8th step; the cosine would reach 0 in the 11th.
    let cosine = |step: f64| 0.5 * 0.5 * (1.0 + (std::f64::consts::PI * step / 11.0).cos());
    assert_eq!(told.iter().map(|&(epoch, epochs, _)| (epoch, epochs)).collect::<Vec<_>>(), [(1, 2), (2, 2)]);
    assert!((told[0].2 - cosine(7.0)).abs() < 1e-12 && (told[1].2 - cosine(9.0)).abs() < 1e-12, "{told:?}");
}

#[test]
fn protocols_on_features_tell_classes_apart() {
    let encoded = encode(&models(2), &splits(), true, &mut |_| ()).unwrap();
    let by_neighbours = knn(&encoded, &Knn { k: 20, ..Knn::default() }).unwrap();
    let by_regression =
        logistic(&Device::cpu(2).unwrap(), &encoded, &LogisticOptions::default(), &mut |_| ()).unwrap();
    for evaluation in [&by_neighbours, &by_regression] {
        let scores = &evaluation.trained;
        assert!(scores.top1 > 0.9, "{evaluation:?}");
        // With three classes, top-5 accuracy would always be 1.
        assert_eq!(scores.top5, None);
        assert_eq!(scores.per_class.iter().map(|class| class.name.as_str()).collect::<Vec<_>>(), RGB);
        assert!(scores.per_class.iter().all(|class| class.images == 20));
        let mean = scores.per_class.iter().filter_map(|class| class.accuracy).sum::<f64>() / 3.0;
        assert!((scores.mean_per_class - mean).abs() < 1e-12);
        assert_eq!(scores.confusion.iter().flatten().sum::<u64>(), 60);
        assert!(evaluation.random.is_some());
        let text = serde_json::to_string(evaluation).unwrap();
        assert_eq!(&serde_json::from_str::<Evaluation>(&text).unwrap(), evaluation);
    }
    assert_eq!(by_regression.trained.details["validation_images"], 12);
    // With z in place of h.
    let projected = encoded.try_map(|_, encoded| encoded.projected().ok_or("no z")).unwrap();
    assert_eq!(projected.trained.train.h_dim, 16);
    assert!(knn(&projected, &Knn { k: 20, ..Knn::default() }).unwrap().trained.top1 > 0.8);
    let (device, options) = (Device::cpu(2).unwrap(), LogisticOptions::default());
    let of_z = logistic_z(&device, &encoded, &options, &mut |_| ()).unwrap();
    let same = logistic(&device, &projected, &options, &mut |_| ()).unwrap();
    assert_eq!(timeless(&of_z), timeless(&Evaluation { protocol: of_z.protocol.clone(), ..same }));
    assert_eq!(of_z.protocol.title(), "linear on z, logistic regression");
}

#[test]
fn a_collapsed_encoder_is_at_chance() {
    let encoded = encode(&models(2), &splits(), true, &mut |_| ()).unwrap();
    let collapsed = encoded.try_map(|_, encoded| {
        let mut encoded = encoded.clone();
        encoded.train.h.fill(1.0);
        encoded.test.h.fill(1.0);
        Ok::<_, EvalError>(encoded)
    });
    let (device, options) = (Device::cpu(2).unwrap(), LogisticOptions::default());
    let evaluation = logistic(&device, &collapsed.unwrap(), &options, &mut |_| ()).unwrap();
    assert!((evaluation.trained.top1 - 1.0 / 3.0).abs() < 1e-9, "{evaluation:?}");
}

#[test]
fn both_encoders_see_the_images_as_they_are_read_once() {
    let (models, [train, test]) = (models(2), [(150, 1), (30, 2)]);
    let counted = |(count, seed)| Counted::new(Toy { broken: vec![2], ..Toy::new(&RGB, count, seed) });
    let (train, test) = (counted(train), counted(test));
    let data = Splits::new(train.clone(), test.clone()).unwrap();
    let reads = || [&train, &test].map(|set| set.reads.load(Ordering::Relaxed));
    let mut told = Vec::new();
    let both = encode(&models, &data, true, &mut |progress| {
        if let Progress::Encoding { side, set, done, images } = progress {
            told.push((side, set, done, images));
        }
    })
    .unwrap();
    assert_eq!(reads(), [150, 30]);
    assert_eq!(told.last(), Some(&(None, "test", 29, 30)));
    let mut done = told.iter().filter(|told| told.1 == "training").map(|&(.., done, _)| done);
    assert!(done.next() < Some(149) && done.next_back() == Some(149), "{told:?}");

    for (one, alone) in [(both.trained, models.trained), (both.random.unwrap(), models.random.unwrap())] {
        let alone = encode(&Versus::alone(alone), &data, true, &mut |_| ()).unwrap().trained;
        assert!(one.train == alone.train && one.test == alone.test);
    }
}

#[test]
fn neighbours_are_the_same_whether_features_are_kept_or_not() {
    let train = Toy { broken: vec![7, 8], ..Toy::new(&RGB, 600, 1) };
    let data = Splits::new(train.shared(), splits().test().clone()).unwrap();
    let both = models(2);
    for models in [Versus::alone(both.trained.clone()), both] {
        for options in [Knn { k: 20, ..Knn::default() }, Knn { k: 1000, temperature: 0.5 }] {
            let kept = knn(&encode(&models, &data, false, &mut |_| ()).unwrap(), &options).unwrap();
            let found = knn_of_images(&models, &data, &options, &mut |_| ()).unwrap();
            assert_eq!(timeless(&found), timeless(&kept));
            assert_eq!((found.train_images, found.skipped), (598, 2));
            assert!(found.trained.details["encoding_s"].is_number());
        }
    }
    let torn = Toy { broken: (0..9).collect(), ..Toy::new(&RGB, 9, 1) };
    let data = Splits::new(torn.shared(), splits().test().clone()).unwrap();
    let error = knn_of_images(&models(1), &data, &Knn::default(), &mut |_| ()).unwrap_err();
    assert!(matches!(error, EvalError::NoImages { set: "training", images: 9, .. }), "{error}");
}

#[test]
fn encoders_of_different_image_sizes_do_not_share_images() {
    let mut larger = config();
    larger.data.image_size = 32;
    let random = Some(Model::new(&larger, &Device::cpu(1).unwrap()).unwrap());
    let models = Versus { trained: models(1).trained, random };
    let error = encode(&models, &splits(), false, &mut |_| ()).unwrap_err().to_string();
    assert_eq!(error, "models that embed the same images: expected 16 x 16 pixels for each, got 32 x 32");
}

#[test]
fn same_bits_for_any_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (models, data) = (models(threads), splits());
            let encoded = encode(&models, &data, true, &mut |_| ()).unwrap();
            let sgd = linear_sgd(&models, &data, &Sgd { epochs: 2, ..quick() }, &mut |_| ()).unwrap();
            let regression =
                logistic(&Device::cpu(2).unwrap(), &encoded, &LogisticOptions::default(), &mut |_| ())
                    .unwrap();
            let results = [knn(&encoded, &Knn::default()).unwrap(), regression, sgd];
            (encoded.trained.train, encoded.trained.test, results.map(|result| timeless(&result)))
        })
    };
    let one = run(1);
    assert!(one == run(2));
    assert!(one == run(4));
}

#[test]
fn the_random_encoder_has_settled_averages() {
    let mut config = config();
    // Views are the images themselves: the averages must be close to the statistics over all of them.
    config.view.crop_area = [1.0, 1.0];
    config.view.crop_aspect = [1.0, 1.0];
    config.view.flip = 0.0;
    let (toy, device) = (Toy::new(&RGB, 60, 1).shared(), Device::cpu(2).unwrap());
    let model = random_encoder(&config, &toy, &device, &mut |_| ()).unwrap();
    let images: Vec<u8> = (0..60)
        .flat_map(|index| {
            toy.read(index, &mut simclr_data::DecodeScratch::default()).unwrap().pixels.to_vec()
        })
        .collect();
    let h = |model: &Model, mode| {
        let mut tape = Tape::new(&model.parameters, mode, &SingleProcess);
        let input = tape.input(model.images(&images).unwrap());
        model.encoder.forward(&mut tape, &input).unwrap().tensor().to_vec().unwrap()
    };
    let difference = |model: &Model| {
        let (eval, train) = (h(model, Mode::Eval), h(model, Mode::Train));
        let apart: f32 = eval.iter().zip(&train).map(|(a, b)| (a - b).abs()).sum();
        apart / train.iter().sum::<f32>()
    };
    // Not closer, since the variances of batches of half the images scatter.
    assert!(difference(&model) < 0.04, "{}", difference(&model));
    // A fresh network's averages are far off.
    let fresh = Model::new(&config, &device).unwrap();
    assert!(difference(&fresh) > 0.3, "{}", difference(&fresh));
    assert_eq!(
        model.store().unwrap(),
        random_encoder(&config, &toy, &device, &mut |_| ()).unwrap().store().unwrap()
    );
    assert_ne!(model.store().unwrap()[0].data, fresh.store().unwrap()[0].data);
}

/// More images than a batch has, and fewer that can be read.
#[test]
fn the_random_encoder_makes_do_with_what_can_be_read() {
    let (device, of) = (Device::cpu(2).unwrap(), |broken| Toy { broken, ..Toy::new(&RGB, 100, 1) }.shared());
    let made = |images| random_encoder(&config(), &images, &device, &mut |_| ());
    assert!(made(of((40..100).collect())).is_ok() && made(of((1..100).collect())).is_ok());
    let none = made(of((0..100).collect())).unwrap_err().to_string();
    assert!(none.contains("0 readable"), "{none}");
}

#[test]
fn the_random_encoder_sees_the_views_of_both_branches() {
    let (toy, device) = (Toy::new(&RGB, 60, 1).shared(), Device::cpu(2).unwrap());
    let averages = |second: ViewPreset| {
        let mut config = config();
        config.view.a = Some(ViewPreset::CropOnly.ops());
        config.view.b = Some(second.ops());
        random_encoder(&config, &toy, &device, &mut |_| ()).unwrap().store().unwrap()
    };
    assert!(averages(ViewPreset::CropOnly) != averages(ViewPreset::Simclr));
}

#[test]
fn broken_images_are_left_out_and_counted() {
    let train = Toy { broken: vec![7, 50], ..Toy::new(&RGB, 120, 1) };
    let data = Splits::new(train.shared(), Toy::new(&RGB, 60, 2).shared()).unwrap();
    let models = Versus::alone(models(2).trained);
    let encoded = encode(&models, &data, false, &mut |_| ()).unwrap();
    assert_eq!(encoded.trained.train.labels.len(), 118);
    assert!(!encoded.trained.train.indices.contains(&7));
    for evaluation in [
        knn(&encoded, &Knn::default()).unwrap(),
        linear_sgd(&models, &data, &Sgd { epochs: 1, ..quick() }, &mut |_| ()).unwrap(),
    ] {
        assert_eq!((evaluation.train_images, evaluation.skipped), (118, 2));
        assert!(evaluation.unlearnt.is_empty());
        assert!(evaluation.random.is_none());
    }
    let blue = (0..120).filter(|image| image % 3 == 2).collect();
    let data =
        Splits::new(Toy { broken: blue, ..Toy::new(&RGB, 120, 1) }.shared(), data.test().clone()).unwrap();
    let encoded = encode(&models, &data, false, &mut |_| ()).unwrap();
    for evaluation in [
        knn(&encoded, &Knn::default()).unwrap(),
        logistic(&Device::cpu(2).unwrap(), &encoded, &LogisticOptions::default(), &mut |_| ()).unwrap(),
        linear_sgd(&models, &data, &Sgd { epochs: 1, ..quick() }, &mut |_| ()).unwrap(),
    ] {
        assert_eq!(evaluation.unlearnt, ["blue"]);
    }
    let torn = Toy { broken: (0..60).collect(), ..Toy::new(&RGB, 60, 2) };
    let data = Splits::new(Toy::new(&RGB, 120, 1).shared(), torn.shared()).unwrap();
    let error = encode(&models, &data, false, &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "none of the 60 test images can be read; the first: toy 0: torn");
}

#[test]
fn options_out_of_range_are_errors() {
    let (models, data) = (Versus::alone(models(2).trained), splits());
    let fail = |options: Sgd| linear_sgd(&models, &data, &options, &mut |_| ()).unwrap_err();
    assert_eq!(fail(Sgd { epochs: 0, ..quick() }).to_string(), "epochs is 0, expected at least 1");
    assert!(matches!(fail(Sgd { rate: f64::NAN, ..quick() }), EvalError::Option { name: "rate", .. }));
    assert!(matches!(fail(Sgd { rate: 1e38, ..quick() }), EvalError::Diverged { .. }));
    let batch = fail(Sgd { batch: 200, ..quick() }).to_string();
    assert!(batch.contains("batch = 200") && batch.contains("120"), "{batch}");
    let encoded = encode(&models, &data, false, &mut |_| ()).unwrap();
    let options = LogisticOptions { validation: 1.0, ..LogisticOptions::default() };
    assert!(matches!(
        logistic(&Device::cpu(2).unwrap(), &encoded, &options, &mut |_| ()),
        Err(EvalError::Option { .. })
    ));
    assert!(knn(&encoded, &Knn { k: 0, ..Knn::default() }).is_err());
}

#[test]
fn settings_of_linear_sgd_follow_the_images() {
    let of = |size, images, given| {
        let Sgd { epochs, batch, rate, .. } = Sgd::linear(size, images, given);
        (epochs, batch, rate)
    };
    assert_eq!(of(32, 50_000, None), (100, 512, 0.1));
    assert_eq!(of(224, 1_281_167, None), (90, 4096, 1.6));
    assert_eq!(of(224, 2560, None), (90, 256, 0.1));
    assert_eq!(of(32, 3, None), (100, 1, 0.1));
    // The rate follows the batch, given or not; that for small images does not.
    assert_eq!(of(224, 2560, Some(512)), (90, 512, 0.2));
    assert_eq!(of(32, 50_000, Some(64)), (100, 64, 0.1));
    let Sgd { steps, weight_decay, .. } = Sgd::linear(224, 2560, None);
    assert_eq!((steps, weight_decay), (None, 0.0));
}
