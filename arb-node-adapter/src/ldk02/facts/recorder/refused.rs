//! Updates of which not all is told: those that LDK's monitor refuses, and those of a channel that is held.
use super::again::update_of;
use super::{Recorder, Stop, Waiting};
use crate::ldk02::WriteAll;
use crate::ldk02::facts::FactSink;
use crate::ldk02::facts::monitor::{self, NotAtRest};
use crate::ldk02::facts::translate::{Translated, Translation};
use crate::ldk02::facts::update;
use arb_core::ids::ChannelId;
use core::ops::Deref;

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    /// A monitor that has seen the funding output spent refuses the updates of a channel manager that has not:
    /// LDK does not say what was in them, and their numbers are used up. They count as seen, and what the
    /// monitor took from them all the same is told.
    ///
    /// That is not so where LDK went on without the recorder: then the channel may be open still, of which no update is
    /// refused, and a monitor that is written may be ahead as well.
    pub(super) async fn refused<S: FactSink>(
        &mut self,
        channel: ChannelId,
        update: u64,
        monitor: &[u8],
        sink: &S,
    ) -> Result<(), Stop> {
        let Some(book) = self.shelf.book(&channel).filter(|book| update > book.applied) else {
            return Ok(());
        };
        // The number of a channel that was closed by a version before 0.1.
        let is_closing = matches!(monitor::read(monitor), Err(NotAtRest::Closing));
        if update == u64::MAX || !is_closing {
            return Ok(());
        }
        let failed = |why| Stop::Wait(Waiting::Store(why));
        let written = self.shelf.monitor(&book).map_err(failed)?;
        if written.is_some_and(|bytes| update_of(&bytes).is_none_or(|of| of > book.applied)) {
            return Ok(());
        }
        self.learn(channel, monitor, sink).await.map_err(Stop::Wait)?;
        let Some(mut book) = self.shelf.book(&channel) else { return Ok(()) };
        (book.applied, book.digest) = (update, [0; 32]);
        self.shelf.put(channel, book).map_err(failed)
    }

    /// Tells the secrets and preimages that a monitor knows and the arbiter does not.
    pub(super) async fn learn<S: FactSink>(
        &mut self,
        channel: ChannelId,
        monitor: &[u8],
        sink: &S,
    ) -> Result<(), Waiting> {
        let Ok(known) = monitor::known(monitor) else { return Ok(()) };
        let translated = {
            let books = self.shelf.books();
            let Ok(mut all) = Translation::new(channel, &books, &self.secp) else { return Ok(()) };
            // What came before an error stands.
            let _unfit = all.known(&known);
            all.done()
        };
        self.tell_each(channel, translated, sink).await
    }

    /// Tells the secrets and preimages of an update.
    pub(super) async fn helps<S: FactSink>(
        &mut self,
        channel: ChannelId,
        bytes: &[u8],
        sink: &S,
    ) -> Result<(), Waiting> {
        let Ok((_, steps)) = update::read(bytes) else { return Ok(()) };
        let translated = {
            let books = self.shelf.books();
            let Ok(mut all) = Translation::new(channel, &books, &self.secp) else { return Ok(()) };
            all.helps(&steps);
            all.done()
        };
        self.tell_each(channel, translated, sink).await
    }

    /// One after the other, for what the arbiter does not take must not keep it from the rest. Then that stays
    /// untold, and is told again with the next.
    async fn tell_each<S: FactSink>(
        &mut self,
        channel: ChannelId,
        translated: Translated,
        sink: &S,
    ) -> Result<(), Waiting> {
        let Translated { changed, told, ended } = translated;
        let mut all = true;
        let any = !told.is_empty();
        for one in told {
            match self.tell(channel, (vec![one], Vec::new()), sink).await {
                Ok(()) => {}
                Err(Stop::Wait(waiting)) => return Err(waiting),
                Err(Stop::Gone | Stop::Fence | Stop::Behind | Stop::Hold(_)) => all = false,
            }
        }
        if !(any && all) {
            return Ok(());
        }
        match self.keep(channel, changed, ended) {
            Err(Stop::Wait(waiting)) => Err(waiting),
            Ok(()) | Err(Stop::Gone | Stop::Fence | Stop::Behind | Stop::Hold(_)) => Ok(()),
        }
    }
}
