//! A connection to another worker. A separate thread writes what is sent, so that no two workers wait for each other
//! to read.

use std::io;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::{EngineError, Result};

/// A message begins with 8 bytes, little-endian: its kind in the highest, the length of the contents in the others.
const HEAD: usize = 8;
const VALUES: u8 = 0;
const ALIVE: u8 = 1;
const LAST_WORDS: u8 = 2;
/// The longest last words that are read, in bytes.
const MOST_WORDS: u64 = 64 << 10;

/// The most messages that may wait to be written. In practice there are fewer, as workers wait for each other.
const QUEUE: usize = 16;

/// A worker that has sent nothing for this long sends a sign of life.
const SAY_SO: Duration = Duration::from_secs(5);
/// A worker that has sent nothing for this long counts as stopped.
const SILENCE: Duration = Duration::from_secs(60);
/// How long to read from a closing connection, so that the other side does not lose what it still has to read.
const CLOSING: Duration = Duration::from_secs(5);

/// A connection to worker `rank`.
#[derive(Debug)]
pub(super) struct Link {
    rank: usize,
    incoming: BufReader<TcpStream>,
    /// `None` only during drop.
    outgoing: Option<SyncSender<Vec<u8>>>,
    /// Buffers of written messages, for reuse.
    written: Receiver<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Creates a connection that sets `gone` when a message cannot be sent.
    pub(super) fn new(rank: usize, stream: TcpStream, gone: Arc<AtomicBool>) -> io::Result<Link> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        // Otherwise data that a lost machine does not acknowledge would be resent for a quarter of an hour, without an
        // error for a worker that only writes.
        #[cfg(target_os = "linux")]
        rustix::net::sockopt::set_tcp_user_timeout(&stream, SILENCE.as_millis() as u32)?;
        // Queues of a fixed size, because unbounded ones allocate as messages pass.
        let ((outgoing, messages), (back, written)) = (sync_channel(QUEUE), sync_channel(QUEUE));
        let out = stream.try_clone()?;
        let thread = Builder::new().name(format!("to worker {rank}"));
        let thread = thread.spawn(move || write_all(out, &messages, &back, &gone))?;
        let incoming = BufReader::with_capacity(64 << 10, stream);
        Ok(Link { rank, incoming, outgoing: Some(outgoing), written, thread: Some(thread) })
    }

    /// Sends `bytes` without waiting. Only reading reports that the worker has gone.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.send_as(VALUES, bytes);
    }

    /// Sends the reason why this worker stops.
    pub(super) fn send_last_words(&mut self, why: &str) {
        self.send_as(LAST_WORDS, why.as_bytes());
    }

    fn send_as(&mut self, kind: u8, bytes: &[u8]) {
        let mut message = self.written.try_recv().unwrap_or_default();
        message.clear();
        message.extend_from_slice(&head(kind, bytes.len()));
        message.extend_from_slice(bytes);
        if let Some(outgoing) = &self.outgoing {
            // The thread ends early only if the other side has gone.
            let _ = outgoing.send(message);
        }
    }

    /// Waits for a message, which must fill `values`.
    pub(super) fn take_into(&mut self, values: &mut [u8]) -> Result<()> {
        let length = self.next_values()?;
        if length != values.len() as u64 {
            return Err(EngineError::mismatch(self.rank, length, values.len()));
        }
        self.incoming.read_exact(values).map_err(|error| self.gone(&error))
    }

    /// Waits for a message of any length.
    pub(super) fn take(&mut self) -> Result<Vec<u8>> {
        let length = self.next_values()?;
        self.read(length)
    }

    /// Waits for the next values and returns their length.
    fn next_values(&mut self) -> Result<u64> {
        loop {
            let mut head = [0; HEAD];
            self.incoming.read_exact(&mut head).map_err(|error| self.gone(&error))?;
            let kind = head[HEAD - 1];
            head[HEAD - 1] = 0;
            match (kind, u64::from_le_bytes(head)) {
                (VALUES, length) => return Ok(length),
                (ALIVE, 0) => {}
                (LAST_WORDS, length @ 0..=MOST_WORDS) => {
                    let words = self.read(length)?;
                    let words = String::from_utf8_lossy(&words).into_owned();
                    return Err(EngineError::Collective(format!("worker {} stopped: {words}", self.rank)));
                }
                _ => {
                    let what = format!("worker {} sends what no worker of this version does", self.rank);
                    return Err(EngineError::Collective(what));
                }
            }
        }
    }

    /// Reads the next `length` bytes, allocating memory only as they arrive.
    fn read(&mut self, length: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.incoming).take(length).read_to_end(&mut bytes);
        match read.map_err(|error| self.gone(&error))? as u64 == length {
            true => Ok(bytes),
            false => Err(self.gone(&ErrorKind::UnexpectedEof.into())),
        }
    }

    fn gone(&self, error: &io::Error) -> EngineError {
        let rank = self.rank;
        EngineError::Collective(match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("worker {rank} has not been heard of for {} seconds", SILENCE.as_secs())
            }
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                format!("worker {rank} has gone")
            }
            _ => format!("worker {rank} cannot be heard: {error}"),
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The thread writes the remaining messages and ends.
        self.outgoing = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
        // Closing a connection with unread data would discard what the other side has not read yet.
        let (end, mut rest) = (Instant::now() + CLOSING, [0; 4096]);
        let stream = self.incoming.get_mut();
        while Instant::now() < end && stream.set_read_timeout(Some(CLOSING)).is_ok() {
            if !matches!(stream.read(&mut rest), Ok(1..)) {
                break;
            }
        }
    }
}

fn head(kind: u8, length: usize) -> [u8; HEAD] {
    let mut head = (length as u64).to_le_bytes();
    head[HEAD - 1] = kind;
    head
}

/// Writes `messages` until there are no more or writing fails. If there is none for a while, writes a sign of life.
fn write_all(
    mut out: TcpStream,
    messages: &Receiver<Vec<u8>>,
    back: &SyncSender<Vec<u8>>,
    gone: &AtomicBool,
) {
    loop {
        let sent = match messages.recv_timeout(SAY_SO) {
            Ok(message) => {
                let sent = out.write_all(&message);
                // The sender may be gone, or have enough buffers.
                let _ = back.try_send(message);
                sent
            }
            Err(RecvTimeoutError::Timeout) => out.write_all(&head(ALIVE, 0)),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        if sent.is_err() {
            gone.store(true, Ordering::Relaxed);
            break;
        }
    }
    let _ = out.shutdown(Shutdown::Write);
}
