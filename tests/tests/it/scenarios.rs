//! Every scenario of the project, on the embedded chain.
use arb_core::arbitrator::TxKind;
use arb_core::report::{ClosingCost, PlannedTransaction};
use arb_tests::cli::scenario::read;
use arb_tests::regtest::EXECUTABLE;
use arb_tests::runner::{ChainKind, Foreseen, Options, Verdict, run, run_watched};
use arb_tests::scenario::parse;
use bitcoin::Amount;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

#[test]
fn every_scenario_comes_out_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(&folder).expect("the folder of scenarios");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(paths.len() >= 45, "{} scenarios", paths.len());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::SeqCst)) {
            let failure = match read(path) {
                Err(error) => Some(error.to_string()),
                Ok(scenario) => match run(&scenario, Options::default()).verdict {
                    Verdict::Passed => None,
                    Verdict::Failed { line, failed, .. } => Some(format!(
                        "{}:{line}: expected {}, found {}",
                        path.display(),
                        failed.expected,
                        failed.found
                    )),
                },
            };
            failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failure);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Claims that share everything, and are too many for one transaction: 1,050 HTLCs of three channels expire in one block. They
/// go out in two, neither above what is relayed, and both confirm; on a Bitcoin Core as well, where there is one.
// bolt RL2
// incident attack-13
#[test]
fn what_is_too_heavy_for_one_transaction_goes_out_in_two() {
    let mut story = "policy joining=allowed\nchannel a\nchannel b\nchannel c\n".to_owned();
    for channel in ["a", "b", "c"] {
        let offers = (0..350)
            .map(|n| format!("offer {channel} h{n} amount=1_300sat expiry=+40 stage=next\n"));
        story.extend(offers);
    }
    story += "feerate 2sat/vB\n";
    story.extend(["a", "b", "c"].map(|channel| format!("publish {channel} remote next\n")));
    story += "mine\nmark\nmine 39
        expect ours kind=claim count=2 max_inputs>=900 max_weight=400_000
        mine
        expect ours kind=claim count=2\n";
    let ends = ["a", "b", "c"]
        .map(|c| format!("expect {c}.h0 state=claimed\nexpect {c}.h349 state=claimed\n"));
    story.extend(ends);
    passes_everywhere(&story);
}

/// On the embedded chain, and on a Bitcoin Core where there is one.
fn passes_everywhere(story: &str) {
    let scenario = parse("story", story).expect("a story");
    let core = std::env::var_os(EXECUTABLE).map(|_| ChainKind::Bitcoind);
    for chain in core.into_iter().chain([ChainKind::Embedded]) {
        let verdict = run(&scenario, Options { chain, ..Options::default() }).verdict;
        assert_eq!(verdict, Verdict::Passed, "{chain:?}");
    }
}

/// A wallet of coins that bring hardly more than they cost: a child of as many as fit beside its commitment, which a
/// network that takes 101,000 vB together accepts; on a Bitcoin Core as well, where there is one.
// bolt F7
// incident attack-8 cln-6747
#[test]
fn a_child_of_many_coins_leaves_room_for_its_commitment() {
    let mut story = "wallet coins=1700x2_755sat
        channel a capacity=20_000_000sat local=15_000_000sat\n"
        .to_owned();
    story.extend((0..24).map(|n| format!("offer a h{n} amount=350_000sat expiry=+40\n")));
    // The operator wants that price, though the coins are worth hardly more than their inputs at it.
    story += "feerate 40sat/vB
        fail a
        bump a feerate=40sat/vB
        expect ours kind=anchor count=1 max_weight>=390_000
        mine
        expect a close=local#24\n";
    passes_everywhere(&story);
}

/// A dry run says what then happens: in which transactions, for how much, and until when.
// incident ldk-4592 ldk-4670 ldk-3487
#[test]
fn what_closing_costs_is_foreseen() {
    let story = "channel a local_delay=20
        channel b
        offer a h1 amount=60_000sat expiry=+40
        offer a h2 amount=50_000sat expiry=+40
        receive a h3 amount=40_000sat expiry=+90
        receive a h4 amount=30_000sat expiry=+50
        preimage a.h3
        fail a
        mine 180
        expect a phase=forgotten";
    let scenario = parse("story", story).expect("a story");
    let summaries = run_watched(&scenario, ChainKind::Embedded, &|_, _, _| {});
    let summaries = summaries.map_err(|(line, failed)| format!("{line}: {failed:?}"));
    let summary = summaries.expect("it comes out").swap_remove(0);
    let Foreseen { cost, dearer, reserve, dearer_reserve } = summary.foreseen.expect("foreseen");
    let kinds: Vec<TxKind> = cost.transactions.iter().map(|tx| tx.kind).collect();
    // The balance and what the success transaction made open a block apart.
    let expected = [
        TxKind::Commitment,
        TxKind::Anchor,
        TxKind::HtlcSuccess,
        TxKind::Sweep,
        TxKind::Sweep,
        TxKind::HtlcTimeout,
        TxKind::Sweep,
    ];
    assert_eq!(kinds, expected, "{cost:?}");
    assert!(summary.fees <= cost.fees, "{} foreseen, {} paid", cost.fees, summary.fees);
    assert!(summary.fees.to_sat() * 100 >= cost.fees.to_sat() * 85, "{cost:?}: {}", summary.fees);
    assert_eq!(cost.uncertain.to_sat(), 30_000);
    assert_eq!(cost.left.to_sat(), 0);
    // The anchor is a part of what was claimed, and of no dry run.
    assert_eq!(summary.claimed.to_sat(), cost.value.to_sat() + 330);
    let home_at = cost.home_at.expect("something comes home");
    let first = cost.transactions.first().expect("a commitment").at;
    assert_eq!(summary.blocks, Some(home_at.0 - first.0 + 100));
    // Each HTLC by itself, and another channel, cost more than what happened.
    assert_eq!(reserve.channels, 2);
    assert!(reserve.open > cost.wallet, "{reserve:?} {}", cost.wallet);
    assert_eq!(reserve.closed.to_sat(), 0);

    // What they weigh has its price; the child pays for its commitment too, which pays some of that itself.
    let weight = cost.transactions.iter().map(|tx| tx.weight.to_wu()).sum::<u64>();
    assert_eq!(cost.weight.to_wu(), weight);
    for of in [&cost, &dearer] {
        let of_weight =
            |tx: &PlannedTransaction| tx.weight.to_wu() * of.feerate.to_sat_per_vb_ceil() / 4;
        let (package, others) = of.transactions.split_at(2);
        let together = package.iter().map(of_weight).sum::<u64>();
        let paid = package.iter().map(|tx| tx.fee.to_sat()).sum::<u64>();
        assert!(paid.abs_diff(together) <= 1, "{paid} of {together}: {package:?}");
        for tx in others {
            assert!(tx.fee.to_sat().abs_diff(of_weight(tx)) <= 1, "{tx:?}");
        }
        assert_eq!(of.fees, of.transactions[1..].iter().map(|tx| tx.fee).sum::<Amount>());
    }
    // At another feerate it is the same transactions, at the same heights.
    let alike = |of: &ClosingCost| {
        of.transactions.iter().map(|tx| (tx.kind, tx.inputs, tx.weight, tx.at)).collect::<Vec<_>>()
    };
    assert_eq!(alike(&dearer), alike(&cost));
    assert_eq!((dearer.value, dearer.home_at), (cost.value, cost.home_at));
    assert!(dearer.fees > cost.fees * 4, "a child pays what its commitment lacks: {dearer:?}");

    // Bounds: more than one child; and at most the children of both channels and what the HTLCs are worth.
    let child = |of: &ClosingCost| of.transactions[1].fee.to_sat();
    assert!(reserve.open.to_sat() > child(&cost), "{reserve:?}");
    assert!(dearer_reserve.open.to_sat() > reserve.open.to_sat() * 3, "{dearer_reserve:?}");
    let worth = 60_000 + 50_000 + 40_000 + 30_000;
    assert!(dearer_reserve.open.to_sat() <= worth + 2 * child(&dearer), "{dearer_reserve:?}");
}
