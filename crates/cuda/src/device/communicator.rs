//! Exchange between GPUs by NCCL, in stream order: it may be part of a captured step.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, TryLockError};
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUstream;

use super::{Device, failed, lock};
use crate::launcher::expect;
use crate::{CudaError, Libraries, Library, Result, Slice, SliceMut};

/// The length in bytes of a group's identifier, by which its workers find each other.
pub const GROUP_ID: usize = 128;

/// `ncclUniqueId`, which NCCL's functions take by value.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; GROUP_ID]);

type Status = c_int;
type Comm = *mut c_void;

/// `ncclSuccess`, `ncclInProgress`, `ncclSum`.
const SUCCESS: Status = 0;
const IN_PROGRESS: Status = 7;
const SUM: c_int = 0;

/// A call of NCCL only starts work. If it takes longer than this, it waits for another worker.
const CALLING: Duration = Duration::from_secs(2);
/// How long to wait for NCCL to leave a group.
const LEAVING: Duration = Duration::from_secs(10);

/// The functions of NCCL that are used, with the signatures that they have had since 2.4.
#[derive(Clone, Copy)]
struct Api {
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> Status,
    init_rank: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> Status,
    abort: unsafe extern "C" fn(Comm) -> Status,
    async_error: unsafe extern "C" fn(Comm, *mut Status) -> Status,
    all_reduce: unsafe extern "C" fn(u64, u64, usize, c_int, c_int, Comm, CUstream) -> Status,
    all_gather: unsafe extern "C" fn(u64, u64, usize, c_int, Comm, CUstream) -> Status,
    group_start: unsafe extern "C" fn() -> Status,
    group_end: unsafe extern "C" fn() -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
}

impl Api {
    fn of(libraries: &Libraries) -> Result<Api> {
        libraries.load(Library::Nccl)?;
        // SAFETY: these functions have these signatures in every version 2 of NCCL that has them; addresses are passed
        // as pointers are.
        unsafe {
            Ok(Api {
                get_unique_id: libraries.function(Library::Nccl, "ncclGetUniqueId")?,
                init_rank: libraries.function(Library::Nccl, "ncclCommInitRank")?,
                abort: libraries.function(Library::Nccl, "ncclCommAbort")?,
                async_error: libraries.function(Library::Nccl, "ncclCommGetAsyncError")?,
                all_reduce: libraries.function(Library::Nccl, "ncclAllReduce")?,
                all_gather: libraries.function(Library::Nccl, "ncclAllGather")?,
                group_start: libraries.function(Library::Nccl, "ncclGroupStart")?,
                group_end: libraries.function(Library::Nccl, "ncclGroupEnd")?,
                error_string: libraries.function(Library::Nccl, "ncclGetErrorString")?,
            })
        }
    }

    fn check(&self, what: &'static str, status: Status) -> Result<()> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: the function takes any number and returns text that is never freed, or null.
        let text = unsafe { (self.error_string)(status) };
        // SAFETY: checked not to be null; NCCL's texts end in a zero.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy());
        let text = text.unwrap_or_default();
        let reason = format!("NCCL: {text} ({status}); set NCCL_DEBUG=WARN in the environment for details");
        Err(CudaError::Call { what, reason })
    }
}

/// A type of values that can be exchanged.
pub trait Exchanged: Copy + private::Sealed {
    /// NCCL's number for the type.
    #[doc(hidden)]
    const NUMBER: c_int;
}

impl Exchanged for f32 {
    const NUMBER: c_int = 7;
}

impl Exchanged for f64 {
    const NUMBER: c_int = 8;
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A GPU's membership in a group of GPUs, one per worker.
pub struct Communicator {
    device: Device,
    api: Api,
    size: usize,
    /// Null once the group was left: whoever takes it from here aborts it, once.
    comm: AtomicPtr<c_void>,
    /// Held while NCCL is called with it.
    calling: Mutex<()>,
    /// Readable without the lock, which an exchange holds.
    left: AtomicBool,
}

/// NCCL's handle.
struct Handle(Comm);

// SAFETY: NCCL's handles may be used by any thread, one at a time, which a mutex ensures; NCCL allows an abort at any
// time.
unsafe impl Send for Handle {}

impl Device {
    /// Checks that NCCL can be loaded, so that groups can be joined.
    ///
    /// # Errors
    /// As [`Device::new_group`].
    pub fn can_exchange(&self) -> Result<()> {
        Api::of(&self.shared.libraries).map(drop)
    }

    /// The identifier of a new group, to be given to all its workers.
    ///
    /// # Errors
    /// [`CudaError::Missing`] where NCCL is not found, [`CudaError::Load`], [`CudaError::Call`].
    pub fn new_group(&self) -> Result<[u8; GROUP_ID]> {
        self.bind()?;
        let api = Api::of(&self.shared.libraries)?;
        let mut id = UniqueId([0; GROUP_ID]);
        // SAFETY: the function writes one identifier.
        api.check("beginning a group of GPUs", unsafe { (api.get_unique_id)(&mut id) })?;
        Ok(id.0)
    }

    /// Joins a group of `size` GPUs, all different, as number `rank`. Waits until all the others join.
    ///
    /// # Errors
    /// As [`Device::new_group`].
    pub fn join_group(&self, group: [u8; GROUP_ID], rank: usize, size: usize) -> Result<Communicator> {
        self.refuse_in_capture("joining a group of GPUs")?;
        expect("a group", rank < size && size <= c_int::MAX as usize, || format!("rank {rank} of {size}"))?;
        self.bind()?;
        let api = Api::of(&self.shared.libraries)?;
        let mut comm: Comm = ptr::null_mut();
        // SAFETY: the function writes one handle; the bound context is the device's primary one, which NCCL uses.
        let status = unsafe { (api.init_rank)(&mut comm, size as c_int, UniqueId(group), rank as c_int) };
        api.check("joining a group of GPUs", status)?;
        let (comm, calling) = (AtomicPtr::new(comm), Mutex::new(()));
        Ok(Communicator { device: self.clone(), api, size, comm, calling, left: AtomicBool::new(false) })
    }

    /// The identifier of the GPU, different from that of any other.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn uuid(&self) -> Result<[u8; 16]> {
        let uuid = self.shared.context.uuid().map_err(failed("asking a GPU for its UUID"))?;
        Ok(uuid.bytes.map(|byte| byte as u8))
    }
}

impl Communicator {
    /// Starts the operations that `body` requests as one exchange, of values that live for `'b`. All workers must
    /// request the same operations in the same order.
    ///
    /// # Errors
    /// Any error of `body`; [`CudaError::Call`] where NCCL fails, or the group was left.
    pub fn exchange<'b>(&self, body: impl FnOnce(&Exchange<'_, 'b>) -> Result<()>) -> Result<()> {
        let _calling = lock(&self.calling);
        let left = || CudaError::Call {
            what: "exchange between GPUs",
            reason: "the group was left because a worker has gone".to_owned(),
        };
        let comm = self.comm().filter(|_| !self.has_left()).ok_or_else(left)?;
        self.device.bind()?;
        let asking = Asking::begin(&self.api)?;
        let asked = body(&Exchange { communicator: self, comm, values: PhantomData });
        let started = asking.end();
        asked?;
        started
    }

    /// Leaves the group: an exchange that is running on the GPU is aborted, and the values that it would have written
    /// are worthless. Nothing can be exchanged any more. NCCL's abort waits until captured steps that exchange are
    /// dropped; after ten seconds it is left to finish in the background.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
        let comm = Handle(self.comm.swap(ptr::null_mut(), Ordering::AcqRel));
        if comm.0.is_null() {
            return;
        }
        self.wait_for_calls();
        let (api, (ended, end)) = (self.api, channel::<()>());
        let leaving = Builder::new().name("leaving a group of GPUs".to_owned()).spawn(move || {
            let comm = comm;
            // SAFETY: the handle was taken, so no new call uses it; NCCL allows a call that waits for others to be
            // aborted by another thread. A failure cannot be reported.
            let _ = unsafe { (api.abort)(comm.0) };
            drop(ended);
        });
        if leaving.is_ok() {
            // Nothing is ever sent: this returns when the thread drops `ended`, or on the timeout.
            let _ = end.recv_timeout(LEAVING);
        }
    }

    /// NCCL's handle, unless the group was left. `calling` must be held.
    fn comm(&self) -> Option<Comm> {
        Some(self.comm.load(Ordering::Acquire)).filter(|comm| !comm.is_null())
    }

    /// Waits for a call of NCCL that is running, but not for one that itself waits for a worker that has vanished.
    fn wait_for_calls(&self) {
        let start = Instant::now();
        while matches!(self.calling.try_lock(), Err(TryLockError::WouldBlock)) && start.elapsed() < CALLING {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether [`Communicator::leave`] was called.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Whether NCCL reports that work it had started has failed, for example a connection. False while an exchange is
    /// being started.
    pub fn has_failed(&self) -> bool {
        let Ok(_calling) = self.calling.try_lock() else { return false };
        let mut status = SUCCESS;
        let mut asked = |comm: Comm| {
            // SAFETY: the group was not left yet, so the handle is valid; the function writes one number.
            unsafe { (self.api.async_error)(comm, &mut status) }
        };
        self.comm().is_some_and(|comm| asked(comm) == SUCCESS) && ![SUCCESS, IN_PROGRESS].contains(&status)
    }
}

/// A group of NCCL calls in the making; the group is ended in any case, even on a panic.
struct Asking<'a> {
    api: &'a Api,
    ended: bool,
}

impl<'a> Asking<'a> {
    fn begin(api: &'a Api) -> Result<Asking<'a>> {
        // SAFETY: the function takes no arguments; the value made here ends the group.
        api.check("exchange between GPUs", unsafe { (api.group_start)() })?;
        Ok(Asking { api, ended: false })
    }

    fn end(mut self) -> Result<()> {
        self.ended = true;
        // SAFETY: ends the group that `begin` began.
        self.api.check("exchange between GPUs", unsafe { (self.api.group_end)() })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: ends the group that `begin` began, where its body panicked.
            let _ = unsafe { (self.api.group_end)() };
        }
    }
}

/// Operations that are started together, on values that live for `'b`: see [`Communicator::exchange`].
pub struct Exchange<'c, 'b> {
    communicator: &'c Communicator,
    comm: Comm,
    /// NCCL starts only once all operations are requested: until then the values stay borrowed.
    values: PhantomData<fn(&'b ())>,
}

impl<'b> Exchange<'_, 'b> {
    /// Replaces values by their sums over all workers.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn all_reduce<T: Exchanged>(&self, values: SliceMut<'b, T>) -> Result<()> {
        let Communicator { api, device, .. } = self.communicator;
        let (at, count) = (values.address(), values.len());
        // SAFETY: `count` values of the type are borrowed exclusively, and later work on the stream runs after this.
        let status =
            unsafe { (api.all_reduce)(at, at, count, T::NUMBER, SUM, self.comm, device.raw_stream()) };
        api.check("a sum over GPUs", status)
    }

    /// Fills `all` with the `own` values of all workers, in the order of ranks.
    ///
    /// # Errors
    /// [`CudaError::Lengths`] where `all` is not as long as `own` times the number of workers, [`CudaError::Call`].
    pub fn all_gather<T: Exchanged>(&self, own: Slice<'b, T>, all: SliceMut<'b, T>) -> Result<()> {
        let Communicator { api, device, size, .. } = self.communicator;
        expect("gather", all.len() == own.len() * size, || {
            format!("{} values of each of {size} GPUs into {}", own.len(), all.len())
        })?;
        let (from, to, count) = (own.address(), all.address(), own.len());
        // SAFETY: `count` values are borrowed to be read, and `size` times as many exclusively to be written; later
        // work on the stream runs after this.
        let status = unsafe { (api.all_gather)(from, to, count, T::NUMBER, self.comm, device.raw_stream()) };
        api.check("a gather over GPUs", status)
    }
}

impl Drop for Communicator {
    /// Waits for the work that was started, then aborts. NCCL's regular way to leave a group waits for the other
    /// workers too, and one of them may have failed.
    fn drop(&mut self) {
        if !self.has_left() {
            // A failure was already reported to the users of the values.
            let _ = self.device.synchronize();
        }
        self.leave();
    }
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Communicator({} GPUs, this one {:?})", self.size, self.device)
    }
}
