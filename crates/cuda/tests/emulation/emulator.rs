//! A launcher that runs kernels on the CPU, translated by the system's C++ compiler.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use simclr_cuda::{CudaError, Launch, Launcher, Memory, Program, Result, Slice, SliceMut};

/// The system's C++ compiler, or none, which is said aloud.
pub fn compiler() -> Option<&'static str> {
    static FOUND: OnceLock<Option<&'static str>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let works =
            |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success());
        let found = ["c++", "g++", "clang++"].into_iter().find(works);
        if let Some(compiler) = found {
            prepare(compiler);
        } else {
            // Past what the test harness keeps to itself.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: no C++ compiler (c++, g++, clang++) to run the CUDA kernels with"
            );
        }
        found
    })
}

type Entry = unsafe extern "C" fn(*const *const c_void, u32, *const u32, u32, i32) -> *const c_char;

/// The libraries that were translated, each once. A library has one set of threads: it runs one kernel at a time.
static LIBRARIES: Mutex<BTreeMap<Program, Library>> = Mutex::new(BTreeMap::new());

/// In which order threads and blocks run.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Forwards,
    Backwards,
    Mixed,
}

pub struct Emulator {
    order: Order,
}

/// Runs `test` with threads and blocks in every order: all must give the same bits.
pub fn in_every_order<R: PartialEq>(test: impl Fn(&Emulator) -> R) -> R {
    let first = test(&Emulator { order: Order::Forwards });
    for order in [Order::Backwards, Order::Mixed] {
        assert!(test(&Emulator { order }) == first, "the order of threads changes the result: {order:?}");
    }
    first
}

// SAFETY: a kernel is translated from the source that a GPU's compiler would get, and run to its end at once; memory is allocated as long and
// aligned as was asked for.
unsafe impl Launcher for Emulator {
    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
        let library = libraries.entry(launch.program).or_insert_with(|| translated(launch.program));
        let name = format!("emulated_{}", launch.kernel);
        // SAFETY: the name is that of an exported function of this signature, which the header defines; the arguments are the caller's promise.
        let problem = unsafe {
            let entry = library.get::<Entry>(name.as_str()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let arguments: Vec<*const c_void> =
                launch.arguments.iter().map(|value| value.address()).collect();
            entry(
                arguments.as_ptr(),
                arguments.len() as u32,
                launch.grid.as_ptr(),
                launch.block,
                self.order as i32,
            )
        };
        if problem.is_null() {
            return Ok(());
        }
        // SAFETY: problems are constant strings.
        let reason = unsafe { CStr::from_ptr(problem) }.to_string_lossy().into_owned();
        Err(CudaError::Call { what: launch.kernel, reason })
    }

    fn scratch(&self, bytes: usize) -> Result<Box<dyn Memory>> {
        Ok(Box::new(Guarded::new(bytes)))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Box<dyn Memory>> {
        let mut memory = Guarded::new(bytes.len());
        memory.bytes_mut().copy_from_slice(bytes);
        Ok(Box::new(memory))
    }
}

/// The library of a program, from the cache below the build's folder where its text has not changed.
fn translated(program: Program) -> Library {
    let library = library_of(program, compiler().expect("asked for before any test"));
    // SAFETY: the library was translated from the sources at hand and runs nothing as it is loaded.
    unsafe { Library::open(Some(&library), RTLD_NOW | RTLD_LOCAL) }.unwrap_or_else(|e| panic!("{e}"))
}

fn library_of(program: Program, compiler: &str) -> PathBuf {
    let (header, narrow) = (include_str!("emulate.h"), include_str!("narrow.h"));
    let exports: String = program.kernels().iter().map(|name| format!("EXPORT({name})\n")).collect();
    // The conversions stand behind the common part, whose types they need.
    let source = program.source().replacen(
        "// N elements that are read",
        &format!("{narrow}\n// N elements that are read"),
        1,
    );
    let text = format!("{header}\n{source}\n{exports}");
    let options = [
        "-std=c++17",
        "-O1",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-fno-strict-aliasing",
        "-ffp-contract=off",
        // Misaligned packs, places beyond an array's end, undefined shifts and overflows end the test.
        "-fsanitize=undefined",
        "-fsanitize-undefined-trap-on-error",
        "-w",
    ];
    let mut hasher = DefaultHasher::new();
    (&text, options, compiler).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation");
    fs::create_dir_all(&folder).unwrap();
    let name = format!("{}-{:016x}", program.name().replace(' ', "-"), hasher.finish());
    let library = folder.join(format!("{name}.so"));
    if library.is_file() {
        return library;
    }
    let (cpp, fresh) =
        (folder.join(format!("{name}.cpp")), folder.join(format!("{name}.{}.tmp", std::process::id())));
    fs::write(&cpp, text).unwrap();
    let result = Command::new(compiler).args(options).arg("-o").arg(&fresh).arg(&cpp).output().unwrap();
    assert!(result.status.success(), "{}: {}", program.name(), String::from_utf8_lossy(&result.stderr));
    fs::rename(fresh, &library).unwrap();
    library
}

/// Memory that begins as NaN, between two guards that must not change.
#[derive(Debug)]
pub struct Guarded {
    words: Vec<u64>,
    start: usize,
    bytes: usize,
}

const GUARD: usize = 512;

impl Guarded {
    pub fn new(bytes: usize) -> Guarded {
        let words = vec![u64::MAX; (bytes + 2 * GUARD + 256).div_ceil(8)];
        let address = words.as_ptr() as usize;
        let start = (address + GUARD).next_multiple_of(256) - address;
        Guarded { words, start, bytes }
    }

    fn all(&self) -> &[u8] {
        // SAFETY: any bytes may be looked at as such.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), 8 * self.words.len()) }
    }

    fn bytes(&self) -> &[u8] {
        &self.all()[self.start..self.start + self.bytes]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start, self.start + self.bytes);
        // SAFETY: any bytes may be written as such, and the borrow is exclusive.
        let all: &mut [u8] =
            unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), 8 * self.words.len()) };
        &mut all[start..end]
    }
}

impl Memory for Guarded {
    fn address(&self) -> u64 {
        self.bytes().as_ptr() as u64
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let all = self.all();
        let intact = all[..self.start].iter().chain(&all[self.start + self.bytes..]).all(|&b| b == 0xff);
        assert!(intact || std::thread::panicking(), "a kernel wrote beyond {} bytes", self.bytes);
    }
}

/// Values in emulated memory.
pub struct Values<T> {
    memory: Guarded,
    len: usize,
    kind: std::marker::PhantomData<T>,
}

impl<T: Copy> Values<T> {
    /// Values that nobody has written: NaN, if they are floats.
    pub fn fresh(len: usize) -> Values<T> {
        Values { memory: Guarded::new(len * size_of::<T>()), len, kind: std::marker::PhantomData }
    }

    pub fn of(values: &[T]) -> Values<T> {
        let mut out = Values::fresh(values.len());
        // SAFETY: plain numbers are their bytes.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        out.memory.bytes_mut().copy_from_slice(bytes);
        out
    }

    pub fn get(&self) -> Vec<T> {
        // SAFETY: the memory is aligned to 256 and holds `len` plain numbers, any bits of which are one.
        unsafe { std::slice::from_raw_parts(self.memory.bytes().as_ptr().cast::<T>(), self.len) }.to_vec()
    }

    pub fn read(&self) -> Slice<'_, T> {
        // SAFETY: the memory holds so many values and lives as long.
        unsafe { Slice::from_raw(self.memory.address(), self.len) }
    }

    pub fn write(&mut self) -> SliceMut<'_, T> {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { SliceMut::from_raw(self.memory.bytes_mut().as_mut_ptr() as u64, self.len) }
    }
}

/// Translates every program that is not in the cache, two at a time.
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
