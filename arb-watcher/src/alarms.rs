//! Alarms of the arbiter as a whole: what is wrong for all channels at once. What is wrong with one
//! channel is a notice.
use crate::core_rpc::StalledTip;
use arb_core::log::Health;
use std::fmt::Debug;
use tokio::sync::watch;

/// What is wrong for all channels now; all `None`: nothing.
///
/// ```
/// use arb_watcher::{Alarms, Arbiter, StoreAlarm};
///
/// /// Tells a person whenever the disk fills up, or has room again.
/// async fn watch_the_disk(arbiter: &Arbiter, tell: impl Fn(Option<StoreAlarm>)) {
///     let mut alarms = arbiter.alarms();
///     loop {
///         let Alarms { store, .. } = *alarms.borrow_and_update();
///         tell(store);
///         if alarms.changed().await.is_err() {
///             return; // the arbiter has ended
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Alarms {
    /// Something is wrong with the chain as the block source shows it.
    pub chain: Option<ChainAlarm>,
    /// Something is wrong with the store.
    pub store: Option<StoreAlarm>,
    /// Something is wrong with the block source itself.
    pub source: Option<SourceAlarm>,
}

/// The block source needs a person.
///
/// ```
/// use arb_watcher::{Alarms, SourceAlarm};
///
/// /// Whether the node's own block source is at fault.
/// fn has_a_bug(alarms: &Alarms) -> bool {
///     alarms.source == Some(SourceAlarm::Panics)
/// }
/// assert!(!has_a_bug(&Alarms::default()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceAlarm {
    /// [`BlockSource::changed`](arb_core::ports::BlockSource::changed) panicked: a bug of the source. It is called
    /// again after a pause, which doubles with each panic in a row; until it has returned, the source is asked for
    /// new blocks as often, and at least as often as [`Settings::heartbeat`](crate::Settings::heartbeat) says.
    Panics,
}

/// Something is wrong with the chain itself, for all channels.
///
/// ```
/// use arb_watcher::{Alarms, ChainAlarm};
///
/// /// What a person is told.
/// fn say(alarms: &Alarms) -> Option<String> {
///     Some(match alarms.chain? {
///         ChainAlarm::Stalled(still) => {
///             format!("no block after {} for {:?}", still.tip.height.0, still.still_for)
///         }
///         ChainAlarm::ReorganisedTooDeeply => "is this the right chain?".to_owned(),
///         ChainAlarm::BlockMissing(hash) => format!("has the source pruned {hash}?"),
///     })
/// }
/// assert_eq!(say(&Alarms::default()), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainAlarm {
    /// No new block for too long: the source may be stalled or eclipsed.
    Stalled(StalledTip),
    /// No remembered block is in the source's chain: it was reorganised too deeply, or is another
    /// chain. Nothing is decided until it comes back.
    ReorganisedTooDeeply,
    /// The source does not have a block of its own chain that is the next to be read: it is pruned, perhaps. No
    /// channel is seen to until it has it again.
    BlockMissing(bitcoin::BlockHash),
}

/// The store needs a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreAlarm {
    /// Little space is left: free some.
    Low,
    /// The emergency space is in use: facts are refused, all else goes through while it lasts.
    Emergency,
    /// An append that must go through is refused, or what must be known cannot be read: nothing goes on
    /// until there is room, or the medium works. A store that is closed or damaged ends the arbiter
    /// ([`crate::Ended::Store`]).
    Refuses,
}

impl StoreAlarm {
    pub(crate) const fn of(health: Health) -> Option<Self> {
        match health {
            Health::Ok => None,
            Health::Low => Some(Self::Low),
            Health::Emergency => Some(Self::Emergency),
        }
    }
}

/// Where alarms are raised and withdrawn.
#[derive(Debug)]
pub(crate) struct Board(watch::Sender<Alarms>);

impl Board {
    /// A board without alarms, and what others see of it.
    pub(crate) fn new() -> (Self, watch::Receiver<Alarms>) {
        let (sender, receiver) = watch::channel(Alarms::default());
        (Self(sender), receiver)
    }

    /// What stands now.
    pub(crate) fn now(&self) -> Alarms {
        *self.0.borrow()
    }

    pub(crate) fn chain(&self, now: Option<ChainAlarm>) {
        let now = match (self.now().chain, now) {
            // How long it stands still is no news.
            (Some(ChainAlarm::Stalled(was)), Some(ChainAlarm::Stalled(is)))
                if was.tip == is.tip =>
            {
                Some(ChainAlarm::Stalled(was))
            }
            (_, now) => now,
        };
        self.set(|alarms| &mut alarms.chain, now, "the chain is well again");
    }

    pub(crate) fn source(&self, now: Option<SourceAlarm>) {
        self.set(|alarms| &mut alarms.source, now, "the block source is well again");
    }

    pub(crate) fn store(&self, now: Option<StoreAlarm>) {
        self.set(|alarms| &mut alarms.store, now, "the store is well again");
    }

    fn set<A: Copy + PartialEq + Debug>(
        &self,
        place: impl FnOnce(&mut Alarms) -> &mut Option<A>,
        now: Option<A>,
        well: &'static str,
    ) {
        self.0.send_if_modified(|alarms| {
            let was = std::mem::replace(place(alarms), now);
            if was == now {
                return false;
            }
            match now {
                Some(alarm) => tracing::error!(?alarm, "alarm"),
                None => tracing::info!("{well}"),
            }
            true
        });
    }
}
