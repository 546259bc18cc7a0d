//! How workers find each other.
//!
//! Worker 0 listens at an address that all know. Every other worker listens at an address of its own, and sends that
//! and its rank to worker 0. When all have come, worker 0 sends all addresses to each, and each connects to the workers
//! of lower rank.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Link, Workers};
use crate::TrainError;

/// The start of every greeting; the last byte is the version of the protocol.
const MAGIC: &[u8; 16] = b"simclr workers \x01";
/// The longest greeting that is read, in bytes.
const MAX_GREETING_BYTES: u32 = 1 << 20;
/// How long a greeting may take, from the first byte to the last.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two checks for new connections.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long to wait for the other workers, and what to check meanwhile.
pub struct Wait<'p> {
    /// The longest wait.
    pub timeout: Duration,
    /// Called while waiting; fails when there is no point in waiting longer.
    pub check: &'p mut dyn FnMut() -> Result<(), TrainError>,
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// The greeting of a connecting worker.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    program: String,
    rank: usize,
    size: usize,
    /// The port at which it listens itself, at the address from which it connects.
    port: u16,
    machine: String,
}

/// The answer of worker 0.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The address of each worker from rank 1, and the machine of each worker from rank 0.
    Welcome { addresses: Vec<SocketAddr>, machines: Vec<String> },
    /// Why the sender cannot be a worker of this run.
    Refused(String),
}

/// Worker 0 before the others have connected.
#[derive(Debug)]
pub struct Host {
    listener: TcpListener,
}

impl Host {
    /// Listens at `address`, "HOST:PORT"; port 0 means any free port.
    ///
    /// # Errors
    /// [`TrainError::Workers`] if that is not possible.
    pub fn listen(address: &str) -> Result<Host, TrainError> {
        let wrong = |error: io::Error| {
            problem(format!(
                "worker 0 cannot listen at {address}: {error}; give HOST:PORT of this machine with a port that is free"
            ))
        };
        let mut addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(wrong)?.collect();
        let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
        let is_meant = name == "localhost" || addresses.iter().any(|at| address == at.to_string());
        if !is_meant && addresses.iter().all(|at| at.ip().is_loopback()) {
            // Many machines resolve their own name to 127.0.1.1, where no other machine reaches them.
            addresses.iter_mut().for_each(|at| at.set_ip(Ipv4Addr::UNSPECIFIED.into()));
        }
        let listener = TcpListener::bind(&addresses[..]).map_err(wrong)?;
        Ok(Host { listener })
    }

    /// The address at which it listens.
    ///
    /// # Errors
    /// [`TrainError::Workers`] if the system does not report it.
    pub fn address(&self) -> Result<SocketAddr, TrainError> {
        self.listener.local_addr().map_err(|error| problem(format!("worker 0 listens nowhere: {error}")))
    }

    /// Waits until all `size` workers have connected.
    ///
    /// # Errors
    /// [`TrainError::Workers`] if not all connected in time, and errors of `wait`.
    pub fn meet(self, size: usize, mut wait: Wait) -> Result<Workers, TrainError> {
        let end = Instant::now() + wait.timeout;
        let mut come: Vec<Option<(TcpStream, SocketAddr, String)>> = (1..size).map(|_| None).collect();
        while come.iter().any(Option::is_none) {
            let missing = |come: &[Option<_>]| {
                let ranks = come.iter().enumerate().filter(|(_, at)| at.is_none());
                let ranks: Vec<String> = ranks.map(|(i, _)| (i + 1).to_string()).collect();
                format!("{} {}", if ranks.len() == 1 { "worker" } else { "workers" }, ranks.join(", "))
            };
            let Some((mut stream, from)) = accept(&self.listener, end, &mut wait)? else {
                return Err(problem(format!(
                    "after {} seconds there is no word from {} of {size}; start each with the same number of workers, a \
                     number of its own and the same address to meet at",
                    wait.timeout.as_secs(),
                    missing(&come)
                )));
            };
            // Ignore connections that are not from workers, such as port scanners.
            let Ok(hello) = receive::<Hello>(&mut stream, GREETING_TIMEOUT) else { continue };
            leave_out_gone(&mut come);
            match refusal(&hello, size, &come) {
                Some(why) => {
                    tracing::warn!("{from} was refused as a worker: {why}");
                    let _ = send(&mut stream, &Answer::Refused(why));
                }
                None => {
                    come[hello.rank - 1] =
                        Some((stream, SocketAddr::new(from.ip(), hello.port), hello.machine))
                }
            }
            leave_out_gone(&mut come);
        }
        let own = machine();
        let (mut addresses, mut machines, mut streams) = (Vec::new(), vec![own.clone()], Vec::new());
        for (stream, address, machine) in come.into_iter().flatten() {
            addresses.push(address);
            machines.push(machine);
            streams.push(stream);
        }
        let local_size = machines.iter().filter(|&machine| *machine == own).count();
        let welcome = Answer::Welcome { addresses, machines };
        let (mut links, gone) = (vec![None], Arc::default());
        for (i, mut stream) in streams.into_iter().enumerate() {
            let rank = i + 1;
            send(&mut stream, &welcome).map_err(|error| unheard(rank, &error))?;
            links.push(Some(link(rank, stream, &gone)?));
        }
        Ok(Workers::new(0, local_size, links, gone))
    }
}

impl Workers {
    /// Connects worker `rank` (from 1) of `size` with worker 0, which listens at `address`, and with all others.
    ///
    /// # Errors
    /// [`TrainError::Workers`] if there is no such worker, not all connected in time or worker 0 refuses, and errors of
    /// `wait`.
    pub fn join(rank: usize, size: usize, address: &str, mut wait: Wait) -> Result<Workers, TrainError> {
        if !(1..size).contains(&rank) {
            return Err(problem(format!("there is no worker {rank} beside worker 0 of {size}")));
        }
        let end = Instant::now() + wait.timeout;
        let (mut first, own) = loop {
            match connect(address) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= end => {
                    return Err(problem(format!(
                        "worker 0 could not be reached at {address} within {} seconds: {error}; was it started, as worker 0 and with the same \
                         address to meet at, and does a firewall let that port through?",
                        wait.timeout.as_secs()
                    )));
                }
                Err(_) => pause(&mut wait)?,
            }
        };
        // The address that worker 0 reaches us at is reachable for the others too.
        let listener = TcpListener::bind((own, 0))
            .map_err(|error| problem(format!("cannot listen at {own}: {error}")))?;
        let port = listener.local_addr().map_err(|error| problem(error.to_string()))?.port();
        let hello = Hello { program: program(), rank, size, port, machine: machine() };
        send(&mut first, &hello).map_err(|error| unheard(0, &error))?;
        let Answer::Welcome { addresses, machines } = answer(&mut first, end, &mut wait)? else {
            return Err(problem("worker 0 takes no more workers".to_owned()));
        };
        if addresses.len() != size - 1 || machines.len() != size {
            return Err(problem(format!("worker 0 does not tell where all of the {size} workers are")));
        }
        let local_size = machines.iter().filter(|&machine| *machine == hello.machine).count();
        let mut links: Vec<Option<Link>> = (0..size).map(|_| None).collect();
        let gone = Arc::default();
        links[0] = Some(link(0, first, &gone)?);
        for (i, address) in addresses.iter().enumerate().take(rank - 1) {
            let other = i + 1;
            let mut stream = TcpStream::connect_timeout(address, GREETING_TIMEOUT).map_err(|error| {
                problem(format!("worker {other} cannot be reached at {address}: {error}"))
            })?;
            send(&mut stream, &hello).map_err(|error| unheard(other, &error))?;
            links[other] = Some(link(other, stream, &gone)?);
        }
        while let Some(missing) = (rank + 1..size).find(|&other| links[other].is_none()) {
            let Some((mut stream, _)) = accept(&listener, end, &mut wait)? else {
                return Err(problem(format!("worker {missing} has not connected")));
            };
            let Ok(hello) = receive::<Hello>(&mut stream, GREETING_TIMEOUT) else { continue };
            if (rank + 1..size).contains(&hello.rank) && links[hello.rank].is_none() {
                links[hello.rank] = Some(link(hello.rank, stream, &gone)?);
            }
        }
        Ok(Workers::new(rank, local_size, links, gone))
    }
}

/// Frees the places of workers that have gone while others were awaited, as they may be started again.
fn leave_out_gone(come: &mut [Option<(TcpStream, SocketAddr, String)>]) {
    for place in come {
        let has_gone = |stream: &TcpStream| {
            stream.set_nonblocking(true).is_err()
                // A live worker sends nothing before the welcome, so readable means closed.
                || !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
                || stream.set_nonblocking(false).is_err()
        };
        if place.as_ref().is_some_and(|(stream, ..)| has_gone(stream)) {
            *place = None;
        }
    }
}

/// Returns the reason why the sender of `hello` cannot be a worker of a run of `size` workers, or `None` if it can.
/// `come` are the workers from rank 1 that have already connected.
fn refusal<T>(hello: &Hello, size: usize, come: &[Option<T>]) -> Option<String> {
    let Hello { program: theirs, rank, size: wanted, .. } = hello;
    if *theirs != program() {
        return Some(format!(
            "it is simclr {theirs}, worker 0 is {}; start the same program everywhere",
            program()
        ));
    }
    if *wanted != size {
        return Some(format!(
            "it is one of {wanted} workers, worker 0 expects {size}; give the same number everywhere"
        ));
    }
    match rank.checked_sub(1).and_then(|i| come.get(i)) {
        None => Some(format!("there is no worker {rank} beside worker 0; use 1 to {}", size - 1)),
        Some(Some(_)) => Some(format!("worker {rank} is there already; give each a number of its own")),
        Some(None) => None,
    }
}

/// Accepts a connection; `None` if there is none by `end`.
fn accept(
    listener: &TcpListener,
    end: Instant,
    wait: &mut Wait,
) -> Result<Option<(TcpStream, SocketAddr)>, TrainError> {
    let failed = |error: io::Error| problem(format!("listening for workers failed: {error}"));
    listener.set_nonblocking(true).map_err(failed)?;
    while Instant::now() < end {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false).map_err(failed)?;
                return Ok(Some((stream, from)));
            }
            // The connection was closed before it was accepted.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {}
            Err(_) => pause(wait)?,
        }
    }
    Ok(None)
}

/// Connects to `address`. Also returns our own address on the connection.
fn connect(address: &str) -> io::Result<(TcpStream, IpAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, GREETING_TIMEOUT) {
            Ok(stream) => {
                let own = stream.local_addr()?;
                // Connecting to a port of this machine at which nobody listens may use that same port as the local
                // one, and so connect to itself.
                if stream.peer_addr()? != own {
                    return Ok((stream, own.ip()));
                }
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Waits for the answer of worker 0, which first waits for all workers.
fn answer(first: &mut TcpStream, end: Instant, wait: &mut Wait) -> Result<Answer, TrainError> {
    let lost = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            problem("worker 0 has gone".to_owned())
        }
        _ => unheard(0, &error),
    };
    loop {
        first.set_nonblocking(true).map_err(lost)?;
        let come = first.peek(&mut [0]);
        first.set_nonblocking(false).map_err(lost)?;
        match come {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(lost(error)),
            Ok(_) => break,
        }
        if Instant::now() >= end {
            return Err(problem(format!("not all workers came within {} seconds", wait.timeout.as_secs())));
        }
        pause(wait)?;
    }
    match receive(first, GREETING_TIMEOUT).map_err(lost)? {
        Answer::Refused(why) => Err(problem(format!("worker 0 refuses this worker: {why}"))),
        welcome => Ok(welcome),
    }
}

fn pause(wait: &mut Wait) -> Result<(), TrainError> {
    (wait.check)()?;
    sleep(POLL_INTERVAL);
    Ok(())
}

fn link(rank: usize, stream: TcpStream, gone: &Arc<AtomicBool>) -> Result<Link, TrainError> {
    Link::new(rank, stream, gone.clone()).map_err(|error| unheard(rank, &error))
}

fn send(stream: &mut TcpStream, what: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let mut message = MAGIC.to_vec();
    message.extend_from_slice(&(text.len() as u32).to_le_bytes());
    message.extend_from_slice(&text);
    stream.write_all(&message)
}

/// A connection to be read until a deadline, however slowly data arrives.
struct Until<'s> {
    stream: &'s mut TcpStream,
    end: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(to)
    }
}

/// Receives a message, which must be complete `within` this time.
fn receive<T: DeserializeOwned>(stream: &mut TcpStream, within: Duration) -> io::Result<T> {
    let foreign =
        || io::Error::new(io::ErrorKind::InvalidData, "no worker of this version of simclr is there");
    let mut stream = Until { stream, end: Instant::now() + within };
    let (mut magic, mut length) = ([0; MAGIC.len()], [0; 4]);
    stream.read_exact(&mut magic)?;
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if magic != *MAGIC || length > MAX_GREETING_BYTES {
        return Err(foreign());
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text)?;
    serde_json::from_slice(&text).map_err(|_| foreign())
}

/// An identifier of this machine, the same for all its processes while it runs.
fn machine() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map_or_else(|_| std::env::var("HOSTNAME").unwrap_or_default(), |id| id.trim().to_owned())
}

fn program() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn problem(what: String) -> TrainError {
    TrainError::Workers(what)
}

fn unheard(rank: usize, error: &io::Error) -> TrainError {
    problem(format!("worker {rank} cannot be heard: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_workers_that_are_due_are_taken() {
        let hello = |program: &str, rank, size| Hello {
            program: program.to_owned(),
            rank,
            size,
            port: 1,
            machine: String::new(),
        };
        let (own, come) = (program(), [Some(()), None]);
        assert_eq!(refusal(&hello(&own, 2, 3), 3, &come), None);
        for (hello, why) in [
            (hello("0.0.0", 2, 3), format!("it is simclr 0.0.0, worker 0 is {own}")),
            (hello(&own, 2, 4), "it is one of 4 workers, worker 0 expects 3".to_owned()),
            (hello(&own, 0, 3), "there is no worker 0 beside worker 0; use 1 to 2".to_owned()),
            (hello(&own, 3, 3), "there is no worker 3 beside worker 0; use 1 to 2".to_owned()),
            (hello(&own, 1, 3), "worker 1 is there already".to_owned()),
        ] {
            let said = refusal(&hello, 3, &come);
            assert!(said.as_ref().is_some_and(|said| said.starts_with(&why)), "{said:?} is not {why:?}");
        }
    }

    #[test]
    fn a_worker_that_cannot_be_joins_nobody() {
        for (rank, size) in [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (2, 2)] {
            // No connection is tried; it would time out at once.
            let wait = Wait { timeout: Duration::ZERO, check: &mut || Ok(()) };
            let error = Workers::join(rank, size, "127.0.0.1:1", wait).unwrap_err().to_string();
            assert_eq!(error, format!("there is no worker {rank} beside worker 0 of {size}"));
        }
    }

    #[test]
    fn who_greets_byte_by_byte_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sender = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            // The longest greeting, so slowly that it would take hours, until the connection is closed.
            let head = MAGIC.iter().copied().chain(MAX_GREETING_BYTES.to_le_bytes());
            let mut bytes = head.chain(std::iter::repeat(b' '));
            while stream.write_all(&[bytes.next().unwrap()]).is_ok() {
                sleep(Duration::from_millis(10));
            }
        });
        let (mut stream, _) = listener.accept().unwrap();
        let error = receive::<Hello>(&mut stream, Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        drop(stream);
        sender.join().unwrap();
    }
}
