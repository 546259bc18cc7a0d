//! NVIDIA's libraries on the CPU, as far as this program uses them.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use simclr_cuda::{Gpus, Libraries, Library, NCCL_SETTINGS, Program, SearchPath};

use crate::translate::{compiler, folder, library_of, plain, preamble};

/// Each library's name, its file name (also its soname), and its source.
const SOURCES: [(&str, &str, &str); 5] = [
    ("driver", "libcuda.so.1", include_str!("cpp/driver.cpp")),
    ("nvrtc", "libnvrtc.so.12", include_str!("cpp/nvrtc.cpp")),
    (
        "cudnn",
        "libcudnn.so.9",
        concat!(include_str!("cpp/cudnn.cpp"), "\n", include_str!("cpp/cudnn_backend.cpp")),
    ),
    ("cublaslt", "libcublasLt.so.12", include_str!("cpp/cublaslt.cpp")),
    ("nccl", "libnccl.so.2", include_str!("cpp/nccl.cpp")),
];

/// The libraries. None where there is no C++ compiler, or where the machine has a driver of its own, which would be
/// loaded in place of the stand-in's.
pub fn libraries() -> Option<Libraries> {
    // Concurrent tests of one process would write the same files.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let compiler = compiler()?;
    if Libraries::find().get(Library::Driver).is_some() {
        return None;
    }
    let preamble = format!("{}\n{}", preamble(), include_str!("cpp/stream.h"));
    let of_source = |(name, file, source): (&str, &'static str, &str)| {
        (plain(name, &format!("{preamble}\n{source}"), compiler, file), file.to_owned())
    };
    // The stand-in for NVRTC "compiles" a program to the path of its library, which must be in the same folder.
    let of_program = |program: Program| {
        (library_of(program, compiler), format!("{}.so", program.name().replace(' ', "-")))
    };
    let files: Vec<(PathBuf, String)> =
        SOURCES.into_iter().map(of_source).chain(Program::all().into_iter().map(of_program)).collect();
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    let home = folder().join(format!("gpu-{:016x}", hasher.finish()));
    fs::create_dir_all(&home).unwrap_or_else(|e| panic!("{}: {e}", home.display()));
    files.iter().for_each(|(from, name)| place(from, &home.join(name)));
    let places =
        SearchPath::from(&home, |name| (name == "LD_LIBRARY_PATH").then(|| home.clone().into_os_string()));
    Some(Libraries::find_in(&places))
}

/// Makes the stand-in's GPUs fail until the process ends, as after an error in their memory.
pub fn fail(libraries: &Libraries) {
    in_driver(libraries, |driver| {
        // SAFETY: the library is the stand-in's, and is loaded; the function takes and returns nothing.
        unsafe {
            let fail = driver.get::<unsafe extern "C" fn()>(b"stand_in_fail").expect("the stand-in can fail");
            fail();
        }
    });
}

/// Lets the stand-in's GPUs pin `more` bytes of host memory beside those that are pinned; `usize::MAX` is no limit, as
/// at first.
pub fn pin_at_most(libraries: &Libraries, more: usize) {
    in_driver(libraries, |driver| {
        // SAFETY: the library is the stand-in's, and is loaded; the function takes a number and returns nothing.
        unsafe {
            let pin = driver.get::<unsafe extern "C" fn(usize)>(b"stand_in_pin").expect("it can be limited");
            pin(more);
        }
    });
}

/// Calls `work` with the stand-in's driver.
fn in_driver(libraries: &Libraries, work: impl FnOnce(&libloading::Library)) {
    let driver = libraries.require(Library::Driver).expect("the stand-in has a driver");
    // SAFETY: the library is the stand-in's, which does nothing as it is loaded.
    let driver = unsafe { libloading::Library::new(driver) }.expect("the stand-in's driver loads");
    work(&driver);
}

/// A setting that stops NCCL from accessing another GPU's memory directly where both belong to one process. GPUs of
/// different processes never do that.
const APART: (&str, &str) = ("NCCL_P2P_DIRECT_DISABLE", "1");

/// Libraries for a test on two GPUs with NCCL: the machine's if it has these, else the stand-in's; None without either.
/// Whatever is skipped is reported on stderr directly, since the test harness captures other output.
pub fn libraries_for_two_gpus() -> Option<Libraries> {
    let say = |what: &str| drop(writeln!(io::stderr(), "SKIPPED {what}"));
    // The program sets these before it has a second thread; a test cannot.
    let mut settings = NCCL_SETTINGS.into_iter().chain([APART]);
    let unset = settings.find(|(name, value)| std::env::var_os(name).is_none_or(|found| found != *value));
    let own = Libraries::find();
    if own.get(Library::Nccl).is_none() || Gpus::find(&own).gpus.len() < 2 {
        say("on two GPUs: there are none, or no NCCL");
    } else if let Some((name, value)) = unset {
        say(&format!("on two GPUs: {name}={value} is needed in the environment"));
    } else {
        return Some(own);
    }
    let libraries = libraries();
    if libraries.is_none() {
        say("on the stand-in for GPUs: it needs a C++ compiler, and no GPU beside it");
    }
    libraries
}

/// Copies a file. Not a link: it would be followed, and the libraries beside it not found. Several processes may copy
/// the same file concurrently.
fn place(from: &Path, to: &Path) {
    let own = to.with_extension(format!("{}.tmp", std::process::id()));
    let placed = || fs::copy(from, &own).and_then(|_| fs::rename(&own, to));
    if !to.exists() {
        placed().unwrap_or_else(|e| panic!("{}: {e}", to.display()));
    }
}
