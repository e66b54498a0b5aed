//! `arb bench`: ratios of interleaved pairs, as a table.
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `arb bench`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// One benchmark; all without it.
    name: Option<String>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Put the table of `fees` into this file, between its marks
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

/// Runs the benchmarks.
#[allow(clippy::print_stderr, reason = "the error is for whoever asked")]
pub fn run(arguments: &Arguments) -> ExitCode {
    match crate::bench::run(arguments.name.as_deref(), arguments.json, arguments.readme.as_deref())
    {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
