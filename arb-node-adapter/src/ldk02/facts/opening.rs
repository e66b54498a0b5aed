//! The first facts of a channel, from what LDK's traits showed while it was opened.
use super::taps::Opening;
use super::translate::{Outputs, Untranslated, balances, number};
use arb_core::facts::{
    Candidates, ChannelFacts, ChannelKeys, ChannelNames, FundingCandidate, FundingKeys,
    LocalCommitment, Party, RemoteCommitment, ShutdownScripts,
};
use arb_core::format::{CommitmentFormat, local_commitment, remote_commitment};
use arb_core::ids::Side;
use arb_core::units::{BlockDelta, BlockHeight, FeeratePerKw, MilliSat};
use bitcoin::Amount;
use bitcoin::secp256k1::{All, Secp256k1};
use lightning::ln::chan_utils::ChannelPublicKeys;
use std::collections::BTreeMap;

/// The facts that a channel begins with.
pub(super) fn facts(
    opening: &Opening,
    secp: &Secp256k1<All>,
) -> Result<ChannelFacts, Untranslated> {
    let parameters = &opening.parameters;
    let features = &parameters.channel_type_features;
    let format = if features.supports_anchor_zero_fee_commitments() {
        return Err(Untranslated::Format);
    } else if features.supports_anchors_zero_fee_htlc_tx() {
        CommitmentFormat::Anchors
    } else if features.supports_static_remote_key() {
        CommitmentFormat::StaticRemotekey
    } else {
        return Err(Untranslated::Format);
    };
    let peer = parameters.counterparty_parameters.as_ref().ok_or(Untranslated::UnknownChannel)?;
    let funding = parameters.funding_outpoint.ok_or(Untranslated::UnknownChannel)?;
    let candidate = FundingCandidate {
        funding: funding.into_bitcoin_outpoint(),
        keys: FundingKeys {
            local: parameters.holder_pubkeys.funding_pubkey,
            remote: peer.pubkeys.funding_pubkey,
        },
        capacity: Amount::from_sat(parameters.channel_value_satoshis),
        format,
        local: first_local(opening)?,
        remote: first_remote(opening)?,
        remote_next: None,
    };
    let facts = ChannelFacts {
        id: opening.channel,
        opener: if parameters.is_outbound_from_holder { Side::Local } else { Side::Remote },
        local: Party {
            keys: keys(&parameters.holder_pubkeys),
            // What one party selects is what the other waits.
            delay: BlockDelta(peer.selected_contest_delay.into()),
            dust_limit: opening.local_dust,
        },
        remote: Party {
            keys: keys(&peer.pubkeys),
            delay: BlockDelta(parameters.holder_selected_contest_delay.into()),
            dust_limit: opening.remote_dust,
        },
        candidates: Candidates::only(candidate),
        htlcs: BTreeMap::new(),
        secrets: opening.secrets.clone(),
        shutdown: ShutdownScripts::default(),
        destination: opening.destination.clone(),
        birth: BlockHeight(opening.birth),
        names: ChannelNames::default(),
    };
    let facts = with_balances(facts, opening, secp)?;
    facts.verify(secp)?;
    Ok(facts)
}

fn keys(keys: &ChannelPublicKeys) -> ChannelKeys {
    ChannelKeys {
        revocation: keys.revocation_basepoint.to_public_key(),
        payment: keys.payment_point,
        delayed_payment: keys.delayed_payment_basepoint.to_public_key(),
        htlc: keys.htlc_basepoint.to_public_key(),
    }
}

fn first_local(opening: &Opening) -> Result<LocalCommitment, Untranslated> {
    let commitment = &opening.local;
    Ok(LocalCommitment {
        number: number(commitment.commitment_number())?,
        point: commitment.per_commitment_point(),
        feerate: FeeratePerKw(commitment.negotiated_feerate_per_kw()),
        local_balance: MilliSat(0),
        remote_balance: MilliSat(0),
        htlcs: Vec::new(),
        signature: commitment.counterparty_sig,
        htlc_signatures: commitment.counterparty_htlc_sigs.clone(),
    })
}

fn first_remote(opening: &Opening) -> Result<RemoteCommitment, Untranslated> {
    let commitment = &opening.remote;
    Ok(RemoteCommitment {
        number: number(commitment.commitment_number())?,
        point: commitment.per_commitment_point(),
        feerate: FeeratePerKw(commitment.negotiated_feerate_per_kw()),
        local_balance: MilliSat(0),
        remote_balance: MilliSat(0),
        htlcs: Vec::new(),
    })
}

fn with_balances(
    mut facts: ChannelFacts,
    opening: &Opening,
    secp: &Secp256k1<All>,
) -> Result<ChannelFacts, Untranslated> {
    let current = &facts.candidates.current;
    let (local, remote) = (&opening.local, &opening.remote);
    let outputs = Outputs {
        txid: local.trust().txid(),
        local: local.to_broadcaster_value_sat(),
        remote: local.to_countersignatory_value_sat(),
    };
    let of_local = balances(&facts, &[], &outputs, |local_balance, remote_balance| {
        let stated = LocalCommitment { local_balance, remote_balance, ..current.local.clone() };
        local_commitment(&facts, current, &stated, secp).ok()
    });
    let outputs = Outputs {
        txid: remote.trust().txid(),
        local: remote.to_countersignatory_value_sat(),
        remote: remote.to_broadcaster_value_sat(),
    };
    let of_remote = balances(&facts, &[], &outputs, |local_balance, remote_balance| {
        let stated = RemoteCommitment { local_balance, remote_balance, ..current.remote.clone() };
        remote_commitment(&facts, current, &stated, secp).ok()
    });
    let of_local = of_local.ok_or(Untranslated::OtherTransaction(current.local.number))?;
    let of_remote = of_remote.ok_or(Untranslated::OtherTransaction(current.remote.number))?;
    let current = &mut facts.candidates.current;
    (current.local.local_balance, current.local.remote_balance) = of_local;
    (current.remote.local_balance, current.remote.remote_balance) = of_remote;
    Ok(facts)
}
