//! The channels of the isolation test, the chain that they end on, and a node that acknowledges
//! whatever it is told.
use super::Failed;
use super::ports::{Hold, OneSilent, OneUnreadable};
use arb_core::arbitrator::Notice;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::ChangeLog;
use arb_tests::chain::{EmbeddedChain, Selection};
use arb_tests::peer::{Channel, ChannelParams, ClosingStyle, Format, Keep, NewHtlc, Side};
use arb_tests::peer::{PeerError, preimage_named};
use arb_tests::world::{
    Backend, Faults, Links, SharedChain, WorldFees, channel_secrets, first_facts, updates_of,
};
use arb_watcher::memory::{MemoryCoins, MemorySigner};
use arb_watcher::{Arbiter, CommandError, NoticeStream, Ports, ScriptsPort, Settings};
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction};
use futures_util::future::{FutureExt as _, join_all, try_join_all};
use std::sync::Arc;
use std::time::Duration;

/// Longer than the test lasts on its clock: whoever is silent stays so.
pub(super) const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// On a paused clock time passes only when nobody has anything to do: after this long, whatever
/// could be done has been done.
const SETTLED: Duration = Duration::from_millis(10);

const HTLC: u64 = 50_000;
/// Blocks after the start at which HTLCs expire: after everything has closed.
pub(super) const EXPIRY: u32 = 100;
/// HTLCs of the channel whose signer is silent, more than there are workers: on a commitment of
/// ours each has a transaction of its own.
const MANY: usize = 24;
/// Blocks after the start at which they expire: before everything closes.
const EARLY: u32 = 30;

/// How a channel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Mutual,
    /// The peer's commitment, with an HTLC of ours that runs out.
    Remote,
    /// A revoked commitment with an HTLC.
    Revoked,
    /// Our own commitment, with many HTLCs of ours that have run out.
    LocalWithMany,
    /// The arbiter is asked to fail the channel.
    Local,
    /// It does not.
    Stays,
}

/// One channel.
pub(super) struct Chan {
    pub(super) id: ChannelId,
    pub(super) end: End,
    pub(super) peer: Channel,
    pub(super) destination: ScriptBuf,
    funding: OutPoint,
}

impl Chan {
    /// Tells both sides of the channel what happened before its end.
    fn live(&mut self, height: u32) -> Result<(), PeerError> {
        let htlc = |name: &str| NewHtlc {
            name: name.to_owned(),
            amount_msat: HTLC * 1_000,
            cltv_expiry: height + EXPIRY,
            preimage: preimage_named(name),
        };
        match self.end {
            End::Mutual => self.peer.shutdown(),
            End::Remote => self.peer.offer(htlc("h")).map(drop),
            End::Revoked => {
                self.peer.offer(htlc("h"))?;
                self.peer.settle("h")
            }
            End::LocalWithMany => {
                for n in 0..MANY {
                    let (amount_msat, cltv_expiry) = (10_000_000, height + EARLY);
                    let htlc = htlc(&format!("h{n}"));
                    self.peer.offer(NewHtlc { amount_msat, cltv_expiry, ..htlc })?;
                }
                Ok(())
            }
            End::Local | End::Stays => Ok(()),
        }
    }

    /// The transaction that ends it, unless the arbiter does.
    pub(super) fn closing(&self) -> Result<Option<Transaction>, PeerError> {
        Ok(Some(match self.end {
            End::Mutual => {
                let rate = FeeRate::from_sat_per_kwu(500);
                self.peer.mutual_close(rate, ClosingStyle::Simple)?
            }
            End::Remote => self.peer.remote_current()?.tx,
            End::Revoked => self.peer.remote_commitment(1)?.tx,
            End::LocalWithMany => self.peer.local_commitment()?.tx,
            End::Local | End::Stays => return Ok(None),
        }))
    }

    /// What must reach us, before fees of our own transactions. The peer opened the channel and
    /// pays for its commitments.
    pub(super) fn due_to_us(&self) -> Result<Amount, PeerError> {
        let balance = self.peer.params().local_balance;
        Ok(match (self.end, self.closing()?) {
            (End::Revoked, Some(tx)) => tx.output.iter().map(|output| output.value).sum(),
            _ => balance,
        })
    }
}

/// Everything around the arbiter.
pub(super) struct Stage {
    pub(super) chain: SharedChain,
    pub(super) channels: Vec<Chan>,
    pub(super) arbiter: Arbiter,
    pub(super) signer: OneSilent,
    pub(super) hold: Hold,
    pub(super) alerts: Vec<(ChannelId, Notice)>,
    notices: NoticeStream,
}

impl Stage {
    /// Channels with these ends, in this order, all told to the arbiter, whose log is this one. The signer is
    /// silent for the channel at `silent`; the one at `poisoned` may be damaged.
    pub(super) async fn set<L: ChangeLog>(
        log: L,
        ends: &[End],
        silent: usize,
        poisoned: u32,
    ) -> Result<Self, Failed> {
        let mut chain = EmbeddedChain::new();
        let channels = open(&mut chain, ends)?;
        let chain = SharedChain::new(chain);
        let memory = MemorySigner::new();
        for chan in &channels {
            memory.insert(chan.id, channel_secrets(chan.peer.local_secrets()));
        }
        let silent = channels.get(silent).map(|chan| chan.id).ok_or("a silent channel")?;
        let signer = OneSilent::new(memory, silent);
        let hold = Hold::default();
        let poisoned = Slot(poisoned);
        let log = OneUnreadable { inner: log, poisoned, hold: hold.clone() };
        let faults = Arc::new(Faults::default());
        let backend = Backend::Embedded(chain.clone());
        let ports = Ports {
            source: backend.blocks(),
            broadcast: backend.broadcaster(faults.clone()),
            fees: WorldFees { faults },
            signer: signer.clone(),
            coins: MemoryCoins::new(SecretKey::from_slice(&[7; 32])?, &[]),
            scripts: ScriptsPort::default(),
        };
        // Facts that are still in memory could not be damaged.
        let settings = Settings { patience: PATIENCE, busy_channels: 0, ..Settings::default() };
        let arbiter = Arbiter::start(log, ports, settings, Vec::new()).await?;
        let notices = arbiter.notices().await?;
        let alerts = Vec::new();
        let mut stage = Self { chain, channels, arbiter, signer, hold, alerts, notices };
        stage.settle().await;
        stage.tell().await?;
        Ok(stage)
    }

    async fn tell(&mut self) -> Result<(), Failed> {
        let height = self.chain.with(|chain| chain.height());
        let mut updated = Vec::new();
        for chan in &mut self.channels {
            self.arbiter.watch_channel(first_facts(&chan.peer, height)?).await?;
            chan.peer.take_facts(Keep::Newest)?;
            chan.live(height)?;
            let steps = chan.peer.take_facts(Keep::Newest)?;
            let updates = updates_of(&steps, chan.funding, &Links::new());
            updated.push(self.arbiter.update_channel(chan.id, updates));
        }
        try_join_all(updated).await?;
        Ok(())
    }

    /// Lets everybody do what can be done.
    pub(super) async fn settle(&self) {
        tokio::time::sleep(SETTLED).await;
    }

    /// A block of the mempool and these transactions. It must be durable as soon as nobody has
    /// anything else to do.
    pub(super) async fn mine(&mut self, among: &[Transaction]) -> Result<(), Failed> {
        let height = self.chain.with(|chain| {
            for tx in among {
                chain.submit(tx.clone())?;
            }
            chain.mine(&Selection::All);
            if let Some(tx) = among.iter().find(|tx| chain.tx_height(&tx.compute_txid()).is_none())
            {
                return Err(Failed::from(format!("{} is not mined", tx.compute_txid())));
            }
            Ok(chain.height())
        })?;
        self.chain.announce();
        self.settle().await;
        assert_eq!(self.hold.last_block().map(|at| at.height.0), Some(height), "a block is late");
        self.acknowledge().await
    }

    /// The last block goes, with everything in it, and two empty ones come.
    pub(super) async fn reorganise(&mut self) -> Result<(), Failed> {
        let tip = self.chain.with(|chain| {
            chain.disconnect(1, &|_| true)?;
            chain.mine_empty(2);
            Ok::<_, Failed>(chain.tip())
        })?;
        self.chain.announce();
        self.settle().await;
        let last = self.hold.last_block().map(|at| (at.height.0, at.hash));
        assert_eq!(last, Some(tip), "a reorganisation is late");
        self.acknowledge().await
    }

    async fn acknowledge(&mut self) -> Result<(), Failed> {
        let mut told = Vec::new();
        while let Some(notice) = self.notices.next().now_or_never().flatten() {
            told.push(notice);
        }
        let keys = told.iter().map(|(id, notice)| self.arbiter.acknowledge(*id, notice.key()));
        for acknowledged in join_all(keys).await {
            match acknowledged {
                // What was said twice may have been about a channel that is forgotten by now.
                Ok(()) | Err(CommandError::UnknownChannel(_) | CommandError::SetAside { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.alerts.extend(told.into_iter().filter(|(_, n)| matches!(n, Notice::Alert(_))));
        Ok(())
    }
}

fn open(chain: &mut EmbeddedChain, ends: &[End]) -> Result<Vec<Chan>, Failed> {
    let mut peers = Vec::new();
    for at in 0..ends.len() {
        let params = ChannelParams::new(&format!("c{at}"));
        let format = Format::StaticRemoteKey;
        let params = ChannelParams { format, opener: Side::Remote, local_delay: 6, ..params };
        peers.push(Channel::new(params)?);
    }
    let payments: Vec<_> =
        peers.iter().map(|peer| (peer.funding_script(), peer.params().capacity)).collect();
    let outpoints = chain.fund_many(&payments)?;
    let mut channels = Vec::new();
    for ((mut peer, funding), end) in peers.into_iter().zip(outpoints).zip(ends) {
        peer.set_funding(funding)?;
        let facts = first_facts(&peer, chain.height())?;
        let (id, destination) = (facts.id, facts.destination);
        channels.push(Chan { id, end: *end, peer, destination, funding });
    }
    Ok(channels)
}
