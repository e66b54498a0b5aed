//! A guard publishes what LDK has not got through near its deadline, and nothing else.
mod late;
mod remembers;
mod silence;

use super::fixtures::outpoint;
use super::{Failed, fixtures};
use arb_core::ids::ChannelId;
use arb_core::ports::{Broadcast, Coin, CoinRequest, CoinSource, Package, Stake, Verdict};
use arb_core::units::BlockHeight;
use arb_node_adapter::{
    ArbiterCoins, ArbiterEgress, Egress, EgressError, ForceClose, GRACE, Mempool, Mode,
    MonitorEgress, NoMempool, SILENCE,
};
use bitcoin::absolute::LockTime;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid, Weight};
use lightning::chain::chaininterface::BroadcasterInterface;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

const BEFORE: u32 = 18;
const DEADLINE: u32 = 500;
/// A height to begin at.
const FIRST: u32 = 900_000;
/// A deadline that is far from there.
const FAR: u32 = FIRST + 500;
const CHANNEL: ChannelId = ChannelId([7; 32]);

/// What the network has.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<Vec<Transaction>>>);

impl Net {
    fn has(&self, tx: &Transaction) -> bool {
        self.0.lock().unwrap().contains(tx)
    }

    fn accept(&self, tx: &Transaction) {
        self.0.lock().unwrap().push(tx.clone());
    }
}

impl Broadcast for Net {
    type Error = Infallible;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Infallible> {
        let accepted = package.transactions.iter().inspect(|tx| self.accept(tx));
        Ok(accepted.map(|tx| (tx.compute_txid(), Verdict::Accepted)).collect())
    }

    async fn test(&self, tx: Transaction) -> Result<Option<Verdict>, Infallible> {
        Ok(Some(if self.has(&tx) { Verdict::Known } else { Verdict::Accepted }))
    }
}

impl Mempool for Net {
    async fn spenders(&self, outpoints: Vec<OutPoint>) -> Result<Vec<Transaction>, String> {
        let spends =
            |tx: &&Transaction| tx.input.iter().any(|i| outpoints.contains(&i.previous_output));
        Ok(self.0.lock().unwrap().iter().filter(spends).cloned().collect())
    }
}

impl BroadcasterInterface for Net {
    fn broadcast_transactions(&self, txs: &[&Transaction]) {
        txs.iter().for_each(|tx| self.accept(tx));
    }
}

/// A broadcaster that loses everything.
struct Broken;

impl BroadcasterInterface for Broken {
    fn broadcast_transactions(&self, _: &[&Transaction]) {}
}

/// A mempool that cannot be asked.
struct Away;

impl Mempool for Away {
    async fn spenders(&self, _: Vec<OutPoint>) -> Result<Vec<Transaction>, String> {
        Err("away".to_owned())
    }
}

/// A wallet with one coin.
struct Wallet;

impl CoinSource for Wallet {
    type Error = Infallible;

    async fn select(&self, _: CoinRequest) -> Result<Vec<Coin>, Infallible> {
        let output = TxOut { value: Amount::from_sat(5_000), script_pubkey: ScriptBuf::new() };
        Ok(vec![Coin { outpoint: outpoint(99), output, satisfaction_weight: Weight::from_wu(108) }])
    }

    async fn change_script(&self) -> Result<ScriptBuf, Infallible> {
        Ok(ScriptBuf::new())
    }

    async fn sign(&self, tx: Transaction, _: Vec<TxOut>) -> Result<Transaction, Infallible> {
        Ok(tx)
    }

    async fn release(&self, _: OutPoint) -> Result<(), Infallible> {
        Ok(())
    }

    async fn reserve(&self, _: OutPoint, _: Vec<OutPoint>) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A transaction that spends these outputs and leaves so much.
fn spend(outputs: &[u8], left: u64) -> Transaction {
    let outputs: Vec<OutPoint> = outputs.iter().map(|n| outpoint(*n)).collect();
    fixtures::spend(&outputs, left)
}

/// A package of ours for these outputs, by their deadlines.
fn package(claims: &[(u8, Option<u32>)], left: u64) -> Package {
    let outputs: Vec<u8> = claims.iter().map(|(n, _)| *n).collect();
    let stake = |(n, deadline): &(u8, Option<u32>)| Stake {
        channel: CHANNEL,
        outpoint: outpoint(*n),
        deadline: deadline.map(BlockHeight),
    };
    let stakes = claims.iter().map(stake).collect();
    Package { transactions: vec![spend(&outputs, left)], stakes }
}

/// What a claim of output 1 asks the wallet for.
fn request() -> CoinRequest {
    CoinRequest {
        claim: outpoint(1),
        amount: Amount::from_sat(1_000),
        feerate: FeeRate::BROADCAST_MIN,
        worth: FeeRate::BROADCAST_MIN,
        channel: CHANNEL,
        deadline: Some(BlockHeight(DEADLINE)),
        most: usize::MAX,
    }
}

/// Our commitment on this funding output, and a child that pays for it.
fn commitment(funding: u8) -> Package {
    let mut package = package(&[(funding, Some(DEADLINE))], 10);
    let tx = &mut package.transactions[0];
    tx.input[0].sequence = Sequence(0x8012_3456);
    tx.lock_time = LockTime::from_consensus(0x2065_4321);
    let mut child = spend(&[funding], 5);
    child.input[0].previous_output = OutPoint { txid: tx.compute_txid(), vout: 0 };
    package.transactions.push(child);
    package
}

fn guarding(height: u32) -> Arc<Egress> {
    let egress = Arc::new(Egress::new(Mode::Guard { before: BEFORE }));
    egress.best_height(height);
    egress
}

async fn goes_out<M: Mempool>(
    port: &ArbiterEgress<Net, M>,
    package: &Package,
) -> Result<bool, Failed> {
    match port.broadcast(package.clone()).await {
        Ok(verdicts) => Ok(verdicts.len() == package.transactions.len()),
        Err(EgressError::Guarding) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

#[tokio::test]
async fn nothing_goes_out_before_its_time() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - BEFORE - 1));
    let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
    let ours = package(&[(1, Some(DEADLINE))], 10);
    assert!(!goes_out(&port, &ours).await?);
    egress.best_height(DEADLINE - BEFORE);
    assert!(goes_out(&port, &ours).await?);
    assert!(net.has(&ours.transactions[0]));
    assert_eq!(egress.published_for(), [(outpoint(1), DEADLINE - BEFORE)].into());
    Ok(())
}

#[tokio::test]
async fn what_ldk_has_in_the_mempool_stays_its_own() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - 1));
    let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
    let ldk = MonitorEgress::new(&net, egress.clone());
    ldk.broadcast_transactions(&[&spend(&[1, 2], 20)]);
    assert!(!goes_out(&port, &package(&[(1, Some(DEADLINE)), (2, Some(DEADLINE))], 10)).await?);
    assert!(egress.published_for().is_empty());
    // It claims one output more than LDK.
    assert!(goes_out(&port, &package(&[(1, Some(DEADLINE)), (3, Some(DEADLINE))], 10)).await?);
    Ok(())
}

#[tokio::test]
async fn what_the_peer_has_in_the_mempool_is_not_ldks() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - 1));
    let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
    net.accept(&spend(&[1], 20));
    assert!(goes_out(&port, &package(&[(1, Some(DEADLINE))], 10)).await?);
    Ok(())
}

/// What LDK handed over before the start nobody remembers: it has its time to say so again.
#[tokio::test]
async fn after_a_start_ldk_may_have_it_in_the_mempool() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - 10));
    let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
    let (theirs, ours) = (spend(&[1], 20), package(&[(1, Some(DEADLINE))], 10));
    net.accept(&theirs);
    // However often it is asked, and however many blocks the start has to catch up with.
    for _ in 0..5 {
        assert!(!goes_out(&port, &ours).await?);
    }
    egress.best_height(DEADLINE - 6);
    assert!(!goes_out(&port, &ours).await?);
    for height in DEADLINE - 6..DEADLINE + 5 {
        egress.best_height(height);
        MonitorEgress::new(&net, egress.clone()).broadcast_transactions(&[&theirs]);
        assert!(!goes_out(&port, &ours).await?, "{height}");
    }
    assert!(egress.published_for().is_empty());
    Ok(())
}

/// What is in the mempool and is not LDK's by then is somebody else's.
#[tokio::test]
async fn what_ldk_does_not_hand_over_again_is_not_its_own() -> Result<(), Failed> {
    let ours = package(&[(1, Some(DEADLINE))], 10);
    let started = |height| {
        let (net, egress) = (Net::default(), guarding(height));
        net.accept(&spend(&[1], 20));
        (ArbiterEgress::seeing(net.clone(), egress.clone(), net), egress)
    };
    let (port, egress) = started(DEADLINE - 10);
    for height in DEADLINE - 10..DEADLINE - 10 + GRACE {
        egress.best_height(height);
        assert!(!goes_out(&port, &ours).await?, "{height}");
    }
    egress.best_height(DEADLINE - 10 + GRACE);
    assert!(goes_out(&port, &ours).await?);
    // It is the arbiter's from here on.
    egress.best_height(DEADLINE - 5);
    assert!(goes_out(&port, &ours).await?);

    // There is no time for that.
    let (port, _) = started(DEADLINE - GRACE);
    assert!(goes_out(&port, &ours).await?);
    Ok(())
}

#[tokio::test]
async fn what_ldk_handed_to_a_broken_broadcaster_is_not_there() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - 1));
    let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
    MonitorEgress::new(&Broken, egress.clone()).broadcast_transactions(&[&spend(&[1], 20)]);
    assert!(goes_out(&port, &package(&[(1, Some(DEADLINE))], 10)).await?);
    Ok(())
}

#[tokio::test]
async fn what_has_no_deadline_is_left_to_ldk() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE));
    let port = ArbiterEgress::seeing(net.clone(), egress, net);
    assert!(!goes_out(&port, &package(&[(1, None)], 10)).await?);
    assert!(!goes_out(&port, &Package::from(vec![spend(&[1], 10)])).await?);
    // What shares a transaction with something urgent goes with it.
    assert!(goes_out(&port, &package(&[(1, None), (2, Some(DEADLINE))], 10)).await?);
    Ok(())
}

#[tokio::test]
async fn a_mempool_that_is_not_seen_stops_nothing() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - 1));
    MonitorEgress::new(&net, egress.clone()).broadcast_transactions(&[&spend(&[1], 20)]);
    let ours = package(&[(1, Some(DEADLINE))], 10);
    assert!(goes_out(&ArbiterEgress::seeing(net.clone(), egress.clone(), Away), &ours).await?);
    let blind = ArbiterEgress::<_, NoMempool>::new(net, egress);
    assert!(goes_out(&blind, &ours).await?);
    Ok(())
}

#[tokio::test]
async fn the_wallet_is_ldks_until_then() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - BEFORE - 1));
    let coins = ArbiterCoins::seeing(Wallet, egress.clone(), net.clone());
    assert!(coins.select(request()).await?.is_empty());
    egress.best_height(DEADLINE - BEFORE);
    assert_eq!(coins.select(request()).await?.len(), 1);
    MonitorEgress::new(&net, egress).broadcast_transactions(&[&spend(&[1], 20)]);
    assert!(coins.select(request()).await?.is_empty());
    Ok(())
}

/// The mode is one value: whatever it was before, the next package is judged by what it is now.
#[tokio::test]
async fn the_mode_changes_between_two_packages() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - 1));
    let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
    let ours = package(&[(1, Some(DEADLINE))], 10);
    egress.set(Mode::Observe);
    assert!(matches!(port.broadcast(ours.clone()).await, Err(EgressError::Observing)));
    egress.set(Mode::Guard { before: BEFORE });
    assert!(goes_out(&port, &ours).await?);
    // LDK's own passes in every mode but this, and there it waits.
    let ldk = MonitorEgress::new(&net, egress.clone());
    let theirs = spend(&[1], 20);
    egress.set(Mode::Own);
    ldk.broadcast_transactions(&[&theirs]);
    assert!(!net.has(&theirs));
    egress.set(Mode::Guard { before: BEFORE });
    ldk.broadcast_transactions(&[&theirs]);
    assert!(net.has(&theirs));
    Ok(())
}

/// LDK's side, which closes when it wants to; and what the network had then.
#[derive(Clone, Default)]
struct Ldk {
    net: Net,
    refuses: bool,
    closed: Arc<Mutex<Vec<(ChannelId, usize)>>>,
}

impl ForceClose for Ldk {
    fn force_close(&self, channel: ChannelId) -> Result<(), String> {
        let published = self.net.0.lock().unwrap().len();
        self.closed.lock().unwrap().push((channel, published));
        if self.refuses { Err("not now".to_owned()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn ldk_closes_before_our_commitment_is_published() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let ldk = Ldk { net: net.clone(), ..Ldk::default() };
    let port = ArbiterEgress::new(net.clone(), egress.clone()).telling(ldk.clone());
    port.broadcast(commitment(1)).await?;
    port.broadcast(commitment(1)).await?;
    assert_eq!(*ldk.closed.lock().unwrap(), [(CHANNEL, 0)], "once, and first");
    assert!(egress.was_told(&CHANNEL));

    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let ldk = Ldk { net: net.clone(), refuses: true, ..Ldk::default() };
    let port = ArbiterEgress::new(net.clone(), egress.clone()).telling(ldk.clone());
    for _ in 0..2 {
        let refused = port.broadcast(commitment(1)).await;
        assert!(matches!(refused, Err(EgressError::NotClosed(_))), "{refused:?}");
    }
    assert_eq!(*ldk.closed.lock().unwrap(), [(CHANNEL, 0), (CHANNEL, 0)], "it is asked again");
    assert!(net.0.lock().unwrap().is_empty() && !egress.was_told(&CHANNEL));
    Ok(())
}

/// A child for the peer's commitment, which is in the mempool only, and claims of what is in a block:
/// the channel is not ours to close by that.
#[tokio::test]
async fn a_claim_or_a_child_of_the_peers_commitment_closes_nothing() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let ldk = Ldk { net: net.clone(), refuses: true, ..Ldk::default() };
    let port = ArbiterEgress::new(net.clone(), egress.clone()).telling(ldk.clone());
    let child = package(&[(1, Some(DEADLINE))], 10);
    port.broadcast(child.clone()).await?;
    let mut timeout = package(&[(2, Some(DEADLINE))], 10);
    timeout.transactions[0].lock_time = LockTime::from_consensus(DEADLINE);
    port.broadcast(timeout).await?;
    // Shaped like a commitment, and of nobody's funding output.
    let mut foreign = commitment(3);
    foreign.stakes = child.stakes;
    port.broadcast(foreign).await?;
    assert!(ldk.closed.lock().unwrap().is_empty() && !egress.was_told(&CHANNEL));
    assert_eq!(net.0.lock().unwrap().len(), 4);
    Ok(())
}

/// The network is asked in every mode, as nothing is handed over.
#[tokio::test]
async fn what_the_network_would_say_is_passed_on() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - BEFORE - 1));
    let port = ArbiterEgress::new(net.clone(), egress.clone());
    let known = spend(&[1], 10);
    net.accept(&known);
    for mode in [Mode::Observe, Mode::Guard { before: BEFORE }, Mode::Own] {
        egress.set(mode);
        assert_eq!(port.test(known.clone()).await?, Some(Verdict::Known));
        assert_eq!(port.test(spend(&[2], 10)).await?, Some(Verdict::Accepted));
    }
    assert_eq!(*net.0.lock().unwrap(), [known], "nothing went out");
    assert!(egress.published_for().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_mode_that_publishes_nothing_closes_nothing() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(0));
    let ldk = Ldk::default();
    let port = ArbiterEgress::new(net, egress.clone()).telling(ldk.clone());
    assert!(port.broadcast(commitment(1)).await.is_err());
    egress.set(Mode::Observe);
    assert!(port.broadcast(commitment(1)).await.is_err());
    assert!(ldk.closed.lock().unwrap().is_empty());
    Ok(())
}

#[tokio::test]
async fn what_is_handed_back_is_ldks_in_every_mode() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE));
    let port = ArbiterEgress::new(net.clone(), egress.clone());
    let coins = ArbiterCoins::new(Wallet, egress.clone());
    egress.set(Mode::Own);
    port.broadcast(package(&[(1, Some(DEADLINE))], 10)).await?;
    let (ldk, theirs) = (MonitorEgress::new(&net, egress.clone()), spend(&[1], 20));
    ldk.broadcast_transactions(&[&theirs]);
    egress.best_height(DEADLINE + 1);
    ldk.broadcast_transactions(&[&theirs]);
    assert!(!net.has(&theirs), "the arbiter has published");
    egress.hand_back(CHANNEL);
    ldk.broadcast_transactions(&[&theirs]);
    egress.best_height(DEADLINE + 2 * GRACE);
    ldk.broadcast_transactions(&[&theirs]);
    assert!(net.has(&theirs));
    for mode in [Mode::Observe, Mode::Guard { before: BEFORE }, Mode::Own] {
        egress.set(mode);
        let refused = port.broadcast(package(&[(1, Some(DEADLINE))], 10)).await;
        assert!(matches!(refused, Err(EgressError::HandedBack)), "{mode:?}");
        assert!(coins.select(request()).await?.is_empty());
    }
    Ok(())
}

/// After a restart the arbiter publishes before it is shown a block: LDK's stays behind it.
#[tokio::test]
async fn what_goes_out_before_the_first_block_goes_out_with_it() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let port = ArbiterEgress::new(net.clone(), egress.clone());
    port.broadcast(package(&[(1, Some(DEADLINE))], 10)).await?;
    let (ldk, theirs, others) =
        (MonitorEgress::new(&net, egress.clone()), spend(&[1], 20), spend(&[2], 20));
    for height in FIRST..=FIRST + 10 {
        ldk.broadcast_transactions(&[&theirs]);
        ldk.broadcast_transactions(&[&others]);
        assert_eq!(net.has(&others), height > FIRST + GRACE, "{height}");
        egress.best_height(height);
        assert_eq!(egress.published_for(), [(outpoint(1), FIRST)].into());
        port.broadcast(package(&[(1, Some(DEADLINE))], 10)).await?;
    }
    assert!(!net.has(&theirs), "the arbiter publishes");
    Ok(())
}

/// Whoever has published once and cannot any more, because its disk is full or its signer is gone, does not keep
/// LDK from it.
#[tokio::test]
async fn an_arbiter_that_falls_silent_leaves_it_to_ldk() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let port = ArbiterEgress::new(net.clone(), egress.clone());
    let (ldk, theirs) = (MonitorEgress::new(&net, egress.clone()), spend(&[1], 20));
    for height in FIRST..FIRST + 20 {
        egress.best_height(height);
        port.broadcast(package(&[(1, Some(FAR))], 10)).await?;
        ldk.broadcast_transactions(&[&theirs]);
    }
    for silent in 1..=SILENCE {
        assert!(!net.has(&theirs), "{silent}");
        egress.best_height(FIRST + 19 + silent);
        ldk.broadcast_transactions(&[&theirs]);
    }
    assert!(net.has(&theirs));
    Ok(())
}

/// A network that a channel is handed back behind.
struct Meanwhile(Net, Arc<Egress>);

impl Broadcast for Meanwhile {
    type Error = <Net as Broadcast>::Error;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Self::Error> {
        let verdicts = self.0.broadcast(package).await;
        self.1.hand_back(CHANNEL);
        verdicts
    }
}

#[tokio::test]
async fn what_is_handed_back_meanwhile_is_ldks() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let port = ArbiterEgress::new(Meanwhile(net.clone(), egress.clone()), egress.clone());
    egress.best_height(FIRST);
    port.broadcast(package(&[(1, Some(DEADLINE))], 10)).await?;
    assert_eq!(egress.published_for(), [].into());
    let (ldk, theirs) = (MonitorEgress::new(&net, egress.clone()), spend(&[1], 20));
    ldk.broadcast_transactions(&[&theirs]);
    egress.best_height(FIRST + GRACE);
    ldk.broadcast_transactions(&[&theirs]);
    assert!(net.has(&theirs));
    Ok(())
}

/// An observer lets LDK go on with a channel, unless our commitment of it may be out.
#[tokio::test]
async fn an_observer_lets_go_of_what_is_not_out() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let port = ArbiterEgress::new(net, egress.clone()).telling(Ldk::default());
    port.broadcast(commitment(1)).await?;
    let other = ChannelId([8; 32]);
    assert!(!egress.lets_go(CHANNEL) && !egress.lets_go(other), "it owns them");
    egress.set(Mode::Observe);
    assert!(!egress.lets_go(CHANNEL), "LDK must not revoke it");
    assert!(egress.lets_go(other) && egress.is_left(other));
    egress.set(Mode::Own);
    assert!(!egress.is_left(CHANNEL) && egress.is_left(other), "it stays so");
    Ok(())
}
