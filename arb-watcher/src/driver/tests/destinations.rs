//! Where claims pay to: a script from a port for each channel, kept over restarts; or one that the
//! facts name.
use super::support::*;
use crate::{Arbiter, CommandError, Ports, Reuse, Settings};
use arb_core::facts::ChannelFacts;
use arb_core::format::CommitmentFormat::Anchors;
use arb_core::ids::ChannelId;
use arb_core::ports::Destinations;
use bitcoin::{ScriptBuf, Transaction, WPubkeyHash};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// A wallet that hands out one script after another, up to a last one, unless it is locked.
#[derive(Clone)]
struct Addresses {
    asked: Arc<AtomicU8>,
    last: u8,
    locked: Arc<AtomicBool>,
}

impl Addresses {
    fn up_to(last: u8) -> Self {
        Self { asked: Arc::default(), last, locked: Arc::default() }
    }

    fn lock(&self, locked: bool) {
        self.locked.store(locked, Ordering::SeqCst);
    }

    fn asked(&self) -> u8 {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Destinations for Addresses {
    type Error = std::io::Error;

    async fn fresh(&self, _: ChannelId) -> Result<ScriptBuf, Self::Error> {
        if self.locked.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the wallet is locked"));
        }
        let asked = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(address(asked.min(self.last)))
    }
}

fn address(number: u8) -> ScriptBuf {
    use bitcoin::hashes::Hash;
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([number; 20]))
}

async fn start(world: &World, addresses: &Addresses, reuse: Reuse) -> Arbiter {
    let ports = world.ports();
    let scripts = ports.scripts.clone().paying_to(addresses.clone(), reuse);
    let ports = Ports { scripts, ..ports };
    let started = Arbiter::start(world.log.clone(), ports, Settings::default(), vec![]).await;
    started.expect("the log is sound")
}

fn without(channel: &Channel) -> ChannelFacts {
    ChannelFacts { destination: ScriptBuf::new(), ..channel.facts.clone() }
}

/// The peer closes, and our balance goes home.
async fn swept(world: &World, arbiter: &Arbiter, channel: &Channel) -> BTreeSet<ScriptBuf> {
    let close = channel.remote_tx(0, &[]);
    let txid = close.compute_txid();
    world.chain.mine(vec![close]);
    arbiter.idle().await.expect("running");
    world.pass(arbiter, 1).await;
    let sent: Vec<Transaction> = world.net.sent().into_iter().flatten().collect();
    let sweeps = sent.iter().filter(|tx| tx.input.iter().any(|i| i.previous_output.txid == txid));
    sweeps.flat_map(|tx| &tx.output).map(|output| output.script_pubkey.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn each_channel_has_a_script_of_its_own_and_keeps_it() {
    let (world, addresses) = (World::default(), Addresses::up_to(9));
    let (one, two) = (Channel::new(1, Anchors), Channel::new(2, Anchors));
    let arbiter = start(&world, &addresses, Reuse::Never).await;
    for channel in [&one, &two, &one] {
        arbiter.watch_channel(without(channel)).await.expect("a script is to be had");
    }
    assert_eq!(addresses.asked(), 2, "watched again, a channel has its script");
    arbiter.shutdown().await;

    let arbiter = start(&world, &addresses, Reuse::Never).await;
    for channel in [&two, &one] {
        arbiter.watch_channel(without(channel)).await.expect("the same facts");
    }
    assert_eq!(addresses.asked(), 2, "a restart asks for no other");
    assert_eq!(swept(&world, &arbiter, &two).await, BTreeSet::from([address(2)]));
    assert_eq!(swept(&world, &arbiter, &one).await, BTreeSet::from([address(1)]));
}

#[tokio::test(start_paused = true)]
async fn a_script_is_handed_out_twice_only_if_that_is_allowed() {
    let (one, two) = (Channel::new(1, Anchors), Channel::new(2, Anchors));
    for reuse in [Reuse::Never, Reuse::Allowed] {
        let (world, addresses) = (World::default(), Addresses::up_to(1));
        let arbiter = start(&world, &addresses, reuse).await;
        arbiter.watch_channel(without(&one)).await.expect("a script is to be had");
        let second = arbiter.watch_channel(without(&two)).await;
        match reuse {
            Reuse::Allowed => assert_eq!(second, Ok(())),
            Reuse::Never => {
                let refused = matches!(&second, Err(CommandError::DestinationMissing { id, .. }) if *id == two.id());
                assert!(refused, "{second:?}");
                assert_eq!(arbiter.report(two.id()).await.expect("running"), None);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_the_facts_name_is_paid_and_nobody_is_asked() {
    let (world, addresses) = (World::default(), Addresses::up_to(9));
    let channel = Channel::new(1, Anchors);
    let arbiter = start(&world, &addresses, Reuse::Never).await;
    let facts = ChannelFacts { destination: address(77), ..channel.facts.clone() };
    arbiter.watch_channel(facts).await.expect("sound facts");
    assert_eq!(addresses.asked(), 0);
    assert_eq!(swept(&world, &arbiter, &channel).await, BTreeSet::from([address(77)]));

    // Without a port, facts without a destination are refused.
    let world = World::default();
    let arbiter = world.start().await;
    let refused = arbiter.watch_channel(without(&channel)).await;
    assert!(matches!(refused, Err(CommandError::DestinationMissing { .. })), "{refused:?}");
}

/// Whatever becomes of the wallet later, a channel has its script since it is watched. While the
/// wallet gives none the node hears of it, and may ask again.
// incident electrum-10580
#[tokio::test(start_paused = true)]
async fn a_wallet_that_is_locked_stops_no_sweep() {
    let (world, addresses) = (World::default(), Addresses::up_to(9));
    let (one, two) = (Channel::new(1, Anchors), Channel::new(2, Anchors));
    let arbiter = start(&world, &addresses, Reuse::Never).await;
    arbiter.watch_channel(without(&one)).await.expect("a script is to be had");
    addresses.lock(true);
    let refused = arbiter.watch_channel(without(&two)).await;
    let Err(CommandError::DestinationMissing { id, why }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((id, why.contains("the wallet is locked")), (two.id(), true), "{why}");
    assert_eq!(swept(&world, &arbiter, &one).await, BTreeSet::from([address(1)]));
    addresses.lock(false);
    arbiter.watch_channel(without(&two)).await.expect("a script is to be had");
    assert_eq!(swept(&world, &arbiter, &two).await, BTreeSet::from([address(2)]));
}
