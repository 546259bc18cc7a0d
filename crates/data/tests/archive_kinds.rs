//! Folders that hold archives of several kinds: which are read, and what is told of the others.

mod common;

use std::fs;
use std::path::Path;

use common::{colors, error, picture, png, tar, zip};
use simclr_data::{Opener, Source, SourceKind, open};
use tempfile::tempdir;

fn golden(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet").join(name)).unwrap()
}

/// A shard of two images of these values.
fn shard(values: [u8; 2]) -> Vec<u8> {
    tar(&values.map(|value| (format!("{value:09}.png"), png(value))))
}

/// What is told of the folder, without its path.
fn notes(source: &Source, folder: &Path) -> Vec<String> {
    let path = format!("{}: ", folder.display());
    source.left_out.notes.iter().map(|note| note.strip_prefix(&path).unwrap().to_owned()).collect()
}

#[test]
fn tables_that_describe_shards_are_not_read_for_images() {
    // As img2dataset writes them; of a shard under way there is no table yet.
    let dir = tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    for (number, values) in [[0, 1], [2, 3], [4, 5]].into_iter().enumerate() {
        write(&format!("0000{number}.tar"), &shard(values));
    }
    for number in 0..2 {
        write(&format!("0000{number}.parquet"), &golden("texts.parquet"));
        write(&format!("0000{number}_stats.json"), b"{}");
    }
    let source = open(dir.path()).unwrap();
    assert_eq!((source.kind, colors(&*source.train)), (SourceKind::Shards, vec![0, 1, 2, 3, 4, 5]));
    let told = "2 Parquet files without images beside the tar shards (the first: 00000.parquet)";
    assert_eq!(notes(&source, dir.path()), [told]);
    assert_eq!((source.left_out.count, source.left_out.files[1].name.as_str()), (2, "00001.parquet"));
    // Other bytes are no images either.
    write("00001.parquet", &golden("noise.parquet"));
    assert_eq!(open(dir.path()).unwrap().train.len(), 6);
    // One that cannot be read tells nothing.
    write("00000.parquet", b"PAR1");
    assert_eq!(open(dir.path()).unwrap().train.len(), 6);
    write("00001.parquet", b"PAR1");
    assert!(error(dir.path()).contains("00000.parquet: not read as a Parquet file"));
    // One with images is read for them.
    write("00001.parquet", &golden("snappy.parquet"));
    assert!(error(dir.path()).contains("00000.parquet: not read as a Parquet file"));
    write("00000.parquet", &golden("snappy.parquet"));
    assert_eq!(open(dir.path()).unwrap().kind, SourceKind::Parquet);
}

#[test]
fn what_is_not_read_beside_archives_or_images_is_told() {
    let dir = tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::create_dir_all(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join(name), bytes).unwrap();
    };
    write("a.tar", &shard([0, 1]));
    assert!(open(dir.path()).unwrap().left_out.notes.is_empty());
    write("deep/b.zip", &zip(&[("c.png".to_owned(), png(2))], true));
    let source = open(dir.path()).unwrap();
    let one = "1 archive is not read beside the tar shards (deep/b.zip); to read it, give its path as well";
    assert_eq!((source.train.len(), notes(&source, dir.path())), (2, vec![one.to_owned()]));
    assert_eq!((source.left_out.count, source.left_out.files[0].name.as_str()), (1, "deep/b.zip"));
    // Tables come first, if they are of images.
    write("c.parquet", &golden("texts.parquet"));
    let bare = "1 Parquet file without images beside the tar shards (c.parquet)";
    assert_eq!(notes(&open(dir.path()).unwrap(), dir.path()), [bare, one]);
    write("c.parquet", &golden("snappy.parquet"));
    let two = "2 archives are not read beside the Parquet files (the first: a.tar); to read them, give their paths as well";
    assert_eq!(notes(&open(dir.path()).unwrap(), dir.path()), [two]);
    // Images come before archives.
    picture(&dir.path().join("deep/1.png"), 9);
    let source = open(dir.path()).unwrap();
    let three = "3 archives are not read beside the images (the first: a.tar); if they hold other images, give their paths as well";
    assert_eq!((colors(&*source.train), notes(&source, dir.path())), (vec![9], vec![three.to_owned()]));
    assert_eq!(source.left_out.count, 3);
    write("c.parquet", &golden("texts.parquet"));
    let told = notes(&open(dir.path()).unwrap(), dir.path());
    let bare = "1 Parquet file without images beside the images (c.parquet)";
    assert!(told.len() == 2 && told[0] == bare && told[1].starts_with("2 archives are not read"), "{told:?}");
}

#[test]
fn an_archive_that_is_also_given_by_itself_is_not_said_to_be_left_out() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("two");
    fs::create_dir_all(folder.join("deep")).unwrap();
    fs::write(folder.join("a.tar"), shard([0, 1])).unwrap();
    fs::write(folder.join("deep/b.zip"), zip(&[("c.png".to_owned(), png(2))], true)).unwrap();
    let given = |paths: &[&str]| {
        let inner = paths.iter().map(|path| folder.join(path));
        let paths: Vec<_> = std::iter::once(folder.clone()).chain(inner).collect();
        let source = Opener::default().open(&paths).unwrap();
        (source.train.len(), source.left_out.count, source.left_out.files.len(), notes(&source, &folder))
    };
    assert_eq!(given(&[]).1, 1);
    assert_eq!(given(&["deep/../deep/b.zip"]), (3, 0, 0, vec![]));
    picture(&folder.join("1.png"), 9);
    let note =
        "1 archive is not read beside the images (a.tar); if it holds other images, give its path as well";
    assert_eq!(given(&["deep/b.zip"]), (2, 1, 1, vec![note.to_owned()]));
    assert_eq!(given(&["deep/b.zip", "a.tar"]), (4, 0, 0, vec![]));
}
