//! Libraries that the system's loader would take in place of those that were found: a process calls one of each.

#![cfg(feature = "cuda")]

use std::path::{Path, PathBuf};
use std::process::Command;

use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use simclr_cuda::{Compiler, Library};

/// Loads a library that answers to `name`, as the loader would find it in a folder of LD_LIBRARY_PATH.
fn decoy(folder: &Path, name: &str, source: &str) -> PathBuf {
    let compiler = simclr_stand_in::compiler().expect("the stand-in was compiled");
    let (code, file) = (folder.join(format!("{name}.cpp")), folder.join(name));
    std::fs::write(&code, source).unwrap();
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-o"]).arg(&file).arg(&code).arg(format!("-Wl,-soname,{name}"));
    assert!(command.status().unwrap().success());
    // SAFETY: the library has nothing that runs as it is loaded.
    let handle = unsafe { Handle::open(Some(&file), RTLD_NOW | RTLD_LOCAL) }.unwrap();
    std::mem::forget(handle);
    file
}

#[test]
fn another_major_version_than_the_one_that_was_found_is_refused_and_another_minor_one_is_not() {
    let Some(libraries) = simclr_stand_in::libraries() else { return };
    let dir = tempfile::tempdir().unwrap();
    let newer = r#"extern "C" int nvrtcVersion(int *major, int *minor) { *major = 13; return *minor = 0; }"#;
    let other = decoy(dir.path(), "libnvrtc.so", newer);
    let error = Compiler::new(&libraries).unwrap_err().to_string();
    let found = libraries.require(Library::Nvrtc).unwrap();
    for part in [found.to_str().unwrap(), other.to_str().unwrap(), "version 13.0, not 12.8", "`libnvrtc.so`"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }

    let stub = decoy(dir.path(), "libcuda.so", r#"extern "C" int cuDriverGetVersion(int *) { return 34; }"#);
    let error = libraries.load(Library::Driver).unwrap_err().to_string();
    let (stub, says) = (stub.to_str().unwrap(), "cuDriverGetVersion returned 34");
    assert!(error.contains(stub) && error.contains(says), "{error}");

    let older = r#"extern "C" unsigned long cublasLtGetVersion() { return 120400; }"#;
    decoy(dir.path(), "libcublasLt.so", older);
    libraries.load(Library::CublasLt).unwrap();
    libraries.load(Library::Cudnn).unwrap();
}
