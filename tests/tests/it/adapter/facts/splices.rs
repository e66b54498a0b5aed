//! Splices between LDK nodes: each further funding output with its commitments, until it is the only one.
mod stops;

use super::rig::Rig;
use super::{CAPACITY, Failed, three};
use arb_core::facts::ChannelFacts;
use arb_core::ids::ShortChannelId;
use arb_node_adapter::Refusal;
use arb_tests::ldk::{Kind, Link, Net};
use bitcoin::{Amount, OutPoint};

const ADDED: Amount = Amount::from_sat(200_000);
const TAKEN: Amount = Amount::from_sat(50_000);

fn fundings(facts: &ChannelFacts) -> Vec<OutPoint> {
    facts.candidates.iter().map(|candidate| candidate.funding).collect()
}

/// What both ends know of the channel's funding outputs.
fn both(rig: &Rig, link: &Link) -> Result<Vec<OutPoint>, Failed> {
    rig.check(link)?;
    let (one, two) = (rig.facts(link.opener, link)?, rig.facts(link.other, link)?);
    assert_eq!(fundings(&one), fundings(&two));
    Ok(fundings(&one))
}

/// HTLCs before it, between its signatures and its block, and after it; then another, the other way.
fn splices(kind: Kind) -> Result<(), Failed> {
    let (mut rig, near, far) = three(kind)?;
    let first = fundings(&rig.facts(0, &near)?);
    let trimmed = rig.net.send(0, &[near], 200_000, "trimmed")?;
    let before = rig.net.send(1, &[near], 30_000_000, "before")?;
    let forwarded = rig.net.send(0, &[near, far], 20_000_000, "forwarded")?;

    let second = rig.net.splice_in(0, &near, ADDED)?;
    assert_eq!(both(&rig, &near)?, [first[0], second]);
    let facts = rig.facts(1, &near)?;
    let [splice] = facts.candidates.others.as_slice() else { return Err("no candidate".into()) };
    assert_eq!(splice.capacity, CAPACITY + ADDED);
    assert_eq!(splice.local.htlcs.len(), 3);

    // Both go on, commitment by commitment.
    let number = facts.candidates.current.local.number;
    rig.net.claim(&before);
    let twins = rig.net.start(0, &[near], 9_000_000, "twins", 2)?;
    rig.net.pump();
    rig.net.arrived(&twins)?;
    rig.net.claim(&forwarded);
    rig.net.fail(&trimmed);
    assert_eq!(both(&rig, &near)?, [first[0], second]);
    let facts = rig.facts(1, &near)?;
    assert!(facts.candidates.others[0].local.number > number);
    assert_eq!(facts.candidates.current.remote.htlcs.len(), 2, "the twins");

    rig.net.mine(1)?;
    assert_eq!(both(&rig, &near)?, [second, first[0]], "the splice is locked");
    let near = rig.net.renamed(&near)?;
    for node in [0, 1] {
        let names = rig.facts(node, &near)?.names;
        assert_eq!(names.short_channel_id, Some(ShortChannelId(near.short_id)), "node {node}");
    }
    rig.net.claim(&twins);
    let after = rig.net.send(1, &[near], 5_000_000, "after")?;
    rig.check(&near)?;

    let third = rig.net.splice_out(1, &near, TAKEN)?;
    assert_eq!(both(&rig, &near)?, [second, third, first[0]]);
    rig.net.claim(&after);
    rig.net.mine(1)?;
    assert_eq!(both(&rig, &near)?, [third, second, first[0]]);
    let near = rig.net.renamed(&near)?;
    let last = rig.net.send(0, &[near, far], 7_000_000, "last")?;
    rig.net.claim(&last);
    rig.check(&near)?;
    assert!(rig.facts(0, &near)?.htlcs.is_empty());
    Ok(())
}

#[test]
fn with_static_remotekey() -> Result<(), Failed> {
    splices(Kind::StaticRemotekey)
}

#[test]
fn with_anchors() -> Result<(), Failed> {
    splices(Kind::Anchors)
}

#[test]
fn with_zero_fee() -> Result<(), Failed> {
    splices(Kind::ZeroFee)
}

/// LDK signs no splice before the arbiter has its commitments; a node that stops in between tells
/// them again, and the splice goes on.
#[test]
fn nothing_is_signed_before_the_facts_are_durable() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::Anchors)?;
    let first = fundings(&rig.facts(1, &near)?);
    let sink = rig.sink(1);
    sink.told.lock().map_err(|_| "poisoned")?.answer = Some(Refusal::Later("full".to_owned()));
    rig.net.begin_splice(1, &near, Net::taking(TAKEN))?;
    rig.net.broadcast();
    let spends = |rig: &Rig| rig.net.chain.mempool_spender(&first[0]).is_some();
    assert!(!spends(&rig), "the splice is not complete");
    assert_eq!(fundings(&rig.facts(1, &near)?), first);

    rig.restart_node(1)?;
    sink.told.lock().map_err(|_| "poisoned")?.answer = None;
    rig.net.pump();
    rig.net.sign_splice(1, &near)?;
    rig.net.pump();
    rig.net.broadcast();
    assert!(spends(&rig), "the splice goes on");
    assert_eq!(both(&rig, &near)?.len(), 2);
    let payment = rig.net.send(0, &[near], 5_000_000, "goes on")?;
    rig.net.claim(&payment);
    both(&rig, &near)?;
    rig.restart_node(1)?;
    rig.net.pump();
    rig.net.mine(1)?;
    assert_eq!(both(&rig, &near)?.last(), first.first());
    Ok(())
}

/// What was recorded of a splice is there after a restart.
#[test]
fn it_is_recorded() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::StaticRemotekey)?;
    rig.net.splice_in(0, &near, ADDED)?;
    for node in [0, 1] {
        rig.restart_recorder(node)?;
    }
    let payment = rig.net.send(0, &[near], 5_000_000, "goes on")?;
    rig.net.claim(&payment);
    assert_eq!(both(&rig, &near)?.len(), 2);
    Ok(())
}

/// An arbiter that lost its log is told of a channel that was spliced, and of one that is being spliced.
#[test]
fn it_is_told_again() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::Anchors)?;
    for round in 0..2 {
        rig.net.splice_in(0, &near, ADDED)?;
        rig.sink(0).told.lock().map_err(|_| "poisoned")?.facts.clear();
        let link = if round == 0 { near } else { rig.net.renamed(&near)? };
        let payment = rig.net.send(0, &[link], 5_000_000, &format!("pending {round}"))?;
        rig.net.claim(&payment);
        assert_eq!(both(&rig, &near)?.len(), 2 + round);
        rig.net.mine(1)?;
        rig.sink(0).told.lock().map_err(|_| "poisoned")?.facts.clear();
        let link = rig.net.renamed(&near)?;
        let payment = rig.net.send(0, &[link], 5_000_000, &format!("locked {round}"))?;
        rig.net.claim(&payment);
        assert_eq!(both(&rig, &near)?.len(), 2 + round);
    }
    Ok(())
}
