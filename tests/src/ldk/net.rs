//! Several nodes, the chain that they share, and the messages between them.

use super::LdkError;
use super::lines::Lines;
use super::node::{Kept, Kind, Node, Stored};
use crate::chain::{EmbeddedChain, Selection};
use bitcoin::absolute::LockTime;
use bitcoin::blockdata::opcodes::OP_TRUE;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use lightning::chain::Listen;
use lightning::events::Event;
use lightning::ln::channelmanager::{PaymentId, RecipientOnionFields};
use lightning::ln::msgs::BaseMessageHandler;
use lightning::ln::types::ChannelId;
use lightning::routing::router::{Path, Route, RouteHop};
use lightning::types::features::ChannelFeatures;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use std::sync::Arc;

/// What a forwarding node takes: LDK's default.
const FORWARDING_FEE_MSAT: u64 = 1_000;
/// What a forwarding node wants between its two expiries: LDK's default.
const FORWARDING_DELTA: u32 = 72;
/// Blocks that the last node has.
const FINAL_DELTA: u32 = 80;

/// Does what the nodes wait for, and says whether there was anything.
pub type OnQuiet = Box<dyn Fn(&[Node]) -> bool>;

/// Sees every block that the nodes are shown.
pub type OnBlock = Box<dyn Fn(&Block, u32)>;

/// Nodes, named by their place in the list.
pub struct Net {
    /// The chain.
    pub chain: EmbeddedChain,
    /// The nodes.
    pub nodes: Vec<Node>,
    lines: Lines,
    payments: u32,
    on_quiet: Option<OnQuiet>,
    watching: Option<OnBlock>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// An open channel between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who opened it.
    pub opener: usize,
    /// The other node.
    pub other: usize,
    /// Its id.
    pub id: ChannelId,
    /// Where the funding output stands in the chain.
    pub short_id: u64,
}

impl Link {
    /// The node at the other end.
    pub fn peer_of(&self, node: usize) -> usize {
        if node == self.opener { self.other } else { self.opener }
    }
}

/// How far a channel's opening is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The other node is asked, and has not answered.
    Asked,
    /// The opener knows that it is accepted.
    Accepted,
    /// The opener has the funding transaction, and the other node knows nothing of it.
    Funding,
    /// The other node knows it.
    Funded,
}

/// A payment on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Its hash.
    pub hash: PaymentHash,
    /// What opens it.
    pub preimage: PaymentPreimage,
    /// Who is paid.
    pub payee: usize,
}

impl Net {
    /// `count` nodes, all connected, with monitors kept in memory.
    pub fn new(count: u8, kind: Kind) -> Self {
        Self::with(count, kind, &|_| Arc::new(Kept::default()))
    }

    /// `count` nodes, all connected; `stored` makes each node's persister.
    pub fn with(count: u8, kind: Kind, stored: &Stored) -> Self {
        let mut chain = EmbeddedChain::new();
        chain.mine_empty(120);
        let node = |at: u8| Node::new(at + 1, kind, &chain, stored);
        let nodes: Vec<Node> = (0..count).map(node).collect();
        let mut lines = Lines::default();
        for one in 0..count.into() {
            for two in one + 1..count.into() {
                lines.connect(&nodes, one, two);
            }
        }
        Self { chain, nodes, lines, payments: 0, on_quiet: None, watching: None }
    }

    /// Has this done whenever no message moves any more.
    pub fn when_quiet(&mut self, on_quiet: OnQuiet) {
        self.on_quiet = Some(on_quiet);
    }

    /// Shows blocks to somebody else as well, before the nodes.
    pub fn also_show(&mut self, watching: OnBlock) {
        self.watching = Some(watching);
    }

    /// Puts a node that was started again in the place of the one that stopped, and connects it.
    pub fn replace(&mut self, at: usize, node: Node) {
        self.lines.replace(&mut self.nodes, at, node);
    }

    /// Cuts a connection: what was on its way is lost.
    pub fn cut(&mut self, one: usize, two: usize) {
        self.lines.cut(&self.nodes, one, two);
    }

    /// Connects two nodes again.
    pub fn reconnect(&mut self, one: usize, two: usize) {
        self.lines.connect(&self.nodes, one, two);
        self.pump();
    }

    /// Passes messages and collects events until nothing moves.
    pub fn pump(&self) {
        // Forwarding leads to events of the next pass.
        let mut quiet = 0;
        while quiet < 2 {
            let mut moved = false;
            for from in 0..self.nodes.len() {
                moved |= self.pump_one(from);
            }
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet == 2 && self.on_quiet.as_ref().is_some_and(|on_quiet| on_quiet(&self.nodes)) {
                quiet = 0;
            }
        }
    }

    /// Has done what the nodes wait for, and passes no message.
    pub fn complete(&self) {
        if let Some(on_quiet) = &self.on_quiet {
            on_quiet(&self.nodes);
        }
    }

    /// Passes one node's messages and collects its events; true if there were any.
    pub fn pump_one(&self, from: usize) -> bool {
        let node = &self.nodes[from];
        let moved = node.collect_events();
        node.manager.process_pending_htlc_forwards();
        self.lines.pass(&self.nodes, from) || moved
    }

    /// Opens a channel and mines it.
    ///
    /// # Errors
    /// LDK refuses.
    pub fn open(
        &mut self,
        opener: usize,
        other: usize,
        capacity: Amount,
        push_msat: u64,
    ) -> Result<Link, LdkError> {
        self.open_while(opener, other, (capacity, push_msat), &mut |_, _, _| {})
    }

    /// The same; something happens between its steps.
    ///
    /// # Errors
    /// LDK refuses.
    pub fn open_while(
        &mut self,
        opener: usize,
        other: usize,
        (capacity, push_msat): (Amount, u64),
        between: &mut dyn FnMut(&Self, Opening, ChannelId),
    ) -> Result<Link, LdkError> {
        let id = self.propose_while(opener, other, (capacity, push_msat), between)?;
        self.mine(6)?;
        self.pump();
        let channels = self.nodes[opener].manager.list_usable_channels();
        let found = channels.iter().find(|channel| channel.channel_id == id);
        let short_id = found.and_then(|channel| channel.short_channel_id);
        let short_id = short_id.ok_or(LdkError::Missing("channel_ready"))?;
        Ok(Link { opener, other, id, short_id })
    }

    /// Opens a channel up to its funding transaction, which waits in the opener's outbox.
    ///
    /// # Errors
    /// LDK refuses.
    pub fn propose(
        &mut self,
        opener: usize,
        other: usize,
        capacity: Amount,
        push_msat: u64,
    ) -> Result<ChannelId, LdkError> {
        self.propose_while(opener, other, (capacity, push_msat), &mut |_, _, _| {})
    }

    fn propose_while(
        &mut self,
        opener: usize,
        other: usize,
        (capacity, push_msat): (Amount, u64),
        between: &mut dyn FnMut(&Self, Opening, ChannelId),
    ) -> Result<ChannelId, LdkError> {
        let to = self.nodes[other].id();
        let manager = &self.nodes[opener].manager;
        manager
            .create_channel(to, capacity.to_sat(), push_msat, 1, None, None)
            .map_err(LdkError::refused)?;
        self.pump();
        let asked = |event: &Event| match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                Some((*temporary_channel_id, *counterparty_node_id))
            }
            _ => None,
        };
        let asked = self.nodes[other].take_event(asked);
        let (temporary, from) = asked.ok_or(LdkError::Missing("open_channel"))?;
        between(self, Opening::Asked, temporary);
        let accepting = &self.nodes[other].manager;
        accepting.accept_inbound_channel(&temporary, &from, 1, None).map_err(LdkError::refused)?;
        self.pump();
        let wanted = |event: &Event| match event {
            Event::FundingGenerationReady { temporary_channel_id, output_script, .. } => {
                Some((*temporary_channel_id, output_script.clone()))
            }
            _ => None,
        };
        let wanted = self.nodes[opener].take_event(wanted);
        let (temporary, script) = wanted.ok_or(LdkError::Missing("accept_channel"))?;
        between(self, Opening::Accepted, temporary);
        let funding = self.funding_transaction(script, capacity)?;
        self.nodes[opener]
            .manager
            .funding_transaction_generated(temporary, to, funding)
            .map_err(LdkError::refused)?;
        between(self, Opening::Funding, temporary);
        self.pump_one(opener);
        between(self, Opening::Funded, temporary);
        self.pump();
        let opened = |event: &Event| match event {
            Event::ChannelPending { channel_id, former_temporary_channel_id, .. } => {
                (*former_temporary_channel_id == Some(temporary)).then_some(*channel_id)
            }
            _ => None,
        };
        self.nodes[opener].take_event(opened).ok_or(LdkError::Missing("funding_signed"))
    }

    /// Spends a coin that anyone could spend.
    fn funding_transaction(
        &mut self,
        script: ScriptBuf,
        value: Amount,
    ) -> Result<Transaction, LdkError> {
        let open = Builder::new().push_opcode(OP_TRUE).into_script();
        let coin = value + Amount::from_sat(1_000);
        let before = self.chain.height();
        let outpoint = self.chain.fund(open.to_p2wsh(), coin)?;
        self.show(before + 1);
        let mut witness = Witness::new();
        witness.push(open.as_bytes());
        Ok(Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness,
            }],
            output: vec![TxOut { value, script_pubkey: script }],
        })
    }

    /// Hands what the nodes want broadcast to the mempool; what it refuses is dropped.
    pub fn broadcast(&mut self) {
        for node in &self.nodes {
            for package in node.outbox.take() {
                match <[Transaction; 1]>::try_from(package) {
                    Ok([tx]) => {
                        let _refused = self.chain.submit(tx);
                    }
                    Err(package) => {
                        let _report = self.chain.submit_package(&package);
                    }
                }
            }
        }
    }

    /// Mines blocks; before each, what waits for broadcast goes to the mempool.
    ///
    /// # Errors
    /// None so far.
    pub fn mine(&mut self, blocks: u32) -> Result<(), LdkError> {
        for _ in 0..blocks {
            self.broadcast();
            let before = self.chain.height();
            self.chain.mine(&Selection::All);
            self.show(before + 1);
            self.pump();
        }
        Ok(())
    }

    /// Shows blocks from this height on to all nodes.
    pub fn show(&self, from: u32) {
        for height in from..=self.chain.height() {
            if let Some(block) = self.chain.block_at(height) {
                if let Some(watching) = &self.watching {
                    watching(block, height);
                }
                for node in &self.nodes {
                    node.connect(block, height);
                }
            }
        }
    }

    /// Shows all nodes the tip; of the first one the chain monitor is shown it first, then something happens,
    /// then its channel manager.
    pub fn show_monitors_first(&self, between: impl FnOnce(&Self)) {
        let height = self.chain.height();
        let Some(block) = self.chain.block_at(height) else { return };
        if let Some(watching) = &self.watching {
            watching(block, height);
        }
        let Some((first, others)) = self.nodes.split_first() else { return };
        first.egress.best_height(height);
        first.monitors.block_connected(block, height);
        between(self);
        first.manager.block_connected(block, height);
        for node in others {
            node.connect(block, height);
        }
    }

    /// Sends a payment from `payer` over `links` and waits until the last node holds it. Equal
    /// names give equal hashes.
    ///
    /// # Errors
    /// LDK refuses, or the payment does not arrive.
    pub fn send(
        &mut self,
        payer: usize,
        links: &[Link],
        amount_msat: u64,
        name: &str,
    ) -> Result<Payment, LdkError> {
        let payment = self.start(payer, links, amount_msat, name, 1)?;
        self.pump();
        self.arrived(&payment)?;
        Ok(payment)
    }

    /// Waits for nothing: the payment is handed to the payer's manager, in parts of this amount
    /// that all take the same way.
    ///
    /// # Errors
    /// LDK refuses.
    pub fn start(
        &mut self,
        payer: usize,
        links: &[Link],
        amount_msat: u64,
        name: &str,
        parts: usize,
    ) -> Result<Payment, LdkError> {
        let preimage = PaymentPreimage(sha256::Hash::hash(name.as_bytes()).to_byte_array());
        let hash = PaymentHash(sha256::Hash::hash(&preimage.0).to_byte_array());
        let (path, payee) = self.path(payer, links, amount_msat);
        let route = Route { paths: vec![path; parts], route_params: None };
        let secret = self.nodes[payee]
            .manager
            .create_inbound_payment_for_hash(hash, None, 7200, None)
            .map_err(LdkError::refused)?;
        self.payments += 1;
        let mut id = [0; 32];
        id[..4].copy_from_slice(&self.payments.to_be_bytes());
        let onion = RecipientOnionFields::secret_only(secret);
        self.nodes[payer]
            .manager
            .send_payment_with_route(route, hash, onion, PaymentId(id))
            .map_err(LdkError::refused)?;
        Ok(Payment { hash, preimage, payee })
    }

    fn path(&self, payer: usize, links: &[Link], amount_msat: u64) -> (Path, usize) {
        let mut at = payer;
        let last = links.len().saturating_sub(1);
        let hops = links.iter().enumerate().map(|(place, link)| {
            at = link.peer_of(at);
            let node = &self.nodes[at];
            RouteHop {
                pubkey: node.id(),
                node_features: node.manager.provided_node_features(),
                short_channel_id: link.short_id,
                channel_features: ChannelFeatures::empty(),
                fee_msat: if place == last { amount_msat } else { FORWARDING_FEE_MSAT },
                cltv_expiry_delta: if place == last { FINAL_DELTA } else { FORWARDING_DELTA },
                maybe_announced_channel: false,
            }
        });
        let hops = hops.collect();
        (Path { hops, blinded_tail: None }, at)
    }

    /// Takes the event that the payee holds the payment.
    ///
    /// # Errors
    /// It does not.
    pub fn arrived(&self, payment: &Payment) -> Result<(), LdkError> {
        let claimable = |event: &Event| match event {
            Event::PaymentClaimable { payment_hash, .. } => {
                (*payment_hash == payment.hash).then_some(())
            }
            _ => None,
        };
        let node = &self.nodes[payment.payee];
        node.take_event(claimable).ok_or(LdkError::Missing("the payment's arrival"))
    }

    /// The payee takes the payment, and the message goes all the way back.
    pub fn claim(&self, payment: &Payment) {
        self.nodes[payment.payee].manager.claim_funds(payment.preimage);
        self.pump();
    }

    /// The payee fails the payment, and the message goes all the way back.
    pub fn fail(&self, payment: &Payment) {
        self.nodes[payment.payee].manager.fail_htlc_backwards(&payment.hash);
        self.pump();
    }

    /// A node closes its channel with its commitment, which waits in its outbox (or, with anchors,
    /// as an event).
    ///
    /// # Errors
    /// LDK refuses.
    pub fn force_close(&self, node: usize, link: &Link) -> Result<(), LdkError> {
        let peer = self.nodes[link.peer_of(node)].id();
        self.nodes[node]
            .manager
            .force_close_broadcasting_latest_txn(&link.id, &peer, "asked to".to_owned())
            .map_err(LdkError::refused)?;
        self.pump();
        Ok(())
    }
}
