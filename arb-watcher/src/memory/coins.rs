//! A wallet of P2WPKH coins in memory: what it selects, reserves and signs.
use super::lock;
use arb_core::claim::coins::fewest;
use arb_core::format::sighash;
use arb_core::ports::{Coin, CoinRequest, CoinSource};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{
    Amount, CompressedPublicKey, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Weight, Witness,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Item count, a signature of at most 72 bytes and a key, each with its length; no script
/// signature.
const SATISFACTION_WEIGHT: Weight = Weight::from_wu(1 + 1 + 72 + 1 + 33);

/// Why the wallet did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoinError {
    /// There is not one spent output for every input.
    #[error("{prevouts} spent outputs for {inputs} inputs")]
    Prevouts {
        /// Inputs of the transaction.
        inputs: usize,
        /// Spent outputs given.
        prevouts: usize,
    },
    /// An input cannot be signed.
    #[error("input {0} cannot be signed")]
    Input(usize),
}

/// A wallet of P2WPKH coins in memory. Its owner says which coins are confirmed and unspent;
/// a coin that is reserved for one claim is offered to no other.
#[derive(Clone)]
pub struct MemoryCoins {
    inner: Arc<Inner>,
}

struct Inner {
    secp: Secp256k1<All>,
    change: ScriptBuf,
    keys: BTreeMap<ScriptBuf, SecretKey>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    coins: BTreeMap<OutPoint, TxOut>,
    reserved: BTreeMap<OutPoint, BTreeSet<OutPoint>>,
}

impl std::fmt::Debug for MemoryCoins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryCoins").field("change", &self.inner.change).finish_non_exhaustive()
    }
}

impl MemoryCoins {
    /// An empty wallet of these keys; change goes to the first.
    #[must_use]
    pub fn new(first: SecretKey, others: &[SecretKey]) -> Self {
        let secp = Secp256k1::new();
        let change = script_of(&secp, &first);
        let all = std::iter::once(&first).chain(others);
        let keys = all.map(|key| (script_of(&secp, key), *key)).collect();
        Self { inner: Arc::new(Inner { secp, change, keys, state: Mutex::default() }) }
    }

    /// Whether a script is the wallet's.
    #[must_use]
    pub fn owns(&self, script: &ScriptBuf) -> bool {
        self.inner.keys.contains_key(script)
    }

    /// Adds a confirmed coin. One that pays another's script is ignored.
    pub fn add(&self, outpoint: OutPoint, output: TxOut) {
        if self.owns(&output.script_pubkey) {
            lock(&self.inner.state).coins.insert(outpoint, output);
        }
    }

    /// Takes a coin away: a block spends it, or its block is gone.
    pub fn remove(&self, outpoint: &OutPoint) {
        lock(&self.inner.state).coins.remove(outpoint);
    }

    /// The confirmed coins, reserved ones included.
    #[must_use]
    pub fn coins(&self) -> Vec<(OutPoint, TxOut)> {
        let state = lock(&self.inner.state);
        state.coins.iter().map(|(outpoint, output)| (*outpoint, output.clone())).collect()
    }

    /// Claims that have reserved coins.
    #[must_use]
    pub fn reservations(&self) -> BTreeMap<OutPoint, Vec<OutPoint>> {
        let state = lock(&self.inner.state);
        let copy = |(claim, coins): (&OutPoint, &BTreeSet<OutPoint>)| {
            (*claim, coins.iter().copied().collect())
        };
        state.reserved.iter().map(copy).collect()
    }

    /// Forgets every reservation, as a wallet does that is started anew.
    pub fn forget_reservations(&self) {
        lock(&self.inner.state).reserved.clear();
    }

    fn select_now(&self, request: &CoinRequest) -> Vec<Coin> {
        let mut state = lock(&self.inner.state);
        let own = state.reserved.get(&request.claim).cloned().unwrap_or_default();
        let taken: BTreeSet<OutPoint> = (state.reserved.iter())
            .filter(|(claim, _)| **claim != request.claim)
            .flat_map(|(_, coins)| coins.iter().copied())
            .collect();
        let mut offered: Vec<((OutPoint, TxOut), Amount)> = Vec::new();
        for (outpoint, output) in &state.coins {
            let brings = output.value.checked_sub(input_fee(request.feerate)).unwrap_or_default();
            if !taken.contains(outpoint) && output.value > input_fee(request.worth) {
                offered.push(((*outpoint, output.clone()), brings));
            }
        }
        let is_own = |(outpoint, _): &(OutPoint, TxOut)| own.contains(outpoint);
        let chosen = fewest(offered, request.amount, request.most, is_own);
        let coin = |(outpoint, output)| Coin {
            outpoint,
            output,
            satisfaction_weight: SATISFACTION_WEIGHT,
        };
        let chosen: Vec<Coin> = chosen.into_iter().map(coin).collect();
        let reserved = state.reserved.entry(request.claim).or_default();
        reserved.extend(chosen.iter().map(|coin| coin.outpoint));
        if reserved.is_empty() {
            state.reserved.remove(&request.claim);
        }
        chosen
    }

    fn witness(
        &self,
        transaction: &Transaction,
        input: usize,
        spent: &TxOut,
        key: &SecretKey,
    ) -> Result<Witness, CoinError> {
        let kind = EcdsaSighashType::All;
        let message =
            sighash(transaction, input, spent, None, kind).map_err(|_| CoinError::Input(input))?;
        let signature = self.inner.secp.sign_ecdsa(&message, key);
        let signature = bitcoin::ecdsa::Signature { signature, sighash_type: kind };
        Ok(Witness::p2wpkh(&signature, &PublicKey::from_secret_key(&self.inner.secp, key)))
    }

    fn sign_now(
        &self,
        mut transaction: Transaction,
        prevouts: &[TxOut],
    ) -> Result<Transaction, CoinError> {
        if prevouts.len() != transaction.input.len() {
            let (inputs, prevouts) = (transaction.input.len(), prevouts.len());
            return Err(CoinError::Prevouts { inputs, prevouts });
        }
        for (at, spent) in prevouts.iter().enumerate() {
            let Some(key) = self.inner.keys.get(&spent.script_pubkey) else { continue };
            let witness = self.witness(&transaction, at, spent, key)?;
            if let Some(input) = transaction.input.get_mut(at) {
                input.witness = witness;
            }
        }
        Ok(transaction)
    }
}

/// What a P2WPKH input costs at the feerate that was asked for.
fn input_fee(feerate: FeeRate) -> Amount {
    let base = bitcoin::TxIn::default().base_size() as u64 * 4;
    let weight = Weight::from_wu(base) + SATISFACTION_WEIGHT;
    feerate.fee_wu(weight).unwrap_or(Amount::MAX_MONEY)
}

fn script_of(secp: &Secp256k1<All>, key: &SecretKey) -> ScriptBuf {
    let key = CompressedPublicKey(PublicKey::from_secret_key(secp, key));
    ScriptBuf::new_p2wpkh(&key.wpubkey_hash())
}

impl CoinSource for MemoryCoins {
    type Error = CoinError;

    async fn select(&self, request: CoinRequest) -> Result<Vec<Coin>, CoinError> {
        Ok(self.select_now(&request))
    }

    async fn change_script(&self) -> Result<ScriptBuf, CoinError> {
        Ok(self.inner.change.clone())
    }

    async fn sign(
        &self,
        transaction: Transaction,
        prevouts: Vec<TxOut>,
    ) -> Result<Transaction, CoinError> {
        self.sign_now(transaction, &prevouts)
    }

    async fn release(&self, claim: OutPoint) -> Result<(), CoinError> {
        lock(&self.inner.state).reserved.remove(&claim);
        Ok(())
    }

    async fn reserve(&self, claim: OutPoint, coins: Vec<OutPoint>) -> Result<(), CoinError> {
        let mut state = lock(&self.inner.state);
        let coins: BTreeSet<OutPoint> = coins.into_iter().collect();
        // A coin belongs to the claim that asked last, never to two.
        for (_, others) in state.reserved.iter_mut().filter(|(other, _)| **other != claim) {
            others.retain(|coin| !coins.contains(coin));
        }
        state.reserved.retain(|_, coins| !coins.is_empty());
        state.reserved.entry(claim).or_default().extend(coins);
        Ok(())
    }
}
