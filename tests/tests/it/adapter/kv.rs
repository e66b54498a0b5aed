//! LDK's key-value traits over the arbiter's own environment.
use super::Failed;
use arb_core::ids::ChannelId;
use arb_core::ports::ByteStore;
use arb_node_adapter::facts::NAMESPACE;
use arb_node_adapter::{ForceClose, LdkStore, Mode, NoFence, OneByOne, Recorder, Taps};
use arb_store::{LmdbBytes, LmdbLog, StoreConfig};
use arb_tests::ldk::{Beside, Kind as Format, Records};
use lightning::io::ErrorKind;
use lightning::util::persist::{
    CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE as MONITORS,
    CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE as MONITORS_SECOND,
    KVSTORE_NAMESPACE_KEY_MAX_LEN, KVStore, KVStoreSync,
};
use lightning::util::ser::Writeable;
use std::sync::Arc;

fn opened(folder: &std::path::Path) -> Result<(LmdbLog, LdkStore<LmdbBytes>), Failed> {
    let config = StoreConfig { initial_map: 1 << 20, reserve: 1 << 20, ..StoreConfig::default() };
    let log = LmdbLog::open(folder, config)?;
    let store = LdkStore(log.bytes());
    Ok((log, store))
}

fn kind<T: std::fmt::Debug>(result: Result<T, lightning::io::Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn what_is_written_is_there_after_a_restart() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (log, store) = opened(folder.path())?;
    let sync: &dyn KVStoreSync = &store;
    assert_eq!(kind(sync.read("monitors", "", "a")), Some(ErrorKind::NotFound));
    sync.write("monitors", "", "a", vec![1])?;
    sync.write("monitors", "", "b", vec![2])?;
    sync.write("monitors", "b", "a", vec![3])?;
    sync.write("", "", "manager", vec![4])?;
    drop((log, store));
    let (log, store) = opened(folder.path())?;
    let sync: &dyn KVStoreSync = &store;
    assert_eq!(sync.read("monitors", "", "a")?, [1]);
    assert_eq!(sync.read("monitors", "b", "a")?, [3]);
    assert_eq!(sync.read("", "", "manager")?, [4]);
    assert_eq!(sync.list("monitors", "")?, ["a", "b"]);
    assert!(sync.list("monitors", "c")?.is_empty());
    sync.remove("monitors", "", "a", true)?;
    sync.remove("monitors", "", "a", false)?;
    assert_eq!(kind(sync.read("monitors", "", "a")), Some(ErrorKind::NotFound));
    assert_eq!(sync.list("monitors", "")?, ["b"]);
    // The arbiter's own records are in the same file, and in no folder of LDK's.
    assert!(log.bytes().get("monitors/", "b")?.is_none());
    Ok(())
}

#[test]
fn what_ldk_does_not_allow_is_refused() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (_log, store) = opened(folder.path())?;
    let sync: &dyn KVStoreSync = &store;
    let long = "x".repeat(KVSTORE_NAMESPACE_KEY_MAX_LEN + 1);
    let all =
        [("a", "b", ""), ("", "b", "c"), ("a/", "b", "c"), ("a", "b/", "c"), ("a", "b", &*long)];
    for (first, second, key) in all {
        let refused = Some(ErrorKind::InvalidInput);
        assert_eq!(kind(sync.write(first, second, key, vec![])), refused);
        assert_eq!(kind(sync.read(first, second, key)), refused);
        assert_eq!(kind(sync.remove(first, second, key, false)), refused);
    }
    let longest = "x".repeat(KVSTORE_NAMESPACE_KEY_MAX_LEN);
    sync.write(&longest, &longest, &longest, vec![5])?;
    assert_eq!(sync.list(&longest, &longest)?, [longest]);
    Ok(())
}

/// Futures that are polled in another order, or dropped, write in the order of the calls.
#[tokio::test]
async fn asynchronous_writes_keep_their_order() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (_log, store) = opened(folder.path())?;
    let first = KVStore::write(&store, "a", "b", "key", vec![1]);
    let second = KVStore::write(&store, "a", "b", "key", vec![2]);
    drop(KVStore::write(&store, "a", "b", "other", vec![3]));
    second.await?;
    first.await?;
    assert_eq!(KVStore::read(&store, "a", "b", "key").await?, [2]);
    assert_eq!(KVStore::read(&store, "a", "b", "other").await?, [3]);
    let removed = KVStore::remove(&store, "a", "b", "key", false);
    let written = KVStore::write(&store, "a", "b", "key", vec![4]);
    written.await?;
    removed.await?;
    assert_eq!(KVStore::read(&store, "a", "b", "key").await?, [4]);
    assert_eq!(KVStore::list(&store, "a", "b").await?, ["key", "other"]);
    Ok(())
}

/// LDK's monitor of the channel: its last update, and all of it.
fn monitor_of(world: &Beside) -> Result<(u64, Vec<u8>), Failed> {
    let monitor = world.net.nodes[0].monitors.get_monitor(world.link.id);
    let monitor = monitor.map_err(|()| "no monitor")?;
    Ok((monitor.get_latest_update_id(), monitor.encode()))
}

/// Two payments: how many updates of its monitor LDK had stored, how often the disk was waited for, and what the
/// monitor is then.
async fn paid(apart: bool) -> Result<(u64, u64, Vec<u8>), Failed> {
    let folder = tempfile::tempdir()?;
    let (log, store) = opened(folder.path())?;
    let (control, store) = (log.control(), Arc::new(store));
    let records: Records = if apart { Arc::new(OneByOne(store.clone())) } else { store.clone() };
    let mut world = Beside::storing(log, records, Format::Anchors, Mode::Observe).await?;
    let before = (control.statistics().commits, monitor_of(&world)?.0);
    for (payer, name) in [(0, "to"), (1, "fro")] {
        let payment = world.net.send(payer, &[world.link], 10_000_000, name)?;
        world.net.claim(&payment);
    }
    let commits = control.statistics().commits - before.0;
    let (last, monitor) = monitor_of(&world)?;
    let updates = last - before.1;
    let [name] = &KVStoreSync::list(&*store, MONITORS, MONITORS_SECOND)?[..] else {
        return Err("one channel".into());
    };
    assert_eq!(KVStoreSync::read(&*store, MONITORS, MONITORS_SECOND, name)?, monitor);
    world.arbiter.shutdown().await;
    Ok((updates, commits, monitor))
}

/// Where log and store are one, facts, the recorder's record and LDK's monitor are one commit, and the same is
/// written as one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_waits_for_one_commit() -> Result<(), Failed> {
    let (updates, together, monitor) = paid(false).await?;
    let (as_many, apart, same) = paid(true).await?;
    assert_eq!((updates, monitor.len()), (as_many, same.len()));
    // Two commits fewer for each; a commit that answers two calls now and then is allowed for.
    assert!(together + updates < apart, "{updates} updates, {together} and {apart} commits");
    Ok(())
}

/// A channel that had many HTLCs is forgotten in few commits: all channels wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_channel_is_handed_back_in_few_commits() -> Result<(), Failed> {
    const PAYMENTS: u64 = 40;
    let folder = tempfile::tempdir()?;
    let (log, store) = opened(folder.path())?;
    let (control, store) = (log.control(), Arc::new(store));
    let mut world = Beside::storing(log, store.clone(), Format::Anchors, Mode::Observe).await?;
    for n in 0..PAYMENTS {
        let payment = world.net.send(0, &[world.link], 1_000_000, &format!("payment {n}"))?;
        world.net.claim(&payment);
    }
    let hashes = format!("hashes_{}", arb_core::ids::ChannelId(world.link.id.0));
    let kept = || KVStoreSync::list(&*store, NAMESPACE, &hashes);
    assert_eq!(kept()?.len() as u64, PAYMENTS);
    let before = control.statistics().commits;
    world.hand_back()?;
    let commits = control.statistics().commits - before;
    assert_eq!(kept()?.len(), 0);
    assert!(commits < PAYMENTS / 4, "{commits} commits");
    world.arbiter.shutdown().await;
    Ok(())
}

/// Our commitment is published although the disk is full: that LDK is told before is written on the emergency space.
#[test]
fn ldk_is_told_to_close_on_a_full_disk() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let (log, store) = opened(folder.path())?;
    let store = Arc::new(store);
    let recorder = Recorder::open(Arc::new(Taps::new()), store.clone(), &[])?;
    log.control().set_quota(Some(0))?;
    assert!(KVStoreSync::write(&*store, "monitors", "", "a", vec![1]).is_err());
    recorder.fence(NoFence).force_close(ChannelId([7; 32]))?;
    assert_eq!(KVStoreSync::list(&*store, NAMESPACE, "told")?.len(), 1);
    Ok(())
}
