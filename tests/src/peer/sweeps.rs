//! What else the peer can take: delayed outputs, its main outputs, our outdated commitments, and
//! how it pays for a commitment through its anchor.

use bitcoin::absolute::LockTime;
use bitcoin::script::PushBytesBuf;
use bitcoin::secp256k1::PublicKey;
use bitcoin::transaction::Version;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Sequence, TxOut, Weight};
use lightning::ln::chan_utils::{
    derive_private_key, derive_private_revocation_key, get_keyed_anchor_redeemscript,
};

use super::claims::{Change, coin_input};
use super::sign::{Input, Plan, Unlock, fee};
use super::{
    Channel, Claim, ClaimFee, Commitment, Format, OutputRole, PeerCoin, PeerError, SecondLevel,
    Side,
};

impl Channel {
    /// The peer spends outputs of its HTLC transactions, after its delay.
    pub fn claim_second_level(
        &self,
        commitment: &Commitment,
        outputs: &[SecondLevel],
        fee: ClaimFee,
    ) -> Result<Claim, PeerError> {
        if outputs.is_empty() {
            return Err(PeerError::NothingToClaim);
        }
        let inputs = outputs
            .iter()
            .map(|output| self.delayed_input(commitment, output))
            .collect::<Result<Vec<_>, _>>()?;
        self.sweep(inputs, LockTime::ZERO, fee)
    }

    /// The peer spends its own `to_local`, after its delay.
    pub fn claim_to_local(
        &self,
        commitment: &Commitment,
        fee: ClaimFee,
    ) -> Result<Claim, PeerError> {
        let (outpoint, txout) =
            commitment.output(&OutputRole::ToLocal).ok_or(PeerError::NoSuchOutput)?;
        let input = self.delayed_input(commitment, &SecondLevel { outpoint, txout })?;
        self.sweep(vec![input], LockTime::ZERO, fee)
    }

    /// The peer spends `to_remote` of our commitment.
    pub fn claim_to_remote(
        &self,
        commitment: &Commitment,
        fee: ClaimFee,
    ) -> Result<Claim, PeerError> {
        if commitment.owner != Side::Local {
            return Err(PeerError::NotTheOwner(Side::Local));
        }
        let (outpoint, prevout) =
            commitment.output(&OutputRole::ToRemote).ok_or(PeerError::NoSuchOutput)?;
        let key = self.remote.payment;
        let (sequence, unlock) = match self.params.format {
            Format::Anchors => {
                let script = self.to_remote_script(&commitment.parts);
                (Sequence::from_height(1), Unlock::BareScript { script, key })
            }
            Format::StaticRemoteKey | Format::ZeroFee => {
                (Sequence::ENABLE_RBF_NO_LOCKTIME, Unlock::KeyHash { key })
            }
        };
        self.sweep(vec![Input { outpoint, prevout, sequence, unlock }], LockTime::ZERO, fee)
    }

    /// The peer takes `to_local` and every HTLC output of a commitment that we revoked.
    pub fn claim_penalty(
        &self,
        commitment: &Commitment,
        fee: ClaimFee,
    ) -> Result<Claim, PeerError> {
        if commitment.owner != Side::Local {
            return Err(PeerError::NotTheOwner(Side::Local));
        }
        if commitment.number >= self.local_number() {
            return Err(PeerError::NotRevoked(commitment.number));
        }
        let secret = self.local.commitment_secret(commitment.number)?;
        let key = derive_private_revocation_key(&self.secp, &secret, &self.remote.revocation_base);
        let public = PublicKey::from_secret_key(&self.secp, &key).serialize().to_vec();
        let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        let mut inputs = Vec::new();
        let mut htlcs = Vec::new();
        for role in commitment.outputs.values() {
            let (script, element, (outpoint, prevout)) = match role {
                OutputRole::ToLocal => {
                    let output = commitment.output(role).ok_or(PeerError::NoSuchOutput)?;
                    (self.delayed_script(&commitment.parts), vec![1], output)
                }
                OutputRole::Htlc { name, .. } => {
                    let (terms, _, output) = self.htlc_output(commitment, name)?;
                    htlcs.push(name.clone());
                    (self.htlc_script(&commitment.parts, terms), public.clone(), output)
                }
                OutputRole::ToRemote | OutputRole::Anchor(_) | OutputRole::SharedAnchor => continue,
            };
            let unlock = Unlock::Script { script, key, element };
            inputs.push(Input { outpoint, prevout, sequence, unlock });
        }
        if inputs.is_empty() {
            return Err(PeerError::NothingToClaim);
        }
        let mut claim = self.sweep(inputs, LockTime::ZERO, fee)?;
        claim.htlcs = htlcs;
        Ok(claim)
    }

    /// A child of an unconfirmed commitment, of either side, that spends the peer's anchor and
    /// lifts both transactions together to `rate`.
    pub fn anchor_child(
        &self,
        commitment: &Commitment,
        rate: FeeRate,
        coins: &[PeerCoin],
    ) -> Result<Claim, PeerError> {
        let keyed = OutputRole::Anchor(Side::Remote);
        let key = self.remote.funding;
        let (role, version, unlock) = match self.params.format {
            Format::StaticRemoteKey => return Err(PeerError::NoSuchOutput),
            Format::Anchors => {
                let script = get_keyed_anchor_redeemscript(&self.keys(Side::Remote).funding);
                (keyed, Version::TWO, Unlock::BareScript { script, key })
            }
            // A child of an unconfirmed version 3 transaction is version 3, BIP 431.
            Format::ZeroFee => (OutputRole::SharedAnchor, Version::non_standard(3), Unlock::Anyone),
        };
        let (outpoint, prevout) = commitment.output(&role).ok_or(PeerError::NoSuchOutput)?;
        let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        let inputs = vec![Input { outpoint, prevout, sequence, unlock }];
        let plan = Plan { version, lock_time: LockTime::ZERO, inputs, outputs: Vec::new() };
        let paid = self.commitment_fee(commitment)?;
        // The network counts whole virtual bytes, of each.
        let whole = |weight: Weight| Weight::from_vb(weight.to_vbytes_ceil()).unwrap_or(weight);
        self.fund(plan, coins, Change::Required, |weight: Weight| {
            let package = fee(rate, whole(weight) + whole(commitment.tx.weight()))?;
            // The child alone never pays less than the rate.
            Ok(package.checked_sub(paid).unwrap_or_default().max(fee(rate, whole(weight))?))
        })
    }

    /// The peer hands a coin of its own to itself; the change is all that it leaves. Beside it is an
    /// output with so many bytes of data, if that is any.
    pub fn pass_on(&self, coin: &PeerCoin, fee: ClaimFee, data: u64) -> Result<Claim, PeerError> {
        let data = usize::try_from(data).ok().filter(|data| *data > 0);
        let data = data.and_then(|data| PushBytesBuf::try_from(vec![0; data]).ok());
        let beside = data.map(|data| TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::new_op_return(data),
        });
        let inputs = vec![coin_input(&self.secp, coin)?];
        let mut claim = self.sweep_beside(inputs, LockTime::ZERO, fee, beside.as_slice())?;
        let txid = claim.tx.compute_txid();
        let left = claim.tx.output.first().map(|output| output.value);
        claim.change = left.map(|value| self.peer_coin(OutPoint { txid, vout: 0 }, value));
        Ok(claim)
    }

    /// What a commitment pays to the miner.
    pub fn commitment_fee(&self, commitment: &Commitment) -> Result<Amount, PeerError> {
        let mut fee = self.params.capacity;
        for output in &commitment.tx.output {
            fee = fee.checked_sub(output.value).ok_or(PeerError::AmountOverflow)?;
        }
        Ok(fee)
    }

    /// An output with the owner's delay, on the peer's commitment or one of its HTLC transactions.
    fn delayed_input(
        &self,
        commitment: &Commitment,
        output: &SecondLevel,
    ) -> Result<Input, PeerError> {
        if commitment.owner != Side::Remote {
            return Err(PeerError::NotTheOwner(Side::Remote));
        }
        let SecondLevel { outpoint, txout } = output;
        let outpoint: OutPoint = *outpoint;
        let key = derive_private_key(
            &self.secp,
            &commitment.parts.point(),
            &self.remote.delayed_payment_base,
        );
        let script = self.delayed_script(&commitment.parts);
        Ok(Input {
            outpoint,
            prevout: txout.clone(),
            sequence: Sequence::from_height(self.delay(Side::Remote)),
            unlock: Unlock::Script { script, key, element: Vec::new() },
        })
    }
}
