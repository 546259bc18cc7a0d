//! Signals. The first Ctrl-C lets the command finish cleanly, the second stops it at once; what cannot be asked to stop
//! says so.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::{exit, terminal};

/// Nothing polls [`requested`], so Ctrl-C ends the process.
const IDLE: u8 = 0;
/// A command polls [`requested`] after every step.
const WATCHED: u8 = 1;
/// Ctrl-C was pressed.
const REQUESTED: u8 = 2;
/// Nothing polls [`requested`]: Ctrl-C ends the process, after a reply.
const ANSWERED: u8 = 3;

/// Signals this soon after a request are part of it: a terminal that is closed hangs up twice, and a launcher forwards
/// a signal that the program itself received, too.
const ONE_REQUEST: Duration = Duration::from_secs(1);

static STATE: AtomicU8 = AtomicU8::new(IDLE);
/// The reply to Ctrl-C.
static REPLY: Mutex<&str> = Mutex::new("");
/// When Ctrl-C was pressed.
static SINCE: Mutex<Option<Instant>> = Mutex::new(None);

/// While it lives, Ctrl-C (or SIGTERM, or SIGHUP) is a request to stop, or ends the process with a reply. A request
/// holds for the rest of the process: later watches find it.
pub struct Watch(());

impl Watch {
    /// Starts watching. `reply` is printed when Ctrl-C is pressed.
    pub fn start(reply: &'static str) -> Watch {
        Watch::of(WATCHED, reply)
    }

    /// For work that cannot be asked to stop: while it lives, Ctrl-C ends the process at once, after `reply`.
    pub fn ending(reply: &'static str) -> Watch {
        Watch::of(ANSWERED, reply)
    }

    fn of(state: u8, reply: &'static str) -> Watch {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            if let Err(error) = ctrlc::set_handler(on_signal) {
                terminal::warn(&format!("Ctrl-C will stop at once, without saving: {error}"));
            }
        });
        *REPLY.lock().unwrap_or_else(PoisonError::into_inner) = reply;
        become_unless_requested(state);
        Watch(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        become_unless_requested(IDLE);
    }
}

fn become_unless_requested(state: u8) {
    let next = |now: u8| (now != REQUESTED).then_some(state);
    let _ = STATE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
}

/// Whether Ctrl-C was pressed while a [`Watch`] was alive.
pub fn requested() -> bool {
    STATE.load(Ordering::SeqCst) == REQUESTED
}

/// Makes the growth of a file beyond its limit (`ulimit -f`) an error of the write, which is reported, instead of a
/// signal that ends the process.
pub fn outlive_limits_of_files() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        // Blocked for good: threads that start later inherit it.
        if let Err(error) = SigSet::from(Signal::SIGXFSZ).thread_block() {
            tracing::debug!("a limit on the size of files will end the program: {error}");
        }
    }
}

/// Keeps ignoring the stop signals that the program was started to ignore (`nohup`, or `&` in a script). The handler of
/// a [`Watch`] would otherwise act on them.
pub fn ignore_what_is_ignored() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
        let ignored = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .filter(|&signal| ignores(&status, signal as u32));
        // Blocked: threads and processes that start later inherit that.
        if let Err(error) = ignored.collect::<SigSet>().thread_block() {
            tracing::debug!("signals that were to be ignored will stop the program: {error}");
        }
    }
}

/// Whether a process with this status (`/proc/PID/status`) ignores a signal.
#[cfg(unix)]
fn ignores(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn on_signal() {
    let mut since = SINCE.lock().unwrap_or_else(PoisonError::into_inner);
    match STATE.compare_exchange(WATCHED, REQUESTED, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {
            *since = Some(Instant::now());
            let reply = *REPLY.lock().unwrap_or_else(PoisonError::into_inner);
            terminal::say(&format!("{reply}; Ctrl-C again stops at once"));
        }
        Err(ANSWERED) => {
            terminal::say(*REPLY.lock().unwrap_or_else(PoisonError::into_inner));
            std::process::exit(exit::INTERRUPTED.into());
        }
        Err(_) if since.is_some_and(|since| since.elapsed() < ONE_REQUEST) => {}
        Err(_) => std::process::exit(exit::INTERRUPTED.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_answered_is_found_by_the_next_watch() {
        let first = Watch::start("stopping");
        assert!(!requested());
        on_signal();
        // The same request, sent twice. A new request would end the process.
        on_signal();
        drop(first);
        let _second = Watch::start("stopping after this step");
        assert!(requested());
    }

    #[cfg(unix)]
    #[test]
    fn what_a_process_ignores_is_read_from_its_status() {
        let status = "Name:\tsimclr\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let ignored: Vec<u32> = (1..=64).filter(|&signal| ignores(status, signal)).collect();
        assert_eq!(ignored, [1, 13]);
        assert!(!ignores("", 1) && !ignores("SigIgn:\tnone", 1));
    }
}
