//! A block that is shaped like those of the chain, from a seed: a few thousand transactions, a
//! tail of large ones, witnesses of the usual sizes.
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::transaction;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness,
};

use super::BenchError;

/// Transactions of a block, the coinbase and given ones included.
pub(super) const TRANSACTIONS: usize = 2_520;

/// Numbers from a seed (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    /// Another purpose gives other numbers: what is meant to differ must not meet by chance.
    pub(crate) fn new(purpose: &str, seed: u64) -> Self {
        let mut engine = sha256::Hash::engine();
        engine.input(purpose.as_bytes());
        engine.input(&seed.to_le_bytes());
        let digest = sha256::Hash::from_engine(engine).to_byte_array();
        Self(digest.iter().take(8).fold(0, |word, byte| (word << 8) | u64::from(*byte)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` up to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(count).collect()
    }

    pub(crate) fn bytes32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes());
        }
        bytes
    }

    pub(crate) fn outpoint(&mut self) -> OutPoint {
        let txid = Txid::from_byte_array(self.bytes32());
        // Two outputs are the rule; a payout to many is not.
        let vout = if self.between(0, 9) == 0 { self.between(2, 30) } else { self.between(0, 1) };
        OutPoint { txid, vout: vout as u32 }
    }
}

/// A block with these transactions spread over it, in order. It is read from its bytes, as a
/// block from a node is, so that its parts lie in memory as they would.
pub(super) fn block(seed: u64, among: &[Transaction]) -> Result<Block, BenchError> {
    let mut random = Random::new("block", seed);
    let others = TRANSACTIONS - among.len();
    let mut txdata = vec![coinbase(&mut random)];
    txdata.extend((1..others).map(|_| payment(&mut random)));
    let step = others / (among.len() + 1);
    for (at, tx) in among.iter().enumerate() {
        txdata.insert((at + 1) * step + at, tx.clone());
    }
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::from_byte_array(random.bytes32()),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1_700_000_000,
        bits: CompactTarget::from_consensus(0x1702_0000),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    Ok(deserialize(&serialize(&block))?)
}

fn coinbase(random: &mut Random) -> Transaction {
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: ScriptBuf::from_bytes(random.bytes(60)),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[0; 32]]),
    };
    let outputs = (0..3).map(|_| output(random)).collect();
    transaction(vec![input], outputs)
}

fn payment(random: &mut Random) -> Transaction {
    let inputs = match random.between(0, 99) {
        0..=47 => 1,
        48..=73 => 2,
        74..=83 => 3,
        84..=92 => random.between(4, 5),
        93..=97 => random.between(7, 12),
        _ => random.between(20, 24),
    };
    let outputs = match random.between(0, 99) {
        0..=14 => 1,
        15..=79 => 2,
        80..=94 => random.between(3, 5),
        _ => random.between(8, 24),
    };
    let inputs = (0..inputs).map(|_| input(random)).collect();
    let outputs = (0..outputs).map(|_| output(random)).collect();
    transaction(inputs, outputs)
}

fn transaction(input: Vec<TxIn>, output: Vec<TxOut>) -> Transaction {
    Transaction { version: transaction::Version::TWO, lock_time: LockTime::ZERO, input, output }
}

fn input(random: &mut Random) -> TxIn {
    let mut script_sig = ScriptBuf::new();
    // Lengths: a signature, a key, a 2-of-3 script, a leaf script, its control block.
    let elements: &[usize] = match random.between(0, 99) {
        0..=54 => &[72, 33],
        55..=79 => &[64],
        80..=91 => &[0, 72, 71, 105],
        92..=95 => &[64, 34, 65],
        _ => {
            script_sig = ScriptBuf::from_bytes(random.bytes(107));
            &[]
        }
    };
    let witness: Vec<Vec<u8>> = elements.iter().map(|length| random.bytes(*length)).collect();
    TxIn {
        previous_output: random.outpoint(),
        script_sig,
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&witness),
    }
}

fn output(random: &mut Random) -> TxOut {
    let (head, hash): (&[u8], usize) = match random.between(0, 9) {
        0..=4 => (&[0x00, 0x14], 20),
        5..=7 => (&[0x51, 0x20], 32),
        8 => (&[0x00, 0x20], 32),
        _ => (&[0xa9, 0x14], 20),
    };
    let mut script = head.to_vec();
    script.extend(random.bytes(hash));
    if head[0] == 0xa9 {
        script.push(0x87);
    }
    let value = Amount::from_sat(random.between(1_000, 100_000_000));
    TxOut { value, script_pubkey: ScriptBuf::from_bytes(script) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_shaped_like_a_real_one() -> Result<(), BenchError> {
        for seed in 0..5 {
            let block = block(seed, &[])?;
            let inputs: usize = block.txdata.iter().map(|tx| tx.input.len()).sum();
            assert_eq!(block.txdata.len(), TRANSACTIONS);
            assert!((6_200..=7_000).contains(&inputs), "{inputs} inputs");
            let size = block.total_size();
            assert!((1_100_000..=1_700_000).contains(&size), "{size} bytes");
            let weight = block.weight().to_wu();
            assert!((2_800_000..=4_000_000).contains(&weight), "{weight} weight units");
            assert!(block.check_merkle_root() && block.txdata[0].is_coinbase());
        }
        Ok(())
    }

    #[test]
    fn a_seed_gives_one_block() -> Result<(), BenchError> {
        assert_eq!(block(7, &[])?, block(7, &[])?);
        assert_ne!(block(7, &[])?.block_hash(), block(8, &[])?.block_hash());
        Ok(())
    }

    #[test]
    fn given_transactions_are_spread_over_the_block() -> Result<(), BenchError> {
        let mut random = Random::new("given", 99);
        let given: Vec<Transaction> = (0..3).map(|_| payment(&mut random)).collect();
        let block = block(1, &given)?;
        let places: Vec<usize> = (block.txdata.iter().enumerate())
            .filter(|(_, tx)| given.contains(tx))
            .map(|(place, _)| place)
            .collect();
        assert_eq!(places.len(), 3);
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] > 500));
        assert_eq!(block.txdata.len(), TRANSACTIONS);
        Ok(())
    }
}
