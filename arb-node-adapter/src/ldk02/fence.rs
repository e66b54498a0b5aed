//! The fence towards LDK: it closes a channel before the arbiter publishes anything of it, and so makes
//! no commitment that would have to revoke the one that is published.
use arb_core::ids::ChannelId;
use core::ops::Deref;
use lightning::ln::channelmanager::AChannelManager;
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::util::errors::APIError;

/// Closes LDK's side of a channel.
pub trait ForceClose: Send + Sync + 'static {
    /// From the return on LDK makes no commitment of the channel any more. That it has no such
    /// channel, or has closed it, is no error.
    ///
    /// # Errors
    /// Why it is not sure. Nothing is published then, and it is asked again.
    fn force_close(&self, channel: ChannelId) -> Result<(), String>;
}

/// LDK's channel manager as what closes channels.
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

/// Nobody is told: for an arbiter that never publishes, or that is told of every close by LDK.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFence;

impl ForceClose for NoFence {
    fn force_close(&self, _: ChannelId) -> Result<(), String> {
        Ok(())
    }
}
