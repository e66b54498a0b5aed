//! `Witness`: LDK's monitors and the arbiter look at the same chain; where they see a closed channel
//! differently for longer than a moment, a person must look.
use super::events::KeptError;
use super::facts::NAMESPACE;
use arb_core::arbitrator::CloseKind;
use arb_core::height::Reason;
use arb_core::ids::{ChannelId, HtlcId, Side};
use arb_core::picture::Role;
use arb_core::report::{ChannelReport, OutputReport, Payer};
use arb_core::units::{BlockDelta, BlockHeight};
use core::fmt;
use lightning::chain::channelmonitor::{ANTI_REORG_DELAY, Balance, BalanceSource, ChannelMonitor};
use lightning::io::ErrorKind;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::util::persist::KVStoreSync;
use std::collections::BTreeMap;

/// Blocks for which a difference has to stand before it is told: facts that LDK has just written
/// may be on their way to the arbiter.
pub const WITNESS_PATIENCE: u32 = 2;

/// How LDK calls a balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BalanceKind {
    /// `ClaimableAwaitingConfirmations`.
    Awaiting,
    /// `ContentiousClaimable`.
    Contentious,
    /// `MaybeTimeoutClaimableHTLC`.
    Timeout,
    /// `MaybePreimageClaimableHTLC`.
    Preimage,
    /// `CounterpartyRevokedOutputClaimable`.
    Revoked,
}

/// Whose commitment closed a channel, by LDK's word (`BalanceSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closer {
    /// Ours.
    Local,
    /// The peer's.
    Remote,
    /// Neither: a mutual close, or what LDK takes for one.
    Mutual,
}

/// Something that LDK and the arbiter see differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// They stay at different heights, so that nothing can be compared: one of them may have come to a stop.
    Behind {
        /// Where LDK's monitor is.
        ldk: BlockHeight,
        /// Where the arbiter is.
        arbiter: BlockHeight,
    },
    /// The channel is closed for LDK, and open for the arbiter.
    ClosedForLdk,
    /// The channel is closed for the arbiter, and open for LDK.
    ClosedForArbiter,
    /// What LDK's balance is a result of is another close than the arbiter's.
    ClosedOtherwise {
        /// What LDK says.
        ldk: Closer,
    },
    /// The arbiter has an output for which LDK has no such balance.
    OnlyArbiter {
        /// What LDK should have.
        kind: BalanceKind,
        /// Its amount in satoshis.
        sat: u64,
    },
    /// LDK has a balance for which the arbiter has no output.
    OnlyLdk {
        /// What LDK has.
        kind: BalanceKind,
        /// Its amount in satoshis.
        sat: u64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { ldk, arbiter } => {
                write!(f, "LDK is at height {}, the arbiter at {}", ldk.0, arbiter.0)
            }
            Self::ClosedForLdk => f.write_str("closed for LDK, open for the arbiter"),
            Self::ClosedForArbiter => f.write_str("closed for the arbiter, open for LDK"),
            Self::ClosedOtherwise { ldk } => write!(f, "closed otherwise for LDK: {ldk:?}"),
            Self::OnlyArbiter { kind, sat } => write!(f, "LDK has no {kind:?} of {sat} sat"),
            Self::OnlyLdk { kind, sat } => write!(f, "only LDK has a {kind:?} of {sat} sat"),
        }
    }
}

/// What LDK and the arbiter see differently at one height: none, if they agree.
///
/// Compared are whether the channel is closed, by whose commitment (as long as LDK says it) and, if by a
/// commitment, every output that is not resolved. Outputs of mutual closes are not looked into: LDK takes
/// every spend that it does not know for one. Nor are commitments that tell of lost data.
#[must_use]
pub fn differences(ldk: &[Balance], ours: &ChannelReport) -> Vec<Difference> {
    differences_after(ours.tip, ldk, ours)
}

/// As [`differences`], where LDK was shown blocks up to `highest` before a reorganisation. What it counted as
/// final then it has no balance for any more, even if the tip is lower now; the arbiter goes by the tip.
#[must_use]
pub fn differences_after(
    highest: BlockHeight,
    ldk: &[Balance],
    ours: &ChannelReport,
) -> Vec<Difference> {
    let open = |balance: &Balance| matches!(balance, Balance::ClaimableOnChannelClose { .. });
    let closed_for_ldk = !ldk.iter().any(open);
    let close = match ours.close {
        None | Some(CloseKind::Splice(_)) if closed_for_ldk => {
            return vec![Difference::ClosedForLdk];
        }
        None | Some(CloseKind::Splice(_)) => return Vec::new(),
        Some(_) if !closed_for_ldk => return vec![Difference::ClosedForArbiter],
        Some(close) => close,
    };
    let (closer, outputs) = match close {
        CloseKind::Local(_) => (Closer::Local, matched(ldk, &of_local(ours, highest))),
        CloseKind::Remote(_) => (Closer::Remote, matched(ldk, &of_remote(ours, highest))),
        CloseKind::Revoked(_) => (Closer::Remote, matched(ldk, &of_revoked(ours))),
        CloseKind::Mutual | CloseKind::Unknown => (Closer::Mutual, Vec::new()),
        CloseKind::Outdated(_) | CloseKind::Future(_) | CloseKind::Splice(_) => return Vec::new(),
    };
    let otherwise = ldk.iter().filter_map(closer_of).find(|ldk| *ldk != closer);
    let otherwise = otherwise.map(|ldk| Difference::ClosedOtherwise { ldk });
    otherwise.into_iter().chain(outputs).collect()
}

fn closer_of(balance: &Balance) -> Option<Closer> {
    let Balance::ClaimableAwaitingConfirmations { source, .. } = balance else { return None };
    match source {
        BalanceSource::HolderForceClosed => Some(Closer::Local),
        BalanceSource::CounterpartyForceClosed => Some(Closer::Remote),
        BalanceSource::CoopClose => Some(Closer::Mutual),
        BalanceSource::Htlc => None,
    }
}

/// Whatever amount, of a balance that LDK may have.
const ANY: u64 = u64::MAX;

/// A balance that LDK must have, or may have, for an output of ours.
struct Expected {
    kinds: &'static [BalanceKind],
    sat: u64,
    must: bool,
}

fn matched(ldk: &[Balance], expected: &[Expected]) -> Vec<Difference> {
    let mut theirs: Vec<(BalanceKind, u64)> = ldk.iter().filter_map(entry).collect();
    let mut differences = Vec::new();
    for must in [true, false] {
        for one in expected.iter().filter(|one| one.must == must) {
            let same = |(kind, sat): &(BalanceKind, u64)| {
                one.kinds.contains(kind) && (*sat == one.sat || (!one.must && one.sat == ANY))
            };
            match (theirs.iter().position(same), one.kinds.first()) {
                (Some(at), _) => {
                    theirs.remove(at);
                }
                (None, Some(kind)) if must => {
                    differences.push(Difference::OnlyArbiter { kind: *kind, sat: one.sat });
                }
                (None, _) => {}
            }
        }
    }
    differences.extend(theirs.into_iter().map(|(kind, sat)| Difference::OnlyLdk { kind, sat }));
    differences
}

/// Trimmed outputs are zero for LDK.
fn entry(balance: &Balance) -> Option<(BalanceKind, u64)> {
    let kind = match balance {
        Balance::ClaimableOnChannelClose { .. } => return None,
        Balance::ClaimableAwaitingConfirmations { .. } => BalanceKind::Awaiting,
        Balance::ContentiousClaimable { .. } => BalanceKind::Contentious,
        Balance::MaybeTimeoutClaimableHTLC { .. } => BalanceKind::Timeout,
        Balance::MaybePreimageClaimableHTLC { .. } => BalanceKind::Preimage,
        Balance::CounterpartyRevokedOutputClaimable { .. } => BalanceKind::Revoked,
    };
    let sat = match balance {
        Balance::ClaimableAwaitingConfirmations { amount_satoshis, .. }
        | Balance::ContentiousClaimable { amount_satoshis, .. }
        | Balance::MaybeTimeoutClaimableHTLC { amount_satoshis, .. }
        | Balance::MaybePreimageClaimableHTLC { amount_satoshis, .. }
        | Balance::CounterpartyRevokedOutputClaimable { amount_satoshis } => *amount_satoshis,
        Balance::ClaimableOnChannelClose { .. } => 0,
    };
    (sat > 0).then_some((kind, sat))
}

/// Whether LDK counts a spend as final.
fn is_buried(output: &OutputReport, tip: BlockHeight) -> bool {
    let burying = BlockDelta(ANTI_REORG_DELAY.saturating_sub(1));
    output.spent_at.is_some_and(|at| at.plus(burying) <= tip)
}

fn is_delayed(output: &OutputReport) -> bool {
    output.spent_by.is_none() && output.waits.is_some_and(|due| due.reason == Reason::Csv)
}

/// Whether the delay was over at a tip that may be gone.
fn was_over(output: &OutputReport, highest: BlockHeight) -> bool {
    output.waits.is_some_and(|due| due.is_open(highest))
}

/// What an HTLC output is called as long as nobody has spent it, or the peer has and is not buried.
fn pending(id: HtlcId, output: &OutputReport) -> &'static [BalanceKind] {
    match (id.offerer, output.spent_by) {
        (Side::Local, _) => &[BalanceKind::Timeout],
        (Side::Remote, Some(_)) => &[BalanceKind::Contentious, BalanceKind::Preimage],
        // LDK knows preimages by hash alone, whichever HTLC they are for.
        (Side::Remote, None) if output.withheld => {
            &[BalanceKind::Preimage, BalanceKind::Contentious]
        }
        (Side::Remote, None) if output.payer == Some(Payer::Peer) => &[BalanceKind::Preimage],
        (Side::Remote, None) => &[BalanceKind::Contentious],
    }
}

fn of_local(ours: &ChannelReport, highest: BlockHeight) -> Vec<Expected> {
    let delayed = |id| {
        let stages = ours.outputs.iter().filter(|o| o.role == Role::SecondStage(Some(id)));
        stages.into_iter().find(|stage| is_delayed(stage))
    };
    let one = |output: &OutputReport| {
        let sat = output.amount.to_sat();
        let unless = |settled: bool, kinds| Some(Expected { kinds, sat, must: !settled });
        let awaiting = &[BalanceKind::Awaiting];
        match output.role {
            Role::ToLocal if is_delayed(output) => unless(was_over(output, highest), awaiting),
            Role::Htlc(id) => match (output.spent_by, delayed(id)) {
                (Some(Side::Local), Some(stage)) => unless(was_over(stage, highest), awaiting),
                (Some(_), _) if is_buried(output, ours.tip) => None,
                (Some(Side::Local), None) => unless(is_buried(output, highest), awaiting),
                (Some(Side::Remote) | None, _) => {
                    unless(is_buried(output, highest), pending(id, output))
                }
            },
            Role::ToLocal
            | Role::ToRemote
            | Role::Anchor(_)
            | Role::SharedAnchor
            | Role::SecondStage(_)
            | Role::Paid(_)
            | Role::Unidentified => None,
        }
    };
    ours.outputs.iter().filter_map(one).collect()
}

fn of_remote(ours: &ChannelReport, highest: BlockHeight) -> Vec<Expected> {
    let one = |output: &OutputReport| {
        let sat = output.amount.to_sat();
        match output.role {
            // Until the commitment is buried.
            Role::ToRemote => Some(Expected { kinds: &[BalanceKind::Awaiting], sat, must: false }),
            Role::Htlc(_) if is_buried(output, ours.tip) => None,
            Role::Htlc(id) => {
                let kinds = match output.spent_by {
                    Some(Side::Local) => &[BalanceKind::Awaiting],
                    Some(Side::Remote) | None => pending(id, output),
                };
                Some(Expected { kinds, sat, must: !is_buried(output, highest) })
            }
            Role::ToLocal
            | Role::Anchor(_)
            | Role::SharedAnchor
            | Role::SecondStage(_)
            | Role::Paid(_)
            | Role::Unidentified => None,
        }
    };
    ours.outputs.iter().filter_map(one).collect()
}

fn of_revoked(ours: &ChannelReport) -> Vec<Expected> {
    let one = |output: &OutputReport| {
        let sat = output.amount.to_sat();
        let unspent = output.spent_by.is_none();
        match output.role {
            Role::ToRemote => Some(Expected { kinds: &[BalanceKind::Awaiting], sat, must: false }),
            // What was spent, LDK calls by what spends the second stage.
            Role::ToLocal | Role::Htlc(_) => {
                Some(Expected { kinds: &[BalanceKind::Revoked], sat, must: unspent })
            }
            Role::Anchor(_)
            | Role::SharedAnchor
            | Role::SecondStage(_)
            | Role::Paid(_)
            | Role::Unidentified => None,
        }
    };
    let mut expected: Vec<Expected> = ours.outputs.iter().filter_map(one).collect();
    // A penalty that is not buried is one balance, whatever it took: at most one an output.
    let penalties = ours.outputs.iter().filter(|output| output.spent_by == Some(Side::Local));
    expected.extend(penalties.map(|_| Expected {
        kinds: &[BalanceKind::Awaiting],
        sat: ANY,
        must: false,
    }));
    expected
}

/// A difference that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Since this height.
    pub since: BlockHeight,
    /// At this height.
    pub at: BlockHeight,
    /// What differs, at `at`.
    pub differences: Vec<Difference>,
}

/// Second namespace of what a [`Witness`] keeps.
const WITNESS: &str = "witness";
const HIGHEST: &str = "highest";

/// Compares the two views of every channel, block by block. It publishes nothing and decides
/// nothing: whoever runs it raises the alarm.
///
/// What LDK counted as final before a reorganisation stays so for it. So a witness that is stopped below the
/// highest tip has to know that tip when it starts again: [`open`](Self::open) and [`keep`](Self::keep).
#[derive(Debug)]
pub struct Witness {
    /// The highest tip that was looked at.
    highest: BlockHeight,
    /// What a store has of it.
    kept: BlockHeight,
    standing: BTreeMap<ChannelId, Standing>,
    /// Channels for which both are at different heights.
    behind: BTreeMap<ChannelId, Standing>,
}

impl Default for Witness {
    fn default() -> Self {
        Self {
            highest: BlockHeight(0),
            kept: BlockHeight(0),
            standing: BTreeMap::new(),
            behind: BTreeMap::new(),
        }
    }
}

impl Witness {
    /// Nothing compared yet, and LDK was shown no block higher than those to come.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing compared yet; the highest tip is the one that was [kept](Self::keep), if any was.
    ///
    /// # Errors
    /// The store fails, or what it has is no height.
    pub fn open<S: KVStoreSync + ?Sized>(store: &S) -> Result<Self, KeptError> {
        let highest = match store.read(NAMESPACE, WITNESS, HIGHEST) {
            Ok(bytes) => {
                let height = <[u8; 4]>::try_from(bytes);
                let height =
                    height.map_err(|_| KeptError("the witness has no height".to_owned()))?;
                BlockHeight(u32::from_be_bytes(height))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => BlockHeight(0),
            Err(error) => return Err(KeptError(error.to_string())),
        };
        Ok(Self { highest, kept: highest, ..Self::new() })
    }

    /// Keeps the highest tip, if it is a new one: after each block.
    ///
    /// # Errors
    /// The store takes nothing at the moment.
    pub fn keep<S: KVStoreSync + ?Sized>(&mut self, store: &S) -> Result<(), KeptError> {
        if self.kept < self.highest {
            let bytes = self.highest.0.to_be_bytes().to_vec();
            let written = store.write(NAMESPACE, WITNESS, HIGHEST, bytes);
            written.map_err(|error| KeptError(error.to_string()))?;
            self.kept = self.highest;
        }
        Ok(())
    }

    /// Compares what both say of a channel. At different heights they are not compared: look again when both have the
    /// block. If one of them stays behind while the other goes on, that is told ([`Difference::Behind`]); one that
    /// catches up with blocks that the other has is not.
    pub fn look<S: EcdsaChannelSigner>(
        &mut self,
        monitor: &ChannelMonitor<S>,
        report: &ChannelReport,
    ) {
        let ldk = BlockHeight(monitor.current_best_block().height);
        if monitor.channel_id().0 != report.id.0 {
            return;
        }
        if ldk == report.tip {
            self.compare(&monitor.get_claimable_balances(), report);
        } else {
            let differences = vec![Difference::Behind { ldk, arbiter: report.tip }];
            stands(&mut self.behind, report.id, ldk.max(report.tip), differences);
        }
    }

    /// Compares LDK's balances of a channel with the arbiter's report. Both are of one height.
    pub fn compare(&mut self, ldk: &[Balance], report: &ChannelReport) {
        self.behind.remove(&report.id);
        self.highest = self.highest.max(report.tip);
        let found = differences_after(self.highest, ldk, report);
        if found.is_empty() {
            self.standing.remove(&report.id);
        } else {
            stands(&mut self.standing, report.id, report.tip, found);
        }
    }

    /// Channels whose difference has stood for [`WITNESS_PATIENCE`] blocks.
    pub fn alerts(&self) -> impl Iterator<Item = (&ChannelId, &Standing)> {
        let old = |(_, standing): &(&ChannelId, &Standing)| {
            standing.since.until(standing.at).0 >= WITNESS_PATIENCE
        };
        self.standing.iter().chain(&self.behind).filter(old)
    }

    /// The channel is forgotten: nothing is compared any more.
    pub fn forget(&mut self, channel: &ChannelId) {
        self.standing.remove(channel);
        self.behind.remove(channel);
    }
}

fn stands(
    all: &mut BTreeMap<ChannelId, Standing>,
    channel: ChannelId,
    at: BlockHeight,
    differences: Vec<Difference>,
) {
    let fresh = || Standing { since: at, at, differences: Vec::new() };
    let standing = all.entry(channel).or_insert_with(fresh);
    // A reorganisation may have taken away the block in which it began.
    standing.since = standing.since.min(at);
    standing.at = at;
    standing.differences = differences;
}
