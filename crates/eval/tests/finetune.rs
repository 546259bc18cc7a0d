//! Fine-tuning on a toy data set that any encoder separates.

mod common;

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use common::{Counted, RGB, Toy, config, models, splits};
use simclr_data::{Source, SourceKind, synthetic};
use simclr_engine::Device;
use simclr_eval::EvalError;
use simclr_eval::protocols::{
    Evaluation, FineTune, FineTuned, Labels, Opened, Progress, Rate, Side, Splits, Versus, finetune,
    network_file, pair, saved_networks,
};
use simclr_train::checkpoint::NamedTensor;
use simclr_train::config::{Auto, Memory};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Model, memory};

fn quick(labels: Labels) -> FineTune {
    FineTune { epochs: Some(5), batch: Some(12), rate: Rate::Is(0.05), ..FineTune::new(labels) }
}

const HALF: Labels = Labels::Percent(50.0);

fn named<'t>(tensors: &'t [NamedTensor], name: &str) -> &'t NamedTensor {
    tensors.iter().find(|tensor| tensor.name == name).unwrap_or_else(|| panic!("no {name}"))
}

fn bits(tensors: &[NamedTensor]) -> Vec<(&str, Vec<u32>)> {
    let of = |tensor: &NamedTensor| tensor.data.iter().map(|value| value.to_bits()).collect();
    tensors.iter().map(|tensor| (tensor.name.as_str(), of(tensor))).collect()
}

#[test]
fn everything_learns_and_the_models_stay_as_they_are() {
    let models = models(2);
    let before = models.trained.store().unwrap();
    let (mut losses, mut planned) = (Vec::new(), None);
    let tuned = finetune(&models, &splits(), &quick(HALF), &mut |progress| match progress {
        Progress::Epoch { side: Side::Trained, loss, rate, .. } => losses.push((loss, rate)),
        Progress::Planned { images, of, batch, memory, .. } => {
            planned = Some((images, of, batch, memory.memory))
        }
        _ => {}
    })
    .unwrap();
    assert_eq!(planned, Some((60, 120, 12, Memory::Full)));
    assert_eq!(bits(&before), bits(&models.trained.store().unwrap()));
    let FineTuned { evaluation, weights, steps, classes } = tuned;
    assert_eq!((steps, classes.as_slice()), (25, &RGB.map(str::to_owned)[..]));
    // Gradients reach every parameter of the encoder, and every running average moves; the head is gone.
    for old in before.iter().filter(|tensor| !tensor.name.starts_with("head.")) {
        assert_ne!(old.data, named(&weights, &old.name).data, "{}", old.name);
    }
    assert!(weights.iter().all(|tensor| !tensor.name.starts_with("head.")));
    assert_eq!(named(&weights, "fc.weight").shape, [3, 64]);
    assert_eq!(named(&weights, "fc.bias").shape, [3]);

    assert!(losses.last().unwrap().0 < 0.5 * losses[0].0, "{losses:?}");
    assert!(losses.windows(2).all(|pair| pair[1].1 < pair[0].1), "{losses:?}");
    assert!(evaluation.trained.top1 > 0.9, "{evaluation:?}");
    assert!(evaluation.random.as_ref().is_some_and(|random| random.details["steps"] == 25));
    assert_eq!((evaluation.train_images, evaluation.test_images, evaluation.classes), (60, 60, 3));
    assert_eq!(evaluation.protocol.to_string(), "finetune-50%-epochs-5-batch-12-rate-0.05");
    assert_eq!(evaluation.protocol.title(), "fine-tuning, 50% of the labels, epochs 5, batch 12, rate 0.05");
    assert_eq!(evaluation.trained.details["seed"], 0);
    assert_eq!(evaluation.baseline(), "from scratch");
}

#[test]
fn from_a_layer_of_the_head() {
    let models = Versus::alone(models(2).trained);
    let before = models.trained.store().unwrap();
    let options = FineTune { head_layers: 1, epochs: Some(1), ..quick(Labels::Images(24)) };
    let tuned = finetune(&models, &splits(), &options, &mut |_| ()).unwrap();
    let kept: Vec<&NamedTensor> =
        tuned.weights.iter().filter(|tensor| tensor.name.starts_with("head.")).collect();
    assert_eq!(kept.len(), 5);
    for tensor in kept {
        assert!(tensor.name.starts_with("head.0."), "{}", tensor.name);
        assert_ne!(tensor.data, named(&before, &tensor.name).data, "{}", tensor.name);
    }
    assert_eq!(
        tuned.evaluation.protocol.title(),
        "fine-tuning, 24 labels, from head layer 1, epochs 1, rate 0.05"
    );
    // On z: 16 values.
    let all = FineTune { head_layers: 2, ..options.clone() };
    let tuned = finetune(&models, &splits(), &all, &mut |_| ()).unwrap();
    assert_eq!(named(&tuned.weights, "fc.weight").shape, [3, 16]);
    let error =
        finetune(&models, &splits(), &FineTune { head_layers: 3, ..options }, &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("are 3, but the projection head of this run has 2"), "{error}");
}

#[test]
fn same_bits_for_any_threads_and_whatever_is_kept() {
    let run = |threads: usize, memory: Auto<Memory>| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let models = Versus::alone(models(threads).trained);
            let options = FineTune { epochs: Some(2), memory, ..quick(Labels::Images(36)) };
            let tuned = finetune(&models, &splits(), &options, &mut |_| ()).unwrap();
            (
                bits(&tuned.weights).into_iter().map(|(_, bits)| bits).collect::<Vec<_>>(),
                tuned.evaluation.trained.confusion,
            )
        })
    };
    let one = run(1, Auto::Auto);
    assert!(one == run(3, Auto::Auto));
    assert!(one == run(2, Auto::Value(Memory::Blocks)));
}

#[test]
fn settings_follow_the_paper_and_the_images() {
    let of = |labels: Labels, of| {
        let sgd = FineTune::new(labels).sgd(labels.count(of), of);
        (sgd.epochs, sgd.batch, sgd.rate)
    };
    let (one, ten) = (Labels::Percent(1.0), Labels::Percent(10.0));
    assert_eq!(of(one, 1_281_167), (60, 4096, 0.8));
    assert_eq!(of(ten, 1_281_167), (30, 4096, 0.8));
    assert_eq!(of(one, 50_000), (60, 160, 0.03125));
    assert_eq!(of(Labels::Images(500), 50_000), (60, 160, 0.03125));
    assert_eq!(of(Labels::Percent(100.0), 200), (30, 32, 0.00625));
    // Two steps per epoch, which cover every label but one.
    assert_eq!(of(Labels::Images(41), 1000), (60, 20, 0.05 * 20.0 / 256.0));
    assert_eq!(of(Labels::Images(1), 1000), (60, 1, 0.05 / 256.0));
    let usual = FineTune::new(ten).sgd(5000, 50_000);
    assert_eq!(usual.weight_decay, 0.0);
    let given = FineTune {
        epochs: Some(7),
        batch: Some(64),
        rate: Rate::Is(1.0),
        weight_decay: 0.5,
        ..FineTune::new(one)
    };
    let sgd = given.sgd(500, 50_000);
    assert_eq!((sgd.epochs, sgd.batch, sgd.rate, sgd.weight_decay), (7, 64, 1.0, 0.5));
}

#[test]
fn impossible_options_and_divergence_are_errors() {
    let models = Versus::alone(models(1).trained);
    let fail = |options: FineTune| finetune(&models, &splits(), &options, &mut |_| ()).unwrap_err();
    let few = fail(quick(Labels::Percent(1.0))).to_string();
    assert!(
        few.starts_with("1% of 120 labels is 1 image, ") && few.contains("a number from 3 to 120"),
        "{few}"
    );
    assert!(matches!(fail(quick(Labels::Images(121))), EvalError::Labels { .. }));
    let rate = FineTune { rate: Rate::Is(-1.0), ..quick(HALF) };
    assert!(matches!(fail(rate), EvalError::Option { name: "rate", .. }));
    let batch = fail(FineTune { batch: Some(61), ..quick(HALF) }).to_string();
    assert!(batch.contains("batch = 61") && batch.contains("60"), "{batch}");
    let diverged = fail(FineTune { rate: Rate::Is(1e30), ..quick(HALF) });
    assert!(matches!(diverged, EvalError::Diverged { epoch: 1, .. }), "{diverged}");
    assert!(diverged.to_string().contains("in epoch 1 at rate "), "{diverged}");
}

/// A rate that does nothing, one that learns, and one that diverges.
#[test]
fn each_network_has_the_rate_that_does_best_on_a_part_of_its_labels() {
    let rates = [1e30, 1e-12, 0.05];
    let options = FineTune { rate: Rate::BestOf(rates.to_vec()), ..quick(HALF) };
    let mut tried = Vec::new();
    let tuned = finetune(&models(2), &splits(), &options, &mut |progress| match progress {
        Progress::Tried { side, rate, score, decay: None, .. } => tried.push((side, rate, score.is_some())),
        Progress::Planned { rate, rates, .. } => assert_eq!((rate, rates), (1e-12, 3)),
        _ => {}
    })
    .unwrap();
    let of = |side| [(side, 1e-12, true), (side, 0.05, true), (side, 1e30, false)];
    assert_eq!(tried, [of(Side::Trained), of(Side::Random)].concat());
    let FineTuned { evaluation, steps, .. } = tuned;
    assert_eq!(evaluation.protocol.to_string(), "finetune-50%-epochs-5-batch-12-rate-1e-12+0.05+1e30");
    // Once the rate was chosen, it was trained on all of the labels.
    assert_eq!((evaluation.train_images, steps), (60, 25));
    for scores in [&evaluation.trained, evaluation.random.as_ref().unwrap()] {
        let details = &scores.details;
        assert_eq!((&details["rate"], &details["validation_images"]), (&0.05.into(), &12.into()));
        let trials = details["rates"].as_array().unwrap();
        assert_eq!(trials.len(), 3);
        assert!(trials[1]["validation"].as_f64() > trials[0]["validation"].as_f64(), "{trials:?}");
        assert!(trials[2]["validation"].is_null(), "{trials:?}");
        assert!(!details.contains_key("rate_at_edge"), "{details:?}");
    }
    // The same result as with that rate alone.
    let given = finetune(&models(2), &splits(), &quick(HALF), &mut |_| ()).unwrap();
    assert_eq!(
        bits(&given.weights),
        bits(&finetune(&models(2), &splits(), &options, &mut |_| ()).unwrap().weights)
    );

    let fail = |rates: &[f64], labels| {
        let options = FineTune { rate: Rate::BestOf(rates.to_vec()), ..quick(labels) };
        finetune(&models(2), &splits(), &options, &mut |_| ()).unwrap_err()
    };
    assert!(matches!(fail(&[1e30, 1e31], HALF), EvalError::AllDiverged { trainings: 2 }));
    assert!(matches!(fail(&[0.1, -1.0], HALF), EvalError::Option { name: "rate", .. }));
    assert!(matches!(fail(&[], HALF), EvalError::Option { name: "rate", .. }));
    let single = FineTune { batch: Some(3), rate: Rate::Tuned, ..quick(Labels::Images(3)) };
    let single = finetune(&models(2), &splits(), &single, &mut |_| ()).unwrap_err();
    assert!(single.to_string().contains("choose the rate"), "{single}");
}

/// Nothing but the features tells what the last step's update was worth: here of the only step.
#[test]
fn a_rate_that_diverges_in_the_last_step_is_not_chosen() {
    let models = Versus::alone(models(2).trained);
    let of = |rate| FineTune { epochs: Some(1), batch: Some(60), rate, ..quick(HALF) };
    let tuned = finetune(&models, &splits(), &of(Rate::BestOf(vec![1e-3, 1e30])), &mut |_| ()).unwrap();
    let details = &tuned.evaluation.trained.details;
    assert_eq!((tuned.steps, &details["rate"]), (1, &1e-3.into()));
    assert!(details["rates"][1]["validation"].is_null(), "{details:?}");
    // Of 12 images; and no lower rate was tried.
    assert_eq!(
        (&details["few_validation_images"], &details["rate_at_edge"]),
        (&true.into(), &"lowest".into())
    );
    let alone = finetune(&models, &splits(), &of(Rate::Is(1e30)), &mut |_| ()).unwrap_err();
    assert!(matches!(alone, EvalError::Diverged { epoch: 1, .. }), "{alone}");
}

#[test]
fn broken_images_are_left_out_and_counted() {
    let train = Toy { broken: (0..20).collect(), ..Toy::new(&RGB, 120, 1) };
    let data = Splits::new(train.shared(), Toy::new(&RGB, 60, 2).shared()).unwrap();
    let models = Versus::alone(models(1).trained);
    let all = FineTune { epochs: Some(2), ..quick(Labels::Percent(100.0)) };
    let evaluation = finetune(&models, &data, &all, &mut |_| ()).unwrap().evaluation;
    assert_eq!((evaluation.train_images, evaluation.skipped), (100, 20));
    assert!(evaluation.unlearnt.is_empty());
    let strict = finetune(&models, &data.strict(true), &all, &mut |_| ()).unwrap_err();
    assert!(strict.to_string().contains("torn"), "{strict}");
}

#[test]
fn images_that_were_paired_are_not_compared_again() {
    let images = Counted::new(Toy::new(&RGB, 60, 1));
    let source = Source::of(SourceKind::Folder, images.clone());
    let opened = Opened { source, paths: vec!["a".into()] };
    let data = pair(opened, None, 0.2, 1, &|_, _| ()).unwrap().splits;
    let compared = images.hashes.load(Ordering::Relaxed);
    assert!(compared > 0);
    let models = Versus::alone(models(1).trained);
    let options = FineTune { epochs: Some(1), rate: Rate::BestOf(vec![0.01, 0.1]), ..quick(HALF) };
    options.check(&models.trained, &data).unwrap();
    finetune(&models, &data, &options, &mut |_| ()).unwrap();
    assert_eq!(images.hashes.load(Ordering::Relaxed), compared);
}

/// A batch of more images than any machine has memory for.
#[test]
fn a_batch_without_room_is_refused_with_one_that_fits() {
    if memory::available().is_none() {
        drop(writeln!(std::io::stderr(), "SKIPPED: the system does not say how much memory there is"));
        return;
    }
    let mut config = config();
    config.data.image_size = 64;
    let images = synthetic(3_000_000, 10, 64, 0).train;
    let data = Splits::new(images.clone(), images).unwrap();
    let model = Model::new(&config, &Device::cpu(1).unwrap()).unwrap();
    let all = FineTune { batch: Some(3_000_000), ..quick(Labels::Percent(100.0)) };
    match finetune(&Versus::alone(model), &data, &all, &mut |_| ()).unwrap_err() {
        EvalError::BatchDoesNotFit { batch: 3_000_000, needed, available, largest: Some(largest) } => {
            assert!(needed > available && largest < 3_000_000, "{needed} {available} {largest}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn saved_networks_are_found_the_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(&folder.path().join("run"), &config()).unwrap();
    assert!(saved_networks(&run).unwrap().is_empty());
    let results = run.evaluations();
    fs::create_dir(&results).unwrap();
    let now = SystemTime::now();
    for (protocol, age) in [("finetune-1%", 60), ("finetune-10%", 20), ("finetune-1%-seed-1", 40)] {
        let file = File::create(network_file(&results, &protocol.into())).unwrap();
        file.set_modified(now - Duration::from_secs(age)).unwrap();
    }
    for other in ["finetune-50%.json", "knn.safetensors", "finetune-1%.safetensors.tmp"] {
        fs::write(results.join(other), "{}").unwrap();
    }
    let tuned = finetune(&Versus::alone(models(2).trained), &splits(), &quick(HALF), &mut |_| ()).unwrap();
    let result = Evaluation { protocol: "finetune-10%".into(), ..tuned.evaluation };
    run.write_evaluation("finetune-10%", &result).unwrap();
    let found = saved_networks(&run).unwrap();
    let names: Vec<_> = found.iter().map(|network| network.path.file_stem().unwrap().to_owned()).collect();
    assert_eq!(names, ["finetune-10%", "finetune-1%-seed-1", "finetune-1%"]);
    assert!(found.iter().all(|network| network.written.is_some()));
    let known: Vec<bool> = found.iter().map(|network| network.evaluation.is_some()).collect();
    assert_eq!(known, [true, false, false]);
    assert_eq!(found[0].evaluation.as_ref().unwrap().trained.top1, result.trained.top1);
}
