//! Whether the workers of a run can compute one step together.

use serde::{Deserialize, Serialize};
use simclr_engine::Device;

use super::Team;
use crate::TrainError;
use crate::pretrain::Identity;

/// What workers compare before they train together.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Common {
    #[serde(flatten)]
    data: Identity,
    instructions: String,
    /// The identifier of the worker's GPU, if it has one.
    gpu: Option<[u8; 16]>,
}

impl Common {
    /// Why the worker `rank`, with these, cannot compute with worker 0, with `first`.
    fn problem(&self, rank: usize, first: &Common) -> Option<String> {
        if self.data.images != first.data.images {
            return Some(format!(
                "worker {rank} has {} images, worker 0 {}; give every worker the same data",
                self.data.images, first.data.images
            ));
        }
        if !self.data.has_names_of(&first.data) {
            return Some(format!(
                "worker {rank} has other images than worker 0, or in another order; give every worker the same data"
            ));
        }
        if self.data.sizes.zip(first.data.sizes).is_some_and(|(own, first)| own != first) {
            return Some(format!(
                "worker {rank} has images whose files have other sizes than those of worker 0; give every worker the same data"
            ));
        }
        (self.instructions != first.instructions).then(|| {
            format!(
                "worker {rank} computes with {}, worker 0 with {}, and would round differently; take processors, or GPUs, of one kind",
                self.instructions, first.instructions
            )
        })
    }
}

/// The ranks of two workers on the same GPU, if there are such.
fn shared_gpu(all: &[Common]) -> Option<(usize, usize)> {
    all.iter().enumerate().find_map(|(rank, Common { gpu, .. })| {
        let one = all[..rank].iter().position(|one| gpu.is_some() && one.gpu == *gpu)?;
        Some((one, rank))
    })
}

impl Team<'_> {
    /// Checks that all workers can compute one step together: on the same images, on processors of one kind, or on
    /// a GPU each.
    ///
    /// # Errors
    /// [`TrainError::Workers`] or [`TrainError::SharedGpu`], the same for all.
    pub(in crate::pretrain) fn check(&self, data: Identity, device: &Device) -> Result<(), TrainError> {
        if self.is_alone() {
            return Ok(());
        }
        let own = Common { data, instructions: device.instructions(), gpu: device.gpu_id()? };
        let all: Vec<Common> = self.exchange(&own)?;
        // Every worker sees the same data, so all report the same error.
        let Some(first) = all.first() else { return Ok(()) };
        let mut others = all.iter().enumerate().skip(1);
        if let Some(problem) = others.find_map(|(rank, other)| other.problem(rank, first)) {
            return Err(TrainError::Workers(problem));
        }
        match shared_gpu(&all) {
            Some((one, other)) => Err(TrainError::SharedGpu { one, other, gpu: first.instructions.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_on_one_gpu_are_found() {
        let data = Identity { images: 9, names: 7, names_within: None, sizes: None };
        let of = |gpus: &[Option<u8>]| -> Vec<Common> {
            let common = |gpu: &Option<u8>| Common {
                data,
                instructions: String::new(),
                gpu: gpu.map(|number| [number; 16]),
            };
            gpus.iter().map(common).collect()
        };
        for (gpus, shared) in [
            (&[Some(1), Some(2), Some(3)][..], None),
            (&[Some(1), Some(2), Some(3), Some(2)], Some((1, 3))),
            (&[Some(4), Some(4)], Some((0, 1))),
            // Processors have no identifier.
            (&[None, None], None),
            (&[], None),
        ] {
            assert_eq!(shared_gpu(&of(gpus)), shared, "{gpus:?}");
        }
    }
}
