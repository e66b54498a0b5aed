//! For how long the arbiter keeps LDK back while nothing is heard of its own transactions.
use super::{FAR, FIRST, Failed, Net, package, spend};
use crate::adapter::fixtures::outpoint;
use arb_core::ports::Broadcast;
use arb_node_adapter::{
    ArbiterEgress, BroadcastQueue, Egress, FromLdkBroadcaster, Mode, MonitorEgress, SILENCE,
};
use lightning::chain::chaininterface::BroadcasterInterface;
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
