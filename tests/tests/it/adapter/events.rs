//! LDK's events: what they are about is durable with the arbiter before they are acknowledged.
use super::Failed;
use arb_core::arbitrator::CloseKind;
use arb_core::facts::{ChannelFacts, ChannelNumbers, Update};
use arb_core::ids::{ChannelId, Side};
use arb_core::log::ByteRecord;
use arb_core::picture::Role;
use arb_core::units::BlockHeight;
use arb_node_adapter::{Claims, Egress, FactSink, Handled, Known, LdkEvents, Mode, Refusal};
use arb_tests::ldk::{Hands, Kind, MemoryKv, cut_off, started};
use arb_watcher::Arbiter;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::events::bump_transaction::BumpTransactionEvent;
use lightning::events::{ClosureReason, Event, FundingInfo};
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::sign::{SpendableOutputDescriptor, StaticPaymentOutputDescriptor};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

const CHANNEL: ChannelId = ChannelId([7; 32]);

/// An arbiter that says what it is told to, and remembers what it was told.
#[derive(Clone, Default)]
struct Told {
    answer: Arc<Mutex<Option<Refusal>>>,
    known: Arc<Mutex<Option<Known>>>,
    closed: Arc<Mutex<Vec<ChannelId>>>,
    discarded: Arc<Mutex<Vec<OutPoint>>>,
}

impl Told {
    fn answer(&self) -> Result<(), Refusal> {
        self.answer.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

impl FactSink for Told {
    async fn watch(&self, _: ChannelFacts) -> Result<(), Refusal> {
        self.answer()
    }

    async fn state_numbers(&self, _: ChannelNumbers) -> Result<(), Refusal> {
        self.answer()
    }

    async fn update(
        &self,
        _: ChannelId,
        updates: Vec<Update>,
        _: Vec<ByteRecord>,
    ) -> Result<(), Refusal> {
        self.answer()?;
        let gone = updates.into_iter().map(|update| match update {
            Update::CandidateDiscarded { funding } => funding,
            other => panic!("{other:?}"),
        });
        self.discarded.lock().unwrap().extend(gone);
        Ok(())
    }

    async fn closed(&self, channel: ChannelId) -> Result<(), Refusal> {
        self.answer()?;
        self.closed.lock().unwrap().push(channel);
        Ok(())
    }
}

impl Claims for Told {
    async fn known(&self, _: ChannelId, _: OutPoint) -> Result<Known, String> {
        self.known.lock().unwrap().ok_or_else(|| "not now".to_owned())
    }
}

/// The arbiter's own word.
struct Reports(Arbiter);

impl Claims for Reports {
    async fn known(&self, channel: ChannelId, outpoint: OutPoint) -> Result<Known, String> {
        let report = self.0.report(channel).await.map_err(|error| error.to_string())?;
        Ok(Known::of(report.as_ref(), outpoint))
    }
}

type Events<C> = LdkEvents<Arc<MemoryKv>, Told, C>;

fn events(mode: Mode) -> (Events<Told>, Told, Arc<MemoryKv>, Arc<Egress>) {
    let (told, store, egress) = (Told::default(), Arc::default(), Arc::new(Egress::new(mode)));
    let events = LdkEvents::new(Arc::clone(&store), told.clone(), told.clone(), egress.clone());
    (events, told, store, egress)
}

fn closed(reason: ClosureReason) -> Event {
    Event::ChannelClosed {
        channel_id: LdkChannelId(CHANNEL.0),
        user_channel_id: 0,
        reason,
        counterparty_node_id: None,
        channel_capacity_sats: None,
        channel_funding_txo: None,
        last_local_balance_msat: None,
    }
}

fn discard(channel: ChannelId, funding_info: FundingInfo) -> Event {
    Event::DiscardFunding { channel_id: LdkChannelId(channel.0), funding_info }
}

#[tokio::test]
async fn a_close_of_ldks_is_an_intent() -> Result<(), Failed> {
    let (events, told, _, _) = events(Mode::Own);
    let ours = || closed(ClosureReason::HTLCsTimedOut { payment_hash: None });
    *told.answer.lock().unwrap() = Some(Refusal::Later("full".to_owned()));
    assert!(events.handle(&ours()).await.is_err(), "LDK is to say it again");
    assert!(told.closed.lock().unwrap().is_empty());
    *told.answer.lock().unwrap() = None;
    assert!(events.handle(&ours()).await.is_ok());
    assert_eq!(*told.closed.lock().unwrap(), [CHANNEL]);
    for none in [ClosureReason::CommitmentTxConfirmed, ClosureReason::LegacyCooperativeClosure] {
        assert!(matches!(events.handle(&closed(none)).await, Ok(Handled::Node)));
    }
    let never = events.handle(&closed(ClosureReason::FundingTimedOut)).await;
    assert!(matches!(never, Ok(Handled::NeverFunded)));
    assert_eq!(told.closed.lock().unwrap().len(), 1);
    Ok(())
}

/// A transaction with three outputs, and the outpoints of these.
fn transaction() -> (Transaction, Vec<OutPoint>) {
    let output = TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::new() };
    let (version, lock_time) = (Version::TWO, LockTime::ZERO);
    let transaction = Transaction { version, lock_time, input: vec![], output: vec![output; 3] };
    let txid = transaction.compute_txid();
    (transaction, (0..3).map(|vout| OutPoint { txid, vout }).collect())
}

#[tokio::test]
async fn a_discarded_funding_goes() -> Result<(), Failed> {
    let (events, told, _, _) = events(Mode::Observe);
    let outpoint = LdkOutPoint { txid: Txid::from_byte_array([1; 32]), index: 3 };
    let by_outpoint = || discard(CHANNEL, FundingInfo::OutPoint { outpoint });
    *told.answer.lock().unwrap() = Some(Refusal::Later("full".to_owned()));
    assert!(events.handle(&by_outpoint()).await.is_err());
    *told.answer.lock().unwrap() = None;
    assert!(matches!(events.handle(&by_outpoint()).await, Ok(Handled::Node)));
    let mut gone = vec![outpoint.into_bitcoin_outpoint()];
    assert_eq!(*told.discarded.lock().unwrap(), gone);
    // Whichever of its outputs it was.
    let (transaction, outputs) = transaction();
    let whole = discard(CHANNEL, FundingInfo::Tx { transaction });
    assert!(matches!(events.handle(&whole).await, Ok(Handled::Node)));
    gone.extend(outputs);
    assert_eq!(*told.discarded.lock().unwrap(), gone);
    *told.answer.lock().unwrap() = Some(Refusal::NotWatched);
    assert!(matches!(events.handle(&by_outpoint()).await, Ok(Handled::Node)));
    Ok(())
}

/// Whether the arbiter keeps a splice that a block has shown, or the channel's only funding output: the channel has
/// its name from the first one.
#[tokio::test]
async fn a_funding_that_is_kept_was_a_splice_or_the_only_one() -> Result<(), Failed> {
    let (events, told, _, _) = events(Mode::Observe);
    *told.answer.lock().unwrap() = Some(Refusal::Refused("it is needed".to_owned()));
    let (transaction, _) = transaction();
    let splice = discard(CHANNEL, FundingInfo::Tx { transaction: transaction.clone() });
    assert!(matches!(events.handle(&splice).await, Ok(Handled::Node)));
    for index in 0..3 {
        let outpoint = LdkOutPoint { txid: transaction.compute_txid(), index };
        let first = ChannelId(LdkChannelId::v1_from_funding_outpoint(outpoint).0);
        for info in [
            FundingInfo::Tx { transaction: transaction.clone() },
            FundingInfo::OutPoint { outpoint },
        ] {
            let never = events.handle(&discard(first, info)).await;
            assert!(matches!(never, Ok(Handled::NeverFunded)), "{index}");
        }
    }
    Ok(())
}

fn at(n: u8) -> LdkOutPoint {
    LdkOutPoint { txid: Txid::from_byte_array([n; 32]), index: 0 }
}

fn output() -> TxOut {
    TxOut { value: Amount::from_sat(1_000), script_pubkey: ScriptBuf::new() }
}

/// An output at the channel's destination.
fn paid(n: u8) -> SpendableOutputDescriptor {
    let (outpoint, output) = (at(n), output());
    SpendableOutputDescriptor::StaticOutput { outpoint, output, channel_keys_id: None }
}

/// Our output of the peer's commitment.
fn owed(n: u8) -> SpendableOutputDescriptor {
    SpendableOutputDescriptor::StaticPaymentOutput(StaticPaymentOutputDescriptor {
        outpoint: at(n),
        output: output(),
        channel_keys_id: [0; 32],
        channel_value_satoshis: 1_000,
        channel_transaction_parameters: None,
    })
}

fn spendable(outputs: Vec<SpendableOutputDescriptor>) -> Event {
    Event::SpendableOutputs { outputs, channel_id: Some(LdkChannelId(CHANNEL.0)) }
}

#[tokio::test]
async fn spendable_outputs_are_kept_before_they_are_acknowledged() -> Result<(), Failed> {
    let (events, told, store, egress) = events(Mode::Observe);
    let (event, outpoint) = (spendable(vec![owed(1)]), at(1).into_bitcoin_outpoint());
    store.fail_after(Some(0));
    assert!(events.handle(&event).await.is_err());
    store.fail_after(None);
    assert!(events.kept()?.is_empty());
    assert!(matches!(events.handle(&event).await, Ok(Handled::Node)));
    assert!(events.handle(&event).await.is_ok(), "told twice");
    let kept = events.kept()?;
    let [one] = kept.as_slice() else { panic!("{kept:?}") };
    let Event::SpendableOutputs { outputs, .. } = &event else { unreachable!() };
    assert_eq!((one.channel, &one.descriptor), (Some(CHANNEL), &outputs[0]));
    // Handed to nobody because the arbiter publishes; and it is LDK's alone again.
    egress.set(Mode::Own);
    *told.known.lock().unwrap() = Some(Known::Yes);
    assert!(matches!(events.handle(&event).await, Ok(Handled::Arbiter)));
    assert!(!egress.hand_back(CHANNEL));
    assert!(matches!(events.handle(&event).await, Ok(Handled::Node)));
    assert_eq!(events.kept()?.len(), 1);
    // What the arbiter was to sweep, for the node when the channel is handed back.
    assert_eq!(events.for_node().await?, events.kept()?);
    events.taken(outpoint)?;
    assert!(events.kept()?.is_empty());
    Ok(())
}

/// What is at the channel's destination is for the node's sweeper, whoever brought it there: with `KeysManager` the
/// destination is a key of LDK's own. Only the node knows that it is its wallet's.
#[tokio::test]
async fn what_is_at_the_destination_is_the_nodes() -> Result<(), Failed> {
    let (events, told, store, egress) = events(Mode::Own);
    *told.known.lock().unwrap() = Some(Known::Yes);
    let wallets = LdkEvents::new(store, told.clone(), told.clone(), egress).paying_the_wallet();
    for (outputs, handled, of_wallet) in [
        (vec![paid(1)], Handled::Node, Handled::Arbiter),
        (vec![paid(1), owed(2)], Handled::NodeStatic, Handled::Arbiter),
        (vec![owed(2)], Handled::Arbiter, Handled::Arbiter),
    ] {
        let event = spendable(outputs);
        assert_eq!(events.handle(&event).await.ok(), Some(handled), "{event:?}");
        assert_eq!(wallets.handle(&event).await.ok(), Some(of_wallet), "{event:?}");
    }
    assert_eq!(events.kept()?.len(), 2);
    Ok(())
}

/// A sweeper with an output that the arbiter has spent would have it in each of its transactions.
#[tokio::test]
async fn what_was_spent_is_not_for_the_nodes_sweeper_when_the_arbiter_is_gone() -> Result<(), Failed>
{
    let spent = Known::Spent(BlockHeight(0));
    for (said, given) in [(vec![spent], 0), (vec![spent, Known::Yes], 1), (vec![], 1)] {
        let (events, told, _, egress) = events(Mode::Own);
        *told.known.lock().unwrap() = Some(Known::Yes);
        assert!(matches!(events.handle(&spendable(vec![owed(2)])).await, Ok(Handled::Arbiter)));
        for known in said {
            *told.known.lock().unwrap() = Some(known);
            assert_eq!(events.for_node().await?, []);
        }
        egress.ended();
        assert_eq!(events.for_node().await?.len(), given);
        assert_eq!(events.kept()?.len(), 1);
    }
    Ok(())
}

/// A channel goes back whatever the arbiter has of it then: its outputs come to the node until it has them. What the arbiter said to be
/// spent does not.
#[tokio::test]
async fn what_was_left_to_the_arbiter_comes_back_whatever_it_knows() -> Result<(), Failed> {
    let set_aside = None;
    for known in [Some(Known::Yes), Some(Known::NotWatched), set_aside] {
        for was_spent in [false, true] {
            let (events, told, _, egress) = events(Mode::Own);
            *told.known.lock().unwrap() = Some(Known::Yes);
            assert!(matches!(events.handle(&spendable(vec![owed(2)])).await, Ok(Handled::Arbiter)));
            if was_spent {
                *told.known.lock().unwrap() = Some(Known::Spent(BlockHeight(0)));
                assert_eq!(events.for_node().await?, []);
            }
            *told.known.lock().unwrap() = known;
            assert_eq!(events.for_node().await?, [], "{known:?}: it has not gone back");
            // What it does not know it may have resolved and forgotten.
            egress.set(Mode::Observe);
            let given = usize::from(known == Some(Known::Yes));
            assert_eq!(events.for_node().await?.len(), given, "{known:?}, another mode");
            egress.set(Mode::Own);
            egress.hand_back(CHANNEL);
            // What is not spent any more, as after a reorganisation, it says.
            let given = !was_spent || known == Some(Known::Yes);
            for _ in 0..2 {
                assert_eq!(events.for_node().await?.len(), usize::from(given), "{known:?}");
            }
            *told.known.lock().unwrap() = Some(Known::NotYet);
            assert_eq!(events.for_node().await?, [], "it comes when the arbiter has seen it");
            events.taken(at(2).into_bitcoin_outpoint())?;
            *told.known.lock().unwrap() = known;
            assert_eq!(events.for_node().await?, []);
        }
    }
    Ok(())
}

/// LDK tells of its own claims after what it calls spendable: a channel that is set aside, or an arbiter that sees no blocks, holds
/// that up for a moment only. Whose the output is comes out later.
#[tokio::test]
async fn what_the_arbiter_says_nothing_of_holds_up_nothing() -> Result<(), Failed> {
    for silent in [None, Some(Known::NotYet)] {
        for (says, given) in [
            (silent, 0),
            (Some(Known::Yes), 0),
            (Some(Known::Spent(BlockHeight(102))), 0),
            (Some(Known::Home), 1),
            (Some(Known::NotWatched), 1),
        ] {
            let (events, told, _, egress) = events(Mode::Own);
            let event = spendable(vec![owed(2)]);
            *told.known.lock().unwrap() = silent;
            egress.best_height(100);
            assert!(events.handle(&event).await.is_err(), "it may say so in a moment");
            egress.best_height(102);
            assert_eq!(events.handle(&event).await.ok(), Some(Handled::Arbiter));
            assert_eq!((events.kept()?.len(), events.for_node().await?.len()), (1, 0));
            *told.known.lock().unwrap() = says;
            for _ in 0..2 {
                assert_eq!(events.for_node().await?.len(), given, "{says:?}");
            }
            // It has gone back, and nobody has said that it is spent.
            *told.known.lock().unwrap() = None;
            egress.hand_back(CHANNEL);
            let is_spent = matches!(says, Some(Known::Spent(_)));
            assert_eq!(events.for_node().await?.len(), usize::from(!is_spent), "{says:?}");
        }
    }
    Ok(())
}

/// LDK tells of no other event before: those of all channels would wait for one that is set aside.
#[tokio::test]
async fn a_discarded_funding_of_a_channel_that_is_set_aside_holds_up_nothing() -> Result<(), Failed>
{
    let (events, told, ..) = events(Mode::Own);
    *told.answer.lock().unwrap() = Some(Refusal::SetAside("a record is damaged".to_owned()));
    let replaced = discard(CHANNEL, FundingInfo::OutPoint { outpoint: at(1) });
    assert_eq!(events.handle(&replaced).await.ok(), Some(Handled::Node));
    let channel = ChannelId(LdkChannelId::v1_from_funding_outpoint(at(1)).0);
    let only = discard(channel, FundingInfo::OutPoint { outpoint: at(1) });
    assert_eq!(events.handle(&only).await.ok(), Some(Handled::NeverFunded));
    Ok(())
}

/// Nobody is there to be told, and LDK goes on with what comes after.
#[tokio::test]
async fn no_event_waits_for_an_arbiter_that_has_ended() -> Result<(), Failed> {
    let (events, told, _, egress) = events(Mode::Own);
    *told.answer.lock().unwrap() = Some(Refusal::Later("it has stopped".to_owned()));
    let outpoint = at(1);
    let all = [
        discard(CHANNEL, FundingInfo::OutPoint { outpoint }),
        closed(ClosureReason::HTLCsTimedOut { payment_hash: None }),
        spendable(vec![owed(2)]),
    ];
    for event in &all {
        assert!(events.handle(event).await.is_err(), "{event:?}");
    }
    let node = |handled| matches!(handled, Ok(Handled::Node));
    egress.ended();
    for event in &all {
        assert!(node(events.handle(event).await), "{event:?}");
    }
    Ok(())
}

/// LDK's signers sign and the arbiter's do not: after its time the node closes and claims as LDK wants it to.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_arbiter_does_not_claim_is_the_nodes() -> Result<(), Failed> {
    nodes_after_a_while(false).await
}

/// The same where it cannot be asked for the channel, which it has set aside.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_arbiter_cannot_be_asked_for_is_the_nodes() -> Result<(), Failed> {
    nodes_after_a_while(true).await
}

/// The arbiter's answers, or none.
struct Perhaps(Reports, bool);

impl Claims for Perhaps {
    async fn known(&self, channel: ChannelId, outpoint: OutPoint) -> Result<Known, String> {
        if self.1 {
            Err("it is set aside".to_owned())
        } else {
            self.0.known(channel, outpoint).await
        }
    }
}

async fn nodes_after_a_while(is_deaf: bool) -> Result<(), Failed> {
    let mut world = cut_off(Kind::Anchors, Mode::Own).await?;
    world.signers_away.store(true, Ordering::SeqCst);
    let link = world.link;
    world.net.force_close(0, &link)?;
    let node = || &world.net.nodes[0];
    let (store, egress) = (Arc::new(MemoryKv::default()), node().egress.clone());
    let claims = Perhaps(Reports(world.arbiter.clone()), is_deaf);
    let events = LdkEvents::new(store, Told::default(), claims, egress);
    let hands = Hands::new(node(), world.coins());
    // Who has LDK's close, and who its claims of HTLCs, by blocks since LDK told of them first.
    let mut who: [Vec<Handled>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..12 {
        let node = &world.net.nodes[0];
        node.monitors.rebroadcast_pending_claims();
        node.collect_events();
        let mut now = [None, None];
        while let Some(event) = node.take_event(|event| Some(event.clone())) {
            if let Event::BumpTransaction(bump) = &event {
                let handled = events.handle(&event).await.map_err(|_| "not now")?;
                let which = matches!(bump, BumpTransactionEvent::HTLCResolution { .. });
                now[usize::from(which)] = Some(handled);
                if handled == Handled::Node {
                    hands.handle(node, &event);
                }
            }
        }
        for (all, now) in who.iter_mut().zip(now) {
            all.extend(now);
        }
        world.broadcast_of_ldk();
        world.mine(1).await?;
    }
    for all in &who {
        assert_eq!(all[..3], [Handled::Arbiter, Handled::Arbiter, Handled::Node], "{who:?}");
    }
    let report = world.arbiter.report(ChannelId(link.id.0)).await?.ok_or("no report")?;
    assert!(matches!(report.close, Some(CloseKind::Local(_))), "{:?}", report.close);
    let received = |output: &&arb_core::report::OutputReport| match output.role {
        Role::Htlc(id) => id.offerer == Side::Remote,
        _ => false,
    };
    let received = report.outputs.iter().find(received).ok_or("no HTLC")?;
    assert_eq!(received.spent_by, Some(Side::Local), "{received:?}");
    assert!(world.ours.is_empty());
    world.arbiter.shutdown().await;
    Ok(())
}

/// The arbiter owns a channel to its end: it has every output that LDK tells of, and sees to the
/// fees that LDK would have paid.
#[tokio::test(flavor = "multi_thread")]
async fn an_owned_channel_leaves_nothing_to_the_node() -> Result<(), Failed> {
    let mut world = cut_off(Kind::Anchors, Mode::Own).await?;
    let link = world.link;
    world.net.force_close(0, &link)?;
    world.settle().await?;
    let told = Told::default();
    let store = Arc::new(MemoryKv::default());
    let egress = world.net.nodes[0].egress.clone();
    let claims = Reports(world.arbiter.clone());
    let events = LdkEvents::new(store, told.clone(), claims, egress.clone());
    let (mut bumps, mut outputs) = (0, 0);
    for _ in 0..261 {
        world.net.nodes[0].collect_events();
        while let Some(event) = world.net.nodes[0].take_event(|event| Some(event.clone())) {
            let handled = events.handle(&event).await.map_err(|_| "not now")?;
            if matches!(event, Event::BumpTransaction(_)) {
                assert_eq!(handled, Handled::Arbiter);
                bumps += 1;
            } else if let Event::SpendableOutputs { outputs: told, .. } = &event {
                let is_paid = |of| matches!(of, &SpendableOutputDescriptor::StaticOutput { .. });
                let whose = if told.iter().all(is_paid) { Handled::Node } else { Handled::Arbiter };
                assert_eq!(handled, whose);
                outputs += told.len();
            }
        }
        world.mine(1).await?;
    }
    assert!(bumps >= 1 && outputs >= 3, "{bumps} bumps, {outputs} outputs");
    assert!(!told.closed.lock().unwrap().is_empty());
    assert_eq!(events.kept()?.len(), outputs);
    // The same outputs are the node's as soon as the arbiter only observes.
    egress.set(Mode::Observe);
    let event = spendable(vec![owed(9)]);
    assert!(matches!(events.handle(&event).await, Ok(Handled::Node)));
    world.arbiter.shutdown().await;
    Ok(())
}

/// Our balance on the peer's commitment is swept by the arbiter or left to the node, whatever the format is: where
/// it needs no claim it is at a key of LDK's, even if the destination is the wallet's.
async fn our_balance_is_somebodys(kind: Kind, revoked: bool) -> Result<(), Failed> {
    let (mut world, commitment) = if revoked {
        let (world, offered, received) = started(kind, Mode::Own).await?;
        let old = world.peer_monitor()?;
        world.net.claim(&offered);
        world.net.claim(&received);
        let commitment = world.peer_commitment(&old)?;
        (world, commitment)
    } else {
        let world = cut_off(kind, Mode::Own).await?;
        let commitment = world.peer_commitment(&world.peer_monitor()?)?;
        (world, commitment)
    };
    world.mine_these(std::slice::from_ref(&commitment)).await?;
    let (store, egress) = (Arc::new(MemoryKv::default()), world.net.nodes[0].egress.clone());
    let claims = Reports(world.arbiter.clone());
    let events = LdkEvents::new(store, Told::default(), claims, egress).paying_the_wallet();
    let mut whose = Vec::new();
    for _ in 0..20 {
        world.net.nodes[0].collect_events();
        while let Some(event) = world.net.nodes[0].take_event(|event| Some(event.clone())) {
            let Event::SpendableOutputs { outputs, .. } = &event else { continue };
            let handled = events.handle(&event).await.map_err(|_| "not now")?;
            let payments = outputs.iter().filter_map(|of| match of {
                SpendableOutputDescriptor::StaticPaymentOutput(of) => Some(of.outpoint),
                _ => None,
            });
            whose.extend(payments.map(|outpoint| (outpoint.into_bitcoin_outpoint(), handled)));
        }
        world.mine(1).await?;
    }
    let [(outpoint, handled)] = whose[..] else { panic!("{kind:?}: {whose:?}") };
    assert_eq!(outpoint.txid, commitment.compute_txid());
    let spent = world.net.chain.confirmed_spender(&outpoint).is_some();
    match kind {
        Kind::Anchors => assert_eq!((handled, spent), (Handled::Arbiter, true)),
        _ => assert_eq!((handled, spent), (Handled::Node, false), "{kind:?}"),
    }
    world.arbiter.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_balance_on_the_peers_commitment_is_somebodys() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        our_balance_is_somebodys(kind, false).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn our_balance_on_a_revoked_commitment_is_somebodys() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        our_balance_is_somebodys(kind, true).await?;
    }
    Ok(())
}

/// What the arbiter has not seen yet is told again; what it does not watch is the node's.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_arbiter_has_not_seen_is_told_again() -> Result<(), Failed> {
    let mut world = cut_off(Kind::Anchors, Mode::Observe).await?;
    let commitment = world.peer_commitment(&world.peer_monitor()?)?;
    world.mine_these(std::slice::from_ref(&commitment)).await?;
    world.mine(8).await?;
    world.net.nodes[0].collect_events();
    let outputs =
        |event: &Event| matches!(event, Event::SpendableOutputs { .. }).then(|| event.clone());
    let event = world.net.nodes[0].take_event(outputs).ok_or("no spendable outputs")?;
    world.arbiter.shutdown().await;
    let (events, told, _, _) = events(Mode::Own);
    assert!(events.handle(&event).await.is_err(), "it cannot be asked");
    for (known, handled) in [
        (Known::NotYet, None),
        (Known::NotWatched, Some(Handled::Node)),
        (Known::Yes, Some(Handled::Arbiter)),
    ] {
        *told.known.lock().unwrap() = Some(known);
        assert_eq!(events.handle(&event).await.ok(), handled, "{known:?}");
    }
    Ok(())
}
