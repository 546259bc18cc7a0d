//! Files that `torch.save` wrote (`tools/golden/torch_files.py`), and damaged ones.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use common::{config, model, newest, says};
use half::{bf16, f16};
use simclr_exchange::{ImportOptions, Imported};
use simclr_train::config::{Auto, Depth, Normalize, Stem};
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, ZipArchive};

const OPTIONS: ImportOptions = ImportOptions {
    encoder: Some(Depth::D18),
    image_size: None,
    normalize: Some(Normalize::Imagenet),
    prefix: None,
    precision: None,
};

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch").join(file)
}

/// Value `i` of tensor `k`, as the script has it.
fn value(k: usize, name: &str, i: usize) -> f32 {
    let value = ((31 * i + 7 * k) % 97) as f32 / 64.0 - 0.75;
    if name.ends_with(".running_var") { value.abs() } else { value }
}

fn check(file: &str, prefix: &str, left_out: &[&str], round: fn(f32) -> f32) {
    let imported = Imported::read(&golden(file), &OPTIONS).unwrap();
    assert_eq!(imported.prefix, prefix, "{file}");
    assert_eq!(imported.left_out, left_out, "{file}");
    let encoder = &imported.config.encoder;
    assert_eq!(
        (encoder.width, encoder.stem, imported.config.data.image_size),
        (1.0 / 64.0, Auto::Value(Stem::ImageNet), 224)
    );
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    imported.save(&run).unwrap();
    let mut tensors = newest(&run).tensors;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(tensors.len(), 100);
    for (k, tensor) in tensors.iter().enumerate() {
        let expected: Vec<f32> = (0..tensor.data.len()).map(|i| round(value(k, &tensor.name, i))).collect();
        assert_eq!(tensor.data, expected, "{file}: {}", tensor.name);
    }
}

#[test]
fn tensors_come_to_the_bit() {
    check("plain.pth", "", &["fc.bias", "fc.weight"], |value| value);
    check("legacy.pt", "", &[], |value| f16::from_f32(value).to_f32());
    let left_out = ["optimizer_states.0.state.0.momentum_buffer", "state_dict.model.projector.0.weight"];
    let rounded = |value| bf16::from_f32(value).to_f32();
    check("lightning.ckpt", "state_dict.model.backbone.", &left_out, rounded);
}

#[test]
fn damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pth");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Imported::read(&path, &OPTIONS).unwrap_err().to_string()
    };
    for other in [&b"PK\x03\x04and more"[..], b"\x80\x02}q\x00."] {
        says(refused(other), &["net.pth"]);
    }
    for file in ["plain.pth", "legacy.pt", "lightning.ckpt"] {
        let whole = fs::read(golden(file)).unwrap();
        says(refused(&whole[..whole.len() / 2]), &["net.pth"]);
        let mut random = 1u64;
        let mut below = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % limit
        };
        for _ in 0..200 {
            let mut bytes = whole.clone();
            for _ in 0..=below(3) {
                let at = below(bytes.len());
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1][below(6)];
            }
            fs::write(&path, &bytes).unwrap();
            // Whatever comes of it, it comes back.
            let _ = Imported::read(&path, &OPTIONS);
        }
    }
}

#[test]
fn values_that_tensors_share_have_a_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pth");
    let mut bytes = fs::read(golden("plain.pth")).unwrap();
    let mut archive = ZipArchive::new(std::io::Cursor::new(&bytes)).unwrap();
    let checksums: Vec<u32> =
        (0..archive.len()).map(|entry| archive.by_index(entry).unwrap().crc32()).collect();
    let values = archive.by_name("plain/data/0").unwrap();
    let at = values.data_start().unwrap() as usize;
    drop(values);
    drop(archive);
    bytes[at + 2] ^= 0x10;
    fs::write(&path, &bytes).unwrap();
    says(Imported::read(&path, &OPTIONS).unwrap_err().to_string(), &["net.pth", "damaged", "checksum"]);
    // 0 is that of a file that was written without.
    for checksum in checksums.into_iter().map(u32::to_le_bytes) {
        let places: Vec<usize> = (0..bytes.len() - 4).filter(|&at| bytes[at..at + 4] == checksum).collect();
        assert!(!places.is_empty());
        for at in places {
            bytes[at..at + 4].fill(0);
        }
    }
    fs::write(&path, &bytes).unwrap();
    Imported::read(&path, &OPTIONS).unwrap();
}

/// The archive that `plain.pth` is with one more file, of zeros, which is compressed.
fn with_zeros(path: &Path, name: &str, zeros: usize) {
    let mut archive = ZipArchive::new(File::open(golden("plain.pth")).unwrap()).unwrap();
    let mut out = ZipWriter::new(File::create(path).unwrap());
    for number in 0..archive.len() {
        out.raw_copy_file(archive.by_index_raw(number).unwrap()).unwrap();
    }
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    out.start_file(name, options).unwrap();
    out.write_all(&vec![0; zeros]).unwrap();
    out.finish().unwrap();
}

/// The value that tensors repeat, and how they do.
struct Repeated<'a> {
    storage: &'a str,
    value: &'a [u8],
    /// What stands last in the arguments of a tensor.
    metadata: &'a [u8],
}

const ONES: Repeated = Repeated { storage: "FloatStorage", value: &1f32.to_le_bytes(), metadata: b"" };

/// A pickle, as `torch.save` writes it, of tensors that all repeat one value.
fn repeated(path: &Path, tensors: &[(String, Vec<usize>)], what: Repeated) {
    let Repeated { storage, value, metadata } = what;
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let tuple = |sides: &[usize]| {
        let sides = sides.iter().flat_map(|&side| [&b"J"[..], &(side as u32).to_le_bytes()].concat());
        [&b"("[..], &sides.collect::<Vec<_>>(), b"t"].concat()
    };
    let mut pickle = b"\x80\x02}(".to_vec();
    for (name, sides) in tensors {
        pickle.extend([&text(name)[..], b"ctorch._utils\n_rebuild_tensor_v2\n(("].concat());
        let storage = format!("ctorch\n{storage}\n");
        pickle.extend([&text("storage")[..], storage.as_bytes(), &text("0"), &text("cpu")].concat());
        pickle.extend([&b"K\x01tQK\x00"[..], &tuple(sides), &tuple(&vec![0; sides.len()])].concat());
        pickle.extend([b"\x89ccollections\nOrderedDict\n)R", metadata, b"tR"].concat());
    }
    pickle.extend(b"u.");
    let mut out = ZipWriter::new(File::create(path).unwrap());
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in [("net/data.pkl", &pickle[..]), ("net/data/0", value)] {
        out.start_file(name, options).unwrap();
        out.write_all(bytes).unwrap();
    }
    out.finish().unwrap();
}

/// Names and sides of the tensors of a ResNet-18.
fn tensors_of(width: &str) -> Vec<(String, Vec<usize>)> {
    let config = config(&[width, "data.image_size=224", "head.kind=none"]);
    let tensors = model(&config).parameters;
    let sides = |tensor: &simclr_engine::Tensor| simclr_nn::stored_shape(tensor);
    tensors.iter().map(|(name, _, tensor)| (name.to_owned(), sides(tensor))).collect()
}

#[test]
fn values_of_64_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (path, run) = (folder.path().join("net.pth"), folder.path().join("run"));
    let third = Repeated { storage: "DoubleStorage", value: &(1.0 / 3.0_f64).to_le_bytes(), metadata: b"" };
    repeated(&path, &tensors_of("encoder.width=0.015625"), third);
    Imported::read(&path, &OPTIONS).unwrap().save(&run).unwrap();
    for tensor in newest(&run).tensors {
        assert!(tensor.data.iter().all(|&value| value == 1.0 / 3.0), "{}", tensor.name);
    }
}

#[test]
fn signs_that_are_turned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pth");
    // As protocols 2, 4 and 5 have `{"neg": True}`, with and without names to remember things by.
    for metadata in
        [&b"}X\x03\0\0\0neg\x88s"[..], b"}q\x0cX\x03\0\0\0negq\r\x88s", b"}\x94\x8c\x03neg\x94\x88s"]
    {
        repeated(&path, &tensors_of("encoder.width=0.015625"), Repeated { metadata, ..ONES });
        let message = Imported::read(&path, &OPTIONS).unwrap_err().to_string();
        says(message, &["net.pth", "sign is turned", "resolve_neg()"]);
    }
    repeated(&path, &tensors_of("encoder.width=0.015625"), Repeated { metadata: b"}", ..ONES });
    Imported::read(&path, &OPTIONS).unwrap();
}

#[test]
fn files_without_a_state_dict_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pt");
    let archive = |name: &str, bytes: &[u8]| {
        let mut out = ZipWriter::new(File::create(&path).unwrap());
        out.start_file(name, SimpleFileOptions::default()).unwrap();
        out.write_all(bytes).unwrap();
        out.finish().unwrap();
    };
    let says_what_to_do = |words: &[&str]| {
        let message = Imported::read(&path, &OPTIONS).unwrap_err().to_string();
        says(message.clone(), &["net.pt", "save `network.state_dict()` with torch.save"]);
        says(message, words);
    };
    archive("net/models/model.json", b"{}");
    says_what_to_do(&["data.pkl"]);
    archive("net/data.pkl", b"\x80\x02c__torch__\nNet\n)\x81.");
    says_what_to_do(&["__torch__"]);
    fs::write(&path, b"\x80\x04].").unwrap();
    says_what_to_do(&["list"]);
}

#[test]
fn a_small_file_holds_little() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pth");
    let refused = || Imported::read(&path, &OPTIONS).unwrap_err().to_string();
    with_zeros(&path, "other/data.pkl", (4 << 20) + 1);
    says(refused(), &["net.pth", "data.pkl has 4194305 bytes"]);
    with_zeros(&path, "plain/data/1000", 1 << 20);
    says(refused(), &["unpacked", "more than 4 times its length"]);
    with_zeros(&path, "plain/data/1000", 10_000);
    Imported::read(&path, &OPTIONS).unwrap();

    repeated(&path, &tensors_of("encoder.width=0.015625"), ONES);
    Imported::read(&path, &OPTIONS).unwrap();
    repeated(&path, &tensors_of("encoder.width=0.25"), ONES);
    says(refused(), &["tensor `layer", "with the tensors before it more than 4 times"]);
}

#[test]
fn pickles_of_other_protocols() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pt");
    let mut bytes = fs::read(golden("legacy.pt")).unwrap();
    bytes[1] = 4;
    fs::write(&path, &bytes).unwrap();
    Imported::read(&path, &OPTIONS).unwrap();
}
