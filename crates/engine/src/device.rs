//! Where tensors live and operators run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use simclr_kernels::buffer::Pool;
use simclr_kernels::{Cpu, Isa, Level, peak};
use simclr_words::text::counted;

use crate::cpu::CpuKernels;
use crate::memory::Place;
use crate::profile::Profile;
use crate::watched::{Skip, Watched};
use crate::{EngineError, Kernels, Result};

/// Why a build has no GPUs.
#[cfg(not(feature = "cuda"))]
pub(crate) const NO_CUDA: &str = "this build lacks the feature `cuda`";

/// A processor that holds tensors and runs operators. Cheap to clone; clones are the same device.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    place: Place,
    kernels: Box<dyn Kernels>,
    /// For the work that stays on the CPU.
    cpu: Cpu,
}

/// How much memory a device's tensors take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// In tensors that are alive.
    pub live: usize,
    /// Obtained from the system: alive, or kept for reuse.
    pub held: usize,
    /// The most that was ever alive at once.
    pub peak: usize,
}

/// Whether this CPU has instructions to multiply bf16 (AVX512_BF16 or AMX). Without them bf16 is converted, and f32 is
/// faster.
pub fn has_bf16() -> bool {
    Isa::detect().level() >= Level::Avx512Bf16
}

/// Whether [`Device::auto`] will find a GPU: whether the driver has one, and all libraries are present.
pub fn has_gpu() -> bool {
    #[cfg(feature = "cuda")]
    {
        static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *FOUND.get_or_init(|| {
            let libraries = simclr_cuda::Libraries::find();
            let found = simclr_cuda::Gpus::find(&libraries);
            found.problem.is_none()
                && found.gpus.first().is_some_and(|gpu| !gpu.is_too_old())
                && simclr_cuda::Device::needs(&libraries).is_ok()
        })
    }
    #[cfg(not(feature = "cuda"))]
    false
}

/// The measured peak rates of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Operations per second in f32, a multiplication and an addition being two: multiply-adds in registers on the
    /// CPU, the product of large matrices on a GPU.
    pub f32: f64,
    /// The same for bf16 values summed in f32, if the device has instructions for them.
    pub bf16: Option<f64>,
    /// Bytes per second, read plus written, of a copy within a GPU's memory.
    pub bytes: Option<f64>,
}

/// Which arithmetic a GPU may use to be faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// Whether to use only algorithms that give the same bits each time.
    pub deterministic: bool,
    /// Whether products of f32 values, in convolutions and dense layers, may round the values to tf32: 10 bits of
    /// precision. Sums stay f32.
    pub tf32: bool,
}

impl Default for Arithmetic {
    /// The same bits each time, and f32 exactly.
    fn default() -> Arithmetic {
        Arithmetic { deterministic: true, tf32: false }
    }
}

impl Device {
    /// The CPU, with `threads` threads (0: one per core) and its best instruction set.
    ///
    /// # Errors
    /// [`EngineError::Device`](crate::EngineError::Device) if the threads cannot be started.
    pub fn cpu(threads: usize) -> Result<Device> {
        Device::cpu_with(threads, Isa::detect())
    }

    /// The CPU with a chosen instruction set, for tests and measurements.
    ///
    /// # Errors
    /// As [`Device::cpu`].
    pub fn cpu_with(threads: usize, isa: Isa) -> Result<Device> {
        let cpu = cpu(threads, isa)?;
        Ok(Device::of(&cpu, Pool::default(), CpuKernels { cpu: cpu.clone(), fuses_inference: true }))
    }

    /// [`Device::cpu_with`], timing every kernel.
    ///
    /// # Errors
    /// As [`Device::cpu`].
    pub fn cpu_profiled(threads: usize, isa: Isa) -> Result<(Device, Profile)> {
        let (cpu, profile) = (cpu(threads, isa)?, Profile::default());
        let kernels =
            Watched { inner: CpuKernels { cpu: cpu.clone(), fuses_inference: true }, watch: profile.clone() };
        Ok((Device::of(&cpu, Pool::default(), kernels), profile))
    }

    /// [`Device::cuda`], timing every kernel while the profile is not paused, which waits for the GPU before and after
    /// each.
    ///
    /// # Errors
    /// As [`Device::cuda`].
    pub fn cuda_profiled(ordinal: usize, threads: usize) -> Result<(Device, Profile)> {
        #[cfg(feature = "cuda")]
        {
            let gpu = simclr_cuda::Device::open(ordinal)?;
            let profile = Profile::of_gpu(&gpu);
            let kernels = Watched { inner: crate::cuda::CudaKernels::new(&gpu)?, watch: profile.clone() };
            Ok((Device::on(&gpu, ordinal, threads, kernels)?, profile))
        }
        #[cfg(not(feature = "cuda"))]
        Device::cuda(ordinal, threads).map(|device| (device, Profile::default()))
    }

    /// A device for dry runs: its kernels do nothing and its large tensors (above a MiB) have no values, but
    /// [`Device::memory`] reports what they would take. Tells how much memory a computation needs before it runs.
    ///
    /// # Errors
    /// As [`Device::cpu`].
    pub fn dry() -> Result<Device> {
        Device::hollow(true)
    }

    /// [`Device::dry`] of what runs on this device: not all have the same fused kernels.
    ///
    /// # Errors
    /// As [`Device::cpu`].
    pub fn dry_run(&self) -> Result<Device> {
        Device::hollow(!self.is_gpu())
    }

    fn hollow(fuses_inference: bool) -> Result<Device> {
        let cpu = cpu(1, Isa::PORTABLE)?;
        let kernels = Watched { inner: CpuKernels { cpu: cpu.clone(), fuses_inference }, watch: Skip };
        Ok(Device::of(&cpu, Pool::hollow(), kernels))
    }

    /// NVIDIA GPU number `ordinal`, from 0; `threads` threads (0: one per core) do the work that stays on the CPU.
    ///
    /// # Errors
    /// [`EngineError::Device`] says what is missing: the feature `cuda` of this build, a library, or a GPU.
    pub fn cuda(ordinal: usize, threads: usize) -> Result<Device> {
        #[cfg(feature = "cuda")]
        {
            let gpu = simclr_cuda::Device::open(ordinal)?;
            Device::on(&gpu, ordinal, threads, crate::cuda::CudaKernels::new(&gpu)?)
        }
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (ordinal, threads);
            Err(EngineError::Device(NO_CUDA.to_owned()))
        }
    }

    /// [`Device::cuda`] with given libraries: for tests with a stand-in for a GPU.
    #[cfg(feature = "cuda")]
    pub fn cuda_with(libraries: &simclr_cuda::Libraries, ordinal: usize, threads: usize) -> Result<Device> {
        let gpu = simclr_cuda::Device::open_with(ordinal, libraries, None)?;
        Device::on(&gpu, ordinal, threads, crate::cuda::CudaKernels::new(&gpu)?)
    }

    /// GPU number `ordinal` if it works, else the CPU and the reason why the GPU is not used.
    ///
    /// # Errors
    /// As [`Device::cpu`]: a GPU that does not work is no error.
    pub fn auto(ordinal: usize, threads: usize) -> Result<(Device, Option<EngineError>)> {
        match Device::cuda(ordinal, threads) {
            Ok(device) => Ok((device, None)),
            Err(why) => Ok((Device::cpu(threads)?, Some(why))),
        }
    }

    #[cfg(feature = "cuda")]
    fn on(
        gpu: &simclr_cuda::Device,
        ordinal: usize,
        threads: usize,
        kernels: impl Kernels + 'static,
    ) -> Result<Device> {
        Ok(Device {
            shared: Arc::new(Shared {
                name: format!("cuda:{ordinal} ({})", gpu.name()),
                place: Place::Gpu(gpu.clone()),
                kernels: Box::new(kernels),
                cpu: cpu(threads, Isa::detect())?,
            }),
        })
    }

    /// Bytes still free for tensors, if the device has memory of its own; `None` for the CPU, which shares the
    /// system's.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn free_bytes(&self) -> Result<Option<u64>> {
        match &self.shared.place {
            Place::Host(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => {
                let (free, _) = gpu.free_and_total()?;
                let simclr_cuda::MemoryUse { live, held, .. } = gpu.memory();
                Ok(Some((free + held - live) as u64))
            }
        }
    }

    /// All bytes of the device's memory, free or not, if it has memory of its own; `None` for the CPU.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn total_bytes(&self) -> Result<Option<u64>> {
        match &self.shared.place {
            Place::Host(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => Ok(Some(gpu.free_and_total()?.1 as u64)),
        }
    }

    /// Whether this is a GPU.
    pub fn is_gpu(&self) -> bool {
        !matches!(self.shared.place, Place::Host(_))
    }

    /// Whether this is a [`Device::dry`] device, whose tensors need no values.
    pub fn is_dry(&self) -> bool {
        matches!(&self.shared.place, Place::Host(pool) if pool.is_hollow())
    }

    fn of(cpu: &Cpu, pool: Pool, kernels: impl Kernels + 'static) -> Device {
        let threads = cpu.threads.count();
        Device {
            shared: Arc::new(Shared {
                name: format!("cpu ({}, {})", cpu.isa.level(), counted(threads, "thread")),
                place: Place::Host(pool),
                kernels: Box::new(kernels),
                cpu: cpu.clone(),
            }),
        }
    }

    /// The number of threads that kernels run on.
    pub fn threads(&self) -> usize {
        self.shared.cpu.threads.count()
    }

    /// What kernels compute with, a GPU's name or the CPU's instruction set: with a different one they round
    /// differently.
    pub fn instructions(&self) -> String {
        match &self.shared.place {
            Place::Host(_) => self.shared.cpu.isa.level().to_string(),
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => gpu.name().to_owned(),
        }
    }

    /// The unique id of a GPU; `None` for the CPU.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the GPU does not report it.
    pub fn gpu_id(&self) -> Result<Option<[u8; 16]>> {
        match &self.shared.place {
            Place::Host(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => Ok(Some(gpu.uuid()?)),
        }
    }

    /// Runs `work` on one of the device's threads. The kernels that `work` calls then start there directly, instead of
    /// being handed over by a thread that only waits for them.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.shared.cpu.threads.install(work)
    }

    /// The memory that the device's tensors take.
    pub fn memory(&self) -> MemoryUse {
        match &self.shared.place {
            Place::Host(pool) => {
                MemoryUse { live: pool.live_bytes(), held: pool.held_bytes(), peak: pool.peak_bytes() }
            }
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => {
                let simclr_cuda::MemoryUse { live, held, peak } = gpu.memory();
                MemoryUse { live, held, peak }
            }
        }
    }

    /// Returns memory that no tensor uses to the system.
    pub fn trim(&self) {
        match &self.shared.place {
            Place::Host(pool) => pool.trim(),
            // An error is ignored here: the next kernel will meet it too, and report it.
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => drop(gpu.trim()),
        }
    }

    /// On a GPU, the number of searches for the fastest convolution or product, and their total time: what a start
    /// costs if no results of earlier searches are stored.
    pub fn searched(&self) -> Option<(usize, Duration)> {
        match &self.shared.place {
            Place::Host(_) => None,
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => {
                let simclr_cuda::Searched { count, time } = gpu.searched();
                Some((count, time))
            }
        }
    }

    /// Returns the reason why each process chooses the fastest convolutions and products of a GPU anew, or `None` if
    /// they are remembered: there is no folder for them, or it cannot be written. Another choice may round differently.
    pub fn forgets_choices(&self) -> Option<&str> {
        match &self.shared.place {
            Place::Host(_) => None,
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => gpu.forgets(),
        }
    }

    /// Measures the device's peak rates, in about a tenth of a second.
    ///
    /// # Errors
    /// [`EngineError::Device`] if a GPU fails.
    pub fn measured_peak(&self) -> Result<Peak> {
        match &self.shared.place {
            Place::Host(_) => {
                let cpu = &self.shared.cpu;
                Ok(Peak { f32: peak::f32_flops(cpu), bf16: peak::bf16_flops(cpu), bytes: None })
            }
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => {
                let simclr_cuda::Peak { f32, bf16, bytes } = gpu.peak(8192)?;
                Ok(Peak { f32, bf16: Some(bf16), bytes: Some(bytes) })
            }
        }
    }

    /// Sets the arithmetic of convolutions and products from now on, and returns the one until now. A captured step
    /// keeps that with which it was captured; on a CPU this has no effect.
    pub fn set_arithmetic(&self, arithmetic: Arithmetic) -> Arithmetic {
        self.kernels().set_arithmetic(arithmetic)
    }

    /// Runs `work` with another arithmetic; the one until now is restored even after a panic. Meanwhile the device has
    /// that arithmetic for all threads, not only for this one.
    pub fn with_arithmetic<R>(&self, arithmetic: Arithmetic, work: impl FnOnce() -> R) -> R {
        struct Restored<'d>(&'d Device, Arithmetic);
        impl Drop for Restored<'_> {
            fn drop(&mut self) {
                self.0.set_arithmetic(self.1);
            }
        }
        let _restored = Restored(self, self.set_arithmetic(arithmetic));
        work()
    }

    /// Waits until all started work has ended.
    ///
    /// # Errors
    /// [`EngineError::Device`] if any of it failed.
    pub fn synchronize(&self) -> Result<()> {
        match &self.shared.place {
            Place::Host(_) => Ok(()),
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => Ok(gpu.synchronize()?),
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.shared.place
    }

    /// Copies bytes on all threads: a single one does not saturate the memory bandwidth.
    #[cfg(feature = "cuda")]
    pub(crate) fn copy_bytes(&self, from: &[u8], to: &mut [u8]) {
        const PIECE: usize = 1 << 20;
        self.shared.cpu.threads.run_chunks(to, PIECE, |piece, to| {
            let start = piece * PIECE;
            to.copy_from_slice(&from[start..start + to.len()]);
        });
    }

    pub(crate) fn kernels(&self) -> &dyn Kernels {
        &*self.shared.kernels
    }
}

fn cpu(threads: usize, isa: Isa) -> Result<Cpu> {
    Cpu::new(threads, isa).map_err(|error| EngineError::Device(error.to_string()))
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shared.name)
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({self})")
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Device) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}
