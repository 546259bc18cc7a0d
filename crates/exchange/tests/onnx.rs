//! ONNX files, decoded again and run by plain loops, against the networks that they are of.

mod common;

use common::interpreter::{Array, run};
use common::{config, difference, images, model, says, trained};
use prost::Message;
use safetensors::SafeTensors;
use simclr_exchange::onnx::messages::ModelProto;
use simclr_exchange::{ExchangeError, OnnxFile, StateDict};
use simclr_train::Model;

/// 8-bit images as a graph takes them: (n, 3, S, S), from 0 to 1.
fn input(model: &Model, bytes: &[u8]) -> Array {
    let side = model.image_size();
    let pixels = side * side;
    let values = bytes.chunks_exact(3 * pixels).flat_map(|image| {
        (0..3).flat_map(move |channel| {
            image.iter().skip(channel).step_by(3).map(|&byte| f32::from(byte) / 255.0)
        })
    });
    Array(vec![bytes.len() / (3 * pixels), 3, side, side], values.collect())
}

fn decoded(file: &OnnxFile) -> ModelProto {
    ModelProto::decode(file.bytes()).unwrap()
}

/// What a file computes is what the network computes.
#[track_caller]
fn agrees(sets: &[&str]) {
    let config = config(sets);
    let model = model(&config);
    let file = OnnxFile::new(&trained(&model, &config), true).unwrap();
    let bytes = images(&model, 2);
    let outputs = run(decoded(&file).graph.as_ref().unwrap(), input(&model, &bytes));
    let (h, z) = model.embed(&bytes).unwrap();
    assert_eq!(outputs["h"].0, [2, model.encoder.features()]);
    assert_eq!(outputs["z"].0, [2, model.head.dim()]);
    for (name, expected) in [("h", h), ("z", z)] {
        let difference = difference(&outputs[name].1, &expected);
        assert!(difference < 1e-5, "{sets:?}: {name} differs by {difference}");
    }
}

#[test]
fn networks_of_both_stems_and_shortcuts() {
    agrees(&["encoder.name=resnet18", "encoder.width=0.125", "data.image_size=16"]);
    agrees(&["encoder.name=resnet50", "encoder.width=0.0625", "data.image_size=64"]);
    agrees(&[
        "encoder.name=resnet34",
        "encoder.width=0.0625",
        "data.image_size=15",
        "encoder.shortcut=projection",
    ]);
    for size in ["data.image_size=40", "data.image_size=42"] {
        agrees(&["encoder.width=0.0625", "encoder.pool_padding=same", size]);
    }
}

#[test]
fn variants() {
    for size in ["data.image_size=38", "data.image_size=64", "data.image_size=15"] {
        for name in ["encoder.name=resnet18", "encoder.name=resnet50"] {
            for padding in ["encoder.pool_padding=all", "encoder.pool_padding=same"] {
                agrees(&[name, "encoder.width=0.0625", "encoder.variant=d", padding, size]);
            }
        }
    }
}

#[test]
fn selective_kernels() {
    for sets in [&["data.image_size=15"][..], &["data.image_size=38"], &["encoder.variant=standard"]] {
        let network = ["encoder.name=resnet50", "encoder.width=0.0625", "encoder.selective_kernels=0.0625"];
        agrees(&[&network[..], sets].concat());
    }
}

#[test]
fn images_that_are_normalised() {
    let sets = ["encoder.width=0.0625", "encoder.normalize=imagenet"];
    for size in ["data.image_size=16", "data.image_size=40"] {
        agrees(&[&sets[..], &[size]].concat());
    }
}

#[test]
fn heads_of_all_kinds() {
    for head in [
        &["head.kind=none"][..],
        &["head.kind=linear", "head.dim=8"],
        &["head.kind=linear", "head.dim=8", "head.batch_norm=false"],
        &["head.layers=3", "head.hidden=12", "head.dim=8"],
        &["head.batch_norm=false", "head.dim=8"],
    ] {
        agrees(&[&["encoder.width=0.0625", "data.image_size=8"], head].concat());
    }
}

#[test]
fn what_is_left_to_do_with_images_is_told() {
    let bytes = "the central square of 7/8 of the shorter side, resized to 40 x 40 (bicubic, antialiased); RGB, \
        8-bit values divided by 255";
    let config = config(&["encoder.width=0.0625", "data.image_size=40", "encoder.normalize=imagenet"]);
    let model = model(&config);
    // The graph normalises images, a dictionary of tensors does not.
    let file = decoded(&OnnxFile::new(&trained(&model, &config), false).unwrap());
    let told = file.metadata_props.iter().find(|entry| entry.key == "preprocessing").unwrap();
    assert_eq!(told.value, bytes);
    let mut tensors = Vec::new();
    StateDict::new(&trained(&model, &config), false).unwrap().write(&mut tensors).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&tensors).unwrap();
    let normalized = format!("{bytes}, less [0.485, 0.456, 0.406], divided by [0.229, 0.224, 0.225]");
    assert_eq!(metadata.metadata().as_ref().unwrap()["preprocessing"], normalized);
}

/// Of other stored values or another background, the same image would be another input.
#[test]
fn what_is_done_to_stored_values_is_told() {
    let told = |sets: &[&str]| {
        let config = config(&[&["encoder.width=0.0625", "data.image_size=16"], sets].concat());
        let model = model(&config);
        let file = decoded(&OnnxFile::new(&trained(&model, &config), false).unwrap());
        let graph = file.metadata_props.into_iter().find(|entry| entry.key == "preprocessing").unwrap().value;
        let mut tensors = Vec::new();
        StateDict::new(&trained(&model, &config), false).unwrap().write(&mut tensors).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&tensors).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["preprocessing"], graph);
        graph.split_once("the whole image, resized to 16 x 16").unwrap().0.to_owned()
    };
    assert_eq!(told(&[]), "");
    assert_eq!(
        told(&["data.window=[100, 700]"]),
        "stored values 100 to 700 mapped to 0 to 255 (data.window); "
    );
    assert_eq!(
        told(&["data.window=image", "data.background=[0, 0, 9]"]),
        "the range of each image's stored values, without the darkest and the brightest 0.1%, mapped to 0 to 255 \
         (data.window); transparent pixels laid over RGB [0, 0, 9] (data.background); "
    );
}

#[test]
fn a_file_tells_what_it_is() {
    let config = config(&["encoder.width=0.0625", "data.image_size=16", "head.dim=8"]);
    let model = model(&config);
    let (trained, plain) =
        (trained(&model, &config), OnnxFile::new(&trained(&model, &config), false).unwrap());
    let file = decoded(&plain);
    assert_eq!((file.ir_version, file.opset_import[0].version), (8, 17));
    let fact = |key: &str| &file.metadata_props.iter().find(|entry| entry.key == key).unwrap().value;
    assert_eq!((fact("encoder").as_str(), fact("image_size").as_str()), ("resnet18", "16"));
    assert_eq!((fact("step").as_str(), fact("epoch").as_str()), ("7", "2"));
    let whole =
        "the whole image, resized to 16 x 16 (bicubic, antialiased); RGB, 8-bit values divided by 255";
    assert!(fact("preprocessing") == whole && fact("program").starts_with("simclr "));
    let graph = file.graph.unwrap();
    assert!(graph.node.iter().all(|node| node.op_type != "BatchNormalization" && node.op_type != "Gemm"));
    let sides = |value: &simclr_exchange::onnx::messages::ValueInfoProto| {
        let dims = &value.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap().shape.as_ref().unwrap().dim;
        dims.iter()
            .map(|dim| dim.dim_param.clone().unwrap_or_default() + &dim.dim_value.unwrap_or(0).to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(graph.input.len(), 1);
    assert_eq!(
        (graph.input[0].name.as_str(), sides(&graph.input[0])),
        ("images", ["batch0", "3", "16", "16"].map(String::from).to_vec())
    );
    assert_eq!(graph.output.len(), 1);
    assert_eq!(
        (graph.output[0].name.as_str(), sides(&graph.output[0])),
        ("h", ["batch0", "32"].map(String::from).to_vec())
    );
    // The same bytes each time, and more of them with the head.
    assert_eq!(OnnxFile::new(&trained, false).unwrap().bytes(), plain.bytes());
    assert!(OnnxFile::new(&trained, true).unwrap().bytes().len() > plain.bytes().len());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    plain.save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), plain.bytes());
    says(
        plain.save(folder.path()).unwrap_err().to_string(),
        &["cannot write", &folder.path().display().to_string()],
    );
}

#[test]
fn a_network_that_computes_nothing_is_refused() {
    let config = config(&["encoder.width=0.0625", "data.image_size=16"]);
    let mut model = model(&config);
    let id = model.parameters.find("layer2.0.bn1.running_var").unwrap();
    for (value, expected) in [(f32::NAN, "values that are not finite"), (-0.25, "negative variances")] {
        model.parameters.get_mut(id).as_mut_slice().unwrap()[1] = value;
        match OnnxFile::new(&trained(&model, &config), false).unwrap_err() {
            ExchangeError::Useless { name, what } => {
                assert_eq!((name.as_str(), what), ("layer2.0.bn1.running_var", expected));
            }
            other => panic!("{other}"),
        }
    }
    model.parameters.get_mut(id).as_mut_slice().unwrap()[1] = 1.0;
    for (name, value) in [("layer2.0.conv1.weight", 3e38), ("layer2.0.bn1.weight", 1e38)] {
        let id = model.parameters.find(name).unwrap();
        model.parameters.get_mut(id).as_mut_slice().unwrap().fill(value);
    }
    let message = OnnxFile::new(&trained(&model, &config), false).unwrap_err().to_string();
    says(message, &["`layer2.0.bn1.weight`", "the layer before it infinite"]);
}
