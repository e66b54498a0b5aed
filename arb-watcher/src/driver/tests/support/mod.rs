//! A chain, a network, a wallet, a signer and a log, each of which fails on demand.
pub(super) mod channel;
pub(super) mod log;
pub(super) mod outside;

use crate::{Arbiter, ChannelNumbers, CommandError, NoticeStream, Ports, ScriptsPort, Settings};
use arb_core::arbitrator::Notice;
use arb_core::ids::ChannelId;
use arb_core::units::CommitmentNumber;
pub(super) use channel::{BIRTH, Channel, number, offered, preimage, received, spend, terms};
pub(super) use log::{Gate, Log};
pub(super) use outside::{Chain, Down, Fees, Net, Scripts, Signing, Wallet};
use std::time::Duration;

/// What a port does when it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Well,
    Fails,
    Hangs,
    Panics,
    /// Well, a second later.
    Slow,
}

impl Mood {
    async fn act(self) -> Result<(), Down> {
        match self {
            Self::Well => Ok(()),
            Self::Fails => Err(Down),
            Self::Hangs => std::future::pending().await,
            Self::Panics => panic!("as the test wants"),
            Self::Slow => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(())
            }
        }
    }
}

/// Everything around an arbiter that outlives it.
#[derive(Clone, Default)]
pub(super) struct World {
    pub(super) chain: Chain,
    pub(super) net: Net,
    pub(super) fees: Fees,
    pub(super) signer: Signing,
    pub(super) wallet: Wallet,
    pub(super) scripts: Scripts,
    pub(super) log: Log,
}

impl World {
    pub(super) fn ports(&self) -> Ports<Chain, Net, Fees, Signing, Wallet> {
        Ports {
            source: self.chain.clone(),
            broadcast: self.net.clone(),
            fees: self.fees.clone(),
            signer: self.signer.clone(),
            coins: self.wallet.clone(),
            scripts: ScriptsPort::new(self.scripts.clone()),
        }
    }

    /// An arbiter of a node that states nothing.
    pub(super) async fn start(&self) -> Arbiter {
        self.start_with(Settings::default(), vec![]).await
    }

    /// An arbiter of a node that states what the log has.
    pub(super) async fn restart(&self, channels: &[&Channel]) -> Arbiter {
        let numbers = channels.iter().map(|channel| stated(channel)).collect();
        self.start_with(Settings::default(), numbers).await
    }

    pub(super) async fn start_with(
        &self,
        settings: Settings,
        numbers: Vec<ChannelNumbers>,
    ) -> Arbiter {
        let started = Arbiter::start(self.log.clone(), self.ports(), settings, numbers).await;
        started.expect("the log is sound")
    }

    /// An arbiter at the tip that watches this channel.
    pub(super) async fn watching(&self, channel: &Channel) -> Arbiter {
        let arbiter = self.start().await;
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
        arbiter.idle().await.expect("running");
        arbiter
    }

    /// Resolves once no arbiter holds the ports.
    pub(super) async fn gone(&self) {
        while self.chain.holders() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Mines empty blocks, each of which the arbiter digests.
    pub(super) async fn pass(&self, arbiter: &Arbiter, blocks: u32) {
        for _ in 0..blocks {
            self.chain.mine(vec![]);
            arbiter.idle().await.expect("running");
        }
    }
}

pub(super) fn stated(channel: &Channel) -> ChannelNumbers {
    let current = &channel.facts.candidates.current;
    let (local, remote) = (current.local.number, current.remote.number);
    ChannelNumbers { id: channel.facts.id, local, remote }
}

pub(super) fn numbers(id: ChannelId, local: u64, remote: u64) -> ChannelNumbers {
    ChannelNumbers { id, local: CommitmentNumber(local), remote: CommitmentNumber(remote) }
}

/// Whether a channel is set aside, as its report says.
pub(super) async fn is_set_aside(arbiter: &Arbiter, channel: ChannelId) -> bool {
    match arbiter.report(channel).await {
        Err(CommandError::SetAside { id, why, .. }) => id == channel && !why.is_empty(),
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    }
}

/// What the stream holds now.
pub(super) async fn drain(stream: &mut NoticeStream) -> Vec<(ChannelId, Notice)> {
    let mut all = Vec::new();
    while let Ok(Some(notice)) = tokio::time::timeout(Duration::ZERO, stream.next()).await {
        all.push(notice);
    }
    all
}

/// Fails a channel: the intent is durable after this, whether or not its commitment is on its way.
pub(super) async fn fail(arbiter: &Arbiter, id: ChannelId) {
    tokio::select! {
        biased;
        failed = arbiter.fail_channel(id) => drop(failed.expect("current facts")),
        known = arbiter.report(id) => drop(known.expect("running")),
    }
}
