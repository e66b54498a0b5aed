//! The fence towards LDK: it closes a channel before the arbiter publishes our commitment, and so makes
//! no commitment that would have to revoke the one that is published.
use super::WriteAll;
use super::facts::Shelf;
use arb_core::ids::ChannelId;
use arb_core::ports::{Package, Stake};
use bitcoin::Transaction;
use core::ops::Deref;
use lightning::ln::channelmanager::AChannelManager;
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::util::errors::APIError;
use std::sync::Arc;

/// Closes LDK's side of a channel.
pub trait ForceClose: Send + Sync + 'static {
    /// From the return on LDK makes no commitment of the channel any more. That it has no such
    /// channel, or has closed it, is no error: after a restart it is asked again, for LDK may have
    /// lost its close.
    ///
    /// # Errors
    /// Why it is not sure. Nothing is published then, and it is asked again.
    fn force_close(&self, channel: ChannelId) -> Result<(), String>;
}

/// LDK's channel manager as what closes channels. That it was told is not remembered: the arbiter is
/// to be given it through [`Recorder::fence`](super::Recorder::fence).
#[derive(Clone, Debug)]
pub struct ManagerFence<M>(pub M);

impl<M> ForceClose for ManagerFence<M>
where
    M: Deref<Target: AChannelManager> + Send + Sync + 'static,
{
    fn force_close(&self, channel: ChannelId) -> Result<(), String> {
        let (manager, id) = (self.0.get_cm(), LdkChannelId(channel.0));
        let all = manager.list_channels();
        let Some(details) = all.iter().find(|details| details.channel_id == id) else {
            return Ok(());
        };
        let why = "the channel is being closed on chain".to_owned();
        match manager.force_close_broadcasting_latest_txn(&id, &details.counterparty.node_id, why) {
            // It was closed meanwhile.
            Ok(()) | Err(APIError::ChannelUnavailable { .. }) => Ok(()),
            Err(error) => Err(format!("{error:?}")),
        }
    }
}

/// Remembers durably that LDK is told, before it is told. Made by
/// [`Recorder::fence`](super::Recorder::fence).
#[derive(Debug)]
pub struct RecordedFence<F, K> {
    inner: F,
    shelf: Arc<Shelf<K>>,
}

impl<F: Clone, K> Clone for RecordedFence<F, K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shelf: self.shelf.clone() }
    }
}

impl<F, K> RecordedFence<F, K> {
    pub(super) const fn new(inner: F, shelf: Arc<Shelf<K>>) -> Self {
        Self { inner, shelf }
    }
}

impl<F, K> ForceClose for RecordedFence<F, K>
where
    F: ForceClose,
    K: Deref<Target: WriteAll> + Send + Sync + 'static,
{
    fn force_close(&self, channel: ChannelId) -> Result<(), String> {
        self.shelf.put_told(channel)?;
        self.inner.force_close(channel)
    }
}

/// Nobody is told: for an arbiter that never publishes, or that is told of every close by LDK.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFence;

impl ForceClose for NoFence {
    fn force_close(&self, _: ChannelId) -> Result<(), String> {
        Ok(())
    }
}

/// Channels of which a package has our commitment: their funding output is one of its stakes, and
/// what spends it there has the shape of a commitment. The arbiter never hands out the peer's: it
/// pays for that with a child, and claims from it.
pub(super) fn committed(package: &Package) -> impl Iterator<Item = ChannelId> {
    let commitments = package.transactions.iter().filter(|tx| is_commitment(tx));
    commitments.flat_map(|tx| &tx.input).filter_map(|input| {
        let of = |stake: &&Stake| stake.outpoint == input.previous_output;
        package.stakes.iter().find(of).map(|stake| stake.channel)
    })
}

/// One input, upper 8 bits of `nSequence` 0x80 and of `nLockTime` 0x20 (BOLT 3 "Commitment
/// Transaction"). No claim has that shape.
fn is_commitment(tx: &Transaction) -> bool {
    let [input] = tx.input.as_slice() else { return false };
    let (sequence, lock_time) = (input.sequence.0, tx.lock_time.to_consensus_u32());
    sequence >> 24 == 0x80 && lock_time >> 24 == 0x20
}
