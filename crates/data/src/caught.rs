//! Catching the panics of decoders on damaged files: the file counts as broken, and the run goes on.

use std::cell::Cell;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic in this thread would now be caught and reported as the reason why a file cannot be read. A program's
/// panic hook need not report such a panic.
pub fn is_panic_caught() -> bool {
    CATCHING.get()
}

/// Returns what `read` returns or, if it panics, an error saying that `what` failed. For third-party readers of file
/// formats.
///
/// # Errors
/// The errors of `read`, and its panic.
pub fn caught<T>(what: &dyn Display, read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let before = CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    CATCHING.set(before);
    result.unwrap_or_else(|_| Err(format!("{what} failed on it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_inside_is_caught() {
        assert!(!is_panic_caught());
        let result: Result<(), String> = caught(&"the decoder", || {
            assert!(is_panic_caught());
            let _ = caught(&"another", || Ok(()));
            assert!(is_panic_caught());
            panic!("a defect")
        });
        assert_eq!(result.unwrap_err(), "the decoder failed on it");
        assert!(!is_panic_caught());
    }
}
