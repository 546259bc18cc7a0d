//! Ways to compute a convolution, and how they are remembered.

use std::fmt::Write as _;

use super::ConvolutionPass;
use super::engines::{Plan, Recipe};
use super::legacy::{self, Algorithm};

/// The most knobs of an engine that are read back.
const KNOBS: usize = 64;

const PRODUCT: &str = "product";
const STRIDED: &str = "strided";
const IN_TWO: &str = "in two";

/// A way to compute a convolution.
pub(super) enum Route {
    /// One of cuDNN's engines computes everything.
    Engine(Plan),
    /// One of the algorithms of cuDNN's older interface.
    Algorithm(Algorithm),
    /// A matrix product.
    Product,
    /// A matrix product of the pixels that the stride selects, which our kernels gather or scatter.
    Strided,
    /// Two stages: the result is computed in the activations' type, then our kernels add it, widen it, or compute sums.
    InTwo,
}

/// A route in the form that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Memo {
    Engine { recipe: Recipe },
    Algorithm { number: u32, math: u32 },
    Product,
    Strided,
    InTwo,
}

impl Route {
    pub fn memo(&self) -> Memo {
        match self {
            Route::Engine(plan) => Memo::Engine { recipe: plan.recipe.clone() },
            Route::Algorithm(of) => Memo::Algorithm { number: of.number, math: of.math },
            Route::Product => Memo::Product,
            Route::Strided => Memo::Strided,
            Route::InTwo => Memo::InTwo,
        }
    }
}

impl Memo {
    pub fn text(&self) -> String {
        match self {
            Memo::Engine { recipe } => {
                let mut text = format!("engine {}", recipe.engine);
                for (knob, value) in &recipe.knobs {
                    // Writing to a string does not fail.
                    let _ = write!(text, " {knob} {value}");
                }
                text
            }
            Memo::Algorithm { number, math } => format!("algorithm {number} {math}"),
            Memo::Product => PRODUCT.to_owned(),
            Memo::Strided => STRIDED.to_owned(),
            Memo::InTwo => IN_TWO.to_owned(),
        }
    }

    /// Parses the output of [`Memo::text`]; `None` for any other text.
    pub fn read(pass: ConvolutionPass, text: &str) -> Option<Memo> {
        match text {
            PRODUCT => return Some(Memo::Product),
            STRIDED => return Some(Memo::Strided),
            IN_TWO => return Some(Memo::InTwo),
            _ => {}
        }
        let (kind, numbers) = text.split_once(' ')?;
        let numbers: Vec<i64> = numbers.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
        let (&number, rest) = numbers.split_first()?;
        match kind {
            "engine" if rest.len().is_multiple_of(2) && rest.len() <= 2 * KNOBS => {
                let knob = |pair: &[i64]| Some((u32::try_from(pair[0]).ok()?, pair[1]));
                let knobs = rest.chunks_exact(2).map(knob).collect::<Option<_>>()?;
                Some(Memo::Engine { recipe: Recipe { engine: number, knobs } })
            }
            "algorithm" => {
                let &[math] = rest else { return None };
                let (number, math) = (u32::try_from(number).ok()?, u32::try_from(math).ok()?);
                legacy::exists(pass, number, math).then_some(Memo::Algorithm { number, math })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_read_as_it_was_written() {
        let pass = ConvolutionPass::BackwardInput;
        let engine = |knobs| Memo::Engine { recipe: Recipe { engine: 34, knobs } };
        for memo in [
            engine(vec![]),
            engine(vec![(2, 0), (14, -3)]),
            Memo::Algorithm { number: 5, math: 1 },
            Memo::Product,
            Memo::Strided,
            Memo::InTwo,
        ] {
            assert_eq!(Memo::read(pass, &memo.text()), Some(memo));
        }
        for damaged in [
            "",
            "in",
            "in two 1",
            "product 1",
            "strided 2",
            "engine",
            "engine x",
            "engine 5 3",
            "engine 5 -3 0",
            "algorithm 5",
            "algorithm 5 x",
            "algorithm 5 -1",
            "algorithm 6 1",
            "algorithm 5 4",
            "algorithm 5 1 0",
            "other 5 1 0",
        ] {
            assert_eq!(Memo::read(pass, damaged), None, "{damaged}");
        }
    }
}
