//! Ablation studies: a recipe, pretrained again with one change at a time.
//!
//! | file | |
//! |---|---|
//! | `builtin/*.toml` | the paper's studies |
//! | `table` | what came of a study: means over seeds, what of it may be chance, and how far the order is the paper's |

mod table;

use std::path::Path;

use simclr_data::not_a_file;

use crate::EvalError;
use crate::toml_file::{Keys, TomlFile};

pub use table::{Chance, Column, Mean, Measure, Order, Row, Trial, columns, main_measure, rows};

/// The most bytes in a variant's name as a folder: with the seed, it still fits in a file name.
const MAX_NAME_LEN: usize = 200;
/// The built-in studies: name and text.
const BUILT_IN: [(&str, &str); 7] = [
    ("losses", include_str!("builtin/losses.toml")),
    ("temperature", include_str!("builtin/temperature.toml")),
    ("head", include_str!("builtin/head.toml")),
    ("head-size", include_str!("builtin/head-size.toml")),
    ("batch", include_str!("builtin/batch.toml")),
    ("color", include_str!("builtin/color.toml")),
    ("views", include_str!("builtin/views.toml")),
];

/// A recipe in several variants.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    /// What is studied.
    pub title: String,
    /// The source of the figures beside the variants, and what they measure.
    pub source: Option<String>,
    /// Settings that all variants have (`table.key=value`), unless they, or the user's, say otherwise.
    pub set: Vec<String>,
    /// The variants, in the order they are shown.
    pub variants: Vec<Variant>,
    /// The names of variants that cannot be trained on the images at hand, and are no longer among `variants`.
    pub left_out: Vec<String>,
}

/// A variant of the recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Settings that differ (`table.key=value`); empty for the recipe as it is.
    pub set: Vec<String>,
    /// A published accuracy to compare with, in per cent.
    pub paper: Option<f64>,
    /// A published contrastive accuracy, likewise.
    pub paper_contrastive: Option<f64>,
}

impl Study {
    /// The names of the built-in studies.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|&(name, _)| name)
    }

    /// A built-in study by its name, or a study in a TOML file.
    ///
    /// # Errors
    /// [`EvalError::Option`] if `name` is neither, [`EvalError::NotAFile`], [`EvalError::Io`], and those of
    /// [`Study::parse`].
    pub fn find(name: &str) -> Result<Study, EvalError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Study::parse(text, name);
        }
        let path = Path::new(name);
        if not_a_file(path) == Some("no such file") {
            return Err(EvalError::Option {
                name: "STUDY",
                found: format!("{name:?}"),
                expected: "a TOML file, or a study that is built in: losses, temperature, head, head-size, batch, color or views",
            });
        }
        let text = EvalError::read(path, "a study, a TOML file", std::fs::read_to_string)?;
        Study::parse(&text, name)
    }

    /// The keys that it sets for all variants.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        keys(&self.set)
    }

    /// Whether each variant sets `key`, so that no value for all of them has an effect.
    pub fn varies(&self, key: &str) -> bool {
        self.variants.iter().all(|variant| variant.sets(key))
    }

    /// Parses a study; messages call it `origin`.
    ///
    /// # Errors
    /// Through [`EvalError::Train`], text that is not TOML, an unknown key (with the nearest suggested), an invalid
    /// value, fewer than two variants, and two variants of the same name.
    pub fn parse(text: &str, origin: &str) -> Result<Study, EvalError> {
        let file = TomlFile::parse(text, origin)?;
        let top = file.top();
        top.check(&["title", "source", "set", "variant"])?;
        let title = top.required("title", "what is studied, such as \"Width\"")?.to_owned();
        let (source, set) = (top.text("source")?.map(str::to_owned), top.texts("set")?);
        let mut variants: Vec<Variant> = Vec::new();
        for keys in file.tables("variant")? {
            let variant = Variant::read(&keys)?;
            if variants.iter().any(|other| other.folder() == variant.folder()) {
                let again = format!("{:?} again", variant.name);
                return Err(keys.bad("name", again, "another name for each variant"));
            }
            variants.push(variant);
        }
        match variants.len() {
            0 | 1 => {
                let expected = "at least two tables [[variant]], to compare";
                Err(top.bad("variant", format!("{} of them", variants.len()), expected))
            }
            _ => Ok(Study { title, source, set, variants, left_out: Vec::new() }),
        }
    }
}

/// The keys of settings, as far as these are `table.key=value`.
fn keys(set: &[String]) -> impl Iterator<Item = &str> {
    set.iter().filter_map(|set| Some(set.split_once('=')?.0.trim()))
}

impl Variant {
    fn read(keys: &Keys<'_>) -> Result<Variant, EvalError> {
        keys.check(&["name", "set", "paper", "paper_contrastive"])?;
        let name = keys.required("name", "a name, such as \"half\"")?.to_owned();
        let figure = |key| match keys.number(key)? {
            Some(figure) if !(0.0..=100.0).contains(&figure) => {
                Err(keys.bad(key, figure.to_string(), "a figure in per cent, 0 to 100"))
            }
            figure => Ok(figure),
        };
        let (paper, paper_contrastive) = (figure("paper")?, figure("paper_contrastive")?);
        let variant = Variant { name, set: keys.texts("set")?, paper, paper_contrastive };
        match variant.folder().len() {
            0 => Err(keys.bad("name", format!("{:?}", variant.name), "a name with letters or digits")),
            1..=MAX_NAME_LEN => Ok(variant),
            _ => {
                let expected = format!("up to {MAX_NAME_LEN} letters: it names a folder");
                Err(keys.bad("name", format!("{:?}", variant.name), expected))
            }
        }
    }

    /// The keys that it sets.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        keys(&self.set)
    }

    /// Whether it sets `key` itself.
    pub fn sets(&self, key: &str) -> bool {
        self.keys().any(|own| own == key)
    }

    /// The published figure that `measure` may be compared with, in per cent.
    pub fn published(&self, measure: Measure) -> Option<f64> {
        match measure {
            Measure::Linear => self.paper,
            Measure::Contrastive => self.paper_contrastive,
            Measure::Knn | Measure::LinearOfZ => None,
        }
    }

    /// Its name as a folder: lower-case letters, digits, dots and hyphens.
    pub fn folder(&self) -> String {
        let mut folder = String::new();
        for c in self.name.chars().flat_map(char::to_lowercase) {
            match c {
                c if c.is_alphanumeric() => folder.push(c),
                '.' if !folder.is_empty() => folder.push(c),
                _ if folder.is_empty() || folder.ends_with('-') => {}
                _ => folder.push('-'),
            }
        }
        folder.trim_end_matches(['-', '.']).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use simclr_augment::{CropBox, Stream, ViewOp};
    use simclr_train::{Config, Layers};

    use super::*;

    #[test]
    fn what_is_built_in_makes_sense() {
        for (name, _) in BUILT_IN {
            let study = Study::find(name).unwrap();
            assert!(study.source.is_some(), "{name}");
            for variant in &study.variants {
                let mut sets = [&study.set[..], &variant.set].concat();
                sets.push("train.device=cpu".to_owned());
                let layers = Layers { sets: &sets, ..Layers::default() };
                Config::resolve(&layers).unwrap_or_else(|error| panic!("{name}, {}: {error}", variant.name));
            }
        }
    }

    #[test]
    fn no_two_variants_of_views_draw_the_same() {
        let study = Study::find("views").unwrap();
        let drawn: Vec<(String, Vec<Vec<String>>)> = study
            .variants
            .iter()
            .map(|variant| {
                let sets = [&study.set[..], &variant.set].concat();
                let layers = Layers { sets: &sets, ..Layers::default() };
                // Small views, so that a default for larger ones cannot be what tells variants apart.
                let [first, second] = Config::resolve(&layers).unwrap().view.families(32).unwrap();
                let draws = (0..20).map(|image| {
                    let stream = |branch| Stream::new(5, 0, image, branch);
                    let [a, b] = [(&first, 0), (&second, 1)]
                        .map(|(family, branch)| family.draw(64, 48, &mut stream(branch)));
                    assert_eq!(b.steps.len(), 0, "{}: the second view stays as it is", variant.name);
                    let part = |a: CropBox, b: CropBox| {
                        a.left >= b.left
                            && a.top >= b.top
                            && a.left + a.width <= b.left + b.width
                            && a.top + a.height <= b.top + b.height
                    };
                    assert!(part(a.crop, b.crop), "{}: {:?} of {:?}", variant.name, a.crop, b.crop);
                    [a.describe(), b.describe()].concat()
                });
                (variant.name.clone(), draws.collect())
            })
            .collect();
        for (at, (name, draws)) in drawn.iter().enumerate() {
            for (other, others) in &drawn[..at] {
                assert_ne!(draws, others, "{name} is {other}");
            }
        }
    }

    /// A variant changes what its name says and nothing else: the rest is as in the recipe.
    #[test]
    fn operators_of_studies_are_those_of_the_recipe() {
        for (name, crops, colours) in [("color", 12, 10), ("views", 7, 2)] {
            let study = Study::find(name).unwrap();
            let mut recipe = study.set.clone();
            recipe.extend(
                ["view.crop_area=[0.3, 0.7]", "view.flip=0.25", "view.color_prob=0.6"].map(str::to_owned),
            );
            let base = Config::resolve(&Layers { sets: &recipe, ..Layers::default() }).unwrap();
            let (mut cropping, mut colouring) = (0, 0);
            for variant in &study.variants {
                let layers = Layers { base: Some(&base), sets: &variant.set, ..Layers::default() };
                let view = Config::resolve(&layers).unwrap().view;
                let usual = view.ops(224);
                for op in [&view.a, &view.b].into_iter().flat_map(|list| list.as_ref().unwrap_or(&usual)) {
                    match op {
                        ViewOp::RandomResizedCrop(crop) => {
                            assert_eq!(crop.area, [0.3, 0.7], "{}", variant.name);
                            cropping += 1;
                        }
                        ViewOp::HorizontalFlip(flip) => assert_eq!(flip.prob, 0.25, "{}", variant.name),
                        ViewOp::ColorJitter(jitter) => {
                            assert_eq!(jitter.prob, 0.6, "{}", variant.name);
                            colouring += 1;
                        }
                        _ => {}
                    }
                }
            }
            assert_eq!((cropping, colouring), (crops, colours), "{name}");
        }
    }

    #[test]
    fn variants_change_what_they_say() {
        let study = Study::find("temperature").unwrap();
        let dims = |variant: &Variant| {
            variant.set.iter().find_map(|set| set.strip_prefix("head.dim=")?.parse().ok())
        };
        let sizes: Vec<u32> = Study::find("head-size").unwrap().variants.iter().filter_map(dims).collect();
        assert_eq!(sizes, [32, 64, 128, 256, 512, 1024, 2048]);
        let temperatures = study
            .variants
            .iter()
            .filter(|variant| variant.set.iter().any(|set| set.starts_with("loss.temperature")));
        assert_eq!(temperatures.count(), study.variants.len());
        let folders: Vec<String> = study.variants.iter().map(Variant::folder).collect();
        assert_eq!(folders[0], "tau-0.05");
        let of = |name: &str| Variant { name: name.to_owned(), ..study.variants[0].clone() }.folder();
        assert_eq!(of(" ../Crop + Colour (1/2)."), "crop-colour-1-2");
    }

    #[test]
    fn wrong_studies_are_refused_by_line_and_key() {
        let two = "title = \"t\"\n[[variant]]\nname = \"a\"\n[[variant]]\n";
        for (text, words) in [
            ("title = ", "s.toml: TOML parse error at line 1"),
            ("title = 3", "s.toml, line 1: `title` is 3, expected text in quotes"),
            ("", "s.toml: `title` is nowhere, expected what is studied"),
            ("title = \"t\"", "s.toml: `variant` is 0 of them, expected at least two"),
            ("title = \"t\"\n[variant]\nname = \"a\"", "line 2: `variant` is one table, expected tables"),
            (two, "s.toml, line 4: `variant[1].name` is nowhere, expected a name"),
            (&format!("{two}name = \"A \""), "line 5: `variant.A .name` is \"A \" again"),
            (&format!("{two}name = \"-\""), "letters or digits"),
            (&format!("{two}name = \"{}\"", "b".repeat(201)), "up to 200 letters: it names a folder"),
            (
                &format!("{two}name = \"b\"\npapper = 3"),
                "line 6: unknown key `variant.b.papper`; did you mean `paper`?",
            ),
            (
                &format!("{two}zzz = 3"),
                "unknown key `variant[1].zzz`; the keys are name, set, paper, paper_contrastive",
            ),
            (
                &format!("{two}name = \"b\"\npaper = 300"),
                "`variant.b.paper` is 300, expected a figure in per cent",
            ),
            (
                &format!("{two}name = \"b\"\npaper_contrastive = -1"),
                "`variant.b.paper_contrastive` is -1, expected a figure in per cent",
            ),
            (&format!("{two}name = \"b\"\npaper = \"3\""), "`variant.b.paper` is \"3\", expected a number"),
            (
                &format!("{two}name = \"b\"\nset = \"a=1\""),
                "`variant.b.set` is \"a=1\", expected a list of texts",
            ),
        ] {
            let error = Study::parse(text, "s.toml").unwrap_err().to_string();
            assert!(error.contains("s.toml") && error.contains(words), "{text}: {error}");
        }
        let error = Study::find("losess").unwrap_err().to_string();
        assert!(error.contains("losses, temperature"), "{error}");
    }
}
