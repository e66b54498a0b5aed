//! `register_outputs`: tells a chain client that filters what to look for.
use arb_core::engine::ChainArbitrator;
use arb_core::facts::ChannelFacts;
use arb_core::format::scripts;
use arb_core::picture::Watched;
use bitcoin::OutPoint;
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::chain::{Filter, WatchedOutput};

/// Registers every output of a channel whose spend must be seen: funding outputs, and those of the
/// transactions that are confirmed.
///
/// For clients that filter ([`lightning::chain::Confirm`], BIP 157). Call it for each channel at
/// start-up and when it is registered, and after each settling for the channels that it concerned.
/// An output that was never registered is never seen spent.
pub fn register_outputs<F: Filter + ?Sized>(
    filter: &F,
    engine: &ChainArbitrator,
    facts: &ChannelFacts,
) {
    for candidate in facts.candidates.iter() {
        let script = scripts::funding(&candidate.keys.local, &candidate.keys.remote).to_p2wsh();
        register(filter, candidate.funding, None, script);
    }
    let active = engine.slot(&facts.id).and_then(|slot| engine.active(slot));
    let Some(picture) = active.and_then(|active| active.picture.as_deref()) else { return };
    for Watched { outpoint, script, at } in picture.watched_scripts() {
        register(filter, outpoint, Some(at.hash), script);
    }
}

fn register<F: Filter + ?Sized>(
    filter: &F,
    outpoint: OutPoint,
    block_hash: Option<bitcoin::BlockHash>,
    script_pubkey: bitcoin::ScriptBuf,
) {
    // BOLT 2 counts funding outputs in 16 bits, and no transaction of a channel has more.
    let Ok(index) = u16::try_from(outpoint.vout) else { return };
    let outpoint = LdkOutPoint { txid: outpoint.txid, index };
    filter.register_output(WatchedOutput { block_hash, outpoint, script_pubkey });
}
