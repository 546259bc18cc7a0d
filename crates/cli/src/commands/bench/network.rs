//! What `simclr bench` measures: a network of random weights, and the device that computes it.

use std::fmt;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use simclr_engine::{Device, Isa, Level, Peak, Profile};
use simclr_train::config::{Depth, DeviceName, Precision, Variant};
use simclr_train::{Config, Layers, TrainError};

use crate::exit::usage;
use crate::settings::{Threads, device, one_of, suggesting_for};
use crate::training::no_gpu;

/// The keys that arguments set, each with its argument.
const ARGUMENTS: [(&str, &str); 8] = [
    ("encoder.name", "--encoder"),
    ("encoder.width", "--width"),
    ("encoder.variant", "--variant"),
    ("encoder.selective_kernels", "--selective-kernels"),
    ("data.image_size", "--size"),
    ("train.precision", "--precision"),
    ("train.memory", "--memory"),
    ("data.views_on", "--views-on"),
];

/// The arguments that choose a network and where it is computed.
#[derive(Args, Debug)]
pub struct Network {
    /// resnet18, 34, 50, 101, 152 or 200
    #[arg(
        long,
        value_name = "NAME",
        default_value = "resnet18",
        value_parser = suggesting_for("encoder.name"),
        hide_possible_values = true
    )]
    encoder: String,

    /// Multiplies the channels of every stage
    #[arg(long, value_name = "X", default_value = "1")]
    width: String,

    /// How the network downsamples: standard, d (a ResNet-D), or auto (d with selective kernels, else standard)
    #[arg(
        long,
        value_name = "NAME",
        default_value = "auto",
        value_parser = suggesting_for("encoder.variant"),
        hide_possible_values = true
    )]
    variant: String,

    /// Selective kernels, whose gates squeeze channels to this fraction: 0.0625 in SimCLR v2; 0: no selective kernels
    #[arg(long, value_name = "SHARE", default_value = "0")]
    selective_kernels: String,

    /// Side of an image in pixels
    #[arg(long, value_name = "PIXELS", default_value = "32")]
    size: String,

    /// Arithmetic: f32, bf16, on a GPU also fp16 and tf32, or auto: bf16 where it is fast, else f32
    #[arg(
        long,
        value_name = "NAME",
        default_value = "auto",
        value_parser = suggesting_for("train.precision"),
        hide_possible_values = true
    )]
    precision: String,

    /// Device: cpu, cuda or cuda:N (an NVIDIA GPU), or auto: a GPU if one works
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "cpu",
        value_parser = device(),
        hide_possible_values = true
    )]
    device: DeviceName,

    /// Instruction set to compute with [default: the best that the CPU has]
    #[arg(long, value_name = "NAME", value_parser = one_of(&Level::ALL, Level::name))]
    isa: Option<Level>,

    #[command(flatten)]
    threads: Threads,
}

impl Network {
    /// Opens the device, with a profile of its kernels.
    pub fn device(&self) -> Result<(Device, Profile)> {
        let threads = self.threads.count();
        let cpu = || Ok(Device::cpu_profiled(threads, self.isa()?)?);
        match self.device {
            DeviceName::Cpu => cpu(),
            name @ DeviceName::Cuda(number) => {
                Device::cuda_profiled(number, threads).map_err(|error| no_gpu(name, error))
            }
            DeviceName::Auto => Device::cuda_profiled(0, threads).or_else(|_| cpu()),
        }
    }

    fn isa(&self) -> Result<Isa> {
        let Some(level) = self.isa else { return Ok(Isa::detect()) };
        Isa::forced(level).ok_or_else(|| {
            let there: Vec<_> = Isa::all().into_iter().map(|isa| isa.level().to_string()).collect();
            usage(format!("--isa {level}: this processor has {}", there.join(", ")))
        })
    }

    /// The configuration of this network, with the settings `more`.
    pub fn config(&self, more: &[String]) -> Result<Config> {
        let own = [
            format!("encoder.name={}", self.encoder),
            format!("encoder.width={}", self.width),
            format!("encoder.variant={}", self.variant),
            format!("encoder.selective_kernels={}", self.selective_kernels),
            format!("data.image_size={}", self.size),
            format!("train.precision={}", self.precision()),
        ];
        let sets = [&own[..], more].concat();
        Config::resolve(&Layers { sets: &sets, ..Layers::default() }).map_err(by_argument)
    }

    /// The arithmetic, as `train.precision` takes it: what "auto" means depends on the instructions that are used.
    fn precision(&self) -> &str {
        let is_without = |level| !self.device.is_gpu() && level < Level::Avx512Bf16;
        match self.isa.is_some_and(is_without) && self.precision == "auto" {
            true => "f32",
            false => &self.precision,
        }
    }
}

/// A network, as results describe it.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    encoder: Depth,
    width: f64,
    variant: Variant,
    selective_kernels: f64,
    size: u32,
    pub precision: Precision,
}

impl Described {
    pub fn of(config: &Config) -> Described {
        Described {
            encoder: config.encoder.name,
            width: config.encoder.width,
            variant: config.encoder.settled_variant(),
            selective_kernels: config.encoder.selective_kernels,
            size: config.data.image_size,
            precision: config.train.precision,
        }
    }
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Described { encoder, width, size, .. } = self;
        let variant = if self.variant == Variant::D { " d" } else { "" };
        write!(f, "{encoder}{variant} width {width}")?;
        if self.selective_kernels > 0.0 {
            write!(f, ", selective kernels {}", self.selective_kernels)?;
        }
        write!(f, ", {size} x {size}")
    }
}

/// The operations per second that the device was seen to reach in this precision.
pub fn peak_of(reached: Peak, precision: Precision) -> f64 {
    match precision {
        Precision::Bf16 | Precision::Fp16 => reached.bf16.unwrap_or(reached.f32),
        _ => reached.f32,
    }
}

/// Turns an error about a key into one about the argument that set it.
fn by_argument(error: TrainError) -> anyhow::Error {
    let argument = |key: &str| ARGUMENTS.iter().find(|(path, _)| *path == key).map(|(_, name)| name);
    match &error {
        TrainError::BadValue { key, found, expected, .. } => {
            argument(key).map(|name| usage(format!("{name} is {found}, expected {expected}")))
        }
        TrainError::Conflict { key, problem, .. } => {
            argument(key).map(|name| usage(format!("{name} {problem}")))
        }
        TrainError::Syntax { origin, message } => ARGUMENTS
            .iter()
            .find(|(path, _)| origin.starts_with(&format!("setting {path}=")))
            .map(|(_, name)| usage(format!("{name}: {message}"))),
        _ => None,
    }
    .unwrap_or_else(|| error.into())
}

/// The median of sorted values.
pub fn median(values: &[f64]) -> f64 {
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

/// Bytes without a pattern (xorshift64*): the time of a step must not depend on the content of images.
pub fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}
