//! Predictions of a fine-tuned network: they must be those behind its accuracy.

mod common;

use std::ops::ControlFlow;
use std::path::Path;

use common::{RGB, Toy, config, models, source, splits};
use simclr_data::Reading;
use simclr_engine::Device;
use simclr_eval::EvalError;
use simclr_eval::embedding::{Images, Split};
use simclr_eval::protocols::{Classifier, FineTune, FineTuned, Labels, Predicted, Rate, Versus, finetune};

/// A network fine-tuned with few labels and steps, so that it does not recognise all images.
fn tuned(head_layers: usize) -> FineTuned {
    let few = FineTune::new(Labels::Images(12));
    let options = FineTune { epochs: Some(1), batch: Some(6), rate: Rate::Is(0.002), head_layers, ..few };
    finetune(&Versus::alone(models(2).trained), &splits(), &options, &mut |_| ()).unwrap()
}

fn classifier(tuned: &FineTuned, threads: usize) -> Classifier {
    let device = Device::cpu(threads).unwrap();
    Classifier::new(&config(), &tuned.weights, tuned.classes.clone(), &device).unwrap()
}

fn predict(classifier: &Classifier, images: &Images, top: usize) -> Result<(String, Predicted), EvalError> {
    let (mut table, name) = (Vec::new(), Path::new("labels.csv"));
    let reading = Reading { threads: classifier.device().threads(), strict: false };
    let watch = &mut |_| ControlFlow::Continue(());
    let predicted = classifier.predict(images, top, reading, (&mut table, name), watch)?;
    Ok((String::from_utf8(table).unwrap(), predicted))
}

fn rows(table: &str) -> Vec<Vec<String>> {
    let mut lines = csv::Reader::from_reader(table.as_bytes());
    lines.records().map(|line| line.unwrap().iter().map(str::to_owned).collect()).collect()
}

/// The test images of [`splits`].
fn test_images() -> Images {
    Images::of(&source(Toy::new(&RGB, 60, 2), None), None).unwrap()
}

#[test]
fn labels_are_those_that_fine_tuning_was_judged_by() {
    for head_layers in [0, 1, 2] {
        let tuned = tuned(head_layers);
        let (table, predicted) = predict(&classifier(&tuned, 2), &test_images(), 3).unwrap();
        let scores = &tuned.evaluation.trained;
        assert!(scores.top1 > 0.2 && scores.top1 < 1.0, "{head_layers}: {scores:?} says little");
        assert_eq!((predicted.images, predicted.top1()), (60, Some(scores.top1)), "{head_layers}");
        assert!(table.starts_with("name,label,probability,label_2,probability_2,label_3,probability_3\n"));
        // The same images in memory: small enough that the central crop is the whole image.
        let pixels = Toy::new(&RGB, 60, 2).pixels.concat();
        let probabilities = classifier(&tuned, 2).probabilities(&pixels).unwrap();
        assert_eq!(probabilities.len(), 60 * 3);
        let mut confusion = vec![vec![0; 3]; 3];
        for (index, row) in rows(&table).iter().enumerate() {
            assert_eq!(row[0], format!("toy {index}"));
            let taken = RGB.iter().position(|class| *class == row[1]).unwrap();
            confusion[index % 3][taken] += 1;
            let shares: Vec<f64> = [2, 4, 6].map(|field| row[field].parse().unwrap()).to_vec();
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
            assert!((probabilities[3 * index + taken] - shares[0]).abs() < 1e-6, "{row:?}");
            assert!(shares[0] >= shares[1] && shares[1] >= shares[2], "{row:?}");
        }
        assert_eq!(confusion, scores.confusion, "{head_layers}");
    }
}

#[test]
fn the_same_for_any_threads_and_whatever_is_beside_an_image() {
    let tuned = tuned(1);
    // More than a batch.
    let all = Toy { broken: vec![3, 140], ..Toy::new(&RGB, 150, 7) };
    let one = |index: usize| Toy {
        labels: vec![all.labels[index]],
        pixels: vec![all.pixels[index].clone()],
        ..Toy::new(&RGB, 1, 7)
    };
    let single = |index| Images::of(&source(one(index), None), None).unwrap();
    let images = Images::of(&source(all.clone(), None), None).unwrap();
    let (table, predicted) = predict(&classifier(&tuned, 1), &images, 2).unwrap();
    assert_eq!((predicted.images, predicted.broken.len()), (148, 2));
    assert_eq!(predicted.broken[1].name, "toy 140");
    assert_eq!((predicted.per_class.iter().sum::<usize>(), predicted.only_label()), (148, None));
    let other = classifier(&tuned, 3);
    assert!(table == predict(&other, &images, 2).unwrap().0);
    for row in [0, 99, 147] {
        let own = &rows(&table)[row];
        let index: usize = own[0].strip_prefix("toy ").unwrap().parse().unwrap();
        let (alone, _) = predict(&other, &single(index), 2).unwrap();
        assert_eq!(rows(&alone)[0][1..], own[1..], "row {row}");
    }
}

#[test]
fn classes_are_matched_by_name_and_quoted() {
    let mut tuned = tuned(0);
    let accuracy = |tuned: &FineTuned, classes: &[&str]| {
        let images =
            Images::of(&source(Toy::new(classes, 60, 2), Some(Toy::new(classes, 3, 4))), None).unwrap();
        predict(&classifier(tuned, 1), &images, 1).unwrap()
    };
    let (table, predicted) = accuracy(&tuned, &["blue", "red", "green"]);
    assert!(table.starts_with("name,split,label,probability\ntoy 0,train,"), "{table}");
    assert!(table.lines().count() == 64 && table.lines().last().unwrap().starts_with("toy 2,test,"));
    let [train, test] = predicted.recognised[..] else { panic!("{predicted:?}") };
    assert_eq!(
        (train.split, train.labelled, test.split, test.labelled),
        (Some(Split::Train), 60, Some(Split::Test), 3)
    );
    assert!(train.top1().is_some() && predicted.top1() == test.top1());
    let learnt = Predicted { recognised: vec![train], ..predicted };
    assert_eq!(learnt.top1(), train.top1());
    let of_one = |per_class| Predicted { images: 5, per_class, ..learnt.clone() }.only_label();
    assert_eq!((of_one(vec![0, 5, 0]), of_one(vec![0, 4, 1]), of_one(vec![5])), (Some(1), None, None));
    assert_eq!(accuracy(&tuned, &["red", "pink"]).1.top1(), None);
    let unlabelled = Toy { classes: Vec::new(), labels: vec![None; 4], ..Toy::new(&RGB, 4, 2) };
    let images = Images::of(&source(unlabelled, None), None).unwrap();
    assert_eq!(predict(&classifier(&tuned, 1), &images, 1).unwrap().1.top1(), None);
    tuned.classes = vec!["a \"b\", c".to_owned(); 3];
    let (table, _) = predict(&classifier(&tuned, 1), &images, 1).unwrap();
    assert!(table.contains("toy 0,\"a \"\"b\"\", c\",0."), "{table}");
}

#[test]
fn wrong_networks_and_options_are_refused() {
    let tuned = tuned(1);
    for top in [0, 4] {
        let error = predict(&classifier(&tuned, 1), &test_images(), top).unwrap_err().to_string();
        assert!(error.contains(&format!("top is {top}, of 3 classes")), "{error}");
    }
    let device = Device::cpu(1).unwrap();
    let fail = |weights: &[_], classes: &[String]| match Classifier::new(
        &config(),
        weights,
        classes.to_vec(),
        &device,
    ) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("a classifier"),
    };
    let without = |name: &str| {
        let left = tuned.weights.iter().filter(|tensor| tensor.name != name);
        fail(&left.cloned().collect::<Vec<_>>(), &tuned.classes)
    };
    for name in ["fc.bias", "conv1.weight", "head.0.bn.running_mean"] {
        assert!(without(name).contains(name));
    }
    assert!(fail(&tuned.weights, &tuned.classes[..2]).contains("fc.weight"));
    let mut deep = tuned.weights.clone();
    deep[0].name = "head.7.linear.weight".to_owned();
    assert!(fail(&deep, &tuned.classes).contains("head layers are 8"));
    let mut wild = tuned.clone();
    wild.weights
        .iter_mut()
        .filter(|tensor| tensor.name == "fc.weight")
        .for_each(|tensor| tensor.data.fill(3e38));
    let error = predict(&classifier(&wild, 1), &test_images(), 1).unwrap_err().to_string();
    assert!(error.contains("toy 0 is not finite"), "{error}");
    let in_memory = |bytes: &[u8]| classifier(&wild, 1).probabilities(bytes);
    assert!(in_memory(&Toy::new(&RGB, 2, 2).pixels.concat()).unwrap_err().to_string().contains("image 0"));
    assert!(in_memory(&[0; 5]).unwrap_err().to_string().contains("16 x 16 x 3"));
    assert!(in_memory(&[]).unwrap().is_empty());
    let reading = Reading { threads: 1, strict: false };
    let stop = &mut |_| ControlFlow::Break(());
    let out = (&mut Vec::new() as &mut dyn std::io::Write, Path::new("labels.csv"));
    let stopped = classifier(&tuned, 1).predict(&test_images(), 1, reading, out, stop);
    assert!(matches!(stopped, Err(EvalError::Stopped)));
}
