//! Optimisers: LARS, SGD with (Nesterov) momentum, AdamW.
//!
//! All leave BatchNorm parameters and biases undecayed; LARS does not adapt their rate either.

use simclr_engine::{
    AdamWStep, Gradients, LarsStep, MomentumStep, ParameterId, ParameterKind, Parameters, Result, Tensor,
};

use crate::config::{OptimConfig, OptimizerName};

/// An optimiser and its state, one buffer a trained parameter.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimConfig,
    steps: u64,
    state: Vec<Option<Tensor>>,
}

impl Optimizer {
    /// An optimiser that has not seen a step yet. `config.rate` and its scaling and schedule are not used: the rate
    /// comes with each step.
    pub fn new(config: &OptimConfig, parameters: &Parameters) -> Result<Optimizer> {
        let state = parameters
            .ids()
            .map(|id| {
                if !parameters.kind(id).is_trained() {
                    return Ok(None);
                }
                let value = parameters.get(id);
                let copies = if config.name == OptimizerName::Adamw { 2 } else { 1 };
                Tensor::zeros(value.device(), &[copies, value.len()]).map(Some)
            })
            .collect::<Result<_>>()?;
        Ok(Optimizer { config: config.clone(), steps: 0, state })
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Updates every parameter that has a gradient.
    pub fn step(&mut self, rate: f64, parameters: &mut Parameters, gradients: &Gradients) -> Result<()> {
        self.steps += 1;
        for id in parameters.ids() {
            let (Some(gradient), Some(state)) = (gradients.get(id), &mut self.state[id.index()]) else {
                continue;
            };
            // What LARS neither decays nor adapts, the others do not decay.
            let is_weight = parameters.kind(id) == ParameterKind::Weight;
            let decay = if is_weight { self.config.weight_decay as f32 } else { 0.0 };
            let w = parameters.get_mut(id);
            let kernels = w.device().clone();
            let momentum = self.config.momentum as f32;
            let push = MomentumStep { rate: rate as f32, momentum, decay, nesterov: false };
            match self.config.name {
                OptimizerName::Lars if is_weight => {
                    let trust_coefficient = self.config.trust_coefficient;
                    let step = LarsStep { rate, trust_coefficient, momentum, decay };
                    kernels.lars_update(step, gradient, w, state)?;
                }
                OptimizerName::Lars => kernels.momentum_update(push, gradient, w, state)?,
                OptimizerName::Sgd => {
                    let push = MomentumStep { nesterov: self.config.nesterov, ..push };
                    kernels.momentum_update(push, gradient, w, state)?;
                }
                OptimizerName::Adamw => {
                    let betas = [momentum, self.config.beta2 as f32];
                    let epsilon = self.config.epsilon as f32;
                    let step = AdamWStep { rate: rate as f32, betas, epsilon, decay, step: self.steps };
                    kernels.adamw_update(step, gradient, w, state)?;
                }
            }
        }
        Ok(())
    }

    /// The state of each trained parameter, for a checkpoint.
    pub fn state(&self) -> impl Iterator<Item = (ParameterId, &Tensor)> {
        // `state` was made from the parameters' ids in order.
        self.state
            .iter()
            .enumerate()
            .filter_map(|(i, state)| Some((ParameterId::from_index(i), state.as_ref()?)))
    }

    /// Puts a checkpoint's state back: `values` of each trained parameter, in the order of [`Optimizer::state`], and the number
    /// of steps done.
    pub fn restore(&mut self, id: ParameterId, values: &[f32]) -> Result<bool> {
        let Some(state) = self.state.get_mut(id.index()).and_then(Option::as_mut) else { return Ok(false) };
        if state.len() != values.len() {
            return Ok(false);
        }
        state.write(values)?;
        Ok(true)
    }

    /// Sets the number of steps done, on which AdamW's correction depends.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps = steps;
    }
}
