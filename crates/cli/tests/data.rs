//! `simclr data` as a user runs it.

mod common;

use std::fs;
use std::path::Path;

use common::{class_folders, command, path, picture, pretrain, simclr, small_data};
use image::{ImageBuffer, Luma, Rgb, Rgba};
use serde_json::json;

#[test]
fn data_tells_what_is_there() {
    let (dir, data) = small_data();
    fs::copy(data.join("class 0/3.png"), data.join("class 2/again.png")).unwrap();
    fs::write(data.join("class 1/broken.jpg"), "no image").unwrap();
    let sheet = dir.path().join("samples.png");
    let reply = simclr(&["data", path(&data), "--out", path(&sheet), "--json"])
        .expect(0, &["50 images", "3 classes"]);
    let found = reply.json();
    assert_eq!(
        (&found["images"], &found["readable"], &found["formats"]["PNG"]),
        (&json!(50), &json!(49), &json!(49))
    );
    assert_eq!(found["classes"][2], json!({ "name": "class 2", "images": 17 }));
    assert_eq!(found["broken"][0]["name"], "class 1/broken.jpg");
    assert_eq!(found["duplicates"], json!([["class 0/3.png", "class 2/again.png"]]));
    let label = |name: &str, class: &str| json!({ "name": name, "class": class });
    let both = [label("class 0/3.png", "class 0"), label("class 2/again.png", "class 2")];
    assert_eq!(found["mislabelled"], json!([both]));
    assert_eq!(found["width"]["median"], 20);
    assert_eq!(image::open(&sheet).unwrap().height(), 12 + 3 * (128 + 4 + 16 + 12));

    let reply = simclr(&["data", path(&data)]).expect(0, &[]);
    assert!(reply.out.contains("broken       1\n"), "{}", reply.out);
    // Unlabelled images have a row of their own on the sheet; broken images take up none.
    let album = dir.path().join("album");
    fs::create_dir(&album).unwrap();
    fs::copy(data.join("class 0/3.png"), album.join("a.png")).unwrap();
    simclr(&["data", path(&data), path(&album), "--out", path(&sheet)]).expect(0, &[]);
    assert_eq!(image::open(&sheet).unwrap().height(), 12 + 4 * (128 + 4 + 16 + 12));
    (0..20).for_each(|number| fs::write(album.join(format!("b{number}.jpg")), "no image").unwrap());
    simclr(&["data", path(&album), "--out", path(&sheet)]).expect(0, &[]);
    assert_eq!(image::open(&sheet).unwrap().height(), 12 + (128 + 4 + 16 + 12));
    for strict in [&["--strict"][..], &["--set", "data.strict=true"]] {
        simclr(&[&["data", path(&data)], strict].concat()).expect(1, &["class 1/broken.jpg: not an image"]);
    }
    simclr(&["data", path(&data), "--set", "train.batch=8"]).expect(2, &["--set train.batch=8", "[data]"]);
}

#[test]
fn parts_and_classes_are_counted_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (data, sheet) = (dir.path().join("data"), dir.path().join("samples.png"));
    class_folders(&data.join("train"), 8, 2);
    class_folders(&data.join("test"), 8, 2);
    // The font lacks these letters.
    for part in ["train", "test"] {
        fs::rename(data.join(part).join("class 0"), data.join(part).join("雛菊")).unwrap();
    }
    let reply = simclr(&["data", path(&data), "--out", path(&sheet)])
        .expect(0, &["16 images to train on, 16 to test on", "samples.png, 6 of 8 classes"]);
    for words in [
        "images       32: 16 to train on, 16 to test on\n",
        "classes      8; the counts include test images",
        "4 雛菊",
    ] {
        assert!(reply.out.contains(words), "no {words} in {}", reply.out);
    }
    assert_eq!(simclr(&["data", path(&data), "--json"]).json()["train_images"], 16);
}

#[test]
fn captions_that_are_not_the_names_of_classes_are_explained() {
    let (dir, data) = small_data();
    fs::rename(data.join("class 0"), data.join("猫")).unwrap();
    fs::rename(data.join("class 1"), data.join("Löwenzahn 🌼")).unwrap();
    fs::rename(data.join("class 2"), data.join("daisy")).unwrap();
    let sheet = dir.path().join("samples.png");
    let words = ["data", path(&data), "--out", path(&sheet)];
    let told = simclr(&words).expect(0, &["  Löwenzahn ? is Löwenzahn 🌼\n  class 2 is 猫\n"]).err;
    assert_eq!(told.matches(" is ").count(), 2, "{told}");
}

#[test]
fn colour_images_of_16_bits_have_a_range() {
    let dir = tempfile::tempdir().unwrap();
    let pixel = |x: u32| Rgb([x as u16 * 90, 900, 30]);
    for number in 0..2 {
        let picture = ImageBuffer::from_fn(20, 20 + number, |x, _| pixel(x));
        picture.save(dir.path().join(format!("{number}.png"))).unwrap();
    }
    let told = simclr(&["data", path(dir.path())]).expect(0, &[]).out;
    assert!(told.contains("2 images of only 0 to 7 out of 255: set data.window"), "{told}");
    let told = simclr(&["data", path(dir.path()), "--set", "data.window=image"]).expect(0, &[]).out;
    assert!(told.contains("2 images of 0 to 255 out of 255"), "{told}");
}

#[test]
fn a_window_beyond_what_grey_images_of_8_bits_store() {
    let (dir, data) = small_data();
    for number in 0..16 {
        image::GrayImage::from_fn(20, 20, |x, y| Luma([(x * 12 + y + number) as u8]))
            .save(data.join(format!("class 0/{number}.png")))
            .unwrap();
    }
    let told = |window: &str| simclr(&["data", path(&data), "--set", window]).expect(0, &[]).out;
    let hint = "8 bits, grey 16 images of only 0 to 16 out of 255: data.window=[0, 4095] lies beyond the 255";
    assert!(told("data.window=[0,4095]").contains(hint), "{}", told("data.window=[0,4095]"));
    for window in ["full", "image", "[0,255]"] {
        assert!(!told(&format!("data.window={window}")).contains("8 bits"), "{window}");
    }
    let out = dir.path().join("views.png");
    simclr(&["views", path(&data), "--out", path(&out), "--set", "data.window=[0,4095]"])
        .expect(0, &["8 bits, grey (of 16 looked at): ", "lies beyond the 255"]);
    // Of few levels, in a window of many.
    let (_dir, data) = small_data();
    for number in 0..16 {
        let levels: Vec<u8> = (0..400).map(|at| (at * 7 / 3 + number) as u8 % 16).collect();
        fs::write(data.join(format!("class 0/{number}.pgm")), [&b"P5 20 20 15\n"[..], &levels].concat())
            .unwrap();
    }
    let told = |window: &str| simclr(&["data", path(&data), "--set", window]).expect(0, &[]).out;
    let hint = "8 bits, grey 16 images of only 0 to 15 out of 255: set data.window to the stored values";
    assert!(told("data.window=[0,255]").contains(hint), "{}", told("data.window=[0,255]"));
    for window in ["full", "image", "[0,15]"] {
        assert!(!told(&format!("data.window={window}")).contains("8 bits"), "{window}");
    }
}

#[test]
fn transparent_images_and_further_pages_are_counted() {
    let (_dir, data) = small_data();
    let told = simclr(&["data", path(&data)]).expect(0, &[]).out;
    assert!(!told.contains("transparent") && !told.contains("pages"), "{told}");
    ImageBuffer::from_pixel(20, 20, Rgba([9, 90, 0, 100_u8])).save(data.join("class 0/glass.png")).unwrap();
    // A second page that is the first: another directory of the same pixels.
    let file = data.join("class 1/pages.tif");
    picture(20, 40, 1).save(&file).unwrap();
    let mut tiff = fs::read(&file).unwrap();
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| 256 * sum + usize::from(byte));
    let (first, end) = (number(&tiff[4..8]), tiff.len().next_multiple_of(2));
    let last = first + 2 + 12 * number(&tiff[first..first + 2]);
    tiff.resize(end, 0);
    tiff.extend_from_within(first..last + 4);
    tiff[last..last + 4].copy_from_slice(&(end as u32).to_le_bytes());
    fs::write(&file, tiff).unwrap();
    let told = simclr(&["data", path(&data), "--set", "data.background=[1,2,3]"]).expect(0, &[]).out;
    for row in [
        "transparent  1 image, laid over data.background=[1, 2, 3]\n",
        "pages        1 file with several, of which only the first is read\n",
    ] {
        assert!(told.contains(row), "no {row} in {told}");
    }
    let found = simclr(&["data", path(&data), "--json"]).json();
    assert_eq!((&found["transparent"], &found["with_several_pages"]), (&json!(1), &json!(1)));
}

#[test]
fn images_that_are_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..120 {
        common::picture(20, 0, 3).save(dir.path().join(format!("{number}.png"))).unwrap();
    }
    let words = ["pretrain", path(dir.path()), "--dry-run", "--set", "train.batch=16"];
    let reply = simclr(&words).expect(0, &["14 of 15 images looked at have the same pixels"]);
    assert!(!reply.err.contains("only "), "{}", reply.err);
}

#[cfg(unix)]
#[test]
fn what_cannot_be_read_beside_images_is_warned_of() {
    let (dir, data) = small_data();
    std::os::unix::fs::symlink("nowhere", data.join("class 3")).unwrap();
    let told = "class 3: a link that leads nowhere";
    let warned = simclr(&["data", path(&data)]).expect(0, &[&format!("warning: {told}")]).out;
    assert!(warned.contains("broken       0\nunreadable   1\n") && warned.contains(told), "{warned}");
    let found = simclr(&["data", path(&data), "--json"]).json();
    assert_eq!(
        (&found["unreadable"][0]["name"], &found["left_out"]["count"]),
        (&json!("class 3"), &json!(0))
    );
    for strict in [&["--strict"][..], &["--set", "data.strict=true"]] {
        simclr(&[&["data", path(&data)], strict].concat()).expect(1, &["error: ", told, "data.strict"]);
    }
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["data.strict=true"])).expect(1, &["error: ", told]);
    assert!(!run.exists());
}

#[test]
fn classes_that_nothing_is_learnt_of_hinder_evaluations_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    class_folders(&data.join("train"), 2, 12);
    class_folders(&data.join("test"), 3, 4);
    picture(20, 1, 1).save(data.join("stray.png")).unwrap();
    // Of two test parts, one is used.
    fs::create_dir(data.join("val")).unwrap();
    picture(20, 2, 2).save(data.join("val/1.png")).unwrap();
    let told = [
        "24 images to train on, 12 to test on, 3 classes; 2 images left out",
        "outside of the parts that are used (./, val/)",
    ];
    let told = simclr(&["data", path(&data)]).expect(0, &told).out;
    assert!(told.contains("1 in the test part alone, which evaluations refuse: class 2\n"), "{told}");
    let found = simclr(&["data", path(&data), "--json"]).json();
    assert_eq!(
        (&found["classes_in_test_alone"], &found["left_out"]["images"]),
        (&json!(["class 2"]), &json!(2))
    );
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.batch=8"])).expect(0, &[]);
    simclr(&["knn", path(&run), "--train", path(&data)])
        .expect(2, &["class \"class 2\" of the test images is not among the 2 classes"]);
}

#[test]
fn lists_of_other_separators_columns_and_folders() {
    let (_dir, data) = small_data();
    let list = |name: &str, text: &str| {
        let list = data.join(name);
        fs::write(&list, text).unwrap();
        list
    };
    let rows = |separator: &str, column: &str| -> String {
        let row = |number: u32| format!("class {0}/{number}.png{separator}class {0}\n", number % 3);
        format!("path{separator}{column}\n") + &(0..16).map(row).collect::<String>()
    };
    for separator in [",", ";", "\t"] {
        let list = list("list.csv", &rows(separator, "label"));
        let reply = simclr(&["data", path(&list), "--json"]).expect(0, &["16 images, 3 classes"]);
        assert_eq!(reply.json()["notes"], json!([]));
    }
    let breeds = list("breeds.csv", &rows(",", "breed"));
    let note = "breeds.csv: no labels: of the other columns, \"breed\", none is called label, class";
    simclr(&["data", path(&breeds)]).expect(0, &[note]);
    simclr(&["pretrain", path(&breeds), "--dry-run", "--set", "train.batch=8"]).expect(0, &[note]);
    let elsewhere = list("elsewhere.csv", &rows(";", "label").replace("class", "images/class"));
    let from =
        format!("looked up from its folder, {}, and semicolons are taken to separate cells", path(&data));
    simclr(&["data", path(&elsewhere)])
        .expect(2, &["none of the first 16 paths", "images/class 0/0.png", &from]);
}

#[test]
fn what_was_found_in_the_data_is_kept_in_the_cache_folder_of_the_user() {
    let (dir, data) = small_data();
    let [cache, file] = ["cache", "file"].map(|name| dir.path().join(name));
    fs::write(&file, "").unwrap();
    let told = |cache: &Path| {
        let output = command(&["data", path(&data)]).env("XDG_CACHE_HOME", cache).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let files = || fs::read_dir(cache.join("simclr/index")).unwrap().count();
    let first = told(&cache);
    assert_eq!((files(), told(&cache) == first, files()), (1, true, 1));
    // Where it cannot be kept, nothing is said: the next time only takes longer.
    assert_eq!(told(&file), first);
}
