//! From a run folder to an encoder, and from its evaluations to a report.

mod common;

use std::path::Path;

use common::{config, models, splits};
use simclr_engine::Device;
use simclr_eval::EvalError;
use simclr_eval::protocols::{
    Pictures, TrainedEncoder, Versus, WhichCheckpoint, assemble_report, encode, knn, pictures, write_report,
};
use simclr_metrics::Knn;
use simclr_train::checkpoint::{Best, Checkpoint, Meta};
use simclr_train::run_folder::RunFolder;
use simclr_train::{Model, TrainError};

fn save(run: &RunFolder, model: &Model, step: u64, best: Option<Best>) {
    let meta = Meta { step, epoch: step, best, config: config().to_toml().unwrap(), ..Meta::default() };
    run.checkpoints(5).save(&Checkpoint { tensors: model.store().unwrap(), meta }).unwrap();
}

fn load(path: &Path, which: WhichCheckpoint) -> Result<TrainedEncoder, EvalError> {
    TrainedEncoder::load(path, which, &Device::cpu(2).unwrap())
}

#[test]
fn folders_without_a_checkpoint_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = load(folder.path(), WhichCheckpoint::Newest).unwrap_err();
    assert!(matches!(error, EvalError::Train(TrainError::NoRun { .. })), "{error}");
    let path = folder.path().join("run");
    RunFolder::create(&path, &config()).unwrap();
    let error = load(&path, WhichCheckpoint::Best).unwrap_err().to_string();
    assert!(error.ends_with("has no checkpoint yet; train it first"), "{error}");
}

#[test]
fn the_newest_good_and_the_best_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(&folder.path().join("run"), &config()).unwrap();
    let device = Device::cpu(2).unwrap();
    let model = |seed| Model::with_seed(&config(), &device, seed).unwrap();
    let best = || Best::new(1, "knn_top1", 0.5);
    save(&run, &model(1), 1, best());
    save(&run, &model(2), 2, best());
    save(&run, &model(3), 3, best());
    let same = |found: &TrainedEncoder, seed| found.model.store().unwrap() == model(seed).store().unwrap();
    assert!(same(&load(run.path(), WhichCheckpoint::Best).unwrap(), 1));
    let newest = load(run.path(), WhichCheckpoint::Newest).unwrap();
    assert!(same(&newest, 3) && newest.step == 3);
    let path = run.checkpoints(5).path(3);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let newest = load(run.path(), WhichCheckpoint::Newest).unwrap();
    assert!(same(&newest, 2) && newest.step == 2);
}

#[test]
fn the_report_holds_what_the_run_tells() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(&folder.path().join("first"), &config()).unwrap();
    // An empty run still gets a page.
    let empty = assemble_report(&run, &config(), Pictures::default()).unwrap().render();
    assert!(empty.contains("<h1>first</h1>") && !empty.contains("<h2>Accuracy</h2>"));

    let models = models(2);
    save(&run, &models.trained, 7, None);
    let encoder = load(run.path(), WhichCheckpoint::Newest).unwrap();
    let models = Versus { trained: encoder.model.clone(), ..models };
    let data = splits();
    let encoded = encode(&models, &data, false, &mut |_| ()).unwrap();
    let mut evaluation = knn(&encoded, &Knn::default()).unwrap();
    let file = encoder.record(&mut evaluation).unwrap();
    assert_eq!(file, run.path().join("evaluation/knn.json"));
    assert_eq!(evaluation.step, Some(7));
    std::fs::write(run.path().join("evaluation/other.json"), "{}").unwrap();
    let line = "{\"kind\":\"epoch\",\"epoch\":1,\"step\":7,\"train_loss\":3.5,\"rank_me_h\":12.25}\n";
    std::fs::write(run.metrics(), line).unwrap();
    std::fs::write(run.skipped(), "{\"index\":3,\"name\":\"<b>.jpg\",\"reason\":\"torn\"}\n{\"na").unwrap();

    let pictures = pictures(&encoded.trained, &data, &encoder).unwrap();
    let report = assemble_report(&run, &config(), pictures).unwrap();
    write_report(&report, &run.report()).unwrap();
    let page = std::fs::read_to_string(run.report()).unwrap();
    let count = |text: &str| page.matches(text).count();
    assert_eq!((count("<th scope=\"row\">"), count("<th scope=\"row\">kNN")), (1, 1));
    assert_eq!((count("random encoder"), count("<span class=\"class\">")), (1, 3));
    assert!(page.contains("<dd>12.2</dd>") || page.contains("<dd>12.3</dd>"));
    assert!(
        page.contains("data:image/png") && page.contains("&lt;b&gt;.jpg") && page.contains("image_size = 16")
    );
    assert!(page.contains("1 of 100 epochs"));
    assert!(page.contains("# started = 20") && page.contains("# program = "));
    assert!(!page.contains("after step"));
    let before = Pictures::before(&run.report()).unwrap();
    assert_eq!(before.step(), 7);
    assert_eq!(assemble_report(&run, &config(), before).unwrap().render(), page);

    // After more training, the page says which step the result is of.
    let later = line.replace("\"epoch\":1,\"step\":7", "\"epoch\":2,\"step\":14");
    std::fs::write(run.metrics(), line.to_owned() + &later).unwrap();
    let page = assemble_report(&run, &config(), Pictures::default()).unwrap().render();
    // In the table and at the top.
    assert_eq!(page.matches("after step 7 of 14</").count(), 2);
}
