//! Weights written and read again, and files that are none.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{config, images, model, newest, says, trained};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use simclr_engine::Device;
use simclr_exchange::{FineTunedFile, ImportOptions, Imported, StateDict};
use simclr_train::checkpoint::NamedTensor;
use simclr_train::config::{Depth, Normalize, Precision};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Model};

/// A tensor of a file that is made here.
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// A network in a file, and the changes that make it another.
struct File {
    folder: tempfile::TempDir,
    entries: Vec<Entry>,
}

impl File {
    /// A network of the configuration that differs from the default in `sets`, as another program writes it:
    /// nothing beside it.
    fn of(sets: &[&str]) -> File {
        let config = config(sets);
        let mut bytes = Vec::new();
        let model = model(&config);
        StateDict::new(&trained(&model, &config), true).unwrap().write(&mut bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let entries = file.tensors().into_iter().map(|(name, tensor)| Entry {
            name,
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            bytes: tensor.data().to_vec(),
        });
        File { folder: tempfile::tempdir().unwrap(), entries: entries.collect() }
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        self.entries.iter_mut().find(|entry| entry.name == name).unwrap()
    }

    fn add(&mut self, name: &str) {
        let bytes = vec![0; 12];
        self.entries.push(Entry { name: name.to_owned(), dtype: Dtype::F32, shape: vec![3], bytes });
    }

    fn write(&self) -> PathBuf {
        let views = self.entries.iter().map(|entry| {
            (entry.name.as_str(), TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes).unwrap())
        });
        let path = self.folder.path().join("weights.safetensors");
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        path
    }

    fn read(&self, options: &ImportOptions) -> Imported {
        Imported::read(&self.write(), options).unwrap()
    }

    /// What is said of the file.
    fn refused(&self, options: &ImportOptions) -> String {
        Imported::read(&self.write(), options).unwrap_err().to_string()
    }
}

const PLAIN: ImportOptions = ImportOptions {
    encoder: None,
    image_size: None,
    normalize: Some(Normalize::None),
    prefix: None,
    precision: None,
};

const TINY: [&str; 3] = ["encoder.width=0.0625", "data.image_size=16", "head.kind=none"];

fn load(run: &Path) -> (Model, Config) {
    Model::from_checkpoint(&newest(run), &Device::cpu(1).unwrap()).unwrap()
}

#[test]
fn what_was_written_comes_back_to_the_bit() {
    for (sets, with_head) in [
        (&["encoder.width=0.0625", "data.image_size=24", "head.layers=3", "head.dim=8"][..], true),
        (&["encoder.width=0.0625", "encoder.shortcut=projection", "loss.temperature=0.25"], false),
        (&["encoder.name=resnet50", "encoder.width=0.0625", "data.image_size=40", "head.kind=linear"], true),
        (&["encoder.width=0.0625", "head.batch_norm=false", "encoder.normalize=imagenet"], true),
        (&["encoder.width=0.0625", "encoder.variant=d", "encoder.shortcut=projection"], false),
        (&["encoder.name=resnet50", "encoder.width=0.0625", "encoder.variant=d", "data.image_size=40"], true),
        (&["encoder.name=resnet50", "encoder.width=0.0625", "encoder.selective_kernels=0.0625"], true),
        // Wide enough for gates that tell the share.
        (
            &[
                "encoder.name=resnet50",
                "encoder.width=0.25",
                "encoder.selective_kernels=0.5",
                "data.image_size=40",
            ],
            false,
        ),
    ] {
        let config = config(sets);
        let model = model(&config);
        let dict = StateDict::new(&trained(&model, &config), with_head).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (file, run) = (folder.path().join("a.safetensors"), folder.path().join("run"));
        dict.save(&file).unwrap();
        let imported = Imported::read(&file, &ImportOptions::default()).unwrap();
        let in_memory = imported.model(&Device::cpu(1).unwrap()).unwrap();
        imported.save(&run).unwrap();
        assert_eq!(imported.parameters(), trained(&model, &config).parameters(with_head));

        let (again, config_again) = load(&run);
        let bytes = images(&model, 2);
        let ((h, z), (h_again, z_again)) = (model.embed(&bytes).unwrap(), again.embed(&bytes).unwrap());
        assert_eq!(h, h_again, "{sets:?}");
        assert_eq!(in_memory.embed(&bytes).unwrap(), (h_again, z_again.clone()), "{sets:?}");
        if with_head {
            assert_eq!(z, z_again, "{sets:?}");
        }
        assert_eq!(config_again.encoder, config.encoder);
        assert_eq!((config_again.loss, config_again.data), (config.loss, config.data));
        let (folder, _) = RunFolder::open(&run).unwrap();
        assert_eq!(folder.imported(), Some("a.safetensors"));
        let meta = newest(&run).meta;
        assert_eq!((meta.step, meta.epoch), (7, 2));
        assert!(imported.save(&run).unwrap_err().to_string().contains("already holds a run"));
    }
}

#[test]
fn files_of_other_programs() {
    let mut file = File::of(&[
        "encoder.name=resnet34",
        "encoder.width=0.0625",
        "head.kind=none",
        "encoder.normalize=imagenet",
    ]);
    file.add("fc.weight");
    file.add("fc.bias");
    assert!(file.refused(&ImportOptions::default()).contains("`imagenet`"));
    let options = ImportOptions { normalize: Some(Normalize::Imagenet), ..PLAIN };
    let imported = file.read(&options);
    assert_eq!(imported.left_out, ["fc.bias", "fc.weight"]);
    let Config { data, encoder, train, .. } = &imported.config;
    assert_eq!((encoder.name, encoder.width, encoder.normalize), (Depth::D34, 0.0625, Normalize::Imagenet));
    assert_eq!((data.image_size, train.precision), (224, Precision::F32));
    assert_eq!(File::of(&TINY).read(&PLAIN).config.data.image_size, 32);
    let options = ImportOptions { image_size: Some(40), precision: Some(Precision::Bf16), ..options };
    let config = file.read(&options).config;
    assert_eq!((config.data.image_size, config.train.precision), (40, Precision::Bf16));
}

#[test]
fn networks_that_are_parts_of_others() {
    let mut file = File::of(&TINY);
    let plain = file.read(&PLAIN);
    assert_eq!(plain.prefix, "");
    file.entries.iter_mut().for_each(|entry| entry.name.insert_str(0, "module.encoder_q."));
    file.add("module.encoder_q.fc.weight");
    file.add("module.projector.0.weight");
    let imported = file.read(&PLAIN);
    assert_eq!((imported.prefix.as_str(), imported.parameters()), ("module.encoder_q.", plain.parameters()));
    assert_eq!(imported.left_out, ["module.encoder_q.fc.weight", "module.projector.0.weight"]);

    let of_q = file.entries.iter().filter(|entry| entry.name.contains("encoder_q"));
    let other: Vec<Entry> = of_q
        .map(|Entry { name, dtype, shape, bytes }| Entry {
            name: name.replace("encoder_q", "encoder_k"),
            dtype: *dtype,
            shape: shape.clone(),
            bytes: bytes.clone(),
        })
        .collect();
    file.entries.extend(other);
    says(file.refused(&PLAIN), &["2 networks", "`module.encoder_k.`, `module.encoder_q.`"]);
    for prefix in ["module.encoder_k", "module.encoder_k."] {
        let options = ImportOptions { prefix: Some(prefix.to_owned()), ..PLAIN };
        assert_eq!(file.read(&options).prefix, "module.encoder_k.");
    }
    let options = ImportOptions { prefix: Some("encoder".to_owned()), ..PLAIN };
    says(file.refused(&options), &["no ResNet", "`encoder`", "`module.encoder_k.`"]);

    // A network by itself with another beside it, which begins with what it does.
    file.entries.retain(|entry| !entry.name.contains("projector"));
    for entry in &mut file.entries {
        entry.name = entry.name.replace("module.encoder_q.", "").replace("module.encoder_k.", "teacher.");
    }
    let imported = file.read(&PLAIN);
    assert_eq!((imported.prefix.as_str(), imported.parameters()), ("", plain.parameters()));
    assert_eq!(imported.other_prefixes, ["teacher."]);
    says(file.refused(&options), &["no ResNet", "`encoder`", "\"\" (nothing), `teacher.`"]);
}

#[test]
fn networks_that_are_lists_of_layers() {
    for (first_stage, prefix) in [(4, ""), (3, "backbone."), (2, "module.f.")] {
        let mut file = File::of(&TINY);
        let plain = file.read(&PLAIN).parameters();
        for entry in &mut file.entries {
            let (layer, rest) = entry.name.split_once('.').unwrap();
            let number = match layer {
                "conv1" => 0,
                "bn1" => 1,
                stage => first_stage - 1 + stage.strip_prefix("layer").unwrap().parse::<usize>().unwrap(),
            };
            entry.name = format!("{prefix}{number}.{rest}");
        }
        file.add("projector.0.weight");
        let imported = file.read(&PLAIN);
        assert_eq!((imported.prefix.as_str(), imported.parameters()), (prefix, plain));
        assert_eq!(imported.left_out, ["projector.0.weight"]);
    }
}

#[test]
fn values_of_other_types() {
    let stored = |dtype: Dtype, values: &[f32]| -> Vec<u8> {
        let values = values.iter();
        match dtype {
            Dtype::F64 => values.flat_map(|&value| f64::from(value).to_le_bytes()).collect(),
            Dtype::F16 => values.flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            _ => values.flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
        }
    };
    for dtype in [Dtype::F64, Dtype::F16, Dtype::BF16] {
        let mut file = File::of(&TINY);
        let mut expected = Vec::new();
        for entry in file.entries.iter_mut().filter(|entry| entry.dtype == Dtype::F32) {
            let values = entry.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
            (entry.dtype, entry.bytes) = (dtype, stored(dtype, &values.collect::<Vec<_>>()));
            expected.push((entry.name.clone(), entry.bytes.clone()));
        }
        let run = file.folder.path().join("run");
        file.read(&PLAIN).save(&run).unwrap();
        let (model, _) = load(&run);
        for (name, bytes) in expected {
            let id = model.parameters.find(&name).unwrap();
            let (_, values) = simclr_nn::store_tensor(model.parameters.get(id)).unwrap();
            assert_eq!(stored(dtype, &values), bytes, "{name}");
        }
    }
}

#[test]
fn networks_that_are_none() {
    let changed = |change: &dyn Fn(&mut File)| {
        let mut file = File::of(&TINY);
        change(&mut file);
        file.refused(&PLAIN)
    };
    let name = "layer2.1.conv2.weight";
    says(
        changed(&|f| f.entries.retain(|entry| entry.name != name)),
        &["weights.safetensors", name, "missing", "[8, 8, 3, 3]", "resnet18 of width 0.0625"],
    );
    says(
        changed(&|f| f.entry(name).shape = vec![8, 8, 9, 1]),
        &[name, "is [8, 8, 9, 1], expected [8, 8, 3, 3]"],
    );
    says(changed(&|f| f.add("layer2.1.se.weight")), &["`layer2.1.se.weight` is no part of a resnet18"]);
    says(
        changed(&|f| ["a", "b", "c"].into_iter().for_each(|name| f.add(name))),
        &["`a` and 2 more are no part"],
    );
    says(changed(&|f| f.add("optimizer.conv1.weight")), &["optimizer.conv1.weight", "checkpoint of simclr"]);
    says(changed(&|f| f.entry("bn1.weight").bytes[2..4].fill(0xff)), &["bn1.weight", "not finite"]);
    let negative = |f: &mut File| f.entry("layer2.0.bn1.running_var").bytes[7] |= 0x80;
    says(changed(&negative), &["layer2.0.bn1.running_var", "negative variances"]);
    says(
        changed(&|f| f.entry("conv1.weight").shape = vec![4, 27, 1, 1]),
        &["not a ResNet", "[4, 27, 1, 1]", "[channels, 3, 7, 7]"],
    );
    says(
        changed(&|f| f.entry("conv1.weight").name = "first".to_owned()),
        &["not a ResNet", "no tensor `conv1.weight`", "`bn1.bias`, `bn1.num_batches_tracked`"],
    );
    let more = |f: &mut File| {
        f.entry("layer1.1.conv1.weight").name = "layer1.2.conv1.weight".to_owned();
    };
    says(changed(&more), &["[1, 2, 2, 2] blocks of two convolutions", "resnet18", "resnet200"]);
    let wide = |f: &mut File| {
        let entry = f.entry("bn1.bias");
        (entry.dtype, entry.shape) = (Dtype::F64, vec![2]);
    };
    says(changed(&wide), &["bn1.bias", "is [2], expected [4]"]);
    let integers = |f: &mut File| f.entry("bn1.bias").dtype = Dtype::I32;
    says(changed(&integers), &["bn1.bias", "I32", "F64, F32, F16 or BF16"]);
    let options = ImportOptions { encoder: Some(Depth::D50), ..PLAIN };
    says(File::of(&TINY).refused(&options), &["is a resnet18, not a resnet50"]);
    let options = ImportOptions { image_size: Some(4), ..PLAIN };
    says(File::of(&TINY).refused(&options), &["data.image_size", "4"]);
}

#[test]
fn heads_that_almost_fit() {
    let changed = |head: [&str; 2], name: &str, shape: [usize; 2]| {
        let mut file = File::of(&[TINY[0], TINY[1], head[0], head[1]]);
        let entry = file.entry(name);
        entry.bytes.truncate(shape.iter().product::<usize>() * size_of::<f32>());
        entry.shape = shape.to_vec();
        file.refused(&PLAIN)
    };
    let linear = changed(["head.kind=linear", "head.dim=8"], "head.0.linear.weight", [8, 31]);
    says(linear, &["is [8, 31], expected [8, 32] as in a head of one layer after 32 features"]);
    let two = changed(["head.layers=2", "head.hidden=16"], "head.0.linear.weight", [16, 31]);
    says(two, &["is [16, 31], expected [16, 32] as in a head of 2 layers after 32 features"]);
    let three = changed(["head.layers=3", "head.hidden=24"], "head.1.linear.weight", [16, 24]);
    says(three, &["is [16, 24], expected [24, 24] as in a head of 3 layers", "all as wide as the first, 24"]);
    let none = changed(["head.kind=linear", "head.dim=8"], "head.0.linear.weight", [1 << 63, 0]);
    says(none, &["weights.safetensors", "head is [9223372036854775808, 0], expected [outputs, inputs]"]);
    let mut file = File::of(&[TINY[0], TINY[1], "head.layers=2"]);
    file.add("head.0.norm.weight");
    says(file.refused(&PLAIN), &["`head.0.norm.weight` is no part of a head of 2 layers"]);
}

#[test]
fn steps_and_epochs_that_cannot_be() {
    let config = config(&TINY);
    let model = model(&config);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let read = |name: &str, value: &str| {
        let dict = StateDict::new(&trained(&model, &config), false).unwrap();
        dict.with_fact(name, value.to_owned()).save(&path).unwrap();
        Imported::read(&path, &PLAIN)
    };
    for (name, value) in
        [("step", "18446744073709551615"), ("step", "-1"), ("epoch", "9007199254740993"), ("epoch", "two")]
    {
        let message = read(name, value).unwrap_err().to_string();
        says(message, &["net.safetensors", &format!("`{name}` is \"{value}\""), "0 to 9007199254740992"]);
    }
    let run = folder.path().join("run");
    read("step", "9007199254740992").unwrap().save(&run).unwrap();
    assert_eq!(newest(&run).meta.step, 1 << 53);
}

#[test]
fn a_changed_file_is_noticed() {
    let config = config(&TINY);
    let model = model(&config);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let mut tensors = model.store().unwrap();
    for (name, shape) in [("fc.weight", vec![2, 32]), ("fc.bias", vec![2])] {
        let data = vec![0.5; shape.iter().product()];
        tensors.push(NamedTensor { name: name.to_owned(), shape, data });
    }
    let dict = StateDict::of(&trained(&model, &config), tensors).unwrap();
    let mut whole = Vec::new();
    dict.with_fact("classes", r#"["cat", "dog"]"#.to_owned()).write(&mut whole).unwrap();
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let options = ImportOptions::default();
        (Imported::read(&path, &options).map(drop), FineTunedFile::read(&path).map(drop))
    };
    let fits = |bytes: &[u8]| matches!(read(bytes), (Ok(()), Ok(())));
    let refused = |bytes: &[u8]| {
        for result in <[_; 2]>::from(read(bytes)) {
            says(result.unwrap_err().to_string(), &["net.safetensors", "damaged", "match its checksum"]);
        }
    };
    assert!(fits(&whole));
    let (header, metadata) = SafeTensors::read_metadata(&whole).unwrap();
    let place = |text: &str| whole.windows(text.len()).position(|bytes| bytes == text.as_bytes()).unwrap();
    let inside = (8 + header..whole.len()).step_by(1 + whole.len() / 40);
    for at in inside.chain([whole.len() - 1, place("cat"), place("temperature = ") + 16]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        refused(&damaged);
    }

    // As another program writes it again: in another order, with the metadata or others.
    let mut metadata = metadata.metadata().clone().unwrap();
    let file = SafeTensors::deserialize(&whole).unwrap();
    let again = |metadata: &HashMap<String, String>, first: f32| {
        let mut tensors = file.tensors();
        let bias = [first, 0.5].map(f32::to_le_bytes).concat();
        tensors.retain(|(name, _)| name != "fc.bias");
        tensors.push(("fc.bias".to_owned(), TensorView::new(Dtype::F32, vec![2], &bias).unwrap()));
        safetensors::serialize(tensors, Some(metadata.clone())).unwrap()
    };
    assert!(fits(&again(&metadata, 0.5)));
    refused(&again(&metadata, 0.25));
    metadata.remove("checksum").unwrap();
    assert!(fits(&again(&metadata, 0.25)));
    // What others mean by that name is theirs.
    let other = HashMap::from([("checksum".to_owned(), "none".to_owned())]);
    fs::write(&path, again(&other, 0.5)).unwrap();
    assert!(Imported::read(&path, &PLAIN).is_ok());
}

#[test]
fn a_header_may_begin_as_a_pickle() {
    let file = File::of(&TINY);
    let path = file.write();
    let bytes = fs::read(&path).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let length = u64::from_le_bytes(*length) as usize;
    // Spaces behind the header until its length is 80 02 in hexadecimal, and some zeros.
    let longer = (1..).map(|i| 0x280 + (i << 16)).find(|&longer| longer >= length).unwrap();
    let spaces = vec![b' '; longer - length];
    let start = (longer as u64).to_le_bytes();
    fs::write(&path, [&start[..], &rest[..length], &spaces, &rest[length..]].concat()).unwrap();
    assert_eq!(Imported::read(&path, &PLAIN).unwrap().parameters(), file.read(&PLAIN).parameters());
}

#[test]
fn files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.bin");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Imported::read(&path, &PLAIN).unwrap_err().to_string()
    };
    for other in [&b""[..], b"short", b"\x89PNG\r\n\x1a\n{and more", &[255; 64]] {
        says(refused(other), &["net.bin", "no weights", "begins like none of these"]);
    }
    let whole = fs::read(File::of(&TINY).write()).unwrap();
    for end in [whole.len() - 4, whole.len() / 2, 100] {
        says(refused(&whole[..end]), &["net.bin", "safetensors file is damaged or cut short"]);
    }
    says(refused(&[&whole[..], &[0; 4]].concat()), &["net.bin", "safetensors file is damaged or cut short"]);
    says(Imported::read(folder.path(), &PLAIN).unwrap_err().to_string(), &["no checkpoint of TensorFlow"]);
    let missing = folder.path().join("missing");
    says(
        Imported::read(&missing, &PLAIN).unwrap_err().to_string(),
        &["missing", "no such file; give a file of weights"],
    );
}
