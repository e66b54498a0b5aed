//! The laws, one function each.
use arb_core::arbitrator::{
    Alert, ChannelEvent, CloseKind, Notice, NoticeKey, OutputProgress, Phase, Position, TxKind,
    UpstreamDuty, UpstreamVerdict,
};
use arb_core::claim::build::{BuildError, Draft};
use arb_core::claim::{Claim, SpendPath};
use arb_core::classify::FundingSpend;
use arb_core::engine::{Active, ChainArbitrator, EngineInput, Task};
use arb_core::format::scripts;
use arb_core::ids::{Preimage, Side};
use arb_core::log::ChangeLog;
use arb_core::memory::MemoryLog;
use arb_core::picture::{Output, Picture, Role, Way};
use arb_core::policy::Policy;
use arb_core::report::ChannelReport;
use bitcoin::Amount;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::{BTreeMap, BTreeSet};

use super::chain::{Mined, check_scripts, label, lowest_tip};
use super::world::{SLOT, World, channel_input, connect, is_upstream, restart, step, view};

type Law = Result<(), TestCaseError>;

/// What earlier steps said.
#[derive(Default)]
pub(crate) struct Watch {
    upstream: BTreeMap<UpstreamDuty, UpstreamVerdict>,
    /// Of these, what was acknowledged.
    settled: BTreeSet<UpstreamDuty>,
}

/// Laws of a state.
pub(crate) fn all(world: &World, watch: &mut Watch) -> Law {
    resumed(world)?;
    let Some(active) = world.active() else { return Ok(()) };
    upstream(world, active, watch)?;
    events(active)?;
    claims_verify(world, active)?;
    if let Some(picture) = &active.picture {
        accounted(world, active, picture)?;
        forgotten(world, active, picture)?;
    }
    Ok(())
}

/// Laws of a block that is about to be connected.
pub(crate) fn block(world: &World, mined: &Mined) -> Law {
    reorganised_out(world, mined)?;
    delivered_in_parts(world, mined)
}

/// Replay equals live state, and whoever resumes desires the same.
fn resumed(world: &World) -> Law {
    let mut log = world.log.clone();
    let mut engine = restart(&log);
    let facts_and_state = |engine: &ChainArbitrator| {
        engine.active(SLOT).map(|active| (active.facts.clone(), active.state.clone()))
    };
    prop_assert_eq!(facts_and_state(&engine), facts_and_state(&world.engine), "replay");
    prop_assert_eq!(engine.tip(), world.engine.tip());
    let before = log.changes(SLOT);
    if world.engine.position() == Position::AtTip {
        step(&mut engine, &mut log, &[EngineInput::ReachedTip]);
    }
    prop_assert_eq!(log.changes(SLOT), before, "nothing new at the same tip");
    prop_assert_eq!(engine.tasks(SLOT), world.engine.tasks(SLOT), "resumed tasks");
    prop_assert_eq!(engine.watched(), world.engine.watched(), "watched outputs");
    Ok(())
}

fn preimages() -> impl Iterator<Item = Preimage> {
    (0..3).map(|n| Preimage(label(3, n)))
}

/// Nothing failed upstream whose preimage is known; verdicts are never taken back, but a failure that nobody has
/// acknowledged by a preimage; every verdict has its notice until it is acknowledged.
fn upstream(world: &World, active: &Active, watch: &mut Watch) -> Law {
    let told = &active.state.acts().upstream;
    let acts = active.state.acts();
    for (duty, verdict) in &watch.upstream {
        let now = told.get(duty);
        let may = *verdict == UpstreamVerdict::Failed && !watch.settled.contains(duty);
        let known = active.state.upstream_preimage(duty.hash).is_some();
        let fulfilled = may && known && now == Some(&UpstreamVerdict::Fulfilled);
        prop_assert!(now == Some(verdict) || fulfilled, "a verdict was taken back: {:?}", duty);
    }
    for (duty, verdict) in told {
        let id = &duty.htlc;
        if watch.upstream.contains_key(duty) {
            continue;
        }
        prop_assert_eq!(id.offerer, Side::Local);
        let Some(record) = active.facts.htlcs.get(id) else { continue };
        let hash = record.htlc.hash;
        let known = active.state.upstream_preimage(hash).is_some();
        let shown = preimages().any(|p| p.hash() == hash && world.shown(&p));
        prop_assert_eq!(known, *verdict == UpstreamVerdict::Fulfilled, "{:?}", id);
        prop_assert!(!shown || *verdict == UpstreamVerdict::Fulfilled, "{:?} was claimed", id);
        let tasks = world.engine.tasks(SLOT);
        let told = tasks.values().any(|task| match task {
            Task::Notify(notice) => is_upstream(&notice.key()),
            _ => false,
        });
        let acknowledged = active.state.acts().acknowledged.iter().any(is_upstream);
        prop_assert!(told || acknowledged, "no notice of {:?}", id);
    }
    watch.upstream = told.clone();
    let acknowledged =
        |duty: &&UpstreamDuty| acts.acknowledged.contains(&NoticeKey::Upstream(**duty));
    watch.settled = told.keys().filter(acknowledged).copied().collect();
    Ok(())
}

/// Events tell a story that makes sense.
fn events(active: &Active) -> Law {
    let events = &active.state.acts().events;
    let mut last = None;
    let mut outputs = std::collections::BTreeMap::new();
    for event in events {
        if let ChannelEvent::Output { outpoint, progress } = event {
            let closed = matches!(last, Some(ChannelEvent::Closed(_)));
            let known = outputs.insert(*outpoint, *progress);
            prop_assert!(closed && known != Some(*progress), "{:?}", events);
            let settled = known == Some(OutputProgress::Irrevocable);
            prop_assert!(!settled || *progress == OutputProgress::Claimed, "{:?}", events);
            continue;
        }
        if *event == ChannelEvent::Reorged {
            outputs.clear();
        }
        let fits = match (last, event) {
            (None | Some(ChannelEvent::Reorged), ChannelEvent::EarlyMutual) => true,
            (None | Some(ChannelEvent::Reorged), ChannelEvent::Closed(_)) => true,
            (Some(ChannelEvent::EarlyMutual), ChannelEvent::Closed(kind)) => {
                *kind == CloseKind::Mutual
            }
            (None | Some(ChannelEvent::Reorged), _) => false,
            (Some(_), ChannelEvent::Reorged) => true,
            (Some(ChannelEvent::Closed(_)), ChannelEvent::Resolved) => true,
            _ => false,
        };
        prop_assert!(fits, "{:?}", events);
        last = Some(*event);
    }
    let closed = matches!(last, Some(ChannelEvent::Closed(_) | ChannelEvent::Resolved));
    if closed {
        prop_assert!(active.picture.is_some(), "told closed, and it is not: {:?}", events);
    }
    Ok(())
}

/// Every desired claim verifies, at its height and not before.
fn claims_verify(world: &World, active: &Active) -> Law {
    let claims: Vec<Claim> = match &active.picture {
        Some(picture) => active.state.claims(&active.facts, picture, &Policy::default()),
        None => {
            let desire =
                active.state.desired(&active.facts, &world.engine.now(SLOT, &active.facts));
            let claims = desire.into_values().filter_map(|effect| match effect {
                arb_core::arbitrator::Effect::Claim(claim) => Some(*claim),
                _ => None,
            });
            // The anchor's parent is not in a block.
            claims.filter(|c| !matches!(c.path, SpendPath::Anchor { .. })).collect()
        }
    };
    let coins = world.chain.coins(&[]);
    for claim in claims {
        let (open_at, outpoint) = (claim.open_at.0, claim.outpoint);
        let commitment = matches!(claim.path, SpendPath::LocalCommitment(_));
        let mut draft = Draft::new(claim);
        draft.fee = Amount::from_sat(1);
        let Some(out) = world.sign(draft.clone()) else {
            let fits = draft.wants_coins()
                || draft.assemble(&[], None).err() == Some(BuildError::Uneconomic);
            prop_assert!(fits, "a claim that cannot be built");
            continue;
        };
        let tx = &out.transaction;
        prop_assert!(tx.weight() <= weight_limit(tx, &draft), "weight");
        let verdict = check_scripts(tx, &coins);
        prop_assert!(verdict.is_ok(), "{:?}: {:?}", outpoint, verdict);
        let lowest = lowest_tip(tx, &coins);
        if !commitment {
            prop_assert_eq!(lowest, Some(open_at), "height of {:?}", outpoint);
        }
    }
    Ok(())
}

/// The bound that the draft gives, with one wallet coin.
fn weight_limit(tx: &bitcoin::Transaction, draft: &Draft) -> bitcoin::Weight {
    let coins = tx.input.len().saturating_sub(1) as u64;
    draft.weight() + bitcoin::Weight::from_wu(coins * (41 * 4 + 109))
}

/// Every satoshi of the closing transaction is claimed, home, the peer's, pending, or lost and
/// alerted; and what the report says that we got is what our scripts hold.
fn accounted(world: &World, active: &Active, picture: &Picture) -> Law {
    let report =
        ChannelReport::of(&active.facts, &active.state, &world.engine.now(SLOT, &active.facts));
    let Some(tx) = world.chain.spender(picture.funding) else {
        return Err(TestCaseError::fail("a picture of what no block holds"));
    };
    prop_assert_eq!(tx.compute_txid(), picture.txid);
    let of_close = report.outputs.iter().filter(|o| o.outpoint.txid == picture.txid);
    let listed: Amount = of_close.map(|o| o.amount).sum();
    let made: Amount = tx.output.iter().map(|o| o.value).sum();
    prop_assert_eq!(listed, made, "outputs that the report leaves out");

    let candidate = &active.facts.candidates.current;
    let home = scripts::to_remote(candidate.format, &active.facts.local.keys.payment);
    let mine = |script: &bitcoin::ScriptBuf| {
        *script == active.facts.destination
            || (home.witness_script.is_none() && *script == home.script_pubkey)
    };
    let coins = world.chain.coins(&[]);
    let at_home: Amount =
        coins.values().filter(|c| mine(&c.output.script_pubkey)).map(|c| c.output.value).sum();
    let from_outputs =
        |kind: TxKind| matches!(kind, TxKind::Sweep | TxKind::Claim | TxKind::Penalty);
    let fees: Amount = report
        .transactions
        .iter()
        .filter(|t| t.confirmed.is_some() && from_outputs(t.kind))
        .map(|t| t.fee)
        .sum();
    // Our anchor went into the fee of its own child, unless it came home with a sweep.
    let swept = |txid| report.transactions.iter().any(|t| t.txid == txid && from_outputs(t.kind));
    let anchors = report
        .outputs
        .iter()
        .filter(|o| matches!(o.role, Role::Anchor(Side::Local) | Role::SharedAnchor))
        .filter(|o| o.spent_by == Some(Side::Local))
        .filter(|o| !o.spender.is_some_and(swept));
    let anchors: Amount = anchors.map(|o| o.amount).sum();
    prop_assert_eq!(report.received, at_home + fees + anchors, "what we got: {:?}", report);

    for output in &picture.outputs {
        lost_is_alerted(world, &report, picture, output)?;
        spender_is_true(world, output)?;
    }
    Ok(())
}

/// An output that is ours or may be, and that we cannot take or did not get, has an alert.
fn lost_is_alerted(
    world: &World,
    report: &ChannelReport,
    picture: &Picture,
    output: &Output,
) -> Law {
    let asked = world.engine.tasks(SLOT);
    if asked.values().any(|task| matches!(task, Task::JudgeScripts(_) | Task::AskPoint(_))) {
        // What it is may still be learned.
        return Ok(());
    }
    let of_close = match picture.spend {
        FundingSpend::Unknown => Some(Alert::UnknownSpend(picture.txid)),
        FundingSpend::FutureCommitment(_) | FundingSpend::NewerLocalCommitment(_) => {
            Some(Alert::DataLoss(picture.txid))
        }
        FundingSpend::OutdatedLocalCommitment(_) => {
            Some(Alert::OutdatedLocalCommitment(picture.txid))
        }
        _ => None,
    };
    if let Some(alert) = of_close {
        prop_assert!(report.alerts.contains(&alert), "{:?}", alert);
        return Ok(());
    }
    let loading = match picture.spend {
        FundingSpend::RevokedCommitment(number) => {
            let tasks = world.engine.tasks(SLOT);
            tasks.values().any(|task| *task == Task::LoadRevokedHtlcs(number))
        }
        _ => false,
    };
    let alerted = report.alerts.contains(&Alert::OutputLost(output.outpoint));
    if matches!(output.way, Way::Lost) && !loading {
        prop_assert!(alerted, "lost without an alert: {:?} of {:?}", output, picture.spend);
    }
    let by_peer = output.spent.is_some_and(|spent| spent.by == Side::Remote);
    let penal = matches!(picture.spend, FundingSpend::RevokedCommitment(_));
    if by_peer && penal && matches!(output.role, Role::ToLocal | Role::SecondStage(_)) {
        prop_assert!(alerted, "taken without an alert: {:?}", output);
    }
    Ok(())
}

/// Who spent an output, by who signed: ours pay our scripts.
fn spender_is_true(world: &World, output: &Output) -> Law {
    let spender = world.chain.spender(output.outpoint);
    let Some(spent) = output.spent else {
        // What is never ours need not be watched.
        let watched = !matches!(output.way, Way::Theirs | Way::Home);
        prop_assert!(spender.is_none() || !watched, "an unseen spend of {:?}", output);
        return Ok(());
    };
    prop_assert_eq!(Some(spent.txid), spender.map(bitcoin::Transaction::compute_txid));
    let acts = world.active().map(|active| active.state.acts());
    let ours = acts.is_some_and(|acts| acts.ours(spent.txid).is_some());
    prop_assert_eq!(spent.by, if ours { Side::Local } else { Side::Remote }, "{:?}", output);
    Ok(())
}

/// A channel is not forgotten while anything of it is unresolved.
fn forgotten(world: &World, active: &Active, picture: &Picture) -> Law {
    if !world.engine.is_forgettable(SLOT) {
        return Ok(());
    }
    let now = world.engine.now(SLOT, &active.facts);
    prop_assert!(matches!(
        active.state.phase(&active.facts, now.tip, &now.policy),
        Phase::Resolved(_)
    ));
    for (id, record) in active.facts.htlcs.iter().filter(|(id, _)| id.offerer == Side::Local) {
        let told = active.state.acts().told(*id, &record.htlc);
        prop_assert!(told.is_some(), "forgotten with a duty upstream of {:?}", id);
    }
    for output in &picture.outputs {
        let anchor = matches!(output.role, Role::Anchor(_) | Role::SharedAnchor);
        let pending = matches!(output.way, Way::Spend { .. }) && output.spent.is_none();
        let dust = output.output.value < Amount::from_sat(1_000);
        prop_assert!(anchor || !pending || dust, "forgotten: {:?}", output);
    }
    let open: Vec<Notice> = active.state.open_notices(&active.facts, &now);
    prop_assert!(open.is_empty());
    Ok(())
}

/// What the chain says, without what we know or did.
fn chain_evidence(engine: &ChainArbitrator) -> Option<String> {
    let picture = engine.active(SLOT)?.picture.as_ref()?;
    let outputs = picture.outputs.iter().map(|o| (o.outpoint, o.at, o.role, o.spent));
    let outputs: Vec<_> = outputs.collect();
    Some(format!("{:?} {:?} {:?} {:?}", picture.at, picture.txid, picture.spend, outputs))
}

/// Connecting and disconnecting leaves chain evidence and phase; knowledge and acts grow only.
fn reorganised_out(world: &World, mined: &Mined) -> Law {
    let (mut engine, mut log) = clone(world);
    let before = (chain_evidence(&engine), engine.active(SLOT).map(|a| a.state.clone()));
    let fork_point = engine.tip().expect("a tip");
    connect(&mut engine, &mut log, mined, Position::AtTip);
    let acts = engine.active(SLOT).map(|a| a.state.acts().clone());
    step(&mut engine, &mut log, &[EngineInput::Disconnected { fork_point }]);
    prop_assert_eq!(chain_evidence(&engine), before.0, "chain evidence");
    prop_assert_eq!(engine.tip(), Some(fork_point));
    let Some(after) = engine.active(SLOT) else { return Ok(()) };
    let old = before.1.unwrap_or_default();
    let now = engine.now(SLOT, &after.facts);
    if old.intent() == after.state.intent() {
        let phase = |state: &arb_core::arbitrator::ChannelArbitrator| {
            state.phase(&after.facts, now.tip, &now.policy)
        };
        prop_assert_eq!(phase(&after.state), phase(&old));
    }
    prop_assert!(old.intent().is_none() || old.intent() == after.state.intent());
    for hash in preimages().map(|p| p.hash()) {
        let known = old.upstream_preimage(hash);
        prop_assert!(known.is_none() || known == after.state.upstream_preimage(hash));
    }
    let acts = acts.unwrap_or_default();
    let kept = after.state.acts();
    prop_assert_eq!(&kept.handed_out, &acts.handed_out);
    prop_assert!(acts.upstream.iter().all(|(id, v)| kept.upstream.get(id) == Some(v)));
    prop_assert!(kept.events.starts_with(&acts.events));
    prop_assert!(kept.acknowledged.is_superset(&acts.acknowledged));
    Ok(())
}

/// A block at once, its transactions one by one, and everything twice: the same.
fn delivered_in_parts(world: &World, mined: &Mined) -> Law {
    let (mut whole, mut whole_log) = clone(world);
    connect(&mut whole, &mut whole_log, mined, Position::CatchingUp);
    let (mut parts, mut parts_log) = clone(world);
    let empty = Mined { at: mined.at, transactions: Vec::new() };
    connect(&mut parts, &mut parts_log, &empty, Position::CatchingUp);
    for tx in &mined.transactions {
        let input = channel_input(view(mined.at, vec![tx.clone()]));
        step(&mut parts, &mut parts_log, &[input]);
    }
    let state = |engine: &ChainArbitrator| engine.active(SLOT).map(|a| a.state.clone());
    prop_assert_eq!(state(&whole), state(&parts), "in parts");
    let twice = channel_input(view(mined.at, mined.transactions.clone()));
    step(&mut whole, &mut whole_log, &[twice]);
    prop_assert_eq!(state(&whole), state(&parts), "twice");
    step(&mut whole, &mut whole_log, &[EngineInput::ReachedTip]);
    step(&mut parts, &mut parts_log, &[EngineInput::ReachedTip]);
    prop_assert_eq!(state(&whole), state(&parts), "at the tip");
    prop_assert_eq!(chain_evidence(&whole), chain_evidence(&parts));
    Ok(())
}

fn clone(world: &World) -> (ChainArbitrator, MemoryLog) {
    let mut log = world.log.clone();
    let mut engine = restart(&log);
    step(&mut engine, &mut log, &[EngineInput::ReachedTip]);
    (engine, log)
}
