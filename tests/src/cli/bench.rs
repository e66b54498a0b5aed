//! `arb bench`: ratios of interleaved pairs, as a table.
use clap::Args;
use std::process::ExitCode;

/// Arguments of `arb bench`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// One benchmark; all without it.
    name: Option<String>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// Runs the benchmarks.
#[allow(clippy::print_stderr, reason = "the error is for whoever asked")]
pub fn run(arguments: &Arguments) -> ExitCode {
    match crate::bench::run(arguments.name.as_deref(), arguments.json) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
