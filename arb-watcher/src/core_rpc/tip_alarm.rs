//! The alarm for a tip that does not move: a stalled or eclipsed node looks like a quiet chain.
use arb_core::units::BlockRef;
use std::time::{Duration, Instant};

/// Notices that no new block has come for too long. Holds no clock: the caller tells the time.
///
/// ```
/// use arb_core::units::{BlockHeight, BlockRef};
/// use arb_watcher::{StalledTip, TipAlarm};
/// use bitcoin::{BlockHash, hashes::Hash};
/// use std::time::{Duration, Instant};
///
/// let tip = BlockRef { height: BlockHeight(7), hash: BlockHash::all_zeros() };
/// let (start, still_for) = (Instant::now(), Duration::from_secs(91 * 60));
/// let mut alarm = TipAlarm::new(Duration::from_secs(90 * 60));
/// assert_eq!(alarm.observe(tip, start), None);
/// assert_eq!(alarm.check(start + still_for), Some(StalledTip { tip, still_for }));
/// ```
#[derive(Clone, Debug)]
pub struct TipAlarm {
    limit: Duration,
    last: Option<(BlockRef, Instant)>,
}

/// The tip has not moved for longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StalledTip {
    /// The tip.
    pub tip: BlockRef,
    /// How long it has been the tip, as far as was seen.
    pub still_for: Duration,
}

impl TipAlarm {
    /// An alarm for a tip that stays for longer than `limit`. On mainnet, 90 minutes without a
    /// block come about once in eight thousand blocks.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit, last: None }
    }

    /// The source's tip is `tip` at `now`. An alarm if it has been so for longer than the limit.
    pub fn observe(&mut self, tip: BlockRef, now: Instant) -> Option<StalledTip> {
        match self.last {
            Some((known, _)) if known == tip => {}
            _ => self.last = Some((tip, now)),
        }
        self.check(now)
    }

    /// The source did not answer, or nothing was asked: an alarm if the last tip seen is older
    /// than the limit.
    #[must_use]
    pub fn check(&self, now: Instant) -> Option<StalledTip> {
        let (tip, since) = self.last?;
        let still_for = now.saturating_duration_since(since);
        (still_for > self.limit).then_some(StalledTip { tip, still_for })
    }
}
