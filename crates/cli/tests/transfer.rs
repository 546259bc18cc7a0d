//! `simclr transfer` as a user runs it, and bad input to it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{class_folders, finish, path, pretrain, simclr, small_data, start};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a run, and images of three classes in train/ and test/ of `other`.
fn run_and_data() -> (TempDir, PathBuf) {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    class_folders(&dir.path().join("other/train"), 3, 12);
    class_folders(&dir.path().join("other/test"), 3, 4);
    (dir, run)
}

fn write(folder: &Path, text: &str) -> PathBuf {
    let suite = folder.join("suite.toml");
    fs::write(&suite, text).unwrap();
    suite
}

#[test]
fn a_suite_from_images_to_report() {
    let (dir, run) = run_and_data();
    // The images of class 2 are labelled as showing class 1, too.
    let mut labels = String::new();
    for part in ["train", "test"] {
        for class in 0..3 {
            for number in 0..12 {
                let more = if class == 2 { ",class 1" } else { "" };
                labels += &format!("{part}/class {class}/{number}.png,class {class}{more}\n");
            }
        }
    }
    fs::write(dir.path().join("labels.csv"), labels).unwrap();
    class_folders(&dir.path().join("ten/train"), 10, 4);
    class_folders(&dir.path().join("ten/test"), 10, 2);
    let suite = write(
        dir.path(),
        "[[set]]\nname = \"cifar10\"\ntrain = \"ten\"\n\n\
         [[set]]\nname = \"dtd\"\ntrain = \"other\"\n\n\
         [[set]]\nname = \"several\"\ntrain = \"other\"\nlabels = \"labels.csv\"\nmetric = \"map11\"\n",
    );
    let command = ["transfer", path(&run), path(&suite)];
    let plan =
        "several: 33 images to learn from, 3 to choose settings by, 12 to test on, 3 classes, 11-point mAP";
    let planned = simclr(&[&command[..], &["--dry-run"]].concat()).expect(0, &[plan]);
    assert!(planned.out.is_empty() && !run.join("evaluation/transfer").exists());
    let planned = simclr(&[&command[..], &["--dry-run", "--json"]].concat()).expect(0, &[plan]).json();
    assert_eq!(
        (&planned["sets"][2]["set"], &planned["sets"][2]["test_images"]),
        (&"several".into(), &12.into())
    );
    assert_eq!(planned["sets"][2]["protocols"][0]["lacking"], 2, "{planned}");

    let other = "warning: dtd: DTD has 47 classes and this has 3";
    let words = [other, "written to"];
    let reply = simclr(&command).expect(0, &words);
    for word in ["CIFAR-10", "top-1", "95.3, 95.7%", "11-point mAP", "ResNet-50 (4x)"] {
        assert!(reply.out.contains(word), "no {word} in {}", reply.out);
    }
    let json =
        simclr(&[&command[..], &["--json"]].concat()).expect(0, &["cifar10: 30 images", "top-1"]).json();
    let [cifar, dtd, several] = &json["results"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!((&cifar["metric"], &several["metric"]), (&"top1".into(), &"map11".into()));
    assert_eq!((&cifar["paper"], &several["paper"]), (&0.953.into(), &Value::Null));
    assert_eq!(cifar["paper_supervised"], 0.957);
    assert_eq!((&dtd["set"], &dtd["paper"]), (&"dtd".into(), &Value::Null));
    for result in [dtd, several] {
        for key in ["score", "random", "validation"] {
            let value = result[key].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&value), "{key} {result}");
        }
        assert_eq!((&result["train_images"], &result["test_images"]), (&36.into(), &12.into()));
    }
    simclr(&["report", path(&run)]).expect(0, &["report.html"]);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("Other data sets") && page.contains("11-point mAP"));
}

/// The grid of an entry; empty if there is none yet.
fn tried(entry: &Path) -> Vec<Value> {
    let entry: Option<Value> = fs::read(entry).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    entry.and_then(|entry| entry["grid"].as_array().cloned()).unwrap_or_default()
}

/// A result without the time that it took.
fn timeless(mut result: Value) -> Value {
    result["seconds"] = Value::Null;
    result
}

#[test]
fn killed_and_begun_again() {
    let (dir, run) = run_and_data();
    let suite = write(dir.path(), "[[set]]\nname = \"flowers102\"\ntrain = \"other\"\n");
    let arguments: Vec<String> = [
        ["transfer", path(&run), path(&suite), "--protocol", "finetune,scratch"],
        ["--steps", "20", "--batch", "16", "--json"],
    ]
    .concat()
    .into_iter()
    .chain(["--rates", "0.01,0.03,0.1,3e-2", "--decays", "0,1e-4"])
    .map(str::to_owned)
    .collect();
    let plan = "finetune: 7 trainings of 20 steps of batch 16: 3 rates x 2 decays, then the best on all";
    let chance = "warning: flowers102: settings are chosen on 3 validation images: a matter of chance";
    let planned = simclr(&[&arguments[..], &["--dry-run".to_owned()]].concat()).expect(0, &[plan, chance]);
    assert_eq!(planned.json()["sets"][0]["few_validation_images"], true);
    let one = arguments.iter().map(|word| word.split_once(',').map_or(&word[..], |(first, _)| first));
    let one: Vec<&str> = one.chain(["--dry-run"]).collect();
    simclr(&one).expect(0, &["of batch 16: 1 rate x 1 decay, then the best on all"]);

    let folder = run.join("evaluation/transfer");
    let entry = || {
        let mut files = fs::read_dir(&folder).into_iter().flatten().map(|file| file.unwrap().path());
        let named = |file: &PathBuf| {
            path(file).contains("flowers102-finetune-20-steps-seed-0-") && path(file).ends_with(".json")
        };
        files.find(named).unwrap_or_default()
    };
    let mut child = start(&arguments);
    let deadline = Instant::now() + Duration::from_secs(120);
    while tried(&entry()).len() < 2 && child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "nothing is recorded");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    finish(child);
    let before = tried(&entry());
    assert!(before.len() >= 2);

    let last = "6 of 6: rate 1e-1, decay 1e-4: ";
    let last = ["finetune", "scratch"].map(|protocol| format!("flowers102, {protocol}: {last}"));
    let json = simclr(&arguments).expect(0, &[&last[0], &last[1]]).json();
    assert_eq!(tried(&entry())[..before.len()], before, "what was there is not computed again");
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.iter().map(|result| &result["protocol"]).collect::<Vec<_>>(), ["finetune", "scratch"]);
    assert!(
        results[0]["few_validation_images"] == true && results[0].get("rate_at_edge").is_some(),
        "{json}"
    );
    assert!(results[0]["random"].is_f64() && results[0]["random"] == results[1]["score"], "{json}");
    simclr(&arguments).expect(0, &["finetune: there already", "scratch: there already"]);

    // The results equal those of an evaluation that was never killed.
    fs::remove_dir_all(run.join("evaluation/transfer")).unwrap();
    let whole = simclr(&arguments).expect(0, &[]).json();
    for (again, whole) in results.iter().zip(whole["results"].as_array().unwrap()) {
        assert_eq!(timeless(again.clone()), timeless(whole.clone()));
    }
    simclr(&["report", path(&run)]).expect(0, &[]);
    assert!(fs::read_to_string(run.join("report.html")).unwrap().contains("fine-tuned"));
}

#[test]
fn wrong_suites_are_refused_by_file_and_key() {
    let (dir, run) = run_and_data();
    let missing = dir.path().join("missing.toml");
    simclr(&["transfer", path(&run), path(&missing)]).expect(2, &["missing.toml: no such file"]);
    let set = "[[set]]\nname = \"own\"\ntrain = \"other\"\n";
    let whole = format!("{set}metric = \"top1\"\n");
    fs::write(dir.path().join("labels.csv"), "a.png,cat\nb.png,dog\n").unwrap();
    class_folders(&dir.path().join("parts/train"), 3, 4);
    class_folders(&dir.path().join("parts/val"), 3, 2);
    let parts = whole.replace("other", "parts");
    let two = parts.replace("parts", "parts/train");
    let cases = [
        (
            &format!("{parts}validation = \"parts/val\"\n")[..],
            "`set.own.validation` is of images that test has too, such as",
        ),
        (&format!("{two}test = \"parts/train\"\n"), "`set.own.test` is of images that train has too"),
        (
            &format!("{two}test = \"parts/val\"\nvalidation = \"parts/../parts/val\"\n"),
            "`set.own.validation` is of images that test has too",
        ),
        (&whole.replace("other", "bare"), "the training images have no labels"),
        ("", "`set` is nowhere"),
        ("[[set]\n", "TOML parse error"),
        (
            &format!("{whole}validaton = \"other\"\n"),
            "line 5: unknown key `set.own.validaton`; did you mean `validation`?",
        ),
        (set, "`set.own.metric` is nowhere"),
        (&format!("{set}metric = \"top5\"\n"), "did you mean top1?"),
        (&whole.replace("other", "nowhere"), "nowhere: no such file"),
        (&whole.replace("other", "other/train"), "[[set]] own needs `test = \"...\"`: "),
        (
            &format!("{set}metric = \"map11\"\nlabels = \"labels.csv\"\n"),
            "labels.csv: has no line for the image",
        ),
        (&format!("{set}metric = \"map11\"\nlabels = \"none.csv\"\n"), "none.csv"),
    ];
    // All faults are reported at once, even that a data set has no labels.
    fs::create_dir(dir.path().join("bare")).unwrap();
    fs::copy(dir.path().join("other/test/class 0/0.png"), dir.path().join("bare/0.png")).unwrap();
    fs::copy(dir.path().join("other/test/class 1/0.png"), dir.path().join("bare/1.png")).unwrap();
    let bare = whole.replace("other", "bare");
    let gone = whole.replace("other", "nowhere").replace("own", "gone");
    let suite = write(dir.path(), &format!("{bare}{}{gone}", whole.replace("own", "fine")));
    for dry in [&[][..], &["--dry-run"]] {
        let all = [
            "warning: data set own: the training images have no labels",
            "nowhere: no such file",
            "nothing was evaluated, because of errors in data set own; data set gone",
        ];
        let reply = simclr(&[&["transfer", path(&run), path(&suite)], dry].concat()).expect(2, &all);
        assert!(reply.out.is_empty() && !reply.err.contains("no test images of its own"), "{}", reply.err);
    }
    for (text, expected) in cases {
        let suite = write(dir.path(), text);
        let reply = simclr(&["transfer", path(&run), path(&suite)]);
        assert!(reply.err.contains(expected), "{text}: {}", reply.err);
        reply.expect(2, &[]);
    }
    let suite = write(dir.path(), &whole);
    simclr(&["transfer", path(&dir.path().join("no run")), path(&suite)]).expect(2, &["holds no run"]);
    simclr(&["transfer", path(&run), path(&suite), "--seed", "-1"]).expect(2, &["whole number"]);
    for (words, expected) in [
        (&["--steps", "5"][..], "--steps is for --protocol finetune and scratch"),
        (&["--rates", "0.1"], "--rates is for"),
        (&["--protocol", "finetun"], "linear, finetune, scratch"),
        (&["--protocol", "finetune", "--steps", "0"], "whole number of at least 1"),
        (&["--protocol", "finetune", "--rates", "0.1,0"], "a number above 0"),
        (&["--protocol", "scratch", "--decays", "-1"], "a number of 0 or more"),
    ] {
        simclr(&[&["transfer", path(&run), path(&suite)], words].concat()).expect(2, &[expected]);
    }
    let hopeless =
        ["--protocol", "finetune", "--steps", "3", "--batch", "8", "--rates", "1e30", "--decays", "0"];
    simclr(&[&["transfer", path(&run), path(&suite)], &hopeless[..]].concat()).expect(
        1,
        &["no result: data set own, finetune", "the loss became NaN or infinite; give lower rates"],
    );
    // The other data sets and protocols are still evaluated.
    let both = write(dir.path(), &(whole.clone() + &whole.replace("own", "next")));
    let linear = ["--protocol", "linear,finetune", "--json"];
    let reply = simclr(&[&["transfer", path(&run), path(&both)], &linear[..], &hopeless[2..]].concat())
        .expect(1, &["no result: data set own, finetune; data set next, finetune", "give lower rates"]);
    let json = reply.json();
    let sets = json["results"].as_array().unwrap().iter().map(|result| &result["set"]);
    assert_eq!(sets.collect::<Vec<_>>(), ["own", "next"]);
    let suite = write(dir.path(), &whole);
    simclr(&["transfer", path(&run)]).expect(2, &["SUITE.toml"]);
    fs::write(dir.path().join("other/train/class 0/torn.png"), "no image").unwrap();
    simclr(&["transfer", path(&run), path(&suite), "--strict"]).expect(1, &["class 0/torn.png"]);
    simclr(&["transfer", path(&run), path(&suite), "--no-random"])
        .expect(0, &["own: the figures are without 1 image that could not be read", "own-linear-seed-0-"]);
}
