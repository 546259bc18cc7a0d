//! Damage to archives that leaves what is read of them looking whole.

mod common;

use std::fs;

use common::{gzip, names, png, tar, zstd};
use simclr_data::{Source, open};
use tempfile::tempdir;

/// Twelve images, each a header and a block of data: 24 blocks, and the two of the mark.
fn images() -> Vec<u8> {
    tar(&(0..12).map(|i| (format!("{i:02}.png"), png(i))).collect::<Vec<_>>())
}

/// Opens an archive of these bytes.
fn opened(name: &str, bytes: Vec<u8>) -> Source {
    let dir = tempdir().unwrap();
    let file = dir.path().join(name);
    fs::write(&file, bytes).unwrap();
    open(&file).unwrap()
}

/// What is wrong with an archive.
fn broken(source: &Source) -> String {
    source.left_out.broken.iter().map(|file| format!("{}: {}", file.name, file.reason)).collect()
}

#[test]
fn the_checksum_behind_a_compressed_archive_is_compared() {
    for (name, pack, trailer) in [("a.tar.gz", gzip as fn(Vec<u8>) -> Vec<u8>, 8), ("a.tar.zst", zstd, 4)] {
        let mut packed = pack(images());
        assert_eq!(broken(&opened(name, packed.clone())), "");
        let at = packed.len() - trailer;
        packed[at] ^= 1;
        let source = opened(name, packed);
        assert_eq!(source.train.len(), 12);
        let told = broken(&source);
        let expected = format!("{name}: the archive has 12 entries and its end, but is damaged (");
        assert!(told.starts_with(&expected) && told.contains("checksum"), "{told}");
    }
}

#[test]
fn images_behind_a_hole_are_read_and_it_is_told() {
    // A lone block of zeros between two images, and two images that were lost.
    let whole = images();
    let lone = [&whole[..6 * 512], &[0; 512], &whole[6 * 512..]].concat();
    let mut lost = whole;
    lost[6 * 512..10 * 512].fill(0);
    for (bytes, zeros, read) in [(lone, 512, 12), (lost, 2048, 10)] {
        for (name, bytes) in [("a.tar", bytes.clone()), ("a.tar.gz", gzip(bytes))] {
            let source = opened(name, bytes);
            assert_eq!(source.train.len(), read);
            let told = broken(&source);
            let expected =
                format!("{name}: {zeros} bytes of zeros at byte 3072 of the archive, after entry 3, ");
            assert!(told.starts_with(&expected) && told.contains("goes on"), "{told}");
        }
    }
}

#[test]
fn archives_one_behind_another_are_one() {
    for filled in [1024, 10_240] {
        let pad = |mut bytes: Vec<u8>| {
            bytes.resize(bytes.len().next_multiple_of(filled), 0);
            bytes
        };
        let both = [pad(images()), pad(tar(&[("z.png".to_owned(), png(99))]))].concat();
        for (name, bytes) in [("a.tar", both.clone()), ("a.tar.zst", zstd(both))] {
            let source = opened(name, bytes);
            assert_eq!((names(&*source.train).len(), broken(&source)), (13, String::new()), "{filled}");
            assert_eq!(source.left_out.count, 0);
        }
    }
}

#[test]
fn zeros_or_anything_else_in_the_place_of_the_end_are_told() {
    let whole = images();
    let entries = &whole[..24 * 512];
    for pack in [|bytes| bytes, gzip as fn(Vec<u8>) -> Vec<u8>] {
        let told = |more: &[u8]| broken(&opened("a.tar", pack([entries, more].concat())));
        for (zeros, is_told) in [(1024, false), (8 * 512, false), (130 * 512, true), (2 << 20, true)] {
            let told = told(&vec![0; zeros]);
            let expected = format!("after entry 12 it is {zeros} bytes of zeros");
            assert_eq!(!told.is_empty(), is_told, "{told}");
            assert!(!is_told || told.contains(&expected), "{told}");
        }
        // A tape's record of 64 KiB.
        assert_eq!(told(&vec![0; (128 - 24) * 512]), "");
        let garbage = told(&[&[0; 1024][..], &[7; 512]].concat());
        assert!(garbage.contains("damaged"), "{garbage}");
        let half = opened("a.tar", pack([entries, &[0; 512]].concat()));
        assert_eq!((broken(&half), half.left_out.count), (String::new(), 1));
        assert!(half.left_out.files[0].reason.starts_with("half of the mark"), "{:?}", half.left_out);
    }
}
