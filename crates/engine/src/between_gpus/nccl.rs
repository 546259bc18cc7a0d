//! Exchange by NCCL, beside the exchange between CPUs, and a thread that watches over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use simclr_cuda::{Communicator, Device, GROUP_ID};

use crate::{Collective, DType, EngineError, Result, Tensor};

/// How often to check whether a worker has gone.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// More messages than a worker sends to another without waiting for an answer.
const MAX_PENDING_MESSAGES: usize = 8;
/// The time limit for connecting the GPUs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(300);

/// Workers that exchange tensors on GPUs, and everything else through `host`.
pub(super) struct BetweenGpus<'h> {
    host: &'h dyn Collective,
    gpu: Device,
    communicator: Arc<Communicator>,
    watchdog: Option<Watchdog>,
}

impl<'h> BetweenGpus<'h> {
    pub(super) fn join(host: &'h dyn Collective, gpu: &Device) -> Result<BetweenGpus<'h>> {
        let group = agree_on_group(host, gpu)?;
        let communicator = Arc::new(join_or_give_up(host, gpu, group)?);
        let watchdog = Some(Watchdog::start(communicator.clone(), host.gone())?);
        Ok(BetweenGpus { host, gpu: gpu.clone(), communicator, watchdog })
    }

    /// Passes on the result of a call to `host`. An error sets the `gone` flag, which ends exchanges that wait.
    fn flag_error<R>(&self, result: Result<R>) -> Result<R> {
        if let (Err(_), Some(gone)) = (&result, self.host.gone()) {
            gone.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Passes on the result of starting an exchange on the GPU, or, if the group was left, why it was.
    fn check_started<E: Into<EngineError>>(&self, started: std::result::Result<(), E>) -> Result<()> {
        match started {
            Err(_) if self.communicator.has_left() => self.check(),
            started => started.map_err(Into::into),
        }
    }
}

/// Returns the id of the group that worker 0 creates. If any worker cannot take part, all workers get its error, so
/// that none is left waiting.
fn agree_on_group(host: &dyn Collective, gpu: &Device) -> Result<[u8; GROUP_ID]> {
    let own = match host.rank() {
        0 => gpu.new_group().map(Vec::from),
        _ => gpu.can_exchange().map(|()| Vec::new()),
    };
    // One byte for success or failure, then the data or the error message.
    let words = match &own {
        Ok(bytes) => [&[1], bytes.as_slice()].concat(),
        Err(error) => [&[0], error.to_string().as_bytes()].concat(),
    };
    let mut group = [0; GROUP_ID];
    for (rank, words) in host.exchange(&words)?.iter().enumerate() {
        match words.split_first() {
            Some((1, bytes)) if rank == 0 && bytes.len() == GROUP_ID => group.copy_from_slice(bytes),
            Some((1, [])) if rank > 0 => {}
            other => {
                let why = other.map_or("it gave no reason".into(), |(_, why)| String::from_utf8_lossy(why));
                return Err(EngineError::Collective(format!("worker {rank}: {why}")));
            }
        }
    }
    Ok(group)
}

/// Joins the group on a separate thread, which is abandoned if another worker goes before it has joined: NCCL would
/// wait for that worker for ever.
fn join_or_give_up(host: &dyn Collective, gpu: &Device, group: [u8; GROUP_ID]) -> Result<Communicator> {
    let (gone, (joining, wait)) = (host.gone(), channel());
    let (gpu, rank, size) = (gpu.clone(), host.rank(), host.size());
    let problem = |what: String| EngineError::Collective(what);
    Builder::new()
        .name("joining a group of GPUs".to_owned())
        // Sending fails only if this function has given up waiting.
        .spawn(move || drop(joining.send(gpu.join_group(group, rank, size))))
        .map_err(|error| problem(format!("starting the thread that joins a group of GPUs: {error}")))?;
    let end = Instant::now() + CONNECT_TIMEOUT;
    loop {
        match wait.recv_timeout(POLL_INTERVAL) {
            Ok(joined) => return joined.map_err(|error| problem(error.to_string())),
            Err(RecvTimeoutError::Timeout)
                if gone.as_ref().is_some_and(|gone| gone.load(Ordering::Relaxed)) =>
            {
                return Err(problem("another worker has gone while GPUs were being connected".to_owned()));
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                return Err(problem(format!(
                    "GPUs were not connected within {seconds} seconds: does the network let NCCL through, and does NCCL_SOCKET_IFNAME name the right interface? \
                     NCCL_DEBUG=INFO tells more"
                )));
            }
        }
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
        self.flag_error(self.host.exchange(own))
    }

    fn all_reduce_sum(&self, values: &mut [f64]) -> Result<()> {
        self.flag_error(self.host.all_reduce_sum(values))
    }

    fn all_reduce_sum_f32(&self, values: &mut [f32]) -> Result<()> {
        self.flag_error(self.host.all_reduce_sum_f32(values))
    }

    fn all_gather(&self, own: &[f32], all: &mut [f32]) -> Result<()> {
        self.flag_error(self.host.all_gather(own, all))
    }

    fn all_reduce_tensors(&self, list: &mut dyn Iterator<Item = &mut Tensor>) -> Result<()> {
        let mut problem = None;
        let started = self.communicator.exchange(|exchange| {
            for tensor in list {
                let asked = match tensor.dtype() {
                    DType::F64 => tensor.gpu_mut::<f64>(&self.gpu).map(|values| exchange.all_reduce(values)),
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
        });
        self.check_started(started)?;
        problem.map_or(Ok(()), Err)
    }

    fn all_gather_tensor(&self, own: &Tensor, all: &mut Tensor) -> Result<()> {
        let (own, all) = (own.gpu::<f32>()?, all.gpu_mut(&self.gpu)?);
        self.check_started(self.communicator.exchange(|exchange| exchange.all_gather(own, all)))
    }

    fn check(&self) -> Result<()> {
        if !self.communicator.has_left() {
            return self.host.check();
        }
        // The worker that has gone may have sent its reason, behind earlier messages.
        for _ in 0..MAX_PENDING_MESSAGES {
            self.flag_error(self.host.exchange(b""))?;
        }
        Err(EngineError::Collective("GPUs no longer reach each other".to_owned()))
    }

    fn gone(&self) -> Option<Arc<AtomicBool>> {
        self.host.gone()
    }

    /// Also aborts the exchanges that the GPU still waits for.
    fn leave(&self, why: &str) {
        self.host.leave(why);
        self.communicator.leave();
    }
}

impl Drop for BetweenGpus<'_> {
    /// Waits for what was started while the watch still runs, so that a worker that has gone does not block it.
    fn drop(&mut self) {
        // An error here was already reported to whoever used the results.
        let _ = self.gpu.synchronize();
        drop(self.watchdog.take());
    }
}

/// A thread that aborts exchanges when a worker has gone or a connection has broken.
struct Watchdog {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn start(communicator: Arc<Communicator>, gone: Option<Arc<AtomicBool>>) -> Result<Watchdog> {
        let (end, ended) = channel::<()>();
        let watch = move || {
            let has_gone = || gone.as_ref().is_some_and(|gone| gone.load(Ordering::Relaxed));
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(POLL_INTERVAL) {
                if has_gone() || communicator.has_failed() {
                    return communicator.leave();
                }
            }
        };
        let thread = Builder::new().name("watch over workers".to_owned()).spawn(watch);
        let thread = thread.map_err(|error| {
            EngineError::Device(format!("starting the thread that watches over workers: {error}"))
        })?;
        Ok(Watchdog { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // A panic was already reported when it happened.
            let _ = thread.join();
        }
    }
}
