//! The uses of a run's encoder: features in files, and search.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{path, picture, pretrain, shell, simclr, small_data};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with 48 images of three classes in `data`, one of them broken, and a run on them.
fn trained() -> (TempDir, PathBuf, PathBuf) {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1", "optim.warmup_epochs=0"])).expect(0, &[]);
    fs::write(data.join("class 1/5.png"), "no image").unwrap();
    (dir, data, run)
}

/// The shape that an .npy file declares.
fn shape(file: &Path) -> String {
    let bytes = fs::read(file).unwrap();
    let text = String::from_utf8_lossy(&bytes[10..128]).into_owned();
    text.split_once("'shape': ").unwrap().1.split_once(')').unwrap().0.to_owned() + ")"
}

#[test]
fn features_in_each_kind_of_file() {
    let (dir, data, run) = trained();
    let embed = |out: &str, more: &[&str]| {
        let out = dir.path().join(out);
        let words = ["embed", path(&run), path(&data), "--out", path(&out), "--threads", "1"];
        simclr(&[&words[..], more].concat())
    };
    for name in ["a.parquet", "a.npy", "a.safetensors"] {
        let reply = embed(name, &["--json"])
            .expect(0, &["1 image could not be read and will have no row", "class 1/5.png: not an image"]);
        let mut told = reply.json();
        assert!(told["seconds"].as_f64().unwrap() > 0.0, "{told}");
        told["seconds"] = Value::Null;
        let reason = told["broken"][0]["reason"].take();
        assert!(reason.as_str().unwrap().starts_with("not an image"), "{reason}");
        let broken = [json!({ "name": "class 1/5.png", "split": null, "reason": null })];
        let out = dir.path().join(name);
        let csv = (name != "a.parquet").then(|| dir.path().join(format!("{name}.csv")));
        assert_eq!(
            told,
            json!({
                "images": 47, "dims": 32, "skipped": 1, "broken": broken, "seconds": null, "out": out, "csv": csv,
            })
        );
    }
    // Existing files are replaced, and no temporary ones are left.
    let reply =
        embed("a.npy", &["--projection"]).expect(0, &["a.npy: 47 rows of 16 values", "a.npy.csv: name"]);
    assert!(reply.out.is_empty());
    assert_eq!(shape(&dir.path().join("a.npy")), "(47, 16)");
    let lines = fs::read_to_string(dir.path().join("a.npy.csv")).unwrap();
    assert_eq!(lines.lines().nth(1).unwrap(), "class 0/0.png,,0,class 0");
    let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().ends_with("tmp")));

    let parts = dir.path().join("parts");
    fs::create_dir(&parts).unwrap();
    fs::remove_file(data.join("class 1/5.png")).unwrap();
    fs::rename(&data, parts.join("train")).unwrap();
    fs::create_dir_all(parts.join("test/class 1")).unwrap();
    picture(20, 1, 99).save(parts.join("test/class 1/9.png")).unwrap();
    fs::copy(parts.join("test/class 1/9.png"), parts.join("test/class 1/8.png")).unwrap();
    let data = parts;
    let out = dir.path().join("b.npy");
    let words = ["embed", path(&run), path(&data), "--out", path(&out)];
    simclr(&words).expect(0, &["49 rows"]);
    simclr(&[&words[..], &["--split", "test"]].concat()).expect(0, &["2 rows"]);
    assert_eq!(shape(&out), "(2, 32)");
    simclr(&[&words[..], &["--split", "unlabelled"]].concat()).expect(2, &["only train and test"]);
}

#[test]
fn outputs_that_cannot_be_written_are_refused() {
    let (dir, data, run) = trained();
    let embed = |out: &Path, more: &[&str]| {
        simclr(&[&["embed", path(&run), path(&data), "--out", path(out)][..], more].concat())
    };
    let out = dir.path().join("a.npy");
    embed(&dir.path().join("a.csv"), &[])
        .expect(2, &["a.csv: expected a file that ends in .parquet, .npy or .safetensors: give --out"]);
    embed(&dir.path().join("no/a.npy"), &[]).expect(2, &["there is no folder"]);
    embed(&out, &["--split", "training"]).expect(2, &["--split", "expected train, test or unlabelled"]);
    embed(&out, &["--split", "train"]).expect(2, &["no train images apart", "leave --split out"]);
    embed(&out, &["--strict"]).expect(1, &["class 1/5.png: not an image"]);
    simclr(&["embed", path(&data), path(&data), "--out", path(&out)]).expect(2, &["holds no run"]);
    fs::create_dir(dir.path().join("b.parquet")).unwrap();
    embed(&dir.path().join("b.parquet"), &[]).expect(2, &["b.parquet: is a folder"]);
    // A list of images has the name of the CSV file that goes with the matrix, whether or not it is the data.
    let list = dir.path().join("a.npy.csv");
    fs::write(&list, format!("{}\n", path(&data.join("class 0/1.png")))).unwrap();
    simclr(&["embed", path(&run), path(&list), "--out", path(&out)])
        .expect(2, &["a.npy.csv", "among the images"]);
    embed(&out, &[]).expect(2, &["a.npy.csv: is there already", "no list of images that", "another --out"]);
    assert!(!out.exists() && fs::read_to_string(&list).unwrap().ends_with("1.png\n"));
    fs::remove_file(&list).unwrap();
    // A network is not replaced by features, features are.
    let network = run.join("encoder.safetensors");
    let before = fs::read(&network).unwrap();
    embed(&network, &[]).expect(2, &["encoder.safetensors: is there already", "no file of features"]);
    assert!(fs::read(&network).unwrap() == before);
    let features = dir.path().join("again.safetensors");
    embed(&features, &[]).expect(0, &["47 rows"]);
    embed(&features, &[]).expect(0, &["47 rows"]);

    // A table among archives would be read in their place the next time. Beside images it is not read.
    let [shards, own] = ["shards", "shards/own.parquet"].map(|name| dir.path().join(name));
    fs::create_dir(&shards).unwrap();
    shell("tar cf \"$1/0.tar\" -C \"$2\" .", &[&shards, &data]).expect(0, &[]);
    for images in [&[path(&shards)][..], &[path(&shards), path(&data)], &[path(&data), path(&shards)]] {
        simclr(&[&["embed", path(&run)], images, &["--out", path(&own)]].concat())
            .expect(2, &["read for the images", "elsewhere"]);
    }
    assert!(!own.exists());
    simclr(&["embed", path(&run), path(&shards), "--out", path(&shards.join("a.npy"))])
        .expect(0, &["47 rows"]);
    embed(&data.join("a.parquet"), &[]).expect(0, &["47 rows"]);

    // In blocks of 512 bytes: enough for a part of the features.
    let script = "ulimit -f 4; exec \"$PROGRAM\" embed \"$1\" \"$2\" --out \"$3\" --threads 1";
    for name in ["c.npy", "c.parquet", "c.safetensors"] {
        let out = dir.path().join(name);
        shell(script, &[&run, &data, &out]).expect(1, &["cannot write", name, "free some space"]);
        assert!(!out.exists() && !dir.path().join(format!("{name}.csv")).exists());
        let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|file| !file.to_string_lossy().ends_with(".tmp")), "{name}");
    }
}

#[test]
fn a_search_and_its_picture() {
    let (dir, data, run) = trained();
    let (own, other) = (data.join("class 2/7.png"), dir.path().join("other.png"));
    picture(33, 0, 5).save(&other).unwrap();
    let sheet = dir.path().join("found.png");
    let words = ["search", path(&run), path(&data), "--query", path(&own), "--k", "4"];
    let reply = simclr(&words).expect(0, &["1 image could not be read"]);
    let lines: Vec<&str> = reply.out.lines().collect();
    assert_eq!(lines.len(), 4, "{}", reply.out);
    assert_eq!(lines[0], "   1   1.0000  class 2/7.png  (class 2)");

    let more = ["--query", path(&other), "--out", path(&sheet), "--json"];
    let told = simclr(&[&words[..], &more].concat()).expect(0, &["found.png"]).json();
    assert_eq!((&told["images"], &told["skipped"]), (&json!(47), &json!(1)));
    let found = &told["queries"][0]["neighbours"];
    assert_eq!((&found[0]["name"], &found[0]["class"]), (&json!("class 2/7.png"), &json!("class 2")));
    assert!((found[0]["similarity"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{told}");
    assert_eq!(told["queries"][1]["neighbours"][3]["rank"], 4);
    let drawn = image::open(&sheet).unwrap();
    // Each row has a head and four neighbours of 128 pixels with three lines below; the legend is above all.
    assert_eq!((drawn.width(), drawn.height()), (5 * 140 + 12, 2 * (128 + 4 + 3 * 16 + 12) + 2 * 12 + 16));

    // The legend, in letters of 7 pixels, is wider than two pictures. It names no classes where there are none.
    let width = |data: &Path| {
        let words = ["search", path(&run), path(data), "--query", path(&other), "--k", "1", "--out"];
        simclr(&[&words[..], &[path(&sheet)]].concat()).expect(0, &[]);
        image::open(&sheet).unwrap().width()
    };
    assert_eq!(width(&data) - width(&data.join("class 0")), 7 * ", class".len() as u32);

    let text = simclr(&[&words[..], &["--query", path(&other)]].concat()).expect(0, &[]).out;
    assert!(text.lines().nth(5).is_some_and(|line| line.ends_with("other.png:")), "{text}");
    simclr(&["search", path(&run), path(&data)]).expect(2, &["--query"]);
    let ways = ["give DATA", "or --features FILE.parquet", &format!("simclr embed {} DATA", path(&run))];
    simclr(&["search", path(&run), "--query", path(&own)]).expect(2, &ways);
    simclr(&["search", path(&run), path(&data), "--query", "none.png"])
        .expect(2, &["none.png: no such file"]);
    if cfg!(unix) {
        simclr(&["search", path(&run), path(&data), "--query", "/dev/null"])
            .expect(2, &["/dev/null: is not a regular file"]);
    }
    simclr(&["search", path(&run), path(&data), "--query", path(&data)]).expect(2, &["is a folder"]);
    let broken = data.join("class 1/5.png");
    simclr(&["search", path(&run), path(&data), "--query", path(&broken)])
        .expect(1, &["5.png: not an image"]);
    simclr(&[&words[..], &["--out", "found.jpg"]].concat()).expect(2, &[".png"]);
    // A sheet replaces none of the images and queries.
    let kept = "among the images, and is not replaced";
    for out in [&own, &other] {
        let search = ["search", path(&run), path(&data), "--query", path(&other), "--out", path(out)];
        simclr(&search).expect(2, &[kept]);
    }
    // Nor one that a list elsewhere names.
    let list = dir.path().join("list.txt");
    fs::write(&list, format!("data/class 0/1.png\n{}\n", path(&own))).unwrap();
    for (command, data) in [("views", &data), ("data", &data), ("views", &list), ("data", &list)] {
        simclr(&[command, path(data), "--out", path(&own)]).expect(2, &[kept]);
    }
    let search = ["search", path(&run), path(&list), "--query", path(&other), "--out", path(&own)];
    simclr(&search).expect(2, &[kept]);
}

#[test]
fn a_search_among_features_written_before() {
    let (dir, data, run) = trained();
    let own = data.join("class 2/7.png");
    let [features, sheet, again] = ["f.parquet", "found.png", "again.png"].map(|name| dir.path().join(name));
    simclr(&["embed", path(&run), path(&data), "--out", path(&features)]).expect(0, &[]);
    let among_images = ["search", path(&run), path(&data), "--query", path(&own), "--k", "5"];
    let stored = ["search", path(&run), "--features", path(&features), "--query", path(&own), "--k", "5"];
    let expected = simclr(&among_images).expect(0, &[]).out;
    assert_eq!(simclr(&stored).expect(0, &[]).out, expected);
    // The pictures are read from DATA.
    simclr(&[&among_images[..], &["--out", path(&sheet)]].concat()).expect(0, &[]);
    simclr(&[&stored[..], &[path(&data), "--out", path(&again)]].concat()).expect(0, &[]);
    assert_eq!(fs::read(&sheet).unwrap(), fs::read(&again).unwrap());

    // Two images of the same name have the same picture.
    let (list, twice) = (dir.path().join("list.txt"), dir.path().join("twice.parquet"));
    fs::write(&list, format!("{0}\n{0}\n{1}\n", path(&own), path(&data.join("class 0/1.png")))).unwrap();
    simclr(&["embed", path(&run), path(&list), "--out", path(&twice)]).expect(0, &["3 rows"]);
    let words = ["search", path(&run), path(&list), "--query", path(&own), "--out"];
    simclr(&[&words[..], &[path(&sheet)]].concat()).expect(0, &[]);
    simclr(&[&words[..], &[path(&again), "--features", path(&twice)]].concat()).expect(0, &[]);
    assert_eq!(fs::read(&sheet).unwrap(), fs::read(&again).unwrap());

    let fail = |more: &[&str], words: &[&str]| simclr(&[&stored[..], more].concat()).expect(2, words);
    fail(&["--out", path(&sheet)], &["give DATA too"]);
    fail(&[path(&data)], &["leave one out"]);
    fail(&["--split", "test"], &["no test images apart", "leave --split out"]);
    fail(&[path(&data.join("class 0")), "--out", path(&sheet)], &["is not among the images of DATA"]);
    fail(&["--out", path(&features), path(&data)], &[".png"]);
    let matrix = dir.path().join("f.npy");
    simclr(&["embed", path(&run), path(&data), "--out", path(&matrix)]).expect(0, &[]);
    let words = ["search", path(&run), "--features", path(&matrix), "--query", path(&own)];
    simclr(&words).expect(2, &["f.npy: is not a .parquet file", "simclr embed RUN DATA --out FILE.parquet"]);
    let damaged = dir.path().join("g.parquet");
    fs::write(&damaged, &fs::read(&features).unwrap()[..999]).unwrap();
    let words = ["search", path(&run), "--features", path(&damaged), "--query", path(&own)];
    simclr(&words).expect(2, &["g.parquet: is not a readable file of features"]);
}
