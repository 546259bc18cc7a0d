//! Training and test images of opened data sets.

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::Toy;
use simclr_data::{Dataset, InMemory, Source, SourceKind};
use simclr_eval::EvalError;
use simclr_eval::protocols::{Opened, Paired, SharedPaths, pair};

const CLASSES: [&str; 3] = ["red", "green", "blue"];

fn opened(name: &str, train: Toy, test: Option<Toy>) -> Opened {
    let source = Source { test: test.map(Toy::shared), ..Source::of(SourceKind::Folder, Arc::new(train)) };
    Opened { source, paths: vec![PathBuf::from(name)] }
}

fn paired(train: Opened, test: Option<Opened>) -> Result<Paired, EvalError> {
    pair(train, test, 0.2, 2, &|_, _| ())
}

fn sizes(paired: &Paired) -> (usize, usize) {
    (paired.splits.train().len(), paired.splits.test().len())
}

#[test]
fn test_images_are_those_that_are_given_or_come_along() {
    let images = |count, seed| Toy::new(&CLASSES, count, seed);
    let own = || opened("a", images(30, 1), Some(images(12, 2)));
    let other = || opened("b", images(9, 3), None);
    assert_eq!(sizes(&paired(own(), None).unwrap()), (30, 12));
    assert_eq!(sizes(&paired(own(), Some(other())).unwrap()), (30, 9));
    // Of a data set with test images of its own, only those are used to test on.
    let both = paired(other(), Some(own())).unwrap();
    assert_eq!(sizes(&both), (9, 12));
    let origin = both.splits.origin().unwrap();
    assert_eq!((&origin.train[..], &origin.test[..], origin.set_apart, origin.shared), ("b", "a", false, 0));
    assert!(both.shared.is_none() && both.contradicting.is_empty());

    let seen = AtomicUsize::new(0);
    let told = |done: usize, of: usize| {
        assert!(done <= of && of == 9);
        seen.fetch_add(1, Ordering::Relaxed);
    };
    let apart = pair(other(), None, 0.34, 1, &told).unwrap();
    assert_eq!(sizes(&apart), (6, 3));
    assert!(apart.splits.origin().unwrap().set_apart && seen.into_inner() > 0);
    assert!(matches!(pair(other(), None, 1.5, 1, &|_, _| ()), Err(EvalError::Option { .. })));
}

#[test]
fn test_images_that_are_learnt_from_as_well_are_told() {
    let train = Toy::new(&CLASSES, 12, 1);
    let mut test = Toy::new(&CLASSES, 6, 2);
    for (row, like) in [(3, 6), (5, 8)] {
        test.pixels[row] = train.pixels[like].clone();
    }
    // The same image with another class.
    test.pixels[4] = train.pixels[0].clone();
    let paired = paired(opened("a", train, None), Some(opened("b", test, None))).unwrap();
    let expected = SharedPaths { images: 3, of: 6, first: "b/toy 3".into(), like: "a/toy 6".into() };
    assert_eq!(paired.shared, Some(expected));
    assert_eq!(paired.splits.origin().unwrap().shared, 3);
    // After the 12 training images.
    assert_eq!(paired.contradicting, [vec![0, 16]]);
    assert_eq!((paired.images.len(), paired.images.label(16)), (18, Some(1)));
}

#[test]
fn images_without_a_label_are_not_learnt_from() {
    // Each image is of one grey.
    let images = |greys: &[u8], labels: &[Option<u32>]| -> Opened {
        let images = greys.iter().map(|&grey| (4, 4, vec![grey; 48])).collect();
        let classes = ["dark", "light"].map(str::to_owned).to_vec();
        let images = InMemory::new(images).unwrap().with_labels(labels.to_vec(), classes).unwrap();
        let source = Source::of(SourceKind::Folder, Arc::new(images));
        Opened { source, paths: vec![PathBuf::from("grey")] }
    };
    let train = || images(&[0, 10, 200, 210, 90], &[Some(0), Some(0), Some(1), Some(1), None]);
    let test = images(&[90, 210, 20, 50], &[Some(0), Some(1), Some(0), None]);
    let paired = paired(train(), Some(test)).unwrap();
    // The first test image is like one that has no label.
    assert_eq!(paired.shared.unwrap().images, 1);
    assert_eq!(paired.splits.origin().unwrap().shared, 1);
}

#[test]
fn copies_stay_on_one_side_where_images_are_set_apart() {
    let mut images = Toy::new(&CLASSES, 30, 1);
    for copy in [3, 6, 9] {
        images.pixels[copy] = images.pixels[0].clone();
    }
    let group: Vec<Vec<u8>> = vec![images.pixels[0].clone()];
    let paired = paired(opened("a", images, None), None).unwrap();
    assert_eq!((paired.kept_together, paired.images.len()), (3, 30));
    let of = |part: &Arc<dyn Dataset>| {
        let mut scratch = simclr_data::DecodeScratch::default();
        let same = |row: &usize| group.contains(&part.read(*row, &mut scratch).unwrap().pixels.to_vec());
        (0..part.len()).filter(same).count()
    };
    let found = [of(paired.splits.train()), of(paired.splits.test())];
    assert!(found == [4, 0] || found == [0, 4], "{found:?}");
}
