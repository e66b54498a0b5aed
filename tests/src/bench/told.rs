//! Channels with a history, as the node has told of them: facts and penalty data.
use arb_core::facts::{ChannelFacts, HtlcRecord};
use arb_core::format::ChannelSecrets;
use arb_core::ids::{HtlcId, Slot};
use arb_core::log::Write;
use arb_core::units::CommitmentNumber;
use arb_watcher::ChannelNumbers;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{OutPoint, Transaction};
use std::sync::Arc;

use super::BenchError;
use super::channels::{EXPIRY, TIP};
use crate::peer::{Channel, ChannelParams, Format, Keep, NewHtlc, preimage_named};
use crate::world::{Links, channel_id, channel_secrets, first_facts, updates_of};

/// A channel whose peer revoked a commitment with HTLCs, half of them offered by each side. The
/// facts of other channels like it are made from its own: with the same keys and another funding
/// output.
pub(super) struct Revoked {
    channel: Channel,
    /// Number of the revoked commitment.
    number: u64,
    facts: ChannelFacts,
    ended: Vec<(HtlcId, HtlcRecord)>,
}

impl Revoked {
    /// A channel with this many HTLCs in its revoked commitment, each of this many satoshis.
    ///
    /// # Errors
    /// The channel does not hold.
    pub(super) fn with_htlcs(count: usize, satoshis: u64) -> Result<Self, BenchError> {
        let params = ChannelParams::new("storm");
        let half = bitcoin::Amount::from_sat(satoshis * count as u64 + 200_000);
        let capacity = half * 2;
        let format = Format::Anchors;
        let params = ChannelParams { format, capacity, local_balance: half, ..params };
        let mut channel = Channel::new(params)?;
        channel.set_funding(OutPoint { vout: 0, ..OutPoint::null() })?;
        let secp = Secp256k1::new();
        let mut facts = first_facts(&channel, TIP - 1_000)?;
        facts.verify(&secp)?;
        channel.take_facts(Keep::Newest)?;
        for at in 0..count {
            let name = at.to_string();
            let preimage = preimage_named(&name);
            let amount_msat = satoshis * 1_000;
            let htlc = NewHtlc { name, amount_msat, cltv_expiry: EXPIRY, preimage };
            if at % 2 == 0 {
                channel.offer(htlc)?
            } else {
                channel.receive(htlc)?
            };
        }
        let number = channel.remote_number();
        for at in 0..count {
            channel.cancel(&at.to_string())?;
        }
        let mut ended = Vec::new();
        let steps = channel.take_facts(Keep::Newest)?;
        for update in updates_of(&steps, channel.funding()?, &Links::new()) {
            let updated = facts.updated(&update, &secp)?;
            facts = updated.facts;
            ended.extend(updated.ended);
        }
        Ok(Self { channel, number, facts, ended })
    }

    /// Another channel like this one, with this funding output.
    ///
    /// # Errors
    /// The commitment cannot be built.
    pub(super) fn at(&mut self, funding: OutPoint) -> Result<Told, BenchError> {
        self.channel.set_funding(funding)?;
        let close = self.channel.remote_commitment(self.number)?.tx;
        let mut facts = self.facts.clone();
        facts.id = channel_id(&funding);
        facts.candidates.current.funding = funding;
        Ok(Told { facts, ended: self.ended.clone(), close })
    }

    /// The number of the revoked commitment.
    pub(super) const fn number(&self) -> CommitmentNumber {
        CommitmentNumber(self.number)
    }

    /// Secrets of our side, for every channel like this one.
    pub(super) fn secrets(&self) -> ChannelSecrets {
        channel_secrets(self.channel.local_secrets())
    }
}

/// One channel: what is stored of it, and the revoked commitment that will close it.
pub(super) struct Told {
    pub(super) facts: ChannelFacts,
    pub(super) ended: Vec<(HtlcId, HtlcRecord)>,
    pub(super) close: Transaction,
}

impl Told {
    /// What the store holds of it.
    pub(super) fn writes(&self, slot: Slot) -> [Write; 2] {
        [
            Write::Facts { slot, facts: Arc::new(self.facts.clone()) },
            Write::EndedHtlcs { slot, htlcs: self.ended.clone() },
        ]
    }

    /// What the node states of it at start-up.
    pub(super) fn numbers(&self) -> ChannelNumbers {
        let (id, current) = (self.facts.id, &self.facts.candidates.current);
        let (local, remote): (CommitmentNumber, CommitmentNumber) =
            (current.local.number, current.remote.number);
        ChannelNumbers { id, local, remote }
    }
}
