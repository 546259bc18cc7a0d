//! `simclr ablate` as a user runs it: training and measuring variants, continuing a study, and faulty studies.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{TINY, class_folders, metrics, numbered_folders, path, pretrain, simclr, small_data};

const STUDY: &str = "title = \"Temperatures\"\nsource = \"somewhere\"\nset = [\"loss.normalize=true\"]\n\
    [[variant]]\nname = \"as it is\"\npaper = 10\n\
    [[variant]]\nname = \"tau 1\"\nset = [\"loss.temperature=1\"]\npaper = 20.5\n\
    [[variant]]\nname = \"no head\"\nset = [\"head.kind=none\"]\n";

fn write(folder: &Path, text: &str) -> PathBuf {
    let study = folder.join("study.toml");
    fs::write(&study, text).unwrap();
    study
}

fn ablate(study: &Path, data: &Path, out: &Path, more: &[&str]) -> Vec<String> {
    let mut words: Vec<String> =
        ["ablate", path(study), path(data), "--out", path(out), "--threads", "1"].map(str::to_owned).to_vec();
    words.extend(more.iter().map(|&word| word.to_owned()));
    words.push("--set".to_owned());
    // What the variants set themselves cannot be set for all.
    let variants = fs::read_to_string(study).unwrap_or_default();
    let variants = variants.split_once("[[variant]]").map_or("", |(_, variants)| variants);
    let is_varied = |key: &str| match (path(study), key) {
        ("batch", "train.batch") | ("head-size", "head.dim") => true,
        _ => variants.contains(&format!("\"{key}=")),
    };
    let common = TINY.iter().filter(|set| !is_varied(set.split('=').next().unwrap_or_default()));
    words.extend(common.map(|&set| set.to_owned()));
    words
}

#[test]
fn a_study_from_file_to_table_and_again() {
    let (dir, data) = small_data();
    let (study, out) = (write(dir.path(), STUDY), dir.path().join("out"));
    let plan = [
        "3 variants x 2 seeds, 36 steps in all\n  all: loss.normalize=true\n",
        "  tau 1: loss.temperature=1.0\n",
    ];
    let planned = simclr(&ablate(&study, &data, &out, &["--seeds", "2", "--dry-run", "--json"]));
    let planned = planned.expect(0, &plan).json();
    assert_eq!((&planned["steps"], &planned["variants"][1]["paper"]), (&36.into(), &0.205.into()));
    assert_eq!(planned["set"], serde_json::json!(["loss.normalize=true"]));
    assert!(!out.exists());

    let words = ablate(&study, &data, &out, &["--seeds", "2", "--projection", "--json"]);
    let first = simclr(&words).expect(0, &["6 of 6: no head, seed 1", "report.html"]);
    let json = first.json();
    let [_, tau, no_head] = &json["variants"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!((&tau["paper"], &json["set"]), (&0.205.into(), &planned["set"]));
    for judge in ["knn", "linear", "linear_of_z", "contrastive"] {
        assert_eq!(tau[judge]["seeds"], 2, "{judge}: {json}");
        assert!((0.0..=1.0).contains(&tau[judge]["mean"].as_f64().unwrap()));
    }
    // Without a head, z equals h.
    assert_eq!(no_head["linear"], no_head["linear_of_z"]);
    // The two with figures may have the same accuracy on so few images.
    let order = &json["order"]["linear"];
    assert_eq!(order["pairs"].as_u64().unwrap() + order["tied"].as_u64().unwrap(), 1, "{order}");
    let images = json["test_images"].as_u64().unwrap();
    assert!(images > 0 && json["within_chance"]["linear"].as_f64().unwrap() > 0.0, "{json}");
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("Temperatures") && page.contains("loss.<wbr>temperature=<wbr>1"));

    let told = [
        format!("{} is the folder of a study", path(&out)),
        format!("its page is {}", path(&out.join("report.html"))),
    ];
    simclr(&["report", path(&out)]).expect(2, &[&told[0], &told[1]]);

    // Each is a run of its own, with its seed, with its encoder in a file, and with its data on record.
    let run = out.join("tau-1-seed1");
    assert!(run.join("encoder.safetensors").is_file());
    assert!(fs::read_to_string(run.join("run.toml")).unwrap().contains(path(&data)));
    let losses = |folder: &str| metrics(&out.join(folder))[0]["loss"].as_f64().unwrap();
    assert_ne!(losses("tau-1-seed0"), losses("tau-1-seed1"));
    assert_ne!(losses("tau-1-seed0"), losses("as-it-is-seed0"));

    // What is done is neither trained nor measured again.
    let second = simclr(&words).expect(0, &[]);
    assert!(
        !second.err.contains("training on") && !second.err.contains(", training images"),
        "{}",
        second.err
    );
    assert_eq!(second.json()["variants"][1], json["variants"][1]);
    // The plan says how much is done.
    let dry = |seeds: &str| simclr(&ablate(&study, &data, &out, &["--seeds", seeds, "--dry-run", "--json"]));
    let planned =
        dry("2").expect(0, &["36 steps in all", "6 of 6 runs are there already, 0 steps left"]).json();
    assert_eq!((&planned["trained"], &planned["steps_left"]), (&6.into(), &0.into()));
    dry("3").expect(0, &["54 steps in all", "6 of 9 runs are there already, 18 steps left"]);
    // Different images of the same names are measured once more, and then not again.
    let other = dir.path().join("other");
    class_folders(&other, 3, 16);
    for measures in [true, false] {
        let words = ablate(&study, &data, &out, &["--train", path(&other)]);
        let result = || fs::read(out.join("no-head-seed0/evaluation/knn.json")).unwrap();
        let before = result();
        let reply = simclr(&words).expect(0, &[]);
        assert_eq!(result() != before, measures, "{}", reply.err);
        assert!(!reply.err.contains("training on"), "{}", reply.err);
    }
    simclr(&["knn", path(&out.join("no-head-seed1")), "--train", path(&data)]).expect(0, &[]);
    let third = simclr(&ablate(&study, &data, &out, &[])).expect(0, &[]);
    for words in [
        "variant",
        "tau 1",
        "20.5%",
        " test images: differences below about ",
        "linear: ",
        "paper: somewhere",
    ] {
        assert!(third.out.contains(words), "no {words} in {}", third.out);
    }
    let ranked = ["of 1 pair ranks as in the paper (chance: 0.5)\n", "linear: 1 pair is tied, "];
    assert!(ranked.iter().any(|words| third.out.contains(words)), "{}", third.out);
    // Runs begun with another recipe are not taken for those of this one.
    let words = ablate(&study, &data, &out, &["--set", "optim.rate=0.5"]);
    for dry in [&[][..], &["--dry-run".to_owned()]] {
        let refused = ["as-it-is-seed0 in it was begun with optim.rate=", ", not 0.5; give another --out"];
        simclr(&[&words[..3], dry, &words[3..]].concat()).expect(2, &refused);
    }
}

#[test]
fn batches_of_one_learning_rate_are_warned_of() {
    let (dir, data) = small_data();
    let study = "title = \"Batches\"\nset = [\"optim.scaling=none\", \"train.epochs=1\"]\n\
        [[variant]]\nname = \"8\"\nset = [\"train.batch=8\"]\n\
        [[variant]]\nname = \"16\"\nset = [\"train.batch=16\"]\n";
    let study = write(dir.path(), study);
    let planned = |more: &[&str]| {
        let words = ablate(&study, &data, &dir.path().join("out"), &[more, &["--dry-run"]].concat());
        // TINY comes last: its epochs, too, override those of the study.
        let all = if more.is_empty() { "none" } else { more[1].split('=').next_back().unwrap() };
        let all = format!("  all: optim.scaling=\"{all}\", train.epochs=2\n");
        simclr(&words).expect(0, &["2 variants x 1 seed, 18 steps in all", &all])
    };
    planned(&[]).expect(0, &["warning: optim.scaling=none: batches of every size"]);
    for scaling in ["linear", "sqrt"] {
        let reply = planned(&["--set", &format!("optim.scaling={scaling}")]);
        assert!(!reply.err.contains("warning"), "{}", reply.err);
    }
}

/// What listed operators leave out follows the keys of `[view]`, whether the recipe or a variant has the list, and
/// whichever of them sets the key.
#[test]
fn listed_operators_follow_the_keys_of_variants_and_recipe() {
    let (dir, data) = small_data();
    let recipe = dir.path().join("lists.toml");
    let list = "op = \"color_jitter\"\nprob = 0.75\n";
    fs::write(&recipe, format!("[view]\nflip = 0.25\n[[view.a]]\n{list}[[view.b]]\n{list}")).unwrap();
    let study = "title = \"Strengths\"\n\
        [[variant]]\nname = \"weak\"\nset = [\"view.color_strength=0.125\"]\n\
        [[variant]]\nname = \"strong\"\nset = [\"view.color_strength=2\"]\n\
        [[variant]]\nname = \"flip\"\nset = [\"view.b=[{op='horizontal_flip'}]\"]\n";
    let study = write(dir.path(), study);
    let words = ablate(&study, &data, &dir.path().join("out"), &["--config", path(&recipe), "--dry-run"]);
    let reply = simclr(&words).expect(0, &["3 variants x 1 seed"]);
    assert!(!reply.err.contains("are the same"), "{}", reply.err);
    let plan_of = |name: &str| {
        let line = reply.err.lines().find(|line| line.starts_with(&format!("  {name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", reply.err)).to_owned()
    };
    for (name, value) in [("weak", "0.125"), ("strong", "2.0")] {
        let line = plan_of(name);
        assert_eq!(line.matches(&format!("strength = {value}")).count(), 2, "{line}");
        assert_eq!(line.matches("prob = 0.75").count(), 2, "{line}");
    }
    assert!(plan_of("flip").contains("prob = 0.25"), "{}", plan_of("flip"));

    // So a key may turn off an operator whose list does not say so.
    let off = "gaussian_blur is never applied: its probability is view.blur_prob, which is 0";
    let study = "title = \"Blurs\"\n[[variant]]\nname = \"off\"\nset = [\"view.a=[{op='gaussian_blur'}]\"]\n\
        [[variant]]\nname = \"on\"\nset = [\"view.a=[{op='gaussian_blur', prob=1}]\"]\n";
    let study = write(dir.path(), study);
    let words = ablate(&study, &data, &dir.path().join("out"), &["--dry-run"]);
    let sets = ["data.image_size=32", "view.b=[{op='gaussian_blur'}]"].map(str::to_owned);
    simclr(&[&words[..], &sets].concat()).expect(
        0,
        &[&format!("warning: variant \"off\": view.a[1]: {off}"), &format!("warning: view.b[1]: {off}")],
    );
}

#[test]
fn keys_without_effect_are_warned_of_and_tell_no_variants_apart() {
    let (dir, data) = small_data();
    let out = dir.path().join("out");
    let planned = |study: &Path, more: &[&str]| {
        let words = ablate(study, &data, &out, &["--dry-run"]);
        simclr(&[words, more.iter().map(|&word| word.to_owned()).collect()].concat()).expect(0, &[])
    };
    let sizes = "\"32\", \"64\", \"128\", \"256\", \"512\", \"1024\", \"2048\"";
    planned(Path::new("head-size"), &["head.kind=none"]).expect(
        0,
        &[
            &format!("warning: variants {sizes}: head.dim has no effect with head.kind=none\n"),
            &format!("warning: variants {sizes} are the same: "),
        ],
    );
    // A key of the recipe is warned of where no variant gives it a meaning.
    let study = write(
        dir.path(),
        "title = \"Losses\"\n[[variant]]\nname = \"as it is\"\n\
         [[variant]]\nname = \"other\"\nset = [\"loss.name=nt_logistic\", \"optim.beta2=0.5\"]\n",
    );
    let reply = planned(&study, &["loss.margin=0.3"]).expect(
        0,
        &[
            "warning: loss.margin has no effect with loss.name=nt_xent\n",
            "warning: variant \"other\": optim.beta2 has no effect with optim.name=",
        ],
    );
    assert!(!reply.err.contains("are the same"), "{}", reply.err);
    let reply = planned(Path::new("losses"), &["loss.margin=0.3"]);
    assert!(!reply.err.contains("warning"), "{}", reply.err);
}

#[test]
fn batches_of_more_than_all_images_are_left_out() {
    let (dir, data) = small_data();
    let variant = |batch: &str| format!("[[variant]]\nname = \"{batch}\"\nset = [\"train.batch={batch}\"]\n");
    let study = |batches: &[&str]| {
        let variants: String = batches.iter().map(|batch| variant(batch)).collect();
        write(dir.path(), &format!("title = \"Batches\"\n{variants}"))
    };
    let out = dir.path().join("out");
    let some = study(&["24", "64", "48", "4000"]);
    let warning =
        "warning: variants \"64\", \"4000\": left out, since train.batch is larger than the 48 images";
    for more in [&["--dry-run", "--json"][..], &["--json"]] {
        let json = simclr(&ablate(&some, &data, &out, more)).expect(0, &[warning, "2 variants x 1"]).json();
        assert_eq!(json["left_out"], serde_json::json!(["64", "4000"]), "{json}");
        assert_eq!(json["variants"].as_array().unwrap().len(), 2, "{json}");
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("larger than the number of images to train on: 64, 4000."), "{page}");
    let words = ["the batch of ", " variants is larger than the 48 images", "a study of your own"];
    for study in [Path::new("batch"), &study(&["24", "64"])] {
        simclr(&ablate(study, &data, &dir.path().join("new"), &[])).expect(2, &words);
    }
    // A batch that all have in common is not a variant's.
    let words = ablate(Path::new("temperature"), &data, &dir.path().join("new"), &["--dry-run"]);
    let reply = simclr(&[words, vec!["train.batch=64".to_owned()]].concat());
    let reply = reply.expect(2, &["variant \"tau 0.05\"", "train.batch is 64, but there are only 48"]);
    assert!(!reply.err.contains("left out"), "{}", reply.err);
}

#[test]
fn a_recipe_that_does_not_converge_is_told_after_the_others() {
    let (dir, data) = small_data();
    let fast = "[[variant]]\nname = \"too fast\"\nset = [\"optim.name=sgd\", \"optim.rate=1e30\"]\n";
    let text = STUDY.replacen("[[variant]]", &format!("{fast}[[variant]]"), 1);
    let (study, out) = (write(dir.path(), &text), dir.path().join("out"));
    let told = ["not finite (infinite or NaN)", "4 of 4: no head", "error: no result: too fast, seed 0\n"];
    let reply = simclr(&ablate(&study, &data, &out, &[])).expect(1, &told);
    assert!(reply.err.contains("  because: did not converge: "), "{}", reply.err);
    assert!(reply.out.contains("too fast, seed 0: did not converge"), "{}", reply.out);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("no head") && page.contains("too fast, seed 0: did not converge"), "{page}");
    let again = simclr(&ablate(&study, &data, &out, &[])).expect(1, &told[2..]);
    assert!(again.out == reply.out && !again.err.contains("training on"), "{}", again.err);
    assert!(!again.err.contains("beginning anew"), "{}", again.err);
    simclr(&ablate(&study, &data, &out, &["--dry-run"])).expect(0, &["4 of 4 runs are there already"]);
    // A failure holds for the recipe that failed, and for no other.
    write(dir.path(), &text.replace("1e30", "0.1"));
    let slower = simclr(&ablate(&study, &data, &out, &[])).expect(0, &["training on"]);
    assert!(!slower.out.contains("did not converge"), "{}", slower.out);
}

/// Whatever happens to one run, the others are trained and measured.
#[test]
fn a_run_that_fails_does_not_keep_the_others() {
    let (dir, data) = small_data();
    let (study, out) = (write(dir.path(), STUDY), dir.path().join("out"));
    // A file is in the place of the folder for its results.
    fs::create_dir(&out).unwrap();
    simclr(&pretrain(&data, &out.join("as-it-is-seed0"), &[])).expect(0, &[]);
    let broken = out.join("as-it-is-seed0/evaluation");
    fs::write(&broken, "").unwrap();
    let told = ["warning: as it is, seed 0: ", "3 of 3: no head", "error: no result: as it is, seed 0\n"];
    let reply = simclr(&ablate(&study, &data, &out, &["--json"])).expect(1, &told);
    let json = reply.json();
    assert!(json["variants"][0]["failures"][0].as_str().unwrap().contains("evaluation"), "{json}");
    assert!(json["variants"][1]["knn"]["mean"].is_f64() && json["variants"][2]["knn"]["mean"].is_f64());
    fs::remove_file(&broken).unwrap();
    let whole = simclr(&ablate(&study, &data, &out, &[])).expect(0, &[]);
    assert!(!whole.err.contains("training on"), "{}", whole.err);
}

#[test]
fn whether_other_images_converge_is_not_known() {
    let (dir, data) = small_data();
    let fast = ["1e30", "2e30"].map(|rate| {
        format!("[[variant]]\nname = \"{rate}\"\nset = [\"optim.name=sgd\", \"optim.rate={rate}\"]\n")
    });
    let text = format!("title = \"Rates\"\n{}", fast.concat());
    let (study, out) = (write(dir.path(), &text), dir.path().join("out"));
    let told = ["not finite (infinite or NaN)", "no result: 1e30, seed 0; 2e30, seed 0"];
    simclr(&ablate(&study, &data, &out, &[])).expect(1, &told);
    fs::copy(data.join("class 0/3.png"), data.join("class 0/new.png")).unwrap();
    simclr(&ablate(&study, &data, &out, &[])).expect(1, &["training on", "not finite (infinite or NaN)"]);
    let third = simclr(&ablate(&study, &data, &out, &[])).expect(1, &[]);
    assert!(!third.err.contains("training on"), "{}", third.err);
}

#[test]
fn a_folder_belongs_to_one_study() {
    let (dir, data) = small_data();
    let out = dir.path().join("out");
    let tell = |text: &str, more: &[&str]| {
        let study = write(dir.path(), text);
        simclr(&ablate(&study, &data, &out, more))
    };
    // A folder that was begun and has no run yet is the study's, too.
    fs::create_dir(&out).unwrap();
    fs::write(out.join("study.json"), "{\"title\": \"Temperatures\", \"variants\": [\"tau-1\"]}").unwrap();
    tell(STUDY, &[]).expect(0, &["3 of 3: no head, seed 0"]);
    let page = fs::read(out.join("report.html")).unwrap();

    // Of another study, one variant may have the same name.
    let other = "title = \"Rates\"\n[[variant]]\nname = \"as it is\"\n\
        [[variant]]\nname = \"fast\"\nset = [\"optim.rate=2\"]\n";
    let renamed = STUDY.replace("name = \"", "name = \"with ");
    for (text, more) in [(other, &[][..]), (other, &["--dry-run"]), (&renamed, &[])] {
        tell(text, more).expect(2, &["it holds another study, \"Temperatures\"; give a folder of its own"]);
    }
    assert_eq!(fs::read(out.join("report.html")).unwrap(), page);

    // A study may change: its title or its variants, more of them or fewer.
    let more = format!("{STUDY}[[variant]]\nname = \"tau 2\"\nset = [\"loss.temperature=2\"]\n");
    let fewer = STUDY.replace("[[variant]]\nname = \"no head\"\nset = [\"head.kind=none\"]\n", "");
    for (text, there) in [
        (STUDY, "3 of 3 runs are there"),
        (&more, "3 of 4 runs are there"),
        (&more.replace("Temperatures", "Tau"), "3 of 4 runs are there"),
        (&fewer, "2 of 2 runs are there"),
    ] {
        tell(text, &["--dry-run"]).expect(0, &[there]);
    }
    fs::write(out.join("study.json"), "{").unwrap();
    tell(STUDY, &[]).expect(2, &["study.json in it does not say which study"]);
}

/// Runs of other settings or images are found before anything is trained, whichever variant they are of.
#[test]
fn runs_that_cannot_be_continued_are_found_first() {
    let (dir, data) = small_data();
    let (study, out) = (write(dir.path(), STUDY), dir.path().join("out"));
    fs::create_dir(&out).unwrap();
    let run = out.join("tau-1-seed0");
    simclr(&pretrain(&data, &run, &["loss.temperature=1", "train.epochs=1", "head.dim=8"])).expect(0, &[]);
    let refused = |sets: &[&str], words: &[&str]| {
        for dry in [&[][..], &["--dry-run".to_owned()]] {
            let sets = sets.iter().map(|&set| set.to_owned()).collect::<Vec<_>>();
            let reply =
                simclr(&[&ablate(&study, &data, &out, &[])[..], &sets, dry].concat()).expect(2, words);
            assert!(!reply.err.contains(" of 3: "), "{}", reply.err);
        }
        assert!(!out.join("as-it-is-seed0").exists());
    };
    let epoch = "train.epochs=1";
    refused(&[epoch], &["tau-1-seed0 in it was begun with head.dim=8, not 16; give another --out"]);
    fs::copy(data.join("class 0/3.png"), data.join("class 0/new.png")).unwrap();
    refused(
        &[epoch, "head.dim=8"],
        &["tau-1-seed0 in it is of other images", "for a study of these, give another --out"],
    );
    fs::remove_file(data.join("class 0/new.png")).unwrap();
    let words = ablate(&study, &data, &out, &["--dry-run"]);
    let sets = [epoch, "head.dim=8"].map(str::to_owned);
    simclr(&[&words[..], &sets].concat()).expect(0, &["1 of 3 runs are there already"]);
}

#[test]
fn wrong_studies_are_refused_before_anything_is_trained() {
    let (dir, data) = small_data();
    let out = dir.path().join("out");
    let wrong = |text: &str, words: &[&str]| {
        let study = write(dir.path(), text);
        simclr(&ablate(&study, &data, &out, &[])).expect(2, words);
        assert!(!out.exists());
    };
    wrong("title = 3", &["study.toml, line 1: `title` is 3, expected text in quotes"]);
    wrong("title = \"t\"\n[[variant]]\nname = \"a\"\n", &["at least two"]);
    let with = |set: &str| format!("{STUDY}[[variant]]\nname = \"x\"\nset = [\"{set}\"]\n");
    wrong(&with("loss.temprature=1"), &["variant \"x\"", "did you mean", "loss.temperature"]);
    wrong(&with("data.shrink=64"), &["variant \"x\"", "for --set"]);
    // A value for all variants that each of them replaces.
    let own = "title = \"t\"\n[[variant]]\nname = \"a\"\nset = [\"loss.temperature=1\"]\n\
        [[variant]]\nname = \"b\"\nset = [\"loss.temperature=2\"]\n";
    let own = write(dir.path(), own);
    for study in [Path::new("temperature"), &own] {
        let words = ablate(study, &data, &out, &["--set", "loss.temperature=0.3"]);
        let told = ["--set loss.temperature=0.3: would be without effect", "the study varies this key"];
        simclr(&words).expect(2, &told);
    }
    let missing = ["ablate", "temprature", path(&data), "--out", path(&out)];
    simclr(&missing).expect(2, &["temperature, head", "TOML"]);
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &[])).expect(0, &[]);
    let study = write(dir.path(), STUDY);
    simclr(&ablate(&study, &data, &run, &[])).expect(2, &["it is a run"]);
    // A study's folder may not be among the images or hold something else.
    let before = fs::read_dir(&data).unwrap().count();
    for out in [&data, &data.join("class 1")] {
        simclr(&ablate(&study, &data, out, &[])).expect(2, &["it is among the images"]);
    }
    let other = dir.path().join("other");
    class_folders(&other, 1, 1);
    simclr(&ablate(&study, &data, &other, &[])).expect(2, &["holds no study", "an empty folder"]);
    simclr(&ablate(&study, &data, &other, &["--train", path(&other)])).expect(2, &["it is among"]);
    assert_eq!(fs::read_dir(&data).unwrap().count(), before);
}

/// Test images that cannot be read are told once, and do not count.
#[test]
fn broken_images_of_the_evaluation() {
    let (dir, data) = small_data();
    let labelled = dir.path().join("labelled");
    class_folders(&labelled.join("train"), 3, 8);
    numbered_folders(&labelled.join("test"), 3, 100..104);
    for number in 100..102 {
        fs::write(labelled.join(format!("test/class 1/{number}.png")), b"\x89PNG\r\n\x1a\n").unwrap();
    }
    let (study, out) = (write(dir.path(), STUDY), dir.path().join("out"));
    let words = ablate(&study, &data, &out, &["--train", path(&labelled), "--json"]);
    let strict = [&words[..], &["data.strict=true".to_owned()]].concat();
    for _ in 0..2 {
        let reply = simclr(&words).expect(0, &["without 2 images that could not be read"]);
        assert_eq!(reply.err.matches("could not be read").count(), 1, "{}", reply.err);
        assert_eq!(reply.json()["test_images"], 10);
    }
    // The first run that cannot be evaluated ends the study, whether it was evaluated before or not.
    for _ in 0..2 {
        let reply = simclr(&strict).expect(1, &["1 of 3: as it is", "class 1/100.png"]);
        assert!(!reply.err.contains("2 of 3"), "{}", reply.err);
        let _ = fs::remove_dir_all(&out);
    }
}
