//! Recognising data sets and their faults.

mod common;

use std::fs;

use common::{colors, error, names, picture};
use simclr_data::{DecodeOptions, DecodeScratch, Opener, SourceKind, Window, open};
use tempfile::tempdir;

#[test]
fn unlabelled_folder_is_recursive_sorted_and_ignores_hidden_files() {
    let dir = tempdir().unwrap();
    for (number, name) in
        ["b.png", "2024/05/a.png", "2024/04/z.bmp", ".hidden/c.png", "2023/.d.png"].iter().enumerate()
    {
        picture(&dir.path().join(name), number as u8);
    }
    let source = open(dir.path()).unwrap();
    assert_eq!(source.kind, SourceKind::Folder);
    assert_eq!(names(&*source.train), ["2024/04/z.bmp", "2024/05/a.png", "b.png"]);
    assert!(source.train.classes().is_empty() && source.train.label(0).is_none() && source.test.is_none());
    let mut scratch = DecodeScratch::default();
    assert_eq!(source.train.read(1, &mut scratch).unwrap().pixels[0], 1);
}

#[test]
fn class_folders_give_labels_at_any_depth() {
    let dir = tempdir().unwrap();
    for name in ["cat/1.png", "cat/2.png", "ant/1.png", "dog/1.png", "dog/more/2.png", "stray.png"] {
        picture(&dir.path().join(name), 0);
    }
    let source = open(dir.path()).unwrap();
    assert_eq!(source.kind.to_string(), "folder, one sub-folder per class");
    assert_eq!(source.train.classes(), ["ant", "cat", "dog"]);
    // Images beside the class folders have no label; pretraining needs none.
    let labels: Vec<_> = (0..source.train.len()).map(|i| source.train.label(i)).collect();
    assert_eq!(labels, [Some(0), Some(1), Some(1), Some(2), Some(2), None]);
    assert_eq!((source.train.name(5), source.left_out.count), ("stray.png".to_owned(), 0));
}

#[test]
fn class_folders_without_images_are_named() {
    let dir = tempdir().unwrap();
    let notes = |names: &[&str], empty: &[&str]| {
        let root = tempfile::tempdir_in(dir.path()).unwrap();
        names.iter().for_each(|name| picture(&root.path().join(name), 0));
        empty.iter().for_each(|name| fs::create_dir_all(root.path().join(name)).unwrap());
        let mut opener = Opener::default();
        let mut open = || opener.open(&[root.path().to_owned()]).unwrap().left_out.notes;
        let (listed, known) = (open(), open());
        assert_eq!(listed, known);
        listed
    };
    let classes = ["ant/1.png", "ant/2.png", "bee/deep/1.png"];
    assert!(notes(&classes, &["ant/none", "bee/deep/none", ".hidden"]).is_empty());
    let told = notes(&classes, &["cat/none", "dog"]);
    assert_eq!(told, ["2 folders beside those of the classes hold no images: cat, dog"]);
    let parts = ["train/ant/1.png", "train/ant/2.png", "train/bee/1.png", "val/ant/1.png", "val/bee/1.png"];
    let told = notes(&parts, &["train/cat", "extra/cat"]);
    assert_eq!(told, ["1 folder beside those of the classes holds no images: train/cat"]);
    // An album has no classes.
    assert!(notes(&["a.png", "2024/b.png"], &["2025"]).is_empty());
}

#[test]
fn one_folder_per_image_is_no_class_each() {
    let dir = tempdir().unwrap();
    for number in 0..6 {
        picture(&dir.path().join(format!("{number}/image.png")), number);
    }
    assert_eq!(open(dir.path()).unwrap().kind, SourceKind::Folder);
}

#[test]
fn train_and_test_share_the_numbers_of_classes() {
    let dir = tempdir().unwrap();
    for name in [
        "Train/a/1.png",
        "Train/a/2.png",
        "Train/b/1.png",
        "Train/c/1.png",
        "val/c/1.png",
        "val/b/1.png",
        "val/b/2.png",
    ] {
        picture(&dir.path().join(name), 0);
    }
    // `test` has no labels, so the labelled `val` is used.
    picture(&dir.path().join("test/x.png"), 0);
    let source = open(dir.path()).unwrap();
    let test = source.test.unwrap();
    assert_eq!(test.classes(), ["a", "b", "c"]);
    assert_eq!((0..3).map(|i| test.label(i).unwrap()).collect::<Vec<_>>(), [1, 1, 2]);

    // A class without training images comes after the others.
    picture(&dir.path().join("val/aa/1.png"), 0);
    let source = open(dir.path()).unwrap();
    let test = source.test.unwrap();
    assert_eq!(
        (source.train.classes(), test.classes()),
        (&test.classes()[..3], &["a", "b", "c", "aa"].map(String::from)[..])
    );
    assert_eq!((0..4).map(|i| test.label(i).unwrap()).collect::<Vec<_>>(), [3, 1, 1, 2]);
}

#[test]
fn a_part_to_test_on_may_have_labels_alone() {
    let dir = tempdir().unwrap();
    let names = ["train/1.png", "train/2.png", "test/a/1.png", "test/a/2.png", "test/b/1.png"];
    names.iter().for_each(|name| picture(&dir.path().join("set").join(name), 0));
    let zips = dir.path().join("zips");
    fs::create_dir(&zips).unwrap();
    let members = |part: &str| -> Vec<(String, Vec<u8>)> {
        let of_part = names.iter().filter_map(|name| name.strip_prefix(part));
        of_part.map(|name| (name.to_owned(), common::png(0))).collect()
    };
    fs::write(zips.join("train.zip"), common::zip(&members("train/"), true)).unwrap();
    fs::write(zips.join("test.zip"), common::zip(&members("test/"), true)).unwrap();
    for path in [dir.path().join("set"), zips] {
        let source = open(&path).unwrap();
        let test = source.test.unwrap();
        assert!(source.train.classes().is_empty());
        assert_eq!(
            (test.classes(), test.label(0), test.label(2)),
            (&["a", "b"].map(String::from)[..], Some(0), Some(1))
        );
    }
}

#[test]
fn classes_are_the_folders_of_the_first_level() {
    let dir = tempdir().unwrap();
    for name in ["daisy/s1/1.png", "daisy/s2/1.png", "iris/s1/1.png", "iris/s2/more/1.png"] {
        picture(&dir.path().join("set").join(name), 0);
        picture(&dir.path().join("parts/train").join(name), 0);
        picture(&dir.path().join("parts/test").join(name), 0);
    }
    for path in ["set", "parts"] {
        let source = open(&dir.path().join(path)).unwrap();
        assert_eq!(
            (source.kind, source.train.classes()),
            (SourceKind::ClassFolders, &["daisy", "iris"].map(String::from)[..])
        );
        assert_eq!((source.train.label(1), source.train.label(3)), (Some(0), Some(1)));
        assert_eq!(source.test.map(|test| test.label(2)), (path == "parts").then_some(Some(1)));
    }
    // With an image beside them, the folders are albums.
    picture(&dir.path().join("set/1.png"), 0);
    assert_eq!(open(&dir.path().join("set")).unwrap().kind, SourceKind::Folder);
    // This does not make a folder beside train/ a class.
    picture(&dir.path().join("more/train/a/1.png"), 0);
    picture(&dir.path().join("more/train/b/1.png"), 0);
    picture(&dir.path().join("more/train/b/2.png"), 0);
    picture(&dir.path().join("more/extra/b/1.png"), 0);
    let source = open(&dir.path().join("more")).unwrap();
    assert_eq!((source.train.classes(), source.left_out.images), (&["a", "b"].map(String::from)[..], 1));
    assert_eq!(source.left_out.outside.iter().collect::<Vec<_>>(), ["extra/"]);
}

#[test]
fn a_folder_of_unlabelled_images_beside_train_is_to_pretrain_on() {
    let dir = tempdir().unwrap();
    let parts = ["train/a/1.png", "train/a/2.png", "train/b/1.png", "test/a/1.png"];
    for name in parts.iter().chain(&["Unlabeled/x/1.png", "Unlabeled/2.png", "stray.png"]) {
        picture(&dir.path().join(name), 0);
    }
    let source = open(dir.path()).unwrap();
    let unlabelled = source.unlabelled.clone().unwrap();
    assert_eq!(names(&*unlabelled), ["Unlabeled/2.png", "Unlabeled/x/1.png"]);
    assert!(unlabelled.classes().is_empty());
    assert_eq!((source.to_pretrain().len(), source.test.unwrap().len(), source.left_out.images), (5, 1, 1));
    fs::remove_dir_all(dir.path().join("test")).unwrap();
    fs::remove_dir_all(dir.path().join("train/b")).unwrap();
    let source = open(dir.path()).unwrap();
    assert_eq!((source.train.len(), source.unlabelled.unwrap().len()), (2, 2));
    // Without a training part it is a folder like any other.
    fs::remove_dir_all(dir.path().join("train")).unwrap();
    let source = open(dir.path()).unwrap();
    assert!(source.train.len() == 3 && source.unlabelled.is_none());
}

#[test]
fn what_lies_beside_the_parts_is_left_out_and_told() {
    let dir = tempdir().unwrap();
    for name in ["train/a/1.png", "train/a/2.png", "train/b/1.png", "extra/x.png", "stray.png"] {
        picture(&dir.path().join(name), 0);
    }
    // No folder is named like a test part, but train/ contains the classes.
    let source = open(dir.path()).unwrap();
    assert_eq!(names(&*source.train), ["train/a/1.png", "train/a/2.png", "train/b/1.png"]);
    assert!(source.train.classes() == ["a", "b"] && source.test.is_none());
    let left_out = |source: &simclr_data::Source| -> Vec<String> {
        source.left_out.files.iter().map(|file| file.name.clone()).collect()
    };
    assert_eq!(left_out(&source), ["extra/x.png", "stray.png"]);
    for name in ["test/a/1.png", "test/b/2.png", "test/b/3.png", "val/a/1.png"] {
        picture(&dir.path().join(name), 0);
    }
    let source = open(dir.path()).unwrap();
    assert_eq!(names(&*source.test.clone().unwrap()), ["test/a/1.png", "test/b/2.png", "test/b/3.png"]);
    assert_eq!(left_out(&source), ["extra/x.png", "stray.png", "val/a/1.png"]);
    assert_eq!((source.left_out.count, source.left_out.images), (3, 3));
    assert!(source.left_out.files[2].reason.contains("none of the parts"), "{:?}", source.left_out);
}

#[test]
fn a_test_part_without_labels_has_no_classes() {
    let dir = tempdir().unwrap();
    for name in ["train/a/1.png", "train/a/2.png", "train/b/1.png", "val/1.png"] {
        picture(&dir.path().join(name), 0);
    }
    let source = open(dir.path()).unwrap();
    let test = source.test.unwrap();
    assert!(test.len() == 1 && test.classes().is_empty() && !source.train.classes().is_empty());
}

#[test]
fn a_class_may_be_called_train() {
    let dir = tempdir().unwrap();
    let mut members = Vec::new();
    for class in ["bus", "car", "train"] {
        for number in 0..5 {
            let name = format!("{class}/{number}.png");
            picture(&dir.path().join("veh").join(&name), number);
            members.push((name, common::png(number)));
        }
    }
    let zip = dir.path().join("veh.zip");
    fs::write(&zip, common::zip(&members, true)).unwrap();
    for path in [dir.path().join("veh"), zip] {
        let source = open(&path).unwrap();
        assert_eq!((source.train.len(), source.left_out.count), (15, 0));
        assert_eq!(source.train.classes(), ["bus", "car", "train"]);
        assert!(source.test.is_none());
    }
    // Nor do photos beside a folder of that name vanish.
    picture(&dir.path().join("album/train/1.png"), 0);
    picture(&dir.path().join("album/1.png"), 0);
    assert_eq!(open(&dir.path().join("album")).unwrap().train.len(), 2);
}

#[test]
fn other_files_are_left_out_and_listed() {
    let dir = tempdir().unwrap();
    picture(&dir.path().join("a.png"), 0);
    fs::rename(dir.path().join("a.png"), dir.path().join("no_extension")).unwrap();
    fs::write(dir.path().join("notes.txt"), "text").unwrap();
    fs::write(dir.path().join("letter"), "text").unwrap();
    fs::write(dir.path().join("phone.heic"), b"\0\0\0\x20ftypheic").unwrap();
    fs::write(dir.path().join("raw.NEF"), b"II*\0\x08\0\0\0").unwrap();
    let source = open(dir.path()).unwrap();
    assert_eq!(names(&*source.train), ["no_extension"]);
    let left_out: Vec<_> =
        source.left_out.files.iter().map(|f| (f.name.as_str(), f.reason.as_str())).collect();
    assert_eq!(
        left_out,
        [
            ("letter", "not an image, by its first bytes"),
            ("notes.txt", "not an image (.txt)"),
            ("phone.heic", "HEIC/AVIF is not read; convert it to JPEG, PNG, WebP, TIFF, BMP, GIF or PNM"),
            ("raw.NEF", "camera raw (.nef) is not read; convert it to JPEG or TIFF"),
        ]
    );
}

#[test]
fn nothing_to_open() {
    let dir = tempdir().unwrap();
    assert!(error(dir.path()).contains("no images in it, nor any other files"));
    fs::write(dir.path().join("notes.txt"), "text").unwrap();
    assert!(error(dir.path()).contains("no images in it, only 1 other file ("));
    assert!(error(&dir.path().join("absent")).contains("absent: no such file or folder"));
    assert!(error(&dir.path().join("notes.txt")).contains("the one path in it"));
    fs::write(dir.path().join("letter.doc"), "text").unwrap();
    assert!(error(&dir.path().join("letter.doc")).contains("is not a data set"));
    let raw = dir.path().join("raw.NEF");
    fs::write(&raw, b"II*\0\x08\0\0\0").unwrap();
    assert!(
        error(&raw).contains("raw.NEF: is not a data set of a known kind: camera raw (.nef) is not read")
    );
}

#[test]
fn image_files_are_one_data_set_called_by_their_paths() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (number, name) in ["set/a.png", "c.png", "b.png", "bare.png"].iter().enumerate() {
        picture(&at(name), number as u8);
    }
    fs::rename(at("bare.png"), at("bare")).unwrap();
    let opened = |names: &[&str]| {
        let paths: Vec<_> = names.iter().map(|name| at(name)).collect();
        Opener::default().open(&paths).unwrap()
    };
    let whole = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| at(name).to_str().unwrap().to_owned()).collect()
    };
    // The names are paths, in the order given, also of a single file and beside other data.
    for given in [&["c.png"][..], &["c.png", "bare", "b.png"]] {
        let source = opened(given);
        assert_eq!((source.kind, names(&*source.train)), (SourceKind::Images, whole(given)));
        assert!(source.train.classes().is_empty() && source.train.stored_bytes(0).is_some());
    }
    assert_eq!(colors(&*opened(&["c.png", "bare", "b.png"]).train), [1, 3, 2]);
    let mixed = opened(&["c.png", "set", "b.png"]);
    assert_eq!(mixed.kind, SourceKind::Several { sets: 2, archives: false });
    assert_eq!(names(&*mixed.train), whole(&["c.png", "b.png", "set/a.png"]));
    for source in [opened(&["c.png"]), mixed] {
        let path = source.kind.root(&at("c.png")).join(source.train.name(0));
        assert_eq!(path, at("c.png"));
    }

    // A file that is an image by its name alone is a broken one; what does not exist is not skipped.
    fs::write(at("noise.jpg"), "no image").unwrap();
    let source = opened(&["noise.jpg", "c.png"]);
    let error = source.train.read(0, &mut DecodeScratch::default()).unwrap_err().to_string();
    assert!(source.train.len() == 2 && error.contains("noise.jpg: not an image"), "{error}");
    let absent = Opener::default().open(&[at("c.png"), at("absent.png")]).unwrap_err();
    assert!(absent.to_string().contains("absent.png: no such file"), "{absent}");
}

#[test]
fn many_image_files_are_one_part() {
    let dir = tempdir().unwrap();
    let paths: Vec<_> = (0..20_000).map(|number| dir.path().join(format!("{number}.png"))).collect();
    paths.iter().for_each(|path| fs::write(path, "").unwrap());
    let source = Opener::default().open(&paths).unwrap();
    assert_eq!((source.kind, source.train.len()), (SourceKind::Images, 20_000));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let dir = tempdir().unwrap();
    picture(&dir.path().join("a.png"), 0);
    let pipe = dir.path().join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::write(dir.path().join("list.txt"), "a.png\npipe.png\n").unwrap();
    let source = open(&dir.path().join("list.txt")).unwrap();
    let error_of = source.train.read(1, &mut DecodeScratch::default()).unwrap_err().to_string();
    assert_eq!(error_of, "pipe.png: not a regular file");
    assert!(error(&pipe).contains("neither a folder nor a regular file"));
}

#[cfg(unix)]
#[test]
fn classes_are_told_apart_whatever_the_bytes_of_their_names() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempdir().unwrap();
    for class in [&b"caf\xe9"[..], b"caf\xe8", b"tea"] {
        for number in 0..2 {
            let name = format!("{number}.png");
            picture(&dir.path().join(std::ffi::OsStr::from_bytes(class)).join(name), number);
        }
    }
    let source = open(dir.path()).unwrap();
    assert_eq!(source.train.classes(), ["caf\\xe8", "caf\\xe9", "tea"]);
    assert_eq!(source.train.name(0), "caf\\xe8/0.png");
}

#[cfg(unix)]
#[test]
fn names_are_told_apart_whatever_is_escaped_in_them() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempdir().unwrap();
    for name in [&b"new\nline.png"[..], b"new\\nline.png", b"a\\\xe9.png"] {
        picture(&dir.path().join("photos").join(std::ffi::OsStr::from_bytes(name)), 1);
    }
    let source = open(dir.path()).unwrap();
    let names: Vec<String> = (0..3).map(|index| source.train.name(index)).collect();
    assert_eq!(names, ["photos/a\\\\\\xe9.png", "photos/new\\nline.png", "photos/new\\\\nline.png"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_loops_noted() {
    let dir = tempdir().unwrap();
    let elsewhere = tempdir().unwrap();
    picture(&elsewhere.path().join("a.png"), 0);
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("linked")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).unwrap();
    let source = open(dir.path()).unwrap();
    assert_eq!(names(&*source.train), ["linked/a.png"]);
    assert_eq!(source.left_out.count, 1);
}

#[cfg(unix)]
#[test]
fn what_cannot_be_read_is_told_apart_from_what_is_left_out() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempdir().unwrap();
    picture(&dir.path().join("a.png"), 0);
    picture(&dir.path().join("locked/b.png"), 0);
    for link in ["album", "gone.png", "gone.txt", "gone.tar.gz"] {
        symlink("nowhere", dir.path().join(link)).unwrap();
    }
    symlink("round", dir.path().join("round")).unwrap();
    let locked = dir.path().join("locked");
    let lock = |mode| fs::set_permissions(&locked, fs::Permissions::from_mode(mode)).unwrap();
    lock(0);
    // Root can read everything.
    let is_root = fs::read_dir(&locked).is_ok();
    let source = open(dir.path());
    lock(0o755);
    let source = source.unwrap();
    let broken = |source: &simclr_data::Source| -> Vec<String> {
        source.left_out.broken.iter().map(|file| format!("{}: {}", file.name, file.reason)).collect()
    };
    let mut told = broken(&source);
    if !is_root {
        let folder = told.remove(2);
        assert!(folder.starts_with("locked: the folder cannot be read: "), "{folder}");
        assert!(folder.ends_with("images and classes may be missing"), "{folder}");
    }
    assert_eq!(told[..2], ["album: a link that leads nowhere", "gone.tar.gz: a link that leads nowhere"]);
    assert!(told.len() == 3 && told[2].starts_with("round: a link that cannot be followed: "), "{told:?}");
    assert_eq!(source.left_out.count, 1, "{:?}", source.left_out);
    // A link named like an image is a broken image.
    assert_eq!(names(&*source.train)[..2], ["a.png", "gone.png"]);
    assert!(source.train.read(1, &mut DecodeScratch::default()).is_err());

    // The same beside shards, and where there is nothing else.
    fs::create_dir(dir.path().join("shards")).unwrap();
    fs::write(dir.path().join("shards/a.tar"), common::tar(&[("1.png".to_owned(), common::png(1))])).unwrap();
    symlink("nowhere", dir.path().join("shards/b.tar")).unwrap();
    assert_eq!(broken(&open(&dir.path().join("shards")).unwrap()), ["b.tar: a link that leads nowhere"]);
    fs::remove_file(dir.path().join("shards/a.tar")).unwrap();
    let message = error(&dir.path().join("shards"));
    assert!(message.contains("no images in it that can be read (b.tar: a link"), "{message}");
}

/// `count` CIFAR records; image i has the label i mod `classes` and the planes i, i + 1, i + 2.
fn cifar(count: usize, classes: usize, coarse: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..count {
        bytes.extend(coarse.then_some(0));
        bytes.push((i % classes) as u8);
        for plane in 0..3 {
            bytes.extend([(i + plane) as u8; 1024]);
        }
    }
    bytes
}

#[test]
fn cifar10_folder_and_file() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("cifar-10-batches-bin");
    fs::create_dir(&folder).unwrap();
    for part in 1..=5 {
        fs::write(folder.join(format!("data_batch_{part}.bin")), cifar(12, 10, false)).unwrap();
    }
    fs::write(folder.join("test_batch.bin"), cifar(7, 10, false)).unwrap();
    let source = open(dir.path()).unwrap();
    assert_eq!(source.kind, SourceKind::Cifar10);
    assert_eq!((source.train.len(), source.test.as_ref().unwrap().len()), (60, 7));
    assert_eq!(source.train.classes()[3], "cat");
    assert_eq!(source.train.label(12 + 11), Some(1));
    let mut scratch = DecodeScratch::default();
    let image = source.train.read(12 + 11, &mut scratch).unwrap();
    assert_eq!((image.width, image.height, &image.pixels[3069..]), (32, 32, &[11, 12, 13][..]));

    fs::write(folder.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").unwrap();
    let single = open(&folder.join("data_batch_2.bin")).unwrap();
    assert_eq!((single.train.len(), single.train.classes()[0].as_str()), (12, "a"));

    fs::write(folder.join("batches.meta.txt"), "a\nb\n").unwrap();
    assert!(error(&folder).contains("holds 2 class names; expected 10,"));
    fs::remove_file(folder.join("batches.meta.txt")).unwrap();
    assert!(open(&folder).unwrap().left_out.notes.is_empty());
    let last = fs::read(folder.join("data_batch_5.bin")).unwrap();
    fs::remove_file(folder.join("data_batch_5.bin")).unwrap();
    let fewer = open(&folder).unwrap();
    assert_eq!((fewer.train.len(), fewer.left_out.notes.len()), (48, 1));
    assert!(
        fewer.left_out.notes[0].starts_with("data_batch_5.bin is missing: "),
        "{:?}",
        fewer.left_out.notes
    );
    fs::write(folder.join("data_batch_5.bin"), last).unwrap();
    fs::remove_file(folder.join("data_batch_3.bin")).unwrap();
    assert!(error(&folder).contains("data_batch_3.bin: this part of CIFAR-10 is missing"));
}

#[test]
fn cifar100_folder() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("train.bin"), cifar(205, 100, true)).unwrap();
    fs::write(dir.path().join("test.bin"), cifar(3, 100, true)).unwrap();
    let list: String = (0..100).map(|class| format!("name{class}\n")).collect();
    fs::write(dir.path().join("fine_label_names.txt"), list).unwrap();
    let source = open(dir.path()).unwrap();
    assert_eq!(source.kind, SourceKind::Cifar100);
    assert_eq!(
        (source.train.len(), source.train.label(107), source.train.classes()[7].as_str()),
        (205, Some(7), "name7")
    );
}

#[test]
fn cifar_cut_short_or_wrong() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("data_batch_1.bin");
    let whole = cifar(3, 10, false);
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    for path in [dir.path(), &file] {
        let error = error(path);
        assert!(error.contains("data_batch_1.bin: cut short") && error.contains("3073"), "{error}");
    }
    fs::write(&file, []).unwrap();
    assert!(error(dir.path()).contains("cut short"));
    let mut wrong = whole;
    wrong[3073] = 10;
    fs::write(&file, wrong).unwrap();
    assert!(error(dir.path()).contains("image 1 has the label 10"));
}

fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
    bytes.extend(data);
    bytes
}

#[test]
fn idx_folder_and_file() {
    let dir = tempdir().unwrap();
    let write = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
    write("train-images-idx3-ubyte", idx(&[3, 2, 4], &(0..24).collect::<Vec<u8>>()));
    write("train-labels-idx1-ubyte", idx(&[3], &[2, 0, 1]));
    write("t10k-images.idx3-ubyte", idx(&[1, 2, 4], &[9; 8]));
    write("t10k-labels.idx1-ubyte", idx(&[1], &[3]));
    let source = open(dir.path()).unwrap();
    assert_eq!(source.kind, SourceKind::Idx);
    assert_eq!(source.train.classes(), ["0", "1", "2", "3"]);
    assert_eq!((source.train.label(0), source.test.unwrap().label(0)), (Some(2), Some(3)));
    let mut scratch = DecodeScratch::default();
    let image = source.train.read(1, &mut scratch).unwrap();
    assert_eq!((image.width, image.height, &image.pixels[..6]), (4, 2, &[8, 8, 8, 9, 9, 9][..]));

    // Grey values go through the window, and large images are shrunk, as with image files.
    let decode = DecodeOptions { window: Window::Values { low: 8, high: 12 }, ..DecodeOptions::default() };
    let mut read = |decode| {
        let mut opener = Opener { decode, ..Opener::default() };
        let train = opener.open(&[dir.path().to_owned()]).unwrap().train;
        let image = train.read(1, &mut scratch).unwrap();
        (image.width, image.height, image.pixels.iter().step_by(3).copied().collect::<Vec<u8>>())
    };
    assert_eq!(read(decode), (4, 2, vec![0, 64, 128, 191, 255, 255, 255, 255]));
    let (width, height, pixels) = read(DecodeOptions { shrink: Some(1), ..DecodeOptions::default() });
    assert_eq!((width, height, pixels.len()), (2, 1, 2));
    assert!(pixels[0] > 8 && pixels[0] < pixels[1] && pixels[1] < 15, "{pixels:?}");

    let single = open(&dir.path().join("train-images-idx3-ubyte")).unwrap();
    assert_eq!((single.train.len(), single.train.classes().len()), (3, 3));

    write("train-labels-idx1-ubyte", idx(&[2], &[2, 0]));
    assert!(error(dir.path()).contains("holds [2] labels for 3 images"));
    write("train-images-idx3-ubyte", idx(&[3, 2, 4], &[0; 23]));
    assert!(error(dir.path()).contains("cut short or damaged: it declares [3, 2, 4]"));
    fs::remove_file(dir.path().join("train-images-idx3-ubyte")).unwrap();
    write("train-images-idx3-ubyte.gz", vec![0x1f, 0x8b]);
    assert!(error(dir.path()).contains("unpack it first"));
}

#[test]
fn hostile_names_are_inert() {
    let dir = tempdir().unwrap();
    picture(&dir.path().join("a.png"), 0);
    fs::rename(dir.path().join("a.png"), dir.path().join("\u{1b}[31m<script>.png")).unwrap();
    let source = open(dir.path()).unwrap();
    assert_eq!(source.train.name(0), "\\u{1b}[31m<script>.png");
}
