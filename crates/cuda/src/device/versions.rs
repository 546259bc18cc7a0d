//! Which versions of NVIDIA's libraries work together.

use crate::compile::{Capability, Compiler};
use crate::{CudaError, Libraries, Library, Result};

/// Versions of CUDA, major and minor.
#[derive(Debug, Clone, Copy)]
struct Versions {
    /// The newest that the driver supports.
    served: (i32, i32),
    nvrtc: (i32, i32),
    /// That which cuDNN was built for, where it tells.
    cudnn: Option<(i32, i32)>,
    /// Whether NVRTC makes PTX, which the driver compiles.
    makes_ptx: bool,
}

/// Returns an error for libraries whose code the driver could not load: the driver itself would give a mere number.
pub(super) fn check(compiler: &Compiler, capability: Capability, libraries: &Libraries) -> Result<()> {
    let driver = libraries.version_of(Library::Driver)?;
    let mut numbers = driver.split('.').map_while(|number| number.parse().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else { return Ok(()) };
    type Returns = unsafe extern "C" fn() -> usize;
    // SAFETY: the function has had this signature in every version.
    let built_for = unsafe { libraries.function::<Returns>(Library::Cudnn, "cudnnGetCudartVersion") };
    // SAFETY: the same.
    let built_for = built_for.ok().map(|function| unsafe { function() } as i32);
    let versions = Versions {
        served: (major, minor),
        nvrtc: compiler.version(),
        cudnn: built_for.map(|number| (number / 1000, number % 1000 / 10)),
        makes_ptx: compiler.makes_ptx(capability),
    };
    match versions.problem() {
        Some(reason) => Err(CudaError::Call { what: "opening a GPU", reason }),
        None => Ok(()),
    }
}

impl Versions {
    /// What does not fit together, and what would. Machine code of a later minor version is loaded, PTX is not.
    fn problem(&self) -> Option<String> {
        let Versions { served, nvrtc, cudnn, makes_ptx } = *self;
        let text = |(major, minor): (i32, i32)| format!("{major}.{minor}");
        if nvrtc.0 > served.0 {
            return Some(format!(
                "NVRTC {} is newer than the driver, which supports CUDA {}: install NVRTC of that version (pip install \
                 nvidia-cuda-nvrtc-cu12), or a newer driver",
                text(nvrtc),
                text(served)
            ));
        }
        if makes_ptx && nvrtc > served {
            return Some(format!(
                "NVRTC {} does not know this GPU, and what it leaves to the driver needs one of CUDA {}, but this driver \
                 supports CUDA {}: install a newer driver, or NVRTC {}",
                text(nvrtc),
                text(nvrtc),
                text(served),
                text(served)
            ));
        }
        let cudnn = cudnn.filter(|built_for| built_for.0 > served.0)?;
        Some(format!(
            "cuDNN is built for CUDA {}, and the driver supports CUDA {}: install cuDNN for that (pip install \
             nvidia-cudnn-cu{}), or a newer driver",
            text(cudnn),
            text(served),
            served.0
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_would_not_load_is_refused() {
        let fits = Versions { served: (12, 8), nvrtc: (12, 8), cudnn: Some((12, 9)), makes_ptx: false };
        let newer = Versions { nvrtc: (12, 9), ..fits };
        for versions in [
            fits,
            newer,
            Versions { makes_ptx: true, ..fits },
            Versions { cudnn: None, ..fits },
            Versions { served: (13, 0), ..newer },
        ] {
            assert_eq!(versions.problem(), None, "{versions:?}");
        }
        for (versions, told) in [
            (
                Versions { nvrtc: (13, 0), ..fits },
                "NVRTC 13.0 is newer than the driver, which supports CUDA 12.8",
            ),
            (Versions { makes_ptx: true, ..newer }, "NVRTC 12.9 does not know this GPU"),
            (Versions { cudnn: Some((13, 0)), ..fits }, "pip install nvidia-cudnn-cu12"),
        ] {
            let problem = versions.problem().unwrap();
            assert!(problem.contains(told), "{versions:?}: {problem}");
        }
    }
}
