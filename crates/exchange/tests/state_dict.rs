//! Torchvision's names in a safetensors file.

mod common;

use std::fs;

use common::{config, model, trained};
use safetensors::{Dtype, SafeTensors};
use simclr_exchange::{StateDict, has_encoder, write_encoder};
use simclr_train::checkpoint::{Checkpoint, Meta};
use simclr_train::run_folder::RunFolder;

fn written(dict: &StateDict) -> Vec<u8> {
    let mut bytes = Vec::new();
    dict.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn names_shapes_and_values_are_those_of_torchvision() {
    let config = config(&["encoder.width=0.125", "data.image_size=64"]);
    let model = model(&config);
    let dict = StateDict::new(&trained(&model, &config), false).unwrap();
    let bytes = written(&dict);
    assert_eq!(written(&dict), bytes);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // 122 less fc.weight and fc.bias.
    assert_eq!(file.len(), 120);
    assert_eq!(file.tensor("conv1.weight").unwrap().shape(), [8, 3, 7, 7]);
    assert_eq!(file.tensor("layer4.0.downsample.0.weight").unwrap().shape(), [64, 32, 1, 1]);
    let count = file.tensor("layer1.0.bn1.num_batches_tracked").unwrap();
    assert_eq!((count.dtype(), count.shape(), count.data()), (Dtype::I64, &[][..], &7_i64.to_le_bytes()[..]));
    for stored in model.store().unwrap().iter().filter(|tensor| !tensor.name.starts_with("head.")) {
        let tensor = file.tensor(&stored.name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, &stored.shape[..]), "{}", stored.name);
        let values: Vec<u8> = stored.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(tensor.data(), values, "{}", stored.name);
    }
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    assert_eq!((metadata["format"].as_str(), metadata["step"].as_str()), ("pt", "7"));
    assert!(metadata["config"].contains("image_size = 64"));
}

#[test]
fn the_head_comes_along_where_it_is_asked_for() {
    let config = config(&["encoder.width=0.0625", "data.image_size=16", "head.dim=8"]);
    let model = model(&config);
    let trained = trained(&model, &config);
    let bytes = written(&StateDict::new(&trained, true).unwrap());
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("head.1.linear.weight").unwrap().shape(), [8, 32]);
    assert!(file.tensor("head.1.bn.num_batches_tracked").is_ok());
    let head = 32 * 32 + 32 * 2 + 32 * 8 + 8;
    assert_eq!(trained.parameters(true) - trained.parameters(false), head);
}

#[test]
fn the_encoder_of_a_checkpoint_lies_in_the_folder_of_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let config = config(&["encoder.width=0.0625", "data.image_size=16"]);
    let model = model(&config);
    let run = RunFolder::create(&path, &config).unwrap();
    let meta = Meta { config: config.to_toml().unwrap(), step: 7, epoch: 2, ..Meta::default() };
    let checkpoint = Checkpoint { meta, tensors: model.store().unwrap() };
    let saved = run.checkpoints(1).save(&checkpoint).unwrap();
    let file = write_encoder(&run, &saved).unwrap();
    assert_eq!(file, path.join("encoder.safetensors"));
    let expected = StateDict::new(&trained(&model, &config), false).unwrap();
    assert_eq!(fs::read(&file).unwrap(), written(&expected));

    assert!(has_encoder(&run, 7) && !has_encoder(&run, 8));
    let whole = fs::read(&file).unwrap();
    let torn = [&whole[..whole.len() - 1], &[!whole[whole.len() - 1]]].concat();
    for other in [&[][..], &whole[..whole.len() / 2], &torn, b"mine"] {
        fs::write(&file, other).unwrap();
        assert!(!has_encoder(&run, 7));
    }
    fs::remove_file(&file).unwrap();
    assert!(!has_encoder(&run, 7));
    write_encoder(&run, &saved).unwrap();

    // What is there stays where no other can be written.
    fs::write(&saved, "torn").unwrap();
    let error = write_encoder(&run, &saved).unwrap_err().to_string();
    assert!(error.contains("step-00000007"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), written(&expected));
}
