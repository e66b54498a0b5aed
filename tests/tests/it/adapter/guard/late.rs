//! What changes while a guard is at work.
use super::{CHANNEL, DEADLINE, Failed, Net, Wallet, guarding, outpoint, package};
use arb_core::ports::{Broadcast, CoinRequest, CoinSource};
use arb_core::units::BlockHeight;
use arb_node_adapter::{ArbiterCoins, ArbiterEgress, Egress, EgressError, Mempool, Mode};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction};
use std::sync::Arc;

/// A mempool with nothing in it; while it is asked, something happens.
struct Meanwhile(Arc<Egress>, fn(&Egress));

impl Mempool for Meanwhile {
    async fn spenders(&self, _: Vec<OutPoint>) -> Result<Vec<Transaction>, String> {
        tokio::task::yield_now().await;
        (self.1)(&self.0);
        Ok(Vec::new())
    }
}

fn observes(egress: &Egress) {
    egress.set(Mode::Observe);
}

fn goes_back(egress: &Egress) {
    egress.hand_back(CHANNEL);
}

/// The mode is another, or the channel LDK's alone, by the time the mempool has answered: nothing goes out.
#[tokio::test]
async fn what_changes_while_the_mempool_is_asked_counts() -> Result<(), Failed> {
    for change in [observes, goes_back] {
        let (net, egress) = (Net::default(), guarding(DEADLINE - 5));
        let mempool = Meanwhile(egress.clone(), change);
        let port = ArbiterEgress::seeing(net.clone(), egress.clone(), mempool);
        let ours = package(&[(1, Some(DEADLINE))], 10);
        let refused = port.broadcast(ours.clone()).await;
        let is_refused = matches!(refused, Err(EgressError::Observing | EgressError::HandedBack));
        assert!(is_refused, "{refused:?}");
        assert!(!net.has(&ours.transactions[0]) && egress.published_for().is_empty());

        let egress = guarding(DEADLINE - 5);
        let coins = ArbiterCoins::seeing(Wallet, egress.clone(), Meanwhile(egress.clone(), change));
        let request = CoinRequest {
            claim: outpoint(1),
            amount: Amount::from_sat(1_000),
            feerate: FeeRate::BROADCAST_MIN,
            channel: CHANNEL,
            deadline: Some(BlockHeight(DEADLINE)),
            most: 1,
        };
        assert_eq!(coins.select(request).await?, []);
    }
    Ok(())
}
