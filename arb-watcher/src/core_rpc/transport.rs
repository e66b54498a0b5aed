//! JSON-RPC over HTTP/1.1 with keep-alive connections: the innermost service.
use super::call::{RpcCall, RpcReply};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

type Body = Full<Bytes>;

/// How the node knows us. Passwords do not reach `Debug`.
#[derive(Clone)]
pub enum Auth {
    /// `-rpcuser` and `-rpcpassword`, or a pair from `-rpcauth`.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// The cookie file that the node writes at each start; read again when it does not fit.
    Cookie(PathBuf),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user}, ..)"),
            Self::Cookie(path) => write!(f, "Cookie({})", path.display()),
        }
    }
}

/// Why a call did not reach the node, or its reply did not reach us.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// No connection.
    #[error("no connection to {address}")]
    Connect {
        /// The node's address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The cookie file cannot be read: the node is not up yet, or the path is wrong.
    #[error("cookie file {path} cannot be read")]
    Cookie {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// User or password cannot be sent, or the node refuses them.
    #[error("the node refuses the credentials")]
    Unauthorized,
    /// The connection broke, or what came over it is not HTTP.
    #[error("the connection broke")]
    Http(#[source] BoxError),
    /// The node answered with an HTTP status and without JSON; 503 when its queue is full.
    #[error("HTTP status {0}")]
    Status(u16),
    /// The reply is longer than what is taken.
    #[error("the reply is longer than {limit} bytes")]
    TooLong {
        /// The most that is taken.
        limit: usize,
    },
    /// The reply is not the JSON-RPC reply to the call.
    #[error("the reply is malformed: {0}")]
    Malformed(String),
}

impl TransportError {
    /// Whether the same call may well succeed in a moment.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            // A restarted node writes its cookie shortly before it listens.
            Self::Connect { .. } | Self::Cookie { .. } | Self::Unauthorized | Self::Http(_) => true,
            Self::Status(status) => *status == StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            Self::TooLong { .. } | Self::Malformed(_) => false,
        }
    }
}

/// JSON-RPC over HTTP/1.1 in plain text: for a node on this machine or behind a tunnel. Clones
/// share their connections. Needs a tokio runtime.
///
/// ```
/// use arb_watcher::core_rpc::{Auth, HttpTransport, Rpc};
/// use tower::ServiceBuilder;
///
/// /// A client with layers of one's own: two calls at once, and none is repeated.
/// fn bare(auth: Auth) -> Rpc {
///     let transport = HttpTransport::new("127.0.0.1:8332", auth, 64 << 20);
///     Rpc::new(ServiceBuilder::new().concurrency_limit(2).service(transport))
/// }
/// ```
#[derive(Clone)]
pub struct HttpTransport {
    shared: Arc<Shared>,
}

struct Shared {
    address: String,
    auth: Auth,
    longest_reply: usize,
    authorization: Mutex<Option<HeaderValue>>,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl HttpTransport {
    /// Idle connections that are kept.
    const MAX_IDLE: usize = 8;

    /// A transport to the node at `address` (`host:port`), which takes replies up to
    /// `longest_reply` bytes.
    #[must_use]
    pub fn new(address: impl Into<String>, auth: Auth, longest_reply: usize) -> Self {
        let shared = Shared {
            address: address.into(),
            auth,
            longest_reply,
            authorization: Mutex::new(None),
            idle: Mutex::new(Vec::new()),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport")
            .field("address", &self.shared.address)
            .field("auth", &self.shared.auth)
            .finish_non_exhaustive()
    }
}

impl Service<RpcCall> for HttpTransport {
    type Response = RpcReply;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<RpcReply, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: RpcCall) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.exchange(&call).await })
    }
}

impl Shared {
    async fn exchange(&self, call: &RpcCall) -> Result<RpcReply, TransportError> {
        // The node takes an empty batch for a malformed one.
        if call.requests().is_empty() {
            return Ok(RpcReply { results: Vec::new() });
        }
        let body = Bytes::from(call.encode());
        let (mut status, mut reply) = self.post(body.clone()).await?;
        if status == StatusCode::UNAUTHORIZED && matches!(self.auth, Auth::Cookie(_)) {
            // The node has been restarted since the cookie was read.
            self.forget_authorization();
            (status, reply) = self.post(body).await?;
        }
        if status == StatusCode::UNAUTHORIZED {
            self.forget_authorization();
            return Err(TransportError::Unauthorized);
        }
        // Version 1 of the protocol sends errors of the node with an HTTP status of their own.
        match call.decode(&reply) {
            Err(TransportError::Malformed(_)) if status != StatusCode::OK => {
                Err(TransportError::Status(status.as_u16()))
            }
            decoded => decoded,
        }
    }

    async fn post(&self, body: Bytes) -> Result<(StatusCode, Bytes), TransportError> {
        let authorization = self.authorization()?;
        let request = || {
            Request::post("/")
                .header(HOST, &self.address)
                .header(AUTHORIZATION, authorization.clone())
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()))
                .map_err(|error| TransportError::Http(error.into()))
        };
        let (mut connection, reused) = match self.idle_connection().await {
            Some(connection) => (connection, true),
            None => (self.connect().await?, false),
        };
        let response = match connection.send_request(request()?).await {
            // An idle connection that the node closed before the request was sent: another one.
            Err(error) if reused && error.is_canceled() => {
                connection = self.connect().await?;
                connection.send_request(request()?).await
            }
            response => response,
        };
        let response = response.map_err(|error| TransportError::Http(error.into()))?;
        let (status, body) = self.read(response).await?;
        self.keep(connection);
        Ok((status, body))
    }

    async fn read(
        &self,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Bytes), TransportError> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, self.longest_reply).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                TransportError::TooLong { limit: self.longest_reply }
            } else {
                TransportError::Http(error)
            }
        })?;
        Ok((parts.status, body.to_bytes()))
    }

    async fn connect(&self) -> Result<SendRequest<Body>, TransportError> {
        let failed = |source| TransportError::Connect { address: self.address.clone(), source };
        let stream = TcpStream::connect(&self.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| TransportError::Http(error.into()))?;
        // The task ends with the connection, at the latest when its sender is dropped; errors
        // reach the sender too.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn idle_connection(&self) -> Option<SendRequest<Body>> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = idle?;
            if connection.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, connection: SendRequest<Body>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < HttpTransport::MAX_IDLE && !connection.is_closed() {
            idle.push(connection);
        }
    }

    fn authorization(&self) -> Result<HeaderValue, TransportError> {
        let mut known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = &*known {
            return Ok(header.clone());
        }
        let pair = match &self.auth {
            Auth::Password { user, password } => format!("{user}:{password}"),
            // A line of 75 bytes, read once a start of the node: not worth another thread.
            Auth::Cookie(path) => std::fs::read_to_string(path)
                .map_err(|source| TransportError::Cookie { path: path.clone(), source })?,
        };
        let value = format!("Basic {}", BASE64_STANDARD.encode(pair.trim_end()));
        let mut header = HeaderValue::try_from(value).map_err(|_| TransportError::Unauthorized)?;
        header.set_sensitive(true);
        *known = Some(header.clone());
        Ok(header)
    }

    fn forget_authorization(&self) {
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
