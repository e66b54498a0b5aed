//! `ChannelMonitorUpdate`: its steps are private to LDK, its bytes are not.
//!
//! What is read here is what LDK 0.2.7 writes; the crate is pinned to that version. What it writes
//! in typed form as well (every remote commitment transaction) is compared with it.
use super::bytes::{Bytes, Fields, Unreadable};
use arb_core::facts::HtlcLink;
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, PerCommitmentSecret, Preimage, Side};
use arb_core::units::{BlockHeight, CltvExpiry, CommitmentNumber, MilliSat};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Txid};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HTLCOutputInCommitment,
    HolderCommitmentTransaction,
};
use lightning::util::ser::ReadableArgs;

/// LDK counts commitments down from here.
pub(super) const FIRST_NUMBER: u64 = (1 << 48) - 1;

/// What LDK knows an offered HTLC by, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SourceKey {
    /// Forwarded: the incoming channel's alias, and the id of the incoming HTLC.
    Forward { alias: u64, id: u64 },
    /// Our own payment: a digest of what its onion was made with.
    Own([u8; 32]),
}

/// Where an offered HTLC comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) key: SourceKey,
    /// The incoming channel, if there is one.
    pub(super) incoming: Option<ChannelId>,
    /// When the incoming HTLC expires, if there is one.
    pub(super) expiry: Option<CltvExpiry>,
}

impl Source {
    /// The link of an offered HTLC whose incoming channel the arbiter does not watch. LDK alone resolves
    /// that one; when it expires, and so by when this one must be, is known all the same. Its
    /// amount is not: it is no less than what is `offered`.
    pub(super) fn link(&self, offered: MilliSat) -> HtlcLink {
        match (self.key, self.incoming, self.expiry) {
            (SourceKey::Forward { id, .. }, Some(channel), Some(expiry)) => {
                let incoming = HtlcRef { channel, htlc: HtlcId { offerer: Side::Remote, id } };
                HtlcLink::ForwardOf { incoming, expiry, amount: offered }
            }
            _ => HtlcLink::OwnPayment,
        }
    }
}

/// An HTLC of one commitment, trimmed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) htlc: HTLCOutputInCommitment,
    /// Present if we offered it.
    pub(super) source: Option<Source>,
}

/// What one funding candidate's transaction of a peer's commitment is.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemoteTx {
    /// The funding output that it spends; `None`: the current one.
    pub(super) funding: Option<OutPoint>,
    pub(super) txid: Txid,
    /// The peer's output, in satoshis; zero if it has none.
    pub(super) to_remote: u64,
    /// Our output, in satoshis; zero if it has none.
    pub(super) to_local: u64,
}

impl RemoteTx {
    pub(super) fn of(commitment: &CommitmentTransaction) -> Self {
        Self {
            funding: spent(commitment),
            txid: commitment.trust().txid(),
            to_remote: commitment.to_broadcaster_value_sat(),
            to_local: commitment.to_countersignatory_value_sat(),
        }
    }
}

/// The funding output that a commitment spends.
pub(super) fn spent(commitment: &CommitmentTransaction) -> Option<OutPoint> {
    let trusted = commitment.trust();
    trusted.built_transaction().transaction.input.first().map(|input| input.previous_output)
}

/// A commitment of the peer: one transaction for each funding candidate that goes on.
#[derive(Clone, Debug)]
pub(super) struct RemoteStep {
    pub(super) transactions: Vec<RemoteTx>,
    pub(super) number: CommitmentNumber,
    pub(super) point: PublicKey,
    pub(super) feerate: u32,
    pub(super) htlcs: Vec<Seen>,
}

/// A commitment of ours: one transaction for each funding candidate that goes on.
#[derive(Clone, Debug)]
pub(super) struct LocalStep {
    pub(super) transactions: Vec<HolderCommitmentTransaction>,
    pub(super) htlcs: Vec<Seen>,
    /// Offered HTLCs that the peer took, with their preimages.
    pub(super) claimed: Vec<(SourceKey, Preimage)>,
}

/// Another funding output, with both parties' commitments as far as they are at that time.
#[derive(Clone, Debug)]
pub(super) struct SpliceStep {
    pub(super) parameters: ChannelTransactionParameters,
    pub(super) local: HolderCommitmentTransaction,
    pub(super) remote: CommitmentTransaction,
}

/// One step of an update.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Local(Box<LocalStep>),
    Remote(Box<RemoteStep>),
    Preimage {
        preimage: Preimage,
        /// Received HTLCs that we take as the recipient, in all channels; `None`: the preimage
        /// came from downstream.
        recipient_of: Option<Vec<(ChannelId, u64)>>,
    },
    Secret {
        number: CommitmentNumber,
        secret: PerCommitmentSecret,
    },
    ForceClosed,
    Shutdown(ScriptBuf),
    /// Bookkeeping of LDK's own.
    Nothing,
    /// A splice was agreed upon.
    Splice(Box<SpliceStep>),
    /// A splice is the funding transaction from now on.
    Locked(Txid),
}

impl Step {
    /// Sources of the offered HTLCs in it.
    pub(super) fn sources(&self) -> impl Iterator<Item = Source> {
        let seen = match self {
            Self::Local(step) => step.htlcs.as_slice(),
            Self::Remote(step) => step.htlcs.as_slice(),
            Self::Preimage { .. }
            | Self::Secret { .. }
            | Self::ForceClosed
            | Self::Shutdown(_)
            | Self::Nothing
            | Self::Splice(_)
            | Self::Locked(_) => &[],
        };
        seen.iter().filter_map(|seen| seen.source)
    }
}

/// Reads the steps of an update.
pub(super) fn read(bytes: &[u8]) -> Result<(u64, Vec<Step>), Unreadable> {
    let mut all = Bytes(bytes);
    if all.take(2)?.0 != [1, 1] {
        return Err(Unreadable("the update has another version"));
    }
    let id = all.value::<u64>()?;
    let count = all.value::<u64>()?;
    let mut steps = Vec::new();
    for _ in 0..count {
        steps.push(step(&mut all)?);
    }
    let mut fields = all.fields()?;
    fields.skip(3);
    fields.end()?;
    all.end()?;
    Ok((id, steps))
}

fn step(all: &mut Bytes<'_>) -> Result<Step, Unreadable> {
    let kind = all.value::<u8>()?;
    let mut fields = all.fields()?;
    let step = match kind {
        0 => {
            let commitment: HolderCommitmentTransaction = fields.required(0)?.whole()?;
            let claimed = fields.optional(1).map(|list| list.all(claimed)).transpose()?;
            let trimmed = fields.required(2)?.all(trimmed)?;
            let sources = fields.optional(4).map(|list| list.all(source)).transpose()?;
            let ours = |htlc: &HTLCOutputInCommitment| htlc.offered;
            let nondust = commitment.nondust_htlcs();
            let htlcs = join(nondust, ours, sources.unwrap_or_default(), trimmed)?;
            let claimed = claimed.unwrap_or_default();
            let transactions = vec![commitment];
            Step::Local(Box::new(LocalStep { transactions, htlcs, claimed }))
        }
        1 => Step::Remote(Box::new(RemoteStep {
            transactions: vec![RemoteTx {
                funding: None,
                txid: fields.required(0)?.whole()?,
                to_remote: fields.required(3)?.whole()?,
                to_local: fields.required(5)?.whole()?,
            }],
            feerate: fields.required(1)?.whole()?,
            number: number(fields.required(2)?.whole()?)?,
            point: fields.required(4)?.whole()?,
            htlcs: fields.required(6)?.all(with_source)?,
        })),
        2 => Step::Preimage {
            preimage: Preimage(fields.required(0)?.whole()?),
            recipient_of: fields.optional(1).map(recipient_of).transpose()?,
        },
        3 => Step::Secret {
            number: number(fields.required(0)?.whole()?)?,
            secret: PerCommitmentSecret(fields.required(2)?.whole()?),
        },
        4 => {
            // Whether LDK broadcasts, and what it fails upstream: LDK does both by itself.
            fields.skip(0);
            fields.skip(1);
            Step::ForceClosed
        }
        5 => Step::Shutdown(fields.required(0)?.whole()?),
        6 => Step::Remote(Box::new(remotes(&mut fields)?)),
        7 => {
            fields.skip(1);
            Step::Nothing
        }
        8 => Step::Local(Box::new(locals(&mut fields)?)),
        10 => Step::Splice(Box::new(SpliceStep {
            parameters: fields
                .required(1)?
                .structure(|bytes| ChannelTransactionParameters::read(bytes, None).ok())?,
            local: fields.required(3)?.whole()?,
            remote: fields.required(5)?.whole()?,
        })),
        12 => Step::Locked(Txid::from_byte_array(fields.required(1)?.whole()?)),
        _ => return Err(Unreadable("a step is not known")),
    };
    fields.end()?;
    Ok(step)
}

fn number(ldk: u64) -> Result<CommitmentNumber, Unreadable> {
    let number = FIRST_NUMBER.checked_sub(ldk);
    number.map(CommitmentNumber).ok_or(Unreadable("a commitment number is out of range"))
}

/// The peer's commitments of several funding candidates (`LatestCounterpartyCommitment`).
fn remotes(fields: &mut Fields<'_>) -> Result<RemoteStep, Unreadable> {
    let all: Vec<CommitmentTransaction> = fields.required(1)?.all(Bytes::value)?;
    let (sources, trimmed) = htlc_data(fields.required(3)?)?;
    let first = one_of(all.iter())?;
    // LDK says "offered" of the commitment's owner.
    let ours = |htlc: &HTLCOutputInCommitment| !htlc.offered;
    Ok(RemoteStep {
        number: number(first.commitment_number())?,
        point: first.per_commitment_point(),
        feerate: first.negotiated_feerate_per_kw(),
        htlcs: join(first.nondust_htlcs(), ours, sources, trimmed)?,
        transactions: all.iter().map(RemoteTx::of).collect(),
    })
}

/// Our commitments of several funding candidates (`LatestHolderCommitment`).
fn locals(fields: &mut Fields<'_>) -> Result<LocalStep, Unreadable> {
    let transactions: Vec<HolderCommitmentTransaction> = fields.required(1)?.all(Bytes::value)?;
    let (sources, trimmed) = htlc_data(fields.required(3)?)?;
    let claimed = fields.required(5)?.all(claimed)?;
    let first = one_of(transactions.iter().map(|commitment| &**commitment))?;
    let ours = |htlc: &HTLCOutputInCommitment| htlc.offered;
    let htlcs = join(first.nondust_htlcs(), ours, sources, trimmed)?;
    Ok(LocalStep { transactions, htlcs, claimed })
}

/// One of the commitments of a step, in all that the others have in common with it: all but what follows from the
/// funding output.
fn one_of<'a>(
    mut all: impl Iterator<Item = &'a CommitmentTransaction>,
) -> Result<&'a CommitmentTransaction, Unreadable> {
    let first = all.next().ok_or(Unreadable("there is no commitment"))?;
    let same = |of: &CommitmentTransaction| {
        let terms = (of.commitment_number(), of.per_commitment_point());
        terms == (first.commitment_number(), first.per_commitment_point())
            && of.negotiated_feerate_per_kw() == first.negotiated_feerate_per_kw()
            && are_equal(of.nondust_htlcs(), first.nondust_htlcs())
    };
    if all.all(same) { Ok(first) } else { Err(Unreadable("commitments of one step differ")) }
}

/// Whether HTLCs are the same in the same order; their outputs may stand elsewhere.
fn are_equal(one: &[HTLCOutputInCommitment], two: &[HTLCOutputInCommitment]) -> bool {
    let terms = |htlc: &HTLCOutputInCommitment| {
        (htlc.offered, htlc.amount_msat, htlc.cltv_expiry, htlc.payment_hash)
    };
    one.iter().map(terms).eq(two.iter().map(terms))
}

/// `CommitmentHTLCData`: sources of our offered HTLCs with an output, and the HTLCs without one.
fn htlc_data(mut data: Bytes<'_>) -> Result<(Vec<Source>, Vec<Seen>), Unreadable> {
    let mut fields = data.fields()?;
    let sources = fields.required(1)?.all(source)?;
    let trimmed = fields.required(3)?.all(with_source)?;
    fields.end()?;
    data.end()?;
    if trimmed.iter().any(|seen| seen.htlc.transaction_output_index.is_some()) {
        return Err(Unreadable("a trimmed HTLC has an output"));
    }
    Ok((sources, trimmed))
}

/// LDK names the sources of our offered HTLCs with an output in output order.
fn join(
    nondust: &[HTLCOutputInCommitment],
    is_ours: impl Fn(&HTLCOutputInCommitment) -> bool,
    sources: Vec<Source>,
    trimmed: Vec<Seen>,
) -> Result<Vec<Seen>, Unreadable> {
    let mut sources = sources.into_iter();
    let mut htlcs = Vec::new();
    for htlc in nondust {
        let source = if is_ours(htlc) {
            Some(sources.next().ok_or(Unreadable("an offered HTLC has no source"))?)
        } else {
            None
        };
        htlcs.push(Seen { htlc: htlc.clone(), source });
    }
    if sources.next().is_some() {
        return Err(Unreadable("a source has no HTLC"));
    }
    htlcs.extend(trimmed);
    Ok(htlcs)
}

fn trimmed(list: &mut Bytes<'_>) -> Result<Seen, Unreadable> {
    match with_signature(list)? {
        (seen, None) => Ok(seen),
        (_, Some(_)) => Err(Unreadable("a trimmed HTLC has a signature")),
    }
}

/// An HTLC of our commitment, with the peer's signature if it has an output.
pub(super) fn with_signature<'a>(
    list: &mut Bytes<'a>,
) -> Result<(Seen, Option<Bytes<'a>>), Unreadable> {
    let htlc = list.value()?;
    let signature = list.option()?;
    let source = optional_source(list)?;
    Ok((Seen { htlc, source }, signature))
}

fn with_source(list: &mut Bytes<'_>) -> Result<Seen, Unreadable> {
    let htlc = list.value()?;
    let source = optional_source(list)?;
    Ok(Seen { htlc, source })
}

pub(super) fn optional_source(list: &mut Bytes<'_>) -> Result<Option<Source>, Unreadable> {
    let Some(mut bytes) = list.option()? else { return Ok(None) };
    let found = source(&mut bytes)?;
    bytes.end()?;
    Ok(Some(found))
}

/// `HTLCSource`.
fn source(bytes: &mut Bytes<'_>) -> Result<Source, Unreadable> {
    let kind = bytes.value::<u8>()?;
    let mut fields = bytes.fields()?;
    match kind {
        0 => {
            let session = fields.required(0)?;
            // The payment's id, its route and its invoice.
            [1, 2, 4, 5, 6, 7].into_iter().for_each(|kind| fields.skip(kind));
            fields.end()?;
            Ok(Source { key: own(session.0), incoming: None, expiry: None })
        }
        1 => {
            // The whole of `HTLCPreviousHopData` is one structure: `fields` are its fields.
            let alias = fields.required(0)?.whole()?;
            let id = fields.required(4)?.whole()?;
            let channel: [u8; 32] = fields.required(9)?.whole()?;
            let expiry = fields.optional(5).map(Bytes::whole::<u32>).transpose()?;
            let expiry = expiry.map(|height| CltvExpiry(BlockHeight(height)));
            // Where it came from in other words, and what LDK fails or fulfils it with.
            [1, 2, 3, 6, 7, 11].into_iter().for_each(|kind| fields.skip(kind));
            fields.end()?;
            let key = SourceKey::Forward { alias, id };
            Ok(Source { key, incoming: Some(ChannelId(channel)), expiry })
        }
        _ => Err(Unreadable("the source of an HTLC is of no known kind")),
    }
}

/// The session key is a secret: it is not kept.
fn own(session: &[u8]) -> SourceKey {
    SourceKey::Own(sha256::Hash::hash(session).to_byte_array())
}

/// `(SentHTLCId, PaymentPreimage)`.
pub(super) fn claimed(bytes: &mut Bytes<'_>) -> Result<(SourceKey, Preimage), Unreadable> {
    Ok((sent(bytes)?, Preimage(bytes.value()?)))
}

/// `SentHTLCId`.
pub(super) fn sent(bytes: &mut Bytes<'_>) -> Result<SourceKey, Unreadable> {
    let kind = bytes.value::<u8>()?;
    let mut fields = bytes.fields()?;
    let key = match kind {
        0 => SourceKey::Forward {
            alias: fields.required(0)?.whole()?,
            id: fields.required(2)?.whole()?,
        },
        2 => own(fields.required(0)?.0),
        _ => return Err(Unreadable("a sent HTLC is of no known kind")),
    };
    fields.end()?;
    Ok(key)
}

/// The parts of a payment that we take.
fn recipient_of(mut bytes: Bytes<'_>) -> Result<Vec<(ChannelId, u64)>, Unreadable> {
    let parts = claim_details(&mut bytes)?;
    bytes.end()?;
    Ok(parts)
}

/// `PaymentClaimDetails`.
pub(super) fn claim_details(bytes: &mut Bytes<'_>) -> Result<Vec<(ChannelId, u64)>, Unreadable> {
    let mut fields = bytes.fields()?;
    let parts = fields.required(0)?.all(|list| {
        let mut part = list.fields()?;
        let channel: [u8; 32] = part.required(4)?.whole()?;
        let id = part.required(6)?.whole()?;
        part.skip(0);
        part.skip(2);
        part.end()?;
        Ok((ChannelId(channel), id))
    })?;
    // What LDK needs to tell the user of the payment.
    fields.skip(2);
    fields.end()?;
    Ok(parts)
}

#[cfg(test)]
mod tests;
