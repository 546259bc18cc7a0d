//! Sizes for a user's own photos, chosen by the photos and the machine.

use toml::{Table, Value};

use super::batch;
use crate::pretrain::trained_on;
use crate::{Config, resnet_spec};

/// The sides of a view to choose from, in pixels.
const SIDES: [u32; 6] = [32, 64, 96, 128, 160, 224];

/// The preset's name.
pub const NAME: &str = "photos";

/// Roughly how many times more memory than a ResNet-18 a network of bottleneck blocks keeps for a step.
const BOTTLENECK: u64 = 5;

/// Images that an encoder should see over all epochs for a useful run; the two views of an image count once.
const IMAGES_SEEN: usize = 400_000;

/// The hardware that trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trainer {
    /// This many processors.
    Processors(usize),
    /// A GPU.
    Gpu,
}

impl Trainer {
    /// The side of a view, in pixels, and the encoder width that train in good time.
    fn affordable(self) -> (u32, f64) {
        match self {
            Trainer::Processors(0..=3) => (64, 0.25),
            Trainer::Processors(4..=15) => (96, 0.5),
            Trainer::Processors(16..=63) => (128, 1.0),
            Trainer::Processors(_) | Trainer::Gpu => (224, 1.0),
        }
    }

    fn manages(self) -> String {
        match self {
            Trainer::Processors(1) => "1 processor manages".to_owned(),
            Trainer::Processors(count) => format!("{count} processors manage"),
            Trainer::Gpu => "a GPU manages".to_owned(),
        }
    }
}

/// The values chosen, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Choices {
    /// A layer for [`Layers::chosen`](crate::Layers::chosen).
    pub table: Table,
    /// For each choice, the key and a sentence.
    pub reasons: Vec<(&'static str, String)>,
}

impl Choices {
    /// The sentences for the choices that hold in `config`, where other layers may have overridden some.
    pub fn reasons_in<'c>(&'c self, config: &Config) -> impl Iterator<Item = &'c str> + use<'c> {
        let resolved = Table::try_from(config).unwrap_or_default();
        let value = |table: &Table, key: &str| -> Option<Value> {
            let (name, key) = key.split_once('.')?;
            table.get(name)?.get(key).cloned()
        };
        let stands = move |key: &str| value(&self.table, key) == value(&resolved, key);
        self.reasons.iter().filter(move |(key, _)| stands(key)).map(|(_, reason)| reason.as_str())
    }
}

/// Chooses `data.image_size`, `encoder.width`, `train.batch`, `train.epochs`, `optim.warmup_epochs` and, for small
/// images, the colour strength that suits them.
///
/// There are `count` images of about `width` x `height` pixels, some of which are held out, and `trainer` has `memory`
/// bytes. If the encoder and its image size are `known`, they are kept.
pub fn choose(
    (count, width, height): (usize, u32, u32),
    (trainer, memory): (Trainer, u64),
    known: Option<&Config>,
) -> Choices {
    let mut reasons = Vec::new();
    let count = trained_on(&Config::default(), count);
    let (manage, (affordable, chosen_width)) = (trainer.manages(), trainer.affordable());

    let shorter = width.min(height);
    let chosen = SIDES.into_iter().rev().find(|&side| side <= shorter.min(affordable)).unwrap_or(SIDES[0]);
    let side = known.map_or(chosen, |known| known.data.image_size);
    let choice = format!(
        "views of {side} x {side} pixels: the photos are about {width} x {height}, and {manage} {affordable} \
         in good time"
    );

    let encoder_width = known.map_or(chosen_width, |known| known.encoder.width);
    if known.is_none() {
        reasons.push(("data.image_size", choice));
        reasons.push(("encoder.width", format!("encoder width {encoder_width}: what {manage} in good time")));
    }

    let times =
        if known.is_some_and(|known| resnet_spec(known).depth.is_bottleneck()) { BOTTLENECK } else { 1 };
    let per_image = 2 * times * bytes_per_view(side, encoder_width);
    let fits = usize::try_from(memory / 2 / per_image).unwrap_or(usize::MAX);
    let from_count = batch::suiting(count);
    let size = power_of_two_up_to(fits.min(from_count).clamp(2, 256));
    let limit = if size == 256 {
        "as large as is useful here".to_owned()
    } else if fits <= from_count {
        batch::of_memory(memory)
    } else {
        batch::of_count(count, size, "photos")
    };
    reasons.push(("train.batch", format!("batch of {size}: {limit}")));

    let epochs = (IMAGES_SEEN / count.max(1)).clamp(10, 200);
    let warmup = warmup_of(epochs as f64);
    reasons.push((
        "train.epochs",
        format!("{epochs} epochs: about {} thousand photos seen in all", (epochs * count).div_ceil(1000)),
    ));

    let mut changes = vec![
        ("data", "image_size", Value::from(side)),
        ("encoder", "width", Value::from(encoder_width)),
        ("train", "batch", whole(size)),
        ("train", "epochs", whole(epochs)),
        ("optim", "warmup_epochs", Value::from(warmup)),
    ];
    if side <= 32 {
        changes.push(("view", "color_strength", Value::from(0.5)));
        let reason = "colour strength 0.5: the paper's value for small images".to_owned();
        reasons.push(("view.color_strength", reason));
    }

    let mut table = Table::new();
    for (name, key, value) in changes {
        let entry = table.entry(name).or_insert_with(|| Table::new().into());
        if let Value::Table(entry) = entry {
            entry.insert(key.to_owned(), value);
        }
    }
    Choices { table, reasons }
}

fn warmup_of(epochs: f64) -> f64 {
    (epochs / 10.0).min(10.0)
}

/// The warm-up of a configuration, in epochs.
pub(crate) fn warmup(config: &Table) -> Option<f64> {
    config.get("optim")?.get("warmup_epochs")?.as_float()
}

/// Adapts the warm-up to the epochs, which may have been set, if it is still the `chosen` one.
pub(crate) fn follow_epochs(chosen: Option<f64>, merged: &mut Table) {
    let epochs = merged.get("train").and_then(|train| train.get("epochs")).and_then(Value::as_integer);
    if let Some(epochs) = epochs
        && warmup(merged) == chosen
        && let Some(Value::Table(optim)) = merged.get_mut("optim")
    {
        optim.insert("warmup_epochs".to_owned(), Value::from(warmup_of(epochs as f64)));
    }
}

/// Estimates the bytes that one view takes in a training step of a ResNet-18: two copies (value and gradient) in f32
/// of the output of every convolution and BatchNorm.
fn bytes_per_view(side: u32, width: f64) -> u64 {
    let pixels = f64::from(side) * f64::from(side);
    // The ImageNet stem quarters each side before the first stage. The stages have 1 + 1/2 + 1/4 + 1/8 times the
    // first's values, with five layers of two outputs each.
    let (stem, first_stage) = if side > 32 { (pixels / 4.0, pixels / 16.0) } else { (pixels, pixels) };
    let values = 64.0 * width * (2.0 * stem + 10.0 * 1.875 * first_stage);
    ((8.0 * values) as u64).max(1)
}

fn power_of_two_up_to(n: usize) -> usize {
    1 << n.max(1).ilog2()
}

fn whole(n: usize) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Trainer::{Gpu, Processors};
    use super::*;
    use crate::config::Layers;

    const GIB: u64 = 1 << 30;

    fn resolved(count: usize, side: u32, memory: u64, trainer: Trainer) -> Config {
        let choices = choose((count, side, side), (trainer, memory), None);
        assert!(choices.reasons.len() >= 4);
        let chosen = Some(choices.table.clone());
        let config =
            Config::resolve(&Layers { preset: Some("photos"), chosen, ..Layers::default() }).unwrap();
        assert_eq!(choices.reasons_in(&config).count(), choices.reasons.len());
        config
    }

    #[test]
    fn sizes_follow_the_photos_and_the_machine() {
        assert_eq!(resolved(10_000, 4000, 16 * GIB, Processors(2)).data.image_size, 64);
        assert_eq!(resolved(10_000, 4000, 64 * GIB, Processors(128)).data.image_size, 224);
        assert_eq!(resolved(10_000, 4000, 64 * GIB, Gpu).encoder.width, 1.0);
        let sizes = [1, 3, 4, 15, 16, 63, 64].map(|processors| {
            let config = resolved(10_000, 4000, 64 * GIB, Processors(processors));
            (config.data.image_size, config.encoder.width)
        });
        let [few, some, many] = [(64, 0.25), (96, 0.5), (128, 1.0)];
        assert_eq!(sizes, [few, few, some, some, many, many, (224, 1.0)]);
        assert_eq!(resolved(10_000, 50, 64 * GIB, Processors(128)).data.image_size, 32);
        assert_eq!(resolved(10_000, 1, 64 * GIB, Processors(128)).data.image_size, 32);
    }

    #[test]
    fn epochs_follow_the_images_to_be_seen() {
        let epochs = |count| resolved(count, 500, 64 * GIB, Processors(8)).train.epochs;
        // 512 of 10,000 images are held out, and a tenth of 1,000.
        assert_eq!([1_000, 10_000, 100_000].map(epochs), [200, 42, 10]);
    }

    #[test]
    fn a_known_encoder_is_not_chosen() {
        let mut known = Config::default();
        known.encoder.name = crate::config::Depth::D50;
        known.data.image_size = 96;
        let Choices { table: chosen, reasons } =
            choose((10_000, 500, 500), (Processors(2), 2 * GIB), Some(&known));
        assert!(!reasons.iter().any(|(key, _)| ["encoder.width", "data.image_size"].contains(key)));
        let batch = |table: &Table| table["train"]["batch"].as_integer().unwrap();
        known.encoder.name = crate::config::Depth::D18;
        let shallow = choose((10_000, 500, 500), (Processors(2), 2 * GIB), Some(&known)).table;
        assert!(batch(&chosen) < batch(&shallow), "{} and {}", batch(&chosen), batch(&shallow));
    }

    #[test]
    fn what_was_asked_for_otherwise_is_not_explained() {
        let choices = choose((720, 500, 400), (Processors(2), 16 * GIB), None);
        let sets = ["train.batch=32", "train.epochs=20"].map(str::to_owned);
        let chosen = Some(choices.table.clone());
        let layers = Layers { preset: Some("photos"), chosen, sets: &sets, ..Layers::default() };
        let config = Config::resolve(&layers).unwrap();
        let said: Vec<&str> = choices.reasons_in(&config).collect();
        assert_eq!(said.len(), choices.reasons.len() - 2, "{said:?}");
        assert!(!said.iter().any(|reason| reason.contains("batch") || reason.contains("epochs")), "{said:?}");
        // The warm-up follows the epochs unless it is set.
        assert_eq!(config.optim.warmup_epochs, 2.0);
        let sets = ["train.epochs=20", "optim.warmup_epochs=3"].map(str::to_owned);
        let config = Config::resolve(&Layers { sets: &sets, ..layers }).unwrap();
        assert_eq!(config.optim.warmup_epochs, 3.0);
    }

    #[test]
    fn the_batch_fits_the_memory_and_the_photos() {
        assert_eq!(resolved(10_000, 500, 64 * GIB, Processors(8)).train.batch, 256);
        assert!(resolved(10_000, 500, GIB / 4, Processors(64)).train.batch < 64);
        assert_eq!(resolved(300, 500, 64 * GIB, Processors(8)).train.batch, 32);
        assert_eq!(resolved(10, 500, 64 * GIB, Processors(8)).train.batch, 4);
    }

    #[test]
    fn any_photos_and_machine_give_a_valid_configuration() {
        for count in [0, 1, 2, 3, 17, 1000, 10_000_000] {
            for side in [0, 1, 32, 33, 100, 65_500] {
                for memory in [0, 1, GIB, u64::MAX] {
                    for trainer in [0, 1, 2, 8, 1000].map(Processors).into_iter().chain([Gpu]) {
                        let config = resolved(count, side, memory, trainer);
                        assert!(count < 4 || config.train.batch <= count, "{count} {}", config.train.batch);
                    }
                }
            }
        }
    }
}
