//! Updates: receipts after appends, appends that fail, blocks that touch channels meanwhile, and
//! the fence.
use super::support::*;
use crate::{Arbiter, CommandError, Ended, Receipt};
use arb_core::arbitrator::{Phase, PreimageSource};
use arb_core::classify::FundingSpend;
use arb_core::facts::{ChannelNames, Link, ShutdownScripts, Signals, Update, UpdateError};
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::{ChannelId, ShortChannelId};
use arb_core::units::CommitmentNumber;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

type Updating = JoinHandle<Result<Receipt, CommandError>>;

/// Sends an update, and lets the driver take it.
async fn send(arbiter: &Arbiter, id: ChannelId, updates: Vec<Update>) -> Updating {
    let arbiter = arbiter.clone();
    let updating = tokio::spawn(async move { arbiter.update_channel(id, updates).await });
    settle().await;
    updating
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// What is durable with all that a channel was told.
fn receipt(channel: &Channel) -> Receipt {
    Receipt::of(&channel.facts)
}

fn refused<T>(answer: &Result<T, CommandError>) -> bool {
    matches!(answer, Err(CommandError::NotStored(_)))
}

#[tokio::test(start_paused = true)]
async fn the_receipt_comes_after_the_append() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let before = channel.facts.clone();
    let gate = world.log.hold();
    let updates = vec![channel.add(offered(0)), channel.next_local(1, &[offered(0)])];
    let updating = send(&arbiter, channel.id(), updates).await;
    assert!(!updating.is_finished());
    assert_eq!(world.log.stored_facts(0), Some(before));
    gate.pass();
    let receipt = updating.await.expect("no panic").expect("stored");
    assert_eq!(world.log.stored_facts(0), Some(channel.facts.clone()));
    let numbers = (CommitmentNumber(1), CommitmentNumber(0));
    assert_eq!((receipt.channel, (receipt.local, receipt.remote)), (channel.id(), numbers));
    let remote = channel.next_remote(1, &[offered(0)]);
    let updates = vec![remote, channel.revoke(0)];
    let receipt = arbiter.update_channel(channel.id(), updates).await.expect("stored");
    assert_eq!((receipt.local, receipt.remote), (CommitmentNumber(1), CommitmentNumber(1)));
}

/// Facts that are on their way to the store are not said to be watched before they are there.
#[tokio::test(start_paused = true)]
async fn what_is_watched_again_is_no_sooner_durable_than_its_update() {
    for passes in [true, false] {
        let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        let gate = world.log.hold();
        let update = vec![channel.next_local(1, &[])];
        let updating = send(&arbiter, channel.id(), update).await;
        let watching = tokio::spawn({
            let (arbiter, facts) = (arbiter.clone(), channel.facts.clone());
            async move { arbiter.watch_channel(facts).await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!updating.is_finished() && !watching.is_finished());
        if passes {
            gate.pass();
            assert_eq!(updating.await.expect("no panic"), Ok(receipt(&channel)));
            assert_eq!(watching.await.expect("no panic"), Ok(()));
            assert_eq!(world.log.stored_facts(0), Some(channel.facts));
        } else {
            gate.refuse();
            assert!(refused(&updating.await.expect("no panic")));
            assert!(refused(&watching.await.expect("no panic")));
        }
    }
}

/// Whoever calls again and again while the store does not answer fills a queue that is bounded, and no memory.
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_fills_no_memory() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let gates: Vec<_> = (0..2_000).map(|_| world.log.hold()).collect();
    let mut told = Vec::new();
    for amount in 1..=1_100 {
        let mut htlc = terms(offered(0));
        htlc.amount.0 += amount;
        let (arbiter, id) = (arbiter.clone(), channel.id());
        let update = vec![Update::HtlcAdded { id: offered(0), htlc }];
        told.push(tokio::spawn(async move { arbiter.update_channel(id, update).await }));
    }
    settle().await;
    let taken = || world.log.held();
    assert!((1_024..1_100).contains(&taken()), "{}", taken());
    let counts = timeout(Duration::from_secs(60), arbiter.counts()).await;
    assert!(counts.is_err(), "commands wait");
    gates.into_iter().for_each(Gate::pass);
    for answer in told {
        assert_eq!(answer.await.expect("no panic"), Ok(receipt(&channel)));
    }
    arbiter.idle().await.expect("running");
    assert_eq!(arbiter.counts().await.map(|counts| counts.appends), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn a_refused_append_leaves_the_facts_as_they_were() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let (id, before) = (channel.id(), channel.facts.clone());
    let first = vec![channel.next_local(1, &[])];
    world.log.refuse(true);
    assert!(refused(&arbiter.update_channel(id, first.clone()).await));
    world.log.refuse(false);
    assert_eq!(arbiter.watch_channel(before).await, Ok(()), "the facts as they were");
    // What was refused and what follows it do not rest on anything that was not stored.
    assert_eq!(arbiter.update_channel(id, first).await, Ok(receipt(&channel)));
    assert_eq!(world.log.stored_facts(0), Some(channel.facts.clone()));

    // The same for an active channel.
    fail(&arbiter, id).await;
    let remote = Some(channel.facts.destination.clone());
    let shutdown = Update::Shutdown(ShutdownScripts { local: None, remote });
    world.log.refuse(true);
    assert!(refused(&arbiter.update_channel(id, vec![shutdown.clone()]).await));
    let close = channel.mutual_tx().compute_txid();
    assert!(refused(&arbiter.channel_closed_cooperatively(id, close).await));
    world.log.refuse(false);
    assert_eq!(arbiter.update_channel(id, vec![shutdown]).await, Ok(receipt(&channel)));
}

/// What is asked for while the driver is busy is taken together: in the order in which it came all the same.
#[tokio::test(start_paused = true)]
async fn what_comes_together_is_stored_in_its_order() {
    let world = World::default();
    let mut channels: Vec<Channel> = (1..=20).map(|at| Channel::new(at, StaticRemotekey)).collect();
    let arbiter = world.watching(&channels[0]).await;
    for channel in &channels[1..] {
        arbiter.watch_channel(channel.facts.clone()).await.expect("watched");
    }
    world.log.forget_order();
    let (mut calls, mut failing) = (Vec::new(), None);
    for (slot, channel) in (0..).zip(&mut channels) {
        let (telling, id, update) = (arbiter.clone(), channel.id(), channel.next_local(1, &[]));
        calls.push(tokio::spawn(async move { telling.update_channel(id, vec![update]).await }));
        if slot == 12 {
            // It rests on the newest facts of its channel, which are on their way.
            let arbiter = arbiter.clone();
            failing = Some(tokio::spawn(async move { arbiter.fail_channel(id).await.map(drop) }));
        }
    }
    for call in calls {
        call.await.expect("no panic").expect("stored");
    }
    failing.expect("asked for").await.expect("no panic").expect("failed");
    // Facts that are still on their way go with the command that rests on them once more.
    let mut order = world.log.order_of_facts();
    order.dedup();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
    for (slot, channel) in (0..).zip(&channels) {
        assert_eq!(world.log.stored_facts(slot).as_ref(), Some(&channel.facts));
    }
}

/// A store that answers for fewer appends than it was asked for: nobody waits for ever.
#[tokio::test(start_paused = true)]
async fn a_receipt_that_never_comes_ends_the_arbiter() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.log.give_no_receipts();
    let answer = arbiter.update_channel(channel.id(), vec![channel.next_local(1, &[])]).await;
    assert!(refused(&answer), "{answer:?}");
    assert!(matches!(arbiter.ended().await, Ended::Store(_)));
}

#[tokio::test(start_paused = true)]
async fn an_update_is_all_or_nothing() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let before = channel.facts.clone();
    let good = channel.next_local(1, &[]);
    let bad = channel.next_remote(1, &[]);
    let worse = channel.revoke(0);
    let answer = arbiter.update_channel(channel.id(), vec![good, worse, bad]).await;
    assert!(matches!(answer, Err(CommandError::Facts(_))), "{answer:?}");
    assert_eq!(world.log.stored_facts(0), Some(before));
}

#[tokio::test(start_paused = true)]
async fn what_is_told_again_is_no_sooner_durable_than_what_was_told_first() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let (first, second) = (world.log.hold(), world.log.hold());
    let update = channel.add(offered(0));
    let told = send(&arbiter, channel.id(), vec![update.clone()]).await;
    let again = send(&arbiter, channel.id(), vec![update]).await;
    assert!(!told.is_finished() && !again.is_finished());
    first.refuse();
    second.refuse();
    for answer in [told, again] {
        assert!(refused(&answer.await.expect("no panic")));
    }
}

/// A channel whose peer had an HTLC that leaves with the revocation of its commitment 1.
fn about_to_end() -> (Channel, Update) {
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.add(offered(0));
    channel.next_remote(1, &[offered(0)]);
    channel.revoke(0);
    channel.next_remote(2, &[]);
    let mut after = Channel::new(1, StaticRemotekey);
    after.facts = channel.facts.clone();
    let ending = after.revoke(1);
    (channel, ending)
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_append_brought_comes_with_the_next() {
    let (mut channel, ending) = about_to_end();
    let world = World::default();
    let arbiter = world.watching(&channel).await;
    channel.revoke(1);
    let (first, second) = (world.log.hold(), world.log.hold());
    let ending = send(&arbiter, channel.id(), vec![ending]).await;
    let next = channel.next_local(1, &[]);
    let later = send(&arbiter, channel.id(), vec![next]).await;
    first.refuse();
    settle().await;
    assert!(!ending.is_finished(), "the next append may hold it");
    second.pass();
    ending.await.expect("no panic").expect("stored with the next");
    later.await.expect("no panic").expect("stored");
    assert_eq!(world.log.stored_facts(0), Some(channel.facts));
    assert_eq!(world.log.stored_ended(0, 1), [offered(0)], "the penalty data");
}

// incident ldk-3984
#[tokio::test(start_paused = true)]
async fn facts_rest_on_the_newest_that_may_become_durable() {
    // Which of three appends fail, and in which order they end.
    for fail in 0..8_u8 {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
            let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
            let arbiter = world.watching(&channel).await;
            let id = channel.id();
            let mut gates = Vec::new();
            let mut sent = Vec::new();
            for htlc in 0..3 {
                gates.push(Some(world.log.hold()));
                let update = channel.add(offered(htlc));
                sent.push(send(&arbiter, id, vec![update]).await);
            }
            // A store applies in order: those that pass do so when their turn comes.
            let mut waiting = Vec::new();
            for index in order {
                let fails = fail & (1 << index) != 0;
                if fails {
                    gates[index].take().expect("once").refuse();
                } else {
                    waiting.push(index);
                }
                settle().await;
            }
            waiting.sort_unstable();
            for index in waiting {
                gates[index].take().expect("once").pass();
                settle().await;
            }
            let last = (0..3).rev().find(|index| fail & (1 << index) == 0);
            for (index, answer) in sent.into_iter().enumerate() {
                let answer = answer.await.expect("no panic");
                let durable = last.is_some_and(|last| index <= last);
                assert_eq!(answer.is_ok(), durable, "{fail:03b} {order:?} {index}: {answer:?}");
                let stored = world.log.stored_facts(0).expect("facts");
                let held = stored.htlcs.contains_key(&offered(index as u64));
                assert_eq!(held, durable, "{fail:03b} {order:?} {index}");
            }
            // And so does what comes after.
            let update = channel.add(offered(3));
            arbiter.update_channel(id, vec![update]).await.expect("stored");
            let stored = world.log.stored_facts(0).expect("facts");
            assert_eq!(stored.htlcs.len(), 1 + last.map_or(0, |last| last + 1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_sees_facts_that_are_on_their_way() {
    for pass in [true, false] {
        let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        let gate = world.log.hold();
        let next = channel.next_remote(1, &[]);
        let updating = send(&arbiter, channel.id(), vec![next]).await;
        world.chain.mine(vec![channel.remote_tx(1, &[])]);
        settle().await;
        let phase = Phase::Closed(FundingSpend::RemoteCommitment(number(1)));
        let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
        assert_eq!(report.phase, phase);
        // The facts went with the block, whatever becomes of their own append.
        updating.await.expect("no panic").expect("stored with the block");
        assert_eq!(world.log.stored_facts(0), Some(channel.facts.clone()));
        if pass {
            gate.pass();
        } else {
            gate.refuse();
        }
        arbiter.shutdown().await;
        let arbiter = world.restart(&[&channel]).await;
        let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
        assert_eq!(report.phase, phase);
    }
}

async fn assert_fenced(arbiter: &Arbiter, channel: &mut Channel) {
    let id = channel.id();
    let mut other = Channel::new(1, StaticRemotekey);
    other.facts = channel.facts.clone();
    let newer = other.next_local(1, &[]);
    let fenced = Err(CommandError::Facts(UpdateError::Fenced));
    assert_eq!(arbiter.update_channel(id, vec![newer.clone()]).await, fenced);
    let others = vec![
        channel.next_remote(1, &[]),
        channel.revoke(0),
        Update::Shutdown(ShutdownScripts::default()),
    ];
    assert_eq!(arbiter.update_channel(id, [others.clone(), vec![newer]].concat()).await, fenced);
    assert_eq!(arbiter.update_channel(id, others).await, Ok(receipt(channel)));
    let same = Update::LocalCommitment {
        funding: channel.funding(),
        commitment: channel.facts.candidates.current.local.clone(),
    };
    assert_eq!(arbiter.update_channel(id, vec![same]).await, Ok(receipt(channel)), "told again");
    let preimage = super::support::preimage(0);
    let unfit = Err(CommandError::UnknownHash(preimage.hash()));
    assert_eq!(arbiter.preimage(id, preimage, PreimageSource::Node).await, unfit);
}

#[tokio::test(start_paused = true)]
async fn no_newer_commitment_once_one_was_handed_out() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    fail(&arbiter, channel.id()).await;
    assert_fenced(&arbiter, &mut channel).await;
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    let newer = channel.next_local(1, &[]);
    let fenced = Err(CommandError::Facts(UpdateError::Fenced));
    assert_eq!(arbiter.update_channel(channel.id(), vec![newer]).await, fenced);
}

#[tokio::test(start_paused = true)]
async fn no_newer_commitment_once_the_funding_output_is_spent() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_fenced(&arbiter, &mut channel).await;
    let closed = Err(CommandError::Closed(channel.id()));
    assert_eq!(arbiter.fail_channel(channel.id()).await, closed);
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_order_or_does_not_fit_is_refused_with_the_reason() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let [remote, secret] = [channel.next_remote(1, &[]), channel.revoke(0)];
    let [remote_2, secret_2] = [channel.next_remote(2, &[]), channel.revoke(1)];
    let [local, local_2] = [channel.next_local(1, &[]), channel.next_local(2, &[])];
    let Update::RemoteRevoked { secret: of_1, .. } = secret_2 else { panic!("a secret") };
    let foreign = Update::RemoteRevoked { number: number(0), secret: of_1 };
    let remote_number = |stated, expected| UpdateError::UnexpectedRemoteNumber {
        stated: number(stated),
        expected: number(expected),
    };
    let old = UpdateError::LocalNumberTooOld { stated: number(1), current: number(2) };
    let story = [
        (remote_2.clone(), Some(remote_number(2, 1))),
        (secret.clone(), Some(UpdateError::NoNextCommitment(channel.funding()))),
        (remote, None),
        (secret_2.clone(), Some(remote_number(1, 0))),
        (foreign, Some(UpdateError::SecretMismatch)),
        (remote_2.clone(), Some(remote_number(2, 1))),
        (secret, None),
        (remote_2, None),
        (secret_2, None),
        (local_2, None),
        (local, Some(old)),
    ];
    for (update, refused) in story {
        let before = world.log.stored_facts(0);
        let answer = arbiter.update_channel(id, vec![update]).await;
        let expected = refused.map_or(Ok(()), |why| Err(CommandError::Facts(why)));
        assert_eq!(answer.map(drop), expected);
        assert_eq!(world.log.stored_facts(0) == before, refused.is_some(), "{refused:?}");
    }
    assert_eq!(world.log.stored_facts(0), Some(channel.facts));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_channel_is_refused() {
    let world = World::default();
    let arbiter = world.start().await;
    let id = ChannelId([9; 32]);
    let unknown = Err(CommandError::UnknownChannel(id));
    assert_eq!(arbiter.update_channel(id, vec![]).await, unknown);
    assert_eq!(arbiter.fail_channel(id).await, Err(CommandError::UnknownChannel(id)));
    assert_eq!(arbiter.report(id).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn signals_are_reported_and_only_names_are_kept() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let names = |id| ChannelNames { short_channel_id: Some(ShortChannelId(id)), aliases: vec![] };
    let signals = |id, link| vec![Update::Signals(Signals { names: names(id), link })];
    let reported = async |arbiter: &Arbiter| {
        let report = arbiter.report(id).await.expect("running").expect("watched");
        (report.names, report.link)
    };
    assert_eq!(reported(&arbiter).await, (ChannelNames::default(), None));
    arbiter.update_channel(id, signals(7, Link::Up)).await.expect("stored");
    assert_eq!(reported(&arbiter).await, (names(7), Some(Link::Up)));

    // That a peer comes and goes is not stored, and waits for no store; of an active channel, too.
    for active in [false, true] {
        if active {
            world.log.refuse(false);
            fail(&arbiter, id).await;
        }
        world.log.refuse(true);
        for link in [Link::Down, Link::Up] {
            assert_eq!(arbiter.update_channel(id, signals(7, link)).await, Ok(receipt(&channel)));
            assert_eq!(reported(&arbiter).await, (names(7), Some(link)));
        }
        assert!(refused(&arbiter.update_channel(id, signals(8, Link::Down)).await));
        assert_eq!(reported(&arbiter).await, (names(7), Some(Link::Up)), "all or nothing");
    }
    world.log.refuse(false);
    arbiter.update_channel(id, signals(8, Link::Down)).await.expect("stored");
    assert_eq!(reported(&arbiter).await, (names(8), Some(Link::Down)));
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    assert_eq!(reported(&arbiter).await, (names(8), None), "nobody has said so since the start");
}
