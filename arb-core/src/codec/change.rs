//! `Change`: one TLV record whose type names the variant and whose value is a stream of its own.
use super::tlv::{Body, Field, Reader, TlvReader, TlvWriter, put_prefixed};
use super::{DecodeError, Record, decode_record, encode_record};
use crate::arbitrator::{Change, FailReason, HandedOut, PreimageSource, Refusal, TxKind};
use crate::ids::HtlcId;
use crate::ports::ScriptOwner;
use crate::units::Confirmed;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::ScriptBuf;

// Types of the variants. A number is never used again.
const FAIL_REQUESTED: u64 = 0;
const PREIMAGE_LEARNED: u64 = 2;
const REVOKED_HTLCS_LOADED: u64 = 4;
const HANDED_OUT: u64 = 6;
const REJECTED: u64 = 8;
const UPSTREAM_TOLD: u64 = 10;
const NOTICE_ACKNOWLEDGED: u64 = 12;
const ANNOUNCED: u64 = 14;
const BUMP_REQUESTED: u64 = 16;
const SPENT: u64 = 18;
const DISCONNECTED: u64 = 20;
const CONTESTED: u64 = 22;
const SCRIPTS_JUDGED: u64 = 24;
const MUTUAL_CLOSE_AGREED: u64 = 26;
const DEADLINE_REQUESTED: u64 = 28;
const COMMITMENT_SEEN: u64 = 30;
const SET_ASIDE: u64 = 32;
const BUDGET_REQUESTED: u64 = 34;
const DESTINATION_REQUESTED: u64 = 36;
const ACCEPTED: u64 = 38;
const MUTUAL_CLOSE_SEEN: u64 = 40;
const POINT_LEARNED: u64 = 42;
const UNHEARD: u64 = 44;

impl Record for Change {
    const VERSION: u8 = 1;
    fn encode(&self) -> Vec<u8> {
        encode_record(Self::VERSION, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_record(Self::VERSION, bytes)
    }
}

impl Body for Change {
    fn write(&self, out: &mut TlvWriter) {
        match self {
            Self::FailRequested { commitment, reason } => out.stream(FAIL_REQUESTED, |out| {
                out.field(0, commitment);
                out.field(2, reason);
            }),
            Self::PreimageLearned { preimage, source } => out.stream(PREIMAGE_LEARNED, |out| {
                out.field(0, preimage);
                out.field(2, source);
            }),
            Self::RevokedHtlcsLoaded { number, htlcs } => out.stream(REVOKED_HTLCS_LOADED, |out| {
                out.field(0, number);
                out.list(2, htlcs);
            }),
            Self::ScriptsJudged(verdicts) => {
                out.stream(SCRIPTS_JUDGED, |out| out.list(0, verdicts));
            }
            Self::PointLearned { number, point } => out.stream(POINT_LEARNED, |out| {
                out.field(0, number);
                out.field(2, point);
            }),
            Self::HandedOut(handed_out) => out.body(HANDED_OUT, handed_out.as_ref()),
            Self::Rejected { txid, why, at } => out.stream(REJECTED, |out| {
                out.field(0, txid);
                out.field(2, at);
                out.field(4, why);
            }),
            Self::Accepted { txid } => out.stream(ACCEPTED, |out| out.field(0, txid)),
            Self::Unheard { txid } => out.stream(UNHEARD, |out| out.field(0, txid)),
            Self::Contested(outpoint) => out.stream(CONTESTED, |out| out.field(0, outpoint)),
            Self::BudgetRequested { outpoint, budget } => out.stream(BUDGET_REQUESTED, |out| {
                out.optional(0, outpoint.as_ref());
                out.field(2, budget);
            }),
            Self::DestinationRequested { outpoint, script } => {
                out.stream(DESTINATION_REQUESTED, |out| {
                    out.optional(0, outpoint.as_ref());
                    out.field(2, script);
                });
            }
            Self::SetAside { outpoint, why } => out.stream(SET_ASIDE, |out| {
                out.field(0, outpoint);
                out.field(2, why);
            }),
            Self::CommitmentSeen { transaction, fee } => out.stream(COMMITMENT_SEEN, |out| {
                out.field(0, transaction.as_ref());
                out.field(2, fee);
            }),
            Self::MutualCloseSeen { at } => {
                out.stream(MUTUAL_CLOSE_SEEN, |out| out.field(0, at));
            }
            Self::UpstreamTold { duty, verdict } => out.stream(UPSTREAM_TOLD, |out| {
                out.field(0, duty);
                out.field(2, verdict);
            }),
            Self::NoticeAcknowledged(key) => {
                out.stream(NOTICE_ACKNOWLEDGED, |out| out.field(0, key));
            }
            Self::Announced(event) => out.stream(ANNOUNCED, |out| out.field(0, event)),
            Self::BumpRequested { outpoint, sat_per_kwu } => out.stream(BUMP_REQUESTED, |out| {
                out.optional(0, outpoint.as_ref());
                out.field(2, sat_per_kwu);
            }),
            Self::DeadlineRequested { outpoint, deadline } => {
                out.stream(DEADLINE_REQUESTED, |out| {
                    out.optional(0, outpoint.as_ref());
                    out.field(2, deadline);
                });
            }
            Self::MutualCloseAgreed { txid } => {
                out.stream(MUTUAL_CLOSE_AGREED, |out| out.field(0, txid));
            }
            Self::Spent(spent) => out.stream(SPENT, |out| {
                out.field(0, &spent.at);
                out.field(2, &spent.value);
            }),
            Self::Disconnected { fork_point } => {
                out.stream(DISCONNECTED, |out| out.field(0, fork_point));
            }
        }
    }

    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        let (kind, mut fields) = input.variant()?;
        let change = read_variant(kind, &mut fields)?;
        fields.finish()?;
        Ok(change)
    }
}

fn read_variant(kind: u64, input: &mut TlvReader<'_>) -> Result<Change, DecodeError> {
    Ok(match kind {
        FAIL_REQUESTED => {
            Change::FailRequested { commitment: input.field(0)?, reason: input.field(2)? }
        }
        PREIMAGE_LEARNED => {
            Change::PreimageLearned { preimage: input.field(0)?, source: input.field(2)? }
        }
        REVOKED_HTLCS_LOADED => {
            Change::RevokedHtlcsLoaded { number: input.field(0)?, htlcs: input.list(2)? }
        }
        HANDED_OUT => Change::HandedOut(Box::new(HandedOut::read(input)?)),
        REJECTED => {
            Change::Rejected { txid: input.field(0)?, at: input.field(2)?, why: input.field(4)? }
        }
        ACCEPTED => Change::Accepted { txid: input.field(0)? },
        UNHEARD => Change::Unheard { txid: input.field(0)? },
        CONTESTED => Change::Contested(input.field(0)?),
        UPSTREAM_TOLD => Change::UpstreamTold { duty: input.field(0)?, verdict: input.field(2)? },
        NOTICE_ACKNOWLEDGED => Change::NoticeAcknowledged(input.field(0)?),
        ANNOUNCED => Change::Announced(input.field(0)?),
        BUMP_REQUESTED => {
            Change::BumpRequested { outpoint: input.optional(0)?, sat_per_kwu: input.field(2)? }
        }
        SPENT => Change::Spent(Box::new(Confirmed { at: input.field(0)?, value: input.field(2)? })),
        SCRIPTS_JUDGED => Change::ScriptsJudged(input.list(0)?),
        POINT_LEARNED => Change::PointLearned { number: input.field(0)?, point: input.field(2)? },
        DISCONNECTED => Change::Disconnected { fork_point: input.field(0)? },
        BUDGET_REQUESTED => {
            Change::BudgetRequested { outpoint: input.optional(0)?, budget: input.field(2)? }
        }
        DESTINATION_REQUESTED => {
            Change::DestinationRequested { outpoint: input.optional(0)?, script: input.field(2)? }
        }
        SET_ASIDE => Change::SetAside { outpoint: input.field(0)?, why: input.field(2)? },
        COMMITMENT_SEEN => {
            Change::CommitmentSeen { transaction: Box::new(input.field(0)?), fee: input.field(2)? }
        }
        MUTUAL_CLOSE_SEEN => Change::MutualCloseSeen { at: input.field(0)? },
        MUTUAL_CLOSE_AGREED => Change::MutualCloseAgreed { txid: input.field(0)? },
        DEADLINE_REQUESTED => {
            Change::DeadlineRequested { outpoint: input.optional(0)?, deadline: input.field(2)? }
        }
        unknown => return Err(DecodeError::UnknownType(unknown)),
    })
}

impl Body for HandedOut {
    fn write(&self, out: &mut TlvWriter) {
        out.field(0, &self.kind);
        out.field(2, &self.transaction);
        out.list(4, &self.claims);
        out.list(6, &self.coins);
        out.field(8, &self.fee);
        out.field(10, &self.at);
        out.list(12, &self.others);
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: input.field(0)?,
            transaction: input.field(2)?,
            claims: input.list(4)?,
            coins: input.list(6)?,
            fee: input.field(8)?,
            at: input.field(10)?,
            others: input.list(12)?,
        })
    }
}

impl Field for TxKind {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Commitment => 0,
            Self::Anchor => 1,
            Self::HtlcTimeout => 2,
            Self::HtlcSuccess => 3,
            Self::Claim => 4,
            Self::Sweep => 5,
            Self::Penalty => 6,
        });
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::Commitment,
            1 => Self::Anchor,
            2 => Self::HtlcTimeout,
            3 => Self::HtlcSuccess,
            4 => Self::Claim,
            5 => Self::Sweep,
            6 => Self::Penalty,
            _ => return Err(DecodeError::Invalid("kind of transaction")),
        })
    }
}

impl Field for Refusal {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Fee => 0,
            Self::Conflict => 1,
            Self::Invalid => 2,
        });
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::Fee,
            1 => Self::Conflict,
            2 => Self::Invalid,
            _ => return Err(DecodeError::Invalid("reason of a refusal")),
        })
    }
}

impl Field for FailReason {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Requested => out.push(0),
            Self::OfferedDeadline(htlc) => {
                out.push(1);
                htlc.put(out);
            }
            Self::FulfilDeadline(htlc) => {
                out.push(2);
                htlc.put(out);
            }
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::Requested,
            1 => Self::OfferedDeadline(HtlcId::take(input)?),
            2 => Self::FulfilDeadline(HtlcId::take(input)?),
            _ => return Err(DecodeError::Invalid("reason to fail")),
        })
    }
}

impl Field for PreimageSource {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Node => out.push(0),
            Self::Downstream(htlc) => {
                out.push(1);
                htlc.put(out);
            }
            Self::Linked(htlc) => {
                out.push(2);
                htlc.put(out);
            }
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::Node,
            1 => Self::Downstream(HtlcId::take(input)?),
            2 => Self::Linked(HtlcId::take(input)?),
            _ => return Err(DecodeError::Invalid("source of a preimage")),
        })
    }
}

/// Whose a script is, then the script with its length in front.
impl Field for (ScriptBuf, ScriptOwner) {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self.1 {
            ScriptOwner::Node => 0,
            ScriptOwner::Other => 1,
        });
        put_prefixed(out, self.0.as_bytes());
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let owner = match u8::take(input)? {
            0 => ScriptOwner::Node,
            1 => ScriptOwner::Other,
            _ => return Err(DecodeError::Invalid("owner of a script")),
        };
        Ok((ScriptBuf::from_bytes(input.prefixed()?.to_vec()), owner))
    }
}
