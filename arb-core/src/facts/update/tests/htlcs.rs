//! HTLCs as they are added and linked; shutdown scripts.
use super::world::{World, number, offered, received, terms};
use crate::facts::{Htlc, HtlcLink, HtlcRecord, ShutdownScripts, Update, UpdateError};
use crate::format::CommitmentFormat;
use crate::ids::{ChannelId, HtlcId, HtlcRef};
use crate::units::{BlockHeight, CltvExpiry, MilliSat};
use bitcoin::ScriptBuf;
use std::vec;

fn add(id: HtlcId, htlc: Htlc) -> Update {
    Update::HtlcAdded { id, htlc }
}

fn with_link(id: HtlcId, link: HtlcLink) -> Htlc {
    Htlc { link, ..terms(id) }
}

fn elsewhere(id: HtlcId) -> HtlcRef {
    HtlcRef { channel: ChannelId([0xee; 32]), htlc: id }
}

fn forwarded(id: u64) -> HtlcLink {
    HtlcLink::ForwardedTo { outgoing: elsewhere(offered(id)) }
}

fn forward_of(id: u64) -> HtlcLink {
    let expiry = CltvExpiry(BlockHeight(600));
    HtlcLink::ForwardOf { incoming: elsewhere(received(id)), expiry, amount: MilliSat(7) }
}

#[test]
fn the_same_htlc_again_changes_nothing() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    world.accept_unchanged(&add(offered(0), terms(offered(0))));
    world.accept_remote(1, &[offered(0)]);
    world.accept_unchanged(&add(offered(0), terms(offered(0))));
}

#[test]
fn a_committed_htlc_keeps_its_terms() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(received(0));
    world.accept_local(1, &[received(0)]);
    let good = terms(received(0));
    let changes = [
        Htlc { amount: MilliSat(1), ..good },
        Htlc { hash: terms(received(1)).hash, ..good },
        Htlc { expiry: CltvExpiry(BlockHeight(501)), ..good },
    ];
    for changed in changes {
        let refused = world.refuse(&add(received(0), changed));
        assert_eq!(refused, UpdateError::HtlcConflict(received(0)));
    }
}

#[test]
fn an_htlc_in_no_commitment_may_be_added_anew() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(received(0));
    let other = Htlc { amount: MilliSat(5_000_000), link: HtlcLink::Final, ..terms(received(0)) };
    world.accept(&add(received(0), other));
    assert_eq!(world.facts.htlcs[&received(0)].htlc, other);
}

#[test]
fn expiries_are_block_heights() {
    let world = World::new(CommitmentFormat::Anchors);
    let at = |height| Htlc { expiry: CltvExpiry(BlockHeight(height)), ..terms(offered(0)) };
    let refused = world.refuse(&add(offered(0), at(500_000_000)));
    assert_eq!(refused, UpdateError::ExpiryOutOfRange(offered(0)));
    assert!(world.facts.updated(&add(offered(0), at(499_999_999)), &world.secp).is_ok());
}

#[test]
fn links_fit_the_offerer() {
    let world = World::new(CommitmentFormat::Anchors);
    let ours = [HtlcLink::OwnPayment, forward_of(0)];
    let theirs = [HtlcLink::Final, forwarded(0), HtlcLink::Uncommitted];
    for (id, good, bad) in
        [(offered(0), &ours[..], &theirs[..]), (received(0), &theirs[..], &ours[..])]
    {
        for link in good {
            let update = add(id, with_link(id, *link));
            assert!(world.facts.updated(&update, &world.secp).is_ok(), "{link:?}");
        }
        for link in bad {
            let refused = world.refuse(&add(id, with_link(id, *link)));
            assert_eq!(refused, UpdateError::LinkConflict(id), "{link:?}");
        }
    }
}

#[test]
fn a_link_becomes_known_once() {
    let id = received(0);
    let linked = |link| Update::HtlcLinked { id, link };
    for settled in [HtlcLink::Final, forwarded(0)] {
        let mut world = World::new(CommitmentFormat::Anchors);
        assert_eq!(world.refuse(&linked(settled)), UpdateError::UnknownHtlc(id));
        world.add(id);
        world.accept_unchanged(&linked(HtlcLink::Uncommitted));
        world.accept(&linked(settled));
        assert_eq!(world.facts.htlcs[&id].htlc.link, settled);
        world.accept_unchanged(&linked(settled));
        world.accept_unchanged(&add(id, terms(id)));
        let conflict = UpdateError::LinkConflict(id);
        assert_eq!(world.refuse(&linked(HtlcLink::Uncommitted)), conflict);
        assert_eq!(world.refuse(&linked(HtlcLink::OwnPayment)), conflict);
        let other = if settled == HtlcLink::Final { forwarded(0) } else { HtlcLink::Final };
        assert_eq!(world.refuse(&linked(other)), conflict);
    }
}

#[test]
fn a_failed_forward_may_be_forwarded_again() {
    let mut world = World::new(CommitmentFormat::Anchors);
    let id = received(0);
    world.add(id);
    for outgoing in [forwarded(0), forwarded(1)] {
        world.accept(&Update::HtlcLinked { id, link: outgoing });
        assert_eq!(world.facts.htlcs[&id].htlc.link, outgoing);
    }
}

#[test]
fn an_offered_htlc_keeps_its_link() {
    let mut world = World::new(CommitmentFormat::Anchors);
    let id = offered(0);
    world.add(id);
    world.accept_unchanged(&Update::HtlcLinked { id, link: HtlcLink::OwnPayment });
    let refused = world.refuse(&Update::HtlcLinked { id, link: forward_of(0) });
    assert_eq!(refused, UpdateError::LinkConflict(id));
}

/// Two parts of a payment have the same terms, and the second takes the id of the first, which both
/// parties forgot (BOLT 2 "Message Retransmission").
#[test]
fn a_forgotten_htlc_gives_its_id_to_another_part_of_its_payment() {
    let mut world = World::new(CommitmentFormat::Anchors);
    let id = offered(0);
    world.accept(&add(id, with_link(id, forward_of(0))));
    world.accept(&add(id, with_link(id, forward_of(1))));
    assert_eq!(world.facts.htlcs[&id].htlc.link, forward_of(1));
    world.accept_remote(1, &[id]);
    let refused = world.refuse(&add(id, with_link(id, forward_of(0))));
    assert_eq!(refused, UpdateError::LinkConflict(id));
}

#[test]
fn shutdown_scripts_are_kept() {
    let mut world = World::new(CommitmentFormat::Anchors);
    let script = |byte| Some(ScriptBuf::from_bytes([byte].to_vec()));
    let (local, remote) = (script(0x51), script(0x52));
    let ours = ShutdownScripts { local: local.clone(), remote: None };
    let theirs = ShutdownScripts { local: None, remote: remote.clone() };
    world.accept(&Update::Shutdown(ours));
    world.accept(&Update::Shutdown(theirs));
    assert_eq!(world.facts.shutdown, ShutdownScripts { local, remote });
    assert_eq!(world.facts.candidates.current.local.number, number(0));
}

/// HTLCs from before the registration become penalty data, any number of times; the facts stay.
#[test]
fn what_ended_before_is_penalty_data() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    world.accept_remote(1, &[offered(0)]);
    world.accept_revocation(0);
    let before = world.facts.clone();
    let ended = |id, from, until| {
        let (remote_from, remote_until) = (Some(number(from)), Some(number(until)));
        (id, HtlcRecord { htlc: terms(id), remote_from, remote_until })
    };
    let past = vec![ended(offered(7), 0, 1), ended(received(9), 0, 1)];
    for _ in 0..2 {
        assert_eq!(world.accept(&Update::HtlcsEnded(past.clone())), past);
        assert_eq!(world.facts, before);
    }
    let refused = |id, from, until| world.refuse(&Update::HtlcsEnded(vec![ended(id, from, until)]));
    assert_eq!(refused(offered(0), 0, 1), UpdateError::HtlcConflict(offered(0)));
    let interval = UpdateError::HtlcInterval(offered(7));
    assert_eq!(refused(offered(7), 1, 1), interval, "empty");
    assert_eq!(refused(offered(7), 0, 2), interval, "the peer has not revoked so far");
    let live =
        HtlcRecord { htlc: terms(offered(7)), remote_from: Some(number(0)), remote_until: None };
    assert_eq!(world.refuse(&Update::HtlcsEnded(vec![(offered(7), live)])), interval);
}
