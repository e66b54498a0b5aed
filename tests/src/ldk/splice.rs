//! Splices between LDK nodes.

use super::net::{Link, Net};
use super::{LdkError, Node};
use bitcoin::blockdata::opcodes::OP_TRUE;
use bitcoin::script::Builder;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Weight, Witness};
use lightning::events::Event;
use lightning::ln::funding::{FundingTxInput, SpliceContribution};

/// What the transaction of a splice pays, at most.
const FEES: Amount = Amount::from_sat(10_000);
const FEERATE: u32 = 253;

/// A script that anyone can spend: coins of it come and go.
fn open() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

/// Weight of what spends such a coin, as the other node reckons it: for it the script is not known.
const OPEN_WITNESS: Weight = Weight::from_wu(400);

impl Net {
    /// One node adds to a channel, and both sign. The transaction waits in both outboxes.
    ///
    /// # Errors
    /// LDK refuses.
    pub fn splice_in(
        &mut self,
        node: usize,
        link: &Link,
        value: Amount,
    ) -> Result<OutPoint, LdkError> {
        let before = self.chain.height();
        let coin = self.chain.fund(open().to_p2wsh(), value + FEES)?;
        self.show(before + 1);
        let made = self.chain.confirmed_tx(&coin.txid).ok_or(LdkError::Missing("a coin"))?.clone();
        let input = FundingTxInput::new_p2wsh(made, coin.vout, OPEN_WITNESS)
            .map_err(|()| LdkError::Missing("a coin of this script"))?;
        let change_script = Some(open().to_p2wsh());
        let contribution =
            SpliceContribution::SpliceIn { value, inputs: vec![input], change_script };
        self.splice(node, link, contribution)
    }

    /// One node takes something out of a channel, and both sign.
    ///
    /// # Errors
    /// LDK refuses.
    pub fn splice_out(
        &mut self,
        node: usize,
        link: &Link,
        value: Amount,
    ) -> Result<OutPoint, LdkError> {
        self.splice(node, link, Self::taking(value))
    }

    /// What takes something out of a channel.
    pub fn taking(value: Amount) -> SpliceContribution {
        let outputs = vec![TxOut { value, script_pubkey: open().to_p2wsh() }];
        SpliceContribution::SpliceOut { outputs }
    }

    fn splice(
        &mut self,
        node: usize,
        link: &Link,
        contribution: SpliceContribution,
    ) -> Result<OutPoint, LdkError> {
        self.begin_splice(node, link, contribution)?;
        let pending = |event: &Event| match event {
            Event::SplicePending { channel_id, new_funding_txo, .. } => {
                (*channel_id == link.id).then_some(*new_funding_txo)
            }
            _ => None,
        };
        let funding = self.nodes[node].take_event(pending);
        let _other = self.nodes[link.peer_of(node)].take_event(pending);
        funding.ok_or(LdkError::Missing("tx_signatures"))
    }

    /// A splice up to the point at which LDK or its persister lets it wait.
    ///
    /// # Errors
    /// LDK refuses.
    pub fn begin_splice(
        &self,
        node: usize,
        link: &Link,
        contribution: SpliceContribution,
    ) -> Result<(), LdkError> {
        let peer = self.nodes[link.peer_of(node)].id();
        self.nodes[node]
            .manager
            .splice_channel(&link.id, &peer, contribution, FEERATE, None)
            .map_err(LdkError::refused)?;
        self.pump();
        self.sign_splice(node, link)?;
        self.pump();
        Ok(())
    }

    /// Signs what a node puts into a splice, if it is asked to.
    ///
    /// # Errors
    /// LDK refuses.
    pub fn sign_splice(&self, node: usize, link: &Link) -> Result<(), LdkError> {
        let node: &Node = &self.nodes[node];
        let ready = |event: &Event| match event {
            Event::FundingTransactionReadyForSigning {
                channel_id,
                counterparty_node_id,
                unsigned_transaction,
                ..
            } => (*channel_id == link.id)
                .then(|| (*counterparty_node_id, unsigned_transaction.clone())),
            _ => None,
        };
        let Some((peer, mut tx)) = node.take_event(ready) else { return Ok(()) };
        self.fill(&mut tx);
        node.manager.funding_transaction_signed(&link.id, &peer, tx).map_err(LdkError::refused)
    }

    /// Gives their witness to the inputs that anyone can spend.
    fn fill(&self, tx: &mut Transaction) {
        for input in &mut tx.input {
            let spent = self.chain.prevout(&input.previous_output);
            if spent.is_some_and(|output| output.script_pubkey == open().to_p2wsh()) {
                let mut witness = Witness::new();
                witness.push(open().as_bytes());
                input.witness = witness;
            }
        }
    }

    /// The channel with the name that it has now.
    ///
    /// # Errors
    /// It is not usable.
    pub fn renamed(&self, link: &Link) -> Result<Link, LdkError> {
        let channels = self.nodes[link.opener].manager.list_usable_channels();
        let found = channels.iter().find(|channel| channel.channel_id == link.id);
        let short_id = found.and_then(|channel| channel.short_channel_id);
        Ok(Link { short_id: short_id.ok_or(LdkError::Missing("splice_locked"))?, ..*link })
    }
}
