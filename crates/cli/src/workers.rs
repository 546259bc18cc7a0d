//! Several processes that train together: which of them this is, and how it comes to the others.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use simclr_engine::Collective;
use simclr_train::pretrain::{Part, Team};
use simclr_train::workers::{Host, Patience, Workers};
use simclr_train::{Config, TrainError};

use crate::exit::usage;
use crate::settings::{OnDevice, Threads, from_to};
use crate::terminal;

/// More workers than this would send each other more than they compute.
const MOST: usize = 1024;
/// How long workers on other machines are waited for.
const ELSEWHERE: Duration = Duration::from_secs(600);
/// How long those are that were started here.
const HERE: Duration = Duration::from_secs(60);
/// How long those that were started here may take to end.
const ENDING: Duration = Duration::from_secs(10);

/// Who started this process says it under these names: Open MPI, MPICH and Intel's MPI, Slurm, torchrun.
const NUMBERED_BY: [[&str; 2]; 4] = [
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
    ["PMI_RANK", "PMI_SIZE"],
    ["SLURM_PROCID", "SLURM_NTASKS"],
    ["RANK", "WORLD_SIZE"],
];

/// Train with several processes
#[derive(Args, Clone, Debug, Default)]
pub struct Working {
    /// Train with N processes, which share every batch and compute what one would: all on this machine, or with --meet wherever they are started
    #[arg(long, value_name = "N", value_parser = from_to(1, MOST), help_heading = "Workers")]
    workers: Option<usize>,

    /// Which of them this is, from 0, which keeps the run [default: as mpirun, srun or torchrun has numbered it]
    #[arg(long, value_name = "I", requires = "meet", help_heading = "Workers")]
    worker: Option<usize>,

    /// Where they meet: a name or address of worker 0's machine that all know, and a port that is free there
    #[arg(long, value_name = "HOST:PORT", help_heading = "Workers")]
    meet: Option<String>,

    /// Started by worker 0
    #[arg(long, hide = true, requires = "meet")]
    started: bool,
}

/// Which worker this is.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// The only one.
    Alone,
    /// The first of so many on this machine, which starts the others.
    First(usize),
    /// One of several that meet.
    Meeting { rank: usize, of: usize, at: String },
}

impl Place {
    /// Which part of the work is done here, as far as that is known before the others have come.
    pub fn part(&self) -> Part {
        match *self {
            Place::Alone => Part::WHOLE,
            Place::First(of) => Part { rank: 0, of, here: of },
            Place::Meeting { rank, of, .. } => Part { rank, of, here: 1 },
        }
    }
}

impl Working {
    /// Which worker this is.
    pub fn place(&self) -> Result<Place> {
        self.place_among(|name| std::env::var(name).ok())
    }

    fn place_among(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Place> {
        let Some(at) = self.meet.clone() else {
            return Ok(match self.workers {
                None | Some(1) => Place::Alone,
                Some(of) => Place::First(of),
            });
        };
        let number = |name: &str| environment(name).and_then(|text| text.trim().parse::<usize>().ok());
        let numbered = NUMBERED_BY.iter().find_map(|[rank, size]| Some((number(rank)?, number(size)?)));
        let Some(of) = self.workers.or(numbered.map(|(_, size)| size)) else {
            return Err(usage("--meet: how many workers are there? give --workers N"));
        };
        let Some(rank) = self.worker.or(numbered.map(|(rank, _)| rank)) else {
            return Err(usage(format!(
                "--meet: which of the {of} workers is this? give --worker 0 to {}",
                of - 1
            )));
        };
        if !(1..=MOST).contains(&of) || rank >= of {
            return Err(usage(format!(
                "--worker {rank}: of {of} workers there are 0 to {}",
                of.saturating_sub(1)
            )));
        }
        Ok(if of == 1 { Place::Alone } else { Place::Meeting { rank, of, at } })
    }

    /// Whether worker 0 started this process.
    pub fn is_started(&self) -> bool {
        self.started
    }

    /// The threads of each of the workers on this machine, where they are to share it.
    pub fn share(&self, threads: Threads) -> Threads {
        let (Some(of), None, None) = (self.workers.filter(|&of| of > 1), &self.meet, threads.threads) else {
            return threads;
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Threads { threads: Some((cores / of).max(1)) }
    }

    /// What to add to a command line that takes the run up again.
    pub fn again(&self) -> String {
        match (self.workers, &self.meet) {
            (Some(of), None) if of > 1 => format!(" --workers {of}"),
            _ => String::new(),
        }
    }
}

/// What the processes are started with that worker 0 starts.
pub struct Start<'s> {
    pub data: &'s [PathBuf],
    pub out: &'s std::path::Path,
    pub threads: Threads,
    pub on: OnDevice,
}

/// The workers of a run, come together.
pub struct Crew {
    // Before the processes: they end when nobody is connected any more.
    workers: Option<Workers>,
    _started: Started,
}

impl Crew {
    /// One process.
    pub const ALONE: Crew = Crew { workers: None, _started: Started(Vec::new()) };

    /// Brings the workers of a run together that this one keeps, and tells them how it is configured.
    pub fn gather(place: &Place, start: &Start, config: &Config) -> Result<Crew> {
        let (host, of, patience, mut started) = match place {
            Place::Alone | Place::Meeting { rank: 1.., .. } => return Ok(Crew::ALONE),
            Place::First(of) => {
                let host = Host::listen("127.0.0.1:0")?;
                let started = Started::new(*of, &host.address()?.to_string(), start)?;
                (host, *of, HERE, started)
            }
            Place::Meeting { of, at, .. } => {
                let host = Host::listen(at)?;
                terminal::say(&format!("waiting for {} at {at}", terminal::counted(of - 1, "other worker")));
                (host, *of, ELSEWHERE, Started(Vec::new()))
            }
        };
        let workers = host.meet(of, Patience { most: patience, check: &mut || started.check() })?;
        workers.exchange(config.to_toml()?.as_bytes())?;
        Ok(Crew { workers: Some(workers), _started: started })
    }

    /// Comes to the workers of a run that another keeps, and learns how it is configured.
    pub fn join(rank: usize, of: usize, at: &str) -> Result<(Crew, Config)> {
        terminal::say(&format!("worker {rank} of {of}, looking for worker 0 at {at}"));
        let workers = Workers::join(rank, of, at, Patience { most: ELSEWHERE, check: &mut || Ok(()) })?;
        let told = workers.exchange(b"")?;
        let text = told.first().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
        let config = Config::from_toml(&text, "the configuration of worker 0")?;
        Ok((Crew { workers: Some(workers), _started: Started(Vec::new()) }, config))
    }

    /// The workers, as pretraining wants them.
    pub fn team(&self) -> Team<'_> {
        match &self.workers {
            Some(workers) => Team::new(workers, workers.here()),
            None => Team::ALONE,
        }
    }
}

/// Processes that this one has started, which end with it.
struct Started(Vec<Child>);

impl Started {
    fn new(of: usize, at: &str, start: &Start) -> Result<Started> {
        let program = std::env::current_exe().context("--workers: this program does not know where it is")?;
        let mut started = Started(Vec::new());
        for rank in 1..of {
            let mut command = Command::new(&program);
            command.arg("pretrain").args(start.data).arg("--out").arg(start.out);
            command.args([
                "--workers",
                &of.to_string(),
                "--worker",
                &rank.to_string(),
                "--meet",
                at,
                "--started",
            ]);
            command.args(start.threads.threads.map(|threads| format!("--threads={threads}")));
            command.args(start.on.device.map(|device| format!("--device={device}")));
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            started.0.push(child.with_context(|| format!("--workers: starting {}", program.display()))?);
        }
        Ok(started)
    }

    /// Fails where one has ended.
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

impl Drop for Started {
    fn drop(&mut self) {
        let end = Instant::now() + ENDING;
        for child in &mut self.0 {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
            // One that has ended needs none, and one that cannot be ended we can do nothing about.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(
        workers: Option<usize>,
        worker: Option<usize>,
        meet: bool,
        numbered: &[(&str, &str)],
    ) -> Result<Place> {
        let working = Working { workers, worker, meet: meet.then(|| "a:1".to_owned()), started: false };
        working.place_among(|name| {
            numbered.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_place_is_given_or_known_to_who_started_us() {
        let meeting = |rank, of| Place::Meeting { rank, of, at: "a:1".to_owned() };
        let slurm = [("SLURM_PROCID", "3"), ("SLURM_NTASKS", "4")];
        assert_eq!(place(None, None, false, &slurm).unwrap(), Place::Alone);
        assert_eq!(place(Some(1), None, false, &[]).unwrap(), Place::Alone);
        assert_eq!(place(Some(3), None, false, &[]).unwrap(), Place::First(3));
        assert_eq!(place(None, None, true, &slurm).unwrap(), meeting(3, 4));
        assert_eq!(place(Some(4), Some(0), true, &slurm).unwrap(), meeting(0, 4));
        for (workers, worker, words) in
            [(None, Some(0), "--workers N"), (Some(2), None, "--worker 0 to 1"), (Some(2), Some(2), "0 to 1")]
        {
            let error = place(workers, worker, true, &[]).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
