//! The LDK nodes that the adapter is tested with do what nodes do.
use super::Failed;
use arb_tests::ldk::{Kind, Net};
use bitcoin::Amount;
use lightning::events::Event;

const CAPACITY: Amount = Amount::from_sat(1_000_000);

/// Three nodes in a row; a payment through all of them, claimed, and one that is failed; then a
/// close from one side, until the closing node's money is its own.
fn pays_and_closes(kind: Kind) -> Result<(), Failed> {
    let mut net = Net::new(3, kind);
    let near = net.open(0, 1, CAPACITY, 400_000_000)?;
    let far = net.open(1, 2, CAPACITY, 400_000_000)?;
    let paid = net.send(0, &[near, far], 20_000_000, "paid")?;
    net.claim(&paid);
    let sent = |event: &Event| match event {
        Event::PaymentSent { payment_preimage, .. } => Some(*payment_preimage),
        _ => None,
    };
    assert_eq!(net.nodes[0].take_event(sent), Some(paid.preimage));
    let failed = net.send(0, &[near, far], 20_000_000, "failed")?;
    net.fail(&failed);
    let refused = |event: &Event| matches!(event, Event::PaymentFailed { .. }).then_some(());
    assert_eq!(net.nodes[0].take_event(refused), Some(()));

    net.force_close(0, &near)?;
    let closing = match kind {
        Kind::StaticRemotekey => net.nodes[0].outbox.take().concat(),
        Kind::Anchors | Kind::ZeroFee => {
            let bumped = |event: &Event| match event {
                Event::BumpTransaction(
                    lightning::events::bump_transaction::BumpTransactionEvent::ChannelClose {
                        commitment_tx,
                        ..
                    },
                ) => Some(commitment_tx.clone()),
                _ => None,
            };
            vec![net.nodes[0].take_event(bumped).ok_or("no close")?]
        }
    };
    net.chain.mine_transactions(&closing)?;
    net.show(net.chain.height());
    net.mine(150)?;
    let spendable = |event: &Event| matches!(event, Event::SpendableOutputs { .. }).then_some(());
    assert_eq!(net.nodes[0].take_event(spendable), Some(()), "the closing node");
    assert_eq!(net.nodes[1].take_event(spendable), Some(()), "its peer");
    assert!(net.nodes[0].monitors.get_claimable_balances(&[]).is_empty());
    Ok(())
}

#[test]
fn nodes_with_static_remotekey_channels() -> Result<(), Failed> {
    pays_and_closes(Kind::StaticRemotekey)
}

#[test]
fn nodes_with_anchor_channels() -> Result<(), Failed> {
    pays_and_closes(Kind::Anchors)
}

#[test]
fn nodes_with_zero_fee_channels() -> Result<(), Failed> {
    pays_and_closes(Kind::ZeroFee)
}

#[test]
fn a_cut_connection_comes_back() -> Result<(), Failed> {
    let mut net = Net::new(2, Kind::Anchors);
    let link = net.open(0, 1, CAPACITY, 400_000_000)?;
    net.cut(0, 1);
    assert!(net.start(0, &[link], 1_000_000, "early", 1).is_ok());
    net.pump();
    net.reconnect(0, 1);
    let paid = net.send(0, &[link], 1_000_000, "late")?;
    net.claim(&paid);
    let sent = |event: &Event| matches!(event, Event::PaymentSent { .. }).then_some(());
    assert_eq!(net.nodes[0].take_event(sent), Some(()));
    Ok(())
}
