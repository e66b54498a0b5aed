//! Form, amounts and standardness.

use bitcoin::opcodes::OP_TRUE;
use bitcoin::opcodes::all::{OP_DROP, OP_PUSHNUM_1, OP_RETURN};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, transaction,
};

use super::super::EmbeddedChain;
use super::{
    Coin, anchor, chain_with, key, open, out, pay, per_vb, random_outpoint, reason, sat, spend,
};

/// What the mempool says of the transaction after a change.
fn verdict(change: impl FnOnce(&mut Transaction)) -> String {
    let (mut chain, coins) = chain_with(1);
    let mut tx = pay(&coins, 1000);
    change(&mut tx);
    match chain.submit(tx) {
        Ok(_) => "accepted".to_owned(),
        Err(reject) => reject.to_string(),
    }
}

/// What the mempool says of an output with this value and script.
fn output_verdict(value: u64, script: ScriptBuf) -> String {
    verdict(|tx| {
        tx.output[0].value -= sat(value);
        tx.output.push(TxOut { value: sat(value), script_pubkey: script });
    })
}

#[test]
fn form_is_consensus() {
    assert_eq!(verdict(|_| ()), "accepted");
    assert_eq!(verdict(|tx| tx.input.clear()), "bad-txns-vin-empty");
    assert_eq!(verdict(|tx| tx.output.clear()), "bad-txns-vout-empty");
    assert_eq!(verdict(|tx| tx.input.push(tx.input[0].clone())), "bad-txns-inputs-duplicate");
    let too_much = |tx: &mut Transaction| tx.output[0].value = Amount::MAX_MONEY + sat(1);
    assert_eq!(verdict(too_much), "bad-txns-vout-toolarge");
    let too_much_in_all = |tx: &mut Transaction| {
        tx.output.push(TxOut { value: Amount::MAX_MONEY, script_pubkey: open() });
    };
    assert_eq!(verdict(too_much_in_all), "bad-txns-txouttotal-toolarge");
    assert_eq!(verdict(|tx| tx.output[0].value = sat(100_001)), "bad-txns-in-belowout");
    let null = |tx: &mut Transaction| tx.input.push(TxIn::default());
    assert_eq!(verdict(null), "bad-txns-prevout-null");
    let coinbase = |tx: &mut Transaction| {
        tx.input = vec![TxIn { script_sig: ScriptBuf::from_bytes(vec![0; 2]), ..TxIn::default() }];
    };
    assert_eq!(verdict(coinbase), "coinbase");
    let short = |tx: &mut Transaction| tx.input = vec![TxIn::default()];
    assert_eq!(verdict(short), "bad-cb-length");
    let large = |tx: &mut Transaction| tx.output = vec![tx.output[0].clone(); 23_300];
    assert_eq!(verdict(large), "bad-txns-oversize");
}

#[test]
fn inputs_exist_and_are_unspent() {
    let (mut chain, coins) = chain_with(2);
    let missing = pay(&[(random_outpoint(1), 1000)], 500);
    assert_eq!(reason(chain.submit(missing)), "bad-txns-inputs-missingorspent");
    let no_such_output: Coin = (OutPoint { vout: 99, ..coins[0].0 }, 1000);
    assert_eq!(reason(chain.submit(pay(&[no_such_output], 500))), "bad-txns-inputs-missingorspent");
    let tx = pay(&coins[..1], 1000);
    chain.submit(tx.clone()).unwrap();
    assert_eq!(reason(chain.submit(tx.clone())), "txn-already-in-mempool");
    let mut mutated = tx.clone();
    mutated.input[0].witness.push([1]);
    assert_eq!(reason(chain.submit(mutated)), "txn-same-nonwitness-data-in-mempool");
    chain.mine(&super::super::Selection::All);
    assert_eq!(reason(chain.submit(tx.clone())), "txn-already-known");
    assert_eq!(reason(chain.submit(pay(&coins[..1], 2000))), "bad-txns-inputs-missingorspent");
    chain.submit(pay(&[out(&tx, 0)], 1000)).unwrap();
    chain.mine(&super::super::Selection::All);
    assert_eq!(reason(chain.submit(tx)), "bad-txns-inputs-missingorspent");
}

#[test]
fn versions_are_one_to_three() {
    for (version, expected) in [(0, "version"), (1, "accepted"), (3, "accepted"), (4, "version")] {
        assert_eq!(verdict(|tx| tx.version = transaction::Version(version)), expected);
    }
}

#[test]
fn sizes_have_bounds() {
    // One output of 43 bytes is 172 weight units; 400,000 are allowed.
    let mut chain = EmbeddedChain::new();
    let coin = (chain.fund(open(), sat(2_000_000)).unwrap(), 2_000_000);
    let mut tx = spend(&[coin], &vec![330; 2330]);
    assert!(tx.weight().to_wu() > 400_000);
    assert_eq!(reason(chain.submit(tx.clone())), "tx-size");
    tx.output.truncate(2320);
    chain.submit(tx).unwrap();
    let small = |tx: &mut Transaction| tx.output[0].script_pubkey = anchor();
    // 10 + 41 + 13 bytes.
    assert_eq!(verdict(small), "tx-size-small");
    let one_more = |tx: &mut Transaction| {
        tx.output[0].script_pubkey = Builder::new()
            .push_opcode(OP_RETURN)
            .push_int(0)
            .push_int(0)
            .push_int(0)
            .push_int(0)
            .into_script();
    };
    assert_eq!(verdict(one_more), "accepted");
}

#[test]
fn outputs_are_of_known_kinds() {
    let (_, public) = key(3);
    let standard = [
        open(),
        ScriptBuf::new_p2pkh(&public.pubkey_hash()),
        ScriptBuf::new_p2sh(&open().script_hash()),
        ScriptBuf::new_p2wpkh(&public.wpubkey_hash().unwrap()),
        ScriptBuf::new_p2pk(&public),
        anchor(),
        ScriptBuf::from_bytes([&[0x51, 0x20][..], &[7; 32]].concat()),
        // A future witness version.
        ScriptBuf::from_bytes([&[0x60, 0x20][..], &[7; 32]].concat()),
    ];
    for script in standard {
        assert_eq!(output_verdict(1000, script), "accepted");
    }
    let odd = Builder::new().push_opcode(OP_TRUE).into_script();
    assert_eq!(output_verdict(1000, odd), "scriptpubkey");
    let bad_program = ScriptBuf::from_bytes([&[0x00, 0x10][..], &[7; 16]].concat());
    assert_eq!(output_verdict(1000, bad_program), "scriptpubkey");
    let data = ScriptBuf::new_op_return([7; 75]);
    assert_eq!(output_verdict(0, data), "accepted");
    // Data beyond the limit is also beyond the greatest weight.
    let much = PushBytesBuf::try_from(vec![7; 99_999]).unwrap();
    let much = Builder::new().push_opcode(OP_RETURN).push_slice(much).into_script();
    assert_eq!(output_verdict(0, much), "tx-size");
}

#[test]
fn dust_is_judged_by_kind() {
    let (_, public) = key(3);
    let cases = [
        (546, ScriptBuf::new_p2pkh(&public.pubkey_hash())),
        (540, ScriptBuf::new_p2sh(&open().script_hash())),
        (294, ScriptBuf::new_p2wpkh(&public.wpubkey_hash().unwrap())),
        (330, open()),
        (240, anchor()),
    ];
    for (threshold, script) in cases {
        assert_eq!(output_verdict(threshold, script.clone()), "accepted");
        assert_eq!(output_verdict(threshold - 1, script), "dust");
    }
}

#[test]
fn one_dust_output_at_most_even_without_fee() {
    let (mut chain, coins) = chain_with(2);
    chain.set_floor(per_vb(0));
    chain.submit(spend(&coins[..1], &[99_999, 1])).unwrap();
    assert_eq!(reason(chain.submit(spend(&coins[1..], &[99_998, 1, 1]))), "dust");
}

/// Funds this script, spends it with this scriptSig and witness, and gives the verdict.
fn spend_verdict(script: ScriptBuf, script_sig: ScriptBuf, witness: &[Vec<u8>]) -> String {
    let mut chain = EmbeddedChain::new();
    let outpoint = chain.fund(script, sat(100_000)).unwrap();
    let tx = Transaction {
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(witness),
        }],
        ..pay(&[(outpoint, 100_000)], 10_000)
    };
    match chain.submit(tx) {
        Ok(_) => "accepted".to_owned(),
        Err(reject) => reject.to_string(),
    }
}

#[test]
fn inputs_are_of_known_kinds() {
    let odd = Builder::new().push_opcode(OP_TRUE).into_script();
    assert_eq!(spend_verdict(odd.clone(), ScriptBuf::new(), &[]), "bad-txns-nonstandard-inputs");
    let future = ScriptBuf::from_bytes([&[0x60, 0x20][..], &[7; 32]].concat());
    assert_eq!(spend_verdict(future, ScriptBuf::new(), &[]), "bad-txns-nonstandard-inputs");
    assert_eq!(spend_verdict(anchor(), ScriptBuf::new(), &[]), "accepted");
    let stuffed = spend_verdict(anchor(), ScriptBuf::new(), &[vec![1]]);
    assert_eq!(stuffed, "bad-witness-nonstandard");
    let p2sh = ScriptBuf::new_p2sh(&odd.script_hash());
    let redeem = Builder::new().push_slice([0x51]).into_script();
    assert_eq!(spend_verdict(p2sh.clone(), redeem.clone(), &[]), "accepted");
    assert_eq!(spend_verdict(p2sh.clone(), redeem, &[vec![1]]), "bad-witness-nonstandard");
    assert_eq!(spend_verdict(p2sh, ScriptBuf::new(), &[]), "bad-txns-nonstandard-inputs");
}

#[test]
fn script_sigs_only_push() {
    let drops = Builder::new().push_int(1).push_opcode(OP_DROP).into_script();
    let verdict = spend_verdict(ScriptBuf::new_p2sh(&open().script_hash()), drops, &[]);
    assert_eq!(verdict, "scriptsig-not-pushonly");
    let long = ScriptBuf::from_bytes(vec![OP_PUSHNUM_1.to_u8(); 1651]);
    let verdict = spend_verdict(ScriptBuf::new_p2sh(&open().script_hash()), long, &[]);
    assert_eq!(verdict, "scriptsig-size");
}

#[test]
fn witness_items_have_bounds() {
    // Drops its arguments and ends true.
    let dropping = |count: usize| {
        let drops = (0..count).fold(Builder::new(), |b, _| b.push_opcode(OP_DROP));
        drops.push_opcode(OP_TRUE).into_script()
    };
    let verdict = |script: ScriptBuf, mut items: Vec<Vec<u8>>| {
        items.push(script.to_bytes());
        spend_verdict(script.to_p2wsh(), ScriptBuf::new(), &items)
    };
    assert_eq!(verdict(dropping(1), vec![vec![1; 80]]), "accepted");
    assert_eq!(verdict(dropping(1), vec![vec![1; 81]]), "bad-witness-nonstandard");
    assert_eq!(verdict(dropping(100), vec![vec![1]; 100]), "accepted");
    assert_eq!(verdict(dropping(101), vec![vec![1]; 101]), "bad-witness-nonstandard");
    let filled = |pushes: usize, tail: usize| {
        let data = PushBytesBuf::try_from(vec![7; 500]).unwrap();
        let tail = PushBytesBuf::try_from(vec![7; tail]).unwrap();
        let fill = |b: Builder, _| b.push_slice(&data).push_opcode(OP_DROP);
        let script = (0..pushes).fold(Builder::new(), fill).push_slice(tail);
        script.push_opcode(OP_DROP).push_opcode(OP_TRUE).into_script()
    };
    // Seven pushes of 504 bytes, and 69 + 3.
    assert_eq!(filled(7, 69).len(), 3600);
    assert_eq!(verdict(filled(7, 69), Vec::new()), "accepted");
    assert_eq!(verdict(filled(7, 70), Vec::new()), "bad-witness-nonstandard");
}

#[test]
fn test_accept_changes_nothing() {
    let (chain, coins) = chain_with(1);
    let before = chain.sequence();
    let tx = pay(&coins, 1000);
    assert_eq!(chain.test_accept(&tx).unwrap().fee, sat(1000));
    assert_eq!(chain.sequence(), before);
    assert!(!chain.in_mempool(&tx.compute_txid()));
}
