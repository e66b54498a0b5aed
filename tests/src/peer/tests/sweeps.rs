//! The peer's other claims: delayed outputs, main outputs, penalties, anchors.

use bitcoin::transaction::Version;
use bitcoin::{Amount, Sequence};

use super::{
    busy, check_claim, check_rate, coins, kinds, moved_on, open, params, rate, scripts_pass,
};
use crate::peer::{Bundle, Channel, Claim, Format, OutputRole, PeerError, Side};

/// One block less than the peer's delay does not do.
fn check_delay(claim: &Claim) {
    let mut early = claim.tx.clone();
    for input in &mut early.input {
        assert_eq!(input.sequence, Sequence(200));
        input.sequence = Sequence(199);
    }
    assert!(!scripts_pass(&early, &claim.prevouts));
}

#[test]
fn second_level_outputs_after_the_delay() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let channel = moved_on(format, opener)?;
        let coins = coins(&channel, 4);
        for number in [6, channel.remote_number()] {
            let commitment = channel.remote_commitment(number)?;
            let fee = rate(1_000).into();
            let claims =
                channel.claim_htlcs(&commitment, &["o1", "r1"], Bundle::Separate, fee, &coins)?;
            let outputs: Vec<_> =
                claims.iter().flat_map(|claim| claim.second_level.values().cloned()).collect();
            let swept = channel.claim_second_level(&commitment, &outputs, fee)?;
            assert_eq!(swept.tx.input.len(), 2);
            check_claim(&swept);
            check_rate(&swept, 1_000);
            check_delay(&swept);
        }
    }
    Ok(())
}

#[test]
fn its_own_to_local_after_the_delay() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let channel = moved_on(format, opener)?;
        for number in 0..=channel.remote_number() {
            let commitment = channel.remote_commitment(number)?;
            let swept = channel.claim_to_local(&commitment, rate(1_000).into())?;
            check_claim(&swept);
            check_rate(&swept, 1_000);
            check_delay(&swept);
        }
        let ours = channel.local_commitment()?;
        let wrong = channel.claim_to_local(&ours, rate(1_000).into());
        assert_eq!(wrong.err(), Some(PeerError::NotTheOwner(Side::Remote)));
    }
    Ok(())
}

#[test]
fn to_remote_of_ours() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let channel = busy(format, opener)?;
        let commitment = channel.local_commitment()?;
        let swept = channel.claim_to_remote(&commitment, rate(1_000).into())?;
        check_claim(&swept);
        check_rate(&swept, 1_000);
        let theirs = channel.remote_current()?;
        let wrong = channel.claim_to_remote(&theirs, rate(1_000).into());
        assert_eq!(wrong.err(), Some(PeerError::NotTheOwner(Side::Local)));
    }
    Ok(())
}

#[test]
fn a_penalty_for_our_outdated_commitments_only() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let channel = moved_on(format, opener)?;
        let outdated = channel.local_commitment_at(6)?;
        let penalty = channel.claim_penalty(&outdated, rate(1_000).into())?;
        check_claim(&penalty);
        check_rate(&penalty, 1_000);
        assert_eq!(penalty.htlcs.len(), 4);
        assert_eq!(penalty.tx.input.len(), 5);
        let current = channel.local_commitment()?;
        let early = channel.claim_penalty(&current, rate(1_000).into());
        assert_eq!(early.err(), Some(PeerError::NotRevoked(current.number)));
    }
    Ok(())
}

#[test]
fn an_anchor_child_pays_for_both() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let channel = busy(format, opener)?;
        let coins = coins(&channel, 3);
        for commitment in [channel.local_commitment()?, channel.remote_current()?] {
            let child = channel.anchor_child(&commitment, rate(3_000), &coins);
            if format == Format::StaticRemoteKey {
                assert_eq!(child.err(), Some(PeerError::NoSuchOutput));
                continue;
            }
            let child = child?;
            check_claim(&child);
            assert!(child.change.is_some());
            let paid = channel.commitment_fee(&commitment)? + child.fee;
            let weight = commitment.tx.weight() + child.tx.weight();
            let exact = rate(3_000).fee_wu(weight).expect("small");
            // Whole virtual bytes of each.
            assert!(paid >= exact && paid <= exact + Amount::from_sat(48));
            let zero_fee = format == Format::ZeroFee;
            assert_eq!(child.tx.version == Version::non_standard(3), zero_fee);
            assert_eq!(commitment.tx.version == Version::non_standard(3), zero_fee);
        }
    }
    Ok(())
}

#[test]
fn trimmed_main_outputs_cannot_be_claimed() -> Result<(), PeerError> {
    let mut poor = params(Format::Anchors, Side::Local);
    poor.local_balance = poor.capacity;
    let channel: Channel = open(poor)?;
    let (ours, theirs) = (channel.local_commitment()?, channel.remote_current()?);
    assert_eq!(ours.role_index(&OutputRole::ToRemote), None);
    let fee = rate(253).into();
    assert_eq!(channel.claim_to_remote(&ours, fee).err(), Some(PeerError::NoSuchOutput));
    assert_eq!(channel.claim_to_local(&theirs, fee).err(), Some(PeerError::NoSuchOutput));
    assert_eq!(channel.anchor_child(&theirs, rate(253), &[]).err(), Some(PeerError::NoSuchOutput));
    Ok(())
}
