//! What is paid for the sake of a deadline is no more than what is lost with it.
use super::*;
use crate::ids::Preimage;

/// An HTLC on the peer's commitment that we take by its preimage.
fn taken(vout: u32, value: u64, left: u32) -> Claim {
    let mut claim = claim(vout, TxKind::Claim, value, Some(left));
    if let SpendPath::Single(single) = &mut claim.path {
        single.unlock = Unlock::Preimage(Preimage([1; 32]));
    }
    claim
}

/// What is paid for these in one transaction.
fn fee_of(claims: &[Claim], rate: u32) -> u64 {
    let (acts, estimates) = (Acts::default(), flat(rate));
    let parts = [Part { claims, acts: &acts, joining: Joining::Never }];
    let past = Past::of(&parts);
    let planner = Planner::new(&parts, &past, BlockHeight(START), &estimates);
    let claims: Vec<&Claim> = claims.iter().collect();
    let draft = draft_of(&claims).expect("there are some");
    let draft = planner.draft(&claims, Over::Nothing).unwrap_or(draft);
    draft.fee.to_sat()
}

#[test]
fn nobody_pays_for_a_deadline_of_anothers() {
    let one_block = |value| fee_of(&[taken(0, value, 1)], 10);
    // By itself all of it is paid in the last block, but for the smallest output.
    assert!(one_block(20_000) >= 19_000);
    let both = fee_of(&[taken(0, 20_000, 1), taken(1, 400_000, 13)], 10);
    assert!((10_000..=25_000).contains(&both), "{both}");
    // What is small and due does not matter to what is due in the same block.
    let both = fee_of(&[taken(0, 20_000, 1), taken(1, 400_000, 1)], 10);
    assert!(both > 400_000, "{both}");
}

proptest! {
    #[test]
    fn the_nearest_deadline_adds_no_more_than_what_is_lost_with_it(
        all in prop::collection::vec((10_000u64..2_000_000, 1u32..=13), 2..7),
        rate in 1u32..10,
    ) {
        let claims: Vec<Claim> =
            (0..).zip(&all).map(|(vout, (value, left))| taken(vout, *value, *left)).collect();
        let nearest = all.iter().map(|(_, left)| *left).min().expect("there are some");
        let next = all.iter().map(|(_, left)| *left).filter(|left| *left > nearest).min();
        let later: Vec<Claim> = (0..)
            .zip(&all)
            .map(|(vout, (value, left))| match next {
                Some(next) => taken(vout, *value, (*left).max(next)),
                None => taken(vout, *value, 13),
            })
            .collect();
        let due = all.iter().filter(|(_, left)| *left == nearest).map(|(value, _)| value);
        let lost: u64 = due.sum();
        let (with, without) = (fee_of(&claims, rate), fee_of(&later, rate));
        prop_assert!(with <= without + lost, "{with}, without it {without}, lost with it {lost}");
    }
}
