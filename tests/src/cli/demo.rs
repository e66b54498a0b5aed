//! `arb demo`: channels closed in every way, and what became of every satoshi.
use super::scenario::Chain;
use crate::runner::{Summary, run_watched};
use crate::scenario::ast::Format;
use crate::scenario::{ParseError, Scenario, parse};
use arb_core::arbitrator::CloseKind;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Instant;

/// The story, with a line for two channels where a dollar sign stands.
const STORY: &str = include_str!("../demo/story.txt");
/// What the dollar sign and the percent sign stand for.
const FORMATS: [(&str, &str); 3] = [("s", "static_remotekey"), ("x", "anchors"), ("z", "zero_fee")];

/// Arguments of `arb demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The chain to run on.
    #[arg(long, value_enum, default_value_t = Chain::Embedded)]
    chain: Chain,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// The story of the demonstration as a scenario.
///
/// # Errors
/// It is not in the scenario language.
pub fn story() -> Result<Scenario, ParseError> {
    let all = |line: &str| -> Vec<String> {
        if line.contains('$') && !line.starts_with('#') {
            FORMATS.iter().map(|(p, format)| line.replace('$', p).replace('%', format)).collect()
        } else {
            vec![line.to_owned()]
        }
    };
    let lines: Vec<String> = STORY.lines().flat_map(all).collect();
    parse("the demonstration", &lines.join("\n"))
}

/// Runs the demonstration.
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "what was asked for")]
pub fn run(arguments: &Arguments) -> ExitCode {
    let scenario = match story() {
        Ok(scenario) => scenario,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let bar = bar();
    let watch = |at: usize, all: usize, text: &str| {
        bar.set_length(all as u64);
        bar.set_position(at as u64);
        bar.set_message(text.to_owned());
    };
    let began = Instant::now();
    let result = run_watched(&scenario, arguments.chain.kind(), &watch);
    bar.finish_and_clear();
    match result {
        Ok(summaries) => {
            let done = summaries.iter().all(|s| s.blocks.is_some() && s.unaccounted == 0);
            if arguments.json {
                println!("{}", as_json(&summaries));
            } else {
                print_table(&summaries, began.elapsed().as_secs_f64());
            }
            if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err((line, failed)) => {
            eprintln!("line {line}: expected {}, found {}", failed.expected, failed.found);
            ExitCode::FAILURE
        }
    }
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

const fn format_name(format: Format) -> &'static str {
    match format {
        Format::StaticRemotekey => "static_remotekey",
        Format::Anchors => "anchors",
        Format::ZeroFee => "zero_fee",
        Format::Taproot => "taproot",
    }
}

fn close_name(close: Option<CloseKind>) -> String {
    match close {
        None => "open".to_owned(),
        Some(CloseKind::Mutual) => "mutual".to_owned(),
        Some(CloseKind::Local(n)) => format!("local#{}", n.0),
        Some(CloseKind::Outdated(n)) => format!("outdated#{}", n.0),
        Some(CloseKind::Remote(n)) => format!("remote#{}", n.0),
        Some(CloseKind::Revoked(n)) => format!("revoked#{}", n.0),
        Some(CloseKind::Future(n)) => format!("future#{}", n.0),
        Some(CloseKind::Splice(_)) => "splice".to_owned(),
        Some(CloseKind::Unknown) => "unknown".to_owned(),
    }
}

fn totals(summaries: &[Summary]) -> (usize, i64) {
    let resolved = summaries.iter().filter(|s| s.blocks.is_some()).count();
    (resolved, summaries.iter().map(|s| s.unaccounted.abs()).sum())
}

#[allow(clippy::print_stdout, reason = "what was asked for")]
fn print_table(summaries: &[Summary], seconds: f64) {
    println!(
        "{:<12} {:<17} {:<10} {:>7} {:>9} {:>7} {:>20}",
        "channel", "format", "closed by", "outputs", "claimed", "fees", "blocks to resolution"
    );
    for s in summaries {
        println!(
            "{:<12} {:<17} {:<10} {:>7} {:>9} {:>7} {:>20}",
            s.name,
            format_name(s.format),
            close_name(s.close),
            s.outputs,
            s.claimed.to_sat(),
            s.fees.to_sat(),
            s.blocks.map_or_else(|| "not resolved".to_owned(), |blocks| blocks.to_string()),
        );
    }
    let (resolved, unaccounted) = totals(summaries);
    println!(
        "({seconds:.1} s; the arbiter was killed twice, restarted once, the chain reorganised once)"
    );
    println!(
        "{resolved} of {} channels fully resolved, {unaccounted} sat unaccounted for",
        summaries.len()
    );
}

fn as_json(summaries: &[Summary]) -> serde_json::Value {
    let channels: Vec<serde_json::Value> = summaries
        .iter()
        .map(|s| {
            serde_json::json!({
                "channel": s.name,
                "format": format_name(s.format),
                "closed_by": close_name(s.close),
                "outputs": s.outputs,
                "claimed_sat": s.claimed.to_sat(),
                "fees_sat": s.fees.to_sat(),
                "blocks_to_resolution": s.blocks,
                "unaccounted_sat": s.unaccounted,
            })
        })
        .collect();
    let (resolved, unaccounted) = totals(summaries);
    serde_json::json!({
        "channels": channels,
        "resolved": resolved,
        "unaccounted_sat": unaccounted,
    })
}

#[cfg(test)]
mod tests {
    use super::story;
    use crate::scenario::unsupported;

    #[test]
    fn the_story_has_36_channels_in_the_language() {
        let story = story().expect("it parses");
        assert_eq!(story.channels.len(), 36);
        assert_eq!(unsupported(&story), None);
    }
}
