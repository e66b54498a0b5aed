//! What LDK handed over is known after a restart, for as long as it may matter.
use super::{BEFORE, DEADLINE, Failed, Net, goes_out, package, spend};
use arb_node_adapter::facts::{HANDED_OVER, NAMESPACE};
use arb_node_adapter::{ArbiterEgress, Egress, Mode, MonitorEgress, Recorder, SILENCE, Taps};
use arb_tests::ldk::{MemoryKv, Nobody};
use bitcoin::Transaction;
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::util::persist::KVStoreSync;
use std::sync::Arc;

/// A node's egress, and what writes for it.
struct Node {
    egress: Arc<Egress>,
    recorder: Recorder<Arc<MemoryKv>>,
    store: Arc<MemoryKv>,
}

impl Node {
    /// It starts with what was written before.
    fn start(store: &Arc<MemoryKv>, height: u32) -> Result<Self, Failed> {
        let taps = Arc::new(Taps::new());
        let egress = Egress::new(Mode::Guard { before: BEFORE }).recorded_by(taps.clone());
        let recorder = Recorder::open(taps, store.clone(), &[])?;
        recorder.remind(&egress)?;
        egress.best_height(height);
        Ok(Self { egress: Arc::new(egress), recorder, store: store.clone() })
    }

    async fn hands_over(&mut self, net: &Net, tx: &Transaction) -> Result<(), Failed> {
        MonitorEgress::new(net, self.egress.clone()).broadcast_transactions(&[tx]);
        self.write().await
    }

    async fn write(&mut self) -> Result<(), Failed> {
        Ok(self.recorder.drain(&Nobody, |_, _| panic!("LDK waits for nothing")).await?)
    }

    fn written(&self) -> Result<usize, Failed> {
        Ok(self.store.list(NAMESPACE, HANDED_OVER)?.len())
    }
}

/// It is LDK's before LDK hands it over again, however often the node starts, and goes on to be when LDK does.
#[tokio::test]
async fn what_ldk_handed_over_before_a_start_is_its_own() -> Result<(), Failed> {
    let (net, store, theirs) = (Net::default(), Arc::default(), spend(&[1], 20));
    Node::start(&store, DEADLINE - 40)?.hands_over(&net, &theirs).await?;
    // Somebody else's, of an output that LDK has claimed as well.
    net.accept(&spend(&[2], 20));
    for height in DEADLINE - BEFORE..DEADLINE {
        let node = Node::start(&store, height)?;
        let port = ArbiterEgress::seeing(net.clone(), node.egress.clone(), net.clone());
        assert!(!goes_out(&port, &package(&[(1, Some(DEADLINE))], 10)).await?, "{height}");
    }
    let node = Node::start(&store, DEADLINE - BEFORE)?;
    let port = ArbiterEgress::seeing(net.clone(), node.egress.clone(), net.clone());
    for height in DEADLINE - BEFORE..DEADLINE {
        node.egress.best_height(height);
        if height % SILENCE == 0 {
            MonitorEgress::new(&net, node.egress.clone()).broadcast_transactions(&[&theirs]);
        }
        assert!(!goes_out(&port, &package(&[(1, Some(DEADLINE))], 10)).await?, "{height}");
    }
    assert!(goes_out(&port, &package(&[(2, Some(DEADLINE))], 5)).await?);
    Ok(())
}

/// It is written once, not at every block; and forgotten when LDK has resolved the channel.
#[tokio::test]
async fn what_was_handed_over_long_ago_is_forgotten() -> Result<(), Failed> {
    let (net, store) = (Net::default(), Arc::default());
    let mut node = Node::start(&store, 1_000)?;
    node.hands_over(&net, &spend(&[1], 20)).await?;
    node.hands_over(&net, &spend(&[2], 20)).await?;
    assert_eq!(node.written()?, 2);
    let before = store.written();
    for height in 1_001..1_100 {
        node.egress.best_height(height);
        node.hands_over(&net, &spend(&[1], 20)).await?;
    }
    assert_eq!(store.written(), before);
    // The second one was last heard of a hundred blocks earlier, and a start in between changes nothing.
    let mut node = Node::start(&store, 3_100)?;
    node.hands_over(&net, &spend(&[1], 20)).await?;
    node.egress.best_height(1_000 + 4_032);
    node.write().await?;
    assert_eq!(node.written()?, 1);
    node.egress.best_height(3_100 + 4_032);
    node.write().await?;
    assert_eq!(node.written()?, 0);
    Ok(())
}

/// LDK pays more for a claim at every block for as long as it does not get through.
#[tokio::test]
async fn what_is_remembered_has_a_bound() -> Result<(), Failed> {
    let (net, store) = (Net::default(), Arc::default());
    let mut node = Node::start(&store, 1_000)?;
    for n in 0..20_100u32 {
        let of_egress = MonitorEgress::new(&net, node.egress.clone());
        of_egress.broadcast_transactions(&[&spend(&[1], u64::from(n) + 1)]);
        node.egress.best_height(1_000 + n / 10);
    }
    node.write().await?;
    assert!((19_900..=20_010).contains(&node.written()?), "{}", node.written()?);
    Ok(())
}
