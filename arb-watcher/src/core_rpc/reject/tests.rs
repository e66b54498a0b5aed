//! Every reason for which Bitcoin Core 31 keeps a transaction or a package out of its mempool.
use super::*;

/// From `validation.cpp`, `policy/` and `consensus/` of its source, without details.
const CORE_31: &[&str] = &[
    "TRUC-violation",
    "bad-cb-length",
    "bad-txns-fee-outofrange",
    "bad-txns-in-belowout",
    "bad-txns-inputs-duplicate",
    "bad-txns-inputs-missingorspent",
    "bad-txns-inputvalues-outofrange",
    "bad-txns-nonstandard-inputs",
    "bad-txns-oversize",
    "bad-txns-premature-spend-of-coinbase",
    "bad-txns-prevout-null",
    "bad-txns-spends-conflicting-tx",
    "bad-txns-too-many-sigops",
    "bad-txns-txouttotal-toolarge",
    "bad-txns-vin-empty",
    "bad-txns-vout-empty",
    "bad-txns-vout-negative",
    "bad-txns-vout-toolarge",
    "bad-witness-nonstandard",
    "bare-multisig",
    "bip125-replacement-disallowed",
    "block-script-verify-flag-failed (%s)",
    "coinbase",
    "conflict-in-package",
    "datacarrier",
    "dust",
    "insufficient fee",
    "max feerate exceeded",
    "mempool full",
    "mempool min fee not met",
    "mempool-script-verify-flag-failed (%s)",
    "min relay fee not met",
    "missing-ephemeral-spends",
    "non-BIP68-final",
    "non-final",
    "package RBF failed: insufficient anti-DoS fees",
    "package RBF failed: new transaction cannot have mempool ancestors",
    "package RBF failed: package feerate is less than or equal to parent feerate",
    "package RBF failed: package must be 1-parent-1-child",
    "package RBF failed: too many potential replacements",
    "package-contains-duplicates",
    "package-not-child-with-parents",
    "package-not-sorted",
    "package-too-large",
    "package-too-many-transactions",
    "replacement-failed",
    "scriptpubkey",
    "scriptsig-not-pushonly",
    "scriptsig-size",
    "too many potential replacements (including sibling eviction)",
    "too-large-cluster",
    "tx-size",
    "tx-size-small",
    "txn-already-in-mempool",
    "txn-already-known",
    "txn-same-nonwitness-data-in-mempool",
    "unspent-dust",
    "version",
];

#[test]
fn every_reason_of_core_is_in_the_table() {
    for reason in CORE_31 {
        assert!(REASONS.iter().any(|(key, _)| reason.starts_with(key)), "{reason}");
    }
    // What a later version says is refused as well, and so tried again.
    assert!(matches!(verdict_of("something new"), Verdict::Refused(_)));
}

#[test]
fn no_entry_hides_another() {
    for (at, (key, _)) in REASONS.iter().enumerate() {
        let first = REASONS.iter().position(|(other, _)| key.starts_with(other));
        assert_eq!(first, Some(at), "{key}");
    }
}
