//! Kernels compiled by NVRTC when first needed, and cached on disk under a hash of everything that they depend on.

use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;

use cudarc::nvrtc::result::{self, NvrtcError};
use cudarc::nvrtc::sys;

use crate::{CudaError, Libraries, Library, Program, Result, cache, cache_folder};

/// A compute capability, major and minor: (9, 0) is an H100 or H200.
pub type Capability = (u32, u32);

/// Compiles kernels.
#[derive(Debug)]
pub struct Compiler {
    version: (i32, i32),
    /// Compute capabilities that NVRTC can compile for, as 10 major + minor.
    known: Vec<u32>,
    folder: Option<PathBuf>,
}

/// A compiled program in the form that the driver loads: machine code, or PTX for GPUs newer than the compiler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The bytes; PTX ends in a zero.
    pub bytes: Vec<u8>,
    /// The compiler's log; empty where it had no remarks, or the image came from the cache.
    pub log: String,
}

fn failed(what: &'static str) -> impl Fn(NvrtcError) -> CudaError {
    move |error| CudaError::Call { what, reason: format!("NVRTC: {error}") }
}

impl Compiler {
    /// Loads NVRTC. Compiled kernels are kept in the user's cache folder.
    ///
    /// # Errors
    /// [`CudaError::Missing`] or [`CudaError::Load`] where NVRTC is not found or cannot be loaded.
    pub fn new(libraries: &Libraries) -> Result<Compiler> {
        libraries.load(Library::Nvrtc)?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: NVRTC is loaded; it writes two numbers, then a count, then that many numbers.
        let known = unsafe {
            let asked = failed("asking for the compiler's version");
            sys::nvrtcVersion(&mut major, &mut minor).result().map_err(&asked)?;
            sys::nvrtcGetNumSupportedArchs(&mut count).result().map_err(&asked)?;
            let mut known = vec![0i32; usize::try_from(count).unwrap_or(0)];
            sys::nvrtcGetSupportedArchs(known.as_mut_ptr()).result().map_err(&asked)?;
            known.into_iter().map(|number| number as u32).collect()
        };
        Ok(Compiler {
            version: (major, minor),
            known,
            folder: cache_folder().map(|folder| folder.join("kernels")),
        })
    }

    /// Replaces the cache folder; `None` disables the cache.
    pub fn with_cache(self, folder: Option<PathBuf>) -> Compiler {
        Compiler { folder, ..self }
    }

    /// The version of NVRTC, major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles a program for GPUs of a compute capability, or takes it from the cache.
    ///
    /// # Errors
    /// [`CudaError::Call`] where it does not compile, with the compiler's log, or where the GPU is too old for this
    /// compiler.
    pub fn compile(&self, program: Program, capability: Capability) -> Result<Image> {
        let architecture = self.architecture(capability)?;
        let source = program.source();
        let options = options(program, &architecture);
        let version = format!("{}.{}", self.version.0, self.version.1);
        let parts = [&source, &options.join(" "), &version];
        let hash = cache::fingerprint(&parts.map(|part| part.as_bytes()));
        let name = format!("{}-{architecture}-{hash:032x}", program.name().replace(' ', "-"));
        let cached = self.folder.as_ref().and_then(|folder| cache::read(folder, &name));
        if let Some(bytes) = cached {
            return Ok(Image { bytes, log: String::new() });
        }
        let image = translate(program, &source, &options, is_machine_code(&architecture))?;
        if let Some(folder) = &self.folder {
            cache::write(folder, &name, &image.bytes);
        }
        Ok(image)
    }

    /// Whether a program for GPUs of a compute capability is PTX, which the driver compiles: they are newer than the
    /// compiler.
    pub(crate) fn makes_ptx(&self, capability: Capability) -> bool {
        self.architecture(capability).is_ok_and(|name| !is_machine_code(&name))
    }

    /// The architecture to compile for: the GPU's, or the newest older one where the compiler does not know the GPU's.
    fn architecture(&self, (major, minor): Capability) -> Result<String> {
        let wanted = 10 * major + minor;
        if self.known.contains(&wanted) {
            return Ok(format!("sm_{wanted}"));
        }
        let before = self.known.iter().filter(|&&number| number < wanted).max();
        before.map(|number| format!("compute_{number}")).ok_or_else(|| CudaError::Call {
            what: "compiling kernels",
            reason: format!(
                "NVRTC {}.{} no longer supports GPUs of compute capability {major}.{minor}; an older NVRTC does",
                self.version.0, self.version.1
            ),
        })
    }
}

/// Whether what is compiled for an architecture is machine code, and not PTX.
fn is_machine_code(architecture: &str) -> bool {
    architecture.starts_with("sm_")
}

fn options(program: Program, architecture: &str) -> Vec<String> {
    vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_owned(),
        format!("--fmad={}", program.contracts()),
    ]
}

/// An NVRTC program, destroyed when dropped.
struct Handle(sys::nvrtcProgram);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the program was created and is destroyed once, here. A failure cannot be reported from a drop.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn translate(program: Program, source: &str, options: &[String], machine_code: bool) -> Result<Image> {
    let text = |text: &str| {
        CString::new(text).map_err(|e| CudaError::Call { what: "compiling kernels", reason: e.to_string() })
    };
    let (source, name) = (text(source)?, text(&program.name())?);
    let handle = Handle(result::create_program(&source, Some(&name)).map_err(failed("compiling kernels"))?);
    // SAFETY: the program was created above and lives until the end of this function, as do its source and name.
    let (compiled, log) =
        unsafe { (result::compile_program(handle.0, options), result::get_program_log(handle.0)) };
    let log = log.map(|log| words(&log)).unwrap_or_default();
    compiled.map_err(|error| CudaError::Call {
        what: "compiling kernels",
        reason: format!("{}: {error}\n{log}", program.name()),
    })?;
    let taking = failed("taking compiled kernels");
    let bytes = if machine_code {
        let mut size = 0;
        // SAFETY: the program is compiled; NVRTC writes its size, then that many bytes.
        unsafe {
            sys::nvrtcGetCUBINSize(handle.0, &mut size).result().map_err(&taking)?;
            let mut bytes = vec![0u8; size];
            sys::nvrtcGetCUBIN(handle.0, bytes.as_mut_ptr().cast()).result().map_err(&taking)?;
            bytes
        }
    } else {
        // SAFETY: the program is compiled.
        let ptx = unsafe { result::get_ptx(handle.0) }.map_err(&taking)?;
        ptx.into_iter().map(|c| c as u8).collect()
    };
    Ok(Image { bytes, log })
}

/// Decodes a text that ends in a zero.
fn words(text: &[c_char]) -> String {
    let bytes: Vec<u8> = text.iter().map(|&c| c as u8).collect();
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy).unwrap_or_default();
    text.trim().to_owned()
}
