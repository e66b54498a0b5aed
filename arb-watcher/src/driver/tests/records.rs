//! Records of the node's own that are written with facts: never before them, and never without them.
use super::support::*;
use crate::{Arbiter, CommandError, Receipt};
use arb_core::arbitrator::{Phase, PreimageSource};
use arb_core::classify::FundingSpend;
use arb_core::facts::{ShutdownScripts, Update};
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::ChannelId;
use arb_core::log::ByteRecord;
use bitcoin::{Amount, ScriptBuf};
use tokio::task::JoinHandle;

const FOLDER: &str = "channels";

fn record(name: &str, bytes: &[u8]) -> ByteRecord {
    ByteRecord { folder: FOLDER.to_owned(), name: name.to_owned(), bytes: bytes.to_vec() }
}

/// Sends an update with records, and lets the driver take it.
async fn send(
    arbiter: &Arbiter,
    (id, update): (ChannelId, Update),
    records: Vec<ByteRecord>,
) -> JoinHandle<Result<Receipt, CommandError>> {
    let telling = arbiter.clone();
    let updating =
        tokio::spawn(async move { telling.update_channel_with(id, vec![update], records).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    updating
}

fn kept(world: &World, name: &str) -> Option<Vec<u8>> {
    world.log.stored_record(FOLDER, name)
}

#[tokio::test(start_paused = true)]
async fn they_are_written_with_the_facts() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let gate = world.log.hold();
    let writes = world.log.channel_writes();
    let update = (channel.id(), channel.next_local(1, &[]));
    let updating = send(&arbiter, update, vec![record("a", b"1"), record("b", b"2")]).await;
    assert!(!updating.is_finished() && kept(&world, "a").is_none());
    gate.pass();
    updating.await.expect("no panic").expect("stored");
    assert_eq!(world.log.stored_facts(0), Some(channel.facts.clone()));
    assert_eq!([kept(&world, "a"), kept(&world, "b")], [Some(vec![b'1']), Some(vec![b'2'])]);
    assert_eq!(world.log.channel_writes(), writes + 3, "one append: facts, and two records");

    // With facts that the log has already, or without any.
    for updates in [vec![channel.next_local(1, &[])], vec![]] {
        let name = format!("{}", updates.len());
        let told = arbiter.update_channel_with(channel.id(), updates, vec![record(&name, b"3")]);
        told.await.expect("stored");
        assert_eq!(kept(&world, &name), Some(vec![b'3']));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_leaves_none() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let (id, records) = (channel.id(), || vec![record("a", b"1")]);
    let as_it_was = Receipt::of(&channel.facts);
    let next = channel.next_remote(1, &[]);
    // The peer cannot have revoked before it has the next one.
    let out_of_order = vec![channel.revoke(0), next];
    let answer = arbiter.update_channel_with(id, out_of_order, records()).await;
    assert!(matches!(answer, Err(CommandError::Facts(_))), "{answer:?}");
    let answer = arbiter.update_channel_with(ChannelId([9; 32]), vec![], records()).await;
    assert!(matches!(answer, Err(CommandError::UnknownChannel(_))), "{answer:?}");
    let badly_named = arbiter.update_channel_with(id, vec![], vec![record("", b"1")]).await;
    assert!(matches!(badly_named, Err(CommandError::NotStored(_))), "{badly_named:?}");
    world.log.refuse(true);
    let answer = arbiter.update_channel_with(id, vec![], records()).await;
    assert!(matches!(answer, Err(CommandError::NotStored(_))), "{answer:?}");
    world.log.refuse(false);
    assert_eq!(kept(&world, "a"), None);
    let receipt = arbiter.update_channel_with(id, vec![], records()).await;
    assert_eq!(receipt, Ok(as_it_was));
}

/// An append that failed counts as done when the next one is: all that it brought must be in that one.
#[tokio::test(start_paused = true)]
async fn those_of_a_failed_append_come_with_the_next() {
    for order in [[0, 1], [1, 0]] {
        let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        let mut gates = [world.log.hold(), world.log.hold()].map(Some);
        let first = (channel.id(), channel.add(offered(0)));
        let records = vec![record("a", b"old"), record("b", b"first")];
        let first = send(&arbiter, first, records).await;
        let second = (channel.id(), channel.add(offered(1)));
        let second = send(&arbiter, second, vec![record("a", b"new")]).await;
        for index in order {
            let gate = gates[index].take().expect("once");
            if index == 0 {
                gate.refuse()
            } else {
                gate.pass()
            }
            tokio::task::yield_now().await;
        }
        for updating in [first, second] {
            updating.await.expect("no panic").expect("stored with the second");
        }
        assert_eq!(kept(&world, "a").as_deref(), Some(&b"new"[..]));
        assert_eq!(kept(&world, "b").as_deref(), Some(&b"first"[..]));
    }
    // Three of them, of which the last alone is taken, and of which the first two fail in either order.
    for order in [[0, 1], [1, 0]] {
        let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        let mut gates: Vec<_> = (0..3).map(|_| Some(world.log.hold())).collect();
        let mut sent = Vec::new();
        for at in 0..3 {
            let update = (channel.id(), channel.add(offered(at)));
            let records = vec![record("same", &[at as u8]), record(&format!("{at}"), b"own")];
            sent.push(send(&arbiter, update, records).await);
        }
        for index in order {
            gates[index].take().expect("once").refuse();
            tokio::task::yield_now().await;
        }
        gates[2].take().expect("once").pass();
        for updating in sent {
            updating.await.expect("no panic").expect("stored with the last");
        }
        assert_eq!(kept(&world, "same"), Some(vec![2]));
        assert!((0..3).all(|at| kept(&world, &format!("{at}")).is_some()));
    }
}

/// Facts that are on their way go with a block that needs them, and count as told then: so must what comes with them.
#[tokio::test(start_paused = true)]
async fn a_block_takes_them_along() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let gate = world.log.hold();
    let update = (channel.id(), channel.next_remote(1, &[]));
    let updating = send(&arbiter, update, vec![record("a", b"1")]).await;
    world.chain.mine(vec![channel.remote_tx(1, &[])]);
    updating.await.expect("no panic").expect("stored with the block");
    assert_eq!(kept(&world, "a"), Some(vec![b'1']));
    gate.refuse();
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    assert_eq!(report.phase, Phase::Closed(FundingSpend::RemoteCommitment(number(1))));
}

#[tokio::test(start_paused = true)]
async fn those_of_a_channel_that_closes_come_with_its_facts() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let id = channel.id();
    arbiter.fail_channel(id).await.expect("handed out");
    let shutdown = |byte| {
        let remote = Some(ScriptBuf::from_bytes(vec![byte]));
        vec![Update::Shutdown(ShutdownScripts { local: None, remote })]
    };
    let script = |world: &World| world.log.stored_facts(0).and_then(|facts| facts.shutdown.remote);
    arbiter.update_channel_with(id, shutdown(0x51), vec![record("a", b"1")]).await.expect("taken");
    assert_eq!(kept(&world, "a"), Some(vec![b'1']));
    assert_eq!(script(&world), Some(ScriptBuf::from_bytes(vec![0x51])));

    // Told again, with another record.
    arbiter.update_channel_with(id, shutdown(0x51), vec![record("b", b"1")]).await.expect("taken");
    assert_eq!(kept(&world, "b"), Some(vec![b'1']));

    // All of it or nothing.
    world.log.refuse(true);
    let answer = arbiter.update_channel_with(id, shutdown(0x52), vec![record("a", b"2")]).await;
    assert!(matches!(answer, Err(CommandError::NotStored(_))), "{answer:?}");
    world.log.refuse(false);
    assert_eq!(kept(&world, "a"), Some(vec![b'1']));
    assert_eq!(script(&world), Some(ScriptBuf::from_bytes(vec![0x51])));
    let newer = vec![channel.next_local(1, &[])];
    let answer = arbiter.update_channel_with(id, newer, vec![record("a", b"3")]).await;
    assert!(matches!(answer, Err(CommandError::Facts(_))), "{answer:?}");
    assert_eq!(kept(&world, "a"), Some(vec![b'1']), "the channel is fenced");
    let writes = world.log.channel_writes();
    arbiter.update_channel_with(id, shutdown(0x53), vec![record("a", b"4")]).await.expect("taken");
    assert_eq!(kept(&world, "a"), Some(vec![b'4']));
    assert!(world.log.channel_writes() >= writes + 2, "facts and a record");
}

#[tokio::test(start_paused = true)]
async fn those_of_a_splice_follow_it() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let to = ScriptBuf::from_bytes(vec![0x51]);
    let added = channel.splice(&spend(channel.funding(), Amount::from_sat(1_000_000), to));
    let told = arbiter.update_channel_with(channel.id(), vec![added], vec![record("a", b"1")]);
    told.await.expect("sound");
    assert_eq!(world.log.stored_facts(0), Some(channel.facts));
    assert_eq!(kept(&world, "a"), Some(vec![b'1']));
}

/// All of it is one append, and nothing of it is there before.
#[tokio::test(start_paused = true)]
async fn a_preimage_is_written_with_the_facts() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let gate = world.log.hold();
    let writes = world.log.channel_writes();
    let learned = Update::Preimage { preimage: preimage(0), source: PreimageSource::Node };
    let (id, updates) = (channel.id(), vec![channel.add(received(0)), learned.clone()]);
    let telling = arbiter.clone();
    let told = tokio::spawn(async move {
        telling.update_channel_with(id, updates, vec![record("a", b"1")]).await
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!told.is_finished() && world.log.stored_changes(0).is_empty());
    gate.pass();
    told.await.expect("no panic").expect("stored");
    assert_eq!(world.log.channel_writes(), writes + 3, "facts, a change and a record");
    assert_eq!(world.log.stored_changes(0).len(), 1);
    assert_eq!(kept(&world, "a"), Some(vec![b'1']));
    // Again, and one that nobody wants: no error, and nothing to write.
    let unwanted = Update::Preimage { preimage: preimage(7), source: PreimageSource::Node };
    for update in [learned, unwanted] {
        arbiter.update_channel(id, vec![update]).await.expect("no error");
    }
    assert_eq!(world.log.channel_writes(), writes + 3);
}
