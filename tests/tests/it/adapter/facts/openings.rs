//! What is remembered of channels that come to nothing: little, whatever a peer says.
use super::rig::Rig;
use super::{CAPACITY, Failed};
use arb_tests::ldk::{Kind, Net, Opening};
use bitcoin::Txid;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use lightning::events::Event;
use lightning::ln::msgs::{
    BaseMessageHandler, ChannelMessageHandler, ErrorMessage, FundingCreated, MessageSendEvent,
    OpenChannel,
};
use lightning::ln::types::ChannelId;

fn remembered(net: &Net) -> usize {
    format!("{:?}", net.nodes[0].taps).len()
}

fn open_channel(net: &Net) -> Result<OpenChannel, Failed> {
    open_channel_pushing(net, 0)
}

fn open_channel_pushing(net: &Net, push_msat: u64) -> Result<OpenChannel, Failed> {
    let to = net.nodes[0].id();
    let begun = net.nodes[1].manager.create_channel(to, 1_000_000, push_msat, 1, None, None);
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
    // LDK's refusals; and then nothing of them waits any more.
    for _ in 0..2 {
        net.nodes[0].messages.get_and_clear_pending_msg_events();
    }
    assert!(remembered(&net) < before + 4 * 500, "{}", remembered(&net));
    net.nodes[0].messages.peer_disconnected(peer);
    net.nodes[0].messages.get_and_clear_pending_msg_events();
    // But for how often messages were fetched.
    assert!(remembered(&net) <= before + 8, "{}", remembered(&net));
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

/// What one side says while a channel is opened: who (the node's place), and when.
type Says<'a> = &'a dyn Fn(&Net, Opening, ChannelId) -> Result<(), Failed>;

/// Node 1 opens a channel to node 0, and something else is said meanwhile. Both see it from its beginning.
fn opened_while(says: Says<'_>) -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let mut said = Ok(());
    let link = rig.net.open_while(1, 0, (CAPACITY, 400_000_000), &mut |net, now, temporary| {
        if said.is_ok() {
            said = says(net, now, temporary);
        }
    })?;
    said?;
    rig.check(&link)?;
    // Between all dust limits that are heard of.
    for payer in [0, 1] {
        let payment = rig.net.send(payer, &[link], 700_000, &format!("of {payer}"))?;
        rig.check(&link)?;
        rig.net.claim(&payment);
        rig.check(&link)?;
    }
    Ok(())
}

fn error(net: &Net, from: usize, channel_id: ChannelId, data: &str) {
    let message = ErrorMessage { channel_id, data: data.to_owned() };
    net.nodes[1 - from].messages.handle_error(net.nodes[from].id(), &message);
}

fn funding_created(temporary: ChannelId) -> Result<FundingCreated, Failed> {
    Ok(FundingCreated {
        temporary_channel_id: temporary,
        funding_txid: Txid::from_byte_array([7; 32]),
        funding_output_index: 0,
        signature: Signature::from_compact(&[1; 64])?,
    })
}

/// LDK closes nothing for these words of a peer's, whichever side opened.
#[test]
fn an_error_that_ldk_ignores_costs_no_channel() -> Result<(), Failed> {
    for from in [0, 1] {
        opened_while(&|net, now, temporary| {
            if matches!(now, Opening::Asked | Opening::Accepted) {
                error(net, from, temporary, "link failed to shutdown");
                error(net, from, ChannelId([0; 32]), "link failed to shutdown");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Once LDK has the funding transaction it knows the channel by another id.
#[test]
fn an_error_under_the_former_id_costs_no_channel() -> Result<(), Failed> {
    for when in [Opening::Funding, Opening::Funded] {
        opened_while(&|net, now, temporary| {
            if now == when {
                error(net, 0, temporary, "no");
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// LDK refuses the second request of one id, and goes on with the first, whose dust limit counts.
#[test]
fn a_second_request_changes_nothing() -> Result<(), Failed> {
    for (dust, when) in [(354, Opening::Asked), (1_000, Opening::Asked), (1_000, Opening::Accepted)]
    {
        let other = open_channel(&Net::new(2, Kind::Anchors))?;
        opened_while(&|net, now, temporary| {
            if now == when {
                let mut msg = other.clone();
                msg.common_fields.temporary_channel_id = temporary;
                msg.common_fields.dust_limit_satoshis = dust;
                net.nodes[0].messages.handle_open_channel(net.nodes[1].id(), &msg);
                // What LDK answers, if it hears of it, is lost.
                net.nodes[0].messages.get_and_clear_pending_msg_events();
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A peer that funds a channel before it has an answer to its request, or one that is not its own to fund.
#[test]
fn funding_in_vain_costs_no_channel() -> Result<(), Failed> {
    opened_while(&|net, now, temporary| {
        let message = funding_created(temporary)?;
        match now {
            Opening::Asked => {
                net.nodes[0].messages.handle_funding_created(net.nodes[1].id(), &message);
                net.nodes[0].messages.get_and_clear_pending_msg_events();
            }
            Opening::Funded => {
                net.nodes[1].messages.handle_funding_created(net.nodes[0].id(), &message);
            }
            Opening::Accepted | Opening::Funding => {}
        }
        Ok(())
    })
}

/// Whether node 0 is asked for a channel.
fn is_asked(net: &Net) -> bool {
    net.nodes[0].collect_events();
    let asked = |event: &Event| matches!(event, Event::OpenChannelRequest { .. }).then_some(());
    net.nodes[0].take_event(asked).is_some()
}

fn refuse(net: &Net, temporary: ChannelId) -> Result<(), Failed> {
    let (peer, why) = (net.nodes[1].id(), "refused".to_owned());
    let refused = net.nodes[0].manager.force_close_broadcasting_latest_txn(&temporary, &peer, why);
    refused.map_err(|_| "not refused".into())
}

/// LDK says late that it refused a request. The peer has ended that one meanwhile, and asked again under the same id: the
/// word is not taken for one on the new request.
#[test]
fn a_late_refusal_costs_no_other_channel() -> Result<(), Failed> {
    let msg = open_channel_pushing(&Net::new(2, Kind::Anchors), 400_000_000)?;
    opened_while(&|net, now, temporary| {
        if now != Opening::Asked {
            return Ok(());
        }
        assert_eq!(msg.common_fields.temporary_channel_id, temporary);
        let (node, peer) = (&net.nodes[0].messages, net.nodes[1].id());
        refuse(net, temporary)?;
        error(net, 1, temporary, "no");
        node.handle_open_channel(peer, &msg);
        let heard = is_asked(net);
        node.get_and_clear_pending_msg_events();
        if !heard {
            node.handle_open_channel(peer, &msg);
            assert!(is_asked(net));
        }
        Ok(())
    })
}

/// The same where the word is fetched while the peer asks: what is said of the first one may come in two parts.
#[test]
fn a_refusal_in_two_parts_costs_no_other_channel() -> Result<(), Failed> {
    let msg = open_channel_pushing(&Net::new(2, Kind::Anchors), 400_000_000)?;
    opened_while(&|net, now, temporary| {
        if now != Opening::Asked {
            return Ok(());
        }
        let (node, peer) = (&net.nodes[0].messages, net.nodes[1].id());
        refuse(net, temporary)?;
        node.get_and_clear_pending_msg_events();
        node.handle_open_channel(peer, &msg);
        assert!(!is_asked(net), "LDK is not asked before its messages are fetched once more");
        node.get_and_clear_pending_msg_events();
        node.handle_open_channel(peer, &msg);
        assert!(is_asked(net));
        Ok(())
    })
}

/// What LDK has dropped is forgotten: the peer may ask again under the same id, once LDK can have nothing more to say of
/// it.
#[test]
fn a_request_may_be_made_again_after_an_error() -> Result<(), Failed> {
    let net = Net::new(2, Kind::Anchors);
    let (msg, peer) = (open_channel(&net)?, net.nodes[1].id());
    let temporary = msg.common_fields.temporary_channel_id;
    let asked = || {
        net.nodes[0].messages.handle_open_channel(peer, &msg);
        is_asked(&net)
    };
    let fetch = || drop(net.nodes[0].messages.get_and_clear_pending_msg_events());
    assert!(asked());
    error(&net, 1, temporary, "no");
    assert!(!asked());
    fetch();
    assert!(asked(), "its own error ended the first");
    error(&net, 1, ChannelId([0; 32]), "no");
    fetch();
    assert!(asked(), "and so did one for all of them");
    refuse(&net, temporary)?;
    fetch();
    fetch();
    assert!(asked(), "LDK said that it ended the one before");
    Ok(())
}

/// What waits to be asked for again counts as well: its number is bounded, and it is forgotten.
#[test]
fn errors_without_end_leave_nothing() -> Result<(), Failed> {
    let net = Net::new(2, Kind::Anchors);
    let (mut msg, peer) = (open_channel(&net)?, net.nodes[1].id());
    let before = remembered(&net);
    for n in 0..2_000u32 {
        let temporary = &mut msg.common_fields.temporary_channel_id;
        temporary.0[..4].copy_from_slice(&n.to_be_bytes());
        let temporary = *temporary;
        net.nodes[0].messages.handle_open_channel(peer, &msg);
        error(&net, 1, temporary, "no");
        assert!(remembered(&net) < before + 64 * 700, "{n}: {}", remembered(&net));
    }
    net.nodes[0].messages.get_and_clear_pending_msg_events();
    assert!(remembered(&net) <= before + 8, "{}", remembered(&net));
    Ok(())
}
