//! For how long the arbiter keeps LDK back while nothing is heard of its own transactions.
use super::{FAR, FIRST, Failed, Net, package, spend};
use crate::adapter::fixtures::outpoint;
use arb_core::ports::{Broadcast, Package, Verdict};
use arb_node_adapter::{
    ArbiterEgress, BroadcastQueue, Egress, EgressError, FromLdkBroadcaster, Mode, MonitorEgress,
    SILENCE,
};
use bitcoin::Txid;
use lightning::chain::chaininterface::BroadcasterInterface;
use std::convert::Infallible;
use std::sync::Arc;

/// A broadcaster of LDK's says nothing of what became of a transaction: that the arbiter hands it over again with
/// every block does not keep LDK back for ever.
#[tokio::test]
async fn a_broadcaster_that_does_not_answer_silences_nobody() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let deaf = FromLdkBroadcaster(Arc::new(BroadcastQueue::new()));
    let port = ArbiterEgress::new(deaf, egress.clone());
    let (ldk, theirs) = (MonitorEgress::new(&net, egress.clone()), spend(&[1], 20));
    for height in FIRST..=FIRST + SILENCE {
        assert!(!net.has(&theirs), "{height}");
        egress.best_height(height);
        port.broadcast(package(&[(1, Some(FAR))], 10)).await?;
        ldk.broadcast_transactions(&[&theirs]);
    }
    assert!(net.has(&theirs));
    assert_eq!(egress.published_for(), [(outpoint(1), FIRST)].into());
    Ok(())
}

/// Where the mempool is seen, what is in it needs no answer.
#[tokio::test]
async fn what_is_seen_in_the_mempool_is_there_without_an_answer() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let handed_over = FromLdkBroadcaster(Arc::new(net.clone()));
    let port = ArbiterEgress::seeing(handed_over, egress.clone(), net.clone());
    let lost = FromLdkBroadcaster(Arc::new(BroadcastQueue::new()));
    let (ldk, theirs) = (MonitorEgress::new(&net, egress.clone()), spend(&[1], 20));
    for height in FIRST..FIRST + 20 {
        egress.best_height(height);
        port.broadcast(package(&[(1, Some(FAR))], 10)).await?;
        ldk.broadcast_transactions(&[&theirs]);
    }
    assert!(!net.has(&theirs));
    // It left the mempool, and does not come back.
    net.0.lock().unwrap().clear();
    let port = ArbiterEgress::seeing(lost, egress.clone(), net.clone());
    for height in FIRST + 20..FIRST + 20 + SILENCE {
        assert!(!net.has(&theirs), "{height}");
        egress.best_height(height);
        port.broadcast(package(&[(1, Some(FAR))], 10)).await?;
        ldk.broadcast_transactions(&[&theirs]);
    }
    assert!(net.has(&theirs));
    Ok(())
}

/// A network that takes nothing.
struct Refuses;

impl Broadcast for Refuses {
    type Error = Infallible;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Infallible> {
        let refused = || Verdict::FeeTooLow("min relay fee not met".to_owned());
        Ok(package.transactions.iter().map(|tx| (tx.compute_txid(), refused())).collect())
    }
}

/// An arbiter falls silent near a deadline: LDK's must have a chance to confirm.
#[tokio::test]
async fn near_a_deadline_ldk_waits_less() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let port = ArbiterEgress::new(net.clone(), egress.clone());
    let (ldk, theirs) = (MonitorEgress::new(&net, egress.clone()), spend(&[1], 20));
    let deadline = FIRST + 23;
    for height in FIRST..FIRST + 20 {
        egress.best_height(height);
        ldk.broadcast_transactions(&[&theirs]);
        port.broadcast(package(&[(1, Some(deadline))], 10)).await?;
        // Another package says nothing of a deadline, which is still there.
        port.broadcast(package(&[(1, None)], 10)).await?;
    }
    assert!(!net.has(&theirs), "the arbiter publishes");
    for height in FIRST + 20..deadline {
        egress.best_height(height);
        ldk.broadcast_transactions(&[&theirs]);
    }
    assert!(net.has(&theirs));
    Ok(())
}

/// The arbiter's is not taken, and the deadline is near.
#[tokio::test]
async fn near_a_deadline_ldk_does_not_wait_for_what_is_refused() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let port = ArbiterEgress::new(Refuses, egress.clone());
    egress.best_height(FIRST);
    let (ldk, theirs) = (MonitorEgress::new(&net, egress.clone()), spend(&[1], 20));
    ldk.broadcast_transactions(&[&theirs]);
    port.broadcast(package(&[(1, Some(FIRST + 3))], 10)).await?;
    assert!(!net.has(&theirs));
    egress.best_height(FIRST + 1);
    ldk.broadcast_transactions(&[&theirs]);
    assert!(net.has(&theirs));
    Ok(())
}

/// Without an arbiter LDK is alone: what it was kept back with passes at once, and nothing of the arbiter's does.
#[tokio::test]
async fn when_the_arbiter_has_ended_all_of_ldks_passes() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), Arc::new(Egress::new(Mode::Own)));
    let port = ArbiterEgress::new(net.clone(), egress.clone());
    let (ldk, theirs) = (MonitorEgress::new(&net, egress.clone()), spend(&[1], 20));
    egress.best_height(FIRST);
    port.broadcast(package(&[(1, Some(FAR))], 10)).await?;
    ldk.broadcast_transactions(&[&theirs]);
    assert!(!net.has(&theirs));
    assert!(egress.waits(true));
    egress.ended();
    ldk.broadcast_transactions(&[&theirs]);
    assert!(net.has(&theirs));
    let ours = package(&[(2, Some(FIRST))], 10);
    assert!(matches!(port.broadcast(ours.clone()).await, Err(EgressError::Observing)));
    assert!(!net.has(&ours.transactions[0]));
    assert!(!egress.waits(true));
    // Another one is started in its place.
    egress.set(Mode::Own);
    assert!(egress.waits(true));
    port.broadcast(ours).await?;
    Ok(())
}
