//! The bytes of a [`Book`].
use super::book::{Book, Terms};
use super::bytes::{Bytes, Unreadable};
use super::update::SourceKey;
use arb_core::codec::Record;
use arb_core::facts::ChannelFacts;
use arb_core::ids::PaymentHash;
use arb_core::units::{BlockHeight, CltvExpiry, MilliSat};
use lightning::ln::chan_utils::ChannelTransactionParameters;
use lightning::util::ser::{BigSize, ReadableArgs, Writeable};
use std::collections::BTreeMap;

const VERSION: u8 = 2;
/// Without splices.
const UNSPLICED: u8 = 1;

impl Book {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let facts = self.facts.encode();
        put_size(&mut out, facts.len());
        out.extend(facts);
        out.extend(self.keys);
        out.extend(self.parameters.encode());
        out.extend(self.applied.encode());
        out.extend(self.digest);
        out.extend(self.next_offered.encode());
        put_size(&mut out, self.offered.len());
        for (source, id) in &self.offered {
            match source {
                SourceKey::Forward { alias, id } => {
                    out.push(0);
                    out.extend(alias.encode());
                    out.extend(id.encode());
                }
                SourceKey::Own(digest) => {
                    out.push(1);
                    out.extend(digest);
                }
            }
            out.extend(id.encode());
        }
        put_terms(&mut out, &self.announced);
        put_size(&mut out, self.opened.len());
        out.extend(self.opened.iter().flat_map(Writeable::encode));
        put_terms(&mut out, &self.left);
        put_size(&mut out, self.splices.len());
        out.extend(self.splices.iter().flat_map(Writeable::encode));
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut all = Bytes(bytes);
        let version = all.value::<u8>()?;
        if ![UNSPLICED, VERSION].contains(&version) {
            return Err(Unreadable("the record has another version"));
        }
        let facts = ChannelFacts::decode(all.prefixed()?.0)
            .map_err(|_| Unreadable("the facts cannot be read"))?;
        let keys = all.value()?;
        let parameters = parameters(&mut all)?;
        let applied = all.value()?;
        let digest = all.value()?;
        let next_offered = all.value()?;
        let mut offered = BTreeMap::new();
        for _ in 0..all.big_size()? {
            let source = match all.value::<u8>()? {
                0 => SourceKey::Forward { alias: all.value()?, id: all.value()? },
                1 => SourceKey::Own(all.value()?),
                _ => return Err(Unreadable("a source is of no known kind")),
            };
            offered.insert(source, all.value()?);
        }
        let announced = terms(&mut all)?;
        let mut opened = std::collections::BTreeSet::new();
        for _ in 0..all.big_size()? {
            opened.insert(all.value()?);
        }
        let left = terms(&mut all)?;
        let mut splices = Vec::new();
        if version != UNSPLICED {
            for _ in 0..all.big_size()? {
                splices.push(self::parameters(&mut all)?);
            }
        }
        all.end()?;
        Ok(Self {
            facts,
            keys,
            parameters,
            splices,
            applied,
            digest,
            offered,
            next_offered,
            announced,
            opened,
            left,
        })
    }
}

fn parameters(all: &mut Bytes<'_>) -> Result<ChannelTransactionParameters, Unreadable> {
    ChannelTransactionParameters::read(&mut all.0, None)
        .map_err(|_| Unreadable("the channel's parameters cannot be read"))
}

fn put_size(out: &mut Vec<u8>, size: usize) {
    // A length in memory fits into 64 bits on every machine.
    out.extend(BigSize(u64::try_from(size).unwrap_or(u64::MAX)).encode());
}

fn put_terms(out: &mut Vec<u8>, all: &BTreeMap<u64, Terms>) {
    put_size(out, all.len());
    for (id, terms) in all {
        out.extend(id.encode());
        out.extend(terms.amount.0.encode());
        out.extend(terms.expiry.0.0.encode());
        out.extend(terms.hash.0);
    }
}

fn terms(all: &mut Bytes<'_>) -> Result<BTreeMap<u64, Terms>, Unreadable> {
    let mut found = BTreeMap::new();
    for _ in 0..all.big_size()? {
        let id = all.value()?;
        let amount = MilliSat(all.value()?);
        let expiry = CltvExpiry(BlockHeight(all.value()?));
        found.insert(id, Terms { amount, expiry, hash: PaymentHash(all.value()?) });
    }
    Ok(found)
}
