//! The bytes in `docs/format.md` are those that the codec and the store write.
use crate::samples::{block, facts, handed_out, handed_out_for_several, htlc, offered, register};
use crate::support::{open, put, raw, wait};
use arb_core::arbitrator::Change;
use arb_core::codec::Record;
use arb_core::facts::ChannelEntry;
use arb_core::ids::Slot;
use arb_core::log::{SubscriberState, Write};
use arb_core::ports::{ByteStore, ScriptOwner};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

/// The blocks of the page that start with "```hex NAME", without blanks.
fn page() -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    let text = std::fs::read_to_string(path).expect("docs/format.md");
    let blocks = text.split("```hex ").skip(1).map(|block| {
        let (name, rest) = block.split_once('\n').expect("a name");
        let (hex, _) = rest.split_once("```").expect("an end");
        (name.trim().to_owned(), hex.split_whitespace().collect::<String>())
    });
    blocks.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte"))
        .collect()
}

fn subscriber() -> SubscriberState {
    SubscriberState { next: 7, acknowledged: true }
}

fn preimage() -> Change {
    Change::PreimageLearned {
        preimage: arb_core::ids::Preimage([0x44; 32]),
        source: arb_core::arbitrator::PreimageSource::Downstream(offered(1)),
    }
}

fn judged() -> Change {
    let ours = bitcoin::ScriptBuf::from_bytes([&[0x00, 0x14][..], &[0x05; 20]].concat());
    let other = bitcoin::ScriptBuf::from_bytes(vec![0x51]);
    Change::ScriptsJudged(vec![(ours, ScriptOwner::Node), (other, ScriptOwner::Other)])
}

fn golden<T: Record + PartialEq + Debug>(name: &str, value: &T) {
    let page = page();
    let expected = page.get(name).unwrap_or_else(|| panic!("no block {name}"));
    assert_eq!(&hex(&value.encode()), expected, "{name}");
    assert_eq!(T::decode(&bytes(expected)).as_ref(), Ok(value), "{name}");
}

#[test]
fn records_are_as_documented() {
    golden("ChannelFacts", &facts(1));
    golden("ChannelEntry", &ChannelEntry::of(&facts(1)));
    golden("HtlcRecord", &htlc(3, Some(9)));
    golden("PreimageLearned", &preimage());
    golden("ScriptsJudged", &judged());
    golden("HandedOut", &handed_out());
    golden("HandedOutForSeveral", &handed_out_for_several());
    golden("BlockRef", &block(800_000));
    golden("SubscriberState", &subscriber());
}

#[test]
fn keys_and_values_are_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let identity = hex(&log.identity());
    put(
        &mut log,
        [
            register(0),
            Write::EndedHtlcs { slot: Slot(0), htlcs: vec![(offered(5), htlc(3, Some(9)))] },
            Write::Changes { slot: Slot(0), changes: vec![preimage()] },
            Write::BlockConnected(block(800_000)),
            Write::Subscriber { slot: Slot(0), name: "s1".to_owned(), state: Some(subscriber()) },
            Write::SubscriberToAll { name: "s2".to_owned(), acknowledged: Some(true) },
            Write::SetAside { slot: Slot(0), aside: true },
        ],
    );
    wait(log.bytes().put("ldk/a/b", "key", vec![1, 2, 3])).unwrap();
    drop(log);
    let page = page();
    let names = ["meta", "channels", "facts", "penalty", "log", "chain", "subs", "bytes", "aside"];
    for name in names {
        let entries: Vec<(String, Vec<u8>)> = raw(folder.path(), name, |table, txn| {
            let entries = table.iter(txn).unwrap().map(Result::unwrap);
            entries.map(|(key, value)| (hex(key), value.to_vec())).collect()
        });
        for (key, value) in &entries {
            let (record, sum) = value.split_last_chunk::<4>().expect("a checksum");
            let expected = crc32c::crc32c(&[&bytes(key)[..], record].concat());
            assert_eq!(u32::from_be_bytes(*sum), expected, "checksum in {name}");
        }
        let found: String = entries
            .iter()
            .map(|(key, value)| format!("{key}:{};", hex(&value[..value.len() - 4])))
            .map(|line| line.replace(&identity, "IDENTITY"))
            .collect();
        let expected = page.get(&format!("table {name}")).unwrap_or_else(|| panic!("no {name}"));
        // A record that the page shows elsewhere stands as its name in braces.
        let expected = page.iter().fold(expected.clone(), |text, (name, record)| {
            text.replace(&format!("{{{name}}}"), record)
        });
        assert_eq!(found, expected, "table {name}");
    }
}
