//! What a node does with LDK's events while LDK publishes: it pays for transactions that carry no
//! fee of their own, and sweeps what is spendable.

use super::{Node, Outbox, Quiet, Signers, Wallet};
use arb_node_adapter::MonitorEgress;
use arb_watcher::memory::MemoryCoins;
use bitcoin::secp256k1::{All, Secp256k1};
use lightning::chain::chaininterface::{BroadcasterInterface, ConfirmationTarget, FeeEstimator};
use lightning::events::Event;
use lightning::events::bump_transaction::sync::{
    BumpTransactionEventHandlerSync, WalletSourceSync, WalletSync,
};
use lightning::sign::{OutputSpender, SpendableOutputDescriptor};
use std::sync::Arc;

type Bumps = BumpTransactionEventHandlerSync<
    Arc<MonitorEgress<Arc<Outbox>>>,
    Arc<WalletSync<Arc<Wallet>, Arc<Quiet>>>,
    Arc<Signers>,
    Arc<Quiet>,
>;

/// The event handler of a node whose LDK publishes. Its transactions go to the node's outbox.
pub struct Hands {
    bumps: Bumps,
    wallet: Arc<Wallet>,
    secp: Secp256k1<All>,
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands").field("wallet", &self.wallet).finish_non_exhaustive()
    }
}

impl Hands {
    /// The hands of a node, with these coins.
    pub fn new(node: &Node, coins: MemoryCoins) -> Self {
        let wallet = Arc::new(Wallet(coins));
        let outbox = Arc::new(MonitorEgress::new(node.outbox.clone(), node.egress.clone()));
        let signers = node.signers.clone();
        let source = Arc::new(WalletSync::new(wallet.clone(), Arc::new(Quiet)));
        let bumps = Bumps::new(outbox, source, signers, Arc::new(Quiet));
        Self { bumps, wallet, secp: Secp256k1::new() }
    }

    /// Does what an event asks for.
    pub fn handle(&self, node: &Node, event: &Event) {
        match event {
            Event::BumpTransaction(bump) => self.bumps.handle_event(bump),
            Event::SpendableOutputs { outputs, .. } => self.sweep(node, outputs),
            _ => {}
        }
    }

    /// Outputs that do not pay for their own sweep stay where they are.
    fn sweep(&self, node: &Node, outputs: &[SpendableOutputDescriptor]) {
        let Ok(script) = self.wallet.get_change_script() else { return };
        let target = ConfirmationTarget::OutputSpendingFee;
        let rate = node.fees.get_est_sat_per_1000_weight(target);
        let outputs: Vec<_> = outputs.iter().collect();
        let spending =
            node.keys.spend_spendable_outputs(&outputs, Vec::new(), script, rate, None, &self.secp);
        if let Ok(tx) = spending {
            node.outbox.broadcast_transactions(&[&tx]);
        }
    }
}
