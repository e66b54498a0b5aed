//! Tests of the codec: every value returns, no bytes panic, known bytes stay.
mod strategies;

use super::field::Shortest;
use super::tlv::{Field, Reader, TlvReader};
use super::{DecodeError, Record};
use crate::arbitrator::{Change, ChannelArbitrator, FailReason, Now, Position};
use crate::facts::{ChannelEntry, ChannelFacts, Htlc, HtlcLink, HtlcRecord};
use crate::ids::{ChannelId, HtlcId, HtlcRef, PaymentHash, Side};
use crate::log::SubscriberState;
use crate::policy::Policy;
use crate::ports::ScriptOwner;
use crate::units::{BlockHeight, BlockRef, CltvExpiry, CommitmentNumber, MilliSat};
use alloc::vec::Vec;
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{BlockHash, ScriptBuf, Txid, hashes::Hash};
use core::fmt::Debug;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use std::format;

fn returns<T: Record + PartialEq + Debug>(value: &T) {
    assert_eq!(T::decode(&value.encode()).as_ref(), Ok(value));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn facts_return(facts in strategies::facts()) {
        returns(&facts);
    }

    #[test]
    fn entries_return_and_are_due_no_later_than_facts(
        facts in strategies::facts(),
        tip in any::<u32>(),
        near in any::<bool>(),
    ) {
        let entry = ChannelEntry::of(&facts);
        returns(&entry);
        // Tips around the expiries, too, where a due height is about to be past.
        let expiry = entry.offered.or(entry.incoming).unwrap_or(BlockHeight(tip));
        let tip = if near { BlockHeight(expiry.0.saturating_sub(tip % 8)) } else { BlockHeight(tip) };
        let policy = Policy::default();
        let standing = crate::facts::Standing::Current;
        let floor = bitcoin::FeeRate::BROADCAST_MIN;
        let mutual_close = None;
        let position = Position::AtTip;
        let now = Now { tip, position, policy, standing, link: None, floor, mutual_close };
        let due = ChannelArbitrator::default().next_height(&facts, &now).map(|due| due.tip);
        let by_entry = entry.due(&policy);
        prop_assert!(due.is_none() || by_entry.is_some_and(|by_entry| Some(by_entry) <= due));
        // The only difference: a height that is past already is looked at once more.
        prop_assert!(by_entry == due || by_entry.is_some_and(|by_entry| by_entry <= tip));
    }

    #[test]
    fn htlc_records_return(record in strategies::htlc_record()) {
        returns(&record);
    }

    #[test]
    fn block_refs_return(block in strategies::block_ref()) {
        returns(&block);
    }

    #[test]
    fn subscriber_states_return(next in any::<u64>(), acknowledged in any::<bool>()) {
        returns(&SubscriberState { next, acknowledged });
    }

    #[test]
    fn any_bytes_decode_or_fail(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        decode_all(&bytes);
        if let Some(version) = bytes.first_mut() {
            *version = 1;
            decode_all(&bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn changes_return(change in strategies::change()) {
        returns(&change);
    }

    /// A restart goes on where it was, whatever has been paid, tried, refused, seen and asked for.
    #[test]
    fn what_is_read_is_the_state_that_was_there(
        changes in prop::collection::vec(strategies::change(), 0..8),
    ) {
        let live = changes.iter().fold(ChannelArbitrator::default(), ChannelArbitrator::apply);
        let read = changes.iter().map(|change| Change::decode(&change.encode()));
        let read: Result<Vec<Change>, DecodeError> = read.collect();
        prop_assert_eq!(read.map(|read| ChannelArbitrator::replay(&read)), Ok(live));
    }
}

/// A kind of change, by an exhaustive match: a new variant must be added to the strategies too.
fn variant(change: &Change) -> usize {
    match change {
        Change::FailRequested { .. } => 0,
        Change::PreimageLearned { .. } => 1,
        Change::RevokedHtlcsLoaded { .. } => 2,
        Change::HandedOut(_) => 3,
        Change::Rejected { .. } => 4,
        Change::UpstreamTold { .. } => 5,
        Change::NoticeAcknowledged(_) => 6,
        Change::Announced(_) => 7,
        Change::BumpRequested { .. } => 8,
        Change::Spent(_) => 9,
        Change::Disconnected { .. } => 10,
        Change::Contested(_) => 11,
        Change::ScriptsJudged(_) => 12,
        Change::MutualCloseAgreed { .. } => 13,
        Change::DeadlineRequested { .. } => 14,
        Change::CommitmentSeen { .. } => 15,
        Change::SetAside { .. } => 16,
        Change::BudgetRequested { .. } => 17,
        Change::DestinationRequested { .. } => 18,
        Change::Accepted { .. } => 19,
        Change::MutualCloseSeen { .. } => 20,
        Change::PointLearned { .. } => 21,
        Change::Unheard { .. } => 22,
    }
}

fn samples<S: Strategy>(strategy: &S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("a value").current()).collect()
}

#[test]
fn strategies_reach_every_change() {
    let mut seen = [false; 23];
    samples(&strategies::change(), 400).iter().for_each(|change| seen[variant(change)] = true);
    assert_eq!(seen, [true; 23]);
}

#[test]
fn every_change_is_remembered_but_what_takes_another_back() {
    for change in samples(&strategies::change(), 400) {
        let nothing = match &change {
            Change::Accepted { .. } | Change::Disconnected { .. } => true,
            Change::ScriptsJudged(verdicts) => verdicts.is_empty(),
            _ => false,
        };
        let state = ChannelArbitrator::default().apply(&change);
        assert_eq!(state.is_quiet(), nothing, "{change:?}");
    }
}

fn decode_all(bytes: &[u8]) {
    let _ = ChannelFacts::decode(bytes);
    let _ = HtlcRecord::decode(bytes);
    let _ = ChannelEntry::decode(bytes);
    let _ = Change::decode(bytes);
    let _ = BlockRef::decode(bytes);
    let _ = SubscriberState::decode(bytes);
}

/// Every truncation is an error; every flipped bit is another value or an error.
fn survives_damage<T: Record + PartialEq + Debug>(value: &T) {
    let bytes = value.encode();
    for length in 0..bytes.len() {
        match T::decode(&bytes[..length]) {
            Err(_) => {}
            // A cut between two records leaves a value without its optional fields.
            Ok(other) => assert_ne!(&other, value),
        }
    }
    let mut damaged = bytes.clone();
    for bit in 0..bytes.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = T::decode(&damaged) {
            assert_ne!(&other, value, "bit {bit} means nothing");
        }
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn damage_is_an_error_or_another_value() {
    samples(&strategies::facts(), 1).iter().for_each(survives_damage);
    samples(&strategies::htlc_record(), 20).iter().for_each(survives_damage);
    samples(&strategies::change(), 40).iter().for_each(survives_damage);
    samples(&strategies::block_ref(), 3).iter().for_each(survives_damage);
    survives_damage(&SubscriberState { next: 7, acknowledged: true });
}

#[test]
fn unknown_odd_types_are_skipped_and_even_ones_refused() {
    let block = BlockRef { height: BlockHeight(5), hash: BlockHash::all_zeros() };
    let bytes = block.encode();
    let with = |extra: &[u8], at: usize| {
        let mut longer = bytes.clone();
        longer.splice(at..at, extra.iter().copied());
        BlockRef::decode(&longer)
    };
    let between = 1 + 2 + 4;
    assert_eq!(with(&[1, 2, 9, 9], between), Ok(block));
    assert_eq!(with(&[0xfd, 0x01, 0x01, 0], bytes.len()), Ok(block));
    assert_eq!(with(&[4, 0], bytes.len()), Err(DecodeError::UnknownType(4)));
    assert_eq!(with(&[2, 0], bytes.len()), Err(DecodeError::Order));
    assert_eq!(with(&[1, 0], bytes.len()), Err(DecodeError::Order));
    assert_eq!(with(&[0xfd, 0x00, 0x05, 0], bytes.len()), Err(DecodeError::NotMinimal));
    assert_eq!(BlockRef::decode(&[]), Err(DecodeError::Truncated));
    assert_eq!(BlockRef::decode(&[2]), Err(DecodeError::UnknownVersion(2)));
    assert_eq!(BlockRef::decode(&[1]), Err(DecodeError::Missing(0)));
    assert_eq!(BlockRef::decode(&[1, 0, 3, 0, 0, 0]), Err(DecodeError::Truncated));
    assert_eq!(BlockRef::decode(&[1, 0, 5, 0, 0, 0, 0, 0]), Err(DecodeError::TrailingBytes));
}

#[test]
fn an_unknown_change_is_refused_and_an_odd_one_skipped() {
    assert_eq!(Change::decode(&[1, 0xfc, 0]), Err(DecodeError::UnknownType(0xfc)));
    let change =
        Change::FailRequested { commitment: CommitmentNumber(3), reason: FailReason::Requested };
    let mut bytes = change.encode();
    bytes.extend([0x21, 1, 7]);
    assert_eq!(Change::decode(&bytes), Ok(change));
    bytes.extend([0x22, 0]);
    assert_eq!(Change::decode(&bytes), Err(DecodeError::UnknownType(0x22)));
}

#[test]
fn lengths_and_counts_beyond_the_input_allocate_nothing() {
    // A field that claims 2^64 - 1 bytes.
    let mut bytes = Vec::from([1, 0, 0xff]);
    bytes.extend([0xff; 8]);
    assert_eq!(BlockRef::decode(&bytes), Err(DecodeError::Truncated));
    // A transaction that claims 2^32 - 1 witness elements.
    let transaction = Vec::<u8>::from_hex(concat!(
        "02000000",
        "0001",
        "01",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "00000000",
        "00",
        "00000000",
        "00",
        "feffffffff",
        "00000000",
    ))
    .unwrap();
    let mut stream = Vec::from([0, transaction.len() as u8]);
    stream.extend(&transaction);
    let result = TlvReader::new(&stream).field::<bitcoin::Transaction>(0);
    assert_eq!(result, Err(DecodeError::Invalid("transaction")));
}

#[test]
fn bigsize_takes_its_shortest_form_only() {
    for (bytes, expected) in [
        (&[0xfc][..], Ok(0xfc)),
        (&[0xfd, 0x00, 0xfd], Ok(0xfd)),
        (&[0xfd, 0x00, 0xfc], Err(DecodeError::NotMinimal)),
        (&[0xfe, 0x00, 0x01, 0x00, 0x00], Ok(0x1_0000)),
        (&[0xfe, 0x00, 0x00, 0xff, 0xff], Err(DecodeError::NotMinimal)),
        (&[0xff, 0, 0, 0, 1, 0, 0, 0, 0], Ok(0x1_0000_0000)),
        (&[0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], Err(DecodeError::NotMinimal)),
        (&[0xfe, 0x00], Err(DecodeError::Truncated)),
        (&[], Err(DecodeError::Truncated)),
    ] {
        assert_eq!(Reader::new(bytes).bigsize(), expected, "{bytes:?}");
    }
}

#[test]
fn numbers_of_any_length_take_their_shortest_form_only() {
    for (number, bytes) in [(0, &[][..]), (1, &[1]), (256, &[1, 0]), (u64::MAX, &[0xff; 8])] {
        let mut written = Vec::new();
        Shortest(number).put(&mut written);
        assert_eq!(written, bytes);
        assert_eq!(Shortest::take(&mut Reader::new(bytes)).map(|read| read.0), Ok(number));
    }
    for (bytes, expected) in [
        (&[0][..], DecodeError::NotMinimal),
        (&[0, 7], DecodeError::NotMinimal),
        (&[1, 0, 0, 0, 0, 0, 0, 0, 0], DecodeError::TrailingBytes),
    ] {
        assert_eq!(Shortest::take(&mut Reader::new(bytes)).map(|read| read.0), Err(expected));
    }
}

fn golden<T: Record + PartialEq + Debug>(value: &T, hex: &str) {
    assert_eq!(format!("{}", value.encode().as_hex()), hex);
    assert_eq!(T::decode(&Vec::from_hex(hex).unwrap()).as_ref(), Ok(value));
}

/// Bytes of version 1; the longer records' are in `docs/format.md`.
#[test]
fn golden_bytes() {
    let block =
        BlockRef { height: BlockHeight(800_000), hash: BlockHash::from_byte_array([0x11; 32]) };
    golden(
        &block,
        "010004000c350002201111111111111111111111111111111111111111111111111111111111111111",
    );
    golden(&SubscriberState { next: 7, acknowledged: true }, "0100080000000000000007020101");
    let record = HtlcRecord {
        htlc: Htlc {
            amount: MilliSat(50_000_000),
            hash: PaymentHash([0x22; 32]),
            expiry: CltvExpiry(BlockHeight(800_040)),
            link: HtlcLink::ForwardedTo {
                outgoing: HtlcRef {
                    channel: ChannelId([0x33; 32]),
                    htlc: HtlcId { offerer: Side::Local, id: 9 },
                },
            },
        },
        remote_from: Some(CommitmentNumber(4)),
        remote_until: None,
    };
    golden(
        &record,
        concat!(
            "01",
            "000402faf080",
            "02202222222222222222222222222222222222222222222222222222222222222222",
            "0404000c3528",
            "062a033333333333333333333333333333333333333333333333333333333333333333000000000000000009",
            "080104",
        ),
    );
    let change = Change::FailRequested {
        commitment: CommitmentNumber(42),
        reason: FailReason::OfferedDeadline(HtlcId { offerer: Side::Local, id: 1 }),
    };
    golden(&change, "0100160008000000000000002a020a01000000000000000001");
    let ours = ScriptBuf::from_bytes([5; 3].to_vec());
    let verdicts = [(ours, ScriptOwner::Node), (ScriptBuf::new(), ScriptOwner::Other)];
    golden(&Change::ScriptsJudged(verdicts.to_vec()), "011809000700030505050100");
    let agreed = Change::MutualCloseAgreed { txid: Txid::from_byte_array([3; 32]) };
    golden(&agreed, &format!("011a220020{}", "03".repeat(32)));
    let deadline = BlockHeight(800_000);
    let hurry = Change::DeadlineRequested { outpoint: None, deadline };
    let accepted = Change::Accepted { txid: Txid::from_byte_array([3; 32]) };
    golden(&accepted, &format!("0126220020{}", "03".repeat(32)));
    let key = bitcoin::secp256k1::SecretKey::from_slice(&[1; 32]).expect("a key");
    let point = key.public_key(&bitcoin::secp256k1::Secp256k1::new());
    golden(
        &Change::PointLearned { number: CommitmentNumber(7), point },
        &format!("012a2d000800000000000000070221{point}"),
    );
    golden(&Change::MutualCloseSeen { at: deadline }, "0128060004000c3500");
    golden(&hurry, "011c060204000c3500");
}
