//! What `simclr finetune` leaves in place.

mod common;

use std::fs;
use std::path::Path;

use common::{class_folders, command, path, pretrain, reply, simclr, small_data};

/// A network of other classes is not replaced; one of the same images is, even if their labels were corrected.
#[test]
fn a_network_of_other_data_stays() {
    let (dir, data) = small_data();
    let (run, other) = (dir.path().join("run"), dir.path().join("other"));
    simclr(&pretrain(&data, &run, &["train.epochs=1"])).expect(0, &[]);
    class_folders(&other, 2, 24);
    let tune = |train: &str, more: &[&str]| {
        let words =
            ["finetune", path(&run), "--train", train, "--labels", "50%", "--epochs", "1", "--no-random"];
        simclr(&[&words[..], more].concat())
    };
    tune(path(&data), &[]).expect(0, &[]);
    let network = run.join("evaluation/finetune-50%-epochs-1.safetensors");
    let result = network.with_extension("json");
    let files = || [&network, &result].map(|file| fs::read(file).unwrap());
    let before = files();
    let named = format!("{} was fine-tuned on {}, and", path(&network), path(&data));
    let refused = tune(path(&other), &[]).expect(2, &[&named, path(&other), "--out DIR", "move the file"]);
    assert!(!refused.err.contains("steps"), "after no work: {}", refused.err);
    assert!(files() == before);
    tune(path(&other), &["--out", path(&dir.path().join("results"))]).expect(0, &[]);
    assert!(files() == before);

    // The same data by another path, with an image that was found to be of another class.
    fs::rename(data.join("class 0/0.png"), data.join("class 1/corrected.png")).unwrap();
    tune(path(&data.join("class 0/..")), &[]).expect(0, &[]);
    assert!(files()[0] != before[0]);
    // A relative path is one from the folder of then: the same words may name other data, and others the same.
    let from = |folder: &Path, train: &str| {
        let out = dir.path().join("relative");
        let words =
            ["finetune", path(&run), "--train", train, "--labels", "50%", "--epochs", "1", "--no-random"];
        let words = [&words[..], &["--out", path(&out)]].concat();
        reply(command(&words).current_dir(folder).output().unwrap())
    };
    let name = data.file_name().unwrap().to_str().unwrap();
    from(dir.path(), name).expect(0, &[]);
    from(&data, &format!("../{name}")).expect(0, &[]);
    let elsewhere = dir.path().join("elsewhere");
    class_folders(&elsewhere.join(name), 2, 24);
    from(&elsewhere, name).expect(2, &["was fine-tuned on"]);

    // What a network without a record was made from is not known.
    fs::remove_file(&result).unwrap();
    tune(path(&other), &[]).expect(0, &[]);
    fs::remove_file(&network).unwrap();
    tune(path(&data), &[]).expect(0, &["in place of"]);
}
