//! What subscribers of a channel are told, and when it is due.
use crate::arbitrator::{ChannelArbitrator, Now, OutputState};
use crate::classify::FundingSpend;
use crate::facts::ChannelFacts;
use crate::height;
use crate::picture::{Output, Picture, Role, Way};
use crate::units::CommitmentNumber;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bitcoin::{OutPoint, Txid};

/// How the funding output was spent, as told to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseKind {
    /// By a mutual close.
    Mutual,
    /// By our current commitment, or one of ours that is newer than our facts: we lost data.
    Local(CommitmentNumber),
    /// By a commitment of ours that we revoked: the peer may punish it.
    Outdated(CommitmentNumber),
    /// By the peer's current or next commitment.
    Remote(CommitmentNumber),
    /// By a commitment that the peer revoked.
    Revoked(CommitmentNumber),
    /// By a commitment of the peer that we do not know yet: we lost data.
    Future(CommitmentNumber),
    /// By another funding candidate: the channel goes on.
    Splice(Txid),
    /// By something that we cannot explain.
    Unknown,
}

/// What has become of an output of a closed channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputProgress {
    /// It is unspent again: the spend that was told of was reorganised out.
    Unspent,
    /// A transaction of ours, or one by a path that is ours alone, spent it.
    Claimed,
    /// The peer spent it.
    PeerClaimed,
    /// Its resolution is [`crate::policy::IRREVOCABLE`] deep.
    Irrevocable,
}

/// One event of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// A mutual close was seen, not yet at act depth.
    EarlyMutual,
    /// The funding output was spent. A mutual close is told at act depth, all others at once.
    Closed(CloseKind),
    /// The spend that was told of was reorganised out, and with it all that was told since; or a
    /// spend turned out to be something else. What is so is told anew.
    Reorged,
    /// Every output is resolved, as deep as [`crate::policy::Policy::resolved_depth`].
    Resolved,
    /// An output of the closing transaction, or of a second stage, came a step further. Anchors
    /// and outputs that were never ours are left out.
    Output {
        /// The output.
        outpoint: OutPoint,
        /// What has become of it.
        progress: OutputProgress,
    },
}

impl ChannelEvent {
    /// Whether it tells of one output, not of the channel.
    #[must_use]
    pub const fn is_progress(&self) -> bool {
        matches!(self, Self::Output { .. })
    }
}

/// What subscribers were told so far, as far as it stands.
#[derive(Default)]
struct Told {
    /// The last event of the channel itself.
    last: Option<ChannelEvent>,
    splices: BTreeSet<Txid>,
    outputs: BTreeMap<OutPoint, OutputProgress>,
}

impl Told {
    fn of(state: &ChannelArbitrator) -> Self {
        state.acts.events.iter().fold(Self::default(), Self::tell)
    }

    fn tell(mut self, event: &ChannelEvent) -> Self {
        match event {
            ChannelEvent::Reorged => return Self::default(),
            ChannelEvent::Output { outpoint, progress } => {
                self.outputs.insert(*outpoint, *progress);
                return self;
            }
            ChannelEvent::Closed(CloseKind::Splice(txid)) => {
                self.splices.insert(*txid);
            }
            ChannelEvent::EarlyMutual | ChannelEvent::Closed(_) | ChannelEvent::Resolved => {}
        }
        self.last = Some(*event);
        self
    }
}

/// Whether anything stands that subscribers were told.
pub(crate) fn is_told(state: &ChannelArbitrator) -> bool {
    Told::of(state).last.is_some_and(|last| !is_splice(&last))
}

const fn is_splice(event: &ChannelEvent) -> bool {
    matches!(event, ChannelEvent::Closed(CloseKind::Splice(_)))
}

/// Events that bring what subscribers were told up to what is so. `disconnected`: chain evidence was
/// taken away just now.
pub(crate) fn due(
    facts: &ChannelFacts,
    state: &ChannelArbitrator,
    picture: Option<&Picture>,
    now: &Now,
    disconnected: bool,
) -> Vec<ChannelEvent> {
    let mut draft = Draft { told: Told::of(state), events: Vec::new() };
    let splices = state.splices(facts).map(|tx| tx.value.txid());
    let gone = |txid: &Txid| state.confirmed_at(*txid).is_none();
    if disconnected && draft.told.splices.iter().any(gone) {
        draft.push(ChannelEvent::Reorged);
    }
    if picture.is_none() {
        // An early notice from the mempool stands until the spend confirms or another does.
        let stands = match draft.told.last {
            None => true,
            Some(ChannelEvent::EarlyMutual) => !disconnected,
            Some(last) => is_splice(&last),
        };
        if !stands {
            draft.push(ChannelEvent::Reorged);
        }
    }
    for txid in splices {
        if !draft.told.splices.contains(&txid) && draft.told.last != Some(ChannelEvent::Resolved) {
            draft.push(ChannelEvent::Closed(CloseKind::Splice(txid)));
        }
    }
    if let Some(picture) = picture {
        draft.closed(facts, state, picture, now);
    }
    draft.events
}

struct Draft {
    told: Told,
    events: Vec<ChannelEvent>,
}

impl Draft {
    fn push(&mut self, event: ChannelEvent) {
        self.told = core::mem::take(&mut self.told).tell(&event);
        self.events.push(event);
    }

    fn closed(
        &mut self,
        facts: &ChannelFacts,
        state: &ChannelArbitrator,
        picture: &Picture,
        now: &Now,
    ) {
        if picture.unread.is_some()
            && matches!(
                picture.spend,
                FundingSpend::OutdatedLocalCommitment(_) | FundingSpend::Unknown
            )
        {
            // It may yet turn out to be the peer's.
            return;
        }
        if state.awaits_verdict(facts, picture, now) {
            // It may yet turn out to be a mutual close.
            return;
        }
        let kind = picture.spend.kind();
        let mutual = kind == CloseKind::Mutual;
        let deep = height::depth(picture.at.height, now.policy.act_depth).is_open(now.tip);
        let close =
            if mutual && !deep { ChannelEvent::EarlyMutual } else { ChannelEvent::Closed(kind) };
        match self.told.last {
            Some(ChannelEvent::Resolved) => return,
            Some(event) if event == close => {}
            Some(ChannelEvent::Closed(known)) if known == kind => {}
            Some(ChannelEvent::EarlyMutual) if mutual => self.push(close),
            Some(event) if is_splice(&event) => self.push(close),
            Some(ChannelEvent::EarlyMutual | ChannelEvent::Closed(_)) => {
                self.push(ChannelEvent::Reorged);
                self.push(close);
            }
            // `Told` keeps neither of the two as the last event.
            Some(ChannelEvent::Reorged | ChannelEvent::Output { .. }) | None => self.push(close),
        }
        if self.told.last == Some(ChannelEvent::EarlyMutual) {
            return;
        }
        for output in picture.outputs.iter().filter(|output| is_told_of(output)) {
            let progress = progress(output, now);
            let told = self.told.outputs.get(&output.outpoint).copied();
            let told = told.unwrap_or(OutputProgress::Unspent);
            // What the peer does with an output that is settled changes nothing.
            let settled = told == OutputProgress::Irrevocable;
            if told != progress && (!settled || progress == OutputProgress::Claimed) {
                self.push(ChannelEvent::Output { outpoint: output.outpoint, progress });
            }
        }
        if picture.is_resolved(now.tip, &now.policy) {
            self.push(ChannelEvent::Resolved);
        }
    }
}

fn is_told_of(output: &Output) -> bool {
    let anchor = matches!(output.role, Role::Anchor(_) | Role::SharedAnchor);
    !anchor && !matches!(output.way, Way::Theirs)
}

fn progress(output: &Output, now: &Now) -> OutputProgress {
    match output.state(now.tip) {
        OutputState::Unresolved | OutputState::Claiming | OutputState::Resolved => {
            OutputProgress::Unspent
        }
        OutputState::Claimed => OutputProgress::Claimed,
        OutputState::PeerClaimed => OutputProgress::PeerClaimed,
        OutputState::Irrevocable => OutputProgress::Irrevocable,
    }
}
