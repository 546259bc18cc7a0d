//! Exchange between GPUs by NCCL, in the order of all work: it may be part of a captured step.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;

use cudarc::driver::sys::CUstream;

use super::{Device, failed, lock};
use crate::launcher::expect;
use crate::{CudaError, Libraries, Library, Result, Slice, SliceMut};

/// Bytes by which the workers of a group find each other.
pub const GROUP_ID: usize = 128;

/// What stands for a group in NCCL's interface: passed by value.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; GROUP_ID]);

type Status = c_int;
type Comm = *mut c_void;

/// `ncclSuccess`, `ncclInProgress`, `ncclSum`.
const SUCCESS: Status = 0;
const IN_PROGRESS: Status = 7;
const SUM: c_int = 0;

/// How long it is waited for that NCCL leaves a group.
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
        // SAFETY: these functions have these signatures in every version 2 of NCCL that has them, an address being
        // passed as a pointer is.
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
        let reason =
            format!("NCCL: {text} ({status}); NCCL_DEBUG=WARN in the environment makes it tell more");
        Err(CudaError::Call { what, reason })
    }
}

/// A type of values that are exchanged.
pub trait Exchanged: Copy + private::Sealed {
    /// NCCL's number of it.
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

/// A GPU's place in a group of them, one a worker.
pub struct Communicator {
    device: Device,
    api: Api,
    size: usize,
    /// None once the group was left.
    comm: Mutex<Option<Handle>>,
    /// Known without the lock, which who exchanges holds.
    left: AtomicBool,
}

/// NCCL's handle.
struct Handle(Comm);

// SAFETY: NCCL's handles may be used by any thread, one at a time: it is only lent by a mutex.
unsafe impl Send for Handle {}

impl Device {
    /// That groups can be joined.
    ///
    /// # Errors
    /// As [`Device::new_group`].
    pub fn can_exchange(&self) -> Result<()> {
        Api::of(&self.shared.libraries).map(drop)
    }

    /// A new group, to be told to all its workers.
    ///
    /// # Errors
    /// [`CudaError::Missing`] where NCCL is not there, [`CudaError::Load`], [`CudaError::Call`].
    pub fn new_group(&self) -> Result<[u8; GROUP_ID]> {
        self.bind()?;
        let api = Api::of(&self.shared.libraries)?;
        let mut id = UniqueId([0; GROUP_ID]);
        // SAFETY: the function writes one identifier.
        api.check("beginning a group of GPUs", unsafe { (api.get_unique_id)(&mut id) })?;
        Ok(id.0)
    }

    /// Joins a group of `size` GPUs as number `rank`, once all the others do. They must be `size` different ones.
    ///
    /// # Errors
    /// As [`Device::new_group`].
    pub fn join_group(&self, group: [u8; GROUP_ID], rank: usize, size: usize) -> Result<Communicator> {
        self.refuse_in_capture("joining a group of GPUs")?;
        expect("a group", rank < size && size <= c_int::MAX as usize, || format!("rank {rank} of {size}"))?;
        self.bind()?;
        let api = Api::of(&self.shared.libraries)?;
        let mut comm: Comm = std::ptr::null_mut();
        // SAFETY: the function writes one handle; the context that is bound is the device's primary one, which NCCL
        // takes.
        let status = unsafe { (api.init_rank)(&mut comm, size as c_int, UniqueId(group), rank as c_int) };
        api.check("joining a group of GPUs", status)?;
        let comm = Mutex::new(Some(Handle(comm)));
        Ok(Communicator { device: self.clone(), api, size, comm, left: AtomicBool::new(false) })
    }

    /// What tells it from every other GPU.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn uuid(&self) -> Result<[u8; 16]> {
        let uuid = self.shared.context.uuid().map_err(failed("asking a GPU who it is"))?;
        Ok(uuid.bytes.map(|byte| byte as u8))
    }
}

impl Communicator {
    /// Starts what `body` asks for as one exchange, of values that are there for `'b`. Every worker asks for the
    /// same in the same order.
    ///
    /// # Errors
    /// Whatever `body` returns; [`CudaError::Call`] where NCCL refuses, or the group was left.
    pub fn exchange<'b>(&self, body: impl FnOnce(&Exchange<'_, 'b>) -> Result<()>) -> Result<()> {
        let comm = lock(&self.comm);
        let left = || CudaError::Call {
            what: "exchange between GPUs",
            reason: "the group was left, since a worker has gone".to_owned(),
        };
        let comm = comm.as_ref().filter(|_| !self.has_left()).ok_or_else(left)?;
        self.device.bind()?;
        let asking = Asking::begin(&self.api)?;
        let asked = body(&Exchange { communicator: self, comm: comm.0, values: PhantomData });
        let started = asking.end();
        asked?;
        started
    }

    /// Leaves the group: what the GPU does of an exchange ends at once, and what that would have written is
    /// worthless. Nothing can be exchanged any more. NCCL itself waits for captured steps that exchange to be
    /// dropped; it is left to that after some seconds.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
        // The lock is not held beyond this.
        let comm = lock(&self.comm).take();
        let Some(comm) = comm else { return };
        let (api, (ended, end)) = (self.api, channel::<()>());
        let leaving = Builder::new().name("leaving a group of GPUs".to_owned()).spawn(move || {
            let comm = comm;
            // SAFETY: the handle was taken, so nobody uses it any more. There is nobody to tell a failure.
            let _ = unsafe { (api.abort)(comm.0) };
            drop(ended);
        });
        if leaving.is_ok() {
            // It says nothing, and ends or does not.
            let _ = end.recv_timeout(LEAVING);
        }
    }

    /// Whether [`Communicator::leave`] was called.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Whether something that was started has failed, as NCCL finds out by itself: a connection, for example. False
    /// while an exchange is being started.
    pub fn has_failed(&self) -> bool {
        let Ok(comm) = self.comm.try_lock() else { return false };
        let mut status = SUCCESS;
        let mut asked = |comm: &Handle| {
            // SAFETY: the handle is not left yet; the function writes one number.
            unsafe { (self.api.async_error)(comm.0, &mut status) }
        };
        comm.as_ref().is_some_and(|comm| asked(comm) == SUCCESS) && ![SUCCESS, IN_PROGRESS].contains(&status)
    }
}

/// A group of exchanges that is being asked for, which ends whatever happens.
struct Asking<'a> {
    api: &'a Api,
    ended: bool,
}

impl<'a> Asking<'a> {
    fn begin(api: &'a Api) -> Result<Asking<'a>> {
        // SAFETY: the function takes nothing; the value made here ends the group.
        api.check("exchange between GPUs", unsafe { (api.group_start)() })?;
        Ok(Asking { api, ended: false })
    }

    fn end(mut self) -> Result<()> {
        self.ended = true;
        // SAFETY: ends what was begun.
        self.api.check("exchange between GPUs", unsafe { (self.api.group_end)() })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // SAFETY: ends what was begun, where asking panicked.
            let _ = unsafe { (self.api.group_end)() };
        }
    }
}

/// What is asked for at once, of values that are there for `'b`: see [`Communicator::exchange`].
pub struct Exchange<'c, 'b> {
    communicator: &'c Communicator,
    comm: Comm,
    /// NCCL starts with them when all was asked for: until then they stay borrowed.
    values: PhantomData<fn(&'b ())>,
}

impl<'b> Exchange<'_, 'b> {
    /// Values become their sums over all workers, in place.
    ///
    /// # Errors
    /// [`CudaError::Call`].
    pub fn all_reduce<T: Exchanged>(&self, values: SliceMut<'b, T>) -> Result<()> {
        let Communicator { api, device, .. } = self.communicator;
        let (at, count) = (values.address(), values.len());
        // SAFETY: so many values of the type are there, and nobody else's until the stream has come by.
        let status =
            unsafe { (api.all_reduce)(at, at, count, T::NUMBER, SUM, self.comm, device.raw_stream()) };
        api.check("a sum over GPUs", status)
    }

    /// `all` becomes the `own` of all workers, by rank.
    ///
    /// # Errors
    /// [`CudaError::Lengths`] where `all` is not as many times as long, [`CudaError::Call`].
    pub fn all_gather<T: Exchanged>(&self, own: Slice<'b, T>, all: SliceMut<'b, T>) -> Result<()> {
        let Communicator { api, device, size, .. } = self.communicator;
        expect("gather", all.len() == own.len() * size, || {
            format!("{} values of each of {size} GPUs into {}", own.len(), all.len())
        })?;
        let (from, to, count) = (own.address(), all.address(), own.len());
        // SAFETY: as many values are there to read, and `size` times as many to be written, which nobody else has
        // until the stream has come by.
        let status = unsafe { (api.all_gather)(from, to, count, T::NUMBER, self.comm, device.raw_stream()) };
        api.check("a gather over GPUs", status)
    }
}

impl Drop for Communicator {
    /// Waits for what was started. NCCL's own way to end waits for the other workers too, of which one may have failed.
    fn drop(&mut self) {
        if !self.has_left() {
            // Where it failed, that was told to whoever used the values.
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
