//! A channel that is held, since the arbiter cannot follow LDK: what helps to claim is told all the same.
use super::Failed;
use arb_node_adapter::{HeldFor, Mode};
use arb_tests::ldk::{Beside, Kind, Link, Net};
use bitcoin::{Amount, OutPoint};

const RECEIVED_SAT: u64 = 30_000;

/// A received HTLC whose preimage becomes known while the channel is held: it is taken on chain.
#[tokio::test(flavor = "multi_thread")]
async fn a_preimage_of_a_held_channel_is_told() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let mut received = None;
        let mut past = |net: &mut Net, link: &Link| -> Result<(), Failed> {
            received = Some(net.send(1, &[*link], RECEIVED_SAT * 1_000, "received")?);
            Ok(())
        };
        // The peer's dust limit is another than was said: the next small HTLC shows it.
        let dust = Amount::from_sat(10_000);
        let mut world = Beside::adopting_at(dust, kind, Mode::Own, &mut past).await?;
        let (received, link) = (received.ok_or("not sent")?, world.link);
        world.may_hold();
        let commitment = world.peer_commitment(&world.peer_monitor()?)?;
        world.net.start(1, &[link], 5_000_000, "small", 1)?;
        world.net.pump();
        assert!(
            matches!(world.held().as_slice(), [HeldFor::Untranslated(_)]),
            "{:?}",
            world.held()
        );
        world.net.cut(0, 1);
        world.net.claim(&received);
        world.mine_these(std::slice::from_ref(&commitment)).await?;
        world.mine(2).await?;
        let is_it = |(_, output): &(u32, &bitcoin::TxOut)| output.value.to_sat() == RECEIVED_SAT;
        let vout = (0..).zip(&commitment.output).find(is_it).ok_or("no such HTLC")?.0;
        let htlc = OutPoint { txid: commitment.compute_txid(), vout };
        let spender =
            world.net.chain.confirmed_spender(&htlc).ok_or(format!("{kind:?}: unspent"))?;
        assert!(world.ours.contains_key(&spender.compute_txid()), "{kind:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}
