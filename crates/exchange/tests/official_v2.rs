//! A checkpoint as the official code of SimCLR v2 writes it of a ResNet-50 with selective kernels, made here.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use prost::encoding::encode_varint;
use simclr_exchange::{ImportOptions, Imported};
use simclr_train::checksum::masked_crc32c;
use simclr_train::config::{Auto, Depth, PoolPadding, Variant};

/// Channels of the stem and the first stage: a sixteenth of the paper's.
const CHANNELS: usize = 4;
/// What gates squeeze to at least (`min_dim`).
const SQUEEZED: usize = 32;

/// Shapes and values of tensors by their names.
type Variables = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A convolution or a BatchNorm, in the order of the official code: sides of the first, channels of the second.
enum Layer {
    Conv([usize; 4], String),
    Norm(usize, String),
}

/// `Resnet50` of `resnet.py` with `sk_ratio` above 0: what `conv2d_fixed_padding`, `sk_conv2d` and
/// `batch_norm_relu` make, call by call.
fn layers() -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut conv = |side: usize, inputs: usize, outputs: usize, conv: &str, norm: Option<&str>| {
        layers.push(Layer::Conv([side, side, inputs, outputs], conv.to_owned()));
        layers.extend(norm.map(|norm| Layer::Norm(outputs, norm.to_owned())));
    };
    conv(3, 3, CHANNELS / 2, "conv1.0", Some("conv1.1"));
    conv(3, CHANNELS / 2, CHANNELS / 2, "conv1.3", Some("conv1.4"));
    conv(3, CHANNELS / 2, CHANNELS, "conv1.6", Some("bn1"));
    let mut inputs = CHANNELS;
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let filters = CHANNELS << stage;
        for block in 0..blocks {
            let name = |layer: &str| format!("layer{}.{block}.{layer}", stage + 1);
            let mut conv = |side, inputs, outputs, layer: &str, norm: Option<&str>| {
                conv(side, inputs, outputs, &name(layer), norm.map(name).as_deref());
            };
            if block == 0 {
                conv(1, inputs, 4 * filters, "downsample.1", Some("downsample.2"));
            }
            conv(1, inputs, filters, "conv1", Some("bn1"));
            conv(3, filters, 2 * filters, "conv2", Some("bn2"));
            conv(1, filters, SQUEEZED, "attn.fc_reduce", Some("attn.bn"));
            conv(1, SQUEEZED, 2 * filters, "attn.fc_select", None);
            conv(1, filters, 4 * filters, "conv3", Some("bn3"));
            inputs = 4 * filters;
        }
    }
    layers
}

/// The variables of these layers by their names there, and what each is called here. No two hold the same values.
fn variables(layers: &[Layer]) -> (Variables, Vec<[String; 2]>) {
    let (mut variables, mut names) = (BTreeMap::new(), Vec::new());
    let mut add = |theirs: String, ours: String, shape: &[usize]| {
        let first = 31 * names.len();
        let values = (first..first + shape.iter().product::<usize>()).map(|i| (1 + i % 1021) as f32 / 1024.0);
        variables.insert(theirs.clone(), (shape.to_vec(), values.collect()));
        names.push([theirs, ours]);
    };
    let numbered = |kind: &str, number: usize| match number {
        0 => format!("base_model/{kind}"),
        _ => format!("base_model/{kind}_{number}"),
    };
    let (mut convolutions, mut norms) = (0, 0);
    for layer in layers {
        match layer {
            Layer::Conv(sides, name) => {
                let theirs = numbered("conv2d", convolutions);
                add(format!("{theirs}/kernel"), format!("{name}.weight"), sides);
                convolutions += 1;
            }
            Layer::Norm(channels, name) => {
                let theirs = numbered("batch_normalization", norms);
                for (part, ours) in [
                    ("gamma", "weight"),
                    ("beta", "bias"),
                    ("moving_mean", "running_mean"),
                    ("moving_variance", "running_var"),
                ] {
                    add(format!("{theirs}/{part}"), format!("{name}.{ours}"), &[*channels]);
                }
                norms += 1;
            }
        }
    }
    (variables, names)
}

/// Writes variables as TensorFlow does: values one after another, and an index of one block.
fn write(checkpoint: &Path, variables: &Variables) {
    let varint = |number: usize| {
        let mut bytes = Vec::new();
        encode_varint(number as u64, &mut bytes);
        bytes
    };
    // The entries of a block, after one another, each with its key in full.
    let block = |entries: &[(&str, Vec<u8>)]| {
        let mut block = Vec::new();
        for (key, value) in entries {
            block.extend([varint(0), varint(key.len()), varint(value.len())].concat());
            block.extend([key.as_bytes(), value].concat());
        }
        // One place where a key begins, and the type: not compressed.
        block.extend([0_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat());
        let size = block.len();
        block.push(0);
        block.extend(masked_crc32c(&block).to_le_bytes());
        (block, size)
    };
    let (mut values, mut entries) = (Vec::new(), vec![("", vec![1 << 3, 1])]);
    for (name, (shape, numbers)) in variables {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let sides = shape.iter().flat_map(|&side| {
            let side = [vec![1 << 3], varint(side)].concat();
            [vec![2 << 3 | 2], varint(side.len()), side].concat()
        });
        let sides: Vec<u8> = sides.collect();
        let entry = [
            vec![1 << 3, 1],
            [vec![2 << 3 | 2], varint(sides.len()), sides].concat(),
            [vec![4 << 3], varint(values.len()), vec![5 << 3], varint(bytes.len())].concat(),
            [vec![6 << 3 | 5], masked_crc32c(&bytes).to_le_bytes().to_vec()].concat(),
        ];
        entries.push((name, entry.concat()));
        values.extend(bytes);
    }
    let (mut index, size) = block(&entries);
    let places = block(&[("~", [varint(0), varint(size)].concat())]);
    let mut footer = [varint(0), varint(0), varint(index.len()), varint(places.1)].concat();
    footer.resize(40, 0);
    footer.extend(0xdb47_7524_8b80_fb57_u64.to_le_bytes());
    index.extend([places.0, footer].concat());
    fs::write(checkpoint.with_extension("index"), index).unwrap();
    fs::write(checkpoint.with_extension("data-00000-of-00001"), values).unwrap();
}

#[test]
fn every_tensor_of_a_network_with_selective_kernels_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (variables, names) = variables(&layers());
    write(&folder.path().join("model"), &variables);
    let options = ImportOptions { image_size: Some(40), ..ImportOptions::default() };
    let imported = Imported::read(folder.path(), &options).unwrap();
    let encoder = &imported.config.encoder;
    assert_eq!(
        (encoder.name, encoder.width, encoder.selective_kernels, encoder.variant, encoder.pool_padding),
        (Depth::D50, 0.0625, 0.0625, Auto::Value(Variant::D), PoolPadding::Same)
    );
    let run = folder.path().join("run");
    imported.save(&run).unwrap();
    let tensors = common::newest(&run).tensors;
    assert_eq!(tensors.len(), names.len());
    for [theirs, ours] in names {
        let (shape, values) = &variables[&theirs];
        let tensor = tensors.iter().find(|tensor| tensor.name == ours).unwrap_or_else(|| panic!("{ours}"));
        let &[height, width, inputs, outputs] = &shape[..] else {
            assert_eq!((&tensor.shape, &tensor.data), (shape, values), "{ours}");
            continue;
        };
        let torch = [outputs, inputs, height, width];
        let dense = ours.contains(".attn.");
        assert_eq!(tensor.shape, if dense { &torch[..2] } else { &torch }, "{ours}");
        for (at, &value) in tensor.data.iter().enumerate() {
            let (pixel, channels) = (at % (height * width), at / (height * width));
            let (input, output) = (channels % inputs, channels / inputs);
            assert_eq!(value, values[(pixel * inputs + input) * outputs + output], "{ours}");
        }
    }
}
