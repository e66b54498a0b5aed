//! Channels do not wait for one another: what concerns different ones is told at the same time.
use super::rig::Sink;
use super::{CAPACITY, Failed, Rig};
use arb_core::facts::{ChannelFacts, ChannelNumbers, Update};
use arb_core::ids::ChannelId;
use arb_core::log::ByteRecord;
use arb_node_adapter::{FactSink, Recorder, Refusal};
use arb_tests::ldk::{Kind, Link};
use lightning::ln::types::ChannelId as LdkChannelId;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// A sink whose receipts take a while, and channels that were told something at the same time.
struct Slow {
    sink: Arc<Sink>,
    now: Mutex<BTreeSet<ChannelId>>,
    most: Mutex<BTreeSet<ChannelId>>,
    refuses: Option<ChannelId>,
}

impl FactSink for Slow {
    async fn watch(&self, facts: ChannelFacts) -> Result<(), Refusal> {
        self.sink.watch(facts).await
    }

    async fn state_numbers(&self, numbers: ChannelNumbers) -> Result<(), Refusal> {
        self.sink.state_numbers(numbers).await
    }

    async fn update(
        &self,
        channel: ChannelId,
        updates: Vec<Update>,
        records: Vec<ByteRecord>,
    ) -> Result<(), Refusal> {
        if let (Ok(mut now), Ok(mut most)) = (self.now.lock(), self.most.lock()) {
            assert!(now.insert(channel), "one after the other for each channel");
            if now.len() > most.len() {
                *most = now.clone();
            }
        }
        tokio::task::yield_now().await;
        if let Ok(mut now) = self.now.lock() {
            now.remove(&channel);
        }
        if self.refuses == Some(channel) {
            return Err(Refusal::Refused("no".to_owned()));
        }
        self.sink.update(channel, updates, records).await
    }

    async fn closed(&self, channel: ChannelId) -> Result<(), Refusal> {
        self.sink.closed(channel).await
    }
}

/// A node with three channels, each of which has a payment that waits for the arbiter.
fn waiting() -> Result<(Rig, Vec<Link>), Failed> {
    let mut rig = Rig::new(4, Kind::Anchors)?;
    let mut links = Vec::new();
    for peer in 1..4 {
        links.push(rig.net.open(peer, 0, CAPACITY, 400_000_000)?);
    }
    let later = Some(Refusal::Later("not yet".to_owned()));
    rig.sink(0).told.lock().map_err(|_| "poisoned")?.answer = later;
    for (at, link) in links.iter().enumerate() {
        rig.net.start(at + 1, &[*link], 5_000_000, &format!("{at}"), 1)?;
    }
    rig.net.pump();
    assert_eq!(rig.net.nodes[0].taps.backlog(), 3);
    rig.sink(0).told.lock().map_err(|_| "poisoned")?.answer = None;
    Ok((rig, links))
}

async fn drain(
    rig: &Rig,
    refuses: Option<ChannelId>,
) -> Result<(Slow, BTreeSet<ChannelId>), Failed> {
    let (now, most) = (Mutex::default(), Mutex::default());
    let slow = Slow { sink: rig.sink(0), now, most, refuses };
    let monitors = rig.net.nodes[0].monitors.clone();
    let done = Mutex::new(BTreeSet::new());
    let completed = |channel: ChannelId, update| {
        assert!(monitors.channel_monitor_updated(LdkChannelId(channel.0), update).is_ok());
        if let Ok(mut done) = done.lock() {
            done.insert(channel);
        }
    };
    let node = &rig.net.nodes[0];
    let store = rig.desks.borrow()[0].store.clone();
    let mut recorder = Recorder::open(node.taps.clone(), store, &node.manager.list_channels())?;
    recorder.drain(&slow, completed).await?;
    rig.desks.borrow_mut()[0].recorder = recorder;
    let done = done.into_inner().map_err(|_| "poisoned")?;
    Ok((slow, done))
}

#[tokio::test]
async fn channels_are_told_of_at_the_same_time() -> Result<(), Failed> {
    let (rig, links) = waiting()?;
    let all: BTreeSet<ChannelId> = links.iter().map(super::id).collect();
    let (slow, done) = drain(&rig, None).await?;
    assert_eq!(*slow.most.lock().map_err(|_| "poisoned")?, all);
    assert_eq!(done, all);
    assert_eq!(rig.net.nodes[0].taps.backlog(), 0);
    rig.net.pump();
    links.iter().try_for_each(|link| rig.check(link))
}

/// What is refused holds its own channel, whoever was told at the same time.
#[tokio::test]
async fn one_that_is_refused_holds_no_other() -> Result<(), Failed> {
    for refused in 0..3 {
        let (rig, links) = waiting()?;
        let refuses = super::id(&links[refused]);
        let (_, done) = drain(&rig, Some(refuses)).await?;
        let others = links.iter().map(super::id).filter(|id| *id != refuses).collect();
        assert_eq!(done, others);
        let desks = rig.desks.borrow();
        let held: Vec<ChannelId> = desks[0].recorder.held().map(|held| held.channel).collect();
        assert_eq!(held, [refuses]);
        assert_eq!(rig.net.nodes[0].taps.backlog(), 0);
    }
    Ok(())
}
