//! Compiles every kernel with NVRTC for two generations of GPUs. Needs no GPU and no driver.

#![cfg(feature = "cuda")]

use std::fs;
use std::io::Write;

use simclr_cuda::{Compiler, Libraries, Program};

/// The compiler. Without one, reports on stderr directly that the test is skipped, since the test harness captures
/// other output.
fn compiler() -> Option<Compiler> {
    match Compiler::new(&Libraries::find()) {
        Ok(compiler) => Some(compiler),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED: the CUDA kernels are not compiled: {error}");
            None
        }
    }
}

#[test]
fn every_program_compiles_without_a_remark() {
    let Some(compiler) = compiler().map(|compiler| compiler.with_cache(None)) else { return };
    for capability in [(8, 0), (9, 0)] {
        for program in Program::all() {
            let image = compiler.compile(program, capability).unwrap();
            assert_eq!(image.log, "", "{} for {capability:?}", program.name());
            assert!(image.bytes.starts_with(b"\x7fELF"), "machine code of {}", program.name());
            for kernel in program.kernels() {
                let holds = |name: &[u8]| image.bytes.windows(name.len()).any(|part| part == name);
                assert!(holds(kernel.as_bytes()), "{kernel} is not in {}", program.name());
            }
        }
    }
}

#[test]
fn a_gpu_newer_than_the_compiler_gets_ptx_and_one_too_old_an_error() {
    let Some(compiler) = compiler().map(|compiler| compiler.with_cache(None)) else { return };
    let program = Program::all()[0];
    let image = compiler.compile(program, (99, 0)).unwrap();
    assert!(String::from_utf8_lossy(&image.bytes).contains(".version") && image.bytes.ends_with(&[0]));
    let error = compiler.compile(program, (1, 0)).unwrap_err().to_string();
    assert!(error.contains("no longer supports GPUs of compute capability 1.0"), "{error}");
}

#[test]
fn compiled_kernels_are_kept_and_a_damaged_file_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(compiler) = compiler().map(|compiler| compiler.with_cache(Some(dir.path().into()))) else {
        return;
    };
    let program = Program::all()[0];
    let image = compiler.compile(program, (9, 0)).unwrap();
    let files = || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let [file] = &files()[..] else { panic!("one file, not {:?}", files()) };
    let whole = fs::read(file).unwrap();
    assert_eq!(compiler.compile(program, (9, 0)).unwrap().bytes, image.bytes);
    let mut damaged = whole.clone();
    damaged[100] ^= 0x40;
    fs::write(file, damaged).unwrap();
    assert_eq!(compiler.compile(program, (9, 0)).unwrap().bytes, image.bytes);
    assert_eq!(fs::read(file).unwrap(), whole);
    compiler.compile(program, (8, 0)).unwrap();
    assert_eq!(files().len(), 2, "each architecture has a file of its own");
}
