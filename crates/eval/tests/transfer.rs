//! Evaluates an encoder on other, toy data sets.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{RGB, Toy, config, models};
use simclr_data::{DataError, Dataset, LeftOut, Source, SourceKind};
use simclr_engine::Device;
use simclr_eval::protocols::transfer::{
    Entry, Grid, Outcome, Protocol, Suite, TransferOptions, TransferSet, Tuning, transfer,
};
use simclr_eval::protocols::{
    Edge, Pictures, Progress, SharedPaths, TrainedEncoder, WhichCheckpoint, assemble_report,
};
use simclr_eval::{EvalError, Targets};
use simclr_train::checkpoint::{Checkpoint, Meta};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Model};

fn options() -> TransferOptions {
    TransferOptions { with_random: true, strict: false, seed: 0, tuning: Tuning::default() }
}

/// Adds a checkpoint to a run folder.
fn save(folder: &Path, model: &Model, step: u64) -> TrainedEncoder {
    let path = folder.join("run");
    let run = match RunFolder::exists(&path) {
        true => RunFolder::open(&path).unwrap().0,
        false => RunFolder::create(&path, &config()).unwrap(),
    };
    let meta = Meta { step, epoch: step, config: config().to_toml().unwrap(), ..Meta::default() };
    run.checkpoints(5).save(&Checkpoint { tensors: model.store().unwrap(), meta }).unwrap();
    TrainedEncoder::load(&path, WhichCheckpoint::Newest, &Device::cpu(2).unwrap()).unwrap()
}

/// Opens a data set of toys, which are found by the last components of their paths.
fn open(toml: &str, toys: &[(&str, Toy)], seed: u64) -> Result<TransferSet, EvalError> {
    open_told(toml, toys, seed, &|_, _| ())
}

/// As [`open`], told of the progress of comparing.
fn open_told(
    toml: &str,
    toys: &[(&str, Toy)],
    seed: u64,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<TransferSet, EvalError> {
    let suite = Suite::parse(toml, Path::new("suite.toml"))?;
    let mut open = |path: &Path| {
        let toy = toys.iter().find(|(name, _)| path.ends_with(name));
        let train: Arc<dyn Dataset> = match toy {
            Some((_, toy)) => Arc::new(toy.clone()),
            None => return Err(DataError::NotFound(path.to_owned())),
        };
        let kind = SourceKind::Folder;
        Ok(Source { train, test: None, unlabelled: None, kind, left_out: LeftOut::default() })
    };
    TransferSet::open(&suite.sets[0], &suite.path, seed, 2, &mut open, progress)
}

const TOYS: &str =
    "[[set]]\nname = \"toys\"\ntrain = \"train\"\ntest = \"test\"\nmetric = \"mean_per_class\"\n";

fn toys() -> [(&'static str, Toy); 2] {
    [("train", Toy::new(&RGB, 120, 1)), ("test", Toy::new(&RGB, 60, 2))]
}

/// The results, and the number of progress reports: 0 if nothing was computed.
fn measure(encoder: &TrainedEncoder, set: &TransferSet, options: &TransferOptions) -> (Entry, usize) {
    measure_by(Protocol::Linear, encoder, set, options)
}

fn measure_by(
    protocol: Protocol,
    encoder: &TrainedEncoder,
    set: &TransferSet,
    options: &TransferOptions,
) -> (Entry, usize) {
    let mut told = 0;
    let entry = transfer(encoder, set, protocol, options, &mut |_| told += 1).unwrap();
    (entry, told)
}

/// Trainings that take only a moment.
fn quick(rates: &[f64], decays: &[f64]) -> TransferOptions {
    let grid = Grid { rates: rates.to_vec(), decays: decays.to_vec() };
    let tuning = Tuning { steps: 12, batch: 16, grid, ..Tuning::default() };
    TransferOptions { with_random: false, tuning, ..options() }
}

#[test]
fn a_linear_classifier_is_judged_and_not_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let set = open(TOYS, &toys(), 0).unwrap();
    assert_eq!((set.train.len(), set.validation.len(), set.test.len()), (108, 12, 60));

    // Only one of the two encoders.
    let alone = TransferOptions { with_random: false, ..options() };
    let (first, told) = measure(&encoder, &set, &alone);
    assert!(told > 0 && first.random.is_none());
    let trained = first.trained.clone().unwrap();
    assert!(trained.score > 0.9 && trained.validation > 0.9 && trained.chosen["l2"].is_f64(), "{trained:?}");
    assert_eq!((trained.train_images, trained.validation_images, trained.test_images), (120, 12, 60));
    assert_eq!(measure(&encoder, &set, &alone), (first.clone(), 0));

    // The other one is added; the first result is kept, down to its time.
    let (both, told) = measure(&encoder, &set, &options());
    assert!(told > 0 && both.random.is_some());
    assert_eq!(both.trained, first.trained);
    assert_eq!(measure(&encoder, &set, &options()), (both.clone(), 0));
    let text = fs::read(both.file(&encoder.run)).unwrap();
    assert_eq!(serde_json::from_slice::<Entry>(&text).unwrap(), both);

    // Computed again: other images, images elsewhere, another seed of the split, another checkpoint, a torn file.
    let others = [("train", Toy::new(&RGB, 123, 1)), ("test", Toy::new(&RGB, 60, 2))];
    assert!(measure(&encoder, &open(TOYS, &others, 0).unwrap(), &alone).1 > 0);
    let elsewhere = TOYS.replace("\"train\"", "\"new/train\"");
    assert!(measure(&encoder, &open(&elsewhere, &toys(), 0).unwrap(), &alone).1 > 0);
    let again = TransferOptions { seed: 1, ..alone.clone() };
    assert!(measure(&encoder, &open(TOYS, &toys(), 1).unwrap(), &again).1 > 0);
    // Earlier results stay.
    assert_eq!(measure(&encoder, &set, &options()), (both.clone(), 0));
    fs::write(both.file(&encoder.run), &text[..text.len() / 2]).unwrap();
    assert!(measure(&encoder, &set, &alone).1 > 0);
    let later = save(folder.path(), &models(2).random.unwrap(), 4);
    let (now, told) = measure(&later, &set, &options());
    assert!(told > 0 && now.step == 4);

    let page = assemble_report(&later.run, &config(), Pictures::default()).unwrap().render();
    assert!(page.contains("Other data sets") && !page.contains("<h2>Accuracy</h2>"));
    let row = page.split("<tr>").find(|row| row.contains("<th scope=\"row\">toys</th>")).unwrap();
    // The line has scores of the trained and the random encoder, but none of the paper.
    assert!(row.contains("mean per class") && row.matches("–</td>").count() == 1, "{row}");
}

#[test]
fn of_the_configuration_counts_what_a_result_depends_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut encoder = save(folder.path(), &models(2).trained, 3);
    let set = open(TOYS, &toys(), 0).unwrap();
    let protocols = [Protocol::Linear, Protocol::FineTune, Protocol::Scratch];
    let identities = |encoder: &TrainedEncoder| {
        protocols.map(|protocol| Entry::take_up(encoder, &set, protocol, &options()).unwrap().identity)
    };
    let before = identities(&encoder);
    let config = encoder.config.clone();
    let mut changed = |change: fn(&mut Config)| {
        encoder.config = config.clone();
        change(&mut encoder.config);
        let now = identities(&encoder);
        [0, 1, 2].map(|protocol| now[protocol] != before[protocol])
    };
    assert_eq!(changed(|config| config.train.epochs = 7), [false; 3]);
    assert_eq!(changed(|config| config.data.holdout = 7), [false; 3]);
    assert_eq!(changed(|config| config.data.shrink = 64), [true; 3]);
    assert_eq!(changed(|config| config.train.seed = 64), [true, false, true]);
}

/// The choice must not depend on the labels of the test images.
#[test]
fn settings_are_chosen_by_the_validation_images_alone() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let quick = quick(&[0.01, 0.1], &[0.0]);
    let of = |protocol, turned: &[&str]| {
        let mut toys = toys();
        for (name, toy) in &mut toys {
            if turned.contains(name) {
                toy.labels.iter_mut().for_each(|label| *label = label.map(|label| (label + 1) % 3));
            }
        }
        let mut all = toys.to_vec();
        all.push(("val", Toy::new(&RGB, 30, 3)));
        let set = open(&format!("{TOYS}validation = \"val\"\n"), &all, 0).unwrap();
        assert_eq!((set.train.len(), set.validation.len()), (120, 30));
        measure_by(protocol, &encoder, &set, &quick).0.trained.unwrap()
    };
    for protocol in [Protocol::Linear, Protocol::FineTune] {
        let (right, turned) = (of(protocol, &[]), of(protocol, &["test"]));
        assert_eq!((&right.chosen, right.validation), (&turned.chosen, turned.validation));
        assert!(right.score > 0.8 && turned.score < 0.1, "{protocol:?} {right:?} {turned:?}");
        assert!(of(protocol, &["train"]).validation < 0.2, "{protocol:?}");
    }
}

#[test]
fn copies_stay_on_one_side_and_those_to_test_on_are_told() {
    let (mut train, mut test) = (Toy::new(&RGB, 120, 1), Toy::new(&RGB, 60, 2));
    // Each of the first thirty images occurs twice.
    for image in 0..30 {
        train.pixels[image + 60] = train.pixels[image].clone();
    }
    test.pixels[7] = train.pixels[110].clone();
    test.pixels[9] = train.pixels[3].clone();
    // Rows of the images with labels are not those of all.
    (train.labels[100], test.labels[2]) = (None, None);
    test.pixels[8] = train.pixels[50].clone();
    let seen = AtomicUsize::new(0);
    let told = |done: usize, of: usize| {
        assert!(done <= of && of == 119 + 59);
        seen.fetch_max(done, Ordering::Relaxed);
    };
    let set = open_told(TOYS, &[("train", train), ("test", test)], 4, &told).unwrap();
    assert_eq!(seen.into_inner(), 119 + 59);
    let names: Vec<String> = (0..set.validation.len()).map(|row| set.validation.images.name(row)).collect();
    let chosen_by = |image: usize| names.contains(&format!("toy {image}"));
    assert_eq!(set.train.len() + set.validation.len(), 119);
    assert!((0..30).all(|image| chosen_by(image) == chosen_by(image + 60)), "{names:?}");
    assert!((0..30).any(chosen_by), "{names:?}");
    let shared = SharedPaths { images: 3, of: 59, first: "test/toy 7".into(), like: "train/toy 110".into() };
    assert_eq!(set.shared, Some(shared));
    assert_eq!(open(TOYS, &toys(), 4).unwrap().shared, None);
}

#[test]
fn validation_images_that_are_learnt_from_are_counted() {
    let [train, test] = toys();
    let mut val = Toy::new(&RGB, 30, 3);
    val.pixels[7] = train.1.pixels[110].clone();
    let set = open(&format!("{TOYS}validation = \"val\"\n"), &[train, test, ("val", val)], 0).unwrap();
    let shared = SharedPaths { images: 1, of: 30, first: "val/toy 7".into(), like: "train/toy 110".into() };
    assert_eq!((set.shared, set.shared_validation), (None, Some(shared)));
}

/// Everything but the times.
fn timeless(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    entry.grid.iter_mut().for_each(|point| point.seconds = 0.0);
    entry.trained.iter_mut().for_each(|outcome| outcome.seconds = 0.0);
    entry
}

#[test]
fn rates_and_decays_are_tried_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let before = encoder.model.fingerprint().unwrap();
    let set = open(TOYS, &toys(), 0).unwrap();
    let options = quick(&[0.1, 1e30], &[0.0, 1e-4]);
    for protocol in [Protocol::FineTune, Protocol::Scratch] {
        let (whole, _) = measure_by(protocol, &encoder, &set, &options);
        // At the second rate training diverges, and it is not chosen.
        let found: Vec<bool> = whole.grid.iter().map(|point| point.validation.is_some()).collect();
        assert_eq!(found, [true, true, false, false], "{whole:?}");
        let trained = whole.trained.clone().unwrap();
        assert!(trained.score > 0.9 && trained.chosen["rate"] == 0.1, "{whole:?}");
        assert_eq!((trained.train_images, trained.validation_images, trained.test_images), (120, 12, 60));
        assert_eq!((whole.lacks(&options), measure_by(protocol, &encoder, &set, &options).1), (0, 0));

        // Killed after the first training, or before the last: earlier points are kept, and the end is the same.
        for kept in [1, 4] {
            let mut torn = Entry { trained: None, ..whole.clone() };
            torn.grid.truncate(kept);
            fs::write(whole.file(&encoder.run), serde_json::to_vec(&torn).unwrap()).unwrap();
            assert_eq!(torn.lacks(&options), 5 - kept);
            let (again, _) = measure_by(protocol, &encoder, &set, &options);
            assert_eq!(timeless(&again), timeless(&whole));
            assert_eq!(again.grid[..kept], whole.grid[..kept]);
        }

        // A rate that suits a part of the images but diverges on all: the next best is chosen, and the failure
        // recorded.
        let mut hasty = Entry { trained: None, ..whole.clone() };
        hasty.grid[2].validation = Some(1.5);
        fs::write(whole.file(&encoder.run), serde_json::to_vec(&hasty).unwrap()).unwrap();
        let (again, _) = measure_by(protocol, &encoder, &set, &options);
        assert_eq!(timeless(&again).trained, timeless(&whole).trained);
        assert!(again.grid[2].fails_on_all && again.lacks(&options) == 0, "{again:?}");
        fs::write(whole.file(&encoder.run), serde_json::to_vec(&whole).unwrap()).unwrap();

        // A smaller grid discards nothing; another number of steps needs all trainings again.
        for smaller in [quick(&[0.1], &[1e-4]), quick(&[0.1], &[0.0]), quick(&[1e30], &[0.0])] {
            let (kept, trainings) = measure_by(protocol, &encoder, &set, &smaller);
            assert_eq!((whole.lacks(&smaller), trainings, kept), (0, 0, whole.clone()));
        }
        let longer =
            TransferOptions { tuning: Tuning { steps: 13, ..options.tuning.clone() }, ..options.clone() };
        assert_eq!(Entry::take_up(&encoder, &set, protocol, &longer).unwrap().lacks(&longer), 5);
    }
    assert_eq!(encoder.model.fingerprint().unwrap(), before);
    // With another checkpoint, fine-tuning starts anew; training from scratch does not depend on it.
    let later = save(folder.path(), &models(2).random.unwrap(), 4);
    let lacks = |protocol| Entry::take_up(&later, &set, protocol, &options).unwrap().lacks(&options);
    assert_eq!((lacks(Protocol::FineTune), lacks(Protocol::Scratch)), (5, 0));

    let page = assemble_report(&later.run, &config(), Pictures::default()).unwrap().render();
    let rows: Vec<&str> = page.split("<tr>").filter(|row| row.contains("<th scope=\"row\">toys")).collect();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert!(row.contains("fine-tuned") && row.matches("–</td>").count() == 1, "{row}");

    let hopeless = quick(&[1e30], &[0.0]);
    let error = transfer(&later, &set, Protocol::FineTune, &hopeless, &mut |_| ()).unwrap_err();
    assert!(matches!(error, EvalError::AllDiverged { trainings: 1 }), "{error}");
    let none = quick(&[], &[0.0]);
    let error = transfer(&later, &set, Protocol::FineTune, &none, &mut |_| ()).unwrap_err();
    assert!(matches!(error, EvalError::Option { name: "rates", .. }), "{error}");
}

#[test]
fn a_rate_that_diverges_in_the_last_step_is_not_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let set = open(TOYS, &toys(), 0).unwrap();
    let mut options = quick(&[1e-3, 1e30], &[0.0]);
    options.tuning.steps = 1;
    let (entry, _) = measure_by(Protocol::FineTune, &encoder, &set, &options);
    let found: Vec<bool> = entry.grid.iter().map(|point| point.validation.is_some()).collect();
    assert_eq!(entry.rate_at_edge(), Some((1e-3, Edge::Lowest)));
    assert_eq!((found, &entry.trained.unwrap().chosen["rate"]), (vec![true, false], &1e-3.into()));
}

/// An encoder for which all images are alike, and which cannot learn: nothing passes its first ReLU.
fn blind() -> Model {
    let mut model = models(2).trained;
    for (name, value) in [("bn1.weight", 0.0), ("bn1.bias", -1.0)] {
        let id = model.parameters.find(name).unwrap();
        model.parameters.get_mut(id).as_mut_slice().unwrap().fill(value);
    }
    model
}

#[test]
fn only_what_is_random_owes_nothing_to_the_trained_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &blind(), 3);
    let set = open(TOYS, &toys(), 0).unwrap();
    let score = |outcome: Option<Outcome>| outcome.unwrap().score;
    let (linear, _) = measure(&encoder, &set, &options());
    let (trained, random) = (score(linear.trained), score(linear.random));
    assert!(trained < 0.5 && random > 0.9, "{trained} {random}");
    let quick = quick(&[0.1], &[0.0]);
    let [tuned, scratch] = [Protocol::FineTune, Protocol::Scratch]
        .map(|protocol| score(measure_by(protocol, &encoder, &set, &quick).0.trained));
    assert!(tuned < 0.5 && scratch > 0.9, "{tuned} {scratch}");
}

#[test]
fn two_that_try_parts_of_a_grid_at_once_find_what_one_would() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let set = open(TOYS, &toys(), 0).unwrap();
    let options = quick(&[1e-6, 1e-5], &[0.0]);
    // While one process tries its first rate, another tries the best rate and finishes.
    let (better, mut other) = (quick(&[0.1], &[0.0]), None);
    let mut told = 0;
    let one = transfer(&encoder, &set, Protocol::FineTune, &options, &mut |progress| {
        if other.is_none() {
            other = Some(measure_by(Protocol::FineTune, &encoder, &set, &better).0);
        }
        told += usize::from(matches!(progress, Progress::Tried { .. }));
    });
    let (one, other) = (one.unwrap(), other.unwrap());
    let mut rates: Vec<f64> = one.grid.iter().map(|point| point.rate).collect();
    rates.sort_by(f64::total_cmp);
    assert_eq!((told, rates), (2, vec![1e-6, 1e-5, 0.1]));
    // The final training by the other is not repeated.
    assert_eq!((&one.trained, other.grid.len()), (&other.trained, 1));
    let all = quick(&[1e-6, 1e-5, 0.1], &[0.0]);
    assert_eq!(measure_by(Protocol::FineTune, &encoder, &set, &all), (one, 0));
}

#[test]
fn a_few_broken_images_of_a_small_set() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let toy = |count, seed, broken: &[usize]| Toy { broken: broken.to_vec(), ..Toy::new(&RGB, count, seed) };
    let toys = [("train", toy(24, 1, &[4])), ("val", toy(9, 3, &[0, 1])), ("test", toy(12, 2, &[2]))];
    let set = open(&format!("{TOYS}validation = \"val\"\n"), &toys, 0).unwrap();
    let mut options = quick(&[0.1], &[0.0]);
    options.tuning.batch = 256;
    for protocol in [Protocol::Linear, Protocol::FineTune] {
        let trained = measure_by(protocol, &encoder, &set, &options).0.trained.unwrap();
        assert_eq!((trained.train_images, trained.validation_images, trained.test_images), (30, 7, 11));
        assert_eq!((trained.broken.len(), trained.unlearnt.len()), (4, 0));
    }
}

#[test]
fn a_class_without_an_image_to_learn_from_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let mut toys = toys();
    toys[0].1.broken = (0..120).filter(|image| image % 3 == 2).collect();
    let set = open(TOYS, &toys, 0).unwrap();
    for protocol in [Protocol::Linear, Protocol::FineTune] {
        let trained = measure_by(protocol, &encoder, &set, &quick(&[0.1], &[0.0])).0.trained.unwrap();
        assert_eq!((trained.unlearnt, trained.train_images), (vec!["blue".to_owned()], 80));
        assert!(trained.score < 0.7, "{}", trained.score);
    }
}

#[test]
fn images_that_show_several_classes() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let labels = folder.path().join("labels.csv");
    // All but blue images show "warm" besides their colour.
    let mut lines = String::from("image,classes\n");
    for (part, images) in [("train", 120), ("test", 60)] {
        for index in 0..images {
            let class = RGB[index % 3];
            let more = if class == "blue" { "" } else { ",warm" };
            lines += &format!("{part}/toy {index},{class}{more}\n");
        }
    }
    fs::write(&labels, lines).unwrap();
    let toml = format!(
        "[[set]]\nname = \"voc2007\"\ntrain = \"train\"\ntest = \"test\"\nlabels = \"{}\"\n",
        labels.display()
    );
    let set = open(&toml, &toys(), 0).unwrap();
    assert_eq!(set.classes, ["blue", "green", "red", "warm"]);
    assert!(
        matches!(&set.test.targets, Targets::Several { classes: 4, shown } if shown[..4] == [false, false, true, true])
    );
    let (entry, _) = measure(&encoder, &set, &options());
    let (tuned, _) = measure_by(Protocol::FineTune, &encoder, &set, &quick(&[0.1], &[0.0]));
    for trained in [&entry.trained, &tuned.trained] {
        let score = trained.as_ref().unwrap().score;
        assert!(score > 0.9 && score <= 1.0, "{trained:?}");
    }
    // The name alone does not make it the paper's data set.
    assert_eq!((entry.title(), entry.paper()), ("voc2007", None));
    let whole = Entry { classes: 20, ..entry };
    assert_eq!((whole.title(), whole.paper()), ("PASCAL VOC2007", Some(0.842)));
}

#[test]
fn sets_whose_parts_do_not_fit_are_refused() {
    let error = |toml: &str, toys: &[(&str, Toy)]| open(toml, toys, 0).err().unwrap().to_string();
    let [train, test] = toys();
    let other = ("test", Toy::new(&["red", "grey"], 10, 1));
    let found = error(TOYS, &[train.clone(), other.clone()]);
    assert!(found.contains("class \"grey\" of the test images is not among the 3 classes"), "{found}");
    let with_validation = format!("{TOYS}validation = \"val\"\n");
    let found = error(&with_validation, &[train.clone(), test.clone(), ("val", other.1)]);
    assert!(found.contains("of the validation images"), "{found}");
    let bare = ("train", Toy { classes: Vec::new(), labels: vec![None; 120], ..train.1.clone() });
    assert!(error(TOYS, &[bare, test.clone()]).contains("the training images have no labels"));
    let few = ("train", Toy::new(&RGB, 3, 1));
    assert!(error(TOYS, &[few, test]).contains("too few images to choose settings"));
    let without = TOYS.replace("test = \"test\"\n", "");
    let found = error(&without, &[train]);
    assert!(found.contains("suite.toml: [[set]] toys needs `test = \"...\"`: "), "{found}");
}
