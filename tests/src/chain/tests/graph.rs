//! Chunks and diagrams.

use std::cmp::Ordering;

use super::super::cluster::{Node, chunks, compare_diagrams, components};

fn node(fee: u64, size: u64, parents: &[usize]) -> Node {
    Node { fee, size, parents: parents.to_vec() }
}

fn shape(nodes: &[Node]) -> Vec<(u64, u64, Vec<usize>)> {
    chunks(nodes).into_iter().map(|c| (c.fee, c.size, c.members)).collect()
}

#[test]
fn a_child_joins_its_parent_only_if_it_pays_more() {
    let bump = [node(1, 100, &[]), node(99, 100, &[0])];
    assert_eq!(shape(&bump), [(100, 200, vec![0, 1])]);
    let drag = [node(99, 100, &[]), node(1, 100, &[0])];
    assert_eq!(shape(&drag), [(99, 100, vec![0]), (1, 100, vec![1])]);
}

#[test]
fn members_come_parents_first() {
    // 2 spends 1, 1 spends 3, and 0 stands alone with a middle feerate.
    let nodes = [node(50, 100, &[]), node(0, 100, &[3]), node(900, 100, &[1]), node(0, 100, &[])];
    assert_eq!(components(&nodes), [vec![0], vec![1, 2, 3]]);
    assert_eq!(shape(&nodes), [(900, 300, vec![3, 1, 2]), (50, 100, vec![0])]);
}

#[test]
fn two_children_pay_together_if_one_cannot() {
    // Each child alone gives 60/200; both give 120/300.
    let nodes = [node(0, 100, &[]), node(60, 100, &[0]), node(60, 100, &[0])];
    assert_eq!(shape(&nodes), [(120, 300, vec![0, 1, 2])]);
    // A poor third one stays out.
    let nodes = [node(0, 100, &[]), node(60, 100, &[0]), node(60, 100, &[0]), node(1, 100, &[0])];
    assert_eq!(shape(&nodes), [(120, 300, vec![0, 1, 2]), (1, 100, vec![3])]);
}

/// The feerate of the best closed subset, by trying all.
fn best_by_trial(nodes: &[Node]) -> (u64, u64) {
    let mut best = (0, 1);
    for mask in 1_u32..1 << nodes.len() {
        let inside = |i: &usize| mask >> i & 1 == 1;
        let members: Vec<usize> = (0..nodes.len()).filter(inside).collect();
        if members.iter().any(|&i| nodes[i].parents.iter().any(|p| !inside(p))) {
            continue;
        }
        let fee: u64 = members.iter().map(|&i| nodes[i].fee).sum();
        let size: u64 = members.iter().map(|&i| nodes[i].size).sum();
        if fee * best.1 > best.0 * size {
            best = (fee, size);
        }
    }
    best
}

#[test]
fn the_first_chunk_is_the_best_closed_subset() {
    // A small linear generator: the graphs are the same in every run.
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for _ in 0..300 {
        let count = 2 + draw(8) as usize;
        let nodes: Vec<Node> = (0..count)
            .map(|i| {
                let parents = (0..i).filter(|_| draw(3) == 0).collect::<Vec<_>>();
                node(draw(1000), 1 + draw(400), &parents)
            })
            .collect();
        let found = chunks(&nodes);
        let best = best_by_trial(&nodes);
        assert_eq!(found[0].fee * best.1, best.0 * found[0].size, "{nodes:?}");
        let mut all: Vec<usize> = found.iter().flat_map(|c| c.members.clone()).collect();
        let place = |i: usize| all.iter().position(|m| *m == i);
        for (i, node) in nodes.iter().enumerate() {
            assert!(node.parents.iter().all(|p| place(*p) < place(i)));
        }
        all.sort_unstable();
        assert_eq!(all, (0..count).collect::<Vec<_>>());
    }
}

#[test]
fn diagrams_compare_everywhere() {
    let diagram = |parts: &[(u64, u64)]| {
        let nodes: Vec<Node> = parts.iter().map(|&(fee, size)| node(fee, size, &[])).collect();
        chunks(&nodes)
    };
    let base = diagram(&[(100, 100), (50, 100)]);
    assert_eq!(compare_diagrams(&base, &base), Some(Ordering::Equal));
    let higher = diagram(&[(120, 100), (50, 100)]);
    assert_eq!(compare_diagrams(&higher, &base), Some(Ordering::Greater));
    assert_eq!(compare_diagrams(&base, &higher), Some(Ordering::Less));
    // More in all, but less at first.
    let crossing = diagram(&[(300, 400)]);
    assert_eq!(compare_diagrams(&crossing, &base), None);
    // Beyond its end a diagram is flat.
    assert_eq!(compare_diagrams(&diagram(&[(150, 100)]), &base), Some(Ordering::Greater));
    assert_eq!(compare_diagrams(&diagram(&[]), &base), Some(Ordering::Less));
}
