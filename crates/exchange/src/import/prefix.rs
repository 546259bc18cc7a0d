//! Finds a ResNet that is part of a larger network, by the prefix before torchvision's names, or by the numbers that
//! replace them where its layers were made a list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::{ExchangeError, Result};

/// The first convolution's name, in torchvision's ResNets and in ResNet-D.
const FIRST: [&str; 2] = ["conv1.weight", "conv1.0.weight"];
/// A running average of its BatchNorm, which tells a network from an optimiser's state: that has parameters only.
const AVERAGE: &str = "bn1.running_mean";
/// The first block's convolution.
const BLOCK: &str = "layer1.0.conv1.weight";
/// The same after the number of its stage, in a list of a ResNet's layers such as
/// `nn.Sequential(*resnet.children())`.
const BLOCK_OF_STAGE: &str = ".0.conv1.weight";

/// How a file names the tensors of a ResNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Naming {
    /// The prefix of each name.
    pub prefix: String,
    /// In a list of layers, the number of the first stage: the first convolution has 0, its BatchNorm 1.
    first_stage: Option<usize>,
    /// The prefixes of the file's other ResNets.
    pub others: Vec<String>,
}

impl Naming {
    /// The naming of the ResNet in a file; of several, of the one with the given prefix.
    ///
    /// # Errors
    /// Several without a given prefix, or none with it.
    pub fn choose(path: &Path, names: &[&str], given: Option<&str>) -> Result<Naming> {
        let mut found = Naming::all(names);
        let prefixes =
            |found: &[Naming]| found.iter().map(|naming| quoted(&naming.prefix)).collect::<Vec<_>>();
        let problem = |problem: String| ExchangeError::weights(path, problem);
        let at = match (given, &found[..]) {
            (None, []) => return Ok(Naming { prefix: String::new(), first_stage: None, others: Vec::new() }),
            (None, [_]) => 0,
            // A network without a prefix takes precedence.
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

    /// The namings of all ResNets in a file, by their prefixes.
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

    /// Torchvision's name of a tensor, if it belongs to this ResNet.
    pub fn own(&self, stored: &str) -> Option<String> {
        let name = stored.strip_prefix(&self.prefix)?;
        // Another whole network may follow this prefix.
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

/// Prefixes for a message; the empty one is spelled out too.
fn quoted(prefix: &str) -> String {
    match prefix {
        "" => "\"\" (nothing)".to_owned(),
        prefix => format!("`{prefix}`"),
    }
}
