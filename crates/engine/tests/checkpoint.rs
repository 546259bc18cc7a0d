//! Checkpointed segments: the same step in less memory.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::network::{CHANNELS, Network, SIZE};
use common::{bits, device, parameter, tensor};
use simclr_engine::ops;
use simclr_engine::{
    Collective, Device, Mode, ParameterId, ParameterKind, Parameters, Result, Segment, SingleProcess, Tape,
    Tensor, Var,
};

fn views(device: &Device, count: usize) -> Tensor {
    tensor(device, "views", &[count, SIZE, SIZE, CHANNELS])
}

fn one(device: &Device) -> Tensor {
    Tensor::full(device, &[1], 1.0).unwrap()
}

/// The results of a step: bits of the loss, of each gradient and of each running average.
type Step = (Vec<u32>, Vec<Vec<u32>>, Vec<(usize, Vec<u32>)>);

fn step(parameters: &Parameters, network: &Network, views: Tensor, checkpoint: bool, mode: Mode) -> Step {
    let mut tape = Tape::new(parameters, mode, &SingleProcess);
    let device = views.device().clone();
    let (loss, _) = network.loss(&mut tape, views, checkpoint).unwrap();
    let mut calls = vec![0; parameters.len()];
    let gradients = tape
        .backward_with(&loss, one(&device), &mut |id, _| {
            calls[id.index()] += 1;
            Ok(())
        })
        .unwrap();
    for id in parameters.ids() {
        let trained = parameters.kind(id).is_trained();
        assert_eq!(calls[id.index()], i32::from(trained), "calls for {}", parameters.name(id));
        assert_eq!(gradients.get(id).is_some(), trained, "{}", parameters.name(id));
    }
    let gradients = gradients.iter().map(|(_, g)| bits(g)).collect();
    let updates = tape.into_buffer_updates().iter().map(|(id, value)| (id.index(), bits(value))).collect();
    (bits(loss.tensor()), gradients, updates)
}

#[test]
fn a_checkpointed_step_has_the_bits_of_a_plain_one() {
    let device = device();
    let (parameters, network) = Network::new(&device);
    for mode in [Mode::Train, Mode::TrainFrozenNorm] {
        let plain = step(&parameters, &network, views(&device, 10), false, mode);
        let checkpointed = step(&parameters, &network, views(&device, 10), true, mode);
        assert!(plain == checkpointed, "{mode:?}");
        // Each running average is updated once, although its BatchNorm ran twice.
        let buffers = parameters.ids().filter(|&id| parameters.kind(id) == ParameterKind::Buffer).count();
        let expected = if mode == Mode::Train { buffers } else { 0 };
        assert_eq!(checkpointed.2.len(), expected);
    }
}

/// A worker without others that counts how often it would exchange.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Collective for Counting {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![own.to_vec()])
    }

    fn all_reduce_tensors(&self, _: &mut dyn Iterator<Item = &mut Tensor>) -> Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The second run of a segment normalises by the statistics of the first.
#[test]
fn a_checkpointed_step_exchanges_no_more_than_a_plain_one() {
    let device = device();
    let (parameters, network) = Network::new(&device);
    let exchanges = |checkpoint: bool| {
        let counting = Counting::default();
        let mut tape = Tape::new(&parameters, Mode::Train, &counting);
        let (loss, _) = network.loss(&mut tape, views(&device, 10), checkpoint).unwrap();
        tape.backward(&loss, one(&device)).unwrap();
        drop(tape);
        counting.0.into_inner()
    };
    assert!(exchanges(false) > 2);
    assert_eq!(exchanges(true), exchanges(false));
}

/// A dense layer and a ReLU.
struct Layer(ParameterId);

impl<'a> Segment<'a> for Layer {
    fn forward(&'a self, tape: &mut Tape<'a>, x: &[Var]) -> Result<Var> {
        let w = tape.parameter(self.0);
        let y = ops::linear(tape, &x[0], &w, None)?;
        ops::relu(tape, &y)
    }
}

/// Three layers, the inner one a segment of its own.
struct Nested(Layer, Layer);

impl<'a> Segment<'a> for Nested {
    fn forward(&'a self, tape: &mut Tape<'a>, x: &[Var]) -> Result<Var> {
        let x = self.0.forward(tape, x)?;
        let x = tape.checkpoint(&[&x], &self.1)?;
        self.0.forward(tape, &[x])
    }
}

#[test]
fn segments_nest() {
    let device = device();
    let mut parameters = Parameters::new();
    let w = parameter(&mut parameters, &device, "w", &[5, 5]);
    let v = parameter(&mut parameters, &device, "v", &[5, 5]);
    let segment = Nested(Layer(w), Layer(v));
    let run = |nested: bool| {
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let x = tape.input(tensor(&device, "x", &[3, 5]));
        let y = if nested {
            tape.checkpoint(&[&x], &segment).unwrap()
        } else {
            let Nested(outer, inner) = &segment;
            let y = outer.forward(&mut tape, &[x]).unwrap();
            let y = inner.forward(&mut tape, &[y]).unwrap();
            outer.forward(&mut tape, &[y]).unwrap()
        };
        let mut calls = Vec::new();
        let gradients = tape
            .backward_with(&y, tensor(&device, "dy", &[3, 5]), &mut |id, g| {
                calls.push((id, bits(g)));
                Ok(())
            })
            .unwrap();
        let all: Vec<_> = gradients.iter().map(|(_, g)| bits(g)).collect();
        (all, calls)
    };
    let (plain, calls) = run(false);
    let (nested, nested_calls) = run(true);
    assert!(plain == nested);
    // w is used twice: its gradient is reported complete only after backward has passed its first use.
    assert_eq!(calls.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [v, w]);
    assert!(calls == nested_calls);
    assert!(calls[1].1 == plain[w.index()]);
}

#[test]
fn a_segment_may_take_several_inputs_and_none_that_need_gradients() {
    let device = device();
    let mut parameters = Parameters::new();
    let a = parameter(&mut parameters, &device, "a", &[2, 3]);
    let b = parameter(&mut parameters, &device, "b", &[2, 3]);
    let segment = |tape: &mut Tape, x: &[Var]| {
        let sum = ops::add(tape, &x[0], &x[1])?;
        let sum = ops::add(tape, &sum, &x[2])?;
        let sum = ops::add(tape, &sum, &x[0])?;
        ops::l2_normalize(tape, &sum)
    };
    let run = |checkpoint: bool| {
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let (a, b) = (tape.parameter(a), tape.parameter(b));
        let data = tape.input(tensor(&device, "data", &[2, 3]));
        let y = if checkpoint {
            tape.checkpoint(&[&a, &data, &b], &segment).unwrap()
        } else {
            segment(&mut tape, &[a, data, b]).unwrap()
        };
        let gradients = tape.backward(&y, tensor(&device, "dy", &[2, 3])).unwrap();
        gradients.iter().map(|(id, g)| (id, bits(g))).collect::<Vec<_>>()
    };
    assert_eq!(run(true).len(), 2);
    assert!(run(true) == run(false));
}

#[test]
fn checkpoints_take_less_memory() {
    let memory = |checkpoint: bool| {
        let device = device();
        let (parameters, network) = Network::new(&device);
        let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
        let (loss, _) = network.loss(&mut tape, views(&device, 64), checkpoint).unwrap();
        let live = device.memory().live;
        tape.backward(&loss, one(&device)).unwrap();
        [live, device.memory().peak]
    };
    let ([plain, plain_peak], [checkpointed, checkpointed_peak]) = (memory(false), memory(true));
    assert!(10 * checkpointed < 7 * plain, "after forward {checkpointed} of {plain} bytes");
    assert!(100 * checkpointed_peak < 92 * plain_peak, "at most {checkpointed_peak} of {plain_peak} bytes");
}

#[test]
fn backward_gives_back_what_forward_kept() {
    let device = device();
    let (parameters, network) = Network::new(&device);
    let before = device.memory().live;
    let mut tape = Tape::new(&parameters, Mode::Train, &SingleProcess);
    let (loss, _) = network.loss(&mut tape, views(&device, 8), false).unwrap();
    let kept = device.memory().live;
    let gradients = tape.backward(&loss, one(&device)).unwrap();
    drop((gradients, loss));
    let after = device.memory().live;
    // The tape still exists, but holds only the new running averages.
    assert!(after - before < (kept - before) / 10, "{before} {kept} {after}");
    drop(tape);
    assert_eq!(device.memory().live, before);
}
