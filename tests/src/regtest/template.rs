//! Which transactions of the mempool a miner takes, when some are to be left out.
use bitcoin::{Amount, Transaction, Txid, Weight};
use std::collections::{HashMap, HashSet};

/// A transaction of the mempool.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) transaction: Transaction,
    pub(super) fee: Amount,
    /// Not taken, nor its descendants.
    pub(super) left_out: bool,
}

/// Room for the header, the coinbase and the transaction count.
const RESERVED: Weight = Weight::from_wu(8_000);

/// The transactions of a block in order: by feerate, with their unconfirmed ancestors, as far as
/// they fit. `candidates` have parents before children.
pub(super) fn select(candidates: Vec<Candidate>) -> Vec<Transaction> {
    let mut open = without_descendants(candidates);
    let mut room = Weight::MAX_BLOCK - RESERVED;
    let mut block = Vec::new();
    while let Some((at, package)) = best(&open) {
        let weight: Weight = package.iter().map(|i| open[*i].transaction.weight()).sum();
        if weight > room {
            // Its ancestors may fit alone.
            open.remove(at);
            continue;
        }
        room -= weight;
        block.extend(package.iter().map(|i| open[*i].transaction.clone()));
        let mut index = 0..;
        open.retain(|_| index.next().is_none_or(|i| !package.contains(&i)));
    }
    block
}

fn without_descendants(candidates: Vec<Candidate>) -> Vec<Candidate> {
    let mut out: HashSet<Txid> = HashSet::new();
    let mut open = Vec::new();
    for candidate in candidates {
        let mut inputs = candidate.transaction.input.iter();
        if candidate.left_out || inputs.any(|input| out.contains(&input.previous_output.txid)) {
            out.insert(candidate.transaction.compute_txid());
        } else {
            open.push(candidate);
        }
    }
    open
}

/// Index of the candidate whose package has the best feerate, and the package: the candidate with
/// its open ancestors, parents first.
fn best(open: &[Candidate]) -> Option<(usize, Vec<usize>)> {
    let index: HashMap<Txid, usize> = open
        .iter()
        .enumerate()
        .map(|(i, candidate)| (candidate.transaction.compute_txid(), i))
        .collect();
    let feerate = |package: &[usize]| {
        let fee: Amount = package.iter().map(|i| open[*i].fee).sum();
        let weight: Weight = package.iter().map(|i| open[*i].transaction.weight()).sum();
        // Milli-satoshis a weight unit are fine enough to compare.
        u128::from(fee.to_sat()) * 1_000_000 / u128::from(weight.to_wu().max(1))
    };
    let mut found: Option<(u128, usize, Vec<usize>)> = None;
    for at in 0..open.len() {
        let package = package_of(at, open, &index);
        let rate = feerate(&package);
        if found.as_ref().is_none_or(|(best, ..)| rate > *best) {
            found = Some((rate, at, package));
        }
    }
    found.map(|(_, at, package)| (at, package))
}

fn package_of(at: usize, open: &[Candidate], index: &HashMap<Txid, usize>) -> Vec<usize> {
    let mut package = HashSet::from([at]);
    let mut todo = vec![at];
    while let Some(child) = todo.pop() {
        for input in &open[child].transaction.input {
            let parent = index.get(&input.previous_output.txid);
            todo.extend(parent.filter(|parent| package.insert(**parent)));
        }
    }
    let mut package: Vec<usize> = package.into_iter().collect();
    // Parents stand before children among the candidates.
    package.sort_unstable();
    package
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use bitcoin::{OutPoint, ScriptBuf, TxIn, TxOut};

    fn candidate(parent: Option<&Candidate>, salt: u32, fee: u64, left_out: bool) -> Candidate {
        let previous_output = match parent {
            Some(parent) => OutPoint::new(parent.transaction.compute_txid(), salt),
            None => OutPoint { vout: salt, ..OutPoint::null() },
        };
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn { previous_output, ..TxIn::default() }],
            output: vec![TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::new() }],
        };
        Candidate { transaction, fee: Amount::from_sat(fee), left_out }
    }

    fn ids(transactions: &[Transaction]) -> Vec<Txid> {
        transactions.iter().map(Transaction::compute_txid).collect()
    }

    #[test]
    fn a_child_pays_for_its_parent_and_descendants_of_what_is_left_out_stay_out() {
        let low = candidate(None, 0, 0, false);
        let plain = candidate(None, 1, 500, false);
        let out = candidate(None, 2, 9_000, true);
        let high = candidate(Some(&low), 0, 2_000, false);
        let orphan = candidate(Some(&out), 0, 9_000, false);
        let all = vec![low.clone(), plain.clone(), out, high.clone(), orphan];
        let block = select(all);
        let wanted = [low.transaction, high.transaction, plain.transaction];
        assert_eq!(ids(&block), ids(&wanted));
    }

    #[test]
    fn a_full_block_takes_what_still_fits() {
        let mut big = candidate(None, 0, 10_000_000, false);
        let script = ScriptBuf::from_bytes(vec![0x6a; 997_000]);
        big.transaction.output[0].script_pubkey = script.clone();
        let mut second = candidate(None, 1, 9_000_000, false);
        second.transaction.output[0].script_pubkey = script;
        let small = candidate(None, 2, 1, false);
        let block = select(vec![second, small.clone(), big.clone()]);
        assert_eq!(ids(&block), ids(&[big.transaction, small.transaction]));
    }
}
