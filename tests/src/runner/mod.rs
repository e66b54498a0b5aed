//! The scenario runner: executes a parsed scenario against the real arbiter, on a chain, with the
//! hostile peer as the other side. `docs/scenarios.md` is the page that it follows.
mod closing;
mod command;
mod crash;
mod expect;
mod history;
mod ldk;
mod locate;
mod node;
mod onchain;
mod rerun;
mod splice;
mod story;
mod summary;
mod trace;
mod truth;
mod views;

use std::fmt::Display;

pub use rerun::{
    ChainKind, Compared, Options, Outcome, Verdict, run, run_crashing, run_everywhere,
};
pub use story::unplayable;
pub use summary::{Foreseen, Summary, run_watched};
pub use views::{View, Views, run_with_views};

/// What a line of a scenario came to, when it did not come out as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What the line, or the language, promises.
    pub expected: String,
    /// What was there instead.
    pub found: String,
}

impl Failed {
    fn new(expected: impl Display, found: impl Display) -> Self {
        Self { expected: expected.to_string(), found: found.to_string() }
    }
}

impl From<crate::world::WorldError> for Failed {
    fn from(error: crate::world::WorldError) -> Self {
        Self::new("the chain to do it", error)
    }
}

impl From<crate::peer::PeerError> for Failed {
    fn from(error: crate::peer::PeerError) -> Self {
        Self::new("the peer to be able to do it", error)
    }
}
