//! NVIDIA's libraries: where they are, which versions, and what each is needed for.

#[cfg(feature = "cuda")]
mod load;
mod search_path;
#[cfg(test)]
mod tests;
#[cfg(feature = "cuda")]
mod used;
mod version;

use std::path::{Path, PathBuf};

use crate::{CudaError, Result};
pub use search_path::SearchPath;

/// A library that training on a GPU can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// libcuda, which comes with the driver.
    Driver,
    /// NVRTC, the compiler of kernels.
    Nvrtc,
    /// cuDNN, version 9.
    Cudnn,
    /// cuBLASLt.
    CublasLt,
    /// NCCL, version 2.
    Nccl,
}

impl Library {
    /// All libraries.
    pub const ALL: [Library; 5] =
        [Library::Driver, Library::Nvrtc, Library::Cudnn, Library::CublasLt, Library::Nccl];

    /// The name by which people know the library.
    pub fn name(self) -> &'static str {
        match self {
            Library::Driver => "the NVIDIA driver",
            Library::Nvrtc => "NVRTC",
            Library::Cudnn => "cuDNN",
            Library::CublasLt => "cuBLASLt",
            Library::Nccl => "NCCL",
        }
    }

    /// What the program needs the library for.
    pub fn gives(self) -> &'static str {
        match self {
            Library::Driver => "GPUs cannot be used without it",
            Library::Nvrtc => "compiles the kernels for the GPU at hand; training on a GPU needs it",
            Library::Cudnn => "convolutions; training on a GPU needs it",
            Library::CublasLt => "products of matrices; training on a GPU needs it",
            Library::Nccl => "exchange between several GPUs; one GPU does without it",
        }
    }

    /// How to install the library.
    pub fn remedy(self) -> &'static str {
        match self {
            Library::Driver => "install the NVIDIA driver of the system",
            Library::Nvrtc => {
                "pip install nvidia-cuda-nvrtc (-cu12 for a driver of CUDA 12), or install the CUDA toolkit"
            }
            Library::Cudnn => "pip install nvidia-cudnn-cu12 (or -cu13), or install cuDNN 9",
            Library::CublasLt => {
                "pip install nvidia-cublas (-cu12 for a driver of CUDA 12), or install the CUDA toolkit"
            }
            Library::Nccl => "pip install nvidia-nccl-cu12 (or -cu13), or install NCCL 2",
        }
    }

    /// The names that its file may have, in order of preference.
    pub fn file_names(self) -> &'static [&'static str] {
        match self {
            Library::Driver => &["libcuda.so.1"],
            Library::Nvrtc => &["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"],
            Library::Cudnn => &["libcudnn.so.9"],
            Library::CublasLt => &["libcublasLt.so", "libcublasLt.so.13", "libcublasLt.so.12"],
            Library::Nccl => &["libnccl.so.2"],
        }
    }
}

/// A library on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLibrary {
    /// Its file, with symbolic links resolved.
    pub path: PathBuf,
    /// Its version, where the file's name, its package or (with the feature `cuda`) the library itself gives one.
    pub version: Option<String>,
}

/// The libraries of this machine.
#[derive(Debug, Clone)]
pub struct Libraries {
    found: Vec<(Library, Option<FoundLibrary>)>,
}

impl Libraries {
    /// Looks for every library on this machine. Where this build can query the driver, an NVRTC or cuBLASLt of a newer
    /// CUDA than the driver supports is skipped: the driver could not load the kernels of either.
    pub fn find() -> Libraries {
        let search_path = SearchPath::of_machine();
        let found = Libraries::find_in(&search_path);
        match found.served() {
            Some(newest) => Libraries::find_up_to(&search_path, newest),
            None => found,
        }
    }

    /// Looks for every library in the given folders. Nothing is loaded.
    pub fn find_in(search_path: &SearchPath) -> Libraries {
        Libraries::find_up_to(search_path, u32::MAX)
    }

    /// As [`Libraries::find_in`], but skips an NVRTC or cuBLASLt whose file name gives a CUDA newer than `newest`.
    fn find_up_to(search_path: &SearchPath, newest: u32) -> Libraries {
        let look = |library: Library| {
            let of_cuda = matches!(library, Library::Nvrtc | Library::CublasLt);
            let found = search_path.folders().iter().find_map(|folder| {
                let files = library.file_names().iter().map(|name| folder.join(name));
                let mut real =
                    files.filter(|file| file.is_file()).map(|file| file.canonicalize().unwrap_or(file));
                let serves =
                    |path: &PathBuf| !of_cuda || version::major(path).is_none_or(|major| major <= newest);
                real.find(serves)
            });
            (library, found.map(|path| FoundLibrary { version: version::from_file(library, &path), path }))
        };
        Libraries { found: Library::ALL.into_iter().map(look).collect() }
    }

    /// The major version of the newest CUDA that the driver supports, where it can be queried.
    #[cfg(feature = "cuda")]
    fn served(&self) -> Option<u32> {
        self.version_of(Library::Driver).ok()?.split('.').next()?.parse().ok()
    }

    #[cfg(not(feature = "cuda"))]
    fn served(&self) -> Option<u32> {
        None
    }

    /// All libraries, each with its file if it was found.
    pub fn iter(&self) -> impl Iterator<Item = (Library, Option<&FoundLibrary>)> {
        self.found.iter().map(|(library, found)| (*library, found.as_ref()))
    }

    /// A library, if it was found.
    pub fn get(&self, library: Library) -> Option<&FoundLibrary> {
        self.iter().find(|(other, _)| *other == library).and_then(|(_, found)| found)
    }

    /// The file of a library, or an error that says what is missing.
    pub fn require(&self, library: Library) -> Result<&Path> {
        self.get(library).map(|found| found.path.as_path()).ok_or_else(|| CudaError::Missing {
            library: library.name(),
            names: library.file_names().join(", "),
            gives: library.gives(),
            remedy: library.remedy(),
        })
    }
}
