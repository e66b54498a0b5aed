//! What the peer model knows of a channel, as the arbiter's facts: a translation of types, and
//! nothing else.
use crate::peer::{
    self, Channel, FactStep, HtlcFacts, LocalCommitmentFacts, PartyKeys, PartySecrets, PeerError,
    RemoteCommitmentFacts,
};
use arb_core::facts::{
    Candidates, ChannelFacts, ChannelKeys, ChannelNames, FundingCandidate, FundingKeys, Htlc,
    HtlcLink, LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts, Update,
};
use arb_core::format::{ChannelSecrets, CommitmentFormat};
use arb_core::ids::{ChannelId, HtlcId, PaymentHash, PerCommitmentSecret, Side};
use arb_core::units::{
    BlockDelta, BlockHeight, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat,
};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint};
use std::collections::BTreeMap;

/// Whom a preimage of each HTLC may serve; what is not listed is our own payment, or final.
pub type Links = BTreeMap<peer::HtlcRef, HtlcLink>;

/// BOLT 2: the funding txid, its last two bytes combined with the output index.
pub fn channel_id(funding: &OutPoint) -> ChannelId {
    let mut id = funding.txid.to_byte_array();
    let index = (funding.vout as u16).to_be_bytes();
    id[30] ^= index[0];
    id[31] ^= index[1];
    ChannelId(id)
}

/// The secrets of our side, for our signer.
pub fn channel_secrets(secrets: &PartySecrets) -> ChannelSecrets {
    ChannelSecrets {
        funding: secrets.funding,
        revocation: secrets.revocation_base,
        payment: secrets.payment,
        delayed_payment: secrets.delayed_payment_base,
        htlc: secrets.htlc_base,
    }
}

/// A commitment number.
pub const fn number(number: u64) -> CommitmentNumber {
    CommitmentNumber(number)
}

const fn side(side: peer::Side) -> Side {
    match side {
        peer::Side::Local => Side::Local,
        peer::Side::Remote => Side::Remote,
    }
}

/// The identity of an HTLC.
pub const fn htlc_id(htlc: peer::HtlcRef) -> HtlcId {
    HtlcId { offerer: side(htlc.offerer), id: htlc.id }
}

/// Keys and parameters of one side.
pub fn party_facts(keys: &PartyKeys, delay: u16, dust_limit: Amount) -> Party {
    Party {
        keys: ChannelKeys {
            revocation: keys.revocation_basepoint,
            payment: keys.payment_basepoint,
            delayed_payment: keys.delayed_payment_basepoint,
            htlc: keys.htlc_basepoint,
        },
        delay: BlockDelta(u32::from(delay)),
        dust_limit,
    }
}

/// The keys of the channel's funding output.
pub fn funding_keys(channel: &Channel) -> FundingKeys {
    let of = |side| channel.keys(side).funding;
    FundingKeys { local: of(peer::Side::Local), remote: of(peer::Side::Remote) }
}

/// The facts of a channel that was just opened: both sides at commitment #0.
///
/// # Errors
/// The channel has no funding output.
pub fn first_facts(channel: &Channel, birth: u32) -> Result<ChannelFacts, PeerError> {
    let params = channel.params();
    let funding = channel.funding()?;
    let party = |side, delay, dust| party_facts(&channel.keys(side), delay, dust);
    Ok(ChannelFacts {
        id: channel_id(&funding),
        opener: side(params.opener),
        local: party(peer::Side::Local, params.local_delay, params.dust),
        remote: party(peer::Side::Remote, params.remote_delay, params.remote_dust),
        candidates: Candidates::only(candidate_facts(channel)?),
        htlcs: BTreeMap::new(),
        secrets: SecretStore::default(),
        shutdown: ShutdownScripts::default(),
        destination: channel.shutdown_script(peer::Side::Local),
        birth: BlockHeight(birth),
        names: ChannelNames::default(),
    })
}

/// The channel's funding output with the commitments that spend it now.
///
/// # Errors
/// The channel has no funding output.
pub fn candidate_facts(channel: &Channel) -> Result<FundingCandidate, PeerError> {
    let params = channel.params();
    let format = match params.format {
        peer::Format::StaticRemoteKey => CommitmentFormat::StaticRemotekey,
        peer::Format::Anchors => CommitmentFormat::Anchors,
        peer::Format::ZeroFee => CommitmentFormat::ZeroFee,
    };
    let next = channel.remote_next_number().map(|number| channel.remote_facts(number)).transpose();
    Ok(FundingCandidate {
        funding: channel.funding()?,
        keys: funding_keys(channel),
        capacity: params.capacity,
        format,
        local: local_commitment(&channel.local_facts(channel.local_number())?),
        remote: remote_commitment(&channel.remote_facts(channel.remote_number())?),
        remote_next: next?.as_ref().map(remote_commitment),
    })
}

/// A commitment of ours.
pub fn local_commitment(facts: &LocalCommitmentFacts) -> LocalCommitment {
    LocalCommitment {
        number: number(facts.number),
        point: facts.per_commitment_point,
        feerate: FeeratePerKw(facts.feerate_per_kw),
        local_balance: MilliSat(facts.balances.local_msat),
        remote_balance: MilliSat(facts.balances.remote_msat),
        htlcs: facts.htlcs.iter().copied().map(htlc_id).collect(),
        signature: facts.signature,
        htlc_signatures: facts.htlc_signatures.clone(),
    }
}

fn remote_commitment(facts: &RemoteCommitmentFacts) -> RemoteCommitment {
    RemoteCommitment {
        number: number(facts.number),
        point: facts.per_commitment_point,
        feerate: FeeratePerKw(facts.feerate_per_kw),
        local_balance: MilliSat(facts.balances.local_msat),
        remote_balance: MilliSat(facts.balances.remote_msat),
        htlcs: facts.htlcs.iter().copied().map(htlc_id).collect(),
    }
}

fn htlc(facts: &HtlcFacts, links: &Links) -> Htlc {
    let unlinked = match facts.htlc.offerer {
        peer::Side::Local => HtlcLink::OwnPayment,
        peer::Side::Remote => HtlcLink::Final,
    };
    Htlc {
        amount: MilliSat(facts.amount_msat),
        hash: PaymentHash(facts.payment_hash),
        expiry: CltvExpiry(BlockHeight(facts.cltv_expiry)),
        link: links.get(&facts.htlc).copied().unwrap_or(unlinked),
    }
}

/// What the node tells the arbiter of these steps, in order.
pub fn updates_of(steps: &[FactStep], funding: OutPoint, links: &Links) -> Vec<Update> {
    let update = |step: &FactStep| match step {
        FactStep::AddHtlc { htlc: facts, .. } => {
            Some(Update::HtlcAdded { id: htlc_id(facts.htlc), htlc: htlc(facts, links) })
        }
        // That an HTLC has gone is in the commitments that follow.
        FactStep::RemoveHtlc { .. } => None,
        FactStep::LocalCommitment(facts) => {
            Some(Update::LocalCommitment { funding, commitment: local_commitment(facts) })
        }
        FactStep::RemoteCommitment(facts) => {
            Some(Update::RemoteCommitment { funding, commitment: remote_commitment(facts) })
        }
        FactStep::RevocationSecret { number: revoked, secret } => Some(Update::RemoteRevoked {
            number: number(*revoked),
            secret: PerCommitmentSecret(*secret),
        }),
        FactStep::ShutdownScripts { local, remote } => Some(Update::Shutdown(ShutdownScripts {
            local: Some(local.clone()),
            remote: Some(remote.clone()),
        })),
    };
    steps.iter().filter_map(update).collect()
}
