//! The settings of a view family: the `[view]` table of a run's configuration.

use serde::{Deserialize, Serialize};
use simclr_words::words;

use crate::ops::Draw;
use crate::ops::blur::usual_prob;
use crate::{
    AspectLaw, AugmentError, BlurPadding, Brightness, ColorJitter, GaussianBlur, Grayscale, HorizontalFlip,
    RandomResizedCrop, ViewFamily, ViewOp, decimal,
};

/// The distribution of the views. The default is the ImageNet family of the paper; that of CIFAR differs by
/// `color_strength = 0.5` and, through the size, by having no blur.
///
/// Probabilities are in [0, 1]. Deserialising rejects unknown keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewConfig {
    /// Smallest and largest fraction of the image's area that a crop covers, in (0, 1]; uniform between them.
    /// [1, 1] on a square image keeps it whole.
    #[serde(serialize_with = "decimal::pair")]
    pub crop_area: [f32; 2],
    /// Smallest and largest width / height of a crop, in [0.01, 100].
    #[serde(serialize_with = "decimal::pair")]
    pub crop_aspect: [f32; 2],
    /// Distribution of the aspect ratio.
    pub crop_aspect_law: AspectLaw,
    /// Smallest and largest area of a crop that both views share, as a fraction of the image's, in (0, 1]; its aspect
    /// ratio is drawn as set above. Each branch then works on that part; when absent, on the whole image. For studies
    /// of one operator at a time (arXiv:2002.05709, section 3.1).
    #[serde(serialize_with = "decimal::optional_pair", skip_serializing_if = "Option::is_none")]
    pub shared_crop: Option<[f32; 2]>,
    /// Probability of a horizontal flip.
    #[serde(serialize_with = "decimal::one")]
    pub flip: f32,
    /// Strength s of the colour jitter, in [0, 2.5]: brightness, contrast and saturation factors in
    /// [max(0, 1 - 0.8 s), 1 + 0.8 s], hue shift in [-0.2 s, 0.2 s] of a full turn.
    #[serde(serialize_with = "decimal::one")]
    pub color_strength: f32,
    /// Probability of the colour jitter.
    #[serde(serialize_with = "decimal::one")]
    pub color_prob: f32,
    /// Whether brightness multiplies or adds.
    pub brightness: Brightness,
    /// Probability of turning a view grey.
    #[serde(serialize_with = "decimal::one")]
    pub gray_prob: f32,
    /// Probability of the Gaussian blur. When absent: 0.5 for views of more than 64 pixels, otherwise 0.
    #[serde(serialize_with = "decimal::optional", skip_serializing_if = "Option::is_none")]
    pub blur_prob: Option<f32>,
    /// Smallest and largest standard deviation of the blur in pixels of the view, in (0, 1000].
    #[serde(serialize_with = "decimal::pair")]
    pub blur_sigma: [f32; 2],
    /// What the blur sees beyond the border.
    pub blur_padding: BlurPadding,
    /// A named list of operators, used in place of the settings above.
    pub preset: ViewPreset,
    /// The operators of the first branch, in place of the preset's or of the settings above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub a: Option<Vec<ViewOp>>,
    /// The operators of the second branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<Vec<ViewOp>>,
}

words! {
    /// Lists of operators that have names.
    #[derive(Default)]
    ViewPreset {
        /// None: the settings of [`ViewConfig`] say what the operators are.
        #[default]
        None = "none",
        /// The family of the paper: crop, flip, colour jitter, greyscale, blur.
        Simclr = "simclr",
        /// The same as the first version of the authors' code had it: brightness adds.
        SimclrV1 = "simclr-v1",
        /// A random resized crop, nothing else.
        CropOnly = "crop-only",
        /// Crop and flip, as a classifier is trained.
        Supervised = "supervised",
    }
}

impl ViewPreset {
    /// Returns the preset's operators in order; for [`ViewPreset::None`], those of the paper.
    pub fn ops(self) -> Vec<ViewOp> {
        let crop = ViewOp::RandomResizedCrop(RandomResizedCrop::default());
        let flip = ViewOp::HorizontalFlip(HorizontalFlip::default());
        let brightness = match self {
            Self::CropOnly => return vec![crop],
            Self::Supervised => return vec![crop, flip],
            Self::SimclrV1 => Brightness::Additive,
            Self::None | Self::Simclr => Brightness::Multiplicative,
        };
        let jitter = ViewOp::ColorJitter(ColorJitter { brightness, ..ColorJitter::default() });
        let gray = ViewOp::Grayscale(Grayscale::default());
        vec![crop, flip, jitter, gray, ViewOp::GaussianBlur(GaussianBlur::default())]
    }
}

impl Default for ViewConfig {
    fn default() -> Self {
        Self {
            crop_area: [0.08, 1.0],
            crop_aspect: [0.75, 4.0 / 3.0],
            crop_aspect_law: AspectLaw::Uniform,
            shared_crop: None,
            flip: 0.5,
            color_strength: 1.0,
            color_prob: 0.8,
            brightness: Brightness::Multiplicative,
            gray_prob: 0.2,
            blur_prob: None,
            blur_sigma: [0.1, 2.0],
            blur_padding: BlurPadding::Zero,
            preset: ViewPreset::None,
            a: None,
            b: None,
        }
    }
}

impl ViewConfig {
    /// Crop and flip only: the family of linear evaluation and of fine-tuning.
    pub fn crop_flip() -> Self {
        Self { color_prob: 0.0, gray_prob: 0.0, blur_prob: Some(0.0), ..Self::default() }
    }

    /// Returns the probability of the blur for views of `size` x `size` pixels: as set, or the default for that size.
    pub fn blur_prob_at(&self, size: u32) -> f32 {
        self.blur_prob.unwrap_or_else(|| usual_prob(size))
    }

    /// States the probability of every blur, also of those listed, where the default for views of `size` x `size`
    /// pixels is meant.
    pub fn settled_at(mut self, size: u32) -> Self {
        self.blur_prob = Some(self.blur_prob_at(size));
        for op in [&mut self.a, &mut self.b].into_iter().flatten().flatten() {
            if let ViewOp::GaussianBlur(blur) = op {
                blur.prob = Some(blur.prob.unwrap_or_else(|| usual_prob(size)));
            }
        }
        self
    }

    /// Returns the families of the two branches, with views of `size` x `size` pixels.
    ///
    /// # Errors
    /// As [`ViewConfig::validate`], and for a `size` outside of 1 to 16,384.
    pub fn families(&self, size: u32) -> Result<[ViewFamily; 2], AugmentError> {
        self.validate()?;
        let family = |list: &Option<Vec<ViewOp>>| {
            let family = match list {
                Some(ops) => ViewFamily::from_ops(ops, size),
                None => ViewFamily::from_ops(&self.ops(size), size),
            }?;
            match self.shared_crop {
                Some(area) => family.of_shared_crop(self.crop_of(area)),
                None => Ok(family),
            }
        };
        Ok([family(&self.a)?, family(&self.b)?])
    }

    /// Returns the operators of a branch without its own list, in order, for views of `size` x `size` pixels.
    pub fn ops(&self, size: u32) -> Vec<ViewOp> {
        match self.preset {
            ViewPreset::None => self.own_ops(size),
            preset => preset.ops(),
        }
    }

    /// A crop with an area in this range and the aspect ratio of these settings.
    fn crop_of(&self, area: [f32; 2]) -> RandomResizedCrop {
        RandomResizedCrop { area, aspect: self.crop_aspect, aspect_law: self.crop_aspect_law }
    }

    /// The operators that the settings describe, without regard to presets and lists.
    fn own_ops(&self, size: u32) -> Vec<ViewOp> {
        vec![
            ViewOp::RandomResizedCrop(self.crop_of(self.crop_area)),
            ViewOp::HorizontalFlip(HorizontalFlip { prob: self.flip }),
            ViewOp::ColorJitter(ColorJitter {
                prob: self.color_prob,
                strength: self.color_strength,
                brightness: self.brightness,
            }),
            ViewOp::Grayscale(Grayscale { prob: self.gray_prob }),
            ViewOp::GaussianBlur(GaussianBlur {
                prob: Some(self.blur_prob_at(size)),
                sigma: self.blur_sigma,
                padding: self.blur_padding,
            }),
        ]
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`AugmentError::OutOfRange`] for the first invalid value, naming its key and what the key accepts.
    pub fn validate(&self) -> Result<(), AugmentError> {
        // Settings that a preset or a list overrides are checked too.
        let own = self.own_ops(1);
        own.iter().try_for_each(ViewOp::check).map_err(|error| error.renamed(own_key))?;
        let shared = self.shared_crop.map(|area| self.crop_of(area).check());
        shared.unwrap_or(Ok(())).map_err(|error| {
            error.renamed(|key| match key {
                "random_resized_crop.area" => "view.shared_crop".to_owned(),
                other => own_key(other),
            })
        })?;
        for (branch, list) in [("view.a", &self.a), ("view.b", &self.b)] {
            if let Some(ops) = list {
                ViewFamily::from_ops(ops, 1)
                    .map_err(|error| error.renamed(|key| format!("{branch}: {key}")))?;
            }
        }
        Ok(())
    }
}

/// Returns the key of the `[view]` table that sets an operator's `key`.
fn own_key(key: &str) -> String {
    let name = match key {
        "random_resized_crop.area" => "crop_area",
        "random_resized_crop.aspect" => "crop_aspect",
        "horizontal_flip.prob" => "flip",
        "color_jitter.prob" => "color_prob",
        "color_jitter.strength" => "color_strength",
        "grayscale.prob" => "gray_prob",
        "gaussian_blur.prob" => "blur_prob",
        "gaussian_blur.sigma" => "blur_sigma",
        other => other,
    };
    format!("view.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_blur_follows_the_size() {
        let config = ViewConfig::default();
        config.validate().unwrap();
        ViewConfig::crop_flip().validate().unwrap();
        assert_eq!(config.blur_prob_at(64), 0.0);
        assert_eq!(config.blur_prob_at(65), 0.5);
        let always = ViewConfig { blur_prob: Some(1.0), ..config };
        assert_eq!(always.blur_prob_at(32), 1.0);
    }

    #[test]
    fn lists_that_have_names() {
        let crop = ViewOp::RandomResizedCrop(RandomResizedCrop::default());
        let flip = ViewOp::HorizontalFlip(HorizontalFlip::default());
        assert_eq!(ViewPreset::CropOnly.ops(), std::slice::from_ref(&crop));
        assert_eq!(ViewPreset::Supervised.ops(), [crop, flip]);
        // The two versions of the authors' code differ in brightness alone.
        let mut first = ViewPreset::Simclr.ops();
        assert_eq!(first.len(), 5);
        let ViewOp::ColorJitter(jitter) = &mut first[2] else { panic!("{first:?}") };
        assert_eq!(jitter.brightness, Brightness::Multiplicative);
        jitter.brightness = Brightness::Additive;
        assert_eq!(ViewPreset::SimclrV1.ops(), first);
    }

    #[test]
    fn the_operators_of_the_paper_follow_one_another_as_there() {
        let paper = ["random_resized_crop", "horizontal_flip", "color_jitter", "grayscale", "gaussian_blur"];
        for ops in [ViewPreset::Simclr.ops(), ViewConfig::default().ops(224)] {
            let ops = serde_json::to_value(ops).unwrap();
            let names: Vec<&str> =
                ops.as_array().unwrap().iter().map(|op| op["op"].as_str().unwrap()).collect();
            assert_eq!(names, paper);
        }
    }

    #[test]
    fn messages_name_the_key_the_value_and_what_would_be_right() {
        let base = ViewConfig::default();
        let cases = [
            (ViewConfig { crop_area: [0.0, 1.0], ..base.clone() }, "view.crop_area = [0, 1]"),
            (ViewConfig { crop_area: [0.9, 0.2], ..base.clone() }, "view.crop_area = [0.9, 0.2]"),
            (ViewConfig { crop_area: [0.5, f32::NAN], ..base.clone() }, "view.crop_area = [0.5, NaN]"),
            (ViewConfig { crop_aspect: [0.0, 1.0], ..base.clone() }, "view.crop_aspect"),
            (ViewConfig { shared_crop: Some([0.0, 1.0]), ..base.clone() }, "view.shared_crop = [0, 1]"),
            (ViewConfig { flip: 1.5, ..base.clone() }, "view.flip = 1.5: must be a probability"),
            (ViewConfig { color_strength: -1.0, ..base.clone() }, "view.color_strength = -1"),
            (ViewConfig { color_prob: f32::NAN, ..base.clone() }, "view.color_prob"),
            (ViewConfig { gray_prob: 2.0, ..base.clone() }, "view.gray_prob"),
            (ViewConfig { blur_prob: Some(-0.1), ..base.clone() }, "view.blur_prob"),
            (ViewConfig { blur_sigma: [0.0, f32::INFINITY], ..base.clone() }, "view.blur_sigma = [0, inf]"),
            (ViewConfig { flip: 1.5, preset: ViewPreset::CropOnly, ..base.clone() }, "view.flip = 1.5"),
        ];
        for (config, expected) in cases {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn values_are_written_as_they_were_typed_and_read_back() {
        let config = ViewConfig {
            blur_prob: Some(0.3),
            shared_crop: Some([0.08, 0.9]),
            brightness: Brightness::Additive,
            crop_aspect_law: AspectLaw::LogUniform,
            ..ViewConfig::default()
        };
        let text = serde_json::to_value(&config).unwrap().to_string();
        assert!(text.contains(r#""crop_area":[0.08,1.0]"#), "{text}");
        assert!(text.contains(r#""crop_aspect_law":"log_uniform""#), "{text}");
        assert!(text.contains(r#""brightness":"additive""#), "{text}");
        assert_eq!(serde_json::from_str::<ViewConfig>(&text).unwrap(), config);
        let partial: ViewConfig = serde_json::from_str(r#"{"flip": 0.25}"#).unwrap();
        assert_eq!(partial, ViewConfig { flip: 0.25, ..ViewConfig::default() });
        let unknown = serde_json::from_str::<ViewConfig>(r#"{"flp": 0.25}"#).unwrap_err();
        assert!(unknown.to_string().contains("unknown field `flp`"));
    }
}
