//! What stands before torchvision's names where a network is a part of another.

use std::collections::BTreeSet;

/// The first convolution of every ResNet, as torchvision and as ResNet-D call it.
const FIRST: [&str; 2] = ["conv1.weight", "conv1.0.weight"];
/// Of the first block's.
const BLOCK: &str = "layer1.0.conv1.weight";

/// What is to be taken off the names of a file: what stands before those of its ResNet, or, of several, the one that is given.
///
/// # Errors
/// Several with none given, or none that is given, in words.
pub(super) fn choose<'n>(
    names: impl Iterator<Item = &'n str>,
    given: Option<&str>,
) -> std::result::Result<String, String> {
    let found = all(names);
    let listed = || found.iter().map(|prefix| format!("`{prefix}`")).collect::<Vec<_>>().join(", ");
    match (given, &found[..]) {
        (Some(given), _) => {
            let same =
                |prefix: &&String| prefix.strip_suffix('.').unwrap_or(prefix) == given || *prefix == given;
            found.iter().find(same).cloned().ok_or_else(|| match found.is_empty() {
                true => {
                    format!("it holds no ResNet under torchvision's names, after `{given}` or anything else")
                }
                false => format!(
                    "it holds no ResNet whose names begin with `{given}`, but one after each of: {}",
                    listed()
                ),
            })
        }
        // What comes first is a network by itself, whatever else there is.
        (None, []) => Ok(String::new()),
        (None, [first, ..]) if first.is_empty() => Ok(String::new()),
        (None, [only]) => Ok(only.clone()),
        (None, _) => {
            Err(format!("it holds {} networks: say which by --prefix, one of {}", found.len(), listed()))
        }
    }
}

/// What stands before the names of the ResNets in a file, in order: nothing where it is one itself.
fn all<'n>(names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let names: BTreeSet<&str> = names.collect();
    let is_whole = |prefix: &str| prefix.is_empty() || prefix.ends_with('.');
    let begins = |prefix: &str| FIRST.iter().any(|first| names.contains(format!("{prefix}{first}").as_str()));
    let prefixes = names.iter().filter_map(|name| name.strip_suffix(BLOCK));
    let mut found: Vec<String> =
        prefixes.filter(|prefix| is_whole(prefix) && begins(prefix)).map(str::to_owned).collect();
    found.sort_unstable();
    found
}
