//! Networks against torchvision's: names, counts, shapes; and that block memory changes no result.

use simclr_engine::ops::{self, BatchNorm};
use simclr_engine::{Device, Mode, ParameterId, ParameterKind, Parameters, SingleProcess, Tape, Tensor, Var};
use simclr_nn::{
    Depth, Head, HeadSpec, Linear, MaxPool, Memory, PoolPadding, ResNet, ResNetSpec, Stem, Variant,
    load_tensor, store_tensor, stored_shape,
};

fn spec(depth: Depth, width: f64, stem: Stem) -> ResNetSpec {
    ResNetSpec::new(depth, width, stem)
}

fn spec_d(depth: Depth, width: f64, stem: Stem) -> ResNetSpec {
    ResNetSpec { variant: Variant::D, ..spec(depth, width, stem) }
}

fn build(spec: &ResNetSpec) -> (ResNet, Parameters) {
    let mut parameters = Parameters::new();
    let net = ResNet::new(spec, &Device::cpu(1).unwrap(), 0, &mut parameters).unwrap();
    (net, parameters)
}

/// [`build`] without values.
fn outline(spec: &ResNetSpec) -> (ResNet, Parameters) {
    let mut parameters = Parameters::new();
    let net = ResNet::new(spec, &Device::dry().unwrap(), 0, &mut parameters).unwrap();
    (net, parameters)
}

#[test]
fn a_blank_network_is_the_same_but_for_its_values() {
    let device = Device::cpu(1).unwrap();
    let (spec, head) = (spec(Depth::D18, 0.125, Stem::Small), HeadSpec::default());
    let (mut drawn, mut blank) = (Parameters::new(), Parameters::new());
    let net = ResNet::new(&spec, &device, 3, &mut drawn).unwrap();
    Head::new(&head, net.features(), &device, 3, &mut drawn).unwrap();
    let net = ResNet::blank(&spec, &device, &mut blank).unwrap();
    Head::blank(&head, net.features(), &device, &mut blank).unwrap();
    let shapes = |all: &Parameters| -> Vec<(String, Vec<usize>)> {
        all.iter().map(|(name, _, value)| (name.to_owned(), value.shape().to_vec())).collect()
    };
    assert_eq!(shapes(&blank), shapes(&drawn));
    assert!(blank.iter().all(|(.., value)| value.to_vec().unwrap().iter().all(|&value| value == 0.0)));
}

#[test]
fn parameters_are_those_of_torchvision() {
    // (depth, trained values without the classifier, width of h); torchvision has no ResNet-200, this is timm's.
    for (depth, values, features) in [
        (Depth::D18, 11_689_512 - 513_000, 512),
        (Depth::D34, 21_797_672 - 513_000, 512),
        (Depth::D50, 25_557_032 - 2_049_000, 2048),
        (Depth::D101, 44_549_160 - 2_049_000, 2048),
        (Depth::D152, 60_192_808 - 2_049_000, 2048),
        (Depth::D200, 64_673_832 - 2_049_000, 2048),
    ] {
        let (net, parameters) = outline(&spec(depth, 1.0, Stem::ImageNet));
        assert_eq!((parameters.trained_values(), net.features()), (values, features), "{depth:?}");
    }
    // Tensors without num_batches_tracked (one per BatchNorm) and without fc.
    for (depth, tensors) in [
        (Depth::D18, 122 - 20 - 2),
        (Depth::D34, 218 - 36 - 2),
        (Depth::D50, 320 - 53 - 2),
        (Depth::D101, 626 - 104 - 2),
        (Depth::D152, 932 - 155 - 2),
        (Depth::D200, 1220 - 203 - 2),
    ] {
        assert_eq!(outline(&spec(depth, 0.0625, Stem::ImageNet)).1.len(), tensors, "{depth:?}");
    }
}

#[test]
fn names_and_stored_shapes_are_those_of_torchvision() {
    let (_, parameters) = build(&spec(Depth::D50, 1.0, Stem::ImageNet));
    for (name, shape) in [
        ("conv1.weight", &[64, 3, 7, 7][..]),
        ("bn1.running_var", &[64]),
        ("layer1.0.conv1.weight", &[64, 64, 1, 1]),
        ("layer1.0.downsample.0.weight", &[256, 64, 1, 1]),
        ("layer1.0.downsample.1.bias", &[256]),
        ("layer2.0.conv2.weight", &[128, 128, 3, 3]),
        ("layer4.2.bn3.weight", &[2048]),
    ] {
        let id = parameters.find(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(store_tensor(parameters.get(id)).unwrap().0, shape, "{name}");
    }
    let (_, small) = build(&spec(Depth::D18, 0.25, Stem::Small));
    assert_eq!(small.get(small.find("conv1.weight").unwrap()).shape(), [16, 3, 3, 3]);
    assert!(small.find("layer1.0.downsample.0.weight").is_none());
    let everywhere = ResNetSpec { projection_shortcuts: true, ..spec(Depth::D18, 0.25, Stem::Small) };
    assert!(build(&everywhere).1.find("layer1.0.downsample.0.weight").is_some());
}

#[test]
fn padding_of_max_pools() {
    let pool = |side, stride, padding| MaxPool { side, stride, padding };
    assert_eq!(pool(3, 2, PoolPadding::All).padding_of(112), [1, 1]);
    // The padding that TensorFlow's SAME adds.
    for (side, stride, len, expected) in [
        (3, 2, 112, [0, 1]),
        (3, 2, 57, [1, 1]),
        (3, 2, 1, [1, 1]),
        (2, 2, 7, [0, 1]),
        (3, 4, 7, [0, 0]),
        (5, 1, 4, [2, 2]),
    ] {
        assert_eq!(pool(side, stride, PoolPadding::Same).padding_of(len), expected, "{side} {stride} {len}");
    }
}

#[test]
fn names_and_stored_shapes_of_a_resnet_d_are_those_of_timm() {
    let (net, parameters) = outline(&spec_d(Depth::D50, 1.0, Stem::ImageNet));
    // timm 1.0's resnet50d without its classifier.
    assert_eq!((parameters.trained_values(), net.features()), (25_576_264 - 2_049_000, 2048));
    for (name, shape) in [
        ("conv1.0.weight", &[32, 3, 3, 3][..]),
        ("conv1.1.running_mean", &[32]),
        ("conv1.3.weight", &[32, 32, 3, 3]),
        ("conv1.4.bias", &[32]),
        ("conv1.6.weight", &[64, 32, 3, 3]),
        ("bn1.weight", &[64]),
        ("layer1.0.downsample.1.weight", &[256, 64, 1, 1]),
        ("layer1.0.downsample.2.bias", &[256]),
        ("layer2.0.downsample.1.weight", &[512, 256, 1, 1]),
    ] {
        let id = parameters.find(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(stored_shape(parameters.get(id)), shape, "{name}");
    }
    // Small images have the stem of the standard network.
    let (_, small) = build(&spec_d(Depth::D18, 0.25, Stem::Small));
    assert!(small.find("conv1.weight").is_some() && small.find("layer2.0.downsample.2.weight").is_some());
    // The fewest possible channels: half of them is still one.
    let (_, narrow) = build(&spec_d(Depth::D18, 0.015625, Stem::ImageNet));
    assert_eq!(narrow.get(narrow.find("conv1.3.weight").unwrap()).shape(), [1, 3, 3, 1]);
}

fn spec_sk(depth: Depth, width: f64, stem: Stem) -> ResNetSpec {
    ResNetSpec { selective_kernels: Some(0.0625), ..spec_d(depth, width, stem) }
}

/// The network of the official code with `--sk_ratio=0.0625`: the same number of values, without its classifier.
#[test]
fn selective_kernels_are_those_of_simclr_v2() {
    let (net, parameters) = outline(&spec_sk(Depth::D50, 1.0, Stem::ImageNet));
    let gates: usize = [(64, 3), (128, 4), (256, 6), (512, 3)]
        .map(|(c, blocks)| blocks * (9 * c * c + 2 * c + 32 * 3 * c + 2 * 32))
        .iter()
        .sum();
    assert_eq!((parameters.trained_values(), net.features()), (25_576_264 - 2_049_000 + gates, 2048));
    for (name, shape) in [
        ("layer1.0.conv2.weight", &[128, 64, 3, 3][..]),
        ("layer1.0.bn2.weight", &[128]),
        ("layer1.0.attn.fc_reduce.weight", &[32, 64]),
        ("layer1.0.attn.bn.running_mean", &[32]),
        ("layer1.0.attn.fc_select.weight", &[128, 32]),
        ("layer1.0.conv3.weight", &[256, 64, 1, 1]),
        ("layer4.2.attn.fc_reduce.weight", &[32, 512]),
    ] {
        let id = parameters.find(name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(stored_shape(parameters.get(id)), shape, "{name}");
    }
    // At three times the width, the gates of the last stages are wider than the minimum.
    let (_, largest) = outline(&spec_sk(Depth::D152, 3.0, Stem::ImageNet));
    // 795 million, as table 1 of the paper says.
    assert_eq!(largest.trained_values(), 794_704_160);
    let reduce = |name: &str| largest.get(largest.find(name).unwrap()).shape().to_vec();
    assert_eq!(reduce("layer3.35.attn.fc_reduce.weight"), [48, 768]);
    assert_eq!(reduce("layer4.0.attn.fc_reduce.weight"), [96, 1536]);
    assert_eq!(reduce("conv1.0.weight"), [96, 3, 3, 3]);
}

#[test]
fn the_last_gamma_of_each_branch_starts_at_zero() {
    let selective = ResNetSpec { selective_kernels: Some(0.0625), ..spec(Depth::D50, 0.125, Stem::Small) };
    for (spec, last_norm, counts) in [
        // Eight branches of two; one in the stem, and three of shortcuts.
        (spec(Depth::D18, 0.125, Stem::Small), ".bn2.", (8, 8 + 1 + 3)),
        // Sixteen branches of three; one in the stem, and four of shortcuts.
        (spec(Depth::D50, 0.125, Stem::Small), ".bn3.", (16, 32 + 1 + 4)),
        // One more in each branch, within the attention.
        (selective, ".bn3.", (16, 48 + 1 + 4)),
    ] {
        let (_, parameters) = build(&spec);
        let (mut last, mut others) = (0, 0);
        for (name, kind, value) in parameters.iter() {
            if kind == ParameterKind::Norm && name.ends_with(".weight") {
                let is_last = name.contains(last_norm);
                let expected = if is_last { 0.0 } else { 1.0 };
                assert!(value.as_slice().unwrap().iter().all(|&v| v == expected), "{name}");
                *(if is_last { &mut last } else { &mut others }) += 1;
            }
        }
        assert_eq!((last, others), counts, "{spec:?}");
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let device = Device::cpu(1).unwrap();
    for width in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        let error = ResNet::new(&spec(Depth::D18, width, Stem::Small), &device, 0, &mut Parameters::new());
        let message = error.unwrap_err().to_string();
        assert!(message.starts_with("encoder.width") && message.contains("from 0.015625"), "{message}");
    }
    for (depth, ratio, said) in [(Depth::D34, 0.0625, "bottleneck"), (Depth::D50, 1.5, "from 0 to 1")] {
        let spec = ResNetSpec { selective_kernels: Some(ratio), ..spec(depth, 0.125, Stem::Small) };
        let error = ResNet::new(&spec, &device, 0, &mut Parameters::new()).unwrap_err().to_string();
        assert!(error.starts_with("encoder.selective_kernels") && error.contains(said), "{error}");
    }
    let head = HeadSpec { layers: 1, hidden: None, dim: 0, batch_norm: true };
    assert!(Head::new(&head, 16, &device, 0, &mut Parameters::new()).is_err());
}

/// z and the new running averages of every kind of head are those of its layers in a row, found by parameter names.
#[test]
fn a_head_is_its_layers_in_a_row() {
    let device = Device::cpu(1).unwrap();
    for (layers, widths) in [(0, &[16][..]), (1, &[16, 8]), (2, &[16, 12, 8]), (3, &[16, 12, 12, 8])] {
        for batch_norm in [true, false] {
            let mut parameters = Parameters::new();
            let spec = HeadSpec { layers, hidden: Some(12), dim: 8, batch_norm };
            let head = Head::new(&spec, 16, &device, 0, &mut parameters).unwrap();
            // Biases start at zero, which would hide their effect.
            for id in parameters.ids().collect::<Vec<_>>() {
                if parameters.kind(id) == ParameterKind::Bias {
                    let values = parameters.get_mut(id).as_mut_slice().unwrap();
                    values.iter_mut().enumerate().for_each(|(i, value)| *value = (i as f32).cos());
                }
            }
            let h: Vec<f32> = (0..6 * 16).map(|i| (i as f32).sin()).collect();
            let run = |of: &dyn Fn(&mut Tape, &Var) -> Var| {
                let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
                let h = tape.input(Tensor::from_slice(&device, &[6, 16], &h).unwrap());
                let z = of(&mut tape, &h);
                let averages: Vec<_> =
                    tape.into_buffer_updates().iter().map(|(id, t)| (id, t.to_vec().unwrap())).collect();
                (z.tensor().to_vec().unwrap(), averages)
            };
            let composed = run(&|tape, h| {
                let mut z = h.clone();
                for (i, width) in widths.windows(2).enumerate() {
                    let last = i + 2 == widths.len();
                    let find = |name: &str| parameters.find(&format!("head.{i}.{name}"));
                    let weight = find("linear.weight").unwrap();
                    assert_eq!(parameters.get(weight).shape(), [width[1], width[0]], "{spec:?}");
                    let weight = tape.parameter(weight);
                    let bias = find("linear.bias").map(|id| tape.parameter(id));
                    assert_eq!(bias.is_some(), !batch_norm, "{spec:?}");
                    z = ops::linear(tape, &z, &weight, bias.as_ref()).unwrap();
                    if batch_norm {
                        let norm = BatchNorm {
                            gamma: find("bn.weight").unwrap(),
                            beta: find("bn.bias"),
                            running_mean: find("bn.running_mean").unwrap(),
                            running_var: find("bn.running_var").unwrap(),
                            epsilon: 1e-5,
                            decay: 0.9,
                        };
                        assert_eq!(norm.beta.is_none(), last, "{spec:?}");
                        z = ops::batch_norm(tape, &z, &norm, None, false).unwrap();
                    }
                    if !last {
                        z = ops::relu(tape, &z).unwrap();
                    }
                }
                z
            });
            assert_eq!(run(&|tape, h| head.forward(tape, h).unwrap()), composed, "{spec:?}");
        }
    }
}

#[test]
fn block_memory_changes_no_bit() {
    let device = Device::cpu(2).unwrap();
    for spec in [
        spec(Depth::D18, 0.125, Stem::Small),
        spec(Depth::D50, 0.125, Stem::Small),
        spec_d(Depth::D18, 0.125, Stem::ImageNet),
        spec_sk(Depth::D50, 0.125, Stem::Small),
    ] {
        let mut parameters = Parameters::new();
        let net = ResNet::new(&spec, &device, 3, &mut parameters).unwrap();
        let head = Head::new(&HeadSpec::default(), net.features(), &device, 3, &mut parameters).unwrap();
        // A gamma of zero would stop gradients from entering the branches.
        for id in parameters.ids() {
            if parameters.kind(id) == ParameterKind::Norm {
                parameters.get_mut(id).as_mut_slice().unwrap().iter_mut().for_each(|v| *v += 0.5);
            }
        }
        let images: Vec<f32> = (0..6 * 16 * 16 * 3).map(|i| ((i * 7919) % 256) as f32 / 255.0).collect();
        let run = |net: &ResNet| {
            let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
            let x = tape.input(Tensor::from_slice(&device, &[6, 16, 16, 3], &images).unwrap());
            let h = net.forward(&mut tape, &x).unwrap();
            let z = head.forward(&mut tape, &h).unwrap();
            let z = ops::l2_normalize(&mut tape, &z).unwrap();
            let (loss, sums) = ops::nt_xent(&mut tape, &z, 0.5).unwrap();
            let gradients = tape.backward(&loss, Tensor::full(&device, &[1], 1.0).unwrap()).unwrap();
            let gradients: Vec<_> =
                parameters.ids().map(|id| gradients.get(id).map(|g| g.to_vec().unwrap())).collect();
            let averages: Vec<_> =
                tape.into_buffer_updates().iter().map(|(id, t)| (id, t.to_vec().unwrap())).collect();
            (sums.figures().unwrap(), gradients, averages)
        };
        let full = run(&net);
        assert!(full.1.iter().flatten().all(|g| g.iter().all(|v| v.is_finite())));
        assert!(full == run(&net.clone().with_memory(Memory::Blocks)), "{spec:?}");
    }
}

#[test]
fn stored_tensors_come_back() {
    let (_, mut parameters) = build(&spec(Depth::D18, 0.125, Stem::Small));
    for id in parameters.ids() {
        let (shape, values) = store_tensor(parameters.get(id)).unwrap();
        let before = parameters.get(id).to_vec().unwrap();
        parameters.get_mut(id).as_mut_slice().unwrap().fill(0.0);
        load_tensor(&mut parameters, id, &shape, &values).unwrap();
        assert_eq!(parameters.get(id).to_vec().unwrap(), before);
    }
    let id = parameters.find("layer1.0.conv1.weight").unwrap();
    let error = load_tensor(&mut parameters, id, &[8, 8, 1, 1], &[0.0; 64]).unwrap_err().to_string();
    assert!(error.contains("layer1.0.conv1.weight") && error.contains("[8, 8, 3, 3]"), "{error}");
    // (out, in, h, w): the value of input channel 1 at the first tap is the first after the 9 taps of channel 0.
    let weight = parameters.get(id).to_vec().unwrap();
    assert_eq!(store_tensor(parameters.get(id)).unwrap().1[9], weight[1]);
}

#[test]
fn normalised_images_are_what_the_network_sees() {
    let device = Device::cpu(1).unwrap();
    let (mean, deviation) = ([0.5, 0.25, 0.0], [0.5, 0.25, 2.0]);
    for memory in [Memory::Full, Memory::Blocks] {
        let (net, parameters) = build(&spec(Depth::D18, 0.125, Stem::Small));
        let run = |net: &ResNet, images: &[f32]| {
            let mut tape = Tape::new(&parameters, Mode::Eval, &SingleProcess);
            let x = tape.input(Tensor::from_slice(&device, &[2, 8, 8, 3], images).unwrap());
            net.forward(&mut tape, &x).unwrap().tensor().to_vec().unwrap()
        };
        // Powers of two, so that nothing is rounded.
        let images: Vec<f32> = (0..2 * 8 * 8 * 3).map(|i| (i % 16) as f32 / 16.0).collect();
        let normal: Vec<f32> =
            images.iter().enumerate().map(|(i, x)| (x - mean[i % 3]) / deviation[i % 3]).collect();
        let expected = run(&net, &normal);
        let by = ops::Normalization::new(&device, &mean, &deviation).unwrap();
        assert_eq!(run(&net.with_memory(memory).with_normalization(Some(by)), &images), expected);
    }
    assert!(ops::Normalization::new(&device, &mean, &[1.0, 0.0, 1.0]).is_err());
}

/// Two images of 33 x 33 pixels.
fn two_images() -> Tensor {
    let pixels: Vec<f32> = (0..2 * 33 * 33 * 3).map(|i| (i * i % 97) as f32 / 97.0).collect();
    Tensor::from_slice(&Device::cpu(1).unwrap(), &[2, 33, 33, 3], &pixels).unwrap()
}

/// The running averages of a network before and after it saw `images`, kept with this decay.
fn averages(net: &ResNet, parameters: &Parameters, images: &Tensor, decay: f32) -> Vec<Vec<(f32, f32)>> {
    let net = net.clone().with_norm_decay(decay);
    let mut tape = Tape::new(parameters, Mode::Train, &SingleProcess);
    let images = tape.input(images.clone());
    net.forward(&mut tape, &images).unwrap();
    let values = |(id, new): (ParameterId, Tensor)| {
        let old = parameters.get(id).to_vec().unwrap();
        old.into_iter().zip(new.to_vec().unwrap()).collect()
    };
    tape.into_buffer_updates().drain().map(values).collect()
}

/// With decay 1 every running average stays as it is; with decay 0 it becomes the batch's.
#[test]
fn running_averages_keep_what_they_are_told() {
    let images = two_images();
    // Selective kernels have a BatchNorm more in each of the 16 blocks.
    for (spec, norms) in
        [(spec(Depth::D50, 0.0625, Stem::ImageNet), 53), (spec_sk(Depth::D50, 0.0625, Stem::Small), 53 + 16)]
    {
        let (net, parameters) = build(&spec);
        let after = |decay: f32| averages(&net, &parameters, &images, decay);
        let (kept, mixed, batch) = (after(1.0), after(0.9), after(0.0));
        // Each has a mean and a variance.
        assert_eq!([kept.len(), mixed.len(), batch.len()], [2 * norms; 3]);
        assert!(kept.iter().flatten().all(|(old, new)| old == new), "{spec:?}");
        for (i, (mixed, batch)) in mixed.iter().zip(&batch).enumerate() {
            assert!(batch.iter().any(|(old, new)| old != new), "average {i}");
            for ((old, mixed), (_, batch)) in mixed.iter().zip(batch) {
                let want = 0.9 * old + 0.1 * batch;
                assert!((mixed - want).abs() < 1e-5 * (1.0 + want.abs()), "average {i}: {mixed} {want}");
            }
        }
    }
}

/// With decay 0 the first BatchNorm's averages are the statistics of what the first convolution puts out.
#[test]
fn running_averages_are_means_and_variances() {
    let (net, parameters) = build(&spec(Depth::D50, 0.0625, Stem::ImageNet));
    let images = two_images();
    let batch = averages(&net, &parameters, &images, 0.0);
    let mut tape = Tape::new(&parameters, Mode::Eval, &SingleProcess);
    let images = tape.input(images);
    let weight = tape.parameter(parameters.find("conv1.weight").unwrap());
    let conv = ops::Conv2d { stride: 2, padding: 3, channel_sums: false };
    let put_out = ops::conv2d(&mut tape, &images, &weight, conv).unwrap().tensor().to_vec().unwrap();
    let channels = batch[0].len();
    for (channel, ((_, mean), (_, variance))) in batch[0].iter().zip(&batch[1]).enumerate() {
        let values = || put_out.iter().skip(channel).step_by(channels).map(|&value| f64::from(value));
        let count = values().count() as f64;
        let own = values().sum::<f64>() / count;
        let spread = values().map(|value| (value - own).powi(2)).sum::<f64>() / (count - 1.0);
        assert!((f64::from(*mean) - own).abs() < 1e-5, "channel {channel}: {mean} {own}");
        assert!((f64::from(*variance) / spread - 1.0).abs() < 1e-4, "channel {channel}: {variance} {spread}");
    }
}

/// Mean and deviation of a parameter's values.
fn moments(parameters: &Parameters, name: &str) -> (f64, f64) {
    let id = parameters.ids().find(|&id| parameters.name(id) == name).unwrap_or_else(|| panic!("{name}"));
    let values = parameters.get(id).to_vec().unwrap();
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
    let variance =
        values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / values.len() as f64;
    (mean, variance.sqrt())
}

#[test]
fn a_fresh_network_has_the_official_codes_deviations() {
    let device = Device::cpu(1).unwrap();
    let (_, mut parameters) = build(&spec(Depth::D18, 1.0, Stem::ImageNet));
    let head = |batch_norm, dim| HeadSpec { batch_norm, dim, layers: 2, ..HeadSpec::default() };
    Head::new(&head(true, 128), 512, &device, 0, &mut parameters).unwrap();
    // sqrt(1 / (channels in x kernel^2)), and 0.01 for dense layers that a BatchNorm follows.
    for (name, expected) in [
        ("conv1.weight", (1.0 / (3.0 * 49.0_f64)).sqrt()),
        ("layer1.0.conv1.weight", (1.0 / (64.0 * 9.0_f64)).sqrt()),
        ("layer2.0.conv1.weight", (1.0 / (64.0 * 9.0_f64)).sqrt()),
        ("layer2.0.downsample.0.weight", (1.0 / 64.0_f64).sqrt()),
        ("layer4.1.conv2.weight", (1.0 / (512.0 * 9.0_f64)).sqrt()),
        ("head.0.linear.weight", 0.01),
        ("head.1.linear.weight", 0.01),
    ] {
        let (mean, deviation) = moments(&parameters, name);
        assert!((deviation / expected - 1.0).abs() < 0.03, "{name}: {deviation}, {expected}");
        assert!(mean.abs() < 0.05 * expected, "{name}: {mean}");
    }
    for (name, value) in [
        ("bn1.weight", 1.0),
        ("layer1.0.bn1.weight", 1.0),
        ("layer1.0.bn2.weight", 0.0),
        ("layer1.0.bn2.bias", 0.0),
    ] {
        assert_eq!(moments(&parameters, name), (value, 0.0), "{name}");
    }
    let mut plain = Parameters::new();
    Head::new(&head(false, 128), 512, &device, 0, &mut plain).unwrap();
    assert!((moments(&plain, "head.0.linear.weight").1 / (1.0 / 512.0_f64).sqrt() - 1.0).abs() < 0.03);
    assert_eq!(moments(&plain, "head.0.linear.bias"), (0.0, 0.0));
    let mut classifier = Parameters::new();
    Linear::classifier("fc", 512, 100, &device, 0, &mut classifier).unwrap();
    assert!((moments(&classifier, "fc.weight").1 / 0.01 - 1.0).abs() < 0.03);
    assert_eq!(moments(&classifier, "fc.bias"), (0.0, 0.0));
}
