//! What is remembered of channels that come to nothing: little, whatever a peer says.
use super::rig::Rig;
use super::{CAPACITY, Failed};
use arb_tests::ldk::{Kind, Net};
use bitcoin::Txid;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use lightning::ln::msgs::{
    BaseMessageHandler, ChannelMessageHandler, FundingCreated, MessageSendEvent, OpenChannel,
};
use lightning::ln::types::ChannelId;

fn remembered(net: &Net) -> usize {
    format!("{:?}", net.nodes[0].taps).len()
}

fn open_channel(net: &Net) -> Result<OpenChannel, Failed> {
    let to = net.nodes[0].id();
    let begun = net.nodes[1].manager.create_channel(to, 1_000_000, 0, 1, None, None);
    begun.map_err(|_| "not begun")?;
    let events = net.nodes[1].messages.get_and_clear_pending_msg_events();
    let mut messages = events.into_iter().filter_map(|event| match event {
        MessageSendEvent::SendOpenChannel { msg, .. } => Some(msg),
        _ => None,
    });
    messages.next().ok_or_else(|| "no message".into())
}

/// LDK refuses all but the first few of them; the peer names funding outputs all the same.
#[test]
fn what_a_peer_opens_in_vain_is_forgotten() -> Result<(), Failed> {
    let net = Net::new(2, Kind::Anchors);
    let (mut msg, peer) = (open_channel(&net)?, net.nodes[1].id());
    let before = remembered(&net);
    for n in 0..2_000u32 {
        let temporary = &mut msg.common_fields.temporary_channel_id;
        temporary.0[..4].copy_from_slice(&n.to_be_bytes());
        net.nodes[0].messages.handle_open_channel(peer, &msg);
        let funding = FundingCreated {
            temporary_channel_id: msg.common_fields.temporary_channel_id,
            funding_txid: Txid::from_byte_array([7; 32]),
            funding_output_index: u16::try_from(n)?,
            signature: Signature::from_compact(&[1; 64])?,
        };
        net.nodes[0].messages.handle_funding_created(peer, &funding);
        assert!(remembered(&net) < before + 64 * 500, "{n}: {}", remembered(&net));
    }
    net.nodes[0].messages.get_and_clear_pending_msg_events();
    assert!(remembered(&net) < before + 4 * 500, "{}", remembered(&net));
    net.nodes[0].messages.peer_disconnected(peer);
    assert!(remembered(&net) <= before, "{}", remembered(&net));
    Ok(())
}

/// What LDK refused costs no channel that it accepts afterwards, and neither does a peer's noise.
#[test]
fn a_channel_after_many_that_failed_is_seen_from_its_beginning() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let (mut msg, peer) = (open_channel(&rig.net)?, rig.net.nodes[1].id());
    for n in 0..200u8 {
        msg.common_fields.temporary_channel_id = ChannelId([n; 32]);
        rig.net.nodes[0].messages.handle_open_channel(peer, &msg);
    }
    rig.net.nodes[0].messages.get_and_clear_pending_msg_events();
    let channel = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    rig.check(&channel)
}
