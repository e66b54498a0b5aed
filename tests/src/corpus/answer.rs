//! What the embedded chain says, in the words that are kept.

use bitcoin::Transaction;

use crate::chain::{EmbeddedChain, PackageVerdict};

/// How an acceptance is written.
pub(super) const OK: &str = "ok";
/// A package transaction that is in with another witness.
pub(super) const OTHER_WITNESS: &str = "other witness";
/// A package transaction that was not looked at.
pub(super) const NOT_EVALUATED: &str = "not evaluated";

pub(super) fn submit(chain: &mut EmbeddedChain, tx: &Transaction) -> Vec<String> {
    let answer = match chain.submit(tx.clone()) {
        Ok(_) => OK.to_owned(),
        Err(reject) => reject.to_string(),
    };
    vec![class(&answer)]
}

pub(super) fn package(chain: &mut EmbeddedChain, package: &[Transaction]) -> Vec<String> {
    let report = chain.submit_package(package);
    let whole = match report.outcome {
        Ok(()) => OK.to_owned(),
        Err(reject) => class(&reject.to_string()),
    };
    let each = report.verdicts.into_iter().map(|(_, verdict)| match verdict {
        PackageVerdict::Accepted(_) | PackageVerdict::AlreadyInMempool => OK.to_owned(),
        PackageVerdict::DifferentWitness(_) => OTHER_WITNESS.to_owned(),
        PackageVerdict::Rejected(reject) => class(&reject.to_string()),
        PackageVerdict::NotEvaluated => NOT_EVALUATED.to_owned(),
    });
    std::iter::once(whole).chain(each).collect()
}

/// A reject reason without its details. The long ones are cut where they say no more.
pub(super) fn class(reason: &str) -> String {
    let short = reason.split(", ").next().unwrap_or_default();
    let short = short.strip_prefix("package topology disallowed").map_or(short, |_| "topology");
    let short = short.strip_prefix("Array must contain").map_or(short, |_| "count");
    short.to_owned()
}
