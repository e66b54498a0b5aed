//! Abandoning a channel that was never funded: refused while anything of it may be ours.
use super::subscribers::Sending;
use super::{Around, Driver};
use crate::abandon::{AbandonError, Sought, Unfunded, nothing_at_stake, upstream_is_told};
use crate::command::{CommandError, Reply};
use arb_core::arbitrator::BlockView;
use arb_core::engine::EngineInput;
use arb_core::ids::ChannelId;

impl<A: Around> Driver<A> {
    pub(super) async fn abandon(&mut self, id: ChannelId, why: Unfunded, reply: Reply<()>) {
        match why {
            Unfunded::NothingAtStake => reply.send(self.abandon_by(id, None, &[]).await),
            Unfunded::DoubleSpent(fundings) => {
                let Some(slot) = self.engine.slot(&id) else {
                    return reply.send(Err(self.unknown(id)));
                };
                let facts = match self.readable(slot) {
                    Ok(facts) => facts,
                    Err(error) => return reply.send(Err(error.into())),
                };
                match Sought::new(&facts, &fundings) {
                    Ok(sought) => self.scan_for_double_spend(&facts, sought, reply),
                    Err(why) => reply.send(Err(CommandError::NotAbandoned(id, why))),
                }
            }
        }
    }

    /// Forgets a channel, if that is still right at this tip: `sought` and `history` are what the
    /// blocks since its birth hold; without the first nothing of it may be ours.
    pub(super) async fn abandon_by(
        &mut self,
        id: ChannelId,
        sought: Option<&Sought>,
        history: &[BlockView],
    ) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or_else(|| self.unknown(id))?;
        let facts = self.readable(slot)?;
        let state = self.engine.active(slot).map(|active| active.state.clone());
        let state = state.unwrap_or_default();
        let tip = self.engine.height();
        let depth = self.engine.policy().forget_depth.0;
        let spent = history.first().map(|view| view.at);
        let spent = spent.or_else(|| state.confirmed().next().map(|(_, at)| at));
        let judged = match (spent, sought) {
            (Some(at), _) => Err(AbandonError::Seen(at)),
            (None, Some(sought)) => {
                sought.judge(&facts, depth, tip).and_then(|()| upstream_is_told(&facts, &state))
            }
            (None, None) => nothing_at_stake(&facts),
        };
        let awaited = self.awaits_subscribers(slot);
        let judged = judged.and(if awaited { Err(AbandonError::Unacknowledged) } else { Ok(()) });
        let keeps = self.engine.keeps_for_others(slot);
        let judged = judged.and(if keeps { Err(AbandonError::KeepsPreimage) } else { Ok(()) });
        judged.map_err(|why| CommandError::NotAbandoned(id, why))?;
        // As when a resolved one is forgotten.
        self.send_events(slot, Sending::Last);
        self.try_step(vec![EngineInput::Forget { slot }]).await?;
        tracing::info!(channel = %id, slot = slot.0, "abandoned");
        self.is_forgotten(slot, id);
        Ok(())
    }
}
