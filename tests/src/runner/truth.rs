//! What became of a channel's value, told by the chain and the peer alone.
use super::Failed;
use super::locate::{Close, paired_output};
use super::story::{Chan, Runner};
use crate::peer::{Commitment, OutputRole, Side};
use crate::scenario::ast::ChannelName;
use crate::world::Ledger;
use bitcoin::{Amount, OutPoint, Transaction, Txid};
use std::collections::BTreeSet;

/// Where the value of a funding output is: the terms add up to the capacity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// Outputs that reached us, before the fees of our own transactions.
    pub(super) ours: Amount,
    /// Fees that our second-stage transactions carry themselves.
    pub(super) stage_fees: Amount,
    /// What went to the peer, and the fees of its transactions.
    pub(super) theirs: Amount,
    /// The fee of the closing transaction.
    pub(super) close_fee: Amount,
    /// Outputs of a close that nobody can explain.
    pub(super) lost: Amount,
    /// Unspent outputs that may still go either way.
    pub(super) pending: Amount,
    /// Our confirmed transactions behind it.
    pub(super) transactions: BTreeSet<Txid>,
}

impl Value {
    /// The sum of all terms.
    pub(super) fn total(&self) -> Amount {
        [self.ours, self.stage_fees, self.theirs, self.close_fee, self.lost, self.pending]
            .into_iter()
            .sum()
    }
}

/// An output on its way down the tree of spends.
struct Node {
    outpoint: OutPoint,
    amount: Amount,
    kind: Kind,
}

/// What matters of an output for who may take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Paid to a script of this side's wallet.
    Paid(Side),
    /// A balance, after a delay or with a key of the channel.
    Balance(Side),
    Anchor(Side),
    /// Nothing on chain says whose child took it: only the arbiter's own is known for ours.
    AnchorForAll,
    Htlc,
    SecondStage,
    Unexplained,
}

/// A walk down the spends of one channel's close.
struct Walk<'a> {
    ledger: &'a Ledger,
    is_ours: &'a dyn Fn(&Txid) -> bool,
    is_arbiters: &'a dyn Fn(&Txid) -> bool,
    /// Whose commitment it is; `None`: no commitment.
    owner: Option<Side>,
    /// Whether the peer had revoked it.
    revoked: bool,
    value: Value,
}

impl Walk<'_> {
    fn take(&mut self, node: Node) {
        let Node { outpoint, amount, kind } = node;
        let Some((_, tx)) = self.ledger.spender(&outpoint) else {
            return self.unspent(amount, kind);
        };
        let ours = (self.is_ours)(&tx.compute_txid());
        if ours {
            self.value.transactions.insert(tx.compute_txid());
        }
        match (kind, self.owner, ours) {
            (Kind::Paid(Side::Local), _, _) => self.value.ours += amount,
            (Kind::Paid(Side::Remote), _, _) => self.value.theirs += amount,
            (Kind::Htlc, Some(Side::Local), true) | (Kind::Htlc, Some(Side::Remote), false) => {
                let tx = tx.clone();
                self.second_stage(&tx, &outpoint, amount);
            }
            (Kind::AnchorForAll, _, true) if !(self.is_arbiters)(&tx.compute_txid()) => {
                self.value.theirs += amount;
            }
            (_, _, true) => self.value.ours += amount,
            (Kind::Unexplained, _, false) => self.value.lost += amount,
            (_, _, false) => self.value.theirs += amount,
        }
    }

    /// The owner's HTLC transaction: what it does not pass on is its fee.
    fn second_stage(&mut self, tx: &Transaction, outpoint: &OutPoint, amount: Amount) {
        let paired = paired_output(tx, outpoint);
        let output = paired.and_then(|paired| self.ledger.output(&paired).cloned());
        let passed = output.map_or(Amount::ZERO, |output| output.value).min(amount);
        let fee = amount - passed;
        match self.owner {
            Some(Side::Local) => self.value.stage_fees += fee,
            Some(Side::Remote) | None => self.value.theirs += fee,
        }
        if let Some(outpoint) = paired {
            self.take(Node { outpoint, amount: passed, kind: Kind::SecondStage });
        }
    }

    fn unspent(&mut self, amount: Amount, kind: Kind) {
        let term = match kind {
            Kind::Paid(Side::Local) => &mut self.value.ours,
            Kind::Paid(Side::Remote) | Kind::Anchor(Side::Remote) | Kind::AnchorForAll => {
                &mut self.value.theirs
            }
            Kind::Balance(Side::Remote) if !self.revoked => &mut self.value.theirs,
            Kind::SecondStage if self.owner == Some(Side::Remote) && !self.revoked => {
                &mut self.value.theirs
            }
            Kind::Unexplained => &mut self.value.lost,
            Kind::Balance(_) | Kind::Anchor(Side::Local) | Kind::Htlc | Kind::SecondStage => {
                &mut self.value.pending
            }
        };
        *term += amount;
    }
}

fn kind(commitment: &Commitment, role: &OutputRole, plain_to_remote: bool) -> Kind {
    match role {
        OutputRole::ToLocal => Kind::Balance(commitment.owner),
        // Without anchors it pays a bare key, which is our wallet's as much as any.
        OutputRole::ToRemote if plain_to_remote => Kind::Paid(commitment.owner.other()),
        OutputRole::ToRemote => Kind::Balance(commitment.owner.other()),
        OutputRole::Anchor(side) => Kind::Anchor(*side),
        OutputRole::SharedAnchor => Kind::AnchorForAll,
        OutputRole::Htlc { .. } => Kind::Htlc,
    }
}

impl Chan {
    fn kind_of(&self, close: &Close, vout: u32) -> Kind {
        if let Some(commitment) = &close.commitment {
            let plain = self.peer.params().format != crate::peer::Format::Anchors;
            let role = commitment.outputs.get(&vout);
            return role.map_or(Kind::Unexplained, |role| kind(commitment, role, plain));
        }
        let script = close.tx.output.get(vout as usize).map(|output| &output.script_pubkey);
        if script == Some(&self.peer.shutdown_script(Side::Local)) {
            Kind::Paid(Side::Local)
        } else if script == Some(&self.peer.shutdown_script(Side::Remote)) {
            Kind::Paid(Side::Remote)
        } else {
            Kind::Unexplained
        }
    }

    /// Whether the peer has revoked the commitment that closed the channel.
    pub(super) fn is_revoked(&self, commitment: &Commitment) -> bool {
        commitment.owner == Side::Remote && commitment.number < self.peer.remote_number()
    }
}

impl Runner<'_> {
    /// Where the value of a channel is; `None` while its funding output is unspent or spliced.
    pub(super) async fn value(&mut self, name: &ChannelName) -> Result<Option<Value>, Failed> {
        let close = self.close(name).await?;
        let Some(close) = close.filter(|close| close.height.is_some() && !close.splice) else {
            return Ok(None);
        };
        let capacity = self.on_chain_peer(name)?.params().capacity;
        let chan = self.chan(name)?;
        let is_ours = |txid: &Txid| self.is_ours(txid);
        let is_arbiters = |txid: &Txid| self.world.faults.is_ours(txid);
        let mut walk = Walk {
            ledger: &self.world.ledger,
            is_ours: &is_ours,
            is_arbiters: &is_arbiters,
            owner: close.commitment.as_ref().map(|commitment| commitment.owner),
            revoked: close.commitment.as_ref().is_some_and(|c| chan.is_revoked(c)),
            value: Value::default(),
        };
        let txid = close.tx.compute_txid();
        let mut outputs = Amount::ZERO;
        for (vout, output) in (0u32..).zip(&close.tx.output) {
            outputs += output.value;
            let outpoint = OutPoint { txid, vout };
            let kind = chan.kind_of(&close, vout);
            walk.take(Node { outpoint, amount: output.value, kind });
        }
        walk.value.close_fee = capacity.checked_sub(outputs).unwrap_or_default();
        Ok(Some(walk.value))
    }
}
