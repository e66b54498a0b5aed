//! Shares of fees, counts of phases.
use super::*;
use crate::arbitrator::HandedOut;
use crate::classify::FundingSpend;
use bitcoin::hashes::Hash;
use bitcoin::{Transaction, absolute::LockTime, transaction::Version};
use std::vec;

fn outpoint(vout: u32) -> OutPoint {
    OutPoint { txid: Txid::all_zeros(), vout }
}

fn handed_out(claims: Vec<OutPoint>, fee: u64) -> HandedOut {
    let (version, lock_time) = (Version::TWO, LockTime::ZERO);
    HandedOut {
        kind: TxKind::Penalty,
        transaction: Transaction { version, lock_time, input: vec![], output: vec![] }.into(),
        claims,
        others: vec![],
        coins: vec![],
        fee: Amount::from_sat(fee),
        at: BlockHeight(1),
    }
}

#[test]
fn shares_of_a_fee_add_up_to_it() {
    for (count, fee) in [(1u32, 1000u64), (3, 1000), (7, 6), (3, 0)] {
        let claims: Vec<_> = (0..count).map(outpoint).collect();
        let out = handed_out(claims.clone(), fee);
        let shares: Vec<u64> = claims.iter().map(|of| out.share(*of).to_sat()).collect();
        assert_eq!(shares.iter().sum::<u64>(), fee, "{shares:?}");
        assert!(shares.iter().all(|share| *share >= fee / u64::from(count)), "{shares:?}");
    }
    // Of a transaction that two channels share, each has its part in its own log.
    let (mut one, mut two) = (handed_out(vec![outpoint(1)], 1000), handed_out(vec![], 1000));
    two.claims = vec![outpoint(0), outpoint(2)];
    (one.others, two.others) = (two.claims.clone(), one.claims.clone());
    assert_eq!((one.own_fee().to_sat(), two.own_fee().to_sat()), (333, 667));
    assert_eq!(handed_out(vec![], 5).share(outpoint(0)).to_sat(), 5, "no claim, no panic");
}

#[test]
fn every_phase_has_its_counter() {
    let spend = FundingSpend::MutualClose;
    let mut counts = PhaseCounts::default();
    for phase in [Phase::Open, Phase::Failing, Phase::Closed(spend), Phase::Resolved(spend)] {
        counts.count(&phase);
    }
    counts.count(&Phase::Failing);
    assert_eq!(counts, PhaseCounts { open: 1, failing: 2, closed: 1, resolved: 1 });
}
