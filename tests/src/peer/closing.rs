//! Spends of the funding output that are no commitments.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, FeeRate, Sequence, Transaction, TxOut};
use lightning::ln::chan_utils::build_closing_transaction;

use super::keys::{p2wpkh_script, stranger_key};
use super::sign::{Plan, fee};
use super::{Channel, PeerError, Side};

/// Which closing protocol of BOLT 2 made the mutual close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosingStyle {
    /// `closing_signed`: sequence 0xFFFFFFFF.
    Legacy,
    /// `option_simple_close`: sequence 0xFFFFFFFD.
    Simple,
}

/// Disables relative lock times and is neither a closing's nor a commitment's.
const STRANGE_SEQUENCE: Sequence = Sequence(0xA1B2_C3D4);

impl Channel {
    /// A mutual close of the current balances to both shutdown scripts; the opener pays, and an
    /// output below its dust threshold is left to the miner.
    pub fn mutual_close(
        &self,
        rate: FeeRate,
        style: ClosingStyle,
    ) -> Result<Transaction, PeerError> {
        let state = self.current();
        let pending = !self.state(Side::Local, self.local_number())?.htlcs.is_empty();
        if pending || !state.htlcs.is_empty() || self.remote_next_number().is_some() {
            return Err(PeerError::HtlcsPending);
        }
        let local = Amount::from_sat(state.balances.local_msat / 1000);
        let remote = Amount::from_sat(state.balances.remote_msat / 1000);
        let weight = self.closing_plan(local, remote, style)?.weight(&self.secp)?;
        let fee = fee(rate, weight)?;
        let pay =
            |value: Amount| value.checked_sub(fee).ok_or(PeerError::Uneconomic { value, fee });
        let (local, remote) = match self.params.opener {
            Side::Local => (pay(local)?, remote),
            Side::Remote => (local, pay(remote)?),
        };
        self.closing_plan(local, remote, style)?.sign(&self.secp)
    }

    /// A spend of the funding output that both sides signed and that matches nothing that the
    /// node was told of.
    pub fn unknown_spend(&self, rate: FeeRate) -> Result<Transaction, PeerError> {
        let stranger = stranger_key(&self.params.name, self.params.seed);
        let script_pubkey = p2wpkh_script(&self.secp, &stranger);
        let value = self.params.capacity;
        let mut plan = Plan {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            inputs: vec![self.funding_input(STRANGE_SEQUENCE)?],
            outputs: vec![TxOut { value, script_pubkey: script_pubkey.clone() }],
        };
        let fee = fee(rate, plan.weight(&self.secp)?)?;
        let value = value.checked_sub(fee).ok_or(PeerError::Uneconomic { value, fee })?;
        plan.outputs = vec![TxOut { value, script_pubkey }];
        plan.sign(&self.secp)
    }

    fn closing_plan(
        &self,
        local: Amount,
        remote: Amount,
        style: ClosingStyle,
    ) -> Result<Plan, PeerError> {
        let [local_script, remote_script] =
            [Side::Local, Side::Remote].map(|side| self.shutdown_script(side));
        let above_dust = |value: Amount, script: &bitcoin::Script| {
            if value < script.minimal_non_dust() { Amount::ZERO } else { value }
        };
        let local = above_dust(local, &local_script);
        let remote = above_dust(remote, &remote_script);
        if local == Amount::ZERO && remote == Amount::ZERO {
            return Err(PeerError::NoSuchOutput);
        }
        let tx =
            build_closing_transaction(local, remote, local_script, remote_script, self.funding()?);
        let sequence = match style {
            ClosingStyle::Legacy => Sequence::MAX,
            ClosingStyle::Simple => Sequence::ENABLE_RBF_NO_LOCKTIME,
        };
        Ok(Plan {
            version: tx.version,
            lock_time: tx.lock_time,
            inputs: vec![self.funding_input(sequence)?],
            outputs: tx.output,
        })
    }
}
