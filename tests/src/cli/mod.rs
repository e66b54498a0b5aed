//! The program `arb`: what its subcommands do.
pub mod scenario;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Tests and demonstrations of the arbiter.
#[derive(Debug, Parser)]
#[command(name = "arb")]
pub struct Arb {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenario files.
    Scenario(scenario::Arguments),
}

impl Arb {
    /// Does what the command line says.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Scenario(arguments) => scenario::run(&arguments),
        }
    }
}
