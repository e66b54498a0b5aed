//! In which order those that want coins of the wallet ask for them. The wallet serves whoever asks first, and where there is not
//! enough for all, what would be lost decides.
use super::unsigned::Unsigned;
use arb_core::claim::Claim;
use arb_core::claim::build::Draft;
use arb_core::engine::Task;
use arb_core::units::{self, BlockRef};
use bitcoin::{Amount, OutPoint};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Blocks before deadlines that count as equally near.
const NEAR: u32 = 18;

/// When work that wants coins has its turn: the least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// What the network has refused, or the signer does not sign: it may come to nothing.
    doubted: bool,
    /// How near its deadline is; what has none comes last. A coin that pays for what is near is often back before
    /// what is far needs it.
    left: u32,
    /// What is lost if it does not come in time.
    at_risk: Reverse<Amount>,
}

impl Turn {
    /// The turn of a task that wants coins; `None` of any other.
    pub(super) fn of(
        task: &Task,
        tip: Option<BlockRef>,
        unsigned: Option<&BTreeMap<OutPoint, Unsigned>>,
    ) -> Option<Self> {
        let Task::Sign(draft) = task else { return None };
        if !draft.wants_coins() {
            return None;
        }
        let deadline = draft.claims().filter_map(Claim::needed_by).min();
        let tip = tip.map(|tip| tip.height).unwrap_or_default();
        let at_risk = units::total(draft.claims().map(|claim| claim.value_at_risk));
        Some(Self {
            doubted: draft.last || is_doubted(draft, unsigned),
            left: deadline.map_or(u32::MAX, |by| tip.until(by).0 / NEAR),
            at_risk: Reverse(at_risk),
        })
    }
}

/// Blocks in a row at which the signer has failed for a claim that is then doubted. Once may be chance.
const DOUBTED: u32 = 2;

/// Whether the signer has not signed for a claim of a draft for some blocks.
pub(super) fn is_doubted(draft: &Draft, unsigned: Option<&BTreeMap<OutPoint, Unsigned>>) -> bool {
    let blocks = |claim: &Claim| unsigned.and_then(|all| all.get(&claim.outpoint));
    let lasts = |claim: &Claim| blocks(claim).is_some_and(|unsigned| unsigned.blocks >= DOUBTED);
    draft.claims().any(lasts)
}
