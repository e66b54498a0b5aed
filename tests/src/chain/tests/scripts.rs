//! Scripts: signatures, branches and locks, by policy and by consensus.

use bitcoin::hashes::{Hash, hash160};
use bitcoin::key::TapTweak;
use bitcoin::opcodes::all::*;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Keypair, Message, Secp256k1, SecretKey, ecdsa::Signature};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{ScriptBuf, Sequence, Transaction, TxOut, Witness, absolute::LockTime};

use super::super::EmbeddedChain;
use super::{key, pay, reason, sat};

const VALUE: u64 = 100_000;

/// Signs input 0 of a spend of a P2WSH output.
fn sign(tx: &Transaction, script: &ScriptBuf, secret: &SecretKey) -> Vec<u8> {
    let all = EcdsaSighashType::All;
    let hash = SighashCache::new(tx).p2wsh_signature_hash(0, script, sat(VALUE), all).unwrap();
    let message = Message::from_digest(hash.to_byte_array());
    encode(&Secp256k1::new().sign_ecdsa(&message, secret))
}

fn encode(signature: &Signature) -> Vec<u8> {
    let mut bytes = signature.serialize_der().to_vec();
    bytes.push(EcdsaSighashType::All as u8);
    bytes
}

/// The same signature with the other S.
fn with_high_s(signature: &[u8]) -> Vec<u8> {
    let der = &signature[..signature.len() - 1];
    let mut compact = Signature::from_der(der).unwrap().serialize_compact();
    let s = SecretKey::from_slice(&compact[32..]).unwrap().negate();
    compact[32..].copy_from_slice(&s.secret_bytes());
    encode(&Signature::from_compact(&compact).unwrap())
}

/// A P2WSH output of this script, and a transaction that spends it, without witness.
fn setup(script: &ScriptBuf) -> (EmbeddedChain, Transaction) {
    let mut chain = EmbeddedChain::new();
    let outpoint = chain.fund(script.to_p2wsh(), sat(VALUE)).unwrap();
    (chain, pay(&[(outpoint, VALUE)], 1000))
}

/// The verdict on a spend with these items under the script, or the script's reason.
fn verdict(chain: &EmbeddedChain, tx: &Transaction, script: &ScriptBuf, items: &[&[u8]]) -> String {
    let mut tx = tx.clone();
    tx.input[0].witness = Witness::from_slice(items);
    tx.input[0].witness.push(script);
    let said = match chain.test_accept(&tx) {
        Ok(_) => "accepted".to_owned(),
        Err(reject) => reject.to_string(),
    };
    let inner = said.strip_prefix("mempool-script-verify-flag-failed (");
    inner.and_then(|s| s.strip_suffix(')')).unwrap_or(&said).to_owned()
}

fn check_sig() -> (SecretKey, ScriptBuf) {
    let (secret, public) = key(1);
    (secret, Builder::new().push_key(&public).push_opcode(OP_CHECKSIG).into_script())
}

#[test]
fn signatures_are_strict_and_low() {
    let (secret, script) = check_sig();
    let (chain, tx) = setup(&script);
    let good = sign(&tx, &script, &secret);
    let says = |signature: &[u8]| verdict(&chain, &tx, &script, &[signature]);
    assert_eq!(says(&good), "accepted");
    let high = "Non-canonical signature: S value is unnecessarily high";
    assert_eq!(says(&with_high_s(&good)), high);
    let mut padded = good.clone();
    padded.insert(padded.len() - 1, 0);
    assert_eq!(says(&padded), "Non-canonical DER signature");
    assert_eq!(says(&good[..good.len() - 1]), "Non-canonical DER signature");
    let mut odd_type = good.clone();
    *odd_type.last_mut().unwrap() = 4;
    assert_eq!(says(&odd_type), "Signature hash type missing or not understood");
    let (other, _) = key(2);
    let null_fail = "Signature must be zero for failed CHECK(MULTI)SIG operation";
    assert_eq!(says(&sign(&tx, &script, &other)), null_fail);
    let false_top =
        "Script evaluated without error but finished with a false/empty top stack element";
    assert_eq!(says(&[]), false_top);
}

#[test]
fn a_high_s_is_valid_in_a_block() {
    let (secret, script) = check_sig();
    let (mut chain, mut tx) = setup(&script);
    let high = with_high_s(&sign(&tx, &script, &secret));
    tx.input[0].witness = Witness::from_slice(&[high, script.to_bytes()]);
    assert!(chain.submit(tx.clone()).is_err());
    chain.mine_transactions(&[tx]).unwrap();
}

#[test]
fn segwit_keys_are_compressed() {
    let (secret, mut public) = key(1);
    public.compressed = false;
    let script = Builder::new().push_key(&public).push_opcode(OP_CHECKSIG).into_script();
    let (chain, tx) = setup(&script);
    let said = verdict(&chain, &tx, &script, &[&sign(&tx, &script, &secret)]);
    assert_eq!(said, "Using non-compressed keys in segwit");
    let script = Builder::new().push_slice([5; 33]).push_opcode(OP_CHECKSIG).into_script();
    let (chain, tx) = setup(&script);
    let said = verdict(&chain, &tx, &script, &[&[]]);
    assert_eq!(said, "Public key is neither compressed or uncompressed");
}

/// The shape of BOLT 3's `to_local`.
fn delayed(delay: i64) -> ScriptBuf {
    let ((_, revocation), (_, delayed)) = (key(1), key(2));
    Builder::new()
        .push_opcode(OP_IF)
        .push_key(&revocation)
        .push_opcode(OP_ELSE)
        .push_int(delay)
        .push_opcode(OP_CSV)
        .push_opcode(OP_DROP)
        .push_key(&delayed)
        .push_opcode(OP_ENDIF)
        .push_opcode(OP_CHECKSIG)
        .into_script()
}

#[test]
fn branches_are_chosen_minimally() {
    let script = delayed(144);
    let (chain, tx) = setup(&script);
    let signature = sign(&tx, &script, &key(1).0);
    let says = |choice: &[u8]| verdict(&chain, &tx, &script, &[&signature, choice]);
    assert_eq!(says(&[1]), "accepted");
    for choice in [&[2][..], &[0], &[1, 0], &[0x80]] {
        assert_eq!(says(choice), "OP_IF/NOTIF argument must be minimal");
    }
    let extra = verdict(&chain, &tx, &script, &[&[], &signature, &[1]]);
    assert_eq!(extra, "Stack size must be exactly one after execution");
    let missing = verdict(&chain, &tx, &script, &[]);
    assert_eq!(missing, "Operation not valid with the current stack size");
    let wrong = Builder::new().push_opcode(OP_PUSHNUM_2).into_script();
    assert_eq!(verdict(&chain, &tx, &wrong, &[]), "Witness program hash mismatch");
}

#[test]
fn csv_opens_at_confirmation_plus_delay_minus_one() {
    let script = delayed(10);
    let (mut chain, mut tx) = setup(&script);
    let confirmed = chain.height();
    let mut spend = |chain: &EmbeddedChain, sequence| {
        tx.input[0].sequence = sequence;
        verdict(chain, &tx, &script, &[&sign(&tx, &script, &key(2).0), &[]])
    };
    let unsatisfied = "Locktime requirement not satisfied";
    assert_eq!(spend(&chain, Sequence::MAX), unsatisfied);
    assert_eq!(spend(&chain, Sequence::ENABLE_RBF_NO_LOCKTIME), unsatisfied);
    while chain.height() < confirmed + 9 {
        assert_eq!(spend(&chain, Sequence::from_height(10)), "non-BIP68-final");
        chain.mine_empty(1);
    }
    assert_eq!(spend(&chain, Sequence::from_height(10)), "accepted");
    assert_eq!(spend(&chain, Sequence::from_height(9)), unsatisfied);
    assert_eq!(spend(&chain, Sequence::from_512_second_intervals(10)), unsatisfied);
}

#[test]
fn cltv_opens_when_the_tip_is_as_high() {
    let (secret, public) = key(1);
    let expiry = 150;
    let script = Builder::new()
        .push_int(expiry)
        .push_opcode(OP_CLTV)
        .push_opcode(OP_DROP)
        .push_key(&public)
        .push_opcode(OP_CHECKSIG)
        .into_script();
    let (mut chain, mut tx) = setup(&script);
    let mut spend = |chain: &EmbeddedChain, lock: u32, sequence| {
        tx.lock_time = LockTime::from_consensus(lock);
        tx.input[0].sequence = sequence;
        verdict(chain, &tx, &script, &[&sign(&tx, &script, &secret)])
    };
    let zero = Sequence::ZERO;
    chain.mine_empty(149 - chain.height());
    assert_eq!(spend(&chain, 150, zero), "non-final");
    let unsatisfied = "Locktime requirement not satisfied";
    assert_eq!(spend(&chain, 149, zero), unsatisfied);
    assert_eq!(spend(&chain, 150, Sequence::MAX), unsatisfied);
    assert_eq!(spend(&chain, 500_000_001, zero), unsatisfied);
    chain.mine_empty(1);
    assert_eq!(spend(&chain, 150, zero), "accepted");
}

/// The shape of BOLT 3's HTLC outputs: a key's hash, a size, a hash and two signatures.
#[test]
fn an_htlc_script_runs() {
    let ((local, local_key), (remote, remote_key)) = (key(1), key(2));
    let (_, revocation) = key(3);
    let preimage = [9; 32];
    let script = Builder::new()
        .push_opcode(OP_DUP)
        .push_opcode(OP_HASH160)
        .push_slice(revocation.pubkey_hash().to_byte_array())
        .push_opcode(OP_EQUAL)
        .push_opcode(OP_IF)
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_ELSE)
        .push_key(&remote_key)
        .push_opcode(OP_SWAP)
        .push_opcode(OP_SIZE)
        .push_int(32)
        .push_opcode(OP_EQUAL)
        .push_opcode(OP_NOTIF)
        .push_opcode(OP_DROP)
        .push_int(2)
        .push_opcode(OP_SWAP)
        .push_key(&local_key)
        .push_int(2)
        .push_opcode(OP_CHECKMULTISIG)
        .push_opcode(OP_ELSE)
        .push_opcode(OP_HASH160)
        .push_slice(hash160::Hash::hash(&preimage).to_byte_array())
        .push_opcode(OP_EQUALVERIFY)
        .push_opcode(OP_CHECKSIG)
        .push_opcode(OP_ENDIF)
        .push_opcode(OP_ENDIF)
        .into_script();
    let (chain, tx) = setup(&script);
    let (ours, theirs) = (sign(&tx, &script, &local), sign(&tx, &script, &remote));
    let says = |items: &[&[u8]]| verdict(&chain, &tx, &script, items);
    assert_eq!(says(&[&theirs, &preimage]), "accepted");
    assert_eq!(says(&[&theirs, &[8; 32]]), "Script failed an OP_EQUALVERIFY operation");
    assert_eq!(says(&[&[], &theirs, &ours, &[]]), "accepted");
    let null_fail = "Signature must be zero for failed CHECK(MULTI)SIG operation";
    assert_eq!(says(&[&[], &ours, &theirs, &[]]), null_fail);
    let dummy = "Dummy CHECKMULTISIG argument must be zero";
    assert_eq!(says(&[&[1], &theirs, &ours, &[]]), dummy);
    let high = "Non-canonical signature: S value is unnecessarily high";
    assert_eq!(says(&[&[], &with_high_s(&theirs), &ours, &[]]), high);
    let penalty = sign(&tx, &script, &key(3).0);
    let revocation = revocation.to_bytes();
    assert_eq!(says(&[&penalty, &revocation]), "accepted");
}

#[test]
fn pushes_and_numbers_are_minimal() {
    let script = ScriptBuf::from_bytes(vec![0x01, 0x01]);
    let (chain, tx) = setup(&script);
    assert_eq!(verdict(&chain, &tx, &script, &[]), "Data push larger than necessary");
    let add = Builder::new().push_int(1).push_opcode(OP_ADD).into_script();
    let (chain, tx) = setup(&add);
    assert_eq!(verdict(&chain, &tx, &add, &[&[1]]), "accepted");
    let overflow = "Script number overflowed or is non-minimally encoded";
    assert_eq!(verdict(&chain, &tx, &add, &[&[1, 0]]), overflow);
    assert_eq!(verdict(&chain, &tx, &add, &[&[1; 5]]), overflow);
    let nop = Builder::new().push_opcode(OP_NOP10).push_int(1).into_script();
    let (chain, tx) = setup(&nop);
    assert_eq!(verdict(&chain, &tx, &nop, &[]), "NOPx reserved for soft-fork upgrades");
}

#[test]
fn broken_scripts_have_reasons() {
    let script = |build: fn(Builder) -> Builder| build(Builder::new()).into_script();
    let cases = [
        (script(|b| b.push_opcode(OP_RETURN)), "OP_RETURN was encountered"),
        (script(|b| b.push_opcode(OP_ENDIF)), "Invalid OP_IF construction"),
        (script(|b| b.push_int(1).push_opcode(OP_IF)), "Invalid OP_IF construction"),
        (script(|b| b.push_int(0).push_opcode(OP_VERIFY)), "Script failed an OP_VERIFY operation"),
        (script(|b| b.push_opcode(OP_CAT)), "Attempted to use a disabled opcode"),
        (script(|b| b.push_opcode(OP_RESERVED)), "Opcode missing or not understood"),
        (
            script(|b| b.push_opcode(OP_FROMALTSTACK)),
            "Operation not valid with the current altstack size",
        ),
        (script(|b| b.push_int(-1).push_opcode(OP_CLTV)), "Negative locktime"),
    ];
    for (script, expected) in cases {
        let (chain, tx) = setup(&script);
        assert_eq!(verdict(&chain, &tx, &script, &[]), expected, "{script}");
    }
}

#[test]
fn p2wpkh_needs_the_key_of_its_hash() {
    let (secret, public) = key(1);
    let program = ScriptBuf::new_p2wpkh(&public.wpubkey_hash().unwrap());
    let mut chain = EmbeddedChain::new();
    let outpoint = chain.fund(program.clone(), sat(VALUE)).unwrap();
    let mut tx = pay(&[(outpoint, VALUE)], 1000);
    let all = EcdsaSighashType::All;
    let hash = SighashCache::new(&tx).p2wpkh_signature_hash(0, &program, sat(VALUE), all).unwrap();
    let message = Message::from_digest(hash.to_byte_array());
    let signature = encode(&Secp256k1::new().sign_ecdsa(&message, &secret));
    let mut says = |key: Vec<u8>| {
        tx.input[0].witness = Witness::from_slice(&[signature.clone(), key]);
        reason(chain.submit(tx.clone()))
    };
    let wrong = "mempool-script-verify-flag-failed (Script failed an OP_EQUALVERIFY operation)";
    assert_eq!(says(key(2).1.to_bytes()), wrong);
    assert!(says(public.to_bytes()).starts_with("accepted"));
}

#[test]
fn p2pkh_is_signed_in_its_script_sig() {
    let (secret, public) = key(1);
    let script = ScriptBuf::new_p2pkh(&public.pubkey_hash());
    let mut chain = EmbeddedChain::new();
    let outpoint = chain.fund(script.clone(), sat(VALUE)).unwrap();
    let mut tx = pay(&[(outpoint, VALUE)], 1000);
    tx.input[0].witness.clear();
    let hash = SighashCache::new(&tx).legacy_signature_hash(0, &script, 1).unwrap();
    let message = Message::from_digest(hash.to_byte_array());
    let signature = encode(&Secp256k1::new().sign_ecdsa(&message, &secret));
    let mut says = |signature: Vec<u8>| {
        let signature = bitcoin::script::PushBytesBuf::try_from(signature).unwrap();
        tx.input[0].script_sig =
            Builder::new().push_slice(signature).push_key(&public).into_script();
        reason(chain.submit(tx.clone()))
    };
    assert!(says(with_high_s(&signature)).contains("unnecessarily high"));
    assert!(says(signature).starts_with("accepted"));
}

#[test]
fn taproot_keys_are_judged_by_consensus() {
    let secp = Secp256k1::new();
    let pair = Keypair::from_secret_key(&secp, &key(1).0);
    let script = ScriptBuf::new_p2tr(&secp, pair.x_only_public_key().0, None);
    let mut chain = EmbeddedChain::new();
    let outpoint = chain.fund(script.clone(), sat(VALUE)).unwrap();
    let mut tx = pay(&[(outpoint, VALUE)], 1000);
    let prevout = TxOut { value: sat(VALUE), script_pubkey: script };
    let hash = SighashCache::new(&tx)
        .taproot_key_spend_signature_hash(0, &Prevouts::All(&[prevout]), TapSighashType::Default)
        .unwrap();
    let message = Message::from_digest(hash.to_byte_array());
    let tweaked = pair.tap_tweak(&secp, None).to_keypair();
    let good = secp.sign_schnorr_no_aux_rand(&message, &tweaked).serialize().to_vec();
    let bad = secp.sign_schnorr_no_aux_rand(&message, &pair).serialize().to_vec();
    let mut says = |signature: &[u8]| {
        tx.input[0].witness = Witness::from_slice(&[signature]);
        reason(chain.submit(tx.clone()))
    };
    assert_eq!(says(&bad), "mempool-script-verify-flag-failed (Invalid Schnorr signature)");
    let size = "mempool-script-verify-flag-failed (Invalid Schnorr signature size)";
    assert_eq!(says(&good[1..]), size);
    assert!(says(&good).starts_with("accepted"));
}

#[test]
fn every_input_is_verified() {
    let (secret, script) = check_sig();
    let (mut chain, first) = setup(&script);
    let second = chain.fund(script.to_p2wsh(), sat(VALUE)).unwrap();
    let mut tx = pay(&[(first.input[0].previous_output, VALUE), (second, VALUE)], 1000);
    let signature = sign(&tx, &script, &secret);
    for input in &mut tx.input {
        // The signature of input 0 on both.
        input.witness = Witness::from_slice(&[signature.clone(), script.to_bytes()]);
    }
    let expected = "mempool-script-verify-flag-failed \
                    (Signature must be zero for failed CHECK(MULTI)SIG operation)";
    assert_eq!(reason(chain.submit(tx)), expected);
}
