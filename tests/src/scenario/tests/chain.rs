//! Statements about the chain.

use bitcoin::FeeRate;

use super::super::ast::{
    BlockFill, ChannelName, ClaimGrouping, Dropped, Excluded, HtlcRef, OutputRef, PublishedSpend,
};
use super::*;

fn a() -> ChannelName {
    ChannelName("a".into())
}

fn htlc(name: &str) -> HtlcRef {
    HtlcRef { channel: a(), htlc: name.into() }
}

fn vb(rate: u32) -> FeeRate {
    FeeRate::from_sat_per_vb_u32(rate)
}

#[test]
fn publish() {
    let spends = [
        ("publish a local", PublishedSpend::Local),
        ("publish a remote", PublishedSpend::Remote),
        ("publish a remote #0", PublishedSpend::RemoteNumber(0)),
        ("publish a remote #2", PublishedSpend::RemoteNumber(2)),
        ("publish a mutual", PublishedSpend::Mutual),
        ("publish a unknown", PublishedSpend::Unknown),
    ];
    for (text, spend) in spends {
        assert_eq!(
            on_chain(text),
            OnChain::Publish { channel: a(), spend, feerate: None },
            "{text}"
        );
    }
    let next = steps("offer a h9 amount=1sat expiry=+4 stage=next\npublish a remote next").pop();
    let spend = PublishedSpend::RemoteNext;
    assert_eq!(next, Some(Step::OnChain(OnChain::Publish { channel: a(), spend, feerate: None })));
    let (spend, feerate) = (PublishedSpend::RemoteNumber(2), Some(vb(3)));
    let paid = on_chain("publish a remote #2 feerate=3sat/vB");
    assert_eq!(paid, OnChain::Publish { channel: a(), spend, feerate });
    let invalid = OnChain::Publish { channel: a(), spend: PublishedSpend::Invalid, feerate: None };
    assert_eq!(on_chain("publish a invalid"), invalid);
    refused("publish a invalid feerate=3sat/vB", "the end of the line", "feerate=3sat/vB");
    let pays = OnChain::PeerPays { channel: a(), feerate: vb(7) };
    assert_eq!(on_chain("peer pays a feerate=7sat/vB"), pays);
    refused("peer pays a", "feerate=", "the end of the line");
    let crowds = |heavy| OnChain::PeerCrowds { channel: a(), feerate: vb(1), heavy };
    assert_eq!(on_chain("peer crowds a feerate=1sat/vB"), crowds(false));
    assert_eq!(on_chain("peer crowds a feerate=1sat/vB heavy"), crowds(true));
    refused("peer crowds a feerate=1sat/vB light", "no more than feerate=", "light");
    refused("peer crowds a", "feerate=", "the end of the line");
    refused("publish a mutual feerate=3sat/vB", "the end of the line", "feerate=3sat/vB");
    refused("publish c local", "a declared channel", "c");
    refused("publish a", "local, remote, mutual, unknown or invalid", "the end of the line");
    refused("publish a splice", "local, remote, mutual, unknown or invalid", "splice");
    refused("publish a local next", "no more than feerate=", "next");
    refused("publish a remote next", "stage=next in a before", "next");
    refused("publish a remote 5", "next or a commitment number", "5");
    refused("publish a remote #3", "a commitment number up to #2", "#3");
}

#[test]
fn peer() {
    let claims = |htlcs: &[&str], feerate, grouping| OnChain::PeerClaims {
        htlcs: htlcs.iter().map(|name| htlc(name)).collect(),
        feerate,
        grouping,
    };
    let each = ClaimGrouping::OneEach;
    assert_eq!(on_chain("peer claims a.h1"), claims(&["h1"], None, each));
    assert_eq!(
        on_chain("peer claims feerate=5sat/vB a.h2 a.h1 together"),
        claims(&["h2", "h1"], Some(vb(5)), ClaimGrouping::Together)
    );
    assert_eq!(
        on_chain("peer claims second-level a.h1"),
        OnChain::PeerClaimsSecondLevel(htlc("h1"))
    );
    assert_eq!(
        on_chain("peer replaces a.h1 feerate=9sat/vB"),
        OnChain::PeerReplaces { htlc: htlc("h1"), feerate: vb(9) }
    );
    assert_eq!(
        on_chain("peer withdraws a.h1 feerate=9sat/vB"),
        OnChain::PeerWithdraws { htlc: htlc("h1"), feerate: vb(9) }
    );
    refused("peer", "claims, crowds, pays, replaces or withdraws", "the end of the line");
    refused("peer steals a.h1", "claims, crowds, pays, replaces or withdraws", "steals");
    refused("peer claims", "HTLCs like a.h1", "the end of the line");
    refused("peer claims together", "HTLCs like a.h1", "the end of the line");
    refused("peer claims h1", "a declared HTLC", "h1");
    refused("peer claims a.h9", "a declared HTLC", "a.h9");
    refused("peer claims a.to_local", "a declared HTLC", "a.to_local");
    refused("peer claims a.h1 a.h1", "each HTLC once", "a.h1 again");
    refused("peer claims a.h1 feerate=5", "a feerate like", "5");
    refused("peer claims a.h1 together together", "a declared HTLC", "together");
    refused("peer claims second-level", "an HTLC", "the end of the line");
    refused("peer claims second-level a.h1 a.h2", "the end of the line", "a.h2");
    refused("peer replaces a.h1", "feerate=", "the end of the line");
}

#[test]
fn mine() {
    let mine = |blocks, fill| OnChain::Mine { blocks, fill };
    assert_eq!(on_chain("mine"), mine(1, BlockFill::Mempool));
    assert_eq!(on_chain("mine 144"), mine(144, BlockFill::Mempool));
    assert_eq!(on_chain("mine empty"), mine(1, BlockFill::Empty));
    assert_eq!(on_chain("mine 3 empty"), mine(3, BlockFill::Empty));
    let without = |excluded: &[Excluded]| BlockFill::Without(excluded.to_vec());
    assert_eq!(on_chain("mine 2 without=ours"), mine(2, without(&[Excluded::Ours])));
    let touching = Excluded::Touching;
    let h1 = touching(OutputRef::Htlc(htlc("h1")));
    assert_eq!(on_chain("mine without=a.h1"), mine(1, without(std::slice::from_ref(&h1))));
    let second = touching(OutputRef::SecondStage(htlc("h2")));
    assert_eq!(on_chain("mine without=a.h1,a.h2.second"), mine(1, without(&[h1, second])));
    let to_local = touching(OutputRef::ToLocal(a()));
    assert_eq!(on_chain("mine without=a.to_local"), mine(1, without(&[to_local])));
    refused("mine 0", "a number of blocks", "0");
    refused("mine x", "a number of blocks", "x");
    refused("mine 1 2", "no more than without=", "2");
    refused("mine without=peer", "ours or a declared output", "peer");
    refused("mine without=a.h9", "ours or a declared output", "a.h9");
    refused("mine empty without=ours", "either empty or without=", "both of them");
}

#[test]
fn reorg() {
    let reorg = |blocks, drop: &[Dropped]| OnChain::Reorg { blocks, drop: drop.to_vec() };
    assert_eq!(on_chain("reorg 3"), reorg(3, &[]));
    assert_eq!(on_chain("reorg 3 drop=a.remote"), reorg(3, &[Dropped::Remote(a())]));
    let all = [Dropped::Local(a()), Dropped::Mutual(a()), Dropped::Unknown(a())];
    assert_eq!(on_chain("reorg 2 drop=a.splice"), reorg(2, &[Dropped::Splice(a())]));
    assert_eq!(on_chain("reorg 1 drop=a.local,a.mutual,a.unknown"), reorg(1, &all));
    assert_eq!(on_chain("reorg 1 drop=a.h1"), reorg(1, &[Dropped::Htlc(htlc("h1"))]));
    refused("reorg", "a number of blocks", "the end of the line");
    refused("reorg 0", "a number of blocks", "0");
    refused("reorg 1 drop=remote", "the channel in front", "remote");
    refused("reorg 1 drop=a.next", "local, remote, mutual, unknown, splice or an HTLC", "a.next");
    refused("reorg 1 drop=c.remote", "a declared channel", "c");
    refused("reorg 1 drop=a.h1.second", "local, remote, mutual, unknown", "a.h1.second");
}

#[test]
fn one_channel_need_not_be_named_in_a_drop() {
    let text = "channel a\noffer a h1 amount=1sat expiry=+4\n";
    let drop = |last: &str| match accept(&format!("{text}{last}")).story.pop().map(|s| s.step) {
        Some(Step::OnChain(OnChain::Reorg { drop, .. })) => drop,
        other => panic!("{other:?}"),
    };
    assert_eq!(drop("reorg 1 drop=remote"), [Dropped::Remote(a())]);
    assert_eq!(drop("reorg 1 drop=h1,local"), [Dropped::Htlc(htlc("h1")), Dropped::Local(a())]);
    assert_eq!(drop("reorg 1 drop=a.h1"), [Dropped::Htlc(htlc("h1"))]);
}

#[test]
fn feerate() {
    let feerate = |estimate, floor| OnChain::Feerate { estimate, floor };
    assert_eq!(on_chain("feerate 50sat/vB"), feerate(vb(50), None));
    assert_eq!(on_chain("feerate 50sat/vB floor=2sat/vB"), feerate(vb(50), Some(vb(2))));
    let slow = FeeRate::from_sat_per_kwu(253);
    assert_eq!(on_chain("feerate 253sat/kw"), feerate(slow, None));
    refused("feerate", "a feerate", "the end of the line");
    refused("feerate floor=2sat/vB", "a feerate", "floor=2sat/vB");
    refused("feerate 50", "a feerate like", "50");
}
