//! Words of a serialised report. They stay, whatever the variants are called.
use crate::arbitrator::event::OutputProgress;
use crate::arbitrator::{OutputState, TxKind, UpstreamVerdict};
use crate::facts::Link;
use crate::height::Reason;
use crate::ids::Side;
use crate::report::{Payer, Taker};

pub(super) const fn side(side: Side) -> &'static str {
    match side {
        Side::Local => "local",
        Side::Remote => "remote",
    }
}

pub(super) const fn link(link: Link) -> &'static str {
    match link {
        Link::Up => "up",
        Link::Down => "down",
    }
}

pub(super) const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Csv => "csv",
        Reason::Cltv => "cltv",
        Reason::Depth => "depth",
        Reason::Deadline => "deadline",
        Reason::Confirmation => "confirmation",
        Reason::Preimage => "preimage",
        Reason::Uneconomic => "uneconomic",
    }
}

pub(super) const fn verdict(verdict: UpstreamVerdict) -> &'static str {
    match verdict {
        UpstreamVerdict::Fulfilled => "fulfilled",
        UpstreamVerdict::Failed => "failed",
    }
}

pub(super) const fn state(state: OutputState) -> &'static str {
    match state {
        OutputState::Unresolved => "unresolved",
        OutputState::Claiming => "claiming",
        OutputState::Claimed => "claimed",
        OutputState::PeerClaimed => "peer_claimed",
        OutputState::Resolved => "resolved",
        OutputState::Irrevocable => "irrevocable",
    }
}

pub(super) const fn payer(payer: Payer) -> &'static str {
    match payer {
        Payer::Output => "output",
        Payer::Wallet => "wallet",
        Payer::Peer => "peer",
    }
}

pub(super) const fn taker(taker: Taker) -> &'static str {
    match taker {
        Taker::Peer => "peer",
        Taker::Anyone => "anyone",
    }
}

pub(super) const fn transaction(kind: TxKind) -> &'static str {
    match kind {
        TxKind::Commitment => "commitment",
        TxKind::Anchor => "anchor",
        TxKind::HtlcTimeout => "htlc_timeout",
        TxKind::HtlcSuccess => "htlc_success",
        TxKind::Claim => "claim",
        TxKind::Sweep => "sweep",
        TxKind::Penalty => "penalty",
    }
}

pub(super) const fn progress(progress: OutputProgress) -> &'static str {
    match progress {
        OutputProgress::Unspent => "unspent",
        OutputProgress::Claimed => "claimed",
        OutputProgress::PeerClaimed => "peer_claimed",
        OutputProgress::Irrevocable => "irrevocable",
    }
}
