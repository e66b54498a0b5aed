//! A channel that is to be failed and is not closed yet: our commitment on its way.
use crate::arbitrator::{ChannelArbitrator, FailReason, HandedOut, Now, TxKind};
use crate::claim::{Deadline, fee};
use crate::facts::ChannelFacts;
use crate::format::AnchorRule;
use crate::report::Payer;
use crate::units::{BlockHeight, CommitmentNumber};
use bitcoin::{Amount, FeeRate, Txid};

/// Our commitment transaction, from the wish to fail the channel until a funding output is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosingReport {
    /// Number of the commitment.
    pub number: CommitmentNumber,
    /// Who or what asked.
    pub reason: FailReason,
    /// The commitment transaction, once it was handed out.
    pub commitment: Option<Txid>,
    /// What it pays by itself.
    pub fee: Amount,
    /// Its own feerate.
    pub feerate: Option<FeeRate>,
    /// The newest transaction that spends our anchor to pay for it.
    pub child: Option<Txid>,
    /// What that would pay.
    pub child_fee: Amount,
    /// How often the child was replaced by another.
    pub bumps: usize,
    /// The feerate of both together; `None` without a child.
    pub package_feerate: Option<FeeRate>,
    /// Who pays for raising its feerate; `None`: nobody can.
    pub payer: Option<Payer>,
    /// By when it should be confirmed.
    pub deadline: Option<BlockHeight>,
    /// What is lost if it is not.
    pub value_at_risk: Amount,
}

pub(super) fn closing(
    facts: &ChannelFacts,
    state: &ChannelArbitrator,
    now: &Now,
) -> Option<ClosingReport> {
    let tip = now.tip;
    let intent = state.intent()?;
    let commitment = state.acts().of_kind(TxKind::Commitment).last();
    let spends = |child: &&HandedOut| {
        let txid = commitment.map(|out| out.txid());
        child.transaction.input.iter().any(|input| Some(input.previous_output.txid) == txid)
    };
    let children = || state.acts().of_kind(TxKind::Anchor).filter(spends);
    let child = children().last();
    let stake = state.stake(facts, &now.policy);
    let current = &facts.candidates.current;
    let deadline = state.acts().deadline_of(
        current.funding,
        BlockHeight(0),
        stake.deadline.and_then(Deadline::height),
        tip,
    );
    let anchored = current.format.anchors() != AnchorRule::Absent;
    Some(ClosingReport {
        number: intent.commitment,
        reason: intent.reason,
        commitment: commitment.map(|out| out.txid()),
        fee: commitment.map_or(Amount::ZERO, |out| out.fee),
        feerate: commitment.and_then(|out| fee::feerate_of(out.fee, out.transaction.weight())),
        child: child.map(|out| out.txid()),
        child_fee: child.map_or(Amount::ZERO, |out| out.fee),
        bumps: children().count().saturating_sub(1),
        package_feerate: child.and_then(|out| super::output::package_feerate(state, out)),
        payer: anchored.then_some(Payer::Wallet),
        deadline,
        value_at_risk: stake.value,
    })
}
