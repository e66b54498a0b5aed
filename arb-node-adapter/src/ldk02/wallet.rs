//! Wallets both ways: LDK's wallet source as our coin port, our coin port behind LDK's coin
//! selection, with reservations on either side.
use super::{Egress, lock};
use arb_core::claim::coins::fewest;
use arb_core::ids::ChannelId;
use arb_core::ports::{Coin, CoinRequest, CoinSource};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, FeeRate, OutPoint, Psbt, ScriptBuf, Transaction, TxIn, TxOut, Txid, Weight};
use core::fmt;
use core::ops::Deref;
use lightning::chain::ClaimId;
use lightning::events::bump_transaction::sync::WalletSourceSync;
use lightning::events::bump_transaction::{
    CoinSelection, CoinSelectionSource, Input, Utxo, WalletSource,
};
use lightning::util::async_poll::AsyncResult;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Outpoint and sequence of an input; LDK counts the script's length with the witness.
const BASE_INPUT: u64 = 40 * 4;
/// The length of an empty script: part of an input for us, of its satisfaction for LDK.
const SCRIPT_LENGTH: u64 = 4;
/// Version, lock time, counts of up to 252, marker and flag.
const BASE: u64 = 10 * 4 + 2;
/// Least value of a change output: what every relay takes, whatever its script.
const LEAST_CHANGE: Amount = Amount::from_sat(546);

/// LDK's wallet did not do what it was asked for, and says no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalletError;

impl fmt::Display for WalletError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LDK's wallet does not do it now")
    }
}

impl core::error::Error for WalletError {}

/// LDK's [`WalletSource`] as our [`CoinSource`]. Coins that are reserved for one claim are offered to
/// no other; reservations are in memory, as the arbiter states them again after a restart. Clones share them.
#[derive(Clone, Debug)]
pub struct FromLdkWallet<W> {
    wallet: W,
    reserved: Arc<Mutex<BTreeMap<OutPoint, BTreeSet<OutPoint>>>>,
}

impl<W> FromLdkWallet<W> {
    /// The coins of `wallet`.
    pub fn new(wallet: W) -> Self {
        Self { wallet, reserved: Arc::default() }
    }

    /// Reserves the fewest coins that are enough, those first that the claim has already.
    fn choose(&self, request: &CoinRequest, utxos: Vec<Utxo>) -> Vec<Coin> {
        let mut reserved = lock(&self.reserved);
        let own = reserved.get(&request.claim).cloned().unwrap_or_default();
        let others = reserved.iter().filter(|(claim, _)| **claim != request.claim);
        let taken: BTreeSet<OutPoint> = others.flat_map(|(_, coins)| coins).copied().collect();
        let worth = |utxo: Utxo| {
            let weight = BASE_INPUT.checked_add(utxo.satisfaction_weight)?;
            let fee = |rate: FeeRate| rate.fee_wu(Weight::from_wu(weight));
            let brings = utxo.output.value.checked_sub(fee(request.feerate)?)?;
            let is_worth_it = utxo.output.value > fee(request.worth)?;
            (is_worth_it && !taken.contains(&utxo.outpoint)).then_some((utxo, brings))
        };
        let mut offered: Vec<(Utxo, Amount)> = utxos.into_iter().filter_map(worth).collect();
        offered.sort_by_key(|(utxo, _)| utxo.outpoint);
        let is_own = |utxo: &Utxo| own.contains(&utxo.outpoint);
        let chosen = fewest(offered, request.amount, request.most, is_own);
        let coin = |utxo: Utxo| {
            let satisfaction = utxo.satisfaction_weight.saturating_sub(SCRIPT_LENGTH);
            Coin {
                outpoint: utxo.outpoint,
                output: utxo.output,
                satisfaction_weight: Weight::from_wu(satisfaction),
            }
        };
        let chosen: Vec<Coin> = chosen.into_iter().map(coin).collect();
        // What it had stays with it: an older transaction of the claim may still confirm.
        let all = reserved.entry(request.claim).or_default();
        all.extend(chosen.iter().map(|coin| coin.outpoint));
        chosen
    }
}

impl<W> CoinSource for FromLdkWallet<W>
where
    W: Deref<Target: WalletSource + Send + Sync> + Send + Sync + 'static,
{
    type Error = WalletError;

    async fn select(&self, request: CoinRequest) -> Result<Vec<Coin>, WalletError> {
        let utxos = self.wallet.list_confirmed_utxos().await.map_err(|()| WalletError)?;
        Ok(self.choose(&request, utxos))
    }

    async fn change_script(&self) -> Result<ScriptBuf, WalletError> {
        self.wallet.get_change_script().await.map_err(|()| WalletError)
    }

    async fn sign(
        &self,
        mut transaction: Transaction,
        prevouts: Vec<TxOut>,
    ) -> Result<Transaction, WalletError> {
        let bare = |input: &TxIn| TxIn {
            previous_output: input.previous_output,
            sequence: input.sequence,
            ..TxIn::default()
        };
        let input = transaction.input.iter().map(bare).collect();
        let unsigned = Transaction { input, ..transaction.clone() };
        let mut psbt = Psbt::from_unsigned_tx(unsigned).map_err(|_| WalletError)?;
        if psbt.inputs.len() != prevouts.len() {
            return Err(WalletError);
        }
        for (input, spent) in psbt.inputs.iter_mut().zip(prevouts) {
            input.witness_utxo = Some(spent);
        }
        let signed = self.wallet.sign_psbt(psbt).await.map_err(|()| WalletError)?;
        if signed.compute_ntxid() != transaction.compute_ntxid() {
            return Err(WalletError);
        }
        // The channel's own inputs are signed already.
        for (input, signed) in transaction.input.iter_mut().zip(signed.input) {
            if input.witness.is_empty() && input.script_sig.is_empty() {
                (input.witness, input.script_sig) = (signed.witness, signed.script_sig);
            }
        }
        Ok(transaction)
    }

    async fn release(&self, claim: OutPoint) -> Result<(), WalletError> {
        lock(&self.reserved).remove(&claim);
        Ok(())
    }

    async fn reserve(&self, claim: OutPoint, coins: Vec<OutPoint>) -> Result<(), WalletError> {
        let mut reserved = lock(&self.reserved);
        for (_, others) in reserved.iter_mut().filter(|(other, _)| **other != claim) {
            others.retain(|coin| !coins.contains(coin));
        }
        reserved.retain(|_, coins| !coins.is_empty());
        reserved.entry(claim).or_default().extend(coins);
        Ok(())
    }
}

/// LDK's synchronous wallet source as its asynchronous one.
#[derive(Clone, Debug)]
pub struct SyncWallet<W>(pub W);

impl<W> WalletSource for SyncWallet<W>
where
    W: Deref<Target: WalletSourceSync>,
{
    fn list_confirmed_utxos<'a>(&'a self) -> AsyncResult<'a, Vec<Utxo>, ()> {
        let found = self.0.list_confirmed_utxos();
        Box::pin(async move { found })
    }

    fn get_change_script<'a>(&'a self) -> AsyncResult<'a, ScriptBuf, ()> {
        let script = self.0.get_change_script();
        Box::pin(async move { script })
    }

    fn sign_psbt<'a>(&'a self, psbt: Psbt) -> AsyncResult<'a, Transaction, ()> {
        let signed = self.0.sign_psbt(psbt);
        Box::pin(async move { signed })
    }
}

/// Our [`CoinSource`] behind LDK's [`CoinSelectionSource`], for LDK's handler of `BumpTransaction`
/// events: its claims and the arbiter's never spend the same coin.
#[derive(Debug)]
pub struct LdkCoins<C> {
    coins: C,
    /// LDK's claims that have coins, and the height at which LDK asked for them last.
    asked: Mutex<BTreeMap<OutPoint, u32>>,
    height: Mutex<u32>,
    egress: Option<Arc<Egress>>,
}

/// Blocks after which a claim of LDK's that was not asked for again has no coins reserved any more.
/// LDK asks again every 15 blocks at the latest, and after a confirmation for 6 more in vain.
pub const LDK_CLAIM_IDLE: u32 = 36;

impl<C: CoinSource> LdkCoins<C> {
    /// The coins of `coins`, which the arbiter's port may be as well.
    pub const fn new(coins: C) -> Self {
        Self { coins, asked: Mutex::new(BTreeMap::new()), height: Mutex::new(0), egress: None }
    }

    /// The same, where [`ArbiterCoins`](super::ArbiterCoins) has these coins too: whoever may claim an output has
    /// what the other had reserved for it. Only one of the two claims can confirm; but after a change of the mode, or
    /// once a channel is handed back, one that is never to be would keep the wallet's coins from the other.
    pub fn beside(coins: C, egress: Arc<Egress>) -> Self {
        Self { egress: Some(egress), ..Self::new(coins) }
    }

    /// The chain has this height: coins of claims that LDK asks for no more are released. LDK does
    /// not say when a claim is made.
    ///
    /// # Errors
    /// The wallet did not release them: call again.
    pub async fn best_height(&self, height: u32) -> Result<(), C::Error> {
        *lock(&self.height) = height;
        let idle = |(_, last): &(&OutPoint, &u32)| height.saturating_sub(**last) >= LDK_CLAIM_IDLE;
        let old: Vec<OutPoint> = lock(&self.asked).iter().filter(idle).map(|(c, _)| *c).collect();
        for claim in old {
            self.coins.release(claim).await?;
            lock(&self.asked).remove(&claim);
            self.egress.iter().for_each(|egress| egress.has_no_coins(claim));
        }
        Ok(())
    }

    async fn selection(
        &self,
        claim: ClaimId,
        spent: Vec<Input>,
        paid: &[TxOut],
        feerate: FeeRate,
        most: u64,
    ) -> Option<CoinSelection> {
        // No output has the id of a claim: a claim of LDK's is told from ours.
        let claim = OutPoint { txid: Txid::from_byte_array(claim.0), vout: u32::MAX };
        let height = *lock(&self.height);
        lock(&self.asked).insert(claim, height);
        if let Some(egress) = &self.egress {
            let spent = spent.iter().map(|input| input.outpoint);
            egress.asks_for_coins(claim, spent.clone());
            for of_arbiter in spent.filter(|outpoint| !egress.is_in_use(outpoint)) {
                self.coins.release(of_arbiter).await.ok()?;
            }
        }
        let change = self.coins.change_script().await.ok()?;
        let change = TxOut { value: Amount::ZERO, script_pubkey: change };
        let inputs = spent.iter().map(|input| BASE_INPUT.checked_add(input.satisfaction_weight));
        let outputs = paid.iter().map(|output| Some(output.weight().to_wu()));
        let sum = |sum: Option<u64>, one: Option<u64>| sum?.checked_add(one?);
        let own = inputs.chain(outputs).fold(Some(BASE), sum)?;
        let with_change = own.checked_add(change.weight().to_wu())?;
        let all = |sum: Option<Amount>, one: Amount| sum?.checked_add(one);
        let brought = spent.iter().map(|i| i.previous_utxo.value).fold(Some(Amount::ZERO), all)?;
        let goes = paid.iter().map(|output| output.value).fold(Some(Amount::ZERO), all)?;
        let fee = |weight: u64| feerate.fee_wu(Weight::from_wu(weight));
        let needed = goes.checked_add(fee(with_change)?)?.checked_sub(brought);
        let amount = needed.unwrap_or(Amount::ZERO);
        // The channel is not known here, nor a deadline: LDK says neither.
        let channel = ChannelId([0; 32]);
        let request = CoinRequest {
            claim,
            amount,
            feerate,
            worth: feerate,
            channel,
            deadline: None,
            most: usize::MAX,
        };
        let coins = self.coins.select(request).await.ok()?;
        let utxo = |coin: Coin| Utxo {
            outpoint: coin.outpoint,
            output: coin.output,
            satisfaction_weight: coin.satisfaction_weight.to_wu().saturating_add(SCRIPT_LENGTH),
        };
        let utxos: Vec<Utxo> = coins.into_iter().map(utxo).collect();
        let added = utxos.iter().map(|u| BASE_INPUT.checked_add(u.satisfaction_weight));
        let added = added.fold(Some(0), sum)?;
        let total = utxos.iter().map(|u| u.output.value).fold(Some(brought), all)?;
        let rest = total.checked_sub(goes)?;
        let bare = own.checked_add(added)?;
        let change_output = rest
            .checked_sub(fee(with_change.checked_add(added)?)?)
            .filter(|value| *value >= LEAST_CHANGE)
            .map(|value| TxOut { value, ..change });
        let weight = if change_output.is_some() { with_change.checked_add(added)? } else { bare };
        let enough = rest >= fee(bare)? && weight < most;
        enough.then_some(CoinSelection { confirmed_utxos: utxos, change_output })
    }
}

impl<C: CoinSource> CoinSelectionSource for LdkCoins<C> {
    fn select_confirmed_utxos<'a>(
        &'a self,
        claim_id: ClaimId,
        must_spend: Vec<Input>,
        must_pay_to: &'a [TxOut],
        target_feerate_sat_per_1000_weight: u32,
        max_tx_weight: u64,
    ) -> AsyncResult<'a, CoinSelection, ()> {
        let feerate = FeeRate::from_sat_per_kwu(target_feerate_sat_per_1000_weight.into());
        Box::pin(async move {
            let found = self.selection(claim_id, must_spend, must_pay_to, feerate, max_tx_weight);
            found.await.ok_or(())
        })
    }

    fn sign_psbt<'a>(&'a self, psbt: Psbt) -> AsyncResult<'a, Transaction, ()> {
        Box::pin(async move {
            let spent = psbt.inputs.iter().map(|input| input.witness_utxo.clone());
            let spent = spent.collect::<Option<Vec<TxOut>>>().ok_or(())?;
            self.coins.sign(psbt.unsigned_tx, spent).await.map_err(drop)
        })
    }
}
