//! Damage to archives whose readable entries still look whole.

mod common;

use std::fs;

use common::{colors, gzip, names, png, tar, zip, zstd};
use simclr_data::{DataError, DecodeScratch, Index, LeftOut, Opener, Source, open};
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
        let expected = format!(
            "{name}: damaged: zeros follow entry 12, but the archive does not end there as it should ("
        );
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
fn a_header_of_zeros_is_told() {
    let mut whole = images();
    whole[6 * 512..7 * 512].fill(0);
    for (name, bytes) in [("a.tar", whole.clone()), ("a.tar.gz", gzip(whole))] {
        let source = opened(name, bytes);
        let told = broken(&source);
        assert!(source.train.len() == 3 && told.contains("damaged") && told.contains("entry 3"), "{told}");
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
            let expected = format!("{zeros} bytes of zeros follow entry 12");
            assert_eq!(!told.is_empty(), is_told, "{told}");
            assert!(!is_told || told.contains(&expected), "{told}");
        }
        // A tape's record of 64 KiB.
        assert_eq!(told(&vec![0; (128 - 24) * 512]), "");
        let garbage = told(&[&[0; 1024][..], &[7; 512]].concat());
        assert!(garbage.contains("damaged"), "{garbage}");
        // Half of the mark is one.
        let half = opened("a.tar", pack([entries, &[0; 512]].concat()));
        assert_eq!((half.train.len(), half.left_out), (12, LeftOut::default()));
    }
}

#[test]
fn an_archive_that_is_cut_between_two_entries_may_be_whole() {
    let dir = tempdir().unwrap();
    let (file, index) = (dir.path().join("a.tar"), dir.path().join("index"));
    let cut = &images()[..10 * 512];
    let reason = "the archive ends after entry 5 without the mark of its end (two blocks of zeros): it may be cut short there";
    for pack in [|bytes| bytes, gzip as fn(Vec<u8>) -> Vec<u8>, zstd] {
        fs::write(&file, pack(cut.to_vec())).unwrap();
        // The same each time, remembered or not, and where opening is strict.
        for strict in [false, true] {
            let mut opener = Opener { index: Index::load(&index), strict, ..Opener::default() };
            let source = opener.open(std::slice::from_ref(&file)).unwrap();
            opener.index.save(&index).unwrap();
            let doubtful = &source.left_out.doubtful;
            assert_eq!((source.train.len(), broken(&source), doubtful.len()), (5, String::new(), 1));
            assert_eq!((doubtful[0].name.as_str(), doubtful[0].reason.as_str()), ("a.tar", reason));
        }
        fs::remove_file(&index).unwrap();
    }
    // Beside others, by its path; without images, in the error.
    let beside = dir.path().join("b");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("b.tar"), images()).unwrap();
    let source = Opener::default().open(&[dir.path().join("a.tar"), beside.clone()]).unwrap();
    assert_eq!(source.left_out.doubtful.len(), 1);
    let source = Opener::default().open(&[beside.clone(), dir.path().to_owned()]).unwrap();
    assert_eq!(source.left_out.doubtful[0].name, dir.path().join("a.tar").display().to_string());
    let texts = tar(&[("a.json".to_owned(), vec![b' '; 512])]);
    fs::write(&file, &texts[..1024]).unwrap();
    let error = open(&file).unwrap_err().to_string();
    assert!(
        error.contains("no images in it that can be read (a.tar: the archive ends after entry 1"),
        "{error}"
    );
    // Nothing at all is not an archive.
    fs::write(beside.join("c.tar"), b"").unwrap();
    let source = open(&beside).unwrap();
    assert_eq!(
        (source.train.len(), broken(&source)),
        (12, "c.tar: the file is empty, as after a download that broke off".to_owned())
    );
    assert!(source.left_out.doubtful.is_empty());
    fs::write(beside.join("c.tar"), gzip(vec![])).unwrap();
    assert_eq!(broken(&open(&beside).unwrap()), "c.tar: the archive unpacks to nothing");
}

#[test]
fn an_entry_of_a_zip_that_another_hides_is_told() {
    let members = ["a/1.png", "a/2.png", "a/3.png"].map(String::from);
    let members: Vec<_> = members.into_iter().zip(0..).map(|(name, value)| (name, png(value))).collect();
    let mut bytes = zip(&members, false);
    for at in 0..bytes.len() - 7 {
        if bytes[at..].starts_with(b"a/2.png") {
            bytes[at + 2] = b'1';
        }
    }
    let source = opened("a.zip", bytes);
    assert_eq!((colors(&*source.train), source.left_out.count), (vec![1, 2], 1));
    let reason = &source.left_out.files[0].reason;
    assert!(reason.contains("the same name as a later entry"), "{reason}");
}

/// A stored zip entry: its local header with the data, and its header in the directory for an entry at byte `at`.
fn entry(
    [local_name, name]: [&str; 2],
    [local_extra, extra]: [u16; 2],
    data: &[u8],
    at: u32,
) -> [Vec<u8>; 2] {
    let mut checksum = flate2::Crc::new();
    checksum.update(data);
    let numbers =
        |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let len = data.len() as u32;
    let sizes = numbers(&[0, checksum.sum(), len, len]);
    let ends = |name: &str, extra: u16| [name.len() as u16, extra].map(u16::to_le_bytes).concat();
    // Extra fields of an unknown kind.
    let fields = |extra: u16| match extra.checked_sub(4) {
        Some(rest) => [&[0xfe, 0xca][..], &rest.to_le_bytes(), &vec![0x55; rest.into()]].concat(),
        None => Vec::new(),
    };
    let local =
        [b"PK\x03\x04\x14\0\0\0\0\0", &sizes[..], &ends(local_name, local_extra), local_name.as_bytes()];
    let directory =
        [b"PK\x01\x02\x14\0\x14\0\0\0\0\0", &sizes[..], &ends(name, extra), &[0; 10], &numbers(&[at])];
    [
        [&local.concat()[..], &fields(local_extra), data].concat(),
        [&directory.concat()[..], name.as_bytes(), &fields(extra)].concat(),
    ]
}

#[test]
fn local_headers_of_a_zip_need_not_be_as_long_as_those_of_its_directory() {
    let long = "a name that is longer than the one in the directory.png";
    let headers = [
        (["a.png", "a.png"], [0, 0]),
        (["b.png", "b.png"], [28, 24]),
        (["c.png", "c.png"], [0, 300]),
        (["d.png", "d.png"], [u16::MAX, 0]),
        ([long, "e.png"], [300, 4]),
        (["f", "f.png"], [0, 0]),
    ];
    // Samples of large files are taken without the rest.
    let large = image::RgbImage::from_fn(150, 150, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    let mut bmp = std::io::Cursor::new(Vec::new());
    large.write_to(&mut bmp, image::ImageFormat::Bmp).unwrap();
    for image in [png(7), bmp.into_inner()] {
        let (mut archive, mut directory) = (Vec::new(), Vec::new());
        for (names, extra) in headers {
            let [local, central] = entry(names, extra, &image, archive.len() as u32);
            archive.extend(local);
            directory.extend(central);
        }
        let numbers = [directory.len() as u32, archive.len() as u32].map(u32::to_le_bytes).concat();
        let end = [b"PK\x05\x06\0\0\0\0", &[6, 0, 6, 0][..], &numbers, &[0, 0]].concat();
        let whole = [&archive[..], &directory, &end].concat();
        let source = opened("a.zip", whole.clone());
        assert_eq!((names(&*source.train).len(), source.left_out.count), (6, 0));
        colors(&*source.train);
        let copies = simclr_data::copies(&*source.train, 1, &|_| {});
        assert_eq!(copies, [[0, 1, 2, 3, 4, 5]]);

        // The directory alone says what is there. What is wrong with a local header costs its image.
        let second = whole.windows(5).position(|bytes| bytes == b"b.png").unwrap();
        for (at, reason) in [(second - 30, "does not begin with a local header"), (second - 1, "checksum")] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            let source = opened("a.zip", damaged);
            assert_eq!(source.train.len(), 6);
            let mut scratch = DecodeScratch::default();
            let error = source.train.read(1, &mut scratch).unwrap_err().to_string();
            assert!(error.starts_with("b.png: ") && error.contains(reason), "{error}");
            assert!(source.train.read(2, &mut scratch).is_ok());
        }
    }
}

#[test]
fn names_that_lead_elsewhere_are_names() {
    let members = ["../../a/1.png", "./a/2.png", "a/../3.png", ".a/4.png", "a/.5.png"].map(String::from);
    let members: Vec<_> = members.into_iter().zip(0..).map(|(name, value)| (name, png(value))).collect();
    // The library that writes tar refuses such names.
    let mut archive = Vec::new();
    for (name, bytes) in &members {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.extend([0; 1024]);
    for (name, bytes) in [("a.zip", zip(&members, true)), ("a.tar", archive)] {
        let source = opened(name, bytes);
        assert_eq!((source.train.len(), source.left_out.count), (3, 0), "{:?}", names(&*source.train));
    }
}

#[test]
fn what_cannot_be_read_is_an_error_where_opening_is_strict() {
    let dir = tempdir().unwrap();
    let [whole, cut] = ["whole.tar", "cut.tar"].map(|name| dir.path().join(name));
    let images = images();
    fs::write(&whole, &images).unwrap();
    fs::write(&cut, &images[..images.len() / 2]).unwrap();
    let mut strict = Opener { strict: true, ..Opener::default() };
    assert_eq!(strict.open(std::slice::from_ref(&whole)).unwrap().train.len(), 12);
    assert!(!broken(&open(&cut).unwrap()).is_empty());
    match strict.open(&[whole, cut]).unwrap_err() {
        DataError::Image { name, reason } => {
            assert!(name.ends_with("cut.tar") && reason.contains("cut short"), "{name}: {reason}");
        }
        error => panic!("{error}"),
    }
}
