//! Commitment transactions of both sides and the HTLC transactions that hang on them.

use std::collections::{BTreeMap, VecDeque};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid};
use lightning::ln::chan_utils::{
    CommitmentTransaction, HTLCOutputInCommitment, TxCreationKeys, build_htlc_transaction,
    derive_private_key, get_countersigner_payment_script, get_htlc_redeemscript,
    get_keyed_anchor_redeemscript, get_revokeable_redeemscript,
    get_to_countersigner_keyed_anchor_redeemscript, htlc_success_tx_weight, htlc_timeout_tx_weight,
    shared_anchor_script_pubkey,
};
use lightning::types::payment::PaymentHash;

use super::history::State;
use super::keys::FIRST_SECRET_INDEX;
use super::sign::{Input, Plan, Unlock};
use super::{Channel, Format, Htlc, HtlcRef, PeerError, Side};

/// What an output of a commitment is; `ToLocal` and `ToRemote` as seen from its owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputRole {
    ToLocal,
    ToRemote,
    /// The anchor that this side's funding key spends.
    Anchor(Side),
    /// The one anchor of a commitment without fees, anyone's.
    SharedAnchor,
    Htlc {
        name: String,
        htlc: HtlcRef,
    },
}

/// A commitment transaction, signed by both sides.
#[derive(Clone, Debug)]
pub struct Commitment {
    /// Whose commitment it is: who may publish it.
    pub owner: Side,
    pub number: u64,
    pub tx: Transaction,
    /// What each output is.
    pub outputs: BTreeMap<u32, OutputRole>,
    /// Names of the pending HTLCs without an output.
    pub trimmed: Vec<String>,
    pub(super) parts: Unsigned,
}

/// A commitment before anybody signed it.
#[derive(Clone, Debug)]
pub(super) struct Unsigned {
    owner: Side,
    built: CommitmentTransaction,
    /// Positions in the history, in output order: one for each of `built.nondust_htlcs()`.
    htlcs: Vec<usize>,
    trimmed: Vec<usize>,
}

impl Commitment {
    /// The transaction's id.
    pub fn txid(&self) -> Txid {
        self.parts.txid()
    }

    /// The output index of an HTLC.
    pub fn htlc_index(&self, wanted: &str) -> Option<u32> {
        self.index_of(|role| matches!(role, OutputRole::Htlc { name, .. } if name == wanted))
    }

    /// The index of the output with this meaning.
    pub fn role_index(&self, wanted: &OutputRole) -> Option<u32> {
        self.index_of(|role| role == wanted)
    }

    /// The output with this meaning.
    pub fn output(&self, wanted: &OutputRole) -> Option<(OutPoint, TxOut)> {
        self.at(self.role_index(wanted)?)
    }

    fn index_of(&self, wanted: impl Fn(&OutputRole) -> bool) -> Option<u32> {
        self.outputs.iter().find(|(_, role)| wanted(role)).map(|(index, _)| *index)
    }

    fn at(&self, vout: u32) -> Option<(OutPoint, TxOut)> {
        let output = self.tx.output.get(vout as usize)?;
        Some((OutPoint { txid: self.txid(), vout }, output.clone()))
    }
}

impl Unsigned {
    pub(super) fn txid(&self) -> Txid {
        self.built.trust().txid()
    }

    pub(super) fn keys(&self) -> &TxCreationKeys {
        self.built.trust().keys()
    }

    pub(super) fn point(&self) -> PublicKey {
        self.built.per_commitment_point()
    }

    fn transaction(&self) -> &Transaction {
        &self.built.trust().built_transaction().transaction
    }
}

impl Channel {
    /// Our current commitment.
    pub fn local_commitment(&self) -> Result<Commitment, PeerError> {
        self.commitment(Side::Local, self.local_number())
    }

    /// Our commitment `number`, outdated or not.
    pub fn local_commitment_at(&self, number: u64) -> Result<Commitment, PeerError> {
        self.commitment(Side::Local, number)
    }

    /// The peer's commitment `number`: revoked, current or next.
    pub fn remote_commitment(&self, number: u64) -> Result<Commitment, PeerError> {
        self.commitment(Side::Remote, number)
    }

    /// The peer's current commitment.
    pub fn remote_current(&self) -> Result<Commitment, PeerError> {
        self.commitment(Side::Remote, self.remote_number())
    }

    /// The peer's next commitment, which it holds beside the current one.
    pub fn remote_next(&self) -> Result<Commitment, PeerError> {
        let number = self.remote_next_number().ok_or(PeerError::NoNextCommitment)?;
        self.commitment(Side::Remote, number)
    }

    /// Any commitment of either side, signed by both.
    pub fn commitment(&self, owner: Side, number: u64) -> Result<Commitment, PeerError> {
        let parts = self.unsigned(owner, number)?;
        let unsigned = parts.transaction();
        let plan = Plan {
            version: unsigned.version,
            lock_time: unsigned.lock_time,
            inputs: unsigned
                .input
                .iter()
                .map(|input| self.funding_input(input.sequence))
                .collect::<Result<Vec<_>, _>>()?,
            outputs: unsigned.output.clone(),
        };
        let tx = plan.sign(&self.secp)?;
        let outputs = self.roles(&parts)?;
        let trimmed = parts.trimmed.iter().map(|at| self.htlc_at(*at).name.clone()).collect();
        Ok(Commitment { owner, number, tx, outputs, trimmed, parts })
    }

    pub(super) fn unsigned(&self, owner: Side, number: u64) -> Result<Unsigned, PeerError> {
        let state = self.state(owner, number)?;
        let directed = self.directed(owner)?;
        let point = self.commitment_point(owner, number)?;
        let (kept, trimmed) = self.trim(owner, state);
        let (to_owner, to_other) = self.main_outputs(owner, state, kept.len())?;
        let terms = kept.iter().map(|at| htlc_terms(owner, self.htlc_at(*at))).collect::<Vec<_>>();
        let index = FIRST_SECRET_INDEX
            .checked_sub(number)
            .ok_or(PeerError::NoSuchCommitment { owner, number })?;
        let built = CommitmentTransaction::new(
            index,
            &point,
            to_owner,
            to_other,
            state.feerate_per_kw,
            terms,
            &directed,
            &self.secp,
        );
        let htlcs = self.output_order(owner, &built, &kept)?;
        Ok(Unsigned { owner, built, htlcs, trimmed })
    }

    /// The funding output as an input that both sides sign.
    pub(super) fn funding_input(&self, sequence: Sequence) -> Result<Input, PeerError> {
        let (local, remote) = (self.keys(Side::Local).funding, self.keys(Side::Remote).funding);
        // BOLT 3: the lexicographically lesser key comes first.
        let keys = if local.serialize() < remote.serialize() {
            [self.local.funding, self.remote.funding]
        } else {
            [self.remote.funding, self.local.funding]
        };
        Ok(Input {
            outpoint: self.funding()?,
            prevout: self.funding_output(),
            sequence,
            unlock: Unlock::Funding { script: self.funding_redeem_script(), keys },
        })
    }

    /// One side's signature for the funding input of a commitment, SIGHASH_ALL.
    pub(super) fn funding_signature(&self, commitment: &Unsigned, signer: Side) -> Signature {
        let built = commitment.built.trust().built_transaction();
        let capacity = self.params.capacity.to_sat();
        let message = built.get_sighash_all(&self.funding_redeem_script(), capacity);
        self.secp.sign_ecdsa(&message, &self.secrets(signer).funding)
    }

    /// The other side's signatures for the owner's HTLC transactions, in output order.
    pub(super) fn htlc_signatures(&self, from: &Unsigned) -> Result<Vec<Signature>, PeerError> {
        let htlcs = from.built.nondust_htlcs().iter();
        htlcs
            .map(|htlc| self.counter_signature(from, htlc, &self.htlc_transaction(from, htlc)))
            .collect()
    }

    /// The input that spends an HTLC output by the owner's second-stage transaction, and that
    /// transaction's only output: with the preimage if the other side offered it, else by
    /// timeout at the lock time that is returned.
    pub(super) fn second_stage(
        &self,
        commitment: &Commitment,
        name: &str,
    ) -> Result<(Input, TxOut, LockTime), PeerError> {
        let (terms, htlc, (outpoint, prevout)) = self.htlc_output(commitment, name)?;
        let from = &commitment.parts;
        let tx = self.htlc_transaction(from, terms);
        let htlc_base = &self.secrets(commitment.owner).htlc_base;
        let unlock = Unlock::SecondStage {
            script: self.htlc_script(from, terms),
            key: derive_private_key(&self.secp, &from.point(), htlc_base),
            counter_signature: self.counter_signature(from, terms, &tx)?,
            preimage: (!terms.offered).then_some(htlc.preimage),
            features: self.params.format.features(),
        };
        let (input, output) =
            tx.input.first().zip(tx.output.first()).ok_or(PeerError::NoSuchOutput)?;
        let input = Input { outpoint, prevout, sequence: input.sequence, unlock };
        Ok((input, output.clone(), tx.lock_time))
    }

    /// An HTLC's terms as the owner sees them, its record and its output.
    pub(super) fn htlc_output<'a>(
        &'a self,
        commitment: &'a Commitment,
        name: &str,
    ) -> Result<(&'a HTLCOutputInCommitment, &'a Htlc, (OutPoint, TxOut)), PeerError> {
        let wanted = self.htlc(name)?;
        if commitment.trimmed.iter().any(|trimmed| trimmed == name) {
            return Err(PeerError::HtlcTrimmed(name.to_owned()));
        }
        let missing = || PeerError::HtlcNotInCommitment(name.to_owned());
        let parts = &commitment.parts;
        let (terms, at) = (parts.built.nondust_htlcs().iter().zip(&parts.htlcs))
            .find(|(_, at)| self.htlc_at(**at).htlc == wanted.htlc)
            .ok_or_else(missing)?;
        let output = terms.transaction_output_index.and_then(|vout| commitment.at(vout));
        Ok((terms, self.htlc_at(*at), output.ok_or_else(missing)?))
    }

    pub(super) fn htlc_script(&self, from: &Unsigned, htlc: &HTLCOutputInCommitment) -> ScriptBuf {
        get_htlc_redeemscript(htlc, &self.params.format.features(), from.keys())
    }

    /// The script of `to_local` and of every second-stage output.
    pub(super) fn delayed_script(&self, from: &Unsigned) -> ScriptBuf {
        let keys = from.keys();
        let delay = self.delay(from.owner);
        get_revokeable_redeemscript(
            &keys.revocation_key,
            delay,
            &keys.broadcaster_delayed_payment_key,
        )
    }

    pub(super) fn to_remote_script(&self, from: &Unsigned) -> ScriptBuf {
        get_to_countersigner_keyed_anchor_redeemscript(
            &self.keys(from.owner.other()).payment_basepoint,
        )
    }

    pub(super) fn htlc_transaction_version(&self) -> Version {
        match self.params.format {
            Format::StaticRemoteKey | Format::Anchors => Version::TWO,
            Format::ZeroFee => Version::non_standard(3),
        }
    }

    fn htlc_transaction(&self, from: &Unsigned, htlc: &HTLCOutputInCommitment) -> Transaction {
        let keys = from.keys();
        build_htlc_transaction(
            &from.txid(),
            from.built.negotiated_feerate_per_kw(),
            self.delay(from.owner),
            htlc,
            &self.params.format.features(),
            &keys.broadcaster_delayed_payment_key,
            &keys.revocation_key,
        )
    }

    fn counter_signature(
        &self,
        from: &Unsigned,
        htlc: &HTLCOutputInCommitment,
        tx: &Transaction,
    ) -> Result<Signature, PeerError> {
        let kind = match self.params.format {
            Format::StaticRemoteKey => EcdsaSighashType::All,
            Format::Anchors | Format::ZeroFee => EcdsaSighashType::SinglePlusAnyoneCanPay,
        };
        let script = self.htlc_script(from, htlc);
        let hash = SighashCache::new(tx)
            .p2wsh_signature_hash(0, &script, htlc.to_bitcoin_amount(), kind)
            .map_err(|_| PeerError::SignatureHash)?;
        let base = &self.secrets(from.owner.other()).htlc_base;
        let key = derive_private_key(&self.secp, &from.point(), base);
        Ok(self.secp.sign_ecdsa(&Message::from_digest(hash.to_byte_array()), &key))
    }

    /// BOLT 3 "Trimmed Outputs": an HTLC below the owner's dust limit plus the fee of its HTLC
    /// transaction has no output.
    fn trim(&self, owner: Side, state: &State) -> (Vec<usize>, Vec<usize>) {
        let features = self.params.format.features();
        let second_stage_fee = |htlc: &Htlc| match self.params.format {
            Format::Anchors | Format::ZeroFee => 0,
            Format::StaticRemoteKey => {
                let weight = if htlc.htlc.offerer == owner {
                    htlc_timeout_tx_weight(&features)
                } else {
                    htlc_success_tx_weight(&features)
                };
                u64::from(state.feerate_per_kw) * weight / 1000
            }
        };
        let dust = self.dust(owner).to_sat();
        state.htlcs.iter().partition(|at| {
            let htlc = self.htlc_at(**at);
            htlc.amount_sat() >= dust.saturating_add(second_stage_fee(htlc))
        })
    }

    /// Values of `to_local` and `to_remote` in sat, 0 where trimmed: rounded down from msat, the
    /// fee and the anchors taken from the opener as far as its balance goes.
    fn main_outputs(
        &self,
        owner: Side,
        state: &State,
        htlcs: usize,
    ) -> Result<(u64, u64), PeerError> {
        let (base, per_htlc, anchors) = match self.params.format {
            Format::StaticRemoteKey => (724u64, 172u64, 0u64),
            Format::Anchors => (1124, 172, 660),
            Format::ZeroFee => (0, 0, 0),
        };
        let weight = base + per_htlc * htlcs as u64;
        let fee = u64::from(state.feerate_per_kw) * weight / 1000;
        let mut local = state.balances.local_msat / 1000;
        let mut remote = state.balances.remote_msat / 1000;
        let payer = match self.params.opener {
            Side::Local => &mut local,
            Side::Remote => &mut remote,
        };
        *payer = payer.saturating_sub(fee.checked_add(anchors).ok_or(PeerError::AmountOverflow)?);
        let dust = self.dust(owner).to_sat();
        let trimmed = |value: u64| if value < dust { 0 } else { value };
        let (local, remote) = (trimmed(local), trimmed(remote));
        Ok(match owner {
            Side::Local => (local, remote),
            Side::Remote => (remote, local),
        })
    }

    /// Which HTLC each of `built`'s HTLC outputs is; equal ones in the order of their statements.
    fn output_order(
        &self,
        owner: Side,
        built: &CommitmentTransaction,
        kept: &[usize],
    ) -> Result<Vec<usize>, PeerError> {
        let mut equal: BTreeMap<_, VecDeque<usize>> = BTreeMap::new();
        for at in kept {
            let htlc = self.htlc_at(*at);
            let terms =
                (htlc.htlc.offerer == owner, htlc.amount_msat, htlc.cltv_expiry, htlc.payment_hash);
            equal.entry(terms).or_default().push_back(*at);
        }
        (built.nondust_htlcs().iter())
            .map(|output| {
                let PaymentHash(hash) = output.payment_hash;
                equal
                    .get_mut(&(output.offered, output.amount_msat, output.cltv_expiry, hash))
                    .and_then(VecDeque::pop_front)
                    .ok_or(PeerError::NoSuchOutput)
            })
            .collect()
    }

    fn roles(&self, from: &Unsigned) -> Result<BTreeMap<u32, OutputRole>, PeerError> {
        let features = self.params.format.features();
        let other = from.owner.other();
        let anchor =
            |side: Side| get_keyed_anchor_redeemscript(&self.keys(side).funding).to_p2wsh();
        let to_remote =
            get_countersigner_payment_script(&features, &self.keys(other).payment_basepoint);
        let fixed = [
            (self.delayed_script(from).to_p2wsh(), OutputRole::ToLocal),
            (to_remote, OutputRole::ToRemote),
            (anchor(Side::Local), OutputRole::Anchor(Side::Local)),
            (anchor(Side::Remote), OutputRole::Anchor(Side::Remote)),
            (shared_anchor_script_pubkey(), OutputRole::SharedAnchor),
        ];
        let mut roles = BTreeMap::new();
        for (terms, at) in from.built.nondust_htlcs().iter().zip(&from.htlcs) {
            let index = terms.transaction_output_index.ok_or(PeerError::NoSuchOutput)?;
            let htlc = self.htlc_at(*at);
            roles.insert(index, OutputRole::Htlc { name: htlc.name.clone(), htlc: htlc.htlc });
        }
        for (index, output) in (0u32..).zip(&from.transaction().output) {
            if roles.contains_key(&index) {
                continue;
            }
            let (_, role) = (fixed.iter().find(|(script, _)| *script == output.script_pubkey))
                .ok_or(PeerError::NoSuchOutput)?;
            roles.insert(index, role.clone());
        }
        Ok(roles)
    }
}

/// An HTLC as `lightning` wants it: `offered` is seen from the owner of the commitment.
fn htlc_terms(owner: Side, htlc: &Htlc) -> HTLCOutputInCommitment {
    HTLCOutputInCommitment {
        offered: htlc.htlc.offerer == owner,
        amount_msat: htlc.amount_msat,
        cltv_expiry: htlc.cltv_expiry,
        payment_hash: PaymentHash(htlc.payment_hash),
        transaction_output_index: None,
    }
}
