//! Giving a channel up that was never funded: what must be so, and why it is refused.
use arb_core::arbitrator::{ChannelArbitrator, NoticeKey, UpstreamDuty};
use arb_core::facts::{ChannelFacts, FundingCandidate, HtlcLink, HtlcRecord};
use arb_core::ids::{HtlcId, Side};
use arb_core::units::{BlockHeight, BlockRef, CommitmentNumber};
use bitcoin::{Block, OutPoint, Transaction, Txid};
use std::collections::HashMap;

/// Why nothing is lost if a channel is watched no more. The arbiter holds it against facts and
/// blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfunded {
    /// It can never be funded: another transaction has spent an input of its funding transaction, in
    /// a block that is as deep as a resolved channel's. With the funding transaction of every
    /// candidate; witnesses do not matter.
    DoubleSpent(Vec<Transaction>),
    /// Whether it is funded does not matter: the peer opened it, gave us nothing, and it was never
    /// used.
    NothingAtStake,
}

/// Why a channel is not abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AbandonError {
    /// None of the transactions makes this funding output: state the one that would.
    #[error("no transaction makes the funding output {0}")]
    NotItsFunding(OutPoint),
    /// The funding transaction or a spend of its output is in this block: the channel is to be
    /// closed.
    #[error("its funding is in the chain, block {} {}", .0.height.0, .0.hash)]
    Seen(BlockRef),
    /// Since the channel's birth no block holds another spend of an input of this funding
    /// transaction: it may still confirm.
    #[error("nothing has spent an input of the funding transaction {0}")]
    NotDoubleSpent(Txid),
    /// What spends its input is in a block that may still be reorganised: ask again at this tip.
    #[error("its double spend is deep enough at tip {} only", .0.0)]
    TooShallow(BlockHeight),
    /// The peer did not open it, we have a balance in it, or it was used.
    #[error("something of it is ours")]
    AtStake,
    /// A subscription with [`crate::Delivery::Acknowledged`] has not acknowledged all of its events.
    #[error("a subscriber has not acknowledged all of its events")]
    Unacknowledged,
    /// This HTLC was forwarded to it, and the node has not acknowledged what to do upstream.
    #[error("upstream of HTLC {} is open", .0.id)]
    OpenUpstream(HtlcId),
    /// It has learned the preimage of an HTLC of a channel that is set aside, and keeps it until that one is back.
    #[error("it keeps a preimage for a channel that is set aside")]
    KeepsPreimage,
}

/// What blocks say of funding transactions that should never confirm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sought {
    /// Inputs of funding transactions, and which have them.
    inputs: HashMap<OutPoint, Vec<Txid>>,
    /// Where the other spend of an input is, by funding transaction; the lowest.
    conflicts: HashMap<Txid, BlockRef>,
    seen: Option<BlockRef>,
}

impl Sought {
    /// The funding transaction of every candidate is to be sought.
    pub(crate) fn new(facts: &ChannelFacts, of: &[Transaction]) -> Result<Self, AbandonError> {
        let made: HashMap<Txid, &Transaction> =
            of.iter().map(|tx| (tx.compute_txid(), tx)).collect();
        let mut sought = Self::default();
        for FundingCandidate { funding, .. } in facts.candidates.iter() {
            let tx = made.get(&funding.txid).filter(|tx| tx.tx_out(funding.vout as usize).is_ok());
            let tx = tx.ok_or(AbandonError::NotItsFunding(*funding))?;
            for input in &tx.input {
                sought.inputs.entry(input.previous_output).or_default().push(funding.txid);
            }
        }
        Ok(sought)
    }

    /// The same, before any block.
    pub(crate) fn start_over(&mut self) {
        self.conflicts.clear();
        self.seen = None;
    }

    pub(crate) fn scan(&mut self, at: BlockRef, block: &Block) {
        for tx in &block.txdata {
            for input in &tx.input {
                let Some(fundings) = self.inputs.get(&input.previous_output) else { continue };
                let txid = tx.compute_txid();
                for funding in fundings {
                    if *funding == txid {
                        self.seen.get_or_insert(at);
                    } else {
                        self.conflicts.entry(*funding).or_insert(at);
                    }
                }
            }
        }
    }

    /// Whether no candidate can ever be funded, as blocks up to `tip` say.
    pub(crate) fn judge(
        &self,
        facts: &ChannelFacts,
        depth: u32,
        tip: BlockHeight,
    ) -> Result<(), AbandonError> {
        if let Some(at) = self.seen {
            return Err(AbandonError::Seen(at));
        }
        for FundingCandidate { funding, .. } in facts.candidates.iter() {
            let at = self.conflicts.get(&funding.txid);
            let at = at.ok_or(AbandonError::NotDoubleSpent(funding.txid))?;
            let deep = BlockHeight(at.height.0.saturating_add(depth.saturating_sub(1)));
            if tip < deep {
                return Err(AbandonError::TooShallow(deep));
            }
        }
        Ok(())
    }
}

/// Whether nothing of a channel is ours, funded or not.
pub(crate) fn nothing_at_stake(facts: &ChannelFacts) -> Result<(), AbandonError> {
    let bare = |candidate: &FundingCandidate| {
        let FundingCandidate { local, remote, remote_next, .. } = candidate;
        let first = CommitmentNumber(0);
        (local.number, remote.number) == (first, first)
            && remote_next.is_none()
            && (local.local_balance.0, remote.local_balance.0) == (0, 0)
    };
    let unused = facts.htlcs.is_empty() && facts.candidates.iter().all(bare);
    let lost = facts.opener == Side::Local || !unused;
    if lost { Err(AbandonError::AtStake) } else { Ok(()) }
}

/// Whether the node knows what to do upstream of every HTLC that we forwarded.
pub(crate) fn upstream_is_told(
    facts: &ChannelFacts,
    state: &ChannelArbitrator,
) -> Result<(), AbandonError> {
    let acts = state.acts();
    let told = |id: &HtlcId, record: &HtlcRecord| {
        let duty = UpstreamDuty::of(*id, &record.htlc);
        acts.upstream.contains_key(&duty) && acts.acknowledged.contains(&NoticeKey::Upstream(duty))
    };
    let mut forwarded = facts
        .htlcs
        .iter()
        .filter(|(_, record)| matches!(record.htlc.link, HtlcLink::ForwardOf { .. }));
    let open = forwarded.find(|(id, record)| !told(id, record));
    open.map_or(Ok(()), |(id, _)| Err(AbandonError::OpenUpstream(*id)))
}
