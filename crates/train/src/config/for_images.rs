//! Values that depend on the images and the machine: those of the preset `photos`, and `train.batch = "auto"`.

use simclr_data::{Dataset, Sample};

use super::layers::{batch_of, leaves_batch};
use super::{Config, DeviceName, Layers};
use crate::presets::batch;
use crate::presets::photos::{self, Known, Trainer};
use crate::{TrainError, memory};

/// The hardware that trains, and its free memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The hardware that trains.
    pub trainer: Trainer,
    /// Its memory that is free, in bytes.
    pub memory: u64,
}

impl Machine {
    /// The processors that this program may use, and the free memory.
    pub fn processors() -> Machine {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        Machine { trainer: Trainer::Processors(count), memory: memory::available_bytes() }
    }
}

/// A configuration that suits images and a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct ForImages {
    /// The resolved configuration.
    pub config: Config,
    /// For each value that was chosen and not overridden, a sentence on why.
    pub reasons: Vec<String>,
}

impl Layers<'_> {
    /// [`Config::resolve`] for a run on `images`. Unless [`Layers::chosen`] is set, the preset `photos` gets sizes that
    /// suit the images and the `machine` with the device of `train.device`. With it, or if `train.batch` is "auto", the
    /// batch of the layers below is halved until it suits both ([`batch::choose`]). A resumed run ([`Layers::base`])
    /// keeps the values that were chosen for it.
    ///
    /// `machine` returns [`Machine::processors`], or a GPU ([`Trainer::Gpu`]) with its free memory.
    ///
    /// # Errors
    /// Those of [`Config::resolve`], and those of an invalid network.
    pub fn resolve_for(
        &self,
        images: &dyn Dataset,
        machine: impl Fn(DeviceName) -> Machine,
    ) -> Result<ForImages, TrainError> {
        let is_new = self.base.is_none();
        let mut layers = self.clone();
        let stated = self.stated()?;
        let chosen = match self.preset {
            Some(photos::NAME) if is_new && self.chosen.is_none() => {
                let Sample { width, height, .. } = Sample::of(images);
                // The run to begin with, and the device, follow from the other layers.
                let merged = Config::merged(self)?;
                let begins = merged.train.begins_with().is_some();
                let is_known = |table: &str, key: &str| {
                    begins || stated.get(table).is_some_and(|table| table.get(key).is_some())
                };
                let known = Known {
                    side: is_known("data", "image_size").then_some(merged.data.image_size),
                    width: is_known("encoder", "width").then_some(merged.encoder.width),
                };
                let Machine { trainer, .. } = machine(merged.train.device);
                Some(photos::choose((images.len(), width, height), trainer, known))
            }
            _ => None,
        };
        layers.chosen = layers.chosen.or_else(|| chosen.as_ref().map(|chosen| chosen.table.clone()));
        let mut config = Config::merged(&layers)?;
        let of_photos = chosen.iter().flat_map(|chosen| chosen.reasons_in(&config));
        let mut reasons: Vec<String> =
            of_photos.map(|reason| format!("preset {}: {reason}", photos::NAME)).collect();
        let is_left = leaves_batch(&stated);
        if is_new && (is_left || (chosen.is_some() && batch_of(&stated).is_none())) {
            let Machine { memory, .. } = machine(config.train.device);
            let (size, reason) = batch::choose(&config, images.len(), memory, self.workers)?;
            config.train.batch = size;
            let why =
                if is_left { "train.batch=auto".to_owned() } else { format!("preset {}", photos::NAME) };
            reasons.push(format!("{why}: {reason}"));
        }
        Ok(ForImages { config, reasons })
    }
}

/// The error for `train.batch = "auto"` without images to choose a batch for; `advice` says what to do.
pub(super) fn batch_needs_images(origin: &str, advice: &str) -> TrainError {
    let (origin, key) = (origin.to_owned(), "train.batch".to_owned());
    TrainError::Conflict {
        origin,
        key,
        problem: format!("is \"auto\", which only the images can tell; {advice}"),
    }
}

#[cfg(test)]
mod tests {
    use simclr_data::Synthetic;

    use super::*;

    /// Two processors with 16 GiB.
    fn machine(device: DeviceName) -> Machine {
        assert_eq!(device, DeviceName::Cpu);
        Machine { trainer: Trainer::Processors(2), memory: 16 << 30 }
    }

    fn sets(sets: &[&str]) -> Vec<String> {
        ["train.device=cpu"].iter().chain(sets).map(|&set| set.to_owned()).collect()
    }

    #[test]
    fn a_batch_that_is_left_to_the_program_suits_the_images() {
        let sets = sets(&["train.batch=auto"]);
        let layers = Layers { preset: Some("small"), sets: &sets, ..Layers::default() };
        let ForImages { config, reasons } = layers.resolve_for(&Synthetic::new(240, 32, 0), machine).unwrap();
        assert_eq!(config.train.batch, 16);
        assert_eq!(
            reasons,
            ["train.batch=auto: batch of 16: 216 images to train on, in about 14 steps an epoch"]
        );
        // A resumed run keeps what was chosen for it.
        let on = Layers { base: Some(&config), sets: &sets, ..Layers::default() };
        let resumed = on.resolve_for(&Synthetic::new(2400, 32, 0), machine).unwrap();
        assert_eq!((&resumed.config, resumed.reasons.len()), (&config, 0));
        assert_eq!(Config::resolve(&on).unwrap(), config);

        // Without images there is nothing to choose by.
        let text = Config::resolve(&layers).unwrap_err().to_string();
        assert!(text.contains("`train.batch` is \"auto\"") && text.contains("resolve_for"), "{text}");
        let text = Config::from_toml("[train]\nbatch = \"auto\"", "mine.toml").unwrap_err().to_string();
        assert!(text.contains("mine.toml: `train.batch` is \"auto\""), "{text}");
    }

    #[test]
    fn photos_is_given_sizes_that_suit_the_images() {
        let sets = sets(&["train.epochs=20"]);
        let layers = Layers { preset: Some("photos"), sets: &sets, ..Layers::default() };
        let images = Synthetic::new(300, 100, 0);
        let ForImages { config, reasons } = layers.resolve_for(&images, machine).unwrap();
        assert_eq!((config.data.image_size, config.encoder.width, config.train.batch), (64, 0.25, 32));
        assert_eq!((config.train.epochs, config.optim.warmup_epochs), (20, 2.0));
        assert!(reasons.iter().all(|reason| reason.starts_with("preset photos: ")), "{reasons:?}");
        assert!(reasons.iter().any(|reason| reason.contains("views of 64 x 64 pixels")), "{reasons:?}");
        assert!(!reasons.iter().any(|reason| reason.contains("epochs")), "{reasons:?}");

        let chosen = Some("[train]\nbatch = 8\n".parse().unwrap());
        let own = Layers { chosen, ..layers.clone() }.resolve_for(&images, machine).unwrap();
        assert_eq!((own.config.train.batch, own.reasons.len()), (8, 0));

        // What is asked for is trained, in a batch that fits.
        let sets = self::sets(&["data.image_size=512", "encoder.name=resnet50", "encoder.width=1"]);
        let asked = Layers { sets: &sets, ..layers.clone() };
        let large = asked.resolve_for(&Synthetic::new(10_000, 32, 0), machine).unwrap();
        assert_eq!((large.config.data.image_size, large.config.view.color_strength), (512, 1.0));
        assert!(large.config.train.batch < 64, "{}", large.config.train.batch);
        assert!(
            large.reasons.iter().any(|reason| reason.contains("of free memory holds")),
            "{:?}",
            large.reasons
        );
        let sets = self::sets(&["train.batch=100"]);
        let fixed = Layers { sets: &sets, ..layers }.resolve_for(&images, machine).unwrap();
        assert_eq!(fixed.config.train.batch, 100);
        assert!(!fixed.reasons.iter().any(|reason| reason.contains("batch")), "{:?}", fixed.reasons);
    }
}
