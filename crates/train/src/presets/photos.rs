//! Sizes for a user's own photos, chosen by the photos and the machine.

use toml::{Table, Value};

use crate::Config;
use crate::pretrain::trained_on;

/// The sides of a view to choose from, in pixels.
const SIDES: [u32; 6] = [32, 64, 96, 128, 160, 224];

/// The preset's name.
pub const NAME: &str = "photos";

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

/// What is settled already.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Known {
    /// `data.image_size`.
    pub side: Option<u32>,
    /// `encoder.width`.
    pub width: Option<f64>,
}

/// Chooses what is not `known` of `data.image_size` and `encoder.width`, `train.epochs`, `optim.warmup_epochs` and, for
/// small images, the colour strength that suits them. The batch follows from these ([`batch`](super::batch)).
///
/// There are `count` images of about `width` x `height` pixels, some of which are held out.
pub fn choose((count, width, height): (usize, u32, u32), trainer: Trainer, known: Known) -> Choices {
    let mut reasons = Vec::new();
    let count = trained_on(&Config::default(), count);
    let (manage, (affordable, chosen_width)) = (trainer.manages(), trainer.affordable());

    let shorter = width.min(height);
    let chosen = SIDES.into_iter().rev().find(|&side| side <= shorter.min(affordable)).unwrap_or(SIDES[0]);
    let side = known.side.unwrap_or(chosen);
    let choice = format!(
        "views of {side} x {side} pixels: the photos are about {width} x {height}, and {manage} {affordable} \
         in good time"
    );

    let encoder_width = known.width.unwrap_or(chosen_width);
    if known.side.is_none() {
        reasons.push(("data.image_size", choice));
    }
    if known.width.is_none() {
        reasons.push(("encoder.width", format!("encoder width {encoder_width}: what {manage} in good time")));
    }

    let epochs = (IMAGES_SEEN / count.max(1)).clamp(10, 200);
    let warmup = warmup_of(epochs as f64);
    reasons.push((
        "train.epochs",
        format!("{epochs} epochs: about {} thousand photos seen in all", (epochs * count).div_ceil(1000)),
    ));

    let mut changes = vec![
        ("data", "image_size", Value::from(side)),
        ("encoder", "width", Value::from(encoder_width)),
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

/// Adapts the warm-up to the epochs, which may have been set, unless it is `stated` itself.
pub(crate) fn follow_epochs(stated: &Table, merged: &mut Table) {
    if stated.get("optim").is_some_and(|optim| optim.get("warmup_epochs").is_some()) {
        return;
    }
    let epochs = merged.get("train").and_then(|train| train.get("epochs")).and_then(Value::as_integer);
    if let Some(epochs) = epochs
        && let Some(Value::Table(optim)) = merged.get_mut("optim")
    {
        optim.insert("warmup_epochs".to_owned(), Value::from(warmup_of(epochs as f64)));
    }
}

fn whole(n: usize) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Trainer::{Gpu, Processors};
    use super::*;
    use crate::config::Layers;

    fn resolved(count: usize, side: u32, trainer: Trainer) -> Config {
        let choices = choose((count, side, side), trainer, Known::default());
        assert!(choices.reasons.len() >= 3);
        let chosen = Some(choices.table.clone());
        let config =
            Config::resolve(&Layers { preset: Some("photos"), chosen, ..Layers::default() }).unwrap();
        assert_eq!(choices.reasons_in(&config).count(), choices.reasons.len());
        config
    }

    #[test]
    fn sizes_follow_the_photos_and_the_machine() {
        assert_eq!(resolved(10_000, 4000, Processors(2)).data.image_size, 64);
        assert_eq!(resolved(10_000, 4000, Processors(128)).data.image_size, 224);
        assert_eq!(resolved(10_000, 4000, Gpu).encoder.width, 1.0);
        let sizes = [1, 3, 4, 15, 16, 63, 64].map(|processors| {
            let config = resolved(10_000, 4000, Processors(processors));
            (config.data.image_size, config.encoder.width)
        });
        let [few, some, many] = [(64, 0.25), (96, 0.5), (128, 1.0)];
        assert_eq!(sizes, [few, few, some, some, many, many, (224, 1.0)]);
        assert_eq!(resolved(10_000, 50, Processors(128)).data.image_size, 32);
        assert_eq!(resolved(10_000, 1, Processors(128)).data.image_size, 32);
    }

    #[test]
    fn epochs_follow_the_images_to_be_seen() {
        let epochs = |count| resolved(count, 500, Processors(8)).train.epochs;
        // 512 of 10,000 images are held out, and a tenth of 1,000.
        assert_eq!([1_000, 10_000, 100_000].map(epochs), [200, 42, 10]);
    }

    #[test]
    fn what_is_known_is_not_chosen() {
        let of = |known| choose((10_000, 500, 500), Processors(2), known);
        let known = Known { side: Some(32), width: Some(1.0) };
        let Choices { table, reasons } = of(known);
        assert!(!reasons.iter().any(|(key, _)| ["encoder.width", "data.image_size"].contains(key)));
        assert_eq!((&table["data"]["image_size"], &table["encoder"]["width"]), (&32.into(), &1.0.into()));
        // The colours are those for this size, not for the one that would have been chosen.
        assert_eq!(table["view"]["color_strength"].as_float(), Some(0.5));
        assert!(!of(Known { side: Some(64), ..known }).table.contains_key("view"));
        let small = choose((10_000, 32, 32), Processors(2), Known { side: Some(224), width: None });
        assert!(
            !small.table.contains_key("view") && small.table["encoder"]["width"].as_float() == Some(0.25)
        );
    }

    #[test]
    fn what_was_asked_for_otherwise_is_not_explained() {
        let choices = choose((720, 500, 400), Processors(2), Known::default());
        let sets = ["encoder.width=1", "train.epochs=20"].map(str::to_owned);
        let chosen = Some(choices.table.clone());
        let layers = Layers { preset: Some("photos"), chosen, sets: &sets, ..Layers::default() };
        let config = Config::resolve(&layers).unwrap();
        let said: Vec<&str> = choices.reasons_in(&config).collect();
        assert_eq!(said.len(), choices.reasons.len() - 2, "{said:?}");
        assert!(!said.iter().any(|reason| reason.contains("width") || reason.contains("epochs")), "{said:?}");
        // The warm-up follows the epochs unless it is set.
        assert_eq!(config.optim.warmup_epochs, 2.0);
        let sets = ["train.epochs=20", "optim.warmup_epochs=3"].map(str::to_owned);
        let config = Config::resolve(&Layers { sets: &sets, ..layers.clone() }).unwrap();
        assert_eq!(config.optim.warmup_epochs, 3.0);
        // Also if it is set to what would be chosen without the epochs.
        let own = choices.table["optim"]["warmup_epochs"].as_float().unwrap();
        let sets = ["train.epochs=50".to_owned(), format!("optim.warmup_epochs={own}")];
        let config = Config::resolve(&Layers { sets: &sets, ..layers }).unwrap();
        assert_eq!((own, config.optim.warmup_epochs), (10.0, 10.0));
    }

    #[test]
    fn any_photos_and_machine_give_a_valid_configuration() {
        for count in [0, 1, 2, 3, 17, 1000, 10_000_000] {
            for side in [0, 1, 32, 33, 100, 65_500] {
                for trainer in [0, 1, 2, 8, 1000].map(Processors).into_iter().chain([Gpu]) {
                    resolved(count, side, trainer);
                }
            }
        }
    }
}
