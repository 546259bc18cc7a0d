//! `simclr`: unlabelled images in, an image encoder out.

#![forbid(unsafe_code)]

mod commands;
mod copies;
mod data;
mod encoding;
mod evaluating;
mod evaluation_progress;
mod exit;
mod interrupt;
mod log;
mod out;
mod progress;
mod settings;
mod sheet;
mod terminal;
mod training;
mod weights;
mod workers;

use std::process::ExitCode;

fn main() -> ExitCode {
    // These must run before there is a second thread.
    simclr_cuda::settle_environment();
    interrupt::outlive_limits_of_files();
    interrupt::ignore_what_is_ignored();
    let program = commands::Program::from_arguments();
    log::start();
    log::leave_out_caught_panics();
    exit::code(program.run())
}
