//! Commitment formats: scripts, keys, transactions of BOLT 3. What differs between formats is
//! answered here and nowhere else.

/// Format of a commitment transaction and of what spends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommitmentFormat {
    /// `option_static_remotekey` without anchors.
    StaticRemotekey,
    /// `option_anchors`: zero-fee HTLC transactions.
    Anchors,
}
