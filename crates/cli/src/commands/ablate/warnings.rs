//! What is worth a warning before the first run of a study.

use anyhow::Result;
use simclr_eval::study::Variant;
use simclr_train::Config;
use simclr_train::config::{Difference, Scaling};

use crate::settings::{Settings, no_effect};
use crate::terminal;

/// Warns of keys without effect: those that variants set, naming the variants; and those of `settings`, which all have
/// in common, if they are without effect in all. Likewise of operators in lists that are never applied.
pub fn of_idle(settings: &Settings, variants: &[(&Variant, &Config)]) -> Result<()> {
    for key in settings.given()? {
        let in_all =
            variants.iter().all(|(variant, config)| config.idle(key).is_some() && !variant.sets(key));
        if let Some(reason) = variants.first().filter(|_| in_all).and_then(|(_, config)| config.idle(key)) {
            terminal::warn(&no_effect(key, &reason));
        }
    }
    let of_variants = variants.iter().flat_map(|&(variant, config)| {
        let idle = |key| Some((no_effect(key, &config.idle(key)?), &*variant.name));
        variant.keys().filter_map(idle)
    });
    for (what, names) in grouped(of_variants) {
        terminal::warn(&format!("{}: {what}", naming(&names)));
    }
    let mut unapplied = Vec::new();
    for (variant, config) in variants {
        let of_variant = settings.of_variant(&variant.set).unapplied(config)?;
        unapplied.extend(of_variant.into_iter().map(|what| (what, &*variant.name)));
    }
    for (what, names) in grouped(unapplied.into_iter()) {
        match names.len() == variants.len() {
            true => terminal::warn(&what),
            false => terminal::warn(&format!("{}: {what}", naming(&names))),
        }
    }
    Ok(())
}

/// Warns of variants that do not differ from each other in any key with an effect.
pub fn of_same(base: &Config, variants: &[(&Variant, &Config)]) {
    let changes = variants.iter().map(|&(variant, config)| {
        let mut changes = differences(base, config);
        changes.retain(|change| config.idle(change.key).is_none());
        (changes, &*variant.name)
    });
    for (_, names) in grouped(changes).into_iter().filter(|(_, names)| names.len() > 1) {
        terminal::warn(&format!(
            "{} are the same: what they change has no effect, or is what --preset, --config or --set says already",
            naming(&names)
        ));
    }
}

/// Warns if batches of different sizes have one learning rate, so that more is compared than the batch.
pub fn of_unscaled<'c>(variants: impl Iterator<Item = &'c Config>) {
    let unscaled: Vec<&Config> = variants.filter(|config| config.optim.scaling == Scaling::None).collect();
    let alike = |pair: &&[&Config]| {
        let [a, b] = [&pair[0], &pair[1]];
        let alike = (a.optim.name, a.optim.settled_rate()) == (b.optim.name, b.optim.settled_rate());
        a.train.batch != b.train.batch && alike
    };
    if let Some(pair) = unscaled.windows(2).find(alike) {
        terminal::warn(&format!(
            "optim.scaling=none: batches of every size are trained at the learning rate {}; in the paper it follows the batch \
             (--set optim.scaling=linear: optim.rate x batch / 256)",
            pair[0].optim.settled_rate()
        ));
    }
}

/// The keys in which `variant` differs from `base`, except the seed.
pub fn differences(base: &Config, variant: &Config) -> Vec<Difference> {
    let mut differences = base.differences(variant);
    differences.retain(|difference| difference.key != "train.seed");
    differences
}

/// The names that each thing is said of, in the order in which they come.
pub fn grouped<'n, T: PartialEq>(said: impl Iterator<Item = (T, &'n str)>) -> Vec<(T, Vec<&'n str>)> {
    let mut groups: Vec<(T, Vec<&str>)> = Vec::new();
    for (what, name) in said {
        match groups.iter_mut().find(|group| group.0 == what) {
            Some((_, names)) => names.push(name),
            None => groups.push((what, vec![name])),
        }
    }
    groups
}

/// "variant "a"", or "variants "a", "b"".
pub fn naming(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("variant{} {}", if names.len() == 1 { "" } else { "s" }, quoted.join(", "))
}
