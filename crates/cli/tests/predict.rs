//! Labels that a fine-tuned network predicts for images.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{class_folders, command, finish, path, picture, pretrain, shell, simclr, small_data};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Folders with 48 images of three classes in `data`, and a run on them.
fn trained() -> (TempDir, PathBuf, PathBuf) {
    let (dir, data) = small_data();
    let run = dir.path().join("run");
    simclr(&pretrain(&data, &run, &["train.epochs=1", "optim.warmup_epochs=0"])).expect(0, &[]);
    (dir, data, run)
}

fn finetune(run: &Path, data: &Path, labels: &str) -> common::Reply {
    let words = ["finetune", path(run), "--train", path(data), "--labels", labels, "--epochs", "4"];
    simclr(&[&words[..], &["--no-random", "--json"]].concat())
}

#[test]
fn from_fine_tuning_to_a_table_of_labels() {
    let (dir, data, run) = trained();
    let parts = dir.path().join("parts");
    fs::create_dir(&parts).unwrap();
    fs::rename(&data, parts.join("train")).unwrap();
    class_folders(&parts.join("test"), 3, 5);
    let network = run.join("evaluation/finetune-50%-epochs-4.safetensors");
    let how = format!("simclr predict {} PHOTOS --out labels.csv", path(&network));
    let tuned = finetune(&run, &parts, "50%").expect(0, &[&how]).json();

    let (test, out) = (parts.join("test"), dir.path().join("labels.csv"));
    let words = ["predict", path(&run), path(&test), "--out", path(&out), "--json"];
    let reply = simclr(&words).expect(0, &["labels.csv: 15 rows", "are recognised", "3 classes"]);
    let mut told = reply.json();
    assert!(told["seconds"].take().is_f64());
    assert_eq!(
        told,
        json!({
            "images": 15, "skipped": 0, "broken": [], "top1": tuned["top1"], "seconds": null, "out": out,
            "splits": [{ "split": null, "labelled": 15, "top1": tuned["top1"] }],
        })
    );
    // Images that were trained on are counted separately.
    let words = ["predict", path(&run), path(&parts), "--json"];
    let of =
        ["of the test images with a label ", "of the training images with a label ", "may have learnt from"];
    let told = simclr(&words).expect(0, &of).json();
    assert_eq!((&told["images"], &told["top1"]), (&json!(63), &tuned["top1"]));
    assert_eq!(told["splits"][1], json!({ "split": "test", "labelled": 15, "top1": tuned["top1"] }));
    assert_eq!((&told["splits"][0]["split"], &told["splits"][0]["labelled"]), (&json!("train"), &json!(48)));
    let table = fs::read_to_string(&out).unwrap();
    assert!(table.starts_with("name,label,probability\nclass 0/0.png,class "), "{table}");
    assert_eq!(table.lines().count(), 16);
    // Standard output is the table alone, and the same as the file even with more threads.
    for out in [&[][..], &["--out", "-"]] {
        let words = ["predict", path(&network), path(&test), "--threads", "3"];
        assert_eq!(simclr(&[&words[..], out].concat()).expect(0, &[]).out, table);
    }

    // Photos without classes, one of them broken.
    let photos = dir.path().join("photos");
    fs::create_dir(&photos).unwrap();
    (0..3).for_each(|number| picture(30, number, number).save(photos.join(format!("{number}.png"))).unwrap());
    fs::write(photos.join("1.png"), "no image").unwrap();
    let words = ["predict", path(&network), path(&photos), "--top", "2"];
    let reply = simclr(&[&words[..], &["--json"]].concat())
        .expect(0, &["1 image could not be read and will have no row", "1.png: not an image"]);
    let told = reply.json();
    assert_eq!((&told["images"], &told["skipped"], &told["top1"]), (&json!(2), &json!(1), &Value::Null));
    assert!(reply.out.starts_with("name,label,probability,label_2,probability_2\n0.png,"), "{}", reply.out);
    simclr(&[&words[..], &["--strict"]].concat()).expect(1, &["1.png: not an image"]);
    // Photos one by one, called by their paths, are labelled as in their folder.
    let (first, last) = (photos.join("0.png"), photos.join("2.png"));
    let words = ["predict", path(&network), path(&first), path(&last)];
    let table = simclr(&words).expect(0, &["2.png: single images, unlabelled, 2 images"]).out;
    let rows: Vec<_> = table.lines().map(|row| row.split(',').take(2).collect::<Vec<_>>()).collect();
    let in_folder: Vec<_> = reply.out.lines().map(|row| row.split(',').nth(1).unwrap_or_default()).collect();
    assert_eq!(rows[1..], [[path(&first), in_folder[1]], [path(&last), in_folder[2]]]);
    let words = ["predict", path(&network), path(&photos), path(&test)];
    assert_eq!(simclr(&words).expect(0, &[]).out.lines().count(), 18);
    // A network that gives all images one label may tell nothing of them.
    let same = dir.path().join("same");
    fs::create_dir(&same).unwrap();
    (0..20).for_each(|number| picture(30, 1, 1).save(same.join(format!("{number}.png"))).unwrap());
    let words = ["predict", path(&network), path(&same)];
    simclr(&words).expect(0, &["all 20 images got the label \"class ", ", one of 3"]);
    fs::remove_file(same.join("7.png")).unwrap();
    let reply = simclr(&words).expect(0, &[]);
    assert!(!reply.err.contains("got the label"), "{}", reply.err);
    let words = ["predict", path(&network), path(&parts), "--split", "test"];
    assert!(simclr(&words).expect(0, &[]).out.contains("class 0/0.png,test,class "));

    // No partial table is left. It is longer than two buffers.
    let many = dir.path().join("many");
    class_folders(&many, 1, 80);
    for number in 0..80 {
        let name = |name: &str| many.join(format!("class 0/{name}.png"));
        fs::rename(name(&number.to_string()), name(&format!("{number:0200}"))).unwrap();
    }
    let script = "ulimit -f 1; exec \"$PROGRAM\" predict \"$1\" \"$2\" --out \"$3\"";
    let out = dir.path().join("full.csv");
    shell(script, &[&network, &many, &out]).expect(1, &["cannot write", "full.csv", "; free some space"]);
    assert!(!out.exists());
    let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|file| !file.to_string_lossy().ends_with(".tmp")));
    // The reader may close the pipe before the end.
    let mut unread = command(&["predict", path(&network), path(&many)]);
    let mut unread = unread.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(unread.stdout.take());
    finish(unread).expect(0, &[]);
}

#[test]
fn networks_without_a_classifier_and_wrong_options_are_refused() {
    let (dir, data, run) = trained();
    let predict = |network: &Path, more: &[&str]| {
        simclr(&[&["predict", path(network), path(&data)][..], more].concat())
    };
    predict(&run, &[]).expect(2, &["run has no fine-tuned network", "simclr finetune"]);
    predict(&data, &[]).expect(2, &["data holds no run"]);
    predict(&dir.path().join("none"), &[]).expect(2, &["none: no such file", "`simclr finetune` writes"]);
    predict(&run.join("config.toml"), &[])
        .expect(2, &["config.toml: it is not a safetensors file", "finetune"]);
    let (photo, swapped) =
        (data.join("class 0/0.png"), format!("{} is a run: were they swapped?", path(&run)));
    simclr(&["predict", path(&photo), path(&run)]).expect(2, &["not a safetensors file", &swapped]);
    predict(&run.join("encoder.safetensors"), &[]).expect(
        2,
        &["encoder.safetensors: it has no classifier", "was fine-tuned: `simclr finetune` writes"],
    );
    finetune(&run, &data, "6").expect(0, &[]);
    let network = run.join("evaluation/finetune-6-epochs-4.safetensors");
    predict(&run, &["--top", "4"]).expect(2, &["--top 4", "knows 3 classes"]);
    predict(&run, &["--top", "0"]).expect(2, &["--top", "at least 1"]);
    predict(&run, &["--out", "labels.txt"]).expect(2, &["labels.txt", ".csv"]);
    predict(&run, &["--out", path(&dir.path().join("no/a.csv"))]).expect(2, &["there is no folder"]);
    predict(&run, &["--split", "test"]).expect(2, &["no test images apart"]);
    simclr(&["predict", path(&run)]).expect(2, &["<DATA>"]);
    simclr(&["predict", path(&run), path(&dir.path().join("none"))]).expect(2, &["no such file or folder"]);
    finetune(&run, &data, "9").expect(0, &[]);
    predict(&run, &[]).expect(
        2,
        &["2 fine-tuned networks", "finetune-6-epochs-4.safetensors", "finetune-9-epochs-4.safetensors"],
    );
    // Each network with its result, the newest first.
    let newer = run.join("evaluation/finetune-9-epochs-4");
    fs::write(newer.with_extension("json"), "no result").unwrap();
    let told = predict(&run, &[]).expect(2, &[]).err;
    let [_, first, second] = &told.lines().collect::<Vec<_>>()[..] else { panic!("{told}") };
    assert!(first.contains("finetune-9-epochs-4.safetensors  no result, "), "{first}");
    assert!(
        second.contains("finetune-6-epochs-4.safetensors  ") && second.contains("%, 4 epochs of batch "),
        "{second}"
    );

    // Deliberate changes to a file: it has no checksum that would detect them.
    let bytes = fs::read(&network).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut facts = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    assert!(facts.remove("checksum").is_some());
    let changed = dir.path().join("changed.safetensors");
    let write = |without: &str, fact: (&str, Option<&str>)| {
        let mut facts = facts.clone();
        facts.remove(fact.0);
        facts.extend(fact.1.map(|value| (fact.0.to_owned(), value.to_owned())));
        let tensors: Vec<(String, TensorView<'_>)> =
            file.tensors().into_iter().filter(|(name, _)| name != without).collect();
        safetensors::serialize_to_file(tensors, Some(facts), &changed).unwrap();
        predict(&changed, &[])
    };
    write("", ("", None)).expect(0, &[]);
    write("fc.bias", ("", None)).expect(2, &["tensor `fc.bias` is missing"]);
    write("layer4.1.bn2.running_var", ("", None)).expect(2, &["`layer4.1.bn2.running_var` is missing"]);
    write("", ("classes", None)).expect(2, &["does not state the names of its classes"]);
    write("", ("classes", Some("cats"))).expect(2, &["`classes` is \"cats\", expected a list of names"]);
    write("", ("classes", Some("[\"a\",\"b\"]"))).expect(2, &["`fc.weight` is [3, 32], expected [2, 32]"]);
    write("", ("config", None)).expect(2, &["does not state its configuration"]);
    write("", ("program", None)).expect(2, &["does not state its configuration"]);
    write("", ("config", Some("train.batch = -1"))).expect(2, &["changed.safetensors", "train.batch"]);
    fs::write(&changed, &bytes[..bytes.len() - 9]).unwrap();
    predict(&changed, &[]).expect(2, &["damaged or cut short"]);
    let useless = |mut bytes: Vec<u8>| {
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        fs::write(&changed, bytes).unwrap();
        predict(&changed, &[])
    };
    useless(bytes.clone()).expect(2, &["its contents do not match its checksum"]);
    write("", ("", None)).expect(0, &[]);
    useless(fs::read(&changed).unwrap()).expect(2, &["tensor `", "holds values that are not finite"]);
}
