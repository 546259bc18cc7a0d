//! The folder of a run: its files, its lock, and the version that wrote it.
//!
//! ```text
//! RUN/run.toml               format number, program version, start, data; makes a folder a run
//! RUN/config.toml            the resolved configuration
//! RUN/lock                   locked by the process that trains
//! RUN/metrics.jsonl          the metrics log
//! RUN/events.out.tfevents.*  the same for TensorBoard
//! RUN/checkpoints/           step-XXXXXXXX.safetensors
//! RUN/evaluation/            one JSON file per protocol; fine-tuned networks
//! RUN/data.index             an index of the data's folders and archives, to start sooner next time
//! RUN/data.cache             decoded images, if they are kept on disk, until the run is finished
//! RUN/failure.json           the non-finite values that ended the run, if any
//! RUN/skipped.jsonl          images that could not be used
//! RUN/report.html            the report
//! RUN/encoder.safetensors    the encoder's weights as other programs load them
//! RUN/encoder.onnx           the encoder's graph
//! ```

mod lock;
mod marker;
mod parts;
mod removal;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use simclr_data::{Skipped, unfinished};

use crate::checkpoint::{Checkpoints, LoadedCheckpoint, is_left_over};
use crate::config::Difference;
use crate::file_system::{Disk, FileSystem, create_durably, read_text, write_atomically};
use crate::{Config, TrainError};

pub(crate) use lock::Lock;
use marker::Marker;
pub(crate) use parts::MARKER;
pub use parts::{BEST_ENCODER, BEST_ENCODER_ONNX, ENCODER, ENCODER_ONNX, REPORT, result_file};
use parts::{CACHE, CHECKPOINTS, CONFIG, EVALUATION, FAILURE, INDEX, LOCK, METRICS, SKIPPED};

/// Longest text file accepted in a run folder, in bytes.
const TEXT_LIMIT: u64 = 1 << 20;

/// A run folder. If opened for training, it is locked until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    files: Arc<dyn FileSystem>,
    marker: Marker,
    /// Whether this value created the folder.
    is_new: bool,
    /// Held while the folder is open for training.
    lock: Option<Arc<Lock>>,
}

impl RunFolder {
    /// Creates a new run in a folder that does not exist, is empty, or holds a run whose creation was interrupted. It
    /// records `config` as [resolved](Config::resolved).
    ///
    /// # Errors
    /// Those of [`Config::validate`], [`TrainError::RunExists`], [`TrainError::NotARun`] for a folder that holds
    /// anything else, [`TrainError::RunLocked`], [`TrainError::Io`].
    pub fn create(path: &Path, config: &Config) -> Result<Self, TrainError> {
        Self::create_on(path, config, Arc::new(Disk))
    }

    /// [`RunFolder::create`] with other file operations.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub fn create_on(path: &Path, config: &Config, files: Arc<dyn FileSystem>) -> Result<Self, TrainError> {
        Self::make(path, config, None, files)
    }

    /// [`RunFolder::create`] for a network imported from a file called `from`.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub fn create_imported(path: &Path, config: &Config, from: &str) -> Result<Self, TrainError> {
        Self::make(path, config, Some(from), Arc::new(Disk))
    }

    /// Checks that [`RunFolder::create`] would accept the folder.
    ///
    /// # Errors
    /// As [`RunFolder::create`].
    pub fn check_new(path: &Path) -> Result<(), TrainError> {
        let files: Arc<dyn FileSystem> = Arc::new(Disk);
        refuse_unless_free(path, &files, true)
    }

    fn make(
        path: &Path,
        config: &Config,
        imported: Option<&str>,
        files: Arc<dyn FileSystem>,
    ) -> Result<Self, TrainError> {
        let text = config.resolved()?.to_toml()?;
        refuse_unless_free(path, &files, imported.is_none())?;
        let is_new = path.symlink_metadata().is_err();
        // Best effort: the parent may not be accessible, and then the system decides when its entry is on the disk.
        create_durably(files.as_ref(), path)
            .or_else(|_| files.create_folder(path))
            .map_err(TrainError::io("create", path))?;
        let lock = Lock::take(path).inspect_err(|_| {
            // Another process may be at work in it; then it is not empty.
            let _ = if is_new { files.remove_folder(path) } else { Ok(()) };
        })?;
        // Another process may have created a run between the first check and the lock.
        refuse_unless_free(path, &files, imported.is_none())?;
        let (marker, lock) = (Marker::new(imported), Some(Arc::new(lock)));
        let run = Self { path: path.to_path_buf(), files, marker, is_new, lock };
        run.begin(&text).inspect_err(|_| run.take_back())?;
        Ok(run)
    }

    /// Writes what makes the folder a run, with the configuration `config`.
    fn begin(&self, config: &str) -> Result<(), TrainError> {
        let checkpoints = self.path.join(CHECKPOINTS);
        self.files.create_folder(&checkpoints).map_err(TrainError::io("create", &checkpoints))?;
        // The marker goes first: a folder with a marker and no configuration is an interrupted run, but one with only
        // a configuration may be the user's.
        for (name, text) in [(MARKER, self.marker.to_toml().as_str()), (CONFIG, config)] {
            write_atomically(self.files.as_ref(), &self.path.join(name), |out| {
                out.write_all(text.as_bytes())
            })?;
        }
        Ok(())
    }

    /// Removes what [`RunFolder::begin`] has written before it failed.
    fn take_back(&self) {
        for name in [CONFIG, MARKER] {
            let _ = self.files.remove(&self.path.join(name));
        }
        let _ = self.files.remove_folder(&self.path.join(CHECKPOINTS));
        let _ = self.files.remove(&self.path.join(LOCK));
        if self.is_new {
            let _ = self.files.remove_folder(&self.path);
        }
    }

    /// Opens a run to go on with it.
    ///
    /// # Errors
    /// [`TrainError::NoRun`], [`TrainError::NewerFormat`], [`TrainError::RunLocked`], [`TrainError::Io`], and those of
    /// [`Config::from_toml`].
    pub fn resume(path: &Path) -> Result<(Self, Config), TrainError> {
        let (mut run, _) = Self::open(path)?;
        run.lock = Some(Arc::new(Lock::take(path)?));
        run.remove_unfinished();
        let config = run.read_config()?;
        Ok((run, config))
    }

    /// Opens a run for reading or to add an evaluation; it may be in training meanwhile.
    ///
    /// # Errors
    /// As [`RunFolder::resume`], without the lock.
    pub fn open(path: &Path) -> Result<(Self, Config), TrainError> {
        Self::open_on(path, Arc::new(Disk))
    }

    fn open_on(path: &Path, files: Arc<dyn FileSystem>) -> Result<(Self, Config), TrainError> {
        let mut run =
            Self { path: path.to_path_buf(), files, marker: Marker::default(), is_new: false, lock: None };
        run.read_marker()?;
        let config = run.read_config()?;
        Ok((run, config))
    }

    /// Whether `file` is, or would be, in the checkpoints folder of a run.
    pub fn keeps(file: &Path) -> bool {
        let folder =
            file.parent().map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf()));
        folder.is_some_and(|folder| {
            folder.ends_with(CHECKPOINTS) && folder.parent().is_some_and(RunFolder::exists)
        })
    }

    /// Whether `path` holds a run that can be resumed; false for one whose creation was interrupted, which
    /// [`RunFolder::create`] replaces.
    pub fn exists(path: &Path) -> bool {
        path.join(MARKER).exists() && path.join(CONFIG).exists()
    }

    /// Whether the run in `path` records data that it is trained on, or a file that it was imported from. A run on
    /// drawn images has neither; true for a record that cannot be read.
    pub fn has_source(path: &Path) -> bool {
        let text = read_text(&Disk, &path.join(MARKER), TEXT_LIMIT);
        text.and_then(|text| Marker::parse(&text, path)).map_or(true, |marker| marker.has_source())
    }

    fn read_marker(&mut self) -> Result<(), TrainError> {
        if !Self::exists(&self.path) {
            return Err(TrainError::NoRun { path: self.path.clone() });
        }
        let path = self.path.join(MARKER);
        let text = read_text(self.files.as_ref(), &path, TEXT_LIMIT)?;
        self.marker = Marker::parse(&text, &path)?;
        Ok(())
    }

    fn read_config(&self) -> Result<Config, TrainError> {
        let path = self.path.join(CONFIG);
        let text = read_text(self.files.as_ref(), &path, TEXT_LIMIT)?;
        Config::from_toml(&text, &path.display().to_string())
    }

    /// Checks that the recorded `config` is the one that the newest checkpoint was trained with, except for keys that
    /// may differ; without a checkpoint, that no key is missing. With a truncated or edited file, the run would go on
    /// as a different one.
    ///
    /// # Errors
    /// [`TrainError::CannotResume`] naming every key and its right value; [`TrainError::Damaged`]; [`TrainError::Io`].
    pub fn check_config(&self, config: &Config, found: Option<&LoadedCheckpoint>) -> Result<(), TrainError> {
        if let Some(found) = found {
            return match self.edited(config, found)? {
                None => Ok(()),
                Some(problem) => Err(TrainError::CannotResume { path: self.path.clone(), problem }),
            };
        }
        let missing = self.missing_keys()?;
        let Some(key) = missing.first() else { return Ok(()) };
        let more = match missing.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let reason = format!("it lacks `{key}`{more}; write what is missing, or begin another run");
        Err(TrainError::Damaged { path: self.path.join(CONFIG), reason })
    }

    /// The keys that the recorded configuration does not set.
    fn missing_keys(&self) -> Result<Vec<&'static str>, TrainError> {
        let path = self.path.join(CONFIG);
        Config::missing(&read_text(self.files.as_ref(), &path, TEXT_LIMIT)?, &path.display().to_string())
    }

    /// What of the recorded `config` is not what the checkpoint `found` was trained with, in words, except for keys that
    /// may differ; `None` if nothing is.
    ///
    /// # Errors
    /// [`TrainError::Io`], and those of [`Config::from_toml`] for the checkpoint's configuration.
    pub fn edited(&self, config: &Config, found: &LoadedCheckpoint) -> Result<Option<String>, TrainError> {
        let LoadedCheckpoint { path: checkpoint, checkpoint: saved, .. } = found;
        let missing = self.missing_keys()?;
        let trained = Config::from_toml(&saved.meta.config, &checkpoint.display().to_string())?;
        let wrong = trained.differences(config).into_iter().filter(|difference| !difference.changes_nothing);
        let wrong: Vec<_> = wrong
            .map(|Difference { key, ours, theirs, .. }| match missing.contains(&key) {
                true => format!("{key} = {ours}, which is missing"),
                false => format!("{key} = {ours}, not {theirs}"),
            })
            .collect();
        Ok((!wrong.is_empty()).then(|| {
            format!(
                "its {CONFIG} is not what {} was trained with; it should say {}",
                checkpoint.display(),
                wrong.join("; ")
            )
        }))
    }

    /// Replaces the recorded configuration, since a resumed run may, for example, have a different number of threads.
    ///
    /// # Errors
    /// [`TrainError::RunGone`], [`TrainError::Io`].
    pub fn write_config(&self, config: &Config) -> Result<(), TrainError> {
        let text = config.to_toml()?;
        self.write(CONFIG, |out| out.write_all(text.as_bytes()))
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that the network was imported from, if it was not trained here. An imported run has weights, but no
    /// training state to resume from.
    pub fn imported(&self) -> Option<&str> {
        self.marker.imported()
    }

    /// Records the paths of the data that the run is trained on, as they were given (of more than 64 KiB of paths only
    /// their number), unless it has them already.
    ///
    /// # Errors
    /// [`TrainError::RunGone`], [`TrainError::Io`].
    pub fn record_data(&mut self, data: &[&Path]) -> Result<(), TrainError> {
        let marker = self.marker.with_data(data, std::env::current_dir().ok().as_deref());
        let text = marker.to_toml();
        if text != self.marker.to_toml() {
            self.write(MARKER, |out| out.write_all(text.as_bytes()))?;
            self.marker = marker;
        }
        Ok(())
    }

    /// The recorded paths of the data that the run is trained on; empty if there are none. Relative paths start from
    /// the folder in which the program ran then.
    pub fn data(&self) -> Vec<PathBuf> {
        self.marker.data()
    }

    /// What is known of the run's origin, as lines of TOML: the paths of its data, when it was started, and by which
    /// version of this program.
    pub fn origin(&self) -> String {
        self.marker.origin()
    }

    /// Checks that the run was trained here and not imported, as only then can it be resumed.
    ///
    /// # Errors
    /// [`TrainError::CannotResume`] naming the file that the network was imported from.
    pub fn check_trained_here(&self) -> Result<(), TrainError> {
        let Some(from) = self.imported() else { return Ok(()) };
        let problem = format!(
            "it was imported from {from}, without the state of its training; another run can begin with its encoder"
        );
        Err(TrainError::CannotResume { path: self.path.clone(), problem })
    }

    /// Checks that the folder is still the one that this value locked for training, if it did: another process may
    /// have removed, moved or replaced it. All that is written through this value checks it.
    ///
    /// # Errors
    /// [`TrainError::RunGone`].
    pub fn check_in_place(&self) -> Result<(), TrainError> {
        self.lock.as_ref().map_or(Ok(()), |lock| lock.check())
    }

    /// The file operations of the run.
    pub fn files(&self) -> &Arc<dyn FileSystem> {
        &self.files
    }

    /// The metrics log.
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// The index of the data.
    pub fn index(&self) -> PathBuf {
        Self::index_of(&self.path)
    }

    /// The index of the run in the folder `path`, without opening the run.
    pub fn index_of(path: &Path) -> PathBuf {
        path.join(INDEX)
    }

    /// The cache of decoded images, kept until the run is finished.
    pub fn cache(&self) -> PathBuf {
        self.path.join(CACHE)
    }

    /// Removes the cache, once nothing reads it. Failure is harmless: the file only takes space.
    pub fn remove_cache(&self) {
        if self.check_in_place().is_ok() {
            let _ = self.files.remove(&self.cache());
        }
    }

    /// The record of the non-finite values that ended the run.
    pub fn failure(&self) -> PathBuf {
        self.path.join(FAILURE)
    }

    /// Writes the failure record, whole or not at all.
    ///
    /// # Errors
    /// [`TrainError::RunGone`], [`TrainError::Io`].
    pub(crate) fn write_failure(&self, failure: &impl Serialize) -> Result<(), TrainError> {
        self.write_json(&self.failure(), failure)
    }

    /// Removes the failure record, if there is one.
    ///
    /// # Errors
    /// [`TrainError::RunGone`], [`TrainError::Io`].
    pub(crate) fn remove_failure(&self) -> Result<(), TrainError> {
        self.check_in_place()?;
        let path = self.failure();
        match self.files.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(TrainError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// The list of images that could not be used.
    pub fn skipped(&self) -> PathBuf {
        self.path.join(SKIPPED)
    }

    /// The report.
    pub fn report(&self) -> PathBuf {
        self.path.join(REPORT)
    }

    /// The result of an evaluation protocol.
    pub fn evaluation(&self, protocol: &str) -> PathBuf {
        result_file(&self.evaluations(), protocol)
    }

    /// The folder of evaluation results.
    pub fn evaluations(&self) -> PathBuf {
        self.path.join(EVALUATION)
    }

    /// The checkpoints; saving keeps the newest `keep` and the best.
    pub fn checkpoints(&self, keep: usize) -> Checkpoints {
        let checkpoints = Checkpoints::new(self.path.join(CHECKPOINTS), keep, Arc::clone(&self.files));
        checkpoints.of_locked(self.lock.clone())
    }

    /// Writes the result of an evaluation protocol, whole or not at all.
    ///
    /// # Errors
    /// [`TrainError::RunGone`], [`TrainError::Io`].
    pub fn write_evaluation(&self, protocol: &str, result: &impl Serialize) -> Result<(), TrainError> {
        self.write_result(&self.evaluations(), protocol, result).map(drop)
    }

    /// Writes the result of a protocol to another folder, which need not exist yet. Returns the file.
    ///
    /// # Errors
    /// [`TrainError::RunGone`], [`TrainError::Io`].
    pub fn write_result(
        &self,
        folder: &Path,
        protocol: &str,
        result: &impl Serialize,
    ) -> Result<PathBuf, TrainError> {
        let file = result_file(folder, protocol);
        self.write_json(&file, result)?;
        Ok(file)
    }

    /// Writes the list of images that could not be used, one JSON object per line, whole or not at all.
    ///
    /// # Errors
    /// [`TrainError::RunGone`], [`TrainError::Io`].
    pub fn write_skipped(&self, skipped: &[Skipped]) -> Result<(), TrainError> {
        self.write(SKIPPED, |out| {
            skipped.iter().try_for_each(|entry| {
                serde_json::to_writer(&mut *out, entry)?;
                out.write_all(b"\n")
            })
        })
    }

    /// Reads the list of images that could not be used; ignores invalid lines.
    ///
    /// # Errors
    /// [`TrainError::Io`] for a list that exists but cannot be read.
    pub fn read_skipped(&self) -> Result<Vec<Skipped>, TrainError> {
        let path = self.skipped();
        let mut bytes = Vec::new();
        match self.files.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened.and_then(|(mut file, _)| file.read_to_end(&mut bytes)),
        }
        .map_err(TrainError::io("read", &path))?;
        Ok(bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Writes a file of the run, whole or not at all, creating its folder if needed.
    ///
    /// # Errors
    /// [`TrainError::RunGone`], [`TrainError::Io`].
    pub fn write(
        &self,
        relative: &str,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), TrainError> {
        self.write_at(&self.path.join(relative), write)
    }

    fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
        self.write_at(path, |out| {
            serde_json::to_writer_pretty(&mut *out, value)?;
            out.write_all(b"\n")
        })
    }

    fn write_at(
        &self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), TrainError> {
        self.check_in_place()?;
        if let Some(folder) = path.parent() {
            create_durably(self.files.as_ref(), folder).map_err(TrainError::io("create", folder))?;
        }
        write_atomically(self.files.as_ref(), path, write)
    }
}

/// Returns which of the two files that make a folder a run is missing.
pub(crate) fn missing(path: &Path) -> &'static str {
    if path.join(MARKER).exists() { CONFIG } else { MARKER }
}

/// Checks that a new run may be created: the folder is empty or has only what an interrupted creation leaves. An import
/// may also replace one that was interrupted before its network was written.
fn refuse_unless_free(path: &Path, files: &Arc<dyn FileSystem>, trains: bool) -> Result<(), TrainError> {
    let entries = match files.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(TrainError::io("list", path))?,
    };
    let exists = RunFolder::exists(path);
    let is_import = || {
        let opened = RunFolder::open_on(path, Arc::clone(files));
        opened.is_ok_and(|(run, _)| run.imported().is_some())
    };
    let taken = TrainError::RunExists { path: path.to_path_buf(), trains };
    if exists && (trains || !is_import()) {
        return Err(taken);
    }
    let left_over = |entry: &PathBuf| {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        unfinished(&name).is_some_and(|(whole, _)| [MARKER, CONFIG].contains(&whole))
            || [LOCK, MARKER].contains(&&*name)
            || (name == CONFIG && exists)
            || (name == CHECKPOINTS
                && files.list(entry).is_ok_and(|inside| inside.iter().all(|path| is_left_over(path))))
    };
    match (entries.iter().all(left_over), exists) {
        (true, _) => Ok(()),
        (false, true) => Err(taken),
        (false, false) => Err(TrainError::NotARun { path: path.to_path_buf() }),
    }
}
