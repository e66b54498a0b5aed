//! Output values against the vectors of BOLT 3 (appendices C and F) and of the zero-fee
//! commitment format: who pays the fee and the anchors, what is trimmed, how msat are rounded.

use bitcoin::Amount;

use super::{htlc, open, params};
use crate::peer::{Channel, Commitment, Format, NewHtlc, OutputRole, PeerError, Side};

fn vector(
    format: Format,
    dust: u64,
    feerate_per_kw: u32,
    local_sat: u64,
) -> Result<Channel, PeerError> {
    let mut params = params(format, Side::Local);
    params.capacity = Amount::from_sat(10_000_000);
    params.local_balance = Amount::from_sat(local_sat);
    params.dust = Amount::from_sat(dust);
    params.remote_dust = Amount::from_sat(dust);
    params.feerate_per_kw = feerate_per_kw;
    open(params)
}

fn values(commitment: &Commitment) -> Vec<u64> {
    commitment.tx.output.iter().map(|output| output.value.to_sat()).collect()
}

/// HTLCs 0 to 4 of the appendices.
fn with_five_htlcs(format: Format, dust: u64, feerate: u32) -> Result<Channel, PeerError> {
    let mut channel = vector(format, dust, feerate, 6_993_000)?;
    channel.receive(htlc("0", 1_000, 500))?;
    channel.receive(htlc("1", 2_000, 501))?;
    channel.offer(htlc("2", 2_000, 502))?;
    channel.offer(htlc("3", 3_000, 503))?;
    channel.receive(htlc("4", 4_000, 504))?;
    Ok(channel)
}

/// HTLCs 1, 5 and 6 of the appendices: 5 and 6 share their hash and the amount of their outputs.
fn with_equal_hashes(format: Format) -> Result<Channel, PeerError> {
    let mut channel = vector(format, 546, 253, 6_998_000)?;
    channel.receive(htlc("1", 2_000, 501))?;
    let preimage = [5; 32];
    let named = |name: &str, amount_msat, cltv_expiry| NewHtlc {
        name: name.to_owned(),
        amount_msat,
        cltv_expiry,
        preimage,
    };
    channel.offer(named("5", 5_000_000, 506))?;
    channel.offer(named("6", 5_000_001, 505))?;
    Ok(channel)
}

#[test]
fn appendix_c() -> Result<(), PeerError> {
    let format = Format::StaticRemoteKey;
    let none = vector(format, 546, 15_000, 7_000_000)?;
    assert_eq!(values(&none.local_commitment()?), [3_000_000, 6_989_140]);

    let vectors: [(u32, &[u64]); 14] = [
        (0, &[1_000, 2_000, 2_000, 3_000, 4_000, 3_000_000, 6_988_000]),
        (647, &[1_000, 2_000, 2_000, 3_000, 4_000, 3_000_000, 6_986_976]),
        (648, &[2_000, 2_000, 3_000, 4_000, 3_000_000, 6_987_086]),
        (2_069, &[2_000, 2_000, 3_000, 4_000, 3_000_000, 6_985_079]),
        (2_070, &[2_000, 3_000, 4_000, 3_000_000, 6_985_434]),
        (2_194, &[2_000, 3_000, 4_000, 3_000_000, 6_985_280]),
        (2_195, &[3_000, 4_000, 3_000_000, 6_985_656]),
        (3_702, &[3_000, 4_000, 3_000_000, 6_984_047]),
        (3_703, &[4_000, 3_000_000, 6_984_683]),
        (4_914, &[4_000, 3_000_000, 6_983_598]),
        (4_915, &[3_000_000, 6_984_442]),
        (9_651_180, &[546, 3_000_000]),
        (9_651_181, &[3_000_000]),
        (9_651_936, &[3_000_000]),
    ];
    for (feerate, expected) in vectors {
        let channel = with_five_htlcs(format, 546, feerate)?;
        assert_eq!(values(&channel.local_commitment()?), expected, "feerate {feerate}");
    }
    let equal = with_equal_hashes(format)?;
    let commitment = equal.local_commitment()?;
    assert_eq!(values(&commitment), [2_000, 5_000, 5_000, 3_000_000, 6_987_686]);
    assert_eq!((commitment.htlc_index("6"), commitment.htlc_index("5")), (Some(1), Some(2)));
    Ok(())
}

#[test]
fn appendix_f() -> Result<(), PeerError> {
    let format = Format::Anchors;
    let none = vector(format, 546, 15_000, 7_000_000)?;
    assert_eq!(values(&none.local_commitment()?), [330, 330, 3_000_000, 6_982_480]);
    let single = vector(format, 546, 15_000, 10_000_000)?;
    let commitment = single.local_commitment()?;
    assert_eq!(values(&commitment), [330, 9_982_480]);
    assert!(commitment.role_index(&OutputRole::Anchor(Side::Local)).is_some());

    let vectors: [(u64, u32, &[u64]); 6] = [
        (546, 644, &[330, 330, 1_000, 2_000, 2_000, 3_000, 4_000, 3_000_000, 6_986_063]),
        (1_001, 645, &[330, 330, 2_000, 2_000, 3_000, 4_000, 3_000_000, 6_986_172]),
        (2_001, 2_185, &[330, 330, 3_000, 4_000, 3_000_000, 6_984_133]),
        (3_001, 3_687, &[330, 330, 4_000, 3_000_000, 6_982_562]),
        (4_001, 4_894, &[330, 330, 3_000_000, 6_981_840]),
        (4_001, 6_216_010, &[330, 3_000_000]),
    ];
    for (dust, feerate, expected) in vectors {
        let channel = with_five_htlcs(format, dust, feerate)?;
        assert_eq!(values(&channel.local_commitment()?), expected, "feerate {feerate}");
    }
    let equal = with_equal_hashes(format)?.local_commitment()?;
    assert_eq!(values(&equal), [330, 330, 2_000, 5_000, 5_000, 3_000_000, 6_986_925]);
    Ok(())
}

#[test]
fn zero_fee_vectors() -> Result<(), PeerError> {
    let format = Format::ZeroFee;
    let vectors: [(u64, u64, &[u64]); 3] = [
        (500, 8_000_000, &[0, 2_000_000, 8_000_000]),
        (330, 9_999_800, &[200, 9_999_800]),
        (15_000, 9_990_000, &[240, 9_990_000]),
    ];
    for (dust, local, expected) in vectors {
        let commitment = vector(format, dust, 253, local)?.local_commitment()?;
        assert_eq!(values(&commitment), expected);
        assert_eq!(commitment.role_index(&OutputRole::SharedAnchor), Some(0));
    }
    let mut dusty = vector(format, 330, 0, 8_000_000)?;
    dusty.receive(NewHtlc { amount_msat: 29_525, ..htlc("in", 0, 500) })?;
    dusty.offer(NewHtlc { amount_msat: 21_475, ..htlc("out", 0, 500) })?;
    let commitment = dusty.local_commitment()?;
    assert_eq!(values(&commitment), [52, 1_999_970, 7_999_978]);
    assert_eq!(commitment.trimmed, ["in", "out"]);
    Ok(())
}

#[test]
fn the_owners_dust_limit_decides() -> Result<(), PeerError> {
    let mut params = params(Format::Anchors, Side::Local);
    params.remote_dust = Amount::from_sat(1_000);
    let mut channel = open(params)?;
    channel.offer(htlc("small", 999, 500))?;
    assert!(channel.local_commitment()?.htlc_index("small").is_some());
    assert_eq!(channel.remote_current()?.htlc_index("small"), None);
    assert_eq!(channel.remote_current()?.trimmed, ["small"]);
    Ok(())
}

#[test]
fn a_remote_opener_pays() -> Result<(), PeerError> {
    let channel = open(params(Format::Anchors, Side::Remote))?;
    let fee = 1124 * 253 / 1000;
    for side in super::SIDES {
        let commitment = channel.commitment(side, 0)?;
        let (ours, theirs) = match side {
            Side::Local => (OutputRole::ToLocal, OutputRole::ToRemote),
            Side::Remote => (OutputRole::ToRemote, OutputRole::ToLocal),
        };
        let value = |role| commitment.output(role).map(|(_, output)| output.value.to_sat());
        assert_eq!(value(&ours), Some(500_000));
        assert_eq!(value(&theirs), Some(500_000 - 660 - fee));
    }
    Ok(())
}
