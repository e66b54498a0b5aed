//! LDK's filter over whole blocks.
use super::fixtures::{outpoint, spend};
use arb_node_adapter::OutputFilter;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Transaction, TxMerkleNode};
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::chain::{Filter, WatchedOutput};

fn positions(filter: &OutputFilter, block: &Block) -> Vec<usize> {
    filter.relevant(block).into_iter().map(|(position, _)| position).collect()
}

#[test]
fn what_is_registered_is_found_and_what_comes_of_it() {
    let foreign = spend(&[outpoint(1)], 1);
    let funding = spend(&[outpoint(2)], 2);
    let close =
        spend(&[OutPoint { vout: 1, ..outpoint(1) }, OutPoint { vout: 7, ..outpoint(3) }], 3);
    let of = |tx: &Transaction| OutPoint { txid: tx.compute_txid(), vout: 0 };
    let claim = spend(&[of(&close)], 4);
    let after = spend(&[of(&foreign)], 5);
    let header = Header {
        version: BlockVersion::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::default(),
        nonce: 0,
    };
    let txdata = vec![foreign, funding.clone(), close, claim, after];
    let block = Block { header, txdata };
    let filter = OutputFilter::new();
    assert!(positions(&filter, &block).is_empty());
    filter.register_tx(&funding.compute_txid(), &ScriptBuf::new());
    assert_eq!(positions(&filter, &block), [1]);
    let closed = LdkOutPoint { txid: outpoint(3).txid, index: 7 };
    let output =
        WatchedOutput { block_hash: None, outpoint: closed, script_pubkey: ScriptBuf::new() };
    filter.register_output(output.clone());
    filter.register_output(output);
    assert_eq!(filter.outputs(), 1);
    assert_eq!(positions(&filter, &block), [1, 2, 3]);
}
