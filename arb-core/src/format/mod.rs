//! Commitment formats: scripts, keys, transactions of BOLT 3. What differs between formats is
//! answered here and nowhere else.
pub mod commitment;
pub mod htlc_tx;
pub mod keys;
pub mod number;
pub mod rules;
pub mod scripts;
pub mod weights;
pub mod witness;

#[cfg(test)]
pub(crate) mod vectors;

pub use commitment::{
    BuildError, Commitment, CommitmentOutput, CommitmentSpec, OutputKind, build, local_commitment,
    remote_commitment,
};
pub use htlc_tx::{HtlcTransaction, htlc_transactions};
pub use keys::{ChannelSecrets, CommitmentKeys, DerivationError};
pub use number::{ObscuringFactor, commitment_number_of};
pub use rules::{AnchorRule, HtlcDirection};
pub use witness::{SighashError, sighash};

/// Format of a commitment transaction and of what spends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommitmentFormat {
    /// `option_static_remotekey` without anchors.
    StaticRemotekey,
    /// `option_anchors`: zero-fee HTLC transactions.
    Anchors,
    /// `zero_fee_commitments`: neither commitments nor HTLC transactions pay a fee, all are of version
    /// 3, and one anchor is for everybody.
    ZeroFee,
}
