//! An adoption that was interrupted: the arbiter may watch the channel, and it is LDK's alone.
use super::super::rig::{Rig, at_once};
use super::super::{OFFERED, RECEIVED};
use super::{Failed, bytes, goes_on, id, paid, read, three};
use arb_core::facts::HtlcLink;
use arb_core::ids::HtlcRef;
use arb_node_adapter::{Adoption, Egress, Mode, Recorder};
use arb_tests::ldk::{Kind, Link, MemoryKv};
use std::sync::Arc;

/// Wherever it stops, the egress hears of it, in this start and in the next, until the channel is adopted.
#[test]
fn a_channel_that_is_half_adopted_is_ldks() -> Result<(), Failed> {
    let mut half = 0;
    for writes in 0.. {
        let (mut rig, link) = paid(Kind::Anchors, true)?;
        let (taps, sink) = (rig.net.nodes[0].taps.clone(), rig.sink(0));
        let store = Arc::new(MemoryKv::default());
        sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
        let open = || Recorder::open(taps.clone(), store.clone(), &[]);
        let mut recorder = open()?;
        let adoption = || read(&rig, 0, &link, &bytes(&rig, 0, &link)?).map_err(Failed::from);
        store.fail_after(Some(writes));
        let egress = Egress::new(Mode::Own);
        let refused = at_once(recorder.adopt(vec![adoption()?], &*sink, &egress));
        store.fail_after(None);
        assert_eq!(egress.is_left(id(&link)), !refused.is_empty(), "after {writes} writes");
        if refused.is_empty() {
            break;
        }
        // It has closed meanwhile, say: nobody adopts it any more.
        let is_watched = sink.told.lock().map_err(|_| "poisoned")?.facts.contains_key(&id(&link));
        let next = Egress::new(Mode::Own);
        assert_eq!(at_once(open()?.adopt(Vec::new(), &*sink, &next)), []);
        assert!(next.is_left(id(&link)) || !is_watched, "after {writes} writes");
        half += usize::from(is_watched);
        // Or it is adopted now.
        let (mut recorder, last) = (open()?, Egress::new(Mode::Own));
        assert_eq!(at_once(recorder.adopt(vec![adoption()?], &*sink, &last)), []);
        assert!(!last.is_left(id(&link)));
        let mut desks = rig.desks.borrow_mut();
        (desks[0].store, desks[0].recorder) = (store.clone(), recorder);
        drop(desks);
        goes_on(&mut rig, &link)?;
    }
    assert!(half > 2, "{half} are half adopted");
    Ok(())
}

/// That the adoption is over cannot be written: the channel is recorded all the same, and followed.
#[test]
fn what_is_recorded_is_adopted() -> Result<(), Failed> {
    let (mut rig, link) = paid(Kind::Anchors, true)?;
    let (taps, sink) = (rig.net.nodes[0].taps.clone(), rig.sink(0));
    let store = Arc::new(MemoryKv::default());
    sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
    let mut recorder = Recorder::open(taps.clone(), store.clone(), &[])?;
    let adoption = read(&rig, 0, &link, &bytes(&rig, 0, &link)?)?;
    store.keeps_all(true);
    let egress = Egress::new(Mode::Own);
    assert_eq!(at_once(recorder.adopt(vec![adoption], &*sink, &egress)), []);
    store.keeps_all(false);
    assert!(!egress.is_left(id(&link)));
    {
        let mut desks = rig.desks.borrow_mut();
        (desks[0].store, desks[0].recorder) = (store.clone(), recorder);
    }
    let received = rig.net.send(1, &[link], 5_000_000, "received")?;
    rig.net.claim(&received);
    goes_on(&mut rig, &link)
}

/// What a recorded HTLC was forwarded to cannot be linked with it, for the arbiter takes nothing of the incoming channel or the store
/// nothing at all: then the outgoing channel is not recorded, and is adopted, with its link, at the next start.
#[test]
fn what_is_refused_is_not_recorded() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let _pending = rig.net.send(0, &[near, far], 20_000_000, "forwarded")?;
    let (taps, sink) = (rig.net.nodes[1].taps.clone(), rig.sink(1));
    let of = |rig: &Rig, link: &Link| -> Result<Adoption, Failed> {
        Ok(read(rig, 1, link, &bytes(rig, 1, link)?)?)
    };
    for writes in (0u64..).map(|after| after.checked_sub(1)) {
        let store = Arc::new(MemoryKv::default());
        sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
        let egress = Egress::new(Mode::Own);
        let mut recorder = Recorder::open(taps.clone(), store.clone(), &[])?;
        assert_eq!(at_once(recorder.adopt(vec![of(&rig, &near)?], &*sink, &egress)), []);
        match writes {
            None => drop(sink.told.lock().map_err(|_| "poisoned")?.aside.insert(id(&near))),
            Some(_) => store.fail_after(writes),
        }
        let refused = at_once(recorder.adopt(vec![of(&rig, &far)?], &*sink, &egress));
        sink.told.lock().map_err(|_| "poisoned")?.aside.clear();
        store.fail_after(None);
        let is_recorded = |recorder: &Recorder<Arc<MemoryKv>>| {
            recorder.numbers().iter().any(|numbers| numbers.id == id(&far))
        };
        assert_eq!(is_recorded(&recorder), refused.is_empty(), "{writes:?}");
        assert_eq!(egress.is_left(id(&far)), !refused.is_empty(), "{writes:?}");
        assert!(refused.iter().all(|(channel, _)| *channel == id(&far)));
        let (next, mut recorder) =
            (Egress::new(Mode::Own), Recorder::open(taps.clone(), store.clone(), &[])?);
        assert_eq!(at_once(recorder.adopt(vec![of(&rig, &far)?], &*sink, &next)), []);
        assert!(is_recorded(&recorder) && !next.is_left(id(&far)));
        let outgoing = HtlcRef { channel: id(&far), htlc: OFFERED };
        let linked = rig.facts(1, &near)?.htlcs[&RECEIVED].htlc.link;
        assert_eq!(linked, HtlcLink::ForwardedTo { outgoing }, "{writes:?}");
        if refused.is_empty() {
            break;
        }
    }
    Ok(())
}
