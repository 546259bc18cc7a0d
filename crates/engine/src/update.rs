//! Optimiser updates, applied immediately or when the device reaches them.

use crate::{DType, Device, EngineError, LossScale, Result, Tensor, Verdict, bias_corrections};

/// An optimiser, with the settings that stay the same from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Momentum, with a learning rate adapted to each weight tensor (You et al., arXiv:1708.03888).
    Lars {
        /// Usually 0.001.
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
        /// Whether to look ahead by one step of momentum.
        nesterov: bool,
    },
    /// AdamW (Loshchilov and Hutter, arXiv:1711.05101).
    AdamW {
        /// Decay of the first and of the second moment.
        betas: [f32; 2],
        /// Added to the root of the second moment.
        epsilon: f32,
        /// Weight decay, multiplied by the learning rate.
        decay: f32,
    },
}

impl Rule {
    /// The number of state values per value of a parameter.
    pub fn state_per_value(&self) -> usize {
        match self {
            Rule::AdamW { .. } => 2,
            Rule::Lars { .. } | Rule::Momentum { .. } => 1,
        }
    }

    /// What changes from step to step: [rate, 1 - beta1^step, 1 - beta2^step], the last two 1 without moments.
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
pub struct ParameterUpdate<'a> {
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// The parameter.
    pub value: &'a mut Tensor,
    /// The optimiser's state: [`Rule::state_per_value`] values per value of the parameter.
    pub state: &'a mut Tensor,
    /// Whether it decays and LARS adapts its rate: true for weights, false for biases and BatchNorms.
    pub adapted: bool,
}

/// Where an update's learning rate and step come from.
#[derive(Clone, Copy, Debug)]
pub enum StepInputs<'a> {
    /// From the caller, now.
    Now {
        /// The learning rate.
        rate: f64,
        /// Steps done, this one included.
        step: u64,
    },
    /// From the device, when the update runs: that may be long after it was captured.
    Deferred(Deferred<'a>),
}

/// What a deferred update reads on the device.
#[derive(Clone, Copy, Debug)]
pub struct Deferred<'a> {
    /// [`Rule::hyper`], (3).
    pub hyper: &'a Tensor,
    /// A step that this verdict does not take changes nothing.
    pub verdict: &'a Verdict,
    /// What the gradients were multiplied by, if anything: the update undoes it.
    pub scale: Option<&'a LossScale>,
}

impl Device {
    /// Takes one optimiser step on parameters of this device, each with a gradient of its shape.
    ///
    /// # Errors
    /// [`EngineError::Shape`](crate::EngineError::Shape) for a gradient or a state that does not fit its parameter,
    /// or deferred inputs that are not [`Rule::hyper`]; errors of the device.
    pub fn update(&self, rule: &Rule, inputs: StepInputs, list: &mut [ParameterUpdate]) -> Result<()> {
        for trained in list.iter() {
            if trained.gradient.shape() != trained.value.shape() {
                let expected = format!("{:?}", trained.value.shape());
                return Err(EngineError::shape("update", expected, trained.gradient.shape()));
            }
            let values = rule.state_per_value() * trained.value.len();
            if trained.state.len() != values {
                let expected = format!("{values} values of state");
                return Err(EngineError::shape("update", expected, trained.state.shape()));
            }
        }
        self.kernels().update(rule, inputs, list)
    }

    /// Copies the second tensor of each pair to the first, if the verdict is that the last step is taken.
    ///
    /// # Errors
    /// [`EngineError::Shape`](crate::EngineError::Shape) if the shapes of a pair differ; errors of the device.
    pub fn replace(&self, verdict: &Verdict, list: &mut [(&mut Tensor, &Tensor)]) -> Result<()> {
        for (to, from) in list.iter() {
            if to.shape() != from.shape() {
                return Err(EngineError::shape("replace", format!("{:?}", to.shape()), from.shape()));
            }
        }
        self.kernels().replace(&verdict.values, list)
    }

    /// The sum of squares of all values of f32 tensors, f64, (1).
    ///
    /// # Errors
    /// Errors of the device.
    pub fn sum_of_squares_on_device<'t>(&self, list: impl IntoIterator<Item = &'t Tensor>) -> Result<Tensor> {
        let mut sum = Tensor::empty_of(self, &[1], DType::F64);
        self.kernels().sum_of_squares(&mut list.into_iter(), &mut sum)?;
        Ok(sum)
    }

    /// [`Device::sum_of_squares_on_device`], read back to the host.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn sum_of_squares<'t>(&self, list: impl IntoIterator<Item = &'t Tensor>) -> Result<f64> {
        let mut sum = [0.0];
        self.sum_of_squares_on_device(list)?.read(&mut sum)?;
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
        // A rate that f32, the device's type for it, holds exactly.
        let (rate, step, gradient) = (0.375, 3, tensor(&[0.5, -2.0, 1.0]));
        let verdict = Verdict::new(&device).unwrap();
        // A power of two, so that nothing is rounded.
        let scale = LossScale::new(&device).unwrap();
        let scaled = tensor(&[0.5, -2.0, 1.0].map(|g| g * scale.figures().unwrap().scale));
        for rule in &rules {
            let updated = |gradient: &Tensor, inputs: StepInputs| {
                let mut value = tensor(&[1.0, 2.0, -3.0]);
                let mut state = tensor(&vec![0.25; 3 * rule.state_per_value()]);
                let mut list =
                    [ParameterUpdate { gradient, value: &mut value, state: &mut state, adapted: true }];
                device.update(rule, inputs, &mut list)?;
                Ok::<_, EngineError>((value.to_vec()?, state.to_vec()?))
            };
            let deferred = |gradient: &Tensor, hyper: &Tensor, scale: Option<&LossScale>| {
                updated(gradient, StepInputs::Deferred(Deferred { hyper, verdict: &verdict, scale }))
            };
            let now = updated(&gradient, StepInputs::Now { rate, step }).unwrap();
            assert!(now.0 != [1.0, 2.0, -3.0]);
            let hyper = tensor(&rule.hyper(rate, step));
            assert_eq!(deferred(&gradient, &hyper, None).unwrap(), now);
            assert_eq!(deferred(&scaled, &hyper, Some(&scale)).unwrap(), now);
            let error = deferred(&gradient, &tensor(&[0.375]), None).unwrap_err().to_string();
            assert!(error.contains("[3]"), "{error}");
        }
    }
}
