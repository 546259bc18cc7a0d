//! Encoders for other programs, and from them.

mod common;

use std::fs;

use common::{path, pretrain, simclr, small_data};
use safetensors::SafeTensors;

#[test]
fn an_encoder_for_other_programs() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &[])).expect(0, &[]);
    let at_the_end = fs::read(run.join("encoder.safetensors")).unwrap();

    let words = ["export", path(&run), "--to", "onnx", "--json"];
    let summary = simclr(&words).expect(0, &["encoder.onnx", "parameters"]).json();
    let onnx = run.join("encoder.onnx");
    assert_eq!((&summary["file"], &summary["format"]), (&path(&onnx).into(), &"onnx".into()));
    assert_eq!(summary["bytes"], fs::metadata(&onnx).unwrap().len());
    let encoder = summary["parameters"].as_u64().unwrap();
    let with_head = simclr(&[&words[..], &["--projection", "--best"]].concat()).expect(0, &[]).json();
    // Two dense layers, 32 to 32 to 16, and their BatchNorms.
    assert_eq!(with_head["parameters"], encoder + 32 * 32 + 2 * 32 + 32 * 16 + 16);

    let out = dir.path().join("weights.safetensors");
    let words = ["export", path(&run), "--to", "torchvision", "--out", path(&out)];
    simclr(&words).expect(0, &["weights.safetensors"]);
    assert_eq!(fs::read(&out).unwrap(), at_the_end);
    simclr(&[&words[..], &["--projection"]].concat()).expect(0, &[]);
    let bytes = fs::read(&out).unwrap();
    assert!(SafeTensors::deserialize(&bytes).unwrap().tensor("head.1.linear.weight").is_ok());
}

#[test]
fn exports_that_cannot_be() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["head.kind=none"])).expect(0, &[]);
    let export = |words: &[&str]| simclr(&[&["export", path(&run)][..], words].concat());
    export(&[]).expect(2, &["--to <FORMAT>"]);
    export(&["--to", "onxx"]).expect(2, &["torchvision", "onnx"]);
    export(&["--to", "onnx", "--out", "a.pb"]).expect(2, &["--out a.pb", ".onnx"]);
    let nowhere = dir.path().join("nowhere/a.onnx");
    export(&["--to", "onnx", "--out", path(&nowhere)]).expect(2, &["there is no folder"]);
    export(&["--to", "onnx", "--projection"]).expect(2, &["--projection", "no projection head"]);
    simclr(&["export", path(&data), "--to", "onnx"]).expect(2, &["holds no run"]);
    assert!(!run.join("encoder.onnx").exists());
}
