//! Panics in what is worked out for a channel: the channel is set aside, and the others go on. A
//! panic that is no channel's ends the driver, which says so.
use super::{Around, Driver};
use crate::command::CommandError;
use arb_core::arbitrator::ChannelArbitrator;
use arb_core::engine::{EngineInput, Loaded, NeedFacts, Task, TaskKey, Transition};
use arb_core::facts::ChannelFacts;
use arb_core::ids::{ChannelId, Slot};
use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Who is told whose turn it is.
type At<'a> = &'a mut dyn FnMut(Option<Slot>);

/// A panic over a channel, and what it said.
pub(super) struct Panicked {
    pub(super) slot: Slot,
    pub(super) what: String,
}

impl Panicked {
    /// Why its channel is set aside.
    pub(super) fn why(&self) -> String {
        format!("a panic: {}", self.what)
    }
}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no text".to_owned())
}

/// Does what changes nothing before it has come to its end, and says whose turn it is. A panic in
/// nobody's turn goes on.
fn caught<T>(work: impl FnOnce(At<'_>) -> T) -> Result<T, Panicked> {
    let mut turn = None;
    let mut at = |slot: Option<Slot>| {
        turn = slot;
        if let Some(slot) = slot {
            tracing::trace!(slot = slot.0, "looked at");
        }
    };
    let done = catch_unwind(AssertUnwindSafe(|| work(&mut at)));
    done.map_err(|payload| match turn {
        Some(slot) => Panicked { slot, what: message(&*payload) },
        None => resume_unwind(payload),
    })
}

/// As [`caught`], where one channel alone is looked at.
pub(super) fn caught_of<T>(slot: Slot, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    caught(|at| {
        at(Some(slot));
        work()
    })
}

/// A future whose panic is a value.
pub(super) struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Caught<F> {
    pub(super) fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(payload) => Poll::Ready(Err(message(&*payload))),
        }
    }
}

/// The channel that an input is for; `None`: it is for all.
pub(super) const fn slot_of(input: &EngineInput) -> Option<Slot> {
    match input {
        EngineInput::Block { .. } | EngineInput::Disconnected { .. } | EngineInput::ReachedTip => {
            None
        }
        EngineInput::Channel { slot, .. }
        | EngineInput::Watch { slot, .. }
        | EngineInput::Facts { slot, .. }
        | EngineInput::Forget { slot } => Some(*slot),
    }
}

impl<A: Around> Driver<A> {
    /// Stages inputs. After a panic those for the channel are gone, it is set aside, and the others are to
    /// be staged again; an error: one of them was what it was about.
    pub(super) fn stage(
        &mut self,
        inputs: &mut Vec<EngineInput>,
        loaded: &Loaded,
    ) -> Result<Option<Result<Transition, NeedFacts>>, CommandError> {
        let panicked = match caught(|at| self.engine.stage(inputs, loaded, at)) {
            Ok(staged) => return Ok(Some(staged)),
            Err(panicked) => panicked,
        };
        let slot = panicked.slot;
        let id = self.id_of(slot).or_else(|| {
            inputs.iter().find_map(|input| match input {
                EngineInput::Watch { slot: of, facts, .. } if *of == slot => Some(facts.id),
                _ => None,
            })
        });
        let known = self.panicked(&panicked);
        let what = panicked.what;
        let before = inputs.len();
        inputs.retain(|input| slot_of(input) != Some(slot));
        for input in &mut *inputs {
            if let EngineInput::Block { touched, .. } = input {
                touched.remove(&slot);
            }
        }
        match id {
            Some(id) if inputs.len() < before => {
                Err(if known { self.unknown(id) } else { CommandError::Panicked(id, what) })
            }
            // Nothing would be different the next time.
            _ if !known => std::panic::panic_any(what),
            _ => Ok(None),
        }
    }

    /// What `work` finds out about a channel, without changing anything. A panic sets the channel aside.
    pub(super) fn of_channel<T>(
        &mut self,
        slot: Slot,
        work: impl FnOnce(&Self) -> T,
    ) -> Result<T, CommandError> {
        let id = self.id_of(slot);
        caught_of(slot, || work(self)).map_err(|panicked| {
            self.panicked(&panicked);
            // The engine does not hold it: nobody else looks at it.
            let Some(id) = id else { std::panic::panic_any(panicked.what) };
            self.unknown(id)
        })
    }

    /// What `work` finds out about channels, whose turn it says, without changing anything: about those
    /// that are left, if it panics over some.
    pub(super) fn of_each<T>(&mut self, work: impl Fn(&Self, At<'_>) -> T) -> T {
        loop {
            match caught(|at| work(self, at)) {
                Ok(found) => return found,
                Err(panicked) if self.panicked(&panicked) => {}
                Err(panicked) => std::panic::panic_any(panicked.what),
            }
        }
    }

    /// The plan of all channels, where their claims may be joined.
    pub(super) fn plan(&mut self) {
        while let Err(panicked) = caught(|at| self.engine.plan(at)) {
            if !self.panicked(&panicked) {
                std::panic::panic_any(panicked.what);
            }
        }
    }

    /// What is desired of a channel; `None`: that panics, and it is set aside.
    pub(super) fn desired(&mut self, slot: Slot) -> Option<BTreeMap<TaskKey, Task>> {
        self.plan();
        self.of_channel(slot, |driver| driver.engine.tasks(slot)).ok()
    }

    /// Puts a channel into the engine that is in the store. An error: that panics.
    pub(super) fn restore(
        &mut self,
        slot: Slot,
        facts: Arc<ChannelFacts>,
        state: ChannelArbitrator,
    ) -> Result<(), String> {
        let id = facts.id;
        caught_of(slot, || self.engine.restore(slot, facts, state)).map_err(|panicked| {
            // It may be half there.
            let _ = self.engine.quarantine(slot);
            self.engine.set_aside(id);
            panicked.why()
        })
    }

    pub(super) fn id_of(&self, slot: Slot) -> Option<ChannelId> {
        self.engine.watcher(slot).map(|watcher| watcher.id)
    }

    /// Sets a channel aside. False: the engine does not hold it.
    pub(super) fn panicked(&mut self, panicked: &Panicked) -> bool {
        let known = self.engine.watcher(panicked.slot).is_some();
        self.set_aside(panicked.slot, &panicked.why());
        known
    }
}
