//! Commands to the arbiter, crashes in the middle of them, and the statements about the arbiter.
use super::Failed;
use super::history::preimage_of;
use super::node::refused;
use super::story::Runner;
use crate::peer::{Htlc, Side};
use crate::scenario::ast::{
    ArbiterStep, BumpTarget as Bumped, ChannelName, DeliveryMode, HashName, PortState, Whose,
};
use crate::world::{Fill, Room};
use arb_core::arbitrator::PreimageSource;
use arb_core::ids::ChannelId;
use arb_core::units::BlockHeight;
use arb_watcher::memory::MemorySigner;
use arb_watcher::{Arbiter, BumpGoal, BumpTarget, CommandError, Delivery};
use bitcoin::ScriptBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where the operator sends what is to go outside of the node: a P2WPKH script of nobody's.
pub(super) fn script_aside() -> ScriptBuf {
    ScriptBuf::from_bytes([&[0, 20][..], &[7; 20]].concat())
}

impl Runner<'_> {
    /// Asks the arbiter, and asks again after a crash: whether the first time was heard, nobody
    /// can know.
    pub(super) async fn try_command<T, F>(
        &mut self,
        ask: impl Fn(Arbiter) -> F,
    ) -> Result<Result<T, CommandError>, Failed>
    where
        F: Future<Output = Result<T, CommandError>>,
    {
        loop {
            let arbiter = self.node.arbiter()?;
            let plan = Arc::clone(&self.node.plan);
            plan.moved();
            tokio::select! {
                biased;
                () = plan.crashed() => self.recover().await?,
                answer = ask(arbiter) => return Ok(answer),
            }
        }
    }

    /// As [`Self::try_command`]; a refusal fails the line.
    pub(super) async fn command<T, F>(&mut self, ask: impl Fn(Arbiter) -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, CommandError>>,
    {
        self.try_command(ask).await?.map_err(refused)
    }

    /// The process died: it starts again on what it had stored.
    pub(super) async fn recover(&mut self) -> Result<(), Failed> {
        let plan = Arc::clone(&self.node.plan);
        self.trace.line(|| format!("     crash {}", plan.name().unwrap_or_default()));
        self.node.kill().await;
        plan.recovered();
        self.start_again().await
    }

    /// Starts the arbiter, and LDK's node with it: they are one process, and what LDK had not written is lost.
    pub(super) async fn start_again(&mut self) -> Result<(), Failed> {
        let plan = Arc::clone(&self.node.plan);
        loop {
            self.restart_ldk().await?;
            let numbers = self.numbers();
            // It may die while it starts, for it subscribes again.
            tokio::select! {
                biased;
                () = plan.crashed() => {}
                started = self.node.start(&self.world, numbers) => {
                    started?;
                    return self.show_ldk().await;
                }
            }
            self.trace.line(|| format!("     crash {}", plan.name().unwrap_or_default()));
            self.node.kill().await;
            plan.recovered();
        }
    }

    async fn unsubscribe(
        &mut self,
        subscriber: &crate::scenario::ast::SubscriberName,
    ) -> Result<(), Failed> {
        let Some(known) = self.node.subscribers.get(subscriber) else { return Ok(()) };
        let id = known.channel;
        self.node.close_subscription(subscriber);
        let name = &subscriber.0;
        self.command(|arbiter| async move { arbiter.unsubscribe(id, name).await }).await
    }

    /// The story's own signer, which does as it is told.
    fn own_signer(&self) -> Result<&MemorySigner, Failed> {
        match self.ldk {
            None => Ok(&self.world.signer),
            Some(_) => Err(Failed::new("a signer of the story's own", "LDK's signer")),
        }
    }

    pub(super) async fn arbiter_step(&mut self, step: &ArbiterStep) -> Result<(), Failed> {
        match step {
            ArbiterStep::Fail(channel) if self.ldk.is_some() => self.ldk_fail(channel).await,
            ArbiterStep::Preimage(hash) if self.ldk.is_some() => self.ldk_preimage(hash).await,
            ArbiterStep::Mode(mode) => self.set_mode(*mode),
            ArbiterStep::Fail(channel) => self.fail_channel(channel).await,
            ArbiterStep::Preimage(hash) => {
                self.preimages.insert(hash.clone());
                let names: Vec<ChannelName> = self.channels.keys().cloned().collect();
                for name in names {
                    self.tell_preimages(&name).await?;
                }
                Ok(())
            }
            ArbiterStep::Subscribe { channel, subscriber, delivery } => {
                let id = self.chan(channel)?.id;
                let delivery = match delivery {
                    DeliveryMode::Detached => Delivery::Detached,
                    DeliveryMode::Acknowledged => Delivery::Acknowledged,
                };
                self.subscribe(subscriber, id, delivery).await
            }
            ArbiterStep::Acknowledge(subscriber) => self.acknowledge(subscriber).await,
            ArbiterStep::Unsubscribe(subscriber) => self.unsubscribe(subscriber).await,
            ArbiterStep::Bump { target, feerate } => {
                self.bump(target, BumpGoal::FeeRate(*feerate)).await
            }
            ArbiterStep::Budget { target, budget } => {
                self.bump(target, BumpGoal::Budget(*budget)).await
            }
            ArbiterStep::Deadline { target, deadline } => {
                let height = self.world.height().saturating_add(deadline.0);
                self.bump(target, BumpGoal::Deadline(BlockHeight(height))).await
            }
            ArbiterStep::SendAside(target) => {
                self.bump(target, BumpGoal::Destination(script_aside())).await
            }
            ArbiterStep::Restart => {
                self.node.stop().await;
                self.start_again().await
            }
            ArbiterStep::Kill => {
                self.node.kill().await;
                self.start_again().await
            }
            ArbiterStep::Offline(blocks) => {
                self.node.stop().await;
                for _ in 0..*blocks {
                    self.world.mine(&Fill::Mempool, Room::None).await?;
                }
                self.start_again().await
            }
            ArbiterStep::Signer(state) => {
                self.signer_works = *state == PortState::Works;
                self.signs.store(self.signer_works, Ordering::SeqCst);
                match state {
                    PortState::Works => {
                        self.world.signer.switch_on();
                        self.world.signer.mend();
                    }
                    PortState::Fails => self.world.signer.switch_off(),
                }
                Ok(())
            }
            ArbiterStep::SignerOffFor(channel) => {
                self.own_signer()?.switch_off_for(self.chan(channel)?.id);
                self.signer_works = false;
                Ok(())
            }
            ArbiterStep::SignedWrongly(output) => {
                let outpoint = self.outpoint(output).await?;
                let none = || Failed::new(format!("an output {output}"), "none");
                self.own_signer()?.spoil(outpoint.ok_or_else(none)?);
                self.signer_works = false;
                Ok(())
            }
            ArbiterStep::Broadcaster { state, whose } => {
                let works = *state == PortState::Works;
                if *whose == Whose::Everybody {
                    self.world.faults.set_broadcaster(works);
                }
                if let Some(faults) = self.ldk_faults() {
                    faults.set_broadcaster(works);
                }
                Ok(())
            }
            ArbiterStep::Disk(state) => {
                self.disk_is_full = *state == PortState::Fails;
                self.node.limit_disk((*state == PortState::Fails).then_some(0))?;
                let names: Vec<_> = self.channels.keys().cloned().collect();
                for name in names {
                    self.send_on(&name).await?;
                }
                Ok(())
            }
        }
    }

    /// The node asks for a unilateral close.
    pub(super) async fn fail_channel(&mut self, channel: &ChannelName) -> Result<(), Failed> {
        let id = self.chan(channel)?.id;
        // The answer comes once the commitment is on its way. If nothing is under way before that, a
        // port is off, and what was asked for is in the log.
        let asked = self.try_command(|arbiter| async move {
            tokio::select! {
                biased;
                answer = arbiter.fail_channel(id) => answer.map(drop),
                idle = arbiter.idle() => idle,
            }
        });
        match asked.await? {
            // Answers, both: there is nothing left to fail, or nothing to fail it with.
            Ok(())
            | Err(
                CommandError::Closed(_)
                | CommandError::ClosesMutually(_)
                | CommandError::Outdated(_),
            ) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }

    async fn subscribe(
        &mut self,
        name: &crate::scenario::ast::SubscriberName,
        id: ChannelId,
        delivery: Delivery,
    ) -> Result<(), Failed> {
        loop {
            let plan = Arc::clone(&self.node.plan);
            plan.moved();
            tokio::select! {
                biased;
                () = plan.crashed() => {}
                answer = self.node.subscribe(name, id, delivery) => {
                    return answer.map_err(refused);
                }
            }
            self.recover().await?;
        }
    }

    async fn acknowledge(
        &mut self,
        name: &crate::scenario::ast::SubscriberName,
    ) -> Result<(), Failed> {
        loop {
            let plan = Arc::clone(&self.node.plan);
            plan.moved();
            tokio::select! {
                biased;
                () = plan.crashed() => {}
                answer = self.node.acknowledge(name) => return match answer {
                    // Heard before a crash, and the channel is forgotten since.
                    Ok(()) | Err(CommandError::UnknownChannel(_)) => Ok(()),
                    Err(error) => Err(refused(error)),
                },
            }
            self.recover().await?;
        }
    }

    async fn bump(&mut self, target: &Bumped, goal: BumpGoal) -> Result<(), Failed> {
        let (channel, outpoint) = match target {
            Bumped::Channel(channel) => (channel, None),
            Bumped::Output(output) => {
                let outpoint = self.outpoint(output).await?;
                let outpoint =
                    outpoint.ok_or_else(|| Failed::new(format!("an output {output}"), "none"))?;
                (output.channel(), Some(outpoint))
            }
        };
        let id = self.chan(channel)?.id;
        let target = match outpoint {
            None => BumpTarget::Channel(id),
            Some(outpoint) => BumpTarget::Output(id, outpoint),
        };
        let bump = |arbiter: Arbiter| {
            let goal = goal.clone();
            async move { arbiter.bump(target, goal).await }
        };
        match self.try_command(bump).await? {
            Ok(()) => Ok(()),
            // Answers: there is nothing that a fee could be raised of.
            Err(
                error @ (CommandError::NothingToBump(_)
                | CommandError::FeeIsFixed(_)
                | CommandError::NothingToClaim(_)
                | CommandError::UnknownChannel(_)),
            ) => {
                self.trace.line(|| format!("     refused: {error}"));
                Ok(())
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// Tells the node's own preimages to a channel whose HTLCs want them.
    pub(super) async fn tell_preimages(&mut self, name: &ChannelName) -> Result<(), Failed> {
        let hashes: Vec<HashName> = self.preimages.iter().cloned().collect();
        for hash in hashes {
            let preimage = preimage_of(&hash);
            let height = self.world.height();
            let chan = self.chan(name)?;
            let id = chan.id;
            let wanted: Vec<&Htlc> =
                chan.peer.htlcs().iter().filter(|htlc| htlc.preimage == preimage.0).collect();
            if wanted.is_empty() || chan.forgotten {
                continue;
            }
            // It serves what is final for us, and nothing that was forwarded or is uncommitted.
            let is_final = |htlc: &&&Htlc| {
                htlc.htlc.offerer == Side::Remote && !chan.links.contains_key(&htlc.htlc)
            };
            let served: Vec<String> =
                wanted.iter().filter(is_final).map(|htlc| htlc.name.clone()).collect();
            let told = self.try_command(|arbiter| async move {
                arbiter.preimage(id, preimage, PreimageSource::Node).await
            });
            match told.await? {
                Ok(()) => {}
                // The node knows it all the same; the HTLC is gone. If it is not, claiming it in time is still asked
                // for, unless the arbiter has lost what it was told of it.
                Err(error @ CommandError::UnknownHash(_)) => {
                    self.trace.line(|| format!("     refused: {error}"));
                    if self.chan(name)?.lost {
                        continue;
                    }
                }
                Err(error) => return Err(refused(error)),
            }
            for htlc in served {
                self.known_since.entry((name.clone(), htlc)).or_insert(height);
            }
        }
        Ok(())
    }
}
