//! The judgement on one transaction, in the order of Core's `MemPoolAccept`.
//!
//! Nothing here changes the mempool: a judgement is a plan that the chain applies.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut, Txid};

use super::coins::{Coins, check_context_free, check_values};
use super::ledger::Ledger;
use super::locks::{is_final, sequence_locks_open};
use super::mempool::{Entry, Mempool};
use super::reject::{Displaces, Reject};
use super::staging::Staged;
use super::{script, standard, truc};

const MAX_SIGOPS_COST: usize = 16_000;
const WEIGHT_PER_SIGOP: u64 = 20;
/// Distinct clusters whose transactions a replacement may conflict with.
pub(super) const MAX_CONFLICTING_CLUSTERS: usize = 100;

/// By which door a transaction comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    Single,
    /// With others: fees are judged for all together.
    InPackage,
    /// From a disconnected block: neither floor nor TRUC rules apply.
    Resurrected,
}

/// Fees that the mempool asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct FeePolicy {
    pub(super) floor: FeeRate,
    pub(super) incremental: FeeRate,
}

/// The fee of a virtual size, rounded up.
pub(super) fn fee_of(rate: FeeRate, vsize: u64) -> Amount {
    let per_kvb = u128::from(rate.to_sat_per_kwu()) * 4;
    let fee = (per_kvb * u128::from(vsize)).div_ceil(1000);
    Amount::from_sat(u64::try_from(fee).unwrap_or(u64::MAX))
}

/// A transaction that passed the checks of its own.
pub(super) struct Candidate {
    pub(super) entry: Entry,
    pub(super) conflicts: BTreeSet<Txid>,
    pub(super) displaces: Displaces,
    /// In the mempool.
    pub(super) parents: BTreeSet<Txid>,
    pub(super) prevouts: Vec<TxOut>,
}

/// What to change for an acceptance.
pub(super) struct Plan {
    pub(super) additions: Vec<Entry>,
    pub(super) removals: BTreeSet<Txid>,
}

/// The state that judgements are made against.
pub(super) struct Judge<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) mempool: &'a Mempool,
    pub(super) fees: FeePolicy,
    /// Transactions of the same package: their outputs count as unconfirmed coins.
    pub(super) package: &'a [Arc<Transaction>],
}

impl Judge<'_> {
    pub(super) fn single(&self, tx: Arc<Transaction>, entrance: Entrance) -> Result<Plan, Reject> {
        let candidate = self.pre_checks(tx, entrance)?;
        let entry = &candidate.entry;
        let removals = self.replaced(&candidate)?;
        let staged = Staged::new(self.mempool, &[entry], &removals);
        if !staged.within_limits() {
            return Err(Reject::TooLargeCluster);
        }
        if !candidate.conflicts.is_empty() {
            if !staged.improves_diagram() {
                return Err(Reject::ReplacementFailed);
            }
            let ancestors = self.mempool.ancestors(candidate.parents.iter().copied());
            if !ancestors.is_disjoint(&candidate.conflicts) {
                return Err(Reject::SpendsConflicting);
            }
        }
        if entrance != Entrance::Resurrected && !self.spends_parents_dust(&entry.tx) {
            return Err(Reject::MissingEphemeralSpends);
        }
        self.check_scripts(&candidate)?;
        Ok(Plan { additions: vec![candidate.entry], removals })
    }

    /// Core's `PreChecks`: all that concerns the transaction by itself.
    pub(super) fn pre_checks(
        &self,
        tx: Arc<Transaction>,
        entrance: Entrance,
    ) -> Result<Candidate, Reject> {
        check_context_free(&tx)?;
        if tx.is_coinbase() {
            return Err(Reject::Coinbase);
        }
        standard::check_transaction(&tx)?;
        if !is_final(self.ledger, &tx) {
            return Err(Reject::NonFinal);
        }
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        if let Some(known) = self.mempool.get(&txid) {
            let same = known.wtxid == wtxid;
            return Err(if same { Reject::AlreadyInMempool } else { Reject::SameNonWitnessData });
        }
        let conflicts = self.conflicts(&tx);
        let coins = self.coins(txid, &tx)?;
        if !sequence_locks_open(self.ledger, &tx, &coins.heights) {
            return Err(Reject::NonBip68Final);
        }
        let fee = check_values(&tx, &coins, self.ledger.height() + 1)?;
        let prevouts = coins.outputs;
        standard::check_inputs(&tx, &prevouts)?;
        standard::check_witnesses(&tx, &prevouts)?;
        if fee > Amount::ZERO && tx.output.iter().any(standard::is_dust) {
            return Err(Reject::Dust);
        }
        let entry = measure(tx, fee, &prevouts)?;
        let needed = fee_of(self.fees.floor, entry.vsize);
        if entrance == Entrance::Single && fee < needed {
            return Err(Reject::MinRelayFeeNotMet { fee, needed });
        }
        let parents = self.mempool.parents(&entry.tx);
        let displaces = Displaces::Conflicts;
        let mut candidate = Candidate { entry, conflicts, displaces, parents, prevouts };
        if entrance != Entrance::Resurrected {
            self.check_truc(&mut candidate, entrance)?;
        }
        Ok(candidate)
    }

    fn conflicts(&self, tx: &Transaction) -> BTreeSet<Txid> {
        let spent = tx.input.iter().map(|input| &input.previous_output);
        spent.filter_map(|outpoint| self.mempool.spender(outpoint)).map(|e| e.txid).collect()
    }

    fn coins(&self, txid: Txid, tx: &Transaction) -> Result<Coins, Reject> {
        let mut coins = Coins::default();
        for input in &tx.input {
            let outpoint = &input.previous_output;
            if let Some(coin) = self.ledger.coin(outpoint) {
                coins.push(coin.output.clone(), coin.height, coin.coinbase);
            } else if let Some(output) = self.unconfirmed(outpoint) {
                coins.push(output.clone(), self.ledger.height() + 1, false);
            } else {
                let outputs = 0..tx.output.len() as u32;
                let known = outputs
                    .map(|vout| OutPoint { txid, vout })
                    .any(|o| self.ledger.coin(&o).is_some());
                return Err(if known { Reject::AlreadyKnown } else { Reject::MissingOrSpent });
            }
        }
        Ok(coins)
    }

    fn unconfirmed(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        let in_package = || {
            let parent = self.package.iter().find(|tx| tx.compute_txid() == outpoint.txid)?;
            parent.output.get(outpoint.vout as usize)
        };
        self.mempool.output(outpoint).or_else(in_package)
    }

    fn check_truc(&self, candidate: &mut Candidate, entrance: Entrance) -> Result<(), Reject> {
        let Candidate { entry, parents, conflicts, .. } = &*candidate;
        let Err(broken) = truc::check_single(self.mempool, entry, parents, conflicts) else {
            return Ok(());
        };
        match broken.sibling {
            Some(sibling) if entrance == Entrance::Single => {
                candidate.conflicts.insert(sibling);
                candidate.displaces = Displaces::Sibling;
                Ok(())
            }
            _ => Err(Reject::Truc(broken.violation)),
        }
    }

    /// Conflicts with their descendants, if the candidate pays for replacing them.
    fn replaced(&self, candidate: &Candidate) -> Result<BTreeSet<Txid>, Reject> {
        if candidate.conflicts.is_empty() {
            return Ok(BTreeSet::new());
        }
        let displaces = candidate.displaces;
        if self.cluster_count(&candidate.conflicts) > MAX_CONFLICTING_CLUSTERS {
            return Err(Reject::TooManyReplacements(displaces));
        }
        let removals = self.mempool.descendants(candidate.conflicts.iter().copied());
        let fee = candidate.entry.fee;
        let needed = self.replacement_fee(&removals, candidate.entry.vsize);
        if fee < needed {
            return Err(Reject::InsufficientFee { displaces, fee, needed });
        }
        Ok(removals)
    }

    /// The fees replaced and the incremental fee for the newcomer's own size.
    pub(super) fn replacement_fee(&self, removals: &BTreeSet<Txid>, vsize: u64) -> Amount {
        let replaced: Amount =
            removals.iter().filter_map(|txid| self.mempool.get(txid)).map(|e| e.fee).sum();
        replaced + fee_of(self.fees.incremental, vsize)
    }

    pub(super) fn cluster_count(&self, of: &BTreeSet<Txid>) -> usize {
        let mut rest = of.clone();
        let mut count = 0;
        while let Some(first) = rest.first().copied() {
            let cluster = self.mempool.clusters([first]);
            rest.retain(|txid| *txid != first && !cluster.contains(txid));
            count += 1;
        }
        count
    }

    /// True if every dust output of an unconfirmed parent is spent here.
    pub(super) fn spends_parents_dust(&self, tx: &Transaction) -> bool {
        let parents: BTreeSet<Txid> = tx.input.iter().map(|i| i.previous_output.txid).collect();
        parents.into_iter().all(|txid| {
            let in_package = || self.package.iter().find(|p| p.compute_txid() == txid);
            let parent = self.mempool.get(&txid).map(|entry| &entry.tx).or_else(in_package);
            let outputs = parent.iter().flat_map(|parent| &parent.output);
            outputs.enumerate().filter(|(_, output)| standard::is_dust(output)).all(|(vout, _)| {
                let dust = OutPoint { txid, vout: vout as u32 };
                tx.input.iter().any(|input| input.previous_output == dust)
            })
        })
    }

    pub(super) fn check_scripts(&self, candidate: &Candidate) -> Result<(), Reject> {
        script::check_standard(&candidate.entry.tx, &candidate.prevouts)
            .map_err(|(input, error)| Reject::Script { input, error })
    }
}

fn measure(tx: Arc<Transaction>, fee: Amount, prevouts: &[TxOut]) -> Result<Entry, Reject> {
    let sigops = tx.total_sigop_cost(|outpoint| {
        let spent = tx.input.iter().position(|input| input.previous_output == *outpoint)?;
        prevouts.get(spent).cloned()
    });
    if sigops > MAX_SIGOPS_COST {
        return Err(Reject::TooManySigops);
    }
    let weight = tx.weight().to_wu().max(sigops as u64 * WEIGHT_PER_SIGOP);
    Ok(Entry {
        txid: tx.compute_txid(),
        wtxid: tx.compute_wtxid(),
        fee,
        vsize: weight.div_ceil(4),
        weight,
        arrival: 0,
        tx,
    })
}
