//! One channel's arbitrator: facts, evidence, desire.
pub mod change;
pub mod decide;
pub mod desired;
pub mod effect;
pub mod event;
pub mod evidence;
pub mod input;
mod moot;
pub mod phase;
mod stake;
mod upstream;

pub use change::{Change, FailReason, HandedOut, PreimageSource, Refusal, TxKind};
pub use decide::{Now, Position};
pub(crate) use desired::ANCHOR_FOR_ALL;
pub use desired::Desire;
pub use effect::{
    Alert, Effect, EffectKey, Notice, NoticeKey, UpstreamDuty, UpstreamResolution, UpstreamVerdict,
};
pub use event::{ChannelEvent, CloseKind, OutputProgress};
pub use evidence::{Acts, ChannelArbitrator, Intent, Rejections};
pub use input::{BlockView, Input};
pub use phase::{OutputState, Phase};
