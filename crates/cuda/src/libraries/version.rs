//! The version of a library, without loading it.

use std::path::Path;

use super::Library;
use super::search_path::listed;

/// The version in the file's name (`libcudnn.so.9.10.2`), or that of the Python package that the file belongs to.
pub(super) fn from_file(library: Library, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let digits = name.split_once(".so.").map(|(_, digits)| digits);
    digits.filter(|digits| digits.contains('.')).map(str::to_owned).or_else(|| from_package(library, path))
}

/// The first number after `.so.` in the file's name.
pub(super) fn major(path: &Path) -> Option<u32> {
    let (_, digits) = path.file_name()?.to_str()?.split_once(".so.")?;
    digits.split('.').next()?.parse().ok()
}

/// The version of the wheel whose folder `nvidia/NAME/lib` the file is in: that of `nvidia_NAME-VERSION.dist-info`
/// beside it.
fn from_package(library: Library, path: &Path) -> Option<String> {
    let package = match library {
        Library::Driver => return None,
        Library::Nvrtc => "nvidia_cuda_nvrtc",
        Library::Cudnn => "nvidia_cudnn",
        Library::CublasLt => "nvidia_cublas",
        Library::Nccl => "nvidia_nccl",
    };
    let packages = path.ancestors().nth(4)?;
    listed(packages).iter().find_map(|folder| {
        let name = folder.file_name()?.to_str()?.strip_suffix(".dist-info")?;
        let (name, version) = name.rsplit_once('-')?;
        let rest = name.strip_prefix(package)?;
        // `nvidia_cudnn_cu12` matches, `nvidia_cudnn_frontend` does not.
        (rest.is_empty() || rest.starts_with("_cu")).then(|| version.to_owned())
    })
}
