//! Reads. A record that cannot be understood is a value: the medium works, the channel is hurt.
use crate::StoreError;
use crate::layout::{
    ALL_CHANNELS, Databases, Table, damaged, decode, id_in_damaged_entry, log_key, sequence_of,
    slot_key, slot_of, unseal,
};
use crate::penalty;
use arb_core::arbitrator::Change;
use arb_core::facts::{ChannelEntry, ChannelFacts, HtlcRecord};
use arb_core::ids::{ChannelId, HtlcId, Slot};
use arb_core::log::{Damaged, StoredChannel, SubscriberState};
use arb_core::units::{BlockRef, CommitmentNumber};
use heed::RoTxn;
use std::collections::BTreeMap;

type Read<T> = Result<T, StoreError>;
type Facts = Result<Box<ChannelFacts>, Damaged>;

/// Hands every channel over, in one pass over the index, with its subscribers, whether it has changes
/// and whether it is set aside: all four tables are ordered by slot.
pub(crate) fn channels(
    tables: &Databases,
    txn: &RoTxn<'_>,
    each: &mut dyn FnMut(StoredChannel),
) -> Read<()> {
    let mut subscriptions = tables.subs.iter(txn)?.peekable();
    let mut set_aside = tables.aside.iter(txn)?.peekable();
    let mut logged = Logged::default();
    for entry in tables.channels.iter(txn)? {
        let (key, value) = entry?;
        let Some(slot) = slot_of(key) else { continue };
        let mut of = Subscribers::default();
        while let Some(next) = subscriptions.next_if(|next| is_up_to(next, slot)) {
            let (key, value) = next?;
            if slot_of(key) == Some(slot) {
                of.add(key, value);
            }
        }
        let has_changes = logged.has(tables, txn, slot)?;
        let mut aside = false;
        while let Some(next) = set_aside.next_if(|next| is_up_to(next, slot)) {
            aside |= slot_of(next?.0) == Some(slot);
        }
        each(stored(tables, txn, (slot, value), of, Told { has_changes, aside })?);
    }
    Ok(())
}

/// One channel, as [`channels`] gives it.
pub(crate) fn channel(
    tables: &Databases,
    txn: &RoTxn<'_>,
    slot: Slot,
) -> Read<Option<StoredChannel>> {
    let key = slot_key(slot);
    let Some(value) = tables.channels.get(txn, &key)? else { return Ok(None) };
    let mut of = Subscribers::default();
    for entry in tables.subs.prefix_iter(txn, &key)? {
        let (key, value) = entry?;
        of.add(key, value);
    }
    let has_changes = Logged::default().has(tables, txn, slot)?;
    let aside = tables.aside.get(txn, &key)?.is_some();
    stored(tables, txn, (slot, value), of, Told { has_changes, aside }).map(Some)
}

/// What tables say of a channel beside its entry and its subscribers.
struct Told {
    has_changes: bool,
    aside: bool,
}

/// A channel as its entry, its subscribers and the other tables tell it.
fn stored(
    tables: &Databases,
    txn: &RoTxn<'_>,
    (slot, value): (Slot, &[u8]),
    of: Subscribers,
    Told { has_changes, aside }: Told,
) -> Read<StoredChannel> {
    let key = slot_key(slot);
    let entry = decode::<ChannelEntry>(&key, value);
    let id = match &entry {
        Ok(entry) => entry.id,
        Err(_) => owner(tables, txn, &key, value)?,
    };
    Ok(StoredChannel { slot, id, entry, subscribers: of.known, has_changes, aside })
}

/// Whether an entry belongs to `slot` or one before it; a failure is taken, too, to be reported.
fn is_up_to(entry: &heed::Result<(&[u8], &[u8])>, slot: Slot) -> bool {
    entry.as_ref().map_or(true, |(key, _)| slot_of(key).is_none_or(|of| of <= slot))
}

/// The slots that have changes, asked for in ascending order.
#[derive(Default)]
struct Logged {
    /// The first slot with changes at or above the one asked for last.
    next: Option<Slot>,
    begun: bool,
}

impl Logged {
    fn has(&mut self, tables: &Databases, txn: &RoTxn<'_>, slot: Slot) -> Read<bool> {
        let behind = self.next.is_some_and(|next| next < slot);
        if behind || !self.begun {
            self.begun = true;
            let found = tables.log.get_greater_than_or_equal_to(txn, &log_key(slot, 0))?;
            self.next = found.and_then(|(key, _)| slot_of(key));
        }
        Ok(self.next == Some(slot))
    }
}

/// The subscribers of a channel.
#[derive(Default)]
struct Subscribers {
    known: Vec<(String, SubscriberState)>,
}

impl Subscribers {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let name = key.get(4..).and_then(|name| std::str::from_utf8(name).ok());
        // What it has had is not known any more: it gets all again, and is waited for. One without a name cannot
        // be asked for by anybody.
        let again = SubscriberState { next: 0, acknowledged: true };
        if let Some(name) = name {
            self.known.push((name.to_owned(), decode(key, value).unwrap_or(again)));
        }
    }
}

/// Subscriptions to all channels. One whose record cannot be read is held for.
pub(crate) fn subscribers_to_all(tables: &Databases, txn: &RoTxn<'_>) -> Read<Vec<(String, bool)>> {
    let mut all = Vec::new();
    for entry in tables.subs.prefix_iter(txn, &slot_key(ALL_CHANNELS))? {
        let (key, value) = entry?;
        let Some(name) = key.get(4..).and_then(|name| std::str::from_utf8(name).ok()) else {
            continue;
        };
        let acknowledged = decode(key, value).map_or(true, |s: SubscriberState| s.acknowledged);
        all.push((name.to_owned(), acknowledged));
    }
    Ok(all)
}

/// The channel that a slot belongs to. If its entry is damaged, its facts know it better.
pub(crate) fn owner(
    tables: &Databases,
    txn: &RoTxn<'_>,
    key: &[u8],
    value: &[u8],
) -> Read<ChannelId> {
    if let Ok(entry) = decode::<ChannelEntry>(key, value) {
        return Ok(entry.id);
    }
    let facts = tables.facts.get(txn, key)?.map(|facts| decode::<ChannelFacts>(key, facts));
    Ok(match facts {
        Some(Ok(facts)) => facts.id,
        Some(Err(_)) | None => id_in_damaged_entry(value),
    })
}

/// The facts of a channel, which must be those of the channel that the slot belongs to.
pub(crate) fn facts(tables: &Databases, txn: &RoTxn<'_>, slot: Slot) -> Read<Option<Facts>> {
    let key = slot_key(slot);
    let Some(value) = tables.channels.get(txn, &key)? else { return Ok(None) };
    let entry = decode::<ChannelEntry>(&key, value);
    let Some(value) = tables.facts.get(txn, &key)? else {
        return Ok(Some(Err(damaged(&key, "the facts are missing"))));
    };
    let facts = decode::<ChannelFacts>(&key, value);
    Ok(Some(match (entry, facts) {
        (Ok(entry), Ok(facts)) if entry == ChannelEntry::of(&facts) => Ok(Box::new(facts)),
        (Ok(_), Ok(_)) => Err(damaged(&key, "the index says something else than the facts")),
        (Err(damage), _) | (_, Err(damage)) => Err(damage),
    }))
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
    let mut live = BTreeMap::new();
    for entry in records(tables, tables.penalty, txn, slot)? {
        let (key, value) = entry?;
        let mut each = |id, record: HtlcRecord| {
            // What was told of an HTLC last counts.
            if record.in_remote(number) {
                live.insert(id, record);
            } else {
                live.remove(&id);
            }
        };
        let read = unseal(key, value).and_then(|bytes| penalty::each(key, bytes, &mut each));
        if let Err(damage) = read {
            return Ok(Err(damage));
        }
    }
    Ok(Ok(live.into_iter().collect()))
}

pub(crate) fn blocks(tables: &Databases, txn: &RoTxn<'_>) -> Read<Vec<BlockRef>> {
    let (mut blocks, mut below): (Vec<BlockRef>, Vec<BlockRef>) = (Vec::new(), Vec::new());
    for entry in tables.chain.iter(txn)? {
        let (key, value) = entry?;
        match decode(key, value) {
            Ok(block) => blocks.push(block),
            // A gap: those above it count, if there are any.
            Err(_) if blocks.is_empty() => {}
            Err(_) => below = std::mem::take(&mut blocks),
        }
    }
    Ok(if blocks.is_empty() { below } else { blocks })
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
