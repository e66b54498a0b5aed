//! Transactions judged by themselves.

use bitcoin::opcodes::OP_TRUE;
use bitcoin::opcodes::all::{
    OP_CHECKMULTISIG, OP_CHECKSIG, OP_DROP, OP_PUSHNUM_1, OP_PUSHNUM_2, OP_RETURN,
};
use bitcoin::script::Builder;
use bitcoin::{Amount, ScriptBuf, TxOut, Witness};

use super::super::Case;
use super::super::draft::{Draft, Fee, Lock, data, nowhere, out, spend};
use super::Deck;

pub(super) fn fee(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let lock = deck.one_of(&[Lock::Open, Lock::Key, Lock::Taproot, Lock::ScriptHash]);
    let coins: Vec<_> = (0..=deck.below(2)).map(|_| deck.coin(lock)).collect();
    let rate = deck.rate();
    let outputs = 1 + deck.below(3);
    case.submit(&deck.make(&Draft::of(&coins, rate).outputs(outputs)));
    case
}

pub(super) fn version(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(1);
    let version = deck.one_of(&[0, 1, 2, 3, 4, -1, i32::MAX]);
    case.submit(&deck.make(&Draft::of(&coins, Fee::rate(2000)).version(version)));
    case
}

pub(super) fn size(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    if deck.chance(50) {
        // Small ones: the anchor's input is the smallest.
        let mut draft = Draft::of(&[deck.coin(Lock::Anchor)], Fee::exactly(0)).outputs(0);
        let bytes = deck.below(8);
        draft.others.push(data(bytes));
        case.submit(&deck.make(&draft));
    } else {
        // The transaction without its data takes some hundred bytes.
        let padding = 99_700 + deck.below(300);
        let coins = deck.coins(1);
        case.submit(&deck.make(&Draft::of(&coins, Fee::rate(1000)).padding(padding)));
    }
    case
}

pub(super) fn dust(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(1);
    let (lock, limit) = deck.one_of(&[
        (Lock::Open, 330),
        (Lock::Key, 294),
        (Lock::Taproot, 330),
        (Lock::ScriptHash, 540),
        (Lock::Anchor, 240),
        (Lock::Later, 330),
    ]);
    let value = deck.one_of(&[0, 1, limit - 1, limit, limit + 1]);
    let rate = deck.one_of(&[0, 1000, 2000]);
    let mut draft = Draft::of(&coins, Fee::rate(rate));
    for _ in 0..=deck.below(2) {
        draft = draft.with(deck.maker.output(lock, value));
    }
    case.submit(&deck.make(&draft));
    case
}

pub(super) fn output(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(1);
    let key = [2; 33];
    let scripts = [
        Builder::new().push_opcode(OP_TRUE).into_script(),
        Builder::new().push_opcode(OP_RETURN).into_script(),
        Builder::new().push_opcode(OP_RETURN).push_slice([1; 75]).push_slice([1; 3]).into_script(),
        Builder::new().push_opcode(OP_RETURN).push_opcode(OP_CHECKSIG).into_script(),
        Builder::new().push_slice(key).push_opcode(OP_CHECKSIG).into_script(),
        Builder::new().push_slice([5; 33]).push_opcode(OP_CHECKSIG).into_script(),
        multisig(1, 2),
        multisig(3, 3),
        multisig(1, 4),
        ScriptBuf::new(),
        ScriptBuf::from_bytes(vec![0x00, 0x03, 1, 2, 3]),
        ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x74]),
        ScriptBuf::from_bytes(vec![0x60, 0x28].into_iter().chain([9; 40]).collect()),
        ScriptBuf::from_bytes(vec![0x51, 0x20].into_iter().chain([9; 32]).collect()),
        ScriptBuf::from_bytes(vec![0x00, 0x15].into_iter().chain([9; 21]).collect()),
    ];
    let place = deck.below(scripts.len());
    let script = scripts[place].clone();
    let value = if script.is_op_return() { 0 } else { 20_000 };
    let output = TxOut { value: Amount::from_sat(value), script_pubkey: script };
    let mut draft = Draft::of(&coins, Fee::rate(1500)).with(output.clone());
    if deck.chance(30) {
        draft = draft.with(output);
    }
    case.submit(&deck.make(&draft));
    case
}

/// Bare multisig of `m` of `n` keys.
fn multisig(m: i64, n: i64) -> ScriptBuf {
    let keys = (0..n).fold(Builder::new().push_int(m), |builder, i| {
        let mut key = [3; 33];
        key[32] = i as u8;
        builder.push_slice(key)
    });
    keys.push_int(n).push_opcode(OP_CHECKMULTISIG).into_script()
}

pub(super) fn value(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(1);
    let mut tx = deck.pay(&coins, Fee::rate(1000));
    tx.output[0].value = match deck.below(4) {
        0 => Amount::from_sat(coins[0].value + 1),
        1 => Amount::from_sat(coins[0].value),
        2 => Amount::MAX_MONEY + Amount::from_sat(1),
        _ => {
            let twin = tx.output[0].clone();
            tx.output.push(twin);
            tx.output[1].value = Amount::MAX_MONEY;
            Amount::MAX_MONEY
        }
    };
    if deck.chance(15) {
        tx.output.clear();
    }
    case.submit(&tx);
    case
}

pub(super) fn locktime(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(2);
    let sequence = deck.one_of(&[0xffff_fffe, 0xffff_ffff, 0xffff_fffd]);
    let mut draft = Draft::of(&coins, Fee::rate(1000)).sequence(sequence);
    if deck.chance(30) {
        draft.inputs[0].1 = 0xffff_ffff;
    }
    let shift = deck.random.between(0, 4) as u32;
    draft.lock_time = if deck.chance(50) { deck.height + shift - 2 } else { deck.time + shift - 2 };
    let tx = deck.make(&draft);
    case.submit(&tx);
    if deck.chance(50) {
        case.submit_after(&tx);
    }
    case
}

pub(super) fn relative(deck: &mut Deck) -> Case {
    const TIME: u32 = 1 << 22;
    const OFF: u32 = 1 << 31;
    let mut case = Case::default();
    let coins = deck.coins(1);
    let age = deck.height + 1 - deck.funded;
    let shift = deck.random.between(0, 3) as u32;
    // Blocks are 600 seconds apart, and a unit of time is 512.
    let near = match deck.below(3) {
        0 => (age + shift).saturating_sub(1),
        1 => ((age * 600 / 512 + shift).saturating_sub(2)) | TIME,
        _ => deck.one_of(&[0, 1, TIME, TIME | 1, OFF | 0xffff, 0xffff]),
    };
    let version = deck.one_of(&[1, 2, 2, 3]);
    let confirmed = deck.chance(60);
    let coin = if confirmed {
        coins[0]
    } else {
        let parent = deck.make(&Draft::of(&coins, Fee::rate(1000)).version(version));
        case.submit(&parent);
        out(&parent, 0)
    };
    let child = deck.make(&Draft::of(&[coin], Fee::rate(1000)).version(version).sequence(near));
    case.submit(&child);
    case.submit_after(&child);
    case
}

pub(super) fn missing(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(1);
    let parent = deck.pay(&coins, Fee::rate(2000));
    let strange = nowhere(deck.random.bytes32());
    let rate = Fee::rate(1000);
    match deck.below(5) {
        0 => {
            case.submit(&deck.pay(&[strange], rate));
        }
        1 => {
            case.submit(&deck.pay(&[coins[0], strange], rate));
        }
        2 => {
            // The parent has one output.
            case.submit(&parent);
            case.submit(&deck.pay(&[out(&parent, 1)], rate));
        }
        3 => {
            case.submit(&deck.pay(&[coins[0], coins[0]], rate));
        }
        _ => {
            // The child before its parent, and again after it.
            let child = deck.pay(&[out(&parent, 0)], rate);
            case.submit(&child).submit(&parent).submit(&child);
            let rival = deck.pay(&coins, Fee::rate(5000));
            case.submit_after(&rival).submit_after(&parent).submit_after(&child);
        }
    }
    case
}

pub(super) fn script(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let lock = deck.one_of(&Lock::ALL);
    let coin = deck.coin(lock);
    let coins = if lock == Lock::Anchor { vec![coin, deck.coin(Lock::Open)] } else { vec![coin] };
    let mut tx = deck.pay(&coins, Fee::rate(3000));
    let witness = tx.input[0].witness.clone();
    match deck.below(9) {
        0 => {}
        1 => tx.input[0].witness.clear(),
        2 => tx.input[0].witness.push([1]),
        3 => tx.input[0].witness = Witness::from_slice(&[[0x51], [0x51]]),
        4 => tx.input[0].witness = Witness::from_slice(&[[0x52]]),
        5 => tx.input[0].script_sig = Builder::new().push_opcode(OP_PUSHNUM_1).into_script(),
        6 => tx.input[0].script_sig = Builder::new().push_opcode(OP_CHECKSIG).into_script(),
        7 => {
            // A signature for something else, where there is one.
            tx.output[0].value -= Amount::ONE_SAT;
        }
        _ => {
            let mut items: Vec<Vec<u8>> = witness.iter().map(<[u8]>::to_vec).collect();
            if let Some(byte) = items.first_mut().and_then(|item| item.last_mut()) {
                *byte = deck.random.between(0, 255) as u8;
            }
            tx.input[0].witness = Witness::from_slice(&items);
        }
    }
    case.submit(&tx);
    if deck.chance(30) {
        witness_script(deck, &mut case);
    }
    case
}

/// An output with a witness script at the edge of what is relayed, and its spend.
fn witness_script(deck: &mut Deck, case: &mut Case) {
    let drops = deck.one_of(&[0, 1, 99, 100, 101]);
    let script = (0..drops).fold(Builder::new(), |builder, _| builder.push_opcode(OP_DROP));
    let script = script.push_opcode(OP_PUSHNUM_2).into_script();
    let value = Amount::from_sat(50_000);
    let locked = TxOut { value, script_pubkey: script.to_p2wsh() };
    let coins = deck.coins(1);
    let parent = deck.make(&Draft::of(&coins, Fee::rate(1000)).with(locked));
    let mut child = deck.pay(&[spend(&parent, 1, Lock::Open)], Fee::exactly(20_000));
    let items = vec![vec![1; deck.one_of(&[0, 1, 80, 81])]; drops];
    child.input[0].witness = Witness::from_slice(&items);
    child.input[0].witness.push(script.as_bytes());
    case.submit(&parent).submit(&child);
}

pub(super) fn coinbase(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    // Those that may be spent first at the next block, or a little later.
    let wanted = (deck.height + 1).saturating_sub(100);
    let edge = wanted + 3;
    let place = deck.coinbases.iter().position(|(height, _)| (wanted..=edge).contains(height));
    let Some((_, coin)) = place.and_then(|place| deck.coinbases.remove(place)) else {
        case.submit(&deck.pay(&[nowhere([3; 32])], Fee::rate(1000)));
        return case;
    };
    let tx = deck.pay(&[coin], Fee::rate(1000));
    case.submit(&tx).submit_after(&tx);
    case
}

pub(super) fn again(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coin = deck.coin(Lock::Key);
    let tx = deck.make(&Draft::of(&[coin], Fee::rate(2000)).outputs(2));
    let mut twin = tx.clone();
    twin.input[0].witness.push([1]);
    case.submit(&tx);
    match deck.below(3) {
        0 => {
            case.submit(&tx);
        }
        1 => {
            case.submit(&twin);
        }
        _ => {
            let child = deck.pay(&[out(&tx, 0), spend(&tx, 1, Lock::Open)], Fee::rate(2000));
            case.submit(&child).submit(&tx).submit_after(&child);
        }
    }
    case.submit_after(&tx).submit_after(&twin);
    case
}
