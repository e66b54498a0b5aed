//! LDK nodes behind the gate, and sinks that check what they are told as the arbiter does.
use super::super::Failed;
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{ChannelFacts, ChannelNumbers, HtlcRecord, Link as PeerLink, Update};
use arb_core::ids::{ChannelId, HtlcId, Preimage, Side};
use arb_core::log::{ByteRecord, Home};
use arb_core::units::MilliSat;
use arb_node_adapter::{Egress, FactSink, GatedPersist, Recorder, Refusal, Taps};
use arb_tests::ldk::{Kind, Link, MemoryKv, Net, Node, Restart, StoredMonitors};
use bitcoin::Block;
use bitcoin::secp256k1::{All, Secp256k1};
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::util::ser::Writeable;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// What a sink was told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) facts: BTreeMap<ChannelId, ChannelFacts>,
    /// What was stated last.
    pub(super) numbers: BTreeMap<ChannelId, ChannelNumbers>,
    /// HTLCs that left the last live commitment.
    pub(super) ended: BTreeMap<ChannelId, BTreeMap<HtlcId, HtlcRecord>>,
    /// Whether the peers are reached, every time that it was told.
    pub(super) links: BTreeMap<ChannelId, Vec<PeerLink>>,
    pub(super) preimages: Vec<(ChannelId, Preimage, PreimageSource)>,
    pub(super) closed: Vec<ChannelId>,
    /// The most HTLCs of equal terms that the facts of one channel had at once.
    pub(super) most_twins: usize,
    /// The answer to everything, if there is one.
    pub(super) answer: Option<Refusal>,
    /// Channels that are set aside.
    pub(super) aside: BTreeSet<ChannelId>,
    /// After so many things more it takes nothing; `None`: it takes all.
    pub(super) takes: Option<u64>,
    /// Updates that records were written with.
    pub(super) together: usize,
    /// Newer local commitments are refused, as for a channel that is being failed.
    pub(super) fenced: bool,
    /// What says whether LDK goes on alone, if anything does.
    pub(super) egress: Option<Arc<Egress>>,
}

/// A sink that verifies facts and updates, and so every signature.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) told: Mutex<Told>,
    /// Where it writes the records that come with updates, if it does.
    kept: Option<Arc<MemoryKv>>,
    secp: Secp256k1<All>,
}

impl Sink {
    fn new(kept: Option<Arc<MemoryKv>>) -> Self {
        let told = Told {
            facts: BTreeMap::new(),
            numbers: BTreeMap::new(),
            ended: BTreeMap::new(),
            links: BTreeMap::new(),
            preimages: Vec::new(),
            closed: Vec::new(),
            most_twins: 0,
            answer: None,
            aside: BTreeSet::new(),
            takes: None,
            together: 0,
            fenced: false,
            egress: None,
        };
        Self { told: Mutex::new(told), kept, secp: Secp256k1::new() }
    }

    fn with<T>(
        &self,
        channel: ChannelId,
        act: impl FnOnce(&mut Told) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut told = self.told.lock().map_err(|_| Refusal::Refused("poisoned".to_owned()))?;
        if let Some(left) = told.takes {
            let less = left.checked_sub(1).ok_or_else(|| Refusal::Later("it stopped".to_owned()));
            told.takes = Some(less?);
        }
        if told.aside.contains(&channel) {
            return Err(Refusal::SetAside("its facts cannot be read".to_owned()));
        }
        match told.answer.clone() {
            Some(answer) => Err(answer),
            None => act(&mut told),
        }
    }
}

impl Sink {
    fn egress(&self) -> Option<Arc<Egress>> {
        self.told.lock().ok()?.egress.clone()
    }
}

fn refused(error: impl ToString) -> Refusal {
    Refusal::Refused(error.to_string())
}

impl FactSink for Sink {
    async fn watch(&self, facts: ChannelFacts) -> Result<(), Refusal> {
        self.with(facts.id, |told| {
            facts.verify(&self.secp).map_err(refused)?;
            let known = told.facts.entry(facts.id).or_insert_with(|| facts.clone());
            if *known == facts { Ok(()) } else { Err(refused("other facts are known")) }
        })
    }

    async fn state_numbers(&self, numbers: ChannelNumbers) -> Result<(), Refusal> {
        self.with(numbers.id, |told| {
            if !told.facts.contains_key(&numbers.id) {
                return Err(Refusal::NotWatched);
            }
            told.numbers.insert(numbers.id, numbers);
            Ok(())
        })
    }

    fn home(&self) -> Option<Home> {
        self.kept.as_ref()?.home()
    }

    async fn update(
        &self,
        channel: ChannelId,
        updates: Vec<Update>,
        records: Vec<ByteRecord>,
    ) -> Result<(), Refusal> {
        self.with(channel, |told| {
            let mut facts = told.facts.get(&channel).ok_or(Refusal::NotWatched)?.clone();
            let (mut ended, mut links, mut preimages) = (Vec::new(), Vec::new(), Vec::new());
            for update in &updates {
                if told.fenced && matches!(update, Update::LocalCommitment { .. }) {
                    return Err(Refusal::Fenced);
                }
                match update {
                    Update::Signals(signals) => links.push(signals.link),
                    Update::Preimage { preimage, source } => {
                        preimages.push((channel, *preimage, *source));
                    }
                    _ => {}
                }
                let followed = facts.updated(update, &self.secp).map_err(refused)?;
                facts = followed.facts;
                ended.extend(followed.ended);
            }
            // All of it or nothing.
            match &self.kept {
                Some(store) if !records.is_empty() => {
                    let written = store.put_records(records);
                    written.map_err(|why| Refusal::Later(why.to_string()))?;
                    told.together += 1;
                }
                _ => assert_eq!(records, [], "it has no home"),
            }
            told.links.entry(channel).or_default().extend(links);
            told.preimages.extend(preimages);
            told.ended.entry(channel).or_default().extend(ended);
            told.most_twins = told.most_twins.max(most_twins(&facts));
            told.facts.insert(channel, facts);
            Ok(())
        })
    }

    fn lets_go(&self, channel: ChannelId) -> bool {
        self.egress().is_some_and(|egress| egress.lets_go(channel))
    }

    fn waits(&self, refused: bool) -> bool {
        self.egress().is_none_or(|egress| egress.waits(refused))
    }

    fn waits_for(&self, channel: ChannelId, refused: bool) -> bool {
        self.egress().is_none_or(|egress| egress.waits_for(channel, refused))
    }

    async fn closed(&self, channel: ChannelId) -> Result<(), Refusal> {
        self.with(channel, |told| {
            told.closed.push(channel);
            Ok(())
        })
    }
}

fn most_twins(facts: &ChannelFacts) -> usize {
    let mut count: BTreeMap<_, usize> = BTreeMap::new();
    for (id, HtlcRecord { htlc, .. }) in &facts.htlcs {
        *count.entry((id.offerer, htlc.amount, htlc.hash, htlc.expiry)).or_default() += 1;
    }
    count.into_values().max().unwrap_or_default()
}

/// Where the arbiter's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Elsewhere than the node's store.
    Apart,
    /// With the node's store: facts, records and LDK's monitors may be one commit.
    Together,
}

/// One node's recorder, its store and its sink.
pub(super) struct Desk {
    pub(super) recorder: Recorder<Arc<MemoryKv>>,
    pub(super) store: Arc<MemoryKv>,
    pub(super) sink: Arc<Sink>,
    /// The channel manager as it was when nothing waited to be recorded, if it is kept.
    pub(super) written: Option<Vec<u8>>,
}

/// Nodes with recorders.
pub(super) struct Rig {
    pub(super) net: Net,
    pub(super) desks: Rc<RefCell<Vec<Desk>>>,
    kind: Kind,
    /// Whether offered HTLCs are to have LDK's own ids: those that LDK gives anew once it has forgotten them are
    /// used once here.
    pub(super) same_ids: bool,
}

fn gated(taps: &Arc<Taps>) -> StoredMonitors {
    Arc::new(GatedPersist::new(taps.clone()))
}

impl Rig {
    pub(super) fn new(count: u8, kind: Kind) -> Result<Self, Failed> {
        Self::with(count, kind, Keeping::Apart)
    }

    pub(super) fn with(count: u8, kind: Kind, keeping: Keeping) -> Result<Self, Failed> {
        let mut net = Net::with(count, kind, &gated);
        let mut all = Vec::new();
        for node in &net.nodes {
            let (store, sink) = match keeping {
                Keeping::Apart => (Arc::new(MemoryKv::default()), Sink::new(None)),
                Keeping::Together => {
                    let store = Arc::new(MemoryKv::beside_a_log());
                    (store.clone(), Sink::new(Some(store)))
                }
            };
            let recorder = Recorder::open(node.taps.clone(), store.clone(), &[])?;
            all.push(Desk { recorder, store, sink: Arc::new(sink), written: None });
        }
        let desks = Rc::new(RefCell::new(all));
        let at_work = desks.clone();
        net.when_quiet(Box::new(move |nodes| {
            let mut desks = at_work.borrow_mut();
            let mut any = false;
            for (node, desk) in nodes.iter().zip(desks.iter_mut()) {
                any |= drain(node, desk);
            }
            any
        }));
        Ok(Self { net, desks, kind, same_ids: true })
    }

    pub(super) fn sink(&self, node: usize) -> Arc<Sink> {
        self.desks.borrow()[node].sink.clone()
    }

    pub(super) fn facts(&self, node: usize, link: &Link) -> Result<ChannelFacts, Failed> {
        let sink = self.sink(node);
        let told = sink.told.lock().map_err(|_| "poisoned")?;
        Ok(told.facts.get(&ChannelId(link.id.0)).ok_or("not watched")?.clone())
    }

    /// The node stops and starts again as far as the recorder goes: it knows what it wrote.
    pub(super) fn restart_recorder(&self, node: usize) -> Result<(), Failed> {
        let channels = self.net.nodes[node].manager.list_channels();
        let mut desks = self.desks.borrow_mut();
        let (taps, store) = (self.net.nodes[node].taps.clone(), desks[node].store.clone());
        desks[node].recorder = Recorder::open(taps, store, &channels)?;
        Ok(())
    }

    /// The node stops where it stands, and starts again from what it wrote; its channel manager was
    /// written last of all.
    pub(super) fn restart_node(&mut self, node: usize) -> Result<(), Failed> {
        let manager = self.net.nodes[node].manager.encode();
        self.restart_from(node, &manager)
    }

    /// From here on the node writes its channel manager whenever nothing waits to be recorded, and at no other time.
    pub(super) fn keep_manager(&self, node: usize) {
        self.desks.borrow_mut()[node].written = Some(self.net.nodes[node].manager.encode());
    }

    /// The node stops where it stands, and starts again from what it wrote: its channel manager was written before
    /// what waits to be recorded.
    pub(super) fn restart_stale(&mut self, node: usize) -> Result<(), Failed> {
        let manager = self.desks.borrow()[node].written.clone().ok_or("no manager")?;
        self.same_ids = false;
        self.restart_from(node, &manager)
    }

    /// The node stops where it stands, and starts again from what it wrote and this channel manager.
    pub(super) fn restart_from(&mut self, node: usize, manager: &[u8]) -> Result<(), Failed> {
        let store = self.desks.borrow()[node].store.clone();
        let chain = &self.net.chain;
        // A monitor may have been written before the last blocks.
        let blocks = (chain.height().saturating_sub(20)..=chain.height())
            .filter_map(|height| Some((height, Block::clone(chain.block_at(height)?))))
            .collect();
        let restart = Restart {
            seed: u8::try_from(node)? + 1,
            config: self.kind.config(),
            manager,
            store: &store,
            blocks: &blocks,
            forks: &BTreeMap::new(),
        };
        let again = restart.start(&gated)?;
        self.net.replace(node, again);
        self.restart_recorder(node)
    }

    /// Nothing is held, and both ends know the same of the channel, with LDK's own HTLC ids.
    pub(super) fn check(&self, link: &Link) -> Result<(), Failed> {
        for desk in self.desks.borrow().iter() {
            let held: Vec<String> = desk.recorder.held().map(ToString::to_string).collect();
            assert_eq!(held, Vec::<String>::new());
            assert_eq!(desk.recorder.left_to_ldk().count(), 0);
        }
        let (one, two) = (self.facts(link.opener, link)?, self.facts(link.other, link)?);
        for (node, facts) in [(link.opener, &one), (link.other, &two)] {
            let current = &facts.candidates.current;
            let (local, remote) = (current.local.number, current.remote.number);
            let stated = ChannelNumbers { id: facts.id, local, remote };
            assert!(self.desks.borrow()[node].recorder.numbers().contains(&stated));
        }
        for (near, far) in [(&one, &two), (&two, &one)] {
            assert_eq!(near.candidates.iter().count(), far.candidates.iter().count());
            for (near, far) in near.candidates.iter().zip(far.candidates.iter()) {
                assert_eq!((near.funding, near.capacity), (far.funding, far.capacity));
                let (local, remote) = (&near.local, &far.remote);
                assert_eq!((local.number, local.point), (remote.number, remote.point));
                assert_eq!(local.feerate, remote.feerate);
                assert_eq!(far.remote_next, None);
                // What rounds away is not in any transaction.
                let sat = |sum: MilliSat| sum.0 / 1000;
                assert_eq!(sat(local.local_balance), sat(remote.remote_balance));
            }
        }
        self.check_ids(link.opener, link, &one)?;
        self.check_ids(link.other, link, &two)
    }

    fn check_ids(&self, node: usize, link: &Link, facts: &ChannelFacts) -> Result<(), Failed> {
        let channels = self.net.nodes[node].manager.list_channels();
        let details = channels.iter().find(|details| details.channel_id == link.id);
        let details = details.ok_or("no such channel")?;
        let received = details.pending_inbound_htlcs.iter().map(|htlc| {
            let id = HtlcId { offerer: Side::Remote, id: htlc.htlc_id };
            (id, (htlc.amount_msat, htlc.cltv_expiry, htlc.payment_hash.0))
        });
        let offered = details.pending_outbound_htlcs.iter().filter_map(|htlc| {
            let id = HtlcId { offerer: Side::Local, id: htlc.htlc_id? };
            Some((id, (htlc.amount_msat, htlc.cltv_expiry, htlc.payment_hash.0)))
        });
        let mut truth: Vec<_> = received.chain(offered).collect();
        let ours = facts.htlcs.iter().map(|(id, HtlcRecord { htlc, .. })| {
            (*id, (htlc.amount.0, htlc.expiry.0.0, htlc.hash.0))
        });
        let mut ours: Vec<_> = ours.collect();
        if !self.same_ids {
            let ids = truth.iter_mut().chain(&mut ours).map(|(id, _)| id);
            ids.filter(|id| id.offerer == Side::Local).for_each(|id| id.id = 0);
        }
        truth.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, truth, "node {node}");
        Ok(())
    }
}

/// Records what waits; true if LDK may go on with anything.
fn drain(node: &Node, desk: &mut Desk) -> bool {
    let before = node.taps.backlog();
    let monitors = &node.monitors;
    let completed = |channel: ChannelId, update| {
        let done = monitors.channel_monitor_updated(LdkChannelId(channel.0), update);
        assert!(done.is_ok(), "LDK knows the channel");
    };
    // It says why it waits in the backlog, which the tests look at.
    let _waiting = at_once(desk.recorder.drain(&*desk.sink, completed));
    if let Some(written) = desk.written.as_mut().filter(|_| node.taps.backlog() == 0) {
        *written = node.manager.encode();
    }
    node.taps.backlog() != before
}

/// The result of a future that waits for nothing.
pub(super) fn at_once<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the sinks of these tests answer at once"),
    }
}
