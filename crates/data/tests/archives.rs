//! Data sets in archives, tables and lists: what is recognised, and that the pixels are the same in all of them.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{batches, colors, error, gzip, names, picture, png, tar, zip};
use simclr_data::{Dataset, DecodeScratch, LeftOut, Opener, Source, SourceKind, open};
use tempfile::tempdir;

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn labels(set: &dyn Dataset) -> Vec<Option<u32>> {
    (0..set.len()).map(|index| set.label(index)).collect()
}

fn several(paths: &[&Path]) -> Source {
    Opener::default().open(&paths.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>()).unwrap()
}

/// Members as in WebDataset: image i shows the value i and has the label i mod 3.
fn samples(range: std::ops::Range<u8>) -> Vec<(String, Vec<u8>)> {
    range
        .flat_map(|i| {
            [
                (format!("sample{i:03}.png"), png(i)),
                (format!("sample{i:03}.cls"), format!("{}\n", i % 3).into_bytes()),
                (format!("sample{i:03}.json"), b"{}".to_vec()),
            ]
        })
        .collect()
}

#[test]
fn stl10_in_a_folder_and_as_a_file() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("stl10_binary");
    // Column by column: the pixel in column x and row y of plane c has the value x + c, whatever y is.
    let image: Vec<u8> = (0..3u8).flat_map(|c| (0..96 * 96).map(move |at| (at / 96) as u8 + c)).collect();
    write(&folder.join("train_X.bin"), image.repeat(3));
    write(&folder.join("train_y.bin"), [1, 10, 3]);
    write(&folder.join("test_X.bin"), &image);
    write(&folder.join("test_y.bin"), [2]);
    write(&folder.join("unlabeled_X.bin"), image.repeat(5));
    let source = open(dir.path()).unwrap();
    assert_eq!(source.kind, SourceKind::Stl10);
    assert_eq!((source.train.len(), source.test.as_ref().unwrap().len()), (3, 1));
    assert_eq!(labels(&*source.train), [Some(0), Some(9), Some(2)]);
    assert_eq!(source.train.classes()[9], "truck");
    let all = source.to_pretrain();
    assert_eq!((all.len(), all.label(1), all.label(3)), (8, Some(9), None));
    let mut scratch = DecodeScratch::default();
    let read = all.read(7, &mut scratch).unwrap();
    assert_eq!((read.width, read.height), (96, 96));
    let pixel = |x: usize, y: usize| &read.pixels[3 * (y * 96 + x)..][..3];
    assert_eq!((pixel(0, 95), pixel(40, 2)), (&[0, 1, 2][..], &[40, 41, 42][..]));

    let single = open(&folder.join("unlabeled_X.bin")).unwrap();
    assert!(single.train.len() == 5 && single.train.classes().is_empty());
    write(&folder.join("train_y.bin"), [1, 11, 3]);
    assert!(error(dir.path()).contains("train_y.bin: image 1 has the label 11"));
    write(&folder.join("train_y.bin"), [1]);
    assert!(error(dir.path()).contains("1 labels for 3 images"));
    write(&folder.join("train_X.bin"), &image[1..]);
    assert!(error(dir.path()).contains("train_X.bin: cut short or not an STL-10 file"));
}

#[test]
fn lists_of_paths() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (value, name) in ["a/1.png", "a/2 b.png", "c/3.png"].iter().enumerate() {
        picture(&at(name), value as u8);
    }
    write(&at("plain.txt"), "c/3.png\na/2 b.png\n");
    let source = open(&at("plain.txt")).unwrap();
    assert_eq!((source.kind, colors(&*source.train)), (SourceKind::List, vec![2, 1]));
    assert!(source.train.classes().is_empty());

    write(
        &at("labelled.csv"),
        format!(
            "file,label,split\na/1.png,10,train\n{},9,train\na/2 b.png,9,test\n",
            at("c/3.png").display()
        ),
    );
    let source = open(&at("labelled.csv")).unwrap();
    assert_eq!(
        (source.train.classes(), labels(&*source.train)),
        (&["9".to_owned(), "10".to_owned()][..], vec![Some(1), Some(0)])
    );
    assert_eq!(colors(&*source.test.unwrap()), [1]);

    write(&at("strange.csv"), "file,label,split\na/1.png,dog,train\na/2 b.png,horse,test\n");
    let source = open(&at("strange.csv")).unwrap();
    let test = source.test.unwrap();
    assert_eq!(
        (source.train.classes().len(), test.classes()[1].as_str(), test.label(0)),
        (1, "horse", Some(1))
    );

    // Of several test parts, the first with labels is used, and the others are reported.
    write(
        &at("parts.csv"),
        "path,label,split\na/1.png,dog,train\na/2 b.png,,test\nc/3.png,dog,val\na/2 b.png,dog,dev\n",
    );
    let source = open(&at("parts.csv")).unwrap();
    assert_eq!((colors(&*source.train), colors(&*source.test.unwrap())), (vec![0], vec![2]));
    assert_eq!(source.left_out.count, 2);
    assert!(source.left_out.files[0].reason.contains("in a test part other"), "{:?}", source.left_out);
    write(&at("parts.csv"), "path,split\na/1.png,train\nc/3.png,val2017\n");
    let message = error(&at("parts.csv"));
    assert!(message.contains("line 3 names a part \"val2017\""), "{message}");

    // A file that is not there is a broken image, not a broken list.
    write(&at("some.txt"), "a/1.png\na/missing.png\n");
    let source = open(&at("some.txt")).unwrap();
    let missing = source.train.read(1, &mut DecodeScratch::default()).unwrap_err().to_string();
    assert!(missing.starts_with("a/missing.png: "), "{missing}");
    write(&at("none.txt"), "Dear diary,\ntoday\n");
    assert!(error(&at("none.txt")).contains("none of the first 2 paths"));
    write(&at("binary.txt"), [0xff, 0xfe, 0, 1]);
    assert!(error(&at("binary.txt")).contains("not text in UTF-8"));
    write(&at("head.csv"), "path\n");
    assert!(error(&at("head.csv")).contains("holds no paths"));
}

#[test]
fn zip_archives_are_folders() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("set.zip");
    let members = [
        "set/train/dog/1.png",
        "set/train/cat/2.png",
        "set/train/cat/1.png",
        "set/val/dog/9.png",
        "set/val/dog/8.png",
    ];
    let mut members: Vec<(String, Vec<u8>)> =
        members.iter().enumerate().map(|(i, name)| ((*name).to_owned(), png(i as u8))).collect();
    members.push(("__MACOSX/set/._1.png".to_owned(), vec![1]));
    members.push(("set/readme.txt".to_owned(), b"hello".to_vec()));
    for deflated in [false, true] {
        fs::write(&file, zip(&members, deflated)).unwrap();
        let source = open(&file).unwrap();
        assert_eq!((source.kind, colors(&*source.train)), (SourceKind::Zip, vec![2, 1, 0]));
        assert_eq!(names(&*source.train)[0], "set/train/cat/1.png");
        assert_eq!(
            (source.train.classes(), labels(&*source.train)),
            (&["cat".to_owned(), "dog".to_owned()][..], vec![Some(0), Some(0), Some(1)])
        );
        // One folder holds them all, so it is not a class; labels are those of training or none.
        assert_eq!(colors(&*source.test.unwrap()), [4, 3]);
        assert_eq!(source.left_out.files[0].name, "set/readme.txt");
    }
}

#[test]
fn zip_archives_are_parts_by_their_names() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let set = |values: std::ops::Range<u8>, classes: &[&str]| {
        let name = |value: u8| format!("{}/{value}.png", classes[value as usize % classes.len()]);
        zip(&values.map(|value| (name(value), png(value))).collect::<Vec<_>>(), true)
    };
    write(&at("train.zip"), set(0..6, &["ant", "bee", "cat"]));
    write(&at("test.zip"), set(10..14, &["bee", "cat"]));
    for source in [open(dir.path()).unwrap(), several(&[&at("test.zip"), &at("train.zip")])] {
        assert_eq!((source.kind, colors(&*source.train)), (SourceKind::Zip, vec![0, 3, 1, 4, 2, 5]));
        let test = source.test.unwrap();
        assert_eq!((test.classes(), colors(&*test)), (source.train.classes(), vec![10, 12, 11, 13]));
        assert_eq!(labels(&*test), [Some(1), Some(1), Some(2), Some(2)]);
    }
    // The other test part is left out, and so is an archive whose name tells no part.
    write(&at("val.zip"), set(20..24, &["ant", "bee"]));
    write(&at("more.zip"), set(30..34, &["ant", "bee"]));
    let source = open(dir.path()).unwrap();
    assert_eq!((source.train.len(), source.test.unwrap().len(), source.left_out.count), (6, 4, 2));
    // An archive that is listed explicitly is wanted.
    let source = several(&[&at("train.zip"), &at("more.zip"), &at("test.zip")]);
    let both = SourceKind::Several { sets: 2, archives: true };
    assert_eq!((source.kind, source.train.len()), (both, 10));
    assert_eq!(colors(&*source.test.unwrap()), [10, 12, 11, 13]);
    write(&at("test.zip"), set(10..14, &["bee", "dog"]));
    let test = open(dir.path()).unwrap().test.unwrap();
    assert_eq!((&test.classes()[2..], test.label(3)), (&["cat", "dog"].map(String::from)[..], Some(3)));
    // Also where several data sets are read as one.
    picture(&at("b/train/cow/1.png"), 40);
    picture(&at("b/train/elk/1.png"), 41);
    picture(&at("b/train/elk/2.png"), 41);
    let source = several(&[&at("b"), &at("train.zip"), &at("test.zip")]);
    assert_eq!(source.train.classes(), ["ant", "bee", "cat", "cow", "elk"]);
    let test = source.test.unwrap();
    assert_eq!((test.classes()[5].as_str(), test.label(0), test.label(3)), ("dog", Some(1), Some(5)));
    // If no archive is named as a training part, all are to train on.
    let source = several(&[&at("val.zip"), &at("more.zip")]);
    assert!(source.train.len() == 8 && source.test.is_none());
}

#[test]
fn damaged_zip_archives_are_named_and_their_members_passed_over() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("set.zip");
    let members: Vec<(String, Vec<u8>)> = (0..4).map(|i| (format!("{i}.png"), png(i))).collect();
    let whole = zip(&members, false);
    // A byte of the second image's data.
    let mut torn = whole.clone();
    let second = torn.windows(5).position(|bytes| bytes == b"1.png").unwrap();
    torn[second + 40] ^= 1;
    fs::write(&file, &torn).unwrap();
    let source = open(&file).unwrap();
    let reason = source.train.read(1, &mut DecodeScratch::default()).unwrap_err().to_string();
    assert!(reason.contains("1.png") && reason.contains("checksum"), "{reason}");
    assert!(source.train.read(2, &mut DecodeScratch::default()).is_ok());
    // The second image's length in the directory at the end.
    let mut torn = whole.clone();
    let second = torn.windows(5).rposition(|bytes| bytes == b"1.png").unwrap();
    torn[second - 46 + 24] ^= 1;
    fs::write(&file, &torn).unwrap();
    let source = open(&file).unwrap();
    assert_eq!(names(&*source.train), ["0.png", "2.png", "3.png"]);
    let reason = &source.left_out.files[0].reason;
    assert!(reason.contains("bytes, but declares"), "{reason}");
    for bytes in [&whole[..whole.len() / 2], b"PK nonsense"] {
        fs::write(&file, bytes).unwrap();
        let message = error(&file);
        let told = ["set.zip: not read as a zip archive", "lacks the directory that a whole one ends with"];
        assert!(told.iter().all(|words| message.contains(words)), "{message}");
    }
    fs::write(&file, b"").unwrap();
    assert!(error(&file).contains("set.zip: the file is empty"));
    fs::write(&file, zip(&[("a.txt".to_owned(), vec![1])], true)).unwrap();
    assert!(error(&file).contains("no images in it, only 1 other file ("));
}

#[test]
fn members_of_a_zip_from_windows_lie_in_folders_too() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("set.zip");
    let members = ["set\\a\\1.png", "set\\a\\2.png", "set\\b\\3.png"];
    fs::write(&file, zip(&members.map(|name| (name.to_owned(), png(1))), true)).unwrap();
    let source = open(&file).unwrap();
    assert_eq!((source.train.classes(), source.train.len()), (&["a".to_owned(), "b".to_owned()][..], 3));
}

/// A zip whose directory declares a size that its data do not have.
#[test]
fn a_zip_bomb_is_refused() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("set.zip");
    let mut bytes = zip(&[("bomb.png".to_owned(), vec![0; 1 << 20])], true);
    let declared = (1u32 << 20).to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 4).filter(|&at| bytes[at..at + 4] == declared).collect();
    assert_eq!(places.len(), 2);
    for (size, expected) in [(900 << 20, "more than the"), (1000u32, "1000 bytes that it declares")] {
        for &at in &places {
            bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
        }
        fs::write(&file, &bytes).unwrap();
        let source = open(&file).unwrap();
        let reason = source.train.read(0, &mut DecodeScratch::default()).unwrap_err().to_string();
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn tar_shards_with_labels_however_they_are_compressed() {
    let dir = tempdir().unwrap();
    for (end, pack) in
        [("tar", (|bytes| bytes) as fn(Vec<u8>) -> Vec<u8>), ("tar.gz", gzip), ("tar.zst", common::zstd)]
    {
        for shard in 0..3u8 {
            let name = format!("{end}/shard-{shard:03}.{end}");
            write(&dir.path().join(name), pack(tar(&samples(shard * 10..shard * 10 + 10))));
        }
        let pattern = dir.path().join(end).join(format!("shard-{{000..002}}.{end}"));
        for path in [pattern, dir.path().join(end)] {
            let source = open(&path).unwrap();
            assert_eq!(source.kind, SourceKind::Shards, "{end}");
            assert_eq!(colors(&*source.train), (0..30).collect::<Vec<u8>>(), "{end}");
            assert_eq!(source.train.classes(), ["0", "1", "2"]);
            assert_eq!(source.train.label(22), Some(1));
            assert_eq!(source.train.name(22), format!("shard-002.{end}/sample022.png"));
            assert_eq!(source.left_out.count, 0);
        }
    }
    let missing = dir.path().join("tar/shard-{000..003}.tar");
    assert!(error(&missing).contains("shard-003.tar: no such file"));
}

#[test]
fn parts_of_shards_by_name_and_classes_by_folder() {
    let dir = tempdir().unwrap();
    write(&dir.path().join("set-train-0.tar"), tar(&samples(0..4)));
    write(&dir.path().join("set-val-0.tar"), tar(&samples(4..6)));
    let source = open(dir.path()).unwrap();
    assert_eq!((colors(&*source.train), colors(&*source.test.unwrap())), (vec![0, 1, 2, 3], vec![4, 5]));

    let long = format!("{}/z.png", "long".repeat(60));
    let members =
        [("./set/b/1.png", 1), ("./set/b/2.png", 2), ("set/a/3.png", 3), (&*format!("set/a/{long}"), 4)];
    let members: Vec<_> = members.iter().map(|&(name, value)| (name.to_owned(), png(value))).collect();
    let file = dir.path().join("folders.tar");
    write(&file, tar(&members));
    let source = open(&file).unwrap();
    assert_eq!(
        (source.train.classes(), labels(&*source.train)),
        (&["a".to_owned(), "b".to_owned()][..], vec![Some(1), Some(1), Some(0), Some(0)])
    );
    assert_eq!(source.train.name(3), format!("set/a/{long}"));
}

#[test]
fn of_several_parts_to_test_on_the_labelled_one_is_used() {
    let dir = tempdir().unwrap();
    let unlabelled: Vec<_> = (4..9).map(|value| (format!("{value}.png"), png(value))).collect();
    write(&dir.path().join("train-0.tar"), tar(&samples(0..4)));
    write(&dir.path().join("test-0.tar"), tar(&unlabelled));
    write(&dir.path().join("val-0.tar"), tar(&samples(9..12)));
    write(&dir.path().join("extra-0.tar"), tar(&samples(12..14)));
    let source = open(dir.path()).unwrap();
    assert_eq!((colors(&*source.train), colors(&*source.test.unwrap())), (vec![0, 1, 2, 3], vec![9, 10, 11]));
    let left_out: Vec<_> = source.left_out.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(left_out, ["extra-0.tar", "test-0.tar"]);
    // An archive that is listed explicitly is wanted, whatever the folders above it are called.
    let paths = ["train-0.tar", "extra-0.tar"].map(|name| dir.path().join(name));
    let source = several(&[&paths[0], &paths[1]]);
    assert_eq!((colors(&*source.train), source.left_out.count), (vec![0, 1, 2, 3, 12, 13], 0));
}

#[test]
fn damaged_shards_are_read_up_to_the_damage() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.tar");
    let whole = tar(&samples(0..10));
    write(&file, &whole[..whole.len() / 2]);
    let source = open(&file).unwrap();
    let read = source.train.len();
    assert!((3..7).contains(&read), "{read}");
    assert_eq!(colors(&*source.train), (0..read as u8).collect::<Vec<u8>>());
    let broken = |source: &Source| -> String {
        let Source { left_out, .. } = source;
        assert_eq!(left_out.broken.len(), 1, "{left_out:?}");
        format!("{}: {}", left_out.broken[0].name, left_out.broken[0].reason)
    };
    // Each image has two files beside it.
    let told = broken(&source);
    assert!(told.starts_with("a.tar: the archive is cut short: it ends within entry "), "{told}");
    let entry: usize = told.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((3 * read..3 * read + 3).contains(&(entry - 1)), "{told}");
    // The same for another file among folders and archives, each time.
    let mut opener = Opener::default();
    for _ in 0..2 {
        let source = opener.open(&[file.clone(), PathBuf::from("tests/golden")]).unwrap();
        assert!(broken(&source).ends_with(&told));
    }
    // The same for several archives given directly.
    let first = dir.path().join("0.tar");
    write(&first, tar(&samples(0..2)));
    let source = opener.open(&[first.clone(), file.clone(), PathBuf::from("tests/golden")]).unwrap();
    let beside = format!("{}: the archive is cut short", file.display());
    assert!(broken(&source).starts_with(&beside), "{}", broken(&source));
    // A file that is not an archive, among others.
    write(&first, &whole[..300]);
    let source = open(dir.path()).unwrap();
    assert!(
        source.left_out.broken.iter().any(|file| file.name == "0.tar" && file.reason.contains("tar archive"))
    );
    fs::remove_file(&first).unwrap();
    // Within the header of an entry, and between two entries: some writers end there.
    write(&file, &whole[..1024 + 100]);
    assert!(
        broken(&open(&file).unwrap())
            .starts_with("a.tar: the archive is cut short or damaged after entry 1 (")
    );
    for packed in [false, true] {
        let pack = |bytes: &[u8]| if packed { gzip(bytes.to_vec()) } else { bytes.to_vec() };
        write(&file, pack(&whole[..whole.len() - 1024]));
        let source = open(&file).unwrap();
        assert!(source.left_out.broken.is_empty() && source.train.len() == 10);
        let doubtful = &source.left_out.doubtful[0];
        assert!(doubtful.name == "a.tar" && doubtful.reason.contains("ends after entry 30 without the mark"));
        write(&file, pack(&whole));
        assert_eq!(open(&file).unwrap().left_out, LeftOut::default());
    }
    // No member is whole.
    write(&file, &whole[..550]);
    let message = error(&file);
    assert!(message.contains("no images in it") && message.contains("cut short"), "{message}");

    let packed = gzip(whole.clone());
    let file = dir.path().join("b.tar.gz");
    write(&file, &packed[..packed.len() * 2 / 3]);
    let source = open(&file).unwrap();
    assert!(broken(&source).starts_with("b.tar.gz: the archive is cut short or damaged after entry "));
    assert!(!source.train.is_empty());

    // Whole when it is scanned, then damaged before it is read, as by a disk: its time is the same.
    write(&file, &packed);
    let source = open(&file).unwrap();
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    let mut torn = packed.clone();
    let middle = torn.len() / 2;
    torn[middle..middle + 8].fill(0xff);
    write(&file, &torn);
    fs::File::options().write(true).open(&file).unwrap().set_modified(written).unwrap();
    let mut scratch = DecodeScratch::default();
    let read: Vec<bool> = (0..10).map(|index| source.train.read(index, &mut scratch).is_ok()).collect();
    assert!(read[0] && !read[9], "{read:?}");

    write(
        &dir.path().join("c.tar"),
        b"no archive at all, though it is long enough to be looked at".repeat(20),
    );
    assert!(error(&dir.path().join("c.tar")).contains("c.tar: not read as a tar archive"));
}

#[test]
fn a_gzip_bomb_is_refused() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.tar.gz");
    // 1.4 GB of zeros behind a header that asks for them, in 1.4 MB.
    let mut head = tar(&[("a.bin".to_owned(), vec![0; 512])]);
    head.truncate(512);
    let mut header = tar::Header::from_byte_slice(&head).clone();
    header.set_size(3 << 30);
    header.set_cksum();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..2900 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    write(&file, encoder.finish().unwrap());
    let message = error(&file);
    assert!(message.contains("no images in it"), "{message}");
}

#[test]
fn two_sources_are_one() {
    let dir = tempdir().unwrap();
    for (value, name) in ["x/b/1.png", "x/b/2.png", "x/c/1.png"].iter().enumerate() {
        picture(&dir.path().join(name), value as u8);
    }
    for (value, name) in ["y/a/1.png", "y/a/2.png", "y/c/1.png"].iter().enumerate() {
        picture(&dir.path().join(name), 10 + value as u8);
    }
    write(&dir.path().join("z.tar"), tar(&[("q.png".to_owned(), png(20))]));
    let (x, y, z) = (dir.path().join("x"), dir.path().join("y"), dir.path().join("z.tar"));
    let source = several(&[&x, &y, &z]);
    assert_eq!(source.kind.to_string(), "3 data sets");
    assert_eq!(colors(&*source.train), [0, 1, 2, 10, 11, 12, 20]);
    assert_eq!(source.train.classes(), ["a", "b", "c"]);
    assert_eq!(labels(&*source.train), [Some(1), Some(1), Some(2), Some(0), Some(0), Some(2), None]);
    assert!(source.train.name(4).ends_with("y/a/2.png"));
}

/// The same batches for any number of threads, and from any place in the middle; each image once an epoch.
#[test]
fn batches_of_shards_are_a_function_of_the_place() {
    let dir = tempdir().unwrap();
    for shard in 0..7u8 {
        write(&dir.path().join(format!("s{shard}.tar.gz")), gzip(tar(&samples(shard * 30..shard * 30 + 30))));
    }
    let expected = batches(&open(dir.path()).unwrap(), 1, Default::default(), 42);
    for epoch in 0..2 {
        let mut seen: Vec<u32> =
            expected[epoch * 21..][..21].iter().flat_map(|batch| batch.indices.clone()).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..210), "epoch {epoch}");
    }
    assert_ne!(expected[0].indices, expected[21].indices);
    assert!(!expected[0].indices.is_sorted());
    for threads in [2, 5] {
        for after in [0, 3, 17, 24] {
            let start = if after == 0 { Default::default() } else { expected[after - 1].position };
            let source = open(dir.path()).unwrap();
            let got = batches(&source, threads, start, 42 - after);
            for (got, expected) in got.iter().zip(&expected[after..]) {
                assert_eq!((&got.indices, &got.views), (&expected.indices, &expected.views));
            }
        }
    }
}

#[test]
fn an_index_serves_shards_and_folders() {
    let dir = tempdir().unwrap();
    let root: PathBuf = dir.path().join("set");
    write(&root.join("a.tar.gz"), gzip(tar(&samples(0..5))));
    let file = dir.path().join("index");
    let mut opener = Opener::default();
    assert_eq!(opener.open(std::slice::from_ref(&root)).unwrap().train.len(), 5);
    opener.index.save(&file).unwrap();
    let mut opener = Opener { index: simclr_data::Index::load(&file), ..Opener::default() };
    assert_eq!(colors(&*opener.open(std::slice::from_ref(&root)).unwrap().train), [0, 1, 2, 3, 4]);
    write(&root.join("a.tar.gz"), gzip(tar(&samples(0..6))));
    assert_eq!(opener.open(&[root]).unwrap().train.len(), 6);
}

#[cfg(target_os = "linux")]
#[test]
fn some_shards_stay_open_and_however_many_there_are_all_are_read() {
    let dir = tempdir().unwrap();
    let shard = |number: u8| dir.path().join(format!("{number:03}.tar"));
    (0..200).for_each(|number| write(&shard(number), tar(&[("a.png".to_owned(), png(number))])));
    let images = open(dir.path()).unwrap().train;
    for _ in 0..2 {
        assert!(colors(&*images).into_iter().eq(0..200));
    }
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    assert!((50..190).contains(&before), "{before} files are open");
    // Those need not be looked for again.
    (0..200).for_each(|number| fs::remove_file(shard(number)).unwrap());
    let mut scratch = DecodeScratch::default();
    let read = (0..200).filter(|&image| images.read(image, &mut scratch).is_ok()).count();
    assert!((50..190).contains(&read), "{read} images are read");
    drop(images);
    assert!(open() + 50 < before);
}

/// Runs itself again with few open files.
#[cfg(target_os = "linux")]
#[test]
fn shards_leave_open_files_to_others() {
    const LIMITED: &str = "SIMCLR_TEST_FILES";
    if std::env::var_os(LIMITED).is_none() {
        let limited = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 64 && exec \"$0\" --exact shards_leave_open_files_to_others"])
            .arg(std::env::current_exe().unwrap())
            .env(LIMITED, "1")
            .output()
            .unwrap();
        assert!(limited.status.success(), "{}", String::from_utf8_lossy(&limited.stdout));
        return;
    }
    let dir = tempdir().unwrap();
    for number in 0..150 {
        let member = [("a.png".to_owned(), png(number))];
        write(&dir.path().join(format!("{number:03}.tar")), tar(&member));
    }
    let mut opener = Opener { threads: 2, ..Opener::default() };
    let images = opener.open(&[dir.path().to_owned()]).unwrap().train;
    assert!(colors(&*images).into_iter().eq(0..150));
    let others: Vec<fs::File> = (0..30).map(|_| fs::File::open("/dev/null").unwrap()).collect();
    assert!(colors(&*images).into_iter().eq(0..150) && others.len() == 30);
}
