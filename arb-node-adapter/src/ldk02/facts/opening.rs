//! The first facts of a channel, from what LDK's traits showed while it was opened.
use super::taps::Opening;
use super::translate::{Outputs, Untranslated, balances, number};
use arb_core::facts::{
    Candidates, ChannelFacts, ChannelKeys, FundingCandidate, FundingKeys, LocalCommitment, Party,
    RemoteCommitment, ShutdownScripts,
};
use arb_core::format::{CommitmentFormat, local_commitment, remote_commitment};
use arb_core::ids::Side;
use arb_core::units::{BlockDelta, BlockHeight, FeeratePerKw, MilliSat};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Amount, OutPoint, Txid};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
};

/// The peer's commitment that the facts begin with.
#[derive(Clone, Debug)]
pub(super) struct First {
    /// Counted down, as LDK does.
    pub(super) number: u64,
    pub(super) point: PublicKey,
    pub(super) feerate: u32,
    pub(super) txid: Txid,
    /// Our output and the peer's, in satoshis; `None`: its balances are those of our commitment.
    pub(super) outputs: Option<(u64, u64)>,
}

impl First {
    pub(super) fn of(commitment: &CommitmentTransaction) -> Self {
        Self {
            number: commitment.commitment_number(),
            point: commitment.per_commitment_point(),
            feerate: commitment.negotiated_feerate_per_kw(),
            txid: commitment.trust().txid(),
            outputs: Some((
                commitment.to_countersignatory_value_sat(),
                commitment.to_broadcaster_value_sat(),
            )),
        }
    }
}

/// The facts that a channel begins with: all of its HTLCs are in both commitments.
pub(super) fn facts(
    opening: &Opening,
    secp: &Secp256k1<All>,
) -> Result<ChannelFacts, Untranslated> {
    let parameters = &opening.parameters;
    let features = &parameters.channel_type_features;
    let format = if features.supports_anchor_zero_fee_commitments() {
        CommitmentFormat::ZeroFee
    } else if features.supports_anchors_zero_fee_htlc_tx() {
        CommitmentFormat::Anchors
    } else if features.supports_static_remote_key() {
        CommitmentFormat::StaticRemotekey
    } else {
        return Err(Untranslated::Format);
    };
    let peer = parameters.counterparty_parameters.as_ref().ok_or(Untranslated::UnknownChannel)?;
    let (funding, keys_of_funding, capacity) = self::funding(parameters)?;
    let candidate = FundingCandidate {
        funding,
        keys: keys_of_funding,
        capacity,
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
        htlcs: opening.htlcs.clone(),
        secrets: opening.secrets.clone(),
        shutdown: ShutdownScripts { local: opening.shutdown.clone(), remote: None },
        destination: opening.destination.clone(),
        birth: BlockHeight(opening.birth),
        names: opening.names.clone(),
    };
    let facts = with_balances(facts, opening, secp)?;
    facts.verify(secp)?;
    Ok(facts)
}

/// A funding output, whose keys it pays to, and its value.
pub(super) fn funding(
    parameters: &ChannelTransactionParameters,
) -> Result<(OutPoint, FundingKeys, Amount), Untranslated> {
    let peer = parameters.counterparty_parameters.as_ref().ok_or(Untranslated::UnknownChannel)?;
    let funding = parameters.funding_outpoint.ok_or(Untranslated::UnknownChannel)?;
    let keys = FundingKeys {
        local: parameters.holder_pubkeys.funding_pubkey,
        remote: peer.pubkeys.funding_pubkey,
    };
    let capacity = Amount::from_sat(parameters.channel_value_satoshis);
    Ok((funding.into_bitcoin_outpoint(), keys, capacity))
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
        htlcs: opening.htlcs.keys().copied().collect(),
        signature: commitment.counterparty_sig,
        htlc_signatures: commitment.counterparty_htlc_sigs.clone(),
    })
}

fn first_remote(opening: &Opening) -> Result<RemoteCommitment, Untranslated> {
    let commitment = &opening.remote;
    Ok(RemoteCommitment {
        number: number(commitment.number)?,
        point: commitment.point,
        feerate: FeeratePerKw(commitment.feerate),
        local_balance: MilliSat(0),
        remote_balance: MilliSat(0),
        htlcs: opening.htlcs.keys().copied().collect(),
    })
}

fn with_balances(
    mut facts: ChannelFacts,
    opening: &Opening,
    secp: &Secp256k1<All>,
) -> Result<ChannelFacts, Untranslated> {
    let current = &facts.candidates.current;
    let htlcs = &current.local.htlcs;
    let (local, remote) = (&opening.local, &opening.remote);
    let outputs = Outputs {
        txid: local.trust().txid(),
        local: local.to_broadcaster_value_sat(),
        remote: local.to_countersignatory_value_sat(),
    };
    let capacity = current.capacity;
    let of_local = balances(&facts, capacity, htlcs, &outputs, |local_balance, remote_balance| {
        let stated = LocalCommitment { local_balance, remote_balance, ..current.local.clone() };
        local_commitment(&facts, current, &stated, secp).ok()
    });
    let of_local = of_local.ok_or(Untranslated::OtherTransaction(current.local.number))?;
    let build = |local_balance, remote_balance| {
        let stated = RemoteCommitment { local_balance, remote_balance, ..current.remote.clone() };
        remote_commitment(&facts, current, &stated, secp).ok()
    };
    let of_remote = match remote.outputs {
        Some((ours, theirs)) => {
            let outputs = Outputs { txid: remote.txid, local: ours, remote: theirs };
            balances(&facts, capacity, htlcs, &outputs, build)
        }
        None => {
            let built = build(of_local.0, of_local.1);
            let same = built.is_some_and(|built| built.transaction.compute_txid() == remote.txid);
            same.then_some(of_local)
        }
    };
    let of_remote = of_remote.ok_or(Untranslated::OtherTransaction(current.remote.number))?;
    let current = &mut facts.candidates.current;
    (current.local.local_balance, current.local.remote_balance) = of_local;
    (current.remote.local_balance, current.remote.remote_balance) = of_remote;
    Ok(facts)
}
