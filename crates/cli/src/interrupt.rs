//! Signals. Ctrl-C: the first lets the command come to a good end, the second stops at once.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::{exit, terminal};

/// Nobody would notice a request to stop: Ctrl-C ends the process.
const IDLE: u8 = 0;
/// Somebody asks [`requested`] after every step.
const WATCHED: u8 = 1;
/// Ctrl-C was pressed.
const REQUESTED: u8 = 2;

/// What follows a request within this is the same one: a terminal that is closed hangs up twice, and a launcher
/// passes on what the program got itself, too.
const ONE_REQUEST: Duration = Duration::from_secs(1);

static STATE: AtomicU8 = AtomicU8::new(IDLE);
/// What is said when Ctrl-C is pressed.
static REPLY: Mutex<&str> = Mutex::new("");
/// When Ctrl-C was pressed.
static SINCE: Mutex<Option<Instant>> = Mutex::new(None);

/// While it lives, Ctrl-C (or SIGTERM, or SIGHUP) is a request to stop. One that was answered holds for the rest of
/// the program: whatever is watched later finds it.
pub struct Watch(());

impl Watch {
    /// Starts watching. `reply` is said to a request.
    pub fn start(reply: &'static str) -> Watch {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            if let Err(error) = ctrlc::set_handler(on_signal) {
                terminal::warn(&format!("Ctrl-C will stop at once, without saving: {error}"));
            }
        });
        *REPLY.lock().unwrap_or_else(PoisonError::into_inner) = reply;
        become_unless_requested(WATCHED);
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

/// Whether Ctrl-C was pressed while somebody watched.
pub fn requested() -> bool {
    STATE.load(Ordering::SeqCst) == REQUESTED
}

/// Makes a file that grows beyond what is allowed (`ulimit -f`) an error of the write, which is told, where a signal
/// would end the process.
pub fn outlive_limits_of_files() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        // Held back for good: threads that start later inherit it.
        if let Err(error) = SigSet::from(Signal::SIGXFSZ).thread_block() {
            tracing::debug!("a limit on the size of files will end the program: {error}");
        }
    }
}

/// Goes on ignoring the requests that whoever started the program had it ignore (`nohup`, or `&` in a script), which
/// watching would end.
pub fn ignore_what_is_ignored() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal};
        let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
        let ignored = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
            .into_iter()
            .filter(|&signal| ignores(&status, signal as u32));
        // Held back, as threads and processes that start later inherit.
        if let Err(error) = ignored.collect::<SigSet>().thread_block() {
            tracing::debug!("signals that were to be ignored will stop the program: {error}");
        }
    }
}

/// Whether a process of this status (`/proc/PID/status`) ignores a signal.
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
        // The same request, sent twice, which would end the process if it were another.
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
