//! The peer's claims of HTLC outputs.

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, Sequence};

use super::{
    busy, check_claim, check_rate, coins, htlc, kinds, moved_on, open, params, rate, scripts_pass,
};
use crate::peer::{Bundle, ClaimFee, Format, PeerError, Side, Staged};

const NAMES: [&str; 4] = ["o1", "r1", "o2", "r2"];

#[test]
fn on_its_current_and_revoked_commitments() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let channel = moved_on(format, opener)?;
        let coins = coins(&channel, 4);
        let fee = ClaimFee::from(rate(2_500));
        for (number, names) in [(6, &NAMES[..]), (channel.remote_number(), &["o1", "r1"])] {
            let commitment = channel.remote_commitment(number)?;
            let claims = channel.claim_htlcs(&commitment, names, Bundle::Separate, fee, &coins)?;
            assert_eq!(claims.len(), names.len());
            for (claim, name) in claims.iter().zip(names) {
                check_claim(claim);
                assert_eq!(claim.htlcs, [*name]);
                let expected = channel.htlc(name)?;
                let success = expected.htlc.offerer == Side::Local;
                let lock = if success { 0 } else { expected.cltv_expiry };
                assert_eq!(claim.tx.lock_time, LockTime::from_consensus(lock));
                let preimage = &claim.tx.input[0].witness[3];
                assert_eq!(preimage, if success { &expected.preimage[..] } else { &[] });
                if format == Format::StaticRemoteKey {
                    assert!(claim.coins.is_empty());
                } else {
                    check_rate(claim, 2_500);
                    assert_eq!(claim.coins.len(), 1);
                }
                let second = &claim.second_level[*name];
                assert_eq!(second.outpoint.txid, claim.tx.compute_txid());
                assert_eq!(Some(&second.txout), claim.tx.output.first());
            }
            let used: std::collections::BTreeSet<_> =
                claims.iter().flat_map(|claim| &claim.coins).collect();
            assert_eq!(used.len(), claims.iter().map(|claim| claim.coins.len()).sum::<usize>());
        }
    }
    Ok(())
}

#[test]
fn on_its_next_commitment() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let mut channel = busy(format, opener)?;
        channel.stage(vec![
            Staged::Offer(htlc("o3", 5_000, 530)),
            Staged::Receive(htlc("r3", 6_000, 540)),
        ])?;
        let next = channel.remote_next()?;
        let fee = rate(253).into();
        let names = ["o3", "r3", "o1"];
        let coins = coins(&channel, 3);
        for claim in channel.claim_htlcs(&next, &names, Bundle::Separate, fee, &coins)? {
            check_claim(&claim);
        }
        let current = channel.remote_current()?;
        let absent = channel.claim_htlcs(&current, &["o3"], Bundle::Separate, fee, &coins);
        assert_eq!(absent.err(), Some(PeerError::HtlcNotInCommitment("o3".to_owned())));
    }
    Ok(())
}

#[test]
fn aggregated_htlc_transactions_pair_inputs_with_outputs() -> Result<(), PeerError> {
    for format in [Format::Anchors, Format::ZeroFee] {
        let mut channel = busy(format, Side::Local)?;
        channel.receive(htlc("r3", 9_000, 500))?;
        let commitment = channel.remote_current()?;
        let fee = ClaimFee::from(rate(17_000));
        let coins = coins(&channel, 5);
        for names in [["o2", "o1"], ["r3", "r1"]] {
            let claims = channel.claim_htlcs(&commitment, &names, Bundle::Together, fee, &coins)?;
            let [claim] = &claims[..] else { panic!("one transaction for all") };
            check_claim(claim);
            check_rate(claim, 17_000);
            assert!(claim.coins.len() >= 2 && claim.change.is_some());
            for (at, name) in names.iter().enumerate() {
                let (_, output, _) = channel.second_stage(&commitment, name)?;
                assert_eq!(claim.tx.output[at], output);
                assert_eq!(claim.second_level[*name].outpoint.vout as usize, at);
            }
            // A pair out of step is refused by the other side's signature.
            let mut swapped = claim.tx.clone();
            swapped.output.swap(0, 1);
            assert!(!scripts_pass(&swapped, &claim.prevouts));
        }
        let mixed = channel.claim_htlcs(&commitment, &["r1", "r2"], Bundle::Together, fee, &coins);
        assert!(matches!(mixed, Err(PeerError::CannotAggregate(_))));
        let mixed = channel.claim_htlcs(&commitment, &["r1", "o1"], Bundle::Together, fee, &coins);
        assert!(matches!(mixed, Err(PeerError::CannotAggregate(_))));
    }
    let legacy = busy(Format::StaticRemoteKey, Side::Local)?;
    let commitment = legacy.remote_current()?;
    let fee = rate(253).into();
    let both = legacy.claim_htlcs(&commitment, &["o1", "o2"], Bundle::Together, fee, &[]);
    assert!(matches!(both, Err(PeerError::CannotAggregate(_))));
    Ok(())
}

#[test]
fn directly_on_our_commitments() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let channel = moved_on(format, opener)?;
        let fee = ClaimFee::from(rate(3_000));
        for (number, names) in [(6, &NAMES[..]), (channel.local_number(), &["o1", "r1"])] {
            let commitment = channel.local_commitment_at(number)?;
            let separate = channel.claim_htlcs(&commitment, names, Bundle::Separate, fee, &[])?;
            let together = channel.claim_htlcs(&commitment, names, Bundle::Together, fee, &[])?;
            assert_eq!((separate.len(), together.len()), (names.len(), 1));
            for claim in separate.iter().chain(&together) {
                check_claim(claim);
                check_rate(claim, 3_000);
                assert_eq!(claim.tx.output.len(), 1);
                assert_eq!(claim.tx.output[0].script_pubkey, channel.peer_script());
                assert!(claim.second_level.is_empty());
                let csv = claim.tx.input.iter().all(|input| input.sequence == Sequence(1));
                assert_eq!(csv, format == Format::Anchors);
            }
            let mut early = separate[1].tx.clone();
            assert_eq!(early.lock_time, LockTime::from_consensus(500));
            early.lock_time = LockTime::from_consensus(499);
            assert!(!scripts_pass(&early, &separate[1].prevouts));
            assert_eq!(separate[0].tx.lock_time, LockTime::ZERO);
        }
    }
    Ok(())
}

#[test]
fn a_replacement_spends_the_same_output_for_more() -> Result<(), PeerError> {
    let channel = busy(Format::Anchors, Side::Local)?;
    let coins = coins(&channel, 4);
    for commitment in [channel.local_commitment()?, channel.remote_current()?] {
        let claim = |fee| {
            let claims =
                channel.claim_htlcs(&commitment, &["o1"], Bundle::Separate, fee, &coins)?;
            claims.into_iter().next().ok_or(PeerError::NothingToClaim)
        };
        let first = claim(rate(1_000).into())?;
        let at_least = first.fee * 3;
        let second = claim(ClaimFee { rate: rate(2_000), at_least })?;
        check_claim(&second);
        assert_eq!(second.fee, at_least);
        assert_eq!(first.tx.input[0].previous_output, second.tx.input[0].previous_output);
        assert_ne!(first.tx.compute_txid(), second.tx.compute_txid());
    }
    Ok(())
}

#[test]
fn fees_that_cannot_be_paid_are_refused() -> Result<(), PeerError> {
    let channel = busy(Format::Anchors, Side::Local)?;
    let theirs = channel.remote_current()?;
    let fee = ClaimFee::from(rate(1_000));
    let none = channel.claim_htlcs(&theirs, &["o1"], Bundle::Separate, fee, &[]);
    assert!(matches!(none, Err(PeerError::NotEnoughCoins { available: Amount::ZERO, .. })));
    let free = channel.claim_htlcs(&theirs, &["o1"], Bundle::Separate, rate(0).into(), &[])?;
    check_claim(&free[0]);
    assert_eq!(free[0].fee, Amount::ZERO);

    // 20 000 sat at a feerate that leaves less than dust.
    let ours = channel.local_commitment()?;
    let dear = channel.claim_htlcs(&ours, &["r2"], Bundle::Separate, rate(40_000).into(), &[]);
    assert!(matches!(dear, Err(PeerError::Uneconomic { .. })));

    let mut coin = coins(&channel, 1);
    coin[0].key = channel.local_secrets().wallet;
    let foreign = channel.claim_htlcs(&theirs, &["o1"], Bundle::Separate, fee, &coin);
    assert!(matches!(foreign, Err(PeerError::NotItsCoin(_))));
    Ok(())
}

#[test]
fn change_below_dust_goes_to_the_miner() -> Result<(), PeerError> {
    let channel = busy(Format::Anchors, Side::Local)?;
    let theirs = channel.remote_current()?;
    let coin = channel.peer_coin(super::outpoint(9), Amount::from_sat(1_250));
    let fee = ClaimFee::from(rate(1_000));
    let claims = channel.claim_htlcs(
        &theirs,
        &["o1"],
        Bundle::Separate,
        fee,
        std::slice::from_ref(&coin),
    )?;
    check_claim(&claims[0]);
    assert!(claims[0].change.is_none());
    assert_eq!(claims[0].fee, coin.txout.value);
    Ok(())
}

#[test]
fn outputs_that_do_not_exist_are_refused() -> Result<(), PeerError> {
    let channel = moved_on(Format::Anchors, Side::Local)?;
    let fee = rate(253).into();
    for commitment in [channel.local_commitment()?, channel.remote_current()?] {
        let claim =
            |name: &str| channel.claim_htlcs(&commitment, &[name], Bundle::Separate, fee, &[]);
        assert_eq!(claim("o-dust").err(), Some(PeerError::HtlcTrimmed("o-dust".to_owned())));
        assert_eq!(claim("o2").err(), Some(PeerError::HtlcNotInCommitment("o2".to_owned())));
        assert_eq!(claim("x").err(), Some(PeerError::UnknownHtlc("x".to_owned())));
        let nothing = channel.claim_htlcs(&commitment, &[], Bundle::Together, fee, &[]);
        assert_eq!(nothing.err(), Some(PeerError::NothingToClaim));
    }
    Ok(())
}

#[test]
fn twins_are_claimed_one_by_one() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let mut channel = open(params(format, opener))?;
        let twin =
            |name: &str| crate::peer::NewHtlc { name: name.to_owned(), ..htlc("twin", 7_000, 500) };
        channel.offer(twin("first"))?;
        channel.offer(twin("second"))?;
        let coins = coins(&channel, 2);
        let names = ["first", "second"];
        for commitment in [channel.local_commitment()?, channel.remote_current()?] {
            let fee = rate(500).into();
            let claims = channel.claim_htlcs(&commitment, &names, Bundle::Separate, fee, &coins)?;
            for (claim, name) in claims.iter().zip(names) {
                check_claim(claim);
                let index = commitment.htlc_index(name);
                assert_eq!(Some(claim.tx.input[0].previous_output.vout), index);
            }
        }
    }
    Ok(())
}
