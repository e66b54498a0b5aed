//! A splice: another funding output of the same channel.

use bitcoin::absolute::LockTime;
use bitcoin::sighash::SighashCache;
use bitcoin::transaction::Version;
use bitcoin::{Amount, FeeRate, OutPoint, Sequence, Transaction, TxOut};

use super::claims::Change;
use super::sign::{Input, Plan, Unlock, fee, witness};
use super::{Channel, PeerCoin, PeerError};

impl Channel {
    /// Spends the funding output and makes another, its first output, of this capacity. The peer
    /// adds or takes the difference, and pays the fee out of `coins`. It pays to the keys of the
    /// `nth` splice of the channel, counted from 1.
    pub fn splice_transaction(
        &self,
        nth: usize,
        capacity: Amount,
        rate: FeeRate,
        coins: &[PeerCoin],
    ) -> Result<Transaction, PeerError> {
        let mut next = self.clone();
        next.set_funding_keys(nth);
        let plan = Plan {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            inputs: vec![self.funding_input(Sequence::ENABLE_RBF_NO_LOCKTIME)?],
            outputs: vec![TxOut { value: capacity, script_pubkey: next.funding_script() }],
        };
        Ok(self.fund(plan, coins, Change::Optional, |weight| fee(rate, weight))?.tx)
    }

    /// Signs the inputs of a transaction that spend these coins.
    pub fn sign_coins(
        &self,
        mut tx: Transaction,
        coins: &[PeerCoin],
    ) -> Result<Transaction, PeerError> {
        let unsigned = tx.clone();
        let mut cache = SighashCache::new(&unsigned);
        for (at, input) in tx.input.iter_mut().enumerate() {
            let coin = coins.iter().find(|coin| coin.outpoint == input.previous_output);
            let Some(PeerCoin { outpoint, txout, key }) = coin.cloned() else { continue };
            let unlock = Unlock::KeyHash { key };
            let spent = Input { outpoint, prevout: txout, sequence: input.sequence, unlock };
            input.witness = witness(&self.secp, &mut cache, at, &spent)?;
        }
        Ok(tx)
    }

    /// The same channel on the funding output of its `nth` splice: the same history, with the
    /// difference in the peer's balance.
    pub fn spliced(
        &self,
        nth: usize,
        funding: OutPoint,
        capacity: Amount,
    ) -> Result<Self, PeerError> {
        let mut spliced = self.clone();
        spliced.set_funding_keys(nth);
        spliced.set_capacity(capacity);
        spliced.set_funding(funding)?;
        let msat = |amount: Amount| {
            let msat = amount.to_sat().checked_mul(1000);
            msat.and_then(|msat| i64::try_from(msat).ok()).ok_or(PeerError::AmountOverflow)
        };
        let more = msat(capacity)?
            .checked_sub(msat(self.params().capacity)?)
            .ok_or(PeerError::AmountOverflow)?;
        let has = self.history.newest_of_remote().unwrap_or(0);
        if has.checked_add_signed(more).is_none() {
            return Err(PeerError::SpliceTakesTooMuch { has_msat: has });
        }
        spliced.history.add_to_remote(more);
        Ok(spliced)
    }
}
