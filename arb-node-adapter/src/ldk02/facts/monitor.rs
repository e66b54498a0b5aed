//! A channel monitor's bytes, read to the last one, of a channel that is open and at rest.
use super::bytes::{Bytes, Fields, Unreadable};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Txid};
use lightning::ln::chan_utils::{ChannelTransactionParameters, HolderCommitmentTransaction};
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::ser::{Readable, ReadableArgs, Writeable};

/// Why bytes are not those of a channel at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotAtRest {
    Unreadable(Unreadable),
    /// The monitor has seen something on chain, or was told to close.
    Closing,
    /// Another funding output is on its way.
    Splice,
    /// HTLCs are pending, or were: their ids are not in the bytes.
    Htlcs,
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
    /// Number and point of an unrevoked or the newest revoked commitment of the peer's, and the
    /// point of the one after it.
    pub(super) points: (u64, PublicKey, Option<PublicKey>),
    /// The 49 slots, those in use: index and secret.
    pub(super) secrets: Vec<(u64, [u8; 32])>,
    pub(super) local: HolderCommitmentTransaction,
    pub(super) local_number: u64,
    pub(super) best: ([u8; 32], u32),
    pub(super) peer: PublicKey,
    pub(super) channel: [u8; 32],
    pub(super) parameters: ChannelTransactionParameters,
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
    let (remote, _before): (Option<Txid>, Option<Txid>) = (all.value()?, all.value()?);
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
    commitments(&mut all)?;
    all.none(NotAtRest::Closing)?; // commitments of the peer's on chain
    for _ in 0..all.value::<u64>()? {
        all.take(32 + 6)?; // the newest commitment that has an HTLC of a hash
    }
    if all.truth()? {
        legacy(&mut all)?;
    }
    let legacy_local = legacy(&mut all)?;
    let (remote_number, local_number) = (all.number()?, all.number()?);
    for _ in 0..all.value::<u64>()? {
        all.take(32)?; // a preimage
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
    let (peer, channel, parameters) = tail(&mut all)?;
    all.end()?;
    if local.trust().txid() != legacy_local || of_handler != parameters {
        return Err(Unreadable("the monitor says two things").into());
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
        points,
        secrets,
        local,
        local_number,
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
    let mut fields = commitment.fields()?.required(0)?.fields()?;
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

/// The peer's commitments by txid. Of one that has, or had, an HTLC the id is not known.
fn commitments(all: &mut Bytes<'_>) -> Read<()> {
    for _ in 0..all.value::<u64>()? {
        all.take(32)?;
        all.none(NotAtRest::Htlcs)?;
    }
    Ok(())
}

/// Our commitment as older versions want it: its txid, and that it has no HTLC.
fn legacy(all: &mut Bytes<'_>) -> Read<Txid> {
    let mut fields = all.fields()?;
    let txid = Txid::from_byte_array(fields.required(0)?.whole()?);
    known(&mut fields, &[1, 2, 4, 6, 8, 10, 12]);
    if !fields.required(14)?.is_empty() {
        return Err(NotAtRest::Htlcs);
    }
    fields.end()?;
    Ok(txid)
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

fn tail(all: &mut Bytes<'_>) -> Read<(PublicKey, [u8; 32], ChannelTransactionParameters)> {
    let mut fields = all.fields()?;
    let on_chain = [1, 11, 21, 34].into_iter().any(|kind| fields.optional(kind).is_some());
    if on_chain || fields.required(7)?.truth()? {
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
    let mut parameters = fields.required(31)?;
    let found = parameters.exactly(self::parameters)?;
    parameters.end()?;
    // What becomes of payments, the first commitment, and whose the fee is.
    known(&mut fields, &[15, 17, 23, 25, 27, 29, 33, 35, 37]);
    fields.end()?;
    Ok((peer, channel, found))
}
