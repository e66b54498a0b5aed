//! What the wallet must be able to pay for an open channel, against sums by hand: LDK's code builds the commitment, and BOLT 3
//! and Bitcoin's serialisation say what each transaction weighs. To the satoshi.
use arb_core::arbitrator::{ChannelArbitrator, Now, Position};
use arb_core::facts::{ChannelFacts, Standing};
use arb_core::policy::Policy;
use arb_core::report::reserve;
use arb_core::units::BlockHeight;
use arb_tests::peer::{
    Channel, ChannelParams, Commitment, Format, Keep, NewHtlc, OutputRole, preimage_named,
};
use arb_tests::world::{Links, first_facts, updates_of};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, FeeRate, OutPoint, Txid};

/// A DER signature with low S and any R, and its sighash byte, behind its length.
const SIGNATURE: u64 = 1 + 71 + 1;
/// Version, lock time, one byte each for the numbers of inputs and outputs; and marker and flag.
const FRAME: u64 = 4 * (4 + 4 + 1 + 1) + 2;
/// Outpoint, empty script, sequence.
const INPUT: u64 = 4 * (36 + 1 + 4);
/// Value, length and script of P2WSH: the largest that the wallet's change can be.
const CHANGE: u64 = 4 * (8 + 1 + 34);
/// A coin of the wallet, P2WPKH: number of elements, signature, key.
const COIN: u64 = INPUT + 1 + SIGNATURE + 1 + 33;
/// The smallest output: the rest of an HTLC cannot be less.
const SMALLEST: u64 = 354;

/// Lengths of the HTLC scripts of BOLT 3, with an expiry of three bytes.
const OFFERED_SCRIPT: u64 = 133;
const RECEIVED_SCRIPT: u64 = 139;
/// `1 OP_CHECKSEQUENCEVERIFY OP_DROP`.
const ANCHORS_CSV: u64 = 3;

struct Case {
    format: Format,
    local: u64,
    /// Satoshis that we offer, and that the peer offers.
    offered: &'static [u64],
    received: &'static [u64],
}

const CASES: [Case; 7] = [
    Case {
        format: Format::StaticRemoteKey,
        local: 500_000,
        offered: &[50_000],
        received: &[40_000],
    },
    Case { format: Format::Anchors, local: 500_000, offered: &[], received: &[] },
    Case {
        format: Format::Anchors,
        local: 500_000,
        offered: &[50_000, 3_000, 300],
        received: &[40_000],
    },
    Case { format: Format::Anchors, local: 20_000, offered: &[], received: &[1_000, 6_000] },
    Case { format: Format::ZeroFee, local: 500_000, offered: &[], received: &[] },
    Case {
        format: Format::ZeroFee,
        local: 500_000,
        offered: &[50_000],
        received: &[40_000, 2_000, 300],
    },
    Case { format: Format::ZeroFee, local: 4_000, offered: &[1_000], received: &[] },
];

/// The channel, and what the arbiter knows of it.
fn channel(case: &Case) -> (Channel, ChannelFacts) {
    let mut params = ChannelParams::new("reserve");
    params.format = case.format;
    params.local_balance = Amount::from_sat(case.local);
    let mut channel = Channel::new(params).expect("the parameters are fine");
    let funding = OutPoint { txid: Txid::from_byte_array([7; 32]), vout: 0 };
    channel.set_funding(funding).expect("vout 0");
    let secp = Secp256k1::new();
    let mut facts = first_facts(&channel, 100).expect("it is funded");
    let htlc = |name: String, sat: u64| NewHtlc {
        preimage: preimage_named(&name),
        name,
        amount_msat: sat * 1000,
        cltv_expiry: 700_000,
    };
    for (at, sat) in case.offered.iter().enumerate() {
        channel.offer(htlc(format!("o{at}"), *sat)).expect("we can pay it");
    }
    for (at, sat) in case.received.iter().enumerate() {
        channel.receive(htlc(format!("r{at}"), *sat)).expect("the peer can pay it");
    }
    let steps = channel.take_facts(Keep::Every).expect("facts");
    for update in updates_of(&steps, funding, &Links::new()) {
        facts = facts.updated(&update, &secp).expect("it is true").facts;
    }
    (channel, facts)
}

/// Rounded up.
fn fee(sat_per_kw: u64, weight: u64) -> u64 {
    (sat_per_kw * weight).div_ceil(1000)
}

/// The commitment, signed by both with the longest signatures that there are.
fn commitment_weight(commitment: &Commitment) -> u64 {
    let outputs = &commitment.tx.output;
    let bytes = outputs.iter().map(|output| 8 + 1 + output.script_pubkey.len() as u64).sum::<u64>();
    let multisig = 1 + 71;
    FRAME + INPUT + 4 * bytes + 1 + 1 + 2 * SIGNATURE + multisig
}

/// What the child pays, so that both have the feerate.
fn child(case: &Case, channel: &Channel, commitment: &Commitment, sat_per_kw: u64) -> u64 {
    let anchor = match case.format {
        Format::StaticRemoteKey => return 0,
        // The number of elements, a signature, and `<33> OP_CHECKSIG OP_IFDUP OP_NOTIF OP_16 OP_CHECKSEQUENCEVERIFY OP_ENDIF`.
        Format::Anchors => 1 + SIGNATURE + 1 + 40,
        Format::ZeroFee => 1,
    };
    let weight = FRAME + INPUT + anchor + COIN + CHANGE;
    let both = fee(sat_per_kw, commitment_weight(commitment) + weight);
    let own = channel.commitment_fee(commitment).expect("outputs within the capacity").to_sat();
    both.saturating_sub(own)
}

/// What the second stage of an HTLC pays by itself, at most all of it.
fn stage(case: &Case, received: bool, sat: u64, sat_per_kw: u64) -> u64 {
    let csv = if case.format == Format::Anchors { ANCHORS_CSV } else { 0 };
    let (preimage, script) = if received { (32, RECEIVED_SCRIPT) } else { (0, OFFERED_SCRIPT) };
    let lengths = if script + csv < 0xfd { 1 } else { 3 };
    let witness = 1 + 1 + 2 * SIGNATURE + 1 + preimage + lengths + script + csv;
    let weight = FRAME + INPUT + witness + CHANGE + COIN + CHANGE;
    fee(sat_per_kw, weight).min(sat - SMALLEST)
}

#[test]
fn the_reserve_is_what_each_transaction_would_cost_by_hand() {
    for (number, case) in CASES.iter().enumerate() {
        let (channel, facts) = channel(case);
        let commitment = channel.local_commitment().expect("signed");
        let balance = commitment.output(&OutputRole::ToLocal).map_or(0, |(_, o)| o.value.to_sat());
        let at_stake: u64 = case.offered.iter().chain(case.received).sum();
        for sat_per_kw in [253, 1_000, 2_500, 10_000, 25_000, 100_000, 1_000_000] {
            let found = reserve(&facts, FeeRate::from_sat_per_kwu(sat_per_kw)).to_sat();
            if case.format == Format::StaticRemoteKey {
                assert_eq!(found, 0, "its transactions carry their own fees");
                continue;
            }
            // Of what is ours or at stake, half is spent on the commitment at most.
            let child =
                child(case, &channel, &commitment, sat_per_kw).min((balance + at_stake) / 2);
            let stages = |received: bool, all: &[u64]| -> u64 {
                let untrimmed = all.iter().filter(|sat| **sat >= SMALLEST);
                untrimmed.map(|sat| stage(case, received, *sat, sat_per_kw)).sum()
            };
            let all = child + stages(false, case.offered) + stages(true, case.received);
            assert_eq!(found, all, "case {number} at {sat_per_kw} sat/kw, {child} for the child");
        }
    }
}

/// A dry run at one feerate: the wallet pays for the child and for what is worth its second stage; what is not is left, and what only a
/// preimage would bring is told apart.
#[test]
fn a_dry_run_says_what_the_wallet_pays_and_what_is_left() {
    const RATE: u64 = 2_500;
    let worth: &[u64] = &[50_000];
    let not_worth: &[u64] = &[1_000];
    for (offered, left) in [(worth, 0), (not_worth, 1_000)] {
        let received = &[40_000];
        let case = Case { format: Format::Anchors, local: 500_000, offered, received };
        let (channel, facts) = channel(&case);
        let commitment = channel.local_commitment().expect("signed");
        let now = Now {
            tip: BlockHeight(200),
            position: Position::AtTip,
            policy: Policy::default(),
            standing: Standing::Current,
            link: None,
            floor: FeeRate::BROADCAST_MIN,
            mutual_close: None,
        };
        let rate = FeeRate::from_sat_per_kwu(RATE);
        let cost = ChannelArbitrator::default().closing_cost(&facts, &now, rate);
        let cost = cost.expect("our commitment can be broadcast");
        let child = child(&case, &channel, &commitment, RATE);
        let stages = if left == 0 { stage(&case, false, offered[0], RATE) } else { 0 };
        assert_eq!(cost.wallet.to_sat(), child + stages);
        assert_eq!((cost.left.to_sat(), cost.uncertain.to_sat()), (left, 40_000));
    }
}
