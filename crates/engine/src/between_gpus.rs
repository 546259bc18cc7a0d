//! Workers that exchange tensors on GPUs.

use crate::{Collective, Device, Result};

/// The workers of `host`, who exchange tensors on GPUs, each on its own `device`, by NCCL, within captured steps too; what is in host memory they
/// exchange as before. None where the device is no GPU, or the worker alone: then `host` does.
///
/// All workers call it at once. Whoever is found to have gone ([`Collective::gone`]) ends what others wait for; [`Collective::check`] tells it.
///
/// # Errors
/// [`EngineError::Device`](crate::EngineError::Device) where NCCL is missing or refuses, and those of [`Collective::exchange`].
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
mod nccl {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
    use std::thread::{Builder, JoinHandle};
    use std::time::Duration;

    use simclr_cuda::{Communicator, Device, GROUP_ID};

    use crate::{Collective, DType, EngineError, Result, Tensor};

    /// How often it is looked whether a worker has gone.
    const LOOK: Duration = Duration::from_millis(500);

    pub(super) struct BetweenGpus<'h> {
        host: &'h dyn Collective,
        gpu: Device,
        communicator: Arc<Communicator>,
        watch: Option<Watch>,
    }

    impl<'h> BetweenGpus<'h> {
        pub(super) fn join(host: &'h dyn Collective, gpu: &Device) -> Result<BetweenGpus<'h>> {
            // What one worker lacks must not leave the others waiting: all hear of it.
            let own = if host.rank() == 0 {
                gpu.new_group().map(Vec::from)
            } else {
                gpu.can_exchange().map(|()| Vec::new())
            };
            let told = host.exchange(&to_words(&own))?;
            own?;
            let mut group = [0; GROUP_ID];
            for (rank, words) in told.iter().enumerate() {
                let brought = from_words(words)
                    .map_err(|why| EngineError::Collective(format!("worker {rank}: {why}")))?;
                if rank == 0 && brought.len() == GROUP_ID {
                    group.copy_from_slice(brought);
                }
            }
            let communicator = Arc::new(gpu.join_group(group, host.rank(), host.size())?);
            let watch = host.gone().map(|gone| Watch::start(communicator.clone(), gone)).transpose()?;
            Ok(BetweenGpus { host, gpu: gpu.clone(), communicator, watch })
        }
    }

    /// One byte, whether it went well, then what there is, or what is wrong.
    fn to_words<E: ToString>(own: &std::result::Result<Vec<u8>, E>) -> Vec<u8> {
        match own {
            Ok(bytes) => [&[1], bytes.as_slice()].concat(),
            Err(error) => [&[0], error.to_string().as_bytes()].concat(),
        }
    }

    fn from_words(words: &[u8]) -> std::result::Result<&[u8], String> {
        match words.split_first() {
            Some((1, bytes)) => Ok(bytes),
            Some((_, why)) => Err(String::from_utf8_lossy(why).into_owned()),
            None => Err("it says nothing".to_owned()),
        }
    }

    impl Collective for BetweenGpus<'_> {
        fn rank(&self) -> usize {
            self.host.rank()
        }

        fn size(&self) -> usize {
            self.host.size()
        }

        fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
            self.host.exchange(own)
        }

        fn all_reduce_sum(&self, values: &mut [f64]) -> Result<()> {
            self.host.all_reduce_sum(values)
        }

        fn all_reduce_sum_f32(&self, values: &mut [f32]) -> Result<()> {
            self.host.all_reduce_sum_f32(values)
        }

        fn all_gather(&self, own: &[f32], all: &mut [f32]) -> Result<()> {
            self.host.all_gather(own, all)
        }

        fn all_reduce(&self, list: &mut dyn Iterator<Item = &mut Tensor>) -> Result<()> {
            let mut problem = None;
            self.communicator.exchange(|exchange| {
                for tensor in list {
                    let asked = match tensor.dtype() {
                        DType::F64 => {
                            tensor.gpu_mut::<f64>(&self.gpu).map(|values| exchange.all_reduce(values))
                        }
                        _ => tensor.gpu_mut::<f32>(&self.gpu).map(|values| exchange.all_reduce(values)),
                    };
                    match asked {
                        Ok(asked) => asked?,
                        Err(error) => {
                            problem = Some(error);
                            break;
                        }
                    }
                }
                Ok(())
            })?;
            problem.map_or(Ok(()), Err)
        }

        fn gather(&self, own: &Tensor, all: &mut Tensor) -> Result<()> {
            let (own, all) = (own.gpu::<f32>()?, all.gpu_mut(&self.gpu)?);
            Ok(self.communicator.exchange(|exchange| exchange.all_gather(own, all))?)
        }

        fn check(&self) -> Result<()> {
            match self.communicator.is_aborted() {
                true => Err(EngineError::Collective("another worker has gone".to_owned())),
                false => self.host.check(),
            }
        }

        fn gone(&self) -> Option<Arc<AtomicBool>> {
            self.host.gone()
        }

        /// What the GPU still waits for is given up: nobody comes.
        fn leave(&self, why: &str) {
            self.host.leave(why);
            self.communicator.abort();
        }
    }

    impl Drop for BetweenGpus<'_> {
        /// Waits for what was started, while it is still watched who has gone.
        fn drop(&mut self) {
            // Whoever used what failed was told.
            let _ = self.gpu.synchronize();
            drop(self.watch.take());
        }
    }

    /// A thread that gives up exchanges which wait for a worker that has gone.
    struct Watch {
        end: Option<Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Watch {
        fn start(communicator: Arc<Communicator>, gone: Arc<AtomicBool>) -> Result<Watch> {
            let (end, ended) = channel::<()>();
            let watch = move || {
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                    if gone.load(Ordering::Relaxed) {
                        return communicator.abort();
                    }
                }
            };
            let thread = Builder::new().name("watch over workers".to_owned()).spawn(watch);
            let thread =
                thread.map_err(|error| EngineError::Device(format!("a thread that watches: {error}")))?;
            Ok(Watch { end: Some(end), thread: Some(thread) })
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            self.end = None;
            if let Some(thread) = self.thread.take() {
                // A panic was reported when it happened.
                let _ = thread.join();
            }
        }
    }
}
