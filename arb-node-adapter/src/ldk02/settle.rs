//! Settling: deliveries become transitions, one after the other, each durable before the next.
use super::feed::LdkFeed;
use super::{FeedError, error, follow};
use arb_core::arbitrator::Position;
use arb_core::engine::{
    ChainArbitrator, EngineInput, Loaded, NeedFacts, Released, Task, TaskKey, Transition,
};
use arb_core::ids::Slot;
use arb_core::log::{ChangeLog, Damaged};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether the chain client has delivered everything up to its tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// More is to come: evidence is gathered, nothing is decided by height.
    UnderWay,
    /// The round is over.
    Complete,
}

/// What settling led to.
#[derive(Debug, Default)]
pub struct Settled {
    /// What is to be done now, as of the last transition that concerned each channel.
    pub released: Released,
    /// Channels whose facts cannot be read: nothing watches them from now on.
    pub set_aside: Vec<(Slot, Damaged)>,
}

impl Settled {
    fn take(&mut self, next: Released) {
        let tasks: &mut BTreeMap<(Slot, TaskKey), Task> = &mut self.released.tasks;
        tasks.retain(|(slot, _), _| !next.concerned.contains(slot));
        tasks.extend(next.tasks);
        self.released.concerned.extend(next.concerned);
    }
}

impl LdkFeed {
    /// Applies what was delivered to the engine, through its log.
    ///
    /// `settled` receives what is to be done, also if the call ends with an error: what was
    /// released stays released.
    ///
    /// # Errors
    /// Deliveries do not connect, or the log fails. Whatever was not applied is kept.
    pub async fn settle<L: ChangeLog>(
        &self,
        engine: &mut ChainArbitrator,
        log: &mut L,
        round: Round,
        settled: &mut Settled,
    ) -> Result<(), FeedError<L::Error>> {
        let outcome = self.settle_queue(engine, log, settled).await;
        self.publish(engine);
        outcome?;
        if round == Round::Complete {
            if let Some(why) = self.lost() {
                return Err(FeedError::NotConnected(why));
            }
            if engine.position() == Position::CatchingUp && engine.tip().is_some() {
                step(engine, log, &[EngineInput::ReachedTip], settled).await?;
            }
        }
        Ok(())
    }

    async fn settle_queue<L: ChangeLog>(
        &self,
        engine: &mut ChainArbitrator,
        log: &mut L,
        settled: &mut Settled,
    ) -> Result<(), FeedError<L::Error>> {
        while let Some(delivery) = self.front() {
            match follow::inputs(engine, &delivery) {
                Ok(inputs) => {
                    if !inputs.is_empty() {
                        step(engine, log, &inputs, settled).await?;
                    }
                    self.done(Ok(()));
                }
                Err(why) => {
                    self.done(Err(why));
                    return Err(FeedError::NotConnected(why));
                }
            }
        }
        Ok(())
    }
}

/// Stages inputs, makes them durable, commits them.
async fn step<L: ChangeLog>(
    engine: &mut ChainArbitrator,
    log: &mut L,
    inputs: &[EngineInput],
    settled: &mut Settled,
) -> Result<(), FeedError<L::Error>> {
    let mut loaded = Loaded::new();
    let transition = loop {
        match engine.stage(inputs, &loaded, &mut |_| ()) {
            Ok(transition) => break transition,
            Err(NeedFacts(slots)) => {
                let unreadable = load(log, slots, &mut loaded).map_err(FeedError::Log)?;
                for (slot, why) in unreadable {
                    let _ = engine.quarantine(slot);
                    settled.set_aside.push((slot, why));
                }
            }
        }
    };
    let released = commit(engine, log, transition).await?;
    settled.take(released);
    Ok(())
}

async fn commit<L: ChangeLog>(
    engine: &mut ChainArbitrator,
    log: &mut L,
    transition: Transition,
) -> Result<Released, FeedError<L::Error>> {
    let transition = match engine.commit_empty(transition) {
        Ok(concerned) => return Ok(engine.released(concerned)),
        Err(transition) => *transition,
    };
    let receipt = log.append(transition.batch().clone()).await.map_err(FeedError::Log)?;
    let concerned = engine.commit(transition, receipt).map_err(|_| FeedError::WrongReceipt)?;
    Ok(engine.released(concerned))
}

/// Loads facts; gives the channels whose facts cannot be read.
fn load<L: ChangeLog>(
    log: &L,
    slots: BTreeSet<Slot>,
    loaded: &mut Loaded,
) -> Result<Vec<(Slot, Damaged)>, L::Error> {
    let mut unreadable = Vec::new();
    for slot in slots {
        match log.facts(slot)? {
            Some(Ok(facts)) => {
                loaded.insert(slot, Arc::from(facts));
            }
            Some(Err(damaged)) => unreadable.push((slot, damaged)),
            None => unreadable.push((slot, error::missing_facts())),
        }
    }
    Ok(unreadable)
}
