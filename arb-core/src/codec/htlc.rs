//! HTLCs: their terms, their link, and the record that penalty data is made of.
use super::field::Shortest;
use super::tlv::{Body, Field, Reader, TlvReader, TlvWriter, put_body, take_body};
use super::{DecodeError, Record, decode_record, encode_record};
use crate::facts::{Htlc, HtlcLink, HtlcRecord};
use crate::ids::{HtlcId, HtlcRef};
use crate::units::{CltvExpiry, CommitmentNumber, MilliSat};
use alloc::vec::Vec;

impl Record for HtlcRecord {
    const VERSION: u8 = 1;
    fn encode(&self) -> Vec<u8> {
        encode_record(Self::VERSION, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_record(Self::VERSION, bytes)
    }
}

impl Body for HtlcRecord {
    fn write(&self, out: &mut TlvWriter) {
        out.field(0, &Shortest(self.htlc.amount.0));
        out.field(2, &self.htlc.hash);
        out.field(4, &self.htlc.expiry);
        out.field(6, &self.htlc.link);
        out.optional(8, self.remote_from.map(|number| Shortest(number.0)).as_ref());
        out.optional(10, self.remote_until.map(|number| Shortest(number.0)).as_ref());
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        let htlc = Htlc {
            amount: MilliSat(input.field::<Shortest>(0)?.0),
            hash: input.field(2)?,
            expiry: input.field(4)?,
            link: input.field(6)?,
        };
        let number = |number: Shortest| CommitmentNumber(number.0);
        let remote_from = input.optional(8)?.map(number);
        Ok(Self { htlc, remote_from, remote_until: input.optional(10)?.map(number) })
    }
}

/// An HTLC in a list: its identity, then its record with the length in front.
impl Field for (HtlcId, HtlcRecord) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        put_body(out, &self.1);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((HtlcId::take(input)?, take_body(input)?))
    }
}

impl Field for HtlcLink {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::OwnPayment => out.push(0),
            Self::ForwardOf { incoming, expiry, amount } => {
                out.push(1);
                incoming.put(out);
                expiry.put(out);
                amount.put(out);
            }
            Self::Final => out.push(2),
            Self::ForwardedTo { outgoing } => {
                out.push(3);
                outgoing.put(out);
            }
            Self::Uncommitted => out.push(4),
        }
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(input)? {
            0 => Self::OwnPayment,
            1 => Self::ForwardOf {
                incoming: HtlcRef::take(input)?,
                expiry: CltvExpiry::take(input)?,
                amount: MilliSat::take(input)?,
            },
            2 => Self::Final,
            3 => Self::ForwardedTo { outgoing: HtlcRef::take(input)? },
            4 => Self::Uncommitted,
            _ => return Err(DecodeError::Invalid("HTLC link")),
        })
    }
}
