//! Images that occur more than once are found, and nothing else.

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{picture, png, tar, zip};
use simclr_data::{Concat, Dataset, Synthetic, contradicting, copies, open};
use tempfile::tempdir;

fn groups(set: &dyn Dataset) -> Vec<Vec<String>> {
    let found = copies(set, 1, &|_| ());
    assert_eq!(found, copies(set, 3, &|_| ()));
    found.into_iter().map(|group| group.into_iter().map(|i| set.name(i as usize)).collect()).collect()
}

#[test]
fn files_are_compared_byte_for_byte() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    ["a/1.png", "a/2.png", "b/3.png"].iter().zip(0..).for_each(|(name, value)| picture(&at(name), value));
    // Different bytes, though the same pixels.
    picture(&at("b/same.bmp"), 1);
    fs::copy(at("a/2.png"), at("b/copy.png")).unwrap();
    fs::copy(at("a/1.png"), at("a/copy.png")).unwrap();
    // Large files of one size, which differ in a few bytes, within the sample or outside it.
    let large = |name: &str, changed: usize| {
        let mut bytes = vec![7; 100_000];
        bytes[changed] += 1;
        fs::write(at(name), bytes).unwrap();
    };
    large("b/x.png", 50_001);
    large("b/x too.png", 50_001);
    large("b/y.png", 50_002);
    large("b/z.png", 99_999);
    let source = open(dir.path()).unwrap();
    let expected =
        [vec!["a/1.png", "a/copy.png"], vec!["a/2.png", "b/copy.png"], vec!["b/x too.png", "b/x.png"]];
    assert_eq!(groups(&*source.train), expected);
    let found = copies(&*source.train, 1, &|_| ());
    assert_eq!(contradicting(&*source.train, &found), [&found[1]]);
    // In the end every image is done.
    let most = AtomicUsize::new(0);
    copies(&*source.train, 2, &|done| {
        most.fetch_max(done, Ordering::Relaxed);
    });
    assert_eq!(most.into_inner(), source.train.len());
}

#[test]
fn the_same_line_twice_is_the_same_image() {
    let dir = tempdir().unwrap();
    let list = dir.path().join("list.csv");
    (0..3).for_each(|value| picture(&dir.path().join(format!("{value}.png")), value));
    fs::write(&list, "path,label\n0.png,a\n1.png,a\n2.png,b\n./0.png,b\n1.png,a\ngone.png,a\ngone.png,b\n")
        .unwrap();
    let source = open(&list).unwrap();
    assert_eq!(groups(&*source.train), [["0.png", "./0.png"], ["1.png", "1.png"]]);
    let found = copies(&*source.train, 1, &|_| ());
    assert_eq!(contradicting(&*source.train, &found), [[0, 3]]);
}

#[test]
fn files_and_members_of_every_kind_of_archive_are_compared() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    // Large enough to be sampled where they can be; they need not be images.
    let large = |changed: usize| {
        let mut bytes: Vec<u8> = (0..100_000u64).map(|at| ((at * at) >> 7) as u8).collect();
        bytes[changed] ^= 1;
        bytes
    };
    let members = [("a.png".to_owned(), large(50_001)), ("b.png".to_owned(), large(99_999))];
    fs::create_dir(at("folder")).unwrap();
    members.iter().for_each(|(name, bytes)| fs::write(at("folder").join(name), bytes).unwrap());
    fs::write(at("set.tar"), tar(&members)).unwrap();
    fs::write(at("set.tar.gz"), common::gzip(tar(&members))).unwrap();
    fs::write(at("stored.zip"), zip(&members, false)).unwrap();
    fs::write(at("deflated.zip"), zip(&members, true)).unwrap();
    let sets = ["folder", "set.tar", "set.tar.gz", "stored.zip", "deflated.zip"];
    let sets: Vec<_> = sets.iter().map(|name| (String::new(), open(&at(name)).unwrap().train)).collect();
    // By samples where all have one, else by all bytes.
    for chosen in [vec![0, 1, 3], vec![0, 1, 2, 3, 4]] {
        let parts = chosen.iter().map(|&set: &usize| sets[set].clone()).collect();
        let found = copies(&Concat::new(parts, Vec::new()), 2, &|_| ());
        let number = |first: u32| (0..chosen.len() as u32).map(|set| 2 * set + first).collect::<Vec<u32>>();
        assert_eq!(found, [number(0), number(1)], "{chosen:?}");
    }
}

#[test]
fn members_of_archives_and_pixels_are_compared() {
    let dir = tempdir().unwrap();
    let members =
        [("a.png", 1), ("b.png", 2), ("c.png", 1)].map(|(name, value)| (name.to_owned(), png(value)));
    let at = |name: &str, bytes: Vec<u8>| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let names = |path: &Path| groups(&*open(path).unwrap().train);
    assert_eq!(names(&at("set.tar", tar(&members))), [["a.png", "c.png"]]);
    assert_eq!(names(&at("set.zip", zip(&members, true))), [["a.png", "c.png"]]);
    assert_eq!(names(&at("set.tar.gz", common::gzip(tar(&members)))), [["a.png", "c.png"]]);
    // Images without a size on disk.
    assert!(copies(&Synthetic::new(20, 8, 0), 2, &|_| ()).is_empty());
}
