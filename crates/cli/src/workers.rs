//! Training with several processes: which of them this is, and how it joins the others.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use simclr_cuda::{Gpus, Libraries};
use simclr_engine::Collective;
use simclr_train::pretrain::{Team, Worker};
use simclr_train::workers::{Host, Wait, Workers};
use simclr_train::{Config, TrainError};

use crate::exit::{Stopped, usage};
use crate::settings::{OnDevice, from_to, processors};
use crate::{interrupt, terminal};

/// The most workers: more would send each other more than they compute.
const MAX_WORKERS: usize = 1024;
/// How long to wait for workers on other machines.
const REMOTE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long to wait for workers that were started here.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long workers that were started here may take to end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The environment variables in which launchers give a process its rank, the number of processes, and its rank on its
/// machine: torchrun, Open MPI, MPICH and Intel's MPI, Slurm. Slurm is last, as the others may run within its tasks.
const NUMBERED_BY: [[&str; 3]; 4] = [
    ["RANK", "WORLD_SIZE", LOCAL_RANK],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"],
    ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"],
    ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"],
];
/// Also set for the workers that this process starts.
const LOCAL_RANK: &str = "LOCAL_RANK";

/// Train with several processes
#[derive(Args, Clone, Debug, Default)]
pub struct WorkerArgs {
    /// Train with N processes that share every batch (the result of one, but for the rounding of sums): all on this
    /// machine, or, with --meet, wherever you start them. On GPUs each local process takes the next one from --device;
    /// a process started by hand takes exactly that one
    #[arg(long, value_name = "N", value_parser = from_to(1, MAX_WORKERS), help_heading = "Workers")]
    workers: Option<usize>,

    /// Number of this process, from 0; process 0 keeps the run folder [default: as torchrun, mpirun or srun has
    /// numbered it]
    #[arg(long, value_name = "I", requires = "meet", help_heading = "Workers")]
    worker: Option<usize>,

    /// Where the processes meet: a name or address of process 0's machine that all can reach, and a port that is
    /// free there
    #[arg(long, value_name = "HOST:PORT", help_heading = "Workers")]
    meet: Option<String>,

    /// Started by worker 0
    #[arg(long, hide = true, requires = "meet")]
    started: bool,
}

/// Which worker this is.
#[derive(Clone, Debug, PartialEq)]
pub enum WorkerRole {
    /// The only one.
    Alone,
    /// The first of this many on this machine, which starts the others.
    Launcher(usize),
    /// One of several that meet at `address`. `local_rank` is its rank on its machine as far as the launcher gives it.
    Member { rank: usize, world_size: usize, local_rank: usize, address: String },
}

impl WorkerRole {
    /// The worker that this process is, as far as that is known before the others have joined.
    pub fn worker(&self) -> Worker {
        match *self {
            WorkerRole::Alone => Worker::ALONE,
            WorkerRole::Launcher(world_size) => Worker { rank: 0, world_size, local_size: world_size },
            WorkerRole::Member { rank, world_size, .. } => Worker { rank, world_size, local_size: 1 },
        }
    }

    /// The number of this worker's GPU, if all workers were given `first`: each on a machine takes its own.
    pub fn gpu(&self, first: usize) -> usize {
        let WorkerRole::Member { local_rank: local_rank @ 1.., .. } = *self else { return first };
        // A worker that sees only one GPU calls it 0. With too few GPUs two workers share one, which is reported later.
        let count = Gpus::find(&Libraries::find()).gpus.len().max(1);
        (first + local_rank) % count
    }
}

impl WorkerArgs {
    /// Which worker this is.
    pub fn role(&self) -> Result<WorkerRole> {
        self.role_among(|name| std::env::var(name).ok())
    }

    fn role_among(&self, environment: impl Fn(&str) -> Option<String>) -> Result<WorkerRole> {
        let Some(address) = self.meet.clone() else {
            return Ok(match self.workers {
                None | Some(1) => WorkerRole::Alone,
                Some(world_size) => WorkerRole::Launcher(world_size),
            });
        };
        let number = |name: &str| environment(name).and_then(|text| text.trim().parse::<usize>().ok());
        let numbered = NUMBERED_BY
            .iter()
            .find_map(|[rank, size, local]| Some((number(rank)?, number(size)?, number(local))));
        let Some(world_size) = self.workers.or(numbered.map(|(_, size, _)| size)) else {
            return Err(usage("--meet: how many workers are there? give --workers N"));
        };
        let Some(rank) = self.worker.or(numbered.map(|(rank, ..)| rank)) else {
            return Err(usage(format!(
                "--meet: which of the {world_size} workers is this? give --worker 0 to {}",
                world_size - 1
            )));
        };
        if !(1..=MAX_WORKERS).contains(&world_size) || rank >= world_size {
            return Err(usage(format!(
                "--worker {rank}: of {world_size} workers there are 0 to {}",
                world_size.saturating_sub(1)
            )));
        }
        let local_rank = match self.worker {
            Some(_) => number(LOCAL_RANK).filter(|_| self.started),
            None => numbered.and_then(|(.., local)| local),
        };
        if world_size == 1 {
            return Ok(WorkerRole::Alone);
        }
        Ok(WorkerRole::Member { rank, world_size, local_rank: local_rank.unwrap_or(0), address })
    }

    /// Whether worker 0 started this process.
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// The arguments that a command line needs to continue the run.
    pub fn again(&self) -> String {
        let mut words = String::new();
        words += &self.workers.map_or(String::new(), |of| format!(" --workers {of}"));
        words += &self.worker.map_or(String::new(), |rank| format!(" --worker {rank}"));
        words += &self.meet.as_ref().map_or(String::new(), |at| format!(" --meet {}", terminal::quoted(at)));
        words
    }
}

/// How the workers of a run that this one keeps come together.
pub struct Rendezvous<'r> {
    /// Which worker this is.
    pub role: WorkerRole,
    /// What to start the other processes with, if this one starts them.
    pub spawn: Option<Spawn<'r>>,
}

/// What worker 0 starts the other processes with.
pub struct Spawn<'s> {
    pub data: &'s [PathBuf],
    pub out: &'s Path,
    pub on: OnDevice,
}

impl Rendezvous<'_> {
    /// A single process.
    pub const ALONE: Rendezvous<'static> = Rendezvous { role: WorkerRole::Alone, spawn: None };

    /// The number of threads to compute with; 0 means one per core. Workers that this process starts share the cores
    /// with it, unless the configuration sets a number.
    pub fn threads(&self, config: &Config) -> usize {
        let given = config.train.threads.value();
        match self.role {
            WorkerRole::Launcher(world_size) => given.unwrap_or_else(|| (processors() / world_size).max(1)),
            WorkerRole::Alone | WorkerRole::Member { .. } => given.unwrap_or(0),
        }
    }

    /// Waits for the other workers, and sends them the configuration of the run.
    pub fn connect(&self, config: &Config) -> Result<ConnectedWorkers> {
        let (host, world_size, timeout, mut children) = match (&self.role, &self.spawn) {
            (WorkerRole::Launcher(world_size), Some(spawn)) => {
                let host = Host::listen("127.0.0.1:0")?;
                let children = ChildProcesses::new(
                    *world_size,
                    &host.address()?.to_string(),
                    spawn,
                    self.threads(config),
                )?;
                (host, *world_size, LOCAL_TIMEOUT, children)
            }
            (WorkerRole::Member { rank: 0, world_size, address, .. }, _) => {
                let host = Host::listen(address)?;
                terminal::say(&format!(
                    "waiting for {} at {address}",
                    terminal::counted(world_size - 1, "other worker")
                ));
                (host, *world_size, REMOTE_TIMEOUT, ChildProcesses(Vec::new()))
            }
            _ => return Ok(ConnectedWorkers { workers: None, _children: ChildProcesses(Vec::new()) }),
        };
        let workers =
            until_interrupted(timeout, &mut || children.check(), |wait| host.meet(world_size, wait))?;
        workers.exchange(config.to_toml()?.as_bytes())?;
        Ok(ConnectedWorkers { workers: Some(workers), _children: children })
    }
}

/// Runs `wait`, which may wait for other workers, until Ctrl-C.
fn until_interrupted<R>(
    timeout: Duration,
    check: &mut dyn FnMut() -> Result<(), TrainError>,
    wait: impl FnOnce(Wait) -> Result<R, TrainError>,
) -> Result<R> {
    let mut check = || match interrupt::requested() {
        true => Err(TrainError::Workers("stopped while other workers were waited for".to_owned())),
        false => check(),
    };
    let waited = wait(Wait { timeout, check: &mut check });
    if waited.is_err() && interrupt::requested() { Err(Stopped.into()) } else { Ok(waited?) }
}

/// The connected workers of a run.
pub struct ConnectedWorkers {
    // Dropped before the processes, which end once nothing is connected any more.
    workers: Option<Workers>,
    _children: ChildProcesses,
}

impl ConnectedWorkers {
    /// Joins the workers of a run that another worker keeps, and receives its configuration.
    pub fn join(rank: usize, world_size: usize, address: &str) -> Result<(ConnectedWorkers, Config)> {
        terminal::say(&format!("worker {rank} of {world_size}, looking for worker 0 at {address}"));
        let workers = until_interrupted(REMOTE_TIMEOUT, &mut || Ok(()), |wait| {
            Workers::join(rank, world_size, address, wait)
        })?;
        let told = workers.exchange(b"")?;
        let text = told.first().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
        let config = Config::from_toml(&text, "the configuration of worker 0")?;
        Ok((ConnectedWorkers { workers: Some(workers), _children: ChildProcesses(Vec::new()) }, config))
    }

    /// The workers in the form that pretraining takes.
    pub fn team(&self) -> Team<'_> {
        match &self.workers {
            Some(workers) => Team::new(workers, workers.local_size()),
            None => Team::ALONE,
        }
    }
}

/// Processes that this one has started, and that end with it.
struct ChildProcesses(Vec<Child>);

/// An option and its value in one argument.
fn joined(option: &str, value: &Path) -> OsString {
    let mut whole = OsString::from(option);
    whole.push(value);
    whole
}

impl ChildProcesses {
    fn new(world_size: usize, address: &str, spawn: &Spawn, threads: usize) -> Result<ChildProcesses> {
        let program = std::env::current_exe().context("--workers: this program does not know where it is")?;
        let mut children = ChildProcesses(Vec::new());
        for rank in 1..world_size {
            let mut command = Command::new(&program);
            command.arg("pretrain").arg(joined("--out=", spawn.out));
            command.args([
                "--workers",
                &world_size.to_string(),
                "--worker",
                &rank.to_string(),
                "--meet",
                address,
                "--started",
            ]);
            command.arg(format!("--threads={threads}"));
            command.args(spawn.on.device.map(|device| format!("--device={device}")));
            // Names may begin with a dash.
            command.arg("--").args(spawn.data);
            command.env(LOCAL_RANK, rank.to_string());
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            children.0.push(child.with_context(|| format!("--workers: starting {}", program.display()))?);
        }
        Ok(children)
    }

    /// Fails if a process has ended.
    fn check(&mut self) -> Result<(), TrainError> {
        for (i, child) in self.0.iter_mut().enumerate() {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(TrainError::Workers(format!(
                    "worker {} has ended before it began ({status})",
                    i + 1
                )));
            }
        }
        Ok(())
    }
}

impl Drop for ChildProcesses {
    fn drop(&mut self) {
        let end = Instant::now() + EXIT_TIMEOUT;
        for child in &mut self.0 {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            // A process that has ended cannot be killed, and nothing can be done about one that cannot be ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(
        workers: Option<usize>,
        worker: Option<usize>,
        meet: bool,
        numbered: &[(&str, &str)],
    ) -> Result<WorkerRole> {
        let args = WorkerArgs { workers, worker, meet: meet.then(|| "a:1".to_owned()), started: false };
        args.role_among(|name| {
            numbered.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_role_is_given_or_known_to_who_started_us() {
        let member = |rank, world_size| WorkerRole::Member {
            rank,
            world_size,
            local_rank: 0,
            address: "a:1".to_owned(),
        };
        let slurm = [("SLURM_PROCID", "3"), ("SLURM_NTASKS", "4")];
        assert_eq!(role(None, None, false, &slurm).unwrap(), WorkerRole::Alone);
        assert_eq!(role(Some(1), None, false, &[]).unwrap(), WorkerRole::Alone);
        assert_eq!(role(Some(3), None, false, &[]).unwrap(), WorkerRole::Launcher(3));
        assert_eq!(role(None, None, true, &slurm).unwrap(), member(3, 4));
        // torchrun started two processes within a single task of Slurm.
        let both = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "1"), ("RANK", "1"), ("WORLD_SIZE", "2")];
        assert_eq!(role(None, None, true, &both).unwrap(), member(1, 2));
        assert_eq!(role(Some(4), Some(0), true, &slurm).unwrap(), member(0, 4));
        let open_mpi = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"];
        let numbered = [(open_mpi[0], "5"), (open_mpi[1], "8"), (open_mpi[2], "1"), (LOCAL_RANK, "0")];
        let expected =
            WorkerRole::Member { rank: 5, world_size: 8, local_rank: 1, address: "a:1".to_owned() };
        assert_eq!(role(None, None, true, &numbered).unwrap(), expected);
        // A rank given by hand overrides the launcher's.
        assert_eq!(role(Some(8), Some(5), true, &numbered).unwrap(), member(5, 8));
        assert_eq!(member(1, 2).gpu(3), 3);
        for (workers, worker, words) in
            [(None, Some(0), "--workers N"), (Some(2), None, "--worker 0 to 1"), (Some(2), Some(2), "0 to 1")]
        {
            let error = role(workers, worker, true, &[]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
