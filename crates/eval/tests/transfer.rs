//! An encoder on other data sets: toy ones.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{RGB, Toy, config, models};
use simclr_data::{DataError, Dataset, LeftOut, Source, SourceKind};
use simclr_engine::Device;
use simclr_eval::protocols::transfer::{Entry, Protocol, Suite, TransferOptions, TransferSet, transfer};
use simclr_eval::protocols::{TrainedEncoder, WhichCheckpoint, assemble_report};
use simclr_eval::{EvalError, Targets};
use simclr_train::Model;
use simclr_train::checkpoint::{Checkpoint, Meta};
use simclr_train::file_system::Disk;
use simclr_train::run_folder::RunFolder;

const OPTIONS: TransferOptions = TransferOptions { with_random: true, strict: false, seed: 0 };

/// A run folder with a checkpoint.
fn save(folder: &Path, model: &Model, step: u64) -> TrainedEncoder {
    let path = folder.join("run");
    let run = match RunFolder::exists(&path) {
        true => RunFolder::open(&path, Arc::new(Disk)).unwrap().0,
        false => RunFolder::create(&path, &config(), Arc::new(Disk)).unwrap(),
    };
    let meta = Meta { step, epoch: step, config: config().to_toml().unwrap(), ..Meta::default() };
    run.checkpoints(5).save(&Checkpoint { tensors: model.store().unwrap(), meta }).unwrap();
    TrainedEncoder::load(&path, WhichCheckpoint::Newest, &Device::cpu(2).unwrap()).unwrap()
}

/// A data set of toys that are called by the last components of their paths.
fn open(toml: &str, toys: &[(&str, Toy)], seed: u64) -> Result<TransferSet, EvalError> {
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
    TransferSet::open(&suite.sets[0], &suite.path, seed, &mut open)
}

const TOYS: &str =
    "[[set]]\nname = \"toys\"\ntrain = \"train\"\ntest = \"test\"\nmetric = \"mean_per_class\"\n";

fn toys() -> [(&'static str, Toy); 2] {
    [("train", Toy::new(&RGB, 120, 1)), ("test", Toy::new(&RGB, 60, 2))]
}

/// The results, and how often something was computed.
fn measure(encoder: &TrainedEncoder, set: &TransferSet, options: &TransferOptions) -> (Entry, usize) {
    let mut told = 0;
    let entry = transfer(encoder, set, Protocol::Linear, options, &mut |_| told += 1).unwrap();
    (entry, told)
}

#[test]
fn a_linear_classifier_is_judged_and_not_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let set = open(TOYS, &toys(), 0).unwrap();
    assert_eq!((set.train.len(), set.validation.len(), set.test.len()), (108, 12, 60));

    // Stopped after one of the two encoders.
    let alone = TransferOptions { with_random: false, ..OPTIONS };
    let (first, told) = measure(&encoder, &set, &alone);
    assert!(told > 0 && first.random.is_none());
    let trained = first.trained.clone().unwrap();
    assert!(trained.score > 0.9 && trained.validation > 0.9 && trained.chosen["l2"].is_f64(), "{trained:?}");
    assert_eq!((trained.train_images, trained.validation_images, trained.test_images), (108, 12, 60));
    assert_eq!(measure(&encoder, &set, &alone), (first.clone(), 0));

    // The other is added, and what was there is the same to the second that it took.
    let (both, told) = measure(&encoder, &set, &OPTIONS);
    assert!(told > 0 && both.random.is_some());
    assert_eq!(both.trained, first.trained);
    assert_eq!(measure(&encoder, &set, &OPTIONS), (both.clone(), 0));
    let text = fs::read(both.file(&encoder.run)).unwrap();
    assert_eq!(serde_json::from_slice::<Entry>(&text).unwrap(), both);

    // Other images, another seed of the split, another checkpoint, a file that is torn: computed anew.
    let others = [("train", Toy::new(&RGB, 123, 1)), ("test", Toy::new(&RGB, 60, 2))];
    assert!(measure(&encoder, &open(TOYS, &others, 0).unwrap(), &alone).1 > 0);
    let again = TransferOptions { seed: 1, ..alone.clone() };
    assert!(measure(&encoder, &open(TOYS, &toys(), 1).unwrap(), &again).1 > 0);
    let (now, told) = measure(&encoder, &set, &alone);
    assert!(told > 0);
    assert_eq!(now.trained.unwrap().score, trained.score);
    fs::write(both.file(&encoder.run), &text[..text.len() / 2]).unwrap();
    assert!(measure(&encoder, &set, &alone).1 > 0);
    let later = save(folder.path(), &models(2).random.unwrap(), 4);
    let (now, told) = measure(&later, &set, &OPTIONS);
    assert!(told > 0 && now.step == 4);

    let report = assemble_report(&later.run, &config(), Vec::new()).unwrap();
    let row = &report.transfer.rows[0];
    assert_eq!((row.set.as_str(), row.metric.as_str(), row.paper), ("toys", "mean per class", None));
    assert!(row.simclr.is_some() && row.random.is_some());
    assert!(report.render().contains("Other data sets") && report.accuracy.is_empty());
}

/// The choice must be the same whatever the test images are called.
#[test]
fn settings_are_chosen_by_the_validation_images_alone() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let alone = TransferOptions { with_random: false, ..OPTIONS };
    let of = |turned: &[&str]| {
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
        measure(&encoder, &set, &alone).0.trained.unwrap()
    };
    let (right, turned) = (of(&[]), of(&["test"]));
    assert_eq!((&right.chosen, right.validation), (&turned.chosen, turned.validation));
    assert!(right.score > 0.9 && turned.score < 0.1, "{right:?} {turned:?}");
    assert!(of(&["train"]).validation < 0.2);
}

#[test]
fn images_that_show_several_classes() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = save(folder.path(), &models(2).trained, 3);
    let labels = folder.path().join("labels.csv");
    // What is not blue shows "warm" beside its colour.
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
    let (entry, _) = measure(&encoder, &set, &OPTIONS);
    let trained = entry.trained.as_ref().unwrap();
    assert!(trained.score > 0.9 && trained.score <= 1.0, "{trained:?}");
    assert_eq!((entry.title(), entry.paper()), ("PASCAL VOC2007", Some(0.842)));
}

#[test]
fn what_does_not_fit_is_named() {
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
    assert!(found.contains("suite.toml: `set.toys.test` is nowhere"), "{found}");
}
