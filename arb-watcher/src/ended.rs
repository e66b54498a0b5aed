//! Why an arbiter has ended: said before its commands are answered by [`crate::CommandError::Stopped`].
use tokio::sync::watch;

/// Why an arbiter has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// By [`crate::Arbiter::shutdown`], or the last handle was dropped.
    #[error("it was asked to end")]
    Asked,
    /// By [`crate::Arbiter::kill`], or the runtime went down.
    #[error("it was killed")]
    Killed,
    /// It panicked, over no single channel, with these words: a bug. Nothing was done that is not in
    /// the store, and a new start goes on from there.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// The store is closed or damaged, or refuses for good what must be written: nothing can be done
    /// until it is opened anew, or restored.
    #[error("the store can take nothing more: {0}")]
    Store(String),
}

/// The driver's end: dropped without a word, it was killed.
#[derive(Debug)]
pub(crate) struct LastWord(watch::Sender<Option<Ended>>);

impl LastWord {
    pub(crate) fn new() -> (Self, watch::Receiver<Option<Ended>>) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), receiver)
    }

    /// The first word counts.
    pub(crate) fn say(&self, why: Ended) {
        self.0.send_if_modified(|said| {
            let first = said.is_none();
            said.get_or_insert(why);
            first
        });
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        self.say(Ended::Killed);
    }
}
