//! Building the transaction of one claim or several: draft, coins, signature requests, witnesses.
#[cfg(test)]
mod tests;

use crate::arbitrator::{HandedOut, TxKind};
use crate::claim::{Claim, Extensible, SecondStage, SpendPath, fee};
use crate::format::weights;
use crate::ids::ChannelId;
use crate::ports::{Coin, SignRequest};
use crate::units::{self, BlockHeight, Tx};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::secp256k1::ecdsa;
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, VarInt, Weight,
    Witness, absolute::LockTime, transaction::Version,
};
use core::cmp::Reverse;
use core::fmt;

/// Smallest output that is relayed for every segwit script (Core's dust rule at 3 sat/vB).
pub(crate) const SMALLEST_OUTPUT: Amount = Amount::from_sat(354);

/// A transaction to fund and sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What it claims first.
    pub claim: Claim,
    /// What it claims besides, of the same kind and with the same lock time, in input order.
    pub others: Vec<Claim>,
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
    /// Whether a part of it may go out without the rest: it takes the place of nothing.
    pub divisible: bool,
    /// Whether it waits for all others that want coins of the wallet: the network has refused what makes this claim.
    pub last: bool,
    /// The output in whose name the wallet's coins are reserved, and its channel: that of the first claim, or of the
    /// transaction's whose place it takes.
    pub coins_as: (ChannelId, OutPoint),
    /// Whether a coin whose input would cost most of it is left for better times: there is time.
    pub thrifty: bool,
    /// Below which feerate nothing is relayed: there is no better time to wait for at a lower one.
    pub floor: FeeRate,
}

/// So many tenths of a coin its input may cost as long as there is time.
const INPUTS_SHARE: u64 = 7;

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
    /// With the inputs of the coins that would pay for it, it would have to cost more than it may: wait for lower
    /// fees, or for larger coins.
    OverBudget,
    /// The claim's parts do not fit together: a fault of the facts.
    Malformed,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uneconomic => "the fee would leave less than the smallest output",
            Self::NoCoins => "the wallet has no coin to pay with",
            Self::OverBudget => {
                "with the coins that would pay for it, it would cost more than it may"
            }
            Self::Malformed => "the claim's parts do not fit together",
        })
    }
}

impl core::error::Error for BuildError {}

/// A transaction that lacks signatures only.
#[derive(Clone, Debug)]
pub struct Unsigned {
    claim: Claim,
    others: Vec<Claim>,
    /// The transaction without witnesses.
    pub transaction: Transaction,
    /// What each input spends.
    pub prevouts: Vec<TxOut>,
    /// Wallet coins among the inputs.
    pub coins: Vec<OutPoint>,
    /// What it pays.
    pub fee: Amount,
    /// Whether that is less than three quarters of its price: the coins fell short.
    pub is_short: bool,
    /// What it pays for its weight, with its parent.
    pub feerate: FeeRate,
}

impl Draft {
    /// A draft without a price.
    #[must_use]
    pub const fn new(claim: Claim) -> Self {
        Self {
            coins_as: (claim.channel, claim.outpoint),
            claim,
            others: Vec::new(),
            fee: Amount::ZERO,
            least: Amount::ZERO,
            feerate: FeeRate::ZERO,
            budget: Amount::MAX_MONEY,
            parent: None,
            divisible: false,
            last: false,
            thrifty: false,
            floor: FeeRate::ZERO,
        }
    }

    /// Everything that it claims, in input order.
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        core::iter::once(&self.claim).chain(&self.others)
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
        let header = weights::SEGWIT_HEADER;
        let witnesses = self.claims().map(|claim| claim.path.witness_weight());
        core::iter::once(header)
            .chain(witnesses)
            .try_fold(transaction.weight(), Weight::checked_add)
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

    /// The feerate at which a coin is to bring something beyond its input, so that at the price it brings a part of what it is worth.
    #[must_use]
    pub const fn coins_worth(&self) -> FeeRate {
        let rate = self.feerate.to_sat_per_kwu();
        let thrifty = FeeRate::from_sat_per_kwu(rate.saturating_mul(10).div_ceil(INPUTS_SHARE));
        if self.thrifty { thrifty } else { self.feerate }
    }

    /// How many coins there is room for, of the usual size.
    #[must_use]
    pub fn most_coins(&self) -> usize {
        let room = self.max_weight().checked_sub(self.weight()).unwrap_or(Weight::ZERO);
        let most = room.to_wu().checked_div(weights::COIN.to_wu()).unwrap_or(0);
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Whether it saves nearly all that another would, of which it is a part.
    #[must_use]
    pub fn saves_nearly_all_of(&self, whole: &Self) -> bool {
        let saves =
            |draft: &Self| units::total(draft.claims().map(|claim| claim.value_at_risk)).to_sat();
        let (part, all) = (saves(self), saves(whole));
        part.saturating_mul(10) >= all.saturating_mul(9)
    }

    /// The same at three quarters of its price, for a wallet that cannot pay all of it: coins
    /// that are not worth their inputs at a high feerate are at a lower one. `None` once nothing
    /// cheaper would be relayed.
    #[must_use]
    pub fn cheaper(&self) -> Option<Self> {
        let fee = three_quarters(self.fee).max(self.least);
        let rate = self.feerate.to_sat_per_kwu();
        let feerate = FeeRate::from_sat_per_kwu(rate.saturating_sub(rate.div_ceil(4)));
        let is_too_low = self.thrifty && feerate < self.floor;
        (fee < self.fee && !is_too_low).then(|| Self { fee, feerate, ..self.clone() })
    }

    /// The same price for half of the claims, those for which most is lost, for a wallet that cannot pay for all
    /// of them at any. `None` of a single one, and of what takes the place of another transaction.
    #[must_use]
    pub fn fewer(&self) -> Option<Self> {
        if !self.divisible || self.others.is_empty() {
            return None;
        }
        let mut worth: Vec<&Claim> = self.claims().collect();
        worth.sort_by_key(|claim| {
            let last = claim.due().unwrap_or(BlockHeight(u32::MAX));
            (Reverse(claim.value_at_risk), last, claim.outpoint)
        });
        worth.truncate((self.others.len() >> 1).saturating_add(1));
        worth.sort_by_key(|claim| claim.outpoint);
        let (claim, others) = worth.split_first()?;
        let others = others.iter().map(|claim| (*claim).clone()).collect();
        let mut fewer = Self { claim: (*claim).clone(), others, ..self.clone() };
        let (part, all) = (fewer.weight().to_wu(), self.weight().to_wu());
        fewer.fee = share(self.fee, part, all)?;
        fewer.least = share(self.least, part, all)?;
        let worth =
            |draft: &Self| units::total(draft.claims().map(|claim| claim.output.value)).to_sat();
        fewer.budget = share(self.budget, worth(&fewer), worth(self))?;
        (fewer.least <= fewer.budget).then_some(fewer)
    }

    /// Two drafts at the same feerate, each of half of the claims; `None` of a single one. To ask
    /// about, not to hand out: where they take the place of another transaction either pays what the whole must, so
    /// that the answer is about its inputs.
    #[must_use]
    pub fn halves(&self) -> Option<[Self; 2]> {
        let claims: Vec<&Claim> = self.claims().collect();
        let (one, two) = claims.split_at_checked(claims.len().div_ceil(2))?;
        let half = |claims: &[&Claim]| {
            let (first, others) = claims.split_first()?;
            let mut half = Self::new((*first).clone());
            half.others = others.iter().map(|claim| (*claim).clone()).collect();
            half.feerate = self.feerate;
            half.fee = fee::fee_of(self.feerate, half.weight());
            half.divisible = self.divisible;
            if !self.divisible {
                half.least = self.least;
            }
            half.fee = half.fee.max(half.least);
            Some(half)
        };
        Some([half(one)?, half(two)?])
    }

    /// The least that it must pay with coins of this weight: what is relayed for the whole, or, of a
    /// replacement, its relay (BIP 125 rule 4).
    fn least_with(&self, coins: Weight) -> Option<Amount> {
        let more = if self.divisible {
            share(self.least, coins.to_wu(), self.weight().to_wu())?
        } else {
            fee::replacement_fee(Amount::ZERO, coins)
        };
        self.least.checked_add(more)
    }

    /// The fee of a transaction that is final as the peer signed it.
    pub(crate) fn fixed_fee(&self) -> Option<Amount> {
        match &self.claim.path {
            SpendPath::SecondStage(stage) if stage.extensible == Extensible::No => {
                let given =
                    units::total(stage.transaction.output.iter().map(|output| output.value));
                self.claim.output.value.checked_sub(given)
            }
            SpendPath::LocalCommitment(_)
            | SpendPath::Anchor { .. }
            | SpendPath::SecondStage(_)
            | SpendPath::Single(_) => None,
        }
    }

    /// The transaction before coins and fees.
    pub(crate) fn base(&self) -> Transaction {
        let lock_time = match &self.claim.path {
            SpendPath::LocalCommitment(presigned) => return presigned.transaction.clone(),
            SpendPath::SecondStage(_) => return self.second_stages(),
            SpendPath::Anchor { .. } => LockTime::ZERO,
            SpendPath::Single(single) => single.lock_time,
        };
        let input = |claim: &Claim| TxIn {
            previous_output: claim.outpoint,
            script_sig: ScriptBuf::new(),
            sequence: match &claim.path {
                SpendPath::Single(single) => single.sequence,
                SpendPath::LocalCommitment(_)
                | SpendPath::Anchor { .. }
                | SpendPath::SecondStage(_) => Sequence::ENABLE_RBF_NO_LOCKTIME,
            },
            witness: Witness::new(),
        };
        let output = match &self.claim.path {
            SpendPath::Single(_) => {
                let script_pubkey = self.claim.destination.clone();
                let value = units::total(self.claims().map(|claim| claim.output.value));
                vec![TxOut { value, script_pubkey }]
            }
            SpendPath::LocalCommitment(_)
            | SpendPath::Anchor { .. }
            | SpendPath::SecondStage(_) => vec![],
        };
        let input = self.claims().map(input).collect();
        Transaction { version: self.claim.path.version(), lock_time, input, output }
    }

    /// HTLC transactions in one: the peer's signature of each covers its own input and the output
    /// at the same index (SIGHASH_SINGLE with ANYONECANPAY, BOLT 5 H5).
    fn second_stages(&self) -> Transaction {
        let mut stages = self.claims().filter_map(|claim| match &claim.path {
            SpendPath::SecondStage(stage) => Some(&stage.transaction),
            SpendPath::LocalCommitment(_) | SpendPath::Anchor { .. } | SpendPath::Single(_) => None,
        });
        let first = stages.next().cloned();
        let mut all = first.unwrap_or(Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![],
            output: vec![],
        });
        for stage in stages {
            all.input.extend(stage.input.iter().cloned());
            all.output.extend(stage.output.iter().cloned());
        }
        all
    }

    /// Whether the claims can stand in one transaction.
    pub(super) fn fits(&self) -> bool {
        let first = &self.claim;
        self.others.iter().all(|other| match (&first.path, &other.path) {
            (SpendPath::Single(a), SpendPath::Single(b)) => {
                let same = (a.lock_time, a.version) == (b.lock_time, b.version);
                same && first.destination == other.destination
            }
            (SpendPath::SecondStage(a), SpendPath::SecondStage(b)) => {
                let paired = |stage: &SecondStage| {
                    stage.extensible == Extensible::Yes
                        && stage.transaction.input.len() == 1
                        && stage.transaction.output.len() == 1
                };
                let (one, two) = (&a.transaction, &b.transaction);
                let same = one.lock_time == two.lock_time && one.version == two.version;
                same && paired(a) && paired(b)
            }
            _ => false,
        })
    }

    /// Largest weight at which it is relayed, by itself and with the parent that it pays for.
    fn max_weight(&self) -> Weight {
        let parent = self.parent.unwrap_or_default().weight;
        let beside = weights::MAX_PACKAGE.checked_sub(parent).unwrap_or(Weight::ZERO);
        self.claim.path.max_weight().min(beside)
    }

    /// The coins, or the most valuable of them if all would make it too heavy to be relayed: it pays
    /// what these can.
    fn as_many_as_fit<'c>(&self, coins: &'c [Coin]) -> Vec<&'c Coin> {
        let most = self.max_weight();
        let own = self.weight();
        let claims = self.claims().count();
        let fits = |coins: &[&Coin]| {
            // The number of inputs takes more bytes where there are many.
            let count = input_count(claims.saturating_add(coins.len()));
            let more = count.checked_sub(input_count(claims)).unwrap_or(Weight::ZERO);
            let mut all = coins.iter().map(|coin| weight_of(coin)).chain([more]);
            all.try_fold(own, Weight::checked_add).is_some_and(|all| all <= most)
        };
        let mut kept: Vec<&Coin> = coins.iter().collect();
        if !fits(&kept) {
            kept.sort_by_key(|coin| (Reverse(coin.output.value), coin.outpoint));
            while !kept.is_empty() && !fits(&kept) {
                kept.pop();
            }
        }
        kept
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
        if !self.fits() {
            return Err(BuildError::Malformed);
        }
        let coins = self.as_many_as_fit(coins);
        let mut transaction = self.base();
        let mut prevouts: Vec<TxOut> = self.claims().map(|claim| claim.output.clone()).collect();
        let mut extra = Weight::ZERO;
        for coin in &coins {
            transaction.input.push(TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            });
            prevouts.push(coin.output.clone());
            extra = weight_of(coin).checked_add(extra).ok_or(BuildError::Malformed)?;
        }
        let fee = self.fee.checked_add(fee::fee_of(self.feerate, extra));
        // Coins may weigh what was not foreseen: the budget holds all the same.
        let least = self.least_with(extra).ok_or(BuildError::Malformed)?;
        if least > self.budget {
            return Err(BuildError::OverBudget);
        }
        let wanted = fee.ok_or(BuildError::Malformed)?.min(self.budget).max(least);
        match &self.claim.path {
            SpendPath::LocalCommitment(_) => {}
            SpendPath::Single(_) => take_fee(&mut transaction, wanted)?,
            SpendPath::SecondStage(stage) if stage.extensible == Extensible::No => {}
            SpendPath::Anchor { .. } | SpendPath::SecondStage(_) => {
                let change = change.ok_or(BuildError::NoCoins)?;
                add_change(&mut transaction, &prevouts, !coins.is_empty(), wanted, change)?;
            }
        }
        let (paid_in, paid_out) = (sum(&prevouts), sum(&transaction.output));
        let fee = paid_in.checked_sub(paid_out).ok_or(BuildError::Malformed)?;
        let is_short = fee < three_quarters(wanted);
        let Parent { fee: parents, weight: parent } = self.parent.unwrap_or_default();
        let weight = self.weight().checked_add(extra).and_then(|own| own.checked_add(parent));
        let feerate = weight.and_then(|all| fee::feerate_of(fee.checked_add(parents)?, all));
        let feerate = feerate.ok_or(BuildError::Malformed)?;
        if fee < least {
            // Coins fell so short that it would not be relayed, or not replace its predecessor.
            return Err(BuildError::NoCoins);
        }
        let coins = coins.iter().map(|coin| coin.outpoint).collect();
        let Self { claim, others, .. } = self;
        Ok(Unsigned { claim, others, transaction, prevouts, coins, fee, is_short, feerate })
    }
}

/// What the number of a transaction's inputs weighs.
fn input_count(inputs: usize) -> Weight {
    let bytes = VarInt::from(inputs).size();
    u64::try_from(bytes).ok().and_then(Weight::from_vb).unwrap_or(Weight::MAX)
}

/// What a coin adds to a transaction.
fn weight_of(coin: &Coin) -> Weight {
    coin.satisfaction_weight.checked_add(weights::INPUT_BASE).unwrap_or(Weight::MAX)
}

fn three_quarters(all: Amount) -> Amount {
    Amount::from_sat(all.to_sat().saturating_sub(all.to_sat().div_ceil(4)))
}

fn sum(outputs: &[TxOut]) -> Amount {
    units::total(outputs.iter().map(|output| output.value))
}

/// So much of an amount as `part` is of `all`, rounded up.
fn share(amount: Amount, part: u64, all: u64) -> Option<Amount> {
    let whole = u128::from(amount.to_sat()).checked_mul(part.into())?;
    let more = u128::from(all).checked_sub(1)?;
    let share = whole.checked_add(more)?.checked_div(all.into())?;
    u64::try_from(share).ok().map(Amount::from_sat)
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
    has_coins: bool,
    fee: Amount,
    script_pubkey: ScriptBuf,
) -> Result<(), BuildError> {
    if !has_coins {
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
    fn claims(&self) -> impl Iterator<Item = &Claim> {
        core::iter::once(&self.claim).chain(&self.others)
    }

    /// The signatures that the channels' signer gives, one an input that needs one, in input order. Inputs of the
    /// wallet come after these.
    pub fn requests(&self) -> impl Iterator<Item = SignRequest> {
        self.claims().enumerate().filter_map(|(input, claim)| {
            let (key, script) = claim.path.wants_signature()?;
            Some(SignRequest {
                channel: claim.channel,
                key,
                transaction: self.transaction.clone(),
                input,
                prevouts: self.prevouts.clone(),
                script: script.cloned(),
                sighash: EcdsaSighashType::All,
            })
        })
    }

    /// The transaction with the channels' witnesses, from the signatures that were asked for, in
    /// order; coins are left to the wallet.
    #[must_use]
    pub fn signed(&self, signatures: &[ecdsa::Signature]) -> Transaction {
        let mut transaction = self.transaction.clone();
        let signed = transaction.input.iter_mut().zip(self.claims());
        let signed = signed.filter(|(_, claim)| claim.path.wants_signature().is_some());
        for ((input, claim), signature) in signed.zip(signatures) {
            input.witness = claim.path.witness(signature);
        }
        transaction
    }

    /// The transaction as it goes into the log of each channel that it claims from.
    #[must_use]
    pub fn handed_out(
        &self,
        transaction: &Transaction,
        at: BlockHeight,
    ) -> BTreeMap<ChannelId, HandedOut> {
        let transaction = Tx::from(transaction.clone());
        let of = |channel: ChannelId| {
            let split = self.claims().partition(|claim| claim.channel == channel);
            let (own, others): (Vec<&Claim>, Vec<&Claim>) = split;
            let outpoints = |claims: Vec<&Claim>| claims.iter().map(|c| c.outpoint).collect();
            HandedOut {
                kind: self.claim.kind(),
                transaction: transaction.clone(),
                claims: outpoints(own),
                others: outpoints(others),
                coins: self.coins.clone(),
                fee: self.fee,
                at,
            }
        };
        let channels: BTreeSet<ChannelId> = self.claims().map(|claim| claim.channel).collect();
        channels.into_iter().map(|channel| (channel, of(channel))).collect()
    }
}

/// Whether a transaction kind is paid from the wallet.
#[must_use]
pub const fn is_wallet_paid(kind: TxKind) -> bool {
    matches!(kind, TxKind::Anchor | TxKind::HtlcTimeout | TxKind::HtlcSuccess)
}
