//! Whether the functions that cudarc calls are those of the library that was found.
//!
//! cudarc opens libraries by names alone, and first by one without a version, such as `libnvrtc.so`. A library that
//! was loaded from `libnvrtc.so.12` does not answer to that name, so the system's loader may find another file for
//! it: that of a newer toolkit, say, or a stub.

use std::ffi::{CStr, OsStr, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cudarc::{cublaslt, cudnn, driver, nvrtc};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};

use super::Library;
use super::load::{ask, version_function};

/// Returns an error, which says what to do, if cudarc would call a library of another major version than that of
/// `handle`, which was loaded from `path`, or one that does not work. Call this before any function of cudarc: it
/// panics if the library lacks one.
pub(super) fn expect_used(library: Library, path: &Path, handle: &Handle) -> Result<(), String> {
    type Present = unsafe fn() -> bool;
    type Opened = unsafe fn() -> &'static libloading::Library;
    let (present, opened): (Present, Opened) = match library {
        Library::Driver => (driver::sys::is_culib_present, driver::sys::culib),
        Library::Nvrtc => (nvrtc::sys::is_culib_present, nvrtc::sys::culib),
        Library::Cudnn => (cudnn::sys::is_culib_present, cudnn::sys::culib),
        Library::CublasLt => (cublaslt::sys::is_culib_present, cublaslt::sys::culib),
        // Not called by way of cudarc.
        Library::Nccl => return Ok(()),
    };
    // SAFETY: what runs as libraries of these names are loaded is NVIDIA's.
    if !unsafe { present() } {
        return Err(
            "the system's loader does not find it by name: its soname is not the usual one".to_owned()
        );
    }
    let name = version_function(library);
    // SAFETY: the same; the addresses of functions are looked at, not what is there.
    let (own, theirs) = unsafe { (handle.get::<*const c_void>(name), opened().get::<*const c_void>(name)) };
    let failed = |error: libloading::Error| error.to_string();
    let (own, theirs) = (*own.map_err(failed)?, *theirs.map_err(failed)?);
    if own == theirs {
        return Ok(());
    }
    let other = file_of(theirs).unwrap_or_else(|| PathBuf::from("another file"));
    // SAFETY: it is loaded already.
    let version = unsafe { Handle::open(Some(&other), RTLD_NOW | RTLD_LOCAL) }.map_err(failed);
    let version = version.and_then(|handle| ask(library, &handle));
    let wanted = ask(library, handle)?;
    // A copy will do (WSL has the driver twice), and so will another minor version.
    let major = |version: &str| version.split('.').next().map(str::to_owned);
    if version.as_ref().is_ok_and(|version| major(version) == major(&wanted)) {
        return Ok(());
    }
    let version = match version {
        Ok(found) => format!("version {found}, not {wanted}"),
        Err(reason) => format!("which does not work: {reason}"),
    };
    Err(format!(
        "the system's loader takes {} in its place ({version}): remove that folder from LD_LIBRARY_PATH, \
         or make LD_LIBRARY_PATH begin with a folder that holds a link `{}` to {}",
        other.display(),
        plain_name(library),
        path.display()
    ))
}

/// The name that cudarc asks for first.
fn plain_name(library: Library) -> &'static str {
    let name = library.file_names()[0];
    name.split_inclusive(".so").next().unwrap_or(name)
}

/// The file that a function was loaded from.
fn file_of(function: *const c_void) -> Option<PathBuf> {
    let mut found = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: any address may be asked for; where the answer is not 0, all of `found` is written.
    let found = unsafe { (libc::dladdr(function, found.as_mut_ptr()) != 0).then(|| found.assume_init()) }?;
    if found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: it is the name of a loaded file, which stays loaded, and ends in a zero.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}
