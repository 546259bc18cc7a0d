//! Logistic regression against scikit-learn; `tools/golden/logistic.py` computed the values.

use serde_json::Value;
use simclr_engine::Device;
use simclr_eval::Targets;
use simclr_eval::logistic::{Labelled, LbfgsOptions, fit};
use simclr_metrics::{Features, likeliest};

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number") as f32).collect()
}

fn integers(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(|x| x.as_u64().expect("a whole number") as u32).collect()
}

fn mean_cross_entropy(scores: &[f32], labels: &[u32], classes: usize) -> f64 {
    let loss = |(row, &label): (&[f32], &u32)| {
        let total: f64 = row.iter().map(|&s| f64::from(s).exp()).sum();
        total.ln() - f64::from(row[label as usize])
    };
    scores.chunks_exact(classes).zip(labels).map(loss).sum::<f64>() / labels.len() as f64
}

#[test]
fn agrees_with_scikit_learn() {
    let golden: Value = serde_json::from_str(include_str!("golden/logistic.json")).unwrap();
    let dim = golden["dim"].as_u64().unwrap() as usize;
    let classes = golden["classes"].as_u64().unwrap() as usize;
    let (train, test) = (floats(&golden["train"]), floats(&golden["test"]));
    let (labels, test_labels) = (Targets::One(integers(&golden["labels"])), integers(&golden["test_labels"]));
    let features = Features::new(&train, dim).unwrap();
    let test = Features::new(&test, dim).unwrap();
    let device = Device::cpu(1).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let l2 = case["l2"].as_f64().unwrap();
        let model =
            fit(&device, Labelled { features, targets: &labels }, classes, l2, &LbfgsOptions::default())
                .unwrap();
        let objective = case["objective"].as_f64().unwrap();
        assert!((model.objective - objective).abs() < 1e-6, "l2 {l2}: {} {objective}", model.objective);
        let scores = model.scores(test).unwrap();
        let loss = mean_cross_entropy(&scores, &test_labels, classes);
        let expected = case["test_loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-4, "l2 {l2}: {loss} {expected}");
        let predictions: Vec<u32> = scores.chunks_exact(classes).map(likeliest).collect();
        assert_eq!(predictions, integers(&case["predictions"]), "l2 {l2}");
    }
}
