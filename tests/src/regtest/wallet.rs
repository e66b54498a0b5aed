//! Coins of one key, for funding whatever a test needs.
use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    ecdsa,
};
use std::collections::VecDeque;

/// The wallet's coins are split into this many.
const COINS: u64 = 100;
/// A generous fee for everything but the inputs, and for each input.
const BASE_FEE: Amount = Amount::from_sat(20_000);
const INPUT_FEE: Amount = Amount::from_sat(2_000);
/// Change below this is left to the fee.
const LEAST_CHANGE: Amount = Amount::from_sat(10_000);

/// Coins of one key. Knows nothing of the chain: whether a coin is there, its user finds out.
#[derive(Debug)]
pub(super) struct Wallet {
    secp: Secp256k1<All>,
    key: SecretKey,
    public: CompressedPublicKey,
    script: ScriptBuf,
    coins: VecDeque<(OutPoint, TxOut)>,
}

impl Wallet {
    pub(super) fn new() -> Self {
        let secp = Secp256k1::new();
        let key = SecretKey::from_slice(&[0x42; 32]).expect("a number below the group's order");
        let public = CompressedPublicKey(key.public_key(&secp));
        let script = ScriptBuf::new_p2wpkh(&public.wpubkey_hash());
        Self { secp, key, public, script, coins: VecDeque::new() }
    }

    pub(super) const fn script(&self) -> &ScriptBuf {
        &self.script
    }

    pub(super) fn len(&self) -> usize {
        self.coins.len()
    }

    /// Adds the outputs of `transaction` that are ours.
    pub(super) fn add(&mut self, transaction: &Transaction) {
        let txid = transaction.compute_txid();
        for (vout, output) in (0..).zip(&transaction.output) {
            if output.script_pubkey == self.script {
                self.coins.push_back((OutPoint::new(txid, vout), output.clone()));
            }
        }
    }

    pub(super) fn take(&mut self) -> Option<(OutPoint, TxOut)> {
        self.coins.pop_front()
    }

    pub(super) fn put_back(&mut self, coin: (OutPoint, TxOut)) {
        self.coins.push_back(coin);
    }

    /// Splits the first coin into many, which come first from then on.
    pub(super) fn split(&mut self) -> Option<Transaction> {
        let coin = self.take()?;
        let value = coin.1.value.checked_sub(BASE_FEE * 10)? / COINS;
        let output = TxOut { value, script_pubkey: self.script.clone() };
        let outputs = std::iter::repeat_n(output, usize::try_from(COINS).ok()?).collect();
        let rest = std::mem::take(&mut self.coins);
        let split = self.pay(&[coin], outputs);
        self.coins.extend(rest);
        Some(split)
    }

    /// A signed transaction from `coins` to `outputs` and to a change output, which is a coin.
    pub(super) fn pay(
        &mut self,
        coins: &[(OutPoint, TxOut)],
        mut outputs: Vec<TxOut>,
    ) -> Transaction {
        let value: Amount = coins.iter().map(|(_, coin)| coin.value).sum();
        let change = value.checked_sub(cost(&outputs) + input_cost(coins.len()));
        if let Some(value) = change.filter(|change| *change >= LEAST_CHANGE) {
            outputs.push(TxOut { value, script_pubkey: self.script.clone() });
        }
        let input = |(outpoint, _): &(OutPoint, TxOut)| TxIn {
            previous_output: *outpoint,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            ..TxIn::default()
        };
        let mut transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: coins.iter().map(input).collect(),
            output: outputs,
        };
        self.sign(&mut transaction, coins);
        self.add(&transaction);
        transaction
    }

    fn sign(&self, transaction: &mut Transaction, coins: &[(OutPoint, TxOut)]) {
        let mut cache = SighashCache::new(&mut *transaction);
        for (index, (_, coin)) in coins.iter().enumerate() {
            let hash = cache
                .p2wpkh_signature_hash(index, &self.script, coin.value, EcdsaSighashType::All)
                .expect("every coin has an input, and the script is P2WPKH");
            let signature = self.secp.sign_ecdsa(&Message::from(hash), &self.key);
            let signature = ecdsa::Signature::sighash_all(signature);
            if let Some(witness) = cache.witness_mut(index) {
                *witness = Witness::p2wpkh(&signature, &self.public.0);
            }
        }
    }
}

/// Value that coins must bring for these outputs, beyond [`input_cost`].
pub(super) fn cost(outputs: &[TxOut]) -> Amount {
    outputs.iter().map(|output| output.value).sum::<Amount>() + BASE_FEE
}

/// The fee for this many inputs.
pub(super) fn input_cost(inputs: usize) -> Amount {
    INPUT_FEE * u64::try_from(inputs).unwrap_or(u64::MAX)
}
