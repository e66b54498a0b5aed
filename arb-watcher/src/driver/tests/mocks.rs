//! What the driver asks its ports, how often, and in which order.
use super::metrics::Seen;
use super::support::*;
use crate::mocked::{MockEstimator, MockSource};
use crate::{Arbiter, Ports, Settings, SourceAlarm};
use arb_core::arbitrator::Phase;
use arb_core::format::CommitmentFormat::{Anchors, StaticRemotekey};
use arb_core::ports::{
    BlockSource, Broadcast, Coin, CoinRequest, CoinSource, FeeSource, Package, PointRequest,
    SignRequest, Signer, Verdict,
};
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use mockall::{Sequence, mock};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};

mock! {
    Caster {}
    impl Broadcast for Caster {
        type Error = Down;
        fn broadcast(
            &self,
            package: Package,
        ) -> impl Future<Output = Result<Vec<(Txid, Verdict)>, Down>> + Send;
    }
}

mock! {
    Pen {}
    impl Signer for Pen {
        type Error = Down;
        fn sign(
            &self,
            request: SignRequest,
        ) -> impl Future<Output = Result<ecdsa::Signature, Down>> + Send;
        fn point(
            &self,
            request: PointRequest,
        ) -> impl Future<Output = Result<Option<PublicKey>, Down>> + Send;
    }
}

mock! {
    Purse {}
    impl CoinSource for Purse {
        type Error = Down;
        fn select(
            &self,
            request: CoinRequest,
        ) -> impl Future<Output = Result<Vec<Coin>, Down>> + Send;
        fn change_script(&self) -> impl Future<Output = Result<ScriptBuf, Down>> + Send;
        fn sign(
            &self,
            transaction: Transaction,
            prevouts: Vec<TxOut>,
        ) -> impl Future<Output = Result<Transaction, Down>> + Send;
        fn release(&self, claim: OutPoint) -> impl Future<Output = Result<(), Down>> + Send;
        fn reserve(
            &self,
            claim: OutPoint,
            coins: Vec<OutPoint>,
        ) -> impl Future<Output = Result<(), Down>> + Send;
    }
}

impl MockSource {
    /// Asks `chain` for whatever no expectation says.
    fn otherwise(&mut self, chain: &Chain) {
        let of = || chain.clone();
        let source = of();
        self.expect_tip().returning(move || {
            let source = source.clone();
            Box::pin(async move { source.tip().await })
        });
        let source = of();
        self.expect_hash_at().returning(move |height| {
            let source = source.clone();
            Box::pin(async move { source.hash_at(height).await })
        });
        let source = of();
        self.expect_block().returning(move |hash| {
            let source = source.clone();
            Box::pin(async move { source.block(hash).await })
        });
        let source = of();
        self.expect_mempool_spenders().returning(move |outpoints| {
            let source = source.clone();
            Box::pin(async move { source.mempool_spenders(outpoints).await })
        });
        let source = of();
        self.expect_changed().returning(move || {
            let source = source.clone();
            Box::pin(async move { source.changed().await })
        });
    }
}

/// An arbiter at the tip that watches the channel.
async fn watching<S, B, F, K, C>(log: &Log, ports: Ports<S, B, F, K, C>, of: &Channel) -> Arbiter
where
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    let started = Arbiter::start(log.clone(), ports, Settings::default(), vec![]).await;
    let arbiter = started.expect("the log is sound");
    arbiter.watch_channel(of.facts.clone()).await.expect("sound facts");
    arbiter.idle().await.expect("running");
    arbiter
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_and_contradicts_itself() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    // A branch that the source names once at the height of another block.
    let first = world.chain.mine(vec![]);
    let stale = world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.undo(2);
    let mut source = MockSource::new();
    source.expect_tip().times(2).returning(|| Box::pin(async { Err(Down) }));
    source
        .expect_hash_at()
        .withf(move |height| *height == first.height)
        .times(1)
        .returning(move |_| Box::pin(async move { Ok(Some(stale.hash)) }));
    source
        .expect_hash_at()
        .withf(move |height| *height == first.height)
        .times(1)
        .returning(|_| Box::pin(async { Ok(None) }));
    source
        .expect_hash_at()
        .withf(move |height| *height == first.height)
        .times(1)
        .returning(|_| Box::pin(async { Err(Down) }));
    source.expect_block().times(1).returning(|_| Box::pin(async { Ok(None) }));
    source.otherwise(&world.chain);
    let ports = Ports {
        source,
        broadcast: world.net.clone(),
        fees: world.fees.clone(),
        signer: world.signer.clone(),
        coins: world.wallet.clone(),
        scripts: crate::ScriptsPort::default(),
    };
    let arbiter = watching(&world.log, ports, &channel).await;
    world.chain.mine_many(3);
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    assert_eq!(report.phase, Phase::Open);
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_bell_panics_is_told_of_and_asked_again() {
    let seen = Seen::default();
    let _guard = metrics::set_default_local_recorder(&seen);
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let mut source = MockSource::new();
    source.expect_changed().times(4).returning(|| Box::pin(async { panic!("as the test wants") }));
    source.otherwise(&world.chain);
    let ports = Ports {
        source,
        broadcast: world.net.clone(),
        fees: world.fees.clone(),
        signer: world.signer.clone(),
        coins: world.wallet.clone(),
        scripts: crate::ScriptsPort::default(),
    };
    let arbiter = watching(&world.log, ports, &channel).await;
    let mut alarms = arbiter.alarms();
    alarms.wait_for(|now| now.source == Some(SourceAlarm::Panics)).await.expect("running");
    // 0.5, 1, 2 and 4 seconds; meanwhile the source is asked each time.
    let first = world.chain.mine(vec![]);
    let since = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(world.log.tip(), Some(first));
    assert_eq!(alarms.borrow_and_update().source, Some(SourceAlarm::Panics));
    assert_eq!(seen.value("arb_alarm of=source"), Some(1.0));
    // It rings for the first block as soon as it is called again; then for each at once.
    alarms.wait_for(|now| now.source.is_none()).await.expect("running");
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let second = world.chain.mine(vec![]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.log.tip(), Some(second));
    assert_eq!(seen.value("arb_alarm of=source"), Some(0.0));
    arbiter.shutdown().await;
    let ended = timeout(Duration::from_secs(1), alarms.changed()).await.expect("at once");
    assert!(ended.is_err(), "nobody raises any more");
}

#[tokio::test(start_paused = true)]
async fn a_failing_broadcast_and_signature_are_repeated_once_a_block() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (mut signer, mut broadcast) = (MockPen::new(), MockCaster::new());
    let mut order = Sequence::new();
    let signing = world.signer.clone();
    signer
        .expect_sign()
        .times(1)
        .in_sequence(&mut order)
        .returning(|_| Box::pin(async { Err(Down) }));
    signer.expect_sign().times(1).in_sequence(&mut order).returning(move |request| {
        let signing = signing.clone();
        Box::pin(async move { signing.sign(request).await })
    });
    let expected = channel.local_tx().compute_txid();
    let ours = move |package: &Package| {
        package.transactions.iter().map(Transaction::compute_txid).eq([expected])
    };
    broadcast
        .expect_broadcast()
        .withf(ours)
        .times(1)
        .in_sequence(&mut order)
        .returning(|_| Box::pin(async { Err(Down) }));
    broadcast
        .expect_broadcast()
        .withf(ours)
        .times(1)
        .in_sequence(&mut order)
        .returning(move |_| Box::pin(async move { Ok(vec![(expected, Verdict::Known)]) }));
    let ports = Ports {
        source: world.chain.clone(),
        broadcast,
        fees: world.fees.clone(),
        signer,
        coins: world.wallet.clone(),
        scripts: crate::ScriptsPort::default(),
    };
    let arbiter = watching(&world.log, ports, &channel).await;
    fail(&arbiter, channel.id()).await;
    // Fails to sign; signs and fails to publish; publishes.
    arbiter.idle().await.expect("running");
    world.pass(&arbiter, 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_feerates_stay_in_use() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    channel.next_remote(1, &[]);
    channel.revoke(0);
    let failing = Arc::new(Mutex::new(false));
    let (fails, estimates) = (failing.clone(), world.fees.clone());
    world.fees.are(4000);
    let mut fees = MockEstimator::new();
    fees.expect_estimates().returning(move || {
        let (fails, estimates) = (*fails.lock().unwrap(), estimates.clone());
        Box::pin(async move { if fails { Err(Down) } else { estimates.estimates().await } })
    });
    let ports = Ports {
        source: world.chain.clone(),
        broadcast: world.net.clone(),
        fees,
        signer: world.signer.clone(),
        coins: world.wallet.clone(),
        scripts: crate::ScriptsPort::default(),
    };
    let arbiter = watching(&world.log, ports, &channel).await;
    *failing.lock().unwrap() = true;
    let close = channel.remote_tx(0, &[]);
    world.chain.mine(vec![close.clone()]);
    arbiter.idle().await.expect("running");
    let sent = world.net.sent();
    let penalty = &sent[0][0];
    let spent = &close.output[penalty.input[0].previous_output.vout as usize];
    let fee = spent.value - penalty.output[0].value;
    let paid = fee.to_sat() * 1000 / penalty.weight().to_wu();
    assert!((3900..4100).contains(&paid), "{paid} sat/kWU");
}

#[tokio::test(start_paused = true)]
async fn coins_are_selected_signed_and_given_back_in_this_order() {
    let (world, channel) = (World::default(), Channel::new(1, Anchors));
    world.fees.are(2000);
    let mut order = Sequence::new();
    let mut coins = MockPurse::new();
    let wallet = world.wallet.clone();
    coins.expect_select().times(1).in_sequence(&mut order).returning(move |request| {
        let wallet = wallet.clone();
        Box::pin(async move { wallet.select(request).await })
    });
    let script = channel.facts.destination.clone();
    coins.expect_change_script().times(1).in_sequence(&mut order).returning(move || {
        let script = script.clone();
        Box::pin(async move { Ok(script) })
    });
    coins
        .expect_sign()
        .withf(|tx, prevouts| tx.input.len() == 2 && prevouts.len() == 2)
        .times(1)
        .in_sequence(&mut order)
        .returning(|tx, _| Box::pin(async move { Ok(tx) }));
    coins
        .expect_release()
        .times(1)
        .in_sequence(&mut order)
        .returning(|_| Box::pin(async { Ok(()) }));
    let ports = Ports {
        source: world.chain.clone(),
        broadcast: world.net.clone(),
        fees: world.fees.clone(),
        signer: world.signer.clone(),
        coins,
        scripts: crate::ScriptsPort::default(),
    };
    let arbiter = watching(&world.log, ports, &channel).await;
    fail(&arbiter, channel.id()).await;
    arbiter.idle().await.expect("running");
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
}
