//! `train.memory`: what is kept for the backward pass, chosen by the available memory.

use std::fmt;

use simclr_engine::Device;
use simclr_words::text::Gigabytes;

use super::state::left;
use super::{Images, Needs};
use crate::config::{Auto, Memory};
use crate::optim::Optimizer;
use crate::pretrain::Worker;
use crate::{Config, Model, TrainError};

/// What is kept for the backward pass, and the memory that the run then takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What a step keeps for its backward pass.
    pub memory: Memory,
    /// The memory that the run takes.
    pub needs: Needs,
    /// The memory that [`Memory::Full`] would take, if it was rejected because that does not fit.
    pub full: Option<Needs>,
    /// Bytes that the run may use, if the system reports them.
    pub available: Option<u64>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = match self.memory {
            Memory::Blocks => "train.memory=blocks keeps only the input of each residual block",
            Memory::Full => "train.memory=full keeps every activation",
        };
        write!(f, "needs about {} of memory ({kept}", Gigabytes(self.needs.total()))?;
        if let Some(full) = &self.full {
            write!(f, "; full would need {}", Gigabytes(full.total()))?;
        }
        match self.available {
            Some(available) => write!(f, "); {} available", Gigabytes(available)),
            None => write!(f, "); how much is available the system does not say"),
        }
    }
}

/// The most memory that NCCL is expected to use on a GPU, in bytes.
const NCCL: u64 = 3 << 29;

/// Decides `config.train.memory` for the `worker` of a run on `images` whose `model` and `optimizer` are already
/// allocated.
///
/// # Errors
/// [`TrainError::DoesNotFit`] if the system reports the available memory and it is too little.
pub fn choose(
    model: &Model,
    optimizer: &Optimizer,
    config: &Config,
    images: &Images,
    worker: Worker,
) -> Result<Choice, TrainError> {
    let left = left(&model.device)?.map(|left| share_of(left, model.device.is_gpu(), worker));
    let needs = |memory, batch: usize| {
        Needs::of(model, optimizer, config, memory, batch.div_ceil(worker.world_size), images)
    };
    choose_within(config.train.memory, config.train.batch, &needs, left)
}

/// The share of `left` bytes that the `worker` may use. On GPUs each worker has its own, part of which NCCL will
/// use.
fn share_of(left: u64, on_gpu: bool, worker: Worker) -> u64 {
    match (on_gpu, worker.world_size) {
        (true, 1) => left,
        (true, _) => left - NCCL.min(left / 16),
        (false, _) => left / worker.local_size as u64,
    }
}

/// [`choose`] for any kind of training on `device`: `needs` returns the memory it takes, given what is kept and the
/// images in a batch.
///
/// # Errors
/// Those of [`choose`] and of `needs`.
pub fn choose_for(
    device: &Device,
    memory: Auto<Memory>,
    batch: usize,
    needs: &dyn Fn(Memory, usize) -> Result<Needs, TrainError>,
) -> Result<Choice, TrainError> {
    choose_within(memory, batch, needs, left(device)?)
}

fn choose_within(
    given: Auto<Memory>,
    batch: usize,
    needs: &dyn Fn(Memory, usize) -> Result<Needs, TrainError>,
    left: Option<u64>,
) -> Result<Choice, TrainError> {
    let wanted = given.unwrap_or_default();
    let first = needs(wanted, batch)?;
    // The state is already allocated, so it is not part of what the system has left.
    let available = left.map(|left| left.saturating_add(first.state));
    let fits = |needs: &Needs| available.is_none_or(|available| needs.total() <= available);
    if fits(&first) {
        return Ok(Choice { memory: wanted, needs: first, full: None, available });
    }
    let blocks = needs(Memory::Blocks, batch)?;
    if given == Auto::Auto && fits(&blocks) {
        return Ok(Choice { memory: Memory::Blocks, needs: blocks, full: Some(first), available });
    }
    let (memory, needed) =
        if given == Auto::Value(Memory::Full) { (Memory::Full, first) } else { (Memory::Blocks, blocks) };
    let mut smaller = None;
    // Bisect for the largest batch that fits: the memory of a step grows with the batch.
    let (mut fitting, mut excessive) = (1, batch);
    while excessive - fitting > 1 {
        let middle = fitting + (excessive - fitting) / 2;
        if fits(&needs(memory, middle)?) {
            (fitting, smaller) = (middle, Some(middle));
        } else {
            excessive = middle;
        }
    }
    Err(TrainError::DoesNotFit {
        batch,
        memory,
        needed: needed.total(),
        available: available.unwrap_or(0),
        largest_batch: smaller,
        sent: (needed.loader > needed.state.max(needed.step).max(needed.kernels)).then_some(needed.loader),
        blocks: (memory == Memory::Full && fits(&blocks)).then(|| blocks.total()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layers;

    fn chosen(sets: &[&str], left: Option<u64>) -> Result<Choice, TrainError> {
        let sets: Vec<String> = ["data.image_size=32", "encoder.width=0.125", "train.batch=64"]
            .iter()
            .chain(sets)
            .map(|&set| set.to_owned())
            .collect();
        let config = Config::resolve(&Layers { sets: &sets, ..Layers::default() })?;
        let model = Model::new(&config, &Device::cpu(1)?)?;
        let optimizer = Optimizer::new(&config.optim, &model.parameters)?;
        let needs = |memory, batch| Needs::of(&model, &optimizer, &config, memory, batch, &Images::default());
        choose_within(config.train.memory, config.train.batch, &needs, left)
    }

    #[test]
    fn workers_share_a_machine_but_not_a_gpu() {
        let of = |of, here, on_gpu| {
            share_of(64 << 30, on_gpu, Worker { rank: 0, world_size: of, local_size: here })
        };
        assert_eq!([of(1, 1, false), of(4, 1, false), of(4, 2, false)], [64 << 30, 64 << 30, 32 << 30]);
        assert_eq!([of(1, 1, true), of(4, 2, true)], [64 << 30, (64 << 30) - NCCL]);
        assert_eq!(share_of(16, true, Worker { rank: 1, world_size: 2, local_size: 2 }), 15);
    }

    #[test]
    fn the_most_that_fits_is_chosen_and_said() {
        let full = chosen(&[], None).unwrap();
        assert_eq!((full.memory, full.full), (Memory::Full, None));
        assert!(full.to_string().contains("does not say"), "{full}");
        let beyond_state = full.needs.total() - full.needs.state;
        assert_eq!(chosen(&[], Some(beyond_state)).unwrap().memory, Memory::Full);
        let blocks = chosen(&[], Some(beyond_state - 1)).unwrap();
        assert_eq!((blocks.memory, blocks.full), (Memory::Blocks, Some(full.needs)));
        assert!(blocks.needs.total() < full.needs.total());
        assert!(blocks.to_string().contains("; full would need "), "{blocks}");
        // What is given is kept, though there is room.
        assert_eq!(chosen(&["train.memory=blocks"], None).unwrap().memory, Memory::Blocks);
    }

    #[test]
    fn what_cannot_fit_is_refused_with_the_batch_that_can() {
        let blocks = chosen(&["train.memory=blocks"], None).unwrap().needs;
        let left = blocks.total() - blocks.state - 1;
        let Err(TrainError::DoesNotFit { batch: 64, largest_batch: Some(largest), blocks: None, .. }) =
            chosen(&[], Some(left))
        else {
            panic!("one byte is missing")
        };
        assert!((32..64).contains(&largest), "{largest}");
        let batch = |n: usize| format!("train.batch={n}");
        assert!(chosen(&[&batch(largest)], Some(left)).is_ok());
        assert!(chosen(&[&batch(largest + 1)], Some(left)).is_err());

        // Where the images take the most, they are what should become smaller.
        let (sent, whole) = ([1 << 30, 1 << 20], Auto::Auto);
        for (loader, step) in [(sent[0], sent[1]), (sent[1], sent[0])] {
            let needs = |_, _| Ok(Needs { loader, step, ..Needs::default() });
            let error = choose_within(whole, 64, &needs, Some(1 << 20)).unwrap_err().to_string();
            assert_eq!(error.contains("data.views_on=cpu, or data.shrink"), loader > step, "{error}");
            // With views made elsewhere a batch may fit.
            assert_eq!(error.contains("no batch fits"), loader < step, "{error}");
        }

        let error = chosen(&["train.memory=full"], Some(left + 1)).unwrap_err();
        assert!(error.to_string().contains("train.memory=blocks"), "{error}");
        let error = chosen(&[], Some(0)).unwrap_err();
        assert!(error.to_string().contains("no batch"), "{error}");
    }
}
