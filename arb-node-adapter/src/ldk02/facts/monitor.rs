//! A channel monitor's bytes, read to the last one, of a channel that is open.
use super::bytes::{Bytes, Fields, Unreadable};
use super::update::{Seen, claim_details, claimed, optional_source, sent, with_signature};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Txid};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HTLCOutputInCommitment,
    HolderCommitmentTransaction,
};
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
    /// The funding output is another one than at first, or will be.
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
    /// Hashes whose preimages LDK knows.
    pub(super) opened: BTreeSet<[u8; 32]>,
    pub(super) best: ([u8; 32], u32),
    pub(super) peer: PublicKey,
    pub(super) channel: [u8; 32],
    pub(super) parameters: ChannelTransactionParameters,
}

impl Monitor {
    /// Whether both say the same. LDK's own comparison of commitments takes equal txids for a promise.
    pub(super) fn says(&self, other: &Self) -> bool {
        let plain = |of: &Self| {
            (
                (of.update, of.destination.clone(), of.keys, of.funding, of.funding_script.clone()),
                (of.value, of.remote, of.remote_number, of.points, of.secrets.clone()),
                (of.local.encode(), of.local_number, of.opened.clone(), of.best),
                (of.peer, of.channel, of.parameters.clone()),
            )
        };
        plain(self) == plain(other)
            && self.commitments == other.commitments
            && self.local_htlcs == other.local_htlcs
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

/// Reads a monitor.
pub(super) fn read(bytes: &[u8]) -> Read<Monitor> {
    let mut all = Bytes(bytes);
    all.version()?;
    let update = all.value()?;
    all.number()?; // obscures commitment numbers: follows from the parameters
    let destination = all.value()?;
    if all.value::<u8>()? != 1 {
        return Err(NotAtRest::Closing);
    }
    let (_payment, _shutdown): (ScriptBuf, ScriptBuf) = (all.value()?, all.value()?);
    let keys = all.value()?;
    let _revocation: PublicKey = all.value()?;
    let funding = (Txid::from_byte_array(all.value()?), all.value()?);
    let funding_script = all.value()?;
    let (remote, before): (Option<Txid>, Option<Txid>) = (all.value()?, all.value()?);
    // Nothing of old versions in front of the peer's keys and delay.
    all.none(NotAtRest::Unreadable(Unreadable("a list of old versions is not empty")))?;
    let mut fields = all.fields()?;
    known(&mut fields, &[0, 2, 4]);
    fields.end()?;
    let _witness_script: ScriptBuf = all.value()?;
    let value = all.value()?;
    let points = points(&mut all)?;
    let _delay: u16 = all.value()?;
    let secrets = secrets(&mut all)?;
    let commitments = commitments(&mut all)?;
    let revoked = commitments.iter().filter(|(txid, _)| ![remote, before].contains(&Some(**txid)));
    if revoked.flat_map(|(_, htlcs)| htlcs).any(|seen| seen.source.is_some()) {
        return Err(Unreadable("a revoked commitment has sources").into());
    }
    all.none(NotAtRest::Closing)?; // commitments of the peer's on chain
    for _ in 0..all.value::<u64>()? {
        all.take(32 + 6)?; // the newest commitment that has an HTLC of a hash
    }
    if all.truth()? {
        legacy(&mut all)?;
    }
    let (legacy_local, local_htlcs) = legacy(&mut all)?;
    let (remote_number, local_number) = (all.number()?, all.number()?);
    let mut opened = BTreeSet::new();
    for _ in 0..all.value::<u64>()? {
        opened.insert(sha256::Hash::hash(all.take(32)?.0).to_byte_array());
    }
    all.none(NotAtRest::Closing)?; // news for the channel manager
    all.none(NotAtRest::Closing)?; // events
    let best = (all.value()?, all.value()?);
    all.none(NotAtRest::Closing)?; // what waits for its depth
    watched(&mut all)?;
    let (local, of_handler) = handler(&mut all)?;
    if all.truth()? || all.truth()? {
        return Err(NotAtRest::Closing);
    }
    let Tail { peer, channel, parameters, first_funding, opened: opened_for } = tail(&mut all)?;
    all.end()?;
    let outputs = local_htlcs.iter().map(|seen| &seen.htlc).take(local.nondust_htlcs().len());
    let agree = local.trust().txid() == legacy_local
        && outputs.eq(local.nondust_htlcs())
        && of_handler == parameters
        && opened == opened_for;
    if !agree {
        return Err(Unreadable("the monitor says two things").into());
    }
    if first_funding != funding {
        return Err(NotAtRest::Splice);
    }
    Ok(Monitor {
        update,
        destination,
        keys,
        funding,
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
        opened,
        best,
        peer,
        channel,
        parameters,
    })
}

fn parameters(bytes: &mut &[u8]) -> Option<ChannelTransactionParameters> {
    let found = ChannelTransactionParameters::read(bytes, None).ok()?;
    is_plain(&found.channel_type_features).then_some(found)
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

fn known(fields: &mut Fields<'_>, kinds: &[u64]) {
    kinds.iter().for_each(|kind| fields.skip(*kind));
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
fn commitments(all: &mut Bytes<'_>) -> Read<BTreeMap<Txid, Vec<Seen>>> {
    let mut found = BTreeMap::new();
    for _ in 0..all.value::<u64>()? {
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
        if found.insert(txid, htlcs).is_some() {
            return Err(Unreadable("a commitment is there twice").into());
        }
    }
    Ok(found)
}

/// Our commitment as older versions want it: its txid and its HTLCs.
fn legacy(all: &mut Bytes<'_>) -> Read<(Txid, Vec<Seen>)> {
    let mut fields = all.fields()?;
    let txid = Txid::from_byte_array(fields.required(0)?.whole()?);
    known(&mut fields, &[1, 2, 4, 6, 8, 10, 12]);
    let htlcs = fields.required(14)?.all(with_signature)?;
    fields.end()?;
    for (seen, signature) in &htlcs {
        if seen.htlc.transaction_output_index.is_some() != signature.is_some() {
            return Err(Unreadable("a signature is misplaced").into());
        }
    }
    Ok((txid, htlcs.into_iter().map(|(seen, _)| seen).collect()))
}

fn watched(all: &mut Bytes<'_>) -> Read<()> {
    for _ in 0..all.value::<u64>()? {
        all.take(32)?;
        for _ in 0..all.value::<u64>()? {
            let _output: (u32, ScriptBuf) = (all.value()?, all.value()?);
        }
    }
    Ok(())
}

/// `OnchainTxHandler`: our commitments; claims there must be none.
fn handler(
    all: &mut Bytes<'_>,
) -> Read<(HolderCommitmentTransaction, ChannelTransactionParameters)> {
    all.version()?;
    let _destination: ScriptBuf = all.value()?;
    check_type(*all)?;
    let local: HolderCommitmentTransaction = all.exactly(|bytes| Readable::read(bytes).ok())?;
    if all.value::<u8>()? != 0 {
        return Err(NotAtRest::Closing);
    }
    let mut before = *all;
    before.option()?.map(check_type).transpose()?;
    let _before: Option<HolderCommitmentTransaction> =
        all.exactly(|bytes| Readable::read(bytes).ok())?;
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
    Ok((local, parameters))
}

/// What newer versions added.
struct Tail {
    peer: PublicKey,
    channel: [u8; 32],
    parameters: ChannelTransactionParameters,
    first_funding: (Txid, u16),
    opened: BTreeSet<[u8; 32]>,
}

fn tail(all: &mut Bytes<'_>) -> Read<Tail> {
    let mut fields = all.fields()?;
    let on_chain = [1, 11, 21, 34].into_iter().any(|kind| fields.optional(kind).is_some());
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
    let peer = fields.required(9)?.whole()?;
    let channel = fields.required(19)?.whole()?;
    let parameters = whole(fields.required(31)?, |bytes| bytes.exactly(self::parameters))?;
    if let Some(pays) = fields.optional(23)
        && whole(pays, Bytes::truth)? != parameters.is_outbound_from_holder
    {
        return Err(Unreadable("another party pays the fee").into());
    }
    // What LDK has told of payments, or will tell.
    whole(fields.required(15)?, |bytes| bytes.counted(claimed))?;
    whole(fields.required(33)?, |bytes| bytes.counted(sent))?;
    let opened = whole(fields.required(25)?, |bytes| bytes.counted(opened))?;
    first_commitment(&mut fields)?;
    let first_funding = whole(fields.required(27)?, |bytes| {
        Ok((Txid::from_byte_array(bytes.value()?), bytes.value()?))
    })?;
    // Who broadcast the funding transaction, and whether it was seen.
    whole(fields.required(35)?, Bytes::truth)?;
    whole(fields.required(37)?, Bytes::truth)?;
    fields.end()?;
    let opened = opened.into_iter().collect();
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

/// A hash whose preimage LDK knows, with the payments that it is for.
fn opened(bytes: &mut Bytes<'_>) -> Result<[u8; 32], Unreadable> {
    let hash: [u8; 32] = bytes.value()?;
    if sha256::Hash::hash(bytes.take(32)?.0).to_byte_array() != hash {
        return Err(Unreadable("a preimage is of another hash"));
    }
    bytes.counted(claim_details)?;
    Ok(hash)
}

/// The peer's first commitment, in two forms.
fn first_commitment(fields: &mut Fields<'_>) -> Result<(), Unreadable> {
    if let Some(parts) = fields.optional(17) {
        whole(parts, |bytes| {
            let _: (PublicKey, u32, u64, u64) =
                (bytes.value()?, bytes.value()?, bytes.value()?, bytes.value()?);
            Ok(())
        })?;
    }
    let Some(mut commitment) = fields.optional(29) else { return Ok(()) };
    check_inner_type(commitment)?;
    let _: CommitmentTransaction = commitment.exactly(|bytes| Readable::read(bytes).ok())?;
    commitment.end()
}
