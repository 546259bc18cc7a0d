//! The rate for fine-tuning a network.

use std::fmt;
use std::str::FromStr;

/// The multiples of the paper's rate that are tried when it is tuned.
const TIMES: [f64; 4] = [1.0, 3.0, 10.0, 30.0];
/// The most letters of a list of rates in a name: with everything else in it, it still fits in a file name.
const MAX_LIST_LEN: usize = 100;
/// What the name of a longer list begins with.
pub(in crate::protocols) const BEST_OF: &str = "best-of-";

/// The rate of the first step, from which a cosine schedule goes down to 0.
///
/// A pretrained network and one trained from scratch need not learn best at the same rate, so comparing them at a
/// single rate may favour either. [`Rate::Tuned`] and [`Rate::BestOf`] choose a rate for each.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Rate {
    /// The paper's rate for pretrained networks: 0.05 x batch / 256 (arXiv:2002.05709, B.5).
    #[default]
    Paper,
    /// A given rate.
    Is(f64),
    /// The best, for each network separately, of 1, 3, 10 and 30 times the paper's rate.
    Tuned,
    /// The best, for each network separately, of these rates.
    BestOf(Vec<f64>),
}

impl Rate {
    /// The rates to try with batches of `batch` images, each once, the lowest first; a single one if the rate is
    /// fixed.
    pub fn rates(&self, batch: usize) -> Vec<f64> {
        let paper = 0.05 * batch as f64 / 256.0;
        match self {
            Rate::Paper => vec![paper],
            Rate::Is(rate) => vec![*rate],
            Rate::Tuned => TIMES.map(|times| times * paper).to_vec(),
            Rate::BestOf(rates) => ordered(rates),
        }
    }
}

fn ordered(rates: &[f64]) -> Vec<f64> {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    rates
}

impl fmt::Display for Rate {
    /// As in the names of results: `paper`, `0.1`, `tuned`, `0.01+0.1`; a list too long for a file name by its length
    /// and a checksum (CRC-32C), `best-of-13-0123abcd`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Paper => f.write_str("paper"),
            Rate::Is(rate) => f.write_str(&digits(*rate)),
            Rate::Tuned => f.write_str("tuned"),
            Rate::BestOf(rates) => {
                let rates: Vec<String> = ordered(rates).into_iter().map(digits).collect();
                let list = rates.join("+");
                match list.len() {
                    ..=MAX_LIST_LEN => f.write_str(&list),
                    _ => write!(f, "{BEST_OF}{}-{:08x}", rates.len(), crc32c::crc32c(list.as_bytes())),
                }
            }
        }
    }
}

/// Shortest form: `1e-30`, and `3` rather than `3.0`.
pub(super) fn digits(value: f64) -> String {
    format!("{value:?}").trim_end_matches(".0").to_owned()
}

/// Text that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number above 0, several separated by commas to choose from, or tuned")]
pub struct BadRate;

impl FromStr for Rate {
    type Err = BadRate;

    /// `tuned`, `0.1`, or several to choose from: `0.01,0.1`.
    fn from_str(text: &str) -> Result<Rate, BadRate> {
        if text == "tuned" {
            return Ok(Rate::Tuned);
        }
        let number = |text: &str| match text.trim().parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
            _ => Err(BadRate),
        };
        let rates = text.split(',').map(number).collect::<Result<Vec<f64>, BadRate>>()?;
        Ok(match rates[..] {
            [rate] => Rate::Is(rate),
            _ => Rate::BestOf(rates),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_several() {
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        assert_eq!(rate("0.1"), Rate::Is(0.1));
        assert_eq!(rate("0.1, 0.01"), Rate::BestOf(vec![0.1, 0.01]));
        assert_eq!(rate("tuned"), Rate::Tuned);
        for text in ["", "0", "-1", "0.1,", "nan", "inf", "1e999", "best", "0.1;0.2"] {
            assert_eq!(text.parse::<Rate>(), Err(BadRate), "{text}");
        }
        for text in ["tuned", "0.1", "1e-30", "2"] {
            assert_eq!(rate(text).to_string(), text);
        }
        assert_eq!(rate("1,1e-3,1").to_string(), "0.001+1");
    }

    #[test]
    fn long_lists_have_short_names() {
        let rates: Vec<f64> = (0..13).map(|n| 10_f64.powf(f64::from(n) / 7.0 - 3.0)).collect();
        let name = Rate::BestOf(rates.clone()).to_string();
        assert!(name.starts_with("best-of-13-") && name.len() == 19, "{name}");
        // The order of a list does not count, each of its rates does.
        let reversed = rates.iter().rev().copied().collect();
        assert_eq!(Rate::BestOf(reversed).to_string(), name);
        let other = rates.iter().map(|rate| rate * 2.0).collect();
        assert_ne!(Rate::BestOf(other).to_string(), name);
    }

    #[test]
    fn rates_to_try() {
        assert_eq!(Rate::Paper.rates(256), [0.05]);
        assert_eq!(Rate::Tuned.rates(512), [0.1, 3.0 * 0.1, 1.0, 3.0]);
        assert_eq!(Rate::Is(2.0).rates(512), [2.0]);
        assert_eq!(Rate::BestOf(vec![2.0, 1.0, 2.0]).rates(1), [1.0, 2.0]);
    }
}
