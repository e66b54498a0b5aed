//! What LDK's other parts say of a channel: how they name it, and whether its peer is connected.
//!
//! Not known from outside of LDK: a funding output's position in the chain between the block in which
//! it is found and the next word with the peer, and names that LDK makes up for a single payment
//! (intercepted and phantom ones).
use super::{Recorder, Stop, answered};
use crate::ldk02::WriteAll;
use crate::ldk02::facts::FactSink;
use arb_core::facts::{ChannelNames, Link, Signals, Update};
use arb_core::ids::ChannelId;
use core::ops::Deref;

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    /// Tells signals; the names that were told last are written, the link is not.
    pub(super) async fn signals<S: FactSink>(
        &self,
        channel: ChannelId,
        names: Option<&ChannelNames>,
        link: Link,
        sink: &S,
    ) -> Result<(), Stop> {
        let Some(mut book) = self.shelf.book(&channel) else { return Ok(()) };
        let names = names.unwrap_or(&book.facts.names).clone();
        let signals = Signals { names: names.clone(), link };
        answered(sink.update(channel, vec![Update::Signals(signals)], Vec::new()).await)?;
        if names == book.facts.names {
            return Ok(());
        }
        book.facts.names = names;
        self.shelf.put(channel, book).map_err(|why| Stop::Wait(super::Waiting::Store(why)))
    }
}
