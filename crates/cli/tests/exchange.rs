//! Encoders exported to other programs, and imported from them.

mod common;

use std::fs;
use std::path::Path;

use common::{checkpoints, class_folders, path, pretrain, resume, simclr, small_data};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

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
    let with_head = simclr(&[&words[..], &["--projection"]].concat()).expect(0, &[]).json();
    // Two dense layers, 32 to 32 to 16, and their BatchNorms.
    assert_eq!(with_head["parameters"], encoder + 32 * 32 + 2 * 32 + 32 * 16 + 16);

    let out = dir.path().join("weights.safetensors");
    let words = ["export", path(&run), "--to", "torchvision", "--out", path(&out)];
    simclr(&words).expect(
        0,
        &[
            "warning: encoder.width=0.0625 and encoder.stem=small: neither torchvision nor timm",
            "--to onnx",
            "weights.safetensors",
        ],
    );
    assert_eq!(fs::read(&out).unwrap(), at_the_end);
    simclr(&[&words[..], &["--projection"]].concat()).expect(0, &[]);
    let bytes = fs::read(&out).unwrap();
    assert!(SafeTensors::deserialize(&bytes).unwrap().tensor("head.1.linear.weight").is_ok());
}

/// The best checkpoint has files of its own: a finished run has its newest encoder in the others.
#[test]
fn the_best_encoder_beside_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let (data, run) = (dir.path().join("data"), dir.path().join("run"));
    class_folders(&data, 3, 32);
    let sets = ["data.holdout=8", "train.knn_every=1"];
    simclr(&pretrain(&data, &run, &sets)).expect(0, &[]);
    let newest = fs::read(run.join("encoder.safetensors")).unwrap();
    for (format, file) in [("torchvision", "encoder-best.safetensors"), ("onnx", "encoder-best.onnx")] {
        simclr(&["export", path(&run), "--to", format, "--best"]).expect(0, &[file]);
        assert!(run.join(file).is_file());
    }
    assert!(!run.join("encoder.onnx").exists());
    assert!(fs::read(run.join("encoder.safetensors")).unwrap() == newest);
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
    let newest = checkpoints(&run).pop().unwrap();
    export(&["--to", "torchvision", "--out", path(&newest)]).expect(2, &["among the checkpoints of a run"]);
    // There is no best checkpoint, as no image was held out.
    export(&["--to", "onnx", "--best"])
        .expect(2, &["is the best", "data.holdout", "instead: leave --best out"]);
    export(&["--to", "onnx", "--projection"]).expect(2, &["--projection", "no projection head"]);
    simclr(&["export", path(&data), "--to", "onnx"]).expect(2, &["holds no run"]);
    assert!(!run.join("encoder.onnx").exists());
}

#[test]
fn weights_that_come_back_as_a_run() {
    let (dir, data) = small_data();
    let (run, again) = (dir.path().join("run"), dir.path().join("again"));
    simclr(&pretrain(&data, &run, &[])).expect(0, &[]);
    let file = run.join("encoder.safetensors");
    let words = ["import", path(&file), "--out", path(&again), "--json"];
    let summary = simclr(&words)
        .expect(0, &["resnet18 of width 0.0625 with the stem for small images", "head none"])
        .json();
    assert_eq!((&summary["encoder"], &summary["image_size"]), (&"resnet18".into(), &16.into()));
    simclr(&words).expect(2, &["already holds a run"]);

    let top1 = |run: &Path| {
        let words = ["knn", path(run), "--train", path(&data), "--k", "5", "--no-random", "--json"];
        simclr(&words).expect(0, &[]).json()["top1"].clone()
    };
    assert_eq!(top1(&again), top1(&run));
    let words = ["linear", path(&again), "--train", path(&data), "--json"];
    simclr(&words).expect(0, &["again: resnet18 of width 0.0625, imported from encoder.safetensors, cpu"]);
    simclr(&[&words[..], &["--projection"]].concat()).expect(2, &["--projection: ", "no projection head"]);
    simclr(&["report", path(&again)]).expect(0, &["report.html"]);
    let page = fs::read_to_string(again.join("report.html")).unwrap();
    assert!(page.contains("imported from encoder.safetensors"));
    let exported = again.join("encoder.safetensors");
    simclr(&["export", path(&again), "--to", "torchvision"]).expect(0, &[]);
    let (one, other) = (fs::read(&exported).unwrap(), fs::read(&file).unwrap());
    let tensors = |bytes: &[u8]| {
        let file = SafeTensors::deserialize(bytes).unwrap();
        let mut all: Vec<_> =
            file.tensors().into_iter().map(|(name, tensor)| (name, tensor.data().to_vec())).collect();
        all.sort();
        all
    };
    assert_eq!(tensors(&one), tensors(&other));
    let instead = format!("simclr pretrain DATA --from {} --out NEW", path(&again));
    simclr(&resume(&data, &again))
        .expect(2, &["cannot resume", "imported from encoder.safetensors", &instead]);
    simclr(&["pretrain", "--out", path(&again), "--resume"]).expect(2, &["imported from", &instead]);
    let elsewhere = dir.path().join("elsewhere.safetensors");
    fs::copy(&file, &elsewhere).unwrap();
    let import = format!("simclr import {} --out RUN", path(&elsewhere));
    for (file, advice) in
        [(&elsewhere, import), (&exported, format!("give its run: --from {}", path(&again)))]
    {
        let from_file =
            [&pretrain(&data, &dir.path().join("next"), &[])[..], &["--from".into(), path(file).into()]];
        simclr(&from_file.concat()).expect(2, &["is a file", &advice]);
    }
}

#[test]
fn one_of_two_networks_in_a_file_normalised_as_it_is_told() {
    let (dir, data) = small_data();
    let [run, again, both] = ["run", "again", "both.safetensors"].map(|name| dir.path().join(name));
    simclr(&pretrain(&data, &run, &[])).expect(0, &[]);
    // The first convolution of the second network is zero. Neither network says how images are normalised.
    let bytes = fs::read(run.join("encoder.safetensors")).unwrap();
    let zeros = vec![0; bytes.len()];
    let encoder = SafeTensors::deserialize(&bytes).unwrap();
    let two = encoder.iter().flat_map(|(name, tensor)| {
        let data = if name == "conv1.weight" { &zeros[..tensor.data().len()] } else { tensor.data() };
        let other = TensorView::new(tensor.dtype(), tensor.shape().to_vec(), data).unwrap();
        [(format!("one.{name}"), tensor), (format!("other.{name}"), other)]
    });
    fs::write(&both, safetensors::serialize(two, None).unwrap()).unwrap();

    let words = ["import", path(&both), "--out", path(&again), "--json"];
    simclr(&words).expect(2, &["2 networks", "--prefix", "`one.`, `other.`"]);
    let words = [&words[..], &["--prefix", "other"]].concat();
    simclr(&words).expect(2, &["--normalize imagenet"]);
    assert!(!again.exists());
    let told = ["taken off the names: other.", "for --prefix: \"one.\"", "normalisation imagenet"];
    let summary = simclr(&[&words[..], &["--normalize", "imagenet"]].concat()).expect(0, &told).json();
    assert_eq!((&summary["prefix"], &summary["normalize"]), (&"other.".into(), &"imagenet".into()));
    let saved = fs::read(checkpoints(&again).pop().unwrap()).unwrap();
    let saved = SafeTensors::deserialize(&saved).unwrap();
    let (_, first) =
        saved.iter().find(|(name, _)| name.ends_with("conv1.weight") && !name.contains("layer")).unwrap();
    assert!(first.data().iter().all(|&byte| byte == 0));
}

#[test]
fn imports_that_cannot_be() {
    let (dir, data) = small_data();
    let (run, out) = (dir.path().join("run"), dir.path().join("out"));
    simclr(&pretrain(&data, &run, &[])).expect(0, &[]);
    let import = |file: &Path, words: &[&str]| {
        simclr(&[&["import", path(file), "--out", path(&out)][..], words].concat())
    };
    let encoder = run.join("encoder.safetensors");
    import(&encoder, &["--encoder", "resnet19"]).expect(2, &["resnet18", "resnet200"]);
    import(&encoder, &["--encoder", "resnet34"])
        .expect(2, &["encoder.safetensors", "is a resnet18, not a resnet34"]);
    import(&encoder, &["--normalize", "imagenet"])
        .expect(2, &["encoder.safetensors", "normalised by none, not by imagenet"]);
    import(&encoder, &["--size", "4"]).expect(2, &["--size", "from 8 to 1,024"]);
    import(&checkpoints(&run)[0], &[]).expect(2, &["optimizer.", "checkpoint of simclr"]);
    import(&dir.path().join("nowhere"), &[]).expect(2, &["nowhere: no such file"]);
    import(&run, &[]).expect(2, &[path(&run), "this is a run of simclr, which can be used as it is"]);
    import(&data, &[]).expect(2, &["the folder holds no checkpoint of TensorFlow"]);
    let pickle = dir.path().join("net.pth");
    fs::write(&pickle, "PK\x03\x04").unwrap();
    import(&pickle, &[]).expect(2, &["net.pth", "cannot be read as a file of PyTorch's"]);
    // Our own ONNX file, a protocol buffer; then a file that is none.
    let onnx = dir.path().join("net.ONNX");
    simclr(&["export", path(&run), "--to", "onnx", "--out", path(&dir.path().join("a.onnx"))]).expect(0, &[]);
    fs::rename(dir.path().join("a.onnx"), &onnx).unwrap();
    let told = ["net.ONNX: ONNX, a graph of operators, is not read", "`simclr export RUN --to torchvision`"];
    import(&onnx, &[]).expect(2, &told);
    fs::write(&onnx, "words").unwrap();
    import(&onnx, &[]).expect(2, &told);
    assert!(!out.exists());
    simclr(&["import", path(&encoder), "--out", path(&data)]).expect(2, &["not empty"]);
}
