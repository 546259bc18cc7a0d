//! `simclr probe` as a user runs it.

mod common;

use std::fs;

use common::{class_folders, path, picture, pretrain, simclr, small_data};

#[test]
fn what_h_and_z_know_is_told_and_reported() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let command = ["probe", path(&run), path(&data)];
    let few = "warning: the weights of L2 were chosen on 3 validation images: a matter of chance";
    let reply = simclr(&command).expect(0, &["written to", few]);
    for words in [
        "trained on 32 images, tested on 16",
        "  95% of h      z       95% of z",
        "colour or grey                  80.0% ",
        "rotation                        25.0% ",
        "99.3%, 97.4%",
    ] {
        assert!(reply.out.contains(words), "no {words} in {}", reply.out);
    }
    let json = simclr(&[&command[..], &["--json"]].concat()).expect(0, &[]).json();
    let rows = json["rows"].as_array().unwrap();
    assert!(
        rows.len() == 4 && rows.iter().all(|row| row["z"].is_number() && row["z_interval"].is_array()),
        "{json}"
    );
    // Whatever was drawn for these few.
    let chances: Vec<f64> = rows.iter().map(|row| row["chance"].as_f64().unwrap()).collect();
    assert_eq!(chances, [0.8, 0.25, 0.5, 0.5]);
    for row in rows {
        let [h, low, high] =
            [&row["h"], &row["h_interval"][0], &row["h_interval"][1]].map(|it| it.as_f64().unwrap());
        assert!(low < high && low <= h && h <= high, "{row}");
    }
    assert_eq!(simclr(&[&command[..], &["--json"]].concat()).json(), json, "the same each time");
    simclr(&["report", path(&run)]).expect(0, &[]);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("original or Sobel") && page.contains("judged by 16 images of "));
}

#[test]
fn of_grey_images_nothing_is_said_of_colour() {
    let (dir, data) = small_data();
    let (run, grey) = (dir.path().join("run"), dir.path().join("grey"));
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    fs::create_dir(&grey).unwrap();
    for number in 0..40 {
        image::imageops::grayscale(&picture(40, number % 3, number))
            .save(grey.join(format!("{number}.png")))
            .unwrap();
    }
    let told = simclr(&["probe", path(&run), path(&grey), "--json"]).expect(0, &["all images are grey"]);
    let rows = told.json()["rows"].clone();
    assert!(rows.as_array().unwrap().len() == 3 && rows[0]["transformation"] == "rotation", "{rows}");
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
    let reply = simclr(&["probe", path(&run), path(&data), "--json"])
        .expect(0, &["without 1 image that could not be read"]);
    assert!(reply.json()["rows"][0]["z"].is_null(), "a run without a head has no z");
    simclr(&["probe", path(&run), path(&data), "--strict"]).expect(1, &["broken.png"]);
}
