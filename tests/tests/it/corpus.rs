//! The embedded mempool and Bitcoin Core on generated cases. Core's verdicts are kept in
//! `tests/corpus/mempool.txt`; with `BITCOIND_EXE`, or a Core in the cache, they are asked for anew.
use arb_tests::corpus::{CoreMempool, Corpus, Verdicts};
use arb_tests::regtest::{EXECUTABLE, Regtest};
use std::error::Error;
use std::path::PathBuf;

/// Seed and size of the kept corpus.
const SEED: u64 = 7;
const CASES: usize = 2_000;
/// Set to keep what Core says.
const RECORD: &str = "RECORD_CORPUS";

fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus/mempool.txt")
}

/// The lines in which two differ, both versions of each.
fn differences<'a>(one: &'a [String], other: &'a [String]) -> Vec<&'a str> {
    let pairs = one.iter().zip(other).filter(|(one, other)| one != other);
    pairs.flat_map(|(one, other)| [one.as_str(), other.as_str()]).collect()
}

fn read() -> std::io::Result<Vec<String>> {
    let text = std::fs::read_to_string(kept())?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
}

#[tokio::test]
async fn the_embedded_mempool_says_what_core_said() -> Result<(), Box<dyn Error>> {
    let kept = read()?;
    assert_eq!(kept.len(), CASES);
    let verdicts = Corpus::new(SEED, CASES).judge(None).await?;
    let embedded: Vec<String> = verdicts.into_iter().map(|verdicts| verdicts.embedded).collect();
    assert_eq!(embedded.len(), CASES);
    let apart = differences(&embedded, &kept);
    assert!(apart.is_empty(), "embedded, then Core:\n{}", apart.join("\n"));
    // The cases are not all of one sort.
    for word in ["ok", "insufficient fee", "TRUC-violation", "too-large-cluster", "package RBF"] {
        assert!(kept.iter().filter(|line| line.contains(word)).count() >= 20, "{word}");
    }
    assert!(kept.iter().any(|line| line.contains("too many potential replacements")));
    Ok(())
}

#[tokio::test]
async fn core_says_it_still() -> Result<(), Box<dyn Error>> {
    let Some(node) = node().await? else { return Ok(()) };
    let core = CoreMempool::new(node.client().build());
    let verdicts = Corpus::new(SEED, CASES).judge(Some(&core)).await?;
    let (embedded, said): (Vec<String>, Vec<String>) =
        verdicts.into_iter().map(|Verdicts { embedded, core }| (embedded, core)).unzip();
    assert_eq!(said.len(), CASES);
    if std::env::var_os(RECORD).is_some() {
        let head = format!(
            "# Verdicts of {} on the mempool corpus of seed {SEED}: `{RECORD}=1 cargo test -p arb-tests \
             --test it corpus::core`.\n",
            core.version().await?
        );
        let lines: String = said.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        std::fs::write(kept(), head + &lines)?;
    }
    let apart = differences(&embedded, &said);
    assert!(apart.is_empty(), "embedded, then Core:\n{}", apart.join("\n"));
    let apart = differences(&read()?, &said).join("\n");
    assert!(apart.is_empty(), "kept, then said by {}:\n{apart}", core.version().await?);
    Ok(())
}

/// A node whose chain is the genesis block: the one that is named, or the one in the cache.
async fn node() -> Result<Option<Regtest>, Box<dyn Error>> {
    match arb_tests::regtest::executable() {
        Ok(_) => Ok(Some(Regtest::empty(&[]).await?)),
        Err(_) => {
            println!("SKIPPED: {EXECUTABLE} is not set, and the cache has no Bitcoin Core");
            Ok(None)
        }
    }
}
