//! When a run is saved, and how it goes on while it is being saved.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use simclr_data::Cached;

use crate::TrainError;
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::config::Auto;

/// Least training time before a checkpoint at an epoch's end.
const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// Least training time before a checkpoint within an epoch.
const MAX_INTERVAL: Duration = Duration::from_secs(30 * 60);
/// Checkpoints may hold training up for 1/50 of the time, or for more if they would otherwise be over `MAX_INTERVAL`
/// apart.
const MAX_OVERHEAD_DIVISOR: u32 = 50;

/// Saves a run: a thread writes checkpoints, one at a time, while training goes on.
///
/// The clock may affect when a checkpoint is written, but not what is in it.
#[derive(Debug)]
pub(super) struct CheckpointWriter {
    checkpoints: Checkpoints,
    every: Auto<u64>,
    /// The cache that makes room for a checkpoint if the disk is full.
    cache: Option<Arc<Cached>>,
    /// The best state since the last checkpoint, if no checkpoint was due then. It is written before the next one,
    /// which may name it, and kept until both are on the disk.
    best: Option<Arc<Checkpoint>>,
    writing: Option<JoinHandle<Result<PathBuf, TrainError>>>,
    newest: Option<PathBuf>,
    /// When the last checkpoint was handed to the thread, and how long training waited for it.
    last: Instant,
    held_up: Duration,
}

impl CheckpointWriter {
    /// Creates a writer for a run that starts now, with
    /// [`checkpoint_every`](crate::config::TrainConfig::checkpoint_every). A `cache` on the same disk makes room for
    /// checkpoints.
    pub(super) fn new(
        checkpoints: Checkpoints,
        every: Auto<u64>,
        cache: Option<Arc<Cached>>,
    ) -> CheckpointWriter {
        let (best, writing, newest) = (None, None, None);
        let (last, held_up) = (Instant::now(), Duration::ZERO);
        CheckpointWriter { checkpoints, every, cache, best, writing, newest, last, held_up }
    }

    /// Whether the state after `step` should be saved.
    pub(super) fn is_due(&self, step: u64, end_of_epoch: bool) -> bool {
        self.is_due_after(self.last.elapsed(), step, end_of_epoch)
    }

    /// [`CheckpointWriter::is_due`], given the time `since` the last checkpoint.
    fn is_due_after(&self, since: Duration, step: u64, end_of_epoch: bool) -> bool {
        match self.every {
            Auto::Value(steps) => step.is_multiple_of(steps.max(1)),
            // Do not add work while the disk is still busy with the previous checkpoint.
            Auto::Auto => !self.is_writing() && is_worth(since, self.held_up, end_of_epoch),
        }
    }

    /// Checks, without waiting, whether the checkpoint being written has failed.
    ///
    /// # Errors
    /// As [`Checkpoints::save`].
    pub(super) fn check_writer(&mut self) -> Result<(), TrainError> {
        if self.is_writing() { Ok(()) } else { self.wait() }
    }

    /// Holds the state that `checkpoint` makes, the best so far, in memory until the next one is saved.
    ///
    /// # Errors
    /// Those of `checkpoint`, and those of [`Checkpoints::save`] for a pending write.
    pub(super) fn hold(
        &mut self,
        checkpoint: impl FnOnce() -> Result<Checkpoint, TrainError>,
    ) -> Result<(), TrainError> {
        let start = Instant::now();
        // Wait, so that there are never more than two copies of the state.
        self.wait()?;
        self.held_up += start.elapsed();
        self.best = None;
        self.best = Some(Arc::new(checkpoint()?));
        Ok(())
    }

    /// Has the cache, but no checkpoint, give way to other files on its disk, also while a checkpoint is being written.
    /// Returns whether there is more room now.
    pub(super) fn make_room(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.give_way())
    }

    /// What else can make room, while no checkpoint is being written.
    pub(super) fn room(&self) -> Room {
        Room { cache: self.cache.clone(), checkpoints: self.checkpoints.clone() }
    }

    /// Starts to save the held state, if any, and then the state that `checkpoint` makes.
    ///
    /// # Errors
    /// As [`CheckpointWriter::hold`], and [`TrainError::Io`] if no thread can be started.
    pub(super) fn save(
        &mut self,
        checkpoint: impl FnOnce() -> Result<Checkpoint, TrainError>,
    ) -> Result<(), TrainError> {
        let start = Instant::now();
        self.wait()?;
        let newest = checkpoint()?;
        let held = self.best.clone().filter(|held| {
            // Skip it if the newest is that state, or if there is a better one.
            let (step, best) = (held.meta.step, newest.meta.best.as_ref());
            step != newest.meta.step && best.is_some_and(|best| best.step() == step)
        });
        let room = self.room();
        let save = move |checkpoint: &Checkpoint| loop {
            match room.checkpoints.save(checkpoint) {
                Err(error) if error.is_full_disk() && room.make() => {}
                saved => return saved,
            }
        };
        let write = move || {
            if let Some(held) = held {
                save(&held)?;
            }
            save(&newest)
        };
        let folder = self.checkpoints.folder();
        let writing = Builder::new().name("checkpoint".to_owned()).spawn(write);
        self.writing = Some(writing.map_err(TrainError::io("start a thread that writes to", folder))?);
        self.last = Instant::now();
        self.held_up = self.last - start;
        Ok(())
    }

    /// Waits until the checkpoint being written is on the disk.
    ///
    /// # Errors
    /// As [`Checkpoints::save`].
    pub(super) fn wait(&mut self) -> Result<(), TrainError> {
        if let Some(writing) = self.writing.take() {
            self.newest = Some(writing.join().unwrap_or_else(|panic| resume_unwind(panic))?);
            self.best = None;
        }
        Ok(())
    }

    /// The last checkpoint known to be on the disk.
    pub(super) fn newest(&self) -> Option<PathBuf> {
        self.newest.clone()
    }

    /// The folder of checkpoints.
    pub(super) fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    fn is_writing(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| !writing.is_finished())
    }
}

/// What gives way to other files on the disk of a run when that is full.
#[derive(Debug)]
pub(super) struct Room {
    cache: Option<Arc<Cached>>,
    checkpoints: Checkpoints,
}

impl Room {
    /// Removes some of the cache or, when that is gone, surplus checkpoints. Returns whether there is more room now.
    pub(super) fn make(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.give_way())
            || self.checkpoints.make_room().unwrap_or(false)
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        // Keep the run folder locked until writing ends. A run that fails reports its own error, not this one.
        if let Some(writing) = self.writing.take() {
            let _ = writing.join();
        }
    }
}

/// Whether `since` is enough training for a checkpoint, if the previous one held training up for `held_up`.
fn is_worth(since: Duration, held_up: Duration, end_of_epoch: bool) -> bool {
    let least = if end_of_epoch {
        MIN_INTERVAL.max(held_up.saturating_mul(MAX_OVERHEAD_DIVISOR)).min(MAX_INTERVAL)
    } else {
        MAX_INTERVAL
    };
    since >= least
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, ErrorKind};
    use std::path::Path;

    use simclr_data::{Dataset, DecodeOptions, DecodeScratch, DiskBudget, Synthetic};

    use super::*;
    use crate::checkpoint::{Best, Meta, NamedTensor};
    use crate::file_system::{Disk, FileSystem, Output};

    /// A disk on which no file can be created while the file `by` is longer than `most` bytes.
    #[derive(Debug)]
    struct Full {
        by: PathBuf,
        most: u64,
    }

    impl FileSystem for Full {
        fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
            match fs::metadata(&self.by) {
                Ok(by) if by.len() > self.most => Err(ErrorKind::StorageFull.into()),
                _ => Disk.create(path),
            }
        }
    }

    fn checkpoint(step: u64, best: u64) -> Result<Checkpoint, TrainError> {
        let tensors = vec![NamedTensor { name: "w".to_owned(), shape: vec![2], data: vec![step as f32; 2] }];
        let best = Best::new(best, "knn_top1", 0.5);
        Ok(Checkpoint { tensors, meta: Meta { step, best, ..Meta::default() } })
    }

    fn steps(checkpoints: &Checkpoints) -> Vec<u64> {
        checkpoints.list().unwrap().into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn what_is_worth_a_checkpoint_depends_on_what_it_costs() {
        let seconds = Duration::from_secs_f64;
        for (since, held_up, end_of_epoch, worth) in [
            // Epochs of a second: once a minute.
            (1.0, 0.0, true, false),
            (59.0, 0.0, true, false),
            (60.0, 0.0, true, true),
            (60.0, 0.1, true, true),
            (60.0, 0.0, false, false),
            // At two seconds per checkpoint, save less often; but not even a minute justifies losing hours.
            (60.0, 2.0, true, false),
            (100.0, 2.0, true, true),
            (1799.0, 60.0, true, false),
            (1800.0, 60.0, true, true),
            // An epoch of hours.
            (1799.0, 0.0, false, false),
            (1800.0, 60.0, false, true),
        ] {
            let found = is_worth(seconds(since), seconds(held_up), end_of_epoch);
            assert_eq!(found, worth, "{since} s, {held_up} s, {end_of_epoch}");
        }
    }

    #[test]
    fn numbers_are_steps_and_auto_looks_at_the_clock() {
        let checkpoints = || Checkpoints::new(PathBuf::from("nowhere"), 1, Arc::new(Disk));
        let mut writer = CheckpointWriter::new(checkpoints(), Auto::Value(3), None);
        let due: Vec<u64> = (1..10).filter(|&step| writer.is_due(step, step == 5)).collect();
        assert_eq!(due, [3, 6, 9]);
        writer.every = Auto::Auto;
        assert!(!writer.is_due(3, true));
        assert!(writer.is_due_after(MIN_INTERVAL, 3, true) && !writer.is_due_after(MIN_INTERVAL, 3, false));
    }

    #[test]
    fn a_checkpoint_never_names_a_best_one_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::new(folder.path().join("checkpoints"), 1, Arc::new(Disk));
        let mut writer = CheckpointWriter::new(checkpoints.clone(), Auto::Auto, None);
        writer.hold(|| checkpoint(10, 10)).unwrap();
        writer.hold(|| checkpoint(20, 20)).unwrap();
        assert!(steps(&checkpoints).is_empty());
        writer.save(|| checkpoint(33, 20)).unwrap();
        writer.wait().unwrap();
        assert_eq!(steps(&checkpoints), [20, 33]);
        assert!(checkpoints.load(20).unwrap() == checkpoint(20, 20).unwrap());
        assert_eq!(writer.newest(), Some(checkpoints.path(33)));
        // If a better state is saved, the held one is no longer needed.
        writer.hold(|| checkpoint(40, 40)).unwrap();
        writer.save(|| checkpoint(50, 50)).unwrap();
        drop(writer);
        assert_eq!(steps(&checkpoints), [50]);
    }

    #[test]
    fn a_cache_gives_way_to_a_checkpoint_once() {
        let folder = tempfile::tempdir().unwrap();
        let by = folder.path().join("data.cache");
        let images: Arc<dyn Dataset> = Arc::new(Synthetic::new(20, 32, 0));
        let spare = 5 * 3 * 32 * 32;
        let cached = Arc::new(
            Cached::on_disk(
                images.clone(),
                &DecodeOptions::default(),
                DiskBudget { bytes: 1 << 20, spare },
                &by,
            )
            .unwrap(),
        );
        let mut scratch = DecodeScratch::default();
        for index in 0..images.len() {
            cached.read(index, &mut scratch).unwrap();
        }
        let whole = fs::metadata(&by).unwrap().len();
        let files = Full { by: by.clone(), most: whole - spare };
        let checkpoints = Checkpoints::new(folder.path().join("checkpoints"), 1, Arc::new(files));
        let mut writer = CheckpointWriter::new(checkpoints.clone(), Auto::Auto, Some(cached.clone()));
        writer.hold(|| checkpoint(1, 1)).unwrap();
        writer.save(|| checkpoint(2, 1)).unwrap();
        writer.wait().unwrap();
        assert_eq!(steps(&checkpoints), [1, 2]);
        assert_eq!(fs::metadata(&by).unwrap().len(), whole - spare);
        // Images that were dropped from the cache are read from the data.
        for index in 0..images.len() {
            let own = cached.read(index, &mut scratch).unwrap().pixels.to_vec();
            assert_eq!(own, images.read(index, &mut DecodeScratch::default()).unwrap().pixels, "{index}");
        }
        fs::OpenOptions::new().write(true).open(&by).unwrap().set_len(whole).unwrap();
        writer.save(|| checkpoint(3, 1)).unwrap();
        assert!(writer.wait().unwrap_err().is_full_disk());
    }

    #[test]
    fn surplus_checkpoints_make_room_for_the_next_on_a_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints");
        let before = Checkpoints::new(path.clone(), 9, Arc::new(Disk));
        for step in 1..=5 {
            before.save(&checkpoint(step, 2).unwrap()).unwrap();
        }
        // The newest good one is the fourth.
        fs::write(before.path(5), "torn").unwrap();
        for (by, saved) in [(3, true), (2, false), (4, false), (5, false)] {
            let files = Full { by: before.path(by), most: 0 };
            let mut writer =
                CheckpointWriter::new(Checkpoints::new(path.clone(), 1, Arc::new(files)), Auto::Auto, None);
            writer.save(|| checkpoint(6, 2)).unwrap();
            assert_eq!(writer.wait().is_ok(), saved, "{by}");
            match saved {
                true => {
                    assert_eq!(steps(&before), [2, 6]);
                    fs::remove_file(before.path(6)).unwrap();
                    before.save(&checkpoint(4, 2).unwrap()).unwrap();
                    fs::write(before.path(5), "torn").unwrap();
                }
                false => assert_eq!(steps(&before), [2, 4, 5]),
            }
        }
    }

    #[test]
    fn a_best_state_that_could_not_be_written_is_written_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let by = folder.path().join("other");
        fs::write(&by, "full").unwrap();
        let files = Full { by: by.clone(), most: 0 };
        let checkpoints = Checkpoints::new(folder.path().join("checkpoints"), 1, Arc::new(files));
        let mut writer = CheckpointWriter::new(checkpoints.clone(), Auto::Auto, None);
        writer.hold(|| checkpoint(1, 1)).unwrap();
        writer.save(|| checkpoint(2, 1)).unwrap();
        assert!(writer.wait().unwrap_err().is_full_disk());
        fs::remove_file(by).unwrap();
        writer.save(|| checkpoint(3, 1)).unwrap();
        writer.wait().unwrap();
        assert_eq!(steps(&checkpoints), [1, 3]);
    }

    #[test]
    fn a_write_that_fails_is_told_when_it_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoints");
        std::fs::write(&path, "in the way").unwrap();
        let mut writer = CheckpointWriter::new(Checkpoints::new(path, 1, Arc::new(Disk)), Auto::Auto, None);
        writer.save(|| checkpoint(1, 1)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let error = loop {
            if let Err(error) = writer.check_writer() {
                break error.to_string();
            }
            assert!(Instant::now() < deadline, "nothing is told");
        };
        assert!(error.contains("checkpoints"), "{error}");
        assert_eq!(writer.newest(), None);
    }
}
