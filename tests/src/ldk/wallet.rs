//! A wallet for LDK's own fee bumping, with the coins that the arbiter's wallet has.

use arb_core::ports::CoinSource;
use arb_watcher::memory::MemoryCoins;
use bitcoin::{Psbt, ScriptBuf, Transaction, TxOut};
use lightning::events::bump_transaction::Utxo;
use lightning::events::bump_transaction::sync::WalletSourceSync;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Coins of the arbiter's wallet, for LDK.
#[derive(Clone, Debug)]
pub struct Wallet(pub MemoryCoins);

/// The result of a future that waits for nothing, as those of a wallet in memory.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

impl WalletSourceSync for Wallet {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        let coins = self.0.coins().into_iter();
        Ok(coins.filter_map(|(outpoint, output)| utxo(outpoint, &output)).collect())
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        at_once(self.0.change_script()).and_then(Result::ok).ok_or(())
    }

    fn sign_psbt(&self, psbt: Psbt) -> Result<Transaction, ()> {
        let prevouts: Option<Vec<TxOut>> =
            psbt.inputs.iter().map(|input| input.witness_utxo.clone()).collect();
        let signed = self.0.sign(psbt.unsigned_tx, prevouts.ok_or(())?);
        at_once(signed).and_then(Result::ok).ok_or(())
    }
}

fn utxo(outpoint: bitcoin::OutPoint, output: &TxOut) -> Option<Utxo> {
    let hash = output.script_pubkey.as_bytes().get(2..)?;
    let hash = bitcoin::hashes::Hash::from_slice(hash).ok()?;
    Some(Utxo::new_v0_p2wpkh(outpoint, output.value, &bitcoin::WPubkeyHash::from_raw_hash(hash)))
}
