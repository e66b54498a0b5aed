//! The way out: notices to the node, repeated until acknowledged.
use arb_core::arbitrator::{Notice, NoticeKey};
use arb_core::ids::ChannelId;
use futures_core::Stream;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Notices that a slow reader may have waiting; what does not fit is repeated at the next block.
const WAITING: usize = 1024;

/// Notices to the node: everything outstanding first, then new ones, each repeated with every
/// block until it is acknowledged.
#[derive(Debug)]
pub struct NoticeStream {
    receiver: mpsc::Receiver<(ChannelId, Notice)>,
}

impl NoticeStream {
    /// The next notice; `None` once the driver has ended.
    pub async fn next(&mut self) -> Option<(ChannelId, Notice)> {
        self.receiver.recv().await
    }
}

impl Stream for NoticeStream {
    type Item = (ChannelId, Notice);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx)
    }
}

/// Everything outstanding, and who listens.
#[derive(Debug, Default)]
pub(crate) struct NoticeHub {
    outstanding: BTreeMap<(ChannelId, NoticeKey), Notice>,
    listeners: Vec<mpsc::Sender<(ChannelId, Notice)>>,
}

impl NoticeHub {
    pub(crate) fn listen(&mut self) -> NoticeStream {
        let (sender, receiver) = mpsc::channel(WAITING);
        for ((id, _), notice) in &self.outstanding {
            // A full queue is no loss: notices are repeated.
            let _ = sender.try_send((*id, notice.clone()));
        }
        self.listeners.push(sender);
        NoticeStream { receiver }
    }

    pub(crate) fn tell(&mut self, id: ChannelId, notice: &Notice) {
        self.outstanding.insert((id, notice.key()), notice.clone());
        self.listeners.retain(|listener| !listener.is_closed());
        for listener in &self.listeners {
            let _ = listener.try_send((id, notice.clone()));
        }
    }

    pub(crate) fn acknowledged(&mut self, id: ChannelId, key: NoticeKey) {
        self.outstanding.remove(&(id, key));
    }

    /// Notices of a channel that are no longer so, or no longer desired, are not repeated.
    pub(crate) fn keep(&mut self, id: ChannelId, desired: &[NoticeKey]) {
        self.outstanding.retain(|(of, key), _| *of != id || desired.contains(key));
    }
}
