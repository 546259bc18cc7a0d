//! `simclr bench`: measures the speed of this machine.

mod encode;
mod fed;
mod flops;
mod network;
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
    Encode(encode::Encode),
    Views(views::Views),
}

impl Bench {
    pub fn run(self) -> Result<Done> {
        match self.what {
            What::Step(step) => step.run(),
            What::Encode(encode) => encode.run(),
            What::Views(views) => views.run(),
        }
    }
}
