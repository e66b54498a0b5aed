//! A panic over one channel sets that channel aside; any other ends the arbiter, which says so.
use super::support::*;
use crate::{Arbiter, CommandError, Delivery, Ended, Settings};
use arb_core::arbitrator::{Alert, Notice, Phase};
use arb_core::classify::FundingSpend;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::ChannelId;
use arb_core::log::ByteRecord;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

const HOUR: Duration = Duration::from_secs(60 * 60);
const CLOSED: Phase = Phase::Closed(FundingSpend::RemoteCommitment(number(0)));
const QUARANTINED: Notice = Notice::Alert(Alert::Quarantined);

/// Panics in the middle of what the driver does: where it says that it looks at a channel, or
/// anything else.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<Vec<Fault>>>);

/// What is said with this word, of this slot, panics: so many times, after the first ones.
struct Fault {
    word: &'static str,
    slot: Option<u64>,
    first: usize,
    times: usize,
}

impl Faults {
    /// From now on, on this thread.
    fn begin() -> (Self, DefaultGuard, tracing::Dispatch) {
        let faults = Self::default();
        // With one dispatcher alone, what a test on another thread comes to first stays off for all.
        let other = tracing::Dispatch::new(Self::default());
        (faults.clone(), tracing::subscriber::set_default(faults), other)
    }

    fn panic(&self, word: &'static str, slot: Option<u64>, times: usize) {
        self.panic_after(0, word, slot, times);
    }

    fn panic_after(&self, first: usize, word: &'static str, slot: Option<u64>, times: usize) {
        self.0.lock().expect("no panic").push(Fault { word, slot, first, times });
    }

    fn over(&self) {
        self.0.lock().expect("no panic").clear();
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Faults {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target().starts_with("arb_watcher")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let said = fields.0.get("message").cloned().unwrap_or_default();
        let slot = fields.0.get("slot").and_then(|slot| slot.parse().ok());
        let mut faults = self.0.lock().expect("no panic");
        let fault = faults.iter_mut().find(|fault| {
            said == fault.word && (fault.slot.is_none() || fault.slot == slot) && fault.times > 0
        });
        let Some(fault) = fault else { return };
        if fault.first > 0 {
            fault.first -= 1;
            return;
        }
        fault.times -= 1;
        drop(faults);
        panic!("as the test wants");
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An arbiter that watches channels 1 to 3 in slots 0 to 2.
async fn three(world: &World) -> (Arbiter, [Channel; 3]) {
    let channels = [1, 2, 3].map(|id| Channel::new(id, StaticRemotekey));
    let arbiter = world.start().await;
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    arbiter.idle().await.expect("running");
    (arbiter, channels)
}

async fn phase(arbiter: &Arbiter, channel: &Channel) -> Result<Option<Phase>, CommandError> {
    arbiter.report(channel.id()).await.map(|report| report.map(|report| report.phase))
}

fn is_aside<T: Debug>(answer: Result<T, CommandError>, of: ChannelId) {
    match answer {
        Err(CommandError::SetAside { id, why, .. }) => {
            assert_eq!(id, of);
            assert!(why.contains("as the test wants"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_panics_in_a_block_is_set_aside_and_returns() {
    // At any of the moments at which a block makes the driver look at it.
    for moment in 0..4 {
        let world = World::default();
        let (arbiter, channels) = three(&world).await;
        let mut notices = arbiter.notices().await.expect("running");
        let (faults, _guard, _other) = Faults::begin();
        faults.panic_after(moment, "looked at", Some(1), 1);
        world.chain.mine(channels.iter().map(|c| c.remote_tx(0, &[])).collect());
        arbiter.idle().await.expect("running");
        assert_eq!(world.log.tip(), Some(world.chain.tip_now()), "no block is held up");
        is_aside(phase(&arbiter, &channels[1]).await, channels[1].id());
        is_aside(arbiter.fail_channel(channels[1].id()).await, channels[1].id());
        for sound in [&channels[0], &channels[2]] {
            assert_eq!(phase(&arbiter, sound).await, Ok(Some(CLOSED)));
        }
        assert!(drain(&mut notices).await.contains(&(channels[1].id(), QUARANTINED)));
        let all = arbiter.report_all().await.expect("running");
        assert_eq!(all.quarantined, [channels[1].id()]);
        // It was the fault of a moment: the block that it missed is seen.
        sleep(HOUR).await;
        arbiter.idle().await.expect("running");
        assert_eq!(phase(&arbiter, &channels[1]).await, Ok(Some(CLOSED)));
        world.pass(&arbiter, 105).await;
        for channel in &channels {
            assert_eq!(phase(&arbiter, channel).await, Ok(None), "resolved and forgotten");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_always_panics_stays_aside_and_is_tried_ever_more_seldom() {
    let world = World::default();
    let (arbiter, channels) = three(&world).await;
    let (faults, _guard, _other) = Faults::begin();
    faults.panic("looked at", Some(1), usize::MAX);
    world.chain.mine(channels.iter().map(|c| c.remote_tx(0, &[])).collect());
    arbiter.idle().await.expect("running");
    sleep(24 * HOUR).await;
    arbiter.idle().await.expect("running");
    let reads = world.log.channel_reads();
    assert!(reads < 120, "{reads} in a day");
    is_aside(phase(&arbiter, &channels[1]).await, channels[1].id());
    // A restart goes on as well.
    arbiter.shutdown().await;
    let arbiter = world.restart(&channels.iter().collect::<Vec<_>>()).await;
    world.pass(&arbiter, 1).await;
    for sound in [&channels[0], &channels[2]] {
        assert_eq!(phase(&arbiter, sound).await, Ok(Some(CLOSED)));
    }
    faults.over();
    sleep(2 * HOUR).await;
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channels[1]).await, Ok(Some(CLOSED)));
}

/// What there was no room for is not counted, nor waited for, once its channel is set aside; it comes when that is back.
#[tokio::test(start_paused = true)]
async fn a_late_reader_does_not_wait_for_a_channel_that_is_set_aside() {
    let (faults, _guard, _other) = Faults::begin();
    let world = World::default();
    let settings = Settings { unread_events: 1, ..Settings::default() };
    let arbiter = world.start_with(settings, vec![]).await;
    let channels = [1, 2, 3].map(|id| Channel::new(id, StaticRemotekey));
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    let mut all = arbiter.subscribe_all("all", Delivery::Acknowledged).await.expect("a new name");
    world.chain.mine(channels.each_ref().map(|channel| channel.remote_tx(0, &[])).to_vec());
    arbiter.idle().await.expect("running");
    assert_eq!(all.lag(), 2);
    faults.panic("looked at", Some(1), usize::MAX);
    world.pass(&arbiter, 1).await;
    is_aside(phase(&arbiter, &channels[1]).await, channels[1].id());
    assert_eq!(all.lag(), 1);
    for at in [0, 2] {
        let delivered = timeout(Duration::from_millis(1), all.next()).await;
        let delivered = delivered.expect("at once").expect("running");
        assert_eq!(delivered.channel, channels[at].id());
    }
    faults.over();
    sleep(HOUR).await;
    let delivered = timeout(HOUR, all.next()).await.expect("in time").expect("running");
    assert_eq!(delivered.channel, channels[1].id());
}

/// Whoever reads all the while is told again what a log tells that takes the place of a lost one.
#[tokio::test(start_paused = true)]
async fn who_reads_on_is_told_what_the_new_log_tells() {
    let (faults, _guard, _other) = Faults::begin();
    let world = World::default();
    let (arbiter, channels) = three(&world).await;
    let id = channels[1].id();
    let mut one = arbiter.subscribe(id, "a", Delivery::Acknowledged).await.expect("watched");
    let mut all = arbiter.subscribe_all("all", Delivery::Acknowledged).await.expect("a new name");
    world.chain.mine(vec![channels[1].remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(one.try_next().map(|d| d.number), Some(0));
    assert_eq!(all.try_next().map(|d| d.number), Some(0));
    one.acknowledge(0).await.expect("stored");
    all.acknowledge(id, 0).await.expect("stored");
    faults.panic("looked at", Some(1), 1);
    is_aside(phase(&arbiter, &channels[1]).await, id);
    world.log.damage_changes(1);
    arbiter.watch_channel(channels[1].facts.clone()).await.expect("sound facts");
    arbiter.idle().await.expect("running");
    let told = one.try_next().map(|d| (d.number, d.event));
    assert_eq!(told.map(|(number, _)| number), Some(1), "no number comes twice");
    assert_eq!(all.try_next().map(|d| (d.number, d.event)), told);
    assert_eq!((one.try_next().map(|d| d.number), all.try_next().map(|d| d.number)), (None, None));
    // What the lost log had told may be acknowledged late: that says nothing of what the new one tells.
    one.acknowledge(0).await.expect("no error");
    all.acknowledge(id, 0).await.expect("no error");
    world.pass(&arbiter, 120).await;
    assert!(world.log.stored_facts(1).is_some(), "nobody has acknowledged what it tells now");
    let mut one = arbiter.subscribe(id, "a", Delivery::Acknowledged).await.expect("watched");
    let mut all = arbiter.subscribe_all("all", Delivery::Acknowledged).await.expect("its name");
    arbiter.idle().await.expect("running");
    let numbers: Vec<u64> = std::iter::from_fn(|| one.try_next()).map(|d| d.number).collect();
    let of_all: Vec<u64> = std::iter::from_fn(|| all.try_next()).map(|d| d.number).collect();
    assert!(
        numbers.len() > 1 && numbers.iter().copied().eq(1..=numbers.len() as u64),
        "{numbers:?}"
    );
    assert_eq!(of_all, numbers);
    one.acknowledge(1).await.expect("stored");
    let mut again = arbiter.subscribe(id, "a", Delivery::Acknowledged).await.expect("watched");
    arbiter.idle().await.expect("running");
    assert_eq!(again.try_next().map(|d| d.number), Some(2));
    again.acknowledge(numbers.len() as u64).await.expect("stored");
    all.acknowledge(id, numbers.len() as u64).await.expect("stored");
    world.pass(&arbiter, 1).await;
    assert_eq!(world.log.stored_facts(1), None, "all of it is acknowledged");
}

/// Records of the node's own are in no append without the facts that they came with: not in that of a block which
/// sets their channel aside either.
#[tokio::test(start_paused = true)]
async fn records_of_a_channel_that_is_set_aside_stay_with_its_facts() {
    let mut without = 0;
    for moment in 0..4 {
        let world = World::default();
        let (arbiter, mut channels) = three(&world).await;
        let gate = world.log.hold();
        let (telling, id) = (arbiter.clone(), channels[1].id());
        let (update, folder) = (channels[1].next_remote(1, &[]), "f".to_owned());
        let record = ByteRecord { folder, name: "n".to_owned(), bytes: vec![1] };
        let told = telling.update_channel_with(id, vec![update], vec![record]);
        let (faults, _guard, _other) = Faults::begin();
        let mined = async {
            tokio::task::yield_now().await;
            faults.panic_after(moment, "looked at", Some(1), 1);
            world.chain.mine(channels.iter().map(|c| c.remote_tx(0, &[])).collect());
            // Not idle: its own append is still under way.
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
            assert_eq!(world.log.tip(), Some(world.chain.tip_now()), "no block is held up");
            gate.refuse();
        };
        let _ = tokio::join!(told, mined);
        let facts = world.log.stored_facts(1).expect("facts");
        let is_newer = facts == channels[1].facts;
        assert_eq!(world.log.stored_record("f", "n").is_some(), is_newer, "{moment}");
        without += usize::from(!is_newer);
    }
    assert!(without > 0, "it is set aside before its facts are taken, too");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_panics_is_answered() {
    let world = World::default();
    let (arbiter, channels) = three(&world).await;
    let (faults, _guard, _other) = Faults::begin();
    faults.panic("looked at", Some(0), 1);
    is_aside(arbiter.fail_channel(channels[0].id()).await, channels[0].id());
    faults.panic("looked at", Some(1), 1);
    is_aside(phase(&arbiter, &channels[1]).await, channels[1].id());
    // One that is new is not watched, and nothing of it is stored.
    let new = Channel::new(4, StaticRemotekey);
    faults.panic("looked at", Some(3), 1);
    let refused = arbiter.watch_channel(new.facts.clone()).await;
    assert_eq!(refused, Err(CommandError::Panicked(new.id(), "as the test wants".to_owned())));
    assert_eq!(phase(&arbiter, &new).await, Ok(None));
    arbiter.watch_channel(new.facts.clone()).await.expect("once more");
    sleep(HOUR).await;
    for channel in channels.iter().chain([&new]) {
        let phase = phase(&arbiter, channel).await;
        assert_eq!(phase, Ok(Some(Phase::Open)));
    }
}

#[tokio::test(start_paused = true)]
async fn any_other_panic_ends_the_arbiter_and_says_so() {
    let world = World::default();
    let (arbiter, channels) = three(&world).await;
    let (faults, _guard, _other) = Faults::begin();
    let waiting = tokio::spawn({
        let arbiter = arbiter.clone();
        async move { arbiter.ended().await }
    });
    faults.panic("block", None, 1);
    world.chain.mine(vec![channels[0].remote_tx(0, &[])]);
    let asked = timeout(Duration::from_secs(5), arbiter.idle()).await.expect("no hang");
    assert_eq!(asked, Err(CommandError::Stopped));
    let why = Ended::Panicked("as the test wants".to_owned());
    assert_eq!(arbiter.ended().await, why);
    assert_eq!(waiting.await.expect("no panic"), why);
    assert!(arbiter.is_stopped());
    timeout(Duration::from_secs(5), world.gone()).await.expect("nothing is left");
    // And a new one goes on.
    let stated: Vec<&Channel> = channels.iter().collect();
    let arbiter = world.restart(&stated).await;
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channels[0]).await, Ok(Some(CLOSED)));
}

#[tokio::test(start_paused = true)]
async fn the_end_says_why() {
    for (kill, why) in [(false, Ended::Asked), (true, Ended::Killed)] {
        let world = World::default();
        let arbiter = world.start_with(Settings::default(), vec![]).await;
        arbiter.idle().await.expect("running");
        assert!(timeout(HOUR, arbiter.ended()).await.is_err(), "it runs");
        if kill {
            arbiter.kill();
        } else {
            arbiter.shutdown().await;
        }
        assert_eq!(arbiter.ended().await, why);
    }
}
