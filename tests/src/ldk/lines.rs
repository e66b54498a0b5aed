//! The messages between nodes, and connections that may be cut.

use super::node::Node;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    BaseMessageHandler, ChannelMessageHandler, CommitmentUpdate, ErrorAction, Init,
    MessageSendEvent,
};
use lightning::ln::types::ChannelId;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Connections between nodes, which are named by their place in a list.
#[derive(Debug, Default)]
pub struct Lines {
    connected: BTreeSet<(usize, usize)>,
    removed: Mutex<Vec<Removed>>,
}

/// HTLCs that a node removes with one commitment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The node, by its place; the other side has offered them.
    pub by: usize,
    /// Their channel.
    pub channel: ChannelId,
    /// Their ids, and whether they are fulfilled.
    pub htlcs: Vec<(u64, bool)>,
}

const fn ordered(one: usize, two: usize) -> (usize, usize) {
    if one < two { (one, two) } else { (two, one) }
}

impl Lines {
    /// Whether two nodes are connected.
    pub fn are_connected(&self, one: usize, two: usize) -> bool {
        self.connected.contains(&ordered(one, two))
    }

    /// Connects two nodes that are not.
    pub fn connect(&mut self, nodes: &[Node], one: usize, two: usize) {
        if !self.connected.insert(ordered(one, two)) {
            return;
        }
        let init = |from: usize, to: usize| Init {
            features: nodes[from].messages.provided_init_features(nodes[to].id()),
            networks: None,
            remote_network_address: None,
        };
        for (from, to, inbound) in [(one, two, true), (two, one, false)] {
            let (to, init) = (&nodes[to].messages, init(from, to));
            // It refuses peers without a feature that it wants; all of ours are alike.
            let met = to.peer_connected(nodes[from].id(), &init, inbound);
            debug_assert!(met.is_ok());
        }
    }

    /// Cuts a connection: what was on its way is lost.
    pub fn cut(&mut self, nodes: &[Node], one: usize, two: usize) {
        if self.connected.remove(&ordered(one, two)) {
            nodes[one].messages.peer_disconnected(nodes[two].id());
            nodes[two].messages.peer_disconnected(nodes[one].id());
        }
    }

    /// Puts a node that was started again in the place of the one that stopped, and connects it
    /// with those that it was connected with.
    pub fn replace(&mut self, nodes: &mut [Node], at: usize, node: Node) {
        let others = (0..nodes.len()).filter(|other| self.are_connected(at, *other));
        let others: Vec<usize> = others.collect();
        for other in &others {
            nodes[*other].messages.peer_disconnected(node.id());
            self.connected.remove(&ordered(at, *other));
        }
        nodes[at] = node;
        for other in others {
            self.connect(nodes, at, other);
        }
    }

    /// Passes the messages of one node; true if there were any. Those of a cut connection are lost.
    pub fn pass(&self, nodes: &[Node], from: usize) -> bool {
        let messages = nodes[from].messages.get_and_clear_pending_msg_events();
        let any = !messages.is_empty();
        for message in messages {
            self.deliver(nodes, from, message);
        }
        any
    }

    /// Takes what was removed since the last time, in the order in which it was said. What is said again
    /// after a connection was cut is in it again.
    pub fn take_removed(&self) -> Vec<Removed> {
        std::mem::take(&mut *self.removed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note_removed(&self, by: usize, channel: ChannelId, updates: &CommitmentUpdate) {
        let fulfilled = updates.update_fulfill_htlcs.iter().map(|msg| (msg.htlc_id, true));
        let failed = updates.update_fail_htlcs.iter().map(|msg| (msg.htlc_id, false));
        let malformed = updates.update_fail_malformed_htlcs.iter().map(|msg| (msg.htlc_id, false));
        let htlcs: Vec<_> = fulfilled.chain(failed).chain(malformed).collect();
        if !htlcs.is_empty() {
            let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
            removed.push(Removed { by, channel, htlcs });
        }
    }

    /// The node that a message is for, unless its connection is cut.
    fn reach<'a>(&self, nodes: &'a [Node], from: usize, id: &PublicKey) -> Option<&'a Node> {
        let to = nodes.iter().position(|node| node.id() == *id)?;
        self.are_connected(from, to).then(|| &nodes[to])
    }

    fn deliver(&self, nodes: &[Node], from: usize, message: MessageSendEvent) {
        use MessageSendEvent as M;
        let me = nodes[from].id();
        let to = |id: PublicKey| self.reach(nodes, from, &id).map(|node| &node.messages);
        match message {
            M::SendOpenChannel { node_id, msg } => {
                to(node_id).inspect(|to| to.handle_open_channel(me, &msg));
            }
            M::SendAcceptChannel { node_id, msg } => {
                to(node_id).inspect(|to| to.handle_accept_channel(me, &msg));
            }
            M::SendFundingCreated { node_id, msg } => {
                to(node_id).inspect(|to| to.handle_funding_created(me, &msg));
            }
            M::SendFundingSigned { node_id, msg } => {
                to(node_id).inspect(|to| to.handle_funding_signed(me, &msg));
            }
            M::SendChannelReady { node_id, msg } => {
                to(node_id).inspect(|to| to.handle_channel_ready(me, &msg));
            }
            M::UpdateHTLCs { node_id, channel_id, updates } => {
                if let Some(to) = to(node_id) {
                    self.note_removed(from, channel_id, &updates);
                    deliver_updates(to, me, channel_id, updates);
                }
            }
            M::SendRevokeAndACK { node_id, msg } => {
                to(node_id).inspect(|to| to.handle_revoke_and_ack(me, &msg));
            }
            M::SendShutdown { node_id, msg } => {
                to(node_id).inspect(|to| to.handle_shutdown(me, &msg));
            }
            M::SendClosingSigned { node_id, msg } => {
                to(node_id).inspect(|to| to.handle_closing_signed(me, &msg));
            }
            M::SendStfu { .. }
            | M::SendSpliceInit { .. }
            | M::SendSpliceAck { .. }
            | M::SendSpliceLocked { .. }
            | M::SendTxAddInput { .. }
            | M::SendTxAddOutput { .. }
            | M::SendTxComplete { .. }
            | M::SendTxSignatures { .. }
            | M::SendTxAbort { .. } => deliver_splicing(to, me, message),
            M::SendChannelReestablish { node_id, msg } => {
                to(node_id).inspect(|to| to.handle_channel_reestablish(me, &msg));
            }
            M::HandleError { node_id, action } => {
                let msg = match action {
                    ErrorAction::SendErrorMessage { msg } => Some(msg),
                    ErrorAction::DisconnectPeer { msg } => msg,
                    _ => None,
                };
                if let (Some(msg), Some(to)) = (msg, to(node_id)) {
                    to.handle_error(me, &msg);
                }
            }
            // Gossip is of no use to nodes whose payments name their hops.
            _ => {}
        }
    }
}

/// What two nodes say about a splice.
fn deliver_splicing<'a, H: ChannelMessageHandler + 'a>(
    to: impl Fn(PublicKey) -> Option<&'a H>,
    me: PublicKey,
    message: MessageSendEvent,
) {
    use MessageSendEvent as M;
    match message {
        M::SendStfu { node_id, msg } => {
            to(node_id).inspect(|to| to.handle_stfu(me, &msg));
        }
        M::SendSpliceInit { node_id, msg } => {
            to(node_id).inspect(|to| to.handle_splice_init(me, &msg));
        }
        M::SendSpliceAck { node_id, msg } => {
            to(node_id).inspect(|to| to.handle_splice_ack(me, &msg));
        }
        M::SendSpliceLocked { node_id, msg } => {
            to(node_id).inspect(|to| to.handle_splice_locked(me, &msg));
        }
        M::SendTxAddInput { node_id, msg } => {
            to(node_id).inspect(|to| to.handle_tx_add_input(me, &msg));
        }
        M::SendTxAddOutput { node_id, msg } => {
            to(node_id).inspect(|to| to.handle_tx_add_output(me, &msg));
        }
        M::SendTxComplete { node_id, msg } => {
            to(node_id).inspect(|to| to.handle_tx_complete(me, &msg));
        }
        M::SendTxSignatures { node_id, msg } => {
            to(node_id).inspect(|to| to.handle_tx_signatures(me, &msg));
        }
        M::SendTxAbort { node_id, msg } => {
            to(node_id).inspect(|to| to.handle_tx_abort(me, &msg));
        }
        _ => {}
    }
}

fn deliver_updates(
    to: &impl ChannelMessageHandler,
    me: PublicKey,
    channel: ChannelId,
    updates: CommitmentUpdate,
) {
    for msg in &updates.update_add_htlcs {
        to.handle_update_add_htlc(me, msg);
    }
    for msg in updates.update_fulfill_htlcs {
        to.handle_update_fulfill_htlc(me, msg);
    }
    for msg in &updates.update_fail_htlcs {
        to.handle_update_fail_htlc(me, msg);
    }
    for msg in &updates.update_fail_malformed_htlcs {
        to.handle_update_fail_malformed_htlc(me, msg);
    }
    if let Some(msg) = &updates.update_fee {
        to.handle_update_fee(me, msg);
    }
    match updates.commitment_signed.as_slice() {
        [] => {}
        [msg] => to.handle_commitment_signed(me, msg),
        // One for each funding candidate.
        all => to.handle_commitment_signed_batch(me, channel, all.to_vec()),
    }
}
