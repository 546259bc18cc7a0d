//! `simclr keys`: the reference of the configuration keys.

use anyhow::Result;
use clap::Args;
use simclr_train::Config;
use simclr_train::config::KEYS;

use crate::exit::Done;
use crate::settings::suggesting;
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  simclr keys
  simclr keys optim loss.temperature
  simclr keys batch

The output is a TOML file of the defaults for --config: take away the # before a key to set it. The tables \
[[view.a]] at its end show the operators that a list in place of view.a or view.b may have.";

/// List the configuration keys: their meaning, what they accept, their defaults
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Keys {
    /// Only these: a table, a key, or a key's name without its table [default: all]
    #[arg(
        value_name = "TABLE|KEY",
        value_parser = suggesting(KEYS.iter().map(|key| key.path)),
        hide_possible_values = true
    )]
    names: Vec<String>,
}

impl Keys {
    pub fn run(self) -> Result<Done> {
        let reference = match &self.names[..] {
            [] => Config::reference(),
            names => Config::reference_of(names)?,
        };
        terminal::print(reference.trim_end())?;
        Ok(Done::Finished)
    }
}
