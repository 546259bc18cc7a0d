//! Features in files: each format is read back and compared with what the protocols use.

mod common;

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{RGB, SIDE, Toy, config, models, source};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use safetensors::{Dtype, SafeTensors};
use simclr_data::{Dataset, Reading, Subset};
use simclr_engine::{Device, Tensor};
use simclr_eval::EvalError;
use simclr_eval::embedding::{Embedded, FileFormat, Images, Split, StoredFeatures, Vector, embed};
use simclr_eval::protocols::{TrainedEncoder, WhichCheckpoint};
use simclr_eval::search::{Neighbour, Queries, search, search_stored};
use simclr_train::checkpoint::{Checkpoint, Meta};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Embedding, Model};

/// Reads on one thread and skips broken images.
const READING: Reading = Reading { threads: 1, strict: false };

/// The encoder of a run of 7 steps in `folder`.
fn encoder(folder: &Path, threads: usize) -> TrainedEncoder {
    let path = folder.join("run");
    if !path.exists() {
        let run = RunFolder::create(&path, &config()).unwrap();
        let meta = Meta { step: 7, config: config().to_toml().unwrap(), ..Meta::default() };
        let tensors = models(1).trained.store().unwrap();
        run.checkpoints(1).save(&Checkpoint { tensors, meta }).unwrap();
    }
    TrainedEncoder::load(&path, WhichCheckpoint::Newest, &Device::cpu(threads).unwrap()).unwrap()
}

/// 150 training images, more than a batch, two of them broken, and 20 test images, one of them without a label.
fn images() -> Images {
    let train = Toy { broken: vec![3, 140], ..Toy::new(&RGB, 150, 1) };
    let mut test = Toy::new(&RGB, 20, 2);
    test.labels[5] = None;
    Images::of(&source(train, Some(test)), None).unwrap()
}

fn write(
    encoder: &TrainedEncoder,
    images: &Images,
    vector: Vector,
    path: &Path,
) -> Result<Embedded, EvalError> {
    let out = (path, FileFormat::of(path)?);
    embed(encoder, images, vector, READING, out, &mut |_| ControlFlow::Continue(()))
}

/// The embedding that the protocols use.
fn expected(model: &Model, images: &Images) -> Embedding {
    Embedding::of(model, images.dataset(), true, READING, &mut |_| ()).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The path of a file's companion.
fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}.csv", path.file_name().unwrap().to_str().unwrap()))
}

/// The companion of a file: name, split, label and class of each row.
fn companion(path: &Path) -> Vec<Vec<String>> {
    let mut lines = csv::Reader::from_path(beside(path)).unwrap();
    assert_eq!(lines.headers().unwrap(), vec!["name", "split", "label", "class"]);
    lines.records().map(|line| line.unwrap().iter().map(str::to_owned).collect()).collect()
}

fn check_companion(path: &Path, images: &Images, all: &Embedding) {
    let lines = companion(path);
    assert_eq!(lines.len(), 168);
    for (line, &index) in lines.iter().zip(&all.indices) {
        let (split, number) = if index < 150 { ("train", index) } else { ("test", index - 150) };
        let label = images.dataset().label(index as usize);
        let class = label.map_or("", |label| RGB[label as usize]);
        let label = label.map_or(String::new(), |label| label.to_string());
        assert_eq!(line, &[format!("toy {number}"), split.to_owned(), label, class.to_owned()]);
    }
    assert_eq!(lines[153], ["toy 5", "test", "", ""]);
}

#[test]
fn what_is_not_finite_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut encoder, images, path) = (encoder(folder.path(), 1), images(), folder.path().join("a.npy"));
    let id = encoder.model.parameters.find("layer4.1.bn2.running_var").unwrap();
    let channels = encoder.model.parameters.get(id).len();
    let negative = Tensor::from_vec(&encoder.model.device, &[channels], vec![-1.0; channels]).unwrap();
    encoder.model.parameters.set(id, negative).unwrap();
    let error = write(&encoder, &images, Vector::H, &path).unwrap_err().to_string();
    assert!(error.contains("what the network makes of") && error.contains("toy 0"), "{error}");
    assert_eq!(names(folder.path()), ["run"]);
}

#[test]
fn a_table_in_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let (encoder, images, path) = (encoder(folder.path(), 1), images(), folder.path().join("a.parquet"));
    let embedded = write(&encoder, &images, Vector::H, &path).unwrap();
    assert_eq!((embedded.images, embedded.dim), (168, 64));
    let broken: Vec<String> = embedded.broken.iter().map(ToString::to_string).collect();
    assert_eq!(broken, ["train: toy 3: torn", "train: toy 140: torn"]);
    assert_eq!(names(folder.path()), ["a.parquet", "run"]);

    let all = expected(&encoder.model, &images);
    let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    let file = reader.metadata().file_metadata();
    assert_eq!(file.num_rows(), 168);
    let notes = file.key_value_metadata().unwrap();
    let note = |key: &str| notes.iter().find(|note| note.key == key).unwrap().value.clone().unwrap();
    assert_eq!(
        (note("features"), note("step"), note("classes")),
        ("h".into(), "7".into(), r#"["red","green","blue"]"#.into())
    );
    assert_eq!(note("fingerprint"), format!("{:08x}", encoder.model.fingerprint().unwrap()));
    let rows: Vec<Row> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    let mut values = Vec::new();
    for (row, &index) in rows.iter().zip(&all.indices) {
        let fields: Vec<(&String, &Field)> = row.get_column_iter().collect();
        let (split, number) = if index < 150 { ("train", index) } else { ("test", index - 150) };
        assert_eq!(fields[0], (&"name".to_owned(), &Field::Str(format!("toy {number}"))));
        assert_eq!(fields[1], (&"split".to_owned(), &Field::Str(split.to_owned())));
        let label = images.dataset().label(index as usize);
        let class = label.map_or(Field::Null, |label| Field::Str(RGB[label as usize].to_owned()));
        assert_eq!(fields[2], (&"label".to_owned(), &label.map_or(Field::Null, |l| Field::Long(l.into()))));
        assert_eq!(fields[3], (&"class".to_owned(), &class));
        let (name, Field::ListInternal(list)) = fields[4] else { panic!("{:?}", fields[4]) };
        assert_eq!(name, "features");
        for element in list.elements() {
            let Field::Float(value) = element else { panic!("{element:?}") };
            values.push(*value);
        }
    }
    assert!(values == all.h);
}

#[test]
fn a_matrix_in_npy() {
    let folder = tempfile::tempdir().unwrap();
    let (encoder, images, path) = (encoder(folder.path(), 1), images(), folder.path().join("a.NPY"));
    let embedded = write(&encoder, &images, Vector::Z, &path).unwrap();
    assert_eq!((embedded.images, embedded.dim), (168, 16));
    assert_eq!(names(folder.path()), ["a.NPY", "a.NPY.csv", "run"]);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(start.is_multiple_of(64) && bytes[start - 1] == b'\n');
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert_eq!(header.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (168, 16), }");
    let all = expected(&encoder.model, &images);
    assert!(floats(&bytes[start..]) == all.z);
    check_companion(&path, &images, &all);
}

#[test]
fn tensors_in_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let (encoder, images, path) = (encoder(folder.path(), 1), images(), folder.path().join("a.safetensors"));
    write(&encoder, &images, Vector::H, &path).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let notes = header.metadata().clone().unwrap();
    assert_eq!((notes["classes"].as_str(), notes["features"].as_str()), (r#"["red","green","blue"]"#, "h"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let all = expected(&encoder.model, &images);
    let features = file.tensor("features").unwrap();
    assert_eq!((features.dtype(), features.shape()), (Dtype::F32, &[168, 64][..]));
    assert!(floats(features.data()) == all.h);
    let labels = file.tensor("labels").unwrap();
    assert_eq!((labels.dtype(), labels.shape()), (Dtype::I64, &[168][..]));
    let stored = labels.data().chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap()));
    let label = |&index: &u32| images.dataset().label(index as usize).map_or(-1, i64::from);
    assert!(stored.eq(all.indices.iter().map(label)));
    check_companion(&path, &images, &all);
}

#[test]
fn images_without_labels_or_parts() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = encoder(folder.path(), 1);
    let mut toy = Toy::new(&RGB, 5, 1);
    (toy.classes, toy.labels) = (Vec::new(), vec![None; 5]);
    let images = Images::of(&source(toy, None), None).unwrap();
    for name in ["a.parquet", "a.npy", "a.safetensors"] {
        assert_eq!(write(&encoder, &images, Vector::H, &folder.path().join(name)).unwrap().images, 5);
    }
    assert!(companion(&folder.path().join("a.npy")).iter().all(|line| line[1..] == ["", "", ""]));
    let bytes = fs::read(folder.path().join("a.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.tensor("labels").unwrap().data().iter().all(|&byte| byte == 255));
    let reader = SerializedFileReader::new(File::open(folder.path().join("a.parquet")).unwrap()).unwrap();
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        assert!(row.get_column_iter().skip(1).take(3).all(|(_, field)| *field == Field::Null));
    }
}

#[test]
fn parts_of_a_data_set() {
    let both = || source(Toy::new(&RGB, 9, 1), Some(Toy::new(&RGB[1..], 4, 2)));
    let names = |split| {
        let images = Images::of(&both(), split).unwrap();
        (0..images.dataset().len() as u32).map(|index| images.image(index).place()).collect::<Vec<_>>()
    };
    assert_eq!(names(Some(Split::Test)), ["test: toy 0", "test: toy 1", "test: toy 2", "test: toy 3"]);
    assert_eq!(names(None).len(), 13);
    assert_eq!((&names(None)[8], &names(None)[9]), (&"train: toy 8".to_owned(), &"test: toy 0".to_owned()));
    let fail = |source, split| Images::of(&source, Some(split)).unwrap_err().to_string();
    assert_eq!(
        fail(both(), Split::Unlabelled),
        "there are no unlabelled images apart from others, only train and test; take all of them"
    );
    assert_eq!(
        fail(source(Toy::new(&RGB, 9, 1), None), Split::Train),
        "there are no train images apart from others; take all of them"
    );
    assert!("training".parse::<Split>().unwrap_err().contains("train, test"));
}

#[test]
fn nothing_is_left_behind_and_nothing_lost() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = encoder(folder.path(), 1);
    let error = FileFormat::of(Path::new("a.csv")).unwrap_err().to_string();
    assert_eq!(error, "a.csv: expected a file that ends in .parquet, .npy or .safetensors");
    let torn = Toy { broken: (0..6).collect(), ..Toy::new(&RGB, 6, 1) };
    let torn = Images::of(&source(torn, None), None).unwrap();
    for name in ["a.parquet", "a.npy", "a.safetensors"] {
        let path = folder.path().join(name);
        fs::write(&path, "old").unwrap();
        let error = write(&encoder, &torn, Vector::H, &path).unwrap_err().to_string();
        assert_eq!(error, "none of the 6 given images can be read; the first: toy 0: torn");
        let out = (&path, FileFormat::of(&path).unwrap());
        let stopped =
            embed(&encoder, &images(), Vector::H, READING, (out.0, out.1), &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(EvalError::Stopped)));
        let strict = Reading { strict: true, ..READING };
        embed(&encoder, &images(), Vector::H, strict, (out.0, out.1), &mut |_| ControlFlow::Continue(()))
            .unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        let nowhere = folder.path().join("nowhere").join(name);
        let error = write(&encoder, &images(), Vector::H, &nowhere).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {}", nowhere.display())), "{error}");
    }
    assert_eq!(names(folder.path()), ["a.npy", "a.parquet", "a.safetensors", "run"]);
}

#[test]
fn same_bits_for_any_threads() {
    let folder = tempfile::tempdir().unwrap();
    let files = |threads: usize| -> Vec<Vec<u8>> {
        let encoder = encoder(folder.path(), threads);
        let files = ["a.parquet", "a.npy", "a.npy.csv", "a.safetensors", "a.safetensors.csv"]
            .map(|name| folder.path().join(name));
        for path in files.iter().filter(|path| path.extension().is_some_and(|end| end != "csv")) {
            let out = (path.as_path(), FileFormat::of(path).unwrap());
            let reading = Reading { threads, ..READING };
            embed(&encoder, &images(), Vector::H, reading, out, &mut |_| ControlFlow::Continue(())).unwrap();
        }
        files.iter().map(|path| fs::read(path).unwrap()).collect()
    };
    assert!(files(1) == files(3));
}

/// Saves the images of a toy data set as files.
fn saved(folder: &Path, toy: &Toy) -> Vec<PathBuf> {
    let save = |(number, pixels): (usize, &Vec<u8>)| {
        let path = folder.join(format!("{number}.png"));
        image::RgbImage::from_raw(SIDE as u32, SIDE as u32, pixels.clone()).unwrap().save(&path).unwrap();
        path
    };
    toy.pixels.iter().enumerate().map(save).collect()
}

#[test]
fn a_search_finds_the_image_itself_first() {
    let folder = tempfile::tempdir().unwrap();
    let toy = Toy { broken: vec![2], ..Toy::new(&RGB, 150, 1) };
    let files = saved(folder.path(), &toy);
    let images = Images::of(&source(toy, None), None).unwrap();
    let of_files = |files: Vec<PathBuf>| -> Arc<dyn Dataset> {
        Arc::new(Queries { files, decode: config().data.decode() })
    };
    let queries = of_files(vec![files[140].clone(), files[7].clone()]);
    let find = |threads, k| {
        let encoder = encoder(folder.path(), threads);
        let reading = Reading { threads, ..READING };
        search(&encoder.model, &queries, &images, k, reading, &mut |_| ()).unwrap()
    };
    let found = find(1, 5);
    assert_eq!((found.images, found.broken.len()), (149, 1));
    for (near, own) in found.neighbours.iter().zip([140, 7]) {
        assert_eq!((near.len(), near[0].image), (5, own));
        assert!((near[0].similarity - 1.0).abs() < 1e-5, "{near:?}");
        assert!(near.windows(2).all(|pair| pair[0].similarity >= pair[1].similarity));
        // Classes are colours, which any encoder tells apart.
        assert!(near.iter().all(|Neighbour { image, .. }| image % 3 == own % 3), "{near:?}");
    }
    assert_eq!(find(3, 5), found);
    assert_eq!(find(1, 1000).neighbours[0].len(), 149);

    let encoder = encoder(folder.path(), 1);
    let fail = |file: PathBuf, k| {
        search(&encoder.model, &of_files(vec![file]), &images, k, READING, &mut |_| ())
            .unwrap_err()
            .to_string()
    };
    assert!(fail(folder.path().join("none.png"), 3).contains("none.png"));
    assert!(fail(files[0].clone(), 0).contains("neighbours k"));
    assert!(images.dataset().classes().len() == 3);
    // Images and queries that are not files.
    let toy = Toy { broken: vec![2], ..Toy::new(&RGB, 150, 1) }.shared();
    let of_toy: Arc<dyn Dataset> = Arc::new(Subset::new(toy.clone(), vec![140, 7]));
    let same = search(&encoder.model, &of_toy, &Images::new(toy), 5, READING, &mut |_| ()).unwrap();
    assert_eq!(same, found);
}

#[test]
fn a_search_among_stored_features_finds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let files = saved(folder.path(), &Toy::new(&RGB, 9, 1));
    let (encoder, images) = (encoder(folder.path(), 1), images());
    let queries: Arc<dyn Dataset> =
        Arc::new(Queries { files: files[2..5].to_vec(), decode: config().data.decode() });
    let [h, z, other] = ["h.parquet", "z.parquet", "other.parquet"].map(|name| folder.path().join(name));
    write(&encoder, &images, Vector::H, &h).unwrap();
    let stored = StoredFeatures::open(&h, &encoder.model, 7).unwrap();
    assert_eq!(stored.len(), 168);
    let find = |only| search_stored(&encoder.model, &queries, (&stored, only), 9, READING).unwrap();
    let among_images = search(&encoder.model, &queries, &images, 9, READING, &mut |_| ()).unwrap();
    let found = find(None);
    assert_eq!((found.images, found.broken.len()), (168, 0));
    for (stored_near, near) in found.neighbours.iter().zip(&among_images.neighbours) {
        assert_eq!(stored_near.len(), 9);
        for (row, image) in stored_near.iter().zip(near) {
            assert_eq!(stored.image(row.image), images.image(image.image));
            assert_eq!(row.similarity, image.similarity);
        }
    }
    // One split only: of its 20 images.
    let found = find(Some(Split::Test));
    assert_eq!(found.images, 20);
    assert!(found.neighbours.iter().flatten().all(|row| stored.image(row.image).split == Some(Split::Test)));

    let fail = |path: &Path, model: &Model, step| match StoredFeatures::open(path, model, step) {
        Ok(_) => panic!("{}", path.display()),
        Err(error) => error.to_string(),
    };
    write(&encoder, &images, Vector::Z, &z).unwrap();
    assert!(fail(&z, &encoder.model, 7).contains("holds z"));
    fs::write(&other, "no table").unwrap();
    assert!(fail(&other, &encoder.model, 7).contains("is not a .parquet file"));
    assert!(fail(folder.path(), &encoder.model, 7).contains("is a folder"));
    assert!(fail(&folder.path().join("none"), &encoder.model, 7).contains("no such file"));
    let random = models(1).random.unwrap();
    let error = fail(&h, &random, 9);
    assert!(error.contains("another encoder (step 7) than this one of step 9"), "{error}");
}
