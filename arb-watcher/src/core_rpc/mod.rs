//! Bitcoin Core over JSON-RPC: its blocks, its mempool and its fee estimates as ports of arb-core.
//!
//! Two layers. Below, a [`tower::Service`] from [`RpcCall`] to [`RpcReply`]: [`HttpTransport`]
//! speaks HTTP, and layers go around it ([`RpcBuilder`] has sensible ones, [`Rpc::layer`] and
//! [`Rpc::new`] take any others). Above, the ports: [`CoreBlocks`], [`CoreBroadcast`],
//! [`CoreFees`]. What the node answers, errors included, is a value of the lower layer; its errors
//! are those of the way to the node.
mod blocks;
mod broadcast;
mod call;
mod client;
mod decode;
mod fees;
mod reject;
mod retry;
mod tip_alarm;
mod transport;

pub use blocks::{CoreBlocks, CoreBlocksConfig};
pub use broadcast::{CoreBroadcast, CoreBroadcastConfig};
pub use call::{RpcCall, RpcError, RpcReply, RpcRequest};
pub use client::{CoreError, Rpc, RpcBuilder};
pub use fees::{CoreFees, CoreFeesConfig, EstimateMode};
pub use reject::verdict_of;
pub use retry::Backoff;
pub use tip_alarm::{StalledTip, TipAlarm};
pub use transport::{Auth, HttpTransport, TransportError};

#[cfg(test)]
mod tests;
