//! The number of labels to train on.

use std::fmt;
use std::str::FromStr;

/// How many of the training images come with labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Labels {
    /// A share, in percent, above 0 and up to 100.
    Percent(f64),
    /// A number of images, over all classes together.
    Images(usize),
}

impl Labels {
    /// The number of images out of `all`, rounded.
    pub fn count(self, all: usize) -> usize {
        match self {
            Labels::Percent(percent) => (all as f64 * percent / 100.0).round() as usize,
            Labels::Images(images) => images,
        }
    }

    /// The share of `all` images, in percent.
    pub fn percent(self, all: usize) -> f64 {
        match self {
            Labels::Percent(percent) => percent,
            Labels::Images(images) => 100.0 * images as f64 / all as f64,
        }
    }
}

impl fmt::Display for Labels {
    /// `10%`, or `500`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Labels::Percent(percent) => write!(f, "{percent}%"),
            Labels::Images(images) => write!(f, "{images}"),
        }
    }
}

/// Text that is no number of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a share, such as 1% or 10%, up to 100%, or a whole number of images")]
pub struct BadLabels;

impl FromStr for Labels {
    type Err = BadLabels;

    fn from_str(text: &str) -> Result<Labels, BadLabels> {
        let labels = match text.strip_suffix('%') {
            Some(percent) => {
                let percent =
                    percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent) && *percent > 0.0);
                percent.map(Labels::Percent)
            }
            None => text.parse().ok().filter(|&images| images > 0).map(Labels::Images),
        };
        labels.ok_or(BadLabels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_numbers() {
        for text in ["1%", "10%", "0.5%", "100%", "500"] {
            assert_eq!(text.parse::<Labels>().unwrap().to_string(), text);
        }
        for text in ["", "%", "0%", "0", "-1", "101%", "nan%", "1.5", "ten"] {
            assert_eq!(text.parse::<Labels>(), Err(BadLabels), "{text}");
        }
        assert_eq!(Labels::Percent(1.0).count(1_281_167), 12_812);
        assert_eq!((Labels::Percent(1.0).count(40), Labels::Images(7).count(40)), (0, 7));
        assert_eq!(Labels::Images(5).percent(50), 10.0);
    }
}
