//! A GPU: its stream, its memory, its loaded kernels, and the libraries that run on it.

mod buffer;
mod channel;
mod communicator;
mod convolution;
mod graph;
mod peak;
mod pool;
mod product;
mod staging;
mod timing;
mod versions;
mod views;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CString, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUdevice_attribute, CUfunction, CUmodule, CUresult, CUstream};
use cudarc::driver::{CudaContext, CudaStream};

use crate::compile::{Capability, Compiler};
use crate::{
    CudaError, Gpu, Launch, Launcher, Libraries, Library, Memory, Program, Result, cache, cache_folder,
};

pub use buffer::DeviceBuffer;
pub use channel::Channel;
pub use communicator::{Communicator, Exchange, Exchanged, GROUP_ID};
use convolution::Convolutions;
pub use convolution::{ConvolutionLimits, ConvolutionMode, ConvolutionPass, ConvolutionTiming};
pub use graph::Graph;
pub use peak::Peak;
pub use pool::MemoryUse;
pub use product::{Epilogue, Matrix, ProductMode};
pub use views::{KeptAt, Source, ViewMaker};

use pool::Pool;
use staging::Staging;

/// Statistics of searches for the fastest way to compute something, which a start needs where no results are cached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Searched {
    /// The number of searches.
    pub count: usize,
    /// Their total time.
    pub time: Duration,
}

/// The folders of the cache with the choices among the library's ways to compute convolutions and products.
const CONVOLUTIONS: &str = "convolutions";
const PRODUCTS: &str = "products";

/// Returns the reason why choices cannot be kept in the folder `cache`, or `None` if they can. What is already there is
/// used in both cases.
fn why_forgotten(cache: Option<&Path>) -> Option<String> {
    let Some(cache) = cache else {
        return Some("neither XDG_CACHE_HOME nor HOME names a folder".to_owned());
    };
    [CONVOLUTIONS, PRODUCTS].iter().find_map(|name| {
        let folder = cache.join(name);
        let error = cache::check(&folder).err()?;
        Some(format!("{} cannot be written ({error})", folder.display()))
    })
}

/// A GPU that holds buffers and runs kernels, all in order on one stream. Cheap to clone; clones are the same device.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

struct Shared {
    // Fields are dropped in this order: those that need the context go before it.
    convolutions: Mutex<Option<Convolutions>>,
    products: Mutex<Option<product::Products>>,
    modules: Mutex<Modules>,
    staging: Mutex<Staging>,
    pool: Mutex<Arc<Pool>>,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    compiler: Compiler,
    capability: Capability,
    libraries: Libraries,
    name: String,
    /// The folder for compiled kernels and chosen algorithms, if there is one.
    cache: Option<PathBuf>,
    /// The reason why chosen algorithms are not kept there, or `None` if they are.
    forgets: Option<String>,
    capturing: AtomicBool,
    searched: Mutex<Searched>,
}

/// The error of a failed call of the driver.
fn failed(what: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Call { what, reason: format!("{error}{}", where_to_look(error)) }
}

/// What tells more of an error after which the GPU does nothing any more.
fn where_to_look(error: DriverError) -> &'static str {
    match error.0 {
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS => {
            "; the lines with Xid in dmesg, and nvidia-smi -q -d ECC, tell whether the GPU is at fault"
        }
        _ => "",
    }
}

/// Held for reading while a step is captured: a call that waits for a whole GPU would break the capture, whichever
/// device of the process makes it.
static CAPTURES: RwLock<()> = RwLock::new(());

/// Destroys a library's handle, which waits for all work of the GPU. If a step is being captured, the handle is leaked
/// instead.
fn destroy_between_captures<R>(destroy: impl FnOnce() -> R) {
    let between = !matches!(CAPTURES.try_write(), Err(TryLockError::WouldBlock));
    if between {
        let _ = destroy();
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// Opens GPU number `ordinal`, from 0, and loads the libraries that training needs.
    ///
    /// # Errors
    /// [`CudaError::Missing`] for the first library that is not found, [`CudaError::Load`] and [`CudaError::Call`]
    /// where something does not work.
    pub fn open(ordinal: usize) -> Result<Device> {
        Device::open_with(ordinal, &Libraries::find(), cache_folder().as_deref())
    }

    /// As [`Device::open`], with given libraries and a folder for compiled kernels and chosen algorithms; without a
    /// folder, nothing is kept.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_with(ordinal: usize, libraries: &Libraries, cache: Option<&Path>) -> Result<Device> {
        Device::needs(libraries)?;
        let opening = failed("opening a GPU");
        let context = CudaContext::new(ordinal).map_err(&opening)?;
        // SAFETY: this crate's own events (`channel.rs`) synchronise streams that share memory; cudarc's slices are not
        // used.
        unsafe { context.disable_event_tracking() };
        let attribute = |which| context.attribute(which).map_err(&opening);
        let capability = (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
        );
        let name = context.name().map_err(&opening)?;
        if capability < Gpu::LEAST_CAPABILITY {
            let (major, minor) = capability;
            let reason = format!("{name} has compute capability {major}.{minor}, bf16 needs 8.0 or later");
            return Err(CudaError::Call { what: "opening a GPU", reason });
        }
        let compiler = Compiler::new(libraries)?.with_cache(cache.map(|folder| folder.join("kernels")));
        versions::check(&compiler, capability, libraries)?;
        let stream = context.new_stream().map_err(&opening)?;
        let pool = Pool::new(&context, &stream)?;
        Ok(Device {
            shared: Arc::new(Shared {
                convolutions: Mutex::new(None),
                products: Mutex::new(None),
                modules: Mutex::new(Modules { context: context.clone(), loaded: HashMap::new() }),
                staging: Mutex::new(Staging::new(context.clone())),
                pool: Mutex::new(Arc::new(pool)),
                stream,
                context,
                compiler,
                capability,
                libraries: libraries.clone(),
                name,
                cache: cache.map(Path::to_path_buf),
                forgets: why_forgotten(cache),
                capturing: AtomicBool::new(false),
                searched: Mutex::new(Searched::default()),
            }),
        })
    }

    /// Loads the libraries that a device needs.
    ///
    /// # Errors
    /// [`CudaError::Missing`] for the first library that is not found, [`CudaError::Load`] where one does not load.
    pub fn needs(libraries: &Libraries) -> Result<()> {
        // cuDNN looks for cuBLASLt, so cuBLASLt comes first.
        for library in [Library::Driver, Library::Nvrtc, Library::CublasLt, Library::Cudnn] {
            libraries.load(library)?;
        }
        Ok(())
    }

    /// Its name, such as "NVIDIA H200".
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The memory that buffers take.
    pub fn memory(&self) -> MemoryUse {
        lock(&self.shared.pool).usage()
    }

    /// The free and the total bytes of the GPU's memory; other programs' memory is not free.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn free_and_total(&self) -> Result<(usize, usize)> {
        self.shared.context.mem_get_info().map_err(failed("asking for free memory"))
    }

    /// Waits until all work that was started has ended, and returns an error if any of it failed.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn synchronize(&self) -> Result<()> {
        self.bind()?;
        self.shared.stream.synchronize().map_err(failed("waiting for the GPU"))
    }

    /// The searches for the fastest convolutions and products so far; results from disk need none.
    pub fn searched(&self) -> Searched {
        *lock(&self.shared.searched)
    }

    /// Returns the reason why choices are not remembered from one process to the next, or `None` if they are: there is
    /// no folder for them, or it cannot be written.
    pub fn forgets(&self) -> Option<&str> {
        self.shared.forgets.as_deref()
    }

    /// Runs a search and adds it to the statistics.
    fn counted_search<T>(&self, search: impl FnOnce() -> Result<T>) -> Result<T> {
        let (start, before) = (Instant::now(), self.searched());
        let found = search();
        let mut searched = lock(&self.shared.searched);
        // The time of a search includes that of searches within it.
        *searched = Searched { count: searched.count + 1, time: before.time + start.elapsed() };
        found
    }

    /// Waits for all work, then returns memory to the driver if no buffer uses any.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn trim(&self) -> Result<()> {
        self.synchronize()?;
        lock(&self.shared.pool).trim()
    }

    /// Makes the context current on this thread, which every call of the driver needs.
    fn bind(&self) -> Result<()> {
        self.shared.context.bind_to_thread().map_err(failed("binding a thread to the GPU"))
    }

    fn raw_stream(&self) -> CUstream {
        self.shared.stream.cu_stream()
    }

    /// Returns an error while a step is being captured: a replay could not repeat `what`.
    fn refuse_in_capture(&self, what: &'static str) -> Result<()> {
        if self.shared.capturing.load(Ordering::Relaxed) {
            let reason = "it cannot be part of a captured step".to_owned();
            return Err(CudaError::Call { what, reason });
        }
        Ok(())
    }

    /// The pool that buffers currently come from.
    fn pool(&self) -> Arc<Pool> {
        lock(&self.shared.pool).clone()
    }

    fn function(&self, program: Program, kernel: &'static str) -> Result<CUfunction> {
        let mut modules = lock(&self.shared.modules);
        let (module, functions) = match modules.loaded.entry(program) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let image = self.shared.compiler.compile(program, self.shared.capability)?;
                let loading = failed("loading kernels");
                // SAFETY: the image is complete machine code, or PTX that ends in a zero, as the compiler returned it.
                let module =
                    unsafe { result::module::load_data(image.bytes.as_ptr().cast()) }.map_err(loading)?;
                entry.insert((module, HashMap::new()))
            }
        };
        if let Some(function) = functions.get(kernel) {
            return Ok(*function);
        }
        let name =
            CString::new(kernel).map_err(|e| CudaError::Call { what: kernel, reason: e.to_string() })?;
        // SAFETY: the module was loaded and stays loaded for as long as the device lives.
        let function = unsafe { result::module::get_function(*module, name) }.map_err(failed(kernel))?;
        functions.insert(kernel, function);
        Ok(function)
    }
}

/// Loaded programs, each with the kernels that were looked up in it.
struct Modules {
    context: Arc<CudaContext>,
    loaded: HashMap<Program, (CUmodule, HashMap<&'static str, CUfunction>)>,
}

// SAFETY: handles of modules and functions may be used by any thread to which the context is bound.
unsafe impl Send for Modules {}

impl Drop for Modules {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            for (module, _) in self.loaded.values() {
                // SAFETY: the module was loaded and is unloaded once, here. A failure cannot be reported from a drop.
                let _ = unsafe { result::module::unload(*module) };
            }
        }
    }
}

// SAFETY: kernels are started on one stream, which runs them in order; memory comes from the pool at multiples of
// 4096, and memory that goes back to it is reused only by work that is started later on the same stream.
unsafe impl Launcher for Device {
    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        self.bind()?;
        let function = self.function(launch.program, launch.kernel)?;
        let mut arguments: Vec<*mut c_void> =
            launch.arguments.iter().map(|argument| argument.address().cast_mut()).collect();
        let grid = (launch.grid[0], launch.grid[1], launch.grid[2]);
        // SAFETY: the caller's promise; arguments are copied before the call returns.
        let started = unsafe {
            result::launch_kernel(function, grid, (launch.block, 1, 1), 0, self.raw_stream(), &mut arguments)
        };
        started.map_err(failed(launch.kernel))
    }

    fn scratch(&self, bytes: usize) -> Result<Box<dyn Memory>> {
        self.bind()?;
        Ok(Box::new(self.pool().take(bytes)?))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Box<dyn Memory>> {
        self.refuse_in_capture("an upload")?;
        self.bind()?;
        let range = self.pool().take(bytes.len())?;
        // SAFETY: the range has `bytes.len()` bytes, and nothing else uses them.
        unsafe { lock(&self.shared.staging).send(bytes, range.address(), self.raw_stream()) }?;
        Ok(Box::new(range))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.shared.capability;
        write!(f, "Device({}, compute capability {major}.{minor})", self.shared.name)
    }
}
