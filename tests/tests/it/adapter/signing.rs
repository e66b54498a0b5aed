//! Signatures by LDK's signers for every kind of claim: the driver asks for them, and the embedded
//! chain's consensus code judges them.
use super::Failed;
use arb_core::ids::ChannelId;
use arb_node_adapter::Mode;
use arb_tests::ldk::{Beside, Kind, cut_off, started};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Outputs of the peer's commitment that are ours after a delay: without anchors, our balance is
/// paid to us directly and needs no claim.
fn to_remote(kind: Kind) -> usize {
    usize::from(kind == Kind::Anchors)
}

/// The peer broadcasts a revoked commitment: `to_local`, HTLCs of both directions, `to_remote`.
async fn punished(kind: Kind) -> Result<(), Failed> {
    let (mut world, offered, received) = started(kind, Mode::Own).await?;
    let old = world.peer_monitor()?;
    world.net.claim(&offered);
    world.net.claim(&received);
    let revoked = world.peer_commitment(&old)?;
    world.mine_these(std::slice::from_ref(&revoked)).await?;
    world.mine(6).await?;
    let spent = world.spent(&[revoked.compute_txid()].into());
    assert_eq!(spent.len(), 3 + to_remote(kind), "{spent:?} of {revoked:?}");
    world.arbiter.shutdown().await;
    Ok(())
}

/// The peer broadcasts its current commitment: our balance, the preimage, the timeout.
async fn claimed_from_remote(kind: Kind) -> Result<(), Failed> {
    let mut world = cut_off(kind, Mode::Own).await?;
    let commitment = world.peer_commitment(&world.peer_monitor()?)?;
    world.mine_these(std::slice::from_ref(&commitment)).await?;
    world.mine(100).await?;
    let spent = world.spent(&[commitment.compute_txid()].into());
    assert_eq!(spent.len(), 2 + to_remote(kind), "{spent:?} of {commitment:?}");
    world.arbiter.shutdown().await;
    Ok(())
}

/// Our commitment: the commitment itself, its anchor, both second stages, all delayed outputs.
async fn claimed_from_local(kind: Kind) -> Result<(), Failed> {
    let mut world = cut_off(kind, Mode::Own).await?;
    world.arbiter.fail_channel(ChannelId(world.link.id.0)).await?;
    world.settle().await?;
    world.mine(1).await?;
    let id = ChannelId(world.link.id.0);
    let close = world.arbiter.report(id).await?.ok_or("no report")?.close;
    assert!(close.is_some(), "our commitment is in a block");
    world.mine(260).await?;
    world.all_claimed_from_local();
    world.arbiter.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn penalties_with_static_remotekey() -> Result<(), Failed> {
    punished(Kind::StaticRemotekey).await
}

#[tokio::test(flavor = "multi_thread")]
async fn penalties_with_anchors() -> Result<(), Failed> {
    punished(Kind::Anchors).await
}

#[tokio::test(flavor = "multi_thread")]
async fn penalties_with_zero_fee() -> Result<(), Failed> {
    punished(Kind::ZeroFee).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peers_commitment_with_static_remotekey() -> Result<(), Failed> {
    claimed_from_remote(Kind::StaticRemotekey).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peers_commitment_with_anchors() -> Result<(), Failed> {
    claimed_from_remote(Kind::Anchors).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peers_commitment_with_zero_fee() -> Result<(), Failed> {
    claimed_from_remote(Kind::ZeroFee).await
}

#[tokio::test(flavor = "multi_thread")]
async fn our_commitment_with_static_remotekey() -> Result<(), Failed> {
    claimed_from_local(Kind::StaticRemotekey).await
}

#[tokio::test(flavor = "multi_thread")]
async fn our_commitment_with_anchors() -> Result<(), Failed> {
    claimed_from_local(Kind::Anchors).await
}

#[tokio::test(flavor = "multi_thread")]
async fn our_commitment_with_zero_fee() -> Result<(), Failed> {
    claimed_from_local(Kind::ZeroFee).await
}

/// A revoked commitment of ours confirms, and the peer does not punish it: LDK's signer says its point, and our delayed
/// balance is swept. Of its HTLCs the peer's signatures are gone.
#[tokio::test(flavor = "multi_thread")]
async fn our_balance_on_a_revoked_commitment_of_ours_is_swept() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let (mut world, offered, received) = started(kind, Mode::Own).await?;
        let revoked = world.our_commitment()?;
        world.net.claim(&offered);
        world.net.claim(&received);
        world.mine_these(std::slice::from_ref(&revoked)).await?;
        world.mine(150).await?;
        let spent = world.spent(&[revoked.compute_txid()].into());
        assert_eq!(spent.len(), 1, "{kind:?}: {spent:?} of {revoked:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// The signers are away: nothing is signed, nothing is lost, and when they are back all goes on.
async fn away(world: &mut Beside, blocks: u32) -> Result<(), Failed> {
    let before = world.ours.len();
    world.mine(blocks).await?;
    assert_eq!(world.ours.len(), before, "an error means later");
    world.signers_away.store(false, Ordering::SeqCst);
    Ok(())
}

/// Penalties for `to_local` and HTLCs of both directions, and our own balance.
#[tokio::test(flavor = "multi_thread")]
async fn penalties_wait_for_a_late_signer() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let (mut world, offered, received) = started(kind, Mode::Own).await?;
        let old = world.peer_monitor()?;
        world.net.claim(&offered);
        world.net.claim(&received);
        let revoked = world.peer_commitment(&old)?;
        world.signers_away.store(true, Ordering::SeqCst);
        world.mine_these(std::slice::from_ref(&revoked)).await?;
        away(&mut world, 3).await?;
        world.mine(6).await?;
        let spent = world.spent(&[revoked.compute_txid()].into());
        assert_eq!(spent.len(), 3 + to_remote(kind), "{kind:?}: {spent:?} of {revoked:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// HTLCs of the peer's commitment, by preimage and by timeout.
#[tokio::test(flavor = "multi_thread")]
async fn claims_of_the_peers_commitment_wait_for_a_late_signer() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let mut world = cut_off(kind, Mode::Own).await?;
        let commitment = world.peer_commitment(&world.peer_monitor()?)?;
        let claimed = |world: &Beside| world.spent(&[commitment.compute_txid()].into()).len();
        world.signers_away.store(true, Ordering::SeqCst);
        world.mine_these(std::slice::from_ref(&commitment)).await?;
        away(&mut world, 3).await?;
        world.mine(3).await?;
        assert_eq!(claimed(&world), 1 + to_remote(kind), "{kind:?}: by preimage, and our balance");
        world.signers_away.store(true, Ordering::SeqCst);
        // Past the expiry of what we offered.
        world.mine(90).await?;
        away(&mut world, 1).await?;
        world.mine(3).await?;
        assert_eq!(claimed(&world), 2 + to_remote(kind), "{kind:?}: by timeout");
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// Our commitment, its anchor, second stages and delayed outputs: late at each stage.
#[tokio::test(flavor = "multi_thread")]
async fn every_stage_of_our_commitment_waits_for_a_late_signer() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let mut world = cut_off(kind, Mode::Own).await?;
        let link = world.link;
        world.signers_away.store(true, Ordering::SeqCst);
        world.net.force_close(0, &link)?;
        world.settle().await?;
        away(&mut world, 3).await?;
        // The commitment; then nothing until the offered HTLC has expired; then the rest.
        world.mine(2).await?;
        for _ in 0..2 {
            world.signers_away.store(true, Ordering::SeqCst);
            world.mine(60).await?;
            away(&mut world, 1).await?;
            world.mine(2).await?;
        }
        world.mine(300).await?;
        world.all_claimed_from_local();
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// The peer takes HTLCs of a revoked commitment into their second stage while our signers are away: once they are
/// back, these are taken from there.
#[tokio::test(flavor = "multi_thread")]
async fn penalties_of_second_stages_wait_for_a_late_signer() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let (mut world, offered, received) = started(kind, Mode::Own).await?;
        // The peer has the preimage of what we offered, in a commitment that still contains it.
        world.net.cut(0, 1);
        world.net.claim(&offered);
        let old = world.peer_monitor()?;
        world.net.reconnect(0, 1);
        world.net.claim(&received);
        let revoked = world.peer_commitment(&old)?;
        let coins = world.coins();
        world.signers_away.store(true, Ordering::SeqCst);
        world.mine_these(std::slice::from_ref(&revoked)).await?;
        let mut stages = BTreeSet::new();
        // By its preimage at once, by timeout when it has expired.
        for blocks in [90, 3] {
            let (peer, chain) = (&world.net.nodes[1], &world.net.chain);
            let stage = peer.second_stages(&old, chain, coins.clone())?;
            let stage = stage.last().ok_or("no second stage")?;
            assert!(stages.insert(stage.compute_txid()));
            world.mine_these(std::slice::from_ref(stage)).await?;
            let before = world.ours.len();
            world.mine(blocks).await?;
            assert_eq!(world.ours.len(), before, "an error means later");
        }
        world.signers_away.store(false, Ordering::SeqCst);
        world.mine(6).await?;
        let spent = world.spent(&[revoked.compute_txid()].into());
        assert_eq!(spent.len(), 1 + to_remote(kind), "{kind:?}: {spent:?} of {revoked:?}");
        // What else they have pays for their fees.
        let taken = world.spent(&stages).into_iter().filter(|output| output.vout == 0);
        assert_eq!(taken.count(), 2, "{kind:?}: both second stages");
        world.arbiter.shutdown().await;
    }
    Ok(())
}
