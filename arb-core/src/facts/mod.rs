//! Facts: what the node told us of a channel, parsed once and consistent. The arbitrator never
//! changes them; a new version replaces the old.
pub mod channel;
pub mod entry;
pub mod htlc;
pub mod secrets;
pub mod standing;
pub mod update;

pub use channel::{
    Candidates, ChannelFacts, ChannelKeys, ChannelNames, FundingCandidate, FundingKeys,
    LocalCommitment, Party, RemoteCommitment, ShutdownScripts,
};
pub use entry::ChannelEntry;
pub use htlc::{Htlc, HtlcLink, HtlcRecord};
pub use secrets::SecretStore;
pub use standing::{ChannelNumbers, Standing};
pub use update::{Followed, Link, Signals, Update, UpdateError};
