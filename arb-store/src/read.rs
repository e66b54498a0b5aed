//! Reads. A record that cannot be understood is a value: the medium works, the channel is hurt.
use crate::StoreError;
use crate::layout::{
    Databases, Table, channel_id, damaged, decode, htlc_of, sequence_of, slot_key, slot_of,
};
use arb_core::arbitrator::Change;
use arb_core::facts::{ChannelFacts, HtlcRecord};
use arb_core::ids::{ChannelId, HtlcId, Slot};
use arb_core::log::{Damaged, StoredChannel, SubscriberState};
use arb_core::units::{BlockRef, CommitmentNumber};
use heed::RoTxn;

type Read<T> = Result<T, StoreError>;
type Facts = Result<Box<ChannelFacts>, Damaged>;

pub(crate) fn channels(tables: &Databases, txn: &RoTxn<'_>) -> Read<Vec<StoredChannel>> {
    let mut channels = Vec::new();
    for entry in tables.channels.iter(txn)? {
        let (key, value) = entry?;
        if let Some(slot) = slot_of(key) {
            channels.push(stored(tables, txn, slot, value)?);
        }
    }
    Ok(channels)
}

pub(crate) fn channel(
    tables: &Databases,
    txn: &RoTxn<'_>,
    slot: Slot,
) -> Read<Option<StoredChannel>> {
    let value = tables.channels.get(txn, &slot_key(slot))?;
    value.map(|value| stored(tables, txn, slot, value)).transpose()
}

fn stored(tables: &Databases, txn: &RoTxn<'_>, slot: Slot, value: &[u8]) -> Read<StoredChannel> {
    let key = slot_key(slot);
    let (id, sound) = channel_id(&key, value);
    let facts = read_facts(tables, txn, slot, id)?;
    let (subscribers, damage) = subscribers(tables, txn, slot)?;
    // With the id's checksum broken, the facts know the id better than the record does.
    let id = match (&sound, &facts_unchecked(tables, txn, slot)?) {
        (Err(_), Some(Ok(facts))) => facts.id,
        _ => id,
    };
    let facts = sound.and(damage.map_or(Ok(()), Err)).and(facts);
    let has_changes = tables.log.prefix_iter(txn, &key)?.next().transpose()?.is_some();
    Ok(StoredChannel { slot, id, facts, subscribers, has_changes })
}

type Subscribers = (Vec<(String, SubscriberState)>, Option<Damaged>);

/// The subscribers that can be read, and what is wrong with one that cannot.
fn subscribers(tables: &Databases, txn: &RoTxn<'_>, slot: Slot) -> Read<Subscribers> {
    let mut subscribers = Vec::new();
    let mut damage = None;
    for entry in tables.subs.prefix_iter(txn, &slot_key(slot))? {
        let (key, value) = entry?;
        let name = key.get(4..).and_then(|name| std::str::from_utf8(name).ok());
        match (name, decode(key, value)) {
            (Some(name), Ok(state)) => subscribers.push((name.to_owned(), state)),
            (_, Err(error)) => damage = Some(error),
            (None, Ok(_)) => damage = Some(damaged(key, "the name is no text")),
        }
    }
    Ok((subscribers, damage))
}

fn facts_unchecked(tables: &Databases, txn: &RoTxn<'_>, slot: Slot) -> Read<Option<Facts>> {
    let key = slot_key(slot);
    let value = tables.facts.get(txn, &key)?;
    Ok(value.map(|value| decode::<ChannelFacts>(&key, value).map(Box::new)))
}

/// The facts of a channel, which must be those of the channel that the slot belongs to.
fn read_facts(tables: &Databases, txn: &RoTxn<'_>, slot: Slot, id: ChannelId) -> Read<Facts> {
    let key = slot_key(slot);
    let Some(facts) = facts_unchecked(tables, txn, slot)? else {
        return Ok(Err(damaged(&key, "the facts are missing")));
    };
    Ok(facts.and_then(|facts| {
        if facts.id == id { Ok(facts) } else { Err(damaged(&key, "facts of another channel")) }
    }))
}

pub(crate) fn facts(tables: &Databases, txn: &RoTxn<'_>, slot: Slot) -> Read<Option<Facts>> {
    let key = slot_key(slot);
    let Some(value) = tables.channels.get(txn, &key)? else { return Ok(None) };
    let (id, sound) = channel_id(&key, value);
    let facts = read_facts(tables, txn, slot, id)?;
    Ok(Some(sound.and(facts)))
}

pub(crate) fn changes(
    tables: &Databases,
    txn: &RoTxn<'_>,
    slot: Slot,
) -> Read<Result<Vec<Change>, Damaged>> {
    let mut changes = Vec::new();
    for entry in records(tables, tables.log, txn, slot)? {
        let (key, value) = entry?;
        if sequence_of(key) != Some(changes.len() as u64) {
            return Ok(Err(damaged(key, "a change is missing in front of it")));
        }
        match decode(key, value) {
            Ok(change) => changes.push(change),
            Err(damage) => return Ok(Err(damage)),
        }
    }
    Ok(Ok(changes))
}

#[allow(clippy::type_complexity, reason = "as in the trait")]
pub(crate) fn ended_htlcs(
    tables: &Databases,
    txn: &RoTxn<'_>,
    slot: Slot,
    number: CommitmentNumber,
) -> Read<Result<Vec<(HtlcId, HtlcRecord)>, Damaged>> {
    let mut live = Vec::new();
    for entry in records(tables, tables.penalty, txn, slot)? {
        let (key, value) = entry?;
        let Some(id) = htlc_of(key) else { return Ok(Err(damaged(key, "no HTLC"))) };
        match decode::<HtlcRecord>(key, value) {
            Ok(record) if record.in_remote(number) => live.push((id, record)),
            Ok(_) => {}
            Err(damage) => return Ok(Err(damage)),
        }
    }
    Ok(Ok(live))
}

pub(crate) fn blocks(tables: &Databases, txn: &RoTxn<'_>) -> Read<Vec<BlockRef>> {
    let mut blocks: Vec<BlockRef> = Vec::new();
    for entry in tables.chain.iter(txn)? {
        let (key, value) = entry?;
        // Below a block that cannot be read nothing is known to be on the same chain.
        match decode(key, value) {
            Ok(block) => blocks.push(block),
            Err(_) => blocks.clear(),
        }
    }
    Ok(blocks)
}

type Entries<'txn> = Box<dyn Iterator<Item = heed::Result<(&'txn [u8], &'txn [u8])>> + 'txn>;

/// Records of a slot; none if the channel was forgotten and they are being deleted.
fn records<'txn>(
    tables: &Databases,
    table: Table,
    txn: &'txn RoTxn<'_>,
    slot: Slot,
) -> Read<Entries<'txn>> {
    if tables.channels.get(txn, &slot_key(slot))?.is_none() {
        return Ok(Box::new(std::iter::empty()));
    }
    Ok(Box::new(table.prefix_iter(txn, &slot_key(slot))?))
}
