//! What stands before torchvision's names where a network is a part of another, and the numbers that stand for them
//! where it was made a list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{ExchangeError, Result};

/// The first convolution of every ResNet, as torchvision and as ResNet-D call it.
const FIRST: [&str; 2] = ["conv1.weight", "conv1.0.weight"];
/// An average of its BatchNorm: what an optimiser keeps of each parameter has none, and is no network.
const AVERAGE: &str = "bn1.running_mean";
/// Of the first block's.
const BLOCK: &str = "layer1.0.conv1.weight";
/// The same behind the number of its stage, in a list of a ResNet's layers: `nn.Sequential(*resnet.children())` and
/// the like.
const BLOCK_OF_STAGE: &str = ".0.conv1.weight";

/// How the tensors of a ResNet are called in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Naming {
    /// What stands before each name.
    pub prefix: String,
    /// In a list of layers, the number of the first stage: the first convolution has 0, its BatchNorm 1.
    first_stage: Option<usize>,
    /// What stands before the names of the file's other ResNets.
    pub others: Vec<String>,
}

impl Naming {
    /// How the tensors of the ResNet in a file are called, or, of several, of the one that is given.
    ///
    /// # Errors
    /// Several with none given, or none that is given.
    pub fn choose(path: &Path, names: &[&str], given: Option<&str>) -> Result<Naming> {
        let mut found = Naming::all(names);
        let prefixes =
            |found: &[Naming]| found.iter().map(|naming| quoted(&naming.prefix)).collect::<Vec<_>>();
        let problem = |problem: String| ExchangeError::weights(path, problem);
        let at = match (given, &found[..]) {
            (None, []) => return Ok(Naming { prefix: String::new(), first_stage: None, others: Vec::new() }),
            (None, [_]) => 0,
            // A network by itself, whatever else there is.
            (None, [first, ..]) if first.prefix.is_empty() => 0,
            (None, several) => {
                return Err(ExchangeError::Several { path: path.to_owned(), prefixes: prefixes(several) });
            }
            (Some(given), []) => {
                return Err(problem(format!(
                    "it holds no ResNet under torchvision's names, after {} or anything else",
                    quoted(given)
                )));
            }
            (Some(given), several) => {
                let is_given = |naming: &Naming| {
                    naming.prefix == given
                        || naming.prefix.strip_suffix('.').is_some_and(|prefix| prefix == given)
                };
                several.iter().position(is_given).ok_or_else(|| {
                    problem(format!(
                        "it holds no ResNet whose names begin with {}, but one after each of: {}",
                        quoted(given),
                        prefixes(several).join(", ")
                    ))
                })?
            }
        };
        let chosen = found.remove(at);
        Ok(Naming { others: found.into_iter().map(|other| other.prefix).collect(), ..chosen })
    }

    /// How those of all ResNets in a file are called, by what stands before them.
    fn all(names: &[&str]) -> Vec<Naming> {
        let known: BTreeSet<&str> = names.iter().copied().collect();
        let has = |prefix: &str, name: &str| known.contains(format!("{prefix}{name}").as_str());
        let mut found = BTreeMap::new();
        for name in names {
            if let Some(prefix) = name.strip_suffix(BLOCK)
                && (prefix.is_empty() || prefix.ends_with('.'))
                && FIRST.iter().any(|first| has(prefix, first))
                && has(prefix, AVERAGE)
            {
                found.insert(prefix, None);
            } else if let Some(stage) = name.strip_suffix(BLOCK_OF_STAGE) {
                let (prefix, number) = stage.split_at(stage.rfind('.').map_or(0, |point| point + 1));
                if let Ok(number) = number.parse::<usize>()
                    && has(prefix, "0.weight")
                    && has(prefix, "1.running_mean")
                {
                    let first = found.entry(prefix).or_insert(Some(number));
                    *first = first.map(|first| first.min(number));
                }
            }
        }
        let naming = |(prefix, first_stage): (&str, _)| Naming {
            prefix: prefix.to_owned(),
            first_stage,
            others: Vec::new(),
        };
        found.into_iter().map(naming).collect()
    }

    /// What torchvision calls a tensor, if it is one of this ResNet's.
    pub fn own(&self, stored: &str) -> Option<String> {
        let name = stored.strip_prefix(&self.prefix)?;
        // Behind this prefix there may be a whole network more.
        let is_of = |other: &String| other.len() > self.prefix.len() && stored.starts_with(other);
        if self.others.iter().any(is_of) {
            return None;
        }
        let Some(first_stage) = self.first_stage else {
            return Some(name.to_owned());
        };
        let (layer, rest) = name.split_once('.')?;
        match layer.parse().ok()? {
            0 => Some(format!("conv1.{rest}")),
            1 => Some(format!("bn1.{rest}")),
            number => {
                let stage = (1..=4).find(|stage| number == first_stage.saturating_add(stage - 1))?;
                Some(format!("layer{stage}.{rest}"))
            }
        }
    }
}

/// What stands before names, in a message; nothing is something to be named too.
fn quoted(prefix: &str) -> String {
    match prefix {
        "" => "\"\" (nothing)".to_owned(),
        prefix => format!("`{prefix}`"),
    }
}
