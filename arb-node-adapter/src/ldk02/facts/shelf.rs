//! The books of all channels, shared by the recorder that writes them and the signer that reads
//! them, and what of them is in the node's key-value store only.
use super::book::Book;
use super::bytes::Unreadable;
use super::taps::Stored;
use crate::ldk02::{KvWrite, WriteAll, lock};
use arb_core::facts::ChannelFacts;
use arb_core::ids::{ChannelId, PaymentHash};
use arb_core::log::{ByteRecord, Home};
use bitcoin::Txid;
use bitcoin::hashes::{Hash, ripemd160};
use core::future::Future;
use core::ops::Deref;
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::util::persist::{
    ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE as ARCHIVE,
    ARCHIVED_CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE as ARCHIVE_SECOND,
    CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE as MONITORS,
    CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE as MONITORS_SECOND, KVStoreSync, MonitorName,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

/// Namespace of the recorder's own records in the node's key-value store.
pub const NAMESPACE: &str = "arbiter";
/// Second namespace: one record a channel.
pub const CHANNELS: &str = "channels";

/// Second namespace: one record for each channel that was handed back to LDK.
pub const HANDED_BACK: &str = "handed_back";

/// Second namespace: one record for each channel that LDK is told to close since our commitment of it
/// is about to be published, written before either.
pub const TOLD: &str = "told";

/// Second namespace: one record for each transaction that LDK's monitors handed over to be published, with the height.
pub const HANDED_OVER: &str = "handed_over";

/// Second namespace: one record for each channel whose adoption has begun, until it is recorded.
const ADOPTED: &str = "adopted";

/// Books in memory and on disk.
#[derive(Debug)]
pub(in crate::ldk02) struct Shelf<K> {
    books: Mutex<BTreeMap<ChannelId, Book>>,
    handed_back: Mutex<BTreeSet<ChannelId>>,
    told: Mutex<BTreeSet<ChannelId>>,
    /// Channels whose adoption was begun and is not over.
    begun: Mutex<BTreeSet<ChannelId>>,
    /// Channels whose book cannot be read, and why.
    unreadable: BTreeMap<ChannelId, String>,
    store: K,
}

impl<K> Shelf<K> {
    /// A copy of one book.
    pub(super) fn book(&self, channel: &ChannelId) -> Option<Book> {
        lock(&self.books).get(channel).cloned()
    }

    /// Channels whose adoption was begun and is not over: the arbiter may watch them.
    pub(super) fn half_adopted(&self) -> Vec<ChannelId> {
        let (begun, books) = (lock(&self.begun), lock(&self.books));
        begun.iter().filter(|channel| !books.contains_key(*channel)).copied().collect()
    }

    /// Nothing is awaited and nothing written under this lock.
    pub(super) fn books(&self) -> MutexGuard<'_, BTreeMap<ChannelId, Book>> {
        lock(&self.books)
    }
}

impl<K> Shelf<K>
where
    K: Deref<Target: WriteAll>,
{
    /// The same as what a sink with this home writes with its facts, if they are kept together.
    pub(super) fn beside(
        &self,
        home: Option<Home>,
        records: Vec<KvWrite>,
    ) -> Result<Vec<ByteRecord>, Vec<KvWrite>> {
        match home {
            Some(home) => self.store.beside(home, records),
            None => Err(records),
        }
    }

    /// Writes records in order. They are asked for when it is called.
    pub(super) fn write_all(
        &self,
        records: Vec<KvWrite>,
    ) -> impl Future<Output = Result<(), String>> + Send + use<K> {
        let written = self.store.write_all(records);
        async move { written.await.map_err(|error| error.to_string()) }
    }

    /// LDK handed these over at these heights, and those long ago.
    pub(super) async fn put_handed_over(
        &self,
        new: &[(Txid, u32)],
        old: &[Txid],
    ) -> Result<(), String> {
        let write = |(txid, height): &(Txid, u32)| KvWrite {
            first: NAMESPACE.to_owned(),
            second: HANDED_OVER.to_owned(),
            key: txid.to_string(),
            bytes: height.to_be_bytes().to_vec(),
        };
        self.write_all(new.iter().map(write).collect()).await?;
        let old = old.iter().map(Txid::to_string).collect();
        let removed = self.store.remove_all(NAMESPACE, HANDED_OVER, old);
        removed.await.map_err(|error| error.to_string())
    }

    /// LDK is about to be told to close the channel. On a full disk too: nothing of ours is published before that.
    pub(in crate::ldk02) fn put_told(&self, channel: ChannelId) -> Result<(), String> {
        if !lock(&self.told).contains(&channel) {
            let write = KvWrite {
                first: NAMESPACE.to_owned(),
                second: TOLD.to_owned(),
                key: channel.to_string(),
                bytes: channel.0.to_vec(),
            };
            self.store.write_reserved(write).map_err(|error| error.to_string())?;
            lock(&self.told).insert(channel);
        }
        Ok(())
    }

    /// Forgets a channel, its book last. One that was busy has a record for each of its HTLCs: they are removed
    /// together, for all channels wait for it.
    pub(super) async fn remove(&self, channel: ChannelId) -> Result<(), String> {
        let hashes = hashes(channel);
        let old = self.store.list(NAMESPACE, &hashes).map_err(|error| error.to_string())?;
        let removed = self.store.remove_all(NAMESPACE, &hashes, old);
        removed.await.map_err(|error| error.to_string())?;
        let book = self.store.remove_all(NAMESPACE, CHANNELS, vec![channel.to_string()]);
        book.await.map_err(|error| error.to_string())?;
        lock(&self.books).remove(&channel);
        Ok(())
    }
}

impl<K> Shelf<K>
where
    K: Deref<Target: KVStoreSync>,
{
    pub(super) fn open(store: K) -> Result<Self, String> {
        let (mut books, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
        for key in store.list(NAMESPACE, CHANNELS).map_err(|error| error.to_string())? {
            let bytes = store.read(NAMESPACE, CHANNELS, &key).map_err(|error| error.to_string())?;
            match Book::decode(&bytes) {
                Ok(book) => {
                    books.insert(book.facts.id, book);
                }
                Err(Unreadable(why)) => {
                    let channel = channel_of(&key).ok_or_else(|| format!("{key} is no channel"))?;
                    unreadable.insert(channel, why.to_owned());
                }
            }
        }
        let handed_back = Mutex::new(channels(&*store, HANDED_BACK)?);
        let told = Mutex::new(channels(&*store, TOLD)?);
        let begun = store.list(NAMESPACE, ADOPTED).map_err(|error| error.to_string())?;
        let begun = Mutex::new(begun.iter().filter_map(|key| channel_of(key)).collect());
        Ok(Self { books: Mutex::new(books), handed_back, told, begun, unreadable, store })
    }

    /// Shows books that are written.
    pub(super) fn show(&self, books: Vec<(ChannelId, Book)>) {
        lock(&self.books).extend(books);
    }

    /// Writes a book, then shows it.
    pub(super) fn put(&self, channel: ChannelId, book: Book) -> Result<(), String> {
        self.store
            .write(NAMESPACE, CHANNELS, &channel.to_string(), book.encode())
            .map_err(|error| error.to_string())?;
        lock(&self.books).insert(channel, book);
        Ok(())
    }

    pub(super) fn put_handed_back(&self, channel: ChannelId) -> Result<(), String> {
        self.put_channel(HANDED_BACK, channel, &self.handed_back)
    }

    /// Whether LDK may have been told to close the channel, and our commitment be on its way.
    pub(super) fn was_told(&self, channel: &ChannelId) -> bool {
        lock(&self.told).contains(channel)
    }

    /// LDK's close is no news any more.
    pub(super) fn forget_told(&self, channel: ChannelId) -> Result<(), String> {
        self.remove_channel(TOLD, channel, &self.told)
    }

    /// Nobody has the channel any more.
    pub(super) fn forget_handed_back(&self, channel: ChannelId) -> Result<(), String> {
        self.forget_told(channel)?;
        self.remove_channel(HANDED_BACK, channel, &self.handed_back)
    }

    /// Channels that were handed back of which LDK has nothing any more: its manager does not list them, and no monitor is
    /// written here.
    pub(super) fn gone(&self, listed: &BTreeSet<ChannelId>) -> Result<Vec<ChannelId>, String> {
        let mut gone: Vec<ChannelId> =
            lock(&self.handed_back).difference(listed).copied().collect();
        if !gone.is_empty() {
            let all = self.store.list(MONITORS, MONITORS_SECOND);
            for name in all.map_err(|error| error.to_string())? {
                let of = channel_of(&name).or_else(|| names_channel(&name));
                gone.retain(|channel| Some(*channel) != of);
            }
        }
        Ok(gone)
    }

    fn remove_channel(
        &self,
        second: &str,
        channel: ChannelId,
        known: &Mutex<BTreeSet<ChannelId>>,
    ) -> Result<(), String> {
        if lock(known).contains(&channel) {
            self.store
                .remove(NAMESPACE, second, &channel.to_string(), false)
                .map_err(|error| error.to_string())?;
            lock(known).remove(&channel);
        }
        Ok(())
    }

    /// One record a channel, written once, and then remembered.
    fn put_channel(
        &self,
        second: &str,
        channel: ChannelId,
        known: &Mutex<BTreeSet<ChannelId>>,
    ) -> Result<(), String> {
        if !lock(known).contains(&channel) {
            self.store
                .write(NAMESPACE, second, &channel.to_string(), channel.0.to_vec())
                .map_err(|error| error.to_string())?;
            lock(known).insert(channel);
        }
        Ok(())
    }

    /// Channels that are LDK's alone, or are to be.
    pub(super) fn handed_back(&self) -> Vec<ChannelId> {
        let handed_back = lock(&self.handed_back);
        let all: BTreeSet<_> = handed_back.iter().chain(self.unreadable.keys()).copied().collect();
        all.into_iter().collect()
    }

    pub(super) const fn unreadable(&self) -> &BTreeMap<ChannelId, String> {
        &self.unreadable
    }

    /// What LDK handed over, and when. A record that is damaged is left out: the guard waits two blocks for LDK then, as
    /// without it.
    pub(super) fn handed_over(&self) -> Result<BTreeMap<Txid, u32>, String> {
        let list = self.store.list(NAMESPACE, HANDED_OVER).map_err(|error| error.to_string())?;
        let read = |key: String| {
            let bytes = self.store.read(NAMESPACE, HANDED_OVER, &key);
            let bytes = bytes.map_err(|error| error.to_string())?;
            let read = (key.parse().ok(), <[u8; 4]>::try_from(bytes).ok());
            Ok(read.0.zip(read.1.map(u32::from_be_bytes)))
        };
        list.into_iter().map(read).filter_map(Result::transpose).collect()
    }

    /// Remembers the height from which on a channel that is adopted is watched, unless one is remembered.
    /// It is what the arbiter may have been told before a crash.
    pub(super) fn put_birth(&self, channel: ChannelId, birth: u32) -> Result<u32, String> {
        let key = channel.to_string();
        lock(&self.begun).insert(channel);
        match self.store.read(NAMESPACE, ADOPTED, &key) {
            Ok(bytes) => match <[u8; 4]>::try_from(bytes) {
                Ok(birth) => Ok(u32::from_be_bytes(birth)),
                Err(_) => Err(format!("{key} has no birth")),
            },
            Err(error) if error.kind() == lightning::io::ErrorKind::NotFound => {
                let bytes = birth.to_be_bytes().to_vec();
                let written = self.store.write(NAMESPACE, ADOPTED, &key, bytes);
                written.map(|()| birth).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The channel is recorded: its adoption is over.
    pub(super) fn forget_birth(&self, channel: ChannelId) -> Result<(), String> {
        self.store
            .remove(NAMESPACE, ADOPTED, &channel.to_string(), true)
            .map_err(|error| error.to_string())?;
        lock(&self.begun).remove(&channel);
        Ok(())
    }

    /// Writes a monitor where LDK's own persisters do.
    pub(super) fn put_monitor(&self, monitor: &Stored) -> Result<(), String> {
        self.store
            .write(MONITORS, MONITORS_SECOND, &monitor.name, monitor.bytes.clone())
            .map_err(|error| error.to_string())
    }

    /// LDK's monitor of a channel, if it is written here.
    pub(super) fn monitor(&self, book: &Book) -> Result<Option<Vec<u8>>, String> {
        let funding = book.parameters.funding_outpoint;
        let first = funding.map(|funding| MonitorName::V1Channel(funding).to_string());
        let names = first.into_iter().chain([book.facts.id.to_string()]);
        for name in names {
            if let Some(bytes) = self.read_monitor(&name)? {
                return Ok(Some(bytes));
            }
        }
        // It was adopted after a splice: LDK's name for it has the first funding output.
        let all = self.store.list(MONITORS, MONITORS_SECOND).map_err(|error| error.to_string())?;
        match all.iter().find(|name| names_channel(name) == Some(book.facts.id)) {
            Some(name) => self.read_monitor(name),
            None => Ok(None),
        }
    }

    fn read_monitor(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        match self.store.read(MONITORS, MONITORS_SECOND, name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == lightning::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Puts a monitor away, as LDK's own persisters do.
    pub(super) fn archive_monitor(&self, name: &str) -> Result<(), String> {
        let monitor = match self.store.read(MONITORS, MONITORS_SECOND, name) {
            Ok(monitor) => monitor,
            Err(error) if error.kind() == lightning::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        self.store
            .write(ARCHIVE, ARCHIVE_SECOND, name, monitor)
            .and_then(|()| self.store.remove(MONITORS, MONITORS_SECOND, name, true))
            .map_err(|error| error.to_string())
    }

    /// Remembers the hash of an HTLC that left all commitments. A revoked commitment may still
    /// contain it; its script has the hash's RIPEMD-160 only, and LDK's signers want the hash.
    pub(super) fn put_hash(&self, channel: ChannelId, hash: PaymentHash) -> Result<(), String> {
        self.store
            .write(NAMESPACE, &hashes(channel), &hash_key(hash), hash.0.to_vec())
            .map_err(|error| error.to_string())
    }

    /// The payment hash of this RIPEMD-160, of an HTLC that the channel has or had.
    pub(super) fn payment_hash(
        &self,
        channel: ChannelId,
        facts: &ChannelFacts,
        digest: [u8; 20],
    ) -> Result<Option<PaymentHash>, String> {
        let same = |hash: &PaymentHash| ripemd160::Hash::hash(&hash.0).to_byte_array() == digest;
        let mut live = facts.htlcs.values().map(|record| record.htlc.hash);
        if let Some(found) = live.find(same) {
            return Ok(Some(found));
        }
        match self.store.read(NAMESPACE, &hashes(channel), &hex(&digest)) {
            Ok(bytes) => Ok(<[u8; 32]>::try_from(bytes).ok().map(PaymentHash).filter(same)),
            Err(error) if error.kind() == lightning::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The channel whose monitor LDK names so, by its first funding output.
fn names_channel(name: &str) -> Option<ChannelId> {
    let (txid, index) = name.split_once('_')?;
    let funding = LdkOutPoint { txid: txid.parse().ok()?, index: index.parse().ok()? };
    Some(ChannelId(LdkChannelId::v1_from_funding_outpoint(funding).0))
}

/// The channel that a book is named by.
fn channel_of(key: &str) -> Option<ChannelId> {
    let mut id = [0; 32];
    if key.len() != 64 || !key.is_ascii() {
        return None;
    }
    for (place, byte) in id.iter_mut().enumerate() {
        let at = place.checked_mul(2)?;
        *byte = u8::from_str_radix(key.get(at..at.checked_add(2)?)?, 16).ok()?;
    }
    Some(ChannelId(id))
}

/// Channels that have a record here.
fn channels<S>(store: &S, second: &str) -> Result<BTreeSet<ChannelId>, String>
where
    S: KVStoreSync + ?Sized,
{
    let keys = store.list(NAMESPACE, second).map_err(|error| error.to_string())?;
    let read = |key: String| {
        let bytes = store.read(NAMESPACE, second, &key).map_err(|error| error.to_string())?;
        let id = <[u8; 32]>::try_from(bytes).map_err(|_| format!("{key} is no channel"))?;
        Ok(ChannelId(id))
    };
    keys.into_iter().map(read).collect()
}

/// What these are written with: hashes of HTLCs that ended, books, a monitor.
pub(super) fn records(
    ended: &[(ChannelId, PaymentHash)],
    books: &[(ChannelId, Book)],
    monitor: Option<&Stored>,
) -> Vec<KvWrite> {
    let own = |second: String, key: String, bytes: Vec<u8>| KvWrite {
        first: NAMESPACE.to_owned(),
        second,
        key,
        bytes,
    };
    let ended = ended.iter().map(|(of, hash)| own(hashes(*of), hash_key(*hash), hash.0.to_vec()));
    let books =
        books.iter().map(|(of, book)| own(CHANNELS.to_owned(), of.to_string(), book.encode()));
    let monitor = monitor.map(|monitor| KvWrite {
        first: MONITORS.to_owned(),
        second: MONITORS_SECOND.to_owned(),
        key: monitor.name.clone(),
        bytes: monitor.bytes.clone(),
    });
    ended.chain(books).chain(monitor).collect()
}

/// Second namespace of a channel's hashes.
fn hashes(channel: ChannelId) -> String {
    format!("hashes_{channel}")
}

fn hash_key(hash: PaymentHash) -> String {
    hex(&ripemd160::Hash::hash(&hash.0).to_byte_array())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
