//! The parser alone, on monitors of each format as LDK wrote them: with HTLCs of both sides, trimmed ones too, a past, and a
//! preimage. Every byte of them is refused when it is changed, or told.
use super::{Known, Monitor, known, read};
use crate::ldk02::facts::bytes::unhexed;

const MONITORS: [&str; 3] = [
    include_str!("tests/static_remotekey.hex"),
    include_str!("tests/anchors.hex"),
    include_str!("tests/zero_fee.hex"),
];

/// What is read, but for the bytes that it was read from.
fn told(monitor: &Monitor) -> String {
    format!("{:?}", Monitor { canon: Vec::new(), ..monitor.clone() })
}

#[test]
fn a_monitor_is_read() {
    for whole in MONITORS.map(unhexed) {
        let (monitor, known) = (read(&whole).unwrap(), known(&whole).unwrap());
        assert_eq!(monitor.local_htlcs.len(), 3);
        assert_eq!(monitor.opened.len(), 1);
        assert!(monitor.commitments.len() > 4 && !monitor.secrets.is_empty());
        assert_eq!(known.remote_number, monitor.remote_number);
        assert_eq!(known.local_number, monitor.local_number);
        assert_eq!(known.destination, monitor.destination);
        assert!(known.preimages.keys().eq(monitor.opened.keys()));
    }
}

#[test]
fn neither_less_nor_more_is_read() {
    for whole in MONITORS.map(unhexed) {
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} bytes");
        }
        assert!(read(&[&whole[..], &[0]].concat()).is_err());
    }
}

/// A bit of each byte: what is read differs from before in what is told, or in nothing but the bytes, or it is refused. The
/// bytes of the second kind are few: what the arbiter has no use for.
#[test]
fn a_changed_bit_is_refused_or_told() {
    let kinds = MONITORS.map(unhexed).map(|whole| {
        let before = read(&whole).unwrap();
        let (text, mut kinds) = (told(&before), [0usize; 3]);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            let kind = match read(&changed) {
                Err(_) => 0,
                Ok(monitor) => {
                    assert!(!monitor.says(&before), "byte {at} makes no difference");
                    if told(&monitor) == text { 2 } else { 1 }
                }
            };
            kinds[kind] += 1;
        }
        kinds
    });
    assert_eq!(kinds, KINDS);
}

/// Bytes of each monitor that are refused if they are others, that are told, and that are told nowhere: slots that have no
/// secret yet, and what LDK remembers of the ways of payments.
const KINDS: [[usize; 3]; 3] = [[4414, 1327, 3021], [4460, 1427, 3212], [4518, 1338, 3073]];

/// The beginning of a monitor that is held: what stands behind it, and how long it is, makes no difference; with less than
/// all of it nothing is read.
#[test]
fn no_part_of_a_beginning_is_read() {
    for whole in MONITORS.map(unhexed) {
        let text = format!("{:?}", known(&whole).unwrap());
        let shortest = (0..whole.len()).find(|length| known(&whole[..*length]).is_ok()).unwrap();
        assert!(shortest < whole.len());
        for length in shortest..whole.len() {
            let mut changed = whole[..length].to_vec();
            changed[shortest..].iter_mut().for_each(|byte| *byte ^= 0x55);
            assert_eq!(format!("{:?}", known(&changed).unwrap()), text, "{length} bytes");
        }
    }
}

/// A bit of each byte of that beginning changes one thing that is told, or none, or it is refused: what follows is read
/// from where it stands.
#[test]
fn a_changed_bit_of_a_beginning_is_one_thing() {
    let other = |one: &Known, two: &Known| {
        let Known { destination, remote_number, local_number, secrets, preimages } = one;
        [
            *destination != two.destination,
            *remote_number != two.remote_number,
            *local_number != two.local_number,
            *secrets != two.secrets,
            *preimages != two.preimages,
        ]
    };
    for whole in MONITORS.map(unhexed) {
        let before = known(&whole).unwrap();
        let shortest = (0..whole.len()).find(|length| known(&whole[..*length]).is_ok()).unwrap();
        let mut changes = [0usize; 5];
        for at in 0..shortest {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            let Ok(known) = known(&changed) else { continue };
            let other = other(&known, &before);
            assert!(other.iter().filter(|is| **is).count() <= 1, "byte {at}: {other:?}");
            other.iter().zip(&mut changes).for_each(|(is, count)| *count += usize::from(*is));
        }
        assert!(changes.iter().all(|count| *count > 0), "{changes:?}");
    }
}
