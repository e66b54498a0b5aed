//! The ports over JSON-RPC against a real Bitcoin Core, which `BITCOIND_EXE` names.
use arb_core::claim::trough::Troughs;
use arb_core::ports::{BlockFees, BlockSource, Broadcast, FeeSource, Package, Verdict};
use arb_core::units::BlockHeight;
use arb_tests::regtest::{EXECUTABLE, Regtest, RegtestError};
use arb_watcher::PastFees;
use arb_watcher::core_rpc::{
    Backoff, CoreBlocks, CoreBlocksConfig, CoreBroadcast, CoreBroadcastConfig, CoreFees,
    CoreFeesConfig,
};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, BlockHash, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness,
};
use std::error::Error;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

type Outcome = Result<(), Box<dyn Error>>;

async fn node() -> Result<Option<Regtest>, RegtestError> {
    if std::env::var_os(EXECUTABLE).is_none() {
        println!("SKIPPED: {EXECUTABLE} is not set, no Bitcoin Core to test against");
        return Ok(None);
    }
    Regtest::start().await.map(Some)
}

fn anyone() -> ScriptBuf {
    ScriptBuf::builder().push_int(1).into_script()
}

fn to_anyone(value: u64) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: anyone().to_p2wsh() }
}

/// Spends outputs that anyone can spend to outputs that anyone can spend.
fn spend(inputs: &[OutPoint], outputs: &[u64]) -> Transaction {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[anyone().into_bytes()]),
        ..TxIn::default()
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: outputs.iter().map(|value| to_anyone(*value)).collect(),
    }
}

fn output(transaction: &Transaction, vout: u32) -> OutPoint {
    OutPoint::new(transaction.compute_txid(), vout)
}

async fn coin(node: &mut Regtest) -> Result<OutPoint, RegtestError> {
    node.fund(anyone().to_p2wsh(), Amount::from_sat(100_000)).await
}

fn blocks(node: &Regtest, poll: Duration) -> CoreBlocks {
    let config = CoreBlocksConfig { poll, ..CoreBlocksConfig::default() };
    CoreBlocks::new(node.client().build(), config)
}

#[track_caller]
fn reason(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Conflict(reason)
        | Verdict::FeeTooLow(reason)
        | Verdict::NotFinal(reason)
        | Verdict::Refused(reason) => reason,
        Verdict::Accepted | Verdict::Known | Verdict::HandedOver => {
            panic!("{verdict:?} is no rejection")
        }
    }
}

#[tokio::test]
async fn blocks_are_followed_and_a_reorganisation_is_seen() -> Outcome {
    let Some(mut node) = node().await? else { return Ok(()) };
    let source = blocks(&node, Duration::from_secs(20));
    // The first wait ends at once: the tip may have changed since before.
    timeout(Duration::from_secs(5), source.changed()).await?;
    let before = source.tip().await?;

    let (mined, ()) = tokio::join!(
        async {
            sleep(Duration::from_millis(300)).await;
            node.mine(1).await
        },
        async {
            timeout(Duration::from_secs(10), source.changed()).await.expect("the block is noticed");
        }
    );
    let mined = mined?[0];
    let tip = source.tip().await?;
    assert_eq!(tip.height, BlockHeight(before.height.0 + 1));
    assert_eq!(tip.hash, mined);
    let block = source.block(mined).await?.expect("the tip is there");
    assert_eq!(block.header.prev_blockhash, before.hash);
    assert!(block.check_merkle_root() && block.check_witness_commitment());

    assert_eq!(source.hash_at(tip.height).await?, Some(mined));
    assert_eq!(source.hash_at(BlockHeight(tip.height.0 + 1)).await?, None);
    assert_eq!(source.hash_at(BlockHeight(u32::MAX)).await?, None);
    assert_eq!(source.block(BlockHash::all_zeros()).await?, None);

    source.changed_after(async { node.mine(2).await }).await?;
    let stale = source.tip().await?;
    node.disconnect(3, &[], |_| false).await?;
    assert_eq!(source.tip().await?, before);
    let branch = source.changed_after(async { node.mine(4).await }).await?;
    assert_eq!(source.tip().await?.hash, branch[3]);
    assert_eq!(source.hash_at(tip.height).await?, Some(branch[0]));
    assert_ne!(branch[0], mined);
    assert!(source.block(stale.hash).await?.is_some(), "stale blocks stay available");
    Ok(())
}

/// A wait that runs while something happens, and must end because of it.
trait ChangedAfter {
    async fn changed_after<T>(
        &self,
        event: impl Future<Output = Result<T, RegtestError>>,
    ) -> Result<T, RegtestError>;
}

impl ChangedAfter for CoreBlocks {
    async fn changed_after<T>(
        &self,
        event: impl Future<Output = Result<T, RegtestError>>,
    ) -> Result<T, RegtestError> {
        let wait = timeout(Duration::from_secs(10), self.changed());
        let (event, waited) = tokio::join!(event, wait);
        waited.expect("the new tip is noticed before the poll interval is over");
        event
    }
}

#[tokio::test]
async fn a_pruned_block_is_not_there() -> Outcome {
    if std::env::var_os(EXECUTABLE).is_none() {
        println!("SKIPPED: {EXECUTABLE} is not set, no Bitcoin Core to test against");
        return Ok(());
    }
    let node = Regtest::start_with(&["-prune=1", "-fastprune"]).await?;
    node.mine(700).await?;
    let rpc = node.client().build();
    rpc.call("pruneblockchain", vec![400.into()]).await?;
    let source = CoreBlocks::new(rpc, CoreBlocksConfig::default());
    let early = source.hash_at(BlockHeight(1)).await?.expect("headers stay");
    assert_eq!(source.block(early).await?, None);
    assert!(source.block(source.tip().await?.hash).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn mempool_spenders_are_found() -> Outcome {
    let Some(mut node) = node().await? else { return Ok(()) };
    let coins = [coin(&mut node).await?, coin(&mut node).await?, coin(&mut node).await?];
    let both = spend(&coins[..2], &[190_000]);
    let child = spend(&[output(&both, 0)], &[180_000]);
    assert_eq!(node.submit(&both).await?, Verdict::Accepted);
    assert_eq!(node.submit(&child).await?, Verdict::Accepted);

    let asked = vec![coins[0], coins[1], coins[2], output(&both, 0), output(&child, 0)];
    for outpoints_per_call in [1, 2, 500] {
        let config = CoreBlocksConfig { outpoints_per_call, ..CoreBlocksConfig::default() };
        let source = CoreBlocks::new(node.client().build(), config);
        let mut found = source.mempool_spenders(asked.clone()).await?;
        found.sort_by_key(|transaction| transaction.compute_txid() != both.compute_txid());
        assert_eq!(found, [both.clone(), child.clone()]);
        assert_eq!(source.mempool_spenders(vec![]).await?, []);
    }
    assert_eq!(node.mempool().await?, [both.clone(), child.clone()]);
    assert_eq!(node.mempool_spender(coins[0]).await?, Some(both));
    node.mine(1).await?;
    assert_eq!(node.mempool_spender(coins[0]).await?, None, "a block is no mempool");
    Ok(())
}

#[tokio::test]
async fn a_child_brings_its_parent_in() -> Outcome {
    let Some(mut node) = node().await? else { return Ok(()) };
    let port = CoreBroadcast::new(node.client().build(), CoreBroadcastConfig::default());
    let send = async |transactions: &[&Transaction]| {
        let transactions: Vec<Transaction> = transactions.iter().copied().cloned().collect();
        let txids: Vec<Txid> = transactions.iter().map(Transaction::compute_txid).collect();
        let verdicts = port.broadcast(Package::from(transactions)).await?;
        assert_eq!(verdicts.iter().map(|(txid, _)| *txid).collect::<Vec<_>>(), txids);
        Ok::<Vec<Verdict>, Box<dyn Error>>(verdicts.into_iter().map(|(_, v)| v).collect())
    };

    let commitment = spend(&[coin(&mut node).await?], &[60_000, 40_000]);
    let poor = spend(&[output(&commitment, 1)], &[39_990]);
    let child = spend(&[output(&commitment, 1)], &[38_000]);
    let alone = send(&[&commitment]).await?;
    assert!(matches!(&alone[0], Verdict::FeeTooLow(_)), "{alone:?}");
    let verdicts = send(&[&commitment, &poor]).await?;
    assert!(verdicts.iter().all(|v| matches!(v, Verdict::FeeTooLow(_))), "{verdicts:?}");

    assert_eq!(send(&[&commitment, &child]).await?, [Verdict::Accepted, Verdict::Accepted]);
    assert_eq!(send(&[&commitment, &child]).await?, [Verdict::Known, Verdict::Known]);
    // A better child replaces it beside the parent that is in already.
    let better = spend(&[output(&commitment, 1)], &[36_000]);
    assert_eq!(send(&[&commitment, &better]).await?, [Verdict::Known, Verdict::Accepted]);
    let worse = send(&[&commitment, &child]).await?;
    assert_eq!(worse[0], Verdict::Known);
    assert!(reason(&worse[1]).starts_with("insufficient fee"), "{worse:?}");

    // The parent is confirmed, the child is not: the package is still good.
    node.mine_only(std::slice::from_ref(&commitment)).await?;
    assert_eq!(send(&[&commitment, &better]).await?, [Verdict::Known, Verdict::Known]);
    let other = spend(&[output(&commitment, 0)], &[59_000]);
    assert_eq!(send(&[&commitment, &other]).await?, [Verdict::Known, Verdict::Accepted]);
    node.mine(1).await?;
    // All outputs of the parent are spent in blocks: nothing is left that says that it was there.
    let verdicts = send(&[&commitment, &better]).await?;
    assert!(matches!(&verdicts[0], Verdict::Conflict(_)), "{verdicts:?}");
    assert_eq!(verdicts[1], Verdict::Known);
    Ok(())
}

#[tokio::test]
async fn packages_of_other_shapes_go_out_too() -> Outcome {
    let Some(mut node) = node().await? else { return Ok(()) };
    let (first, second) = (coin(&mut node).await?, coin(&mut node).await?);
    // No child with its parents, and one that spends what nobody knows.
    let a = spend(&[first], &[90_000]);
    let b = spend(&[second], &[90_000]);
    let c = spend(&[output(&a, 0)], &[80_000]);
    let stray = spend(&[OutPoint::new(Txid::all_zeros(), 7)], &[80_000]);
    let verdicts = node.submit_package(&[a.clone(), b.clone(), c.clone(), stray]).await?;
    assert_eq!(verdicts[..3], [Verdict::Accepted, Verdict::Accepted, Verdict::Accepted]);
    assert!(matches!(&verdicts[3], Verdict::Conflict(_)), "{verdicts:?}");

    // A package that replaces must pay for it: the child is told so.
    let rival = spend(&[second], &[100_000]);
    let cheap = spend(&[output(&rival, 0)], &[95_000]);
    let verdicts = node.submit_package(&[rival.clone(), cheap]).await?;
    assert!(matches!(&verdicts[0], Verdict::FeeTooLow(_)), "{verdicts:?}");
    assert!(matches!(&verdicts[1], Verdict::FeeTooLow(_)), "{verdicts:?}");
    assert!(reason(&verdicts[1]).starts_with("package RBF failed"), "{verdicts:?}");
    let rich = spend(&[output(&rival, 0)], &[60_000]);
    assert_eq!(node.submit_package(&[rival, rich]).await?, [Verdict::Accepted, Verdict::Accepted]);
    Ok(())
}

#[tokio::test]
async fn rejections_are_told_apart() -> Outcome {
    let Some(mut node) = node().await? else { return Ok(()) };
    let coin = coin(&mut node).await?;
    let good = spend(&[coin], &[90_000]);

    let missing = spend(&[OutPoint::new(Txid::all_zeros(), 0)], &[1_000]);
    let verdict = node.submit(&missing).await?;
    assert_eq!(verdict, Verdict::Conflict("bad-txns-inputs-missingorspent".to_owned()));

    let verdict = node.submit(&spend(&[coin], &[99_990])).await?;
    assert!(matches!(&verdict, Verdict::FeeTooLow(_)), "{verdict:?}");
    assert!(reason(&verdict).starts_with("min relay fee not met"), "{verdict:?}");

    let height = node.tip().await?.height.0;
    let mut early = good.clone();
    early.lock_time = LockTime::from_height(height + 1)?;
    assert_eq!(node.submit(&early).await?, Verdict::NotFinal("non-final".to_owned()));
    let mut young = good.clone();
    young.input[0].sequence = Sequence::from_height(3);
    assert_eq!(node.submit(&young).await?, Verdict::NotFinal("non-BIP68-final".to_owned()));

    let mut unsigned = good.clone();
    unsigned.input[0].witness = Witness::from_slice(&[[0x51], [0x52]]);
    let verdict = node.submit(&unsigned).await?;
    assert!(matches!(&verdict, Verdict::Refused(_)), "{verdict:?}");
    let verdict = node.submit(&spend(&[coin], &[90_000, 1])).await?;
    assert!(matches!(&verdict, Verdict::Refused(_)), "{verdict:?}");
    assert!(reason(&verdict).starts_with("dust"), "{verdict:?}");
    let verdict = node.submit(&Transaction { input: vec![], ..good.clone() }).await?;
    assert!(matches!(&verdict, Verdict::Refused(_)), "{verdict:?}");

    assert_eq!(node.submit(&good).await?, Verdict::Accepted);
    assert_eq!(node.submit(&good).await?, Verdict::Accepted, "announced again");
    let verdict = node.submit(&spend(&[coin], &[89_999])).await?;
    assert!(matches!(&verdict, Verdict::FeeTooLow(_)), "{verdict:?}");
    assert!(reason(&verdict).starts_with("insufficient fee"), "{verdict:?}");

    node.mine(1).await?;
    assert_eq!(node.submit(&good).await?, Verdict::Known);
    let verdict = node.submit(&spend(&[coin], &[50_000])).await?;
    assert!(matches!(&verdict, Verdict::Conflict(_)), "{verdict:?}");

    // The relative lock is over two blocks later.
    let mut aged = spend(&[output(&good, 0)], &[80_000]);
    aged.input[0].sequence = Sequence::from_height(3);
    assert!(matches!(node.submit(&aged).await?, Verdict::NotFinal(_)));
    node.mine(2).await?;
    assert_eq!(node.submit(&aged).await?, Verdict::Accepted);
    Ok(())
}

#[tokio::test]
async fn a_restart_of_the_node_is_survived() -> Outcome {
    let Some(mut node) = node().await? else { return Ok(()) };
    let rpc = node.client().build();
    let source = CoreBlocks::new(rpc, CoreBlocksConfig::default());
    let before = source.tip().await?;
    let cookie = std::fs::read(node.cookie())?;
    node.stop().await?;
    let (tip, restarted) = tokio::join!(source.tip(), async {
        sleep(Duration::from_millis(700)).await;
        node.restart(&[]).await
    });
    restarted?;
    assert_eq!(tip?, before);
    assert_ne!(std::fs::read(node.cookie())?, cookie, "the node has another cookie now");

    // Without a node, a call ends with an error, and in time.
    let backoff = Backoff { first: Duration::from_millis(50), retries: 2, ..Backoff::default() };
    let impatient = node.client().backoff(backoff).build();
    let source = CoreBlocks::new(impatient, CoreBlocksConfig::default());
    node.stop().await?;
    let since = Instant::now();
    let error = source.tip().await.expect_err("the node is down");
    assert!(since.elapsed() < Duration::from_secs(10), "{error}");
    assert!(since.elapsed() >= Duration::from_millis(150), "two waits: {error}");
    Ok(())
}

#[tokio::test]
async fn fees_have_a_fallback_and_the_floor_is_the_nodes() -> Outcome {
    let Some(mut node) = node().await? else { return Ok(()) };
    let fallback = vec![(2, FeeRate::from_sat_per_kwu(5_000)), (6, FeeRate::from_sat_per_kwu(900))];
    let config = CoreFeesConfig { fallback: fallback.clone(), ..CoreFeesConfig::default() };
    let fees = CoreFees::new(node.client().build(), config);
    let estimates = fees.estimates().await?;
    assert_eq!(estimates.targets, fallback);
    assert_eq!(estimates.floor, FeeRate::from_sat_per_kwu(250));

    let coin = coin(&mut node).await?;
    let low = spend(&[coin], &[99_000]);
    assert_eq!(node.submit(&low).await?, Verdict::Accepted);
    node.set_floor(FeeRate::from_sat_per_kwu(25_000)).await?;
    assert_eq!(fees.estimates().await?.floor, FeeRate::from_sat_per_kwu(25_000));
    assert_eq!(node.mempool().await?, [], "what is below the floor left the mempool");
    assert!(matches!(node.submit(&low).await?, Verdict::FeeTooLow(_)));
    Ok(())
}

#[tokio::test]
async fn blocks_and_reorganisations_leave_out_what_they_are_told_to() -> Outcome {
    let Some(mut node) = node().await? else { return Ok(()) };
    let coins = [coin(&mut node).await?, coin(&mut node).await?];
    let censored = spend(&coins[..1], &[90_000]);
    let child = spend(&[output(&censored, 0)], &[50_000]);
    let taken = spend(&coins[1..], &[99_000]);
    for transaction in [&censored, &child, &taken] {
        assert_eq!(node.submit(transaction).await?, Verdict::Accepted);
    }
    let hash = node.mine_empty().await?;
    assert_eq!(node.block(hash).await?.expect("mined").txdata.len(), 1);
    let hash = node.mine_without(|transaction| *transaction == censored).await?;
    let block = node.block(hash).await?.expect("mined");
    assert_eq!(block.txdata.get(1..), Some(std::slice::from_ref(&taken)));
    assert_eq!(node.mempool().await?, [censored.clone(), child.clone()]);
    node.mine(1).await?;
    assert_eq!(node.mempool().await?, []);

    // Both blocks go; one transaction is lost with its child, the other waits again.
    let tip = node.tip().await?;
    node.disconnect(2, &[], |transaction| *transaction == censored).await?;
    assert_eq!(node.tip().await?.height, BlockHeight(tip.height.0 - 2));
    assert_eq!(node.mempool().await?, std::slice::from_ref(&taken));
    node.mine(3).await?;
    assert_eq!(node.tip().await?.height, BlockHeight(tip.height.0 + 1));
    assert_eq!(node.submit(&taken).await?, Verdict::Known);
    assert_eq!(node.submit(&censored).await?, Verdict::Accepted);

    // What came in as a package comes back as one, although its parent is below the floor.
    let parent = spend(&[coin(&mut node).await?], &[50_000, 50_000]);
    let child = spend(&[output(&parent, 1)], &[40_000]);
    assert_eq!(
        node.submit_package(&[parent.clone(), child.clone()]).await?,
        [Verdict::Accepted, Verdict::Accepted]
    );
    node.mine(1).await?;
    let lost = spend(&[output(&parent, 0)], &[40_000]);
    assert_eq!(node.submit(&lost).await?, Verdict::Accepted);
    node.disconnect(1, &[], |transaction| *transaction == lost).await?;
    // The block held the lost transaction of before as well.
    let mut left = node.mempool().await?;
    left.retain(|transaction| *transaction != censored);
    assert_eq!(left, [parent, child]);
    node.mine(2).await?;

    // Coins of the wallet that a reorganisation takes away are not offered.
    let payment = node.fund(anyone().to_p2wsh(), Amount::from_sat(40_000_000)).await?;
    node.disconnect(1, &[], |transaction| transaction.compute_txid() == payment.txid).await?;
    for _ in 0..3 {
        node.fund(anyone().to_p2wsh(), Amount::from_sat(90_000_000)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn blocks_tell_what_they_took() -> Outcome {
    let Some(mut node) = node().await? else { return Ok(()) };
    let source = blocks(&node, Duration::from_secs(1));
    // The funding transaction has left a block for a coin: there was room for more.
    coin(&mut node).await?;
    let mut taken = Vec::new();
    let tip = source.tip().await?;
    for height in (1..=tip.height.0).map(BlockHeight) {
        let hash = source.hash_at(height).await?.ok_or("a block below the tip")?;
        taken.push(source.past_block(hash).await?);
    }
    assert_eq!(taken.first(), Some(&None), "an empty block does not tell");
    let told: Vec<_> = taken.iter().flatten().collect();
    assert!(told.iter().any(|block| block.feerate == FeeRate::ZERO), "{taken:?}");
    // Core's first block of such a chain is of 2011.
    assert!(told.iter().all(|block| block.time > 1_296_688_602), "{taken:?}");
    assert_eq!(source.past_block(BlockHash::all_zeros()).await?, None);
    let config = CoreFeesConfig {
        fallback: vec![(2, FeeRate::from_sat_per_vb_u32(5))],
        ..CoreFeesConfig::default()
    };
    let fees = PastFees::new(CoreFees::new(node.client().build(), config), source);
    for _ in 0..5 {
        let estimates = fees.estimates().await?;
        assert_eq!(estimates.within(2), FeeRate::from_sat_per_vb_u32(5));
        assert_eq!(estimates.troughs, Troughs::default(), "less than two days");
    }
    Ok(())
}
