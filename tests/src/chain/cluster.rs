//! Clusters, chunks and feerate diagrams: how the mempool orders and compares transactions.
//!
//! A cluster is cut into chunks of falling feerate: the first is the set of transactions, closed
//! under parents, with the highest feerate, and so on for the rest. Core approaches that
//! optimum within a budget; here it is exact, by minimum cuts, which clusters of at
//! most 64 transactions allow.

use std::cmp::Ordering;

/// A transaction of the graph; parents by index into the same slice.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) fee: u64,
    pub(super) size: u64,
    pub(super) parents: Vec<usize>,
}

/// Transactions that are mined together, parents first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) fee: u64,
    pub(super) size: u64,
    pub(super) cluster: usize,
    pub(super) members: Vec<usize>,
}

/// Compares `fee_a / size_a` with `fee_b / size_b`.
pub(super) fn compare_feerates(a: (u64, u64), b: (u64, u64)) -> Ordering {
    let left = u128::from(a.0) * u128::from(b.1);
    let right = u128::from(b.0) * u128::from(a.1);
    left.cmp(&right)
}

/// The connected components, each in index order.
pub(super) fn components(nodes: &[Node]) -> Vec<Vec<usize>> {
    let mut root: Vec<usize> = (0..nodes.len()).collect();
    fn find(root: &mut [usize], mut i: usize) -> usize {
        while root[i] != i {
            root[i] = root[root[i]];
            i = root[i];
        }
        i
    }
    for (child, node) in nodes.iter().enumerate() {
        for &parent in &node.parents {
            let (a, b) = (find(&mut root, child), find(&mut root, parent));
            root[a.max(b)] = a.min(b);
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for i in 0..nodes.len() {
        groups[find(&mut root, i)].push(i);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// All chunks, highest feerate first; chunks of one cluster keep their order.
pub(super) fn chunks(nodes: &[Node]) -> Vec<Chunk> {
    let mut all = Vec::new();
    for (cluster, members) in components(nodes).into_iter().enumerate() {
        let mut rest = members;
        while !rest.is_empty() {
            let best = best_closure(nodes, &rest);
            rest.retain(|i| !best.contains(i));
            let (fee, size) = totals(nodes, &best);
            all.push(Chunk { fee, size, cluster, members: parents_first(nodes, best) });
        }
    }
    all.sort_by(|a, b| compare_feerates((b.fee, b.size), (a.fee, a.size)));
    all
}

/// Compares two diagrams of total fee over size; `None` if each is better somewhere.
pub(super) fn compare_diagrams(a: &[Chunk], b: &[Chunk]) -> Option<Ordering> {
    let (a, b) = (points(a), points(b));
    let mut better = false;
    let mut worse = false;
    for &(size, _) in a.iter().chain(&b) {
        match compare_at(&a, &b, size) {
            Ordering::Greater => better = true,
            Ordering::Less => worse = true,
            Ordering::Equal => {}
        }
    }
    match (better, worse) {
        (true, true) => None,
        (true, false) => Some(Ordering::Greater),
        (false, true) => Some(Ordering::Less),
        (false, false) => Some(Ordering::Equal),
    }
}

fn points(chunks: &[Chunk]) -> Vec<(u64, u64)> {
    let mut sum = (0, 0);
    let mut points = vec![sum];
    for chunk in chunks {
        sum = (sum.0 + chunk.size, sum.1 + chunk.fee);
        points.push(sum);
    }
    points
}

/// The diagrams are straight between points, so comparing at every point of both is enough.
fn compare_at(a: &[(u64, u64)], b: &[(u64, u64)], size: u64) -> Ordering {
    let ((fee_a, unit_a), (fee_b, unit_b)) = (height_at(a, size), height_at(b, size));
    (fee_a * unit_b).cmp(&(fee_b * unit_a))
}

/// The fee at `size` as a fraction; flat beyond the last point.
fn height_at(points: &[(u64, u64)], size: u64) -> (u128, u128) {
    let next = points.partition_point(|(s, _)| *s < size);
    let Some(&(s1, f1)) = points.get(next) else {
        return (points.last().map_or(0, |(_, fee)| u128::from(*fee)), 1);
    };
    let (s0, f0) = if next == 0 { (s1, f1) } else { points[next - 1] };
    if s1 == s0 {
        return (u128::from(f1), 1);
    }
    let span = u128::from(s1 - s0);
    let rise = u128::from(f1 - f0) * u128::from(size - s0);
    (u128::from(f0) * span + rise, span)
}

fn totals(nodes: &[Node], set: &[usize]) -> (u64, u64) {
    set.iter().fold((0, 0), |(fee, size), &i| (fee + nodes[i].fee, size + nodes[i].size))
}

/// Orders a set so that parents come before children; otherwise by index.
fn parents_first(nodes: &[Node], mut set: Vec<usize>) -> Vec<usize> {
    set.sort_unstable();
    let mut ordered: Vec<usize> = Vec::with_capacity(set.len());
    while !set.is_empty() {
        let ready = |i: &usize| !nodes[*i].parents.iter().any(|p| set.contains(p));
        // A graph of transactions has no cycle, so one is always ready.
        let next = set.iter().position(ready).unwrap_or(0);
        ordered.push(set.remove(next));
    }
    ordered
}

/// The subset of `rest`, closed under parents in it, with the highest feerate (Dinkelbach's
/// iteration: a set beats the feerate F/S if its sum of `fee * S - F * size` is positive).
fn best_closure(nodes: &[Node], rest: &[usize]) -> Vec<usize> {
    let mut best = rest.to_vec();
    if rest.len() == 1 {
        return best;
    }
    loop {
        let (fee, size) = totals(nodes, &best);
        let weights: Vec<i128> = rest
            .iter()
            .map(|&i| {
                i128::from(nodes[i].fee) * i128::from(size)
                    - i128::from(fee) * i128::from(nodes[i].size)
            })
            .collect();
        let better = max_closure(nodes, rest, &weights);
        if better.is_empty() {
            return best;
        }
        best = better;
    }
}

/// The closed subset with the greatest positive sum of weights; empty if none is positive.
fn max_closure(nodes: &[Node], rest: &[usize], weights: &[i128]) -> Vec<usize> {
    let count = rest.len();
    let (source, sink) = (count, count + 1);
    let mut capacity = vec![vec![0_i128; count + 2]; count + 2];
    let unbounded: i128 = weights.iter().map(|w| w.abs()).sum::<i128>() + 1;
    for (i, &weight) in weights.iter().enumerate() {
        if weight > 0 {
            capacity[source][i] = weight;
        } else {
            capacity[i][sink] = -weight;
        }
        for parent in &nodes[rest[i]].parents {
            if let Some(p) = rest.iter().position(|r| r == parent) {
                capacity[i][p] = unbounded;
            }
        }
    }
    let reached = loop {
        let from = search(&capacity, source);
        if from[sink].is_none() {
            break from;
        }
        augment(&mut capacity, &from, source, sink);
    };
    (0..count).filter(|&i| reached[i].is_some()).map(|i| rest[i]).collect()
}

/// Breadth-first search: for each node reached, the node it was reached from.
fn search(capacity: &[Vec<i128>], source: usize) -> Vec<Option<usize>> {
    let mut from = vec![None; capacity.len()];
    from[source] = Some(source);
    let mut queue = std::collections::VecDeque::from([source]);
    while let Some(node) = queue.pop_front() {
        for next in 0..capacity.len() {
            if from[next].is_none() && capacity[node][next] > 0 {
                from[next] = Some(node);
                queue.push_back(next);
            }
        }
    }
    from
}

fn augment(capacity: &mut [Vec<i128>], from: &[Option<usize>], source: usize, sink: usize) {
    let mut path = Vec::new();
    let mut node = sink;
    while let Some(before) = from[node].filter(|_| node != source) {
        path.push((before, node));
        node = before;
    }
    let flow = path.iter().map(|&(a, b)| capacity[a][b]).min().unwrap_or(0);
    for (a, b) in path {
        capacity[a][b] -= flow;
        capacity[b][a] += flow;
    }
}
