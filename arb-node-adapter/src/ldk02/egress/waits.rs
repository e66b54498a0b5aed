//! For how long LDK waits for an arbiter that takes nothing.
use super::{Egress, Mode, SILENCE};
use crate::ldk02::lock;
use arb_core::ids::ChannelId;

/// Since when the arbiter has taken nothing, and when it said so last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusing {
    since: u32,
    last: u32,
}

impl Refusing {
    pub(super) const fn since(height: u32) -> Self {
        Self { since: height, last: height }
    }

    /// It refuses once more. What it refused long ago, and was not asked again since, does not count.
    fn again(before: Option<Self>, height: u32) -> Self {
        let before = before.filter(|before| height.saturating_sub(before.last) <= 1);
        Self { last: height, ..before.unwrap_or(Self::since(height)) }
    }

    const fn is_long(self) -> bool {
        self.last.saturating_sub(self.since) >= SILENCE
    }
}

impl Egress {
    /// The arbiter took something, or `refused` it for now. Returns whether LDK waits until it takes it: not in
    /// [`Mode::Observe`], when it has [`ended`](Self::ended) or refuses everything for [`SILENCE`] blocks. One that does not answer
    /// at all is waited for. For
    /// [`FactSink::waits`](crate::FactSink::waits).
    pub fn waits(&self, refused: bool) -> bool {
        let mut state = lock(&self.state);
        if !refused {
            state.refusing = None;
            return true;
        }
        let refusing = Refusing::again(state.refusing, state.height);
        state.refusing = Some(refusing);
        state.mode != Mode::Observe || !(state.has_ended || refusing.is_long())
    }

    /// The same of one channel, of which the arbiter took something, or `refused` it since it has set the channel aside. For
    /// [`FactSink::waits_for`](crate::FactSink::waits_for).
    pub fn waits_for(&self, channel: ChannelId, refused: bool) -> bool {
        let mut state = lock(&self.state);
        let before = state.aside.remove(&channel);
        if !refused {
            return true;
        }
        let refusing = Refusing::again(before, state.height);
        state.aside.insert(channel, refusing);
        state.mode != Mode::Observe || !(state.has_ended || refusing.is_long())
    }
}
