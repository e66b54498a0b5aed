//! The client that the ports share: a service of any layers, behind a typed front.
use super::call::{RpcCall, RpcError, RpcReply, RpcRequest};
use super::retry::Backoff;
use super::transport::{Auth, HttpTransport};
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};

/// Why a port's call failed; the driver calls again later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// The way to the node failed.
    #[error("Bitcoin Core is not reached: {0}")]
    Transport(#[source] BoxError),
    /// The node answered with an error that is no verdict.
    #[error("Bitcoin Core refuses {method}: {error}")]
    Node {
        /// The method.
        method: &'static str,
        /// What the node said.
        error: RpcError,
    },
    /// The node's answer is not what the method should answer.
    #[error("the answer to {method} is not understood: {what}")]
    Answer {
        /// The method.
        method: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

/// A client of one node. Cheap to clone.
///
/// ```
/// use arb_watcher::core_rpc::{Auth, CoreError, Rpc};
/// use std::time::Duration;
///
/// /// How many peers the node on this machine has.
/// async fn peers() -> Result<Option<u64>, CoreError> {
///     let auth = Auth::Cookie("/var/lib/bitcoind/.cookie".into());
///     let rpc = Rpc::builder("127.0.0.1:8332", auth).timeout(Duration::from_secs(60)).build();
///     Ok(rpc.call("getconnectioncount", vec![]).await?.as_u64())
/// }
/// ```
#[derive(Clone)]
pub struct Rpc {
    service: BoxCloneSyncService<RpcCall, RpcReply, BoxError>,
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rpc(..)")
    }
}

impl Rpc {
    /// A builder of the usual client.
    #[must_use]
    pub fn builder(address: impl Into<String>, auth: Auth) -> RpcBuilder {
        RpcBuilder {
            address: address.into(),
            auth,
            timeout: Duration::from_secs(30),
            concurrency: 4,
            backoff: Backoff::default(),
            longest_reply: 64 * 1024 * 1024,
        }
    }

    /// A client over any service: [`HttpTransport`] within the caller's own layers, or another
    /// transport.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<RpcCall, Response = RpcReply> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
    {
        Self { service: BoxCloneSyncService::new(service.map_err(Into::into)) }
    }

    /// The client within one more layer.
    #[must_use]
    pub fn layer<L>(self, layer: L) -> Self
    where
        L: Layer<BoxCloneSyncService<RpcCall, RpcReply, BoxError>>,
        L::Service: Service<RpcCall, Response = RpcReply> + Clone + Send + Sync + 'static,
        <L::Service as Service<RpcCall>>::Error: Into<BoxError>,
        <L::Service as Service<RpcCall>>::Future: Send + 'static,
    {
        Self::new(layer.layer(self.service))
    }

    /// Calls one method. `Err` within `Ok` is what the node answered.
    pub async fn request(
        &self,
        method: &'static str,
        params: Vec<Value>,
    ) -> Result<Result<Value, RpcError>, CoreError> {
        let mut results = self.batch(vec![RpcRequest { method, params }]).await?;
        Ok(results.remove(0))
    }

    /// Calls one method; an error of the node is an error.
    pub async fn call(&self, method: &'static str, params: Vec<Value>) -> Result<Value, CoreError> {
        self.request(method, params).await?.map_err(|error| CoreError::Node { method, error })
    }

    /// Several requests in one exchange: an answer each, in order.
    pub async fn batch(
        &self,
        requests: Vec<RpcRequest>,
    ) -> Result<Vec<Result<Value, RpcError>>, CoreError> {
        let asked = requests.len();
        let method = requests.first().map_or("", |request| request.method);
        let call = RpcCall::new(requests);
        let reply = self.service.clone().oneshot(call).await.map_err(CoreError::Transport)?;
        if reply.results.len() != asked {
            let what = format!("{} answers to {asked} requests", reply.results.len());
            return Err(CoreError::Answer { method, what });
        }
        // A node that is still starting up has not answered.
        if let Some(error) = reply.warmup() {
            return Err(CoreError::Node { method, error: error.clone() });
        }
        Ok(reply.results)
    }
}

/// Builds a client with a limit of concurrent calls, retries with backoff, and a timeout for each
/// attempt, around [`HttpTransport`].
#[derive(Clone, Debug)]
pub struct RpcBuilder {
    address: String,
    auth: Auth,
    timeout: Duration,
    concurrency: usize,
    backoff: Backoff,
    longest_reply: usize,
}

impl RpcBuilder {
    /// Time that one attempt may take; 30 s unless set. Longer than
    /// [`super::CoreBlocksConfig::poll`].
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls that are under way at once, and so the connections to the node; 4 unless set, at
    /// least 1. A [`super::CoreBlocks`] that is being followed occupies one.
    #[must_use]
    pub const fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = if calls == 0 { 1 } else { calls };
        self
    }

    /// How calls are repeated.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Bytes of a reply that are taken; 64 MiB unless set. A block takes up to 8 MB.
    #[must_use]
    pub const fn longest_reply(mut self, bytes: usize) -> Self {
        self.longest_reply = bytes;
        self
    }

    /// The bare transport, for layers of the caller's own.
    #[must_use]
    pub fn transport(&self) -> HttpTransport {
        HttpTransport::new(self.address.clone(), self.auth.clone(), self.longest_reply)
    }

    /// The client.
    #[must_use]
    pub fn build(&self) -> Rpc {
        let service = ServiceBuilder::new()
            .concurrency_limit(self.concurrency)
            .retry(self.backoff.clone())
            .timeout(self.timeout)
            .service(self.transport());
        Rpc::new(service)
    }
}
