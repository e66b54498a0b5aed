//! Making blocks: coinbase, commitments, proof of work.

use bitcoin::absolute::Height;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, absolute, transaction,
};

/// Regtest's easiest target: every second hash meets it.
const REGTEST_BITS: u32 = 0x207f_ffff;
/// BIP141's header of the witness commitment output.
const WITNESS_COMMITMENT: [u8; 4] = [0xaa, 0x21, 0xa9, 0xed];
/// Seconds between blocks.
const SPACING: u32 = 600;
const INITIAL_SUBSIDY: Amount = Amount::from_int_btc(50);
/// Mainnet's interval: with regtest's 150 the faucet of a long story would run dry.
const HALVING_INTERVAL: u32 = 210_000;

/// Where the block goes and what makes it different from its siblings.
pub(super) struct Position {
    pub(super) parent: BlockHash,
    pub(super) height: u32,
    pub(super) parent_time: u32,
    /// Different for every block ever made on this chain.
    pub(super) extra_nonce: u64,
}

pub(super) fn subsidy(height: u32) -> Amount {
    let halvings = height / HALVING_INTERVAL;
    Amount::from_sat(INITIAL_SUBSIDY.to_sat().checked_shr(halvings).unwrap_or(0))
}

/// A valid block with these transactions, its coinbase paying subsidy and fees to `payee`.
pub(super) fn build(
    at: &Position,
    transactions: Vec<Transaction>,
    fees: Amount,
    payee: ScriptBuf,
) -> (BlockHash, Block) {
    let has_witness =
        transactions.iter().any(|tx| tx.input.iter().any(|input| !input.witness.is_empty()));
    let mut txdata = vec![coinbase(at, subsidy(at.height) + fees, payee)];
    txdata.extend(transactions);
    let header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: at.parent,
        merkle_root: TxMerkleNode::all_zeros(),
        time: at.parent_time.saturating_add(SPACING),
        bits: CompactTarget::from_consensus(REGTEST_BITS),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    if has_witness {
        commit_to_witnesses(&mut block);
    }
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    (mine_header(&mut block.header), block)
}

fn coinbase(at: &Position, value: Amount, payee: ScriptBuf) -> Transaction {
    let script_sig = Builder::new()
        .push_int(i64::from(at.height))
        .push_slice(at.extra_nonce.to_le_bytes())
        .into_script();
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::Blocks(Height::ZERO),
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value, script_pubkey: payee }],
    }
}

fn commit_to_witnesses(block: &mut Block) {
    const RESERVED: [u8; 32] = [0; 32];
    let Some(root) = block.witness_root() else { return };
    let commitment = Block::compute_witness_commitment(&root, &RESERVED);
    let mut data = PushBytesBuf::new();
    // 36 bytes: far below the limit of a push.
    let pushed = data
        .extend_from_slice(&WITNESS_COMMITMENT)
        .and_then(|()| data.extend_from_slice(commitment.as_byte_array()));
    let Some(first) = block.txdata.first_mut().filter(|_| pushed.is_ok()) else { return };
    first.output.push(TxOut {
        value: Amount::ZERO,
        script_pubkey: Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script(),
    });
    for input in &mut first.input {
        input.witness.push(RESERVED);
    }
}

fn mine_header(header: &mut Header) -> BlockHash {
    let target = header.target();
    loop {
        let hash = header.block_hash();
        if target.is_met_by(hash) {
            return hash;
        }
        header.nonce = header.nonce.wrapping_add(1);
    }
}
