//! Updates are read to the last byte.
use super::{Step, read};
use crate::ldk02::facts::bytes::unhexed;
use arb_core::ids::PerCommitmentSecret;
use arb_core::units::CommitmentNumber;
use bitcoin::Txid;
use bitcoin::hashes::Hash;

/// One update with one step: the secret of commitment 5.
fn secret() -> Vec<u8> {
    let mut bytes = vec![1, 1];
    bytes.extend(7u64.to_be_bytes());
    bytes.extend(1u64.to_be_bytes());
    bytes.extend([3, 2 + 8 + 2 + 32]);
    bytes.extend([0, 8]);
    bytes.extend(((1u64 << 48) - 1 - 5).to_be_bytes());
    bytes.extend([2, 32]);
    bytes.extend([9; 32]);
    bytes.extend([2 + 32, 3, 32]);
    bytes.extend([8; 32]);
    bytes
}

#[test]
fn a_secret_is_read() {
    let (id, steps) = read(&secret()).unwrap();
    assert_eq!(id, 7);
    let [Step::Secret { number, secret }] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(*number, CommitmentNumber(5));
    assert_eq!(*secret, PerCommitmentSecret([9; 32]));
}

#[test]
fn neither_less_nor_more_is_read() {
    let whole = secret();
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "{length} bytes");
    }
    let more = [whole, vec![0]].concat();
    assert!(read(&more).is_err());
}

#[test]
fn what_is_not_known_is_refused() {
    let changed = |at: usize, to: u8| {
        let mut bytes = secret();
        bytes[at] = to;
        read(&bytes).map(|_| ()).map_err(|error| error.0)
    };
    assert_eq!(changed(0, 2), Err("the update has another version"));
    assert_eq!(changed(18, 20), Err("a step is not known"));
    // Its number under another type, an odd one too.
    assert_eq!(changed(20, 1), Err("a field is missing"));
    assert_eq!(changed(22, 1), Err("a commitment number is out of range"));
    let last = secret().len() - 34;
    assert_eq!(changed(last, 5), Err("a field is not known"));
}

#[test]
fn a_locked_splice_is_read() {
    let mut bytes = secret();
    bytes.splice(18..bytes.len() - 35, [12, 34, 1, 32].into_iter().chain([4; 32]));
    let (_, steps) = read(&bytes).unwrap();
    let [Step::Locked(txid)] = steps.as_slice() else { panic!("{steps:?}") };
    assert_eq!(*txid, Txid::from_byte_array([4; 32]));
}

/// A splice without its commitments, and one commitment for no funding output.
#[test]
fn half_a_splice_is_refused() {
    for (kind, error) in [(10, "a field is missing"), (8, "a field is missing")] {
        let mut bytes = secret();
        bytes[18] = kind;
        assert_eq!(read(&bytes).map(|_| ()).map_err(|error| error.0), Err(error));
    }
    let mut bytes = secret();
    let empty_data = [4, 1, 0, 3, 0];
    let fields = [1, 0, 3, 5].into_iter().chain(empty_data);
    bytes.splice(18..bytes.len() - 35, [6, 9].into_iter().chain(fields));
    let error = read(&bytes).map(|_| ()).map_err(|error| error.0);
    assert_eq!(error, Err("there is no commitment"));
}

/// Updates of payments as LDK wrote them, of each format, one a line.
const UPDATES: [&str; 3] = [
    include_str!("tests/static_remotekey.hex"),
    include_str!("tests/anchors.hex"),
    include_str!("tests/zero_fee.hex"),
];

#[test]
fn neither_less_nor_more_of_ldks_own_is_read() {
    for whole in UPDATES.iter().flat_map(|updates| updates.lines()).map(unhexed) {
        assert!(read(&whole).is_ok(), "{whole:?}");
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} bytes of {}", whole.len());
        }
        assert!(read(&[&whole[..], &[0]].concat()).is_err());
    }
}

/// What is told, secrets and preimages too, which hide themselves.
fn told(steps: &[Step]) -> String {
    let hidden = steps.iter().flat_map(|step| match step {
        Step::Secret { secret, .. } => vec![secret.0],
        Step::Preimage { preimage, .. } => vec![preimage.0],
        Step::Local(local) => local.claimed.iter().map(|(_, preimage)| preimage.0).collect(),
        _ => Vec::new(),
    });
    format!("{steps:?} {:?}", hidden.collect::<Vec<_>>())
}

/// A bit of each byte of an update: what is read differs in what is told, or it is refused. What may be another and is
/// told nowhere is of LDK's own bookkeeping.
#[test]
fn a_changed_bit_is_refused_or_told() {
    let mut kinds = [0usize; 3];
    for whole in UPDATES.iter().flat_map(|updates| updates.lines()).map(unhexed) {
        let (id, steps) = read(&whole).unwrap();
        let before = (id, told(&steps));
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            let kind = match read(&changed) {
                Err(_) => 0,
                Ok((id, steps)) if (id, told(&steps)) != before => 1,
                Ok(_) => 2,
            };
            kinds[kind] += 1;
        }
    }
    assert_eq!(kinds, [11_729, 32_271, 12_142], "refused, told, told nowhere");
}
