//! Who spent an output: told by the path that the witness takes, never by a txid or by the number
//! of witness elements.
use crate::ids::{HtlcId, PaymentHash, Preimage, Side};
use crate::picture::{Output, Role, View};
use crate::units::BlockRef;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::opcodes::all::{OP_DUP, OP_HASH160};
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
        let txid = tx.value.txid();
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
            Role::ToLocal | Role::SecondStage(_) if takes_if(&input.witness) => owner.other(),
            Role::ToLocal | Role::SecondStage(_) => owner,
            Role::ToRemote => owner.other(),
            Role::Anchor(side) => {
                let signed = input.witness.iter().next().is_some_and(|first| !first.is_empty());
                if signed { side } else { Side::Remote }
            }
            Role::Htlc(id) => self.htlc_spender(id, owner, &input.witness),
            Role::Paid(side) => side,
            // Anybody's, as long as it is none of ours.
            Role::SharedAnchor | Role::Unidentified => Side::Remote,
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

/// Whether the element that chooses the branch is true for `OP_IF`: anything but zeros, of which
/// the last may carry a sign. A miner need not write a one.
fn takes_if(witness: &Witness) -> bool {
    let Some((last, rest)) = branch(witness).and_then(<[u8]>::split_last) else { return false };
    rest.iter().any(|byte| *byte != 0) || !matches!(last, 0 | 0x80)
}

/// The path of an HTLC spend. The preimage and the revocation key are checked against their
/// hashes, so that a witness of the right shape alone proves nothing. Whatever else the element
/// is, the scripts drop it: only its length tells the preimage's branch from that of the timeout.
pub(crate) fn htlc_path(witness: &Witness, hash: PaymentHash) -> Option<HtlcPath> {
    let chosen = branch(witness)?;
    if revocation_hash(witness) == Some(&hash160::Hash::hash(chosen).to_byte_array()[..]) {
        return Some(HtlcPath::Revocation);
    }
    let Ok(bytes) = <[u8; 32]>::try_from(chosen) else { return Some(HtlcPath::Timeout) };
    let preimage = Preimage(bytes);
    (preimage.hash() == hash).then_some(HtlcPath::Preimage(preimage))
}

/// The hash of the revocation key: both HTLC scripts begin with `OP_DUP OP_HASH160 <hash>`.
fn revocation_hash(witness: &Witness) -> Option<&[u8]> {
    witness.last()?.strip_prefix(&[OP_DUP.to_u8(), OP_HASH160.to_u8(), 20])?.get(..20)
}

#[cfg(test)]
mod tests;
