//! `arb`: scenarios and what else the workspace has to show, from the command line.
use arb_tests::cli::Arb;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // `RUST_LOG=arb_watcher=debug` shows the driver at work.
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    Arb::parse().run()
}
