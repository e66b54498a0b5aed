//! Who spent an output: told by the path that the witness takes, never by a txid or by the number
//! of witness elements.
use crate::ids::{HtlcId, PaymentHash, Preimage, Side};
use crate::picture::{Output, Role, View};
use crate::units::BlockRef;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{TxIn, Txid, Witness};

/// A confirmed spend of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpentBy {
    /// Block of the spend.
    pub at: BlockRef,
    /// The transaction.
    pub txid: Txid,
    /// Index of the input.
    pub input: usize,
    /// Who could take the path that was taken.
    pub by: Side,
}

/// The path that the spend of an HTLC output takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HtlcPath {
    Preimage(Preimage),
    Timeout,
    Revocation,
}

impl View<'_> {
    pub(super) fn spent_by(&self, output: &Output) -> Option<SpentBy> {
        let (tx, input) = self.arbitrator.spender(&output.outpoint)?;
        let txid = tx.value.compute_txid();
        let by = if self.arbitrator.acts.ours(txid).is_some() {
            Side::Local
        } else {
            self.by_path(output, tx.value.input.get(input)?)
        };
        Some(SpentBy { at: tx.at, txid, input, by })
    }

    fn by_path(&self, output: &Output, input: &TxIn) -> Side {
        let owner = self.owner;
        match output.role {
            Role::ToLocal | Role::SecondStage(_) if branch(&input.witness) == Some(&[1]) => {
                owner.other()
            }
            Role::ToLocal | Role::SecondStage(_) => owner,
            Role::ToRemote => owner.other(),
            Role::Anchor(side) => {
                let signed = input.witness.iter().next().is_some_and(|first| !first.is_empty());
                if signed { side } else { Side::Remote }
            }
            Role::Htlc(id) => self.htlc_spender(id, owner, &input.witness),
            Role::Paid(side) => side,
            Role::Unidentified => Side::Remote,
        }
    }

    fn htlc_spender(&self, id: HtlcId, owner: Side, witness: &Witness) -> Side {
        match self.hash_of(id).and_then(|hash| htlc_path(witness, hash)) {
            Some(HtlcPath::Preimage(_)) => id.offerer.other(),
            Some(HtlcPath::Timeout) => id.offerer,
            Some(HtlcPath::Revocation) => owner.other(),
            None => Side::Remote,
        }
    }

    fn hash_of(&self, id: HtlcId) -> Option<PaymentHash> {
        let live = self.facts.htlcs.get(&id).map(|record| record.htlc.hash);
        live.or_else(|| {
            let ended = self.arbitrator.revoked_htlcs.values().flatten();
            ended.into_iter().find(|(known, _)| *known == id).map(|(_, r)| r.htlc.hash)
        })
    }
}

/// The element that chooses the branch: the one before the script.
fn branch(witness: &Witness) -> Option<&[u8]> {
    let before_script = witness.len().checked_sub(2)?;
    witness.nth(before_script)
}

/// The path of an HTLC spend: the preimage is checked against the hash, so that a witness of the
/// right shape alone proves nothing.
pub(crate) fn htlc_path(witness: &Witness, hash: PaymentHash) -> Option<HtlcPath> {
    let chosen = branch(witness)?;
    if chosen.is_empty() {
        return Some(HtlcPath::Timeout);
    }
    if let Ok(bytes) = <[u8; 32]>::try_from(chosen) {
        let matches = sha256::Hash::hash(&bytes).to_byte_array() == hash.0;
        return matches.then_some(HtlcPath::Preimage(Preimage(bytes)));
    }
    (chosen.len() == 33).then_some(HtlcPath::Revocation)
}
