//! What LDK says in places that see one channel's beginning, and the queue of what it wrote since.
use super::book::Terms;
use super::opening::First;
use super::update::FIRST_NUMBER;
use crate::ldk02::lock;
use arb_core::facts::{ChannelNames, HtlcRecord, Link, SecretStore, ShutdownScripts};
use arb_core::ids::{ChannelId, HtlcId, Side};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use core::future::poll_fn;
use core::task::{Poll, Waker};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HolderCommitmentTransaction,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

/// Received HTLCs of one channel that no commitment has shown yet. Beyond twice what a commitment
/// may contain the peer breaks the protocol, and LDK closes the channel.
const MOST_ANNOUNCED: usize = 966;

/// Channels that a peer begins and LDK has not answered yet. LDK refuses all but the first few, of which it
/// tells the peer; until then they count.
const MOST_OPENINGS: usize = 64;

/// What the decorators of LDK's traits have seen. They and the [`super::Recorder`] share one.
#[derive(Debug, Default)]
pub struct Taps {
    state: Mutex<State>,
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct State {
    /// Channels that are not funded yet, by peer and temporary id.
    openings: BTreeMap<(PublicKey, [u8; 32]), Begun>,
    /// Ids of openings that are no more, with how many times LDK's messages had been fetched by then: what LDK said of
    /// them may still wait there, and is not to be taken for a word on another channel of the same id.
    gone: BTreeMap<(PublicKey, [u8; 32]), u64>,
    fetches: u64,
    /// By what LDK derives a channel's keys from: one funding output each, the last one.
    signed: BTreeMap<[u8; 32], Signed>,
    announced: BTreeMap<ChannelId, Announced>,
    /// Peers that are connected.
    connected: BTreeSet<PublicKey>,
}

/// Who opens it, both dust limits, and the funding output once it is known.
#[derive(Clone, Copy, Debug)]
struct Begun {
    opener: Side,
    local: Option<Amount>,
    remote: Option<Amount>,
    funding: Option<OutPoint>,
}

impl Begun {
    const fn by(opener: Side) -> Self {
        Self { opener, local: None, remote: None, funding: None }
    }
}

/// How far LDK is with a channel that is not funded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It opens it.
    Ours,
    /// A peer asked for it, and has no answer.
    Asked,
    /// A peer asked for it, and has its answer.
    Accepted,
}

/// What signing and validating the first commitments showed.
#[derive(Clone, Debug)]
struct Signed {
    funding: OutPoint,
    parameters: Option<ChannelTransactionParameters>,
    commitment: Option<HolderCommitmentTransaction>,
}

impl State {
    fn signed(&mut self, keys: [u8; 32], funding: OutPoint) -> &mut Signed {
        let fresh = || Signed { funding, parameters: None, commitment: None };
        let signed = self.signed.entry(keys).or_insert_with(fresh);
        if signed.funding != funding {
            *signed = fresh();
        }
        signed
    }

    fn of(&self, peer: PublicKey) -> impl Iterator<Item = (&[u8; 32], &Begun)> {
        let all = self.openings.range((peer, [0; 32])..=(peer, [0xff; 32]));
        all.map(|((_, temporary), begun)| (temporary, begun))
    }

    /// Openings of a peer, and ids of those that are no more.
    fn count(&self, peer: PublicKey) -> usize {
        let begun = self.of(peer).filter(|(_, begun)| begun.opener == Side::Remote).count();
        let gone = self.gone.range((peer, [0; 32])..=(peer, [0xff; 32])).count();
        begun.saturating_add(gone)
    }

    /// Whether LDK has a word on a channel of this id, or may have.
    fn is_in_use(&self, of: &(PublicKey, [u8; 32])) -> bool {
        self.openings.contains_key(of) || self.gone.contains_key(of)
    }

    fn of_mut(&mut self, peer: PublicKey) -> impl Iterator<Item = (&[u8; 32], &mut Begun)> {
        let all = self.openings.range_mut((peer, [0; 32])..=(peer, [0xff; 32]));
        all.map(|((_, temporary), begun)| (temporary, begun))
    }

    /// These openings came to nothing, and what was signed for them.
    fn fail(&mut self, failed: impl Fn(&PublicKey, &[u8; 32]) -> bool) {
        let mut fundings = BTreeSet::new();
        let (gone, fetches) = (&mut self.gone, self.fetches);
        self.openings.retain(|(peer, temporary), begun| {
            let fails = failed(peer, temporary);
            if fails {
                fundings.extend(begun.funding);
                gone.insert((*peer, *temporary), fetches);
            }
            !fails
        });
        if !fundings.is_empty() {
            self.signed.retain(|_, signed| !fundings.contains(&signed.funding));
        }
    }
}

#[derive(Debug)]
struct Announced {
    peer: PublicKey,
    /// Since the peer's last `commitment_signed`: forgotten when it disconnects.
    uncommitted: BTreeMap<u64, Terms>,
    committed: BTreeMap<u64, Terms>,
}

/// Everything about a channel's beginning.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    pub(super) channel: ChannelId,
    pub(super) keys: [u8; 32],
    pub(super) parameters: ChannelTransactionParameters,
    pub(super) local_dust: Amount,
    pub(super) remote_dust: Amount,
    pub(super) destination: ScriptBuf,
    pub(super) local: HolderCommitmentTransaction,
    pub(super) remote: First,
    pub(super) birth: u32,
    /// Secrets that the peer has revealed: none at the beginning.
    pub(super) secrets: SecretStore,
    /// HTLCs of both commitments: none at the beginning.
    pub(super) htlcs: BTreeMap<HtlcId, HtlcRecord>,
    /// Our script for a mutual close, as far as it is known.
    pub(super) shutdown: Option<ScriptBuf>,
    pub(super) names: ChannelNames,
}

/// A monitor as LDK writes it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// Something that LDK wants written before it goes on.
#[derive(Debug)]
pub(super) enum Job {
    /// A new channel; without an opening, its beginning was not seen.
    Open { channel: ChannelId, update: u64, opening: Option<Box<Opening>>, monitor: Stored },
    Update {
        channel: ChannelId,
        update: u64,
        bytes: Vec<u8>,
        /// The peer's commitments in it, by LDK's typed word.
        txids: Vec<Txid>,
        /// The monitor's best block.
        height: u32,
        announced: BTreeMap<u64, Terms>,
        monitor: Stored,
    },
    /// What a monitor saw of the chain, and the number of the last update that it was given: one that
    /// it refused is seen nowhere else. Nothing waits for it.
    Monitor { channel: ChannelId, update: u64, monitor: Stored },
    /// A monitor that LDK needs no more. Nothing waits for it.
    Archive { name: String },
    /// Transactions that LDK handed over, with the height, and those of which that is long ago. Nothing waits for it.
    HandedOver { new: Vec<(Txid, u32)>, old: Vec<Txid> },
    /// A party's script for a mutual close, as it went over the wire. Nothing waits for it.
    Shutdown { channel: ChannelId, scripts: ShutdownScripts },
    /// How LDK names a channel, if that is what was learned, and whether its peer is connected.
    /// Nothing waits for it.
    Signals { channel: ChannelId, names: Option<ChannelNames>, link: Link },
}

impl Job {
    pub(super) const fn channel(&self) -> Option<ChannelId> {
        match self {
            Self::Open { channel, .. }
            | Self::Update { channel, .. }
            | Self::Monitor { channel, .. }
            | Self::Shutdown { channel, .. }
            | Self::Signals { channel, .. } => Some(*channel),
            Self::Archive { .. } | Self::HandedOver { .. } => None,
        }
    }

    /// The update that LDK waits for.
    pub(super) const fn update(&self) -> Option<u64> {
        match self {
            Self::Open { update, .. } | Self::Update { update, .. } => Some(*update),
            Self::Monitor { .. }
            | Self::Archive { .. }
            | Self::HandedOver { .. }
            | Self::Shutdown { .. }
            | Self::Signals { .. } => None,
        }
    }

    /// The monitor to be written.
    pub(super) const fn monitor(&self) -> Option<&Stored> {
        match self {
            Self::Open { monitor, .. }
            | Self::Update { monitor, .. }
            | Self::Monitor { monitor, .. } => Some(monitor),
            Self::Archive { .. }
            | Self::HandedOver { .. }
            | Self::Shutdown { .. }
            | Self::Signals { .. } => None,
        }
    }
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: VecDeque<Arc<Job>>,
    /// How many were put in, and how many had been when all that waited was found to be of channels that are set aside.
    enqueued: u64,
    seen: Option<u64>,
    waker: Option<Waker>,
}

impl Taps {
    /// Nothing seen so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Resolves once something waits to be recorded. What is of a channel that the arbiter has set aside does not count
    /// ([`Recorder::set_aside`](super::Recorder::set_aside)): the recorder is to be asked to go on from time to time.
    pub async fn waiting(&self) {
        poll_fn(|context| {
            let mut jobs = lock(&self.jobs);
            if jobs.waiting.is_empty() || jobs.seen == Some(jobs.enqueued) {
                jobs.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// How much waits to be recorded.
    #[must_use]
    pub fn backlog(&self) -> usize {
        lock(&self.jobs).waiting.len()
    }

    // The queue has no bound of its own: its callers hold LDK's locks and must not wait. LDK's
    // protocol bounds it, as no channel goes on before its updates are completed; of the monitors'
    // views of the chain, and of signals, the last one of a channel replaces the one before.
    pub(super) fn enqueue(&self, job: Job) {
        let waker = {
            let mut jobs = lock(&self.jobs);
            jobs.enqueued = jobs.enqueued.wrapping_add(1);
            let last =
                jobs.waiting.iter_mut().skip(1).rev().find(|of| of.channel() == job.channel());
            match last {
                Some(last) if is_view(last) && is_view(&job) => *last = Arc::new(job),
                Some(last) if is_signals(last) && is_signals(&job) => {
                    *last = Arc::new(with_names_of(job, last));
                }
                Some(_) | None => jobs.waiting.push_back(Arc::new(job)),
            }
            jobs.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// LDK handed these over to be published, and what it handed over long ago counts no more.
    pub(in crate::ldk02) fn handed_over(&self, new: Vec<(Txid, u32)>, old: Vec<Txid>) {
        if !new.is_empty() || !old.is_empty() {
            self.enqueue(Job::HandedOver { new, old });
        }
    }

    /// As many as stand first.
    pub(super) fn first_of(&self, most: usize) -> Vec<Arc<Job>> {
        lock(&self.jobs).waiting.iter().take(most).cloned().collect()
    }

    /// All that waits, and how many were put in so far.
    pub(super) fn all(&self) -> (Vec<Arc<Job>>, u64) {
        let jobs = lock(&self.jobs);
        (jobs.waiting.iter().cloned().collect(), jobs.enqueued)
    }

    /// All that waits of what was put in so far is of channels that are set aside.
    pub(super) fn seen(&self, enqueued: u64) {
        lock(&self.jobs).seen = Some(enqueued);
    }

    /// These are done.
    pub(super) fn done(&self, jobs: &[Arc<Job>]) {
        let is_done = |job: &Arc<Job>| jobs.iter().any(|done| Arc::ptr_eq(done, job));
        lock(&self.jobs).waiting.retain(|job| !is_done(job));
    }

    /// LDK opens a channel with this dust limit.
    pub(super) fn offered(&self, peer: PublicKey, temporary: [u8; 32], sat: u64) {
        let mut state = lock(&self.state);
        let ours = || Begun::by(Side::Local);
        let begun = state.openings.entry((peer, temporary)).or_insert_with(ours);
        begun.local = Some(Amount::from_sat(sat));
    }

    /// LDK accepts a channel that a peer asked for, with this dust limit.
    pub(super) fn answered(&self, peer: PublicKey, temporary: [u8; 32], sat: u64) {
        if let Some(begun) = lock(&self.state).openings.get_mut(&(peer, temporary)) {
            begun.local = Some(Amount::from_sat(sat));
        }
    }

    /// LDK's messages are about to be fetched: the number of this time.
    pub(super) fn fetches(&self) -> u64 {
        let mut state = lock(&self.state);
        state.fetches = state.fetches.saturating_add(1);
        state.fetches
    }

    /// What was fetched this time is taken note of: nothing waits any more that LDK had said before.
    pub(super) fn fetched(&self, number: u64) {
        lock(&self.state).gone.retain(|_, since| *since >= number);
    }

    /// Whether there is a channel of this id that is not funded yet, or was until a moment ago.
    pub(super) fn is_in_use(&self, peer: PublicKey, temporary: [u8; 32]) -> bool {
        lock(&self.state).is_in_use(&(peer, temporary))
    }

    /// A peer opens a channel with this dust limit. `false`: LDK is not to hear of it. It may still have another of
    /// this id, or something to say of one, and nobody could say which of both it means; or they are more than it takes.
    #[must_use]
    pub(super) fn asked(&self, peer: PublicKey, temporary: [u8; 32], sat: u64) -> bool {
        let mut state = lock(&self.state);
        if state.count(peer) >= MOST_OPENINGS || state.is_in_use(&(peer, temporary)) {
            return false;
        }
        let begun = Begun { remote: Some(Amount::from_sat(sat)), ..Begun::by(Side::Remote) };
        state.openings.insert((peer, temporary), begun);
        true
    }

    /// A peer accepts a channel that LDK opens, with this dust limit. Its first word counts: with a second one
    /// LDK has closed the channel.
    pub(super) fn accepted(&self, peer: PublicKey, temporary: [u8; 32], sat: u64) {
        if let Some(begun) = lock(&self.state).openings.get_mut(&(peer, temporary))
            && begun.opener == Side::Local
        {
            begun.remote.get_or_insert(Amount::from_sat(sat));
        }
    }

    /// The opener says what funds the channel. A peer may say it of channels that are not its own to fund, and
    /// of one after the other that this output funds them: the last one is what LDK makes of it at once.
    pub(super) fn funded(
        &self,
        opener: Side,
        peer: PublicKey,
        temporary: [u8; 32],
        funding: OutPoint,
    ) {
        let mut state = lock(&self.state);
        let same = |begun: &Begun| begun.funding == Some(funding);
        if opener == Side::Remote && state.of(peer).any(|(_, b)| b.opener != opener && same(b)) {
            return;
        }
        for (of, begun) in state.of_mut(peer) {
            if begun.opener != opener {
                continue;
            }
            if *of == temporary {
                begun.funding = Some(funding);
            } else if same(begun) {
                begun.funding = None;
            }
        }
    }

    /// How far LDK is with a channel that is not funded yet, if it is remembered.
    pub(super) fn stage(&self, peer: PublicKey, temporary: [u8; 32]) -> Option<Stage> {
        let state = lock(&self.state);
        let begun = state.openings.get(&(peer, temporary))?;
        Some(match (begun.opener, begun.local) {
            (Side::Local, _) => Stage::Ours,
            (Side::Remote, None) => Stage::Asked,
            (Side::Remote, Some(_)) => Stage::Accepted,
        })
    }

    /// Temporary ids of a peer's channels that are not funded yet.
    pub(super) fn openings_of(&self, peer: PublicKey) -> Vec<[u8; 32]> {
        lock(&self.state).of(peer).map(|(temporary, _)| *temporary).collect()
    }

    /// LDK has no such channel any more.
    pub(super) fn failed(&self, peer: PublicKey, temporary: [u8; 32]) {
        lock(&self.state).fail(|of, id| (*of, *id) == (peer, temporary));
    }

    /// A peer is there; these are its channels by name.
    pub(super) fn connected(&self, peer: PublicKey, names: BTreeMap<ChannelId, ChannelNames>) {
        lock(&self.state).connected.insert(peer);
        self.signal(peer, names);
    }

    /// Unfunded channels of a peer are forgotten, and HTLCs that it has not committed to.
    pub(super) fn disconnected(&self, peer: PublicKey) {
        {
            let mut state = lock(&self.state);
            state.connected.remove(&peer);
            state.fail(|of, _| *of == peer);
            let of_peer = |announced: &&mut Announced| announced.peer == peer;
            for announced in state.announced.values_mut().filter(of_peer) {
                announced.uncommitted.clear();
            }
        }
        self.signal(peer, BTreeMap::new());
    }

    /// Signals of a peer's channels, with the names that are known.
    pub(super) fn signal(&self, peer: PublicKey, mut names: BTreeMap<ChannelId, ChannelNames>) {
        let channels: Vec<ChannelId> = {
            let state = lock(&self.state);
            let of_peer = state.announced.iter().filter(|(_, announced)| announced.peer == peer);
            of_peer.map(|(channel, _)| *channel).collect()
        };
        let link = self.link(peer);
        for channel in channels {
            self.enqueue(Job::Signals { channel, names: names.remove(&channel), link });
        }
    }

    pub(super) fn link(&self, peer: PublicKey) -> Link {
        if lock(&self.state).connected.contains(&peer) { Link::Up } else { Link::Down }
    }

    pub(super) fn announced(&self, peer: PublicKey, channel: ChannelId, id: u64, terms: Terms) {
        let mut state = lock(&self.state);
        // Of channels that were opened here only: a peer may name any.
        if let Some(announced) = state.announced.get_mut(&channel)
            && announced.peer == peer
            && announced.uncommitted.len() < MOST_ANNOUNCED
        {
            announced.uncommitted.insert(id, terms);
        }
    }

    pub(super) fn committed(&self, peer: PublicKey, channel: ChannelId) {
        let mut state = lock(&self.state);
        if let Some(announced) = state.announced.get_mut(&channel)
            && announced.peer == peer
        {
            let mut new = core::mem::take(&mut announced.uncommitted);
            announced.committed.append(&mut new);
        }
    }

    pub(super) fn shut_down(&self, peer: PublicKey, channel: ChannelId, scripts: ShutdownScripts) {
        let ours =
            lock(&self.state).announced.get(&channel).is_some_and(|known| known.peer == peer);
        if ours {
            self.enqueue(Job::Shutdown { channel, scripts });
        }
    }

    pub(super) fn validated(&self, keys: [u8; 32], commitment: &HolderCommitmentTransaction) {
        if commitment.commitment_number() != FIRST_NUMBER {
            return;
        }
        let transaction = &commitment.trust().built_transaction().transaction;
        let Some(input) = transaction.input.first() else { return };
        let mut state = lock(&self.state);
        state.signed(keys, input.previous_output).commitment = Some(commitment.clone());
    }

    pub(super) fn signed(&self, keys: [u8; 32], parameters: &ChannelTransactionParameters) {
        let Some(funding) = parameters.funding_outpoint else { return };
        let mut state = lock(&self.state);
        let signed = state.signed(keys, funding.into_bitcoin_outpoint());
        signed.parameters = Some(parameters.clone());
    }

    /// Follows what a peer announces in a channel.
    pub(super) fn follow(&self, channel: ChannelId, peer: PublicKey) {
        let none = || Announced { peer, uncommitted: BTreeMap::new(), committed: BTreeMap::new() };
        lock(&self.state).announced.entry(channel).or_insert_with(none);
    }

    pub(super) fn unfollow(&self, channel: ChannelId) {
        lock(&self.state).announced.remove(&channel);
    }

    pub(super) fn take_committed(&self, channel: ChannelId) -> BTreeMap<u64, Terms> {
        let mut state = lock(&self.state);
        let announced = state.announced.get_mut(&channel);
        announced.map(|announced| core::mem::take(&mut announced.committed)).unwrap_or_default()
    }

    /// A funding output is that of a splice, and begins no channel.
    pub(super) fn spliced(&self, funding: &OutPoint) {
        lock(&self.state).signed.retain(|_, signed| signed.funding != *funding);
    }

    /// Takes all that was seen of the beginning of a channel with this peer. `said` is what its monitor says: the
    /// peer's first commitment, and the destination.
    pub(super) fn opening(
        &self,
        channel: ChannelId,
        peer: PublicKey,
        funding: OutPoint,
        said: (Option<CommitmentTransaction>, Option<ScriptBuf>),
        birth: u32,
    ) -> Option<Opening> {
        let mut state = lock(&self.state);
        let (keys, _) = state.signed.iter().find(|(_, signed)| signed.funding == funding)?;
        let keys = *keys;
        let signed = state.signed.remove(&keys)?;
        let is_it = |(of, begun): &(&(PublicKey, _), &Begun)| {
            of.0 == peer && begun.funding == Some(funding)
        };
        let begun = state.openings.iter().find(is_it).map(|(of, _)| *of);
        let (of, fetches) = (begun?, state.fetches);
        let begun = state.openings.remove(&of)?;
        state.gone.insert(of, fetches);
        let (remote, destination) = said;
        Some(Opening {
            channel,
            keys,
            parameters: signed.parameters?,
            local_dust: begun.local?,
            remote_dust: begun.remote?,
            destination: destination?,
            local: signed.commitment?,
            remote: First::of(&remote?),
            birth,
            secrets: SecretStore::default(),
            htlcs: BTreeMap::new(),
            shutdown: None,
            names: ChannelNames::default(),
        })
    }
}

const fn is_view(job: &Job) -> bool {
    matches!(job, Job::Monitor { .. })
}

const fn is_signals(job: &Job) -> bool {
    matches!(job, Job::Signals { .. })
}

/// Signals that bring no names leave those that were to be told before.
fn with_names_of(job: Job, before: &Job) -> Job {
    match (job, before) {
        (Job::Signals { channel, names: None, link }, Job::Signals { names, .. }) => {
            Job::Signals { channel, names: names.clone(), link }
        }
        (job, _) => job,
    }
}
