//! Optimisers: LARS, SGD with (Nesterov) momentum, AdamW.
//!
//! None of them decays BatchNorm parameters and biases; LARS does not adapt their rate either.

use simclr_engine::{
    Deferred, Device, Gradients, ParameterId, ParameterKind, ParameterUpdate, Parameters, Result, Rule,
    StepInputs, Tensor,
};

use crate::config::{OptimConfig, OptimizerName};

/// An optimiser and its state, one buffer per trained parameter.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    steps: u64,
    state: Vec<Option<Tensor>>,
}

impl Optimizer {
    /// Creates an optimiser before its first step. It does not use `config.rate`, its scaling and its schedule: the
    /// rate is an argument of each step.
    ///
    /// # Errors
    /// A device without memory for the state.
    pub fn new(config: &OptimConfig, parameters: &Parameters) -> Result<Optimizer> {
        let rule = rule_of(config);
        let state = parameters
            .ids()
            .map(|id| {
                if !parameters.kind(id).is_trained() {
                    return Ok(None);
                }
                let value = parameters.get(id);
                Tensor::zeros(value.device(), &[rule.state_per_value(), value.len()]).map(Some)
            })
            .collect::<Result<_>>()?;
        Ok(Optimizer { rule, steps: 0, state })
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Updates every parameter that has a gradient.
    pub fn step(&mut self, rate: f64, parameters: &mut Parameters, gradients: &Gradients) -> Result<()> {
        self.steps += 1;
        let inputs = StepInputs::Now { rate, step: self.steps };
        let gpu = parameters.iter().next().map(|(_, _, value)| value.device().clone()).filter(Device::is_gpu);
        if let Some(device) = gpu {
            let mut list: Vec<ParameterUpdate> = trained(&mut self.state, parameters, gradients).collect();
            return device.update(&self.rule, inputs, &mut list);
        }
        // One parameter at a time: a list of all would be allocated.
        for trained in trained(&mut self.state, parameters, gradients) {
            let device = trained.value.device().clone();
            device.update(&self.rule, inputs, &mut [trained])?;
        }
        Ok(())
    }

    /// Counts a step to be done by [`Optimizer::step_deferred`], and returns the values that it reads on the device.
    pub fn advance(&mut self, rate: f64) -> [f32; 3] {
        self.steps += 1;
        self.rule.hyper(rate, self.steps)
    }

    /// [`Optimizer::step`] on a GPU, for all parameters together, with the values of [`Optimizer::advance`], which the
    /// device reads when the step runs.
    pub fn step_deferred(
        &mut self,
        deferred: Deferred,
        parameters: &mut Parameters,
        gradients: &Gradients,
    ) -> Result<()> {
        let device = deferred.hyper.device().clone();
        let mut list: Vec<ParameterUpdate> = trained(&mut self.state, parameters, gradients).collect();
        device.update(&self.rule, StepInputs::Deferred(deferred), &mut list)
    }

    /// The state of each trained parameter, for a checkpoint.
    pub fn state(&self) -> impl Iterator<Item = (ParameterId, &Tensor)> {
        // `state` was made from the parameters' ids in order.
        self.state
            .iter()
            .enumerate()
            .filter_map(|(i, state)| Some((ParameterId::from_index(i), state.as_ref()?)))
    }

    /// The state of each trained parameter, to restore a checkpoint's; see also [`Optimizer::set_steps`].
    pub fn state_mut(&mut self) -> impl Iterator<Item = (ParameterId, &mut Tensor)> {
        self.state
            .iter_mut()
            .enumerate()
            .filter_map(|(i, state)| Some((ParameterId::from_index(i), state.as_mut()?)))
    }

    /// Sets the number of steps done, on which AdamW's bias correction depends.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}

fn rule_of(config: &OptimConfig) -> Rule {
    let (momentum, decay) = (config.momentum as f32, config.weight_decay as f32);
    match config.name {
        OptimizerName::Lars => Rule::Lars { trust_coefficient: config.trust_coefficient, momentum, decay },
        OptimizerName::Sgd => Rule::Momentum { momentum, decay, nesterov: config.nesterov },
        OptimizerName::Adamw => {
            let betas = [momentum, config.beta2 as f32];
            Rule::AdamW { betas, epsilon: config.epsilon as f32, decay }
        }
    }
}

/// Every parameter that has a gradient, with its state. Only weights are `adapted`: the rest LARS neither decays nor
/// adapts, and the others do not decay.
fn trained<'a>(
    state: &'a mut [Option<Tensor>],
    parameters: &'a mut Parameters,
    gradients: &'a Gradients,
) -> impl Iterator<Item = ParameterUpdate<'a>> {
    parameters.iter_mut().zip(state).filter_map(|((id, kind, value), state)| {
        let (gradient, state) = (gradients.get(id)?, state.as_mut()?);
        Some(ParameterUpdate { gradient, value, state, adapted: kind == ParameterKind::Weight })
    })
}
