//! Bitcoin Core's own source holds every reason for which it keeps a transaction out; the one table that says
//! what they mean is held against it.

use std::collections::BTreeSet;
use std::path::Path;

use super::source;
use crate::workspace::Workspace;

const TABLE: &str = "arb-watcher/src/core_rpc/reject.rs";
/// Where verdicts on transactions and packages are given.
const FILES: &[&str] = &[
    "validation.cpp",
    "policy/policy.cpp",
    "policy/packages.cpp",
    "policy/ephemeral_policy.cpp",
    "consensus/tx_check.cpp",
    "consensus/tx_verify.cpp",
];
/// The words of its RPC for verdicts that are its own.
const MESSAGES: &str = "common/messages.cpp";
/// What is no verdict on a transaction: there is no mempool, a fault of Core's, its own trouble, and what
/// only says that single verdicts say more.
const NO_VERDICTS: &[&str] = &[
    "no-mempool",
    "BUG! PolicyScriptChecks succeeded but ConsensusScriptChecks failed: %s",
    "transaction failed",
    "No error",
    "Transaction rejected by mempool",
    "Transaction rejected due to invalid package",
    "Mempool internal error",
    "Private broadcast queue is full",
];

/// The first string literal.
fn literal(text: &str) -> Option<&str> {
    text.split('"').nth(1)
}

/// Reasons in the calls that make a verdict on a transaction or a package, and those that checks of
/// standardness leave for them.
fn reasons(source: &str) -> BTreeSet<&str> {
    let calls = source.split("Invalid(").skip(1).filter_map(|call| call.split(';').next());
    let of_transactions = calls.filter(|call| {
        call.trim_start().starts_with("TxValidationResult::")
            || call.trim_start().starts_with("PackageValidationResult::")
    });
    let left = source.split(" reason = ").skip(1).filter_map(|rest| rest.split(';').next());
    of_transactions.chain(left).filter_map(literal).collect()
}

/// What the RPC says of errors that are no verdict of the mempool's.
fn messages(source: &str) -> BTreeSet<&str> {
    let cases = source.split("case TransactionError::").skip(1);
    cases.filter_map(|case| literal(case.split(';').next()?)).collect()
}

/// The keys of the table: each stands in a line of its own, with its meaning.
fn keys(table: &str) -> Vec<&str> {
    let entries = table.lines().filter(|line| line.trim_start().starts_with("(\""));
    entries.filter_map(literal).collect()
}

#[test]
fn every_reason_in_cores_source_is_in_the_table() {
    let workspace = Workspace::find().unwrap();
    let folder = source(&workspace.metadata(&[]).unwrap()).unwrap().folder.join("src");
    let read = |file: &&str| std::fs::read_to_string(folder.join(file)).unwrap();
    let texts: Vec<String> = FILES.iter().map(read).collect();
    let said = read(&MESSAGES);
    let mut all: BTreeSet<&str> = texts.iter().flat_map(|text| reasons(text)).collect();
    assert!(all.len() >= 55, "{all:?}");
    all.extend(messages(&said));
    assert!(all.contains("Inputs missing or spent"), "{all:?}");
    for no_verdict in NO_VERDICTS {
        assert!(all.remove(no_verdict), "Core does not say it any more: {no_verdict}");
    }
    let table = workspace.read(Path::new(TABLE)).unwrap();
    let keys = keys(&table);
    assert!(keys.len() >= 50, "{keys:?}");
    let is_mapped = |reason: &str| {
        // Where something is put after a reason, each of what may be is a key.
        let begins = reason.ends_with(": ");
        keys.iter().any(|key| reason.starts_with(key) || (begins && key.starts_with(reason)))
    };
    let unknown: Vec<&str> = all.into_iter().filter(|reason| !is_mapped(reason)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn reasons_are_found_in_calls_over_several_lines() {
    let source = "state.Invalid(TxValidationResult::TX_CONSENSUS,\n strprintf(\"one%s\", x ? \"two\" : \"\"));\n\
                  state.Invalid(BlockValidationResult::BLOCK_CONSENSUS, \"three\");\n reason = \"four\";\n\
                  state.Invalid(TxValidationResult::TX_NOT_STANDARD, reason);";
    assert_eq!(reasons(source).into_iter().collect::<Vec<_>>(), ["four", "one%s"]);
}
