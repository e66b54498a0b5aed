//! HTLCs that no commitment contains are forgotten by both parties when they reconnect, and their ids
//! used again (BOLT 2 "Message Retransmission"). What was told upstream of them is not told of others.
use super::support::channel::terms;
use super::support::*;
use arb_core::arbitrator::{Alert, Notice, NoticeKey, PreimageSource, UpstreamResolution};
use arb_core::facts::{Htlc, HtlcLink, Update};
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::{ChannelId, HtlcId, HtlcRef};
use arb_core::units::{BlockHeight, CltvExpiry};

/// One that forwards an HTLC of this channel, which expires so many blocks after the birth.
fn forward(id: HtlcId, of: u8, expiry: u32) -> Htlc {
    Htlc {
        hash: preimage(u64::from(of)).hash(),
        link: HtlcLink::ForwardOf {
            incoming: HtlcRef { channel: ChannelId([of; 32]), htlc: received(0) },
            expiry: CltvExpiry(BlockHeight(BIRTH + expiry)),
            amount: terms(id).amount,
        },
        ..terms(id)
    }
}

fn added(channel: &mut Channel, id: HtlcId, htlc: Htlc) -> Update {
    let update = Update::HtlcAdded { id, htlc };
    let secp = bitcoin::secp256k1::Secp256k1::new();
    channel.facts = channel.facts.updated(&update, &secp).expect("sound").facts;
    update
}

/// What the node is told of the HTLC that it forwards for this channel.
fn told_of(notices: &[(ChannelId, Notice)], of: u8) -> Vec<UpstreamResolution> {
    let resolution = |(_, notice): &(ChannelId, Notice)| match notice {
        Notice::Upstream { incoming: Some(incoming), resolution, .. }
            if incoming.channel == ChannelId([of; 32]) =>
        {
            Some(*resolution)
        }
        _ => None,
    };
    notices.iter().filter_map(resolution).collect()
}

/// An HTLC in the peer's next commitment whose time runs out: the node was told to fail it back.
async fn failed_back(
    world: &World,
    id: HtlcId,
) -> (Channel, crate::Arbiter, crate::NoticeStream, NoticeKey) {
    let mut channel = Channel::new(1, StaticRemotekey);
    let arbiter = world.watching(&channel).await;
    let mut notices = arbiter.notices().await.expect("running");
    let updates = vec![added(&mut channel, id, forward(id, 5, 20)), channel.next_remote(1, &[id])];
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
    world.pass(&arbiter, 20).await;
    let told = drain(&mut notices).await;
    assert_eq!(told_of(&told, 5).first(), Some(&UpstreamResolution::Fail));
    let key = told[0].1.key();
    (channel, arbiter, notices, key)
}

/// As long as nobody has failed it, what is paid downstream is fulfilled upstream, whatever was said before:
/// the node may have ended before it heard it.
#[tokio::test(start_paused = true)]
async fn a_preimage_takes_back_what_nobody_has_acknowledged() {
    let (world, id) = (World::default(), offered(0));
    let (channel, arbiter, mut notices, key) = failed_back(&world, id).await;
    let source = PreimageSource::Downstream(id);
    arbiter.preimage(channel.id(), preimage(5), source).await.expect("it has that HTLC");
    let fulfil = UpstreamResolution::Fulfil(preimage(5));
    let told = drain(&mut notices).await;
    assert_eq!(told_of(&told, 5), [fulfil]);
    // It may have failed it already, and said so too late to be heard.
    let late = (channel.id(), Notice::Alert(Alert::PreimageAfterFail(id)));
    assert!(told.contains(&late), "{told:?}");
    arbiter.acknowledge(channel.id(), late.1.key()).await.expect("running");
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    let mut notices = arbiter.notices().await.expect("running");
    arbiter.idle().await.expect("running");
    let told = drain(&mut notices).await;
    assert!(told_of(&told, 5).iter().all(|resolution| *resolution == fulfil), "{told:?}");
    assert!(!told_of(&told, 5).is_empty());
    let late = |(_, notice): &(_, Notice)| matches!(notice, Notice::Alert(_));
    assert!(!told.iter().any(late), "{told:?}");
    arbiter.acknowledge(channel.id(), key).await.expect("running");
    world.pass(&arbiter, 1).await;
    assert_eq!(told_of(&drain(&mut notices).await, 5), []);
}

/// What was failed upstream since time ran out, and then paid downstream after all, is lost: a person hears of
/// it, also if the HTLC leaves with its preimage.
#[tokio::test(start_paused = true)]
async fn a_preimage_that_comes_with_the_end_of_a_failed_htlc_is_alerted() {
    let (world, id) = (World::default(), offered(0));
    let (mut channel, arbiter, mut notices, key) = failed_back(&world, id).await;
    arbiter.acknowledge(channel.id(), key).await.expect("running");
    let updates =
        vec![channel.revoke(0), channel.next_local(1, &[id]), channel.next_remote(2, &[])];
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
    let source = PreimageSource::Downstream(id);
    let learned = Update::Preimage { preimage: preimage(5), source };
    let updates = vec![learned, channel.revoke(1), channel.next_local(2, &[])];
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
    let late = (channel.id(), Notice::Alert(Alert::PreimageAfterFail(id)));
    assert_eq!(drain(&mut notices).await, std::slice::from_ref(&late));
    arbiter.acknowledge(channel.id(), late.1.key()).await.expect("running");
    let updates = vec![channel.next_remote(3, &[])];
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
    world.pass(&arbiter, 1).await;
    assert_eq!(drain(&mut notices).await, []);
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    assert_eq!(report.alerts, [], "once it was heard");
}

/// What was failed upstream since time ran out, and then paid downstream after all, is lost: a person hears of it.
#[tokio::test(start_paused = true)]
async fn a_preimage_that_comes_too_late_is_alerted() {
    let (world, id) = (World::default(), offered(0));
    let (channel, arbiter, mut notices, key) = failed_back(&world, id).await;
    arbiter.acknowledge(channel.id(), key).await.expect("running");
    let late = Alert::PreimageAfterFail(id);
    let alerts = async || {
        let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
        report.alerts
    };
    assert!(!alerts().await.contains(&late));
    let source = PreimageSource::Downstream(id);
    arbiter.preimage(channel.id(), preimage(5), source).await.expect("it has that HTLC");
    assert!(alerts().await.contains(&late));
    world.pass(&arbiter, 1).await;
    let told = drain(&mut notices).await;
    assert!(told.contains(&(channel.id(), Notice::Alert(late))), "{told:?}");
    assert_eq!(told_of(&told, 5), [], "what was done is done");
}

/// An HTLC that nobody signed is failed back at the margin; then its id is used for one that is
/// committed, and the arbiter starts anew. Gives what the node was told first.
async fn succeeded(
    world: &World,
    successor: Htlc,
    acknowledge: bool,
) -> (Channel, crate::Arbiter, NoticeKey) {
    let mut channel = Channel::new(1, StaticRemotekey);
    let arbiter = world.watching(&channel).await;
    let id = offered(0);
    let mut notices = arbiter.notices().await.expect("running");
    let first = added(&mut channel, id, forward(id, 5, 20));
    arbiter.update_channel(channel.id(), vec![first]).await.expect("stored");
    world.pass(&arbiter, 20).await;
    let told = drain(&mut notices).await;
    assert_eq!(told_of(&told, 5).first(), Some(&UpstreamResolution::Fail));
    let key = told[0].1.key();
    if acknowledge {
        arbiter.acknowledge(channel.id(), key).await.expect("running");
    }
    let second = added(&mut channel, id, successor);
    let updates = vec![
        second,
        channel.next_remote(1, &[id]),
        channel.revoke(0),
        channel.next_local(1, &[id]),
    ];
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    arbiter.idle().await.expect("running");
    (channel, arbiter, key)
}

#[tokio::test(start_paused = true)]
async fn a_successor_is_not_failed_with_a_forgotten_htlc() {
    let id = offered(0);
    let same_terms = Htlc { hash: preimage(5).hash(), ..forward(id, 6, 1_000) };
    for successor in [forward(id, 6, 1_000), same_terms] {
        let world = World::default();
        let (channel, arbiter, _) = succeeded(&world, successor, false).await;
        let mut notices = arbiter.notices().await.expect("running");
        let told = drain(&mut notices).await;
        assert_eq!(told_of(&told, 6), [], "it is live in both commitments");
        let report = arbiter.report(channel.id()).await.expect("running");
        assert_eq!(report.expect("watched").upstream, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_of_a_forgotten_htlc_is_fulfilled() {
    for acknowledge in [true, false] {
        let world = World::default();
        let (channel, arbiter, old) =
            succeeded(&world, forward(offered(0), 6, 1_000), acknowledge).await;
        let mut notices = arbiter.notices().await.expect("running");
        let source = PreimageSource::Downstream(offered(0));
        arbiter.preimage(channel.id(), preimage(6), source).await.expect("its hash");
        arbiter.idle().await.expect("running");
        let fulfilled = UpstreamResolution::Fulfil(preimage(6));
        let told = drain(&mut notices).await;
        assert_eq!(told_of(&told, 6).first(), Some(&fulfilled));
        let alert = |(_, notice): &(ChannelId, Notice)| matches!(notice, Notice::Alert(_));
        assert!(!told.iter().any(alert), "it was not failed: {told:?}");
        // The word about the forgotten one comes late: it is not about this one.
        arbiter.acknowledge(channel.id(), old).await.expect("running");
        arbiter.shutdown().await;
        let arbiter = world.restart(&[&channel]).await;
        let mut notices = arbiter.notices().await.expect("running");
        let told = drain(&mut notices).await;
        assert_eq!(told_of(&told, 6).first(), Some(&fulfilled));
    }
}
