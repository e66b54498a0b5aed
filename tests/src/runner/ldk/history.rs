//! The off-chain history: LDK's nodes agree upon it, and so does the model.
use super::check::Outcome;
use super::{Nodes, Runner, US, ldk_failed, open};
use crate::ldk::Node;
use crate::peer::{self, Staged};
use crate::runner::Failed;
use crate::runner::history::preimage_of;
use crate::scenario::ast::{
    ChannelName, HashName, History, HtlcRef, Offer, Receive, ReceivedRole, Stage,
};
use crate::scenario::ldk::{FINAL_EXPIRY, outgoing_of};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::HtlcLink;
use arb_node_adapter::Mode;
use lightning::ln::channelmanager::{PaymentId, RecipientOnionFields};
use lightning::ln::msgs::BaseMessageHandler;
use lightning::routing::router::{Path, Route, RouteHop};
use lightning::types::features::ChannelFeatures;
use lightning::types::payment::{PaymentHash, PaymentPreimage};

/// A payment to be sent.
struct Sending<'a> {
    payer: usize,
    payee: usize,
    hash: &'a HashName,
    hops: Vec<Hop>,
}

struct Hop {
    to: usize,
    short_id: u64,
    /// What the node at its end keeps; the last one keeps the payment.
    msat: u64,
    /// Blocks that the node at its end has.
    blocks: u32,
}

impl Nodes {
    fn hash(hash: &HashName) -> (PaymentPreimage, PaymentHash) {
        let preimage = preimage_of(hash);
        (PaymentPreimage(preimage.0), PaymentHash(preimage.hash().0))
    }

    /// Hands a payment to the payer's manager.
    fn send(&mut self, sending: Sending<'_>) -> Result<u64, Failed> {
        let (_, hash) = Self::hash(sending.hash);
        let secret = self.nodes[sending.payee]
            .manager
            .create_inbound_payment_for_hash(hash, None, 7200, None)
            .map_err(ldk_failed)?;
        let hop = |hop: Hop| {
            let node: &Node = &self.nodes[hop.to];
            RouteHop {
                pubkey: node.id(),
                node_features: node.manager.provided_node_features(),
                short_channel_id: hop.short_id,
                channel_features: ChannelFeatures::empty(),
                fee_msat: hop.msat,
                cltv_expiry_delta: hop.blocks,
                maybe_announced_channel: false,
            }
        };
        let hops = sending.hops.into_iter().map(hop).collect();
        let route = Route { paths: vec![Path { hops, blinded_tail: None }], route_params: None };
        self.sent += 1;
        let mut id = [0; 32];
        id[24..].copy_from_slice(&self.sent.to_be_bytes());
        self.nodes[sending.payer]
            .manager
            .send_payment_with_route(
                route,
                hash,
                RecipientOnionFields::secret_only(secret),
                PaymentId(id),
            )
            .map_err(ldk_failed)?;
        Ok(self.sent)
    }

    fn is_pending(&self, channel: &ChannelName, htlc: peer::HtlcRef) -> Result<bool, Failed> {
        let ends = self.ends(channel)?;
        let channels = self.nodes[US].manager.list_channels();
        let details = channels.iter().find(|details| details.channel_id == ends.id);
        let details = details.ok_or_else(|| Failed::new("an open channel of LDK", "none"))?;
        Ok(match htlc.offerer {
            peer::Side::Local => {
                details.pending_outbound_htlcs.iter().any(|h| h.htlc_id == Some(htlc.id))
            }
            peer::Side::Remote => {
                details.pending_inbound_htlcs.iter().any(|h| h.htlc_id == htlc.id)
            }
        })
    }
}

impl Runner<'_> {
    /// Passes messages between our node and a peer until nothing moves.
    pub(super) async fn talk(&mut self, peer: usize) -> Result<(), Failed> {
        loop {
            let mut moved = false;
            for from in [US, peer] {
                let nodes = self.nodes_mut()?;
                moved |= match from {
                    US => nodes.take_events(),
                    _ => nodes.nodes[from].collect_events(),
                };
                moved |= nodes.lines.pass(&nodes.nodes, from);
                moved |= self.record().await?;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Our node says something, and no answer reaches it.
    async fn talk_one_way(&mut self) -> Result<(), Failed> {
        loop {
            let mut moved = self.record().await?;
            let nodes = self.nodes()?;
            moved |= nodes.lines.pass(&nodes.nodes, US);
            if !moved {
                return Ok(());
            }
        }
    }

    /// Connects with the peer of a channel; it is where we are.
    pub(super) async fn call(&mut self, channel: &ChannelName) -> Result<usize, Failed> {
        let peer = self.nodes()?.ends(channel)?.peer;
        self.show(peer).await?;
        let nodes = self.nodes_mut()?;
        nodes.lines.take_removed();
        nodes.lines.connect(&nodes.nodes, US, peer);
        self.talk(peer).await?;
        // What is failed back on the other side of a forward waits for this.
        self.nodes()?.nodes[US].manager.process_pending_htlc_forwards();
        self.talk(peer).await?;
        self.follow(channel)?;
        Ok(peer)
    }

    /// No peer is reached any more: what happens now, each node does alone.
    pub(in crate::runner) fn hang_up(&mut self) -> Result<(), Failed> {
        if let Some(nodes) = &mut self.ldk {
            for peer in 1..nodes.nodes.len() {
                nodes.hang_up(peer);
            }
        }
        Ok(())
    }

    pub(in crate::runner) async fn ldk_history(&mut self, history: &History) -> Result<(), Failed> {
        let channel = match history {
            History::Offer(offer) => self.ldk_offer(offer).await?,
            History::Receive(receive) => self.ldk_receive(receive).await?,
            History::Settle(htlc) => self.ldk_remove(htlc, true).await?,
            History::Cancel(htlc) => self.ldk_remove(htlc, false).await?,
            History::UpdateFee { channel, feerate } => {
                let peer = self.call(channel).await?;
                let rate = u32::try_from(feerate.to_sat_per_kwu())
                    .map_err(|_| Failed::new("a feerate of 32 bits", feerate))?;
                self.chan_mut(channel)?.peer.update_fee(rate)?;
                let opener = match self.chan(channel)?.peer.params().opener {
                    peer::Side::Local => US,
                    peer::Side::Remote => peer,
                };
                let nodes = self.nodes()?;
                open::set_fees(&nodes.nodes[opener], *feerate);
                nodes.nodes[opener].manager.timer_tick_occurred();
                self.talk(peer).await?;
                channel.clone()
            }
            History::Shutdown(channel) => return self.ldk_shutdown(channel).await,
            History::Splice { channel, capacity, confirm } => {
                self.ldk_splice(channel, *capacity, *confirm).await?;
                channel.clone()
            }
            History::Update { .. } | History::ForgetSince { .. } => {
                return Err(Failed::new("a statement that LDK nodes can do", "another"));
            }
        };
        self.hang_up()?;
        self.chan_mut(&channel)?.peer.take_facts(peer::Keep::Newest)?;
        self.check_commitments(&channel)
    }

    async fn ldk_offer(&mut self, offer: &Offer) -> Result<ChannelName, Failed> {
        let channel = &offer.htlc.channel;
        let peer = self.call(channel).await?;
        let ends = self.nodes()?.ends(channel)?;
        match &offer.upstream {
            None => {
                let (msat, blocks) = (offer.amount.0, offer.expiry.0.saturating_sub(1));
                let hops = vec![Hop { to: peer, short_id: ends.short_id, msat, blocks }];
                let sending = Sending { payer: US, payee: peer, hash: &offer.hash, hops };
                let nodes = self.nodes_mut()?;
                let number = nodes.send(sending)?;
                nodes.payments.insert(number, offer.htlc.clone());
            }
            Some(upstream) => {
                let nodes = self.nodes_mut()?;
                let id = nodes.intercepted.remove(upstream);
                let id = id.ok_or_else(|| Failed::new(format!("{upstream} to forward"), "none"))?;
                let node = &nodes.nodes[US];
                let to = nodes.nodes[peer].id();
                node.manager
                    .forward_intercepted_htlc(id, &ends.id, to, offer.amount.0)
                    .map_err(ldk_failed)?;
                node.manager.process_pending_htlc_forwards();
            }
        }
        let new = self.new_htlc(&offer.htlc, offer.amount.0, offer.expiry.0, &offer.hash);
        let model = &mut self.chan_mut(channel)?.peer;
        match offer.stage {
            Stage::Committed => {
                model.offer(new)?;
                self.talk(peer).await?;
            }
            Stage::Next => {
                model.stage(vec![Staged::Offer(new)])?;
                self.talk_one_way().await?;
            }
        }
        Ok(channel.clone())
    }

    async fn ldk_receive(&mut self, receive: &Receive) -> Result<ChannelName, Failed> {
        let channel = &receive.htlc.channel;
        let peer = self.call(channel).await?;
        let ends = self.nodes()?.ends(channel)?;
        let (msat, blocks) = (receive.amount.0, receive.expiry.0.saturating_sub(1));
        let mut hops = vec![Hop { to: US, short_id: ends.short_id, msat, blocks }];
        let mut payee = US;
        if let ReceivedRole::Forwarded { outgoing } = &receive.role
            && let Some((_, offer)) = outgoing_of(self.scenario, self.at, outgoing)
        {
            payee = self.nodes()?.ends(&outgoing.channel)?.peer;
            let short_id = self.nodes()?.nodes[US].manager.get_intercept_scid();
            let first = &mut hops[0];
            first.msat = msat.saturating_sub(offer.amount.0);
            first.blocks = receive.expiry.0.saturating_sub(offer.expiry.0);
            let (msat, blocks) = (offer.amount.0, offer.expiry.0.saturating_sub(1));
            hops.push(Hop { to: payee, short_id, msat, blocks });
        }
        let sending = Sending { payer: peer, payee, hash: &receive.hash, hops };
        self.nodes_mut()?.send(sending)?;
        let new = self.new_htlc(&receive.htlc, receive.amount.0, receive.expiry.0, &receive.hash);
        let links = match &receive.role {
            ReceivedRole::Final => None,
            ReceivedRole::Forwarded { .. } | ReceivedRole::Uncommitted => {
                Some(HtlcLink::Uncommitted)
            }
        };
        let chan = self.chan_mut(channel)?;
        match receive.stage {
            Stage::Committed => {
                let htlc = chan.peer.receive(new)?;
                chan.links.extend(links.map(|link| (htlc, link)));
                self.talk(peer).await?;
                // It is taken up: claimable, or waiting for its forwarding.
                self.nodes()?.nodes[US].manager.process_pending_htlc_forwards();
                self.talk(peer).await?;
                if let ReceivedRole::Forwarded { .. } = receive.role {
                    self.nodes_mut()?.take_intercepted(receive)?;
                }
            }
            Stage::Next => {
                let htlcs = chan.peer.stage(vec![Staged::Receive(new)])?;
                chan.links.extend(htlcs.into_iter().zip(links));
                let nodes = self.nodes()?;
                nodes.lines.pass(&nodes.nodes, peer);
                self.talk_one_way().await?;
            }
        }
        Ok(channel.clone())
    }

    /// Fulfils or fails an HTLC off-chain.
    async fn ldk_remove(&mut self, htlc: &HtlcRef, fulfil: bool) -> Result<ChannelName, Failed> {
        let channel = &htlc.channel;
        let known = self.chan(channel)?.peer.htlc(&htlc.htlc)?.clone();
        let nodes = self.nodes()?;
        let id = nodes.ends(channel)?.id;
        if !nodes.nodes[US].manager.list_channels().iter().any(|open| open.channel_id == id) {
            return Err(Failed::new(format!("channel {channel} to be open"), "LDK has closed it"));
        }
        let peer = self.call(channel).await?;
        let preimage = PaymentPreimage(known.preimage);
        let hash = PaymentHash(known.payment_hash);
        let outcome = if fulfil { Outcome::Sent } else { Outcome::Failed };
        // What was forwarded goes by itself, once it is known what became of it.
        if let Some(ended) = self.nodes()?.ended.get(htlc) {
            if *ended != outcome {
                let expected = format!("LDK to say {outcome:?} of {htlc}");
                return Err(Failed::new(expected, format!("{ended:?}")));
            }
            return Ok(channel.clone());
        }
        let nodes = self.nodes()?;
        let last = match known.htlc.offerer {
            peer::Side::Local => peer,
            peer::Side::Remote => US,
        };
        let manager = &nodes.nodes[last].manager;
        manager.process_pending_htlc_forwards();
        self.talk(peer).await?;
        let pending = self.nodes()?.is_pending(channel, known.htlc)?;
        if fulfil && !pending && known.htlc.offerer == peer::Side::Local {
            let expected = format!("{htlc} to expire at least {FINAL_EXPIRY} blocks after the tip");
            return Err(Failed::new(expected, "LDK has failed it"));
        }
        if pending {
            let manager = &self.nodes()?.nodes[last].manager;
            if fulfil {
                manager.claim_funds(preimage);
            } else {
                manager.fail_htlc_backwards(&hash);
                manager.process_pending_htlc_forwards();
            }
            self.talk(peer).await?;
        }
        if self.nodes()?.is_pending(channel, known.htlc)? {
            let what = if fulfil { "fulfilled" } else { "failed" };
            return Err(Failed::new(format!("{htlc} to be {what} by LDK"), "it is pending"));
        }
        self.check_outcome(htlc, outcome)?;
        self.nodes_mut()?.ended.insert(htlc.clone(), outcome);
        let model = &mut self.chan_mut(channel)?.peer;
        if fulfil {
            model.settle(&htlc.htlc)?;
        } else {
            model.cancel(&htlc.htlc)?;
        }
        // Of a forward within one channel both HTLCs go.
        self.follow(channel)?;
        Ok(channel.clone())
    }

    /// A mutual close: LDK agrees upon it at once, and the story says when it is published.
    async fn ldk_shutdown(&mut self, channel: &ChannelName) -> Result<(), Failed> {
        let peer = self.call(channel).await?;
        let nodes = self.nodes()?;
        let (id, to) = (nodes.ends(channel)?.id, nodes.nodes[peer].id());
        nodes.nodes[US].manager.close_channel(&id, &to).map_err(ldk_failed)?;
        self.talk(peer).await?;
        self.hang_up()?;
        let chan = self.chan(channel)?;
        let funding = chan.current_funding();
        let nodes = self.nodes_mut()?;
        let agreed = nodes.nodes[US].outbox.take().concat();
        let closes = agreed
            .into_iter()
            .find(|tx| tx.input.iter().any(|input| input.previous_output == funding));
        let closing = closes.ok_or_else(|| Failed::new("LDK to agree upon a close", "none"))?;
        nodes.closings.insert(channel.clone(), closing);
        Ok(())
    }

    /// The closing transaction that LDK's nodes agreed upon.
    pub(in crate::runner) async fn ldk_mutual(
        &mut self,
        channel: &ChannelName,
    ) -> Result<bitcoin::Transaction, Failed> {
        if !self.nodes()?.closings.contains_key(channel) {
            self.ldk_shutdown(channel).await?;
        }
        let closing = self.nodes_mut()?.take_closing(channel);
        closing.ok_or_else(|| Failed::new("a mutual close of LDK", "none"))
    }

    /// Our node takes payments by a preimage; on a channel that is open the peer does not hear it.
    pub(in crate::runner) async fn ldk_preimage(&mut self, hash: &HashName) -> Result<(), Failed> {
        self.hang_up()?;
        let height = self.world.height();
        let preimage = preimage_of(hash);
        let mut served = Vec::new();
        for (name, chan) in &self.channels {
            for htlc in chan.peer.htlcs().iter().filter(|htlc| htlc.preimage == preimage.0) {
                let ours = htlc.htlc.offerer == peer::Side::Remote;
                if ours && !chan.links.contains_key(&htlc.htlc) && !chan.forgotten {
                    served.push((name.clone(), htlc.name.clone()));
                }
            }
        }
        for htlc in served {
            self.known_since.entry(htlc).or_insert(height);
        }
        let claimed = PaymentPreimage(preimage.0);
        self.nodes()?.nodes[US].manager.claim_funds(claimed);
        self.ldk_turn().await?;
        let taken = std::mem::take(&mut self.nodes_mut()?.claimed);
        if taken.contains(&PaymentHash(preimage.hash().0)) {
            return Ok(());
        }
        // LDK has given it up, or knows no more of it: the node tells what it knows itself.
        for chan in self.channels.values().map(|chan| chan.id).collect::<Vec<_>>() {
            let told = self.try_command(|arbiter| async move {
                arbiter.preimage(chan, preimage, PreimageSource::Node).await
            });
            let _unknown_or_forgotten = told.await?;
        }
        Ok(())
    }

    /// Our node closes a channel with its own commitment.
    pub(in crate::runner) async fn ldk_fail(
        &mut self,
        channel: &ChannelName,
    ) -> Result<(), Failed> {
        self.hang_up()?;
        let nodes = self.nodes()?;
        let ends = nodes.ends(channel)?;
        let (manager, to) = (&nodes.nodes[US].manager, nodes.nodes[ends.peer].id());
        let why = "asked to".to_owned();
        let knows = manager.force_close_broadcasting_latest_txn(&ends.id, &to, why).is_ok();
        if knows || nodes.mode() != Mode::Own {
            self.ldk_turn().await?;
            return Ok(());
        }
        // LDK has closed it already, whatever became of the close since.
        self.fail_channel(channel).await
    }
}

impl Nodes {
    fn take_intercepted(&mut self, receive: &Receive) -> Result<(), Failed> {
        let (_, hash) = Self::hash(&receive.hash);
        let at = self.waiting.iter().position(|(of, _)| *of == hash);
        let at = at.ok_or_else(|| Failed::new("LDK to hold what is to be forwarded", "not"))?;
        let (_, id) = self.waiting.remove(at);
        self.intercepted.insert(receive.htlc.clone(), id);
        Ok(())
    }
}
