//! Packages: the judgement on several transactions together, as Core's `submitpackage`.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction, Txid};

use super::EmbeddedChain;
use super::accept::{Candidate, Entrance, Judge, MAX_CONFLICTING_CLUSTERS, Plan, fee_of};
use super::cluster::compare_feerates;
use super::mempool::Entry;
use super::reject::{PackageReject, PackageReport, PackageVerdict, Reject};
use super::staging::Staged;
use super::truc;

const MAX_COUNT: usize = 25;
const MAX_WEIGHT: u64 = 404_000;

/// Why a group fails: as a whole, or by one of its transactions.
enum Refusal {
    Whole(PackageReject),
    One(PackageReject, Txid, Reject),
}

impl From<PackageReject> for Refusal {
    fn from(reject: PackageReject) -> Self {
        Self::Whole(reject)
    }
}

pub(super) fn submit(chain: &mut EmbeddedChain, package: &[Transaction]) -> PackageReport {
    let txids: Vec<Txid> = package.iter().map(Transaction::compute_txid).collect();
    if let Err(reject) = check_form(package, &txids) {
        let verdicts = txids.iter().map(|txid| (*txid, PackageVerdict::NotEvaluated)).collect();
        return PackageReport { outcome: Err(reject), verdicts };
    }
    let mut verdicts = BTreeMap::new();
    let mut together = Vec::new();
    let mut failed = false;
    for (tx, txid) in package.iter().zip(&txids) {
        let verdict = submit_one(chain, tx, txid);
        if let PackageVerdict::Rejected(reject) = &verdict {
            if package.len() > 1 && reject.may_pass_in_package() {
                together.push(Arc::new(tx.clone()));
            } else {
                failed = true;
            }
        }
        verdicts.insert(*txid, verdict);
    }
    let mut outcome = if failed { Err(PackageReject::TransactionFailed) } else { Ok(()) };
    if !failed && !together.is_empty() {
        outcome = submit_together(chain, &together, &mut verdicts);
    }
    for (txid, verdict) in &mut verdicts {
        // One that came later may have replaced it. Core looks for what is missing only when the
        // mempool may have been trimmed, and blames that.
        if verdict.is_in_mempool() && !chain.in_mempool(txid) {
            *verdict = PackageVerdict::Rejected(Reject::MempoolFull);
            outcome = Err(PackageReject::TransactionFailed);
        }
    }
    let verdict = |txid| verdicts.remove(&txid).unwrap_or(PackageVerdict::NotEvaluated);
    let verdicts = txids.iter().copied().zip(txids.iter().copied().map(verdict)).collect();
    PackageReport { outcome, verdicts }
}

fn submit_one(chain: &mut EmbeddedChain, tx: &Transaction, txid: &Txid) -> PackageVerdict {
    match chain.mempool.get(txid).map(|entry| entry.wtxid) {
        Some(wtxid) if wtxid == tx.compute_wtxid() => PackageVerdict::AlreadyInMempool,
        Some(wtxid) => PackageVerdict::DifferentWitness(wtxid),
        None => match chain.submit(tx.clone()) {
            Ok(accepted) => PackageVerdict::Accepted(accepted),
            Err(reject) => PackageVerdict::Rejected(reject),
        },
    }
}

fn submit_together(
    chain: &mut EmbeddedChain,
    package: &[Arc<Transaction>],
    verdicts: &mut BTreeMap<Txid, PackageVerdict>,
) -> Result<(), PackageReject> {
    match judge(&chain.judge(package), package) {
        Ok(plan) => {
            for accepted in chain.apply(plan) {
                verdicts.insert(accepted.txid, PackageVerdict::Accepted(accepted));
            }
            Ok(())
        }
        Err(Refusal::Whole(reject)) => Err(reject),
        Err(Refusal::One(reject, txid, reason)) => {
            verdicts.insert(txid, PackageVerdict::Rejected(reason));
            Err(reject)
        }
    }
}

/// The checks of the RPC (a child, and parents that do not spend from each other), then
/// Core's `IsWellFormedPackage`. The former imply that the package is sorted.
fn check_form(package: &[Transaction], txids: &[Txid]) -> Result<(), PackageReject> {
    let Some((child, parents)) = package.split_last() else { return Err(PackageReject::Count) };
    if package.len() > MAX_COUNT {
        return Err(PackageReject::Count);
    }
    let spends = |tx: &Transaction, id: &Txid| {
        tx.input.iter().any(|input| input.previous_output.txid == *id)
    };
    let above = &txids[..parents.len()];
    let all_parents = above.iter().all(|txid| spends(child, txid));
    let independent = !parents.iter().any(|tx| above.iter().any(|txid| spends(tx, txid)));
    if !all_parents || !independent {
        return Err(PackageReject::Topology);
    }
    let weight: u64 = package.iter().map(|tx| tx.weight().to_wu()).sum();
    if package.len() > 1 && weight > MAX_WEIGHT {
        return Err(PackageReject::TooLarge);
    }
    let distinct: HashSet<&Txid> = txids.iter().collect();
    if distinct.len() != package.len() {
        return Err(PackageReject::Duplicates);
    }
    check_consistent(package)
}

/// No two transactions of the package spend one output; duplicates within one have a reject
/// of their own.
fn check_consistent(package: &[Transaction]) -> Result<(), PackageReject> {
    let mut seen: HashSet<OutPoint> = HashSet::new();
    for tx in package {
        let spent = || tx.input.iter().map(|input| input.previous_output);
        if tx.input.is_empty() || spent().any(|outpoint| seen.contains(&outpoint)) {
            return Err(PackageReject::ConflictInPackage);
        }
        seen.extend(spent());
    }
    Ok(())
}

/// Core's `AcceptMultipleTransactions`.
fn judge(judge: &Judge<'_>, package: &[Arc<Transaction>]) -> Result<Plan, Refusal> {
    // A single leftover is judged again by itself, floor included.
    if let [tx] = package {
        let txid = tx.compute_txid();
        let one = |reject| Refusal::One(PackageReject::TransactionFailed, txid, reject);
        return judge.single(Arc::clone(tx), Entrance::Single).map_err(one);
    }
    let mut candidates = Vec::new();
    for tx in package {
        let txid = tx.compute_txid();
        let one = |reject| Refusal::One(PackageReject::TransactionFailed, txid, reject);
        candidates.push(judge.pre_checks(Arc::clone(tx), Entrance::InPackage).map_err(one)?);
    }
    for Candidate { entry, parents, .. } in &candidates {
        truc::check_in_package(judge.mempool, entry, parents, package)
            .map_err(PackageReject::Truc)?;
    }
    check_floor(judge, &candidates)?;
    let removals = check_replacement(judge, &candidates)?;
    check_graph(judge, &candidates, &removals)?;
    for candidate in &candidates {
        let txid = candidate.entry.txid;
        if !judge.spends_parents_dust(&candidate.entry.tx) {
            let reject = Reject::MissingEphemeralSpends;
            return Err(Refusal::One(PackageReject::UnspentDust, txid, reject));
        }
    }
    for candidate in &candidates {
        let txid = candidate.entry.txid;
        let one = |reject| Refusal::One(PackageReject::TransactionFailed, txid, reject);
        judge.check_scripts(candidate).map_err(one)?;
    }
    Ok(Plan { additions: candidates.into_iter().map(|c| c.entry).collect(), removals })
}

fn totals(candidates: &[Candidate]) -> (Amount, u64) {
    let fee = candidates.iter().map(|c| c.entry.fee).sum();
    (fee, candidates.iter().map(|c| c.entry.vsize).sum())
}

fn check_floor(judge: &Judge<'_>, candidates: &[Candidate]) -> Result<(), Refusal> {
    let (fee, vsize) = totals(candidates);
    let needed = fee_of(judge.fees.floor, vsize);
    match candidates.last() {
        Some(child) if fee < needed => Err(Refusal::One(
            PackageReject::TransactionFailed,
            child.entry.txid,
            Reject::MinRelayFeeNotMet { fee, needed },
        )),
        _ => Ok(()),
    }
}

/// Core's `PackageRBFChecks` but for the diagram; gives what is to be removed.
fn check_replacement(
    judge: &Judge<'_>,
    candidates: &[Candidate],
) -> Result<BTreeSet<Txid>, PackageReject> {
    let conflicts: BTreeSet<Txid> =
        candidates.iter().flat_map(|c| c.conflicts.iter().copied()).collect();
    if conflicts.is_empty() {
        return Ok(BTreeSet::new());
    }
    let [parent, _child] = candidates else { return Err(PackageReject::RbfTopology) };
    if candidates.iter().any(|candidate| !candidate.parents.is_empty()) {
        return Err(PackageReject::RbfMempoolAncestors);
    }
    if judge.cluster_count(&conflicts) > MAX_CONFLICTING_CLUSTERS {
        return Err(PackageReject::RbfTooManyReplacements);
    }
    let removals = judge.mempool.descendants(conflicts);
    let (fee, vsize) = totals(candidates);
    let needed = judge.replacement_fee(&removals, vsize);
    if fee < needed {
        return Err(PackageReject::RbfInsufficientFees { fee, needed });
    }
    let alone = (parent.entry.fee.to_sat(), parent.entry.vsize);
    if compare_feerates((fee.to_sat(), vsize), alone).is_le() {
        return Err(PackageReject::RbfParentPays);
    }
    Ok(removals)
}

fn check_graph(
    judge: &Judge<'_>,
    candidates: &[Candidate],
    removals: &BTreeSet<Txid>,
) -> Result<(), PackageReject> {
    let additions: Vec<&Entry> = candidates.iter().map(|c| &c.entry).collect();
    let staged = Staged::new(judge.mempool, &additions, removals);
    if !staged.within_limits() {
        return Err(PackageReject::TooLargeCluster);
    }
    if !removals.is_empty() && !staged.improves_diagram() {
        return Err(PackageReject::RbfDiagram);
    }
    Ok(())
}
