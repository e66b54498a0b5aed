//! The program `arb`: what its subcommands do.
pub mod bench;
pub mod demo;
pub mod scenario;
pub mod soak;

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
    /// Close 36 channels in every way, and account for every satoshi.
    Demo(demo::Arguments),
    /// Measure, as ratios within one run.
    Bench(bench::Arguments),
    /// Run scenario files.
    Scenario(scenario::Arguments),
    /// Channels come and go for as long as wanted: nothing grows.
    Soak(soak::Arguments),
}

impl Arb {
    /// Does what the command line says.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Bench(arguments) => bench::run(&arguments),
            Command::Demo(arguments) => demo::run(&arguments),
            Command::Scenario(arguments) => scenario::run(&arguments),
            Command::Soak(arguments) => soak::run(&arguments),
        }
    }
}
