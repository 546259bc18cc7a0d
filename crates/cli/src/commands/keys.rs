//! `simclr keys`: the reference of all configuration keys.

use anyhow::Result;
use clap::Args;
use simclr_train::Config;

use crate::exit::Done;
use crate::terminal;

/// List every configuration key: its meaning, what it accepts, its default
#[derive(Args, Debug)]
#[command(
    after_help = "The output is a TOML file of the defaults for --config: take away the # before a key to set it. The tables [[view.a]] at its end show the operators that a list in place of view.a or view.b may have."
)]
pub struct Keys {}

impl Keys {
    pub fn run(self) -> Result<Done> {
        terminal::print(Config::reference().trim_end())?;
        Ok(Done::Finished)
    }
}
