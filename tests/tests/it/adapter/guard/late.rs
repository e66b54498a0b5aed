//! What changes while a guard is at work: who publishes, and whether LDK still gets through.
use super::{
    BEFORE, Broken, CHANNEL, DEADLINE, Failed, Net, Wallet, goes_out, guarding, package, request,
    spend,
};
use arb_core::ports::{Broadcast, CoinSource};
use arb_node_adapter::{
    ArbiterCoins, ArbiterEgress, Egress, EgressError, Mempool, Mode, MonitorEgress, SILENCE,
};
use bitcoin::{OutPoint, Transaction};
use lightning::chain::chaininterface::BroadcasterInterface;
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
        assert_eq!(coins.select(request()).await?, []);
    }
    Ok(())
}

/// LDK has a first version in the mempool, and then nothing of it gets through any more: whether what it goes on to pay is lost, or
/// it says nothing. The guard steps in while there is time.
#[tokio::test]
async fn an_old_version_does_not_count_near_the_deadline() -> Result<(), Failed> {
    for is_silent in [false, true] {
        let (net, egress) = (Net::default(), guarding(DEADLINE - BEFORE));
        let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
        MonitorEgress::new(&net, egress.clone()).broadcast_transactions(&[&spend(&[1], 20)]);
        let broken = MonitorEgress::new(&Broken, egress.clone());
        let ours = package(&[(1, Some(DEADLINE))], 10);
        for height in DEADLINE - BEFORE..DEADLINE - SILENCE {
            egress.best_height(height);
            if !is_silent {
                let left = u64::from(DEADLINE - height);
                broken.broadcast_transactions(&[&spend(&[1], left)]);
            }
            assert!(!goes_out(&port, &ours).await?, "{height}");
        }
        egress.best_height(DEADLINE - SILENCE);
        assert!(goes_out(&port, &ours).await?);
    }
    Ok(())
}

/// LDK hands over what it has in the mempool, the same or more, every few blocks: that is its own to the end.
#[tokio::test]
async fn what_ldk_hands_over_again_counts_to_the_end() -> Result<(), Failed> {
    for pays_more in [false, true] {
        let (net, egress) = (Net::default(), guarding(DEADLINE - BEFORE));
        let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
        let ldk = MonitorEgress::new(&net, egress.clone());
        let ours = package(&[(1, Some(DEADLINE))], 10);
        for height in DEADLINE - BEFORE..DEADLINE + BEFORE {
            egress.best_height(height);
            if height % SILENCE == 0 {
                net.0.lock().unwrap().clear();
                let left = if pays_more { 1_000 - u64::from(height) } else { 20 };
                ldk.broadcast_transactions(&[&spend(&[1], left)]);
            }
            let theirs = net.0.lock().unwrap().len() == 1;
            assert!(!theirs || !goes_out(&port, &ours).await?, "{height}");
        }
        assert!(egress.published_for().is_empty());
    }
    Ok(())
}

/// Many blocks at once, as after a time without a connection: LDK has had no time to hand anything over.
#[tokio::test]
async fn blocks_that_come_at_once_say_nothing_of_ldk() -> Result<(), Failed> {
    let (net, egress) = (Net::default(), guarding(DEADLINE - BEFORE));
    let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
    MonitorEgress::new(&net, egress.clone()).broadcast_transactions(&[&spend(&[1], 20)]);
    let ours = package(&[(1, Some(DEADLINE))], 10);
    assert!(!goes_out(&port, &ours).await?);
    for height in DEADLINE - BEFORE..DEADLINE - 1 {
        egress.best_height(height);
    }
    assert!(!goes_out(&port, &ours).await?);
    Ok(())
}

/// However few blocks before the deadline a guard steps in, it knows by then that LDK is cut off.
#[tokio::test]
async fn a_guard_that_steps_in_late_knows_that_ldk_is_cut_off() -> Result<(), Failed> {
    for before in [1, 2, 3, SILENCE - 1, SILENCE, SILENCE + 1, 11, 12, BEFORE] {
        for is_broken in [false, true] {
            let (net, egress) = (Net::default(), guarding(DEADLINE - BEFORE));
            egress.set(Mode::Guard { before });
            let port = ArbiterEgress::seeing(net.clone(), egress.clone(), net.clone());
            let ldk = MonitorEgress::new(&net, egress.clone());
            ldk.broadcast_transactions(&[&spend(&[1], 20)]);
            let ours = package(&[(1, Some(DEADLINE))], 10);
            for height in DEADLINE - BEFORE..DEADLINE {
                egress.best_height(height);
                if !is_broken {
                    ldk.broadcast_transactions(&[&spend(&[1], 20)]);
                }
                let steps_in = is_broken && DEADLINE - height <= before.min(SILENCE);
                assert_eq!(goes_out(&port, &ours).await?, steps_in, "{before} {height}");
            }
        }
    }
    Ok(())
}
