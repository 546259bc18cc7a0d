//! The compute device: `auto`, `cpu`, `cuda` or `cuda:N`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use simclr_engine::{Device, EngineError};

use super::Config;

/// The device that a network runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceName {
    /// A GPU if one works, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The NVIDIA GPU with this number, from 0.
    Cuda(usize),
}

impl DeviceName {
    /// Whether this names a GPU, or is `auto` on a machine that has one.
    pub fn is_gpu(self) -> bool {
        match self {
            DeviceName::Cuda(_) => true,
            DeviceName::Auto => simclr_engine::has_gpu(),
            DeviceName::Cpu => false,
        }
    }

    /// Opens the device, with `threads` threads (0: one per core) for computation on the processor. Also returns why
    /// [`DeviceName::Auto`] chose no GPU, if it chose none.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the named GPU is not available, or if threads cannot be started.
    pub fn open(self, threads: usize) -> Result<(Device, Option<EngineError>), EngineError> {
        self.open_with(threads, |first| first)
    }

    /// [`DeviceName::open`] for one of several processes that share a name: `gpu` maps the named GPU's number to that
    /// of this process's own. It is called only when a GPU is tried.
    ///
    /// # Errors
    /// As [`DeviceName::open`].
    pub fn open_with(
        self,
        threads: usize,
        gpu: impl FnOnce(usize) -> usize,
    ) -> Result<(Device, Option<EngineError>), EngineError> {
        match self {
            DeviceName::Auto => Device::auto(gpu(0), threads),
            DeviceName::Cpu => Ok((Device::cpu(threads)?, None)),
            DeviceName::Cuda(first) => Ok((Device::cuda(gpu(first), threads)?, None)),
        }
    }
}

impl Config {
    /// Opens the device that `train.device` names, with `train.threads` threads, for
    /// [`pretrain`](crate::pretrain::pretrain) and [`Model`](crate::Model). [`DeviceName::open`] also returns why
    /// `auto` chose no GPU.
    ///
    /// # Errors
    /// As [`DeviceName::open`].
    pub fn device(&self) -> Result<Device, EngineError> {
        let (device, _) = self.train.device.open(self.train.threads.value().unwrap_or(0))?;
        Ok(device)
    }
}

/// The device names, for messages.
pub(super) const DEVICES: &str = "\"auto\", \"cpu\", \"cuda\" or \"cuda:N\", N being a GPU's number from 0";

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceName, String> {
        let number = |text: &str| text.parse::<u16>().ok().map(|n| DeviceName::Cuda(n.into()));
        let name = match text {
            "auto" => Some(DeviceName::Auto),
            "cpu" => Some(DeviceName::Cpu),
            "cuda" => Some(DeviceName::Cuda(0)),
            other => other.strip_prefix("cuda:").and_then(number),
        };
        name.ok_or_else(|| format!("expected {DEVICES}"))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceName::Auto => f.write_str("auto"),
            DeviceName::Cpu => f.write_str("cpu"),
            DeviceName::Cuda(0) => f.write_str("cuda"),
            DeviceName::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl Serialize for DeviceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Auto;

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["auto", "cpu", "cuda", "cuda:3"] {
            assert_eq!(text.parse::<DeviceName>().unwrap().to_string(), text);
        }
        assert_eq!("cuda:0".parse(), Ok(DeviceName::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            assert!(text.parse::<DeviceName>().unwrap_err().contains("cuda:N"), "{text}");
        }
    }

    #[test]
    fn a_configuration_opens_what_it_names() {
        let mut config = Config::default();
        config.train.device = DeviceName::Cpu;
        config.train.threads = Auto::Value(2);
        let device = config.device().unwrap();
        assert!(!device.is_gpu() && device.threads() == 2, "{device}");
        // No machine has that many GPUs.
        let none = DeviceName::Cuda(0).open_with(1, |first| first + 60_000);
        assert!(matches!(none, Err(EngineError::Device(_))), "{none:?}");
        let (device, why) = DeviceName::Auto.open_with(1, |_| 60_000).unwrap();
        assert!(!device.is_gpu() && why.is_some(), "{device}");
        let (_, why) = DeviceName::Cpu.open_with(1, |_| unreachable!("no GPU is asked for")).unwrap();
        assert!(why.is_none());
    }
}
