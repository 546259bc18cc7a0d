//! Several processes that train as one, on one machine or several, over TCP.
//!
//! ```text
//! worker 0 listens ◀── the others introduce themselves   (rendezvous.rs)
//! then every worker is connected to every other, and data goes
//! directly between them:                                 (link.rs)
//!     small sums, gathers     own values to all, theirs from all
//!     sums of gradients       piece j to worker j, which adds it up and sends the sum to all
//! ```
//!
//! Values are sent unencrypted in native byte order: the network is trusted, and all workers compute on one kind of
//! processor. Workers on GPUs exchange only data outside the step here; tensors go through NCCL
//! (`simclr_engine::between_gpus`).

mod link;
mod rendezvous;

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use simclr_engine::{Collective, EngineError, Result};

use link::Link;
pub use rendezvous::{Host, Wait};

/// Sums of more bytes than this are cut into one piece per worker.
const WHOLE: usize = 32 << 10;

/// This process's connections to the other workers.
#[derive(Debug)]
pub struct Workers {
    rank: usize,
    size: usize,
    local_size: usize,
    mesh: Mutex<Mesh>,
    /// Whether another worker has gone; set by the connections' threads.
    gone: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Mesh {
    /// By rank; `None` for this worker.
    links: Vec<Option<Link>>,
    sums: Vec<f64>,
    bytes: Vec<u8>,
}

impl Workers {
    /// Creates the workers from `links` by rank, which set `gone`; `local_size` of the workers are on this machine.
    fn new(rank: usize, local_size: usize, links: Vec<Option<Link>>, gone: Arc<AtomicBool>) -> Workers {
        let size = links.len();
        let mesh = Mutex::new(Mesh { links, sums: Vec::new(), bytes: Vec::new() });
        Workers { rank, size, local_size, mesh, gone }
    }

    /// How many of the workers, this one included, share this machine.
    pub fn local_size(&self) -> usize {
        self.local_size
    }

    fn with_mesh<R>(&self, work: impl FnOnce(&mut Mesh) -> R) -> R {
        work(&mut self.mesh.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Mesh {
    fn send_to_all(&mut self, bytes: &[u8]) {
        self.links.iter_mut().flatten().for_each(|link| link.send(bytes));
    }

    /// Adds the values that worker `rank` sends, or `own` if that is this worker, to the sums.
    fn add<T: bytemuck::Pod + Into<f64>>(&mut self, rank: usize, own: &[T]) -> Result<()> {
        let Mesh { links, sums, bytes } = self;
        let add = |sums: &mut [f64], values: &[u8]| {
            let values = values.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned::<T>);
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value.into());
        };
        match &mut links[rank] {
            Some(link) => {
                bytes.resize(size_of_val(own), 0);
                link.take_into(bytes)?;
                add(sums, bytes);
            }
            None => add(sums, bytemuck::cast_slice(own)),
        }
        Ok(())
    }

    /// Adds up the `own` values of all workers in the order of ranks. All workers must have sent theirs.
    fn add_up<T: bytemuck::Pod + Into<f64>>(&mut self, own: &[T]) -> Result<()> {
        self.sums.clear();
        self.sums.resize(own.len(), 0.0);
        (0..self.links.len()).try_for_each(|rank| self.add(rank, own))
    }
}

impl Collective for Workers {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.with_mesh(|mesh| {
            mesh.send_to_all(own);
            let brought = mesh.links.iter_mut().map(|link| match link {
                Some(link) => link.take(),
                None => Ok(own.to_vec()),
            });
            brought.collect()
        })
    }

    fn all_reduce_sum(&self, values: &mut [f64]) -> Result<()> {
        self.with_mesh(|mesh| {
            mesh.send_to_all(bytemuck::cast_slice(values));
            mesh.add_up(values)?;
            values.copy_from_slice(&mesh.sums);
            Ok(())
        })
    }

    fn all_reduce_sum_f32(&self, values: &mut [f32]) -> Result<()> {
        let round = |sums: &[f64], values: &mut [f32]| {
            values.iter_mut().zip(sums).for_each(|(value, sum)| *value = *sum as f32);
        };
        self.with_mesh(|mesh| {
            if size_of_val(values) <= WHOLE {
                mesh.send_to_all(bytemuck::cast_slice(values));
                mesh.add_up(values)?;
                round(&mesh.sums, values);
                return Ok(());
            }
            let length = values.len();
            let piece = |rank| piece(length, rank, self.size);
            for (rank, link) in mesh.links.iter_mut().enumerate() {
                if let Some(link) = link {
                    link.send(bytemuck::cast_slice(&values[piece(rank)]));
                }
            }
            let own = &mut values[piece(self.rank)];
            mesh.add_up(own)?;
            round(&mesh.sums, own);
            mesh.send_to_all(bytemuck::cast_slice(own));
            for (rank, link) in mesh.links.iter_mut().enumerate() {
                if let Some(link) = link {
                    link.take_into(bytemuck::cast_slice_mut(&mut values[piece(rank)]))?;
                }
            }
            Ok(())
        })
    }

    fn all_gather(&self, own: &[f32], all: &mut [f32]) -> Result<()> {
        self.with_mesh(|mesh| {
            mesh.send_to_all(bytemuck::cast_slice(own));
            for (link, place) in mesh.links.iter_mut().zip(all.chunks_exact_mut(own.len().max(1))) {
                match link {
                    Some(link) => link.take_into(bytemuck::cast_slice_mut(place))?,
                    None => place.copy_from_slice(own),
                }
            }
            Ok(())
        })
    }

    fn gone(&self) -> Option<Arc<AtomicBool>> {
        Some(self.gone.clone())
    }

    fn leave(&self, why: &str) {
        self.with_mesh(|mesh| mesh.links.iter_mut().flatten().for_each(|link| link.send_last_words(why)));
    }
}

/// The piece of worker `rank` when `length` values are cut as evenly as possible.
fn piece(length: usize, rank: usize, size: usize) -> Range<usize> {
    length * rank / size..length * (rank + 1) / size
}

#[cfg(test)]
mod tests;
