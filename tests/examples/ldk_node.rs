//! An arbiter beside an LDK node: a channel with an HTLC in each direction is closed in three ways,
//! by either one's transactions; printed is how LDK and how the arbiter see it.
//!
//! `cargo run -p arb-tests --example ldk_node`
use arb_core::ids::ChannelId;
use arb_core::report::OutputReport;
use arb_node_adapter::Mode;
use arb_tests::ldk::{Beside, Failed, Kind, cut_off, started};
use lightning::chain::channelmonitor::Balance;

/// How the channel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    ByUs,
    ByThePeer,
    Revoked,
}

/// Enough for the HTLCs to expire and for every delay.
const BLOCKS: u32 = 280;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors] {
        for mode in [Mode::Observe, Mode::Own] {
            for close in [Close::ByUs, Close::ByThePeer, Close::Revoked] {
                // Our anchor commitment is published by whoever handles LDK's `BumpTransaction`
                // events. Nobody does here, but for the arbiter.
                if (kind, mode, close) != (Kind::Anchors, Mode::Observe, Close::ByUs) {
                    tell(kind, mode, close).await?;
                }
            }
        }
    }
    Ok(())
}

async fn tell(kind: Kind, mode: Mode, close: Close) -> Result<(), Failed> {
    println!("\n{kind:?}, closed {close:?}, mode {mode:?}");
    let mut world = close_it(kind, mode, close).await?;
    views(&world, "after the close").await?;
    for _ in 0..BLOCKS {
        world.broadcast_of_ldk();
        world.mine(1).await?;
    }
    views(&world, "at the end").await?;
    let left = world.net.nodes[0].monitors.get_claimable_balances(&[]);
    println!("  ours: {} transactions of the arbiter", world.ours.len());
    world.arbiter.shutdown().await;
    if left.is_empty() { Ok(()) } else { Err(format!("LDK still waits for {left:?}").into()) }
}

/// The channel up to the block that closes it.
async fn close_it(kind: Kind, mode: Mode, close: Close) -> Result<Beside, Failed> {
    match close {
        Close::ByUs => {
            let mut world = cut_off(kind, mode).await?;
            let link = world.link;
            world.net.force_close(0, &link)?;
            world.settle().await?;
            world.broadcast_of_ldk();
            world.mine(1).await?;
            Ok(world)
        }
        Close::ByThePeer => {
            let mut world = cut_off(kind, mode).await?;
            let commitment = world.peer_commitment(&world.peer_monitor()?)?;
            world.mine_these(std::slice::from_ref(&commitment)).await?;
            Ok(world)
        }
        Close::Revoked => {
            let (mut world, offered, received) = started(kind, mode).await?;
            let old = world.peer_monitor()?;
            world.net.claim(&offered);
            world.net.claim(&received);
            let revoked = world.peer_commitment(&old)?;
            world.mine_these(std::slice::from_ref(&revoked)).await?;
            Ok(world)
        }
    }
}

async fn views(world: &Beside, when: &str) -> Result<(), Failed> {
    let id = ChannelId(world.link.id.0);
    let ldk = world.net.nodes[0].monitors.get_claimable_balances(&[]);
    let mut ldk: Vec<String> = ldk.iter().map(balance).collect();
    let report = world.arbiter.report(id).await?;
    let mut ours: Vec<String> =
        report.iter().flat_map(|report| &report.outputs).map(output).collect();
    let rows = ldk.len().max(ours.len());
    ldk.resize(rows, String::new());
    ours.resize(rows, String::new());
    let closed = report.and_then(|report| report.close);
    println!("  {when}, height {}: {closed:?}", world.net.chain.height());
    println!("    {:<52} | arbiter", "LDK");
    for (ldk, ours) in ldk.iter().zip(&ours) {
        println!("    {ldk:<52} | {ours}");
    }
    Ok(())
}

fn balance(balance: &Balance) -> String {
    let name = format!("{balance:?}");
    let name = name.split([' ', '{']).next().unwrap_or_default();
    format!("{:>7} sat {name}", balance.claimable_amount_satoshis())
}

fn output(output: &OutputReport) -> String {
    let by = output.spent_by.map(|side| format!(" by {side:?}")).unwrap_or_default();
    let sat = output.amount.to_sat();
    format!("{sat:>7} sat {:?}: {:?}{by}", output.role, output.state)
}
