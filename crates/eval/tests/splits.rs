//! Which data sets protocols accept, and how they are split.

mod common;

use common::{RGB, Toy};
use simclr_eval::EvalError;
use simclr_eval::protocols::{Origin, Splits};

#[test]
fn labels_are_matched_by_the_names_of_classes() {
    let data = Splits::new(Toy::new(&RGB, 9, 1).shared(), Toy::new(&["blue", "red"], 4, 2).shared()).unwrap();
    assert_eq!(data.test().classes(), RGB);
    assert_eq!((0..4).map(|index| data.test().label(index)).collect::<Vec<_>>(), [2, 0, 2, 0].map(Some));
}

#[test]
fn a_class_that_is_never_learnt_is_named() {
    let error = |train: &[&str], test: &[&str]| {
        Splits::new(Toy::new(train, 12, 1).shared(), Toy::new(test, 12, 2).shared()).unwrap_err().to_string()
    };
    assert_eq!(
        error(&RGB, &["red", "grey"]),
        "class \"grey\" of the test images is not among the 3 classes of the training images (red, green, blue)"
    );
    assert!(error(&["red"], &["red"]).contains("all of one class, \"red\""));
}

#[test]
fn images_without_labels_are_refused() {
    let toy = || Toy::new(&RGB, 12, 1);
    let bare = Toy { classes: vec![], labels: vec![None; 12], ..toy() };
    let error = Splits::new(toy().shared(), bare.clone().shared()).unwrap_err();
    assert!(matches!(error, EvalError::NoLabels { set: "test" }));
    assert!(matches!(
        Splits::hold_out(bare.shared(), &[], 0.2, 0),
        Err(EvalError::NoLabels { set: "training" })
    ));
    let none = Toy { labels: vec![None; 12], ..toy() };
    assert!(matches!(Splits::new(none.shared(), toy().shared()), Err(EvalError::NoLabels { .. })));
}

#[test]
fn only_images_with_a_label_count() {
    let toy = || Toy::new(&RGB, 12, 1);
    let mut partly = toy();
    partly.labels[4] = None;
    partly.labels[9] = None;
    let data = Splits::new(partly.clone().shared(), toy().shared()).unwrap();
    assert_eq!((data.train().len(), data.test().len()), (10, 12));
    assert!(data.train().label(4).is_some() && data.train().name(4) == "toy 5");
    let data = Splits::hold_out(partly.shared(), &[], 0.4, 3).unwrap();
    assert_eq!(data.train().len() + data.test().len(), 10);
}

#[test]
fn held_out_images_are_a_share_of_every_class() {
    let data = Splits::hold_out(Toy::new(&RGB, 60, 1).shared(), &[], 0.2, 3).unwrap();
    assert_eq!((data.train().len(), data.test().len()), (48, 12));
    for class in 0..3 {
        assert_eq!((0..12).filter(|&index| data.test().label(index) == Some(class)).count(), 4);
    }
    let names = |data: &Splits| {
        let part =
            [data.train(), data.test()].map(|set| (0..set.len()).map(|i| set.name(i)).collect::<Vec<_>>());
        part.concat()
    };
    let mut all = names(&data);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 60);
    assert_eq!(names(&data), names(&Splits::hold_out(Toy::new(&RGB, 60, 1).shared(), &[], 0.2, 3).unwrap()));
    let few = Splits::hold_out(Toy::new(&RGB, 3, 1).shared(), &[], 0.2, 3).unwrap_err();
    assert!(matches!(few, EvalError::TooFewToSplit { .. }));
    assert!(Splits::hold_out(Toy::new(&RGB, 60, 1).shared(), &[], 1.0, 3).is_err());
}

#[test]
fn copies_stay_on_one_side() {
    let mut toy = Toy::new(&RGB, 60, 1);
    toy.labels[0] = None;
    // Images 3 and 33, 6 and 36, and so on.
    let copies: Vec<Vec<u32>> = (0..30).step_by(3).map(|image| vec![image, image + 30]).collect();
    let data = Splits::hold_out(toy.shared(), &copies, 0.2, 3).unwrap();
    let tested: Vec<String> = (0..data.test().len()).map(|index| data.test().name(index)).collect();
    assert_eq!(data.train().len() + data.test().len(), 59);
    for group in &copies[1..] {
        let inside = group.iter().filter(|image| tested.contains(&format!("toy {image}"))).count();
        assert!(inside != 1, "{group:?} {tested:?}");
    }
}

#[test]
fn other_images_have_another_fingerprint_and_so_have_other_classes_and_those_from_elsewhere() {
    let origin = |train: &str| Origin {
        train: train.to_owned(),
        test: "test".to_owned(),
        folder: None,
        set_apart: false,
        shared: 0,
    };
    let of = |train: Toy, from: &str| {
        let test = Toy::new(&["red"], 3, 2).shared();
        Splits::new(train.shared(), test).unwrap().of(origin(from)).fingerprint()
    };
    let toy = || Toy::new(&RGB, 9, 1);
    let before = of(toy(), "here");
    assert_eq!(of(toy(), "here"), before);
    assert_ne!(of(toy(), "there"), before);
    assert_ne!(of(Toy::new(&RGB, 8, 1), "here"), before);
    let mut relabelled = toy();
    relabelled.labels[0] = Some(1);
    assert_ne!(of(relabelled, "here"), before);
    let mut renamed = toy();
    renamed.classes[1].push('s');
    assert_ne!(of(renamed, "here"), before);
}
