//! The disk of a real store fills up: whoever watches the arbiter's alarms is told.
use arb_store::{LmdbLog, StoreConfig};
use arb_watcher::memory::{MemoryChain, MemoryCoins, MemoryFees, MemoryNetwork, MemorySigner};
use arb_watcher::{Arbiter, Ports, ScriptsPort, Settings, StoreAlarm};
use std::error::Error;

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_store_that_fills_up_is_an_alarm() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (low, critical) = (4 * MIB, MIB / 16);
    let config = StoreConfig { reserve: MIB, low, critical, ..StoreConfig::default() };
    let log = LmdbLog::open(folder.path(), config)?;
    let (control, chain) = (log.control(), MemoryChain::new());
    let ports = Ports {
        source: chain.clone(),
        broadcast: MemoryNetwork::new(),
        fees: MemoryFees::default(),
        signer: MemorySigner::new(),
        coins: MemoryCoins::new("01".repeat(32).parse()?, &[]),
        scripts: ScriptsPort::default(),
    };
    let arbiter = Arbiter::start(log, ports, Settings::default(), vec![]).await?;
    let mut alarms = arbiter.alarms();
    // What the store may occupy, emergency space included, and what is said of it.
    let story = [
        (None, None),
        (Some(3 * MIB), Some(StoreAlarm::Low)),
        (Some(0), Some(StoreAlarm::Emergency)),
        (Some(3 * MIB), Some(StoreAlarm::Low)),
        (None, None),
    ];
    for (quota, expected) in story {
        control.set_quota(quota)?;
        chain.mine(vec![]);
        arbiter.idle().await?;
        assert_eq!(alarms.borrow_and_update().store, expected, "{quota:?}");
    }
    arbiter.shutdown().await;
    Ok(())
}
