//! Keys without effect, given the values of other keys.

use simclr_augment::{GaussianBlur, ViewPreset};

use toml::Table;

use super::{Cache, Config, DeviceName, HeadKind, Stem, Variant, operators};

impl Config {
    /// Returns the setting, as `key=value`, that leaves `key` without effect in this configuration, or `None`.
    pub fn idle(&self, key: &str) -> Option<String> {
        let (head, optimizer, loss) = (self.head.kind, self.optim.name, self.loss.name);
        match key {
            "data.cache_limit" => (self.data.cache == Cache::None).then(|| "data.cache=none".to_owned()),
            "train.health_every" | "train.knn_every" => {
                (self.data.holdout == 0).then(|| "data.holdout=0".to_owned())
            }
            "encoder.pool_padding" => {
                let stem = self.encoder.stem_at(self.data.image_size);
                let pools = stem == Stem::ImageNet || self.encoder.settled_variant() == Variant::D;
                (!pools).then(|| "encoder.stem=small".to_owned())
            }
            "head.layers" | "head.hidden" => {
                (head != HeadKind::Nonlinear).then(|| format!("head.kind={head}"))
            }
            "head.dim" | "head.batch_norm" => (head == HeadKind::None).then(|| format!("head.kind={head}")),
            "loss.margin" => (!loss.takes_margin()).then(|| format!("loss.name={loss}")),
            "optim.beta2" | "optim.epsilon" => {
                (!optimizer.takes_beta2()).then(|| format!("optim.name={optimizer}"))
            }
            "optim.trust_coefficient" => {
                (!optimizer.takes_trust()).then(|| format!("optim.name={optimizer}"))
            }
            // The processor is always deterministic.
            "train.deterministic" => {
                (self.train.device == DeviceName::Cpu).then(|| "train.device=cpu".to_owned())
            }
            _ => key.strip_prefix("view.").and_then(|key| self.idle_view(key)),
        }
    }

    /// [`Config::idle`] for a key of `[view]`.
    fn idle_view(&self, key: &str) -> Option<String> {
        let view = &self.view;
        let of_shared_crop = ["crop_aspect", "crop_aspect_law"].contains(&key) && view.shared_crop.is_some();
        if ["a", "b", "shared_crop"].contains(&key) || of_shared_crop {
            return None;
        }
        let written = Table::try_from(view).unwrap_or_default();
        if operators::is_followed(&written, key) {
            return None;
        }
        if view.a.is_some() && view.b.is_some() {
            return Some("the lists view.a and view.b".to_owned());
        }
        if key == "preset" {
            return None;
        }
        if view.preset != ViewPreset::None {
            return Some("view.preset".to_owned());
        }
        let off = |prob: f32, name: &str| (prob == 0.0).then(|| format!("view.{name}=0"));
        let size = self.data.image_size;
        let too_small = || (!GaussianBlur::changes(size)).then(|| format!("data.image_size={size}"));
        match key {
            "blur_prob" if view.blur_prob_at(size) > 0.0 => too_small(),
            "blur_sigma" | "blur_padding" => off(view.blur_prob_at(size), "blur_prob").or_else(too_small),
            "color_strength" => off(view.color_prob, "color_prob"),
            "brightness" => {
                off(view.color_prob, "color_prob").or_else(|| off(view.color_strength, "color_strength"))
            }
            _ => None,
        }
    }
}
