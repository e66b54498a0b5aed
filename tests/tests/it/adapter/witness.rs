//! LDK and the arbiter see the same: at every block of every kind of close, whoever publishes. And
//! where they do not, it is told.
use super::Failed;
use arb_core::arbitrator::CloseKind;
use arb_core::ids::ChannelId;
use arb_core::picture::Role;
use arb_core::report::ChannelReport;
use arb_core::units::{BlockHeight, CommitmentNumber};
use arb_node_adapter::{
    BalanceKind, Closer, Difference, Mode, WITNESS_PATIENCE, Witness, differences,
};
use arb_tests::ldk::{Beside, Kind, MemoryKv, cut_off, started};
use lightning::chain::channelmonitor::Balance;
use std::collections::BTreeSet;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    Local,
    Remote,
    Revoked,
}

async fn closed(kind: Kind, mode: Mode, close: Close) -> Result<Beside, Failed> {
    if close == Close::Revoked {
        let (mut world, offered, received) = started(kind, mode).await?;
        let old = world.peer_monitor()?;
        world.net.claim(&offered);
        world.net.claim(&received);
        let revoked = world.peer_commitment(&old)?;
        world.mine_these(std::slice::from_ref(&revoked)).await?;
        return Ok(world);
    }
    let mut world = cut_off(kind, mode).await?;
    if close == Close::Remote {
        let commitment = world.peer_commitment(&world.peer_monitor()?)?;
        world.mine_these(std::slice::from_ref(&commitment)).await?;
    } else {
        let link = world.link;
        world.net.force_close(0, &link)?;
        world.settle().await?;
    }
    Ok(world)
}

async fn views(world: &Beside) -> Result<(Vec<Balance>, Option<ChannelReport>), Failed> {
    let monitor = world.net.nodes[0].monitors.get_monitor(world.link.id);
    let balances = monitor.map_err(|()| "no monitor")?.get_claimable_balances();
    Ok((balances, world.arbiter.report(ChannelId(world.link.id.0)).await?))
}

/// Gives the kinds of balances that were compared.
async fn agree(kind: Kind, mode: Mode, close: Close) -> Result<BTreeSet<BalanceKind>, Failed> {
    let mut world = closed(kind, mode, close).await?;
    let (mut witness, mut seen) = (Witness::new(), BTreeSet::new());
    for _ in 0..270 {
        world.broadcast_of_ldk();
        let (balances, report) = views(&world).await?;
        let Some(report) = report else { break };
        assert_eq!(differences(&balances, &report), [], "{balances:#?}\n{report:#?}");
        let monitor = world.net.nodes[0].monitors.get_monitor(world.link.id);
        witness.look(&*monitor.map_err(|()| "no monitor")?, &report);
        assert_eq!(witness.alerts().next(), None);
        seen.extend(balances.iter().filter_map(|balance| match balance {
            Balance::ClaimableOnChannelClose { .. } => None,
            Balance::ClaimableAwaitingConfirmations { .. } => Some(BalanceKind::Awaiting),
            Balance::ContentiousClaimable { .. } => Some(BalanceKind::Contentious),
            Balance::MaybeTimeoutClaimableHTLC { .. } => Some(BalanceKind::Timeout),
            Balance::MaybePreimageClaimableHTLC { .. } => Some(BalanceKind::Preimage),
            Balance::CounterpartyRevokedOutputClaimable { .. } => Some(BalanceKind::Revoked),
        }));
        world.mine(1).await?;
    }
    world.arbiter.shutdown().await;
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_see_our_own_commitment_the_same_way() -> Result<(), Failed> {
    // HTLC transactions without anchors confirm beside the commitment.
    let without = [BalanceKind::Awaiting, BalanceKind::Timeout].into();
    assert_eq!(agree(Kind::StaticRemotekey, Mode::Observe, Close::Local).await?, without);
    let all = [BalanceKind::Awaiting, BalanceKind::Contentious, BalanceKind::Timeout].into();
    assert_eq!(agree(Kind::Anchors, Mode::Own, Close::Local).await?, all);
    assert_eq!(agree(Kind::ZeroFee, Mode::Own, Close::Local).await?, all);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_see_the_peers_commitment_the_same_way() -> Result<(), Failed> {
    let all = [BalanceKind::Awaiting, BalanceKind::Contentious, BalanceKind::Timeout].into();
    assert_eq!(agree(Kind::Anchors, Mode::Observe, Close::Remote).await?, all);
    assert_eq!(agree(Kind::StaticRemotekey, Mode::Own, Close::Remote).await?, all);
    assert_eq!(agree(Kind::ZeroFee, Mode::Own, Close::Remote).await?, all);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_see_a_revoked_commitment_the_same_way() -> Result<(), Failed> {
    let all = [BalanceKind::Awaiting, BalanceKind::Revoked].into();
    assert_eq!(agree(Kind::Anchors, Mode::Observe, Close::Revoked).await?, all);
    assert_eq!(agree(Kind::StaticRemotekey, Mode::Own, Close::Revoked).await?, all);
    assert_eq!(agree(Kind::ZeroFee, Mode::Own, Close::Revoked).await?, all);
    Ok(())
}

/// The report without an HTLC, LDK's list without a balance, one of them not closed: each is found,
/// and told once it has stood for a while.
#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_told() -> Result<(), Failed> {
    let mut world = closed(Kind::Anchors, Mode::Own, Close::Remote).await?;
    world.mine(1).await?;
    let (balances, report) = views(&world).await?;
    let report = report.ok_or("no report")?;
    world.arbiter.shutdown().await;

    let mut less = report.clone();
    let offered = less.outputs.iter().position(|o| o.amount.to_sat() == 20_000);
    let gone = less.outputs.remove(offered.ok_or("no offered HTLC")?);
    assert!(matches!(gone.role, Role::Htlc(_)));
    let timeout = (BalanceKind::Timeout, 20_000);
    let (kind, sat) = timeout;
    assert_eq!(differences(&balances, &less), [Difference::OnlyLdk { kind, sat }]);

    let mut fewer = balances.clone();
    fewer.retain(|balance| !matches!(balance, Balance::MaybeTimeoutClaimableHTLC { .. }));
    assert_eq!(differences(&fewer, &report), [Difference::OnlyArbiter { kind, sat }]);

    let mut open = report.clone();
    open.close = None;
    assert_eq!(differences(&balances, &open), [Difference::ClosedForLdk]);
    for (close, ldk) in [(CloseKind::Mutual, Closer::Remote), (CloseKind::Unknown, Closer::Remote)]
    {
        let other = ChannelReport { close: Some(close), ..report.clone() };
        assert_eq!(differences(&balances, &other), [Difference::ClosedOtherwise { ldk }]);
    }
    let ours =
        ChannelReport { close: Some(CloseKind::Local(CommitmentNumber(2))), ..report.clone() };
    let otherwise = Difference::ClosedOtherwise { ldk: Closer::Remote };
    assert_eq!(differences(&balances, &ours).first(), Some(&otherwise));
    let on_close = Balance::ClaimableOnChannelClose {
        balance_candidates: Vec::new(),
        confirmed_balance_candidate_index: 0,
        outbound_payment_htlc_rounded_msat: 0,
        outbound_forwarded_htlc_rounded_msat: 0,
        inbound_claiming_htlc_rounded_msat: 0,
        inbound_htlc_rounded_msat: 0,
    };
    assert_eq!(differences(&[on_close], &report), [Difference::ClosedForArbiter]);

    let mut witness = Witness::new();
    for waited in 0..=WITNESS_PATIENCE {
        assert_eq!(witness.alerts().next(), None, "after {waited} blocks");
        less.tip = BlockHeight(report.tip.0 + waited);
        witness.compare(&balances, &less);
    }
    let (channel, standing) = witness.alerts().next().ok_or("no alert")?;
    assert_eq!((*channel, standing.since), (report.id, report.tip));
    assert_eq!(standing.differences, [Difference::OnlyLdk { kind, sat }]);
    witness.compare(&balances, &report);
    assert_eq!(witness.alerts().next(), None);
    Ok(())
}

/// An arbiter that stands still says nothing wrong, and nothing new.
#[tokio::test(flavor = "multi_thread")]
async fn an_arbiter_that_stands_still_is_told() -> Result<(), Failed> {
    let mut world = closed(Kind::Anchors, Mode::Own, Close::Remote).await?;
    let report = views(&world).await?.1.ok_or("no report")?;
    let look = |witness: &mut Witness, world: &Beside, report: &ChannelReport| {
        let monitor = world.net.nodes[0].monitors.get_monitor(world.link.id);
        monitor.map(|monitor| witness.look(&monitor, report)).map_err(|()| "no monitor")
    };
    let mut witness = Witness::new();
    look(&mut witness, &world, &report)?;
    for waited in 0..=WITNESS_PATIENCE {
        assert_eq!(witness.alerts().next(), None, "after {waited} blocks");
        world.mine(1).await?;
        look(&mut witness, &world, &report)?;
    }
    let (channel, standing) = witness.alerts().next().ok_or("no alert")?;
    assert_eq!((*channel, standing.since.0), (report.id, report.tip.0 + 1));
    let ldk = BlockHeight(world.net.chain.height());
    assert_eq!(standing.differences, [Difference::Behind { ldk, arbiter: report.tip }]);
    let report = views(&world).await?.1.ok_or("no report")?;
    look(&mut witness, &world, &report)?;
    assert_eq!(witness.alerts().next(), None);
    // Whoever catches up is not behind for long.
    let far = ChannelReport { tip: BlockHeight(report.tip.0 - 100), ..report };
    look(&mut witness, &world, &far)?;
    look(&mut witness, &world, &ChannelReport { tip: BlockHeight(far.tip.0 + 50), ..far })?;
    assert_eq!(witness.alerts().next(), None);
    world.arbiter.shutdown().await;
    Ok(())
}

/// LDK counted our balance as final, and the tip is lower now. A witness that was started again in between
/// knows it by what was kept; one that knows nothing takes it for a difference.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_final_before_a_restart_is_known() -> Result<(), Failed> {
    let mut world = closed(Kind::Anchors, Mode::Own, Close::Local).await?;
    let mut before = None;
    let (balances, report, below) = loop {
        world.broadcast_of_ldk();
        world.mine(1).await?;
        let (balances, report) = views(&world).await?;
        let report = report.ok_or("our balance is never final")?;
        if let Some(before) = before
            && let [Difference::OnlyArbiter { kind: BalanceKind::Awaiting, .. }] =
                differences(&balances, &before)[..]
        {
            break (balances, report, before);
        }
        before = Some(report);
    };
    world.arbiter.shutdown().await;

    let store = MemoryKv::default();
    let mut witness = Witness::open(&store)?;
    witness.compare(&balances, &report);
    store.fail_after(Some(0));
    assert!(witness.keep(&store).is_err());
    store.fail_after(None);
    witness.keep(&store)?;
    let alerts = |mut witness: Witness| {
        for lower in (0..=WITNESS_PATIENCE).rev() {
            let tip = BlockHeight(below.tip.0 - lower);
            witness.compare(&balances, &ChannelReport { tip, ..below.clone() });
        }
        witness.alerts().count()
    };
    assert_eq!(alerts(Witness::open(&store)?), 0);
    assert_eq!(alerts(Witness::new()), 1);
    Ok(())
}
