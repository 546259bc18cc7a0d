//! The same bits for any number of threads.

mod common;

use common::network::{CHANNELS, Network, SIZE};
use common::{bits, tensor};
use simclr_engine::{Device, Mode, SingleProcess, Tape, Tensor};

/// Bits of the loss, all gradients and all averages after a few steps of plain gradient descent.
fn train(threads: usize, views: usize) -> Vec<Vec<u32>> {
    let device = Device::cpu(threads).unwrap();
    let (mut parameters, network) = Network::new(&device);
    let mut found = Vec::new();
    for step in 0..3 {
        let views = tensor(&device, &format!("views.{step}"), &[views, SIZE, SIZE, CHANNELS]);
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let (loss, _) = network.loss(&mut tape, views, step % 2 == 1).unwrap();
        found.push(bits(loss.tensor()));
        let one = Tensor::full(&device, &[1], 1.0).unwrap();
        let gradients = tape.backward(&loss, one).unwrap();
        let mut updates = tape.into_buffer_updates();
        for (id, value) in updates.drain() {
            found.push(bits(&value));
            parameters.set(id, value).unwrap();
        }
        for id in parameters.ids().collect::<Vec<_>>() {
            let Some(gradient) = gradients.get(id) else {
                continue;
            };
            found.push(bits(gradient));
            let gradient = gradient.as_slice().unwrap();
            let weights = parameters.get_mut(id).as_mut_slice().unwrap();
            weights.iter_mut().zip(gradient).for_each(|(w, g)| *w -= 0.1 * g);
        }
    }
    found
}

#[test]
fn one_two_and_four_threads_train_the_same_bits() {
    // A batch of one piece, one that no thread count divides, and one of several pieces.
    for views in [4, 14, 78] {
        let one = train(1, views);
        assert!(one.iter().flatten().all(|v| f32::from_bits(*v).is_finite()));
        for threads in [2, 4] {
            assert!(train(threads, views) == one, "{threads} threads, {views} views");
        }
    }
}
