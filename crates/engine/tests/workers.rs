//! Several workers together compute the same step as one: BatchNorm statistics and negatives are global.

mod common;

use common::network::{CHANNELS, Network, SIZE};
use common::{deviation, tensor};
use simclr_engine::ops::{self, ContrastiveFigures, ContrastiveSums};
use simclr_engine::{
    Collective, Device, Mode, ParameterKind, Parameters, Result, SingleProcess, Tape, Tensor, ThreadGroup,
    Var,
};

const IMAGES: usize = 8;

/// The results of one worker's step.
struct Outcome {
    figures: ContrastiveFigures,
    loss: f32,
    gradients: Vec<Option<Vec<f32>>>,
    averages: Vec<Vec<f32>>,
}

fn step(device: &Device, views: &[f32], collective: &dyn Collective, checkpoint: bool) -> Outcome {
    let (parameters, network) = Network::new(device);
    let count = views.len() / (SIZE * SIZE * CHANNELS);
    let views = Tensor::from_slice(device, &[count, SIZE, SIZE, CHANNELS], views).unwrap();
    let mut tape = Tape::new(&parameters, Mode::Train, collective);
    let (loss, figures) = network.loss(&mut tape, views, checkpoint).unwrap();
    let gradients = tape.backward(&loss, Tensor::full(device, &[1], 1.0).unwrap()).unwrap();
    Outcome {
        figures,
        loss: loss.tensor().as_slice().unwrap()[0],
        gradients: parameters.ids().map(|id| gradients.get(id).map(|g| g.to_vec().unwrap())).collect(),
        averages: tape.into_buffer_updates().iter().map(|(_, value)| value.to_vec().unwrap()).collect(),
    }
}

/// The views of worker `rank` of `size`: the first views of its images, then their second views.
fn share(views: &[f32], rank: usize, size: usize) -> Vec<f32> {
    let (first, second) = views.split_at(views.len() / 2);
    let own = first.len() / size;
    let range = rank * own..(rank + 1) * own;
    [&first[range.clone()], &second[range]].concat()
}

fn workers(size: usize, views: &[f32], checkpoint: bool) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let running: Vec<_> = ThreadGroup::new(size)
            .into_iter()
            .map(|worker| {
                let own = share(views, worker.rank(), size);
                scope.spawn(move || step(&Device::cpu(1).unwrap(), &own, &worker, checkpoint))
            })
            .collect();
        running.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn two_and_four_workers_compute_the_step_of_one() {
    let device = Device::cpu(1).unwrap();
    let views = tensor(&device, "views", &[2 * IMAGES, SIZE, SIZE, CHANNELS]).to_vec().unwrap();
    let whole = step(&device, &views, &SingleProcess, false);
    for (size, checkpoint) in [(2, false), (4, false), (2, true)] {
        let outcomes = workers(size, &views, checkpoint);
        let mut worst = 0f64;
        for outcome in &outcomes {
            assert!((outcome.figures.loss - whole.figures.loss).abs() < 1e-6);
            assert!((outcome.loss - whole.loss).abs() < 1e-6);
            assert_eq!(outcome.figures.contrastive_accuracy, whole.figures.contrastive_accuracy);
            assert!((outcome.figures.entropy - whole.figures.entropy).abs() < 1e-6);
            for (got, want) in outcome.averages.iter().zip(&whole.averages) {
                assert!(deviation(got, want) < 1e-6);
            }
            // Workers may differ in nothing but their share of the work.
            assert!(outcome.averages == outcomes[0].averages);
            assert_eq!(outcome.loss.to_bits(), outcomes[0].loss.to_bits());
        }
        for (i, want) in whole.gradients.iter().enumerate() {
            let Some(want) = want else { continue };
            let mut sum = vec![0f32; want.len()];
            for outcome in &outcomes {
                let own = outcome.gradients[i].as_ref().unwrap();
                sum.iter_mut().zip(own).for_each(|(sum, g)| *sum += g);
            }
            worst = worst.max(deviation(&sum, want));
        }
        println!("{size} workers, checkpoint {checkpoint}: gradients off by {worst:.1e}");
        assert!(worst < 5e-6, "{size} workers: {worst:.1e}");
    }
}

/// The loss of z with this number: NT-Xent, then NT-Logistic and margin triplet, with all negatives or mined ones.
fn loss(tape: &mut Tape, z: &Var, number: usize) -> Result<(Var, ContrastiveSums)> {
    let semi_hard = number.is_multiple_of(2);
    match number {
        0 => ops::nt_xent(tape, z, 0.5),
        1 | 2 => ops::nt_logistic(tape, z, 0.5, semi_hard),
        _ => ops::margin_triplet(tape, z, 0.5, 0.4, semi_hard),
    }
}

/// Backward through the gather returns the gradients of a worker's views as negatives of other workers.
#[test]
fn gradients_of_every_loss_flow_through_the_gather() {
    let (dim, size) = (5, 4);
    let device = Device::cpu(1).unwrap();
    let z = tensor(&device, "z", &[2 * IMAGES, dim]).to_vec().unwrap();
    let gradient = |own: &[f32], collective: &dyn Collective, number: usize| {
        let device = Device::cpu(1).unwrap();
        let mut parameters = Parameters::new();
        let value = Tensor::from_slice(&device, &[own.len() / dim, dim], own).unwrap();
        let id = parameters.add("z", ParameterKind::Weight, value).unwrap();
        let mut tape = Tape::new(&parameters, Mode::Train, collective);
        let z = tape.parameter(id);
        let (loss, sums) = loss(&mut tape, &z, number).unwrap();
        let figures = sums.figures().unwrap();
        assert!((f64::from(loss.tensor().as_slice().unwrap()[0]) - figures.loss).abs() < 1e-6);
        let one = Tensor::full(&device, &[1], 1.0).unwrap();
        let gradients = tape.backward(&loss, one).unwrap();
        (gradients.get(id).unwrap().to_vec().unwrap(), figures)
    };
    for number in 0..5 {
        let (whole, figures) = gradient(&z, &SingleProcess, number);
        std::thread::scope(|scope| {
            for worker in ThreadGroup::new(size) {
                let (z, whole, gradient) = (&z, &whole, &gradient);
                scope.spawn(move || {
                    let own = share(z, worker.rank(), size);
                    let want = share(whole, worker.rank(), size);
                    let (got, found) = gradient(&own, &worker, number);
                    let what = format!("loss {number}, worker {}", worker.rank());
                    assert!(deviation(&got, &want) < 1e-6, "{what}");
                    assert!((found.loss - figures.loss).abs() < 1e-6, "{what}");
                    assert!((found.entropy - figures.entropy).abs() < 1e-6, "{what}");
                    assert_eq!(found.contrastive_accuracy, figures.contrastive_accuracy, "{what}");
                });
            }
        });
    }
}
