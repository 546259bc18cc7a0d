//! Bad input of every kind gives a clear message and the right exit code; nothing panics, and nothing is lost.

mod common;

use std::fs;

use common::{
    checkpoints, class_folders, flip_a_byte, path, picture, pretrain, resume, shell, simclr, small_data,
};
use image::RgbImage;
use tempfile::tempdir;

const JPEG: &[u8] = include_bytes!("../../data/tests/golden/colour.jpg");

#[test]
fn a_path_that_is_not_there() {
    let dir = tempdir().unwrap();
    let (nowhere, out) = (dir.path().join("nowhere"), dir.path().join("run"));
    simclr(&pretrain(&nowhere, &out, &[])).expect(2, &["error:", path(&nowhere), "no such file or folder"]);
    assert!(!out.exists());
    let (dir, data) = small_data();
    let config = dir.path().join("no.toml");
    simclr(&["pretrain", path(&data), "--out", path(&out), "--config", path(&config)])
        .expect(2, &["no.toml", "no such file"]);
    for (given, wrong) in [(&data, "is a folder"), (&data.join("class 0/0.png"), "is not text")] {
        simclr(&["pretrain", path(&data), "--out", path(&out), "--config", path(given)])
            .expect(2, &[path(given), wrong, "give a TOML file"]);
    }
    let from = ["pretrain", path(&data), "--out", path(&out), "--from", path(&nowhere)];
    simclr(&from).expect(2, &["--from: ", "nowhere holds no run: there is no such folder"]);
    simclr(&["report", path(&data.join("class 0/0.png"))]).expect(2, &["holds no run: it is a file"]);
    for command in ["knn", "linear", "finetune"] {
        simclr(&[command, path(&nowhere), "--train", path(&data)]).expect(2, &["holds no run"]);
    }
    simclr(&["report", path(&nowhere)])
        .expect(2, &["holds no run", "; a run is the folder that was given to pretrain --out\n"]);
    simclr(&resume(&data, &nowhere)).expect(2, &["holds no run"]);
    let grid = nowhere.join("grid.png");
    simclr(&["views", path(&data), "--out", path(&grid)]).expect(2, &["no folder"]);
    simclr(&["views", path(&data), "--out", path(&dir.path().join("grid.jpg"))]).expect(2, &[".png"]);
}

/// Opening a pipe would wait for ever, and reading a device might never end.
#[test]
#[cfg(unix)]
fn what_is_no_regular_file_is_not_opened() {
    let (dir, data) = small_data();
    let [run, pipe, new] = ["run", "pipe.toml", "new"].map(|name| dir.path().join(name));
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    shell("mkfifo \"$1\" \"$1.npy\"", &[&pipe]).expect(0, &[]);
    let image = data.join("class 0/0.png");
    for special in [path(&pipe), "/dev/zero"] {
        for words in [
            &["pretrain", path(&data), "--out", path(&new), "--config", special][..],
            &["transfer", path(&run), special],
            &["ablate", special, path(&data), "--out", path(&new)],
            &["import", special, "--out", path(&new)],
            &["search", path(&run), "--query", path(&image), "--features", special],
            &["predict", special, path(&data)],
        ] {
            simclr(words).expect(2, &[&format!("{special}: is not a regular file; give a")]);
        }
    }
    let suite = dir.path().join("suite.toml");
    let set = "[[set]]\nname = \"a\"\ntrain = \"data/class 0\"\ntest = \"data/class 1\"\n\
        metric = \"map11\"\nlabels = \"pipe.toml\"\n";
    fs::write(&suite, set).unwrap();
    simclr(&["transfer", path(&run), path(&suite)])
        .expect(2, &["pipe.toml: is not a regular file; give a table"]);
    // It is not replaced either.
    let out = ["embed", path(&run), path(&data), "--out", &format!("{}.npy", path(&pipe))];
    simclr(&out).expect(2, &["pipe.toml.npy: is not a regular file"]);
}

#[test]
fn folders_without_images() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    simclr(&pretrain(&empty, &out, &[])).expect(2, &[path(&empty), "no images"]);
    let papers = dir.path().join("papers");
    fs::create_dir(&papers).unwrap();
    fs::write(papers.join("a.txt"), "words").unwrap();
    fs::write(papers.join("b.pdf"), "%PDF").unwrap();
    simclr(&pretrain(&papers, &out, &[])).expect(2, &[path(&papers), "no images", "2 other files", "JPEG"]);
    simclr(&["data", "shards/*.tar"]).expect(2, &["shards/*.tar", "{000..146}"]);
    simclr(&["data", "shard-{9..0}.tar"]).expect(2, &["{9..0} is not a range"]);
    simclr(&["data", path(&papers.join("b.pdf"))])
        .expect(2, &["b.pdf: is not a data set", "not an image (.pdf)"]);
    simclr(&pretrain(&papers.join("a.txt"), &out, &[])).expect(2, &["a.txt", "give a folder"]);
    assert!(!out.exists());
}

#[test]
fn broken_images_are_skipped_counted_and_listed() {
    let (dir, data) = small_data();
    let folder = data.join("class 1");
    fs::write(folder.join("cut.jpg"), &JPEG[..JPEG.len() - 60]).unwrap();
    fs::write(folder.join("noise.jpg"), (0..999u32).map(|i| (i * i / 7) as u8).collect::<Vec<u8>>()).unwrap();
    fs::write(folder.join("notes.txt"), "a text among images").unwrap();
    RgbImage::new(1, 1).save(folder.join("one.png")).unwrap();
    RgbImage::new(30_000, 2).save(folder.join("wide.png")).unwrap();
    let out = dir.path().join("run");
    // Two epochs of two steps use all 50 good images, and so meet every broken one.
    let reply = simclr(&pretrain(&data, &out, &["train.batch=25"]))
        .expect(0, &["1 other file left out", "2 images could not be used", "skipped.jsonl"]);
    assert!(reply.err.contains("52 images"), "{}", reply.err);
    // If the last epoch has just reported them, the end of the run does not repeat it.
    let told = |reply: &common::Reply| reply.err.matches("could not be used").count();
    let all = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let last = all.lines().rfind(|line| line.contains("\"kind\":\"epoch\"")).unwrap();
    let first = all.lines().find(|line| line.contains("\"kind\":\"epoch\"")).unwrap();
    let skipped = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["skipped"].as_u64();
    let warnings = 1 + usize::from(skipped(first) > Some(0) && skipped(last) > skipped(first));
    let again = usize::from(skipped(first) == skipped(last));
    assert_eq!(told(&reply), warnings + again, "{}", reply.err);
    let listed = fs::read_to_string(out.join("skipped.jsonl")).unwrap();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("cut.jpg") && listed.contains("noise.jpg"), "{listed}");
    let knn = ["knn", path(&out), "--train", path(&data), "--json"];
    let reply = simclr(&knn).expect(0, &["without 2 images that could not be read", "evaluation/knn.json"]);
    assert_eq!(reply.json()["skipped"], 2);
    let written = fs::read_to_string(out.join("evaluation/knn.json")).unwrap();
    assert!(written.contains("class 1/cut.jpg") && written.contains("not an image"), "{written}");
    let strict =
        [&pretrain(&data, &dir.path().join("strict"), &["train.batch=25"])[..], &["--strict".into()]];
    simclr(&strict.concat()).expect(1, &[path(&data), "data.strict", "class 1/", ".jpg: "]);
    for command in [&knn[..], &["linear", path(&out), "--train", path(&data), "--method", "sgd"]] {
        simclr(&[command, &["--strict"]].concat()).expect(1, &["error: class 1/", ".jpg: "]);
    }
}

/// A missing device is named, and the folder of a run that cannot begin is removed.
#[test]
#[cfg(not(feature = "cuda"))]
fn a_device_that_is_not_there() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    for device in ["cuda", "cuda:9"] {
        let given = [&pretrain(&data, &out, &[])[..], &["--device".into(), device.into()]].concat();
        let name = format!("--device {device} (train.device): ");
        simclr(&given).expect(1, &[&name, "feature `cuda`", "cargo install", "simclr doctor"]);
        simclr(&["bench", "step", "--device", device]).expect(1, &[&name, "feature `cuda`"]);
    }
    let sets = ["train.batch=25", "train.device=cuda"];
    simclr(&pretrain(&data, &out, &sets)).expect(1, &["--device cuda", "train.device", "feature `cuda`"]);
    assert!(!out.exists());
    simclr(&pretrain(&data, &out, &["train.device=gpu"])).expect(2, &["train.device", "cuda:N"]);
    assert!(!out.exists());
}

/// Broken images are remembered, both in the small held-out part and across a resumption.
#[test]
fn broken_images_are_remembered() {
    let (dir, data) = small_data();
    for class in 0..3 {
        for number in 0..3 {
            fs::write(data.join(format!("class {class}/{number}.png")), "no image").unwrap();
        }
    }
    let out = dir.path().join("run");
    let sets = ["data.holdout=8", "train.batch=8", "train.checkpoint_every=1", "train.keep_checkpoints=99"];
    // An epoch's last batch may leave some images unread, so other epochs meet the broken ones among them.
    simclr(&pretrain(&data, &out, &[&sets[..], &["train.epochs=6"]].concat()))
        .expect(0, &["could not be used"]);
    let listed = fs::read_to_string(out.join("skipped.jsonl")).unwrap();
    assert!(listed.lines().count() > 3, "{listed}");
    fs::remove_file(checkpoints(&out).pop().unwrap()).unwrap();
    simclr(&resume(&data, &out)).expect(0, &["resuming after step"]);
    assert_eq!(fs::read_to_string(out.join("skipped.jsonl")).unwrap(), listed);
}

#[test]
fn nothing_but_broken_images() {
    let dir = tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("run"));
    fs::create_dir(&data).unwrap();
    for number in 0..20 {
        fs::write(data.join(format!("{number}.jpg")), "no image").unwrap();
    }
    simclr(&pretrain(&data, &out, &[])).expect(1, &["none of the images can be read", "0.jpg: "]);
    let photos = ["pretrain", path(&data), "--preset", "photos", "--dry-run"];
    let reply = simclr(&photos).expect(1, &["none of the images can be read"]);
    assert!(!reply.err.contains("0 x 0"), "{}", reply.err);
    // No step was taken, so the folder is free for another attempt.
    assert!(!out.exists());
    simclr(&["views", path(&data), "--out", path(&dir.path().join("grid.png"))])
        .expect(1, &["none of the images can be read"]);
    let reply = simclr(&["data", path(&data)]).expect(0, &[]);
    assert!(reply.out.contains("broken       20") && !reply.out.contains("width"), "{}", reply.out);
    let samples = dir.path().join("samples.png");
    simclr(&["data", path(&data), "--out", path(&samples)]).expect(1, &["samples.png", "none of the images"]);
    assert!(!samples.exists());
}

/// Whatever a library does with a damaged table, the user sees an error: `simclr` asserts that no panic is shown.
#[test]
fn damaged_tables() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("a.parquet");
    let whole = include_bytes!("../../data/tests/golden/parquet/gzip.parquet");
    // Positions at which damage makes the Parquet reader panic.
    for at in [2160, 2461, 3353] {
        let mut damaged = whole.to_vec();
        damaged[at] ^= 0x55;
        fs::write(&file, damaged).unwrap();
        simclr(&["data", path(&file)]).expect(1, &["a.parquet: ", "the Parquet reader failed on it"]);
    }
}

#[test]
fn cifar_files_cut_short() {
    let dir = tempdir().unwrap();
    let (data, out) = (dir.path().join("cifar"), dir.path().join("run"));
    fs::create_dir(&data).unwrap();
    for batch in 1..=5 {
        let records = if batch == 3 { 3073 * 9 - 100 } else { 3073 * 9 };
        fs::write(data.join(format!("data_batch_{batch}.bin")), vec![1; records]).unwrap();
    }
    fs::write(data.join("test_batch.bin"), vec![1; 3073]).unwrap();
    simclr(&pretrain(&data, &out, &[])).expect(1, &["data_batch_3.bin", "3073"]);
    assert!(!out.exists());
}

#[test]
fn a_batch_larger_than_the_data_set() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    for extra in [&[][..], &["--dry-run"]] {
        let mut words = pretrain(&data, &out, &["train.batch=49"]);
        words.extend(extra.iter().map(|&word| word.to_owned()));
        let reply = simclr(&words).expect(2, &["train.batch is 49", "48 images", "lower train.batch"]);
        assert!(!reply.err.contains("data.holdout"), "none are held out: {}", reply.err);
        assert!(!out.exists());
    }
    let single = dir.path().join("single");
    class_folders(&single, 1, 1);
    simclr(&pretrain(&single, &out, &[])).expect(2, &["only 1 image to train on", "give at least 2"]);
    assert!(!out.exists());
}

#[test]
fn keys_without_effect_are_warned_of() {
    let (dir, data) = small_data();
    let sets = ["loss.margin=0.4", "head.kind=none", "head.dim=64", "train.epochs=1", "--dry-run"];
    let told = simclr(&pretrain(&data, &dir.path().join("run"), &sets));
    let told = told.expect(0, &["loss.margin has no effect with loss.name=nt_xent"]).err;
    assert!(told.contains("head.dim has no effect with head.kind=none"), "{told}");
    assert_eq!(told.matches("has no effect").count(), 2, "{told}");
}

#[test]
fn a_stem_for_large_images_is_warned_of_once_where_images_are_small() {
    let (dir, data) = small_data();
    let told = |sets: &[&str]| {
        let sets = [sets, &["--dry-run"]].concat();
        let reply = simclr(&pretrain(&data, &dir.path().join("run"), &sets)).expect(0, &[]);
        reply.err.matches("encoder.stem=imagenet leaves").count()
    };
    let [imagenet, small] = ["encoder.stem=imagenet", "encoder.stem=small"];
    assert_eq!([told(&[imagenet]), told(&["data.image_size=32", imagenet])], [1, 1]);
    assert_eq!([told(&[]), told(&[small]), told(&[imagenet, "data.image_size=64"])], [0, 0, 0]);
    // What an imported network has is meant.
    let begun = dir.path().join("begun");
    simclr(&pretrain(&data, &begun, &[imagenet, "train.epochs=1"]))
        .expect(0, &["leaves 4 x 4 of 16 x 16 pixels"]);
    assert_eq!(told(&[&format!("train.from={}", path(&begun))]), 0);
}

#[test]
fn settings_that_make_no_sense() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    for (set, words) in [
        ("encoder.width=0", &["encoder.width", "0"][..]),
        ("encoder.width=-1", &["encoder.width"]),
        ("loss.temperature=0", &["loss.temperature", "from 1e-30"]),
        ("loss.temperature=nan", &["loss.temperature"]),
        ("optim.rte=1", &["optim.rte", "optim.rate"]),
        ("batch=8", &["train.batch"]),
        ("train.batch=many", &["train.batch", "many"]),
        ("train.epochs=0", &["train.epochs"]),
        ("train.precision=f16", &["train.precision", "f32", "bf16", "fp16"]),
        ("view.crop_area=[0.0, 2.0]", &["view.crop_area"]),
        ("optim.warmup_epochs=5", &["optim.warmup_epochs", "train.epochs"]),
    ] {
        simclr(&pretrain(&data, &out, &[set])).expect(2, words);
    }
    let file = dir.path().join("c.toml");
    let given = ["pretrain", path(&data), "--out", path(&out), "--config", path(&file)];
    fs::write(&file, "[trian]\nbatch = 8\n").unwrap();
    simclr(&given).expect(2, &["c.toml, line 2: unknown key `trian.batch`; did you mean `train.batch`?"]);
    fs::write(&file, "[train\nbatch = 8\n").unwrap();
    simclr(&given).expect(2, &["c.toml"]);
    simclr(&["pretrain", path(&data), "--out", path(&out), "--preset", "cifar11"]).expect(2, &["cifar10"]);
    simclr(&["pretrain", path(&data), "--out", path(&out), "--threads", "0"])
        .expect(2, &["--threads", "from 1 to 1,024"]);
    simclr(&["bench", "views", path(&data), "--size", "4"]).expect(2, &["--size", "from 8 to 1,024"]);
    simclr(&["pretrain", path(&data), "--out", path(&out), "--set", "train.batch"])
        .expect(2, &["table.key=value"]);
    simclr(&["pretrain", path(&data)]).expect(2, &["--out"]);
    simclr(&["pretrian"]).expect(2, &["pretrain"]);
    simclr(&["bench", "step", "--views", "7"]).expect(2, &["--views 7", "even"]);
    for (arguments, words) in [
        (&["--encoder", "resnet19"][..], &["--encoder is \"resnet19\"", "resnet18"][..]),
        (&["--memory", "half"], &["--memory is \"half\"", "blocks"]),
        (&["--memory", ""], &["--memory: the value is missing"]),
        (&["--width", "1e-9"], &["--width is", "from 0.015625 to 16"]),
        (&["--size", "-5"], &["--size is -5", "from 8 to 1,024"]),
        (&["--views", "2"], &["--views", "from 4 to 2,097,152"]),
        (&["--views", "many"], &["--views", "from 4 to 2,097,152"]),
        (&["--threads", "5000"], &["--threads", "from 1 to 1,024"]),
        (&["--views-on", "gpu"], &["--data"]),
    ] {
        simclr(&[&["bench", "step"], arguments].concat()).expect(2, words);
    }
    // Reported before anything is measured.
    let reply = simclr(&["bench", "step", "--data", "nowhere", "--steps", "65535"]);
    assert!(reply.expect(2, &["nowhere: no such file or folder"]).out.is_empty());
    simclr(&["bench", "step", "--isa", "sse"]).expect(2, &["sse", "portable", "avx512bf16"]);
    simclr(&["bench", "step", "--precision", "fp8"]).expect(2, &["precision", "f32", "bf16", "fp16"]);
    simclr(&["bench", "step", "--precision", "fp16"]).expect(2, &["fp16", "GPU", "bf16", "f32"]);
    let on_cpu = ["train.precision=fp16", "train.device=cpu"];
    let dry = |sets: &[&str]| [&pretrain(&data, &out, sets)[..], &["--dry-run".to_owned()]].concat();
    for words in [pretrain(&data, &out, &on_cpu), dry(&on_cpu)] {
        simclr(&words).expect(2, &["fp16", "GPU", "bf16", "f32"]);
    }
    simclr(&dry(&["data.views_on=gpu", "train.device=cpu"])).expect(2, &["data.views_on", "auto"]);
    assert!(!out.exists());
    for (command, argument, words) in [
        ("knn", ["--k", "-1"], "at least 1"),
        ("knn", ["--temperature", "-1"], "a number above 0"),
        ("linear", ["--rate", "nan"], "a number above 0"),
        ("linear", ["--batch", "x"], "at least 1"),
        ("linear", ["--seed", "-1"], "of 0 or more"),
        ("linear", ["--epochs", "3"], "--method sgd"),
        ("linear", ["--weight-decay", "1e-6"], "--weight-decay is for --method sgd"),
        ("finetune", ["--labels", "0%"], "a share, such as 1%"),
        ("finetune", ["--labels", "many"], "a share, such as 1%"),
        ("finetune", ["--weight-decay", "-1"], "a number of 0 or more"),
        ("finetune", ["--rate", "0"], "a number above 0"),
        ("finetune", ["--rate", "0.1,fast"], "or tuned"),
        ("finetune", ["--head-layers", "-1"], "invalid"),
    ] {
        let given = [command, "run", "--train", path(&data), argument[0], argument[1]];
        simclr(&given).expect(2, &[argument[0], words]);
    }
}

#[test]
fn keys_that_are_given_as_options_or_as_data() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    let words = ["pretrain", path(&data), "--out", path(&out)];
    for (given, set) in [
        (&["--epochs", "5"][..], "--set train.epochs=5"),
        (&["--batch-size=64"], "--set train.batch=64"),
        (&["--temperature"], "--set loss.temperature=..."),
    ] {
        let reply = simclr(&[&words[..], given].concat()).expect(2, &["unexpected argument", set]);
        assert!(!reply.err.contains("similar argument"), "{}", reply.err);
    }
    let reply = simclr(&[&words[..], &["--nonsense"]].concat()).expect(2, &["unexpected argument"]);
    assert!(!reply.err.contains("this is a key"), "{}", reply.err);
    // A command that takes no keys.
    let reply = simclr(&["doctor", "--epochs", "5"]).expect(2, &["unexpected argument"]);
    assert!(!reply.err.contains("this is a key"), "{}", reply.err);
    for (words, tip) in [
        (&["search", "run", "a", "--query", "b", "--top", "5"][..], Some("did you mean --k?")),
        (&["search", "run", "a", "--query", "b", "-k", "5"], Some("options have no short forms here: --k")),
        (&["knn", "run", "--train", "a", "--labels", "5"], Some("--labels is an option of simclr finetune")),
        (&["pretrain", "a", "-o", "run"], Some("options have no short forms here: --out")),
        (&["views", "a", "--out", "b.png", "--count", "0"], Some("did you mean --images?")),
        (&["linear", "run", "--train", "a", "--epoch", "5"], Some("a similar argument exists: '--epochs'")),
        (&["linear", "run", "--train", "a", "--nonsense"], None),
    ] {
        let reply = simclr(words).expect(2, &["unexpected argument"]);
        let tips: Vec<&str> =
            reply.err.lines().filter_map(|line| line.trim().strip_prefix("tip: ")).collect();
        assert_eq!(tips, tip.into_iter().collect::<Vec<_>>(), "{words:?}");
        assert!(!reply.err.contains("--config"), "{}", reply.err);
    }
    simclr(&[&words[..], &["train.epochs=40"]].concat())
        .expect(2, &["train.epochs=40: no such file or folder", "--set train.epochs=40"]);
    assert!(!out.exists());
}

/// None of the two wins in silence.
#[test]
fn an_option_and_a_setting_that_contradict_each_other() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    let dry = |words: &[&str]| {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        simclr(&[pretrain(&data, &out, &[]), words, vec!["--dry-run".to_owned()]].concat())
    };
    for (option, value, set) in [
        ("--seed", "1", "train.seed=2"),
        ("--seed", "0", "train.seed = 7"),
        ("--threads", "1", "train.threads=2"),
        ("--threads", "1", "train.threads=auto"),
        ("--device", "cpu", "train.device=auto"),
    ] {
        let option = if option == "--threads" { vec![] } else { vec![option, value] };
        let words = [&option[..], &["--set", set]].concat();
        let told = format!("{value} contradicts --set {set}");
        dry(&words).expect(2, &[&told]);
    }
    dry(&["--seed", "1", "--set", "train.seed=2", "train.seed=1", "train.threads=1"]).expect(0, &[]);
    dry(&["--device", "cpu", "--set", "train.device=\"cpu\""]).expect(0, &[]);
    simclr(&["quickstart", "--out", path(&out), "--seed", "1", "--set", "train.seed=2"])
        .expect(2, &["--seed 1 contradicts --set train.seed=2"]);
    dry(&["--strict", "--set", "data.strict=false"])
        .expect(2, &["--strict contradicts --set data.strict=false"]);
    dry(&["--strict", "--set", "data.strict=true"]).expect(0, &[]);
    simclr(&["bench", "views", path(&data), "--size", "32", "--set", "data.image_size=48"])
        .expect(2, &["--size 32 contradicts --set data.image_size=48"]);
    assert!(!out.exists());
}

#[test]
fn an_output_folder_that_is_taken() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    simclr(&pretrain(&data, &out, &[])).expect(0, &[]);
    let before = fs::read(&checkpoints(&out)[0]).unwrap();
    simclr(&pretrain(&data, &out, &[])).expect(2, &["already holds a run", "or continue this one: --resume"]);
    simclr(&["quickstart", "--out", path(&out)]).expect(2, &["already holds a run", "--force"]);
    // A quickstart would replace its results by those on made images.
    simclr(&["quickstart", "--out", path(&out), "--resume"]).expect(2, &["a run of pretrain"]);
    fs::remove_file(out.join("data.index")).unwrap();
    simclr(&["quickstart", "--out", path(&out), "--resume"]).expect(2, &["a run of pretrain"]);
    assert!(!out.join("evaluation").exists());
    assert_eq!(fs::read(&checkpoints(&out)[0]).unwrap(), before);
    let mut other = resume(&data, &out);
    other.extend(["--set", "train.batch=8"].map(str::to_owned));
    simclr(&other).expect(2, &["train.batch", "16", "8"]);

    let forced = ["quickstart", "--force", "--out", path(&out)];
    simclr(&forced).expect(2, &["on data of yours", "which quickstart does not replace"]);
    // What replaces a run is checked before that is removed; here one without data, as quickstart's own.
    let marker = out.join("run.toml");
    let record = fs::read_to_string(&marker).unwrap();
    let lines =
        record.lines().filter(|line| !line.starts_with("data") && !line.starts_with("working_folder"));
    fs::write(&marker, lines.collect::<Vec<_>>().join("\n")).unwrap();
    for (set, told) in [
        ("train.epohcs=20", "train.epochs"),
        ("train.batch=100000", "train.batch is 100,000"),
        ("train.device=cuda:99", "cuda:99"),
        ("optim.warmup_epochs=99", "optim.warmup_epochs"),
    ] {
        let reply = simclr(&["quickstart", "--force", "--out", path(&out), "--images", "110", "--set", set]);
        assert!(reply.code != Some(0) && reply.err.contains(told), "{}", reply.err);
        assert_eq!(fs::read(&checkpoints(&out)[0]).unwrap(), before);
    }
    fs::write(&marker, record).unwrap();

    let forced = |sets: &[&str]| [pretrain(&data, &out, sets), vec!["--force".to_owned()]].concat();
    for (set, told) in [
        ("train.epohcs=20", "train.epochs"),
        ("train.batch=100000", "train.batch is 100,000"),
        ("train.device=cuda:99", "cuda:99"),
    ] {
        let reply = simclr(&forced(&[set]));
        assert!(reply.code != Some(0) && reply.err.contains(told), "{}", reply.err);
    }
    let from = [forced(&[]), ["--from", path(&out)].map(str::to_owned).to_vec()].concat();
    for words in [from.clone(), [from, vec!["--dry-run".to_owned()]].concat()] {
        simclr(&words).expect(2, &["train.from is", "which --force removes"]);
    }
    let inside = out.join("evaluation");
    class_folders(&inside, 2, 16);
    let words = [pretrain(&inside, &out, &[]), vec!["--force".to_owned()]].concat();
    simclr(&words).expect(2, &["evaluation is in the run", "take it elsewhere"]);
    fs::remove_dir_all(inside).unwrap();
    simclr(&[forced(&[]), vec!["--resume".to_owned()]].concat()).expect(2, &["--force", "--resume"]);
    let workers = ["--workers", "2"].map(str::to_owned);
    simclr(&[forced(&[]), workers.to_vec()].concat()).expect(2, &["several workers replace no run"]);
    simclr(&[forced(&[]), vec!["--dry-run".to_owned()]].concat()).expect(0, &["would train"]);
    fs::write(out.join("notes.txt"), "words").unwrap();
    simclr(&forced(&[])).expect(2, &["holds notes.txt beside its run"]);
    fs::remove_file(out.join("notes.txt")).unwrap();
    assert_eq!(fs::read(&checkpoints(&out)[0]).unwrap(), before);

    let taken = dir.path().join("thesis");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("chapter.txt"), "words").unwrap();
    simclr(&pretrain(&data, &taken, &[])).expect(2, &["not empty", "give a new or an empty folder"]);
    let file = taken.join("chapter.txt");
    simclr(&pretrain(&data, &file, &[])).expect(1, &["chapter.txt", "give a folder"]);
    simclr(&["quickstart", "--force", "--out", path(&taken)]).expect(2, &["not empty"]);
    simclr(&[pretrain(&data, &taken, &[]), vec!["--force".to_owned()]].concat()).expect(2, &["not empty"]);
    assert_eq!(fs::read_to_string(taken.join("chapter.txt")).unwrap(), "words");

    // A new run takes the place of the old one, and begins from its first step.
    let other = simclr(&forced(&["train.seed=9"])).expect(0, &[]);
    assert!(!other.err.contains("resuming"), "{}", other.err);
    assert_ne!(fs::read(&checkpoints(&out)[0]).unwrap(), before);

    // A run is not resumed on other data.
    let fewer = dir.path().join("fewer");
    class_folders(&fewer, 2, 16);
    let unfinished = dir.path().join("unfinished");
    simclr(&pretrain(&data, &unfinished, &["train.checkpoint_every=1", "train.keep_checkpoints=9"]))
        .expect(0, &[]);
    fs::remove_file(checkpoints(&unfinished).pop().unwrap()).unwrap();
    simclr(&resume(&fewer, &unfinished)).expect(2, &["48 images", "32", "same data"]);
}

#[test]
fn damaged_checkpoints_are_named_and_stepped_over() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    let whole = pretrain(&data, &out, &["train.checkpoint_every=1", "train.keep_checkpoints=9"]);
    simclr(&whole).expect(0, &[]);
    let encoder = fs::read(out.join("encoder.safetensors")).unwrap();
    let all = checkpoints(&out);
    assert_eq!(all.len(), 6);
    flip_a_byte(&all[5]);
    flip_a_byte(&all[4]);
    let knn = ["knn", path(&out), "--train", path(&data), "--json"];
    simclr(&knn).expect(0, &["warning:", "step-00000006", "step-00000005", "damaged"]);
    simclr(&resume(&data, &out)).expect(0, &["step-00000006", "damaged", "resuming after step 4"]);
    assert_eq!(fs::read(out.join("encoder.safetensors")).unwrap(), encoder);
    checkpoints(&out).iter().for_each(|file| flip_a_byte(file));
    simclr(&resume(&data, &out)).expect(1, &["all of the", "checkpoints"]);
    simclr(&knn).expect(1, &["all of the"]);
}

#[test]
fn a_run_of_a_newer_version() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    simclr(&pretrain(&data, &out, &[])).expect(0, &[]);
    fs::write(out.join("run.toml"), "format = 7\nprogram = \"9.9\"\n").unwrap();
    simclr(&resume(&data, &out)).expect(1, &["run.toml", "format 7", "9.9"]);
    simclr(&["knn", path(&out), "--train", path(&data)]).expect(1, &["format 7"]);
    fs::write(out.join("run.toml"), "\0\0\0").unwrap();
    simclr(&resume(&data, &out)).expect(1, &["run.toml", "damaged"]);
}

#[test]
fn labels_that_are_not_there() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    simclr(&pretrain(&data, &out, &[])).expect(0, &[]);
    let unlabelled = dir.path().join("unlabelled");
    fs::create_dir(&unlabelled).unwrap();
    for number in 0..4 {
        picture(8, 0, number).save(unlabelled.join(format!("{number}.png"))).unwrap();
    }
    simclr(&["knn", path(&out), "--train", path(&unlabelled)]).expect(2, &["no labels", "sub-folder"]);
    let class = data.join("class 0");
    let one_class = ["--train", path(&data), "--test", path(&class)];
    let reply = simclr(&[&["knn", path(&out)][..], &one_class].concat());
    let reply =
        reply.expect(2, &["the test images have no labels", "and one of them with more than one image"]);
    assert!(!reply.err.contains("in the training set as well"), "{}", reply.err);
    let swapped = format!("to pretrain --out; {} is one: were they swapped?\n", path(&out));
    let query = data.join("class 0/0.png");
    for words in [
        &["knn", path(&data), "--train", path(&out)][..],
        &["embed", path(&data), path(&out), "--out", "a.npy"],
        &["search", path(&data), path(&out), "--query", path(&query)],
        &["probe", path(&data), path(&out)],
        &["predict", path(&data), path(&out)],
    ] {
        simclr(words).expect(2, &["holds no run: ", &swapped]);
    }
    let strange = dir.path().join("strange");
    class_folders(&strange, 1, 2);
    fs::rename(strange.join("class 0"), strange.join("unicorn")).unwrap();
    class_folders(&strange, 1, 2);
    simclr(&["linear", path(&out), "--train", path(&data), "--test", path(&strange)]).expect(2, &["unicorn"]);
    let finetune = |words: &[&str]| {
        let run = ["finetune", path(&out), "--train", path(&data), "--no-random", "--epochs", "1"];
        simclr(&[&run[..], words].concat())
    };
    // 39 of the 48 images are left to train on.
    finetune(&["--labels", "5%"])
        .expect(2, &["5% of 39 labels is 2 images, fewer than the 3 classes; give a number from 3 to 39, or 100%: --labels 3"]);
    finetune(&["--labels", "99"]).expect(
        2,
        &["labels are to be 99, more than the 39 that there are; give a number from 3 to 39, or 100%"],
    );
    finetune(&["--head-layers", "9"]).expect(2, &["head layers are 9", "has 2"]);
    finetune(&["--labels", "6", "--batch", "7"]).expect(2, &["batch = 7", "6"]);
    finetune(&["--out", path(&data.join("class 0/0.png"))])
        .expect(2, &["0.png", "cannot write into the folder"]);
    let reply = finetune(&["--labels", "100%", "--rate", "1e30"]);
    reply.expect(1, &["the classifier's loss", "in epoch 1 at rate ", "lower the rate"]);
    assert!(!out.join("evaluation").exists());
}
