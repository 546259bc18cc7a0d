//! The file format of checkpoints: exact, readable by other programs, and any damage is detected.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use safetensors::SafeTensors;
use simclr_train::TrainError;
use simclr_train::checkpoint::{Best, Checkpoint, Checkpoints, Extra, Meta, NamedTensor};
use simclr_train::file_system::Disk;

fn tensor(name: &str, shape: &[usize], data: Vec<f32>) -> NamedTensor {
    NamedTensor { name: name.into(), shape: shape.to_vec(), data }
}

fn example(step: u64) -> Checkpoint {
    let odd = vec![f32::NAN, -0.0, f32::INFINITY, f32::MIN_POSITIVE / 4.0, 1.0 / 3.0, -1e30];
    let other = serde_json::json!({ "loss_sum": 0.1 + 0.2, "text": "\u{1F980} \"quoted\"" });
    Checkpoint {
        tensors: vec![
            tensor("optimizer.layer1.0.conv1.weight", &[1, 2, 3], odd),
            tensor("bn1.running_mean", &[2], vec![0.5, -0.5]),
            tensor("scalar \"odd\" name \u{1F980}", &[], vec![7.0]),
        ],
        meta: Meta {
            step,
            epoch: 3,
            next: 2560,
            seed: u64::MAX,
            images: 50_000,
            names: Some(0xdead_beef),
            metrics_bytes: 123_456,
            events_bytes: 99,
            best: Best::new(step, "knn", 0.1 + 0.2),
            config: "[train]\nbatch = 2\n".into(),
            extra: Extra {
                epoch_loss: 0.1 + 0.2,
                loss_scale: Some(1024.0),
                worker_places: Some(vec![u64::MAX, 0]),
                other: other.as_object().unwrap().clone(),
                ..Extra::default()
            },
        },
    }
}

fn bits(checkpoint: &Checkpoint) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect();
    checkpoint.tensors.iter().map(|t| (t.name.clone(), t.shape.clone(), bits(&t.data))).collect()
}

fn written(folder: &Path, checkpoint: &Checkpoint) -> (PathBuf, Vec<u8>) {
    let path = folder.join("c.safetensors");
    checkpoint.write(&Disk, &path).unwrap();
    let bytes = fs::read(&path).unwrap();
    (path, bytes)
}

#[test]
fn what_is_written_is_read_to_the_bit_and_written_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = written(folder.path(), &example(5));
    let read = Checkpoint::read(&Disk, &path).unwrap();
    assert_eq!(bits(&read), bits(&example(5)));
    assert_eq!(read.meta, example(5).meta);
    assert_eq!(read.meta.best.as_ref().unwrap().value().to_bits(), (0.1_f64 + 0.2).to_bits());
    assert_eq!(written(folder.path(), &read).1, bytes);
    assert_eq!(read.tensor("bn1.running_mean").unwrap().data, [0.5, -0.5]);
}

#[test]
fn any_safetensors_reader_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_, bytes) = written(folder.path(), &example(5));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 3);
    assert_eq!(file.tensor("optimizer.layer1.0.conv1.weight").unwrap().shape(), [1, 2, 3]);
    assert_eq!(
        file.tensor("bn1.running_mean").unwrap().data(),
        bytemuck::cast_slice::<f32, u8>(&[0.5, -0.5])
    );
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    assert_eq!(header % 8, 0);
}

#[test]
fn every_single_byte_that_changes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = written(folder.path(), &example(5));
    for at in 0..bytes.len() {
        for change in [0x01, 0x20, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            fs::write(&path, &changed).unwrap();
            let error = Checkpoint::read(&Disk, &path).unwrap_err();
            assert!(matches!(error, TrainError::CheckpointDamaged { .. }), "byte {at}: {error}");
            assert!(error.to_string().contains("c.safetensors is damaged: "), "{error}");
        }
    }
}

#[test]
fn every_cut_and_any_addition_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = written(folder.path(), &example(5));
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(Checkpoint::read(&Disk, &path).is_err(), "{length}");
    }
    fs::write(&path, [bytes.as_slice(), b"x"].concat()).unwrap();
    assert!(Checkpoint::read(&Disk, &path).is_err());
}

#[test]
fn lengths_that_lie_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    let (_, bytes) = written(folder.path(), &example(5));
    for length in [0, 1, 35, 1 << 20, 1 << 40, u64::MAX / 2, u64::MAX] {
        let lying = [&length.to_le_bytes(), &bytes[8..]].concat();
        fs::write(&path, lying).unwrap();
        assert!(Checkpoint::read(&Disk, &path).unwrap_err().to_string().contains("damaged"), "{length}");
    }
    for shape in ["[4611686018427387904]", "[18446744073709551615,18446744073709551615]", "[1000000000000]"] {
        let header = format!(
            r#"{{"__metadata__":{{"crc32c":"00000000","simclr":"{{}}"}},"x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4000000000000]}}}}"#
        );
        fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()).unwrap();
        assert!(Checkpoint::read(&Disk, &path).unwrap_err().to_string().contains("damaged"), "{shape}");
    }
}

/// Replaces `from` by `to`, of the same length, in the header of a file, and updates the checksum.
fn reworded(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    let at = bytes.windows(8).position(|w| w == b"\"crc32c\"").unwrap() + 10;
    bytes[at..at + 8].fill(b'0');
    let checksum = format!("{:08x}", crc32c::crc32c(&bytes));
    bytes[at..at + 8].copy_from_slice(checksum.as_bytes());
    bytes
}

#[test]
fn what_came_later_may_be_missing_and_is_not_misread() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = written(folder.path(), &example(5));
    fs::write(&path, reworded(&bytes, r#"\"epoch_loss\":"#, r#"\"older_loss\":"#)).unwrap();
    let extra = Checkpoint::read(&Disk, &path).unwrap().meta.extra;
    assert_eq!((extra.epoch_loss, extra.loss_scale), (0.0, Some(1024.0)));
    for wrong in ["true  ", "\\\"10\\\"", "[1024]"] {
        let wrong = format!(r#"\"loss_scale\":{wrong}"#);
        fs::write(&path, reworded(&bytes, r#"\"loss_scale\":1024.0"#, &wrong)).unwrap();
        let message = Checkpoint::read(&Disk, &path).unwrap_err().to_string();
        assert!(message.contains("is damaged: its record cannot be read"), "{message}");
    }
}

#[test]
fn a_later_format_is_not_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bytes) = written(folder.path(), &example(5));
    let later = reworded(&bytes, r#"{\"format\":1,"#, r#"{\"format\":9,"#);
    fs::write(&path, later).unwrap();
    let message = Checkpoint::read(&Disk, &path).unwrap_err().to_string();
    assert!(message.contains("has format 9") && message.contains("reads formats up to 1"), "{message}");
}

#[test]
fn tensors_that_make_no_sense_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.safetensors");
    for (tensors, problem) in [
        (vec![tensor("a", &[2, 2], vec![0.0; 3])], "`a` has 3 values for the shape [2, 2]"),
        (vec![tensor("a", &[usize::MAX, 2], vec![0.0])], "`a` has 1 values"),
        (vec![tensor("a", &[0], vec![])], "`a` has no values"),
        (vec![tensor("a", &[1], vec![0.0]), tensor("a", &[1], vec![0.0])], "`a` has a name that is taken"),
        (vec![tensor("__metadata__", &[1], vec![0.0])], "has a name that is taken"),
    ] {
        let checkpoint = Checkpoint { tensors, meta: Meta::default() };
        let message = checkpoint.write(&Disk, &path).unwrap_err().to_string();
        assert!(message.contains(problem), "{message}");
        assert!(!path.exists());
    }
    assert_eq!(Best::new(1, "knn", f64::NAN), None);
}

fn store(folder: &Path, keep: usize) -> Checkpoints {
    Checkpoints::new(folder.join("checkpoints"), keep, Arc::new(Disk))
}

fn steps(kept: &Checkpoints) -> Vec<u64> {
    kept.list().unwrap().into_iter().map(|(step, _)| step).collect()
}

#[test]
fn the_last_few_and_the_best_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let kept = store(folder.path(), 2);
    assert!(kept.latest_good().unwrap().is_none() && kept.list().unwrap().is_empty());
    for step in 1..=9 {
        let mut checkpoint = example(step);
        checkpoint.meta.best = Best::new(step.min(4), "knn", 0.5);
        let path = kept.save(&checkpoint).unwrap();
        assert!(path.ends_with(format!("checkpoints/step-0000000{step}.safetensors")));
    }
    assert_eq!(steps(&kept), [4, 8, 9]);
    assert_eq!(kept.best().unwrap().unwrap().checkpoint.meta.step, 4);
    assert_eq!(kept.latest_good().unwrap().unwrap().checkpoint.meta.step, 9);
    fs::write(folder.path().join("checkpoints/notes.txt"), "mine").unwrap();
    fs::write(folder.path().join("checkpoints/step-1.safetensors"), "mine").unwrap();
    fs::write(folder.path().join("checkpoints/step-00000007.safetensors.1-0.tmp"), "left over").unwrap();
    kept.save(&example(10)).unwrap();
    assert_eq!(steps(&kept), [9, 10]);
    assert!(folder.path().join("checkpoints/notes.txt").exists());
    assert!(folder.path().join("checkpoints/step-1.safetensors").exists());
    assert!(!folder.path().join("checkpoints/step-00000007.safetensors.1-0.tmp").exists());
}

#[test]
fn damaged_ones_are_stepped_over_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let kept = store(folder.path(), 3);
    for step in [10, 20, 30] {
        kept.save(&example(step)).unwrap();
    }
    let damage = |step| {
        let mut bytes = fs::read(kept.path(step)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(kept.path(step), bytes).unwrap();
    };
    damage(30);
    let found = kept.latest_good().unwrap().unwrap();
    assert_eq!((found.checkpoint.meta.step, found.skipped.len()), (20, 1));
    let message = kept.load(30).unwrap_err().to_string();
    assert!(message.contains("step-00000030.safetensors is damaged: its checksum"), "{message}");
    assert!(message.contains("step-00000020.safetensors, is intact: go on from that"), "{message}");

    // When the run goes on from step 20, the damaged later checkpoint does not displace good ones.
    kept.save(&example(25)).unwrap();
    assert_eq!(steps(&kept), [10, 20, 25, 30]);
    assert_eq!(kept.latest_good().unwrap().unwrap().checkpoint.meta.step, 25);

    damage(10);
    damage(20);
    damage(25);
    let message = kept.latest_good().unwrap_err().to_string();
    assert!(message.contains("all of the 4 checkpoints") && message.contains("step-00000030"), "{message}");
    // A checkpoint that cannot be read may be intact.
    fs::remove_file(kept.path(20)).unwrap();
    fs::create_dir(kept.path(20)).unwrap();
    let message = kept.latest_good().unwrap_err().to_string();
    assert!(message.starts_with("cannot read ") && message.contains("step-00000020"), "{message}");
}

/// Only the network counts: it is all that is used, while bad values of the optimiser cost only steps.
#[test]
fn a_network_that_is_not_finite_is_stepped_over() {
    let folder = tempfile::tempdir().unwrap();
    let kept = store(folder.path(), 9);
    kept.save(&example(4)).unwrap();
    let mut spoiled = example(5);
    spoiled.tensors[1].data[1] = f32::INFINITY;
    spoiled.meta.best = Best::new(5, "knn", 0.5);
    kept.save(&spoiled).unwrap();
    let found = kept.latest_good().unwrap().unwrap();
    assert_eq!(found.path, kept.path(4));
    let what = "step-00000005.safetensors is damaged: the values of `bn1.running_mean` are not finite";
    assert!(found.skipped[0].to_string().contains(what), "{:?}", found.skipped);
    let message = kept.load(5).unwrap_err().to_string();
    assert!(message.contains(what) && message.contains("step-00000004.safetensors"), "{message}");
    fs::remove_file(kept.path(4)).unwrap();
    let message = kept.latest_good().unwrap_err().to_string();
    assert!(message.contains("must be started anew") && message.contains("not finite"), "{message}");
}

#[test]
fn a_best_that_is_damaged_or_gone_or_was_never_found_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let kept = store(folder.path(), 1);
    let mut first = example(1);
    first.meta.best = None;
    kept.save(&first).unwrap();
    let message = kept.best().unwrap_err().to_string();
    assert!(message.contains("is the best") && message.contains("data.holdout"), "{message}");
    let mut second = example(2);
    second.meta.best = Best::new(1, "knn", 0.5);
    kept.save(&second).unwrap();
    assert_eq!(steps(&kept), [1, 2]);
    fs::write(kept.path(1), "noise").unwrap();
    for wrong in ["step-00000001.safetensors is damaged", "cannot read "] {
        let message = kept.best().unwrap_err().to_string();
        assert!(message.contains(wrong) && message.contains("the newest can be used instead"), "{message}");
        assert!(message.ends_with("step-00000002.safetensors"), "{message}");
        let _ = fs::remove_file(kept.path(1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tensors_come_back(shapes in prop::collection::vec(prop::collection::vec(1_usize..5, 0..4), 0..6), seed in any::<u32>()) {
        let folder = tempfile::tempdir().unwrap();
        let mut next = seed;
        let tensors = shapes.iter().enumerate().map(|(i, shape)| {
            let data = (0..shape.iter().product()).map(|_| {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                f32::from_bits(next)
            });
            tensor(&format!("t{i}"), shape, data.collect())
        });
        let checkpoint = Checkpoint { tensors: tensors.collect(), meta: example(u64::from(seed)).meta };
        let (path, _) = written(folder.path(), &checkpoint);
        let read = Checkpoint::read(&Disk, &path).unwrap();
        prop_assert_eq!(bits(&read), bits(&checkpoint));
        prop_assert_eq!(read.meta, checkpoint.meta);
    }

    #[test]
    fn noise_is_refused_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..400), header in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.safetensors");
        let mut bytes = noise;
        if header && bytes.len() > 8 {
            let length = (bytes.len() as u64 - 8).to_le_bytes();
            bytes[..8].copy_from_slice(&length);
        }
        fs::write(&path, &bytes).unwrap();
        prop_assert!(Checkpoint::read(&Disk, &path).is_err());
    }

    #[test]
    fn a_header_with_noise_in_it_is_refused_without_a_panic(at in 0_usize..600, noise in prop::collection::vec(any::<u8>(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let (path, mut bytes) = written(folder.path(), &example(5));
        let at = at.min(bytes.len() - 1);
        let end = (at + noise.len()).min(bytes.len());
        let before = bytes.clone();
        bytes[at..end].copy_from_slice(&noise[..end - at]);
        prop_assume!(bytes != before);
        fs::write(&path, &bytes).unwrap();
        prop_assert!(Checkpoint::read(&Disk, &path).is_err());
    }
}
