//! Engine-wide records: blocks that the cursor passed, and subscriptions.
use super::tlv::{Body, TlvReader, TlvWriter};
use super::{DecodeError, Record, decode_record, encode_record};
use crate::log::SubscriberState;
use crate::units::BlockRef;
use alloc::vec::Vec;

impl Record for BlockRef {
    const VERSION: u8 = 1;
    fn encode(&self) -> Vec<u8> {
        encode_record(Self::VERSION, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_record(Self::VERSION, bytes)
    }
}

impl Body for BlockRef {
    fn write(&self, out: &mut TlvWriter) {
        out.field(0, &self.height);
        out.field(2, &self.hash);
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { height: input.field(0)?, hash: input.field(2)? })
    }
}

impl Record for SubscriberState {
    const VERSION: u8 = 1;
    fn encode(&self) -> Vec<u8> {
        encode_record(Self::VERSION, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_record(Self::VERSION, bytes)
    }
}

impl Body for SubscriberState {
    fn write(&self, out: &mut TlvWriter) {
        out.field(0, &self.next);
        out.field(2, &self.acknowledged);
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { next: input.field(0)?, acknowledged: input.field(2)? })
    }
}
