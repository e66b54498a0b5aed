//! The shapes that cases come in, and the coins that they are made of.

mod families;
mod packages;
mod plain;
mod replace;
mod truc;
mod wild;

use std::collections::VecDeque;

use bitcoin::{OutPoint, Transaction};

use super::draft::{Coin, Draft, Fee, Lock, Maker};
use super::{Case, Step};
use crate::bench::synthetic::Random;
use crate::chain::EmbeddedChain;

/// The value of an ordinary coin.
const COIN: u64 = 400_000;

/// A way to make a case, its name, and how often it comes.
type Shape = (&'static str, u64, fn(&mut Deck) -> Case);

const SHAPES: &[Shape] = &[
    ("fee", 40, plain::fee),
    ("version", 25, plain::version),
    ("size", 20, plain::size),
    ("dust", 45, plain::dust),
    ("output", 35, plain::output),
    ("value", 20, plain::value),
    ("locktime", 45, plain::locktime),
    ("relative", 60, plain::relative),
    ("missing", 30, plain::missing),
    ("script", 80, plain::script),
    ("coinbase", 20, plain::coinbase),
    ("again", 40, plain::again),
    ("replace", 120, replace::one),
    ("replace-family", 120, replace::family),
    ("replace-several", 60, replace::several),
    ("replace-graph", 90, replace::graph),
    ("replace-many", 8, replace::many),
    ("chain", 10, families::chain),
    ("fan", 10, families::fan),
    ("cluster-size", 30, families::size),
    ("truc", 110, truc::pair),
    ("truc-sibling", 90, truc::sibling),
    ("truc-family", 60, truc::family),
    ("package", 130, packages::pair),
    ("package-form", 70, packages::form),
    ("package-parents", 90, packages::parents),
    ("package-replace", 140, packages::replace),
    ("package-dust", 90, packages::dust),
    ("wild", 400, wild::wild),
];

/// The coins that so many cases may want.
pub(super) fn purse(cases: usize) -> Vec<(Lock, u64)> {
    let mut coins = vec![(Lock::Open, COIN); 4 * cases + 800];
    for lock in Lock::ALL {
        let value = if lock == Lock::Anchor { 240 } else { COIN };
        coins.extend(std::iter::repeat_n((lock, value), cases / 10 + 40));
    }
    coins
}

/// Deals cases, each of fresh coins.
pub(super) struct Deck {
    pub(super) random: Random,
    pub(super) maker: Maker,
    coins: Vec<Coin>,
    /// The tip's height and median time past.
    height: u32,
    time: u32,
    /// The height at which all coins were made.
    funded: u32,
    /// Coinbase outputs and their heights, lowest first.
    coinbases: VecDeque<(u32, Coin)>,
}

impl Deck {
    pub(super) fn new(seed: u64, maker: Maker, coins: Vec<Coin>) -> Self {
        Self {
            random: Random::new("mempool", seed),
            maker,
            coins,
            height: 0,
            time: 0,
            funded: 0,
            coinbases: VecDeque::new(),
        }
    }

    /// Learns the tip.
    pub(super) fn look_at(&mut self, chain: &EmbeddedChain) {
        self.height = chain.height();
        self.time = chain.median_time_past();
        if self.funded == 0 {
            self.funded = self.height;
        }
        let known = self.coinbases.back().map_or(0, |(height, _)| *height);
        for height in known + 1..=self.height {
            let coinbase = chain.block_at(height).and_then(|block| block.txdata.first());
            let Some(tx) = coinbase else { continue };
            let outpoint = OutPoint { txid: tx.compute_txid(), vout: 0 };
            if let Some(output) = chain.utxo(&outpoint) {
                let value = output.value.to_sat();
                self.coinbases.push_back((height, Coin { outpoint, value, lock: Lock::Open }));
            }
        }
    }

    /// The next case.
    pub(super) fn deal(&mut self) -> Case {
        let total: u64 = SHAPES.iter().map(|(_, often, _)| often).sum();
        let mut left = self.random.between(0, total - 1);
        for (kind, often, shape) in SHAPES {
            if left < *often {
                return Case { kind, ..shape(self) };
            }
            left -= often;
        }
        Case::default()
    }

    /// A fresh coin.
    fn coin(&mut self, lock: Lock) -> Coin {
        let place = self.coins.iter().rposition(|coin| coin.lock == lock);
        let place = place.expect("the purse holds enough of each kind");
        self.coins.remove(place)
    }

    fn coins(&mut self, count: usize) -> Vec<Coin> {
        (0..count).map(|_| self.coin(Lock::Open)).collect()
    }

    fn below(&mut self, count: usize) -> usize {
        self.random.between(0, count as u64 - 1) as usize
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.between(0, 99) < percent
    }

    /// A feerate near one that matters.
    fn rate(&mut self) -> Fee {
        let rate = self.one_of(&[0, 500, 1000, 1000, 1500, 2000, 4000, 10_000]);
        let more = self.one_of(&[-1, 0, 0, 1]);
        Fee { base: 0, rate, more }
    }

    /// A feerate that gets in.
    fn good_rate(&mut self) -> Fee {
        Fee::rate(self.one_of(&[1000, 1200, 2000, 3000, 7000]))
    }

    fn make(&self, draft: &Draft) -> Transaction {
        self.maker.make(draft)
    }

    /// A transaction of these coins.
    fn pay(&self, coins: &[Coin], fee: Fee) -> Transaction {
        self.make(&Draft::of(coins, fee))
    }
}

impl Case {
    /// Hands a transaction in.
    fn submit(&mut self, tx: &Transaction) -> &mut Self {
        let index = self.find_or_add(tx);
        self.before.push(Step::Submit(index));
        self
    }

    /// Hands a package in.
    fn package(&mut self, package: &[&Transaction]) -> &mut Self {
        let indices = package.iter().map(|tx| self.find_or_add(tx)).collect();
        self.before.push(Step::Package(indices));
        self
    }

    /// Hands a transaction in after the block.
    fn submit_after(&mut self, tx: &Transaction) -> &mut Self {
        let index = self.find_or_add(tx);
        self.after.push(Step::Submit(index));
        self
    }

    /// Hands a package in after the block.
    fn package_after(&mut self, package: &[&Transaction]) -> &mut Self {
        let indices = package.iter().map(|tx| self.find_or_add(tx)).collect();
        self.after.push(Step::Package(indices));
        self
    }

    fn find_or_add(&mut self, tx: &Transaction) -> usize {
        let known = self.txs.iter().position(|known| known == tx);
        known.unwrap_or_else(|| {
            self.txs.push(tx.clone());
            self.txs.len() - 1
        })
    }
}

/// What it takes to replace something of this fee, at the edge or near it.
fn to_replace(deck: &mut Deck, replaced: u64) -> Fee {
    let more = deck.one_of(&[-200, -1, 0, 0, 1, 300, 3000]);
    Fee { base: replaced, rate: 1000, more }
}
