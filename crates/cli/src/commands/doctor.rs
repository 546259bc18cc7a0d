//! `simclr doctor`: what this machine has to train with, and what is missing.

use std::fs;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use simclr_cuda::{BUILT_IN, FoundLibrary, Gpu, Gpus, Libraries, Library};
use simclr_engine::{Isa, has_bf16};
use simclr_train::memory;
use simclr_words::text::Gigabytes;

use crate::exit::Done;
use crate::settings::processors;
use crate::terminal;
use crate::training::GPU_ADVICE;

/// Show what this machine has for training: CPU, memory, GPUs, libraries, and what each missing library is for
#[derive(Args, Debug)]
pub struct Doctor {
    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub fn run(self) -> Result<Done> {
        let machine = Machine::look();
        if self.json {
            terminal::print_json(&machine.object())?;
        } else {
            for line in machine.lines() {
                terminal::print(&terminal::inert(&line))?;
            }
        }
        Ok(Done::Finished)
    }
}

struct Machine {
    processor: Option<String>,
    threads: usize,
    instructions: Vec<String>,
    /// The bytes in total, and those that programs can still take.
    memory: [Option<u64>; 2],
    libraries: Libraries,
    gpus: Gpus,
}

impl Machine {
    fn look() -> Machine {
        let libraries = Libraries::find();
        Machine {
            processor: fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| model(&text)),
            threads: processors(),
            instructions: Isa::all().iter().map(|isa| isa.level().to_string()).collect(),
            memory: [memory::total(), memory::available()],
            gpus: Gpus::find(&libraries),
            libraries,
        }
    }

    /// Why no GPU can be used and, in a build for the CPU, what would help.
    fn problem(&self) -> Option<String> {
        self.gpus.problem.as_ref().map(|problem| format!("{problem}{GPU_ADVICE}"))
    }

    fn lines(&self) -> Vec<String> {
        let row = |name: &str, text: String| format!("{name:<13} {text}");
        let remedy = |text: &str| row("", format!("  {text}"));
        let build =
            if BUILT_IN { "with the feature `cuda`" } else { "for the CPU, without the feature `cuda`" };
        let unknown = || "not known".to_owned();
        let precision = if has_bf16() { "; bf16 and f32" } else { "; f32, as bf16 would be slower" };
        let mut lines = vec![
            row("program", format!("simclr {}, built {build}", env!("CARGO_PKG_VERSION"))),
            row("processor", self.processor.clone().unwrap_or_else(unknown)),
            row("threads", self.threads.to_string()),
            row("instructions", self.instructions.join(", ") + precision),
        ];
        let [total, available] = self.memory.map(|bytes| bytes.map_or_else(unknown, gigabytes));
        lines.push(row("memory", format!("{total}, of which {available} can be taken")));
        for (number, gpu) in self.gpus.gpus.iter().enumerate() {
            lines.push(row(&format!("GPU {number}"), described(gpu)));
        }
        if let Some(problem) = &self.gpus.problem {
            let what = if self.gpus.gpus.is_empty() { "none" } else { "not used" };
            lines.push(row("GPU", format!("{what}: {problem}")));
            lines.extend(GPU_ADVICE.strip_prefix(": ").map(remedy));
        }
        if let Some(driver) = &self.gpus.driver {
            let cuda = self.gpus.cuda.as_ref().map(|cuda| format!(", up to CUDA {cuda}"));
            lines.push(row("GPU driver", driver.clone() + &cuda.unwrap_or_default()));
        }
        for (library, found) in self.libraries.iter() {
            match found {
                Some(found) => lines.push(row(short(library), self.present(library, found))),
                None => {
                    lines.push(row(short(library), format!("missing: {}", library.gives())));
                    lines.push(remedy(library.remedy()));
                }
            }
        }
        lines
    }

    fn present(&self, library: Library, found: &FoundLibrary) -> String {
        let path = found.path.display();
        match self.version(library, found) {
            Ok(Some(version)) => format!("{version}, {path}"),
            Ok(None) => path.to_string(),
            Err(problem) => format!("{path}, which cannot be used: {problem}"),
        }
    }

    /// The version of a library: the one that it reports itself, where this build can load it.
    #[cfg(feature = "cuda")]
    fn version(&self, library: Library, _: &FoundLibrary) -> Result<Option<String>, String> {
        self.libraries.version_of(library).map(Some).map_err(|error| error.to_string())
    }

    #[cfg(not(feature = "cuda"))]
    fn version(&self, _: Library, found: &FoundLibrary) -> Result<Option<String>, String> {
        Ok(found.version.clone())
    }

    fn object(&self) -> Value {
        let [total, available] = self.memory;
        let gpu = |gpu: &Gpu| {
            json!({
                "name": gpu.name,
                "compute_capability": gpu.compute_capability.map(|(major, minor)| format!("{major}.{minor}")),
                "memory_bytes": gpu.memory,
            })
        };
        let library = |(library, found): (Library, Option<&FoundLibrary>)| {
            let version = found.map(|found| self.version(library, found));
            let problem = version.clone().and_then(Result::err);
            json!({
                "name": short(library),
                "path": found.map(|found| found.path.display().to_string()),
                "version": version.and_then(Result::ok).flatten(),
                "problem": problem,
                "gives": library.gives(),
                "remedy": found.is_none().then(|| library.remedy()),
            })
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "built_with_cuda": BUILT_IN,
            "processor": self.processor,
            "threads": self.threads,
            "instructions": self.instructions,
            "bf16": has_bf16(),
            "memory_bytes": total,
            "available_bytes": available,
            "gpus": self.gpus.gpus.iter().map(gpu).collect::<Vec<_>>(),
            "gpu_problem": self.problem(),
            "gpu_driver": self.gpus.driver,
            "driver_cuda": self.gpus.cuda,
            "libraries": self.libraries.iter().map(library).collect::<Vec<_>>(),
        })
    }
}

/// A library's name at the head of a line.
fn short(library: Library) -> &'static str {
    match library {
        Library::Driver => "libcuda",
        other => other.name(),
    }
}

fn described(gpu: &Gpu) -> String {
    let capability =
        gpu.compute_capability.map(|(major, minor)| format!(", compute capability {major}.{minor}"));
    let memory = gpu.memory.map(|bytes| format!(", {}", gigabytes(bytes)));
    let (major, minor) = Gpu::LEAST_CAPABILITY;
    let too_old = gpu
        .is_too_old()
        .then(|| format!("; not used: it takes a compute capability of {major}.{minor} or later"));
    [Some(gpu.name.clone()), capability, memory, too_old].into_iter().flatten().collect()
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1}", Gigabytes(bytes))
}

/// The name of the first processor in Linux's /proc/cpuinfo.
fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_processors_name() {
        assert_eq!(model("processor\t: 0\nmodel name\t: AMD EPYC 9B45\n").as_deref(), Some("AMD EPYC 9B45"));
        assert_eq!(model("processor\t: 0\n"), None);
    }

    #[test]
    fn every_library_has_a_line_whether_it_is_there_or_not() {
        let machine = Machine::look();
        let lines = machine.lines();
        for library in Library::ALL {
            let at = lines.iter().position(|line| line.starts_with(short(library))).unwrap();
            let line = &lines[at];
            match machine.libraries.get(library) {
                Some(found) => assert!(line.contains(&found.path.display().to_string()), "{line}"),
                None => {
                    assert!(line.contains(library.gives()), "{line}");
                    assert_eq!(lines[at + 1].trim_start(), library.remedy());
                }
            }
        }
    }

    #[test]
    fn a_gpu_is_described_by_what_is_known() {
        let name = "NVIDIA H200".to_owned();
        let bare = Gpu { name: name.clone(), compute_capability: None, memory: None };
        assert_eq!(described(&bare), "NVIDIA H200");
        let known = Gpu { name, compute_capability: Some((9, 0)), memory: Some(141_000_000_000) };
        assert_eq!(described(&known), "NVIDIA H200, compute capability 9.0, 141.0 GB");
    }
}
