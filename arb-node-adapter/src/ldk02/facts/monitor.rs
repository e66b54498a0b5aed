//! A channel monitor's bytes, read to the last one, of a channel that is open.
mod canon;
mod follows;
mod known;
#[cfg(test)]
mod tests;

pub(super) use known::{Known, known};

use super::bytes::{Bytes, Fields, Unreadable};
use super::update::{
    FIRST_NUMBER, Seen, claim_details, claimed, optional_source, sent, with_signature,
};
use arb_core::ids::{ChannelId, Preimage};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{ScriptBuf, Txid};
use canon::Canon;
use follows::{
    Legacy, are_hashes, delay_of_ours, hashes_of, obscure_factor, terms_of_peer, to_remote_script,
};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HTLCOutputInCommitment,
    HolderCommitmentTransaction,
};
use lightning::ln::script::ShutdownScript;
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentHash;
use lightning::util::ser::{Readable, ReadableArgs, Writeable};
use std::collections::{BTreeMap, BTreeSet};

/// Why bytes are not those of an open channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAtRest {
    Unreadable(Unreadable),
    /// The monitor has seen something on chain, or was told to close.
    Closing,
    /// The funding output may be another one soon.
    Splice,
}

impl From<Unreadable> for NotAtRest {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}

type Read<T> = Result<T, NotAtRest>;

/// What a monitor's bytes say. Numbers count down, as LDK's do.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    pub(super) update: u64,
    pub(super) destination: ScriptBuf,
    pub(super) keys: [u8; 32],
    pub(super) funding: (Txid, u16),
    /// The first funding output, which LDK names the monitor by.
    pub(super) first_funding: (Txid, u16),
    pub(super) funding_script: ScriptBuf,
    pub(super) value: u64,
    pub(super) remote: Option<Txid>,
    pub(super) remote_number: u64,
    /// Every commitment that the peer ever had, with its HTLCs.
    pub(super) commitments: BTreeMap<Txid, Vec<Seen>>,
    /// Number and point of an unrevoked or the newest revoked commitment of the peer's, and the
    /// point of the one after it.
    pub(super) points: (u64, PublicKey, Option<PublicKey>),
    /// The 49 slots, those in use: index and secret.
    pub(super) secrets: Vec<(u64, [u8; 32])>,
    pub(super) local: HolderCommitmentTransaction,
    /// HTLCs of our commitment, those with an output first.
    pub(super) local_htlcs: Vec<Seen>,
    pub(super) local_number: u64,
    /// Preimages that LDK knows, by hash, with the received HTLCs that it takes as their recipient:
    /// none, if a preimage came from downstream.
    pub(super) opened: Opened,
    /// Our script for a mutual close, if there is one yet.
    pub(super) shutdown: Option<ScriptBuf>,
    pub(super) best: ([u8; 32], u32),
    pub(super) peer: PublicKey,
    pub(super) channel: [u8; 32],
    pub(super) parameters: ChannelTransactionParameters,
    /// All bytes; what LDK keeps without an order is in order here.
    canon: Vec<u8>,
}

/// A preimage, and the received HTLCs that we take with it.
type For = (Preimage, Vec<(ChannelId, u64)>);

type Opened = BTreeMap<[u8; 32], For>;

impl Monitor {
    /// Whether both say the same, to the last byte.
    pub(super) fn says(&self, other: &Self) -> bool {
        self.canon == other.canon
    }
}

/// Index of a slot that no secret is in.
const EMPTY_SLOT: u64 = 1 << 48;
const SLOTS: usize = 49;

impl Bytes<'_> {
    fn number(&mut self) -> Result<u64, Unreadable> {
        let six = self.take(6)?.0;
        Ok(six.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    /// A list that must be empty.
    fn none(&mut self, or: NotAtRest) -> Read<()> {
        if self.value::<u64>()? == 0 { Ok(()) } else { Err(or) }
    }

    fn truth(&mut self) -> Result<bool, Unreadable> {
        match self.value::<u8>()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Unreadable("a truth value is neither")),
        }
    }

    /// A structure that LDK reads by itself: what it would not write again, it did not understand.
    fn exactly<T: Writeable>(
        &mut self,
        read: impl FnOnce(&mut &[u8]) -> Option<T>,
    ) -> Result<T, Unreadable> {
        let before = self.0;
        let value = read(&mut self.0).ok_or(Unreadable("a structure cannot be read"))?;
        let taken = before.len().saturating_sub(self.0.len());
        match before.get(..taken) {
            Some(bytes) if bytes == value.encode() => Ok(value),
            Some(_) | None => Err(Unreadable("a structure is not understood to the last byte")),
        }
    }

    fn version(&mut self) -> Result<(), Unreadable> {
        if self.take(2)?.0 == [1, 1] { Ok(()) } else { Err(Unreadable("another version")) }
    }
}

/// Reads a monitor. What it says more than once must be the same each time.
pub(super) fn read(bytes: &[u8]) -> Read<Monitor> {
    let mut all = Bytes(bytes);
    let mut canon = Canon::of(bytes);
    all.version()?;
    let update = all.value()?;
    let obscures = all.number()?;
    let destination: ScriptBuf = all.value()?;
    if all.value::<u8>()? != 1 {
        return Err(NotAtRest::Closing);
    }
    let (to_remote, shutdown): (ScriptBuf, ScriptBuf) = (all.value()?, all.value()?);
    let keys = all.value()?;
    let revocation: PublicKey = all.value()?;
    let funding = (Txid::from_byte_array(all.value()?), all.value()?);
    let funding_script: ScriptBuf = all.value()?;
    let (remote, before): (Option<Txid>, Option<Txid>) = (all.value()?, all.value()?);
    let theirs = theirs(&mut all)?;
    let witness_script: ScriptBuf = all.value()?;
    let value = all.value()?;
    let points = points(&mut all)?;
    let delay: u16 = all.value()?;
    let secrets = secrets(&mut all)?;
    let commitments = commitments(&mut all, &mut canon)?;
    all.none(NotAtRest::Closing)?; // commitments of the peer's on chain
    let count = all.value()?;
    let hashes = canon.entries(&mut all, count, |all| Ok((all.value()?, all.number()?)))?;
    let legacy_before = if all.truth()? { Some(legacy(&mut all)?) } else { None };
    let (legacy_local, local_htlcs) = legacy(&mut all)?;
    let (remote_number, local_number) = (all.number()?, all.number()?);
    let count = all.value()?;
    let opened: Vec<[u8; 32]> = canon.entries(&mut all, count, Bytes::value)?;
    all.none(NotAtRest::Closing)?; // news for the channel manager
    all.none(NotAtRest::Closing)?; // events
    let best = (all.value()?, all.value()?);
    all.none(NotAtRest::Closing)?; // what waits for its depth
    let watched = watched(&mut all)?;
    let handler = handler(&mut all)?;
    if all.truth()? || all.truth()? {
        return Err(NotAtRest::Closing);
    }
    canon.upto(&all);
    let Tail { peer, channel, parameters, first_funding, opened: opened_for } =
        tail(&mut all, &mut canon)?;
    all.end()?;
    let local = handler.local;
    let opened_for_all = opened_for.values().map(|(preimage, _)| preimage.0);
    let outputs = local_htlcs.iter().map(|seen| &seen.htlc).take(local.nondust_htlcs().len());
    // With a funding output that was there before a splice its commitments went, and not their hashes.
    let known_hashes = (first_funding == funding).then(|| hashes_of(&commitments));
    let agree = [
        (outputs.eq(local.nondust_htlcs()), "the HTLCs of our commitment"),
        (legacy_local == Legacy::of(&local), "our commitment"),
        (
            legacy_before.map(|(legacy, _)| legacy) == handler.before.as_ref().map(Legacy::of),
            "our commitment before",
        ),
        (handler.parameters == parameters, "the channel's parameters"),
        (handler.destination == destination, "the destination"),
        (opened.into_iter().collect::<BTreeSet<_>>() == opened_for_all.collect(), "preimages"),
        (obscures == obscure_factor(&parameters), "what obscures commitment numbers"),
        (to_remote == to_remote_script(&parameters), "our output of the peer's commitment"),
        (revocation == parameters.holder_pubkeys.revocation_basepoint.0, "our revocation key"),
        (Some(theirs) == terms_of_peer(&parameters), "the peer's keys and delay"),
        (Some(delay) == delay_of_ours(&parameters), "our delay"),
        (witness_script.to_p2wsh() == funding_script, "the funding script"),
        (
            watched == vec![(funding.0, u32::from(funding.1), funding_script.clone())],
            "what is watched",
        ),
        (are_revoked_plain(&commitments, [remote, before]), "sources of what is revoked"),
        (
            are_hashes(&hashes, known_hashes.as_ref(), remote_number),
            "the newest HTLCs by their hashes",
        ),
    ];
    if let Some((_, what)) = agree.into_iter().find(|(agree, _)| !agree) {
        return Err(Unreadable(what).into());
    }
    Ok(Monitor {
        update,
        destination,
        keys,
        funding,
        first_funding,
        funding_script,
        value,
        remote,
        remote_number,
        commitments,
        points,
        secrets,
        local,
        local_htlcs,
        local_number,
        opened: opened_for,
        shutdown: mutual_close(shutdown)?,
        best,
        peer,
        channel,
        parameters,
        canon: canon.parts,
    })
}

fn parameters(bytes: &mut &[u8]) -> Option<ChannelTransactionParameters> {
    let found = ChannelTransactionParameters::read(bytes, None).ok()?;
    is_plain(&found.channel_type_features).then_some(found)
}

/// LDK keeps no sources for what the peer has revoked.
fn are_revoked_plain(
    commitments: &BTreeMap<Txid, Vec<Seen>>,
    unrevoked: [Option<Txid>; 2],
) -> bool {
    let revoked = commitments.iter().filter(|(txid, _)| !unrevoked.contains(&Some(**txid)));
    revoked.flat_map(|(_, htlcs)| htlcs).all(|seen| seen.source.is_none())
}

/// The peer's keys and delay, in front of which nothing of old versions stands.
fn theirs(all: &mut Bytes<'_>) -> Read<(PublicKey, PublicKey, u16)> {
    all.none(NotAtRest::Unreadable(Unreadable("a list of old versions is not empty")))?;
    let mut fields = all.fields()?;
    let mut key = |kind| fields.required(kind)?.whole::<PublicKey>();
    let (delayed, htlc) = (key(0)?, key(2)?);
    let delay = fields.required(4)?.whole()?;
    fields.end()?;
    Ok((delayed, htlc, delay))
}

/// Our script for a mutual close; LDK writes an empty one if there is none.
fn mutual_close(script: ScriptBuf) -> Result<Option<ScriptBuf>, Unreadable> {
    if script.is_empty() {
        return Ok(None);
    }
    match ShutdownScript::try_from(script.clone()) {
        Ok(_) => Ok(Some(script)),
        Err(_) => Err(Unreadable("a script for a mutual close is of no known kind")),
    }
}

/// LDK does not write a type with optional features.
fn is_plain(features: &ChannelTypeFeatures) -> bool {
    !features.supports_any_optional_bits()
}

/// A commitment of ours whose channel type LDK would write again.
fn check_type(mut commitment: Bytes<'_>) -> Result<(), Unreadable> {
    check_inner_type(commitment.fields()?.required(0)?)
}

fn check_inner_type(mut commitment: Bytes<'_>) -> Result<(), Unreadable> {
    let mut fields = commitment.fields()?;
    let features = fields.optional(15).map(Bytes::whole::<ChannelTypeFeatures>).transpose()?;
    match features {
        Some(features) if !is_plain(&features) => Err(Unreadable("a channel type is odd")),
        Some(_) | None => Ok(()),
    }
}

fn points(all: &mut Bytes<'_>) -> Read<(u64, PublicKey, Option<PublicKey>)> {
    let number = all.number()?;
    if number == 0 {
        return Err(Unreadable("the peer has no commitment").into());
    }
    let first = all.value()?;
    let second = all.take(33)?;
    let none = second.0.iter().all(|byte| *byte == 0);
    let second = if none { None } else { Some(second.whole()?) };
    Ok((number, first, second))
}

fn secrets(all: &mut Bytes<'_>) -> Read<Vec<(u64, [u8; 32])>> {
    let mut found = Vec::new();
    for _ in 0..SLOTS {
        let (secret, index) = (all.value()?, all.value::<u64>()?);
        match index {
            EMPTY_SLOT => {}
            0..EMPTY_SLOT => found.push((index, secret)),
            _ => return Err(Unreadable("a secret's index is out of range").into()),
        }
    }
    all.fields()?.end()?;
    Ok(found)
}

/// The peer's commitments by txid. None is ever removed; of those that are revoked LDK keeps no
/// sources.
fn commitments<'a>(all: &mut Bytes<'a>, canon: &mut Canon<'a>) -> Read<BTreeMap<Txid, Vec<Seen>>> {
    let count = all.value()?;
    let listed = canon.entries(all, count, |all| {
        let txid = Txid::from_byte_array(all.value()?);
        let mut htlcs = Vec::new();
        for _ in 0..all.value::<u64>()? {
            let htlc = HTLCOutputInCommitment {
                offered: all.truth()?,
                amount_msat: all.value()?,
                cltv_expiry: all.value()?,
                payment_hash: PaymentHash(all.value()?),
                transaction_output_index: all.option()?.map(Bytes::whole).transpose()?,
            };
            htlcs.push(Seen { htlc, source: optional_source(all)? });
        }
        Ok((txid, htlcs))
    })?;
    let all = listed.len();
    let found: BTreeMap<_, _> = listed.into_iter().collect();
    if found.len() == all {
        Ok(found)
    } else {
        Err(Unreadable("a commitment is there twice").into())
    }
}

/// Our commitment as older versions want it, and its HTLCs.
fn legacy(all: &mut Bytes<'_>) -> Read<(Legacy, Vec<Seen>)> {
    let mut fields = all.fields()?;
    let txid = Txid::from_byte_array(fields.required(0)?.whole()?);
    let to_local = fields.required(1)?.whole()?;
    let mut key = |kind| fields.required(kind)?.whole::<PublicKey>();
    let keys = [key(2)?, key(4)?, key(6)?, key(8)?, key(10)?];
    let feerate = fields.required(12)?.whole()?;
    let htlcs = fields.required(14)?.all(with_signature)?;
    fields.end()?;
    let mut signatures = Vec::new();
    for (seen, signature) in &htlcs {
        if seen.htlc.transaction_output_index.is_some() != signature.is_some() {
            return Err(Unreadable("a signature is misplaced").into());
        }
        signatures.extend(signature.map(Bytes::whole::<Signature>).transpose()?);
    }
    let legacy = Legacy { txid, to_local, feerate, keys, signatures };
    Ok((legacy, htlcs.into_iter().map(|(seen, _)| seen).collect()))
}

fn watched(all: &mut Bytes<'_>) -> Read<Vec<(Txid, u32, ScriptBuf)>> {
    let mut watched = Vec::new();
    for _ in 0..all.value::<u64>()? {
        let txid = Txid::from_byte_array(all.value()?);
        for _ in 0..all.value::<u64>()? {
            watched.push((txid, all.value()?, all.value()?));
        }
    }
    Ok(watched)
}

/// `OnchainTxHandler`: our commitments; claims there must be none.
struct Handler {
    destination: ScriptBuf,
    local: HolderCommitmentTransaction,
    before: Option<HolderCommitmentTransaction>,
    parameters: ChannelTransactionParameters,
}

fn handler(all: &mut Bytes<'_>) -> Read<Handler> {
    all.version()?;
    let destination = all.value()?;
    check_type(*all)?;
    let local = all.exactly(|bytes| Readable::read(bytes).ok())?;
    if all.value::<u8>()? != 0 {
        return Err(NotAtRest::Closing);
    }
    let mut odd = *all;
    odd.option()?.map(check_type).transpose()?;
    let before = all.exactly(|bytes| Readable::read(bytes).ok())?;
    if all.value::<u8>()? != 0 {
        return Err(NotAtRest::Closing);
    }
    let parameters = all.exactly(parameters)?;
    if all.value::<u32>()? != 0 {
        return Err(Unreadable("a signer is where none is written").into());
    }
    for _ in 0..4 {
        all.none(NotAtRest::Closing)?;
    }
    all.fields()?.end()?;
    Ok(Handler { destination, local, before, parameters })
}

/// What newer versions added.
struct Tail {
    peer: PublicKey,
    channel: [u8; 32],
    parameters: ChannelTransactionParameters,
    first_funding: (Txid, u16),
    opened: Opened,
}

/// Fields that are hash maps: what LDK has told of payments, or will tell, and preimages.
const FULFILLED: u64 = 15;
const PREIMAGES: u64 = 25;
const TOLD: u64 = 33;

fn tail<'a>(all: &mut Bytes<'a>, canon: &mut Canon<'a>) -> Read<Tail> {
    let mut fields = all.fields()?;
    for (kind, value) in fields.rest() {
        if ![FULFILLED, PREIMAGES, TOLD].contains(&kind) {
            canon.parts.extend(kind.to_be_bytes());
            canon.parts.extend(value.0);
        }
    }
    let on_chain = [1, 11, 21].into_iter().any(|kind| fields.optional(kind).is_some());
    if on_chain || whole(fields.required(7)?, Bytes::truth)? {
        return Err(NotAtRest::Closing);
    }
    for kind in [3, 5, 13] {
        if !fields.required(kind)?.is_empty() {
            return Err(NotAtRest::Closing);
        }
    }
    if fields.optional(32).is_some_and(|pending| !pending.is_empty()) {
        return Err(NotAtRest::Splice);
    }
    // Set from the splice's first block on, and until it is locked: what spends that output alone is a close.
    if fields.optional(34).is_some() {
        return Err(NotAtRest::Closing);
    }
    let peer = fields.required(9)?.whole()?;
    let channel = fields.required(19)?.whole()?;
    let parameters = whole(fields.required(31)?, |bytes| bytes.exactly(self::parameters))?;
    if let Some(pays) = fields.optional(23)
        && whole(pays, Bytes::truth)? != parameters.is_outbound_from_holder
    {
        return Err(Unreadable("another party pays the fee").into());
    }
    canon.field(fields.required(FULFILLED)?, claimed)?;
    canon.field(fields.required(TOLD)?, sent)?;
    let opened = canon.field(fields.required(PREIMAGES)?, opened)?.into_iter().collect();
    first_commitment(&mut fields)?;
    let first_funding = whole(fields.required(27)?, |bytes| {
        Ok((Txid::from_byte_array(bytes.value()?), bytes.value()?))
    })?;
    // Who broadcast the funding transaction, and whether it was seen.
    whole(fields.required(35)?, Bytes::truth)?;
    whole(fields.required(37)?, Bytes::truth)?;
    fields.end()?;
    Ok(Tail { peer, channel, parameters, first_funding, opened })
}

/// Bytes that are one value, to the last.
fn whole<'a, T>(
    mut bytes: Bytes<'a>,
    read: impl FnOnce(&mut Bytes<'a>) -> Result<T, Unreadable>,
) -> Result<T, Unreadable> {
    let value = read(&mut bytes)?;
    bytes.end()?;
    Ok(value)
}

/// A hash whose preimage LDK knows, with the received HTLCs that it is for.
fn opened(bytes: &mut Bytes<'_>) -> Result<([u8; 32], For), Unreadable> {
    let (hash, preimage): ([u8; 32], _) = (bytes.value()?, Preimage(bytes.value()?));
    if preimage.hash().0 != hash {
        return Err(Unreadable("a preimage is of another hash"));
    }
    let parts = bytes.counted(claim_details)?.concat();
    Ok((hash, (preimage, parts)))
}

/// The peer's first commitment, in two forms.
fn first_commitment(fields: &mut Fields<'_>) -> Result<(), Unreadable> {
    let parts = fields.optional(17).map(|parts| {
        whole(parts, |bytes| {
            let parts: (PublicKey, u32, u64, u64) =
                (bytes.value()?, bytes.value()?, bytes.value()?, bytes.value()?);
            Ok(parts)
        })
    });
    let parts = parts.transpose()?;
    let Some(mut commitment) = fields.optional(29) else { return Ok(()) };
    check_inner_type(commitment)?;
    let first: CommitmentTransaction = commitment.exactly(|bytes| Readable::read(bytes).ok())?;
    commitment.end()?;
    let said = (
        first.per_commitment_point(),
        first.negotiated_feerate_per_kw(),
        first.to_broadcaster_value_sat(),
        first.to_countersignatory_value_sat(),
    );
    if first.commitment_number() != FIRST_NUMBER || parts.is_some_and(|parts| parts != said) {
        return Err(Unreadable("the peer's first commitment"));
    }
    Ok(())
}
