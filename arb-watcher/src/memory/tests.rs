//! The wallet never offers a coin twice; both ports sign what consensus accepts.
use super::*;
use arb_core::claim::SigningKey;
use arb_core::format::ChannelSecrets;
use arb_core::ids::ChannelId;
use arb_core::ports::{CoinRequest, CoinSource, SignRequest, Signer};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::transaction::Version;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_slice(&[seed; 32]).expect("a key")
}

fn outpoint(seed: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([seed; 32]), vout: 0 }
}

async fn wallet(values: &[u64]) -> MemoryCoins {
    let coins = MemoryCoins::new(key(1), &[]);
    let script_pubkey = coins.change_script().await.expect("a script");
    for (at, value) in (100u8..).zip(values) {
        let value = Amount::from_sat(*value);
        coins.add(outpoint(at), TxOut { value, script_pubkey: script_pubkey.clone() });
    }
    coins
}

fn wants(claim: u8, sat: u64) -> CoinRequest {
    CoinRequest {
        claim: outpoint(claim),
        amount: Amount::from_sat(sat),
        feerate: FeeRate::from_sat_per_vb_u32(1),
        worth: FeeRate::from_sat_per_vb_u32(1),
        channel: ChannelId([0; 32]),
        deadline: None,
        most: usize::MAX,
    }
}

#[tokio::test]
async fn coins_are_few_and_belong_to_one_claim() {
    let coins = wallet(&[1_000, 50_000, 5_000]).await;
    let first = coins.select(wants(1, 4_000)).await.expect("coins");
    assert_eq!(first.iter().map(|c| c.output.value.to_sat()).collect::<Vec<_>>(), [5_000]);
    let second = coins.select(wants(2, 4_000)).await.expect("coins");
    assert_eq!(second.iter().map(|c| c.output.value.to_sat()).collect::<Vec<_>>(), [50_000]);
    assert_eq!(coins.select(wants(1, 4_000)).await.expect("coins"), first);
    let third = coins.select(wants(3, 40_000)).await.expect("coins");
    assert_eq!(third.len(), 1, "what is left, although it is not enough");
    assert!(coins.select(wants(4, 1)).await.expect("coins").is_empty());
    coins.release(outpoint(1)).await.expect("released");
    assert_eq!(coins.select(wants(4, 1)).await.expect("coins"), first);
}

#[tokio::test]
async fn a_reservation_moves_to_the_claim_that_asks_last() {
    let coins = wallet(&[50_000]).await;
    coins.reserve(outpoint(1), vec![outpoint(100)]).await.expect("reserved");
    coins.reserve(outpoint(2), vec![outpoint(100)]).await.expect("reserved");
    assert!(coins.select(wants(1, 1)).await.expect("coins").is_empty());
    assert_eq!(coins.select(wants(2, 1)).await.expect("coins").len(), 1);
}

#[tokio::test]
async fn a_coin_that_costs_more_than_it_brings_is_not_offered() {
    let coins = wallet(&[60]).await;
    assert!(coins.select(wants(1, 1)).await.expect("coins").is_empty());
    assert!(coins.reservations().is_empty());
}

fn spend(of: OutPoint) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output: of, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(900), script_pubkey: ScriptBuf::new() }],
    }
}

#[tokio::test]
async fn a_signed_coin_weighs_no_more_than_was_said() {
    let coins = wallet(&[50_000]).await;
    let selected = coins.select(wants(1, 1)).await.expect("coins").remove(0);
    let bare = spend(selected.outpoint);
    let prevouts = vec![selected.output.clone()];
    let signed = coins.sign(bare.clone(), prevouts).await.expect("signed");
    let witness = signed.input[0].witness.size() as u64;
    assert!((1..=selected.satisfaction_weight.to_wu()).contains(&witness));
    let wrong = coins.sign(bare, Vec::new()).await;
    assert_eq!(wrong, Err(CoinError::Prevouts { inputs: 1, prevouts: 0 }));
}

#[tokio::test]
async fn the_signer_signs_with_the_key_that_is_asked_for_and_can_be_switched_off() {
    let (signer, channel) = (MemorySigner::new(), ChannelId([7; 32]));
    let [funding, revocation, payment, delayed_payment, htlc] = [1, 2, 3, 4, 5].map(key);
    signer.insert(channel, ChannelSecrets { funding, revocation, payment, delayed_payment, htlc });
    let script = ScriptBuf::from_bytes(vec![0x51]);
    let prevout = TxOut { value: Amount::from_sat(1_000), script_pubkey: script.to_p2wsh() };
    let request = SignRequest {
        channel,
        key: SigningKey::Payment,
        transaction: spend(outpoint(1)),
        input: 0,
        prevouts: vec![prevout.clone()],
        script: Some(script.clone()),
        sighash: EcdsaSighashType::All,
    };
    let signature = signer.sign(request.clone()).await.expect("a signature");
    let secp = Secp256k1::new();
    let message = arb_core::format::sighash(
        &request.transaction,
        0,
        &prevout,
        Some(&script),
        EcdsaSighashType::All,
    );
    let message = message.expect("a sighash");
    assert!(secp.verify_ecdsa(&message, &signature, &payment.public_key(&secp)).is_ok());
    let foreign = SignRequest { channel: ChannelId([8; 32]), ..request.clone() };
    let unknown = SignError::UnknownChannel(ChannelId([8; 32]));
    assert_eq!(signer.sign(foreign).await, Err(unknown));
    signer.switch_off();
    assert_eq!(signer.sign(request.clone()).await, Err(SignError::Off));
    signer.switch_on();
    assert_eq!(signer.sign(request).await, Ok(signature));
}
