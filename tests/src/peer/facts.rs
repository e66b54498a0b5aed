//! What the node would tell the arbiter, as plain data.

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{ScriptBuf, Txid};

use super::{Channel, Htlc, PeerError, Side};

/// BOLT 2's identity of an HTLC: `id` counts from 0 for each offerer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HtlcRef {
    pub offerer: Side,
    pub id: u64,
}

/// The terms of an HTLC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtlcFacts {
    pub htlc: HtlcRef,
    pub name: String,
    pub amount_msat: u64,
    /// Absolute height.
    pub cltv_expiry: u32,
    pub payment_hash: [u8; 32],
}

/// What each party owns beside the pending HTLCs, before the commitment's fee and anchors are
/// taken from the opener. `local_msat` is our node's, whoever owns the commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balances {
    pub local_msat: u64,
    pub remote_msat: u64,
}

/// How far the protocol got with a new HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staging {
    /// In both current commitments once the steps that follow are done.
    Irrevocable,
    /// In the peer's next, unrevoked commitment (and in ours, if the peer offered it).
    Next,
}

/// Why an HTLC left both commitments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Fulfilled { preimage: [u8; 32] },
    Failed,
}

/// Our own commitment with the peer's signatures for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCommitmentFacts {
    pub number: u64,
    /// Ours.
    pub per_commitment_point: PublicKey,
    pub feerate_per_kw: u32,
    pub balances: Balances,
    /// Every pending HTLC, trimmed ones included, in the order of their statements.
    pub htlcs: Vec<HtlcRef>,
    /// The peer's, for the funding input, SIGHASH_ALL.
    pub signature: Signature,
    /// The peer's, for the HTLC transactions, in output order: SIGHASH_ALL for
    /// `static_remotekey`, else SIGHASH_SINGLE|ANYONECANPAY.
    pub htlc_signatures: Vec<Signature>,
}

/// A commitment of the peer that we signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCommitmentFacts {
    pub number: u64,
    /// The peer's.
    pub per_commitment_point: PublicKey,
    pub feerate_per_kw: u32,
    pub balances: Balances,
    /// As in [`LocalCommitmentFacts`].
    pub htlcs: Vec<HtlcRef>,
    /// Absent where [`Keep::Newest`] meets a commitment that was revoked within the same call.
    pub txid: Option<Txid>,
}

/// One thing that the node learns or does, in the order of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactStep {
    /// A new HTLC, before the first commitment that holds it.
    AddHtlc { htlc: HtlcFacts, staging: Staging },
    /// An HTLC has left both sides' commitments for good.
    RemoveHtlc { htlc: HtlcRef, removal: Removal },
    /// The peer's `commitment_signed`, validated.
    LocalCommitment(LocalCommitmentFacts),
    /// Our `commitment_signed`.
    RemoteCommitment(RemoteCommitmentFacts),
    /// The peer's `revoke_and_ack` for its commitment `number`.
    RevocationSecret { number: u64, secret: [u8; 32] },
    /// Both sides' `shutdown`.
    ShutdownScripts { local: ScriptBuf, remote: ScriptBuf },
}

/// How much of what was overtaken within one call [`Channel::take_facts`] builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All of it.
    Every,
    /// Only what still stands: local commitments that were replaced are left out, and remote
    /// ones that were revoked come without their txid.
    Newest,
}

/// A step as the history records it: cheap, built when it is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Add(usize, Staging),
    Remove(usize, Removal),
    Local(u64),
    Remote(u64),
    Revoke(u64),
    Shutdown,
}

impl Channel {
    /// What the node learned since the last call. On an error nothing is taken.
    pub fn take_facts(&mut self, keep: Keep) -> Result<Vec<FactStep>, PeerError> {
        let steps = &self.history.steps;
        let newest = steps.iter().rposition(|step| matches!(step, Step::Local(_)));
        let mut facts = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            facts.push(match (*step, keep) {
                (Step::Local(_), Keep::Newest) if Some(at) != newest => continue,
                (Step::Remote(number), Keep::Newest) if number < self.remote_number() => {
                    FactStep::RemoteCommitment(self.remote_facts_without_txid(number)?)
                }
                (step, Keep::Every | Keep::Newest) => self.fact(step)?,
            });
        }
        self.history.steps.clear();
        Ok(facts)
    }

    /// Our commitment `number` as the node would hand it over.
    pub fn local_facts(&self, number: u64) -> Result<LocalCommitmentFacts, PeerError> {
        let commitment = self.unsigned(Side::Local, number)?;
        let state = self.state(Side::Local, number)?;
        Ok(LocalCommitmentFacts {
            number,
            per_commitment_point: self.commitment_point(Side::Local, number)?,
            feerate_per_kw: state.feerate_per_kw,
            balances: state.balances,
            htlcs: self.refs(&state.htlcs),
            signature: self.funding_signature(&commitment, Side::Remote),
            htlc_signatures: self.htlc_signatures(&commitment)?,
        })
    }

    /// The peer's commitment `number` as the node would hand it over.
    pub fn remote_facts(&self, number: u64) -> Result<RemoteCommitmentFacts, PeerError> {
        let txid = Some(self.unsigned(Side::Remote, number)?.txid());
        Ok(RemoteCommitmentFacts { txid, ..self.remote_facts_without_txid(number)? })
    }

    fn remote_facts_without_txid(&self, number: u64) -> Result<RemoteCommitmentFacts, PeerError> {
        let state = self.state(Side::Remote, number)?;
        Ok(RemoteCommitmentFacts {
            number,
            per_commitment_point: self.commitment_point(Side::Remote, number)?,
            feerate_per_kw: state.feerate_per_kw,
            balances: state.balances,
            htlcs: self.refs(&state.htlcs),
            txid: None,
        })
    }

    fn fact(&self, step: Step) -> Result<FactStep, PeerError> {
        Ok(match step {
            Step::Add(at, staging) => FactStep::AddHtlc { htlc: self.htlc_at(at).facts(), staging },
            Step::Remove(at, removal) => {
                FactStep::RemoveHtlc { htlc: self.htlc_at(at).htlc, removal }
            }
            Step::Local(number) => FactStep::LocalCommitment(self.local_facts(number)?),
            Step::Remote(number) => FactStep::RemoteCommitment(self.remote_facts(number)?),
            Step::Revoke(number) => FactStep::RevocationSecret {
                number,
                secret: self.remote.commitment_secret(number)?.secret_bytes(),
            },
            Step::Shutdown => FactStep::ShutdownScripts {
                local: self.shutdown_script(Side::Local),
                remote: self.shutdown_script(Side::Remote),
            },
        })
    }

    fn refs(&self, htlcs: &[usize]) -> Vec<HtlcRef> {
        htlcs.iter().map(|at| self.htlc_at(*at).htlc).collect()
    }
}

impl Htlc {
    /// The terms without the secret.
    pub fn facts(&self) -> HtlcFacts {
        HtlcFacts {
            htlc: self.htlc,
            name: self.name.clone(),
            amount_msat: self.amount_msat,
            cltv_expiry: self.cltv_expiry,
            payment_hash: self.payment_hash,
        }
    }
}
