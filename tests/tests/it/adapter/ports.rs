//! Feerates and broadcasts, both ways.
use super::Failed;
use super::fixtures::{outpoint, spend};
use arb_core::claim::trough::Troughs;
use arb_core::ids::ChannelId;
use arb_core::ports::{Broadcast, FeeEstimates, FeeSource, Package, Stake, Verdict};
use arb_node_adapter::{
    ArbiterEgress, BroadcastQueue, Egress, EgressError, FromLdkBroadcaster, FromLdkFees, LdkFees,
    MAXIMUM_MARGIN, Mode, horizon,
};
use bitcoin::{FeeRate, OutPoint, Transaction, Txid};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use std::sync::{Arc, Mutex};

fn rate(sat_per_kw: u64) -> FeeRate {
    FeeRate::from_sat_per_kwu(sat_per_kw)
}

const TIMED: [ConfirmationTarget; 4] = [
    ConfirmationTarget::UrgentOnChainSweep,
    ConfirmationTarget::NonAnchorChannelFee,
    ConfirmationTarget::OutputSpendingFee,
    ConfirmationTarget::ChannelCloseMinimum,
];

#[tokio::test]
async fn feerates_survive_the_round_trip() -> Result<(), Failed> {
    let targets = TIMED.map(horizon).into_iter().zip([9_000, 5_000, 2_000, 1_000].map(rate));
    let ours =
        FeeEstimates { targets: targets.collect(), floor: rate(300), troughs: Troughs::default() };
    let ldk = Arc::new(LdkFees::new(ours.clone()));
    assert_eq!(FromLdkFees(ldk.clone()).estimates().await?, ours);
    let at = |target| ldk.get_est_sat_per_1000_weight(target);
    assert_eq!(at(ConfirmationTarget::MaximumFeeEstimate), 9_000 + MAXIMUM_MARGIN);
    assert_eq!(at(ConfirmationTarget::MinAllowedAnchorChannelRemoteFee), 300);
    assert_eq!(at(ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee), 750);
    assert_eq!(at(ConfirmationTarget::AnchorChannelFee), 1_000);

    // Below LDK's floor nothing is said, whatever we know; and nothing overflows, for what cannot be is not believed.
    let targets = vec![(1, FeeRate::MAX), (2, rate(10))];
    ldk.set(FeeEstimates { targets, floor: rate(1), troughs: Troughs::default() });
    let highest = u32::try_from(FeeEstimates::HIGHEST.to_sat_per_kwu())?;
    assert_eq!(at(ConfirmationTarget::MaximumFeeEstimate), highest + MAXIMUM_MARGIN);
    for target in TIMED {
        assert_eq!(at(target), 253, "{target:?}");
    }
    assert_eq!(at(ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee), 253);
    assert_eq!(at(ConfirmationTarget::MinAllowedAnchorChannelRemoteFee), 253);
    Ok(())
}

struct Odd;

impl FeeEstimator for Odd {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        match target {
            ConfirmationTarget::UrgentOnChainSweep => 100,
            ConfirmationTarget::OutputSpendingFee => 4_000,
            ConfirmationTarget::MinAllowedAnchorChannelRemoteFee => 0,
            _ => 500,
        }
    }
}

#[tokio::test]
async fn an_odd_estimator_gives_estimates_in_order() -> Result<(), Failed> {
    let estimates = FromLdkFees(Arc::new(Odd)).estimates().await?;
    assert_eq!(estimates.floor, rate(253));
    let expected = [(6, 4_000), (12, 4_000), (72, 4_000), (144, 500)];
    assert_eq!(estimates.targets, expected.map(|(target, r)| (target, rate(r))));
    assert_eq!(estimates.within(1), rate(4_000));
    Ok(())
}

/// A port that refuses once, then notes what it gets.
#[derive(Default)]
struct Port {
    failures: Mutex<u32>,
    got: Mutex<Vec<Package>>,
}

impl Broadcast for Port {
    type Error = std::io::Error;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Self::Error> {
        let away = |_| std::io::Error::other("poisoned");
        let mut failures = self.failures.lock().map_err(away)?;
        if *failures > 0 {
            *failures -= 1;
            return Err(std::io::Error::other("away"));
        }
        let low = |tx: &Transaction| (tx.compute_txid(), Verdict::FeeTooLow("low".to_owned()));
        let verdicts = package.transactions.iter().map(low).collect();
        self.got.lock().map_err(|_| std::io::Error::other("poisoned"))?.push(package);
        Ok(verdicts)
    }
}

#[tokio::test]
async fn what_ldk_broadcasts_reaches_our_port() -> Result<(), Failed> {
    let queue = Arc::new(BroadcastQueue::new());
    let parent = spend(&[outpoint(1)], 1_000);
    let child = spend(&[OutPoint::new(parent.compute_txid(), 0)], 1_000);
    let grandchild = spend(&[OutPoint::new(child.compute_txid(), 0)], 1_000);
    let other = spend(&[outpoint(2)], 1_000);
    // LDK promises no order within a package.
    queue.broadcast_transactions(&[&grandchild, &parent, &child, &parent]);
    queue.broadcast_transactions(&[&other]);
    queue.broadcast_transactions(&[&other]);
    queue.broadcast_transactions(&[]);
    assert_eq!(queue.waiting(), 2);
    let port = Port { failures: Mutex::new(1), ..Port::default() };
    assert!(queue.drain(&port).await.is_err());
    assert_eq!(queue.waiting(), 2, "nothing is lost while the port is away");
    let verdicts = queue.drain(&port).await?;
    let packages = [vec![parent, child, grandchild], vec![other]];
    assert_eq!(verdicts.len(), 4);
    assert!(verdicts.iter().all(|(_, verdict)| !verdict.is_in()));
    let got = port.got.into_inner().map_err(|_| "poisoned")?;
    assert_eq!(got, packages.map(Package::from));
    assert_eq!(queue.waiting(), 0);
    Ok(())
}

#[tokio::test]
async fn what_we_broadcast_reaches_ldk_and_back() -> Result<(), Failed> {
    let queue = Arc::new(BroadcastQueue::new());
    let ldk = FromLdkBroadcaster(queue.clone());
    let parent = spend(&[outpoint(1)], 1_000);
    let child = spend(&[OutPoint::new(parent.compute_txid(), 0)], 1_000);
    let package = Package::from(vec![parent.clone(), child.clone()]);
    let verdicts = ldk.broadcast(package.clone()).await?;
    // What becomes of it is not heard.
    let handed_over = |tx: &Transaction| (tx.compute_txid(), Verdict::HandedOver);
    assert_eq!(verdicts, [handed_over(&parent), handed_over(&child)]);
    assert!(verdicts.iter().all(|(_, verdict)| verdict.is_handed_over() && !verdict.is_in()));
    assert!(ldk.broadcast(Package::from(Vec::new())).await?.is_empty());
    assert_eq!(queue.waiting(), 1);
    let port = Port::default();
    queue.drain(&port).await?;
    assert_eq!(port.got.into_inner().map_err(|_| "poisoned")?, [package]);
    Ok(())
}

/// One of two channels whose claims share a transaction goes back to LDK: what is refused names the
/// output to leave out, and the other goes on.
#[tokio::test]
async fn what_claims_for_a_channel_of_ldks_alone_is_refused() -> Result<(), Failed> {
    let egress = Arc::new(Egress::new(Mode::Own));
    let ours = ArbiterEgress::new(Port::default(), egress.clone());
    let stake =
        |n: u8| Stake { channel: ChannelId([n; 32]), outpoint: outpoint(n), deadline: None };
    let claiming = |of: &[u8]| {
        let outputs: Vec<OutPoint> = of.iter().copied().map(outpoint).collect();
        let transactions = vec![spend(&outputs, 1_000)];
        Package { transactions, stakes: of.iter().copied().map(stake).collect() }
    };
    let refused = |verdict: &Verdict| matches!(verdict, Verdict::Refused(_));
    let low = |verdict: &Verdict| matches!(verdict, Verdict::FeeTooLow(_));
    let both = claiming(&[1, 2]);
    let verdicts = ours.broadcast(both.clone()).await?;
    assert!(verdicts.iter().all(|(_, verdict)| low(verdict)), "it was handed over: {verdicts:?}");
    assert!(!egress.hand_back(ChannelId([1; 32])));
    let verdicts = ours.broadcast(both.clone()).await?;
    assert_eq!(verdicts.len(), 1);
    assert!(verdicts.iter().all(|(_, verdict)| refused(verdict)), "{verdicts:?}");
    for (claims, is_refused) in [(&[1, 2][..], true), (&[1], true), (&[2], false)] {
        let asked = claiming(claims).transactions.remove(0);
        assert_eq!(ours.test(asked).await?.is_some_and(|said| refused(&said)), is_refused);
    }
    let verdicts = ours.broadcast(claiming(&[2])).await?;
    assert!(verdicts.iter().all(|(_, verdict)| low(verdict)), "{verdicts:?}");
    assert!(matches!(ours.broadcast(claiming(&[1])).await, Err(EgressError::HandedBack)));
    Ok(())
}
