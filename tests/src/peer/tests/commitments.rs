//! Commitments of both sides and the signatures that the node is given for its own.

use std::collections::BTreeSet;

use bitcoin::absolute::LockTime;
use bitcoin::blockdata::opcodes::all as op;
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use lightning::ln::chan_utils::derive_private_key;

use super::{SIDES, busy, check_commitment, htlc, kinds, moved_on, open, params, scripts_pass};
use crate::peer::sign::Plan;
use crate::peer::{Format, OutputRole, PeerError, Side, Staged};

#[test]
fn every_commitment_passes() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let mut channel = moved_on(format, opener)?;
        if format != Format::ZeroFee {
            channel.update_fee(2_000)?;
        }
        channel.stage(vec![
            Staged::Offer(htlc("o3", 5_000, 530)),
            Staged::Receive(htlc("r3", 6_000, 540)),
        ])?;
        let next = channel.remote_next()?;
        assert_eq!(next.number, channel.remote_number() + 1);
        let mut seen = BTreeSet::new();
        for number in 0..=next.number {
            for side in SIDES {
                let commitment = channel.commitment(side, number)?;
                check_commitment(&channel, &commitment);
                assert!(seen.insert(commitment.txid()));
            }
        }
        assert!(next.htlc_index("o3").is_some() && next.htlc_index("r3").is_some());
        let ours = channel.local_commitment()?;
        assert!(ours.htlc_index("o3").is_none() && ours.htlc_index("r3").is_some());
        let theirs = channel.remote_current()?;
        assert!(theirs.htlc_index("o3").is_none() && theirs.htlc_index("r3").is_none());
    }
    Ok(())
}

#[test]
fn every_output_has_its_meaning() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let channel = busy(format, opener)?;
        for commitment in [channel.local_commitment()?, channel.remote_current()?] {
            let roles: BTreeSet<_> = commitment.outputs.values().cloned().collect();
            assert_eq!(roles.len(), commitment.tx.output.len());
            let mut expected: BTreeSet<_> = ["o1", "o2", "r1", "r2"]
                .into_iter()
                .map(|name| {
                    let htlc = channel.htlc(name)?;
                    Ok(OutputRole::Htlc { name: name.to_owned(), htlc: htlc.htlc })
                })
                .collect::<Result<_, PeerError>>()?;
            expected.extend([OutputRole::ToLocal, OutputRole::ToRemote]);
            match format {
                Format::StaticRemoteKey => {}
                Format::Anchors => expected.extend(SIDES.map(OutputRole::Anchor)),
                Format::ZeroFee => expected.extend([OutputRole::SharedAnchor]),
            }
            assert_eq!(roles, expected);
            assert_eq!(commitment.trimmed, ["o-dust", "r-dust"]);
            for name in ["o1", "r1"] {
                let index = commitment.htlc_index(name).expect("it has an output");
                let value = commitment.tx.output[index as usize].value.to_sat();
                assert_eq!(value, if name == "o1" { 50_000 } else { 40_000 });
            }
        }
    }
    Ok(())
}

/// `to_local` is spelt out here: the owner's delay, not the other's.
#[test]
fn each_side_waits_its_own_delay() -> Result<(), PeerError> {
    let secp = Secp256k1::new();
    let channel = open(params(Format::Anchors, Side::Local))?;
    for (owner, delay) in [(Side::Local, 100), (Side::Remote, 200)] {
        let commitment = channel.commitment(owner, 0)?;
        let point = channel.commitment_point(owner, 0)?;
        let base = channel.secrets(owner).delayed_payment_base;
        let delayed = derive_private_key(&secp, &point, &base).public_key(&secp);
        let secret = channel.secrets(owner).commitment_secret(0)?;
        let revocation = lightning::ln::chan_utils::derive_private_revocation_key(
            &secp,
            &secret,
            &channel.secrets(owner.other()).revocation_base,
        );
        let script = Builder::new()
            .push_opcode(op::OP_IF)
            .push_slice(revocation.public_key(&secp).serialize())
            .push_opcode(op::OP_ELSE)
            .push_int(delay)
            .push_opcode(op::OP_CSV)
            .push_opcode(op::OP_DROP)
            .push_slice(delayed.serialize())
            .push_opcode(op::OP_ENDIF)
            .push_opcode(op::OP_CHECKSIG)
            .into_script();
        let (_, output) = commitment.output(&OutputRole::ToLocal).expect("has a to_local");
        assert_eq!(output.script_pubkey, script.to_p2wsh());
    }
    Ok(())
}

#[test]
fn the_peers_signatures_are_for_our_commitment() -> Result<(), PeerError> {
    let secp = Secp256k1::new();
    for (format, opener) in kinds() {
        let channel = busy(format, opener)?;
        let facts = channel.local_facts(channel.local_number())?;
        let commitment = channel.local_commitment()?;
        let hash = SighashCache::new(&commitment.tx)
            .p2wsh_signature_hash(
                0,
                &channel.funding_redeem_script(),
                channel.params().capacity,
                EcdsaSighashType::All,
            )
            .expect("one input");
        let message = Message::from_digest(hash.to_byte_array());
        let key = channel.keys(Side::Remote).funding;
        assert!(secp.verify_ecdsa(&message, &facts.signature, &key).is_ok());
        assert_eq!(facts.htlc_signatures.len(), 4);
        assert_eq!(facts.htlcs.len(), 6);
    }
    Ok(())
}

/// Our HTLC transactions, completed with the signatures that the peer gave, are valid; they are
/// in output order.
#[test]
fn the_peers_htlc_signatures_complete_our_htlc_transactions() -> Result<(), PeerError> {
    let secp = Secp256k1::new();
    for (format, opener) in kinds() {
        let channel = busy(format, opener)?;
        let commitment = channel.local_commitment()?;
        let facts = channel.local_facts(commitment.number)?;
        let mut signatures = facts.htlc_signatures.iter();
        for role in commitment.outputs.values() {
            let OutputRole::Htlc { name, .. } = role else { continue };
            let (input, output, lock_time) = channel.second_stage(&commitment, name)?;
            let expiry = if name.starts_with('o') { channel.htlc(name)?.cltv_expiry } else { 0 };
            assert_eq!(lock_time, LockTime::from_consensus(expiry));
            let crate::peer::sign::Unlock::SecondStage { counter_signature, .. } = &input.unlock
            else {
                panic!("not a second-stage input");
            };
            assert_eq!(signatures.next(), Some(counter_signature));
            let prevouts = [input.prevout.clone()];
            let version = channel.htlc_transaction_version();
            let plan = Plan { version, lock_time, inputs: vec![input], outputs: vec![output] };
            assert!(scripts_pass(&plan.sign(&secp)?, &prevouts));
        }
        assert_eq!(signatures.next(), None);
    }
    Ok(())
}

#[test]
fn nothing_is_built_without_a_funding_output() -> Result<(), PeerError> {
    let mut channel = crate::peer::Channel::new(params(Format::Anchors, Side::Local))?;
    channel.offer(htlc("h", 5_000, 500))?;
    assert_eq!(channel.local_commitment().err(), Some(PeerError::NoFunding));
    assert_eq!(channel.take_facts(crate::peer::Keep::Every).err(), Some(PeerError::NoFunding));
    channel.set_funding(super::outpoint(1))?;
    // What could not be told was not lost.
    assert_eq!(channel.take_facts(crate::peer::Keep::Every)?.len(), 2 + 4);
    Ok(())
}
