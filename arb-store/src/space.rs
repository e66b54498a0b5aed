//! Space: how much is left, when to raise the alarm, when to give up the emergency space.
use crate::config::StoreConfig;
use crate::reserve::Reserve;
use crate::store::{Store, round_down, round_up};
use arb_core::log::Health;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Less than what a group of batches may write.
const NEXT_TO_NOTHING: u64 = 1 << 20;

/// What the writer has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transactions that reached stable storage.
    pub commits: u64,
    /// Batches in them.
    pub batches: u64,
}

/// What the writer lets others see.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    health: AtomicU8,
    commits: AtomicU64,
    batches: AtomicU64,
}

impl Gauges {
    pub(crate) fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            0 => Health::Ok,
            1 => Health::Low,
            _ => Health::Emergency,
        }
    }

    fn set_health(&self, health: Health) {
        let code = match health {
            Health::Ok => 0,
            Health::Low => 1,
            Health::Emergency => 2,
        };
        self.health.store(code, Ordering::Release);
    }

    pub(crate) fn statistics(&self) -> Statistics {
        Statistics {
            commits: self.commits.load(Ordering::Acquire),
            batches: self.batches.load(Ordering::Acquire),
        }
    }

    pub(crate) fn count(&self, batches: u64) {
        self.commits.fetch_add(1, Ordering::AcqRel);
        self.batches.fetch_add(batches, Ordering::AcqRel);
    }
}

/// The writer's view of space.
pub(crate) struct Space {
    reserve: Reserve,
    low: u64,
    critical: u64,
    max_map: u64,
    quota: Option<u64>,
    emergency: bool,
}

impl Space {
    /// Takes the emergency space if it can be had.
    pub(crate) fn new(store: &Store, config: &StoreConfig) -> Self {
        let reserve = Reserve::find(&store.folder, config.reserve);
        let emergency = !reserve.is_whole();
        let mut space = Self {
            reserve,
            low: config.low,
            critical: config.critical,
            max_map: config.max_map,
            quota: None,
            emergency,
        };
        space.set_quota(store, config.quota);
        space
    }

    /// What the store may occupy from now on. It cannot occupy less than it does.
    pub(crate) fn set_quota(&mut self, store: &Store, quota: Option<u64>) {
        let occupied = store.used().saturating_add(self.reserve.held());
        self.quota = quota.map(|quota| quota.max(occupied));
        self.refresh(store);
    }

    pub(crate) const fn emergency(&self) -> bool {
        self.emergency
    }

    /// Largest map that is allowed now.
    pub(crate) fn largest_map(&self) -> u64 {
        let quota = self.quota.map_or(u64::MAX, |quota| quota.saturating_sub(self.reserve.held()));
        round_down(quota.min(self.max_map))
    }

    /// Bytes that can still be written, emergency space aside.
    fn free(&self, store: &Store) -> u64 {
        let used = store.used();
        let quota = self.quota.map_or(u64::MAX, |quota| {
            quota.saturating_sub(used).saturating_sub(self.reserve.held())
        });
        let map = self.max_map.saturating_sub(used);
        // A disk that does not say what it has is tried.
        let disk = fs4::available_space(&store.folder).unwrap_or(u64::MAX);
        quota.min(map).min(disk)
    }

    /// Looks how much is left; enters or leaves the emergency.
    pub(crate) fn refresh(&mut self, store: &Store) {
        let free = self.free(store);
        if self.emergency {
            let missing = self.reserve.full().saturating_sub(self.reserve.held());
            let enough = missing.saturating_add(self.critical);
            if free >= enough && (self.reserve.is_whole() || self.reserve.take().is_ok()) {
                self.emergency = false;
            }
        } else if free < self.critical {
            self.enter_emergency();
        }
        self.fit_map(store);
        store.gauges.set_health(match (self.emergency, self.free(store) < self.low) {
            (true, _) => Health::Emergency,
            (false, true) => Health::Low,
            (false, false) => Health::Ok,
        });
    }

    /// Gives up the emergency space.
    pub(crate) fn enter_emergency(&mut self) {
        self.emergency = true;
        // What cannot be given up now is tried again with the next failure.
        let _ = self.reserve.release();
    }

    /// Called when a commit found no space although the look before it had.
    pub(crate) fn exhausted(&mut self, store: &Store) {
        self.enter_emergency();
        store.gauges.set_health(Health::Emergency);
    }

    /// Under a quota the map is what keeps LMDB within it.
    fn fit_map(&self, store: &Store) {
        let largest = self.largest_map().max(store.used());
        if self.quota.is_some() && store.map_size() > round_up(largest) {
            // A map that stays too large is no danger: the quota is not the disk.
            let _ = store.resize(largest);
        }
    }

    /// Whether the disk has next to nothing left: LMDB reports a write cut short as EIO.
    pub(crate) fn disk_is_full(&self, store: &Store) -> bool {
        let little = self.critical.max(NEXT_TO_NOTHING);
        fs4::available_space(&store.folder).is_ok_and(|free| free < little)
    }
}
