use std::fs;
use std::path::Path;

use super::*;

fn touch(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "").unwrap();
}

fn find(root: &Path, variables: &[(&str, &Path)]) -> Libraries {
    let variable = |name: &str| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_os_str().to_owned())
    };
    Libraries::find_in(&SearchPath::from(root, variable))
}

#[test]
fn each_kind_of_place_is_looked_through() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let nothing = find(&root, &[]);
    assert!(nothing.iter().all(|(_, found)| found.is_none()));
    let error = nothing.require(Library::Cudnn).unwrap_err().to_string();
    assert!(
        error.contains("cuDNN") && error.contains("libcudnn.so.9") && error.contains("pip install"),
        "{error}"
    );

    let loader = root.join("loader");
    touch(&loader.join("libcuda.so.1"));
    touch(&root.join("usr/lib64/libnvrtc.so.12"));
    touch(&root.join("toolkit/lib64/libcublasLt.so.13"));
    let venv = root.join("venv");
    let packages = venv.join("lib/python3.12/site-packages");
    touch(&packages.join("nvidia/cudnn/lib/libcudnn.so.9"));
    fs::create_dir_all(packages.join("nvidia_cudnn_cu12-9.10.2.21.dist-info")).unwrap();
    fs::create_dir_all(packages.join("nvidia_cudnn_frontend-1.2.dist-info")).unwrap();
    touch(&root.join("etc/ld.so.conf.d/nccl.conf"));
    fs::write(root.join("etc/ld.so.conf.d/nccl.conf"), "# NCCL\n/opt/nccl\n").unwrap();
    touch(&root.join("opt/nccl/libnccl.so.2.27.3"));
    std::os::unix::fs::symlink("libnccl.so.2.27.3", root.join("opt/nccl/libnccl.so.2")).unwrap();

    let toolkit = root.join("toolkit");
    let found = find(&root, &[("LD_LIBRARY_PATH", &loader), ("CUDA_HOME", &toolkit), ("VIRTUAL_ENV", &venv)]);
    let path = |library| found.require(library).unwrap().strip_prefix(&root).unwrap().to_owned();
    assert_eq!(path(Library::Driver), Path::new("loader/libcuda.so.1"));
    assert_eq!(path(Library::Nvrtc), Path::new("usr/lib64/libnvrtc.so.12"));
    assert_eq!(path(Library::CublasLt), Path::new("toolkit/lib64/libcublasLt.so.13"));
    assert_eq!(path(Library::Nccl), Path::new("opt/nccl/libnccl.so.2.27.3"));
    let cudnn = found.get(Library::Cudnn).unwrap();
    assert_eq!(cudnn.path, packages.join("nvidia/cudnn/lib/libcudnn.so.9"));
    assert_eq!(cudnn.version.as_deref(), Some("9.10.2.21"));
    assert_eq!(found.get(Library::Nccl).unwrap().version.as_deref(), Some("2.27.3"));
}

#[test]
fn the_python_of_the_path_is_followed_and_stubs_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let bin = root.join("conda/bin");
    touch(&bin.join("python3"));
    touch(&root.join("conda/lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13"));
    let stubs = root.join("toolkit/stubs");
    touch(&stubs.join("libcuda.so.1"));
    let found = find(&root, &[("PATH", &bin), ("LD_LIBRARY_PATH", &stubs)]);
    assert!(found.get(Library::Nvrtc).unwrap().path.ends_with("cu13/lib/libnvrtc.so.13"));
    assert_eq!(found.get(Library::Driver), None);
}

#[test]
fn a_shim_of_pyenv_leads_to_its_version() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let shims = root.join("pyenv/shims");
    touch(&shims.join("python3"));
    fs::write(root.join("pyenv/version"), "3.11.7\n").unwrap();
    touch(&root.join("pyenv/versions/3.11.7/lib/python3.11/site-packages/nvidia/nccl/lib/libnccl.so.2"));
    assert!(find(&root, &[("PATH", &shims)]).get(Library::Nccl).is_some());
}

#[test]
fn what_is_newer_than_the_driver_serves_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let venv = root.join("venv");
    let packages = venv.join("lib/python3.12/site-packages/nvidia");
    touch(&packages.join("cu13/lib/libnvrtc.so.13"));
    touch(&packages.join("cu13/lib/libcublasLt.so.13"));
    touch(&packages.join("cuda_nvrtc/lib/libnvrtc.so.12"));
    let search_path =
        SearchPath::from(&root, |name| (name == "VIRTUAL_ENV").then(|| venv.clone().into_os_string()));
    let file = |newest: u32, library: Library| {
        let found = Libraries::find_up_to(&search_path, newest);
        found.get(library).map(|found| found.path.file_name().unwrap().to_str().unwrap().to_owned())
    };
    assert_eq!(file(13, Library::Nvrtc).as_deref(), Some("libnvrtc.so.13"));
    assert_eq!(file(12, Library::Nvrtc).as_deref(), Some("libnvrtc.so.12"));
    assert_eq!(file(12, Library::CublasLt), None);
}
