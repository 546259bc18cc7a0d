//! The commands that measure speed.

mod common;

use common::{path, simclr, small_data};

#[test]
fn a_bench_of_views_in_json() {
    let (_dir, data) = small_data();
    let words = ["bench", "views", path(&data), "--size", "24", "--threads", "2", "--seconds", "1"];
    let figures = simclr(&[&words[..], &["--json"]].concat()).expect(0, &[]).json();
    assert!(figures["images_per_s"].as_f64().unwrap() > 0.0, "{figures}");
    assert_eq!((&figures["size"], &figures["threads"]), (&24.into(), &2.into()));
    assert!(figures["stages_us"]["crop_and_resize"].as_f64().unwrap() > 0.0, "{figures}");
    let text = simclr(&words).expect(0, &[]).out;
    assert!(text.contains("images/s") && text.contains("read and decode"), "{text}");
    let text = simclr(&[&words[..], &["--set", "view.preset=crop-only"]].concat()).expect(0, &[]).out;
    let ends_in_none = |stage: &str| text.lines().any(|line| line.contains(stage) && line.ends_with(" none"));
    assert!(["  colour", "  blur", "  other operators"].iter().all(|stage| ends_in_none(stage)), "{text}");
}

#[test]
fn a_bench_in_json() {
    let words =
        ["bench", "step", "--width", "0.0625", "--size", "16", "--views", "8", "--steps", "2", "--json"];
    let figures =
        simclr(&[&words[..], &["--precision", "f32", "--threads", "1"]].concat()).expect(0, &[]).json();
    assert!(figures["views_per_s"].as_f64().unwrap() > 0.0, "{figures}");
    assert!(figures["peak_bytes"].as_u64().unwrap() > 1 << 20, "{figures}");
    assert_eq!((&figures["threads"], &figures["precision"]), (&1.into(), &"f32".into()));
    assert!(figures["share_of_peak"].as_f64().unwrap() > 0.0, "{figures}");
    let table = figures["table"].as_array().unwrap();
    let share = |row: &serde_json::Value| row["share"].as_f64().unwrap();
    assert!((table.iter().map(share).sum::<f64>() - 1.0).abs() < 1e-6, "{figures}");
    for operator in ["conv2d", "batch_norm", "linear", "nt_xent", "optimizer", "everything else"] {
        assert!(table.iter().any(|row| row["operator"] == operator), "{operator}: {figures}");
    }
    let text = simclr(&[&words[..10], &["--isa", "portable", "--shapes"]].concat()).expect(0, &[]).out;
    assert!(text.contains("portable") && text.contains("3x3 /2 16x16, 4 to 8"), "{text}");
    assert!(text.contains(", f32, "), "bf16 is faster with other instructions alone: {text}");
    let blocks = simclr(&[&words[..], &["--memory", "blocks"]].concat()).expect(0, &[]).json();
    assert!(blocks["tensor_bytes"].as_u64() < figures["tensor_bytes"].as_u64(), "{blocks}");
}

#[test]
fn a_bench_of_fed_steps() {
    let (_dir, data) = small_data();
    let words = ["bench", "step", "--width", "0.0625", "--size", "16", "--views", "16", "--steps", "2"];
    let network = [
        "--encoder",
        "resnet50",
        "--variant",
        "d",
        "--selective-kernels",
        "0.0625",
        "--deterministic",
        "false",
    ];
    let fed = ["--data", path(&data), "--views-on", "cpu", "--threads", "1"];
    let words = [&words[..], &network, &fed].concat();
    let figures = simclr(&[&words[..], &["--quick", "--json"]].concat()).expect(0, &[]).json();
    assert_eq!((&figures["variant"], &figures["deterministic"]), (&"d".into(), &false.into()));
    assert_eq!((&figures["selective_kernels"], &figures["table"]), (&0.0625.into(), &serde_json::json!([])));
    let fed = &figures["fed"];
    assert_eq!((&fed["images"], &fed["kept_bytes"], &fed["views_s"]), (&48.into(), &0.into(), &().into()));
    let [fast, alone] = [&fed["views_per_s"], &figures["views_per_s"]].map(|value| value.as_f64().unwrap());
    assert!((fed["share_of_step"].as_f64().unwrap() - fast / alone).abs() < 1e-9 && fast > 0.0, "{figures}");
    assert!(fed["waited_s_per_step"].as_f64().unwrap() >= 0.0, "{figures}");
    let text = simclr(&words).expect(0, &[]).out;
    for words in
        ["resnet50 d width 0.0625, selective kernels 0.0625, 16 x 16", "fed with 48 images", "conv2d"]
    {
        assert!(text.contains(words), "no {words} in {text}");
    }
    let nowhere = [&words[..4], &["--data", "nowhere"]].concat();
    simclr(&nowhere).expect(2, &["nowhere", "no such file or folder"]);
}

#[test]
fn a_bench_of_encoding() {
    let words = ["bench", "encode", "--width", "0.0625", "--size", "40", "--batches", "2"];
    let figures = simclr(&[&words[..], &["--json", "--images", "3", "--threads", "1"]].concat());
    let figures = figures.expect(0, &[]).json();
    let [rate, seconds] = ["images_per_s", "seconds_per_batch"].map(|key| figures[key].as_f64().unwrap());
    assert!((rate * seconds / 3.0 - 1.0).abs() < 1e-9, "{figures}");
    assert_eq!(
        (&figures["images"], &figures["size"], &figures["threads"]),
        (&3.into(), &40.into(), &1.into())
    );
    let table = figures["table"].as_array().unwrap();
    assert!(table.iter().all(|row| row["operator"] != "nt_xent"), "{figures}");
    assert!(table.iter().any(|row| row["operator"] == "conv2d_norm"), "{figures}");
    // As many images as evaluations take, unless it is said.
    let text = simclr(&[&words[..], &["--isa", "portable", "--shapes"]].concat()).expect(0, &[]).out;
    assert!(text.contains("resnet18 width 0.0625, 40 x 40, 128 images, f32"), "{text}");
    assert!(text.contains("7x7 /2 40x40, 3 to 4"), "{text}");
    let quick = simclr(&[&words[..], &["--quick"]].concat()).expect(0, &[]).out;
    assert!(quick.contains("images/s") && !quick.contains("conv2d_norm"), "{quick}");
    simclr(&[&words[..], &["--images", "0"]].concat()).expect(2, &["--images", "from 1 to 65,536"]);
    simclr(&["bench", "encode", "--encoder", "resnet19"]).expect(2, &["--encoder is \"resnet19\""]);
}
