//! Outputs of a live commitment, ours or the peer's: all of them are known by index.
use crate::arbitrator::{PreimageSource, TxKind};
use crate::claim::{SecondStage, SigningKey, SingleSpend, SpendPath, Unlock};
use crate::facts::{Htlc, HtlcLink, LocalCommitment};
use crate::format::{Commitment, CommitmentKeys, CommitmentOutput, OutputKind, htlc_tx, scripts};
use crate::height::{self, Due};
use crate::ids::{HtlcId, Preimage, Side};
use crate::picture::{Output, Role, View, Way};
use crate::units::BlockHeight;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::transaction::Version;
use bitcoin::{ScriptBuf, absolute::LockTime};

impl View<'_> {
    pub(super) fn live(&self, point: &PublicKey, commitment: &Commitment) -> Vec<Output> {
        let mut outputs: Vec<Output> = Vec::with_capacity(commitment.outputs.len());
        for known in &commitment.outputs {
            let (role, way) = match known.kind {
                OutputKind::ToLocal => (Role::ToLocal, self.to_local(commitment)),
                OutputKind::ToRemote => (Role::ToRemote, self.to_remote()),
                OutputKind::Anchor(Side::Local) => (Role::Anchor(Side::Local), Way::Nothing),
                OutputKind::Anchor(Side::Remote) => (Role::Anchor(Side::Remote), Way::Theirs),
                OutputKind::SharedAnchor => (Role::SharedAnchor, Way::Nothing),
                OutputKind::Htlc(id) => (Role::Htlc(id), self.htlc(id, known, point, commitment)),
            };
            outputs.push(self.output(known.vout, known.output.clone(), role, way));
        }
        if self.owner == Side::Local {
            self.add_our_second_stage(&mut outputs, commitment);
        }
        outputs
    }

    fn to_local(&self, commitment: &Commitment) -> Way {
        match self.owner {
            Side::Local => self.delayed(&commitment.spec.keys, self.tx.at.height, None),
            Side::Remote => Way::Theirs,
        }
    }

    fn to_remote(&self) -> Way {
        match self.owner {
            Side::Local => Way::Theirs,
            Side::Remote => self.our_to_remote().1,
        }
    }

    /// Our delayed output: `to_local`, or the output of our second stage (BOLT 5 L1, L2, LL3).
    pub(super) fn delayed(
        &self,
        keys: &CommitmentKeys,
        confirmed: BlockHeight,
        htlc: Option<HtlcId>,
    ) -> Way {
        let form = scripts::to_local(keys, self.facts.local.delay);
        Way::Spend {
            path: SpendPath::Single(Box::new(SingleSpend {
                kind: TxKind::Sweep,
                htlc,
                script: form.witness_script,
                unlock: Unlock::Empty,
                key: SigningKey::DelayedPayment(keys.point),
                sequence: form.sequence,
                lock_time: LockTime::ZERO,
                version: Version::TWO,
            })),
            due: height::sequence(confirmed, form.sequence),
            deadline: None,
        }
    }

    fn htlc(
        &self,
        id: HtlcId,
        known: &CommitmentOutput,
        point: &PublicKey,
        commitment: &Commitment,
    ) -> Way {
        let Some(record) = self.facts.htlcs.get(&id) else { return Way::Lost };
        let htlc = &record.htlc;
        let preimage = match id.offerer {
            Side::Local => None,
            Side::Remote => match self.usable_preimage(id, htlc) {
                Some(preimage) => Some(preimage),
                None => return Way::NeedsPreimage { expiry: htlc.expiry.0 },
            },
        };
        let path = match self.owner {
            Side::Local => self.second_stage(id, known.vout, point, commitment, preimage),
            Side::Remote => Some(self.direct(id, htlc, known.script.clone(), point, preimage)),
        };
        let Some(path) = path else { return Way::Lost };
        Way::Spend { path, due: self.due(id, htlc), deadline: self.deadline(id, htlc) }
    }

    /// The height by which a claim must be confirmed: a received HTLC before its expiry; an
    /// offered one before the HTLC that it forwards expires. With the preimage the incoming one is
    /// fulfilled in any case, and a bidding war with the peer would only feed the miners.
    fn deadline(&self, id: HtlcId, htlc: &Htlc) -> Option<BlockHeight> {
        match (id.offerer, htlc.link) {
            (Side::Remote, _) => Some(htlc.expiry.0),
            (Side::Local, HtlcLink::ForwardOf { expiry, .. }) => {
                let fulfilled = self.arbitrator.upstream_preimage(htlc.hash).is_some();
                (!fulfilled).then_some(expiry.0)
            }
            (Side::Local, _) => None,
        }
    }

    fn due(&self, id: HtlcId, htlc: &Htlc) -> Due {
        let opened = height::sequence(self.tx.at.height, self.candidate.format.htlc_sequence());
        match id.offerer {
            Side::Local => height::cltv(htlc.expiry).and(opened),
            Side::Remote => opened,
        }
    }

    /// The preimage that may be revealed for this received HTLC (BOLT 5 LR1, LR1n, LR2, RR1).
    pub(super) fn usable_preimage(&self, id: HtlcId, htlc: &Htlc) -> Option<Preimage> {
        usable_preimage(self.arbitrator, id, htlc)
    }

    /// HTLC-timeout or HTLC-success transaction on our commitment (BOLT 5 LL2, LR1).
    fn second_stage(
        &self,
        id: HtlcId,
        vout: u32,
        point: &PublicKey,
        commitment: &Commitment,
        preimage: Option<Preimage>,
    ) -> Option<SpendPath> {
        let remote_signature = htlc_signature(&self.candidate.local, commitment, vout)?;
        let built =
            htlc_tx::htlc_transactions(commitment).into_iter().find(|tx| tx.vout == vout)?;
        Some(SpendPath::SecondStage(Box::new(SecondStage {
            htlc: id,
            transaction: built.transaction,
            script: built.script,
            key: SigningKey::Htlc(*point),
            remote_signature,
            extensible: self.candidate.format.extensible(),
            preimage,
        })))
    }

    /// Spend of an HTLC output on the peer's commitment (BOLT 5 RL2, RR1).
    fn direct(
        &self,
        id: HtlcId,
        htlc: &Htlc,
        script: Option<ScriptBuf>,
        point: &PublicKey,
        preimage: Option<Preimage>,
    ) -> SpendPath {
        let lock_time = match id.offerer {
            Side::Local => LockTime::from_height(htlc.expiry.0.0).unwrap_or(LockTime::ZERO),
            Side::Remote => LockTime::ZERO,
        };
        SpendPath::Single(Box::new(SingleSpend {
            kind: TxKind::Claim,
            htlc: Some(id),
            script,
            unlock: preimage.map_or(Unlock::Empty, Unlock::Preimage),
            key: SigningKey::Htlc(*point),
            sequence: self.candidate.format.htlc_sequence(),
            lock_time,
            version: Version::TWO,
        }))
    }

    /// Outputs of our confirmed second-stage transactions: found by script, first at the index
    /// that SIGHASH_SINGLE pairs with the input.
    fn add_our_second_stage(&self, outputs: &mut Vec<Output>, commitment: &Commitment) {
        let spec = &commitment.spec;
        let script = scripts::to_local(&spec.keys, spec.delay).script_pubkey;
        let mut found: Vec<Output> = Vec::new();
        for output in outputs.iter_mut() {
            let Role::Htlc(id) = output.role else { continue };
            output.spent = self.spent_by(output);
            let Some((tx, input)) = self.arbitrator.spender(&output.outpoint) else { continue };
            if output.spent.is_none_or(|spent| spent.by != Side::Local) {
                continue;
            }
            let Some(made) = tx.value.output.get(input).filter(|o| o.script_pubkey == script)
            else {
                continue;
            };
            let Ok(vout) = u32::try_from(input) else { continue };
            let outpoint = bitcoin::OutPoint { txid: tx.value.txid(), vout };
            found.push(Output {
                outpoint,
                output: made.clone(),
                at: tx.at,
                role: Role::SecondStage(Some(id)),
                way: self.delayed(&spec.keys, tx.at.height, Some(id)),
                spent: None,
            });
        }
        outputs.append(&mut found);
    }
}

/// The preimage that may be revealed for this received HTLC. The node's own preimage serves final
/// HTLCs only; one learned downstream serves the HTLC that it was forwarded from; an HTLC that is
/// not irrevocably committed is never claimed.
pub(crate) fn usable_preimage(
    arbitrator: &crate::arbitrator::ChannelArbitrator,
    id: HtlcId,
    htlc: &Htlc,
) -> Option<Preimage> {
    arbitrator.sources(htlc.hash).find_map(|(source, preimage)| match (htlc.link, source) {
        (HtlcLink::Final, PreimageSource::Node) => Some(preimage),
        (HtlcLink::ForwardedTo { .. }, PreimageSource::Linked(of)) if of == id => Some(preimage),
        _ => None,
    })
}

/// The peer's signature of the HTLC transaction that spends this output: signatures come in the
/// order of the HTLC outputs (BOLT 2).
fn htlc_signature(
    local: &LocalCommitment,
    commitment: &Commitment,
    vout: u32,
) -> Option<ecdsa::Signature> {
    let is_htlc = |o: &&CommitmentOutput| matches!(o.kind, OutputKind::Htlc(_));
    let position = commitment.outputs.iter().filter(is_htlc).position(|o| o.vout == vout)?;
    local.htlc_signatures.get(position).copied()
}
