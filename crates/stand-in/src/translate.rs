//! Compiling kernels and other sources to libraries for the CPU.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use simclr_cuda::Program;

const EMULATE: &str = include_str!("cpp/emulate.h");
const NARROW: &str = include_str!("cpp/narrow.h");
/// The line of `common.cuh` before which the conversions are inserted: after the types that they need.
const BEFORE: &str = "// N elements that are read";

const OPTIONS: [&str; 10] = [
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-w",
    "-pthread",
    // The fortified longjmp takes a jump to another stack for an error.
    "-U_FORTIFY_SOURCE",
];
/// Misaligned packs, accesses beyond an array's end, undefined shifts and overflows crash the test.
const STRICT: [&str; 2] = ["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"];

/// The system's C++ compiler; if there is none, that is reported on stderr. The first call translates all programs.
pub fn compiler() -> Option<&'static str> {
    static FOUND: OnceLock<Option<&'static str>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let works =
            |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
        let found = ["c++", "g++", "clang++"].into_iter().find(works);
        match found {
            Some(compiler) => prepare(compiler),
            None => {
                // Directly, since the test harness captures other output.
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: no C++ compiler (c++, g++, clang++) to run the CUDA kernels with"
                );
            }
        }
        found
    })
}

/// Translates all programs that are not in the cache, two at a time.
fn prepare(compiler: &str) {
    let next = AtomicUsize::new(0);
    let all = Program::all();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(program) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    library_of(*program, compiler);
                }
            });
        }
    });
}

/// The folder for translated libraries, beside the test's executable.
pub(crate) fn folder() -> PathBuf {
    let program = std::env::current_exe().expect("a test knows its program");
    program.parent().expect("a program is in a folder").join("stand-in")
}

/// Translates a program, unless it is in the cache, and returns its library.
pub(crate) fn library_of(program: Program, compiler: &str) -> PathBuf {
    let exports: String = program.kernels().iter().map(|name| format!("EXPORT({name})\n")).collect();
    let source = program.source().replacen(BEFORE, &format!("{NARROW}\n{BEFORE}"), 1);
    let text = format!("{EMULATE}\n{source}\n{exports}");
    let options = [&OPTIONS[..], &STRICT].concat();
    translated(&program.name().replace(' ', "-"), &text, &options, compiler)
}

/// `common.cuh` with the conversions, for sources other than kernels.
pub(crate) fn preamble() -> String {
    let common = Program::all()[0].source();
    let common = common.split("#line 1 \"row_sums.cuh\"").next().expect("a part before the first include");
    format!("{EMULATE}\n{}", common.replacen(BEFORE, &format!("{NARROW}\n{BEFORE}"), 1))
}

/// Compiles a source text, unless it is in the cache, and returns its library.
pub(crate) fn plain(name: &str, text: &str, compiler: &str, soname: &str) -> PathBuf {
    let soname = format!("-Wl,-soname,{soname}");
    let options = [&OPTIONS[..], &[&soname]].concat();
    translated(name, text, &options, compiler)
}

fn translated(name: &str, text: &str, options: &[&str], compiler: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (text, options, compiler).hash(&mut hasher);
    let folder = folder();
    let name = format!("{name}-{:016x}", hasher.finish());
    let library = folder.join(format!("{name}.so"));
    if library.is_file() {
        return library;
    }
    fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    // Several processes may translate the same source concurrently: each writes its own file, and the last rename wins.
    let own = format!("{name}.{}", std::process::id());
    let (cpp, fresh) = (folder.join(format!("{own}.cpp")), folder.join(format!("{own}.tmp")));
    fs::write(&cpp, text).unwrap_or_else(|e| panic!("{}: {e}", cpp.display()));
    let result = Command::new(compiler).args(options).arg("-o").arg(&fresh).arg(&cpp).output();
    let result = result.unwrap_or_else(|e| panic!("{compiler}: {e}"));
    assert!(result.status.success(), "{name}: {}", String::from_utf8_lossy(&result.stderr));
    fs::rename(fresh, &library).unwrap_or_else(|e| panic!("{}: {e}", library.display()));
    let _ = fs::remove_file(cpp);
    library
}
