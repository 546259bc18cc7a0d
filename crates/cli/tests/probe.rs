//! `simclr probe` as a user runs it.

mod common;

use std::fs;

use common::{class_folders, path, pretrain, simclr, small_data};

#[test]
fn what_h_and_z_know_is_told_and_reported() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let command = ["probe", path(&run), path(&data)];
    let reply = simclr(&command).expect(0, &["written to"]);
    for words in ["32 images learnt from, 16 judged by", "colour or grey", "rotation", "99.3 %, 97.4 %"] {
        assert!(reply.out.contains(words), "no {words} in {}", reply.out);
    }
    let json = simclr(&[&command[..], &["--json"]].concat()).expect(0, &[]).json();
    let rows = json["rows"].as_array().unwrap();
    assert!(
        rows.len() == 4 && rows.iter().all(|row| row["z"].is_number() && row["chance"].is_number()),
        "{json}"
    );
    assert_eq!(simclr(&[&command[..], &["--json"]].concat()).json(), json, "the same each time");
    simclr(&["report", path(&run)]).expect(0, &[]);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("original or Sobel"));
}

#[test]
fn too_few_images_and_broken_ones() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1", "head.kind=none"])).expect(0, &[]);
    let few = dir.path().join("few");
    class_folders(&few, 2, 5);
    simclr(&["probe", path(&run), path(&few)]).expect(2, &["10 of the images can be read", "at least 30"]);
    fs::write(data.join("class 0/broken.png"), b"no picture").unwrap();
    let reply =
        simclr(&["probe", path(&run), path(&data), "--json"]).expect(0, &["1 image could not be read"]);
    assert!(reply.json()["rows"][0]["z"].is_null(), "a run without a head has no z");
    simclr(&["probe", path(&run), path(&data), "--strict"]).expect(1, &["broken.png"]);
}
