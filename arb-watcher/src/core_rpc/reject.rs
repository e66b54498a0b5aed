//! What Bitcoin Core's reject reasons mean: the one table.
use super::call::{RpcError, code};
use arb_core::ports::Verdict;

#[derive(Clone, Copy)]
enum Meaning {
    Known,
    Conflict,
    FeeTooLow,
    NotFinal,
    Refused,
}

use Meaning::{Conflict, FeeTooLow, Known, NotFinal, Refused};

/// Reason: Core's reject reason up to its details, as `sendrawtransaction`, `testmempoolaccept`
/// and `submitpackage` give it. The first entry that the reason begins with decides. What is not
/// here is taken as refused: it is tried again with every block, as are those.
const REASONS: &[(&str, Meaning)] = &[
    // In the mempool or in a block.
    ("txn-already-in-mempool", Known),
    ("txn-same-nonwitness-data-in-mempool", Known),
    ("txn-already-known", Known),
    ("Transaction outputs already in utxo set", Known),
    ("Transaction already in block chain", Known), // before Core 28
    // Inputs are spent, unknown, or held by transactions that cannot be replaced.
    ("bad-txns-inputs-missingorspent", Conflict),
    ("Inputs missing or spent", Conflict),
    ("missing-inputs", Conflict), // testmempoolaccept
    ("Missing inputs", Conflict), // before Core 22
    ("bip125-replacement-disallowed", Conflict),
    ("txn-mempool-conflict", Conflict), // before full replacement
    ("too many potential replacements", Conflict),
    ("replacement-adds-unconfirmed", Conflict), // before Core 31
    ("bad-txns-spends-conflicting-tx", Conflict),
    ("conflict-in-package", Conflict),
    ("package RBF failed: too many potential replacements", Conflict),
    ("package RBF failed: package must be 1-parent-1-child", Conflict),
    ("package RBF failed: new transaction cannot have mempool ancestors", Conflict),
    // The fee is too low, alone, for the package, or to replace.
    ("min relay fee not met", FeeTooLow),
    ("mempool min fee not met", FeeTooLow),
    ("mempool full", FeeTooLow),
    ("insufficient fee", FeeTooLow),
    ("replacement-failed", FeeTooLow),
    ("package RBF failed: insufficient anti-DoS fees", FeeTooLow),
    ("package RBF failed: package feerate is less than or equal to parent feerate", FeeTooLow),
    ("package RBF failed: insufficient feerate", FeeTooLow),
    // Not yet.
    ("non-final", NotFinal),
    ("non-BIP68-final", NotFinal),
    ("bad-txns-premature-spend-of-coinbase", NotFinal),
    // Scripts and witnesses.
    ("mempool-script-verify-flag-failed", Refused),
    ("block-script-verify-flag-failed", Refused),
    ("bad-txns-nonstandard-inputs", Refused),
    ("bad-witness-nonstandard", Refused),
    // Standardness.
    ("version", Refused),
    ("tx-size", Refused), // and tx-size-small
    ("scriptsig-", Refused),
    ("scriptpubkey", Refused),
    ("datacarrier", Refused),
    ("bare-multisig", Refused),
    ("dust", Refused),
    ("unspent-dust", Refused),
    ("missing-ephemeral-spends", Refused),
    ("bad-txns-too-many-sigops", Refused),
    // TRUC and clusters: other transactions may go, and then it fits.
    ("TRUC-violation", Refused),
    ("too-large-cluster", Refused),
    // What is no transaction at all, or no package.
    ("coinbase", Refused),
    ("bad-cb-length", Refused),
    ("bad-txns-", Refused),
    ("package-", Refused),
    // Guards of the node against mistakes of people.
    ("max feerate exceeded", Refused),
    ("max-fee-exceeded", Refused),
    ("Fee exceeds maximum configured", Refused),
    ("Unspendable output exceeds maximum configured", Refused),
];

/// The verdict behind a reject reason of Bitcoin Core.
///
/// ```
/// use arb_core::ports::Verdict;
/// use arb_watcher::core_rpc::verdict_of;
///
/// assert_eq!(verdict_of("txn-already-in-mempool"), Verdict::Known);
/// let outbid = verdict_of("insufficient fee, rejecting replacement");
/// assert!(matches!(outbid, Verdict::FeeTooLow(_)));
/// ```
#[must_use]
pub fn verdict_of(reason: &str) -> Verdict {
    let entry = REASONS.iter().find(|(key, _)| reason.starts_with(key));
    let reason = reason.to_owned();
    match entry.map(|(_, meaning)| meaning) {
        Some(Known) => Verdict::Known,
        Some(Conflict) => Verdict::Conflict(reason),
        Some(FeeTooLow) => Verdict::FeeTooLow(reason),
        Some(NotFinal) => Verdict::NotFinal(reason),
        Some(Refused) | None => Verdict::Refused(reason),
    }
}

/// The verdict behind an error of `sendrawtransaction`; `None` if it says nothing of the
/// transaction, so that it must be sent again.
pub(super) fn verdict_of_error(error: &RpcError) -> Option<Verdict> {
    match error.code {
        code::IN_UTXO_SET => Some(Verdict::Known),
        // The node's own trouble, by the code of a rejection.
        code::VERIFY | code::REJECTED if error.message.starts_with("Mempool internal error") => {
            None
        }
        code::VERIFY | code::REJECTED => Some(verdict_of(&error.message)),
        code::DESERIALIZATION => Some(Verdict::Refused(error.message.clone())),
        _ => None,
    }
}

/// Whether Core looked for an output in vain. What it says of a transaction that is confirmed,
/// with `submitpackage`.
pub(super) fn is_missing(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Conflict(reason)
        if reason.starts_with("bad-txns-inputs-missingorspent"))
}

#[cfg(test)]
mod tests;
