//! Quiet channels put back together stand as those that are put back one by one.
use super::super::*;
use crate::arbitrator::ChannelArbitrator;
use crate::facts::update::tests::world::World;
use crate::facts::{ChannelEntry, Standing};
use crate::format::CommitmentFormat;
use crate::units::CommitmentNumber;
use std::vec;

fn numbers(id: ChannelId, local: u64, remote: u64) -> ChannelNumbers {
    ChannelNumbers { id, local: CommitmentNumber(local), remote: CommitmentNumber(remote) }
}

/// Facts of channels whose numbers are (4, 4), each with an id and a funding output of its own.
fn all_facts() -> Vec<Arc<ChannelFacts>> {
    let model = World::new(CommitmentFormat::Anchors).facts;
    let facts = (0..8_u8).map(|at| {
        let mut facts = model.clone();
        facts.id = ChannelId([at; 32]);
        let current = &mut facts.candidates.current;
        current.funding.vout = at.into();
        current.local.number = CommitmentNumber(4);
        current.remote.number = CommitmentNumber(4);
        Arc::new(facts)
    });
    facts.collect()
}

#[test]
fn together_as_one_by_one() {
    let facts = all_facts();
    let id = |at: u8| ChannelId([at; 32]);
    let stated = vec![
        numbers(id(5), 4, 4),
        numbers(id(1), 5, 4),
        numbers(ChannelId([99; 32]), 7, 7),
        numbers(id(2), 4, 5),
        numbers(id(4), 3, 4),
        // Twice: the last word counts.
        numbers(id(0), 9, 9),
        numbers(id(0), 4, 4),
        numbers(id(6), 4, 4),
        numbers(id(6), 4, 6),
    ];
    one_by_one_as_together(&facts, &stated, &[1, 2, 3, 6, 7]);
}

/// Whether what is stated is looked up or found in its place, in the order of the slots.
#[test]
fn in_the_order_of_the_slots_and_in_another() {
    let mut facts = all_facts();
    let mut stated: Vec<_> = facts.iter().map(|facts| numbers(facts.id, 4, 4)).collect();
    one_by_one_as_together(&facts, &stated, &[]);
    stated.reverse();
    one_by_one_as_together(&facts, &stated, &[]);
    stated.reverse();
    stated.remove(3);
    stated[4].local = CommitmentNumber(5);
    one_by_one_as_together(&facts, &stated, &[3, 5]);
    // Two slots of one channel: both are stated.
    let mut twin = (*facts[1]).clone();
    twin.candidates.current.funding.vout = 70;
    facts.push(Arc::new(twin));
    one_by_one_as_together(&facts, &stated, &[3, 5]);
    stated[1].remote = CommitmentNumber(9);
    one_by_one_as_together(&facts, &stated, &[1, 3, 5, 8]);
}

fn one_by_one_as_together(facts: &[Arc<ChannelFacts>], stated: &[ChannelNumbers], old: &[u32]) {
    let slots = (0..).map(|at| Slot(at * 3));
    let new = || ChainArbitrator::new(Policy::default(), Vec::new());
    let (mut one, mut other) = (new(), new());
    let mut outdated = Vec::new();
    for (slot, facts) in slots.clone().zip(facts) {
        one.restore(slot, facts.clone(), ChannelArbitrator::default());
        let stated = stated.iter().rfind(|stated| stated.id == facts.id).copied();
        if one.state_numbers(slot, &ChannelEntry::of(facts), stated) == Standing::Outdated {
            outdated.push((slot, facts.id));
        }
    }
    let mut quiet = other.quiet_channels(3);
    for (slot, facts) in slots.clone().zip(facts) {
        assert!(quiet.push(slot, &ChannelEntry::of(facts)));
        assert!(!quiet.push(slot, &ChannelEntry::of(facts)), "not above the last");
    }
    assert_eq!(other.restore_quiet(quiet, stated), outdated);
    assert_eq!(outdated.iter().map(|(slot, _)| slot.0 / 3).collect::<Vec<_>>(), old);
    assert_eq!(other.len(), facts.len());
    for (slot, facts) in slots.zip(facts) {
        assert_eq!(other.watcher(slot), one.watcher(slot));
        let known = other.slot(&facts.id).and_then(|slot| other.watcher(slot));
        assert_eq!(known.map(|watcher| watcher.id), Some(facts.id));
        let funding = facts.candidates.current.funding;
        assert_eq!(other.watching(funding).collect::<Vec<_>>(), [slot]);
        assert_eq!(other.standing(slot, facts), one.standing(slot, facts));
        // Newer facts reach what was stated, or do not.
        let mut newer = (**facts).clone();
        newer.candidates.current.local.number = CommitmentNumber(5);
        newer.candidates.current.remote.number = CommitmentNumber(5);
        assert_eq!(other.standing(slot, &newer), one.standing(slot, &newer));
    }
}

/// What watches beside the current funding output, and channels that are there already.
#[test]
fn further_outpoints_are_watched_and_slots_are_replaced() {
    let facts = all_facts();
    let mut engine = ChainArbitrator::new(Policy::default(), Vec::new());
    let before: Vec<&Arc<ChannelFacts>> = facts.iter().take(4).collect();
    for (slot, facts) in (0..).map(Slot).zip(&before) {
        engine.restore(slot, (*facts).clone(), ChannelArbitrator::default());
    }
    let mut quiet = engine.quiet_channels(0);
    let further = OutPoint { vout: 77, ..facts[6].candidates.current.funding };
    for (slot, facts) in (2..).map(Slot).zip(facts.iter().skip(4)) {
        let mut entry = ChannelEntry::of(facts);
        entry.others.extend((slot == Slot(4)).then_some(further));
        assert!(quiet.push(slot, &entry));
    }
    let stated: Vec<_> = facts.iter().map(|facts| numbers(facts.id, 4, 4)).collect();
    assert_eq!(engine.restore_quiet(quiet, &stated), []);
    assert_eq!(engine.len(), 6);
    let slots = |outpoint| engine.watching(outpoint).collect::<Vec<_>>();
    let fundings = facts.iter().map(|facts| slots(facts.candidates.current.funding));
    let expected: [&[Slot]; 8] =
        [&[Slot(0)], &[Slot(1)], &[], &[], &[Slot(2)], &[Slot(3)], &[Slot(4)], &[Slot(5)]];
    assert_eq!(fundings.collect::<Vec<_>>(), expected);
    assert_eq!(slots(further), [Slot(4)]);
}
