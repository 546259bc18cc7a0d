//! A file system whose N-th operation fails, or is the last with any effect, as at a kill or a power cut.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use simclr_train::file_system::{Disk, FileSystem, Output};

/// What happens at the N-th operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// It fails with this error and has no effect; a write is half done.
    Error(io::ErrorKind),
    /// It fails and has no effect, or is half done if it is a write; all later operations fail without effect.
    Stop,
}

/// What a power cut does to unsynced changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Nothing is lost: the process was killed, but the system goes on.
    Nothing,
    /// Unsynced data is lost, but names are kept.
    Data,
    /// Unsynced data is lost, and so are changes of names in unsynced folders.
    DataAndNames,
}

#[derive(Debug)]
enum Undo {
    Restore(PathBuf, Option<Vec<u8>>),
    Rename { from: PathBuf, to: PathBuf, replaced: Option<Vec<u8>> },
    Folder(PathBuf),
}

impl Undo {
    /// The folder whose entries changed.
    fn folder(&self) -> Option<&Path> {
        match self {
            Undo::Restore(path, _) | Undo::Rename { to: path, .. } | Undo::Folder(path) => path.parent(),
        }
    }
}

/// What somebody else does.
struct Meanwhile(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

#[derive(Debug, Default)]
struct State {
    operations: u64,
    fault: Option<(u64, Fault)>,
    interrupts: bool,
    stopped: bool,
    before_open: Option<(PathBuf, Meanwhile)>,
    synced: HashMap<PathBuf, u64>,
    undo: Vec<Undo>,
}

/// The disk with faults.
#[derive(Debug, Clone, Default)]
pub struct Faulty(Arc<Mutex<State>>);

impl Faulty {
    /// A disk whose operation number `at` (from 0) has a fault.
    pub fn new(at: u64, fault: Fault) -> Self {
        let state = State { fault: Some((at, fault)), ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A disk without faults, on which each write is first interrupted before it has done anything.
    #[allow(dead_code, reason = "not every test that includes this uses it")]
    pub fn interrupting() -> Self {
        Self(Arc::new(Mutex::new(State { interrupts: true, ..State::default() })))
    }

    /// A disk without faults, on which somebody else does something just before `path` is opened for the first time.
    #[allow(dead_code, reason = "not every test that includes this uses it")]
    pub fn changing(path: &Path, change: impl FnOnce() + Send + 'static) -> Self {
        let before_open = Some((path.to_path_buf(), Meanwhile(Box::new(change))));
        Self(Arc::new(Mutex::new(State { before_open, ..State::default() })))
    }

    /// The number of operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Cuts the power.
    pub fn cut_power(&self, loss: Loss) {
        let mut state = self.state();
        if loss == Loss::Nothing {
            return;
        }
        for (path, &length) in &state.synced {
            if let Ok(file) = fs::OpenOptions::new().write(true).open(path) {
                file.set_len(length).unwrap();
            }
        }
        let undo = std::mem::take(&mut state.undo);
        if loss == Loss::DataAndNames {
            for change in undo.into_iter().rev() {
                match change {
                    Undo::Restore(path, contents) => restore(&path, contents),
                    Undo::Rename { from, to, replaced } => {
                        fs::rename(&to, &from).unwrap();
                        restore(&to, replaced);
                    }
                    Undo::Folder(path) => drop(fs::remove_dir_all(path)),
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Counts an operation; an error if the operation must not happen.
    fn step(&self) -> io::Result<()> {
        let mut state = self.state();
        let now = state.operations;
        state.operations += 1;
        if state.stopped {
            return Err(io::Error::other("stopped"));
        }
        match state.fault {
            Some((at, Fault::Error(kind))) if at == now => Err(kind.into()),
            Some((at, Fault::Stop)) if at == now => {
                state.stopped = true;
                Err(io::Error::other("stopped"))
            }
            _ => Ok(()),
        }
    }

    fn output(&self, inner: Box<dyn Output>, path: &Path, length: u64) -> FaultyOutput {
        FaultyOutput { inner, path: path.to_path_buf(), length, disk: self.clone(), interrupted: false }
    }

    fn stopped(&self) -> bool {
        self.state().stopped
    }
}

fn restore(path: &Path, contents: Option<Vec<u8>>) {
    match contents {
        Some(bytes) => fs::write(path, bytes).unwrap(),
        None => drop(fs::remove_file(path)),
    }
}

struct FaultyOutput {
    inner: Box<dyn Output>,
    path: PathBuf,
    length: u64,
    disk: Faulty,
    /// Whether the last write was interrupted and will be tried again.
    interrupted: bool,
}

impl Write for FaultyOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted && self.disk.state().interrupts;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let was_stopped = self.disk.stopped();
        match self.disk.step() {
            Ok(()) => {
                // Short writes are always possible, so make every write short.
                let count = bytes.len().div_ceil(2).max(1).min(bytes.len());
                self.inner.write_all(&bytes[..count])?;
                self.length += count as u64;
                Ok(count)
            }
            Err(error) => {
                if !was_stopped {
                    self.inner.write_all(&bytes[..bytes.len() / 2])?;
                    self.length += (bytes.len() / 2) as u64;
                }
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for FaultyOutput {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.disk.step()?;
        self.inner.seek(to)
    }
}

impl Output for FaultyOutput {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.step()?;
        self.inner.sync()?;
        self.disk.state().synced.insert(self.path.clone(), self.length);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.step()?;
        self.inner.truncate(length)?;
        self.length = length;
        let mut state = self.disk.state();
        let synced = state.synced.entry(self.path.clone()).or_insert(length);
        *synced = (*synced).min(length);
        Ok(())
    }
}

impl FileSystem for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        self.step()?;
        let before = fs::read(path).ok();
        let inner = Disk.create(path)?;
        let mut state = self.state();
        state.undo.push(Undo::Restore(path.to_path_buf(), before));
        state.synced.insert(path.to_path_buf(), 0);
        Ok(Box::new(self.output(inner, path, 0)))
    }

    fn append(&self, path: &Path) -> io::Result<(Box<dyn Output>, u64)> {
        self.step()?;
        let existed = path.exists();
        let (inner, length) = Disk.append(path)?;
        let mut state = self.state();
        if !existed {
            state.undo.push(Undo::Restore(path.to_path_buf(), None));
        }
        state.synced.entry(path.to_path_buf()).or_insert(length);
        Ok((Box::new(self.output(inner, path, length)), length))
    }

    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)> {
        self.step()?;
        let change = self.state().before_open.take_if(|(opened, _)| opened == path);
        if let Some((_, Meanwhile(change))) = change {
            change();
        }
        Disk.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let replaced = fs::read(to).ok();
        Disk.rename(from, to)?;
        let mut state = self.state();
        if let Some(length) = state.synced.remove(from) {
            state.synced.insert(to.to_path_buf(), length);
        }
        state.undo.push(Undo::Rename { from: from.to_path_buf(), to: to.to_path_buf(), replaced });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let before = fs::read(path).ok();
        Disk.remove(path)?;
        let mut state = self.state();
        state.synced.remove(path);
        state.undo.push(Undo::Restore(path.to_path_buf(), before));
        Ok(())
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let missing = path.ancestors().take_while(|folder| !folder.exists());
        let missing: Vec<_> = missing.map(|folder| Undo::Folder(folder.to_path_buf())).collect();
        Disk.create_folder(path)?;
        self.state().undo.extend(missing.into_iter().rev());
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.sync_folder(path)?;
        self.state().undo.retain(|change| change.folder() != Some(path));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.step()?;
        Disk.list(path)
    }
}
