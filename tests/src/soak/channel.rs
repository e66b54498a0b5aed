//! One channel of a soak: its history, its end, and those who subscribed to it.
use super::SoakError;
use super::world::World;
use crate::bench::synthetic::Random;
use crate::peer::{
    Bundle, Channel, ChannelParams, ClaimFee, ClosingStyle, Commitment, Format, Keep, NewHtlc,
    PeerCoin, PeerError, Side, Staged, preimage_named,
};
use crate::world::{Links, channel_id, channel_secrets, first_facts, number, updates_of};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::UpdateError;
use arb_core::ids::{ChannelId, Preimage};
use arb_watcher::{ChainEventSubscription, ChannelNumbers, CommandError, Delivery};
use bitcoin::{Amount, FeeRate, OutPoint, Transaction};

/// What a coin of the peer's is worth.
const PEER_COIN: Amount = Amount::from_sat(50_000);
/// Most HTLCs pending in a channel.
const PENDING: usize = 5;
/// Most subscribers of a channel.
const SUBSCRIBERS: usize = 3;

/// How a channel may be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Close {
    Mutual,
    /// The arbiter is asked.
    Local,
    Remote,
    RemoteNext,
    Revoked,
    /// A commitment of ours that we revoked.
    Outdated,
    /// What nobody can explain.
    Unknown,
}

impl Close {
    pub(super) const ALL: [Self; 7] = [
        Self::Mutual,
        Self::Local,
        Self::Remote,
        Self::RemoteNext,
        Self::Revoked,
        Self::Outdated,
        Self::Unknown,
    ];
}

/// What a subscriber does with its events.
enum Subscriber {
    /// Reads and acknowledges.
    Reads(ChainEventSubscription),
    /// Never reads.
    Blocked { _unread: ChainEventSubscription },
    /// Let go of its stream; its name is still in the store.
    Gone,
}

/// One channel.
pub(super) struct Life {
    pub(super) id: ChannelId,
    pub(super) opened: u32,
    /// Height at which its end began.
    pub(super) closing: Option<u32>,
    peer: Channel,
    funding: OutPoint,
    /// The peer's coin, for a commitment that is not relayed without a child.
    coin: PeerCoin,
    numbers: (u64, u64),
    /// The commitment that was published, if one was.
    published: Option<Commitment>,
    /// The peer's child that pays for it, where it needs one.
    child: Option<Transaction>,
    subscribers: Vec<(String, Subscriber)>,
    htlcs: u64,
}

impl Life {
    /// The peer of a channel that is not funded yet.
    pub(super) fn peer(serial: u64, random: &mut Random) -> Result<Channel, PeerError> {
        let format = match random.between(0, 2) {
            0 => Format::StaticRemoteKey,
            1 => Format::Anchors,
            _ => Format::ZeroFee,
        };
        let opener = if random.between(0, 1) == 0 { Side::Local } else { Side::Remote };
        let (local_delay, remote_delay) = (6, 6);
        let params = ChannelParams::new(&format!("soak{serial}"));
        Channel::new(ChannelParams { format, opener, local_delay, remote_delay, ..params })
    }

    /// The arbiter watches the channel from now on.
    pub(super) async fn open(
        mut peer: Channel,
        (funding, coin): (OutPoint, OutPoint),
        world: &World,
    ) -> Result<Self, SoakError> {
        peer.set_funding(funding)?;
        let id = channel_id(&funding);
        let opened = world.height();
        world.signer.insert(id, channel_secrets(peer.local_secrets()));
        world.signer.insert_seed(id, peer.local_secrets().commitment_seed);
        world.arbiter()?.watch_channel(first_facts(&peer, opened)?).await?;
        peer.take_facts(Keep::Newest)?;
        let coin = peer.peer_coin(coin, PEER_COIN);
        Ok(Self {
            id,
            opened,
            closing: None,
            peer,
            funding,
            coin,
            numbers: (0, 0),
            published: None,
            child: None,
            subscribers: Vec::new(),
            htlcs: 0,
        })
    }

    /// What the node states of it at start-up.
    pub(super) fn numbers(&self) -> ChannelNumbers {
        let (local, remote) = self.numbers;
        ChannelNumbers { id: self.id, local: number(local), remote: number(remote) }
    }

    /// Something happens off-chain.
    pub(super) async fn update(
        &mut self,
        world: &World,
        random: &mut Random,
    ) -> Result<(), SoakError> {
        if self.closing.is_some() || self.is_staged() {
            return Ok(());
        }
        let pending = self.pending();
        let any = pending.get(random.between(0, PENDING as u64) as usize).cloned();
        match (random.between(0, 5), any) {
            (0, _) => self.peer.empty_updates(random.between(1, 3))?,
            (1 | 2, Some(name)) => self.peer.settle(&name)?,
            (3, Some(name)) => self.peer.cancel(&name)?,
            _ if pending.len() < PENDING => {
                let htlc = self.htlc(world, random);
                let added = match random.between(0, 1) {
                    0 => self.peer.offer(htlc),
                    _ => self.peer.receive(htlc),
                };
                match added {
                    Ok(_) | Err(PeerError::InsufficientBalance { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            _ => {}
        }
        self.tell(world).await
    }

    fn htlc(&mut self, world: &World, random: &mut Random) -> NewHtlc {
        self.htlcs += 1;
        let name = format!("{}h{}", self.peer.params().name, self.htlcs);
        let preimage = preimage_named(&name);
        let amount_msat = random.between(5_000, 60_000) * 1_000;
        let cltv_expiry = world.height() + random.between(40, 140) as u32;
        NewHtlc { name, amount_msat, cltv_expiry, preimage }
    }

    /// Whether the peer has a next commitment: it was to end the channel, and did not stay.
    fn is_staged(&self) -> bool {
        self.peer.remote_next_number().is_some()
    }

    /// HTLCs of the current commitments, by name.
    fn pending(&self) -> Vec<String> {
        let held = self.peer.remote_facts(self.peer.remote_number());
        let held = held.map(|facts| facts.htlcs).unwrap_or_default();
        let pending = self.peer.htlcs().iter().filter(|htlc| held.contains(&htlc.htlc));
        pending.map(|htlc| htlc.name.clone()).collect()
    }

    /// Tells the arbiter what is new. It may have begun to fail the channel by itself.
    async fn tell(&mut self, world: &World) -> Result<(), SoakError> {
        let steps = self.peer.take_facts(Keep::Newest)?;
        let updates = updates_of(&steps, self.funding, &Links::new());
        match world.arbiter()?.update_channel(self.id, updates).await {
            Ok(_) => {
                self.numbers = (self.peer.local_number(), self.peer.remote_number());
                Ok(())
            }
            Err(CommandError::Facts(UpdateError::Fenced)) => {
                self.closing = Some(world.height());
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The channel ends in this way, or in none if that is not possible now.
    pub(super) async fn close(
        &mut self,
        close: Close,
        world: &World,
        random: &mut Random,
    ) -> Result<bool, SoakError> {
        if self.closing.is_some() || !world.is_unspent(&self.funding) {
            self.closing.get_or_insert(world.height());
            return Ok(false);
        }
        let taken = match close {
            Close::Local => return self.fail(world).await,
            Close::Mutual => {
                if !self.pending().is_empty() || self.is_staged() {
                    return Ok(false);
                }
                self.peer.shutdown()?;
                self.tell(world).await?;
                let rate = FeeRate::from_sat_per_kwu(500);
                let style = match random.between(0, 1) {
                    0 => ClosingStyle::Legacy,
                    _ => ClosingStyle::Simple,
                };
                world.submit(&self.peer.mutual_close(rate, style)?)
            }
            Close::Unknown => {
                world.submit(&self.peer.unknown_spend(FeeRate::from_sat_per_kwu(500))?)
            }
            Close::Remote => self.publish(self.peer.remote_current()?, world),
            Close::RemoteNext => {
                if !self.is_staged() {
                    let htlc = self.htlc(world, random);
                    match self.peer.stage(vec![Staged::Offer(htlc)]) {
                        Ok(_) => {}
                        Err(PeerError::InsufficientBalance { .. }) => return Ok(false),
                        Err(error) => return Err(error.into()),
                    }
                    self.tell(world).await?;
                }
                self.publish(self.peer.remote_next()?, world)
            }
            Close::Revoked => {
                let Some(last) = self.peer.remote_number().checked_sub(1) else { return Ok(false) };
                let revoked = random.between(last.saturating_sub(10), last);
                self.publish(self.peer.remote_commitment(revoked)?, world)
            }
            Close::Outdated => {
                let Some(last) = self.peer.local_number().checked_sub(1) else { return Ok(false) };
                self.publish(self.peer.local_commitment_at(last)?, world)
            }
        };
        if taken {
            self.closing = Some(world.height());
        }
        Ok(taken)
    }

    fn publish(&mut self, commitment: Commitment, world: &World) -> bool {
        let taken = match self.peer.params().format {
            Format::StaticRemoteKey | Format::Anchors => world.submit(&commitment.tx),
            Format::ZeroFee => {
                let rate = FeeRate::from_sat_per_kwu(500);
                let coins = std::slice::from_ref(&self.coin);
                let child = self.peer.anchor_child(&commitment, rate, coins);
                self.child = child.ok().map(|child| child.tx);
                let package = self.child.clone().map(|child| [commitment.tx.clone(), child]);
                package.is_some_and(|package| world.submit_both(package))
            }
        };
        if taken {
            self.published = Some(commitment);
        }
        taken
    }

    async fn fail(&mut self, world: &World) -> Result<bool, SoakError> {
        let arbiter = world.arbiter()?;
        // A port may be off: that it was asked for is enough, and commands keep their order.
        let asked = tokio::select! {
            biased;
            answer = arbiter.fail_channel(self.id) => answer.map(drop),
            known = arbiter.report(self.id) => known.map(drop),
        };
        match asked {
            Ok(()) | Err(CommandError::Closed(_) | CommandError::ClosesMutually(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.closing = Some(world.height());
        self.published = Some(self.peer.local_commitment()?);
        Ok(true)
    }

    /// A reorganisation may have undone the end of the channel: then it is still to come. Or only the child went
    /// that pays for it: without one no miner takes a commitment without a fee, so the peer publishes it again.
    pub(super) fn look_whether_it_ended(&mut self, world: &World) {
        if self.closing.is_none() {
            return;
        }
        if world.is_free(&self.funding) {
            self.closing = None;
            self.published = None;
            self.child = None;
        } else if let Some(child) = &self.child
            && world.is_unspent(&self.funding)
        {
            world.submit(child);
        }
    }

    /// The peer takes what it can of the commitment that was published: an HTLC by its preimage or
    /// after its expiry, our outdated `to_local`. The mempool says what it may.
    pub(super) fn peer_claims(&self, world: &World, random: &mut Random) {
        let Some(commitment) = &self.published else { return };
        let fee = ClaimFee::from(FeeRate::from_sat_per_vb_u32(random.between(2, 40) as u32));
        let mut claims: Vec<Transaction> = Vec::new();
        for htlc in self.peer.htlcs() {
            let name = [htlc.name.as_str()];
            let claimed = self.peer.claim_htlcs(commitment, &name, Bundle::Separate, fee, &[]);
            claims.extend(claimed.into_iter().flatten().map(|claim| claim.tx));
        }
        let rest = [
            self.peer.claim_penalty(commitment, fee),
            self.peer.claim_to_local(commitment, fee),
            self.peer.claim_to_remote(commitment, fee),
        ];
        claims.extend(rest.into_iter().flatten().map(|claim| claim.tx));
        for claim in &claims {
            if random.between(0, 2) == 0 {
                world.submit(claim);
            }
        }
    }

    /// The node learns the preimage of an HTLC that it received.
    pub(super) async fn preimage(
        &self,
        world: &World,
        random: &mut Random,
    ) -> Result<(), SoakError> {
        let received = self.peer.htlcs().iter().filter(|h| h.htlc.offerer == Side::Remote);
        let received: Vec<_> = received.collect();
        let Some(most) = (received.len() as u64).checked_sub(1) else { return Ok(()) };
        let Some(htlc) = received.get(random.between(0, most) as usize) else { return Ok(()) };
        let preimage = Preimage(htlc.preimage);
        match world.arbiter()?.preimage(self.id, preimage, PreimageSource::Node).await {
            // The peer's books are ahead: the arbiter was not told of the HTLC, or no longer has it.
            Err(CommandError::UnknownHash(_)) => Ok(()),
            told => known(told),
        }
    }

    /// Somebody subscribes, and is well behaved or not.
    pub(super) async fn subscribe(
        &mut self,
        world: &World,
        random: &mut Random,
    ) -> Result<(), SoakError> {
        if self.subscribers.len() >= SUBSCRIBERS {
            return Ok(());
        }
        let name = format!("s{}", self.subscribers.len());
        let delivery = match random.between(0, 1) {
            0 => Delivery::Detached,
            _ => Delivery::Acknowledged,
        };
        let stream = match world.arbiter()?.subscribe(self.id, &name, delivery).await {
            Ok(stream) => stream,
            Err(CommandError::UnknownChannel(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let subscriber = match random.between(0, 2) {
            0 => Subscriber::Reads(stream),
            1 => Subscriber::Blocked { _unread: stream },
            _ => Subscriber::Gone,
        };
        self.subscribers.push((name, subscriber));
        Ok(())
    }

    /// Subscribers that read do so.
    pub(super) async fn read(&mut self) -> Result<(), SoakError> {
        for (_, subscriber) in &mut self.subscribers {
            let Subscriber::Reads(stream) = subscriber else { continue };
            let mut last = None;
            while let Some(delivered) = stream.try_next() {
                last = Some(delivered.number);
            }
            if let Some(last) = last {
                known(stream.acknowledge(last).await)?;
            }
        }
        Ok(())
    }

    /// Nobody who does not read is waited for any longer.
    pub(super) async fn let_go(&mut self, world: &World) -> Result<(), SoakError> {
        for (name, subscriber) in std::mem::take(&mut self.subscribers) {
            match subscriber {
                Subscriber::Reads(_) => self.subscribers.push((name, subscriber)),
                Subscriber::Blocked { .. } | Subscriber::Gone => {
                    known(world.arbiter()?.unsubscribe(self.id, &name).await)?;
                }
            }
        }
        Ok(())
    }

    /// How many streams of its events are open.
    pub(super) fn streams(&self) -> usize {
        let open = |(_, subscriber): &&(String, Subscriber)| match subscriber {
            Subscriber::Reads(_) | Subscriber::Blocked { .. } => true,
            Subscriber::Gone => false,
        };
        self.subscribers.iter().filter(open).count()
    }

    /// The arbiter has ended: streams ended with it.
    pub(super) fn arbiter_ended(&mut self) {
        for (_, subscriber) in &mut self.subscribers {
            *subscriber = Subscriber::Gone;
        }
    }

    /// Whether the arbiter has forgotten the channel.
    pub(super) async fn is_forgotten(&self, world: &World) -> Result<bool, SoakError> {
        Ok(world.arbiter()?.report(self.id).await?.is_none())
    }

    /// What the arbiter says of the channel, for whoever looks for a fault.
    pub(super) async fn report(&self, world: &World) -> Result<String, SoakError> {
        let report = world.arbiter()?.report(self.id).await?;
        serde_json::to_string(&report).map_err(SoakError::unexpected)
    }

    /// The funding output, and a coin of the peer's.
    pub(super) fn payments(peer: &Channel) -> Vec<(bitcoin::ScriptBuf, Amount)> {
        vec![(peer.funding_script(), peer.params().capacity), (peer.peer_script(), PEER_COIN)]
    }
}

/// A channel may be forgotten by now.
fn known(answer: Result<(), CommandError>) -> Result<(), SoakError> {
    match answer {
        Ok(()) | Err(CommandError::UnknownChannel(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_that_a_reorganisation_took_away_is_published_again() -> Result<(), SoakError> {
        let mut random = Random::new("soak", 1);
        let mut world = World::begin().await?;
        let peer = (0..)
            .map(|serial| Life::peer(serial, &mut random))
            .find(|peer| peer.as_ref().is_ok_and(|peer| peer.params().format == Format::ZeroFee))
            .ok_or_else(|| SoakError::unexpected("no such format"))??;
        let outpoints = world.fund(Life::payments(&peer))?;
        world.mine(true);
        world.idle().await?;
        let mut life = Life::open(peer, (outpoints[0], outpoints[1]), &world).await?;
        assert!(life.close(Close::Remote, &world, &mut random).await?);
        world.mine(true);
        assert!(!world.is_unspent(&life.funding), "closed");
        let child = life.child.as_ref().map(Transaction::compute_txid);
        world.reorganise(1, &|tx| Some(tx.compute_txid()) == child)?;
        world.mine(true);
        assert!(world.is_unspent(&life.funding), "no miner takes it alone");
        life.look_whether_it_ended(&world);
        assert!(life.closing.is_some(), "it is on its way");
        world.mine(true);
        assert!(!world.is_unspent(&life.funding), "closed again");
        world.end(false).await;
        Ok(())
    }
}
