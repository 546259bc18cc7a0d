//! `simclr bench`: measures the speed of this machine.

mod fed;
mod flops;
mod step;
mod table;
mod views;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::exit::Done;

/// Measure speed and memory
#[derive(Args, Debug)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Step(step::Step),
    Views(views::Views),
}

impl Bench {
    pub fn run(self) -> Result<Done> {
        match self.what {
            What::Step(step) => step.run(),
            What::Views(views) => views.run(),
        }
    }
}
