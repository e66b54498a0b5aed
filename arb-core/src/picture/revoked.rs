//! Outputs of a revoked commitment: found by value and script from per-HTLC penalty data, and
//! the outputs of the peer's second-stage transactions, which share one script (BOLT 5 V3 to V7).
//! Those are found here for a commitment that is no cheat, too: it may turn out to be one.
use crate::arbitrator::TxKind;
use crate::claim::{SigningKey, SingleSpend, SpendPath, Unlock};
use crate::facts::{Htlc, HtlcRecord};
use crate::format::{AnchorRule, CommitmentKeys, scripts};
use crate::height;
use crate::ids::{HtlcId, PerCommitmentSecret, Side};
use crate::picture::{Output, Role, View, Way, at_once};
use crate::units::{BlockHeight, CommitmentNumber, Confirmed, Tx};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Script, ScriptBuf, Sequence, TxOut, absolute::LockTime};

/// What we look for in the outputs of a revoked commitment.
struct Penalty<'a> {
    keys: CommitmentKeys,
    secret: &'a PerCommitmentSecret,
    to_local: ScriptBuf,
}

impl View<'_> {
    pub(super) fn revoked(
        &self,
        number: CommitmentNumber,
        secret: &PerCommitmentSecret,
        point: &PublicKey,
    ) -> Vec<Output> {
        let funding = &self.candidate.keys;
        let keys = CommitmentKeys::new(self.facts, funding, Side::Remote, *point, self.secp);
        let Ok(keys) = keys else { return Vec::new() };
        let delay = self.facts.remote.delay;
        let to_local = scripts::delayed(&keys.revocation, delay, &keys.owner_delayed);
        let penalty = Penalty { keys, secret, to_local };
        let mut expected = self.expected_htlcs(number, &penalty);
        let outputs = &self.tx.value.output;
        let mut read: Vec<Output> = (0u32..)
            .zip(outputs)
            .map(|(vout, output)| self.revoked_output(vout, output, &penalty, &mut expected))
            .collect();
        self.add_peer_second_stage(&mut read, &penalty);
        read
    }

    /// HTLCs that may be in the commitment, by value and script, lowest id last.
    fn expected_htlcs(
        &self,
        number: CommitmentNumber,
        penalty: &Penalty<'_>,
    ) -> BTreeMap<TxOut, Vec<(HtlcId, ScriptBuf)>> {
        let mut by_id: BTreeMap<HtlcId, Htlc> = BTreeMap::new();
        let live = self.facts.htlcs.iter().map(|(id, record)| (*id, *record));
        let loaded = self.arbitrator.revoked_htlcs.get(&number).into_iter().flatten().copied();
        let contained = |(_, record): &(HtlcId, HtlcRecord)| record.in_remote(number);
        by_id.extend(loaded.chain(live).filter(contained).map(|(id, r)| (id, r.htlc)));
        let mut expected: BTreeMap<TxOut, Vec<(HtlcId, ScriptBuf)>> = BTreeMap::new();
        for (id, htlc) in by_id.iter().rev() {
            let format = self.candidate.format;
            let script = scripts::htlc(format, &penalty.keys, *id, &htlc.hash, htlc.expiry);
            let output = TxOut { value: htlc.amount.floor(), script_pubkey: script.to_p2wsh() };
            expected.entry(output).or_default().push((*id, script));
        }
        expected
    }

    fn revoked_output(
        &self,
        vout: u32,
        output: &TxOut,
        penalty: &Penalty<'_>,
        expected: &mut BTreeMap<TxOut, Vec<(HtlcId, ScriptBuf)>>,
    ) -> Output {
        let (ours, our_way) = self.our_to_remote();
        let at = self.tx.at.height;
        let script = &output.script_pubkey;
        let (role, way) = if let Some((id, script)) = expected.get_mut(output).and_then(Vec::pop) {
            let unlock = Unlock::RevocationKey(penalty.keys.revocation);
            (Role::Htlc(id), self.penalty(at, script, unlock, penalty.secret, Some(id)))
        } else if *script == penalty.to_local.to_p2wsh() {
            let script = penalty.to_local.clone();
            (Role::ToLocal, self.penalty(at, script, Unlock::One, penalty.secret, None))
        } else if *script == ours.script_pubkey {
            (Role::ToRemote, our_way)
        } else {
            self.anchor(output).unwrap_or((Role::Unidentified, Way::Lost))
        };
        self.output(vout, output.clone(), role, way)
    }

    /// Whose anchor this is, if it is one.
    pub(super) fn anchor(&self, output: &TxOut) -> Option<(Role, Way)> {
        match self.anchor_owner(output) {
            Some(Side::Local) => Some((Role::Anchor(Side::Local), Way::Nothing)),
            Some(Side::Remote) => Some((Role::Anchor(Side::Remote), Way::Theirs)),
            None => self.is_shared_anchor(output).then_some((Role::SharedAnchor, Way::Nothing)),
        }
    }

    fn anchor_owner(&self, output: &TxOut) -> Option<Side> {
        let AnchorRule::Keyed(value) = self.candidate.format.anchors() else { return None };
        let of = |side: Side| scripts::anchor(&self.candidate.keys.of(side)).to_p2wsh();
        let same = |side: &Side| output.value == value && output.script_pubkey == of(*side);
        [Side::Local, Side::Remote].into_iter().find(same)
    }

    fn is_shared_anchor(&self, output: &TxOut) -> bool {
        matches!(self.candidate.format.anchors(), AnchorRule::Shared(_))
            && output.script_pubkey == scripts::shared_anchor()
    }

    /// A spend with the revocation key. The cheater can take the output once its delay is over,
    /// an HTLC by way of a second stage whose output is punished in turn.
    fn penalty(
        &self,
        confirmed: BlockHeight,
        script: ScriptBuf,
        unlock: Unlock,
        secret: &PerCommitmentSecret,
        htlc: Option<HtlcId>,
    ) -> Way {
        Way::Spend {
            path: SpendPath::Single(Box::new(SingleSpend {
                kind: TxKind::Penalty,
                htlc,
                script: Some(script),
                unlock,
                key: SigningKey::Revocation(*secret),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                lock_time: LockTime::ZERO,
                version: self.candidate.format.version(),
            })),
            due: at_once(confirmed),
            // The last block that is ours alone: the cheater's spend goes into the next one.
            deadline: Some(height::csv(confirmed, self.facts.remote.delay).tip),
        }
    }

    /// Outputs of the second-stage transactions of the commitment's owner, however it aggregates them: every
    /// output with the one script that they share, in every transaction that spends the commitment.
    pub(super) fn second_stages(
        &self,
        script: &Script,
    ) -> impl Iterator<Item = (&Confirmed<Tx>, OutPoint, &TxOut)> {
        let spends = |i: &bitcoin::TxIn| i.previous_output.txid == self.txid;
        let spenders = self.arbitrator.chain.iter();
        let spenders = spenders.filter(move |tx| tx.value.input.iter().any(spends));
        spenders.flat_map(move |tx| {
            let txid = tx.value.txid();
            let made = (0u32..).zip(&tx.value.output);
            let made = made.filter(move |(_, made)| made.script_pubkey.as_script() == script);
            made.map(move |(vout, made)| (tx, OutPoint { txid, vout }, made))
        })
    }

    fn add_peer_second_stage(&self, outputs: &mut Vec<Output>, penalty: &Penalty<'_>) {
        let script = penalty.to_local.to_p2wsh();
        let htlcs: BTreeMap<OutPoint, HtlcId> =
            outputs.iter().filter_map(|o| o.role.htlc().map(|id| (o.outpoint, id))).collect();
        for (tx, outpoint, made) in self.second_stages(&script) {
            let paired = usize::try_from(outpoint.vout).ok().and_then(|i| tx.value.input.get(i));
            let htlc = paired.and_then(|i| htlcs.get(&i.previous_output)).copied();
            let unlock = Unlock::One;
            let script = penalty.to_local.clone();
            outputs.push(Output {
                outpoint,
                output: made.clone(),
                at: tx.at,
                role: Role::SecondStage(htlc),
                way: self.penalty(tx.at.height, script, unlock, penalty.secret, htlc),
                spent: None,
            });
        }
    }
}
