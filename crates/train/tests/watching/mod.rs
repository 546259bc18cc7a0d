//! An observer of runs, shared by several tests.

#![allow(dead_code, reason = "each test program looks at a part of what was seen")]

use std::sync::mpsc::Sender;

use simclr_train::pretrain::{EpochRecord, Observer, Plan, StepRecord};

/// Records what it observes, and stops after a number of steps.
#[derive(Default)]
pub struct Watch {
    pub stop_after: Option<u64>,
    /// Receives the number of every step.
    pub tell: Option<Sender<u64>>,
    pub plan: Option<Plan>,
    pub steps: Vec<StepRecord>,
    pub epochs: Vec<EpochRecord>,
    pub warnings: Vec<String>,
}

impl Observer for Watch {
    fn started(&mut self, plan: &Plan) {
        self.plan = Some(plan.clone());
    }

    fn step(&mut self, record: &StepRecord) {
        self.steps.push(record.clone());
        if let Some(tell) = &self.tell {
            // The receiver may be gone after the first step.
            let _ = tell.send(record.step);
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        self.epochs.push(record.clone());
    }

    fn warn(&mut self, message: &str) {
        self.warnings.push(message.to_owned());
    }

    fn stop(&self) -> bool {
        self.stop_after.is_some_and(|steps| self.steps.last().is_some_and(|last| last.step >= steps))
    }
}
