//! HTLCs between a channel that the arbiter watches and one that LDK has alone, when the watched one is
//! closed: what is learned on either serves the other, and every deadline is kept.
use super::Failed;
use arb_core::arbitrator::UpstreamVerdict;
use arb_core::ids::{ChannelId, HtlcId, Side};
use arb_node_adapter::{GUARD_BEFORE, Mode};
use arb_tests::ldk::{Beside, Kind, Link, Payment};
use bitcoin::{OutPoint, Transaction};
use lightning::events::Event;

const KINDS: [Kind; 3] = [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee];
const GUARD: Mode = Mode::Guard { before: GUARD_BEFORE };
const AMOUNT_MSAT: u64 = 20_000_000;
/// What the peer offers is more by what we take for forwarding.
const RECEIVED_SAT: u64 = 20_001;
const SENT_SAT: u64 = 20_000;

/// Who gets claims through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// The arbiter owns the channel.
    Arbiter,
    /// The arbiter guards, and nothing that LDK publishes reaches anybody.
    Guard,
    /// The arbiter guards, and LDK gets everything through.
    Ldk,
}

impl Who {
    const ALL: [Self; 3] = [Self::Arbiter, Self::Guard, Self::Ldk];

    const fn mode(self) -> Mode {
        match self {
            Self::Arbiter => Mode::Own,
            Self::Guard | Self::Ldk => GUARD,
        }
    }
}

/// The peer's commitment is in a block, and its HTLC of this value.
async fn closed_by_the_peer(world: &mut Beside, sat: u64) -> Result<OutPoint, Failed> {
    let commitment = world.peer_commitment(&world.peer_monitor()?)?;
    world.mine_these(std::slice::from_ref(&commitment)).await?;
    let vout = commitment.output.iter().position(|output| output.value.to_sat() == sat);
    let vout = u32::try_from(vout.ok_or("no such HTLC")?)?;
    Ok(OutPoint { txid: commitment.compute_txid(), vout })
}

/// Blocks up to this height; LDK publishes if it is its turn.
async fn until(world: &mut Beside, height: u32, who: Who) -> Result<(), Failed> {
    while world.net.chain.height() < height {
        if who == Who::Ldk {
            world.broadcast_of_ldk();
        }
        world.mine(1).await?;
    }
    Ok(())
}

/// The HTLC is spent, by whom it should be.
fn spent_by(world: &Beside, htlc: &OutPoint, who: Who) -> Result<(), Failed> {
    let spender = world.net.chain.confirmed_spender(htlc).ok_or(format!("{who:?}: unspent"))?;
    let ours = world.ours.contains_key(&spender.compute_txid());
    assert_eq!(ours, who != Who::Ldk, "{who:?}");
    if who == Who::Ldk {
        assert!(world.ours.is_empty(), "the guard publishes nothing");
    }
    Ok(())
}

/// The height at which the payment's HTLC with the neighbour expires.
fn expiry(world: &Beside, link: &Link, payment: &Payment) -> Result<u32, Failed> {
    let channels = world.net.nodes[0].manager.list_channels();
    let details = channels.iter().find(|details| details.channel_id == link.id);
    let received = &details.ok_or("no channel")?.pending_inbound_htlcs;
    let htlc = received.iter().find(|htlc| htlc.payment_hash == payment.hash);
    Ok(htlc.ok_or("no HTLC")?.cltv_expiry)
}

/// Forwarded to a channel that is not watched, where LDK learns the preimage: the incoming HTLC is taken
/// on chain before it expires.
#[tokio::test(flavor = "multi_thread")]
async fn a_preimage_from_a_neighbour_takes_the_incoming_htlc() -> Result<(), Failed> {
    for (kind, who) in KINDS.into_iter().flat_map(|kind| Who::ALL.map(|who| (kind, who))) {
        let (mut world, far) = Beside::with_neighbour(kind, who.mode()).await?;
        let link = world.link;
        let payment = world.net.send(1, &[link, far], AMOUNT_MSAT, "to the neighbour")?;
        let expiry = expiry(&world, &link, &payment)?;
        world.net.cut(0, 1);
        world.net.claim(&payment);
        let htlc = closed_by_the_peer(&mut world, RECEIVED_SAT).await?;
        until(&mut world, expiry - 1, who).await?;
        spent_by(&world, &htlc, who)?;
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// What a node's LDK wants published, in a block each.
async fn mine_of(world: &mut Beside, node: usize) -> Result<Vec<Transaction>, Failed> {
    let all = world.net.nodes[node].outbox.take().concat();
    for tx in &all {
        let _known = world.net.chain.submit(tx.clone());
        world.mine(1).await?;
    }
    Ok(all)
}

/// The neighbour takes its HTLC on chain: LDK alone looks there.
#[tokio::test(flavor = "multi_thread")]
async fn a_preimage_on_a_neighbours_commitment_takes_the_incoming_htlc() -> Result<(), Failed> {
    for who in Who::ALL {
        let kind = Kind::StaticRemotekey;
        let (mut world, far) = Beside::with_neighbour(kind, who.mode()).await?;
        let link = world.link;
        let payment = world.net.send(1, &[link, far], AMOUNT_MSAT, "to the neighbour")?;
        let expiry = expiry(&world, &link, &payment)?;
        world.net.cut(0, 1);
        world.net.cut(0, 2);
        let htlc = closed_by_the_peer(&mut world, RECEIVED_SAT).await?;
        world.mine(2).await?;
        assert!(world.net.chain.confirmed_spender(&htlc).is_none(), "no preimage yet");
        world.net.claim(&payment);
        world.net.force_close(2, &far)?;
        let published = mine_of(&mut world, 2).await?;
        assert!(published.len() >= 2, "the commitment, and the HTLC with it: {published:?}");
        until(&mut world, expiry - 1, who).await?;
        spent_by(&world, &htlc, who)?;
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// Forwarded from a channel that is not watched: it is timed out before the incoming HTLC expires, and
/// LDK fails that.
#[tokio::test(flavor = "multi_thread")]
async fn a_forward_of_a_neighbours_times_out_in_time() -> Result<(), Failed> {
    for (kind, who) in KINDS.into_iter().flat_map(|kind| Who::ALL.map(|who| (kind, who))) {
        let (mut world, far) = Beside::with_neighbour(kind, who.mode()).await?;
        let link = world.link;
        let payment = world.net.send(2, &[far, link], AMOUNT_MSAT, "from the neighbour")?;
        let incoming = expiry(&world, &far, &payment)?;
        world.net.cut(0, 1);
        let htlc = closed_by_the_peer(&mut world, SENT_SAT).await?;
        until(&mut world, incoming - 1, who).await?;
        spent_by(&world, &htlc, who)?;
        until(&mut world, incoming + 6, who).await?;
        let failed = |event: &Event| matches!(event, Event::PaymentFailed { .. }).then_some(());
        assert_eq!(world.net.nodes[2].take_event(failed), Some(()), "{kind:?}, {who:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// The peer takes what was forwarded to it on chain: both see the preimage, and the neighbour is paid by.
#[tokio::test(flavor = "multi_thread")]
async fn a_forward_of_a_neighbours_is_fulfilled_on_chain() -> Result<(), Failed> {
    for who in Who::ALL {
        let kind = Kind::StaticRemotekey;
        let (mut world, far) = Beside::with_neighbour(kind, who.mode()).await?;
        let link = world.link;
        let payment = world.net.send(2, &[far, link], AMOUNT_MSAT, "from the neighbour")?;
        world.net.cut(0, 1);
        world.net.claim(&payment);
        world.net.force_close(1, &link)?;
        mine_of(&mut world, 1).await?;
        world.mine(1).await?;
        let sent = |event: &Event| matches!(event, Event::PaymentSent { .. }).then_some(());
        assert_eq!(world.net.nodes[2].take_event(sent), Some(()), "{who:?}");
        let report = world.arbiter.report(ChannelId(link.id.0)).await?.ok_or("no report")?;
        let offered = HtlcId { offerer: Side::Local, id: 0 };
        assert_eq!(report.upstream, [(offered, UpstreamVerdict::Fulfilled)], "{who:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}
