//! What an optimiser does with gradients, at once or when the device comes to it.

use crate::{DType, Device, EngineError, LossScale, Result, Tensor, Verdict, bias_corrections};

/// An optimiser, with what stays the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Momentum, at a rate that is adapted to each weight (You et al., arXiv:1708.03888).
    Lars {
        /// 0.001 by custom.
        trust_coefficient: f64,
        /// 0.9 by custom.
        momentum: f32,
        /// L2 weight decay.
        decay: f32,
    },
    /// SGD with momentum.
    Momentum {
        /// 0.9 by custom.
        momentum: f32,
        /// L2 weight decay.
        decay: f32,
        /// Look ahead by one step of momentum.
        nesterov: bool,
    },
    /// AdamW (Loshchilov and Hutter, arXiv:1711.05101).
    AdamW {
        /// Decay of the first and of the second moment.
        betas: [f32; 2],
        /// Added to the root of the second moment.
        epsilon: f32,
        /// Weight decay, multiplied by the rate.
        decay: f32,
    },
}

impl Rule {
    /// Values of state for each value of a parameter.
    pub fn copies(&self) -> usize {
        match self {
            Rule::AdamW { .. } => 2,
            Rule::Lars { .. } | Rule::Momentum { .. } => 1,
        }
    }

    /// What changes from step to step: [rate, 1 - beta1^step, 1 - beta2^step], the latter two being 1 without moments.
    pub fn hyper(&self, rate: f64, step: u64) -> [f32; 3] {
        let [first, second] = match *self {
            Rule::AdamW { betas, .. } => bias_corrections(betas, step),
            Rule::Lars { .. } | Rule::Momentum { .. } => [1.0, 1.0],
        };
        [rate as f32, first, second]
    }
}

/// A parameter, with what its update needs.
#[derive(Debug)]
pub struct Trained<'a> {
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// The parameter.
    pub value: &'a mut Tensor,
    /// [`Rule::copies`] values for each of the parameter's.
    pub state: &'a mut Tensor,
    /// Whether it is decayed, and LARS adapts its rate: true of weights, false of biases and BatchNorms.
    pub adapted: bool,
}

/// How far an update goes.
#[derive(Clone, Copy, Debug)]
pub enum Stride<'a> {
    /// As far as is known by now.
    Now {
        /// The learning rate.
        rate: f64,
        /// Steps done, this one included.
        step: u64,
    },
    /// As far as stands on the device when the update runs, which may be long after it was captured.
    Deferred(Deferred<'a>),
}

/// What an update reads on the device.
#[derive(Clone, Copy, Debug)]
pub struct Deferred<'a> {
    /// [`Rule::hyper`], (3).
    pub hyper: &'a Tensor,
    /// Nothing is changed by a step that is not sound.
    pub verdict: &'a Verdict,
    /// What the gradients were multiplied by, if they were: it is undone.
    pub scale: Option<&'a LossScale>,
}

impl Device {
    /// One step of an optimiser on parameters that are all here, each with a gradient of its shape.
    pub fn update(&self, rule: &Rule, stride: Stride, list: &mut [Trained]) -> Result<()> {
        for trained in list.iter() {
            if trained.gradient.shape() != trained.value.shape() {
                let expected = format!("{:?}", trained.value.shape());
                return Err(EngineError::shape("update", expected, trained.gradient.shape()));
            }
            let values = rule.copies() * trained.value.len();
            if trained.state.len() != values {
                let expected = format!("{values} values of state");
                return Err(EngineError::shape("update", expected, trained.state.shape()));
            }
        }
        self.kernels().update(rule, stride, list)
    }

    /// Each first tensor gets the values of the second, where the verdict is that the last step is taken.
    pub fn replace(&self, verdict: &Verdict, list: &mut [(&mut Tensor, &Tensor)]) -> Result<()> {
        for (to, from) in list.iter() {
            if to.shape() != from.shape() {
                return Err(EngineError::shape("replace", format!("{:?}", to.shape()), from.shape()));
            }
        }
        self.kernels().replace(&verdict.values, list)
    }

    /// The sum of squares of all values of f32 tensors, f64, (1).
    pub fn squares<'t>(&self, list: impl IntoIterator<Item = &'t Tensor>) -> Result<Tensor> {
        let mut sum = Tensor::empty_of(self, &[1], DType::F64);
        self.kernels().sum_of_squares(&mut list.into_iter(), &mut sum)?;
        Ok(sum)
    }

    /// [`Device::squares`], waited for.
    pub fn sum_of_squares<'t>(&self, list: impl IntoIterator<Item = &'t Tensor>) -> Result<f64> {
        let mut sum = [0.0];
        self.squares(list)?.read(&mut sum)?;
        Ok(sum[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deferred_is_what_is_known_now() {
        let device = Device::cpu(1).unwrap();
        let tensor = |values: &[f32]| Tensor::from_vec(&device, &[values.len()], values.to_vec()).unwrap();
        let rules = [
            Rule::Lars { trust_coefficient: 0.01, momentum: 0.9, decay: 1e-2 },
            Rule::Momentum { momentum: 0.9, decay: 1e-2, nesterov: true },
            Rule::AdamW { betas: [0.9, 0.99], epsilon: 1e-8, decay: 0.1 },
        ];
        // A rate that f32 holds exactly, as the device does.
        let (rate, step, gradient) = (0.375, 3, tensor(&[0.5, -2.0, 1.0]));
        let verdict = Verdict::new(&device).unwrap();
        // A power of two: nothing is rounded.
        let scale = LossScale::new(&device).unwrap();
        let scaled = tensor(&[0.5, -2.0, 1.0].map(|g| g * scale.figures().unwrap().scale));
        for rule in &rules {
            let updated = |gradient: &Tensor, stride: Stride| {
                let mut value = tensor(&[1.0, 2.0, -3.0]);
                let mut state = tensor(&vec![0.25; 3 * rule.copies()]);
                let mut list = [Trained { gradient, value: &mut value, state: &mut state, adapted: true }];
                device.update(rule, stride, &mut list)?;
                Ok::<_, EngineError>((value.to_vec()?, state.to_vec()?))
            };
            let deferred = |gradient: &Tensor, hyper: &Tensor, scale: Option<&LossScale>| {
                updated(gradient, Stride::Deferred(Deferred { hyper, verdict: &verdict, scale }))
            };
            let now = updated(&gradient, Stride::Now { rate, step }).unwrap();
            assert!(now.0 != [1.0, 2.0, -3.0]);
            let hyper = tensor(&rule.hyper(rate, step));
            assert_eq!(deferred(&gradient, &hyper, None).unwrap(), now);
            assert_eq!(deferred(&scaled, &hyper, Some(&scale)).unwrap(), now);
            let error = deferred(&gradient, &tensor(&[0.375]), None).unwrap_err().to_string();
            assert!(error.contains("[3]"), "{error}");
        }
    }
}
