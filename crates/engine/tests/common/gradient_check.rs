//! Gradients against central finite differences.

use simclr_engine::{Mode, ParameterId, Parameters, Result, SingleProcess, Tape, Tensor, Var};

use super::values::uniform;

/// The number of coordinates to try in each tensor, evenly spaced.
const COORDINATES: usize = 64;

/// The settings of a check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    pub mode: Mode,
    /// How far a coordinate moves each way.
    pub step: f32,
    /// The largest difference allowed, relative to the largest gradient of the same tensor.
    pub tolerance: f64,
}

impl Check {
    /// For operators linear in each operand: differences are exact for any step, and a large step drowns rounding.
    pub const LINEAR: Check = Check { mode: Mode::Train, step: 0.5, tolerance: 1e-5 };
    /// For curved operators: the step balances rounding against curvature.
    pub const CURVED: Check = Check { mode: Mode::Train, step: 4e-3, tolerance: 1e-3 };
}

/// Compares the gradients of the sum of y[i] r[i] with central differences in every trained parameter, where y is the
/// output of `forward` and r are fixed random weights. The sum is taken in f64.
///
/// A coordinate whose step makes some output reach or leave zero, as at the kink of a ReLU, is not compared; this may
/// happen for at most half of them.
pub fn check_gradients(
    what: &str,
    parameters: &Parameters,
    check: Check,
    forward: impl Fn(&mut Tape) -> Result<Var>,
) {
    let run = |parameters: &Parameters| {
        let mut tape = Tape::new(parameters, check.mode, &SingleProcess);
        forward(&mut tape).unwrap().tensor().to_vec().unwrap()
    };
    let mut tape = Tape::new(parameters, check.mode, &SingleProcess);
    let y = forward(&mut tape).unwrap();
    let weights = uniform("cotangent", y.tensor().len());
    let dy = Tensor::from_slice(y.tensor().device(), y.tensor().shape(), &weights).unwrap();
    let gradients = tape.backward(&y, dy).unwrap();
    let zero: Vec<bool> = y.tensor().as_slice().unwrap().iter().map(|v| *v == 0.0).collect();

    let moved = |id: ParameterId, at: usize, to: f32| -> Option<f64> {
        let mut parameters = parameters.clone();
        parameters.get_mut(id).as_mut_slice().unwrap()[at] = to;
        let y = run(&parameters);
        let same_side = y.iter().zip(&zero).all(|(v, zero)| (*v == 0.0) == *zero);
        let sum = y.iter().zip(&weights).map(|(v, r)| f64::from(*v) * f64::from(*r)).sum();
        same_side.then_some(sum)
    };
    for id in parameters.ids().filter(|&id| parameters.kind(id).is_trained()) {
        let name = parameters.name(id);
        let value = parameters.get(id).to_vec().unwrap();
        let gradient = gradients.get(id).unwrap_or_else(|| panic!("{what}: {name} has no gradient"));
        assert_eq!(gradient.shape(), parameters.get(id).shape(), "{what}: shape of d{name}");
        let gradient = gradient.as_slice().unwrap();
        let scale = gradient.iter().fold(1e-3f64, |m, g| m.max(f64::from(g.abs())));
        let (mut tried, mut compared, mut worst) = (0, 0, 0f64);
        for at in (0..value.len()).step_by(value.len().div_ceil(COORDINATES)) {
            tried += 1;
            let (low, high) = (value[at] - check.step, value[at] + check.step);
            let (Some(down), Some(up)) = (moved(id, at, low), moved(id, at, high)) else {
                continue;
            };
            compared += 1;
            let want = (up - down) / (f64::from(high) - f64::from(low));
            let off = (f64::from(gradient[at]) - want).abs() / scale;
            worst = worst.max(off);
            assert!(
                off <= check.tolerance,
                "{what}: d{name}[{at}] is {}, differences say {want}: {off:.1e} of {scale:.3}",
                gradient[at]
            );
        }
        println!("{what}: d{name} off by at most {worst:.1e}, {compared} of {tried} compared");
        assert!(
            2 * compared >= tried,
            "{what}: only {compared} of {tried} coordinates of {name} lie off the kinks"
        );
    }
}
