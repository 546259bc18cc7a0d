//! A launcher that runs kernels on the CPU.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use simclr_cuda::{CudaError, Launch, Launcher, Memory, Program, Result};

use crate::sparse::Sparse;
use crate::translate::{compiler, library_of};
use crate::values::Guarded;

type Entry = unsafe extern "C" fn(*const *const c_void, u32, *const u32, u32, i32) -> *const c_char;

/// The translated libraries, each translated once. A library has one set of threads: it runs one kernel at a time.
static LIBRARIES: Mutex<BTreeMap<Program, Arc<Mutex<Library>>>> = Mutex::new(BTreeMap::new());

/// The order in which threads and blocks run.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// In the order of their numbers.
    Forwards,
    /// In reverse order.
    Backwards,
    /// In a scrambled order.
    Mixed,
    /// In the order of their numbers, but in a grid of more than 1000 blocks only those at its corners.
    Corners,
}

/// Runs kernels on the CPU, one after another.
#[derive(Debug)]
pub struct Emulator {
    order: Order,
}

impl Emulator {
    /// An emulator that runs only the blocks at the corners of large grids, for sizes where more would take too long.
    /// Its scratch memory is [`Sparse`]: 0 where no block wrote it.
    pub fn of_corners() -> Emulator {
        Emulator { order: Order::Corners }
    }
}

/// Runs `test` with threads and blocks in several orders, and checks that all give the same bits.
pub fn in_every_order<R: PartialEq>(test: impl Fn(&Emulator) -> R) -> R {
    let first = test(&Emulator { order: Order::Forwards });
    for order in [Order::Backwards, Order::Mixed] {
        assert!(test(&Emulator { order }) == first, "the order of threads changes the result: {order:?}");
    }
    first
}

// SAFETY: a kernel is translated from the source that a GPU's compiler would get, and run (or parts of its grid are)
// before `launch` returns; memory has the requested length and alignment.
unsafe impl Launcher for Emulator {
    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let library = library(launch.program);
        let library = library.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("emulated_{}", launch.kernel);
        // SAFETY: the name is that of an exported function of this signature, which `emulate.h` defines; the arguments
        // are the caller's promise.
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
        Ok(match self.order {
            Order::Corners => Box::new(Sparse::<u8>::zeros(bytes)),
            _ => Box::new(Guarded::new(bytes)),
        })
    }

    fn upload(&self, bytes: &[u8]) -> Result<Box<dyn Memory>> {
        let mut memory = Guarded::new(bytes.len());
        memory.write(bytes);
        Ok(Box::new(memory))
    }
}

/// The library of a program; its lock is held while a kernel runs.
fn library(program: Program) -> Arc<Mutex<Library>> {
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    libraries.entry(program).or_insert_with(|| Arc::new(Mutex::new(translated(program)))).clone()
}

/// Loads the library of a program.
fn translated(program: Program) -> Library {
    let library = library_of(program, compiler().expect("a compiler is asked for before any test"));
    // SAFETY: the library was translated from our own sources and runs no code when it is loaded.
    unsafe { Library::open(Some(&library), RTLD_NOW | RTLD_LOCAL) }.unwrap_or_else(|e| panic!("{e}"))
}
