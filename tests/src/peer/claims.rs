//! How the peer takes HTLC outputs, on its own commitments and on ours.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{All, Secp256k1, SecretKey};
use bitcoin::{Amount, FeeRate, OutPoint, Sequence, Transaction, TxOut, Weight};
use lightning::ln::chan_utils::derive_private_key;

use super::keys::p2wpkh_script;
use super::sign::{Input, Plan, Unlock, fee};
use super::{Channel, Commitment, Format, PeerError, Side};

/// What a claim pays: `rate`, but never less than `at_least` (a replacement must pay more than
/// what it replaces, BIP 125).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimFee {
    pub rate: FeeRate,
    pub at_least: Amount,
}

impl From<FeeRate> for ClaimFee {
    fn from(rate: FeeRate) -> Self {
        Self { rate, at_least: Amount::ZERO }
    }
}

impl ClaimFee {
    pub(super) fn of(self, weight: Weight) -> Result<Amount, PeerError> {
        Ok(fee(self.rate, weight)?.max(self.at_least))
    }
}

/// How several HTLC outputs are claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bundle {
    /// One transaction each.
    Separate,
    /// One transaction for all.
    Together,
}

/// A P2WPKH coin of the peer's wallet.
#[derive(Clone)]
pub struct PeerCoin {
    pub outpoint: OutPoint,
    pub txout: TxOut,
    pub key: SecretKey,
}

/// The output of an HTLC transaction: the owner's, after its delay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondLevel {
    pub outpoint: OutPoint,
    pub txout: TxOut,
}

/// A signed transaction of the peer.
#[derive(Clone)]
pub struct Claim {
    pub tx: Transaction,
    /// The output that each input spends.
    pub prevouts: Vec<TxOut>,
    pub fee: Amount,
    /// Names of the HTLCs whose outputs it takes.
    pub htlcs: Vec<String>,
    /// Wallet coins that it spends.
    pub coins: Vec<OutPoint>,
    /// What goes back to the wallet as change.
    pub change: Option<PeerCoin>,
    /// The delayed outputs that it makes, by HTLC name.
    pub second_level: BTreeMap<String, SecondLevel>,
}

impl Channel {
    /// A coin of the peer's wallet at [`Channel::peer_script`].
    pub fn peer_coin(&self, outpoint: OutPoint, value: Amount) -> PeerCoin {
        let txout = TxOut { value, script_pubkey: self.peer_script() };
        PeerCoin { outpoint, txout, key: self.remote.wallet }
    }

    /// The peer takes HTLC outputs of a confirmed commitment by the path open to it.
    ///
    /// On its own commitment: HTLC-success for what we offered, HTLC-timeout for what it
    /// offered. The fee comes from `coins` and the change goes back; with `static_remotekey` the
    /// fee was fixed when the commitment was signed, `fee` and `coins` are not used, and nothing
    /// can be aggregated. On ours: direct spends, by preimage or after the expiry, whose fee
    /// comes from the outputs. A replacement is the same claim with a higher fee.
    pub fn claim_htlcs(
        &self,
        commitment: &Commitment,
        names: &[&str],
        bundle: Bundle,
        fee: ClaimFee,
        coins: &[PeerCoin],
    ) -> Result<Vec<Claim>, PeerError> {
        if names.is_empty() {
            return Err(PeerError::NothingToClaim);
        }
        let groups: Vec<&[&str]> = match bundle {
            Bundle::Separate => names.chunks(1).collect(),
            Bundle::Together => vec![names],
        };
        let mut left = coins.to_vec();
        let mut claims = Vec::new();
        for group in groups {
            let claim = match commitment.owner {
                Side::Local => self.claim_directly(commitment, group, fee)?,
                Side::Remote => self.claim_by_second_stage(commitment, group, fee, &left)?,
            };
            left.retain(|coin| !claim.coins.contains(&coin.outpoint));
            claims.push(claim);
        }
        Ok(claims)
    }

    /// HTLC transactions of the peer: input i is paired with output i, SIGHASH_SINGLE.
    fn claim_by_second_stage(
        &self,
        commitment: &Commitment,
        names: &[&str],
        fee: ClaimFee,
        coins: &[PeerCoin],
    ) -> Result<Claim, PeerError> {
        let fixed = self.params.format == Format::StaticRemoteKey;
        if fixed && names.len() > 1 {
            return Err(PeerError::CannotAggregate("they are signed with SIGHASH_ALL"));
        }
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        let mut locks = Vec::new();
        for name in names {
            let (input, output, lock_time) = self.second_stage(commitment, name)?;
            inputs.push(input);
            outputs.push(output);
            locks.push(lock_time);
        }
        let lock_time = common_lock(&locks)?;
        let version = self.htlc_transaction_version();
        let plan = Plan { version, lock_time, inputs, outputs };
        let mut claim = if fixed {
            self.finish(&plan)?
        } else {
            self.fund(plan, coins, Change::Optional, |weight| fee.of(weight))?
        };
        let txid = claim.tx.compute_txid();
        claim.second_level = (0u32..)
            .zip(names.iter().zip(&claim.tx.output))
            .map(|(vout, (name, txout))| {
                let outpoint = OutPoint { txid, vout };
                ((*name).to_owned(), SecondLevel { outpoint, txout: txout.clone() })
            })
            .collect();
        claim.htlcs = owned(names);
        Ok(claim)
    }

    /// Direct spends of HTLC outputs of our commitment.
    fn claim_directly(
        &self,
        commitment: &Commitment,
        names: &[&str],
        fee: ClaimFee,
    ) -> Result<Claim, PeerError> {
        let key = derive_private_key(&self.secp, &commitment.parts.point(), &self.remote.htlc_base);
        let mut lock_time = 0;
        let mut inputs = Vec::new();
        for name in names {
            let (terms, htlc, (outpoint, prevout)) = self.htlc_output(commitment, name)?;
            let element = match htlc.htlc.offerer {
                Side::Local => htlc.preimage.to_vec(),
                Side::Remote => {
                    lock_time = lock_time.max(htlc.cltv_expiry);
                    Vec::new()
                }
            };
            let script = self.htlc_script(&commitment.parts, terms);
            let unlock = Unlock::Script { script, key, element };
            let sequence = self.htlc_sequence();
            inputs.push(Input { outpoint, prevout, sequence, unlock });
        }
        let mut claim = self.sweep(inputs, LockTime::from_consensus(lock_time), fee)?;
        claim.htlcs = owned(names);
        Ok(claim)
    }

    /// The scripts of `anchors` have `1 OP_CSV` on every path of the other side.
    fn htlc_sequence(&self) -> Sequence {
        match self.params.format {
            Format::Anchors => Sequence::from_height(1),
            Format::StaticRemoteKey | Format::ZeroFee => Sequence::ENABLE_RBF_NO_LOCKTIME,
        }
    }

    /// All inputs to the peer's wallet, less the fee.
    pub(super) fn sweep(
        &self,
        inputs: Vec<Input>,
        lock_time: LockTime,
        fee: ClaimFee,
    ) -> Result<Claim, PeerError> {
        self.sweep_beside(inputs, lock_time, fee, &[])
    }

    /// The same, with other outputs behind the one that takes all.
    pub(super) fn sweep_beside(
        &self,
        inputs: Vec<Input>,
        lock_time: LockTime,
        fee: ClaimFee,
        beside: &[TxOut],
    ) -> Result<Claim, PeerError> {
        let script_pubkey = self.peer_script();
        let dust = script_pubkey.minimal_non_dust();
        let outputs = |value| {
            let first = TxOut { value, script_pubkey: script_pubkey.clone() };
            std::iter::once(first).chain(beside.iter().cloned()).collect()
        };
        // An unconfirmed parent of version 3 wants it of its children.
        let version = self.htlc_transaction_version();
        let mut plan = Plan { version, lock_time, inputs, outputs: Vec::new() };
        let value = plan.value_in()?;
        plan.outputs = outputs(value);
        let fee = fee.of(plan.weight(&self.secp)?)?;
        let rest = value
            .checked_sub(fee)
            .filter(|rest| *rest >= dust)
            .ok_or(PeerError::Uneconomic { value, fee })?;
        plan.outputs = outputs(rest);
        self.finish(&plan)
    }

    /// Adds wallet coins, in the order given, until `needed` of the weight is paid, and change at
    /// the end if it is worth an output.
    pub(super) fn fund(
        &self,
        base: Plan,
        coins: &[PeerCoin],
        change: Change,
        needed: impl Fn(Weight) -> Result<Amount, PeerError>,
    ) -> Result<Claim, PeerError> {
        let script_pubkey = self.peer_script();
        let dust = script_pubkey.minimal_non_dust();
        let mut missing = Amount::ZERO;
        for count in 0..=coins.len() {
            let used = coins.iter().take(count);
            let mut plan = base.clone();
            for coin in used.clone() {
                plan.inputs.push(coin_input(&self.secp, coin)?);
            }
            let plain_fee = needed(plan.weight(&self.secp)?)?;
            let Some(spare) = plan.value_in()?.checked_sub(plan.value_out()?) else { continue };
            let mut with_change = plan.clone();
            with_change.outputs.push(TxOut { value: dust, script_pubkey: script_pubkey.clone() });
            missing = needed(with_change.weight(&self.secp)?)?;
            let rest = spare.checked_sub(missing).filter(|rest| *rest >= dust);
            if let Some(last) = with_change.outputs.last_mut()
                && let Some(rest) = rest
            {
                last.value = rest;
                plan = with_change;
            } else if change == Change::Required || spare < plain_fee {
                continue;
            }
            let mut claim = self.finish(&plan)?;
            claim.coins = used.map(|coin| coin.outpoint).collect();
            claim.change = rest.map(|value| {
                let vout = (claim.tx.output.len() - 1) as u32;
                self.peer_coin(OutPoint { txid: claim.tx.compute_txid(), vout }, value)
            });
            return Ok(claim);
        }
        let available = coins.iter().map(|coin| coin.txout.value).sum();
        Err(PeerError::NotEnoughCoins { available, needed: missing })
    }

    pub(super) fn finish(&self, plan: &Plan) -> Result<Claim, PeerError> {
        let fee =
            plan.value_in()?.checked_sub(plan.value_out()?).ok_or(PeerError::AmountOverflow)?;
        Ok(Claim {
            tx: plan.sign(&self.secp)?,
            prevouts: plan.prevouts(),
            fee,
            htlcs: Vec::new(),
            coins: Vec::new(),
            change: None,
            second_level: BTreeMap::new(),
        })
    }
}

/// Whether a funded transaction may do without a change output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Optional,
    Required,
}

/// HTLC transactions are signed with their lock time, so that only equal ones go together.
fn common_lock(locks: &[LockTime]) -> Result<LockTime, PeerError> {
    let first = locks.first().copied().ok_or(PeerError::NothingToClaim)?;
    if locks.iter().any(|lock| *lock != first) {
        return Err(PeerError::CannotAggregate("their lock times differ"));
    }
    Ok(first)
}

pub(super) fn coin_input(secp: &Secp256k1<All>, coin: &PeerCoin) -> Result<Input, PeerError> {
    if p2wpkh_script(secp, &coin.key) != coin.txout.script_pubkey {
        return Err(PeerError::NotItsCoin(coin.outpoint));
    }
    Ok(Input {
        outpoint: coin.outpoint,
        prevout: coin.txout.clone(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        unlock: Unlock::KeyHash { key: coin.key },
    })
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
