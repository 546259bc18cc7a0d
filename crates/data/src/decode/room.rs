//! How much memory huge images and their files take together.

use std::sync::{Condvar, Mutex, PoisonError};

/// Images, and files, that take more bytes than this are counted. Photos of 60 megapixels stay below.
const COUNTED: u64 = 192 << 20;
/// Bytes that all counted images take at once, and as many that counted files take.
const ROOM: u64 = 1 << 30;

/// The room for images in this process: each thread decodes an image of its own, and huge ones would otherwise take as
/// many times their memory as there are threads.
static PIXELS: Room = Room::of(ROOM);
/// The room for their files. A thread may have a file when it waits for room for its pixels, but not the other way
/// round: those with pixels can always go on.
static FILES: Room = Room::of(ROOM);

/// Bytes in use by counted images or files.
#[derive(Debug)]
struct Room {
    used: Mutex<u64>,
    freed: Condvar,
    all: u64,
}

/// Room for an image or a file, until it is dropped. A thread that has one must not take another of the same room, for
/// which it might wait for itself.
#[derive(Debug)]
pub(crate) struct Claim(Option<(&'static Room, u64)>);

impl Claim {
    /// Waits until there is room for an image whose decoding takes this many bytes; for most there always is.
    pub fn of_pixels(bytes: u64) -> Claim {
        if is_counted(bytes) { PIXELS.claim(bytes) } else { Claim(None) }
    }

    /// Waits until there is room for a file of this many bytes; for most there always is.
    pub fn of_file(bytes: u64) -> Claim {
        if is_counted(bytes) { FILES.claim(bytes) } else { Claim(None) }
    }
}

/// Whether this many bytes are so many that there may be no room.
pub(super) fn is_counted(bytes: u64) -> bool {
    bytes > COUNTED
}

impl Room {
    const fn of(all: u64) -> Room {
        Room { used: Mutex::new(0), freed: Condvar::new(), all }
    }

    /// What is larger than the whole room has it alone.
    fn claim(&'static self, bytes: u64) -> Claim {
        let bytes = bytes.min(self.all);
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |used: &mut u64| *used + bytes > self.all;
        let mut used = self.freed.wait_while(used, is_full).unwrap_or_else(PoisonError::into_inner);
        *used += bytes;
        Claim(Some((self, bytes)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some((room, bytes)) = self.0 else { return };
        *room.used.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn images_together_take_no_more_than_there_is_room_for() {
        static SMALL: Room = Room::of(100);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (now, most) = (&now, &most);
                scope.spawn(move || {
                    for bytes in [40, 60, 7, 100, 1000].into_iter().cycle().skip(thread).take(200) {
                        let claim = SMALL.claim(bytes);
                        let taken = bytes.min(100);
                        most.fetch_max(now.fetch_add(taken, Ordering::SeqCst) + taken, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(taken, Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 100);
        assert_eq!(*SMALL.used.lock().unwrap(), 0);
    }

    #[test]
    fn usual_images_are_not_counted_and_files_have_a_room_of_their_own() {
        assert!(Claim::of_pixels(COUNTED).0.is_none() && Claim::of_file(COUNTED).0.is_none());
        let file = Claim::of_file(2 * ROOM);
        let pixels = Claim::of_pixels(2 * ROOM);
        assert!([file, pixels].iter().all(|claim| claim.0.as_ref().is_some_and(|&(_, bytes)| bytes == ROOM)));
    }
}
