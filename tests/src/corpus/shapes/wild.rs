//! Whatever comes of chance: small graphs of transactions that build on, and displace, each other.

use std::collections::BTreeSet;

use bitcoin::{OutPoint, Transaction, Txid};

use super::super::Case;
use super::super::draft::{Coin, Draft, Fee, Lock, fee, spend};
use super::Deck;

/// What a case knows of its transactions.
#[derive(Default)]
struct Past {
    /// Outputs that may be spent, spent or not.
    coins: Vec<Coin>,
    made: Vec<(Transaction, u64)>,
}

impl Past {
    /// The fees of what these inputs conflict with, descendants included.
    fn displaced(&self, inputs: &[Coin]) -> u64 {
        let inputs: BTreeSet<OutPoint> = inputs.iter().map(|coin| coin.outpoint).collect();
        let mut gone: BTreeSet<Txid> = BTreeSet::new();
        let mut total = 0;
        for (tx, fee) in &self.made {
            let mut spent = tx.input.iter().map(|input| input.previous_output);
            if spent.any(|outpoint| inputs.contains(&outpoint) || gone.contains(&outpoint.txid)) {
                gone.insert(tx.compute_txid());
                total += fee;
            }
        }
        total
    }

    fn learn(&mut self, tx: &Transaction, inputs: &[Coin], anchored: bool) {
        let open = if anchored { tx.output.len() - 1 } else { tx.output.len() };
        let payments =
            tx.output.iter().take(open).filter(|output| !output.script_pubkey.is_op_return());
        for vout in 0..payments.count() {
            self.coins.push(spend(tx, vout, Lock::Open));
        }
        if anchored {
            self.coins.push(spend(tx, open, Lock::Anchor));
        }
        self.made.push((tx.clone(), fee(tx, inputs)));
    }
}

pub(super) fn wild(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let versions: &[i32] = deck.one_of(&[&[2][..], &[3], &[2, 2, 3], &[3, 3, 2]]);
    let fresh = 1 + deck.below(3);
    let mut past = Past { coins: deck.coins(fresh), ..Past::default() };
    for _ in 0..3 + deck.below(6) {
        if deck.chance(35) {
            let package = package(deck, &mut past, versions);
            case.package(&package.iter().collect::<Vec<_>>());
        } else if deck.chance(10) && !past.made.is_empty() {
            let place = deck.below(past.made.len());
            case.submit(&past.made[place].0.clone());
        } else {
            let tx = transaction(deck, &mut past, versions, &[]);
            case.submit(&tx);
        }
    }
    if deck.chance(30) {
        for _ in 0..1 + deck.below(3) {
            if deck.chance(40) {
                let place = deck.below(past.made.len());
                case.submit_after(&past.made[place].0.clone());
            } else if deck.chance(40) {
                let package = package(deck, &mut past, versions);
                case.package_after(&package.iter().collect::<Vec<_>>());
            } else {
                let tx = transaction(deck, &mut past, versions, &[]);
                case.submit_after(&tx);
            }
        }
    }
    case
}

/// Mostly a child with its parents, new or old.
fn package(deck: &mut Deck, past: &mut Past, versions: &[i32]) -> Vec<Transaction> {
    let mut parents = Vec::new();
    for _ in 0..deck.one_of(&[1, 1, 1, 2]) {
        if deck.chance(25) && !past.made.is_empty() {
            let place = deck.below(past.made.len());
            parents.push(past.made[place].0.clone());
        } else {
            parents.push(transaction(deck, past, versions, &[]));
        }
    }
    let upon: Vec<Coin> = parents
        .iter()
        .filter_map(|parent| {
            let txid = parent.compute_txid();
            past.coins.iter().rev().find(|coin| coin.outpoint.txid == txid).copied()
        })
        .collect();
    let child = transaction(deck, past, versions, &upon);
    parents.push(child);
    parents
}

fn transaction(deck: &mut Deck, past: &mut Past, versions: &[i32], upon: &[Coin]) -> Transaction {
    let mut inputs = upon.to_vec();
    inputs.dedup_by_key(|coin| coin.outpoint);
    let wanted = if upon.is_empty() { 1 + deck.below(2) } else { upon.len() + deck.below(2) };
    for _ in 0..8 {
        if inputs.len() >= wanted {
            break;
        }
        let coin = if deck.chance(10) {
            let coin = deck.coin(Lock::Open);
            past.coins.push(coin);
            coin
        } else {
            // The younger ones are likelier.
            let span = past.coins.len();
            let place = deck.below(span).max(deck.below(span));
            past.coins[place]
        };
        if inputs.iter().all(|known| known.outpoint != coin.outpoint) {
            inputs.push(coin);
        }
    }
    let displaced = past.displaced(&inputs);
    let price = if displaced > 0 && deck.chance(70) {
        let more = deck.one_of(&[-1, 0, 0, 1, 200, 2_000, 10_000]);
        Fee { base: displaced, rate: 1000, more }
    } else if deck.chance(30) {
        Fee::rate(deck.one_of(&[0, 200, 999]))
    } else {
        deck.good_rate()
    };
    let version = deck.one_of(versions);
    let outputs = 1 + deck.below(3);
    let padding = match deck.below(20) {
        0 => 800,
        1 => 9_800,
        2 => deck.below(2_000),
        _ => 0,
    };
    let mut draft = Draft::of(&inputs, price).version(version).outputs(outputs);
    let anchored = padding == 0 && deck.chance(15);
    if anchored {
        let value = deck.one_of(&[0, 240]);
        draft = draft.with(deck.maker.output(Lock::Anchor, value));
        if value == 0 {
            draft.fee = Fee::exactly(deck.one_of(&[0, 0, 0, 500]));
        }
    }
    let tx = deck.make(&draft.padding(padding));
    past.learn(&tx, &inputs, anchored);
    tx
}
