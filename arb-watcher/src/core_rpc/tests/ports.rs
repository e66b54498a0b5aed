//! The ports: what they ask, and what they make of the answers.
use super::*;
use arb_core::claim::trough::PastBlock;
use arb_core::ports::{BlockFees, BlockSource, Broadcast, FeeSource, Package, Verdict};
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, BlockHash, FeeRate, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Txid, Witness,
    constants,
};
use tokio::time::Instant;

fn spend(previous_output: OutPoint) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn { previous_output, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::ONE_BTC, script_pubkey: ScriptBuf::new() }],
    }
}

fn pair() -> [Transaction; 2] {
    let parent = spend(OutPoint::new(Txid::all_zeros(), 3));
    let child = spend(OutPoint::new(parent.compute_txid(), 0));
    [parent, child]
}

async fn publish(
    transactions: &[Transaction],
    script: Vec<Answers>,
) -> (Result<Vec<Verdict>, CoreError>, Vec<&'static str>) {
    let (rpc, heard) = scripted(script);
    let config = CoreBroadcastConfig { max_burn: Amount::from_sat(330) };
    let package = Package::from(transactions.to_vec());
    let verdicts = CoreBroadcast::new(rpc, config).broadcast(package).await;
    for request in heard.lock().unwrap().iter() {
        // Where the node takes nothing else it gets the package alone.
        let limits = &request.params[1..];
        let ours = *limits == [json!(0), json!("0.0000033")];
        assert!(ours || request.method == "submitpackage" && limits.is_empty(), "{limits:?}");
    }
    let verdicts = verdicts.map(|verdicts| {
        let ids: Vec<Txid> = verdicts.iter().map(|(txid, _)| *txid).collect();
        assert_eq!(ids, transactions.iter().map(Transaction::compute_txid).collect::<Vec<_>>());
        verdicts.into_iter().map(|(_, verdict)| verdict).collect()
    });
    (verdicts, methods(&heard))
}

fn package(message: &str, results: [Value; 2]) -> Answers {
    let [parent, child] = pair().map(|transaction| transaction.compute_wtxid().to_string());
    let [first, second] = results;
    says(json!({"package_msg": message, "tx-results": {child: second, parent: first}}))
}

const SENT: &str = "sendrawtransaction";

#[tokio::test]
async fn one_transaction_is_sent_alone() {
    let [parent, _] = pair();
    let txid = json!(parent.compute_txid().to_string());
    let cases = [
        (says(txid), Verdict::Accepted),
        (fails(-27, "Transaction outputs already in utxo set"), Verdict::Known),
        (fails(-26, "txn-already-known"), Verdict::Known),
        (fails(-26, "dust, tx with dust output must be 0-fee"), {
            Verdict::Refused("dust, tx with dust output must be 0-fee".to_owned())
        }),
        (fails(-26, "something new"), Verdict::Refused("something new".to_owned())),
        (fails(-22, "TX decode failed"), Verdict::Refused("TX decode failed".to_owned())),
    ];
    for (answer, verdict) in cases {
        let (verdicts, methods) = publish(std::slice::from_ref(&parent), vec![answer]).await;
        assert_eq!(verdicts.unwrap(), [verdict]);
        assert_eq!(methods, [SENT]);
    }
    assert_eq!(publish(&[], vec![]).await.0.unwrap(), []);
}

// incident eclair-3346
#[tokio::test]
async fn trouble_of_the_node_is_no_verdict() {
    let answers = || {
        [
            fails(-25, "Mempool internal error"),
            fails(-37, "Private broadcast queue is full"),
            fails(-28, "Loading block index"),
            fails(-33, "Mempool disabled"),
            Err(refused()),
        ]
    };
    let [parent, child] = pair();
    for answer in answers() {
        let (verdicts, _) = publish(std::slice::from_ref(&parent), vec![answer]).await;
        assert!(verdicts.is_err(), "{verdicts:?}");
    }
    let all = [parent, child];
    for answer in answers().into_iter().skip(1) {
        assert!(publish(&all, vec![answer]).await.0.is_err());
    }
    for odd in [json!(null), json!({}), json!({"tx-results": 1, "package_msg": "success"})] {
        let (verdicts, _) = publish(&all, vec![says(odd)]).await;
        assert!(matches!(verdicts, Err(CoreError::Answer { .. })), "{verdicts:?}");
    }
}

#[tokio::test]
async fn a_package_that_the_node_does_not_take_is_sent_one_by_one() {
    for (code, message) in [
        (-32601, "Method not found"),
        (
            -25,
            "package topology disallowed. not child-with-parents or parents depend on each other.",
        ),
        (-8, "Array must contain between 1 and 25 transactions."),
        (-22, "TX decode failed"),
    ] {
        let script = vec![
            fails(code, message),
            fails(-26, "min relay fee not met, 0 < 100"),
            fails(-25, "bad-txns-inputs-missingorspent"),
        ];
        let (verdicts, methods) = publish(&pair(), script).await;
        let verdicts = verdicts.unwrap();
        assert!(matches!(verdicts[0], Verdict::FeeTooLow(_)), "{verdicts:?}");
        assert!(matches!(verdicts[1], Verdict::Conflict(_)), "{verdicts:?}");
        assert_eq!(methods, ["submitpackage", SENT, SENT]);
    }
}

/// Bitcoin Core 26 answers what has more than one argument with its help.
#[tokio::test]
async fn a_node_that_takes_a_package_alone_gets_it_so() {
    let help = || fails(-1, "submitpackage [\"rawtx\",...]");
    let accepted = json!({"fees": {"base": 0.1}});
    let script = vec![help(), package("success", [accepted.clone(), accepted])];
    let (verdicts, methods) = publish(&pair(), script).await;
    assert!(verdicts.unwrap().iter().all(Verdict::is_in));
    assert_eq!(methods, ["submitpackage", "submitpackage"]);
    let script = vec![help(), help(), says(json!("txid")), says(json!("txid"))];
    let (verdicts, methods) = publish(&pair(), script).await;
    assert!(verdicts.unwrap().iter().all(Verdict::is_in));
    assert_eq!(methods, ["submitpackage", "submitpackage", SENT, SENT]);
}

#[tokio::test]
async fn each_transaction_of_a_package_has_its_verdict() {
    let accepted = json!({"fees": {"base": 0.1, "effective-feerate": 0.2}});
    let known = json!({"fees": {"base": 0.1}});
    let other = json!({"other-wtxid": "00"});
    let script = vec![package("success", [known, accepted.clone()])];
    let (verdicts, methods) = publish(&pair(), script).await;
    assert_eq!(verdicts.unwrap(), [Verdict::Known, Verdict::Accepted]);
    assert_eq!(methods, ["submitpackage"]);
    let (verdicts, _) = publish(&pair(), vec![package("success", [other, accepted])]).await;
    assert_eq!(verdicts.unwrap(), [Verdict::Known, Verdict::Accepted]);
}

#[tokio::test]
async fn what_a_package_leaves_open_is_settled_alone() {
    let missing = json!({"error": "bad-txns-inputs-missingorspent"});
    let unseen = json!({"error": "package-not-validated"});
    let low = json!({"error": "min relay fee not met, 0 < 100"});
    let in_block = || fails(-27, "Transaction outputs already in utxo set");

    // The parent is in a block, which submitpackage does not notice.
    let script = vec![
        package("transaction failed", [missing.clone(), missing.clone()]),
        in_block(),
        says(json!("txid")),
    ];
    let (verdicts, methods) = publish(&pair(), script).await;
    assert_eq!(verdicts.unwrap(), [Verdict::Known, Verdict::Accepted]);
    assert_eq!(methods, ["submitpackage", SENT, SENT]);

    // The node gave up before it looked.
    let script =
        vec![package("package-too-large", [unseen.clone(), unseen]), fails(-26, "non-final")];
    let (verdicts, _) = publish(&pair(), script).await;
    let wanted = [
        Verdict::NotFinal("non-final".to_owned()),
        Verdict::Refused("package-too-large".to_owned()),
    ];
    assert_eq!(verdicts.unwrap(), wanted);

    // The package as a whole pays too little: so says the child.
    let reason = "package RBF failed: insufficient anti-DoS fees, rejecting replacement";
    let (verdicts, _) = publish(&pair(), vec![package(reason, [low, missing])]).await;
    let wanted = [
        Verdict::FeeTooLow("min relay fee not met, 0 < 100".to_owned()),
        Verdict::FeeTooLow(reason.to_owned()),
    ];
    assert_eq!(verdicts.unwrap(), wanted);
}

#[test]
fn reasons_are_read_with_their_details() {
    let fee = "insufficient fee (including sibling eviction), rejecting replacement ab, less fees";
    assert_eq!(verdict_of(fee), Verdict::FeeTooLow(fee.to_owned()));
    assert_eq!(verdict_of("mempool full"), Verdict::FeeTooLow("mempool full".to_owned()));
    assert_eq!(verdict_of("txn-already-in-mempool"), Verdict::Known);
    let lock = "non-BIP68-final";
    assert_eq!(verdict_of(lock), Verdict::NotFinal(lock.to_owned()));
    let rival = "bip125-replacement-disallowed";
    assert_eq!(verdict_of(rival), Verdict::Conflict(rival.to_owned()));
    for refused in ["TRUC-violation, too big", "too-large-cluster", "scriptpubkey", ""] {
        assert_eq!(verdict_of(refused), Verdict::Refused(refused.to_owned()));
    }
}

fn blocks(script: Vec<Answers>) -> (CoreBlocks, Heard) {
    let (rpc, heard) = scripted(script);
    (CoreBlocks::new(rpc, CoreBlocksConfig::default()), heard)
}

#[tokio::test]
async fn blocks_are_decoded_and_must_be_the_ones_asked_for() {
    let genesis = constants::genesis_block(bitcoin::Network::Regtest);
    let (hash, raw) = (genesis.block_hash(), serialize_hex(&genesis));
    let (source, heard) = blocks(vec![says(json!(raw))]);
    assert_eq!(source.block(hash).await.unwrap(), Some(genesis));
    assert_eq!(heard.lock().unwrap()[0].params, [json!(hash.to_string()), json!(0)]);

    for gone in [fails(-5, "Block not found"), fails(-1, "Block not available (pruned data)")] {
        let (source, _) = blocks(vec![gone]);
        assert_eq!(source.block(hash).await.unwrap(), None);
    }
    let (source, _) = blocks(vec![fails(-1, "JSON value is not a string")]);
    assert!(matches!(source.block(hash).await, Err(CoreError::Node { .. })));

    let mut long = raw.clone();
    long.push_str("00");
    for odd in [json!(null), json!("zz"), json!(raw[..160]), json!(raw[2..]), json!(long)] {
        let (source, _) = blocks(vec![says(odd.clone())]);
        assert!(matches!(source.block(hash).await, Err(CoreError::Answer { .. })), "{odd}");
    }
    let (source, _) = blocks(vec![says(json!(raw))]);
    let other = source.block(BlockHash::all_zeros()).await;
    assert!(matches!(other, Err(CoreError::Answer { .. })), "{other:?}");
}

/// A block that consensus allows and that stopped other readers: a witness of more than 500,000
/// elements, and one element of nearly the whole block.
// incident lnd-7002
// incident attack-17
#[tokio::test]
async fn a_block_as_odd_as_consensus_allows_is_read() {
    let mut block = constants::genesis_block(bitcoin::Network::Regtest);
    for witness in [Witness::from_slice(&vec![b""; 500_003]), Witness::from_slice(&[[7; 390_000]])]
    {
        block.txdata.push(Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn { witness, ..TxIn::default() }],
            output: vec![],
        });
    }
    let (hash, raw) = (block.block_hash(), serialize_hex(&block));
    let (source, _) = blocks(vec![says(json!(raw))]);
    assert_eq!(source.block(hash).await.unwrap(), Some(block));
}

#[tokio::test]
async fn tips_and_heights_are_checked() {
    let hash = BlockHash::all_zeros();
    let good = json!({"blocks": 7, "bestblockhash": hash.to_string(), "headers": 9});
    let (source, _) = blocks(vec![says(good)]);
    assert_eq!(source.tip().await.unwrap(), BlockRef { height: BlockHeight(7), hash });
    for odd in [
        json!({}),
        json!({"blocks": 7}),
        json!({"blocks": -7, "bestblockhash": hash.to_string()}),
        json!({"blocks": 4294967296_u64, "bestblockhash": hash.to_string()}),
        json!({"blocks": 7, "bestblockhash": "00"}),
    ] {
        let (source, _) = blocks(vec![says(odd)]);
        assert!(matches!(source.tip().await, Err(CoreError::Answer { .. })));
    }
    let (source, _) = blocks(vec![fails(-8, "Block height out of range")]);
    assert_eq!(source.hash_at(BlockHeight(8)).await.unwrap(), None);
    let (source, _) = blocks(vec![fails(-20, "Database error")]);
    assert!(source.hash_at(BlockHeight(8)).await.is_err());
}

/// A transaction that takes very many of the outputs that are asked about comes once: with each of
/// them it would be more than any reply may be.
#[tokio::test]
async fn a_transaction_that_spends_much_is_fetched_once() {
    let [large, other] = pair();
    let id = large.compute_txid().to_string();
    let entry = |vout: u32| json!({"txid": "x", "vout": vout, "spendingtxid": id});
    let page = || says((0..500).map(entry).collect());
    let (source, heard) = blocks(vec![page(), page(), Ok(vec![Ok(json!(serialize_hex(&large)))])]);
    let found = source.mempool_spenders(vec![OutPoint::null(); 1_000]).await.unwrap();
    assert_eq!(found, [large]);
    assert_eq!(
        methods(&heard),
        ["gettxspendingprevout", "gettxspendingprevout", "getrawtransaction"]
    );
    let options = &heard.lock().unwrap()[0].params[1];
    assert_eq!(options, &json!({"mempool_only": true}), "no bytes: {other:?} is not among them");
}

/// Very many transactions come in several replies.
#[tokio::test]
async fn many_transactions_are_fetched_a_few_at_a_time() {
    let made = |n: u32| Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(n),
        input: vec![],
        output: vec![TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::new() }],
    };
    let mut all: Vec<Transaction> = (0..40).map(made).collect();
    all.sort_by_key(Transaction::compute_txid);
    let entry = |tx: &Transaction| json!({"txid": "x", "vout": 0, "spendingtxid": tx.compute_txid().to_string()});
    let raw =
        |some: &[Transaction]| Ok(some.iter().map(|tx| Ok(json!(serialize_hex(tx)))).collect());
    let spenders = says(all.iter().map(entry).collect());
    let (source, _) = blocks(vec![spenders, raw(&all[..32]), raw(&all[32..])]);
    let found = source.mempool_spenders(vec![OutPoint::null()]).await.unwrap();
    assert_eq!(found, all);
}

#[tokio::test]
async fn an_older_node_names_spenders_by_id() {
    let [a, b] = pair();
    let ids = [a.compute_txid(), b.compute_txid()].map(|txid| txid.to_string());
    let entries = json!([
        {"txid": "x", "vout": 0, "spendingtxid": ids[0]},
        {"txid": "x", "vout": 1, "spendingtxid": ids[0]},
        {"txid": "x", "vout": 2},
        {"txid": "x", "vout": 3, "spendingtxid": ids[1]},
        {"txid": "x", "vout": 4, "spendingtxid": ids[1], "blockhash": "y"},
    ]);
    let left = Err(error(-5, "No such mempool transaction"));
    let mut raw = vec![Ok(json!(serialize_hex(&a))), left];
    if ids[1] < ids[0] {
        raw.reverse();
    }
    let script = vec![fails(-1, "gettxspendingprevout [...]"), says(entries), Ok(raw)];
    let (source, heard) = blocks(script);
    let asked = vec![OutPoint::null()];
    let found = source.mempool_spenders(asked.clone()).await.unwrap();
    // Which of the two left the mempool depends on the order in which they were asked for.
    assert_eq!(found, [a]);
    let spenders = "gettxspendingprevout";
    let raw = "getrawtransaction";
    assert_eq!(methods(&heard), [spenders, spenders, raw, raw]);

    for odd in [json!({}), json!([{"spendingtxid": 5}]), json!([{"spendingtxid": "5"}])] {
        let (source, _) = blocks(vec![says(odd)]);
        let found = source.mempool_spenders(asked.clone()).await;
        assert!(matches!(found, Err(CoreError::Answer { .. })), "{found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_never_spins() {
    let tip = |byte| json!({"hash": BlockHash::from_byte_array([byte; 32]).to_string()});
    let hash = json!(BlockHash::from_byte_array([1; 32]).to_string());
    let script = vec![
        says(hash),
        says(tip(1)), // shutting down: answers at once, with the same tip
        Err(refused()),
        fails(-32601, "Method not found"),
        says(json!({})),
        says(tip(2)),
    ];
    let (source, heard) = blocks(script);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let since = Instant::now();
        source.changed().await;
        waits.push(since.elapsed().as_secs());
    }
    assert_eq!(waits, [0, 10, 10, 10, 10, 0]);
    let first = BlockHash::from_byte_array([1; 32]).to_string();
    for request in &heard.lock().unwrap()[1..] {
        assert_eq!(request.method, "waitfornewblock");
        assert_eq!(request.params, [json!(10_000), json!(first)]);
    }
}

fn fees(answers: Answers, fallback: Vec<(u16, FeeRate)>) -> (CoreFees, Heard) {
    let (rpc, heard) = scripted(vec![answers]);
    let config = CoreFeesConfig { targets: vec![2, 6, 144], fallback, ..CoreFeesConfig::default() };
    (CoreFees::new(rpc, config), heard)
}

const fn rate(sat_per_kwu: u64) -> FeeRate {
    FeeRate::from_sat_per_kwu(sat_per_kwu)
}

#[tokio::test]
async fn estimates_are_rounded_up_and_fall_with_time() {
    let mempool = json!({"mempoolminfee": 0.00000101, "minrelaytxfee": 0.000001});
    let nothing = json!({"errors": ["Insufficient data or no feerate found"], "blocks": 2});
    let answers = Ok(vec![
        Ok(mempool.clone()),
        Ok(json!({"feerate": 0.0002, "blocks": 2})),
        Ok(json!({"feerate": 0.00020002, "blocks": 6})),
        Ok(json!({"feerate": 0.00001001, "blocks": 144})),
    ]);
    let (source, heard) = fees(answers, vec![(2, rate(1))]);
    let estimates = source.estimates().await.unwrap();
    assert_eq!(estimates.targets, [(2, rate(5_000)), (6, rate(5_000)), (144, rate(251))]);
    assert_eq!(estimates.floor, rate(26));
    assert_eq!(heard.lock().unwrap()[3].params, [json!(144), json!("economical")]);

    let unknown = || Ok(vec![Ok(mempool.clone()), Ok(nothing.clone()), Ok(nothing.clone())]);
    let all = unknown().map(|mut answers| {
        answers.push(Ok(nothing.clone()));
        answers
    });
    let (source, _) = fees(all, vec![(2, rate(9_000))]);
    assert_eq!(source.estimates().await.unwrap().targets, [(2, rate(9_000))]);
    // One estimate is better than a guess.
    let one = unknown().map(|mut answers| {
        answers.push(Ok(json!({"feerate": 0.00001})));
        answers
    });
    let (source, _) = fees(one, vec![(2, rate(9_000))]);
    assert_eq!(source.estimates().await.unwrap().targets, [(144, rate(250))]);
}

/// One target that the node does not take costs neither the others nor the floor.
#[tokio::test]
async fn a_refused_target_costs_no_other() {
    let mempool = json!({"mempoolminfee": 0.00002, "minrelaytxfee": 0.00001});
    let error = || RpcError { code: -8, message: "Invalid conf_target".to_owned() };
    let answers =
        Ok(vec![Ok(mempool.clone()), Err(error()), Ok(json!({"feerate": 0.0001})), Err(error())]);
    let estimates = fees(answers, vec![]).0.estimates().await.unwrap();
    assert_eq!((estimates.targets, estimates.floor), (vec![(6, rate(2_500))], rate(500)));
    let none = Ok(vec![Ok(mempool), Err(error()), Err(error()), Err(error())]);
    let estimates = fees(none, vec![]).0.estimates().await.unwrap();
    assert_eq!((estimates.targets, estimates.floor), (vec![], rate(500)));
}

#[tokio::test]
async fn odd_fees_are_errors() {
    let good = json!({"mempoolminfee": 0.00001, "minrelaytxfee": 0.00001});
    for odd in [json!({}), json!({"mempoolminfee": "1", "minrelaytxfee": 1}), json!(null)] {
        let answers = Ok(vec![Ok(odd), Ok(json!({})), Ok(json!({})), Ok(json!({}))]);
        assert!(fees(answers, vec![]).0.estimates().await.is_err());
    }
    for odd in [json!("x"), json!(-1.0), json!(1e300), json!(0.000000001)] {
        let odd = json!({"feerate": odd});
        let answers = Ok(vec![Ok(good.clone()), Ok(odd.clone()), Ok(json!({})), Ok(json!({}))]);
        assert!(fees(answers, vec![]).0.estimates().await.is_err(), "{odd}");
    }
}

// incident attack-14
#[test]
fn a_tip_that_does_not_move_raises_the_alarm() {
    let start = std::time::Instant::now();
    let minute = |minutes: u64| start + Duration::from_secs(60 * minutes);
    let tip = |byte| BlockRef {
        height: BlockHeight(byte),
        hash: BlockHash::from_byte_array([u8::try_from(byte).unwrap(); 32]),
    };
    let mut alarm = TipAlarm::new(Duration::from_secs(90 * 60));
    assert_eq!(alarm.check(minute(1_000)), None, "nothing was seen yet");
    assert_eq!(alarm.observe(tip(1), minute(0)), None);
    assert_eq!(alarm.observe(tip(1), minute(90)), None);
    let still_for = Duration::from_secs(91 * 60);
    let stalled = Some(StalledTip { tip: tip(1), still_for });
    assert_eq!(alarm.observe(tip(1), minute(91)), stalled);
    assert_eq!(alarm.check(minute(91)), stalled);
    assert_eq!(alarm.observe(tip(2), minute(92)), None);
    // A reorganisation to the height before is a new tip as well.
    assert_eq!(alarm.observe(tip(1), minute(180)), None);
    assert_eq!(alarm.check(minute(260)), None);
    assert_eq!(alarm.check(minute(0)), None, "a clock that goes back is no alarm");
}

#[tokio::test]
async fn a_transaction_is_asked_about_without_being_sent() {
    let [parent, _] = pair();
    let tested = |allowed: bool, reason: &str| {
        let txid = parent.compute_txid().to_string();
        says(json!([{"txid": txid, "allowed": allowed, "reject-reason": reason}]))
    };
    let refused = "mempool-script-verify-flag-failed (Signature must be zero)";
    let cases = [
        (tested(true, ""), Some(Verdict::Accepted)),
        (tested(false, refused), Some(Verdict::Refused(refused.to_owned()))),
        (tested(false, "missing-inputs"), Some(Verdict::Conflict("missing-inputs".to_owned()))),
        (tested(false, "txn-already-in-mempool"), Some(Verdict::Known)),
        (tested(false, "insufficient fee"), {
            Some(Verdict::FeeTooLow("insufficient fee".to_owned()))
        }),
        (fails(-32601, "Method not found"), None),
    ];
    for (answer, verdict) in cases {
        let (rpc, heard) = scripted(vec![answer]);
        let port = CoreBroadcast::new(rpc, CoreBroadcastConfig::default());
        assert_eq!(port.test(parent.clone()).await.unwrap(), verdict);
        assert_eq!(methods(&heard), ["testmempoolaccept"]);
    }
    let (rpc, _) = scripted(vec![says(json!([]))]);
    let port = CoreBroadcast::new(rpc, CoreBroadcastConfig::default());
    assert!(port.test(parent.clone()).await.is_err(), "no answer is no verdict");
}

#[tokio::test]
async fn a_block_tells_what_its_cheapest_tenth_paid() {
    let block = |percentiles: Value, weight: u64, txs: u64| {
        says(
            json!({"feerate_percentiles": percentiles, "time": 77, "total_weight": weight, "txs": txs}),
        )
    };
    let (full, some) = (3_993_000, json!([12, 13, 15, 20, 40]));
    let cases = [
        (block(some.clone(), full, 3_000), Some(rate(3_125))),
        // Less than 1 sat/vB.
        (block(json!([0, 0, 1, 2, 3]), full, 3_000), Some(rate(125))),
        (block(some, 1_000_000, 700), Some(FeeRate::ZERO)),
        (block(json!([0, 0, 0, 0, 0]), 0, 1), None),
        (fails(-5, "Block not found"), None),
        (fails(-8, "Block is not in chain regtest"), None),
        (fails(-1, "Block not available (pruned data)"), None),
    ];
    for (answer, expected) in cases {
        let (source, heard) = blocks(vec![answer]);
        let found = source.past_block(BlockHash::all_zeros()).await.unwrap();
        let expected = expected.map(|feerate| PastBlock { time: 77, feerate });
        assert_eq!((found, methods(&heard)), (expected, vec!["getblockstats"]));
    }
    for odd in [
        json!(null),
        json!({"txs": 2, "time": 7, "total_weight": full}),
        json!({"txs": -2, "time": 7, "total_weight": full, "feerate_percentiles": [1]}),
        json!({"txs": 2, "time": 7, "total_weight": full, "feerate_percentiles": []}),
        json!({"txs": 2, "time": 7, "total_weight": full, "feerate_percentiles": [u64::MAX]}),
        json!({"txs": 2, "total_weight": full, "feerate_percentiles": [1]}),
        json!({"txs": 2, "time": 1_u64 << 32, "total_weight": full, "feerate_percentiles": [1]}),
    ] {
        let (source, _) = blocks(vec![says(odd.clone())]);
        let found = source.past_block(BlockHash::all_zeros()).await;
        assert!(matches!(found, Err(CoreError::Answer { .. })), "{odd}: {found:?}");
    }
}
