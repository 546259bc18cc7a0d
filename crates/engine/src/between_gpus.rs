//! Workers that exchange tensors on GPUs.

use crate::{Collective, Device, Result};

/// The workers of `host`, who exchange tensors on GPUs, each on its own `device`, by NCCL, within captured steps
/// too; what is in host memory they exchange as before. None where the device is no GPU, or the worker alone: then
/// `host` does.
///
/// All workers call it at once. Whoever is found to have gone ([`Collective::gone`]) ends what others wait for;
/// [`Collective::check`] tells it.
///
/// # Errors
/// [`EngineError::Collective`](crate::EngineError::Collective) where NCCL is missing or refuses, of any worker, and
/// those of [`Collective::exchange`].
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
