//! Resuming a run that was stopped, or whose files were changed meanwhile.

mod common;

use std::fs;
use std::path::Path;

use image::RgbImage;

use common::{
    assert_same_run, checkpoints, class_folders, command, finish, flip_a_byte, path, pretrain, reply, resume,
    simclr, small_data, start, wait_for,
};

/// A configuration that was edited or cut off would make another run of it: the checkpoint has the right one.
#[test]
fn a_configuration_that_is_not_that_of_the_checkpoint() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    simclr(&pretrain(&data, &out, &["train.checkpoint_every=1", "train.keep_checkpoints=9"])).expect(0, &[]);
    fs::remove_file(checkpoints(&out).pop().unwrap()).unwrap();
    let file = out.join("config.toml");
    let whole = fs::read_to_string(&file).unwrap();

    let edited = whole.replace("batch = 16\n", "batch = 8\n").replace("temperature = 0.", "temperature = 1.");
    fs::write(&file, &edited).unwrap();
    simclr(&resume(&data, &out))
        .expect(2, &["config.toml", "step-00000005", "train.batch = 16, not 8", "loss.temperature = 0."]);
    let cut = &whole[..whole.find("[train]").unwrap()];
    fs::write(&file, cut).unwrap();
    simclr(&resume(&data, &out)).expect(2, &["config.toml", "train.batch = 16, which is missing"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), cut);

    // Settings that do not change the result may be edited in the file, too.
    fs::write(&file, whole.replace("keep_checkpoints = 9\n", "keep_checkpoints = 2\n")).unwrap();
    simclr(&resume(&data, &out)).expect(0, &["resuming after step 5"]);
    assert_eq!(checkpoints(&out).len(), 2);

    // Without a checkpoint there is nothing to compare with.
    checkpoints(&out).iter().for_each(|file| fs::remove_file(file).unwrap());
    fs::write(&file, cut).unwrap();
    simclr(&resume(&data, &out)).expect(1, &["config.toml is damaged", "lacks `train."]);
    fs::write(&file, &whole).unwrap();
    simclr(&resume(&data, &out)).expect(0, &["no checkpoint yet"]);
}

/// What is evaluated and reported is what the checkpoint was trained with, whatever the file says by now.
#[test]
fn an_edited_configuration_is_told_of_and_not_reported() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    simclr(&pretrain(&data, &out, &[])).expect(0, &[]);
    let knn = ["knn", path(&out), "--train", path(&data), "--no-random"];
    let report = |more: &[&str], words: &[&str]| {
        let told = simclr(&[&["report", path(&out)][..], more].concat()).expect(0, words).err;
        (told, fs::read_to_string(out.join("report.html")).unwrap())
    };
    assert!(!simclr(&knn).expect(0, &[]).err.contains("config.toml"));
    let (told, page) = report(&[], &[]);
    assert!(!told.contains("config.toml") && page.contains("batch = 16\n"), "{told}");

    let file = out.join("config.toml");
    let edited = fs::read_to_string(&file).unwrap().replace("batch = 16\n", "batch = 8\n");
    fs::write(&file, edited).unwrap();
    let words = [
        "warning: ",
        "its config.toml is not what ",
        "was trained with; it should say train.batch = 16, not 8; the checkpoint's configuration is used",
    ];
    simclr(&knn).expect(0, &words);
    for more in [&[][..], &["--train", path(&data), "--device", "cpu"]] {
        let (told, page) = report(more, &words);
        assert_eq!(told.matches(words[1]).count(), 1, "{told}");
        assert!(page.contains("batch = 16\n") && !page.contains("batch = 8\n"), "{page}");
    }
    // Without a checkpoint there is only the file.
    fs::remove_file(checkpoints(&out).pop().unwrap()).unwrap();
    let (told, page) = report(&[], &[]);
    assert!(!told.contains(words[1]) && page.contains("batch = 8\n"), "{told}");
}

/// Resuming does what follows the last checkpoint: it writes the encoder's file and removes the images cached on disk.
#[test]
fn a_run_that_was_killed_after_its_last_checkpoint() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    simclr(&pretrain(&data, &out, &["data.cache=disk"])).expect(0, &[]);
    let file = out.join("encoder.safetensors");
    let encoder = fs::read(&file).unwrap();
    let origin = fs::read_to_string(out.join("run.toml")).unwrap();
    assert!(origin.contains(&format!("data = [\"{}\"]", path(&data))), "{origin}");
    fs::remove_file(&file).unwrap();
    fs::write(out.join("data.cache"), "images").unwrap();
    simclr(&resume(&data, &out)).expect(0, &["encoder: ", "encoder.safetensors", "is finished"]);
    assert!(fs::read(&file).unwrap() == encoder && !out.join("data.cache").exists());
    // One that is damaged, or was exported in the middle of the run, is written anew.
    for stale in [&encoder[..encoder.len() / 2], b""] {
        fs::write(&file, stale).unwrap();
        simclr(&resume(&data, &out)).expect(0, &["encoder: ", "is finished"]);
        assert!(fs::read(&file).unwrap() == encoder);
    }
}

/// A run that cannot go on with other images still says which it is trained on.
#[test]
fn other_images_are_refused_and_leave_no_trace() {
    let (dir, data) = small_data();
    let (out, other) = (dir.path().join("run"), dir.path().join("other"));
    simclr(&pretrain(&data, &out, &["train.checkpoint_every=3"])).expect(0, &[]);
    class_folders(&other, 3, 12);
    let origin = fs::read(out.join("run.toml")).unwrap();
    fs::remove_file(checkpoints(&out).pop().unwrap()).unwrap();
    simclr(&resume(&other, &out)).expect(2, &["a data set of 48 images, this one has 36"]);
    assert!(fs::read(out.join("run.toml")).unwrap() == origin);
    simclr(&resume(&data, &out)).expect(0, &["resuming after step 3", "3 steps in ", ", 6 in all, saved to"]);
}

/// An import that was killed before its network was written says so, and the same command repeats it.
#[test]
fn an_import_that_was_killed() {
    let (dir, data) = small_data();
    let (run, out) = (dir.path().join("run"), dir.path().join("imported"));
    simclr(&pretrain(&data, &run, &[])).expect(0, &[]);
    let file = run.join("encoder.safetensors");
    let import = ["import", path(&file), "--out", path(&out)];
    simclr(&import).expect(0, &[]);
    let checkpoint = checkpoints(&out).pop().unwrap();
    // As if the program had ended while it wrote the checkpoint.
    fs::rename(&checkpoint, checkpoint.with_extension("safetensors.1-0.tmp")).unwrap();
    simclr(&["knn", path(&out), "--train", path(&data)])
        .expect(2, &["its import was interrupted; import encoder.safetensors again"]);
    let from = [&pretrain(&data, &dir.path().join("next"), &[])[..], &["--from".into(), path(&out).into()]];
    simclr(&from.concat()).expect(2, &["its import was interrupted"]);
    simclr(&import).expect(0, &[]);
    assert_eq!(fs::read_dir(out.join("checkpoints")).unwrap().count(), 1);
    simclr(&["knn", path(&out), "--train", path(&data)]).expect(0, &["imported from"]);
    simclr(&import).expect(2, &["already holds a run"]);
}

/// Images that disappear during a run end it with an error that names the problem, and cost none of its steps.
#[test]
fn data_that_go_during_a_run() {
    let (dir, data) = small_data();
    let reference = dir.path().join("reference");
    let sets = ["train.epochs=40", "train.batch=8", "data.cache=none"];
    simclr(&pretrain(&data, &reference, &sets)).expect(0, &[]);
    let (run, away) = (dir.path().join("run"), dir.path().join("away"));
    let mut child = start(&pretrain(&data, &run, &sets));
    assert!(wait_for(&run, 2, &mut child), "{}", finish(child).err);
    fs::rename(&data, &away).unwrap();
    let again = format!("once that is mended, continue with: simclr {}", resume(&data, &run).join(" "));
    let reply = finish(child).expect(1, &[path(&data), "No such file", "bring back what has gone", &again]);
    let newest = checkpoints(&run).pop().unwrap();
    assert!(reply.err.contains(path(&newest)) && !run.join("skipped.jsonl").exists(), "{}", reply.err);
    fs::rename(&away, &data).unwrap();
    simclr(&resume(&data, &run)).expect(0, &["resuming after step"]);
    assert_same_run(&run, &reference);
}

/// A study has no `--resume`: the same command continues it.
#[test]
fn data_that_go_during_a_study() {
    let (dir, data) = small_data();
    let (out, away) = (dir.path().join("study"), dir.path().join("away"));
    let sets = ["train.epochs=40", "train.batch=8", "data.cache=none"];
    let study = [&["ablate".into(), "head".into()][..], &pretrain(&data, &out, &sets)[1..]].concat();
    let mut child = start(&study);
    assert!(wait_for(&out.join("none-seed0"), 2, &mut child), "{}", finish(child).err);
    fs::rename(&data, &away).unwrap();
    let reply = finish(child).expect(1, &["once that is mended, continue with: the same command"]);
    assert!(!reply.err.contains("--resume"), "{}", reply.err);
}

/// `--dry-run` plans what the command would do, and fails where it would.
#[test]
fn a_dry_run_of_a_run_that_is_there() {
    let (dir, data) = small_data();
    let out = dir.path().join("run");
    simclr(&pretrain(&data, &out, &["train.checkpoint_every=1", "train.keep_checkpoints=9"])).expect(0, &[]);
    let dry = |words: Vec<String>| simclr(&[&words[..], &["--dry-run".to_owned()]].concat());
    dry(resume(&data, &out)).expect(0, &["is finished"]);
    fs::remove_file(checkpoints(&out).pop().unwrap()).unwrap();
    let reply = dry(resume(&data, &out)).expect(0, &["resuming after step 5", "would train"]);
    assert!(reply.out.contains("batch = 16\n"), "{}", reply.out);
    let other = [&resume(&data, &out)[..], &["--set", "train.batch=8"].map(str::to_owned)].concat();
    dry(other).expect(2, &["train.batch", "is 8"]);
    let longer = [&resume(&data, &out)[..], &["--set", "train.epochs=9"].map(str::to_owned)].concat();
    let config = out.join("config.toml");
    let instead =
        ["pretrain", path(&data), "--from", path(&out), "--config", path(&config), "--set", "train.epochs=9"];
    let told = format!("a schedule of its own: simclr {} --out NEW", instead.join(" "));
    simclr(&longer).expect(2, &["`train.epochs` is 9", &told]);
    dry(longer).expect(2, &[&told]);
    let next = dir.path().join("next");
    let reply =
        dry([&instead[..], &["--out", path(&next)]].concat().into_iter().map(str::to_owned).collect());
    let reply = reply.expect(0, &["would train"]);
    assert!(reply.out.contains("batch = 16\n") && reply.out.contains("epochs = 9\n"), "{}", reply.out);
    dry(pretrain(&data, &out, &[])).expect(2, &["already holds a run"]);
    dry(pretrain(&data, &data, &[])).expect(2, &["not empty"]);
    simclr(&["pretrain", path(&data), "--resume", "--dry-run"]).expect(2, &["give --out RUN"]);
    assert_eq!(checkpoints(&out).len(), 5);

    // An image is replaced by another.
    let class = fs::read_dir(&data).unwrap().next().unwrap().unwrap().path();
    let image = fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    RgbImage::new(99, 77).save_with_format(&image, image::ImageFormat::Bmp).unwrap();
    for words in [&resume(&data, &out)[..], &[&resume(&data, &out)[..], &["--dry-run".into()]].concat()] {
        simclr(words).expect(2, &["cannot resume", "their files have other sizes"]);
    }
}

#[test]
fn a_run_whose_numbers_ended_it_says_so() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    let fast = ["optim.name=sgd", "optim.rate=1e30"];
    simclr(&pretrain(&data, &run, &fast)).expect(1, &["not finite (infinite or NaN)"]);
    let page = || fs::read_to_string(run.join("report.html")).unwrap();
    simclr(&["report", path(&run)]).expect(0, &[]);
    assert!(page().contains("0 of 2 epochs") && page().contains("It stopped at step "), "{}", page());
    let advice = "--resume --set optim.rate=...";
    let knn = ["knn", path(&run), "--train", path(&data)];
    simclr(&knn).expect(2, &["has no checkpoint yet; it stopped at step ", "lower optim.rate", advice]);
    simclr(&resume(&data, &run))
        .expect(1, &["the last time, this run stopped at step ", "It will do so again on the same images"]);

    let mut slower = resume(&data, &run);
    slower.extend(["--set", "optim.rate=0.01"].map(str::to_owned));
    let reply = simclr(&slower).expect(0, &["beginning anew"]);
    assert!(!reply.err.contains("before, it"), "{}", reply.err);
    simclr(&["report", path(&run)]).expect(0, &[]);
    assert!(!page().contains("stopped at step"));
}

#[test]
fn a_preset_that_contradicts_a_run_is_named() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    let with = |more: &[&str]| {
        let more = more.iter().map(|&word| word.to_owned()).collect();
        simclr(&[resume(&data, &run), more].concat())
    };
    with(&["--preset", "cifar10"]).expect(2, &["error: --preset cifar10: `", "the run was begun with"]);
    let reply =
        with(&["--preset", "cifar10", "--set", "data.image_size=64"]).expect(2, &["`data.image_size` is 64"]);
    assert!(!reply.err.contains("--preset cifar10: "), "{}", reply.err);
}

/// What would be another run is told before what makes no sense in itself.
#[test]
fn fewer_epochs_than_warm_up() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=3", "optim.warmup_epochs=2"])).expect(0, &[]);
    let fewer = [&resume(&data, &run)[..], &["--set", "train.epochs=1"].map(str::to_owned)].concat();
    simclr(&fewer)
        .expect(2, &["`train.epochs` is 1, the run was begun with 3", "continue from this one's encoder"]);
    simclr(&[&fewer[..], &["--dry-run".to_owned()]].concat()).expect(2, &["the run was begun with 3"]);
    // One without a checkpoint may still become another run.
    checkpoints(&run).iter().for_each(|file| fs::remove_file(file).unwrap());
    simclr(&fewer).expect(2, &["`optim.warmup_epochs` is 2, more than the 1 of `train.epochs`"]);
}

#[test]
fn checkpoints_that_are_all_damaged_leave_the_encoder() {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    checkpoints(&run).iter().for_each(|file| flip_a_byte(file));
    let file = run.join("encoder.safetensors");
    let import = format!("simclr import {} --out NEW", path(&file));
    simclr(&resume(&data, &run)).expect(1, &["must be started anew", &import]);
    simclr(&["knn", path(&run), "--train", path(&data)]).expect(1, &[&import]);
    fs::remove_file(file).unwrap();
    let reply = simclr(&resume(&data, &run)).expect(1, &["must be started anew"]);
    assert!(!reply.err.contains("simclr import"), "{}", reply.err);
}

#[test]
fn a_run_goes_on_with_the_images_that_it_records() {
    let (dir, data) = small_data();
    let (run, away) = (dir.path().join("run"), dir.path().join("away"));
    simclr(&pretrain(&data, &run, &["train.checkpoint_every=3"])).expect(0, &[]);
    fs::remove_file(checkpoints(&run).pop().unwrap()).unwrap();
    let bare = ["pretrain", "--out", path(&run), "--resume"];
    fs::rename(&data, &away).unwrap();
    let told = ["no such file or folder", path(&data), "was begun with these images", "as DATA"];
    simclr(&bare).expect(2, &told);
    simclr(&[&bare[..], &["--dry-run"]].concat()).expect(2, &told);
    fs::rename(&away, &data).unwrap();
    class_folders(&data, 1, 17);
    simclr(&bare).expect(2, &["a data set of 48 images, this one has 49"]);
    fs::remove_file(data.join("class 0/16.png")).unwrap();
    simclr(&[&bare[..], &["--dry-run"]].concat()).expect(0, &["resuming after step 3"]);
    simclr(&bare).expect(0, &["resuming after step 3", "next: simclr knn"]);
    simclr(&bare).expect(0, &["is finished"]);

    let marker = run.join("run.toml");
    let text = fs::read_to_string(&marker).unwrap();
    let without: String =
        text.lines().filter(|line| !line.starts_with("data")).map(|l| format!("{l}\n")).collect();
    fs::write(&marker, without).unwrap();
    simclr(&bare).expect(2, &["does not record its images", "DATA", "simclr quickstart --out"]);
    simclr(&["pretrain", "--out", path(&away)]).expect(2, &["required arguments", "<DATA>"]);
    simclr(&["pretrain", "--out", path(&away), "--resume"]).expect(2, &["holds no run"]);
}

/// Several data sets, and single images, are the same from wherever their paths start.
#[test]
fn a_run_goes_on_from_another_folder() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ["a", "b"].iter().for_each(|set| class_folders(&dir.join(set), 3, 8));
    let elsewhere = dir.join("else/where");
    fs::create_dir_all(&elsewhere).unwrap();
    let from = |folder: &Path, words: &[String]| {
        let output = command(words).current_dir(folder).output().expect("the program starts");
        reply(output)
    };
    let words = |words: &[&str]| -> Vec<String> { words.iter().map(|&word| word.to_owned()).collect() };
    let images: Vec<String> = (0..3)
        .flat_map(|class| (0..8).map(move |number| format!("class {class}/{number}.png")))
        .flat_map(|image| ["a", "b"].map(|set| format!("{set}/{image}")))
        .collect();
    for (name, data) in [("sets", words(&["a", "b"])), ("images", images)] {
        let run = dir.join(name);
        let begin = pretrain(Path::new("a"), Path::new(name), &["train.checkpoint_every=3"]);
        let begin = [&begin[..1], &data[..], &begin[2..]].concat();
        from(dir, &begin).expect(0, &[]);
        fs::remove_file(checkpoints(&run).pop().unwrap()).unwrap();
        let out = format!("../../{name}");
        let bare = words(&["pretrain", "--out", &out, "--resume"]);
        let given = |data: &[String]| [&bare[..1], data, &bare[1..], &words(&["--dry-run"])].concat();
        let at = |place: &str| -> Vec<String> { data.iter().map(|path| format!("{place}/{path}")).collect() };
        from(&elsewhere, &given(&at("../.."))).expect(0, &["resuming after step 3"]);
        let mut turned = at("../..");
        turned.reverse();
        from(&elsewhere, &given(&turned)).expect(2, &["with other names, or in another order"]);
        // Moved together.
        fs::create_dir(dir.join("moved")).unwrap();
        ["a", "b"].iter().for_each(|set| fs::rename(dir.join(set), dir.join("moved").join(set)).unwrap());
        from(&elsewhere, &given(&at("../../moved"))).expect(0, &["resuming after step 3"]);
        ["a", "b"].iter().for_each(|set| fs::rename(dir.join("moved").join(set), dir.join(set)).unwrap());
        fs::remove_dir(dir.join("moved")).unwrap();
        from(&elsewhere, &bare).expect(0, &["resuming after step 3", "saved to ../../"]);
    }
}
