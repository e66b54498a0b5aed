//! Splices are not translated: none begins.
use super::{Failed, id, three};
use arb_tests::ldk::Kind;
use bitcoin::{Amount, ScriptBuf, TxOut};
use lightning::ln::funding::SpliceContribution;
use lightning::ln::msgs::{BaseMessageHandler, ChannelMessageHandler, SpliceInit};
use lightning::util::errors::APIError;

/// LDK itself refuses to begin one, with a reason, and the channel goes on.
#[test]
fn ldk_says_that_there_are_no_splices() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::Anchors)?;
    let output =
        TxOut { value: Amount::from_sat(20_000), script_pubkey: ScriptBuf::new_op_return([]) };
    for (node, peer) in [(0, 1), (1, 0)] {
        let to = rig.net.nodes[peer].id();
        let contribution = SpliceContribution::SpliceOut { outputs: vec![output.clone()] };
        let manager = &rig.net.nodes[node].manager;
        let answer = manager.splice_channel(&near.id, &to, contribution, 253, None);
        let Err(APIError::ChannelUnavailable { err }) = answer else {
            return Err(format!("{answer:?}").into());
        };
        assert!(err.contains("splicing"), "{err}");
    }
    let payment = rig.net.send(0, &[near], 5_000_000, "goes on")?;
    rig.net.claim(&payment);
    rig.check(&near)
}

/// A peer that asks for one all the same gets no answer.
#[test]
fn a_peer_that_wants_to_splice_is_not_heard() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::Anchors)?;
    let peer = rig.net.nodes[0].id();
    let ours = &rig.net.nodes[1].messages;
    assert!(!ours.provided_init_features(peer).supports_splicing());
    let wish = SpliceInit {
        channel_id: near.id,
        funding_contribution_satoshis: 50_000,
        funding_feerate_per_kw: 1_000,
        locktime: 0,
        funding_pubkey: peer,
        require_confirmed_inputs: None,
    };
    ours.handle_splice_init(peer, &wish);
    assert!(ours.get_and_clear_pending_msg_events().is_empty());
    let payment = rig.net.send(0, &[near], 5_000_000, "goes on")?;
    rig.net.claim(&payment);
    assert_eq!(id(&near).0, near.id.0);
    rig.check(&near)
}
