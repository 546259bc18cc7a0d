//! `simclr completions`: completion scripts for shells.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Program;
use crate::exit::Done;
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  simclr completions bash > ~/.local/share/bash-completion/completions/simclr
  simclr completions zsh > ~/.zfunc/_simclr
  simclr completions fish > ~/.config/fish/completions/simclr.fish";

/// Print a shell's completion script
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<Done> {
        let (mut program, mut script) = (Program::command(), Vec::new());
        clap_complete::generate(self.shell, &mut program, "simclr", &mut script);
        terminal::print(String::from_utf8_lossy(&script).trim_end())?;
        Ok(Done::Finished)
    }
}
