//! One channel's arbitrator: facts, evidence, desire.
pub mod change;
pub mod effect;
pub mod event;
pub mod input;

pub use change::{Change, FailReason, HandedOut, PreimageSource, TxKind};
pub use effect::UpstreamResolution;
pub use effect::{Alert, Effect, EffectKey, Notice, NoticeKey, UpstreamVerdict};
pub use event::{ChannelEvent, CloseKind};
pub use input::{BlockView, Input};
