//! Channels that were open before the arbiter was there, from LDK's serialised monitor.
mod htlcs;

pub(super) use htlcs::{Before, known_before};

use super::messages::names;
use super::monitor::{self, Monitor, NotAtRest};
use super::opening::{self, First};
use super::taps::Opening;
use super::translate::Untranslated;
use super::update::{FIRST_NUMBER, SourceKey};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::secrets::SecretIndex;
use arb_core::facts::{ChannelFacts, HtlcRecord, SecretStore};
use arb_core::ids::{ChannelId, HtlcId, PerCommitmentSecret, Preimage};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, ScriptBuf};
use core::fmt;
use lightning::chain::channelmonitor::{ANTI_REORG_DELAY, ChannelMonitor};
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::ln::chan_utils::{ChannelTransactionParameters, make_funding_redeemscript};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, SignerProvider};
use lightning::util::persist::MonitorName;
use lightning::util::ser::Writeable;
use std::collections::{BTreeMap, BTreeSet};

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
    /// Another funding output is on its way; or the one that there is has so few blocks
    /// ([`ANTI_REORG_DELAY`]) that the one before might come back, of which LDK keeps nothing.
    Splice,
    /// The pending HTLCs are not those that the channel manager lists: their ids are not known.
    Htlcs,
    /// The two commitments differ yet: later they will not.
    /// If it stays so, the peer's dust limit is another.
    NotSettled,
    /// It does not hold together, or the format is not known.
    Facts(Untranslated),
}

impl From<NotAtRest> for Unadopted {
    fn from(why: NotAtRest) -> Self {
        match why {
            NotAtRest::Unreadable(why) => Self::Unreadable(why.0),
            NotAtRest::Closing => Self::Closing,
            NotAtRest::Splice => Self::Splice,
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
            Self::Splice => f.write_str("the channel is being spliced, or was a few blocks ago"),
            Self::Htlcs => f.write_str("the channel has HTLCs whose ids are not known"),
            Self::NotSettled => f.write_str("the two commitments are not the same yet"),
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
    pub(super) ended: Vec<(HtlcId, HtlcRecord)>,
    pub(super) offered: BTreeMap<SourceKey, u64>,
    /// The next id of an offered HTLC.
    pub(super) next_offered: u64,
    /// Offered HTLCs that forward one of a channel: that one's id.
    pub(super) forwards: Vec<(HtlcId, ChannelId, u64)>,
    /// Preimages of received HTLCs, with whom they serve.
    pub(super) preimages: Vec<(Preimage, PreimageSource)>,
    /// Received HTLCs whose preimage is among them.
    pub(super) opened: BTreeSet<u64>,
}

impl Adoption {
    /// The facts of the channel. What its HTLCs are linked to is found when it is adopted.
    #[must_use]
    pub const fn facts(&self) -> &ChannelFacts {
        &self.facts
    }

    /// HTLCs of commitments that the peer has revoked, to punish one with. Their ids are names only:
    /// LDK's monitor has none.
    #[must_use]
    pub fn ended(&self) -> &[(HtlcId, HtlcRecord)] {
        &self.ended
    }
}

/// Reads an open channel from LDK's monitor, given in both forms: as LDK has it, and its bytes. What
/// both say must be equal; keys and destination must be the provider's; every signature is verified;
/// and the peer's commitment, of which a monitor has the txid alone, is built and must have it.
///
/// `bytes` are what LDK writes of `monitor` (`encode`), each of them: what nothing else vouches for must
/// at least be what LDK would write.
///
/// Of a channel that was spliced the present funding output counts, once none before it can come back.
///
/// Both commitments must contain the same HTLCs. The ids of received ones are the channel manager's,
/// whose word on this channel is `details`. A preimage that LDK knows of one is taken over.
///
/// Of a revoked commitment LDK has the secret and the HTLCs, and nothing that its txid could be built
/// from: but for the newest secret they are as good as LDK's own record of them.
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
    details: &ChannelDetails,
    remote_dust: Amount,
) -> Result<Adoption, Unadopted>
where
    S: EcdsaChannelSigner,
    P: SignerProvider + ?Sized,
{
    let secp = Secp256k1::new();
    let read = monitor::read(bytes)?;
    agrees(monitor, &read)?;
    let is_spliced = read.first_funding != read.funding;
    if is_spliced && details.confirmations < Some(ANTI_REORG_DELAY) {
        return Err(Unadopted::Splice);
    }
    if details.channel_id.0 != read.channel || details.counterparty.node_id != read.peer {
        return Err(Unadopted::Contradiction("the channel manager's word is of another channel"));
    }
    signs(provider, &read, &secp)?;
    let secrets = secrets(&read, &secp)?;
    let pending = htlcs::pending(&read, details)?;
    let opening = Opening {
        channel: ChannelId(read.channel),
        keys: read.keys,
        parameters: read.parameters.clone(),
        local_dust: LDK_DUST,
        remote_dust,
        destination: read.destination.clone(),
        remote: remote(&read)?,
        local: read.local.clone(),
        birth: read.best.1,
        secrets,
        htlcs: pending.records,
        shutdown: read.shutdown.clone(),
        names: names(details),
    };
    let facts = opening::facts(&opening, &secp).map_err(|why| {
        // Ours has the peer's signature, so it is the peer's that is another.
        let other = matches!(why, Untranslated::OtherTransaction(_));
        if other { Unadopted::NotSettled } else { Unadopted::Facts(why) }
    })?;
    Ok(Adoption {
        facts,
        opening,
        update: read.update,
        peer: read.peer,
        ended: pending.ended,
        offered: pending.offered,
        next_offered: pending.next_offered,
        forwards: pending.forwards,
        preimages: pending.preimages,
        opened: pending.opened,
    })
}

/// The bytes and LDK's own methods.
fn agrees<S>(monitor: &ChannelMonitor<S>, read: &Monitor) -> Result<(), Unadopted>
where
    S: EcdsaChannelSigner,
{
    let funding = monitor.get_funding_txo();
    let best = monitor.current_best_block();
    let parameters = &read.parameters;
    let is_spliced = read.first_funding != read.funding;
    let equal = [
        (read.update == monitor.get_latest_update_id(), "number of the last update"),
        (read.channel == monitor.channel_id().0, "channel"),
        (read.funding == (funding.txid, funding.index), "funding output"),
        (read.funding_script == monitor.get_funding_script(), "funding script"),
        (is_named(monitor, read), "first funding output"),
        (parameters.splice_parent_funding_txid.is_some() == is_spliced, "splice"),
        (read.peer == monitor.get_counterparty_node_id(), "peer"),
        (read.best == (*best.block_hash.as_ref(), best.height), "best block"),
        (parameters.funding_outpoint == Some(funding), "funding output of the parameters"),
        (parameters.channel_type_features == monitor.channel_type_features(), "channel type"),
        (parameters.channel_value_satoshis == read.value, "value"),
        (funding_script(parameters).as_ref() == Some(&read.funding_script), "funding keys"),
        (read.local.commitment_number() == read.local_number, "number of our commitment"),
    ];
    if let Some((_, what)) = equal.into_iter().find(|(equal, _)| !equal) {
        return Err(Unadopted::Contradiction(what));
    }
    // What no method of LDK's says, its own writing must.
    if !monitor::read(&monitor.encode())?.says(read) {
        return Err(Unadopted::Contradiction("what LDK would write"));
    }
    Ok(())
}

/// Whether LDK names the monitor by the first funding output, or by none.
fn is_named<S>(monitor: &ChannelMonitor<S>, read: &Monitor) -> bool
where
    S: EcdsaChannelSigner,
{
    let (txid, index) = read.first_funding;
    let first = LdkOutPoint { txid, index };
    match monitor.persistence_key() {
        MonitorName::V1Channel(funding) => funding == first,
        MonitorName::V2Channel(channel) => LdkChannelId::v1_from_funding_outpoint(first) != channel,
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
    let mut ours = signer.pubkeys(secp);
    if let Some(parent) = read.parameters.splice_parent_funding_txid {
        ours.funding_pubkey = signer.new_funding_pubkey(parent, secp);
    }
    if ours != read.parameters.holder_pubkeys {
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

/// The peer's current commitment: it pays what ours does.
fn remote(read: &Monitor) -> Result<First, Unadopted> {
    let (number, first, second) = read.points;
    let point = if number == read.remote_number {
        first
    } else if number == read.remote_number.saturating_add(1) {
        second.ok_or(Unadopted::Contradiction("point of the peer's commitment"))?
    } else {
        return Err(Unadopted::Contradiction("number of the peer's commitment"));
    };
    let txid = read.remote.ok_or(Unadopted::Contradiction("the peer has no commitment"))?;
    let feerate = read.local.negotiated_feerate_per_kw();
    Ok(First { number: read.remote_number, point, feerate, txid, outputs: None })
}
