//! `arb soak`: channels come and go, and nothing grows; a table, or JSON.
use crate::soak::{Figure, Options, Report, SoakError, run as run_soak};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Arguments of `arb soak`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Where chance begins; another one each time without it.
    #[arg(long)]
    seed: Option<u64>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// Steps of the progress bar.
const FULL: u64 = 1_000;

/// Runs a soak. Status 1 if something grew, 2 if it went wrong.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the report is what was asked for")]
pub fn run(arguments: &Arguments) -> ExitCode {
    let Ok(time) = Duration::try_from_secs_f64(arguments.minutes * 60.0) else {
        eprintln!("`--minutes {}` is no time", arguments.minutes);
        return ExitCode::from(2);
    };
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seed = arguments.seed.unwrap_or_else(now);
    // Said first: a run that goes wrong can be repeated.
    eprintln!("seed {seed}");
    match soak(Options { time, seed }) {
        Ok(report) => {
            match arguments.json.then(|| serde_json::to_string_pretty(&report)) {
                Some(Ok(json)) => println!("{json}"),
                Some(Err(error)) => {
                    eprintln!("{error}");
                    return ExitCode::from(2);
                }
                None => print!("{}", table(&report)),
            }
            if report.figures.are_flat() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("seed {seed}: {error}");
            ExitCode::from(2)
        }
    }
}

fn soak(options: Options) -> Result<Report, SoakError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Drawn on a terminal only.
    let bar = ProgressBar::new(FULL);
    let style = ProgressStyle::with_template("{wide_bar} {percent} %  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let report = runtime.block_on(run_soak(options, &|part, blocks, forgotten| {
        bar.set_position((part * FULL as f64) as u64);
        bar.set_message(format!("{blocks} blocks, {forgotten} channels"));
    }));
    bar.finish_and_clear();
    report
}

fn table(report: &Report) -> String {
    let Report { seed, steps, blocks, reorganisations, restarts, opened, forgotten, .. } = report;
    let closes: Vec<String> =
        report.closes.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let mut lines = vec![
        format!("seed {seed}: {steps} steps, {blocks} blocks, {reorganisations} reorganisations"),
        format!("{restarts} restarts, {opened} channels opened, {forgotten} forgotten"),
        format!("closes: {}", closes.join(", ")),
        format!("{:10} {:>14} {:>14} {:>14}  flat", "", "middle third", "last third", "limit"),
    ];
    let figures = &report.figures;
    let rows = [("memory", figures.memory), ("tasks", figures.tasks), ("store", figures.store)];
    for (name, Figure { middle, last, limit, flat }) in rows {
        let flat = if flat { "yes" } else { "NO" };
        lines.push(format!("{name:10} {middle:>14} {last:>14} {limit:>14}  {flat}"));
    }
    lines.push(String::new());
    lines.join("\n")
}
