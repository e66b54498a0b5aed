//! Fields: numbers, hashes, keys, signatures, scripts. Numbers are big-endian.
use super::DecodeError;
use super::tlv::{Field, Reader};
use crate::ids::{
    ChannelId, HtlcId, HtlcRef, PaymentHash, PerCommitmentSecret, Preimage, ShortChannelId, Side,
};
use crate::units::{
    BlockDelta, BlockHeight, BlockRef, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat,
};
use alloc::string::String;
use alloc::vec::Vec;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Txid};

impl Field for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.array().map(|[byte]| byte)
    }
}

impl Field for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.array().map(Self::from_be_bytes)
    }
}

impl Field for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.array().map(Self::from_be_bytes)
    }
}

/// A number in as few bytes as it takes (`tu64` of BOLT 1). It takes all the bytes that are left.
pub(super) struct Shortest(pub(super) u64);

impl Field for Shortest {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.0.to_be_bytes().iter().skip_while(|byte| **byte == 0));
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = input.rest();
        if bytes.first() == Some(&0) {
            return Err(DecodeError::NotMinimal);
        }
        if bytes.len() > size_of::<u64>() {
            return Err(DecodeError::TrailingBytes);
        }
        Ok(Self(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))))
    }
}

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("truth value")),
        }
    }
}

/// A field that is another one, under another type.
macro_rules! field_as {
    ($($type:ty as $inner:ty: $get:expr, $make:expr;)*) => {$(
        impl Field for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let get: fn(&$type) -> $inner = $get;
                get(self).put(out);
            }
            #[inline]
            fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
                <$inner>::take(input).map($make)
            }
        }
    )*};
}

field_as! {
    BlockHeight as u32: |height| height.0, BlockHeight;
    BlockDelta as u32: |delta| delta.0, BlockDelta;
    FeeratePerKw as u32: |feerate| feerate.0, FeeratePerKw;
    CltvExpiry as BlockHeight: |expiry| expiry.0, CltvExpiry;
    MilliSat as u64: |amount| amount.0, MilliSat;
    CommitmentNumber as u64: |number| number.0, CommitmentNumber;
    Amount as u64: |amount| amount.to_sat(), Amount::from_sat;
    ChannelId as [u8; 32]: |id| id.0, ChannelId;
    ShortChannelId as u64: |id| id.0, ShortChannelId;
    PaymentHash as [u8; 32]: |hash| hash.0, PaymentHash;
    Preimage as [u8; 32]: |preimage| preimage.0, Preimage;
    PerCommitmentSecret as [u8; 32]: |secret| secret.0, PerCommitmentSecret;
    Txid as [u8; 32]: |txid| txid.to_byte_array(), Txid::from_byte_array;
    BlockHash as [u8; 32]: |hash| hash.to_byte_array(), BlockHash::from_byte_array;
}

impl Field for [u8; 32] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        input.array()
    }
}

impl Field for Side {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Local => 0,
            Self::Remote => 1,
        });
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::take(input)? {
            0 => Ok(Self::Local),
            1 => Ok(Self::Remote),
            _ => Err(DecodeError::Invalid("side")),
        }
    }
}

impl Field for HtlcId {
    fn put(&self, out: &mut Vec<u8>) {
        self.offerer.put(out);
        self.id.put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { offerer: Side::take(input)?, id: u64::take(input)? })
    }
}

impl Field for HtlcRef {
    fn put(&self, out: &mut Vec<u8>) {
        self.channel.put(out);
        self.htlc.put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { channel: ChannelId::take(input)?, htlc: HtlcId::take(input)? })
    }
}

impl Field for BlockRef {
    fn put(&self, out: &mut Vec<u8>) {
        self.height.put(out);
        self.hash.put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { height: BlockHeight::take(input)?, hash: BlockHash::take(input)? })
    }
}

impl Field for OutPoint {
    fn put(&self, out: &mut Vec<u8>) {
        self.txid.put(out);
        self.vout.put(out);
    }
    #[inline]
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { txid: Txid::take(input)?, vout: u32::take(input)? })
    }
}

impl Field for PublicKey {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.serialize());
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_slice(&input.array::<33>()?).map_err(|_| DecodeError::Invalid("public key"))
    }
}

impl Field for ecdsa::Signature {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.serialize_compact());
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_compact(&input.array::<64>()?).map_err(|_| DecodeError::Invalid("signature"))
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_utf8(input.rest().to_vec()).map_err(|_| DecodeError::Invalid("text"))
    }
}

impl Field for ScriptBuf {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(input.rest().to_vec()))
    }
}
