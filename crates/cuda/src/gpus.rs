//! The NVIDIA GPUs of this machine.

use crate::Libraries;

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its name, such as "NVIDIA H200".
    pub name: String,
    /// Its compute capability, major and minor, where the driver could be queried.
    pub compute_capability: Option<(u32, u32)>,
    /// Its memory in bytes, where the driver could be queried.
    pub memory: Option<u64>,
}

impl Gpu {
    /// The lowest compute capability that works: earlier GPUs cannot multiply bf16.
    pub const LEAST_CAPABILITY: (u32, u32) = (8, 0);

    /// Whether the GPU is known to be too old.
    pub fn is_too_old(&self) -> bool {
        self.compute_capability.is_some_and(|found| found < Gpu::LEAST_CAPABILITY)
    }
}

/// The GPUs of this machine and its driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gpus {
    /// The GPUs, by number.
    pub gpus: Vec<Gpu>,
    /// The version of the kernel's driver, such as "570.86.15".
    pub driver: Option<String>,
    /// The newest CUDA version that the driver supports, such as "12.8", where it could be queried.
    pub cuda: Option<String>,
    /// Why no GPU can be used, where none can.
    pub problem: Option<String>,
}

impl Gpus {
    /// Looks for GPUs: queries the driver where the program was built with the feature `cuda`, and otherwise reads
    /// the files of the kernel's driver.
    pub fn find(libraries: &Libraries) -> Gpus {
        let mut found = Gpus { driver: listed::driver(), ..Gpus::default() };
        match asked::gpus(libraries, &mut found) {
            Ok(gpus) => found.gpus = gpus,
            Err(problem) => {
                found.gpus = listed::gpus();
                found.problem = Some(problem);
            }
        }
        found
    }

    /// Bytes of memory that other programs leave of GPU `number`, from 0, where the driver tells. The GPU is opened to
    /// ask, which takes a moment.
    pub fn free_memory(libraries: &Libraries, number: usize) -> Option<u64> {
        asked::free(libraries, number)
    }
}

/// Facts that the kernel's driver lists in files.
mod listed {
    use std::fs;
    use std::path::Path;

    use super::Gpu;

    const FOLDER: &str = "/proc/driver/nvidia";

    pub fn driver() -> Option<String> {
        version(&fs::read_to_string(Path::new(FOLDER).join("version")).ok()?)
    }

    pub fn gpus() -> Vec<Gpu> {
        let folders = fs::read_dir(Path::new(FOLDER).join("gpus")).into_iter().flatten().flatten();
        let texts = folders.filter_map(|folder| fs::read_to_string(folder.path().join("information")).ok());
        texts.filter_map(|text| model(&text)).collect()
    }

    /// Parses "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu ...".
    pub(super) fn version(text: &str) -> Option<String> {
        let line = text.lines().find(|line| line.contains("NVRM version"))?;
        let numbers =
            |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
        line.split_whitespace().find(numbers).map(str::to_owned)
    }

    pub(super) fn model(text: &str) -> Option<Gpu> {
        let name = text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned();
        Some(Gpu { name, compute_capability: None, memory: None })
    }
}

#[cfg(not(feature = "cuda"))]
mod asked {
    use super::{Gpu, Gpus, Libraries};

    pub fn gpus(_: &Libraries, _: &mut Gpus) -> Result<Vec<Gpu>, String> {
        Err("this build lacks the feature `cuda`".into())
    }

    pub fn free(_: &Libraries, _: usize) -> Option<u64> {
        None
    }
}

#[cfg(feature = "cuda")]
mod asked {
    use cudarc::driver::CudaContext;
    use cudarc::driver::result::{self, DriverError, device};
    use cudarc::driver::sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };

    use super::{Gpu, Gpus, Libraries};
    use crate::Library;

    pub fn gpus(libraries: &Libraries, found: &mut Gpus) -> Result<Vec<Gpu>, String> {
        libraries.load(Library::Driver).map_err(|e| e.to_string())?;
        found.cuda = libraries.version_of(Library::Driver).ok();
        let gpus = list().map_err(|e| format!("the driver found no GPU that it can use: {e}"))?;
        if gpus.is_empty() { Err("the driver found no GPU that it can use".into()) } else { Ok(gpus) }
    }

    pub fn free(libraries: &Libraries, number: usize) -> Option<u64> {
        libraries.load(Library::Driver).ok()?;
        let (free, _) = CudaContext::new(number).ok()?.mem_get_info().ok()?;
        Some(free as u64)
    }

    fn list() -> Result<Vec<Gpu>, DriverError> {
        result::init()?;
        (0..device::get_count()?).map(one).collect()
    }

    fn one(number: i32) -> Result<Gpu, DriverError> {
        let gpu = device::get(number)?;
        // SAFETY: `gpu` came from `device::get`.
        let attribute = |which| unsafe { device::get_attribute(gpu, which) };
        let capability = (attribute(MAJOR)? as u32, attribute(MINOR)? as u32);
        // SAFETY: as above.
        let memory = unsafe { device::total_mem(gpu) }? as u64;
        Ok(Gpu { name: device::get_name(gpu)?, compute_capability: Some(capability), memory: Some(memory) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 02:33:14 UTC 2025\nGCC version: gcc 12.3.0\n";
        assert_eq!(listed::version(text).as_deref(), Some("570.86.15"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n";
        assert_eq!(listed::version(open).as_deref(), Some("560.35.03"));
        assert_eq!(listed::version("nothing"), None);
        let gpu = listed::model("Model: \t\t NVIDIA H200\nIRQ:   \t\t 120\n").unwrap();
        assert_eq!((gpu.name.as_str(), gpu.memory), ("NVIDIA H200", None));
    }

    #[test]
    fn a_machine_without_a_gpu_is_told_why() {
        let found = Gpus::find(&Libraries::find());
        assert!(!found.gpus.is_empty() || found.problem.is_some());
    }
}
