//! Where NVIDIA's libraries may be.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders to search, in order.
///
/// First those where the system's loader looks by itself, since it would take a library from there; then CUDA
/// toolkits; then the wheels of Python environments.
#[derive(Debug, Clone, Default)]
pub struct SearchPath {
    folders: Vec<PathBuf>,
}

impl SearchPath {
    /// The folders of this machine, as the environment names them.
    pub fn of_machine() -> SearchPath {
        SearchPath::from(Path::new("/"), |name| std::env::var_os(name))
    }

    /// The folders below `root`, with environment variables from `variable`.
    pub fn from(root: &Path, variable: impl Fn(&str) -> Option<OsString>) -> SearchPath {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let mut search_path = SearchPath::default();
        for folder in set("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths) {
            search_path.add(folder);
        }
        configured(root).into_iter().for_each(|folder| search_path.add(folder));
        for folder in [
            "usr/lib/x86_64-linux-gnu",
            "usr/lib/aarch64-linux-gnu",
            "usr/lib64",
            "usr/lib",
            "usr/lib/wsl/lib",
            "run/opengl-driver/lib",
        ] {
            search_path.add(root.join(folder));
        }
        let toolkits = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(set).map(PathBuf::from);
        for toolkit in toolkits.chain([root.join("usr/local/cuda"), root.join("opt/cuda")]) {
            for folder in ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"] {
                search_path.add(toolkit.join(folder));
            }
        }
        for environment in environments(root, set) {
            search_path.add(environment.join("lib"));
            wheels(&environment).into_iter().for_each(|folder| search_path.add(folder));
        }
        search_path
    }

    /// The folders that exist, in order.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    fn add(&mut self, folder: PathBuf) {
        // Stubs are for linking only: they have the names of the libraries but do nothing.
        let stub = folder.components().any(|part| part.as_os_str() == "stubs");
        if !stub && folder.is_dir() && !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
    }
}

/// The folders of the loader's own configuration.
fn configured(root: &Path) -> Vec<PathBuf> {
    let mut files = listed(&root.join("etc/ld.so.conf.d"));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.insert(0, root.join("etc/ld.so.conf"));
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect::<Vec<_>>().join("\n");
    let folders = texts.lines().map(str::trim).filter(|line| line.starts_with('/'));
    folders.map(|folder| root.join(folder.trim_start_matches('/'))).collect()
}

/// The folders of Python environments: the active one, and that of the `python3` which a shell would start.
fn environments(root: &Path, set: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(&set).map(PathBuf::from).collect();
    for folder in set("PATH").iter().flat_map(std::env::split_paths) {
        let program = folder.join("python3");
        if !program.is_file() {
            continue;
        }
        // The `python3` of a virtual environment links to the interpreter that it was made with, which has other
        // packages: do not follow it where `pyvenv.cfg` marks a virtual environment.
        let own = folder.parent().map(Path::to_path_buf);
        let real =
            fs::canonicalize(&program).ok().and_then(|file| Some(file.parent()?.parent()?.to_path_buf()));
        found.extend(own.clone());
        if own.as_ref().is_none_or(|own| !own.join("pyvenv.cfg").is_file()) {
            found.extend(real);
        }
        // pyenv puts a script in place of the interpreter and names the version in a file.
        if folder.file_name().is_some_and(|name| name == "shims")
            && let Some(pyenv) = own
            && let Ok(versions) = fs::read_to_string(pyenv.join("version"))
        {
            found.extend(versions.split_whitespace().map(|version| pyenv.join("versions").join(version)));
        }
        break;
    }
    found.push(root.join("usr"));
    found.push(root.join("usr/local"));
    found
}

/// The folders `nvidia/*/lib` of the packages of an environment.
fn wheels(environment: &Path) -> Vec<PathBuf> {
    let lib = environment.join("lib");
    let pythons = listed(&lib).into_iter().filter(|folder| {
        folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("python3"))
    });
    let packages = pythons.flat_map(|folder| [folder.join("site-packages"), folder.join("dist-packages")]);
    packages.flat_map(|folder| listed(&folder.join("nvidia"))).map(|folder| folder.join("lib")).collect()
}

/// The entries of a folder, sorted by name; none where it cannot be read.
pub(super) fn listed(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).map(|entries| entries.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    found.sort();
    found
}
