//! Splices: the peer adds to a channel, and LDK's nodes agree upon the transaction.
use super::{Nodes, Runner, US, ldk_failed};
use crate::peer::PeerCoin;
use crate::runner::Failed;
use crate::runner::splice::Splice;
use crate::scenario::ast::{ChannelName, SpliceConfirmation};
use bitcoin::{Amount, OutPoint, Transaction};
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::events::Event;
use lightning::ln::funding::{FundingTxInput, SpliceContribution};

/// What the transaction pays, in satoshis per 1000 weight units.
const FEERATE: u32 = 253;
/// More than that is for one of these.
const FEE: Amount = Amount::from_sat(2_000);

impl Nodes {
    /// The transaction that the peer is asked to sign its coins in.
    fn to_sign(&self, peer: usize) -> Option<Transaction> {
        self.nodes[peer].take_event(|event| match event {
            Event::FundingTransactionReadyForSigning { unsigned_transaction, .. } => {
                Some(unsigned_transaction.clone())
            }
            _ => None,
        })
    }

    /// Takes what spends an output from what a node wants broadcast.
    fn take_spender(&self, node: usize, spent: OutPoint) -> Option<Transaction> {
        let outbox = &self.nodes[node].outbox;
        let spends = |tx: &Transaction| tx.input.iter().any(|input| input.previous_output == spent);
        let mut found = None;
        for package in outbox.take() {
            match package.iter().find(|tx| spends(tx)) {
                Some(tx) => found = Some(tx.clone()),
                None => outbox.broadcast_transactions(&package.iter().collect::<Vec<_>>()),
            }
        }
        found
    }
}

impl Runner<'_> {
    /// Whether the parties are LDK's nodes.
    pub(in crate::runner) const fn is_of_ldk(&self) -> bool {
        self.ldk.is_some()
    }

    /// Coins of the peer that are enough for a splice, with the transactions that made them.
    async fn coins_for(
        &self,
        name: &ChannelName,
        value: Amount,
    ) -> Result<(Vec<PeerCoin>, Vec<FundingTxInput>), Failed> {
        let mut coins = self.peer_coins(name).await?;
        coins.sort_by_key(|coin| std::cmp::Reverse(coin.txout.value));
        let (mut sum, mut taken, mut inputs) = (Amount::ZERO, Vec::new(), Vec::new());
        for coin in coins {
            if sum >= value + FEE {
                break;
            }
            let PeerCoin { outpoint, txout, .. } = &coin;
            let made = self.world.ledger.tx(&outpoint.txid).map(|(_, tx)| tx.clone());
            let made = made.ok_or_else(|| Failed::new("a coin in a block", outpoint))?;
            inputs.push(FundingTxInput::new_p2wpkh(made, outpoint.vout).map_err(ldk_failed)?);
            sum += txout.value;
            taken.push(coin);
        }
        Ok((taken, inputs))
    }

    /// The peer adds to the channel up to this capacity, and both sign. The transaction enters the
    /// mempool, or nobody publishes it.
    pub(super) async fn ldk_splice(
        &mut self,
        name: &ChannelName,
        capacity: Amount,
        confirm: SpliceConfirmation,
    ) -> Result<(), Failed> {
        let chan = self.chan(name)?;
        let (nth, spent) = (chan.splices.len() + 1, chan.current_funding());
        let before = chan.on(chan.current_scope())?.params().capacity;
        let value = capacity.checked_sub(before).filter(|value| *value > Amount::ZERO);
        let value = value.ok_or_else(|| Failed::new(format!("more than {before}"), capacity))?;
        let (coins, inputs) = self.coins_for(name, value).await?;
        let change_script = Some(self.chan(name)?.peer.peer_script());
        let contribution = SpliceContribution::SpliceIn { value, inputs, change_script };

        let peer = self.call(name).await?;
        let nodes = self.nodes()?;
        let (id, us) = (nodes.ends(name)?.id, nodes.nodes[US].id());
        nodes.nodes[peer]
            .manager
            .splice_channel(&id, &us, contribution, FEERATE, None)
            .map_err(ldk_failed)?;
        self.talk(peer).await?;
        let unsigned = self.nodes()?.to_sign(peer);
        let unsigned = unsigned.ok_or_else(|| Failed::new("a splice of LDK to sign", "none"))?;
        let signed = self.chan(name)?.peer.sign_coins(unsigned, &coins)?;
        let nodes = self.nodes()?;
        nodes.nodes[peer]
            .manager
            .funding_transaction_signed(&id, &us, signed)
            .map_err(ldk_failed)?;
        self.talk(peer).await?;

        let nodes = self.nodes()?;
        let made = [US, peer].map(|node| nodes.take_spender(node, spent));
        let tx = made.into_iter().flatten().next();
        let tx = tx.ok_or_else(|| Failed::new("a splice of LDK", "none"))?;
        let secrets = nodes.signers(peer).map(|signer| signer.funding_key(Some(spent.txid)));
        self.chan_mut(name)?.peer.set_splice_secrets(nth, secrets);
        let chan = self.chan(name)?;
        let placeholder = OutPoint { txid: tx.compute_txid(), vout: 0 };
        let output = chan.peer.spliced(nth, placeholder, capacity)?.funding_output();
        let vout = (0..).zip(&tx.output).find(|(_, made)| **made == output).map(|(vout, _)| vout);
        let vout = vout.ok_or_else(|| Failed::new(format!("{output:?}"), format!("{tx:?}")))?;
        let funding = OutPoint { vout, ..placeholder };
        self.chan_mut(name)?.splices.push(Splice::new(tx.clone(), funding, capacity));
        match confirm {
            SpliceConfirmation::Confirms => self.submit(&tx).await,
            SpliceConfirmation::StaysUnconfirmed => {
                self.nodes_mut()?.kept_back.insert(tx.compute_txid());
                Ok(())
            }
        }
    }

    /// Both nodes have the splice deep enough, and tell each other. False: LDK has closed the channel.
    pub(in crate::runner) async fn ldk_lock(
        &mut self,
        name: &ChannelName,
        at: usize,
    ) -> Result<bool, Failed> {
        let id = self.nodes()?.ends(name)?.id;
        let is_open = |nodes: &Nodes| {
            nodes.nodes[US].manager.list_channels().iter().any(|of| of.channel_id == id)
        };
        if !self.node.is_running() || !is_open(self.nodes()?) {
            return Ok(false);
        }
        let peer = self.call(name).await?;
        self.hang_up()?;
        if !is_open(self.nodes()?) {
            return Ok(false);
        }
        let expected = self.chan(name)?.splices.get(at).map(|splice| splice.funding);
        let nodes = self.nodes_mut()?;
        for node in [US, peer] {
            let monitor = nodes.nodes[node].monitors.get_monitor(id);
            let found = monitor.map(|of| of.get_funding_txo().into_bitcoin_outpoint()).ok();
            if found != expected {
                let found = format!("node {node} of LDK has {found:?}");
                return Err(Failed::new(format!("{expected:?} to be locked"), found));
            }
        }
        nodes.rename(name);
        Ok(true)
    }
}
