//! Building a claim's transaction: draft, coins, signature requests, witness.
#[cfg(test)]
mod tests;

use crate::arbitrator::{HandedOut, TxKind};
use crate::claim::{Claim, Extensible, SpendPath, fee};
use crate::ports::{Coin, SignRequest};
use crate::units::BlockHeight;
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::secp256k1::ecdsa;
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Weight, Witness,
    absolute::LockTime, transaction::Version,
};
use core::fmt;

/// Smallest output that is relayed for every segwit script (Core's dust rule at 3 sat/vB).
pub(crate) const SMALLEST_OUTPUT: Amount = Amount::from_sat(354);

/// A transaction to fund and sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What it claims.
    pub claim: Claim,
    /// Fee to pay, without that of the coins' own inputs.
    pub fee: Amount,
    /// Least that the whole transaction must pay: the floor, or what a replacement must.
    pub least: Amount,
    /// Feerate that the fee was computed at, parents included.
    pub feerate: FeeRate,
    /// Most that may be paid.
    pub budget: Amount,
    /// An unconfirmed parent that it pays for.
    pub parent: Option<Parent>,
}

/// An unconfirmed parent whose fee counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// What it pays.
    pub fee: Amount,
    /// What it weighs.
    pub weight: Weight,
}

impl Default for Parent {
    fn default() -> Self {
        Self { fee: Amount::ZERO, weight: Weight::ZERO }
    }
}

/// Why no transaction was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The fee would leave less than the smallest output: wait for lower fees.
    Uneconomic,
    /// The wallet has no coin to pay with: wait for one.
    NoCoins,
    /// The claim's parts do not fit together: a fault of the facts.
    Malformed,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uneconomic => "the fee would leave less than the smallest output",
            Self::NoCoins => "the wallet has no coin to pay with",
            Self::Malformed => "the claim's parts do not fit together",
        })
    }
}

impl core::error::Error for BuildError {}

/// A transaction that lacks signatures only.
#[derive(Clone, Debug)]
pub struct Unsigned {
    claim: Claim,
    /// The transaction without witnesses.
    pub transaction: Transaction,
    /// What each input spends.
    pub prevouts: Vec<TxOut>,
    /// Wallet coins among the inputs.
    pub coins: Vec<OutPoint>,
    /// What it pays.
    pub fee: Amount,
}

impl Draft {
    /// A draft without a price.
    #[must_use]
    pub const fn new(claim: Claim) -> Self {
        let (fee, feerate) = (Amount::ZERO, FeeRate::ZERO);
        Self { claim, fee, least: Amount::ZERO, feerate, budget: Amount::ZERO, parent: None }
    }

    /// Weight of the transaction without coins: an upper bound from the largest witness.
    #[must_use]
    pub fn weight(&self) -> Weight {
        let mut transaction = self.base();
        if self.wants_coins() {
            // The change output that coins bring.
            transaction.output.push(TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(vec![0; 34]),
            });
        }
        // Marker, flag, and the witness counts of the inputs are part of a segwit transaction.
        let witness = self.claim.path.witness_weight();
        transaction
            .weight()
            .checked_add(witness)
            .and_then(|w| w.checked_add(Weight::from_wu(2)))
            .unwrap_or(Weight::MAX)
    }

    /// Whether the wallet pays.
    #[must_use]
    pub fn wants_coins(&self) -> bool {
        match &self.claim.path {
            SpendPath::Anchor { .. } => true,
            SpendPath::SecondStage(stage) => stage.extensible == Extensible::Yes,
            SpendPath::LocalCommitment(_) | SpendPath::Single(_) => false,
        }
    }

    /// Value that coins must bring, beyond the fee of their own inputs.
    #[must_use]
    pub fn coins_wanted(&self) -> Amount {
        let bring = match &self.claim.path {
            // The anchor itself helps; one output must remain.
            SpendPath::Anchor { .. } => {
                let help = self.claim.output.value;
                self.fee
                    .max(self.least)
                    .checked_add(SMALLEST_OUTPUT)
                    .and_then(|all| all.checked_sub(help))
            }
            SpendPath::SecondStage(_) => Some(self.fee.max(self.least)),
            SpendPath::LocalCommitment(_) | SpendPath::Single(_) => None,
        };
        bring.unwrap_or(Amount::ZERO)
    }

    /// The transaction before coins and fees.
    fn base(&self) -> Transaction {
        let input = |sequence| TxIn {
            previous_output: self.claim.outpoint,
            script_sig: ScriptBuf::new(),
            sequence,
            witness: Witness::new(),
        };
        let (lock_time, inputs, output) = match &self.claim.path {
            SpendPath::LocalCommitment(presigned) => return presigned.transaction.clone(),
            SpendPath::SecondStage(stage) => return stage.transaction.clone(),
            SpendPath::Anchor { .. } => {
                (LockTime::ZERO, vec![input(Sequence::ENABLE_RBF_NO_LOCKTIME)], vec![])
            }
            SpendPath::Single(single) => {
                let script_pubkey = self.claim.destination.clone();
                let output = vec![TxOut { value: self.claim.output.value, script_pubkey }];
                (single.lock_time, vec![input(single.sequence)], output)
            }
        };
        Transaction { version: Version::TWO, lock_time, input: inputs, output }
    }

    /// The transaction with its coins and its fee taken off.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn assemble(
        self,
        coins: &[Coin],
        change: Option<ScriptBuf>,
    ) -> Result<Unsigned, BuildError> {
        let mut transaction = self.base();
        let mut prevouts = vec![self.claim.output.clone()];
        let mut extra = Weight::ZERO;
        for coin in coins {
            transaction.input.push(TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            });
            prevouts.push(coin.output.clone());
            let own = coin.satisfaction_weight.checked_add(Weight::from_wu(41 * 4));
            extra = own.and_then(|own| extra.checked_add(own)).ok_or(BuildError::Malformed)?;
        }
        let fee = self.fee.checked_add(fee::fee_of(self.feerate, extra));
        let fee = fee.ok_or(BuildError::Malformed)?.max(self.least);
        match &self.claim.path {
            SpendPath::LocalCommitment(_) => {}
            SpendPath::Single(_) => take_fee(&mut transaction, fee)?,
            SpendPath::SecondStage(stage) if stage.extensible == Extensible::No => {}
            SpendPath::Anchor { .. } | SpendPath::SecondStage(_) => {
                let change = change.ok_or(BuildError::NoCoins)?;
                add_change(&mut transaction, &prevouts, fee, change)?;
            }
        }
        let (paid_in, paid_out) = (sum(&prevouts), sum(&transaction.output));
        let fee = paid_in.checked_sub(paid_out).ok_or(BuildError::Malformed)?;
        if fee < self.least {
            // Coins fell so short that it would not be relayed, or not replace its predecessor.
            return Err(BuildError::NoCoins);
        }
        let coins = coins.iter().map(|coin| coin.outpoint).collect();
        Ok(Unsigned { claim: self.claim, transaction, prevouts, coins, fee })
    }
}

fn sum(outputs: &[TxOut]) -> Amount {
    outputs.iter().map(|o| o.value).fold(Amount::ZERO, |a, b| a.checked_add(b).unwrap_or(a))
}

fn take_fee(transaction: &mut Transaction, fee: Amount) -> Result<(), BuildError> {
    let output = transaction.output.first_mut().ok_or(BuildError::Malformed)?;
    let left = output.value.checked_sub(fee).filter(|left| *left >= SMALLEST_OUTPUT);
    output.value = left.ok_or(BuildError::Uneconomic)?;
    Ok(())
}

/// What the coins bring beyond the fee goes back, or to the fee if it is too little.
fn add_change(
    transaction: &mut Transaction,
    prevouts: &[TxOut],
    fee: Amount,
    script_pubkey: ScriptBuf,
) -> Result<(), BuildError> {
    if prevouts.len() < 2 {
        return Err(BuildError::NoCoins);
    }
    let free = sum(prevouts).checked_sub(sum(&transaction.output));
    let free = free.ok_or(BuildError::NoCoins)?;
    let change = free.checked_sub(fee).unwrap_or(Amount::ZERO);
    if change >= SMALLEST_OUTPUT {
        transaction.output.push(TxOut { value: change, script_pubkey });
    } else if transaction.output.is_empty() {
        // Something must remain. If the coins do not cover all of the fee, they pay what they can:
        // a claim that waits for the whole price may wait past its deadline.
        let value = Some(SMALLEST_OUTPUT).filter(|smallest| free >= *smallest);
        let value = value.ok_or(BuildError::NoCoins)?;
        transaction.output.push(TxOut { value, script_pubkey });
    }
    Ok(())
}

impl Unsigned {
    /// The one signature that the channel's signer gives.
    #[must_use]
    pub fn request(&self) -> SignRequest {
        let (key, script) = match &self.claim.path {
            SpendPath::LocalCommitment(presigned) => (presigned.key, Some(&presigned.script)),
            SpendPath::Anchor { script, key, .. } => (*key, Some(script)),
            SpendPath::SecondStage(stage) => (stage.key, Some(&stage.script)),
            SpendPath::Single(single) => (single.key, single.script.as_ref()),
        };
        SignRequest {
            channel: self.claim.channel,
            key,
            transaction: self.transaction.clone(),
            input: 0,
            prevouts: self.prevouts.clone(),
            script: script.cloned(),
            sighash: EcdsaSighashType::All,
        }
    }

    /// The transaction with the channel's witness; coins are left to the wallet.
    #[must_use]
    pub fn signed(&self, signature: &ecdsa::Signature) -> Transaction {
        let mut transaction = self.transaction.clone();
        if let Some(input) = transaction.input.first_mut() {
            input.witness = self.claim.path.witness(signature);
        }
        transaction
    }

    /// The transaction as it goes into the log.
    #[must_use]
    pub fn handed_out(&self, transaction: Transaction, at: BlockHeight) -> HandedOut {
        HandedOut {
            kind: self.claim.kind(),
            transaction,
            claims: vec![self.claim.outpoint],
            coins: self.coins.clone(),
            fee: self.fee,
            at,
        }
    }
}

/// Whether a transaction kind is paid from the wallet.
#[must_use]
pub const fn is_wallet_paid(kind: TxKind) -> bool {
    matches!(kind, TxKind::Anchor | TxKind::HtlcTimeout | TxKind::HtlcSuccess)
}
