//! Isolation: a subscriber that never reads, a signer that never answers for one channel, and a
//! channel whose records cannot be read, all at once, while a thousand other channels close.
//!
//! The clock is paused: it moves only when nobody has anything to do. "In time" therefore means:
//! without waiting for anybody.
mod ports;
mod stage;

use arb_core::arbitrator::{Alert, Notice, Phase};
use arb_core::ids::{ChannelId, Side};
use arb_core::log::ChangeLog;
use arb_core::memory::MemoryLog;
use arb_core::report::ChannelReport;
use arb_store::{LmdbLog, StoreConfig};
use arb_watcher::Delivery;
use bitcoin::{Amount, Transaction};
use stage::{Chan, EXPIRY, End, PATIENCE, Stage};
use std::collections::BTreeMap;

type Failed = Box<dyn std::error::Error>;

const OTHERS: usize = 1_000;
/// The first channels, so that in any order by channel they come first.
const UNREAD: usize = 0;
const SILENT: usize = 1;
const POISONED: usize = 2;
const QUIET: usize = 3;
const FIRST_OTHER: usize = 4;
/// More events than the queue of a subscriber holds.
const REORGS: usize = 33;
const QUEUE: usize = 64;
/// Blocks in which everybody else is done: the rest until the expiry (each reorganisation took two),
/// confirmation, and 100 on top.
const BLOCKS: u32 = EXPIRY - 2 * REORGS as u32 + 1 + 100 + 5;

fn ends() -> Vec<End> {
    let mut ends = vec![End::Remote, End::LocalWithMany, End::Remote, End::Stays];
    let kinds = [End::Mutual, End::Remote, End::Revoked, End::Local];
    ends.extend(kinds.into_iter().cycle().take(OTHERS));
    ends
}

// incident eclair-2902
#[tokio::test(start_paused = true)]
async fn what_is_stuck_holds_nobody_else_up() -> Result<(), Failed> {
    is_held_up_by_nobody(MemoryLog::new()).await
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_holds_nobody_else_up_where_every_append_is_synced() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    is_held_up_by_nobody(LmdbLog::open(folder.path(), StoreConfig::default())?).await
}

async fn is_held_up_by_nobody<L: ChangeLog>(log: L) -> Result<(), Failed> {
    let mut stage = Stage::set(log, &ends(), SILENT, POISONED as u32).await?;
    let began = tokio::time::Instant::now();
    let id = |stage: &Stage, at: usize| stage.channels[at].id;
    let unread = id(&stage, UNREAD);
    let _never_read = stage.arbiter.subscribe(unread, "unread", Delivery::Acknowledged).await?;
    let _nor_these = stage.arbiter.notices().await?;
    fill_the_queue(&mut stage).await?;

    // Everything at once.
    for chan in stage.channels.iter().filter(|chan| chan.end == End::Local) {
        stage.arbiter.fail_channel(chan.id).await?;
    }
    stage.settle().await;
    stage.hold.damage();
    let closings = closings(&stage.channels)?;
    stage.mine(&closings).await?;
    assert!(stage.signer.waiting() > 0, "nobody asked the signer that is silent");
    claims_of_others_are_out(&stage);

    let mut reports = BTreeMap::new();
    for _ in 0..BLOCKS {
        stage.mine(&[]).await?;
        assert!(stage.signer.waiting() > 0, "the silent signer was given up");
        read(&stage, &mut reports).await?;
    }
    assert!(began.elapsed() < PATIENCE, "somebody was waited for");
    everybody_else_has_their_value(&stage, &reports).await?;
    the_stuck_ones_are_where_they_were(&stage).await?;

    // A command for another channel, and the end.
    stage.arbiter.fail_channel(id(&stage, QUIET)).await?;
    let ended = tokio::time::timeout(PATIENCE / 2, stage.arbiter.shutdown()).await;
    assert!(ended.is_ok(), "the driver does not end");
    assert_eq!(stage.signer.waiting(), 0, "a worker outlived the driver");
    Ok(())
}

/// The unread subscription gets more events than its queue holds.
async fn fill_the_queue(stage: &mut Stage) -> Result<(), Failed> {
    let close = stage.channels[UNREAD].closing()?.ok_or("a closing transaction")?;
    for _ in 0..REORGS {
        stage.mine(std::slice::from_ref(&close)).await?;
        stage.reorganise().await?;
    }
    let report = stage.arbiter.report(stage.channels[UNREAD].id).await?.ok_or("a report")?;
    assert!(report.events.len() > QUEUE, "{} events", report.events.len());
    Ok(())
}

fn closings(channels: &[Chan]) -> Result<Vec<Transaction>, Failed> {
    let mut closings = Vec::new();
    for chan in channels {
        closings.extend(chan.closing()?);
    }
    Ok(closings)
}

/// Right after the block: whatever can be claimed at once is in the mempool.
fn claims_of_others_are_out(stage: &Stage) {
    let revoked = stage.channels[FIRST_OTHER..].iter().filter(|chan| chan.end == End::Revoked);
    let mut checked = 0;
    stage.chain.with(|chain| {
        for chan in revoked {
            let pays = |tx: &Transaction| {
                tx.output.iter().any(|output| output.script_pubkey == chan.destination)
            };
            assert!(chain.mempool().any(|tx| pays(tx)), "no penalty of channel {}", chan.id);
            checked += 1;
        }
    });
    assert_eq!(checked, OTHERS / 4);
}

/// The last report of each of the others before it is forgotten.
async fn read(
    stage: &Stage,
    reports: &mut BTreeMap<ChannelId, ChannelReport>,
) -> Result<(), Failed> {
    let height = stage.chain.with(|chain| chain.height());
    for chan in &stage.channels[FIRST_OTHER..] {
        let known = reports.get(&chan.id);
        // What is resolved stays so until it is forgotten, a hundred blocks later.
        let again = known.is_none_or(|report| {
            report.outputs.iter().any(|o| o.spent_at.is_none()) && report.tip.0 + 20 <= height
        });
        if again && let Some(report) = stage.arbiter.report(chan.id).await? {
            reports.insert(chan.id, report);
        }
    }
    Ok(())
}

async fn everybody_else_has_their_value(
    stage: &Stage,
    reports: &BTreeMap<ChannelId, ChannelReport>,
) -> Result<(), Failed> {
    for chan in &stage.channels[FIRST_OTHER..] {
        let end = chan.end;
        assert_eq!(stage.arbiter.report(chan.id).await?, None, "{end:?} is not forgotten");
        let report = reports.get(&chan.id).ok_or("no report")?;
        assert_eq!(report.received, chan.due_to_us()?, "{end:?}: {report:#?}");
        assert_eq!(claimed_on_chain(stage, chan, report), claimed(report), "{end:?}");
    }
    Ok(())
}

/// Value of the outputs that we spent, as the report says.
fn claimed(report: &ChannelReport) -> Amount {
    let ours = report.outputs.iter().filter(|output| output.spent_by == Some(Side::Local));
    ours.map(|output| output.amount).sum()
}

/// Value of those of them that the chain says were spent to the channel's destination.
fn claimed_on_chain(stage: &Stage, chan: &Chan, report: &ChannelReport) -> Amount {
    let ours = report.outputs.iter().filter(|output| output.spent_by == Some(Side::Local));
    stage.chain.with(|chain| {
        let home = ours.filter(|output| {
            let spender = chain.confirmed_spender(&output.outpoint);
            let pays = |tx: &Transaction| {
                tx.output.iter().all(|output| output.script_pubkey == chan.destination)
            };
            spender.is_some_and(pays)
        });
        home.map(|output| output.amount).sum()
    })
}

async fn the_stuck_ones_are_where_they_were(stage: &Stage) -> Result<(), Failed> {
    let id = |at: usize| stage.channels[at].id;
    // Resolved, and kept for its subscriber.
    let unread = stage.arbiter.report(id(UNREAD)).await?.ok_or("the unread one is forgotten")?;
    assert!(matches!(unread.phase, Phase::Resolved(_)), "{:?}", unread.phase);
    // Nothing of it can be signed.
    let silent = stage.arbiter.report(id(SILENT)).await?.ok_or("the silent one is forgotten")?;
    assert!(matches!(silent.phase, Phase::Closed(_)), "{:?}", silent.phase);
    assert!(silent.transactions.is_empty(), "{:?}", silent.transactions);
    let quarantined = (id(POISONED), Notice::Alert(Alert::Quarantined));
    assert!(stage.alerts.contains(&quarantined), "the node is not told of the poisoned one");
    Ok(())
}
