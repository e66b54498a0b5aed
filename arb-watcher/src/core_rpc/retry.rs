//! When a call is repeated: exponential backoff as a tower policy.
use super::call::{RpcCall, RpcReply};
use super::transport::TransportError;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tower::BoxError;
use tower::retry::Policy;
use tower::timeout::error::Elapsed;

/// Repeats a call whose way to the node failed, or which met a node that is starting up: after
/// `first`, then after twice as long each time, up to `longest`, at most `retries` times. What the
/// node says otherwise is an answer and is not asked for again.
///
/// ```
/// use arb_watcher::core_rpc::{Auth, Backoff, Rpc};
///
/// /// Gives a node on this machine more time to start.
/// fn patient(auth: Auth) -> Rpc {
///     let backoff = Backoff { retries: 20, ..Backoff::default() };
///     Rpc::builder("127.0.0.1:8332", auth).backoff(backoff).build()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait before the first repetition.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
    /// Repetitions after the first attempt.
    pub retries: u32,
}

impl Default for Backoff {
    /// Waits of 100 ms to 5 s, about 17 s altogether.
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(5), retries: 8 }
    }
}

impl Policy<RpcCall, RpcReply, BoxError> for Backoff {
    type Future = Pin<Box<Sleep>>;

    fn retry(
        &mut self,
        _: &mut RpcCall,
        result: &mut Result<RpcReply, BoxError>,
    ) -> Option<Self::Future> {
        let again = match result {
            Ok(reply) => reply.warmup().is_some(),
            Err(error) => is_transient(error),
        };
        if !again {
            return None;
        }
        self.retries = self.retries.checked_sub(1)?;
        let wait = self.first.min(self.longest);
        self.first = wait.saturating_mul(2);
        Some(Box::pin(sleep(wait)))
    }

    fn clone_request(&mut self, call: &RpcCall) -> Option<RpcCall> {
        Some(call.clone())
    }
}

fn is_transient(error: &BoxError) -> bool {
    error.is::<Elapsed>()
        || error.downcast_ref::<TransportError>().is_some_and(TransportError::is_transient)
}
