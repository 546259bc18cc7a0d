//! Figures against those of numpy and scikit-learn. `tools/golden/metrics.py` made the values.

use serde_json::Value;
use simclr_metrics::*;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/metrics.json")).expect("golden values are JSON")
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number") as f32).collect()
}

fn integers(value: &Value) -> Vec<u32> {
    value.as_array().expect("a list").iter().map(|x| x.as_u64().expect("a whole number") as u32).collect()
}

fn matrix(value: &Value) -> (Vec<f32>, usize) {
    (floats(&value["values"]), value["dim"].as_u64().expect("a width") as usize)
}

#[track_caller]
fn close(got: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().expect("a number");
    assert!((got - expected).abs() <= tolerance, "got {got}, expected {expected}");
}

#[test]
fn knn_and_confusion() {
    let golden = &golden()["knn"];
    let ((train, dim), (test, _)) = (matrix(&golden["train"]), matrix(&golden["test"]));
    let (train, test) = (Features::new(&train, dim).unwrap(), Features::new(&test, dim).unwrap());
    let (labels, test_labels) = (integers(&golden["train_labels"]), integers(&golden["test_labels"]));
    let classes = golden["classes"].as_u64().unwrap() as usize;
    let k = golden["k"].as_u64().unwrap() as usize;

    let nearest = nearest_neighbours(test, train, k).unwrap();
    let indices: Vec<u32> =
        (0..nearest.queries()).flat_map(|query| nearest.indices(query).to_vec()).collect();
    assert_eq!(indices, integers(&golden["nearest"]));

    let knn = Knn { k, temperature: golden["temperature"].as_f64().unwrap() };
    let outcome = knn.evaluate(train, &labels, test, &test_labels, classes).unwrap();
    assert_eq!(outcome.predictions, integers(&golden["predictions"]));
    close(outcome.top1, &golden["top1"], 1e-12);
    close(outcome.top5, &golden["top5"], 1e-12);

    let counts = confusion(&outcome.predictions, &test_labels, classes).unwrap();
    let counts: Vec<u32> = counts.into_iter().flatten().map(|count| count as u32).collect();
    assert_eq!(counts, integers(&golden["confusion"]));
    let counts = ClassCounts::new(&outcome.predictions, &test_labels, classes).unwrap();
    close(counts.accuracy(), &golden["top1"], 1e-12);
}

#[test]
fn geometry_and_pairs() {
    let golden = &golden()["sphere"];
    let (z, dim) = matrix(&golden["z"]);
    let z = Features::new(&z, dim).unwrap();
    close(alignment(z).unwrap(), &golden["alignment"], 1e-6);
    close(uniformity(z).unwrap(), &golden["uniformity"], 1e-6);
    close(spread(z).unwrap(), &golden["spread"], 1e-7);
    let figures = pair_figures(z, golden["temperature"].as_f64().unwrap(), true).unwrap();
    close(figures.loss, &golden["loss"], 1e-6);
    close(figures.contrastive_accuracy, &golden["contrastive_accuracy"], 1e-12);
    close(figures.entropy, &golden["entropy"], 1e-6);
}

#[test]
fn effective_rank() {
    for golden in golden()["rank_me"].as_array().unwrap() {
        let (x, dim) = matrix(&golden["x"]);
        close(rank_me(Features::new(&x, dim).unwrap()).unwrap(), &golden["rank_me"], 1e-5);
    }
}

#[test]
fn ranking_scores() {
    let golden = &golden()["scores"];
    let classes = golden["classes"].as_u64().unwrap() as usize;
    let (scores, labels) = (floats(&golden["scores"]), integers(&golden["labels"]));
    close(top_k(&scores, &labels, classes, 3).unwrap(), &golden["top3"], 1e-12);
}
