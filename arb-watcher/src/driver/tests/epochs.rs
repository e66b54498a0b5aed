//! Epochs: every move of the tip, told to whoever holds one; and what is left of holders that end.
use super::support::*;
use crate::{Arbiter, Counts, Delivery, Epoch, Epochs};
use arb_core::arbitrator::Position;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::Slot;
use arb_core::log::ChangeLog as _;
use arb_core::units::BlockRef;
#[cfg(target_os = "linux")]
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const fn connected(block: BlockRef, position: Position) -> Epoch {
    Epoch::Connected { block, position }
}

fn all(epochs: &mut Epochs) -> Vec<Epoch> {
    std::iter::from_fn(|| epochs.try_next()).collect()
}

#[tokio::test(start_paused = true)]
async fn epochs_begin_with_the_tip_and_follow_it_back_and_forth() {
    let world = World::default();
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    let first = world.chain.tip_now();
    let mut epochs = arbiter.epochs().await.expect("running");
    assert_eq!(all(&mut epochs), [connected(first, Position::AtTip)]);
    let (one, two) = (world.chain.mine(vec![]), world.chain.mine(vec![]));
    arbiter.idle().await.expect("running");
    let moves = [connected(one, Position::CatchingUp), connected(two, Position::AtTip)];
    assert_eq!(all(&mut epochs), moves);

    world.chain.undo(2);
    let (other, tip) = (world.chain.mine(vec![]), world.chain.mine(vec![]));
    let newest = world.chain.mine(vec![]);
    arbiter.idle().await.expect("running");
    let moves = [
        Epoch::Disconnected { block: two },
        Epoch::Disconnected { block: one },
        connected(other, Position::CatchingUp),
        connected(tip, Position::CatchingUp),
        connected(newest, Position::AtTip),
    ];
    assert_eq!(all(&mut epochs), moves);
    assert_eq!(all(&mut epochs), []);

    // What is told is durable, and after a restart the story goes on from there.
    arbiter.kill();
    assert_eq!(epochs.next().await, None);
    let arbiter = world.restart(&[]).await;
    let mut epochs = arbiter.epochs().await.expect("running");
    arbiter.idle().await.expect("running");
    let reached = Epoch::ReachedTip { block: newest };
    assert_eq!(all(&mut epochs), [connected(newest, Position::CatchingUp), reached]);
}

#[tokio::test(start_paused = true)]
async fn an_arbiter_without_a_tip_tells_of_the_first() {
    let world = World::default();
    world.chain.is(Mood::Fails);
    let arbiter = world.start().await;
    let mut epochs = arbiter.epochs().await.expect("running");
    assert_eq!(all(&mut epochs), []);
    world.chain.is(Mood::Well);
    arbiter.idle().await.expect("running");
    let tip = world.chain.tip_now();
    let moves = [connected(tip, Position::CatchingUp), Epoch::ReachedTip { block: tip }];
    assert_eq!(all(&mut epochs), moves);
}

#[tokio::test(start_paused = true)]
async fn a_slow_holder_is_told_what_it_missed_and_goes_on_at_the_newest() {
    let world = World::default();
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    let mut slow = arbiter.epochs().await.expect("running");
    assert!(matches!(slow.next().await, Some(Epoch::Connected { .. })));
    world.chain.mine_many(2000);
    arbiter.idle().await.expect("running");
    let tip = world.chain.tip_now();
    assert_eq!(world.log.tip(), Some(tip), "it held no block up");
    assert_eq!(slow.next().await, Some(Epoch::Missed { epochs: 1999 }));
    assert_eq!(slow.next().await, Some(connected(tip, Position::AtTip)));
    assert!(timeout(Duration::from_secs(1), slow.next()).await.is_err());
    let next = world.chain.mine(vec![]);
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut slow), [connected(next, Position::AtTip)]);
}

/// A name that nobody has had before.
fn fresh() -> String {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    format!("name {}", NAMES.fetch_add(1, Ordering::SeqCst))
}

/// Everything that can be held, so many times.
async fn hold(arbiter: &Arbiter, channel: &Channel, many: usize) -> Vec<Box<dyn Send>> {
    let mut held: Vec<Box<dyn Send>> = Vec::new();
    for _ in 0..many {
        held.push(Box::new(arbiter.epochs().await.expect("running")));
        held.push(Box::new(arbiter.notices().await.expect("running")));
        let opened = arbiter.subscribe(channel.id(), &fresh(), Delivery::Detached).await;
        held.push(Box::new(opened.expect("watched")));
        let opened = arbiter.subscribe_all(&fresh(), Delivery::Detached).await;
        held.push(Box::new(opened.expect("a new name")));
    }
    held
}

/// Names of subscriptions that the store holds: of one to all channels, and of one to the first.
fn stored_names(world: &World) -> usize {
    let of_one = world.log.channel(Slot(0)).expect("readable").expect("watched").subscribers;
    of_one.len() + world.log.subscribers_to_all().expect("readable").len()
}

const fn open(counts: &Counts) -> [usize; 3] {
    [counts.epochs, counts.notices, counts.subscriptions]
}

#[tokio::test(start_paused = true)]
async fn whatever_ends_a_holder_ends_what_it_holds() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    assert_eq!(arbiter.counts().await, Ok(Counts::default()));
    let held = hold(&arbiter, &channel, 10).await;
    let counts = arbiter.counts().await.expect("running");
    assert_eq!(open(&counts), [10, 10, 20]);
    drop(held);
    assert_eq!(arbiter.counts().await, Ok(Counts::default()));
    for way in ["returns", "fails", "panics", "is aborted"] {
        let (handle, channel) = (arbiter.clone(), Channel::new(1, StaticRemotekey));
        let task = tokio::spawn(async move {
            let _held = hold(&handle, &channel, 10).await;
            sleep(Duration::from_secs(1)).await;
            match way {
                "returns" => Ok(()),
                "fails" => Err("as it wants"),
                "panics" => panic!("as the test wants"),
                _ => std::future::pending().await,
            }
        });
        sleep(Duration::from_millis(500)).await;
        let counts = arbiter.counts().await.expect("running");
        assert_eq!(open(&counts), [10, 10, 20], "{way}");
        sleep(Duration::from_secs(1)).await;
        task.abort();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(arbiter.counts().await, Ok(Counts::default()), "{way}");
        assert_eq!(stored_names(&world), 0, "{way}");
    }
}

#[tokio::test(start_paused = true)]
async fn workers_and_waiting_callers_are_counted() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.net.is(Mood::Hangs);
    let failing = tokio::spawn({
        let (arbiter, id) = (arbiter.clone(), channel.id());
        async move { arbiter.fail_channel(id).await.map(drop) }
    });
    sleep(Duration::from_secs(1)).await;
    let idling = tokio::spawn({
        let arbiter = arbiter.clone();
        async move { arbiter.idle().await }
    });
    sleep(Duration::from_secs(1)).await;
    let counts = arbiter.counts().await.expect("running");
    assert_eq!((counts.workers, counts.waiting >= 1), (1, true), "{counts:?}");
    idling.abort();
    failing.abort();
    world.net.is(Mood::Well);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(arbiter.counts().await, Ok(Counts::default()));
}

/// Anonymous memory of this process in KiB.
#[cfg(target_os = "linux")]
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Rounds in which every holder opens all that it wants to hold, and of each kind in one of them.
#[cfg(target_os = "linux")]
const WHOLE_ROUNDS: usize = 50;
#[cfg(target_os = "linux")]
const IN_A_ROUND: usize = 1000;

/// Four tasks that open a quarter each, say when they have done so, and end in different ways.
#[cfg(target_os = "linux")]
fn holders(arbiter: &Arbiter, opened: &Arc<AtomicUsize>) -> Vec<tokio::task::JoinHandle<()>> {
    let holder = |way| {
        let (handle, opened) = (arbiter.clone(), opened.clone());
        tokio::spawn(async move {
            let channel = Channel::new(1, StaticRemotekey);
            let mut held = Vec::new();
            for _ in 0..IN_A_ROUND / 40 {
                held.extend(hold(&handle, &channel, 10).await);
                opened.fetch_add(10, Ordering::SeqCst);
            }
            while opened.load(Ordering::SeqCst) != LET_GO {
                sleep(Duration::from_millis(1)).await;
            }
            match way {
                0 => drop(held),
                1 => std::panic::resume_unwind(Box::new("as the test wants")),
                _ => std::future::pending().await,
            }
        })
    };
    (0..4).map(holder).collect()
}

/// In the place of how much is open: the holders may end.
#[cfg(target_os = "linux")]
const LET_GO: usize = usize::MAX;

#[cfg(target_os = "linux")]
async fn until(opened: &AtomicUsize, many: usize) {
    // No pause: in a millisecond all of them may be open.
    while opened.load(Ordering::SeqCst) < many {
        tokio::task::yield_now().await;
    }
}

#[cfg(target_os = "linux")]
async fn many_holders() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let (mut after_some, mut whole) = (0, 0);
    for round in 0..WHOLE_ROUNDS * 3 / 2 {
        let opened = Arc::new(AtomicUsize::new(0));
        let tasks = holders(&arbiter, &opened);
        if round % 3 == 2 {
            // All are killed while they open, each time somewhere else.
            until(&opened, 10 + round * 5).await;
            let open = open(&arbiter.counts().await.expect("running"));
            assert!(open.iter().all(|open| (10..IN_A_ROUND * 2).contains(open)), "{open:?}");
        } else {
            until(&opened, IN_A_ROUND).await;
            let open = open(&arbiter.counts().await.expect("running"));
            assert_eq!(open, [IN_A_ROUND, IN_A_ROUND, 2 * IN_A_ROUND], "round {round}");
            whole += open.iter().sum::<usize>();
            // Each of them is told of a block.
            world.chain.mine(vec![]);
            arbiter.idle().await.expect("running");
            opened.store(LET_GO, Ordering::SeqCst);
            sleep(Duration::from_millis(5)).await;
        }
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        arbiter.idle().await.expect("running");
        assert_eq!(arbiter.counts().await, Ok(Counts::default()), "round {round}");
        assert_eq!(stored_names(&world), 0, "round {round}");
        if round == 10 {
            after_some = anonymous();
        }
    }
    assert_eq!(whole, WHOLE_ROUNDS * IN_A_ROUND * 4, "a hundred thousand epochs and subscriptions");
    // There were 170,000 since, and each subscription had a name of its own: this is 24 bytes for each.
    let grown = anonymous().saturating_sub(after_some);
    assert!(grown < 4 << 10, "{grown} KiB more than after 10 rounds");
}

/// Set in the process whose memory is measured: other tests must not run in it.
#[cfg(target_os = "linux")]
const ALONE: &str = "ARB_TEST_ALONE";

#[cfg(target_os = "linux")]
#[test]
fn a_hundred_thousand_holders_leave_nothing_behind() {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.expect("a runtime").block_on(many_holders());
    }
    let own = std::env::current_exe().expect("a path");
    let name = "driver::tests::epochs::a_hundred_thousand_holders_leave_nothing_behind";
    let mut alone = std::process::Command::new(own);
    let run = alone.args(["--exact", name]).env(ALONE, "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}
