//! Cases that random stories rarely tell.
use arb_core::arbitrator::{Alert, Notice, UpstreamVerdict};
use arb_core::claim::SpendPath;
use arb_core::engine::{Active, EngineInput};
use arb_core::ids::{HtlcId, Side};
use arb_core::picture::{Output, Role, Way};
use arb_core::policy::Policy;
use arb_tests::peer::Format;

use super::story::{Close, Deed, Op, Story, Terms};
use super::world::{SLOT, World, step, view_of};

const OFFERED: HtlcId = HtlcId { offerer: Side::Local, id: 0 };

fn offer(forwarded: bool) -> Deed {
    Deed::Add(Terms { offerer: Side::Local, amount: 0, hash: 0, expiry: 0, forwarded })
}

fn story(deeds: &[Deed]) -> Story {
    Story {
        format: Format::StaticRemoteKey,
        opener: Side::Remote,
        ours: 1,
        deeds: deeds.to_vec(),
        staged: Vec::new(),
        shutdown: false,
        withheld: false,
    }
}

fn tell(world: &mut World, ops: &[Op]) {
    for op in ops {
        world.apply(*op, &mut |_, _| {});
    }
}

fn block(close: Close, peer: u8) -> Op {
    Op::Block { close: Some(close), peer, together: false, ours: true }
}

fn told(active: &Active) -> Option<UpstreamVerdict> {
    let record = active.facts.htlcs.get(&OFFERED)?;
    active.state.acts().told(OFFERED, &record.htlc)
}

fn verdict(world: &World) -> Option<UpstreamVerdict> {
    world.active().and_then(told)
}

/// A commitment that we cannot read may hold the HTLC: no verdict at act depth, none by the
/// incoming expiry for our own payment, and no forgetting before there is one.
#[test]
fn hidden_htlcs_are_not_failed_at_act_depth() {
    for close in [Close::Future, Close::Unknown, Close::Outdated(1), Close::Newer] {
        for forwarded in [false, true] {
            let mut world = World::new(&story(&[offer(forwarded), Deed::Empty(2)]));
            tell(&mut world, &[block(close, 0), Op::Mine(10), Op::Work { acknowledge: true }]);
            assert!(world.active().is_some_and(|active| active.picture.is_some()), "{close:?}");
            assert_eq!(verdict(&world), None, "{close:?}");
            // What is ours by its delay of twelve goes home.
            let ours = Op::Block { close: None, peer: 0, together: false, ours: true };
            tell(&mut world, &[Op::Mine(3), Op::Work { acknowledge: true }, ours]);
            // The HTLC expires at +25, the incoming one at +59.
            tell(&mut world, &[Op::Mine(46), Op::Work { acknowledge: true }]);
            let late = forwarded.then_some(UpstreamVerdict::Failed);
            assert_eq!(verdict(&world), late, "{close:?}");
            tell(&mut world, &[Op::Mine(54), Op::Work { acknowledge: true }]);
            assert_eq!(world.engine.is_forgettable(SLOT), forwarded, "{close:?}");
            tell(&mut world, &[Op::Mine(30), Op::Work { acknowledge: true }]);
            assert_eq!(verdict(&world), Some(UpstreamVerdict::Failed), "{close:?}");
            assert!(world.engine.is_forgettable(SLOT), "{close:?}");
        }
    }
}

/// A commitment of ours that the facts do not hold: our balance is swept once the signer has said its point, and
/// until then nothing is forgotten before our delay is over.
#[test]
fn our_balance_on_a_commitment_that_nobody_holds_is_swept() {
    for close in [Close::Outdated(1), Close::Newer] {
        let mut world = World::new(&story(&[Deed::Empty(3)]));
        tell(&mut world, &[block(close, 0)]);
        let picture =
            |world: &World| world.active().and_then(|a| a.picture.clone()).expect("closed");
        assert!(picture(&world).missing_point.is_some(), "{close:?}");
        let forgettable = |world: &World| {
            picture(world).is_forgettable(world.engine.height(), &Policy::default())
        };
        // A hundred blocks deep, our delay of twelve not.
        tell(&mut world, &[Op::Mine(105)]);
        assert!(!forgettable(&world), "{close:?}");
        tell(&mut world, &[Op::Work { acknowledge: true }]);
        assert_eq!(picture(&world).missing_point, None, "{close:?}");
        tell(&mut world, &[Op::Mine(40), Op::Work { acknowledge: true }]);
        assert!(!forgettable(&world), "{close:?}");
        let ours = Op::Block { close: None, peer: 0, together: false, ours: true };
        tell(&mut world, &[ours]);
        let swept = |output: &&Output| output.role == Role::ToLocal;
        let spent = picture(&world).outputs.iter().find(swept).and_then(|output| output.spent);
        assert!(spent.is_some_and(|spent| spent.by == Side::Local), "{close:?}");
    }
}

/// The peer punishes a revoked commitment of ours: what was ours is the peer's, and a person hears of it.
#[test]
fn what_the_peer_punishes_is_lost_and_alerted() {
    let mut world = World::new(&story(&[Deed::Empty(3)]));
    let work = Op::Work { acknowledge: false };
    let peer = Op::Block { close: None, peer: u8::MAX, together: false, ours: false };
    tell(&mut world, &[block(Close::Outdated(1), 0), work, peer]);
    let active = world.active().expect("closed");
    let picture = active.picture.clone().expect("closed");
    let of_us = picture.outputs.iter().find(|output| output.role == Role::ToLocal);
    let of_us = of_us.expect("the point is known");
    assert_eq!(of_us.spent.map(|spent| spent.by), Some(Side::Remote));
    let now = world.engine.now(SLOT, &active.facts);
    let alerts = active.state.open_notices(&active.facts, &now);
    let lost = Alert::OutputLost(of_us.outpoint);
    assert!(alerts.contains(&Notice::Alert(lost)), "{alerts:?}");
}

/// Penalty data that is missing means money that is lost: somebody must hear of it (BOLT 5 R2).
#[test]
fn an_output_that_no_penalty_data_explains_is_alerted() {
    let mut world = World::new(&story(&[offer(false), Deed::Settle(0), Deed::Empty(1)]));
    tell(&mut world, &[block(Close::Revoked(1), 0)]);
    let alerts = |world: &World| {
        let active = world.active().expect("closed");
        let open = active.state.open_notices(&active.facts, &world.engine.now(SLOT, &active.facts));
        open.iter().filter(|notice| format!("{notice:?}").contains("OutputLost")).count()
    };
    assert_eq!(alerts(&world), 0, "not loaded yet");
    let number = arb_core::units::CommitmentNumber(1);
    world.input(arb_core::arbitrator::Input::RevokedHtlcsLoaded { number, htlcs: Vec::new() });
    assert_eq!(alerts(&world), 1);
    // The data turns up after all.
    let htlcs = arb_core::log::ChangeLog::ended_htlcs(&world.log, SLOT, number);
    let htlcs = htlcs.expect("memory").expect("memory");
    world.input(arb_core::arbitrator::Input::RevokedHtlcsLoaded { number, htlcs });
    assert_eq!(alerts(&world), 0);
}

/// An HTLC that ends after the penalty data was loaded is punished like the others.
#[test]
fn an_htlc_that_ends_after_the_close_is_still_punished() {
    let told = [offer(false), Deed::Empty(1), Deed::Cancel(0)];
    let mut world = World::new(&Story { withheld: true, ..story(&told) });
    tell(&mut world, &[block(Close::Revoked(1), 0), Op::Work { acknowledge: true }, Op::Revoke]);
    let active = world.active().expect("closed");
    assert!(!active.facts.htlcs.contains_key(&OFFERED), "it has ended");
    let picture = active.picture.as_ref().expect("closed");
    let htlc = picture.htlc(OFFERED).expect("its output is known");
    let Way::Spend { path: SpendPath::Single(single), .. } = &htlc.way else {
        panic!("no way: {htlc:?}")
    };
    assert_eq!(single.kind, arb_core::arbitrator::TxKind::Penalty);
    let outputs = &picture.outputs;
    assert!(outputs.iter().all(|output| output.role != Role::Unidentified));
    let lost = |alert: &Alert| matches!(alert, Alert::OutputLost(_));
    let report = arb_core::report::ChannelReport::of(
        &active.facts,
        &active.state,
        &world.engine.now(SLOT, &active.facts),
    );
    assert!(!report.alerts.iter().any(lost));
}

/// The rescan of a late registration holds the preimage in a later block than the close.
#[test]
fn a_rescan_is_read_to_its_end_before_it_is_judged() {
    let mut world = World::new(&story(&[offer(true)]));
    let mut blocks = Vec::new();
    let mut keep = |_: &World, mined: &super::chain::Mined| blocks.push(mined.clone());
    world.apply(block(Close::Remote, 0), &mut keep);
    let claim = Op::Block { close: None, peer: 1, together: false, ours: false };
    world.apply(claim, &mut keep);
    assert_eq!(verdict(&world), Some(UpstreamVerdict::Fulfilled));
    let history: Vec<_> = blocks.iter().map(view_of).collect();
    assert!(history.iter().all(|view| view.transactions.len() == 1), "a close and a claim");
    // Registered when the incoming HTLC is about to expire.
    world.apply(Op::Mine(60), &mut |_, _| {});
    let (mut engine, mut log) = world.without_channels();
    let facts = Box::new(world.told.facts.clone());
    let watch = EngineInput::Watch { slot: SLOT, facts, history };
    step(&mut engine, &mut log, &[EngineInput::ReachedTip]);
    step(&mut engine, &mut log, &[watch]);
    let active = engine.active(SLOT).expect("closed");
    assert_eq!(told(active), Some(UpstreamVerdict::Fulfilled));
}

/// The secret of a commitment reaches us after the peer has swept its delayed output: nothing is
/// claimed in vain, and the loss is alerted.
#[test]
fn a_secret_that_comes_too_late_is_no_endless_claim() {
    let terms = Terms { offerer: Side::Local, amount: 0, hash: 0, expiry: 2, forwarded: false };
    let mut world = World::new(&Story { staged: vec![terms], ..story(&[]) });
    let sweep = Op::Block { close: None, peer: 0x80, together: false, ours: false };
    tell(&mut world, &[block(Close::Remote, 0), Op::Mine(9), sweep, Op::Revoke]);
    let active = world.active().expect("closed");
    let picture = active.picture.as_ref().expect("closed");
    let swept = picture.outputs.iter().find(|o| o.role == Role::ToLocal).expect("to_local");
    assert_eq!(swept.spent.map(|spent| spent.by), Some(Side::Remote));
    assert!(active.state.claims(&active.facts, picture, &Policy::default()).is_empty());
    let report = arb_core::report::ChannelReport::of(
        &active.facts,
        &active.state,
        &world.engine.now(SLOT, &active.facts),
    );
    assert!(report.alerts.contains(&Alert::OutputLost(swept.outpoint)));
}

/// The same with the peer's second stage of an HTLC, which it has spent already: its spend was seen
/// while it was no cheat.
#[test]
fn a_secret_that_comes_after_the_second_stage_is_spent_is_no_endless_claim() {
    for format in [Format::StaticRemoteKey, Format::Anchors, Format::ZeroFee] {
        let next = Terms { offerer: Side::Local, amount: 0, hash: 0, expiry: 2, forwarded: false };
        let told =
            Story { format, opener: Side::Local, staged: vec![next], ..story(&[offer(false)]) };
        let mut world = World::new(&told);
        let peer = |peer| Op::Block { close: None, peer, together: false, ours: false };
        let close = block(Close::Remote, 0);
        tell(&mut world, &[close, peer(1), Op::Mine(9), peer(0x81), Op::Revoke]);
        let active = world.active().expect("closed");
        let picture = active.picture.as_ref().expect("closed");
        let second = |o: &&arb_core::picture::Output| o.role == Role::SecondStage(Some(OFFERED));
        let swept = picture.outputs.iter().find(second).expect("a second stage of a cheat");
        assert_eq!(swept.spent.map(|spent| spent.by), Some(Side::Remote), "{format:?}");
        let claims = active.state.claims(&active.facts, picture, &Policy::default());
        let taken: Vec<_> = picture.outputs.iter().filter(|o| o.spent.is_some()).collect();
        let in_vain = claims.iter().find(|c| taken.iter().any(|o| o.outpoint == c.outpoint));
        assert!(in_vain.is_none(), "{format:?}: {in_vain:?}");
        let report = arb_core::report::ChannelReport::of(
            &active.facts,
            &active.state,
            &world.engine.now(SLOT, &active.facts),
        );
        assert!(report.alerts.contains(&Alert::OutputLost(swept.outpoint)), "{format:?}");
    }
}
