//! Fields of changes that say what was told: notices, alerts, events, verdicts.
use super::DecodeError;
use super::tlv::{Field, Reader};
use crate::arbitrator::{
    Alert, ChannelEvent, CloseKind, NoticeKey, OutputProgress, UpstreamDuty, UpstreamVerdict,
};
use crate::ids::{HtlcId, HtlcRef, PaymentHash};
use crate::units::CommitmentNumber;
use alloc::vec::Vec;
use bitcoin::{OutPoint, Txid};

/// A tag and what comes with it.
fn put_tagged<T: Field>(out: &mut Vec<u8>, tag: u8, value: &T) {
    out.push(tag);
    value.put(out);
}

impl Field for UpstreamVerdict {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Fulfilled => 0,
            Self::Failed => 1,
        });
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::take(input)? {
            0 => Ok(Self::Fulfilled),
            1 => Ok(Self::Failed),
            _ => Err(DecodeError::Invalid("upstream verdict")),
        }
    }
}

impl Field for UpstreamDuty {
    fn put(&self, out: &mut Vec<u8>) {
        self.htlc.put(out);
        self.hash.put(out);
        match &self.incoming {
            None => out.push(0),
            Some(incoming) => put_tagged(out, 1, incoming),
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (htlc, hash) = (HtlcId::take(input)?, PaymentHash::take(input)?);
        let incoming = match u8::take(input)? {
            0 => None,
            1 => Some(HtlcRef::take(input)?),
            _ => return Err(DecodeError::Invalid("incoming HTLC")),
        };
        Ok(Self { htlc, hash, incoming })
    }
}

impl Field for NoticeKey {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Upstream(duty) => put_tagged(out, 0, duty),
            Self::Alert(alert) => put_tagged(out, 1, alert),
            Self::Failing => out.push(2),
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::Upstream(UpstreamDuty::take(input)?),
            1 => Self::Alert(Alert::take(input)?),
            2 => Self::Failing,
            _ => return Err(DecodeError::Invalid("notice")),
        })
    }
}

impl Field for Alert {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::UnknownSpend(txid) => put_tagged(out, 0, txid),
            Self::DataLoss(txid) => put_tagged(out, 1, txid),
            Self::OutdatedLocalCommitment(txid) => put_tagged(out, 2, txid),
            Self::OutputLost(outpoint) => put_tagged(out, 3, outpoint),
            Self::PreimageAfterFail(htlc) => put_tagged(out, 4, htlc),
            Self::OutdatedFacts => out.push(5),
            Self::Quarantined => out.push(6),
            Self::SignerFailing => out.push(7),
            Self::PenaltyDataUnreadable(number) => put_tagged(out, 8, number),
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::UnknownSpend(Txid::take(input)?),
            1 => Self::DataLoss(Txid::take(input)?),
            2 => Self::OutdatedLocalCommitment(Txid::take(input)?),
            3 => Self::OutputLost(OutPoint::take(input)?),
            4 => Self::PreimageAfterFail(HtlcId::take(input)?),
            5 => Self::OutdatedFacts,
            6 => Self::Quarantined,
            7 => Self::SignerFailing,
            8 => Self::PenaltyDataUnreadable(CommitmentNumber::take(input)?),
            _ => return Err(DecodeError::Invalid("alert")),
        })
    }
}

impl Field for ChannelEvent {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::EarlyMutual => out.push(0),
            Self::Closed(kind) => put_tagged(out, 1, kind),
            Self::Reorged => out.push(2),
            Self::Resolved => out.push(3),
            Self::Output { outpoint, progress } => {
                put_tagged(out, 4, outpoint);
                progress.put(out);
            }
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::EarlyMutual,
            1 => Self::Closed(CloseKind::take(input)?),
            2 => Self::Reorged,
            3 => Self::Resolved,
            4 => Self::Output {
                outpoint: OutPoint::take(input)?,
                progress: OutputProgress::take(input)?,
            },
            _ => return Err(DecodeError::Invalid("event")),
        })
    }
}

impl Field for OutputProgress {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Unspent => 0,
            Self::Claimed => 1,
            Self::PeerClaimed => 2,
            Self::Irrevocable => 3,
        });
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::Unspent,
            1 => Self::Claimed,
            2 => Self::PeerClaimed,
            3 => Self::Irrevocable,
            _ => return Err(DecodeError::Invalid("progress of an output")),
        })
    }
}

impl Field for CloseKind {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Mutual => out.push(0),
            Self::Local(number) => put_tagged(out, 1, number),
            Self::Outdated(number) => put_tagged(out, 2, number),
            Self::Remote(number) => put_tagged(out, 3, number),
            Self::Revoked(number) => put_tagged(out, 4, number),
            Self::Future(number) => put_tagged(out, 5, number),
            Self::Splice(txid) => put_tagged(out, 6, txid),
            Self::Unknown => out.push(7),
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::Mutual,
            1 => Self::Local(CommitmentNumber::take(input)?),
            2 => Self::Outdated(CommitmentNumber::take(input)?),
            3 => Self::Remote(CommitmentNumber::take(input)?),
            4 => Self::Revoked(CommitmentNumber::take(input)?),
            5 => Self::Future(CommitmentNumber::take(input)?),
            6 => Self::Splice(Txid::take(input)?),
            7 => Self::Unknown,
            _ => return Err(DecodeError::Invalid("kind of close")),
        })
    }
}
