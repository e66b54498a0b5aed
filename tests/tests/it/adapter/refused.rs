//! LDK's monitor has seen the funding output spent, and its channel manager has not: the monitor refuses
//! what the manager still updates. No channel is lost by that, and nothing that was in it.
use super::Failed;
use arb_core::arbitrator::CloseKind;
use arb_core::ids::ChannelId;
use arb_node_adapter::Mode;
use arb_tests::ldk::{Beside, Kind, Net, Payment, started};
use bitcoin::{OutPoint, Transaction};

/// What `started` sends.
const OFFERED_SAT: u64 = 20_000;
const RECEIVED_SAT: u64 = 30_000;
const KINDS: [Kind; 3] = [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee];

/// The peer's commitment is in a block, of which LDK's manager hears last.
async fn closed_by_peer(
    world: &mut Beside,
    commitment: &Transaction,
    meanwhile: impl FnOnce(&Net),
) -> Result<(), Failed> {
    world.net.chain.mine_transactions(std::slice::from_ref(commitment))?;
    world.net.show_monitors_first(meanwhile);
    world.net.pump();
    world.settle().await?;
    world.mine(4).await
}

/// Whether the arbiter has spent the commitment's output of this value.
fn has_taken(world: &Beside, commitment: &Transaction, sat: u64) -> bool {
    let spent = world.spent(&[commitment.compute_txid()].into());
    let value = |outpoint: &OutPoint| world.net.chain.prevout(outpoint).map(|of| of.value.to_sat());
    spent.iter().any(|outpoint| value(outpoint) == Some(sat))
}

/// The arbiter has the channel still, and LDK waits for nothing.
fn kept(world: &Beside) {
    assert_eq!((world.left(), world.held()), (Vec::new(), Vec::new()));
    let pending = world.net.nodes[0].monitors.list_pending_monitor_updates();
    assert!(pending.values().all(Vec::is_empty), "{pending:?}");
    assert!(world.net.nodes[0].manager.list_channels().is_empty(), "LDK has closed it");
}

async fn race(kind: Kind, late: bool, revoked: bool) -> Result<(usize, Option<CloseKind>), Failed> {
    let (mut world, offered, received) = started(kind, Mode::Own).await?;
    let (link, old) = (world.link, world.peer_monitor()?);
    if revoked {
        world.net.claim(&offered);
    }
    let commitment = world.peer_commitment(&old)?;
    world.net.start(1, &[link], 5_000_000, "late", 1)?;
    closed_by_peer(&mut world, &commitment, |net| {
        if late {
            net.pump_one(1);
        }
    })
    .await?;
    kept(&world);
    if !revoked {
        world.net.claim(&received);
        world.mine(3).await?;
        assert!(has_taken(&world, &commitment, RECEIVED_SAT), "{kind:?}, late {late}");
    }
    let report = world.arbiter.report(ChannelId(link.id.0)).await?.ok_or("no report")?;
    let spent = world.spent(&[commitment.compute_txid()].into()).len();
    world.arbiter.shutdown().await;
    Ok((spent, report.close))
}

/// A peer's word that came too late changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_update_costs_no_channel() -> Result<(), Failed> {
    for (kind, revoked) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let late = race(kind, true, revoked).await?;
        assert!(late.0 >= 1, "{kind:?}, revoked {revoked}: {late:?}");
        assert_eq!(late, race(kind, false, revoked).await?, "{kind:?}, revoked {revoked}");
    }
    Ok(())
}

/// The peer reveals the secret of the very commitment that is in the block.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_a_refused_update_punishes() -> Result<(), Failed> {
    for kind in KINDS {
        let (mut world, ..) = started(kind, Mode::Own).await?;
        let link = world.link;
        let commitment = world.peer_commitment(&world.peer_monitor()?)?;
        world.net.start(0, &[link], 5_000_000, "ours", 1)?;
        world.net.complete();
        world.net.pump_one(0); // our next commitment for the peer, which has an answer now
        closed_by_peer(&mut world, &commitment, |net| {
            net.pump_one(1);
        })
        .await?;
        kept(&world);
        let report = world.arbiter.report(ChannelId(link.id.0)).await?.ok_or("no report")?;
        assert!(
            matches!(report.close, Some(CloseKind::Revoked(_))),
            "{kind:?}: {:?}",
            report.close
        );
        for sat in [OFFERED_SAT, RECEIVED_SAT] {
            assert!(has_taken(&world, &commitment, sat), "{kind:?}: {sat} sat");
        }
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// We take a payment at that moment: its preimage is in the refused update.
#[tokio::test(flavor = "multi_thread")]
async fn a_preimage_in_a_refused_update_claims() -> Result<(), Failed> {
    for kind in KINDS {
        let (mut world, _, received): (Beside, Payment, Payment) = started(kind, Mode::Own).await?;
        let commitment = world.peer_commitment(&world.peer_monitor()?)?;
        closed_by_peer(&mut world, &commitment, |net| {
            net.nodes[0].manager.claim_funds(received.preimage);
        })
        .await?;
        kept(&world);
        assert!(has_taken(&world, &commitment, RECEIVED_SAT), "{kind:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}
