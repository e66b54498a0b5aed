//! The golden report: whoever reads reports by machine relies on every name in it.
use super::*;
use crate::arbitrator::{OutputState, TxKind};
use crate::classify::FundingSpend;
use crate::facts::{ChannelNames, Link};
use crate::height::Reason;
use crate::ids::{ChannelId, ShortChannelId, Side};
use crate::report::{Payer, Taker};
use crate::units::CommitmentNumber;
use bitcoin::hashes::Hash;
use bitcoin::{Txid, Weight};
use std::string::String;
use std::{vec, vec::Vec};

fn txid(seed: u8) -> Txid {
    Txid::from_byte_array([seed; 32])
}

fn outpoint(seed: u8) -> OutPoint {
    OutPoint { txid: txid(seed), vout: u32::from(seed) }
}

fn due(reason: Reason) -> Due {
    Due { tip: BlockHeight(799_999), until: BlockHeight(800_000), reason }
}

fn feerate(sat_per_kwu: u64) -> Option<FeeRate> {
    Some(FeeRate::from_sat_per_kwu(sat_per_kwu))
}

fn htlc(id: u64) -> HtlcId {
    HtlcId { offerer: Side::Remote, id }
}

fn output() -> OutputReport {
    OutputReport {
        outpoint: outpoint(2),
        role: Role::Htlc(htlc(4)),
        amount: Amount::from_sat(40_000),
        state: OutputState::Claiming,
        waits: Some(due(Reason::Confirmation)),
        deadline: Some(BlockHeight(800_040)),
        rival: Some(Rival { who: Taker::Peer, from: due(Reason::Cltv) }),
        payer: Some(Payer::Wallet),
        withheld: false,
        spent_by: None,
        spender: None,
        spent_at: None,
        fees: Amount::from_sat(0),
        pending_fee: Some(Amount::from_sat(900)),
        set_aside: None,
        bumps: 2,
        unconfirmed: Some(txid(3)),
        feerate: feerate(1_250),
        package_feerate: None,
    }
}

fn spent() -> OutputReport {
    OutputReport {
        outpoint: outpoint(5),
        role: Role::SecondStage(None),
        state: OutputState::Claimed,
        waits: Some(due(Reason::Depth)),
        deadline: None,
        rival: None,
        payer: Some(Payer::Output),
        spent_by: Some(Side::Local),
        spender: Some(txid(6)),
        spent_at: Some(BlockHeight(799_990)),
        fees: Amount::from_sat(321),
        pending_fee: None,
        unconfirmed: None,
        feerate: None,
        ..output()
    }
}

fn report() -> ChannelReport {
    ChannelReport {
        id: ChannelId([0xab; 32]),
        names: ChannelNames {
            short_channel_id: Some(ShortChannelId(800_000 << 40 | 1 << 16)),
            aliases: vec![ShortChannelId(16_000_000 << 40 | 7)],
        },
        link: Some(Link::Down),
        tip: BlockHeight(799_995),
        phase: Phase::Closed(FundingSpend::RevokedCommitment(CommitmentNumber(7))),
        close: Some(CloseKind::Revoked(CommitmentNumber(7))),
        capacity: Amount::from_sat(1_000_000),
        balance: Amount::from_sat(600_000),
        closing: None,
        outputs: vec![output(), spent()],
        upstream: vec![(HtlcId { offerer: Side::Local, id: 9 }, UpstreamVerdict::Fulfilled)],
        events: vec![
            ChannelEvent::EarlyMutual,
            ChannelEvent::Reorged,
            ChannelEvent::Closed(CloseKind::Revoked(CommitmentNumber(7))),
        ],
        alerts: vec![
            Alert::OutputLost(outpoint(8)),
            Alert::PreimageAfterFail(htlc(1)),
            Alert::SignerFailing,
        ],
        received: Amount::from_sat(100),
        fees: Amount::from_sat(321),
        deducted_fees: Amount::from_sat(21),
        pending_fees: Amount::from_sat(900),
        transactions: vec![TransactionReport {
            txid: txid(3),
            kind: TxKind::Penalty,
            fee: Amount::from_sat(900),
            own_fee: Amount::from_sat(900),
            weight: Weight::from_wu(720),
            inputs: 1,
            claims: vec![outpoint(2)],
            confirmed: None,
        }],
        next: Some(due(Reason::Csv)),
    }
}

fn failing() -> ChannelReport {
    let closing = ClosingReport {
        number: CommitmentNumber(12),
        reason: FailReason::OfferedDeadline(HtlcId { offerer: Side::Local, id: 9 }),
        commitment: Some(txid(10)),
        fee: Amount::from_sat(300),
        feerate: feerate(253),
        child: Some(txid(11)),
        child_fee: Amount::from_sat(2_000),
        bumps: 1,
        package_feerate: feerate(1_500),
        payer: Some(Payer::Wallet),
        deadline: Some(BlockHeight(800_100)),
        value_at_risk: Amount::from_sat(40_000),
    };
    ChannelReport {
        names: ChannelNames::default(),
        link: None,
        phase: Phase::Failing,
        close: None,
        closing: Some(closing),
        outputs: Vec::new(),
        upstream: Vec::new(),
        events: Vec::new(),
        alerts: Vec::new(),
        received: Amount::ZERO,
        fees: Amount::ZERO,
        deducted_fees: Amount::ZERO,
        transactions: Vec::new(),
        next: None,
        ..report()
    }
}

#[test]
fn golden() {
    let mut all = AllReports {
        tip: BlockHeight(799_995),
        quarantined: vec![ChannelId([0xcd; 32])],
        channels: vec![report(), failing()],
        ..AllReports::default()
    };
    all.phases.open = 1_000_000;
    all.channels.iter().for_each(|report| all.phases.count(&report.phase));
    let written = serde_json::to_string_pretty(&all).expect("memory does not fail");
    let golden: String = include_str!("golden.json").trim_end().into();
    assert_eq!(written, golden, "\n{written}");
}

#[test]
fn what_a_close_would_cost() {
    let cost = ClosingCost {
        feerate: FeeRate::from_sat_per_kwu(2_500),
        transactions: vec![PlannedTransaction {
            kind: TxKind::HtlcTimeout,
            inputs: 1,
            weight: Weight::from_wu(1_000),
            fee: Amount::from_sat(2_500),
            payer: Payer::Wallet,
            at: BlockHeight(800_040),
        }],
        fees: Amount::from_sat(2_500),
        wallet: Amount::from_sat(2_400),
        weight: Weight::from_wu(1_000),
        value: Amount::from_sat(70_000),
        left: Amount::from_sat(300),
        uncertain: Amount::from_sat(5_000),
        home_at: Some(BlockHeight(800_041)),
    };
    let json = serde_json::to_value(&cost).expect("memory does not fail");
    let expected = serde_json::json!({
        "feerate_per_kwu": 2_500,
        "transactions": [{
            "kind": "htlc_timeout",
            "inputs": 1,
            "weight": 1_000,
            "fee": 2_500,
            "payer": "wallet",
            "at": 800_040,
        }],
        "fees": 2_500,
        "wallet": 2_400,
        "weight": 1_000,
        "value": 70_000,
        "left": 300,
        "uncertain": 5_000,
        "home_at": 800_041,
    });
    assert_eq!(json, expected);
}

#[test]
fn every_role_and_alert_is_an_object_with_a_kind() {
    let number = CommitmentNumber(3);
    let alerts = [
        Alert::UnknownSpend(txid(1)),
        Alert::DataLoss(txid(1)),
        Alert::OutdatedLocalCommitment(txid(1)),
        Alert::OutputLost(outpoint(1)),
        Alert::PreimageAfterFail(htlc(1)),
        Alert::OutdatedFacts,
        Alert::Quarantined,
        Alert::SignerFailing,
        Alert::PenaltyDataUnreadable(number),
    ];
    let roles = [
        Role::ToLocal,
        Role::ToRemote,
        Role::Anchor(Side::Local),
        Role::Htlc(htlc(1)),
        Role::SecondStage(Some(htlc(1))),
        Role::Paid(Side::Remote),
        Role::Unidentified,
    ];
    let value = |json: Result<serde_json::Value, serde_json::Error>| json.expect("a value");
    let all = alerts.iter().map(|alert| value(serde_json::to_value(Warned(*alert))));
    let all = all.chain(roles.iter().map(|role| value(serde_json::to_value(What(*role)))));
    let mut kinds: Vec<String> =
        all.map(|json| json["kind"].as_str().expect("a kind").into()).collect();
    let count = kinds.len();
    kinds.sort();
    kinds.dedup();
    assert_eq!(kinds.len(), count, "each kind stands for one thing: {kinds:?}");
}
