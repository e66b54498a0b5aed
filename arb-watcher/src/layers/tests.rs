//! Layers around ports: what they add, and that verdicts go through.
use super::*;
use arb_core::units::CommitmentNumber;
use bitcoin::hashes::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tower::ServiceBuilder;

/// Fails as often as it is told, then takes a second.
#[derive(Clone)]
struct Port {
    failures: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

#[derive(Debug, thiserror::Error)]
#[error("down")]
struct Down;

impl Port {
    fn new(failures: usize) -> Self {
        Self { failures: Arc::new(failures.into()), calls: Arc::default() }
    }
}

impl Broadcast for Port {
    type Error = Down;

    async fn broadcast(&self, package: Package) -> Result<Verdicts, Down> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let left = self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(Down);
        }
        sleep(Duration::from_secs(1)).await;
        let verdict = Verdict::FeeTooLow("min relay fee not met".to_owned());
        assert_eq!(package, no_package());
        Ok(vec![(Txid::all_zeros(), verdict)])
    }

    async fn test(&self, transaction: Transaction) -> Result<Option<Verdict>, Down> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let left = self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(Down);
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(transaction, no_transaction());
        Ok(Some(Verdict::Conflict("bad-txns-inputs-missingorspent".to_owned())))
    }
}

fn no_transaction() -> Transaction {
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![],
        output: vec![],
    }
}

fn point() -> PublicKey {
    let secret = bitcoin::secp256k1::SecretKey::from_slice(&[7; 32]).expect("a key");
    secret.public_key(&bitcoin::secp256k1::Secp256k1::new())
}

impl Signer for Port {
    type Error = Down;

    async fn sign(&self, _: SignRequest) -> Result<ecdsa::Signature, Down> {
        std::future::pending().await
    }

    async fn point(&self, request: PointRequest) -> Result<Option<PublicKey>, Down> {
        Ok((request.number == CommitmentNumber(1)).then(point))
    }
}

fn no_package() -> Package {
    Package::from(vec![])
}

/// Repeats whatever failed, twice.
#[derive(Clone)]
struct Twice(u32);

impl<Q: Clone, A, E> tower::retry::Policy<Q, A, E> for Twice {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut Q, result: &mut Result<A, E>) -> Option<Self::Future> {
        self.0 = result.is_err().then(|| self.0.checked_sub(1)).flatten()?;
        Some(std::future::ready(()))
    }

    fn clone_request(&mut self, request: &Q) -> Option<Q> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn verdicts_are_values_and_failures_are_repeated() {
    for (failures, calls) in [(0, 1), (2, 3), (3, 3)] {
        let port = Port::new(failures);
        let service = ServiceBuilder::new().retry(Twice(2)).service(PortService::new(port.clone()));
        let answer = Layered::broadcaster(service).broadcast(no_package()).await;
        assert_eq!(port.calls.load(Ordering::SeqCst), calls);
        match answer {
            Ok(verdicts) => {
                assert!(failures < 3);
                assert!(matches!(verdicts[..], [(_, Verdict::FeeTooLow(_))]));
            }
            Err(error) => {
                assert_eq!((failures, error.to_string().as_str()), (3, "down"));
                let source = std::error::Error::source(&error).expect("the port's own");
                assert!(source.is::<Down>());
            }
        }
    }
}

/// A question about a transaction goes through the same layers: what failed is repeated, and what
/// hangs times out.
#[tokio::test(start_paused = true)]
async fn questions_go_through_the_layers() {
    let port = Port::new(2);
    let service = ServiceBuilder::new().retry(Twice(2)).service(PortService::new(port.clone()));
    let answer = Layered::broadcaster(service).test(no_transaction()).await.expect("the third");
    assert!(matches!(answer, Some(Verdict::Conflict(_))), "{answer:?}");
    assert_eq!(port.calls.load(Ordering::SeqCst), 3);

    let limit = Duration::from_millis(500);
    let service = ServiceBuilder::new().timeout(limit).service(PortService::new(Port::new(0)));
    let error = Layered::broadcaster(service).test(no_transaction()).await.expect_err("a second");
    let source = std::error::Error::source(&error).expect("the layer's own");
    assert!(source.is::<tower::timeout::error::Elapsed>());
}

#[tokio::test]
async fn points_pass_through_a_signers_layers() {
    let limit = Duration::from_secs(5);
    let service = ServiceBuilder::new().timeout(limit).service(PortService::new(Port::new(0)));
    let port = Layered::signer(service);
    let asked = |number| PointRequest {
        channel: arb_core::ids::ChannelId([1; 32]),
        number: CommitmentNumber(number),
    };
    assert_eq!(port.point(asked(1)).await.expect("an answer"), Some(point()));
    assert_eq!(port.point(asked(2)).await.expect("an answer"), None);
}

#[tokio::test(start_paused = true)]
async fn calls_are_limited() {
    let service =
        ServiceBuilder::new().concurrency_limit(2).service(PortService::new(Port::new(0)));
    let port = Layered::broadcaster(service);
    let since = Instant::now();
    let sent: Vec<_> = (0..6)
        .map(|_| {
            let port = port.clone();
            tokio::spawn(async move { port.broadcast(no_package()).await })
        })
        .collect();
    for sent in sent {
        sent.await.expect("no panic").expect("sent");
    }
    assert_eq!(since.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_hangs_times_out() {
    let limit = Duration::from_secs(5);
    let service = ServiceBuilder::new().timeout(limit).service(PortService::new(Port::new(0)));
    let port = Layered::signer(service);
    let request = SignRequest {
        channel: arb_core::ids::ChannelId([1; 32]),
        key: arb_core::claim::SigningKey::Payment,
        transaction: no_transaction(),
        input: 0,
        prevouts: vec![],
        script: None,
        sighash: bitcoin::EcdsaSighashType::All,
    };
    let since = Instant::now();
    let error = port.sign(request).await.expect_err("no answer");
    assert_eq!(since.elapsed(), limit);
    let source = std::error::Error::source(&error).expect("the layer's own");
    assert!(source.is::<tower::timeout::error::Elapsed>());
}
