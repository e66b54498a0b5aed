//! Work outside the driver's task: funding, signing, publishing, rescans. Bounded; outcomes come
//! back as inputs.
use super::Driver;
use crate::command::{CommandError, Reply};
use crate::settings::Ports;
use arb_core::arbitrator::{BlockView, HandedOut, Input};
use arb_core::claim::build::Draft;
use arb_core::engine::{EngineInput, Task, TaskKey};
use arb_core::facts::ChannelFacts;
use arb_core::ids::Slot;
use arb_core::log::ChangeLog;
use arb_core::ports::{
    BlockSource, Broadcast, CoinRequest, CoinSource, FeeSource, Package, Signer, Verdict,
};
use arb_core::units::{BlockHeight, BlockRef, CommitmentNumber};
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::HashSet;
use std::sync::Arc;

/// What a worker brings back.
pub(super) enum Outcome {
    Signed { key: (Slot, TaskKey), task: Task, result: Result<Box<HandedOut>, String> },
    Published { key: (Slot, TaskKey), task: Task, result: Result<Vec<(Txid, Verdict)>, String> },
    Rescanned { facts: Box<ChannelFacts>, result: Result<History, String>, reply: Reply<()> },
    Stored { slot: Slot, facts: Arc<ChannelFacts>, result: Result<(), String>, reply: Reply<()> },
}

/// What a rescan found.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) views: Vec<BlockView>,
    /// Where the rescan ended.
    pub(super) to: Option<BlockRef>,
    watched: HashSet<OutPoint>,
}

impl History {
    pub(super) fn new(facts: &ChannelFacts) -> Self {
        let watched = facts.candidates.iter().map(|candidate| candidate.funding).collect();
        Self { views: Vec::new(), to: None, watched }
    }
}

impl<L, S, B, F, K, C> Driver<L, S, B, F, K, C>
where
    L: ChangeLog,
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    pub(super) fn start(&mut self, key: (Slot, TaskKey), task: Task) {
        let ports = self.ports.clone();
        let tip = self.engine.height();
        match &task {
            Task::Sign(draft) => {
                let draft = (**draft).clone();
                self.workers.spawn(async move {
                    let result = sign(&ports, draft, tip).await.map(Box::new);
                    Outcome::Signed { key, task, result }
                });
            }
            Task::Publish(transactions) => {
                let package = Package { transactions: transactions.clone() };
                self.workers.spawn(async move {
                    let sent = ports.broadcast.broadcast(package).await;
                    let result = sent.map_err(|error| error.to_string());
                    Outcome::Published { key, task, result }
                });
            }
            Task::LoadRevokedHtlcs(_) | Task::Notify(_) | Task::Forget => {
                self.tasks.running.remove(&key);
            }
        }
    }

    pub(super) fn rescan(&mut self, facts: Box<ChannelFacts>, history: History, reply: Reply<()>) {
        let (ports, to) = (self.ports.clone(), self.engine.tip());
        self.workers.spawn(async move {
            let result = rescan(&ports.source, &facts, history, to).await;
            Outcome::Rescanned { facts, result, reply }
        });
    }

    pub(super) async fn on_outcome(&mut self, outcome: Outcome) {
        let tip = self.engine.height();
        match outcome {
            Outcome::Signed { key, task, result } => {
                self.tasks.running.remove(&key);
                let slot = key.0;
                self.tasks.tried.insert(key, (task, tip));
                match result {
                    Ok(out) => self.channel_input(slot, Input::Signed(out)).await,
                    Err(why) => tracing::warn!(slot = slot.0, why, "not signed"),
                }
            }
            Outcome::Published { key, task, result } => {
                self.tasks.running.remove(&key);
                let slot = key.0;
                self.tasks.tried.insert(key, (task, tip));
                match result {
                    Ok(verdicts) => self.on_verdicts(slot, verdicts).await,
                    Err(why) => tracing::warn!(slot = slot.0, why, "not published"),
                }
            }
            Outcome::Rescanned { facts, result, reply } => {
                self.on_rescanned(facts, result, reply).await;
            }
            Outcome::Stored { slot, facts, result, reply } => {
                self.on_stored(slot, &facts, result, reply);
            }
        }
    }

    async fn on_verdicts(&mut self, slot: Slot, verdicts: Vec<(Txid, Verdict)>) {
        for (txid, verdict) in verdicts {
            match verdict {
                Verdict::Accepted | Verdict::Known => {}
                Verdict::FeeTooLow(why) | Verdict::Conflict(why) => {
                    tracing::info!(%txid, why, "outbid or conflicting");
                    self.channel_input(slot, Input::Rejected(txid)).await;
                }
                Verdict::NotFinal(why) | Verdict::Refused(why) => {
                    tracing::warn!(%txid, why, "refused");
                }
            }
        }
        // What was just published may have shown a conflict: look again.
        self.chain.rung();
    }

    pub(super) async fn channel_input(&mut self, slot: Slot, input: Input) {
        self.step(vec![EngineInput::Channel { slot, input: Box::new(input) }]).await;
    }

    /// Penalty data of a revoked commitment, from the store.
    pub(super) async fn load_revoked(&mut self, slot: Slot, number: CommitmentNumber) {
        match self.log.ended_htlcs(slot, number) {
            Ok(Ok(htlcs)) => {
                self.channel_input(slot, Input::RevokedHtlcsLoaded { number, htlcs }).await;
            }
            Ok(Err(damaged)) => tracing::error!(slot = slot.0, %damaged, "penalty data"),
            Err(error) => tracing::error!(slot = slot.0, %error, "penalty data"),
        }
    }

    async fn on_rescanned(
        &mut self,
        facts: Box<ChannelFacts>,
        result: Result<History, String>,
        reply: Reply<()>,
    ) {
        match result {
            Err(why) => {
                let _ = reply.send(Err(CommandError::NotStored(why)));
            }
            // The tip moved meanwhile: go on from there, or from the birth after a reorganisation.
            Ok(history) if history.to != self.engine.tip() => {
                let stands = history.to.is_none_or(|to| self.engine.blocks().any(|b| *b == to));
                let history = if stands { history } else { History::new(&facts) };
                self.rescan(facts, history, reply);
            }
            Ok(history) => self.register(facts, history.views, reply).await,
        }
    }
}

async fn sign<S, B, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    draft: Draft,
    tip: BlockHeight,
) -> Result<HandedOut, String>
where
    K: Signer,
    C: CoinSource,
{
    let said = |error: &dyn std::error::Error| error.to_string();
    let (mut coins, mut change) = (Vec::new(), None);
    if draft.wants_coins() {
        let claim = draft.claim.outpoint;
        let request = CoinRequest { claim, amount: draft.coins_wanted(), feerate: draft.feerate };
        coins = ports.coins.select(request).await.map_err(|e| said(&e))?;
        change = Some(ports.coins.change_script().await.map_err(|e| said(&e))?);
    }
    let unsigned = draft.assemble(&coins, change).map_err(|e| said(&e))?;
    let signature = ports.signer.sign(unsigned.request()).await.map_err(|e| said(&e))?;
    let mut transaction = unsigned.signed(&signature);
    if !coins.is_empty() {
        let prevouts = unsigned.prevouts.clone();
        transaction = ports.coins.sign(transaction, prevouts).await.map_err(|e| said(&e))?;
    }
    Ok(unsigned.handed_out(transaction, tip))
}

/// Scans from where `history` ends, or the channel's birth, up to `to`.
async fn rescan<S: BlockSource>(
    source: &S,
    facts: &ChannelFacts,
    mut history: History,
    to: Option<BlockRef>,
) -> Result<History, String> {
    let Some(to) = to else { return Ok(history) };
    let from = history.to.map_or(facts.birth, |block| block.height);
    for height in from.0.saturating_add(1)..=to.height.0 {
        let height = BlockHeight(height);
        let hash = source.hash_at(height).await.map_err(|error| error.to_string())?;
        // A shorter chain than a moment ago: the caller sees that the end does not match.
        let Some(hash) = hash else { break };
        let block = source.block(hash).await.map_err(|error| error.to_string())?;
        let block = block.ok_or_else(|| format!("the source has no block {hash}"))?;
        let at = BlockRef { height, hash };
        let mut transactions: Vec<Transaction> = Vec::new();
        for tx in block.txdata {
            if tx.input.iter().any(|input| history.watched.contains(&input.previous_output)) {
                let txid = tx.compute_txid();
                let outputs = (0u32..).zip(&tx.output).map(|(vout, _)| OutPoint { txid, vout });
                history.watched.extend(outputs);
                transactions.push(tx);
            }
        }
        if !transactions.is_empty() {
            history.views.push(BlockView { at, transactions });
        }
        history.to = Some(at);
    }
    if from >= to.height {
        history.to = Some(to);
    }
    Ok(history)
}
