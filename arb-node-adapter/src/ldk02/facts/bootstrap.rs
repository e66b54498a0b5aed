//! Channels that were open before the arbiter was there, from LDK's serialised monitor.
use super::monitor::{self, Monitor, NotAtRest};
use super::opening;
use super::taps::Opening;
use super::translate::Untranslated;
use super::update::FIRST_NUMBER;
use arb_core::facts::secrets::SecretIndex;
use arb_core::facts::{ChannelFacts, SecretStore};
use arb_core::ids::{ChannelId, PerCommitmentSecret};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, ScriptBuf};
use core::fmt;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, make_funding_redeemscript,
};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, SignerProvider};

/// LDK's own dust limit, in every version so far.
const LDK_DUST: Amount = Amount::from_sat(354);

/// Why a channel is not adopted. It is left to LDK.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unadopted {
    /// The bytes are not what this version of LDK writes.
    Unreadable(&'static str),
    /// The bytes say something else than LDK's own methods, or than the channel's keys.
    Contradiction(&'static str),
    /// It is closed, or being closed.
    Closing,
    /// Another funding output is on its way.
    Splice,
    /// HTLCs are pending, or were in a commitment that the peer may still broadcast: LDK's monitor
    /// does not have their ids.
    Htlcs,
    /// The peer has not revoked its last commitment yet: later it will have.
    NotSettled,
    /// It does not hold together: the peer's dust limit is another, or the format is not known.
    Facts(Untranslated),
}

impl From<NotAtRest> for Unadopted {
    fn from(why: NotAtRest) -> Self {
        match why {
            NotAtRest::Unreadable(why) => Self::Unreadable(why.0),
            NotAtRest::Closing => Self::Closing,
            NotAtRest::Splice => Self::Splice,
            NotAtRest::Htlcs => Self::Htlcs,
        }
    }
}

impl From<Untranslated> for Unadopted {
    fn from(why: Untranslated) -> Self {
        Self::Facts(why)
    }
}

impl fmt::Display for Unadopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "LDK's monitor cannot be read: {why}"),
            Self::Contradiction(what) => write!(f, "LDK's monitor contradicts LDK: {what}"),
            Self::Closing => f.write_str("the channel is being closed"),
            Self::Splice => f.write_str("the channel is being spliced"),
            Self::Htlcs => f.write_str("the channel has, or had, HTLCs whose ids are not known"),
            Self::NotSettled => f.write_str("the peer has not revoked its last commitment"),
            Self::Facts(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for Unadopted {}

/// A channel that can be adopted: [`super::Recorder::adopt`].
#[derive(Clone, Debug)]
pub struct Adoption {
    pub(super) facts: ChannelFacts,
    pub(super) opening: Opening,
    pub(super) update: u64,
    pub(super) peer: PublicKey,
}

impl Adoption {
    /// The facts of the channel.
    #[must_use]
    pub const fn facts(&self) -> &ChannelFacts {
        &self.facts
    }
}

/// Reads an open channel from LDK's monitor, given in both forms: as LDK has it, and its bytes. What
/// both say must be equal; keys and destination must be the provider's; every signature is verified;
/// and the peer's commitment, of which a monitor has the txid alone, is built and must have it.
///
/// The peer's dust limit is in no monitor, and has to be known otherwise: 354 sat for LDK and lnd,
/// 546 sat for CLN. A wrong one holds the channel at the first HTLC that it concerns.
///
/// # Errors
/// Why the channel stays with LDK.
pub fn bootstrap<S, P>(
    monitor: &ChannelMonitor<S>,
    bytes: &[u8],
    provider: &P,
    remote_dust: Amount,
) -> Result<Adoption, Unadopted>
where
    S: EcdsaChannelSigner,
    P: SignerProvider + ?Sized,
{
    let secp = Secp256k1::new();
    let read = monitor::read(bytes)?;
    agrees(monitor, &read)?;
    signs(provider, &read, &secp)?;
    let secrets = secrets(&read, &secp)?;
    let opening = Opening {
        channel: ChannelId(read.channel),
        keys: read.keys,
        parameters: read.parameters.clone(),
        local_dust: LDK_DUST,
        remote_dust,
        destination: read.destination.clone(),
        remote: remote(&read, &secp)?,
        local: read.local.clone(),
        birth: read.best.1,
        secrets,
    };
    let facts = opening::facts(&opening, &secp)?;
    Ok(Adoption { facts, opening, update: read.update, peer: read.peer })
}

/// The bytes and LDK's own methods.
fn agrees<S>(monitor: &ChannelMonitor<S>, read: &Monitor) -> Result<(), Unadopted>
where
    S: EcdsaChannelSigner,
{
    let funding = monitor.get_funding_txo();
    let best = monitor.current_best_block();
    let parameters = &read.parameters;
    let equal = [
        (read.update == monitor.get_latest_update_id(), "number of the last update"),
        (read.channel == monitor.channel_id().0, "channel"),
        (read.funding == (funding.txid, funding.index), "funding output"),
        (read.funding_script == monitor.get_funding_script(), "funding script"),
        (read.peer == monitor.get_counterparty_node_id(), "peer"),
        (read.best == (*best.block_hash.as_ref(), best.height), "best block"),
        (parameters.funding_outpoint == Some(funding), "funding output of the parameters"),
        (parameters.channel_type_features == monitor.channel_type_features(), "channel type"),
        (parameters.channel_value_satoshis == read.value, "value"),
        (funding_script(parameters).as_ref() == Some(&read.funding_script), "funding keys"),
        (read.local.commitment_number() == read.local_number, "number of our commitment"),
    ];
    match equal.into_iter().find(|(equal, _)| !equal) {
        Some((_, what)) => Err(Unadopted::Contradiction(what)),
        None => Ok(()),
    }
}

/// The script that the funding output pays; `None` if the peer's keys are not known.
fn funding_script(parameters: &ChannelTransactionParameters) -> Option<ScriptBuf> {
    let peer = parameters.counterparty_parameters.as_ref()?;
    let (ours, theirs) = (&parameters.holder_pubkeys.funding_pubkey, &peer.pubkeys.funding_pubkey);
    Some(make_funding_redeemscript(ours, theirs).to_p2wsh())
}

/// The channel's keys and destination are the provider's.
fn signs<P>(provider: &P, read: &Monitor, secp: &Secp256k1<All>) -> Result<(), Unadopted>
where
    P: SignerProvider + ?Sized,
{
    let signer = provider.derive_channel_signer(read.keys);
    if signer.pubkeys(secp) != read.parameters.holder_pubkeys {
        return Err(Unadopted::Contradiction("keys of ours"));
    }
    if provider.get_destination_script(read.keys).ok().as_ref() != Some(&read.destination) {
        return Err(Unadopted::Contradiction("destination"));
    }
    let point = signer.get_per_commitment_point(read.local_number, secp);
    if point.ok() != Some(read.local.per_commitment_point()) {
        return Err(Unadopted::Contradiction("point of our commitment"));
    }
    Ok(())
}

/// Every secret up to the commitment before the peer's current one, and the newest must be that of
/// the point that the peer gave, if the monitor still has it.
fn secrets(read: &Monitor, secp: &Secp256k1<All>) -> Result<SecretStore, Unadopted> {
    let odd = || Unadopted::Unreadable("a secret does not fit the others");
    let slot = |(index, secret): &(u64, [u8; 32])| {
        Some((SecretIndex::new(*index)?, PerCommitmentSecret(*secret)))
    };
    let slots = read.secrets.iter().map(slot).collect::<Option<Vec<_>>>().ok_or_else(odd)?;
    let store = SecretStore::from_slots(slots).map_err(|_| odd())?;
    let current = FIRST_NUMBER.checked_sub(read.remote_number);
    let current = current.ok_or(Unadopted::Unreadable("a number is out of range"))?;
    match (current.checked_sub(1), store.last()) {
        (None, None) => {}
        (Some(before), Some(last)) if last.0 == before => {
            let (number, point, _) = read.points;
            if number == read.remote_number.saturating_add(1) {
                let secret = store.get(last).and_then(|s| SecretKey::from_slice(&s.0).ok());
                if secret.map(|secret| secret.public_key(secp)) != Some(point) {
                    return Err(Unadopted::Contradiction("newest secret"));
                }
            }
        }
        _ => return Err(Unadopted::NotSettled),
    }
    Ok(store)
}

/// The peer's current commitment: without HTLCs it pays what ours does.
fn remote(read: &Monitor, secp: &Secp256k1<All>) -> Result<CommitmentTransaction, Unadopted> {
    let (number, first, second) = read.points;
    let point = if number == read.remote_number {
        first
    } else if number == read.remote_number.saturating_add(1) {
        second.ok_or(Unadopted::Contradiction("point of the peer's commitment"))?
    } else {
        return Err(Unadopted::Contradiction("number of the peer's commitment"));
    };
    if read.parameters.counterparty_parameters.is_none() {
        return Err(Unadopted::Unreadable("the peer's parameters are missing"));
    }
    let built = CommitmentTransaction::new(
        read.remote_number,
        &point,
        read.local.to_countersignatory_value_sat(),
        read.local.to_broadcaster_value_sat(),
        read.local.negotiated_feerate_per_kw(),
        Vec::new(),
        &read.parameters.as_counterparty_broadcastable(),
        secp,
    );
    if Some(built.trust().txid()) == read.remote { Ok(built) } else { Err(Unadopted::NotSettled) }
}
