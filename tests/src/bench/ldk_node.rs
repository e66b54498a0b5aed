//! `ldk`: what an arbiter beside an LDK node costs. A block with so many channels: LDK's
//! `ChainMonitor` alone, and with an arbiter that observes or owns, its store on this disk; and what
//! either keeps and writes of a payment.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arb_node_adapter::{LdkStore, Mode};
use arb_store::{LmdbLog, StoreConfig};
use bitcoin::Block;
use indicatif::ProgressBar;
use lightning::util::persist::KVStoreSync;
use lightning::util::ser::Writeable;

use super::ldk::{Model, Monitors};
use super::measure::{Pairs, interleaved, median, timed};
use super::report::{Goal, Row, Unit};
use super::storm::{folder, runtime};
use super::update::occupied;
use super::whole::Whole;
use super::{BenchError, synthetic};
use crate::ldk::{Beside, Failed, Kind};

const SEED: u64 = 37;
const PAIRS: usize = 31;
const CHANNELS: [u32; 3] = [10, 100, MOST];
const MOST: u32 = 1_000;
/// With many channels LDK's work is most of it.
const GOAL: Goal = Goal::Below(1.5);

const UPDATED: u32 = 300;
/// An update is one commit with the arbiter as without it; what is verified and built comes on top.
const ONE_COMMIT_MORE: Goal = Goal::Below(3.0);

/// By how much longer LDK may wait for the disk: one group commit.
const ONE_GROUP_COMMIT: Goal = Goal::Below(1.0);

const PAYMENTS_BEFORE: u32 = 200;
const PAYMENTS: u32 = 2_000;
const AMOUNT_MSAT: u64 = 10_000_000;
pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    let model = Model::open_channel()?;
    for count in CHANNELS {
        for (mode, what) in [(Mode::Observe, "Observe"), (Mode::Own, "Own")] {
            progress.set_message(format!("ldk: {count} channels, {what}"));
            let folder = folder()?;
            let mut beside = OnBlocks::new(folder.path(), &model, count, mode)?;
            let mut alone = model.load(count)?;
            let quiet = synthetic::block(SEED, &[])?;
            let measured = interleaved(PAIRS, &mut || beside.connect(), &mut || {
                Ok(timed(|| alone.connect(&quiet)).0)
            })?;
            let name = format!("ldk: block, {count} channels, beside it in {what} / LDK alone");
            rows.push(Row::of(name, measured, (count == MOST).then_some(GOAL)));
            beside.whole.stop();
        }
    }
    progress.set_message("ldk: updates");
    rows.extend(update_rows()?);
    progress.set_message("ldk: payments");
    rows.extend(payment_rows()?);
    Ok(rows)
}

/// Monitors of LDK's and an arbiter, shown the same blocks.
struct OnBlocks {
    whole: Whole,
    monitors: Monitors,
    block: Block,
}

impl OnBlocks {
    fn new(folder: &Path, model: &Model, count: u32, mode: Mode) -> Result<Self, BenchError> {
        let whole = Whole::new(folder, count)?;
        let monitors = model.load(count)?;
        monitors.egress.set(mode);
        Ok(Self { whole, monitors, block: synthetic::block(SEED, &[])? })
    }

    /// From a block's delivery until LDK is done with it and the arbiter has it durable.
    fn connect(&mut self) -> Result<Duration, BenchError> {
        let Self { whole, monitors, block } = self;
        whole.connect(block, |block| monitors.connect(block))
    }
}

/// Who pays: each node in turn, so that neither ever has nothing left.
const fn payer(at: u32) -> usize {
    (at % 2) as usize
}

/// How long LDK waits for an update, behind the gate and with the monitor alone, on one disk; and by how
/// much of that it waits for the disk, what it waits for with logs and records in memory left out.
fn update_rows() -> Result<Vec<Row>, BenchError> {
    let failed = |error: Failed| BenchError::Ldk(error.to_string());
    let computed = runtime()?.block_on(computed(UPDATED)).map_err(failed)?;
    let mut rows = Vec::new();
    for (kept, what, goals) in [
        (Records::WithTheLog, "", [Some(ONE_COMMIT_MORE), Some(ONE_GROUP_COMMIT)]),
        (Records::Elsewhere, ", LDK's records elsewhere", [None, None]),
    ] {
        let folder = folder()?;
        let measured = runtime()?.block_on(updates(folder.path(), kept, UPDATED));
        let measured = measured.map_err(failed)?;
        let longer = (measured.ours - computed - measured.other).max(0.0);
        let name = format!("ldk: an update, with facts and record{what} / LDK's monitor alone");
        rows.push(Row::of(name, measured, goals[0]));
        rows.push(Row {
            name: format!("ldk: an update, longer by the disk{what} / one commit"),
            ours: longer,
            other: measured.other,
            unit: Unit::Nanoseconds,
            ratio: longer / measured.other,
            goal: goals[1],
        });
    }
    Ok(rows)
}

/// Where LDK's monitors and the recorder's records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Records {
    /// In the environment of the arbiter's log: facts and records are one commit.
    WithTheLog,
    /// In another environment on the same disk: they follow the arbiter's receipt.
    Elsewhere,
}

/// Payments to and fro, each of which is taken at once. Gives what is found after each, but for the first
/// tenth; it is told how many seconds each update of the first node's waited that came alone.
async fn paid<T>(
    world: &mut Beside,
    count: u32,
    mut after: impl FnMut(&Beside, Vec<f64>) -> Result<T, Failed>,
) -> Result<Vec<T>, Failed> {
    let link = world.link;
    let mut found = Vec::new();
    for at in 0..count {
        let payment = world.net.send(payer(at), &[link], AMOUNT_MSAT, &format!("{at}"))?;
        world.net.claim(&payment);
        let waited = world.take_receipts().iter().map(Duration::as_secs_f64).collect();
        let one = after(world, waited)?;
        if at >= count / 10 {
            found.push(one);
        }
    }
    Ok(found)
}

/// Nanoseconds that LDK waits for an update where nothing is written to a disk.
async fn computed(count: u32) -> Result<f64, Failed> {
    let mut world = Beside::new(Kind::Anchors, Mode::Observe).await?;
    let waited = paid(&mut world, count, |_, waited| Ok(waited)).await?;
    world.arbiter.shutdown().await;
    Ok(median(waited.into_iter().flatten().map(|seconds| seconds * 1e9)))
}

/// As many payments as that, after some that are not counted.
async fn updates(folder: &Path, kept: Records, count: u32) -> Result<Pairs, Failed> {
    let log = LmdbLog::open(folder.join("log"), StoreConfig::default())?;
    let elsewhere = LmdbLog::open(folder.join("elsewhere"), StoreConfig::default())?;
    let records = Arc::new(LdkStore(match kept {
        Records::WithTheLog => log.bytes(),
        Records::Elsewhere => elsewhere.bytes(),
    }));
    let mut world = Beside::storing(log, records.clone(), Kind::Anchors, Mode::Observe).await?;
    let link = world.link;
    let found = paid(&mut world, count, |world, waited| {
        let monitor = world.net.nodes[0].monitors.get_monitor(link.id);
        let bytes = monitor.map_err(|()| "no monitor")?.encode();
        let (alone, written) =
            timed(|| KVStoreSync::write(&*records, "bench", "", "monitor", bytes));
        written?;
        let alone = alone.as_secs_f64() * 1e9;
        Ok(waited.into_iter().map(|beside| (beside * 1e9, alone)).collect::<Vec<_>>())
    });
    let pairs: Vec<(f64, f64)> = found.await?.into_iter().flatten().collect();
    world.arbiter.shutdown().await;
    if pairs.is_empty() {
        return Err("no update came alone".into());
    }
    Ok(Pairs {
        ours: median(pairs.iter().map(|(beside, _)| *beside)),
        other: median(pairs.iter().map(|(_, alone)| *alone)),
        ratio: median(pairs.iter().map(|(beside, alone)| beside / alone)),
    })
}

/// What a payment of a channel, which goes to the peer and back in turn, makes either write and keep.
fn payment_rows() -> Result<Vec<Row>, BenchError> {
    let folder = folder()?;
    let of = runtime()?
        .block_on(payments(folder.path(), [PAYMENTS_BEFORE, PAYMENTS]))
        .map_err(|error| BenchError::Ldk(error.to_string()))?;
    let row = |what: &str, ours: f64, other: f64| Row {
        name: format!("ldk: {what}"),
        ours,
        other,
        unit: Unit::Bytes,
        ratio: ours / other,
        goal: None,
    };
    Ok(vec![
        row(
            &format!("kept of each of {PAYMENTS} payments, the arbiter's file / LDK's monitor"),
            of.file,
            of.monitor,
        ),
        row("written for each, the arbiter's file / LDK's updates", of.written, of.updates),
        row(
            "written for each, monitors and records by the adapter / monitors by LDK's simple persister",
            of.recorded,
            of.monitors,
        ),
    ])
}

/// Bytes for each payment.
#[derive(Debug)]
struct PerPayment {
    /// By which the arbiter's file grows.
    file: f64,
    /// By which LDK's monitor grows.
    monitor: f64,
    /// That go to the arbiter's file.
    written: f64,
    /// Of LDK's updates.
    updates: f64,
    /// That the recorder writes, monitors and its own records.
    recorded: f64,
    /// Of LDK's monitors, written whole for each update.
    monitors: f64,
}

/// Bytes that this process has handed to the system for writing. LDK's are kept in memory here, so
/// they are the arbiter's.
fn handed_over() -> Result<u64, Failed> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.ok_or("no wchar in /proc/self/io")?.trim().parse()?)
}

/// What each of the later payments costs.
async fn payments(folder: &Path, [before, counted]: [u32; 2]) -> Result<PerPayment, Failed> {
    let log = LmdbLog::open(folder, StoreConfig::default())?;
    let mut world = Beside::on(log, Kind::Anchors, Mode::Observe).await?;
    let (link, data) = (world.link, folder.join("data.mdb"));
    let mut sizes = Vec::new();
    for (part, count) in [before, counted].into_iter().enumerate() {
        for at in 0..count {
            let name = format!("{part}, {at}");
            let payment = world.net.send(payer(at), &[link], AMOUNT_MSAT, &name)?;
            world.net.claim(&payment);
        }
        let [updates, monitors] = world.peer_written();
        sizes.push([
            occupied(&data)?,
            i64::try_from(world.peer_monitor()?.len())?,
            i64::try_from(handed_over()?)?,
            i64::try_from(updates)?,
            i64::try_from(world.recorded())?,
            i64::try_from(monitors)?,
        ]);
    }
    world.arbiter.shutdown().await;
    let grown = |of: usize| (sizes[1][of] - sizes[0][of]) as f64 / f64::from(counted);
    Ok(PerPayment {
        file: grown(0),
        monitor: grown(1),
        written: grown(2),
        updates: grown(3),
        recorded: grown(4),
        monitors: grown(5),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::channels::TIP;

    #[test]
    fn both_have_every_block() -> Result<(), BenchError> {
        let model = Model::open_channel()?;
        for mode in [Mode::Observe, Mode::Own] {
            let folder = tempfile::tempdir()?;
            let mut beside = OnBlocks::new(folder.path(), &model, 3, mode)?;
            beside.connect()?;
            beside.connect()?;
            beside.whole.stop();
            let log = LmdbLog::open(folder.path(), StoreConfig::default())?;
            let blocks = arb_core::log::ChangeLog::blocks(&log)?;
            assert_eq!(blocks.last().map(|block| block.height.0), Some(TIP + 2));
        }
        Ok(())
    }

    #[test]
    fn an_update_waits_for_receipts() -> Result<(), BenchError> {
        let folder = tempfile::tempdir()?;
        for kept in [Records::WithTheLog, Records::Elsewhere] {
            let folder = folder.path().join(format!("{kept:?}"));
            let measured = runtime()?.block_on(updates(&folder, kept, 70));
            let measured = measured.map_err(|error| BenchError::Ldk(error.to_string()))?;
            assert!(measured.ours > 0.0 && measured.other > 0.0, "{measured:?}");
        }
        let computed = runtime()?.block_on(computed(10));
        let computed = computed.map_err(|error| BenchError::Ldk(error.to_string()))?;
        assert!(computed > 0.0);
        Ok(())
    }

    #[test]
    fn payments_leave_something_with_both() -> Result<(), BenchError> {
        let folder = tempfile::tempdir()?;
        let grown = runtime()?.block_on(payments(folder.path(), [2, 100]));
        let of = grown.map_err(|error| BenchError::Ldk(error.to_string()))?;
        assert!(of.file > 0.0 && of.monitor > 0.0, "{of:?}");
        assert!(of.written > 0.0 && of.updates > 1_000.0, "{of:?}");
        // A monitor is written whole for each of some five updates.
        assert!(of.monitors > of.updates && of.recorded > of.updates, "{of:?}");
        Ok(())
    }
}
