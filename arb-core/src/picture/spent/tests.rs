//! Paths of witnesses, honest and odd.
use super::*;
use alloc::vec::Vec;

const PREIMAGE: [u8; 32] = [7; 32];
const KEY: [u8; 33] = [2; 33];

/// `<> <signature> <element> <script>`, with a script that begins as those of BOLT 3 do.
fn witness(element: &[u8]) -> Witness {
    let mut script = Vec::from([OP_DUP.to_u8(), OP_HASH160.to_u8(), 20]);
    script.extend(hash160::Hash::hash(&KEY).to_byte_array());
    script.push(0x87);
    Witness::from_slice(&[Vec::new(), Vec::from([0x30; 71]), element.to_vec(), script])
}

fn path(element: &[u8]) -> Option<HtlcPath> {
    htlc_path(&witness(element), Preimage(PREIMAGE).hash())
}

#[test]
fn htlc_paths_are_told_by_what_the_scripts_check() {
    assert_eq!(path(&[]), Some(HtlcPath::Timeout));
    assert_eq!(path(&PREIMAGE), Some(HtlcPath::Preimage(Preimage(PREIMAGE))));
    assert_eq!(path(&KEY), Some(HtlcPath::Revocation));
    // Of a preimage's length: no branch takes it.
    assert_eq!(path(&[8; 32]), None);
    // The timeout branch drops whatever stands there, unread.
    for junk in [&[3u8; 33][..], &[0; 33], &[1], &[9; 31], &[9; 80]] {
        assert_eq!(path(junk), Some(HtlcPath::Timeout), "{junk:?}");
    }
}

#[test]
fn odd_witnesses_have_no_path() {
    let hash = Preimage(PREIMAGE).hash();
    assert_eq!(htlc_path(&Witness::new(), hash), None);
    assert_eq!(htlc_path(&Witness::from_slice(&[[1u8; 4]]), hash), None);
    let no_script = Witness::from_slice(&[&PREIMAGE[..], &[]]);
    assert_eq!(htlc_path(&no_script, hash), Some(HtlcPath::Preimage(Preimage(PREIMAGE))));
}

#[test]
fn the_revocation_branch_is_taken_by_whatever_is_true() {
    for (element, taken) in [
        (&[][..], false),
        (&[0][..], false),
        (&[0x80][..], false),
        (&[0, 0x80][..], false),
        (&[1][..], true),
        (&[2][..], true),
        (&[0x80, 0][..], true),
        (&[0, 1][..], true),
    ] {
        assert_eq!(takes_if(&witness(element)), taken, "{element:?}");
    }
    assert!(!takes_if(&Witness::new()));
}
