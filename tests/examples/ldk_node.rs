//! An arbiter beside an LDK node: three LDK nodes and more, with channels that are closed from either
//! side and with a revoked commitment, while HTLCs are pending and one is forwarded; our node is killed
//! in between. Printed is how LDK and how the arbiter see every channel, in every mode.
//!
//! `cargo xtask ldk-node [--bitcoind]`, or `cargo run -p arb-tests --example ldk_node [-- --bitcoind]`
//!
//! It fails if anything of it does not come out: a line of the story, a payment that LDK does not hear
//! of, a balance that is left.
use arb_core::report::OutputReport;
use arb_tests::runner::{ChainKind, Options, Views, run_with_views};
use arb_tests::scenario::{parse, unsupported};
use bitcoin::Txid;
use lightning::chain::channelmonitor::Balance;
use std::collections::BTreeSet;
use std::process::ExitCode;

/// `FORMAT`, `MODE` and `OURS` are filled in.
const STORY: &str = "
channel a node=ldk format=FORMAT
channel b node=ldk format=FORMAT opener=remote
channel c node=ldk format=FORMAT
channel d node=ldk format=FORMAT
receive b in amount=52_000sat expiry=+120
offer a forwarded amount=50_000sat expiry=+60 upstream=b.in
offer a out amount=40_000sat expiry=+50
receive a paid amount=30_000sat expiry=+90 hash=P
offer c out amount=40_000sat expiry=+50
receive c paid amount=30_000sat expiry=+90 hash=Q
offer d old amount=50_000sat expiry=+60
settle d old
offer d out amount=20_000sat expiry=+70
MODE
preimage P
preimage Q
fail a                                       # closed from our side
publish c remote                             # from the peer's
publish d remote #1                          # and with a revoked commitment
mine 3
expect a close=local#3
expect c close=remote#2
expect d close=revoked#1
expect a.paid state=claimed                  # by its preimage, on our commitment
expect c.paid state=claimed                  # and on the peer's
expect d.old state=claimed                   # punished
expect d.to_local state=claimed
kill                                         # our node, and it starts again
publish b remote
mine
peer claims a.forwarded                      # its preimage serves the incoming HTLC
mine 3
expect a.forwarded state=peer_claimed upstream=fulfilled
expect b.in state=claimed
mine 55
expect a.out state=claimed upstream=failed   # timed out, on our commitment
expect c.out state=claimed upstream=failed   # and on the peer's
expect d.out upstream=failed
mine 320
expect a phase=forgotten
expect b phase=forgotten
expect c phase=forgotten
expect d phase=forgotten
OURS
";

/// LDK's events that have to come, whoever publishes, and how many of each.
const EVENTS: [(&str, usize); 4] =
    [("PaymentSent", 1), ("PaymentFailed", 3), ("PaymentClaimed", 2), ("ChannelClosed", 4)];

/// What the arbiter has published in the end, where it owns the channels: the second stages of what is on our commitment, a
/// claim of each kind from the peer's, the penalty, and what had to wait for its delay.
const OURS: [&str; 6] = [
    "expect ours kind=commitment count>=1",
    "expect ours kind=htlc_success count>=1",
    "expect ours kind=htlc_timeout count>=1",
    "expect ours kind=claim count>=1",
    "expect ours kind=penalty count>=1",
    "expect ours kind=sweep count>=1",
];

fn main() -> ExitCode {
    let bitcoind = std::env::args().any(|argument| argument == "--bitcoind");
    let chain = if bitcoind { ChainKind::Bitcoind } else { ChainKind::Embedded };
    let mut failed = 0;
    for format in ["static_remotekey", "anchors", "zero_fee"] {
        for mode in ["observe", "guard", "own"] {
            println!("\n{format}, mode {mode}");
            if let Err(why) = tell(format, mode, chain) {
                println!("  FAILED: {why}");
                failed += 1;
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(format: &str, mode: &str, chain: ChainKind) -> Result<(), String> {
    // Who only observes, and a guard of a node that gets through, publish nothing.
    let ours = if mode == "own" { OURS.join("\n") } else { "expect ours count=0".to_owned() };
    let story = STORY.replace("FORMAT", format).replace("OURS", &ours);
    let story = story.replace("MODE", &format!("mode {mode}"));
    let scenario = parse("story", &story).map_err(|error| error.to_string())?;
    if let Some(error) = unsupported(&scenario) {
        return Err(error.to_string());
    }
    let options = Options { chain, ..Options::default() };
    let last = run_with_views(&scenario, options, &show).map_err(|(line, failed)| {
        format!("line {line}: expected {}, found {}", failed.expected, failed.found)
    })?;
    for (name, count) in EVENTS {
        let found = last.events.iter().filter(|event| *event == name).count();
        println!("  LDK's events: {found} {name}");
        if found < count {
            return Err(format!("{count} {name} of LDK expected, {found} found"));
        }
    }
    let in_blocks = of_ldk(&last);
    println!("  of LDK's transactions, {in_blocks} are in blocks");
    if (in_blocks == 0) != (mode == "own") {
        return Err("LDK to publish wherever the arbiter does not, and only there".to_owned());
    }
    match last.channels.iter().find(|view| !view.ldk.is_empty()) {
        Some(view) => Err(format!("LDK still waits for {:?} of {}", view.ldk, view.name)),
        None => Ok(()),
    }
}

/// Commitments and spends of their outputs, in blocks, that our node's LDK published. What is spent already LDK may hand over again,
/// for nothing.
fn of_ldk(views: &Views) -> usize {
    let reports = views.channels.iter().filter_map(|view| view.report.as_ref());
    let outputs = reports.flat_map(|report| &report.outputs);
    let all: BTreeSet<Txid> =
        outputs.flat_map(|of| of.spender.into_iter().chain([of.outpoint.txid])).collect();
    all.intersection(&views.published).count()
}

/// Both views, side by side.
fn show(statement: &str, views: &Views) {
    if statement.starts_with("expect") {
        println!("  ok  {statement}");
        return;
    }
    println!("  {statement}   [height {}]", views.height);
    if !statement.starts_with("mine") && !statement.starts_with("kill") {
        return;
    }
    for view in &views.channels {
        let mut ldk: Vec<String> = view.ldk.iter().map(balance).collect();
        let outputs = view.report.iter().flat_map(|report| &report.outputs);
        let mut ours: Vec<String> = outputs.map(output).collect();
        let rows = ldk.len().max(ours.len());
        ldk.resize(rows, String::new());
        ours.resize(rows, String::new());
        let close = view.report.as_ref().and_then(|report| report.close);
        println!("    {}: {close:?}", view.name);
        println!("      {:<48} | arbiter", "LDK");
        for (ldk, ours) in ldk.iter().zip(&ours) {
            println!("      {ldk:<48} | {ours}");
        }
    }
}

fn balance(balance: &Balance) -> String {
    let name = format!("{balance:?}");
    let name = name.split([' ', '{']).next().unwrap_or_default();
    format!("{:>7} sat {name}", balance.claimable_amount_satoshis())
}

fn output(output: &OutputReport) -> String {
    let by = output.spent_by.map(|side| format!(" by {side:?}")).unwrap_or_default();
    let sat = output.amount.to_sat();
    format!("{sat:>7} sat {:?}: {:?}{by}", output.role, output.state)
}
