//! What is handed out to workers, when, and to whom.
use super::*;
use arb_core::arbitrator::{Alert, Notice, NoticeKey};
use arb_core::claim::build::Draft;
use arb_core::claim::plan::StepKey;
use arb_core::claim::{AnchorLock, Claim, Deadline, SpendPath};
use arb_core::ids::ChannelId;
use arb_core::units::BlockHeight;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, ScriptBuf, TxIn};

const WORKERS: usize = 16;

fn key(n: u8) -> TaskKey {
    TaskKey::Step(StepKey::Publish(Txid::from_byte_array([n; 32])))
}

/// Work of a channel, this many pieces.
fn work(pieces: u8) -> BTreeMap<TaskKey, Task> {
    (0..pieces).map(|n| (key(n), Task::Publish(Vec::new().into()))).collect()
}

fn tip(height: u32) -> Option<BlockRef> {
    Some(BlockRef { height: BlockHeight(height), hash: BlockHash::all_zeros() })
}

/// Tasks at a tip, with work for the channels 0, 1, …
fn with_work(pieces: &[u8]) -> Tasks {
    let mut tasks = Tasks::default();
    tasks.moved(tip(1));
    for (slot, pieces) in (0..).map(Slot).zip(pieces) {
        tasks.desire(slot, work(*pieces));
    }
    look(&mut tasks);
    tasks
}

fn look(tasks: &mut Tasks) -> usize {
    std::iter::from_fn(|| tasks.at_once()).map(|(_, at_once)| at_once.len()).sum()
}

fn of(handed_out: &[(Slot, TaskKey, Task)], slot: u32) -> usize {
    handed_out.iter().filter(|(of, _, _)| *of == Slot(slot)).count()
}

#[test]
fn a_channel_that_is_stuck_leaves_workers_for_the_others() {
    let mut tasks = with_work(&[100, 3, 2]);
    let first = tasks.hand_out(WORKERS);
    assert_eq!([of(&first, 0), of(&first, 1), of(&first, 2)], [WORKERS / SHARE, 3, 2]);
    // Those of the first never end; work for others goes on for ever.
    for slot in 3..100 {
        tasks.desire(Slot(slot), work(8));
        look(&mut tasks);
        let mut done = 0;
        while done < 8 {
            let handed_out = tasks.hand_out(WORKERS);
            assert_eq!(of(&handed_out, 0), 0, "it has its share already");
            assert!(of(&handed_out, slot) > 0, "channel {slot} waits");
            for (of, key, task) in handed_out {
                tasks.ended(of, key, task, tip(1));
                done += usize::from(of == Slot(slot));
            }
        }
    }
}

#[test]
fn channels_take_turns() {
    let mut tasks = with_work(&[100; 8]);
    let first = tasks.hand_out(WORKERS);
    assert_eq!((0..4).map(|slot| of(&first, slot)).collect::<Vec<_>>(), [4; 4]);
    for (slot, key, task) in first {
        tasks.ended(slot, key, task, tip(1));
    }
    let second = tasks.hand_out(WORKERS);
    assert_eq!((4..8).map(|slot| of(&second, slot)).collect::<Vec<_>>(), [4; 4]);
    assert!(tasks.hand_out(WORKERS).is_empty(), "no worker is free");
}

#[test]
fn what_was_tried_is_tried_again_at_another_tip_or_when_it_changed() {
    let mut tasks = with_work(&[1]);
    for (slot, key, task) in tasks.hand_out(WORKERS) {
        tasks.ended(slot, key, task, tip(1));
    }
    look(&mut tasks);
    assert!(tasks.is_idle() && tasks.hand_out(WORKERS).is_empty());
    // The same desire again is no reason, another one is.
    tasks.desire(Slot(0), work(1));
    look(&mut tasks);
    assert!(tasks.hand_out(WORKERS).is_empty());
    let other = Task::LoadRevokedHtlcs(arb_core::units::CommitmentNumber(1));
    tasks.desire(Slot(0), BTreeMap::from([(key(0), other)]));
    assert_eq!(look(&mut tasks), 1);
    tasks.desire(Slot(0), work(1));
    look(&mut tasks);
    assert!(tasks.hand_out(WORKERS).is_empty(), "tried at this tip");
    tasks.moved(tip(2));
    look(&mut tasks);
    assert_eq!(tasks.hand_out(WORKERS).len(), 1);
}

#[test]
fn what_changed_while_it_was_under_way_is_due_when_it_ends() {
    let mut tasks = with_work(&[1]);
    let mut handed_out = tasks.hand_out(WORKERS);
    let Some((slot, key, task)) = handed_out.pop() else { panic!("one piece of work") };
    let transaction = bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: Vec::new(),
        output: Vec::new(),
    };
    let changed = Task::Publish(vec![transaction].into());
    tasks.desire(slot, BTreeMap::from([(key.clone(), changed.clone())]));
    look(&mut tasks);
    assert!(tasks.hand_out(WORKERS).is_empty(), "one at a time");
    tasks.ended(slot, key, task, tip(1));
    assert!(!tasks.is_idle());
    look(&mut tasks);
    assert_eq!(tasks.hand_out(WORKERS).pop().map(|(_, _, task)| task), Some(changed));
}

#[test]
fn what_needs_no_worker_does_not_wait_for_one() {
    let mut tasks = with_work(&[4, 4, 4, 4]);
    assert_eq!(tasks.hand_out(WORKERS).len(), WORKERS);
    let notice = Notice::Alert(Alert::OutdatedFacts);
    let key = TaskKey::Effect(EffectKey::Notify(NoticeKey::Alert(Alert::OutdatedFacts)));
    tasks.desire(Slot(9), BTreeMap::from([(key, Task::Notify(notice))]));
    assert_eq!(look(&mut tasks), 1);
}

#[test]
fn nothing_is_remembered_of_what_is_over() {
    let mut tasks = with_work(&[2, 2]);
    let handed_out = tasks.hand_out(WORKERS);
    tasks.desire(Slot(0), BTreeMap::new());
    tasks.desire(Slot(1), BTreeMap::new());
    for (slot, key, task) in handed_out {
        tasks.ended(slot, key, task, tip(1));
    }
    look(&mut tasks);
    assert!(tasks.is_idle() && tasks.of.is_empty());
    let claim = OutPoint::null();
    tasks.fund(Slot(0), claim);
    assert!(tasks.is_funded(Slot(0)));
    assert!(tasks.unfund(Slot(0), &BTreeSet::from([claim])).is_empty());
    assert_eq!(tasks.unfund(Slot(0), &BTreeSet::new()), BTreeSet::from([claim]));
    assert!(!tasks.is_funded(Slot(0)));
}

#[test]
fn whoever_does_not_answer_for_long_takes_no_place_from_others() {
    let mut tasks = with_work(&[8; 100]);
    let begun = Instant::now();
    tasks.pass(begun);
    assert_eq!(tasks.hand_out(WORKERS).len(), WORKERS);
    tasks.pass(begun + SLOW / 2);
    assert!(tasks.hand_out(WORKERS).is_empty(), "nobody is slow yet");
    assert_eq!(tasks.due(), Some(begun + SLOW));
    // None of them ever ends, and still each channel gets its share in the end.
    let mut of_channel: BTreeMap<Slot, usize> = (0..4).map(|slot| (Slot(slot), 4)).collect();
    for second in 1..=24 {
        tasks.pass(begun + SLOW * second);
        let handed_out = tasks.hand_out(WORKERS);
        assert_eq!(handed_out.len(), WORKERS, "after {second} seconds");
        for (slot, ..) in handed_out {
            *of_channel.entry(slot).or_default() += 1;
        }
    }
    assert_eq!(of_channel.len(), 100);
    assert!(of_channel.values().all(|count| *count == WORKERS / SHARE));
    // What ends at last frees nothing that was free already, and nothing is counted twice.
    tasks.pass(begun + SLOW * 25);
    for slot in (0..100).map(Slot) {
        for n in 0..4 {
            tasks.ended(slot, key(n), Task::Publish(Vec::new().into()), tip(1));
        }
    }
    assert_eq!((tasks.under_way(), tasks.slow), (0, 0));
    look(&mut tasks);
    assert_eq!(tasks.hand_out(WORKERS).len(), WORKERS);
    assert!(tasks.hand_out(WORKERS).is_empty());
}

#[test]
fn what_failed_is_tried_again_after_ever_longer_pauses_and_at_a_new_tip() {
    let mut tasks = with_work(&[1]);
    let mut now = Instant::now();
    tasks.pass(now);
    let mut pause = FIRST_PAUSE;
    for _ in 0..12 {
        let Some((slot, key, task)) = tasks.hand_out(WORKERS).pop() else { panic!("it is due") };
        tasks.ended(slot, key.clone(), task, tip(1));
        tasks.failed(slot, &key, now);
        assert!(tasks.is_idle());
        assert_eq!(tasks.due(), Some(now + pause));
        tasks.pass(now + pause - Duration::from_millis(1));
        look(&mut tasks);
        assert!(tasks.hand_out(WORKERS).is_empty());
        now += pause;
        tasks.pass(now);
        look(&mut tasks);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let Some((slot, key, task)) = tasks.hand_out(WORKERS).pop() else { panic!("it is due") };
    tasks.ended(slot, key.clone(), task, tip(1));
    tasks.failed(slot, &key, now);
    // Another block: at once, and pauses begin anew.
    tasks.moved(tip(2));
    look(&mut tasks);
    let Some((slot, key, task)) = tasks.hand_out(WORKERS).pop() else { panic!("it is due") };
    tasks.ended(slot, key.clone(), task.clone(), tip(2));
    tasks.failed(slot, &key, now);
    tasks.pass(now + FIRST_PAUSE);
    look(&mut tasks);
    assert_eq!(tasks.hand_out(WORKERS).len(), 1);
    // What went well is not repeated.
    tasks.ended(slot, key, task, tip(2));
    tasks.pass(now + LONGEST_PAUSE * 9);
    look(&mut tasks);
    assert!(tasks.hand_out(WORKERS).is_empty());
    assert_eq!(tasks.due(), None);
}

/// A transaction of ours for this output, that was handed over.
fn handed_over(tasks: &mut Tasks, spent: OutPoint) {
    let transaction = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output: spent, ..TxIn::default() }],
        output: vec![],
    };
    tasks.desire(Slot(0), BTreeMap::from([(key(0), Task::Publish(vec![transaction].into()))]));
    look(tasks);
    for (slot, key, task) in tasks.hand_out(WORKERS) {
        tasks.ended(slot, key, task, tip(1));
    }
}

#[test]
fn what_stood_in_the_way_and_is_gone_lets_ours_out_again_at_once() {
    let output = |vout| OutPoint { txid: Txid::all_zeros(), vout };
    let spend = |n: u8, of: &[u32]| {
        (Txid::from_byte_array([n; 32]), of.iter().copied().map(output).collect::<Vec<_>>())
    };
    let mut tasks = Tasks::default();
    tasks.moved(tip(1));
    handed_over(&mut tasks, output(1));
    let mut goes_out = |holds: &[(Txid, Vec<OutPoint>)]| {
        tasks.mempool_holds(holds.iter().cloned().collect());
        look(&mut tasks);
        let handed_out = tasks.hand_out(WORKERS);
        let count = handed_out.len();
        for (slot, key, task) in handed_out {
            tasks.ended(slot, key, task, tip(1));
        }
        count
    };
    let (rival, other) = (spend(8, &[1, 2]), spend(9, &[3]));
    assert_eq!(goes_out(&[rival.clone(), other]), 0);
    assert_eq!(goes_out(std::slice::from_ref(&rival)), 0, "that did not concern it");
    assert_eq!(goes_out(&[]), 1);
    assert_eq!(goes_out(&[]), 0, "once");
}

/// What is being handed over while the rival leaves may have come a moment before that.
#[test]
fn what_is_under_way_when_the_rival_leaves_goes_out_once_more() {
    let output = OutPoint { txid: Txid::all_zeros(), vout: 1 };
    let mut tasks = Tasks::default();
    tasks.moved(tip(1));
    handed_over(&mut tasks, output);
    tasks.moved(tip(2));
    look(&mut tasks);
    let rival = (Txid::from_byte_array([8; 32]), vec![output]);
    tasks.mempool_holds(HashMap::from([rival]));
    let goes_out = |tasks: &mut Tasks, meanwhile: fn(&mut Tasks)| {
        let handed_out = tasks.hand_out(WORKERS);
        meanwhile(tasks);
        let count = handed_out.len();
        for (slot, key, task) in handed_out {
            tasks.ended(slot, key, task, tip(2));
        }
        look(tasks);
        count
    };
    assert_eq!(goes_out(&mut tasks, |tasks| drop(tasks.mempool_holds(HashMap::new()))), 1);
    assert_eq!(goes_out(&mut tasks, |_| ()), 1);
    assert_eq!(goes_out(&mut tasks, |_| ()), 0, "once");
}

/// A child of a commitment: the wallet pays for it.
fn child(vout: u32) -> Claim {
    let parent = Txid::from_byte_array([1; 32]);
    Claim {
        channel: ChannelId([1; 32]),
        outpoint: OutPoint { txid: parent, vout },
        output: bitcoin::TxOut { value: bitcoin::Amount::ZERO, script_pubkey: ScriptBuf::new() },
        path: SpendPath::Anchor {
            lock: AnchorLock::Shared,
            parent,
            ours: bitcoin::Amount::from_sat(100_000),
            lost: Vec::new(),
        },
        open_at: BlockHeight(0),
        deadline: None,
        value_at_risk: bitcoin::Amount::ZERO,
        destination: ScriptBuf::new(),
    }
}

/// Work of a channel that wants coins, for what is at risk until then.
fn hungry(at_risk: u64, by: Option<u32>, last: bool) -> BTreeMap<TaskKey, Task> {
    let mut draft = Draft::new(child(0));
    draft.claim.value_at_risk = bitcoin::Amount::from_sat(at_risk);
    draft.claim.deadline = by.map(|by| Deadline::By(BlockHeight(by)));
    draft.last = last;
    BTreeMap::from([(key(0), Task::Sign(Box::new(draft)))])
}

fn slots(handed_out: &[(Slot, TaskKey, Task)]) -> Vec<u32> {
    handed_out.iter().map(|(slot, ..)| slot.0).collect()
}

/// Where the wallet has too little for all, what is near comes first, and of that what is worth most; then what has no
/// deadline, and what the network has refused or the signer did not sign.
#[test]
fn coins_go_to_what_would_be_lost_first() {
    let mut tasks = Tasks::default();
    tasks.moved(tip(100));
    let all = [
        hungry(900_000, Some(110), true),
        hungry(800_000, None, false),
        hungry(1_000, Some(110), false),
        hungry(300_000, Some(112), false),
        hungry(700_000, Some(200), false),
        hungry(600_000, Some(105), false),
    ];
    for (slot, work) in (0..).map(Slot).zip(all) {
        tasks.desire(slot, work);
    }
    let claim = OutPoint { txid: Txid::from_byte_array([1; 32]), vout: 0 };
    for at in [98, 99] {
        tasks.not_signed(Slot(5), [claim], tip(at));
    }
    // Once may be chance.
    tasks.not_signed(Slot(3), [claim], tip(99));
    look(&mut tasks);
    assert_eq!(slots(&tasks.hand_out(WORKERS)), [3, 2, 4, 1, 0, 5]);
    assert!(!tasks.is_idle());
}

/// With one worker they alternate with those that want none, and a channel that has its share already holds nobody up.
#[test]
fn those_that_want_coins_take_turns_with_the_others() {
    let mut tasks = with_work(&[3]);
    for slot in 1..4 {
        tasks.desire(Slot(slot), hungry(u64::from(slot), Some(9), false));
    }
    look(&mut tasks);
    let mut order = Vec::new();
    loop {
        let handed_out = tasks.hand_out(1);
        let Some((slot, key, task)) = handed_out.into_iter().next() else { break };
        order.push(slot.0);
        tasks.ended(slot, key, task, tip(1));
    }
    assert_eq!(order, [0, 3, 0, 2, 0, 1]);
    assert!(tasks.is_idle());
}

/// What is not desired any more has no turn.
#[test]
fn whoever_is_not_wanted_any_more_has_no_turn() {
    let mut tasks = Tasks::default();
    tasks.moved(tip(1));
    tasks.desire(Slot(0), hungry(1, Some(9), false));
    look(&mut tasks);
    tasks.desire(Slot(0), BTreeMap::new());
    assert!(tasks.hand_out(WORKERS).is_empty());
    look(&mut tasks);
    assert!(tasks.is_idle());
}

/// One that has its share of workers keeps nobody waiting, and is not looked at again before an attempt has ended.
#[test]
fn whoever_has_its_share_of_workers_does_not_stand_among_those_that_want_coins() {
    let share = share(WORKERS) as u8;
    let mut tasks = Tasks::default();
    tasks.moved(tip(1));
    let task = hungry(9_000, Some(9), false).remove(&key(0)).expect("its work");
    tasks.desire(Slot(0), (0..100).map(|n| (key(n), task.clone())).collect());
    tasks.desire(Slot(1), hungry(1, None, false));
    look(&mut tasks);
    let first = tasks.hand_out(WORKERS);
    assert_eq!([of(&first, 0), of(&first, 1)], [usize::from(share), 1]);
    assert_eq!((tasks.hungry.len(), tasks.hand_out(WORKERS).len()), (0, 0));
    // The others, one after the other, in the order of their turns.
    for n in 0..100 - share {
        tasks.ended(Slot(0), key(n), task.clone(), tip(1));
        assert_eq!(tasks.hungry.len(), 1);
        let next: Vec<TaskKey> =
            tasks.hand_out(WORKERS).into_iter().map(|(_, key, _)| key).collect();
        assert_eq!(next, [key(n + share)]);
        assert!(tasks.hungry.len() <= 1 && tasks.hand_out(WORKERS).is_empty());
    }
    assert!(tasks.hungry.is_empty());
}

/// However many signers never answer, their channels are not looked at again and again.
#[test]
fn channels_that_have_their_share_are_not_in_the_queue() {
    const STUCK: usize = 400;
    let share = share(WORKERS);
    let mut tasks = with_work(&[share as u8 + 1; STUCK]);
    let (mut now, mut taken) = (Instant::now(), Vec::new());
    for _ in 0..=STUCK {
        tasks.pass(now);
        taken.extend(tasks.hand_out(WORKERS));
        now += SLOW;
    }
    assert_eq!((taken.len(), tasks.queue.len()), (STUCK * share, 0));
    let (slot, key, task) = taken.pop().expect("one of them");
    tasks.ended(slot, key, task, tip(1));
    assert_eq!(tasks.queue, [slot]);
    assert_eq!(slots(&tasks.hand_out(WORKERS)), [slot.0]);
    assert!(tasks.queue.is_empty());
}

/// However much is desired, only what something happened to is looked at.
#[test]
fn what_the_signer_failed_for_is_looked_at_when_something_happens_to_it() {
    let draft = |vout| Task::Sign(Box::new(Draft::new(child(vout))));
    let work = |vout| BTreeMap::from([(key(0), draft(vout))]);
    let claim = |vout| OutPoint { txid: Txid::from_byte_array([1; 32]), vout };
    let mut tasks = Tasks::default();
    for n in 0..1_000 {
        tasks.desire(Slot(n), work(n));
    }
    // Of the last one nobody wants a signature any more.
    for n in [0, 1, 2_000] {
        tasks.not_signed(Slot(n), [claim(n)], tip(1));
    }
    assert_eq!(tasks.unsigned.forget(), 3);
    assert_eq!(tasks.signers_changed(), BTreeSet::from([0, 1, 2_000].map(Slot)));
    let fails = |tasks: &Tasks| [0, 1, 2_000].map(|slot| tasks.is_unsigned_for(Slot(slot), 1));
    assert_eq!(fails(&tasks), [true, true, false]);
    // Blocks and signatures of the others.
    for n in 1..1_000 {
        tasks.desire(Slot(n), work(n));
    }
    tasks.signed((2..1_000).map(claim));
    assert_eq!((tasks.unsigned.forget(), tasks.signers_changed()), (0, BTreeSet::new()));
    // It is claimed in another's company.
    let together = BTreeMap::from([(key(0), draft(0)), (key(1), draft(5))]);
    tasks.desire(Slot(5), together);
    tasks.desire(Slot(0), BTreeMap::new());
    assert_eq!((tasks.unsigned.forget(), fails(&tasks)), (0, [true, true, false]));
    tasks.desire(Slot(5), work(5));
    assert_eq!(tasks.unsigned.forget(), 1);
    assert_eq!(tasks.signers_changed(), BTreeSet::from([Slot(0)]));
    tasks.signed([claim(1)]);
    assert_eq!(tasks.signers_changed(), BTreeSet::from([Slot(1)]));
    assert_eq!(fails(&tasks), [false; 3]);
}

/// The tasks that a worker may fail at are those that the page names.
#[test]
fn what_fails_is_called_as_on_the_page() {
    let number = arb_core::units::CommitmentNumber(0);
    let all = [
        Task::Sign(Box::new(Draft::new(child(0)))),
        Task::Publish(Vec::new().into()),
        Task::JudgeScripts(Vec::new()),
        Task::AskPoint(number),
        Task::LoadRevokedHtlcs(number),
        Task::Notify(Notice::Alert(Alert::SignerFailing)),
        Task::Forget,
    ];
    // One that is new is to be added.
    let place = |task: &Task| match task {
        Task::Sign(_) => 0,
        Task::Publish(_) => 1,
        Task::JudgeScripts(_) => 2,
        Task::AskPoint(_) => 3,
        Task::LoadRevokedHtlcs(_) => 4,
        Task::Notify(_) => 5,
        Task::Forget => 6,
    };
    assert!(all.iter().map(place).eq(0..all.len()));
    let fail = all.iter().filter(|task| needs_worker(task));
    let names: BTreeSet<String> =
        fail.map(|task| super::super::measure::task(task).to_owned()).collect();
    let page = super::super::tests::metrics::values(crate::metrics::TASK_FAILURES);
    assert_eq!(names, page);
}
