//! One output in a report: why it is pending, what it cost so far, who else can take it.
use crate::arbitrator::{ANCHOR_FOR_ALL, ChannelArbitrator, HandedOut, Now, OutputState};
use crate::claim::{Extensible, SpendPath, build, fee};
use crate::classify::FundingSpend;
use crate::facts::ChannelFacts;
use crate::height::{self, Due, Reason};
use crate::ids::Side;
use crate::picture::{Output, Picture, Role, Way, at_once};
use crate::units::{self, BlockHeight};
use alloc::string::String;
use bitcoin::{Amount, FeeRate, OutPoint, Txid, Weight};

/// One output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputReport {
    /// The output.
    pub outpoint: OutPoint,
    /// What it is.
    pub role: Role,
    /// Its value.
    pub amount: Amount,
    /// Its state.
    pub state: OutputState,
    /// Why it is pending, and the height at which something happens; `None`: nothing is awaited.
    pub waits: Option<Due>,
    /// By when a claim must be confirmed.
    pub deadline: Option<BlockHeight>,
    /// Who can take it besides us, and from when; `None`: nobody, or it is spent.
    pub rival: Option<Rival>,
    /// Who pays for the transaction that spends it; `None`: it needs none.
    pub payer: Option<Payer>,
    /// Whether a preimage of its hash is known that serves other HTLCs, and not this one: an HTLC that is
    /// not committed, or forwarded elsewhere, is not claimed with it.
    pub withheld: bool,
    /// Who spent it.
    pub spent_by: Option<Side>,
    /// The confirmed spend.
    pub spender: Option<Txid>,
    /// Height of the confirmed spend.
    pub spent_at: Option<BlockHeight>,
    /// Its share of the fees of our confirmed transactions that claim it.
    pub fees: Amount,
    /// Its share of the fee of our newest unconfirmed claim of it, should that confirm.
    pub pending_fee: Option<Amount>,
    /// How often a claim of it was replaced by another.
    pub bumps: usize,
    /// What the network said of any transaction that claims it, so that it is claimed by itself; `None`
    /// once it is spent.
    pub set_aside: Option<String>,
    /// Our newest unconfirmed claim of it.
    pub unconfirmed: Option<Txid>,
    /// Its feerate.
    pub feerate: Option<FeeRate>,
    /// The feerate of it and its unconfirmed parents together; `None` if it has none.
    pub package_feerate: Option<FeeRate>,
}

/// Somebody else who can take an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Who.
    pub who: Taker,
    /// From when, as for our own claims; [`Reason::Preimage`]: if it has the preimage.
    pub from: Due,
}

/// Who takes an output besides us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Taker {
    /// The peer.
    Peer,
    /// Anybody.
    Anyone,
}

/// Who pays for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payer {
    /// Its fee is taken off the output that it spends.
    Output,
    /// Coins of our wallet.
    Wallet,
    /// The peer, whose output it is or becomes.
    Peer,
}

pub(super) fn output(
    facts: &ChannelFacts,
    state: &ChannelArbitrator,
    picture: &Picture,
    output: &Output,
    now: &Now,
) -> OutputReport {
    let ours = || state.acts().claims_of(output.outpoint);
    let paid = ours().filter(|out| state.confirmed_at(out.txid()).is_some());
    let fees = units::total(paid.map(|out| out.share(output.outpoint)));
    let is_spent = output.spent.is_some();
    let newest = ours().next_back().filter(|_| !is_spent);
    OutputReport {
        outpoint: output.outpoint,
        role: output.role,
        amount: output.output.value,
        state: output.state(now.tip),
        waits: waits(state, output, now),
        deadline: match &output.way {
            Way::Spend { due, .. } => {
                let own = state.deadline_in(facts, output, &now.policy);
                state.acts().deadline_of(output.outpoint, due.tip, own, now.tip)
            }
            Way::Theirs | Way::Home | Way::Nothing | Way::NeedsPreimage { .. } | Way::Lost => None,
        },
        rival: rival(facts, state, picture, output),
        payer: payer(state, output),
        withheld: is_withheld(facts, state, output),
        spent_by: output.spent.map(|spent| spent.by),
        spender: output.spent.map(|spent| spent.txid),
        spent_at: output.spent.map(|spent| spent.at.height),
        fees,
        pending_fee: newest.map(|out| out.share(output.outpoint)),
        bumps: ours().count().saturating_sub(1),
        set_aside: state.acts().set_aside.get(&output.outpoint).cloned().filter(|_| !is_spent),
        unconfirmed: newest.map(|out| out.txid()),
        feerate: newest.and_then(|out| fee::feerate_of(out.fee, out.transaction.weight())),
        package_feerate: newest.and_then(|out| package_feerate(state, out)),
    }
}

/// The feerate of a transaction of ours and its unconfirmed parents of ours together; `None` if it
/// has none.
pub(super) fn package_feerate(state: &ChannelArbitrator, child: &HandedOut) -> Option<FeeRate> {
    let inputs = &child.transaction.input;
    let is_parent = |out: &&HandedOut| {
        let txid = out.txid();
        inputs.iter().any(|input| input.previous_output.txid == txid)
            && state.confirmed_at(txid).is_none()
    };
    let (mut fees, mut weight, mut alone) = (child.fee, child.transaction.weight(), true);
    for parent in state.acts().handed_out.iter().filter(is_parent) {
        fees = units::plus(fees, parent.fee);
        weight = weight.checked_add(parent.transaction.weight()).unwrap_or(Weight::MAX);
        alone = false;
    }
    if alone { None } else { fee::feerate_of(fees, weight) }
}

fn waits(state: &ChannelArbitrator, output: &Output, now: &Now) -> Option<Due> {
    let here = |reason| Due { tip: now.tip, until: now.tip, reason };
    if let Some(depth) = output.irrevocable_at(now.tip) {
        return (!depth.is_open(now.tip)).then_some(depth);
    }
    match &output.way {
        Way::Spend { due, .. } if !due.is_open(now.tip) => Some(*due),
        Way::Spend { .. } if state.is_too_dear(output, now) => Some(here(Reason::Uneconomic)),
        Way::Spend { .. } => Some(here(Reason::Confirmation)),
        Way::NeedsPreimage { expiry } => {
            Some(Due { tip: *expiry, until: *expiry, reason: Reason::Preimage })
        }
        Way::Theirs | Way::Home | Way::Nothing | Way::Lost => None,
    }
}

fn payer(state: &ChannelArbitrator, output: &Output) -> Option<Payer> {
    if let Some(spent) = output.spent {
        let ours = state.acts().ours(spent.txid).map(|out| build::is_wallet_paid(out.kind));
        return Some(match (spent.by, ours) {
            (Side::Remote, _) => Payer::Peer,
            // A second stage without anchors is paid from the HTLC, whatever it is called.
            (Side::Local, Some(true)) if extensible(output) => Payer::Wallet,
            (Side::Local, _) => Payer::Output,
        });
    }
    match &output.way {
        Way::Theirs | Way::NeedsPreimage { .. } => Some(Payer::Peer),
        Way::Spend { path: SpendPath::SecondStage(_), .. } if extensible(output) => {
            Some(Payer::Wallet)
        }
        Way::Spend { path: SpendPath::Anchor { .. }, .. } => Some(Payer::Wallet),
        Way::Spend { .. } => Some(Payer::Output),
        Way::Home | Way::Nothing | Way::Lost => None,
    }
}

fn is_withheld(facts: &ChannelFacts, state: &ChannelArbitrator, output: &Output) -> bool {
    match (&output.way, output.role) {
        (Way::NeedsPreimage { .. }, Role::Htlc(id)) => {
            let hash = state.terms(facts, id).map(|htlc| htlc.hash);
            hash.is_some_and(|hash| state.sources(hash).next().is_some())
        }
        _ => false,
    }
}

fn extensible(output: &Output) -> bool {
    match &output.way {
        Way::Spend { path: SpendPath::SecondStage(stage), .. } => {
            stage.extensible == Extensible::Yes
        }
        Way::Spend { .. }
        | Way::Theirs
        | Way::Home
        | Way::Nothing
        | Way::NeedsPreimage { .. }
        | Way::Lost => matches!(output.role, Role::Anchor(_) | Role::SharedAnchor),
    }
}

/// Who can take an unspent output that is ours or may be, besides us.
fn rival(
    facts: &ChannelFacts,
    state: &ChannelArbitrator,
    picture: &Picture,
    output: &Output,
) -> Option<Rival> {
    let settled = matches!(output.way, Way::Theirs | Way::Home) || output.spent.is_some();
    let owner = owner(picture.spend).filter(|_| !settled)?;
    let peer = |from| Some(Rival { who: Taker::Peer, from });
    let made = output.at.height;
    match output.role {
        Role::Anchor(_) => {
            Some(Rival { who: Taker::Anyone, from: height::csv(made, ANCHOR_FOR_ALL) })
        }
        Role::SharedAnchor => Some(Rival { who: Taker::Anyone, from: at_once(made) }),
        // Ours on a commitment that we may still have: nobody else's.
        Role::ToLocal | Role::SecondStage(_) if owner == Side::Local => None,
        Role::ToLocal | Role::SecondStage(_) => peer(height::csv(made, facts.remote.delay)),
        Role::Htlc(id) => {
            let mut candidates = facts.candidates.iter();
            let format = candidates.find(|c| c.funding == picture.funding)?.format;
            let opened = height::sequence(made, format.htlc_sequence());
            match id.offerer {
                Side::Local => peer(Due { reason: Reason::Preimage, ..opened }),
                Side::Remote => peer(height::cltv(state.terms(facts, id)?.expiry).and(opened)),
            }
        }
        Role::ToRemote | Role::Paid(_) | Role::Unidentified => None,
    }
}

/// Whose commitment it is; `None`: none, or none of which we can tell.
const fn owner(spend: FundingSpend) -> Option<Side> {
    match spend {
        FundingSpend::LocalCommitment(_) | FundingSpend::NewerLocalCommitment(_) => {
            Some(Side::Local)
        }
        FundingSpend::RemoteCommitment(_) | FundingSpend::RevokedCommitment(_) => {
            Some(Side::Remote)
        }
        FundingSpend::OutdatedLocalCommitment(_)
        | FundingSpend::FutureCommitment(_)
        | FundingSpend::MutualClose
        | FundingSpend::Splice(_)
        | FundingSpend::Unknown => None,
    }
}
