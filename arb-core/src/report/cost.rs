//! A dry run: what closing a channel now would cost, and when all of it would be home. And what
//! the wallet needs to defend a channel.
//!
//! The scheduler's own parts are used: the same outputs, groups, weights and judgement of what is worth its fee, on a
//! chain on which each transaction confirms in the first block that may hold it.
use crate::arbitrator::{ChannelArbitrator, HandedOut, Now, TxKind};
use crate::claim::build::{Draft, SMALLEST_OUTPUT};
use crate::claim::{SpendPath, fee, plan};
use crate::facts::ChannelFacts;
use crate::format::{
    Commitment, HtlcDirection, HtlcTransaction, OutputKind, commitment, htlc_tx, weights,
};
use crate::picture::{Picture, Way};
use crate::report::Payer;
use crate::units::{self, BlockDelta, BlockHeight, BlockRef, Confirmed, Tx};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, BlockHash, FeeRate, OutPoint, Weight};

/// Steps after which a dry run is over, whatever is left: there is one for each height at which
/// something opens, and no channel has so many HTLCs.
const LONGEST: usize = 2_000;

/// What closing a channel would cost at one feerate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosingCost {
    /// The feerate.
    pub feerate: FeeRate,
    /// The transactions that we would make, in order of their blocks. A child of our commitment costs no more than half of
    /// what is ours in that or at stake: a commitment that needs more waits for lower feerates.
    pub transactions: Vec<PlannedTransaction>,
    /// Their fees; without the fee of the commitment, which was never part of an output.
    pub fees: Amount,
    /// The part of the fees that the wallet pays.
    pub wallet: Amount,
    /// What they weigh together.
    pub weight: Weight,
    /// Value that would come home, before fees.
    pub value: Amount,
    /// Value of ours that would be left, for it costs more than it brings at this feerate.
    pub left: Amount,
    /// Value of HTLCs that only a preimage, which nobody knows yet, would bring home.
    pub uncertain: Amount,
    /// Height of the block in which the last satoshi of ours is home, if each transaction is in the
    /// first block that may hold it; `None`: nothing comes home.
    pub home_at: Option<BlockHeight>,
}

/// A transaction of a dry run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedTransaction {
    /// What it is.
    pub kind: TxKind,
    /// Outputs of the channel that it spends.
    pub inputs: usize,
    /// What it weighs, an upper bound, with one coin of the wallet where that pays.
    pub weight: Weight,
    /// What it pays.
    pub fee: Amount,
    /// Who pays that.
    pub payer: Payer,
    /// Height of the first block that may hold it.
    pub at: BlockHeight,
}

impl ChannelArbitrator {
    /// What closing the channel now would cost at `feerate`; of a closed channel, what the rest
    /// costs. `None`: there is no commitment of ours that could be broadcast. HTLCs whose preimage is
    /// not known count as the peer's.
    #[must_use]
    pub fn closing_cost(
        &self,
        facts: &ChannelFacts,
        now: &Now,
        feerate: FeeRate,
    ) -> Option<ClosingCost> {
        let mut run = DryRun::new(self.clone(), facts, now, feerate);
        if Picture::of(facts, self).is_none() {
            run.close()?;
        }
        run.claim();
        Some(run.cost)
    }
}

/// Everything that the wallet must be able to pay at `feerate`, so that this open channel can be
/// closed by us and each of its HTLCs be taken to the chain by itself, known preimage or not; an
/// upper bound, at most what the scheduler would pay: for the commitment half of what is ours in it
/// or at stake, for an HTLC all of it but the smallest output. Zero for formats that carry their own fees.
#[must_use]
pub fn reserve(facts: &ChannelFacts, feerate: FeeRate) -> Amount {
    let current = &facts.candidates.current;
    let secp = Secp256k1::verification_only();
    let built = commitment::local_commitment(facts, current, &current.local, &secp);
    let Some(built) = built.ok().filter(|built| built.our_anchor().is_some()) else {
        return Amount::ZERO;
    };
    let child = child_fee(facts, &built, feerate);
    let alone = |stage: &HtlcTransaction| {
        let worth = stage.input.value.checked_sub(SMALLEST_OUTPUT).unwrap_or(Amount::ZERO);
        fee::fee_of(feerate, stage_weight(stage)).min(worth)
    };
    htlc_tx::htlc_transactions(&built).iter().map(alone).fold(child, units::plus)
}

/// A channel on a chain of its own.
struct DryRun<'a> {
    state: ChannelArbitrator,
    facts: &'a ChannelFacts,
    now: Now,
    left: BTreeSet<OutPoint>,
    cost: ClosingCost,
}

impl<'a> DryRun<'a> {
    fn new(state: ChannelArbitrator, facts: &'a ChannelFacts, now: &Now, feerate: FeeRate) -> Self {
        let cost = ClosingCost {
            feerate,
            transactions: Vec::new(),
            fees: Amount::ZERO,
            wallet: Amount::ZERO,
            weight: Weight::ZERO,
            value: Amount::ZERO,
            left: Amount::ZERO,
            uncertain: Amount::ZERO,
            home_at: None,
        };
        Self { state, facts, now: *now, left: BTreeSet::new(), cost }
    }

    /// Our commitment, and its child if it pays less than the feerate.
    fn close(&mut self) -> Option<()> {
        let candidate = self.state.closing_candidate(self.facts, self.now.tip)?;
        let local = self.facts.unrevoked_local(candidate)?;
        let secp = Secp256k1::verification_only();
        let built = commitment::local_commitment(self.facts, candidate, local, &secp).ok()?;
        let at = self.now.tip.plus(BlockDelta(1));
        let weight = built.signed_weight();
        let commitment = PlannedTransaction {
            kind: TxKind::Commitment,
            inputs: 1,
            weight,
            fee: built.fee,
            payer: Payer::Output,
            at,
        };
        self.cost.transactions.push(commitment);
        self.cost.weight = weight;
        if built.our_anchor().is_some() {
            let fee = child_fee(self.facts, &built, self.cost.feerate);
            if fee > Amount::ZERO {
                let (kind, weight, payer) = (TxKind::Anchor, child_weight(&built), Payer::Wallet);
                self.add(PlannedTransaction { kind, inputs: 1, weight, fee, payer, at });
            }
        }
        self.confirm(built.transaction.into(), at);
        Some(())
    }

    /// Claim after claim, as they open, until nothing is left.
    fn claim(&mut self) {
        for _ in 0..LONGEST {
            let Some(picture) = Picture::of(self.facts, &self.state) else { return };
            let mut claims = self.state.claims(self.facts, &picture, &self.now.policy);
            claims.retain(|claim| !self.left.contains(&claim.outpoint));
            let Some(next) = claims.iter().map(|claim| claim.open_at).min() else {
                return self.sum_up(&picture);
            };
            self.now.tip = self.now.tip.max(next);
            let tip = self.now.tip;
            claims.retain(|claim| claim.open_at <= tip);
            for (draft, most) in plan::at_feerate(&claims, tip, self.cost.feerate) {
                self.make(&draft, most);
            }
        }
    }

    /// Makes it, if it costs no more than it may.
    fn make(&mut self, draft: &Draft, most: Amount) {
        let (weight, payer) = if draft.wants_coins() {
            (draft.weight().checked_add(weights::COIN).unwrap_or(Weight::MAX), Payer::Wallet)
        } else {
            (draft.weight(), Payer::Output)
        };
        let value = units::total(draft.claims().map(|claim| claim.output.value));
        let fixed = draft.fixed_fee();
        let fee = fixed.unwrap_or_else(|| fee::fee_of(self.cost.feerate, weight));
        let pays = fixed.is_some() || fee <= most;
        if !pays {
            self.cost.left = units::plus(self.cost.left, value);
            self.left.extend(draft.claims().map(|claim| claim.outpoint));
            return;
        }
        let at = self.now.tip.plus(BlockDelta(1));
        let (kind, inputs) = (draft.claim.kind(), draft.claims().count());
        self.add(PlannedTransaction { kind, inputs, weight, fee, payer, at });
        // What a second stage makes is at home when that is swept.
        match &draft.claim.path {
            SpendPath::SecondStage(_) => {}
            SpendPath::LocalCommitment(_) | SpendPath::Anchor { .. } | SpendPath::Single(_) => {
                self.home(value, at);
            }
        }
        self.confirm_ours(draft, fee, at);
    }

    fn add(&mut self, tx: PlannedTransaction) {
        self.cost.fees = units::plus(self.cost.fees, tx.fee);
        if tx.payer == Payer::Wallet {
            self.cost.wallet = units::plus(self.cost.wallet, tx.fee);
        }
        self.cost.weight = self.cost.weight.checked_add(tx.weight).unwrap_or(Weight::MAX);
        self.cost.transactions.push(tx);
    }

    fn home(&mut self, value: Amount, at: BlockHeight) {
        self.cost.value = units::plus(self.cost.value, value);
        self.cost.home_at = self.cost.home_at.max(Some(at));
    }

    fn confirm_ours(&mut self, draft: &Draft, fee: Amount, at: BlockHeight) {
        let transaction = Tx::from(draft.base());
        self.state.acts.handed_out.push(HandedOut {
            kind: draft.claim.kind(),
            transaction: transaction.clone(),
            claims: draft.claims().map(|claim| claim.outpoint).collect(),
            others: Vec::new(),
            coins: Vec::new(),
            fee,
            at,
        });
        self.confirm(transaction, at);
    }

    fn confirm(&mut self, transaction: Tx, height: BlockHeight) {
        let at = BlockRef { height, hash: BlockHash::all_zeros() };
        self.state.chain.push(Confirmed { at, value: transaction });
    }

    /// What needs no transaction of ours, and what waits for a preimage.
    fn sum_up(&mut self, picture: &Picture) {
        for output in picture.outputs.iter().filter(|output| output.spent.is_none()) {
            match &output.way {
                Way::Home => self.home(output.output.value, output.at.height),
                Way::NeedsPreimage { .. } => {
                    self.cost.uncertain = units::plus(self.cost.uncertain, output.output.value);
                }
                Way::Theirs | Way::Nothing | Way::Spend { .. } | Way::Lost => {}
            }
        }
        self.cost.transactions.sort_by_key(|tx| tx.at);
    }
}

/// A transaction with one input and one output besides its change, and a coin: what it weighs with
/// this witness and this output, an upper bound.
fn with_coin(witness: Weight, output: Weight) -> Weight {
    let frame = [weights::TRANSACTION_BASE, weights::SEGWIT_HEADER, weights::INPUT_BASE];
    let parts = frame.into_iter().chain([witness, output, weights::COIN, weights::P2WSH_OUTPUT]);
    parts.reduce(|a, b| a.checked_add(b).unwrap_or(Weight::MAX)).unwrap_or(Weight::ZERO)
}

/// Weight of the child of a commitment, with a coin and its change; one output is all that it has.
fn child_weight(built: &Commitment) -> Weight {
    let script = built.our_anchor().and_then(|anchor| anchor.script.as_ref());
    let witness = match script.map(|script| u64::try_from(script.len()).unwrap_or(u64::MAX)) {
        Some(script) => weights::witness(&[weights::SIGNATURE, script]),
        None => weights::witness(&[]),
    };
    with_coin(witness, Weight::ZERO)
}

/// Weight of a second stage by itself, with a coin and its change.
fn stage_weight(stage: &HtlcTransaction) -> Weight {
    let preimage = match stage.direction {
        HtlcDirection::Offered => 0,
        HtlcDirection::Received => weights::PREIMAGE,
    };
    let script = u64::try_from(stage.script.len()).unwrap_or(u64::MAX);
    let elements = [0, weights::SIGNATURE, weights::SIGNATURE, preimage, script];
    with_coin(weights::witness(&elements), weights::P2WSH_OUTPUT)
}

/// What a child must pay so that both together have the feerate; at most half of what is ours in the commitment or at
/// stake, for then it waits.
fn child_fee(facts: &ChannelFacts, built: &Commitment, feerate: FeeRate) -> Amount {
    let balance = built.output(OutputKind::ToLocal).map(|balance| balance.output.value);
    let at_stake = facts.htlcs.values().map(|record| record.htlc.amount.floor());
    let ours = units::total(balance.into_iter().chain(at_stake));
    let both = built.signed_weight().checked_add(child_weight(built)).unwrap_or(Weight::MAX);
    let fee = fee::fee_of(feerate, both).checked_sub(built.fee).unwrap_or(Amount::ZERO);
    fee.min(Amount::from_sat(ours.to_sat() >> 1))
}
