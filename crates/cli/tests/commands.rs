//! Every command does what its help says.

mod common;

use std::fs;
use std::path::Path;

use common::{checkpoints, class_folders, metrics, path, pretrain, resume, simclr, small_data};
use image::{ImageBuffer, Luma};
use safetensors::SafeTensors;
use serde_json::Value;

#[test]
fn help_of_everything() {
    let overview = simclr(&["--help"]).expect(0, &[]).out;
    let listed = overview.lines().skip_while(|line| *line != "Commands:").take_while(|line| !line.is_empty());
    // A command's description may continue, further indented, on the next line.
    let listed = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: Vec<&str> = listed.filter(|&command| !command.is_empty() && command != "help").collect();
    assert!(commands.len() >= 11 && commands.contains(&"data"), "{overview}");
    for command in commands {
        let help = simclr(&[command, "--help"]).expect(0, &[]).out;
        assert!(help.contains(&format!("Usage: simclr {command}")), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    assert!(simclr(&["bench", "step", "--help"]).expect(0, &[]).out.contains("--precision"));
    assert!(simclr(&["--version"]).expect(0, &[]).out.starts_with("simclr 0."));
    simclr::<&str>(&[]).expect(2, &["Usage: simclr"]);
}

#[test]
fn a_run_from_images_to_report() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    class_folders(&data, 3, 32);
    let run = dir.path().join("deep/run");
    let reply = simclr(&pretrain(&data, &run, &["data.holdout=8"]))
        .expect(0, &["8 held out", "epoch 2/2", "%  rank ", "  kNN ", "training/held out"]);
    assert!(reply.out.is_empty(), "messages belong on standard error: {}", reply.out);
    let epochs = metrics(&run).into_iter().filter(|line| line["kind"] == "epoch").count();
    assert_eq!(epochs, 2);
    let encoder = fs::read(run.join("encoder.safetensors")).unwrap();
    // 122 tensors of torchvision's ResNet-18, less the classifier's two.
    assert_eq!(SafeTensors::deserialize(&encoder).unwrap().len(), 120);
    simclr(&resume(&data, &run)).expect(0, &["is finished"]);

    let accuracy = |value: &Value| (0.0..=1.0).contains(&value.as_f64().expect("a fraction"));
    let knn = simclr(&["knn", path(&run), "--train", path(&data), "--k", "5", "--json"])
        .expect(0, &["set apart"])
        .json();
    assert!(accuracy(&knn["top1"]) && accuracy(&knn["random_top1"]), "{knn}");
    // With three classes the top-5 accuracy says nothing.
    assert!(knn["top5"].is_null());
    assert_eq!(knn["test_images"], 18);

    let parts = dir.path().join("parts");
    class_folders(&parts.join("train"), 6, 6);
    class_folders(&parts.join("test"), 6, 2);
    let linear = ["linear", path(&run), "--train", path(&parts), "--json"];
    let logistic = simclr(&linear).expect(0, &[]).json();
    assert!(accuracy(&logistic["top1"]) && accuracy(&logistic["top5"]), "{logistic}");
    assert_eq!((&logistic["train_images"], &logistic["test_images"]), (&36.into(), &12.into()));
    let (train, test) = (parts.join("train"), parts.join("test"));
    let sgd = simclr(
        &[
            &["linear", path(&run), "--train", path(&train), "--test", path(&test)][..],
            &["--method", "sgd", "--epochs", "2", "--no-random", "--json"],
        ]
        .concat(),
    )
    .expect(0, &[])
    .json();
    assert!(accuracy(&sgd["top1"]) && sgd["random_top1"].is_null(), "{sgd}");
    let of_z = simclr(&[&linear[..], &["--projection"]].concat()).expect(0, &["logistic_z.json"]).json();
    assert_eq!((&of_z["protocol"], of_z["top1"].is_f64()), (&"logistic_z".into(), true));
    let found = |result: &Value| {
        ["/confusion", "/settings/l2", "/settings/validation_top1", "/random_settings/validation_top1"]
            .map(|at| result.pointer(at).unwrap().clone())
    };
    assert_ne!(found(&of_z), found(&logistic));
    let by_sgd = ["--projection", "--method", "sgd", "--epochs", "2", "--weight-decay", "1e-6"];
    let of_z = simclr(&[&linear[..], &by_sgd].concat()).expect(0, &["linear_sgd_z.json"]).json();
    assert!(accuracy(&of_z["top1"]) && accuracy(&of_z["random_top1"]), "{of_z}");
    assert_eq!(of_z["settings"]["weight_decay"], 1e-6);
    for file in ["knn", "logistic", "logistic_z", "linear_sgd", "linear_sgd_z"] {
        let written = fs::read(run.join(format!("evaluation/{file}.json"))).unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert!(accuracy(&written["per_class"][0]["accuracy"]), "{written}");
    }
    fine_tune(&run, &parts, dir.path());
    let table = simclr(&["knn", path(&run), "--train", path(&data)]).expect(0, &[]).out;
    assert!(
        table.contains("SimCLR") && table.contains("random encoder") && table.contains("class 2"),
        "{table}"
    );

    simclr(&["report", path(&run), "--train", path(&parts)]).expect(0, &["report.html"]);
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("data:image/png") && page.contains("kNN"));
    assert!(page.contains("linear on z, logistic regression") && page.contains("linear on z, SGD"));
    assert!(page.contains("fine-tuning, 50% of the labels") && page.contains("from scratch"), "{page}");
}

/// Fine-tunes on half of the labels of 36 images of six classes.
fn fine_tune(run: &Path, parts: &Path, dir: &Path) {
    let finetune = ["finetune", path(run), "--train", path(parts), "--labels", "50%", "--epochs", "2"];
    let reply = simclr(&[&finetune[..], &["--json"]].concat()).expect(
        0,
        &[
            "18 of 36 labels: 2 epochs, 4 steps, batch 9",
            "needs about",
            "train.memory=full keeps every activation",
            "only 4 steps: --rate tuned or more --epochs usually do better",
            "finetune-50%-epochs-2.safetensors",
        ],
    );
    let result = reply.json();
    assert_eq!((&result["protocol"], &result["train_images"]), (&"finetune-50%-epochs-2".into(), &18.into()));
    assert!(result["top5"].is_f64() && result["random_top1"].is_f64(), "{result}");
    let bytes = fs::read(run.join("evaluation/finetune-50%-epochs-2.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 122);
    assert_eq!(file.tensor("fc.weight").unwrap().shape(), [6, 32]);
    let count = file.tensor("bn1.num_batches_tracked").unwrap();
    // The run's eleven steps and four more.
    assert_eq!(count.data(), &15_i64.to_le_bytes());
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    let settings: Value = serde_json::from_str(&metadata["finetune"]).unwrap();
    assert_eq!((&settings["epochs"], &settings["seed"]), (&2.into(), &0.into()));
    let classes = &metadata["classes"];
    assert!(classes.starts_with("[\"class 0\",") && classes.ends_with("\"class 5\"]"), "{classes}");

    let tuned = ["--rate", "tuned", "--json"];
    let reply = simclr(&[&finetune[..], &tuned].concat()).expect(
        0,
        &[
            "batch 9, the best of 4 rates, chosen on a fifth of the labels",
            "4 of 4: trained encoder, rate 0.0527: ",
            "4 of 4: random encoder, rate 0.0527: ",
        ],
    );
    let result = reply.json();
    assert_eq!(result["protocol"], "finetune-50%-epochs-2-rate-tuned");
    for settings in [&result["settings"], &result["random_settings"]] {
        let tried = settings["rates"].as_array().unwrap();
        assert!(
            tried.len() == 4 && tried.iter().any(|trial| trial["rate"] == settings["rate"]),
            "{settings}"
        );
    }

    let out = dir.join("tuned/here");
    let from_head = ["--head-layers", "1", "--no-random", "--out", path(&out)];
    let table = simclr(&[&finetune[..], &from_head].concat()).expect(0, &["tuned/here"]).out;
    // Its result is next to it, and none is written to the run.
    let name = "finetune-50%-head-1-epochs-2.json";
    assert!(out.join(name).is_file() && !run.join("evaluation").join(name).exists());
    assert!(
        table.contains("fine-tuning, 50% of the labels, from head layer 1, 2 epochs of batch 9 "),
        "{table}"
    );
    let bytes = fs::read(out.join("finetune-50%-head-1-epochs-2.safetensors")).unwrap();
    assert!(SafeTensors::deserialize(&bytes).unwrap().tensor("head.0.linear.weight").is_ok());
}

#[test]
fn keys_are_listed_as_a_file_that_can_be_used() {
    let listed = simclr(&["keys"]).expect(0, &[]).out;
    assert!(
        listed.contains("# tau, by which similarities are divided;")
            && listed.contains("held-out loss\n# (a number from 1e-30 to 1e30)"),
        "{listed}"
    );
    let (dir, data) = small_data();
    let file = dir.path().join("keys.toml");
    fs::write(&file, listed).unwrap();
    let given = ["pretrain", path(&data), "--dry-run", "--config", path(&file), "--set"];
    let steps = "would train on 48 images: 100 epochs, 1,200 steps of 4 images";
    simclr(&[&given[..], &["train.batch=4", "encoder.width=0.0625", "data.image_size=16"]].concat())
        .expect(0, &[steps, "peak learning rate 0.00469, after 120 steps of warm-up"]);
}

#[test]
fn keys_can_be_chosen() {
    let listed = |names: &[&str]| simclr(&[&["keys"][..], names].concat()).expect(0, &[]).out;
    let keys = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with('[') || line.starts_with('#'));
        let lines =
            lines.filter(|line| !line.starts_with("# ")).map(|line| line.split(" = ").next().unwrap());
        lines.map(str::to_owned).collect()
    };
    assert_eq!(keys(&listed(&["temperature"])), ["[loss]", "#temperature"]);
    assert_eq!(keys(&listed(&["loss.margin", "train.batch"])), ["[loss]", "#margin", "[train]", "#batch"]);
    let (all, loss) = (listed(&[]), listed(&["loss"]));
    assert!(keys(&loss).len() > 3 && all.contains(loss.trim_end()), "{loss}");
    assert!(listed(&["view.a"]).contains("#op = \"sobel\"") && listed(&["view"]).contains("#op = \"sobel\""));
    for (name, hint) in
        [("tran", "did you mean the table [train]?"), ("loss.temprature", "`loss.temperature`?")]
    {
        simclr(&["keys", "loss", name]).expect(2, &[&format!("keys: unknown key `{name}`"), hint]);
    }
}

#[test]
fn a_dry_run_prints_a_configuration_that_can_be_used() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    let mut words = pretrain(&data, &run, &["optim.rate=0.25"]);
    words.push("--dry-run".to_owned());
    let reply = simclr(&words).expect(0, &["2 epochs, 6 steps"]);
    assert!(!run.exists());
    let file = dir.path().join("config.toml");
    fs::write(&file, &reply.out).unwrap();
    let again = simclr(&["pretrain", path(&data), "--dry-run", "--config", path(&file)]).expect(0, &[]);
    assert_eq!(again.out, reply.out);
    assert!(reply.out.contains("rate = 0.25"), "{}", reply.out);
}

#[test]
fn settings_that_nobody_chose_are_told() {
    let (_dir, data) = small_data();
    let plan = ["pretrain", path(&data), "--dry-run", "--set", "train.batch=8", "encoder.width=0.0625"];
    let told = "no --preset: ImageNet-sized settings (resnet18 on 224 x 224 pixels); for your own photos: --preset photos";
    simclr(&plan).expect(0, &[told]);
    for chosen in [["--set", "data.image_size=16"], ["--preset", "small"]] {
        let reply = simclr(&[&plan[..], &chosen].concat()).expect(0, &[]);
        assert!(!reply.err.contains("no --preset"), "{}", reply.err);
    }
}

#[test]
fn what_comes_next_is_told_with_labels_and_without() {
    let (dir, data) = small_data();
    let (run, run_of_one) = (dir.path().join("run"), dir.path().join("run of one"));
    let once = ["train.epochs=1", "train.batch=8"];
    let next = format!("next: simclr knn {} --train {} (how good is it?)", path(&run), path(&data));
    simclr(&pretrain(&data, &run, &once)).expect(0, &[&next]);
    let class = data.join("class 0");
    let next = format!(
        "next: simclr report '{}' --train '{}' (neighbours, maps)\nwith labels: simclr knn '{}' --train LABELLED\n",
        path(&run_of_one),
        path(&class),
        path(&run_of_one)
    );
    let for_others = format!("(for other programs: simclr export '{}' --to onnx)", path(&run_of_one));
    simclr(&pretrain(&class, &run_of_one, &once)).expect(0, &[&next, &for_others]);
}

#[test]
fn photos_chooses_and_says_why() {
    let (_dir, data) = small_data();
    // The warm-up that the preset chooses depends on the epochs given.
    let few = ["pretrain", path(&data), "--preset", "photos", "--dry-run", "--set", "train.epochs=2"];
    assert!(simclr(&few).expect(0, &[]).out.contains("warmup_epochs = 0.2\n"));
    let reply = simclr(&["pretrain", path(&data), "--preset", "photos", "--dry-run"])
        .expect(0, &["preset photos: views of 32 x 32", "preset photos: batch of"]);
    assert!(reply.out.contains("image_size = 32"), "{}", reply.out);
}

#[test]
fn a_batch_is_chosen_and_told() {
    let (dir, data) = small_data();
    let plan = ["pretrain", path(&data), "--preset", "small", "--dry-run", "--set"];
    let reply = simclr(&[&plan[..], &["train.batch=auto"]].concat())
        .expect(0, &["train.batch=auto: batch of 8: 48 images to train on, in about 6 steps an epoch"]);
    assert!(reply.out.contains("\nbatch = 8\n"), "{}", reply.out);
    // The last setting counts.
    let file = dir.path().join("config.toml");
    fs::write(&file, "[train]\nbatch = \"auto\"\n").unwrap();
    let given = [&plan[..], &["train.batch=12", "--config", path(&file)]].concat();
    let reply = simclr(&given).expect(0, &[]);
    assert!(!reply.err.contains("auto") && reply.out.contains("\nbatch = 12\n"), "{}", reply.out);
}

#[test]
fn views_as_a_picture() {
    let (dir, data) = small_data();
    let out = dir.path().join("grid.png");
    let draw = |seed: &str| {
        simclr(&[
            "views",
            path(&data),
            "--out",
            path(&out),
            "--preset",
            "small",
            "--images",
            "2",
            "--seed",
            seed,
        ])
        .expect(0, &["grid.png", "2 images"]);
        image::open(&out).unwrap().into_rgb8()
    };
    let picture = draw("1");
    // Seven columns of 128 pixels or more.
    assert!(picture.width() > 7 * 128 && picture.height() > 2 * 128, "{:?}", picture.dimensions());
    assert_eq!(draw("1"), picture);
    assert_ne!(draw("2"), picture);
}

/// How all commands that read images treat a folder of 16-bit grey images, which are dark but for a corner.
#[test]
fn grey_images_of_16_bits() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for number in 0..48u32 {
        let picture = ImageBuffer::from_fn(20, 20, |x, y| Luma([((x * 20 + y * 7 + number) % 400) as u16]));
        picture.save(data.path().join(format!("{number}.png"))).unwrap();
    }
    let (data, out, run) = (data.path(), dir.path().join("views.png"), dir.path().join("run"));
    let left_out = "grey images: saturation, hue, greyscale left out of the views";
    let draw = |window: &str| {
        let words =
            ["views", path(data), "--out", path(&out), "--images", "1", "--set", "data.image_size=32"];
        let reply = simclr(&[&words[..], &["--set", window]].concat()).expect(0, &[left_out]);
        assert_eq!(reply.err.contains("out of 255: set data.window"), window.ends_with("full"));
        let sheet = image::open(&out).unwrap().into_rgb8();
        // A row of pixels of the picture on the left.
        (40..140).map(|x| u64::from(sheet.get_pixel(x, 60).0[0])).max().unwrap()
    };
    assert!(draw("data.window=full") < 3);
    assert!(draw("data.window=[0,399]") > 200);
    let told = |window: &str| simclr(&["data", path(data), "--set", window]).expect(0, &[]).out;
    assert!(told("data.window=full").contains("48 images of only 0 to 2 out of 255: set data.window"));
    let example = "; these store 0 to 399, for example --set data.window=[0,399]";
    assert!(told("data.window=full").contains(example) && told("data.window=[0,60000]").contains(example));
    let words = ["data", path(data), "--json", "--set", "data.window=image"];
    let json = simclr(&words).expect(0, &[]).json();
    assert_eq!(json["sixteen_bit_stored_values"], serde_json::json!({ "least": 0, "most": 399 }));
    assert!(told("data.window=[0,399]").contains("48 images of 0 to 255 out of 255"));
    let bench = ["bench", "views", path(data), path(data), "--size", "16", "--seconds", "1"];
    simclr(&[&bench[..], &["--set", "data.window=[0,399]"]].concat()).expect(0, &[left_out, "96 images"]);
    let reply = simclr(&pretrain(data, &run, &["data.window=[0,399]"])).expect(0, &[left_out]);
    assert!(!reply.err.contains("data.window") && reply.err.contains("only 48 images"), "{}", reply.err);
    let dark = pretrain(data, &dir.path().join("dark"), &["data.window=full"]);
    let hint = ["16 bits (of 16 looked at): 16 images of only 0 to ", " out of 255: set data.window to"];
    simclr(&[&dark[..], &["--dry-run".into()]].concat()).expect(0, &hint);
    simclr(&dark).expect(0, &hint);
    // Without such operators there is nothing to say.
    let words =
        ["views", path(data), "--out", path(&out), "--set", "view.preset=crop-only", "data.image_size=32"];
    let reply = simclr(&words).expect(0, &[]);
    assert!(!reply.err.contains("grey"), "{}", reply.err);
}

#[test]
fn an_image_that_cannot_be_drawn_is_passed_over_unless_strict() {
    let (dir, data) = small_data();
    let out = dir.path().join("views.png");
    fs::write(data.join("class 0/zero.jpg"), "").unwrap();
    let set = ["--set", "data.image_size=16"];
    let words =
        [&["views", path(&data), "--out", path(&out), "--images", "100", "--views", "1"], &set[..]].concat();
    simclr(&words).expect(0, &["passed over class 0/zero.jpg: the file is empty", "48 images, 1 view of"]);
    fs::remove_file(&out).unwrap();
    let hint = ["cannot be read (data.strict)", "class 0/zero.jpg: the file is empty"];
    simclr(&[&words[..], &["data.strict=true"]].concat()).expect(1, &hint);
    assert!(!out.exists());
}

#[test]
fn views_of_branches_and_the_composition_table() {
    let (dir, data) = small_data();
    let out = dir.path().join("views.png");
    let lists = dir.path().join("lists.toml");
    let draw = |words: &[&str]| {
        let fixed = ["views", path(&data), "--out", path(&out), "--set", "data.image_size=32"];
        simclr(&[&fixed[..], words].concat()).expect(0, &["views.png"]);
        image::open(&out).unwrap().into_rgb8()
    };
    let plain = draw(&["--images", "1", "--set", "view.preset=crop-only"]);
    fs::write(&lists, "[[view.a]]\nop = \"sobel\"\n\n[[view.b]]\nop = \"rotation\"\n").unwrap();
    assert_ne!(draw(&["--images", "1", "--config", path(&lists)]), plain);
    // Branches that are not alike are named, in a line of 16 pixels more than what else is told of a crop.
    let crop = |area: &str| format!("op = \"random_resized_crop\"\narea = [{area}, 1.0]\n");
    for (b, line) in [("0.08", 0), ("0.5", 16)] {
        let text = format!("[[view.a]]\n{}\n[[view.b]]\n{}", crop("0.08"), crop(b));
        fs::write(&lists, text).unwrap();
        let drawn = draw(&["--images", "1", "--config", path(&lists)]);
        assert_eq!(drawn.height(), plain.height() + line, "{b}");
    }
    let table = draw(&["--matrix"]);
    assert!(table.width() > 8 * 128 && table.height() > 8 * 128, "{:?}", table.dimensions());
    let words = ["views", path(&data), "--out", path(&out), "--matrix", "--set", "view.color_strength=0"];
    simclr(&words).expect(0, &["view.color_strength has no effect with --matrix"]);
    fs::write(&lists, "[[view.a]]\nop = \"sobbel\"\n").unwrap();
    let words = ["views", path(&data), "--out", path(&out), "--config", path(&lists)];
    simclr(&words).expect(2, &["view.a[1].op", "did you mean \"sobel\"?"]);
}

#[test]
fn a_quickstart_in_small() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let words = ["quickstart", "--out", path(&run), "--images", "110", "--threads", "1", "--json"];
    let tiny = ["--set", "encoder.width=0.0625", "data.image_size=16", "train.batch=16", "train.epochs=2"];
    let figures = simclr(&[&words[..], &tiny].concat()).expect(0, &["made images", "report.html"]).json();
    for key in ["top1", "random_top1", "knn_top1", "random_knn_top1"] {
        assert!((0.0..=1.0).contains(&figures[key].as_f64().unwrap()), "{figures}");
    }
    // The images it is judged by are not among the 110 that it was trained on.
    for file in ["knn", "logistic"] {
        let written = fs::read(run.join(format!("evaluation/{file}.json"))).unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!((&written["train_images"], &written["test_images"]), (&110.into(), &27.into()));
    }
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("data:image/png"));
    assert!(run.join("encoder.safetensors").exists());

    simclr(&words).expect(2, &["already holds a run"]);
    let again = simclr(&[&words[..], &tiny, &["--force"]].concat()).expect(0, &[]).json();
    assert_eq!(again["top1"], figures["top1"]);
    // A finished quickstart is measured again, whatever data it was last measured on.
    let (_other, data) = small_data();
    simclr(&["knn", path(&run), "--train", path(&data), "--no-random"]).expect(0, &[]);
    // On as many images as before, also where that is not said.
    for images in [&["--images", "110"][..], &[]] {
        let words = [&["quickstart", "--out", path(&run), "--resume", "--json"], images].concat();
        assert_eq!(simclr(&words).expect(0, &["made images: 110 "]).json()["top1"], figures["top1"]);
    }
    for other in ["100", "140"] {
        let words = ["quickstart", "--out", path(&run), "--images", other, "--resume"];
        simclr(&words).expect(
            2,
            &[&format!("--images {other}"), "was trained on 110; leave it out, or give --images 110"],
        );
    }
    // It is measured on the device that the configuration names, as it was trained.
    let nowhere =
        ["quickstart", "--out", path(&run), "--images", "110", "--resume", "--set", "train.device=cuda:99"];
    simclr(&nowhere).expect(1, &["train.device", "cuda:99"]);
}

/// It draws its own images again; training on others may have taken days.
#[test]
fn a_quickstart_replaces_no_run_on_data() {
    let (dir, data) = small_data();
    let (run, imported) = (dir.path().join("run"), dir.path().join("imported"));
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    simclr(&["import", path(&run.join("encoder.safetensors")), "--out", path(&imported)]).expect(0, &[]);
    for run in [&run, &imported] {
        let newest = checkpoints(run).pop().unwrap();
        let before = fs::read(&newest).unwrap();
        simclr(&["quickstart", "--out", path(run), "--force"])
            .expect(2, &["--force: ", path(run), "does not replace", "--out takes another folder"]);
        assert!(fs::read(&newest).unwrap() == before);
    }
}

#[test]
fn two_sources_strictly_and_again() {
    let (dir, data) = small_data();
    let (more, out) = (dir.path().join("more"), dir.path().join("run"));
    fs::create_dir(&more).unwrap();
    fs::copy(data.join("class 0/3.png"), more.join("a.png")).unwrap();
    fs::write(more.join("broken.jpg"), "no image").unwrap();
    let mut words = pretrain(&data, &out, &["train.batch=49", "data.cache=disk"]);
    words.insert(1, path(&more).to_owned());
    words.push("--strict".to_owned());
    simclr(&words).expect(1, &["2 data sets, 50 images", "more/broken.jpg: not an image"]);
    // No step was taken, so the folder is free for another attempt.
    assert!(!out.exists());
    fs::remove_file(more.join("broken.jpg")).unwrap();
    let labelled = format!("simclr knn {} --train {}", path(&out), path(&data));
    simclr(&words).expect(0, &["2 data sets, 49 images", &labelled]);
    assert!(!out.join("data.cache").exists());
}

#[test]
fn shells_complete_commands_and_options() {
    for (shell, words) in
        [("bash", "complete -F"), ("zsh", "#compdef simclr"), ("fish", "complete -c simclr")]
    {
        let script = simclr(&["completions", shell]).expect(0, &[]).out;
        for word in [words, "pretrain", "resume", "doctor"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    // Words completed for arguments whose values are not checked against a list.
    let script = simclr(&["completions", "bash"]).expect(0, &[]).out;
    for words in [
        "cifar10 cifar10-short imagenet small photos",
        "auto full blocks",
        "auto cpu cuda",
        "train test unlabelled",
        "loss.temperature ",
    ] {
        assert!(script.contains(words), "{words}");
    }
    let help = simclr(&["pretrain", "--help"]).expect(0, &[]).out;
    assert_eq!(help.matches("cifar10-short").count(), 1, "{help}");
    assert!(!help.contains("possible values"), "{help}");
    simclr(&["completions", "cmd"]).expect(2, &["bash"]);
}

#[test]
fn doctor_tells_what_the_machine_has() {
    let found = simclr(&["doctor", "--json"]).expect(0, &[]).json();
    assert_eq!(found["built_with_cuda"], cfg!(feature = "cuda"));
    assert!(found["threads"].as_u64().unwrap() >= 1 && found["instructions"][0] == "portable", "{found}");
    let libraries = found["libraries"].as_array().unwrap();
    assert_eq!(libraries.len(), 5);
    for library in libraries {
        assert!(library["path"].is_string() != library["remedy"].is_string(), "{library}");
    }
    assert!(
        found["gpus"].as_array().is_some_and(|gpus| !gpus.is_empty()) || found["gpu_problem"].is_string()
    );
    let out = simclr(&["doctor"]).expect(0, &[]).out;
    for name in
        ["program ", "processor ", "memory ", "GPU", "libcuda ", "NVRTC ", "cuDNN ", "cuBLASLt ", "NCCL "]
    {
        assert!(out.lines().any(|line| line.starts_with(name)), "{name}: {out}");
    }
    assert!(
        cfg!(feature = "cuda") || out.contains("lacks the feature `cuda`\n                cargo install "),
        "{out}"
    );
}
