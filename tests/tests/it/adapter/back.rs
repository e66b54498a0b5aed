//! A channel goes back to LDK while its claims are in flight: LDK and the node take everything that is left, and the
//! arbiter publishes nothing more.
use super::Failed;
use super::modes::paid_and_failed;
use arb_core::ids::ChannelId;
use arb_node_adapter::{Handled, LdkEvents, Mode};
use arb_tests::ldk::{Beside, Hands, Kind, MemoryKv, ToArbiter, cut_off, started};
use bitcoin::OutPoint;
use lightning::events::Event;
use lightning::sign::SpendableOutputDescriptor;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const KINDS: [Kind; 3] = [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee];

/// Blocks until everything is claimed: the offered HTLC has expired, and the delay of its second stage is over.
const BLOCKS: u32 = 300;

/// What a node does beside LDK and the arbiter: it hears LDK's events, pays for LDK's claims, and sweeps what is left to it.
struct Node {
    events: LdkEvents<Arc<MemoryKv>, ToArbiter, ToArbiter>,
    hands: Hands,
    /// Events that are not acknowledged yet.
    waiting: Vec<Event>,
    /// All that LDK told of.
    spendable: BTreeSet<OutPoint>,
    /// What was said to be the arbiter's.
    of_arbiter: BTreeSet<OutPoint>,
}

/// Hands what LDK and the node want published to the mempool, packages as such. What it has already, or knows a spender of, it
/// refuses, and that is no matter.
fn broadcast(world: &mut Beside) {
    for package in world.net.nodes[0].outbox.take() {
        match package.as_slice() {
            [tx] => drop(world.net.chain.submit(tx.clone())),
            all => drop(world.net.chain.submit_package(all)),
        }
    }
}

fn outpoint(of: &SpendableOutputDescriptor) -> OutPoint {
    of.spendable_outpoint().into_bitcoin_outpoint()
}

impl Node {
    fn new(world: &Beside) -> Self {
        let node = &world.net.nodes[0];
        let arbiter = || ToArbiter(world.arbiter.clone(), node.egress.clone());
        let events = LdkEvents::new(Arc::default(), arbiter(), arbiter(), node.egress.clone());
        let (spendable, of_arbiter) = (BTreeSet::new(), BTreeSet::new());
        let hands = Hands::new(node, world.coins());
        Self { events, hands, waiting: Vec::new(), spendable, of_arbiter }
    }

    /// Hears LDK's events.
    async fn hears(&mut self, world: &mut Beside) {
        let node = &world.net.nodes[0];
        node.monitors.rebroadcast_pending_claims();
        node.collect_events();
        let ours = |event: &Event| match event {
            Event::SpendableOutputs { .. } | Event::BumpTransaction(_) => Some(event.clone()),
            _ => None,
        };
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(std::iter::from_fn(|| node.take_event(ours)));
        for event in all {
            let Ok(handled) = self.events.handle(&event).await else {
                self.waiting.push(event);
                continue;
            };
            if let Event::SpendableOutputs { outputs, .. } = &event {
                self.spendable.extend(outputs.iter().map(outpoint));
                if handled == Handled::Arbiter {
                    self.of_arbiter.extend(outputs.iter().map(outpoint));
                }
            }
            match (&event, handled) {
                (_, Handled::Node) => self.hands.handle(node, &event),
                (Event::SpendableOutputs { outputs, channel_id }, Handled::NodeStatic) => {
                    let is_static = |of: &SpendableOutputDescriptor| {
                        matches!(of, SpendableOutputDescriptor::StaticOutput { .. })
                    };
                    let outputs = outputs.iter().filter(|of| is_static(of)).cloned().collect();
                    let channel_id = *channel_id;
                    self.hands.handle(node, &Event::SpendableOutputs { outputs, channel_id });
                }
                _ => {}
            }
        }
        broadcast(world);
    }

    /// What was the arbiter's and is not swept is the node's to sweep.
    async fn sweeps(&self, world: &mut Beside) -> Result<(), Failed> {
        let node = &world.net.nodes[0];
        for kept in self.events.for_node().await? {
            let of = outpoint(&kept.descriptor);
            assert!(self.of_arbiter.contains(&of), "{of} was the node's before");
            assert!(world.net.chain.confirmed_spender(&of).is_none(), "{of} is spent");
            let (outputs, channel_id) = (vec![kept.descriptor], Some(world.link.id));
            self.hands.handle(node, &Event::SpendableOutputs { outputs, channel_id });
        }
        broadcast(world);
        Ok(())
    }

    /// All that LDK told of is spent in a block, and nothing that was the arbiter's is remembered any more.
    async fn is_done(&self, world: &Beside) -> Result<(), Failed> {
        assert!(self.waiting.is_empty(), "{:?}", self.waiting);
        assert!(!self.spendable.is_empty());
        for outpoint in &self.spendable {
            let spender = world.net.chain.confirmed_spender(outpoint);
            assert!(spender.is_some(), "{outpoint} is nobody's");
        }
        assert_eq!(self.events.for_node().await?, []);
        let kept: BTreeSet<OutPoint> =
            self.events.kept()?.iter().map(|kept| outpoint(&kept.descriptor)).collect();
        assert!(kept.is_disjoint(&self.of_arbiter), "{kept:?}");
        Ok(())
    }
}

/// So many blocks go by, the channel is handed back, and LDK has the rest of it.
async fn goes_back(mut world: Beside, after: u32, is_cut_off: bool) -> Result<(), Failed> {
    let id = ChannelId(world.link.id.0);
    let mut node = Node::new(&world);
    for _ in 0..after {
        node.hears(&mut world).await;
        world.mine(1).await?;
    }
    node.hears(&mut world).await;
    world.hand_back()?;
    assert_eq!(world.handed_back(), [id]);
    let ours = world.ours.clone();
    for _ in after..BLOCKS {
        node.hears(&mut world).await;
        node.sweeps(&mut world).await?;
        world.mine(1).await?;
    }
    assert_eq!(world.ours, ours, "the arbiter publishes nothing more");
    assert_eq!(world.net.nodes[0].monitors.get_claimable_balances(&[]), []);
    if is_cut_off {
        paid_and_failed(&world);
    }
    node.is_done(&world).await?;
    assert!(world.net.nodes[0].manager.list_channels().is_empty());
    world.arbiter.shutdown().await;
    Ok(())
}

/// Of our own commitment: in the mempool; in a block; with a second stage out, its delay running; with both; when the first delays
/// are over.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_goes_back_with_claims_in_flight() -> Result<(), Failed> {
    for kind in KINDS {
        for after in [0, 1, 3, 80, 150] {
            let mut world = cut_off(kind, Mode::Own).await?;
            let link = world.link;
            world.net.force_close(0, &link)?;
            world.settle().await?;
            goes_back(world, after, true)
                .await
                .map_err(|why| format!("{kind:?} {after}: {why}"))?;
        }
    }
    Ok(())
}

/// The same where the arbiter closed the channel, and LDK was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_arbiter_closes_goes_back() -> Result<(), Failed> {
    for kind in KINDS {
        for after in [0, 3] {
            let mut world = cut_off(kind, Mode::Own).await?;
            world.arbiter.fail_channel(ChannelId(world.link.id.0)).await?;
            world.net.pump();
            world.settle().await?;
            goes_back(world, after, true)
                .await
                .map_err(|why| format!("{kind:?} {after}: {why}"))?;
        }
    }
    Ok(())
}

/// The arbiter has decided to close, and nothing of it is out: LDK has the channel open, and closes it in its own time.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_goes_back_before_its_close_is_out() -> Result<(), Failed> {
    for kind in KINDS {
        let mut world = cut_off(kind, Mode::Own).await?;
        let id = ChannelId(world.link.id.0);
        world.signers_away.store(true, Ordering::SeqCst);
        tokio::select! {
            biased;
            _ = world.arbiter.fail_channel(id) => {}
            report = world.arbiter.report(id) => drop(report?),
        }
        world.hand_back()?;
        world.signers_away.store(false, Ordering::SeqCst);
        world.mine(1).await?;
        assert_eq!(world.net.nodes[0].manager.list_channels().len(), 1);
        goes_back(world, 0, true).await.map_err(|why| format!("{kind:?}: {why}"))?;
    }
    Ok(())
}

/// The peer's commitment, with claims of it in the mempool or in a block.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_peer_closes_goes_back() -> Result<(), Failed> {
    for kind in KINDS {
        for after in [0, 1, 8] {
            let mut world = cut_off(kind, Mode::Own).await?;
            let commitment = world.peer_commitment(&world.peer_monitor()?)?;
            world.mine_these(std::slice::from_ref(&commitment)).await?;
            goes_back(world, after, true)
                .await
                .map_err(|why| format!("{kind:?} {after}: {why}"))?;
        }
    }
    Ok(())
}

/// A revoked commitment, with its penalty in the mempool.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_channel_goes_back_while_it_is_punished() -> Result<(), Failed> {
    for kind in KINDS {
        for after in [0, 1, 8] {
            let (mut world, offered, received) = started(kind, Mode::Own).await?;
            let old = world.peer_monitor()?;
            world.net.claim(&offered);
            world.net.claim(&received);
            let commitment = world.peer_commitment(&old)?;
            world.mine_these(std::slice::from_ref(&commitment)).await?;
            goes_back(world, after, false)
                .await
                .map_err(|why| format!("{kind:?} {after}: {why}"))?;
        }
    }
    Ok(())
}

/// The mode is changed while the arbiter has acknowledged outputs and not swept them: nobody tells of them again, and the node gets them.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_swept_in_another_mode() -> Result<(), Failed> {
    for kind in KINDS {
        for mode in [Mode::Observe, Mode::Guard { before: 18 }] {
            let mut world = cut_off(kind, Mode::Own).await?;
            let link = world.link;
            world.net.force_close(0, &link)?;
            world.settle().await?;
            let mut node = Node::new(&world);
            let mut blocks = 0;
            // It cannot sign when the first delays are over.
            while node.of_arbiter.is_empty() {
                node.hears(&mut world).await;
                assert_eq!(node.events.for_node().await?, [], "the arbiter sees to them");
                world.signers_away.store(blocks >= 20, Ordering::SeqCst);
                world.mine(1).await?;
                blocks += 1;
                assert!(blocks < BLOCKS, "nothing is the arbiter's");
            }
            let unswept = node.events.for_node().await?.len();
            assert_eq!(unswept, 0, "the mode is the same");
            world.net.nodes[0].egress.set(mode);
            assert!(!node.events.for_node().await?.is_empty(), "{kind:?} {mode:?}");
            world.signers_away.store(false, Ordering::SeqCst);
            let ours = world.ours.clone();
            for _ in blocks..BLOCKS {
                node.hears(&mut world).await;
                node.sweeps(&mut world).await?;
                world.mine(1).await?;
            }
            assert_eq!(world.ours, ours, "LDK and the node have the rest");
            node.is_done(&world).await.map_err(|why| format!("{kind:?} {mode:?}: {why}"))?;
            world.arbiter.shutdown().await;
        }
    }
    Ok(())
}

/// A record is taken once: then the node's sweeper has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_sweeper_has_is_not_given_again() -> Result<(), Failed> {
    let mut world = cut_off(Kind::Anchors, Mode::Own).await?;
    let link = world.link;
    world.net.force_close(0, &link)?;
    world.settle().await?;
    let mut node = Node::new(&world);
    while node.of_arbiter.is_empty() {
        node.hears(&mut world).await;
        world.signers_away.store(true, Ordering::SeqCst);
        world.mine(1).await?;
        assert!(world.net.chain.height() < 1_000, "nothing is the arbiter's");
    }
    // There is no arbiter any more: nobody says what is spent.
    world.net.nodes[0].egress.ended();
    world.arbiter.shutdown().await;
    let given = node.events.for_node().await?;
    assert_eq!(given.len(), node.of_arbiter.len());
    for kept in given {
        node.events.taken(outpoint(&kept.descriptor))?;
    }
    assert_eq!(node.events.for_node().await?, []);
    Ok(())
}

/// What LDK publishes for a channel that is its own passes at once, though the arbiter owns the others; of those it waits as ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_ldk_publishes_for_a_channel_of_its_own_passes_at_once() -> Result<(), Failed> {
    for is_left in [false, true] {
        let world = cut_off(Kind::StaticRemotekey, Mode::Own).await?;
        let link = world.link;
        if is_left {
            world.hand_back()?;
        }
        let node = &world.net.nodes[0];
        let monitor = node.monitors.get_monitor(link.id).map_err(|()| "no monitor")?;
        node.egress.lets_pass(&monitor);
        drop(monitor);
        node.outbox.take();
        world.net.force_close(0, &link)?;
        let at_once = world.net.nodes[0].outbox.take().concat();
        assert_eq!(at_once.len(), usize::from(is_left), "{at_once:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}
