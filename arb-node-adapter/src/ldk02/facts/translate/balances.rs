//! Balances of a commitment, from the outputs that LDK states.
use arb_core::facts::ChannelFacts;
use arb_core::format::{Commitment, OutputKind};
use arb_core::ids::{HtlcId, Side};
use arb_core::units::MilliSat;
use bitcoin::{Amount, Txid};

/// What is known of a commitment transaction of LDK's.
#[derive(Clone, Copy, Debug)]
pub(in crate::ldk02::facts) struct Outputs {
    pub(in crate::ldk02::facts) txid: Txid,
    /// Our own output, in satoshis; zero if there is none.
    pub(in crate::ldk02::facts) local: u64,
    /// The peer's output, in satoshis; zero if there is none.
    pub(in crate::ldk02::facts) remote: u64,
}

/// Balances that give LDK's transaction: LDK states outputs, which are after fees, anchors and
/// rounding. Which of the balances that round to the same outputs it is makes no difference on
/// chain. `None`: no balances give it.
pub(in crate::ldk02::facts) fn balances(
    facts: &ChannelFacts,
    capacity: Amount,
    htlcs: &[HtlcId],
    outputs: &Outputs,
    build: impl Fn(MilliSat, MilliSat) -> Option<Commitment>,
) -> Option<(MilliSat, MilliSat)> {
    let mut rest = MilliSat::from_amount(capacity).0;
    for id in htlcs {
        rest = rest.checked_sub(facts.htlcs.get(id)?.htlc.amount.0)?;
    }
    let opener = facts.opener;
    let (opener_output, other_output) = match opener {
        Side::Local => (outputs.local, outputs.remote),
        Side::Remote => (outputs.remote, outputs.local),
    };
    let split = |other: u64| {
        let paying = MilliSat(rest.checked_sub(other)?);
        let other = MilliSat(other);
        Some(match opener {
            Side::Local => (paying, other),
            Side::Remote => (other, paying),
        })
    };
    let fits = |other: u64| {
        let (local, remote) = split(other)?;
        let built = build(local, remote)?;
        (built.transaction.compute_txid() == outputs.txid).then_some((local, remote))
    };
    let whole = other_output.checked_mul(1000)?;
    if let Some(found) = fits(whole).or_else(|| fits(whole.checked_add(999)?)) {
        return Some(found);
    }
    // The other party's output is trimmed: its balance is what the opener's output lacks.
    let (local, remote) = split(0)?;
    let built = build(local, remote)?;
    let largest = opener_value(&built, opener)?;
    let lacking = largest.to_sat().checked_sub(opener_output)?.checked_mul(1000)?;
    fits(lacking)
}

fn opener_value(built: &Commitment, opener: Side) -> Option<Amount> {
    let kind =
        if built.spec.keys.owner == opener { OutputKind::ToLocal } else { OutputKind::ToRemote };
    built.outputs.iter().find(|output| output.kind == kind).map(|output| output.output.value)
}
