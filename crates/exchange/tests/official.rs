//! A checkpoint that the official code of SimCLR wrote (`tools/golden/official.py`), and damaged ones.

mod common;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use common::{difference, says};
use serde_json::Value;
use simclr_engine::Device;
use simclr_exchange::{ImportOptions, Imported};
use simclr_train::Model;
use simclr_train::checksum::masked_crc32c;
use simclr_train::config::{Depth, Normalize, PoolPadding, Shortcut};

const SIZE: u32 = 40;
const OPTIONS: ImportOptions =
    ImportOptions { encoder: None, image_size: Some(SIZE), normalize: None, prefix: None, precision: None };
const NAME: &str = "model.ckpt-1234";
const DATA: &str = "model.ckpt-1234.data-00000-of-00001";

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/official").join(file)
}

/// A folder with the checkpoint, its files changed.
fn changed(change: impl Fn(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in [format!("{NAME}.index"), DATA.to_owned()] {
        fs::copy(golden(&file), folder.path().join(file)).unwrap();
    }
    change(folder.path());
    folder
}

fn refused(change: impl Fn(&Path)) -> String {
    let folder = changed(change);
    Imported::read(folder.path(), &OPTIONS).unwrap_err().to_string()
}

/// What is computed with a checkpoint is what TensorFlow computed.
fn agrees(name: &str, left_out: [&str; 2]) {
    let imported = Imported::read(&golden(name), &OPTIONS).unwrap();
    let encoder = &imported.config.encoder;
    assert_eq!(
        (encoder.name, encoder.width, encoder.shortcut, encoder.pool_padding, encoder.normalize),
        (Depth::D18, 1.0 / 64.0, Shortcut::Projection, PoolPadding::Same, Normalize::None)
    );
    assert_eq!(imported.left_out, left_out);

    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    imported.save(&run).unwrap();
    let checkpoint = common::newest(&run);
    assert_eq!(checkpoint.meta.step, 1234);
    let (model, _) = Model::from_checkpoint(&checkpoint, &Device::cpu(1).unwrap()).unwrap();
    let bytes: Vec<u8> = (0..2 * SIZE * SIZE * 3).map(|i| (i * 7919 % 251) as u8).collect();
    let outputs: Value = serde_json::from_slice(&fs::read(golden("outputs.json")).unwrap()).unwrap();
    let (h, z) = model.embed(&bytes).unwrap();
    for (output, got) in [("h", h), ("z", z)] {
        let rows = outputs[name][output].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        let expected: Vec<f32> = rows.map(|value| value.as_f64().unwrap() as f32).collect();
        let difference = difference(&got, &expected);
        assert!(difference < 1e-5, "{output} of {name} differs by {difference}");
    }
}

#[test]
fn outputs_are_those_of_tensorflow() {
    agrees(NAME, ["head_supervised/linear_layer/dense/bias", "head_supervised/linear_layer/dense/kernel"]);
    let dense = "model/supervised_head/linear_layer/dense";
    let [bias, kernel] = ["bias", "kernel"].map(|part| format!("{dense}/{part}/.ATTRIBUTES/VARIABLE_VALUE"));
    agrees("ckpt-1234", [&bias, &kernel]);
}

#[test]
fn every_way_to_name_a_checkpoint() {
    let folder = changed(|folder| {
        for end in ["index", "data-00000-of-00001"] {
            let from = folder.join(format!("{NAME}.{end}"));
            fs::copy(from, folder.join(format!("model.ckpt-7.{end}"))).unwrap();
        }
    });
    let read = |path: &Path| Imported::read(path, &OPTIONS);
    for name in [NAME, "model.ckpt-1234.index", DATA, "model.ckpt-1234.meta"] {
        read(&folder.path().join(name)).unwrap();
    }
    says(
        read(folder.path()).unwrap_err().to_string(),
        &["2 checkpoints", "model.ckpt-1234", "model.ckpt-7", "give one"],
    );
    let newest = folder.path().join("checkpoint");
    fs::write(&newest, "model_checkpoint_path: \"/elsewhere/model.ckpt-7\"\n").unwrap();
    read(folder.path()).unwrap();
    fs::write(&newest, "model_checkpoint_path: \"model.ckpt-9\"\n").unwrap();
    says(read(folder.path()).unwrap_err().to_string(), &["2 checkpoints"]);
    let options = ImportOptions { prefix: Some("base_model".to_owned()), ..OPTIONS };
    says(
        Imported::read(&folder.path().join(NAME), &options).unwrap_err().to_string(),
        &["one network", "prefix", "PyTorch"],
    );
    let inner = folder.path().join("some.data-folder");
    fs::create_dir(&inner).unwrap();
    for file in ["model.ckpt-1234.index", DATA] {
        fs::copy(golden(file), inner.join(file)).unwrap();
    }
    for name in [NAME, DATA, "model.ckpt-1234.meta"] {
        read(&inner.join(name)).unwrap();
    }
    fs::create_dir(folder.path().join("variables")).unwrap();
    fs::rename(folder.path().join(DATA), folder.path().join("variables/variables.data-00000-of-00001"))
        .unwrap();
    fs::rename(folder.path().join("model.ckpt-1234.index"), folder.path().join("variables/variables.index"))
        .unwrap();
    read(folder.path()).unwrap();
}

#[test]
fn damage_is_told() {
    says(refused(|folder| fs::remove_file(folder.join(DATA)).unwrap()), &["cannot read", DATA]);
    let cut = |folder: &Path| {
        let bytes = fs::read(folder.join(DATA)).unwrap();
        fs::write(folder.join(DATA), &bytes[..bytes.len() / 2]).unwrap();
    };
    says(refused(cut), &["tensor `base_model/", "ends beyond", DATA]);
    let turned = |folder: &Path| {
        let mut bytes = fs::read(folder.join(DATA)).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        fs::write(folder.join(DATA), &bytes).unwrap();
    };
    says(refused(turned), &["tensor `base_model/", "damaged", "checksum"]);
    let turned = |folder: &Path| {
        let index = folder.join("model.ckpt-1234.index");
        let mut bytes = fs::read(&index).unwrap();
        bytes[100] ^= 1;
        fs::write(&index, &bytes).unwrap();
    };
    says(refused(turned), &["model.ckpt-1234.index", "block at byte 0 is damaged"]);
}

#[test]
fn what_a_damaged_index_says_is_never_believed() {
    let whole = fs::read(golden("model.ckpt-1234.index")).unwrap();
    let blocks = blocks(&whole);
    let folder = changed(|_| {});
    let index = folder.path().join("model.ckpt-1234.index");
    let mut random = 1u64;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    let mut accepted = 0;
    for _ in 0..1000 {
        let mut bytes = whole.clone();
        for _ in 0..=below(3) {
            // The block of the blocks' places and the footer are at the end.
            let at = if below(3) == 0 { bytes.len() - 1 - below(100) } else { below(bytes.len()) };
            match below(5) {
                0 => bytes[at] ^= 1 << below(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][below(5)],
                2 => bytes[at..].iter_mut().take(10).for_each(|byte| *byte = 0xff),
                3 => bytes[at] = bytes[at].wrapping_add(1),
                _ => bytes.truncate(whole.len() - below(2) * below(60)),
            }
        }
        // Checksums that are right, so that it is read on.
        let length = bytes.len();
        for block in blocks.iter().filter(|block| block.end + 5 <= length) {
            let checksum = masked_crc32c(&bytes[block.start..=block.end]);
            bytes[block.end + 1..block.end + 5].copy_from_slice(&checksum.to_le_bytes());
        }
        fs::write(&index, &bytes).unwrap();
        accepted += usize::from(Imported::read(&index, &OPTIONS).is_ok());
    }
    // Of what an optimiser keeps, or a classifier, nothing is read but the name.
    assert!((1..500).contains(&accepted), "{accepted} were read all the same");
}

#[test]
fn a_graph_of_objects_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let [index, data] =
        ["index", "data-00000-of-00001"].map(|end| folder.path().join(format!("ckpt-1234.{end}")));
    fs::copy(golden("ckpt-1234.index"), &index).unwrap();
    let mut bytes = fs::read(golden("ckpt-1234.data-00000-of-00001")).unwrap();
    let name = b"block_groups";
    let at = bytes.windows(name.len()).position(|found| found == name).unwrap();
    bytes[at] ^= 1;
    fs::write(&data, &bytes).unwrap();
    let message = Imported::read(&index, &OPTIONS).unwrap_err().to_string();
    says(message, &["_CHECKPOINTABLE_OBJECT_GRAPH", "damaged"]);
}

/// Where the contents of a table's blocks are.
fn blocks(table: &[u8]) -> [Range<usize>; 3] {
    let mut footer = table[table.len() - 48..].iter();
    let mut number = || {
        let mut shift = 0;
        let mut value = 0;
        loop {
            let byte = *footer.next().unwrap();
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let (meta, meta_size, index, index_size) = (number(), number(), number(), number());
    [0..meta - 5, meta..meta + meta_size, index..index + index_size]
}
