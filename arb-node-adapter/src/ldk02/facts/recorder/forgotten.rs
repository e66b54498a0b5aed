//! What LDK forgot in a crash although the arbiter knows it: an update that was told, whose monitor was not written,
//! of a channel manager that was written before.
use super::again::update_of;
use crate::ldk02::WriteAll;
use crate::ldk02::facts::monitor;
use crate::ldk02::facts::shelf::Shelf;
use crate::ldk02::facts::translate::number;
use arb_core::ids::ChannelId;
use arb_core::units::CommitmentNumber;
use core::ops::Deref;
use std::collections::BTreeMap;

/// How far LDK's monitor of a channel was when the recorder was opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// The last update in it.
    update: u64,
    /// The peer's newest commitment in it.
    newest: CommitmentNumber,
}

impl Written {
    /// The peer's commitment that the arbiter may know of and LDK never signed away, if this is LDK's next update. LDK
    /// signs nothing of an update before it is completed, and none is completed before its monitor is written. So what
    /// is not in the monitor has not left this node, whatever the arbiter was told before a crash. No update brings
    /// more than one such commitment.
    ///
    /// With a later update, this one has been completed.
    pub(super) fn unsigned(&self, update: u64) -> Option<CommitmentNumber> {
        let is_next = self.update.checked_add(1) == Some(update);
        self.newest.next().filter(|_| is_next)
    }
}

/// What LDK's monitors say, where they are in the same store. Of one that is not understood nothing is withdrawn.
pub(super) fn written<K>(shelf: &Shelf<K>) -> Result<BTreeMap<ChannelId, Written>, String>
where
    K: Deref<Target: WriteAll>,
{
    let channels: Vec<ChannelId> = shelf.books().keys().copied().collect();
    let mut all = BTreeMap::new();
    for channel in channels {
        let Some(book) = shelf.book(&channel) else { continue };
        let Some(bytes) = shelf.monitor(&book)? else { continue };
        let (Some(update), Ok(known)) = (update_of(&bytes), monitor::known(&bytes)) else {
            continue;
        };
        if let Ok(newest) = number(known.remote_number) {
            all.insert(channel, Written { update, newest });
        }
    }
    Ok(all)
}
