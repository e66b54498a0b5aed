//! What a built transaction pays.
use super::{BuildError, Draft, Parent};
use crate::arbitrator::TxKind;
use crate::claim::{AnchorLock, Claim, SigningKey, SingleSpend, SpendPath, Unlock};
use crate::ids::ChannelId;
use crate::ports::Coin;
use crate::units::BlockHeight;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, TxOut, Txid, Weight, absolute::LockTime,
};
use proptest::prelude::*;

fn claim(path: SpendPath, value: u64) -> Claim {
    let script_pubkey = ScriptBuf::from_bytes([0x51].to_vec());
    Claim {
        channel: ChannelId([0; 32]),
        outpoint: OutPoint { txid: Txid::all_zeros(), vout: 1 },
        output: TxOut { value: Amount::from_sat(value), script_pubkey: script_pubkey.clone() },
        path,
        open_at: BlockHeight(0),
        deadline: None,
        value_at_risk: Amount::from_sat(value),
        destination: script_pubkey,
    }
}

fn sweep(value: u64) -> Draft {
    let single = SingleSpend {
        kind: TxKind::Sweep,
        htlc: None,
        script: Some(ScriptBuf::new()),
        unlock: Unlock::Nothing,
        key: SigningKey::Payment,
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        lock_time: LockTime::ZERO,
        version: bitcoin::transaction::Version::TWO,
    };
    Draft::new(claim(SpendPath::Single(Box::new(single)), value))
}

fn anchor() -> Draft {
    let path = SpendPath::Anchor {
        lock: AnchorLock::Keyed { script: ScriptBuf::new(), key: SigningKey::Payment },
        parent: Txid::all_zeros(),
        ours: Amount::ZERO,
        lost: Vec::new(),
    };
    Draft::new(claim(path, 330))
}

fn coin(value: u64) -> Coin {
    Coin {
        outpoint: OutPoint { txid: Txid::all_zeros(), vout: 7 },
        output: TxOut { value: Amount::from_sat(value), script_pubkey: ScriptBuf::new() },
        satisfaction_weight: Weight::from_wu(108),
    }
}

#[test]
fn a_replacement_pays_at_least_what_it_must() {
    let mut draft = sweep(10_000);
    draft.fee = Amount::from_sat(300);
    draft.least = Amount::from_sat(700);
    let built = draft.assemble(&[], None).expect("it is worth it");
    assert_eq!(built.fee, Amount::from_sat(700));
    assert_eq!(built.transaction.output[0].value, Amount::from_sat(9_300));
}

#[test]
fn what_would_leave_dust_is_not_built() {
    let mut draft = sweep(1_000);
    draft.fee = Amount::from_sat(647);
    assert_eq!(draft.assemble(&[], None).err(), Some(BuildError::Uneconomic));
}

#[test]
fn a_child_pays_for_its_coins_and_at_least_what_it_must() {
    let mut draft = anchor();
    draft.fee = Amount::from_sat(1_000);
    draft.feerate = FeeRate::from_sat_per_kwu(2_500);
    let change = Some(ScriptBuf::from_bytes([0x51].to_vec()));
    let built = draft.clone().assemble(&[coin(50_000)], change.clone()).expect("a coin is there");
    // 41 * 4 + 108 weight units of the coin's input at 2,500 sat/kwu.
    assert_eq!(built.fee, Amount::from_sat(1_000 + 680));
    draft.least = Amount::from_sat(5_000);
    let built = draft.clone().assemble(&[coin(50_000)], change.clone()).expect("a coin is there");
    // The coin's own 272 weight units are relayed for 1 sat/vB.
    assert_eq!(built.fee, Amount::from_sat(5_000 + 68));
    let short = draft.clone().assemble(&[coin(4_900)], change.clone());
    assert_eq!(short.err(), Some(BuildError::NoCoins));
    // Less than the price is better than nothing, as long as it is relayed.
    draft.least = Amount::from_sat(2_000);
    draft.fee = Amount::from_sat(9_000);
    let partial = draft.clone().assemble(&[coin(4_900)], change.clone()).expect("it is relayed");
    let left = partial.transaction.output[0].value;
    assert_eq!(left, Amount::from_sat(354));
    assert_eq!(partial.fee, Amount::from_sat(4_900 + 330 - 354));
    assert_eq!(draft.assemble(&[], change).err(), Some(BuildError::NoCoins));
}

#[test]
fn coins_that_are_dear_to_spend_do_not_make_it_cost_more_than_it_may() {
    let change = Some(ScriptBuf::from_bytes([0x51].to_vec()));
    let mut draft = anchor();
    draft.fee = Amount::from_sat(1_000);
    draft.least = Amount::from_sat(5_000);
    // With the 68 sat that its coin is relayed for.
    draft.budget = Amount::from_sat(5_068);
    let built = draft.clone().assemble(&[coin(50_000)], change.clone()).expect("a coin is there");
    assert_eq!(built.fee, draft.budget);
    draft.budget = Amount::from_sat(5_067);
    let dear = draft.assemble(&[coin(50_000)], change);
    assert_eq!(dear.err(), Some(BuildError::OverBudget));
}

#[test]
fn halves_of_a_replacement_are_asked_about_at_what_the_whole_must_pay() {
    let mut draft = sweep(50_000);
    draft.others = vec![sweep(50_000).claim];
    draft.feerate = FeeRate::from_sat_per_kwu(1_000);
    draft.least = Amount::from_sat(20_000);
    let fees = |draft: &Draft| draft.halves().expect("two claims").map(|half| half.fee);
    assert_eq!(fees(&draft), [Amount::from_sat(20_000); 2]);
    draft.divisible = true;
    assert!(fees(&draft).iter().all(|fee| *fee < Amount::from_sat(1_000)));
}

#[test]
fn a_wallet_that_is_short_pays_for_what_would_cost_most() {
    let mut draft = sweep(10_000);
    draft.others = (2..=5)
        .map(|n| {
            let mut other = draft.claim.clone();
            other.outpoint.vout = n;
            other.deadline = Some(crate::claim::Deadline::By(BlockHeight(100 - n)));
            other
        })
        .collect();
    draft.fee = Amount::from_sat(5_000);
    draft.least = Amount::from_sat(500);
    draft.budget = Amount::from_sat(50_000);
    assert_eq!(draft.fewer(), None, "it takes the place of another");
    draft.divisible = true;
    let three = draft.fewer().expect("there are five");
    let vouts = |draft: &Draft| draft.claims().map(|c| c.outpoint.vout).collect::<Vec<_>>();
    assert_eq!(vouts(&three), [3, 4, 5], "those with the least time");
    let part = three.weight().to_wu() as f64 / draft.weight().to_wu() as f64;
    assert!((three.fee.to_sat() as f64 - 5_000.0 * part).abs() <= 1.0);
    assert!((three.least.to_sat() as f64 - 500.0 * part).abs() <= 1.0);
    assert_eq!(three.budget, Amount::from_sat(30_000));
    let two = three.fewer().expect("there are three");
    assert_eq!(vouts(&two), [4, 5]);
    let one = two.fewer().expect("there are two");
    assert_eq!((vouts(&one), one.fewer()), (vec![5], None));
    let risk = |draft: &Draft| draft.claim.value_at_risk;
    draft.others[0].value_at_risk = risk(&draft) + Amount::ONE_SAT;
    let dear = draft.fewer().and_then(|three| three.fewer()?.fewer()).expect("there are five");
    assert_eq!((vouts(&dear), risk(&dear)), (vec![2], risk(&draft) + Amount::ONE_SAT));
}

#[test]
fn a_price_falls_as_far_as_what_is_relayed() {
    let mut draft = anchor();
    draft.fee = Amount::from_sat(1_000);
    draft.least = Amount::from_sat(600);
    draft.feerate = FeeRate::from_sat_per_kwu(2_500);
    let once = draft.cheaper().expect("there is room");
    assert_eq!((once.fee.to_sat(), once.feerate.to_sat_per_kwu()), (750, 1_875));
    let twice = once.cheaper().expect("there is room");
    assert_eq!((twice.fee.to_sat(), twice.feerate.to_sat_per_kwu()), (600, 1_406));
    assert_eq!(twice.cheaper(), None);
}

#[test]
fn the_child_of_a_version_3_commitment_is_version_3_and_small() {
    let path = SpendPath::Anchor {
        lock: AnchorLock::Shared,
        parent: Txid::all_zeros(),
        ours: Amount::ZERO,
        lost: Vec::new(),
    };
    let mut draft = Draft::new(claim(path, 0));
    draft.fee = Amount::from_sat(40_000);
    draft.feerate = FeeRate::from_sat_per_kwu(250);
    let coins: Vec<Coin> = (0..40)
        .map(|n| Coin {
            outpoint: OutPoint { txid: Txid::all_zeros(), vout: 10 + n },
            ..coin(1_000 + u64::from(n))
        })
        .collect();
    let change = ScriptBuf::from_bytes(vec![0; 34]);
    let child = draft.assemble(&coins, Some(change)).expect("it pays what it can");
    let transaction = child.signed(&[]);
    assert_eq!(child.requests().count(), 0, "anybody may spend the anchor");
    assert_eq!(transaction.version, bitcoin::transaction::Version(3));
    assert!(transaction.input.iter().all(|input| input.witness.is_empty()));
    // The most valuable of the coins, and not one more: 1,000 vB with their witnesses.
    let signed = transaction.weight().to_wu() + 2 + 1 + 108 * child.coins.len() as u64;
    assert!((3_700..=4_000).contains(&signed), "{signed} WU");
    let mut used: Vec<u32> = child.coins.iter().map(|coin| coin.vout).collect();
    used.sort_unstable();
    let first = 50 - u32::try_from(used.len()).expect("few");
    assert_eq!(used, (first..50).collect::<Vec<_>>());
    assert!(child.fee < Amount::from_sat(40_000));
}

/// What Bitcoin Core takes together is 101,000 vB; a child alone may have 100,000.
#[test]
fn a_child_leaves_room_for_its_parent() {
    let coins: Vec<Coin> = (0..1_600)
        .map(|n| Coin {
            outpoint: OutPoint { txid: Txid::all_zeros(), vout: 10 + n },
            ..coin(2_000)
        })
        .collect();
    for (parent, limit) in
        [(1_124, 400_000), (4_000, 400_000), (5_000, 399_000), (160_000, 244_000)]
    {
        let mut draft = anchor();
        draft.fee = Amount::from_sat(4_000_000);
        draft.feerate = FeeRate::from_sat_per_kwu(250);
        draft.parent = Some(Parent { fee: Amount::ZERO, weight: Weight::from_wu(parent) });
        let witness = draft.claim.path.witness_weight().to_wu();
        let change = ScriptBuf::from_bytes(vec![0; 34]);
        let child = draft.assemble(&coins, Some(change)).expect("it pays what it can");
        // What remains is one output, the smallest: the coins do not cover the fee.
        assert_eq!(child.transaction.output.len(), 1);
        let signed =
            child.transaction.weight().to_wu() + 2 + witness + 108 * child.coins.len() as u64;
        assert!((limit - 300..=limit).contains(&signed), "{signed} WU beside {parent}");
    }
}

proptest! {
    /// Whatever coins the wallet gives: what is built pays no more than it may, but for change that would be dust, and no less
    /// than it must.
    #[test]
    fn coins_of_any_size_keep_to_the_budget(
        coins in proptest::collection::vec(300u64..30_000, 1..40),
        (fee, least, more, rate) in (0u64..20_000, 0u64..20_000, 0u64..40_000, 250u64..30_000),
        divisible in any::<bool>(),
    ) {
        let mut draft = anchor();
        draft.fee = Amount::from_sat(fee);
        draft.least = Amount::from_sat(least);
        draft.budget = Amount::from_sat(least + more);
        draft.feerate = FeeRate::from_sat_per_kwu(rate);
        draft.divisible = divisible;
        let coins: Vec<Coin> = coins.into_iter().map(coin).collect();
        let change = Some(ScriptBuf::from_bytes([0x51].to_vec()));
        match draft.clone().assemble(&coins, change) {
            Ok(built) => {
                prop_assert!(built.fee < draft.budget + super::SMALLEST_OUTPUT, "{:?}", built.fee);
                prop_assert!(built.fee >= draft.least, "{:?}", built.fee);
            }
            Err(why) => prop_assert!(matches!(why, BuildError::OverBudget | BuildError::NoCoins)),
        }
    }
}
