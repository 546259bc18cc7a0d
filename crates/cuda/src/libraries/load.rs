//! Loading libraries from where they were found.
//!
//! cudarc opens libraries by names such as `libcudnn.so.9`, which the loader looks for in its own places alone. But
//! it also finds a library that is already loaded by the name that it was built with (its soname), wherever its file
//! is. So each is loaded here first, by its path, and never unloaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};

use super::used::expect_used;
use super::{Libraries, Library};
use crate::{CudaError, Result};

static LOADED: Mutex<Option<HashMap<PathBuf, Handle>>> = Mutex::new(None);

/// Calls `body` with the library of a file, which stays loaded until the process ends.
fn with<R>(path: &Path, body: impl FnOnce(&Handle) -> R) -> Result<R> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if !loaded.contains_key(path) {
        // SAFETY: the code that runs as the library is loaded is NVIDIA's: the search takes only files with the names
        // of its libraries, from places that the system's loader and the user's environment name.
        let handle = unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_GLOBAL) };
        let handle = handle.map_err(|e| CudaError::Load { path: path.into(), reason: e.to_string() })?;
        loaded.insert(path.to_owned(), handle);
    }
    Ok(body(&loaded[path]))
}

impl Libraries {
    /// Loads a library, so that the loader finds it by its name from now on.
    ///
    /// # Errors
    /// [`CudaError::Missing`], [`CudaError::Load`]; the latter also where a library of another major
    /// version would be called.
    pub fn load(&self, library: Library) -> Result<()> {
        let path = self.require(library)?;
        let used = with(path, |handle| expect_used(library, path, handle))?;
        used.map_err(|reason| CudaError::Load { path: path.into(), reason })
    }

    /// A function of a library, loaded for good.
    ///
    /// # Safety
    /// `F` is the type of the function of that name, a pointer to an `extern "C"` one.
    ///
    /// # Errors
    /// As [`Libraries::load`]; `Load` where the library has no such function.
    pub(crate) unsafe fn function<F: Copy>(&self, library: Library, name: &str) -> Result<F> {
        let path = self.require(library)?;
        // SAFETY: the caller's promise.
        let found = with(path, |handle| unsafe { handle.get::<F>(name) }.map(|symbol| *symbol))?;
        found.map_err(|e| CudaError::Load { path: path.into(), reason: e.to_string() })
    }

    /// Loads a library and asks it for its version.
    ///
    /// # Errors
    /// As [`Libraries::load`], and [`CudaError::Call`] where the library does not report one.
    pub fn version_of(&self, library: Library) -> Result<String> {
        let path = self.require(library)?;
        with(path, |handle| ask(library, handle))?.map_err(|reason| CudaError::Call {
            what: "asking a library for its version",
            reason: format!("{}: {reason}", path.display()),
        })
    }
}

/// The function that tells a library's version.
pub(super) fn version_function(library: Library) -> &'static str {
    match library {
        Library::Driver => "cuDriverGetVersion",
        Library::Nvrtc => "nvrtcVersion",
        Library::Cudnn => "cudnnGetVersion",
        Library::CublasLt => "cublasLtGetVersion",
        Library::Nccl => "ncclGetVersion",
    }
}

/// What a library says that its version is.
pub(super) fn ask(library: Library, handle: &Handle) -> std::result::Result<String, String> {
    /// A function that writes a number and returns 0 on success.
    type Writes = unsafe extern "C" fn(*mut i32) -> i32;
    /// A function that returns a number.
    type Returns = unsafe extern "C" fn() -> usize;
    let failed = |e: libloading::Error| e.to_string();
    let name = version_function(library);
    let written = || -> std::result::Result<usize, String> {
        let mut number = 0;
        // SAFETY: these functions have had this signature in every version of the libraries, and write one int.
        let status = unsafe { handle.get::<Writes>(name).map_err(failed)?(&mut number) };
        if status == 0 { Ok(number as usize) } else { Err(format!("{name} returned {status}")) }
    };
    let returned = || -> std::result::Result<usize, String> {
        // SAFETY: these functions have had this signature in every version of the libraries.
        unsafe { Ok(handle.get::<Returns>(name).map_err(failed)?()) }
    };
    Ok(match library {
        // 12080 is CUDA 12.8: the newest toolkit that the driver supports.
        Library::Driver => {
            let number = written()?;
            format!("{}.{}", number / 1000, number % 1000 / 10)
        }
        Library::Nvrtc => {
            let (mut major, mut minor) = (0, 0);
            type Pair = unsafe extern "C" fn(*mut i32, *mut i32) -> i32;
            // SAFETY: nvrtcVersion has this signature and writes two ints.
            let status = unsafe { handle.get::<Pair>(name).map_err(failed)?(&mut major, &mut minor) };
            if status != 0 {
                return Err(format!("{name} returned {status}"));
            }
            format!("{major}.{minor}")
        }
        // 91002 is 9.10.2.
        Library::Cudnn => dotted(returned()?, [10_000, 100]),
        // 120803 is 12.8.3.
        Library::CublasLt => dotted(returned()?, [10_000, 100]),
        // 22703 is 2.27.3.
        Library::Nccl => dotted(written()?, [10_000, 100]),
    })
}

fn dotted(number: usize, [major, minor]: [usize; 2]) -> String {
    format!("{}.{}.{}", number / major, number % major / minor, number % minor)
}
