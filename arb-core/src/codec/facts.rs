//! `ChannelFacts`, whole. Grows with the live HTLCs only: ended ones are penalty records.
use super::tlv::{Body, Field, Reader, TlvReader, TlvWriter, put_body, take_body};
use super::{DecodeError, Record, decode_record, encode_record};
use crate::facts::secrets::SecretIndex;
use crate::facts::{
    Candidates, ChannelEntry, ChannelFacts, ChannelKeys, ChannelNames, FundingCandidate,
    FundingKeys, HtlcRecord, LocalCommitment, Party, RemoteCommitment, SecretStore,
    ShutdownScripts,
};
use crate::format::CommitmentFormat;
use crate::ids::{HtlcId, PerCommitmentSecret};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

impl Record for ChannelFacts {
    const VERSION: u8 = 1;
    fn encode(&self) -> Vec<u8> {
        encode_record(Self::VERSION, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_record(Self::VERSION, bytes)
    }
}

impl Body for ChannelFacts {
    const USUAL: usize = 1 << 11;
    fn write(&self, out: &mut TlvWriter) {
        let htlcs: Vec<_> = self.htlcs.iter().map(|(id, record)| (*id, *record)).collect();
        let secrets: Vec<_> =
            self.secrets.slots().map(|(index, secret)| (index.to_u64(), secret)).collect();
        out.field(0, &self.id);
        out.field(2, &self.opener);
        out.body(4, &self.local);
        out.body(6, &self.remote);
        out.body(8, &self.candidates.current);
        out.list(10, &self.candidates.others);
        out.list(12, &htlcs);
        out.list(14, &secrets);
        out.optional(16, self.shutdown.local.as_ref());
        out.optional(18, self.shutdown.remote.as_ref());
        out.field(20, &self.destination);
        out.field(22, &self.birth);
        out.list(24, &self.candidates.former);
        out.optional(26, self.names.short_channel_id.as_ref());
        out.list(28, &self.names.aliases);
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        let mut facts = Self {
            id: input.field(0)?,
            opener: input.field(2)?,
            local: input.body(4)?,
            remote: input.body(6)?,
            candidates: Candidates {
                current: input.body(8)?,
                others: input.list(10)?,
                former: Vec::new(),
            },
            htlcs: htlc_map(input.list(12)?)?,
            secrets: secret_store(input.list(14)?)?,
            shutdown: ShutdownScripts { local: input.optional(16)?, remote: input.optional(18)? },
            destination: input.field(20)?,
            birth: input.field(22)?,
            names: ChannelNames::default(),
        };
        facts.candidates.former = input.list(24)?;
        facts.names.short_channel_id = input.optional(26)?;
        facts.names.aliases = input.list(28)?;
        Ok(facts)
    }
}

impl Record for ChannelEntry {
    const VERSION: u8 = 1;
    fn encode(&self) -> Vec<u8> {
        encode_record(Self::VERSION, self)
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_record(Self::VERSION, bytes)
    }
}

impl Body for ChannelEntry {
    fn write(&self, out: &mut TlvWriter) {
        out.field(0, &self.id);
        out.field(2, &self.funding);
        out.list(4, &self.others);
        out.field(6, &self.local);
        out.field(8, &self.remote);
        out.optional(12, self.offered.as_ref());
        out.optional(14, self.incoming.as_ref());
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: input.field(0)?,
            funding: input.field(2)?,
            others: input.list(4)?,
            local: input.field(6)?,
            remote: input.field(8)?,
            offered: input.optional(12)?,
            incoming: input.optional(14)?,
        })
    }
}

/// HTLCs are listed in ascending order of their identities, each once.
fn htlc_map(list: Vec<(HtlcId, HtlcRecord)>) -> Result<BTreeMap<HtlcId, HtlcRecord>, DecodeError> {
    if !list.is_sorted_by(|(one, _), (next, _)| one < next) {
        return Err(DecodeError::Invalid("list of HTLCs"));
    }
    Ok(list.into_iter().collect())
}

fn secret_store(slots: Vec<(u64, PerCommitmentSecret)>) -> Result<SecretStore, DecodeError> {
    let invalid = DecodeError::Invalid("list of secrets");
    let indexed = |(index, secret)| SecretIndex::new(index).map(|index| (index, secret));
    let slots: Option<Vec<_>> = slots.into_iter().map(indexed).collect();
    SecretStore::from_slots(slots.ok_or(invalid)?).map_err(|_| invalid)
}

impl Field for (u64, PerCommitmentSecret) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((u64::take(input)?, PerCommitmentSecret::take(input)?))
    }
}

impl Body for Party {
    fn write(&self, out: &mut TlvWriter) {
        out.field(2, &self.keys.revocation);
        out.field(4, &self.keys.payment);
        out.field(6, &self.keys.delayed_payment);
        out.field(8, &self.keys.htlc);
        out.field(10, &self.delay);
        out.field(12, &self.dust_limit);
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        let keys = ChannelKeys {
            revocation: input.field(2)?,
            payment: input.field(4)?,
            delayed_payment: input.field(6)?,
            htlc: input.field(8)?,
        };
        Ok(Self { keys, delay: input.field(10)?, dust_limit: input.field(12)? })
    }
}

impl Body for FundingCandidate {
    fn write(&self, out: &mut TlvWriter) {
        out.field(0, &self.funding);
        out.field(2, &self.capacity);
        out.field(4, &self.format);
        out.body(6, &self.local);
        out.body(8, &self.remote);
        if let Some(next) = &self.remote_next {
            out.body(10, next);
        }
        out.field(12, &self.keys.local);
        out.field(14, &self.keys.remote);
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            funding: input.field(0)?,
            capacity: input.field(2)?,
            format: input.field(4)?,
            local: input.body(6)?,
            remote: input.body(8)?,
            remote_next: input.optional_body(10)?,
            keys: FundingKeys { local: input.field(12)?, remote: input.field(14)? },
        })
    }
}

impl Field for FundingCandidate {
    fn put(&self, out: &mut Vec<u8>) {
        put_body(out, self);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        take_body(input)
    }
}

impl Body for LocalCommitment {
    fn write(&self, out: &mut TlvWriter) {
        out.field(0, &self.number);
        out.field(2, &self.point);
        out.field(4, &self.feerate);
        out.field(6, &self.local_balance);
        out.field(8, &self.remote_balance);
        out.list(10, &self.htlcs);
        out.field(12, &self.signature);
        out.list(14, &self.htlc_signatures);
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            number: input.field(0)?,
            point: input.field(2)?,
            feerate: input.field(4)?,
            local_balance: input.field(6)?,
            remote_balance: input.field(8)?,
            htlcs: input.list(10)?,
            signature: input.field(12)?,
            htlc_signatures: input.list(14)?,
        })
    }
}

impl Body for RemoteCommitment {
    fn write(&self, out: &mut TlvWriter) {
        out.field(0, &self.number);
        out.field(2, &self.point);
        out.field(4, &self.feerate);
        out.field(6, &self.local_balance);
        out.field(8, &self.remote_balance);
        out.list(10, &self.htlcs);
    }
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            number: input.field(0)?,
            point: input.field(2)?,
            feerate: input.field(4)?,
            local_balance: input.field(6)?,
            remote_balance: input.field(8)?,
            htlcs: input.list(10)?,
        })
    }
}

impl Field for CommitmentFormat {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::StaticRemotekey => 0,
            Self::Anchors => 1,
            Self::ZeroFee => 2,
        });
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::take(input)? {
            0 => Ok(Self::StaticRemotekey),
            1 => Ok(Self::Anchors),
            2 => Ok(Self::ZeroFee),
            _ => Err(DecodeError::Invalid("commitment format")),
        }
    }
}
