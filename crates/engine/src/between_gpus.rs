//! Exchange of tensors between workers on GPUs.

use crate::{Collective, Device, Result};

/// A collective of the workers of `host`, each with a GPU, `device`, of its own. Tensors are exchanged by NCCL, also
/// within captured steps; values in host memory still go through `host`. Returns `None` if the device is not a GPU
/// or there is only one worker: use `host` itself then.
///
/// All workers must call this together. When a worker is found to have gone ([`Collective::gone`]), the exchanges
/// that wait for it end, and [`Collective::check`] reports it.
///
/// # Errors
/// [`EngineError::Collective`](crate::EngineError::Collective) if NCCL is missing or fails on any worker, and those
/// of [`Collective::exchange`].
pub fn between_gpus<'h>(
    host: &'h dyn Collective,
    device: &Device,
) -> Result<Option<Box<dyn Collective + 'h>>> {
    #[cfg(feature = "cuda")]
    if let crate::memory::Place::Gpu(gpu) = device.place()
        && host.size() > 1
    {
        return Ok(Some(Box::new(nccl::BetweenGpus::join(host, gpu)?)));
    }
    let _ = (host, device);
    Ok(None)
}

#[cfg(feature = "cuda")]
mod nccl;
