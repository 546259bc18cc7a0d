//! What the measuring commands tell of a result, beside the figures, and what becomes of it.

mod common;

use std::fs;

use common::{path, pretrain, simclr, small_data};

/// A folder that takes nothing, be it read-only or full, is no reason to lose what was measured.
#[test]
fn a_result_that_cannot_be_written_is_told() {
    let (dir, data) = small_data();
    let (run, out) = (dir.path().join("run"), dir.path().join("tuned"));
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    // Where the folder of results would be; permissions would not keep everybody out.
    fs::write(run.join("evaluation"), "").unwrap();
    let measure = |command: &str, more: &[&str]| {
        let words = [command, path(&run), "--train", path(&data), "--no-random", "--json"];
        simclr(&[&words[..], more].concat()).expect(1, &["error: cannot ", "evaluation"]).json()
    };
    assert!(measure("knn", &[])["top1"].is_f64());
    assert!(measure("linear", &[])["top1"].is_f64());
    assert!(measure("finetune", &["--epochs", "1", "--out", path(&out)])["top1"].is_f64());
    assert!(out.join("finetune-10%.safetensors").is_file());
    let probe = simclr(&["probe", path(&run), path(&data), "--json"]).expect(1, &["evaluation"]);
    assert_eq!(probe.json()["rows"].as_array().unwrap().len(), 4);
}
