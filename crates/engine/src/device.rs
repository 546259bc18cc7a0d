//! Where tensors live and operators run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use simclr_kernels::buffer::Pool;
use simclr_kernels::{Cpu, Isa, Level, peak};

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
    /// What is left to the processor.
    cpu: Cpu,
}

/// How much memory a device's tensors take, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// In tensors that are alive.
    pub live: usize,
    /// Obtained from the system: alive, or waiting to be used again.
    pub held: usize,
    /// The most that was ever alive at once.
    pub peak: usize,
}

/// Whether this processor multiplies bf16 by instructions of its own (AVX512_BF16); elsewhere bf16 is converted,
/// and f32 is faster.
pub fn has_bf16() -> bool {
    Isa::detect().level() == Level::Avx512Bf16
}

/// Whether [`Device::auto`] is going to find a GPU: whether the driver has one, and all libraries are there.
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

/// What a device reaches at most, measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// Operations per second in f32, a multiplication and an addition being two: multiply-adds in registers on the
    /// CPU, the product of large matrices on a GPU.
    pub f32: f64,
    /// The same of bf16 values summed in f32, where the device has instructions for them.
    pub bf16: Option<f64>,
    /// Bytes per second of a copy from a GPU's memory to itself, those read and those written.
    pub bytes: Option<f64>,
}

/// What a GPU may do to be faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic {
    /// Whether only algorithms may serve that give the same bits each time.
    pub deterministic: bool,
    /// Whether products of f32 values, in convolutions and dense layers, may round them to tf32: 10 bits of
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
    /// The CPU, with `threads` threads (0: one a core) and the best instruction set that it has.
    pub fn cpu(threads: usize) -> Result<Device> {
        Device::cpu_with(threads, Isa::detect())
    }

    /// The CPU with a chosen instruction set, for tests and measurements.
    pub fn cpu_with(threads: usize, isa: Isa) -> Result<Device> {
        let cpu = cpu(threads, isa)?;
        Ok(Device::of(&cpu, Pool::default(), CpuKernels { cpu: cpu.clone() }))
    }

    /// [`Device::cpu_with`], timing every kernel.
    pub fn cpu_profiled(threads: usize, isa: Isa) -> Result<(Device, Profile)> {
        let (cpu, profile) = (cpu(threads, isa)?, Profile::default());
        let kernels = Watched { inner: CpuKernels { cpu: cpu.clone() }, watch: profile.clone() };
        Ok((Device::of(&cpu, Pool::default(), kernels), profile))
    }

    /// [`Device::cuda`], timing every kernel while the profile is not paused: the GPU is then waited for before and
    /// after each.
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

    /// A device whose kernels do nothing and whose large tensors (above a MiB) have no values, while
    /// [`Device::memory`] tells what they would take: to learn what a computation needs before it is done.
    pub fn dry() -> Result<Device> {
        let cpu = cpu(1, Isa::PORTABLE)?;
        let kernels = Watched { inner: CpuKernels { cpu: cpu.clone() }, watch: Skip };
        Ok(Device::of(&cpu, Pool::hollow(), kernels))
    }

    /// NVIDIA GPU number `ordinal`, from 0; `threads` threads (0: one a core) do what is left to the processor.
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

    /// [`Device::cuda`] with libraries that were found elsewhere: for tests, on what stands in for a GPU.
    #[cfg(feature = "cuda")]
    pub fn cuda_with(libraries: &simclr_cuda::Libraries, ordinal: usize, threads: usize) -> Result<Device> {
        let gpu = simclr_cuda::Device::open_with(ordinal, libraries, None)?;
        Device::on(&gpu, ordinal, threads, crate::cuda::CudaKernels::new(&gpu)?)
    }

    /// GPU number `ordinal` where it works, else the CPU, and why no GPU was taken.
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

    /// Bytes that tensors may still take, where the device has memory of its own: none on the CPU, which shares the
    /// system's.
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

    /// Whether it is a GPU.
    pub fn is_gpu(&self) -> bool {
        !matches!(self.shared.place, Place::Host(_))
    }

    /// Whether it is a [`Device::dry`] one, for whose tensors no values need be made.
    pub fn is_dry(&self) -> bool {
        matches!(&self.shared.place, Place::Host(pool) if pool.is_hollow())
    }

    fn of(cpu: &Cpu, pool: Pool, kernels: impl Kernels + 'static) -> Device {
        let threads = cpu.threads.count();
        let plural = if threads == 1 { "" } else { "s" };
        Device {
            shared: Arc::new(Shared {
                name: format!("cpu ({}, {threads} thread{plural})", cpu.isa.level()),
                place: Place::Host(pool),
                kernels: Box::new(kernels),
                cpu: cpu.clone(),
            }),
        }
    }

    /// Threads that kernels run on.
    pub fn threads(&self) -> usize {
        self.shared.cpu.threads.count()
    }

    /// What kernels compute with, a GPU's name or the processor's instruction set: with another one they round
    /// differently.
    pub fn instructions(&self) -> String {
        match &self.shared.place {
            Place::Host(_) => self.shared.cpu.isa.level().to_string(),
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => gpu.name().to_owned(),
        }
    }

    /// What tells a GPU from every other one; nothing of the CPU.
    ///
    /// # Errors
    /// [`EngineError::Device`] where the GPU does not say.
    pub fn gpu_id(&self) -> Result<Option<[u8; 16]>> {
        match &self.shared.place {
            Place::Host(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => Ok(Some(gpu.uuid()?)),
        }
    }

    /// Runs `work` on one of the device's threads. Each kernel that `work` calls starts there at once, instead of
    /// being handed over and waited for by a thread that does nothing else.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.shared.cpu.threads.install(work)
    }

    /// What the device's tensors take.
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

    /// Gives memory that no tensor uses back to the system.
    pub fn trim(&self) {
        match &self.shared.place {
            Place::Host(pool) => pool.trim(),
            // What the driver refuses now it refuses the next kernel too, whose error is told.
            #[cfg(feature = "cuda")]
            Place::Gpu(gpu) => drop(gpu.trim()),
        }
    }

    /// On a GPU, how many searches for the fastest convolution or product there were, and how long they took
    /// together: what a start costs where nothing is remembered from another.
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

    /// The most that the device reaches, measured in about a tenth of a second.
    ///
    /// # Errors
    /// [`EngineError::Device`] where a GPU refuses.
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

    /// Sets what convolutions and products may do to be faster, from here on. A captured step keeps what it was
    /// captured with; a CPU has no choice.
    pub fn set_arithmetic(&self, arithmetic: Arithmetic) {
        self.kernels().set_arithmetic(arithmetic);
    }

    /// Waits until everything that was started has ended.
    ///
    /// # Errors
    /// [`EngineError::Device`] where any of it failed.
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

    /// Copies bytes on all threads: one alone does not fill the memory's bandwidth.
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
