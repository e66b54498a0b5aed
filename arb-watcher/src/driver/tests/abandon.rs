//! Channels that were never funded: when they are let go, and when not.
// incident ldk-4081 attack-16
use super::support::channel::{BIRTH, spend};
use super::support::*;
use crate::{AbandonError, Arbiter, CommandError, Delivery, Unfunded};
use arb_core::arbitrator::Notice;
use arb_core::facts::HtlcLink;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::{ChannelId, HtlcRef};
use arb_core::units::{BlockHeight, CltvExpiry, MilliSat};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, Txid};

/// A transaction that spends the coin of this channel's opener.
fn spends_the_coin(value: u64) -> Transaction {
    let coin = OutPoint { txid: Txid::from_byte_array([0xc0; 32]), vout: 3 };
    spend(coin, Amount::from_sat(value), ScriptBuf::from_bytes(vec![0x51]))
}

fn funding_tx() -> Transaction {
    spends_the_coin(1_000_000)
}

fn channel() -> Channel {
    let funding = OutPoint { txid: funding_tx().compute_txid(), vout: 0 };
    Channel::funded_by(1, StaticRemotekey, funding)
}

async fn abandon(arbiter: &Arbiter, why: Unfunded) -> Option<AbandonError> {
    match arbiter.abandon_channel(channel().id(), why).await {
        Ok(()) => None,
        Err(CommandError::NotAbandoned(_, why)) => Some(why),
        Err(other) => panic!("{other}"),
    }
}

fn double_spent() -> Unfunded {
    Unfunded::DoubleSpent(vec![funding_tx()])
}

#[tokio::test(start_paused = true)]
async fn a_channel_whose_funding_was_double_spent_is_let_go_once_that_is_deep() {
    let (world, channel) = (World::default(), channel());
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let mut events = arbiter.subscribe(id, "s", Delivery::Acknowledged).await.expect("watched");
    fail(&arbiter, id).await;
    let never = AbandonError::NotDoubleSpent(channel.funding().txid);
    assert_eq!(abandon(&arbiter, double_spent()).await, Some(never));
    let at = world.chain.mine(vec![spends_the_coin(1)]).height;
    world.pass(&arbiter, 98).await;
    let deep = AbandonError::TooShallow(BlockHeight(at.0 + 99));
    assert_eq!(abandon(&arbiter, double_spent()).await, Some(deep));
    world.pass(&arbiter, 1).await;
    assert_eq!(abandon(&arbiter, double_spent()).await, None);

    assert!(events.next().await.is_none(), "nothing more will come");
    assert_eq!(arbiter.report(id).await, Ok(None));
    let gone = Err(CommandError::UnknownChannel(id));
    assert_eq!(arbiter.abandon_channel(id, double_spent()).await, gone);
    arbiter.shutdown().await;
    assert_eq!(world.log.stored_facts(0), None);
    let arbiter = world.restart(&[]).await;
    assert_eq!(arbiter.report(id).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn a_funding_that_was_seen_is_not_let_go() {
    let (world, channel) = (World::default(), channel());
    let arbiter = world.watching(&channel).await;
    // A double spend that was reorganised away proves nothing.
    world.chain.mine(vec![spends_the_coin(1)]);
    world.pass(&arbiter, 3).await;
    world.chain.undo(4);
    let at = world.chain.mine(vec![funding_tx()]);
    world.pass(&arbiter, 110).await;
    assert_eq!(abandon(&arbiter, double_spent()).await, Some(AbandonError::Seen(at)));
    // Nor does one of something else.
    let other = Unfunded::DoubleSpent(vec![spends_the_coin(2)]);
    let unmade = AbandonError::NotItsFunding(channel.funding());
    assert_eq!(abandon(&arbiter, other).await, Some(unmade));
    let spent = world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(
        abandon(&arbiter, Unfunded::NothingAtStake).await,
        Some(AbandonError::Seen(spent)),
        "and it was spent"
    );
    assert!(arbiter.report(channel.id()).await.expect("running").is_some(), "still watched");
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_moves_during_the_search_is_searched_again() {
    let (world, channel) = (World::default(), channel());
    let arbiter = world.watching(&channel).await;
    let conflict = world.chain.mine(vec![spends_the_coin(1)]);
    world.pass(&arbiter, 120).await;
    let last = world.chain.tip_now();
    world.chain.before(world.chain.best()[60], move |chain| {
        let blocks = last.height.0 - conflict.height.0 + 1;
        chain.undo(blocks as usize);
        chain.mine(vec![funding_tx()]);
        chain.mine_many(blocks);
    });
    let seen = abandon(&arbiter, double_spent()).await;
    assert!(
        matches!(seen, Some(AbandonError::Seen(at)) if at.height == conflict.height),
        "{seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_open_upstream_comes_first() {
    let (world, mut channel) = (World::default(), channel());
    channel.add(offered(0));
    channel.add(offered(1));
    channel.next_remote(1, &[offered(0), offered(1)]);
    let expiry = CltvExpiry(BlockHeight(BIRTH + 450));
    let (incoming, amount) =
        (HtlcRef { channel: ChannelId([9; 32]), htlc: received(7) }, MilliSat(1));
    let forwarded = channel.facts.htlcs.get_mut(&offered(0)).expect("just added");
    forwarded.htlc.link = HtlcLink::ForwardOf { incoming, expiry, amount };
    let arbiter = world.watching(&channel).await;
    world.chain.mine(vec![spends_the_coin(1)]);
    world.pass(&arbiter, 100).await;
    let open = Some(AbandonError::OpenUpstream(offered(0)));
    assert_eq!(abandon(&arbiter, double_spent()).await, open);
    let mut notices = arbiter.notices().await.expect("running");
    let mut told = Vec::new();
    while told.is_empty() && world.chain.tip_now().height < expiry.0 {
        world.pass(&arbiter, 1).await;
        told = drain(&mut notices).await;
        told.retain(|(_, notice)| matches!(notice, Notice::Upstream { .. }));
    }
    assert_eq!(abandon(&arbiter, double_spent()).await, open, "told, and not acknowledged");
    for (id, notice) in told {
        arbiter.acknowledge(id, notice.key()).await.expect("watched");
    }
    assert_eq!(abandon(&arbiter, double_spent()).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_the_peer_opened_is_let_go_while_nothing_of_it_is_ours() {
    let at_stake = Some(AbandonError::AtStake);
    let ours = channel();
    let given = channel().opened_by_peer(MilliSat(1));
    let mut used = channel().opened_by_peer(MilliSat(0));
    used.add(received(0));
    let bare = channel().opened_by_peer(MilliSat(0));
    for (channel, expected) in [(ours, at_stake), (given, at_stake), (used, at_stake), (bare, None)]
    {
        let world = World::default();
        let arbiter = world.watching(&channel).await;
        assert_eq!(abandon(&arbiter, Unfunded::NothingAtStake).await, expected);
        let gone = arbiter.report(channel.id()).await.expect("running").is_none();
        assert_eq!(gone, expected.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_leaves_the_channel_watched() {
    let (world, channel) = (World::default(), channel().opened_by_peer(MilliSat(0)));
    let arbiter = world.watching(&channel).await;
    world.log.refuse(true);
    let refused = arbiter.abandon_channel(channel.id(), Unfunded::NothingAtStake).await;
    assert!(matches!(refused, Err(CommandError::NotStored(_))), "{refused:?}");
    assert!(arbiter.report(channel.id()).await.expect("running").is_some());
    world.log.refuse(false);
    assert_eq!(abandon(&arbiter, Unfunded::NothingAtStake).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_a_subscriber_is_to_acknowledge_comes_first() {
    let (world, channel) = (World::default(), channel());
    let arbiter = world.watching(&channel).await;
    let how = Delivery::Acknowledged;
    let mut events = arbiter.subscribe(channel.id(), "a", how).await.expect("watched");
    let mut detached =
        arbiter.subscribe(channel.id(), "b", Delivery::Detached).await.expect("watched");
    // Funded and closed, in a block that is gone.
    world.chain.mine(vec![funding_tx(), channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    world.chain.undo(1);
    world.chain.mine(vec![spends_the_coin(1)]);
    world.pass(&arbiter, 110).await;
    let refused = abandon(&arbiter, double_spent()).await;
    assert_eq!(refused, Some(AbandonError::Unacknowledged));
    let told: Vec<u64> = std::iter::from_fn(|| events.try_next()).map(|d| d.number).collect();
    assert_eq!(told, [0, 1], "closed, and back");
    events.acknowledge(0).await.expect("stored");
    let refused = abandon(&arbiter, double_spent()).await;
    assert_eq!(refused, Some(AbandonError::Unacknowledged));
    events.acknowledge(1).await.expect("stored");
    assert_eq!(abandon(&arbiter, double_spent()).await, None);
    let told: Vec<u64> = std::iter::from_fn(|| detached.try_next()).map(|d| d.number).collect();
    assert_eq!(told, [0, 1], "who is not waited for has them all the same");
    assert!(detached.next().await.is_none());
}
