//! HTLCs as the node states them, with the link that says whom a preimage may serve.
use crate::ids::{HtlcRef, PaymentHash};
use crate::units::{CltvExpiry, CommitmentNumber, MilliSat};

/// The terms of an HTLC (BOLT 2 `update_add_htlc`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Htlc {
    /// Amount, in milli-satoshis.
    pub amount: MilliSat,
    /// Hash that its preimage opens.
    pub hash: PaymentHash,
    /// Height from which the offerer may take it back.
    pub expiry: CltvExpiry,
    /// Where it comes from or goes to.
    pub link: HtlcLink,
}

/// Where an HTLC comes from (offered by us) or goes to (received by us). A preimage is bound to
/// HTLCs by this link, never by the hash alone (CVE-2020-26896).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HtlcLink {
    /// Offered: our own payment; nobody upstream but the node itself.
    OwnPayment,
    /// Offered: we forward this incoming HTLC.
    ForwardOf {
        /// The incoming HTLC.
        incoming: HtlcRef,
        /// Its expiry.
        expiry: CltvExpiry,
        /// Its amount.
        amount: MilliSat,
    },
    /// Received: we are the recipient; the node's own preimage serves it.
    Final,
    /// Received: forwarded as this outgoing HTLC; only a preimage learned from that one serves it.
    ForwardedTo {
        /// The outgoing HTLC.
        outgoing: HtlcRef,
    },
    /// Received: not irrevocably committed yet; must not be claimed (BOLT 5 LR2, RR2).
    Uncommitted,
}

/// An HTLC and the interval of remote commitment numbers in which it is live. A superset, from
/// the moment that we sign: matching outputs decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HtlcRecord {
    /// The terms.
    pub htlc: Htlc,
    /// First remote commitment number that contains it; `None`: none so far.
    pub remote_from: Option<CommitmentNumber>,
    /// First remote commitment number that contains it no more; `None`: still live.
    pub remote_until: Option<CommitmentNumber>,
}

impl HtlcRecord {
    /// Whether remote commitment `number` may contain this HTLC.
    #[must_use]
    pub fn in_remote(&self, number: CommitmentNumber) -> bool {
        self.remote_from.is_some_and(|from| from <= number)
            && self.remote_until.is_none_or(|until| number < until)
    }
}
