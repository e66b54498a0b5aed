//! A corpus of mempool cases from a seed, judged by the embedded chain and, where there is one, by
//! a Bitcoin Core. What Core said last is kept as one line a case.
//!
//! Cases share a chain but no coins. They come in batches: all cases of a batch act, then one block
//! is mined of what is in the mempool, and the cases that go on after a block do so. The blocks are
//! the embedded chain's, and Core is given them.

mod answer;
mod draft;
mod node;
mod shapes;

use std::collections::BTreeSet;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{Amount, Transaction, Txid};

use crate::chain::{EmbeddedChain, Selection};
use draft::{Coin, Maker};
use shapes::Deck;

pub use node::{CoreMempool, CorpusError};

/// Cases of a batch; a block is mined after each.
const BATCH: usize = 100;

/// What a case does.
#[derive(Clone, Debug)]
enum Step {
    Submit(usize),
    /// Of a package the answers are that on the whole and one a transaction.
    Package(Vec<usize>),
}

/// A few transactions and the order in which a mempool gets them.
#[derive(Clone, Debug, Default)]
struct Case {
    kind: &'static str,
    txs: Vec<Transaction>,
    before: Vec<Step>,
    after: Vec<Step>,
}

/// What both said of one case, in one line each: the case's number, a fingerprint of its
/// transactions and its kind; the answers; what of it is in the mempool then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// The embedded chain.
    pub embedded: String,
    /// Bitcoin Core; empty if there is none.
    pub core: String,
}

/// The corpus, and the chain that it lives on.
pub struct Corpus {
    chain: EmbeddedChain,
    deck: Deck,
    cases: usize,
}

impl Corpus {
    /// The corpus of a seed; two of the same are the same.
    ///
    /// # Panics
    /// If the faucet of the chain is dry, which no number of cases below 5,000 makes it.
    #[must_use]
    pub fn new(seed: u64, cases: usize) -> Self {
        let maker = Maker::new();
        let mut chain = EmbeddedChain::new();
        let purse = shapes::purse(cases);
        let payments: Vec<_> = purse
            .iter()
            .map(|(lock, value)| (maker.script(*lock), Amount::from_sat(*value)))
            .collect();
        let outpoints = chain.fund_many(&payments).expect("some dozen coinbases are enough");
        let coins = purse.into_iter().zip(outpoints);
        let coins = coins.map(|((lock, value), outpoint)| Coin { outpoint, value, lock });
        let deck = Deck::new(seed, maker, coins.collect());
        Self { chain, deck, cases }
    }

    /// Judges every case.
    ///
    /// # Errors
    /// If the node cannot be asked.
    pub async fn judge(mut self, node: Option<&CoreMempool>) -> Result<Vec<Verdicts>, CorpusError> {
        for height in 1..=self.chain.height() {
            self.pass_on(node, height).await?;
        }
        let mut lines = Vec::new();
        while lines.len() < self.cases {
            self.deck.look_at(&self.chain);
            let count = BATCH.min(self.cases - lines.len());
            let cases: Vec<Case> = (0..count).map(|_| self.deck.deal()).collect();
            let mut batch = Vec::new();
            for case in &cases {
                let head =
                    format!("{:04} {} {}", lines.len() + batch.len() + 1, print(case), case.kind);
                let mut verdicts = Verdicts { embedded: head.clone(), core: head };
                self.act(node, case, &case.before, &mut verdicts).await?;
                batch.push(verdicts);
            }
            let apart = self.apart(node).await?;
            if let Some(last) = batch.last_mut().filter(|_| apart > 0) {
                last.core.push_str(&format!(" | {apart} transactions are in one mempool alone"));
            }
            self.chain.mine(&Selection::All);
            self.pass_on(node, self.chain.height()).await?;
            for (case, verdicts) in cases.iter().zip(&mut batch) {
                if !case.after.is_empty() {
                    verdicts.embedded.push_str(" | block");
                    verdicts.core.push_str(" | block");
                    self.act(node, case, &case.after, verdicts).await?;
                }
            }
            lines.extend(batch);
        }
        if node.is_none() {
            lines.iter_mut().for_each(|verdicts| verdicts.core.clear());
        }
        Ok(lines)
    }

    async fn pass_on(&self, node: Option<&CoreMempool>, height: u32) -> Result<(), CorpusError> {
        match (node, self.chain.block_at(height)) {
            (Some(node), Some(block)) => node.connect(block).await,
            _ => Ok(()),
        }
    }

    async fn act(
        &mut self,
        node: Option<&CoreMempool>,
        case: &Case,
        steps: &[Step],
        verdicts: &mut Verdicts,
    ) -> Result<(), CorpusError> {
        for step in steps {
            let answers = match step {
                Step::Submit(index) => answer::submit(&mut self.chain, &case.txs[*index]),
                Step::Package(indices) => answer::package(&mut self.chain, &case.all(indices)),
            };
            verdicts.embedded.push_str(&phrase(step, &answers));
            if let Some(node) = node {
                let theirs = match step {
                    Step::Submit(index) => vec![node.submit(&case.txs[*index]).await?],
                    Step::Package(indices) => node.package(&case.all(indices)).await?,
                };
                verdicts.core.push_str(&phrase(step, &theirs));
            }
        }
        let inside = |txid: &Txid| self.chain.in_mempool(txid);
        verdicts.embedded.push_str(&remainder(&case.txids(), inside));
        if let Some(node) = node {
            let (txids, content) = (case.txids(), node.which(&case.txids()).await?);
            verdicts.core.push_str(&remainder(&txids, |txid| content.contains(txid)));
        }
        Ok(())
    }

    /// How many transactions one of both mempools has and the other has not.
    async fn apart(&self, node: Option<&CoreMempool>) -> Result<usize, CorpusError> {
        let Some(node) = node else { return Ok(0) };
        let ours: BTreeSet<Txid> = self.chain.mempool().map(|tx| tx.compute_txid()).collect();
        Ok(ours.symmetric_difference(&node.content().await?).count())
    }
}

impl Case {
    fn txids(&self) -> Vec<Txid> {
        self.txs.iter().map(Transaction::compute_txid).collect()
    }

    fn all(&self, indices: &[usize]) -> Vec<Transaction> {
        indices.iter().map(|index| self.txs[*index].clone()).collect()
    }
}

/// ` | a: ok`, ` | ab: transaction failed (ok, dust)`.
fn phrase(step: &Step, answers: &[String]) -> String {
    match (step, answers) {
        (Step::Submit(index), answers) => format!(" | {}: {}", name(*index), answers.join(", ")),
        (Step::Package(indices), [whole, each @ ..]) => {
            let names: Vec<String> = indices.iter().map(|index| name(*index)).collect();
            format!(" | {}: {whole} ({})", names.join("+"), each.join(", "))
        }
        (Step::Package(_), []) => String::new(),
    }
}

/// ` = a b`: what of a case is in a mempool.
fn remainder(txids: &[Txid], inside: impl Fn(&Txid) -> bool) -> String {
    let mut text = " =".to_owned();
    for (index, txid) in txids.iter().enumerate() {
        // Of two that differ in their witnesses alone, the first stands for both.
        if inside(txid) && !txids[..index].contains(txid) {
            text.push(' ');
            text.push_str(&name(index));
        }
    }
    text
}

/// The names of a case's transactions: a to z, and on with aa.
fn name(index: usize) -> String {
    let letter = char::from(b'a' + (index % 26) as u8);
    if index < 26 { letter.to_string() } else { format!("{}{letter}", name(index / 26 - 1)) }
}

/// A short fingerprint of a case's transactions.
fn print(case: &Case) -> String {
    let mut engine = sha256::Hash::engine();
    for tx in &case.txs {
        engine.input(&tx.compute_wtxid().to_byte_array());
    }
    format!("{:.8}", sha256::Hash::from_engine(engine).to_string())
}
