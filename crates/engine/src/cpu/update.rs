//! The optimisers' steps on the CPU.

use simclr_kernels::optimizer::{AdamWStep, LarsStep, MomentumStep};
use simclr_kernels::verdict::TAKEN;
use simclr_kernels::{Cpu, optimizer};

use super::one_of;
use crate::{Deferred, EngineError, ParameterUpdate, Result, Rule, StepInputs};

/// One optimiser step on each of `list`; none if it is deferred and the verdict is against it.
pub(super) fn update(cpu: &Cpu, rule: &Rule, inputs: StepInputs, list: &mut [ParameterUpdate]) -> Result<()> {
    let (rate, corrections, unscale) = match inputs {
        StepInputs::Now { rate, step } => {
            let [_, first, second] = rule.hyper(rate, step);
            (rate, [first, second], None)
        }
        StepInputs::Deferred(Deferred { hyper, verdict, scale }) => {
            if verdict.values.values::<f64>()?[TAKEN] == 0.0 {
                return Ok(());
            }
            let &[rate, first, second] = hyper.as_slice()? else {
                return Err(EngineError::shape("update", "[3] values of Rule::hyper", hyper.shape()));
            };
            let unscale = scale.map(|scale| one_of(&scale.unscale)).transpose()?;
            (f64::from(rate), [first, second], unscale)
        }
    };
    for ParameterUpdate { gradient, value, state, adapted } in list {
        let unscaled: Vec<f32>;
        let g = match unscale {
            Some(unscale) => {
                unscaled = gradient.as_slice()?.iter().map(|g| g * unscale).collect();
                &unscaled
            }
            None => gradient.as_slice()?,
        };
        let (w, v) = (value.as_mut_slice()?, state.as_mut_slice()?);
        let decayed = |decay: f32| if *adapted { decay } else { 0.0 };
        match *rule {
            Rule::Lars { trust_coefficient, momentum, decay } if *adapted => {
                let step = LarsStep { rate, trust_coefficient, momentum, decay };
                optimizer::lars_update(cpu, step, g, w, v);
            }
            Rule::Lars { momentum, .. } => {
                let step = MomentumStep { rate: rate as f32, momentum, decay: 0.0, nesterov: false };
                optimizer::momentum_update(cpu, step, g, w, v);
            }
            Rule::Momentum { momentum, decay, nesterov } => {
                let step = MomentumStep { rate: rate as f32, momentum, decay: decayed(decay), nesterov };
                optimizer::momentum_update(cpu, step, g, w, v);
            }
            Rule::AdamW { betas, epsilon, decay } => {
                let step =
                    AdamWStep { rate: rate as f32, betas, epsilon, decay: decayed(decay), corrections };
                optimizer::adamw_update(cpu, step, g, w, v);
            }
        }
    }
    Ok(())
}
