//! Our own commitments that the facts do not hold: outdated ones, and, after a loss of data, newer ones. What pays
//! us there with a delay is ours once the signer says the commitment's point. Its HTLCs are not: their second
//! stages need signatures of the peer that nobody has kept.
use crate::classify::FundingSpend;
use crate::format::{CommitmentKeys, ObscuringFactor, number, scripts};
use crate::height::{self, Due};
use crate::ids::Side;
use crate::picture::{Output, Role, View, Watched, Way};
use crate::units::{BlockHeight, CommitmentNumber, Confirmed, Tx};
use alloc::vec::Vec;
use bitcoin::{OutPoint, ScriptBuf, TxOut};

/// A per-commitment point that is not known, of what may be a commitment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingPoint {
    /// Number of the commitment.
    pub number: CommitmentNumber,
    /// When our delay would be over: nothing is given up before.
    pub delay: Due,
    /// Whether the signer has said one, which explains nothing.
    pub explains_nothing: bool,
}

/// A commitment of ours of which only the point is known.
pub(super) struct Unheld {
    keys: CommitmentKeys,
    to_local: ScriptBuf,
}

impl View<'_> {
    /// The point that would tell whether this is a commitment of ours, if it is not known. One that
    /// explains nothing may be wrong.
    pub(super) fn missing_point(&self, spend: FundingSpend) -> Option<MissingPoint> {
        let number = self.may_be_ours(spend)?;
        if self.own_unheld(spend).is_some() {
            return None;
        }
        let delay = height::csv(self.tx.at.height, self.facts.local.delay);
        let explains_nothing = self.arbitrator.points.contains_key(&number);
        Some(MissingPoint { number, delay, explains_nothing })
    }

    /// Outputs of what spends the commitment, as long as it is not known whether they are second stages of ours:
    /// their spends must have been seen by the time that it is.
    pub(super) fn may_be_second_stages(&self) -> impl Iterator<Item = Watched> {
        let spends = |tx: &Confirmed<Tx>| {
            let mut inputs = tx.value.input.iter();
            inputs.any(|input| input.previous_output.txid == self.txid)
        };
        let spenders = self.arbitrator.chain.iter().filter(move |tx| spends(tx));
        spenders.flat_map(|tx| {
            let txid = tx.value.txid();
            let watched = move |(vout, output): (u32, &TxOut)| Watched {
                outpoint: OutPoint { txid, vout },
                script: output.script_pubkey.clone(),
                at: tx.at,
            };
            (0u32..).zip(&tx.value.output).map(watched)
        })
    }

    /// The number of what is shaped like a commitment, and may be one of ours that the facts do not hold.
    fn may_be_ours(&self, spend: FundingSpend) -> Option<CommitmentNumber> {
        match spend {
            FundingSpend::OutdatedLocalCommitment(_)
            | FundingSpend::NewerLocalCommitment(_)
            | FundingSpend::FutureCommitment(_)
            | FundingSpend::Unknown => {}
            FundingSpend::MutualClose
            | FundingSpend::LocalCommitment(_)
            | FundingSpend::RemoteCommitment(_)
            | FundingSpend::RevokedCommitment(_)
            | FundingSpend::Splice(_) => return None,
        }
        let number = number::commitment_number_of(&self.tx.value, ObscuringFactor::of(self.facts))?;
        // Only the peer's pay us so.
        let peers = self.our_to_remote().0.script_pubkey;
        (!self.tx.value.output.iter().any(|o| o.script_pubkey == peers)).then_some(number)
    }

    /// The keys of a commitment of ours that the facts do not hold, if this is one that pays us.
    pub(super) fn own_unheld(&self, spend: FundingSpend) -> Option<Unheld> {
        let point = *self.arbitrator.points.get(&self.may_be_ours(spend)?)?;
        let funding = &self.candidate.keys;
        let keys = CommitmentKeys::new(self.facts, funding, Side::Local, point, self.secp).ok()?;
        let to_local = scripts::to_local(&keys, self.facts.local.delay).script_pubkey;
        let pays_us = self.tx.value.output.iter().any(|o| o.script_pubkey == to_local)
            || self.second_stages(&to_local).next().is_some();
        pays_us.then_some(Unheld { keys, to_local })
    }

    /// Its outputs, and those of second stages of ours that were made before the data was lost.
    pub(super) fn unheld(&self, own: &Unheld, spend: FundingSpend) -> Vec<Output> {
        let to_peer =
            scripts::to_remote(self.candidate.format, &own.keys.other_payment).script_pubkey;
        let read = |(vout, output): (u32, &TxOut)| {
            let (role, way) = if output.script_pubkey == own.to_local {
                (Role::ToLocal, self.unheld_delayed(own, self.tx.at.height, spend))
            } else if output.script_pubkey == to_peer {
                (Role::ToRemote, Way::Theirs)
            } else {
                self.anchor(output).unwrap_or((Role::Unidentified, Way::Lost))
            };
            self.output(vout, output.clone(), role, way)
        };
        let mut outputs: Vec<Output> = (0u32..).zip(&self.tx.value.output).map(read).collect();
        outputs.extend(self.second_stages(&own.to_local).map(|(tx, outpoint, made)| Output {
            outpoint,
            output: made.clone(),
            at: tx.at,
            role: Role::SecondStage(None),
            way: self.unheld_delayed(own, tx.at.height, spend),
            spent: None,
        }));
        outputs
    }

    /// What the peer can take by the revocation key is a race with it from the moment that our delay is over.
    fn unheld_delayed(&self, own: &Unheld, made: BlockHeight, spend: FundingSpend) -> Way {
        let mut way = self.delayed(&own.keys, made, None);
        if let (FundingSpend::OutdatedLocalCommitment(_), Way::Spend { due, deadline, .. }) =
            (spend, &mut way)
        {
            *deadline = Some(due.tip);
        }
        way
    }
}
