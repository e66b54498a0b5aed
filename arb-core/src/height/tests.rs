//! Locks, expiries and depths as heights.
use super::*;

const MAX: BlockHeight = BlockHeight(u32::MAX);

#[test]
fn heights_of_locks() {
    let at = |tip: u32, until: u32, reason| Due {
        tip: BlockHeight(tip),
        until: BlockHeight(until),
        reason,
    };
    let confirmed = BlockHeight(100);
    let rows = [
        // BIP 68: confirmed at 100 with a delay of 10 may be in block 110, so accepted at 109.
        (csv(confirmed, BlockDelta(10)), at(109, 110, Reason::Csv)),
        (csv(confirmed, BlockDelta(1)), at(100, 101, Reason::Csv)),
        (sequence(confirmed, Sequence::from_height(10)), at(109, 110, Reason::Csv)),
        (sequence(confirmed, Sequence::from_height(1)), at(100, 101, Reason::Csv)),
        // No relative lock: as soon as the output is there.
        (sequence(confirmed, Sequence::ZERO), at(100, 100, Reason::Confirmation)),
        (sequence(confirmed, Sequence::MAX), at(100, 100, Reason::Confirmation)),
        (sequence(confirmed, Sequence::ENABLE_RBF_NO_LOCKTIME), at(100, 100, Reason::Confirmation)),
        // nLockTime 150 is final in block 151, accepted at tip 150.
        (cltv(CltvExpiry(BlockHeight(150))), at(150, 150, Reason::Cltv)),
        // The containing block counts: three deep two blocks later.
        (depth(confirmed, BlockDelta(3)), at(102, 102, Reason::Depth)),
        (depth(confirmed, BlockDelta(1)), at(100, 100, Reason::Depth)),
        (deadline(BlockHeight(77)), at(77, 77, Reason::Deadline)),
    ];
    for (found, expected) in rows {
        assert_eq!(found, expected);
        assert!(found.is_open(expected.tip));
        assert!(!found.is_open(expected.tip.minus(BlockDelta(1))));
    }
}

#[test]
fn heights_out_of_reach_stay_out_of_reach() {
    for due in [csv(MAX, BlockDelta(u32::MAX)), depth(MAX, BlockDelta(100))] {
        assert!(due.tip >= MAX.minus(BlockDelta(1)));
        assert!(!due.is_open(BlockHeight(1_000_000)));
    }
    assert!(depth(BlockHeight(0), BlockDelta(0)).is_open(BlockHeight(0)));
}

#[test]
fn of_two_the_later_counts() {
    let (one, two) = (cltv(CltvExpiry(BlockHeight(5))), csv(BlockHeight(5), BlockDelta(1)));
    assert_eq!(one.and(two), one);
    let later = csv(BlockHeight(5), BlockDelta(9));
    assert_eq!(one.and(later), later);
    assert_eq!(later.and(one), later);
}
