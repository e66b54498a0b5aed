//! The picture: every output that matters of a channel that closed, what it is, who spent it, and
//! how we may spend it. Computed from facts and evidence, independent of the tip.
mod live;
mod revoked;
mod spent;
mod unheld;

use crate::arbitrator::{ChannelArbitrator, TxKind};
use crate::claim::{SigningKey, SingleSpend, SpendPath, Unlock};
use crate::classify::{self, Classified, FundingSpend};
use crate::facts::{ChannelFacts, FundingCandidate};
use crate::format::scripts::{self, OutputScript};
use crate::format::{ObscuringFactor, number};
use crate::height::{self, Due, Reason};
use crate::ids::{HtlcId, Side};
use crate::units::{BlockHeight, BlockRef, CommitmentNumber, Confirmed, Tx};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, TxOut, Txid, absolute::LockTime};
pub(crate) use live::usable_preimage;
pub use spent::SpentBy;
pub use unheld::MissingPoint;

/// A funding output spent by a confirmed transaction.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Where it confirmed.
    pub at: BlockRef,
    /// The funding output that was spent.
    pub funding: OutPoint,
    /// The transaction.
    pub txid: Txid,
    /// What it is.
    pub spend: FundingSpend,
    /// Its outputs, and those of second-stage transactions.
    pub outputs: Vec<Output>,
    /// The revoked commitment whose HTLCs are not read yet: an output that nobody knows may be one of them.
    pub unread: Option<CommitmentNumber>,
    /// What is to be asked of the signer to know whether this is a commitment of ours.
    pub missing_point: Option<MissingPoint>,
    /// Outputs of second stages that may turn out to be ours to take, and whose spends must have been seen then: the
    /// peer's on a commitment that is not revoked, should its secret reach us after all; and all on one that may be our
    /// own, as long as its point is not known.
    pub second_stages: Vec<Watched>,
}

/// An output whose spend must be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The output.
    pub outpoint: OutPoint,
    /// Its script.
    pub script: ScriptBuf,
    /// Block of the transaction that made it.
    pub at: BlockRef,
}

/// One output.
#[derive(Clone, Debug)]
pub struct Output {
    /// The output.
    pub outpoint: OutPoint,
    /// Its value and script.
    pub output: TxOut,
    /// Block of the transaction that made it.
    pub at: BlockRef,
    /// What it is.
    pub role: Role,
    /// What we may do about it.
    pub way: Way,
    /// Its confirmed spend.
    pub spent: Option<SpentBy>,
}

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `to_local` of the commitment's owner.
    ToLocal,
    /// `to_remote`, seen from the commitment's owner.
    ToRemote,
    /// This side's anchor.
    Anchor(Side),
    /// The anchor that anybody may spend.
    SharedAnchor,
    /// An HTLC.
    Htlc(HtlcId),
    /// Output of a second-stage transaction; of which HTLC, if that can be told.
    SecondStage(Option<HtlcId>),
    /// Output of a mutual close or an unknown spend that pays this side.
    Paid(Side),
    /// Nobody knows.
    Unidentified,
}

impl Role {
    /// The HTLC whose output this is.
    #[must_use]
    pub const fn htlc(self) -> Option<HtlcId> {
        match self {
            Self::Htlc(id) => Some(id),
            Self::ToLocal
            | Self::ToRemote
            | Self::Anchor(_)
            | Self::SharedAnchor
            | Self::SecondStage(_)
            | Self::Paid(_)
            | Self::Unidentified => None,
        }
    }
}

impl Output {
    /// Whether we have, or may come to have, a way to spend it.
    #[must_use]
    pub const fn may_be_claimed(&self) -> bool {
        match self.way {
            Way::Spend { .. } | Way::NeedsPreimage { .. } => true,
            Way::Theirs | Way::Home | Way::Nothing | Way::Lost => false,
        }
    }
}

/// What we may do about an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It was never ours.
    Theirs,
    /// It pays a script of ours: at home once its transaction is confirmed.
    Home,
    /// It needs no spend: an anchor that has done its work.
    Nothing,
    /// We can spend it.
    Spend {
        /// How.
        path: SpendPath,
        /// From when.
        due: Due,
        /// Until when.
        deadline: Option<BlockHeight>,
    },
    /// Only a preimage would open it, before the expiry.
    NeedsPreimage {
        /// From here on the peer may take it back.
        expiry: BlockHeight,
    },
    /// It is ours or may be, and we cannot spend it.
    Lost,
}

impl Picture {
    /// The picture of a channel; `None` while no funding output is spent, or only by a splice.
    #[must_use]
    pub fn of(facts: &ChannelFacts, arbitrator: &ChannelArbitrator) -> Option<Self> {
        // To prepare the curve's arithmetic takes longer than to see that nothing is spent.
        if !facts.candidates.iter().any(|c| arbitrator.spender(&c.funding).is_some()) {
            return None;
        }
        let secp = Secp256k1::new();
        let mut spends = facts.candidates.iter().filter_map(|candidate| {
            let (tx, _) = arbitrator.spender(&candidate.funding)?;
            let found = classify::classify(facts, arbitrator, candidate, &tx.value, &secp);
            Some((candidate, tx, found))
        });
        let close = |(_, _, c): &(_, _, Classified)| !matches!(c.spend(), FundingSpend::Splice(_));
        let (candidate, tx, classified) = spends.find(close)?;
        let owner = match &classified {
            Classified::Live { owner, .. } => *owner,
            Classified::Revoked { .. } | Classified::Other(_) => Side::Remote,
        };
        let txid = tx.value.txid();
        let mut view = View { facts, arbitrator, candidate, tx, txid, secp: &secp, owner };
        let mut outputs = match &classified {
            Classified::Live { point, commitment, .. } => view.live(point, commitment),
            Classified::Revoked { number, secret, point } => view.revoked(*number, secret, point),
            Classified::Other(spend) => match view.own_unheld(*spend) {
                Some(own) => {
                    view.owner = Side::Local;
                    view.unheld(&own, *spend)
                }
                None => view.other(*spend),
            },
        };
        for output in &mut outputs {
            output.spent = output.spent.take().or_else(|| view.spent_by(output));
        }
        let second_stages = match &classified {
            Classified::Live { owner: Side::Remote, commitment, .. } => {
                let spec = &commitment.spec;
                let script = scripts::to_local(&spec.keys, spec.delay).script_pubkey;
                let stages = view.second_stages(&script);
                stages
                    .map(|(tx, outpoint, made)| Watched {
                        outpoint,
                        script: made.script_pubkey.clone(),
                        at: tx.at,
                    })
                    .collect()
            }
            Classified::Other(spend) if view.missing_point(*spend).is_some() => {
                view.may_be_second_stages().collect()
            }
            Classified::Live { .. } | Classified::Revoked { .. } | Classified::Other(_) => {
                Vec::new()
            }
        };
        let spend = classified.spend();
        Some(Self {
            at: tx.at,
            funding: candidate.funding,
            txid,
            spend,
            outputs,
            unread: arbitrator.awaits_penalty_data(facts, spend, || {
                number::commitment_number_of(&tx.value, ObscuringFactor::of(facts))
            }),
            missing_point: view.missing_point(spend),
            second_stages,
        })
    }

    /// The output of this HTLC in the commitment.
    #[must_use]
    pub fn htlc(&self, id: HtlcId) -> Option<&Output> {
        self.outputs.iter().find(|output| output.role == Role::Htlc(id))
    }

    /// The HTLC's output of which an output is the second stage's.
    pub(crate) fn htlc_of(&self, output: &Output) -> Option<OutPoint> {
        let Role::SecondStage(Some(id)) = output.role else { return None };
        self.htlc(id).map(|htlc| htlc.outpoint)
    }

    /// Outputs whose spends must be seen.
    pub fn watched(&self) -> impl Iterator<Item = OutPoint> {
        let stages = self.second_stages.iter().map(|stage| stage.outpoint);
        self.outputs_watched().map(|output| output.outpoint).chain(stages)
    }

    /// The same, with what a chain client that filters must know of them.
    pub fn watched_scripts(&self) -> impl Iterator<Item = Watched> {
        let watched = self.outputs_watched().map(|output| Watched {
            outpoint: output.outpoint,
            script: output.output.script_pubkey.clone(),
            at: output.at,
        });
        watched.chain(self.second_stages.iter().cloned())
    }

    fn outputs_watched(&self) -> impl Iterator<Item = &Output> {
        let matters = |output: &&Output| match output.way {
            Way::Theirs | Way::Home => output.role.htlc().is_some(),
            Way::Nothing | Way::Spend { .. } | Way::NeedsPreimage { .. } | Way::Lost => true,
        };
        // The peer's delayed output: a secret that reaches us after the close makes it ours.
        let may_turn = |output: &&Output| output.role == Role::ToLocal;
        self.outputs.iter().filter(move |o| matters(o) || may_turn(o))
    }
}

/// Everything that reading one spend needs.
struct View<'a> {
    facts: &'a ChannelFacts,
    arbitrator: &'a ChannelArbitrator,
    candidate: &'a FundingCandidate,
    tx: &'a Confirmed<Tx>,
    /// Its id: computed once, for there may be a thousand outputs.
    txid: Txid,
    secp: &'a Secp256k1<All>,
    /// Whose commitment it is; the peer's, if it is none that we know.
    owner: Side,
}

impl View<'_> {
    fn output(&self, vout: u32, output: TxOut, role: Role, way: Way) -> Output {
        let outpoint = OutPoint { txid: self.txid, vout };
        Output { outpoint, output, at: self.tx.at, role, way, spent: None }
    }

    /// Our balance on a commitment of the peer, with the locks of its format.
    fn our_to_remote(&self) -> (OutputScript, Way) {
        let form = scripts::to_remote(self.candidate.format, &self.facts.local.keys.payment);
        let way = match &form.witness_script {
            None => Way::Home,
            Some(script) => Way::Spend {
                path: SpendPath::Single(Box::new(SingleSpend {
                    kind: TxKind::Sweep,
                    htlc: None,
                    script: Some(script.clone()),
                    unlock: Unlock::Nothing,
                    key: SigningKey::Payment,
                    sequence: form.sequence,
                    lock_time: LockTime::ZERO,
                    version: Version::TWO,
                })),
                due: height::sequence(self.tx.at.height, form.sequence),
                deadline: None,
            },
        };
        (form, way)
    }

    /// Not a commitment that we know: what pays us is found by scripts.
    fn other(&self, spend: FundingSpend) -> Vec<Output> {
        let (form, way) = self.our_to_remote();
        let read = |(vout, output): (u32, &TxOut)| {
            let script = &output.script_pubkey;
            let (role, way) = if *script == form.script_pubkey {
                (Role::ToRemote, way.clone())
            } else if classify::is_ours(self.facts, self.arbitrator, script) {
                (Role::Paid(Side::Local), Way::Home)
            } else if spend == FundingSpend::MutualClose {
                (Role::Paid(Side::Remote), Way::Theirs)
            } else {
                (Role::Unidentified, Way::Lost)
            };
            self.output(vout, output.clone(), role, way)
        };
        (0u32..).zip(&self.tx.value.output).map(read).collect()
    }
}

/// Open from the moment that the output is there.
pub(crate) const fn at_once(at: BlockHeight) -> Due {
    Due { tip: at, until: at, reason: Reason::Confirmation }
}
