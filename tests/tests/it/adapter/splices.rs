//! Channels that close while a splice is on its way, and after it: LDK and the arbiter see the same at
//! every block, and all is claimed, whichever funding output it comes from.
use super::Failed;
use arb_core::arbitrator::CloseKind;
use arb_core::ids::{ChannelId, Side};
use arb_node_adapter::{Mode, differences};
use arb_tests::ldk::{Beside, Kind, started};
use bitcoin::{Amount, OutPoint, Transaction};
use lightning::util::ser::Writeable;

const ADDED: Amount = Amount::from_sat(200_000);

/// How far the splice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Signed, and in no block.
    Signed,
    /// In a block; the parties have not told each other.
    Confirmed,
    /// It is the channel's funding transaction.
    Locked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    Local,
    Remote,
    Revoked,
}

/// A channel with an HTLC in each direction that is spliced; then the preimage of the received one becomes
/// known, and the connection is lost.
struct Spliced {
    world: Beside,
    /// The funding output that counts.
    counts: OutPoint,
    /// A commitment of the peer's that spends it, and that it has revoked since.
    revoked: Transaction,
}

async fn spliced(kind: Kind, mode: Mode, stage: Stage) -> Result<Spliced, Failed> {
    let (mut world, _, received) = started(kind, mode).await?;
    let link = world.link;
    let first = funding(&world)?;
    let second = world.net.splice_in(0, &link, ADDED)?;
    // What is revoked, of either funding output, has the HTLCs that are pending, and one more.
    let gone = world.net.send(1, &[link], 12_000_000, "gone")?;
    let old = peer_monitor(&world)?;
    world.net.claim(&gone);
    let counts = if stage == Stage::Signed { first } else { second };
    if stage == Stage::Confirmed {
        world.net.cut(0, 1);
    }
    if stage == Stage::Signed {
        world.net.nodes.iter().for_each(|node| drop(node.outbox.take()));
    } else {
        world.net.broadcast();
        world.mine(2).await?;
    }
    let link = if stage == Stage::Locked { world.net.renamed(&link)? } else { link };
    if stage != Stage::Confirmed {
        let _sent = world.net.send(0, &[link], 5_000_000, "sent")?;
        world.net.cut(0, 1);
    }
    let revoked = world.net.nodes[1].commitment_of(&old, counts, &world.net.chain)?;
    world.net.claim(&received);
    world.settle().await?;
    let report = world.arbiter.report(ChannelId(link.id.0)).await?;
    let close = report.and_then(|report| report.close);
    let is_splice = matches!(close, Some(CloseKind::Splice(txid)) if txid == second.txid);
    assert_eq!(is_splice, stage != Stage::Signed, "{stage:?}: {close:?}");
    let revoked = revoked.ok_or("no commitment")?;
    Ok(Spliced { world, counts, revoked })
}

fn funding(world: &Beside) -> Result<OutPoint, Failed> {
    let monitor = world.net.nodes[0].monitors.get_monitor(world.link.id);
    Ok(monitor.map_err(|()| "no monitor")?.get_funding_txo().into_bitcoin_outpoint())
}

fn peer_monitor(world: &Beside) -> Result<Vec<u8>, Failed> {
    let monitor = world.net.nodes[1].monitors.get_monitor(world.link.id);
    Ok(monitor.map_err(|()| "no monitor")?.encode())
}

async fn closes(kind: Kind, mode: Mode, stage: Stage, close: Close) -> Result<(), Failed> {
    let Spliced { mut world, counts, revoked } = spliced(kind, mode, stage).await?;
    let (link, id) = (world.link, ChannelId(world.link.id.0));
    match close {
        Close::Local => {
            world.net.force_close(0, &link)?;
            world.settle().await?;
        }
        Close::Remote => {
            let monitor = peer_monitor(&world)?;
            let (peer, chain) = (&world.net.nodes[1], &world.net.chain);
            let commitment = peer.commitment_of(&monitor, counts, chain)?.ok_or("none")?;
            world.mine_these(&[commitment]).await?;
        }
        Close::Revoked => world.mine_these(std::slice::from_ref(&revoked)).await?,
    }
    let mut ours = None;
    for _ in 0..275 {
        world.broadcast_of_ldk();
        world.mine(1).await?;
        let monitor = world.net.nodes[0].monitors.get_monitor(link.id);
        let balances = monitor.map_err(|()| "no monitor")?.get_claimable_balances();
        let Some(report) = world.arbiter.report(id).await? else { break };
        assert_eq!(
            differences(&balances, &report),
            [],
            "{kind:?} {mode:?} {stage:?} {close:?}\n{balances:#?}\n{report:#?}"
        );
        ours = Some(report);
    }
    let report = ours.ok_or("no report")?;
    let as_expected = match close {
        Close::Local => matches!(report.close, Some(CloseKind::Local(_))),
        Close::Remote => matches!(report.close, Some(CloseKind::Remote(_))),
        Close::Revoked => matches!(report.close, Some(CloseKind::Revoked(_))),
    };
    assert!(as_expected, "{:?}", report.close);
    let spender = world.net.chain.confirmed_spender(&counts).ok_or("no close")?.compute_txid();
    for output in report.outputs.iter().filter(|output| output.outpoint.txid == spender) {
        let is_htlc = matches!(output.role, arb_core::picture::Role::Htlc(_));
        let is_claimed = output.spent_by == Some(Side::Local);
        assert!(!is_htlc || is_claimed, "{stage:?} {close:?}: {output:?}");
    }
    world.arbiter.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_before_the_splice_confirms() -> Result<(), Failed> {
    closes(Kind::Anchors, Mode::Own, Stage::Signed, Close::Local).await?;
    closes(Kind::StaticRemotekey, Mode::Observe, Stage::Signed, Close::Local).await?;
    closes(Kind::ZeroFee, Mode::Own, Stage::Signed, Close::Remote).await?;
    closes(Kind::Anchors, Mode::Own, Stage::Signed, Close::Revoked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_before_the_splice_is_locked() -> Result<(), Failed> {
    closes(Kind::Anchors, Mode::Own, Stage::Confirmed, Close::Local).await?;
    closes(Kind::StaticRemotekey, Mode::Own, Stage::Confirmed, Close::Remote).await?;
    closes(Kind::ZeroFee, Mode::Own, Stage::Confirmed, Close::Revoked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn closes_after_the_splice_is_locked() -> Result<(), Failed> {
    closes(Kind::StaticRemotekey, Mode::Own, Stage::Locked, Close::Local).await?;
    closes(Kind::Anchors, Mode::Own, Stage::Locked, Close::Local).await?;
    closes(Kind::ZeroFee, Mode::Own, Stage::Locked, Close::Local).await?;
    closes(Kind::Anchors, Mode::Observe, Stage::Locked, Close::Remote).await?;
    closes(Kind::StaticRemotekey, Mode::Own, Stage::Locked, Close::Revoked).await?;
    closes(Kind::Anchors, Mode::Own, Stage::Locked, Close::Revoked).await
}
