//! A channel that was handed back is LDK's for good; once nobody has it any more, nothing is remembered of it.
use super::rig::{Rig, at_once};
use super::{CAPACITY, Failed, id};
use arb_node_adapter::facts::{HANDED_BACK, NAMESPACE, TOLD};
use arb_node_adapter::{Egress, ForceClose, NoFence, Recorder};
use arb_tests::ldk::Kind;
use lightning::util::persist::{
    CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE as MONITORS,
    CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE as MONITORS_SECOND, KVStoreSync,
};
use std::sync::Arc;

#[test]
fn what_nobody_has_any_more_is_forgotten() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let (taps, sink) = (rig.net.nodes[0].taps.clone(), rig.sink(0));
    let monitors = |store: &dyn KVStoreSync| store.list(MONITORS, MONITORS_SECOND);
    for is_listed in [false, true] {
        for has_monitor in [false, true] {
            for is_watched in [false, true] {
                let store = Arc::new(rig.desks.borrow()[0].store.copied());
                let listed = rig.net.nodes[0].manager.list_channels();
                assert_eq!(listed.len(), 1);
                let mut before = Recorder::open(taps.clone(), store.clone(), &listed)?;
                before.fence(NoFence).force_close(id(&link))?;
                before.hand_back(id(&link), &Egress::default(), &NoFence, |_, _| {})?;
                assert_eq!(monitors(&*store)?.len(), 1);
                if !has_monitor {
                    store.remove(MONITORS, MONITORS_SECOND, &monitors(&*store)?[0], false)?;
                }
                let listed = if is_listed { &listed[..] } else { &[] };
                let facts = sink.told.lock().map_err(|_| "poisoned")?.facts.clone();
                if !is_watched {
                    sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
                }
                // At the next start, if nothing can be removed at this one.
                for keeps_all in [true, false] {
                    store.keeps_all(keeps_all);
                    let mut recorder = Recorder::open(taps.clone(), store.clone(), listed)?;
                    let egress = Egress::default();
                    assert_eq!(at_once(recorder.adopt(Vec::new(), &*sink, &egress)), []);
                    let stays = keeps_all || is_listed || has_monitor || is_watched;
                    assert_eq!(recorder.handed_back().is_empty(), !stays);
                    for records in [HANDED_BACK, TOLD] {
                        let left = store.list(NAMESPACE, records)?.len();
                        assert_eq!(left, usize::from(stays), "{records}");
                    }
                }
                sink.told.lock().map_err(|_| "poisoned")?.facts = facts;
            }
        }
    }
    Ok(())
}
