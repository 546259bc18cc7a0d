//! What the evaluation commands say about a result besides its figures, and where results go.

mod common;

use std::fs;
use std::path::Path;

use common::{class_folders, command, numbered_folders, path, picture, pretrain, shell, simclr, small_data};
use image::{ImageBuffer, Luma};
use serde_json::{Value, json};

/// Folders of 32 images of two classes that store 16 bits, of which they use ten.
fn deep_data(folder: &Path) {
    for number in 0..32u32 {
        let class = folder.join(format!("class {}", number % 2));
        fs::create_dir_all(&class).unwrap();
        let picture =
            ImageBuffer::from_fn(20, 20, |x, y| Luma([(96 + (x * 40 + y * 7 + number) % 816) as u16]));
        picture.save(class.join(format!("{number}.png"))).unwrap();
    }
}

#[test]
fn images_that_are_dark_as_the_run_reads_them_are_told_of() {
    let (dir, data) = small_data();
    let [run, deep, suite, study, features] =
        ["run", "deep", "suite.toml", "study.toml", "h.parquet"].map(|name| dir.path().join(name));
    simclr(&pretrain(&data, &run, &["train.epochs=1", "optim.warmup_epochs=0"])).expect(0, &[]);
    deep_data(&deep);
    class_folders(&dir.path().join("bright"), 2, 6);
    fs::write(&suite, "[[set]]\nname = \"Deep\"\ntrain = \"deep\"\ntest = \"bright\"\nmetric = \"top1\"\n")
        .unwrap();
    let variants = "[[variant]]\nname = \"a\"\n[[variant]]\nname = \"b\"\nset = [\"head.dim=8\"]\n";
    fs::write(&study, format!("title = \"t\"\nsource = \"s\"\n{variants}")).unwrap();
    let by_run =
        "16 bits (of 16 looked at): 16 images of only 0 to 4 out of 255, as data.window=\"full\" of the run";
    let told = |words: &[&str], hint: &str| {
        let reply = simclr(words).expect(0, &[hint]);
        assert_eq!(reply.err.matches("16 bits").count(), 1, "{words:?}: {}", reply.err);
    };
    let [run, train, set] = [&run, &deep, &data].map(|it| path(it));
    told(&["knn", run, "--train", train, "--no-random"], by_run);
    told(&["knn", run, "--train", train, "--test", train, "--no-random"], by_run);
    told(&["finetune", run, "--train", train, "--labels", "100%", "--epochs", "1", "--no-random"], by_run);
    told(&["predict", run, train], by_run);
    told(&["embed", run, train, "--out", path(&features)], by_run);
    told(&["search", run, train, "--query", path(&deep.join("class 0/0.png"))], by_run);
    told(&["probe", run, train], by_run);
    told(&["report", run, "--train", train], by_run);
    told(&["transfer", run, path(&suite), "--dry-run"], &format!("{train}: {by_run}"));
    let words = ["ablate", path(&study), train, "--dry-run", "--set", "data.image_size=16", "train.batch=8"];
    told(&words, "16 bits (of 16 looked at): 16 images of only 0 to 4 out of 255: set data.window");
    let reply = simclr(&["knn", run, "--train", set, "--no-random"]).expect(0, &[]);
    assert!(!reply.err.contains("out of 255"), "{}", reply.err);
}

/// A disk that has filled up does not lose a result; a folder that cannot be written to is an error at once.
#[test]
fn a_result_that_cannot_be_written_is_told() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let full = |command: &str| {
        let script = format!("ulimit -f 0; exec \"$PROGRAM\" {command}");
        shell(&script, &[&run, &data]).expect(1, &["error: cannot write", "evaluation"]).json()
    };
    for command in ["knn", "linear", "finetune"] {
        let result = full(&format!("{command} \"$1\" --train \"$2\" --no-random --json"));
        assert!(result["top1"].is_f64(), "{command}: {result}");
    }
    assert_eq!(full("probe \"$1\" \"$2\" --json")["rows"].as_array().unwrap().len(), 4);

    // A file in the place of the folder for results, since permissions do not stop every user.
    fs::remove_dir_all(run.join("evaluation")).unwrap();
    fs::write(run.join("evaluation"), "").unwrap();
    for command in ["knn", "linear", "finetune", "probe"] {
        let words = [command, path(&run), "--train", path(&data)];
        let words = if command == "probe" { ["probe", path(&run), path(&data), "--json"] } else { words };
        let refused =
            simclr(&words).expect(2, &["cannot write into the folder", "evaluation", "give another: --out"]);
        assert!(refused.out.is_empty(), "{command}: {}", refused.out);
    }
    // If results go elsewhere, nothing of the run needs to be writable.
    fs::remove_file(run.join("data.index")).unwrap();
    fs::create_dir(run.join("data.index")).unwrap();
    let out = dir.path().join("some/where");
    for (command, file) in [
        ("knn", "knn.json"),
        ("linear", "logistic.json"),
        ("finetune", "finetune-10%.safetensors"),
        ("probe", "probe/transformations.json"),
    ] {
        let words = [command, path(&run), "--train", path(&data), "--out", path(&out)];
        let words = if command == "probe" {
            ["probe", path(&run), path(&data), "--json", "--out", path(&out)]
        } else {
            words
        };
        let reply = simclr(&words).expect(0, &[path(&out)]);
        assert!(out.join(file).is_file() && !reply.err.contains("listed again"), "{command}: {}", reply.err);
    }
    // It is said if the user's cache folder cannot be written either.
    let words = ["knn", path(&run), "--train", path(&data), "--no-random", "--out", path(&out)];
    let output = command(&words).env("XDG_CACHE_HOME", "/dev/null").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("the data will be listed again"), "{told}");
    let suite = dir.path().join("suite.toml");
    class_folders(&dir.path().join("other/train"), 3, 8);
    class_folders(&dir.path().join("other/test"), 3, 2);
    fs::write(&suite, "[[set]]\nname = \"own\"\ntrain = \"other\"\nmetric = \"top1\"\n").unwrap();
    simclr(&["transfer", path(&run), path(&suite)]).expect(2, &["cannot write into the folder", "transfer"]);
}

/// The reader of the result may have closed the pipe, or have no space for it.
#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_told_is_written() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    for (words, file) in [
        (["knn", path(&run), "--train", path(&data), "--no-random"].to_vec(), "knn.json"),
        (["probe", path(&run), path(&data)].to_vec(), "probe/transformations.json"),
    ] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command(&words).stdout(full).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && told.contains("cannot write to standard output"),
            "{told}"
        );
        assert!(run.join("evaluation").join(file).is_file(), "{file}: {told}");
    }
}

/// Test images that are also trained on say nothing, whichever path leads to them.
#[test]
fn test_images_that_are_learnt_from_are_counted() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let parts = dir.path().join("parts");
    class_folders(&parts.join("train"), 3, 8);
    numbered_folders(&parts.join("test"), 3, 100..102);
    let (train, around) = (parts.join("train"), parts.join("test/../train"));
    let measure = |command: &str, train: &str, test: &[&str]| {
        let words = [&[command, path(&run), "--train", train, "--no-random", "--json"][..], test].concat();
        simclr(&words).expect(0, &[])
    };
    for (command, trained) in [("knn", &parts), ("linear", &train), ("finetune", &parts)] {
        let test = match command {
            "finetune" => ["--test", path(&train), "--epochs", "1", "--labels", "6"].to_vec(),
            _ => vec!["--test", path(&around)],
        };
        let reply = measure(command, path(trained), &test);
        assert!(
            reply.err.contains("24 of the 24 test images are in the training set as well, such as "),
            "{}",
            reply.err
        );
        assert_eq!(reply.json()["data"]["shared"], 24);
    }
    let reply = measure("knn", path(&parts), &[]);
    let named = json!({ "train": path(&parts), "test": path(&parts), "set_apart": false, "shared": 0 });
    assert!(
        reply.json()["data"] == named && !reply.err.contains("in the training set as well"),
        "{}",
        reply.err
    );
    assert!(reply.err.contains("% of 24 test images of ") && reply.err.contains(", 24 of them learnt from"));
    let reply = measure("knn", path(&train), &["--test", path(&parts)]);
    assert!(
        !reply.err.contains("in the training set as well") && !reply.err.contains("could be read"),
        "{}",
        reply.err
    );
    // The same bytes under other names, in a part of the same data set and in another data set.
    let copies = dir.path().join("copies");
    numbered_folders(&copies, 3, 200..203);
    for class in 0..3 {
        let class = format!("class {class}");
        fs::copy(train.join(&class).join("5.png"), copies.join(&class).join("new.png")).unwrap();
    }
    fs::copy(train.join("class 0/7.png"), parts.join("test/class 0/old.png")).unwrap();
    for (trained, test, shared) in [(&train, &["--test", path(&copies)][..], (3, 12)), (&parts, &[], (1, 7))]
    {
        let reply = measure("knn", path(trained), test);
        let (images, of) = shared;
        let told = format!("{images} of the {of} test images");
        assert!(reply.err.contains(&told) && reply.err.contains(".png, the same as "), "{}", reply.err);
        assert_eq!(reply.json()["data"]["shared"], images);
    }
    for image in fs::read_dir(train.join("class 2")).unwrap() {
        fs::write(image.unwrap().path(), "no image").unwrap();
    }
    let reply = measure("knn", path(&parts), &[]);
    let words = "warning: no training image of class \"class 2\" could be read, yet its test images count";
    assert!(reply.err.contains(words), "{}", reply.err);
}

/// Memorised images do not count as accuracy: an image that is listed twice, or copied, is kept on one side.
#[test]
fn copies_are_set_apart_together() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    for class in 0..3 {
        let folder = data.join(format!("class {class}"));
        (0..16).for_each(|n| {
            drop(fs::copy(folder.join(format!("{n}.png")), folder.join(format!("{n} too.png"))))
        });
    }
    // Labels that the images say nothing about.
    let list = |line: &dyn Fn(u32, u32, &str) -> String| {
        let images = (0..48).map(|n| (n / 16, n % 16, ["a", "b", "c"][(n * n / 3 + n / 7) as usize % 3]));
        images.map(|(class, number, label)| line(class, number, label)).collect::<String>()
    };
    let twice = list(&|class, n, label| format!("class {class}/{n}.png,{label}\n").repeat(2));
    let copied = list(&|class, n, label| {
        format!("class {class}/{n}.png,{label}\nclass {class}/{n} too.png,{label}\n")
    });
    let file = data.join("list.csv");
    let measure = |list: &str| {
        fs::write(&file, format!("path,label\n{list}")).unwrap();
        let words = ["knn", path(&run), "--train", path(&file), "--no-random", "--json", "--k", "1"];
        simclr(&words).expect(0, &[])
    };
    for list in [twice, copied.clone()] {
        let reply = measure(&list);
        let result = reply.json();
        assert!(reply.err.contains("; the 48 that are copies of others stay with them"), "{}", reply.err);
        assert!(!reply.err.contains("several classes"), "{}", reply.err);
        assert!(result["top1"].as_f64().unwrap() < 0.8, "{result}");
        assert!((16..=22).contains(&result["test_images"].as_u64().unwrap()), "{result}");
    }
    let wrong = copied + "class 0/0.png,d\nclass 0/1.png,d\n";
    let told = "2 images are labelled as of several classes, such as class 0/0.png of ";
    for words in ["warning: ", told, " = class 0/0.png of \"d\"; correct the labels"] {
        let reply = measure(&wrong);
        assert!(reply.err.contains(words), "no {words} in {}", reply.err);
    }
    let shown = simclr(&["data", path(&file)]).expect(0, &[]).out;
    assert!(shown.contains("mislabelled  2, of several classes\n"), "{shown}");
}

/// If 22 of 24 test images are of one class, being right on fewer is no achievement.
#[test]
fn uneven_classes_are_told() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let uneven = dir.path().join("uneven");
    numbered_folders(&uneven, 1, 100..120);
    numbered_folders(&uneven, 3, 120..122);
    fs::remove_dir_all(uneven.join("class 1")).unwrap();
    let measure = |command: &str, more: &[&str]| {
        let words = [command, path(&run), "--train", path(&data), "--test", path(&uneven)];
        simclr(&[&words[..], more].concat()).expect(0, &[])
    };
    for (command, more) in
        [("knn", &[][..]), ("linear", &[]), ("finetune", &["--labels", "6", "--epochs", "1"])]
    {
        let reply = measure(command, &[more, &["--json"]].concat());
        let result = reply.json();
        assert_eq!(result["largest_class"]["name"], "class 0");
        assert_eq!(result["largest_class"]["share"], 22.0 / 24.0);
        let images: Vec<&Value> =
            result["per_class"].as_array().unwrap().iter().map(|class| &class["images"]).collect();
        assert_eq!(images, [22, 0, 2]);
        assert_eq!(result["confusion"].as_array().unwrap().len(), 3);
        assert!(result["random_mean_per_class"].is_f64() && result["random_interval"].is_array(), "{result}");
        let end = |at: usize| result["interval"][at].as_f64().unwrap();
        let top1 = result["top1"].as_f64().unwrap();
        assert!(0.0 <= end(0) && end(0) < top1 && top1 <= end(1) && end(1) <= 1.0, "{result}");
        let told = measure(command, more).out;
        for words in [
            "mean per class      95% of top-1\n",
            " to ",
            "SimCLR by class\n",
            "%  of 22 test images\n",
            "-  of 0 test images\n",
        ] {
            assert!(told.contains(words), "no {words} in {told}");
        }
        let always = "always \"class 0\" would be right on 91.7%\n";
        assert_eq!(told.contains(always), 22.0 / 24.0 >= end(0), "{told}");
    }
    simclr(&["report", path(&run)]).expect(0, &[]);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    for title in ["kNN", "linear, logistic regression", "fine-tuning, 6 labels, epochs 1"] {
        assert!(page.contains(&format!("<h3>{title}</h3>")), "no {title} in {page}");
    }
    assert_eq!(page.matches("<dd class=\"note\">95% interval ").count(), 3);
    assert_eq!(page.matches("<dd class=\"note\">mean per class ").count(), 3);
    assert_eq!(
        page.matches(&format!("<dd class=\"note\">24 test images of {}</dd>", path(&uneven))).count(),
        3
    );
    assert_eq!(page.matches(">of 22</span>").count(), 3);
}

#[test]
fn what_the_choice_of_a_rate_is_worth_is_told() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    // A rate that does nothing, and one with which training diverges.
    let words = ["finetune", path(&run), "--train", path(&data), "--labels", "15", "--epochs", "1"];
    let tuned = simclr(&[&words[..], &["--rate", "1e-30,1e30", "--json"]].concat())
        .expect(0, &["warning: the rates were chosen on 3 validation images: a matter of chance"]);
    let lower = ": the best rate, 1e-30, is the lowest of those tried; a lower one may do better (--rate)\n";
    assert_eq!(tuned.err.matches(lower).count(), 2, "{}", tuned.err);
    let tuned = tuned.json();
    for settings in [&tuned["settings"], &tuned["random_settings"]] {
        assert_eq!(settings["rate_at_edge"], "lowest");
        assert_eq!(settings["few_validation_images"], true);
    }
}

#[test]
fn settings_and_images_stand_beside_the_figures() {
    let dir = tempfile::tempdir().unwrap();
    let (data, run) = (dir.path().join("data"), dir.path().join("run"));
    class_folders(&data, 3, 32);
    let sets = ["data.holdout=8", "train.knn_every=1"];
    simclr(&pretrain(&data, &run, &sets)).expect(0, &["kNN"]);
    let measure = |command: &str, more: &[&str]| {
        let words = [command, path(&run), "--train", path(&data), "--no-random"];
        simclr(&[&words[..], more].concat()).expect(0, &[])
    };
    let told = measure("knn", &[]);
    assert!(told.out.starts_with("kNN, k = 7: trained on 78 images"), "{}", told.out);
    assert!(!told.err.contains("--best") && !told.err.contains("in place of"), "{}", told.err);
    assert!(!measure("knn", &[]).err.contains("in place of"));
    let told = measure("knn", &["--k", "8"]);
    assert!(told.out.starts_with("kNN, k = 8: trained on 78 images"), "{}", told.out);
    let before = format!("% of 18 images set apart from {} at step ", path(&data));
    for words in ["in place of ", &before, " (k = 7)"] {
        assert!(told.err.contains(words), "no {words} in {}", told.err);
    }
    let sgd = measure("linear", &["--method", "sgd", "--epochs", "2"]);
    assert!(sgd.err.contains("78 images: 2 epochs, 23 steps, batch 7, rate 0.1"), "{}", sgd.err);
    let words = ["78 images: 2 epochs, 32 steps, batch 5", "rate 0.1"];
    let sgd = simclr(
        &["linear", path(&run), "--train", path(&data), "--no-random"]
            .into_iter()
            .chain(["--method", "sgd", "--epochs", "2", "--batch", "5", "--json"])
            .collect::<Vec<_>>(),
    )
    .expect(0, &words)
    .json();
    assert_eq!((&sgd["settings"]["batch"], &sgd["data"]["set_apart"]), (&5.into(), &true.into()));
    for more in [&[][..], &["--head-layers", "1"], &["--seed", "5"]] {
        let told = measure("finetune", &[&["--labels", "6", "--epochs", "1"][..], more].concat());
        assert!(!told.err.contains("in place of"), "{}", told.err);
    }
    // The best checkpoint was chosen by labels of images that may be among those set apart here.
    let best = ["knn", path(&run), "--train", path(&data), "--no-random", "--best", "--k", "7"];
    simclr(&best).expect(0, &["warning: --best: this checkpoint was chosen by the labels"]);
    let other = dir.path().join("other");
    numbered_folders(&other, 3, 100..102);
    let reply = simclr(&[&best[..], &["--test", path(&other)]].concat()).expect(0, &[]);
    assert!(!reply.err.contains("--best: "), "{}", reply.err);

    let words = [
        "finetune",
        path(&run),
        "--train",
        path(&other),
        "--test",
        path(&data),
        "--no-random",
        "--epochs",
        "1",
    ];
    simclr(&[&words[..], &["--labels", "100%"]].concat()).expect(0, &[]);
    measure("finetune", &["--labels", "50%", "--epochs", "1"]);
    simclr(&["report", path(&run)]).expect(0, &[]);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    // Each of the figures that are shown side by side says which images it is of.
    let tiles =
        [(&other, "6 test images of"), (&data, "18 images set apart from"), (&data, "96 test images of")];
    for (set, images) in tiles {
        let note = format!("<dd class=\"note\">{images} {}</dd>", path(set));
        assert!(page.contains(&note), "no {note} in {page}");
    }
    let judged = format!("<small>k = 7</small><br><small>6 test images of {}", path(&other));
    let apart = format!("<small>18 images set apart from {}</small>", path(&data));
    for words in
        [&judged, &apart, "<small>2 epochs of batch 5 at rate 0.1</small>", "<h2>Accuracy by class</h2>\n"]
    {
        assert!(page.contains(words), "no {words} in {page}");
    }
    // Results that keep a layer of the head come after those that do not.
    let place = |words: &str| page.find(words).unwrap();
    assert!(
        place("<dt>fine-tuning, 6 labels, epochs 1, seed 5")
            < place("<dt>fine-tuning, 6 labels, from head layer 1")
    );
    let shares = ["<dt>fine-tuning, 6 labels", "<dt>fine-tuning, 50% of", "<dt>fine-tuning, 100% of"];
    assert!(shares.map(place).is_sorted(), "{page}");
    assert!(page.contains("<dt>fine-tuning, 6 labels, epochs 1</dt>"), "{page}");
    let written: Value = serde_json::from_slice(&fs::read(run.join("evaluation/knn.json")).unwrap()).unwrap();
    assert_eq!((&written["details"]["k"], &written["data"]["test"]), (&7.into(), &path(&other).into()));
}

#[test]
fn arguments_reach_what_is_trained() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let settings = |words: &[&str]| {
        let data = ["--train", path(&data), "--no-random", "--json"];
        let words = [&words[..1], &[path(&run)], &data, &words[1..]].concat();
        simclr(&words).expect(0, &[]).json()["settings"].clone()
    };
    // The seed draws the images that choose the L2 weight.
    assert_eq!(settings(&["linear", "--seed", "3"])["seed"], 3);
    let sgd = &["linear", "--method", "sgd", "--epochs", "2"][..];
    let finetune = &["finetune", "--labels", "6", "--epochs", "2"][..];
    for (usual, changes) in [
        (sgd, &[("--rate", "0.5"), ("--seed", "3")][..]),
        (finetune, &[("--rate", "0.5"), ("--seed", "3"), ("--weight-decay", "0.5")]),
    ] {
        let before = settings(usual);
        for &(argument, value) in changes {
            let after = settings(&[usual, &[argument, value]].concat());
            let key = argument.trim_start_matches('-').replace('-', "_");
            assert_eq!(after[&key].as_f64(), value.parse().ok(), "{usual:?} {argument}: {after}");
            assert_ne!(after["train_loss"], before["train_loss"], "{usual:?} {argument}");
        }
    }
}

/// If most images are of one class and all of them are neighbours, every image is taken for that class.
#[test]
fn one_answer_to_everything_is_warned_of() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let uneven = dir.path().join("uneven");
    class_folders(&uneven, 1, 60);
    class_folders(&uneven, 3, 5);
    let measure = |more: &[&str]| {
        let words = ["knn", path(&run), "--train", path(&uneven)];
        simclr(&[&words[..], more].concat()).expect(0, &[])
    };
    let told = measure(&["--k", "200"]);
    assert!(
        told.out.starts_with("kNN, k = 56, all there are to learn from: trained on 56 images"),
        "{}",
        told.out
    );
    for name in ["SimCLR", "random encoder"] {
        let words = format!("warning: {name}: all 14 test images were classified as \"class 0\", so");
        assert!(told.err.contains(&words) && told.err.contains("a smaller --k"), "{}", told.err);
    }
    simclr(&["report", path(&run)]).expect(0, &[]);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("<p class=\"warning\">All test images were classified as class 0: "), "{page}");
    assert!(page.contains("<dd class=\"note\">always class 0 would be right on "), "{page}");
    let told = measure(&[]);
    assert!(
        told.out.starts_with("kNN, k = 5: trained on 56 images") && !told.err.contains("were classified as"),
        "{}{}",
        told.out,
        told.err
    );
}

#[test]
fn images_without_labels_have_neighbours_and_maps() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let (few, one) = (dir.path().join("few"), dir.path().join("one"));
    fs::create_dir(&few).unwrap();
    (0..6).for_each(|number| picture(20, 1, number).save(few.join(format!("{number}.png"))).unwrap());
    class_folders(&one, 1, 24);
    let page = |images: &Path| {
        let words = ["report", path(&run), "--train", path(images), "--device", "cpu"];
        simclr(&words).expect(0, &["no classes: neighbours and maps are of all images"]);
        fs::read_to_string(run.join("report.html")).unwrap()
    };
    // Each image is shown beside all others and not beside itself; there are too few for a map.
    let shown = page(&few);
    assert_eq!(shown.matches(".png, cosine similarity").count(), 6 * 5);
    assert!(!shown.contains("<h2>Maps"));
    // A single class counts as none.
    let shown = page(&one);
    assert_eq!(shown.matches(".png, cosine similarity").count(), 10 * 8);
    assert!(shown.contains("<p>24 images by t-SNE") && shown.contains("<h2>Nearest neighbours"), "{shown}");
    assert_eq!(shown.matches(" r=\"6.0\"><title>").count(), 2 * 24);
    assert!(!shown.contains("class 0") && !shown.contains("same class"), "{shown}");
    // The pictures are kept while they are of the newest checkpoint, even on a page elsewhere.
    let elsewhere = dir.path().join("page.html");
    for out in [&run.join("report.html"), &elsewhere] {
        let told = ["neighbours and maps of images are those of the page before", path(out)];
        simclr(&["report", path(&run), "--out", path(out)]).expect(0, &told);
        assert_eq!(fs::read_to_string(out).unwrap(), shown);
    }
    let newest = run.join("checkpoints/step-00000003.safetensors");
    fs::copy(&newest, newest.with_file_name("step-00000004.safetensors")).unwrap();
    simclr(&["report", path(&run)]).expect(0, &["left out: those before are of step 3", "--train DATA"]);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("<h2>Training") && !page.contains("<h2>Nearest neighbours"), "{page}");
    let said = simclr(&["report", path(&run)]).expect(0, &["report.html"]).err;
    assert!(!said.contains("neighbours"), "{said}");
    let told = ["are left out: only the run's own page keeps them, not ", path(&elsewhere)];
    simclr(&["report", path(&run), "--out", path(&elsewhere)]).expect(0, &told);
    for (page, wrong) in [("page.txt", ".html"), ("no/page.html", "there is no folder")] {
        let page = dir.path().join(page);
        simclr(&["report", path(&run), "--out", path(&page)]).expect(2, &[path(&page), wrong]);
    }
    // Test images require labels.
    let words = ["report", path(&run), "--train", path(&few), "--test", path(&few)];
    simclr(&words).expect(2, &["the training images have no labels"]);
    simclr(&["report", path(&run), "--device", "gpu"]).expect(2, &["--device"]);
}

#[test]
fn long_names_keep_columns_straight() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let (long, longer) = ("a name of thirty letters or so", "n".repeat(60));
    fs::rename(data.join("class 0"), data.join(long)).unwrap();
    fs::rename(data.join("class 1"), data.join(&longer)).unwrap();
    let table = simclr(&["knn", path(&run), "--train", path(&data)]).expect(0, &[]).out;
    let lines =
        table.lines().skip(2).filter(|line| !line.starts_with("always") && !line.ends_with("by class"));
    let ends: Vec<usize> = lines.map(|line| line.find('%').unwrap()).collect();
    assert!(ends.len() == 5 && ends.iter().all(|end| *end == ends[0]), "{table}");
    assert!(table.contains(long) && table.contains(&format!("~{}", &longer[..39])), "{table}");
}
