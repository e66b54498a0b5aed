//! Tower layers around ports: a port becomes a [`Service`], layers go around it, and the whole is
//! a port again. The driver gives every call [`crate::Settings::patience`]; retries and limits are
//! for whoever builds the node to add.
//!
//! ```
//! use arb_core::ports::{Broadcast, Package, Verdict};
//! use arb_watcher::layers::{Layered, PortService};
//! use bitcoin::Txid;
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//!
//! fn patient(port: impl Broadcast) -> impl Broadcast {
//!     let service = ServiceBuilder::new()
//!         .concurrency_limit(4)
//!         .timeout(Duration::from_secs(20))
//!         .service(PortService::new(port));
//!     Layered::broadcaster(service)
//! }
//! # struct Deaf;
//! # impl Broadcast for Deaf {
//! #     type Error = std::convert::Infallible;
//! #     async fn broadcast(&self, _: Package) -> Result<Vec<(Txid, Verdict)>, Self::Error> {
//! #         std::future::pending().await
//! #     }
//! # }
//! # let mut runtime = tokio::runtime::Builder::new_current_thread();
//! # let runtime = runtime.enable_time().start_paused(true).build().unwrap();
//! # let sent = runtime.block_on(patient(Deaf).broadcast(Package::from(vec![])));
//! # assert!(sent.is_err());
//! ```
use arb_core::ports::{Broadcast, Package, PointRequest, SignRequest, Signer, Verdict};
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::{Transaction, Txid};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

/// What each transaction of a package met.
type Verdicts = Vec<(Txid, Verdict)>;

/// A port as a service: of [`Package`] and of [`Transaction`] (which is only asked about) if it
/// broadcasts, of [`SignRequest`] and of [`PointRequest`] if it signs. Cheap to clone.
#[derive(Debug)]
pub struct PortService<P>(Arc<P>);

impl<P> PortService<P> {
    /// The service of `port`.
    #[must_use]
    pub fn new(port: P) -> Self {
        Self(Arc::new(port))
    }
}

impl<P> Clone for PortService<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<P: Broadcast> Service<Package> for PortService<P> {
    type Response = Verdicts;
    type Error = P::Error;
    type Future = Answer<Verdicts, P::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, package: Package) -> Self::Future {
        let port = self.0.clone();
        Box::pin(async move { port.broadcast(package).await })
    }
}

/// [`Broadcast::test`].
impl<P: Broadcast> Service<Transaction> for PortService<P> {
    type Response = Option<Verdict>;
    type Error = P::Error;
    type Future = Answer<Option<Verdict>, P::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, transaction: Transaction) -> Self::Future {
        let port = self.0.clone();
        Box::pin(async move { port.test(transaction).await })
    }
}

impl<P: Signer> Service<SignRequest> for PortService<P> {
    type Response = ecdsa::Signature;
    type Error = P::Error;
    type Future = Answer<ecdsa::Signature, P::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: SignRequest) -> Self::Future {
        let port = self.0.clone();
        Box::pin(async move { port.sign(request).await })
    }
}

/// [`Signer::point`].
impl<P: Signer> Service<PointRequest> for PortService<P> {
    type Response = Option<PublicKey>;
    type Error = P::Error;
    type Future = Answer<Option<PublicKey>, P::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), P::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: PointRequest) -> Self::Future {
        let port = self.0.clone();
        Box::pin(async move { port.point(request).await })
    }
}

/// A service, with whatever layers, as a port.
#[derive(Clone, Debug)]
pub struct Layered<K>(K);

/// What [`Layered::broadcaster`] is made of.
#[derive(Clone, Debug)]
pub struct Broadcasting {
    packages: BoxCloneSyncService<Package, Verdicts, BoxError>,
    tests: BoxCloneSyncService<Transaction, Option<Verdict>, BoxError>,
}

/// What [`Layered::signer`] is made of.
#[derive(Clone, Debug)]
pub struct Signing {
    requests: BoxCloneSyncService<SignRequest, ecdsa::Signature, BoxError>,
    points: BoxCloneSyncService<PointRequest, Option<PublicKey>, BoxError>,
}

impl Layered<Broadcasting> {
    /// The port that `service` is. What the network would say of a transaction passes through the
    /// same layers as packages do.
    pub fn broadcaster<S>(service: S) -> Self
    where
        S: Service<Package, Response = Verdicts, Error: Into<BoxError>, Future: Send + 'static>,
        S: Service<
                Transaction,
                Response = Option<Verdict>,
                Error: Into<BoxError>,
                Future: Send + 'static,
            >,
        S: Clone + Send + Sync + 'static,
    {
        let packages = ServiceExt::<Package>::map_err(service.clone(), Into::into);
        let tests = ServiceExt::<Transaction>::map_err(service, Into::into);
        Self(Broadcasting {
            packages: BoxCloneSyncService::new(packages),
            tests: BoxCloneSyncService::new(tests),
        })
    }
}

impl Layered<Signing> {
    /// The port that `service` is. Points are asked for through the same layers as signatures.
    pub fn signer<S>(service: S) -> Self
    where
        S: Service<
                SignRequest,
                Response = ecdsa::Signature,
                Error: Into<BoxError>,
                Future: Send + 'static,
            >,
        S: Service<
                PointRequest,
                Response = Option<PublicKey>,
                Error: Into<BoxError>,
                Future: Send + 'static,
            >,
        S: Clone + Send + Sync + 'static,
    {
        let requests = ServiceExt::<SignRequest>::map_err(service.clone(), Into::into);
        let points = ServiceExt::<PointRequest>::map_err(service, Into::into);
        Self(Signing {
            requests: BoxCloneSyncService::new(requests),
            points: BoxCloneSyncService::new(points),
        })
    }
}

/// A layer, or the port within, failed.
#[derive(Debug)]
pub struct LayerError(BoxError);

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for LayerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

impl Broadcast for Layered<Broadcasting> {
    type Error = LayerError;

    async fn broadcast(&self, package: Package) -> Result<Verdicts, LayerError> {
        self.0.packages.clone().oneshot(package).await.map_err(LayerError)
    }

    async fn test(&self, transaction: Transaction) -> Result<Option<Verdict>, LayerError> {
        self.0.tests.clone().oneshot(transaction).await.map_err(LayerError)
    }
}

impl Signer for Layered<Signing> {
    type Error = LayerError;

    async fn sign(&self, request: SignRequest) -> Result<ecdsa::Signature, LayerError> {
        self.0.requests.clone().oneshot(request).await.map_err(LayerError)
    }

    async fn point(&self, request: PointRequest) -> Result<Option<PublicKey>, LayerError> {
        self.0.points.clone().oneshot(request).await.map_err(LayerError)
    }
}

#[cfg(test)]
mod tests;
