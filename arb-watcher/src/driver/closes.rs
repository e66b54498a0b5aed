//! Mutual closes in the mempool: whose the scripts are that one pays is asked by a worker, and the
//! channel is shown the transaction again with the answer. Blocks wait for neither.
use super::work::{Job, Outcome, SeenClose, judge};
use super::{Around, Driver};
use arb_core::arbitrator::{ChannelEvent, Input};
use arb_core::engine::EngineInput;
use arb_core::ids::Slot;
use bitcoin::{ScriptBuf, Transaction};
use std::collections::BTreeSet;

/// Most outputs of a transaction that is asked about: BOLT 2 has two.
const OUTPUTS: usize = 16;

impl<A: Around> Driver<A> {
    /// Asks whose the scripts are that a transaction pays, which spends an output of these channels
    /// and is shaped like a mutual close.
    pub(super) fn judge_close(&mut self, mut slots: BTreeSet<Slot>, tx: Transaction) {
        slots.retain(|slot| self.may_be_closing(*slot, &tx));
        if slots.is_empty() || tx.output.len() > OUTPUTS {
            return;
        }
        let scripts: Vec<ScriptBuf> = tx
            .output
            .iter()
            .map(|output| output.script_pubkey.clone())
            .filter(|script| !script.is_op_return())
            .collect();
        let (ports, patience) = (self.ports.clone(), self.settings.patience);
        self.workers.spawn(Job::SeenClose(tx.compute_txid()), async move {
            let verdicts = judge(&ports.scripts, scripts, patience).await;
            Outcome::SeenClose(Box::new(SeenClose { slots, tx, verdicts }))
        });
    }

    /// Whether the answer may change anything: the channel is not closed, was not told of a mutual
    /// close yet, and the node was not asked about all of the scripts.
    fn may_be_closing(&self, slot: Slot, tx: &Transaction) -> bool {
        // A quiet channel knows nothing, and is not closed.
        let Some(active) = self.engine.active(slot) else { return true };
        let told = active.state.acts().events.last() == Some(&ChannelEvent::EarlyMutual);
        let closed = active.picture.is_some();
        !told
            && !closed
            && !arb_core::classify::open_scripts(&active.facts, &active.state, tx).is_empty()
    }

    pub(super) async fn on_seen_close(&mut self, seen: SeenClose) {
        let SeenClose { slots, tx, verdicts } = seen;
        let verdicts = match verdicts {
            Ok(verdicts) => verdicts,
            Err(why) => {
                tracing::warn!(txid = %tx.compute_txid(), why, "whose its scripts are is asked later");
                return self.chain.mempool.unseen(&tx.compute_txid());
            }
        };
        let inputs = slots.into_iter().flat_map(|slot| {
            let judged = Input::ScriptsJudged(verdicts.clone());
            let seen = Input::SeenInMempool(Box::new(tx.clone()));
            [judged, seen].map(|input| EngineInput::Channel { slot, input: Box::new(input) })
        });
        if self.step(inputs.collect()).await.is_err() {
            // The driver is to end.
            return;
        }
        let mut mutual = self.engine.closed_mutually_by(std::slice::from_ref(&tx));
        mutual.extend(self.engine.closing_mutually());
        self.hold_back(&mutual);
    }

    /// The mempool holds agreed mutual closes of these channels, and of no others: our commitments wait
    /// for them.
    pub(super) fn hold_back(&mut self, mutual: &BTreeSet<Slot>) {
        for slot in self.engine.close_mutually(mutual) {
            tracing::debug!(slot = slot.0, held = mutual.contains(&slot), "a mutual close");
            self.renew(slot);
        }
    }
}
