//! Transactions by the few things that a mempool judges them by.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{All, Keypair, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::{
    Amount, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness, WitnessProgram, WitnessVersion, ecdsa, taproot, transaction,
};

/// What an output asks of its spender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// Nothing: a witness script that is true.
    Open,
    /// A signature (P2WPKH).
    Key,
    /// A signature (P2TR, by the key).
    Taproot,
    /// Nothing (P2A).
    Anchor,
    /// Nothing: a script hash of a script that is true.
    ScriptHash,
    /// Nothing, in a form that is not relayed.
    Bare,
    /// Nothing that is known yet: a later version of witness programs.
    Later,
}

impl Lock {
    pub(super) const ALL: [Self; 7] = [
        Self::Open,
        Self::Key,
        Self::Taproot,
        Self::Anchor,
        Self::ScriptHash,
        Self::Bare,
        Self::Later,
    ];
}

/// An output with its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coin {
    pub(super) outpoint: OutPoint,
    pub(super) value: u64,
    pub(super) lock: Lock,
}

/// A fee: a base, a rate for the own size, and a little more or less.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fee {
    pub(super) base: u64,
    /// In satoshis a thousand virtual bytes.
    pub(super) rate: u64,
    pub(super) more: i64,
}

impl Fee {
    pub(super) const fn rate(rate: u64) -> Self {
        Self { base: 0, rate, more: 0 }
    }

    pub(super) const fn exactly(base: u64) -> Self {
        Self { base, rate: 0, more: 0 }
    }

    fn of(self, vsize: u64) -> u64 {
        (self.base + (vsize * self.rate).div_ceil(1000)).saturating_add_signed(self.more)
    }
}

/// A transaction to be: what is not said is as in an ordinary one.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) version: i32,
    pub(super) lock_time: u32,
    pub(super) inputs: Vec<(Coin, u32)>,
    /// Open outputs, among which what is not fee is divided.
    pub(super) outputs: usize,
    pub(super) others: Vec<TxOut>,
    /// Bytes of data in an output of its own, to be large.
    pub(super) padding: usize,
    pub(super) fee: Fee,
}

/// A sequence number that signals replaceability and locks nothing.
pub(super) const REPLACEABLE: u32 = 0xffff_fffd;

impl Draft {
    pub(super) fn of(coins: &[Coin], fee: Fee) -> Self {
        Self {
            version: 2,
            lock_time: 0,
            inputs: coins.iter().map(|coin| (*coin, REPLACEABLE)).collect(),
            outputs: 1,
            others: Vec::new(),
            padding: 0,
            fee,
        }
    }

    pub(super) const fn version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }

    pub(super) const fn outputs(mut self, outputs: usize) -> Self {
        self.outputs = outputs;
        self
    }

    pub(super) const fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    pub(super) fn with(mut self, output: TxOut) -> Self {
        self.others.push(output);
        self
    }

    pub(super) fn sequence(mut self, sequence: u32) -> Self {
        for (_, own) in &mut self.inputs {
            *own = sequence;
        }
        self
    }
}

/// Makes and signs transactions.
pub(super) struct Maker {
    secp: Secp256k1<All>,
    pair: Keypair,
    key: SecretKey,
    public: CompressedPublicKey,
}

impl Maker {
    pub(super) fn new() -> Self {
        let secp = Secp256k1::new();
        let key = SecretKey::from_slice(&[0x42; 32]).expect("below the order of the group");
        let public = CompressedPublicKey(key.public_key(&secp));
        Self { pair: Keypair::from_secret_key(&secp, &key), key, public, secp }
    }

    pub(super) fn script(&self, lock: Lock) -> ScriptBuf {
        match lock {
            Lock::Open => open().to_p2wsh(),
            Lock::Key => ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash()),
            Lock::Taproot => ScriptBuf::new_p2tr(&self.secp, self.pair.x_only_public_key().0, None),
            Lock::Anchor => ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x73]),
            Lock::ScriptHash => open().to_p2sh(),
            Lock::Bare => open(),
            Lock::Later => {
                let program = WitnessProgram::new(WitnessVersion::V2, &[7; 32]);
                ScriptBuf::new_witness_program(&program.expect("a program of a usual length"))
            }
        }
    }

    pub(super) fn output(&self, lock: Lock, value: u64) -> TxOut {
        TxOut { value: Amount::from_sat(value), script_pubkey: self.script(lock) }
    }

    /// The transaction of a draft. A fee that the coins do not bring leaves outputs of nothing.
    pub(super) fn make(&self, draft: &Draft) -> Transaction {
        let brought: u64 = draft.inputs.iter().map(|(coin, _)| coin.value).sum();
        let given: u64 = draft.others.iter().map(|output| output.value.to_sat()).sum();
        let mut tx = self.unsigned(draft);
        self.sign(&mut tx, draft);
        let left = brought.saturating_sub(given + draft.fee.of(tx.vsize() as u64));
        let count = draft.outputs.max(1) as u64;
        for (place, output) in tx.output.iter_mut().take(draft.outputs).enumerate() {
            let odd = if place == 0 { left % count } else { 0 };
            output.value = Amount::from_sat(left / count + odd);
        }
        self.sign(&mut tx, draft);
        tx
    }

    fn unsigned(&self, draft: &Draft) -> Transaction {
        let mut output = vec![self.output(Lock::Open, 0); draft.outputs];
        output.extend(draft.others.iter().cloned());
        output.extend((draft.padding > 0).then(|| data(draft.padding)));
        let input = |(coin, sequence): &(Coin, u32)| TxIn {
            previous_output: coin.outpoint,
            sequence: Sequence(*sequence),
            ..TxIn::default()
        };
        Transaction {
            version: transaction::Version(draft.version),
            lock_time: LockTime::from_consensus(draft.lock_time),
            input: draft.inputs.iter().map(input).collect(),
            output,
        }
    }

    fn sign(&self, tx: &mut Transaction, draft: &Draft) {
        let prevouts: Vec<TxOut> =
            draft.inputs.iter().map(|(coin, _)| self.output(coin.lock, coin.value)).collect();
        for (index, (coin, _)) in draft.inputs.iter().enumerate() {
            match coin.lock {
                Lock::Open => tx.input[index].witness = Witness::from_slice(&[open().as_bytes()]),
                Lock::Key => tx.input[index].witness = self.by_key(tx, index, &prevouts[index]),
                Lock::Taproot => tx.input[index].witness = self.by_taproot(tx, index, &prevouts),
                Lock::ScriptHash => {
                    let redeem = PushBytesBuf::try_from(open().into_bytes()).unwrap_or_default();
                    tx.input[index].script_sig = Builder::new().push_slice(redeem).into_script();
                }
                Lock::Anchor | Lock::Bare | Lock::Later => {}
            }
        }
    }

    fn by_key(&self, tx: &Transaction, index: usize, prevout: &TxOut) -> Witness {
        let script = &prevout.script_pubkey;
        let kind = EcdsaSighashType::All;
        let hash = SighashCache::new(tx).p2wpkh_signature_hash(index, script, prevout.value, kind);
        let message = Message::from_digest(hash.map(|h| h.to_byte_array()).unwrap_or([1; 32]));
        let signature = self.secp.sign_ecdsa(&message, &self.key);
        Witness::p2wpkh(&ecdsa::Signature::sighash_all(signature), &self.public.0)
    }

    fn by_taproot(&self, tx: &Transaction, index: usize, prevouts: &[TxOut]) -> Witness {
        use bitcoin::key::TapTweak;
        let kind = TapSighashType::Default;
        let hash = SighashCache::new(tx).taproot_key_spend_signature_hash(
            index,
            &Prevouts::All(prevouts),
            kind,
        );
        let message = Message::from_digest(hash.map(|h| h.to_byte_array()).unwrap_or([1; 32]));
        let pair = self.pair.tap_tweak(&self.secp, None).to_keypair();
        let signature = self.secp.sign_schnorr_no_aux_rand(&message, &pair);
        Witness::p2tr_key_spend(&taproot::Signature { signature, sighash_type: kind })
    }
}

/// Anybody's script.
pub(super) fn open() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

/// An output of so many bytes of data.
pub(super) fn data(bytes: usize) -> TxOut {
    let content = PushBytesBuf::try_from(vec![0x77; bytes]).unwrap_or_default();
    let script = Builder::new().push_opcode(OP_RETURN).push_slice(content).into_script();
    TxOut { value: Amount::ZERO, script_pubkey: script }
}

/// An open output of a transaction as a coin.
pub(super) fn out(tx: &Transaction, vout: usize) -> Coin {
    spend(tx, vout, Lock::Open)
}

/// An output of a transaction as a coin.
pub(super) fn spend(tx: &Transaction, vout: usize, lock: Lock) -> Coin {
    let value = tx.output.get(vout).map_or(0, |output| output.value.to_sat());
    Coin { outpoint: OutPoint { txid: tx.compute_txid(), vout: vout as u32 }, value, lock }
}

/// The fee that a transaction leaves of these coins.
pub(super) fn fee(tx: &Transaction, coins: &[Coin]) -> u64 {
    let brought: u64 = coins.iter().map(|coin| coin.value).sum();
    brought.saturating_sub(tx.output.iter().map(|output| output.value.to_sat()).sum())
}

/// An output that nobody made.
pub(super) fn nowhere(seed: [u8; 32]) -> Coin {
    let outpoint = OutPoint { txid: Txid::from_byte_array(seed), vout: 0 };
    Coin { outpoint, value: 100_000, lock: Lock::Open }
}
