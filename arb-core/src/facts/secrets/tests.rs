//! BOLT 3 appendix D, and the rules of the store beyond it.
use super::*;
use crate::format::vectors::{Record, hex32};

const VECTORS: &str = include_str!("../../format/vectors/appendix_d.txt");

fn check_generation(name: &str) {
    let vector = Record::named(VECTORS, name);
    let index = SecretIndex::new(vector.number("index")).expect("an index");
    let secret = generate_from_seed(&vector.bytes("seed"), index.number());
    assert_eq!(secret, Some(PerCommitmentSecret(vector.bytes("secret"))));
}

fn check_storage(name: &str) {
    let vector = Record::named(VECTORS, name);
    let mut store = SecretStore::default();
    for line in vector.all("insert") {
        let fields: std::vec::Vec<_> = line.split(' ').collect();
        let [index, secret, output] = fields[..] else { panic!("three fields: {line}") };
        let index = SecretIndex::new(index.parse().expect("a number")).expect("an index");
        let before = store.clone();
        let result = store.insert(index.number(), PerCommitmentSecret(hex32(secret)));
        match output {
            "OK" => assert_eq!(result, Ok(()), "{line}"),
            "ERROR" => {
                assert_eq!(result, Err(SecretError::Inconsistent), "{line}");
                assert_eq!(store, before, "a refused secret changes nothing");
            }
            other => panic!("output {other}"),
        }
    }
}

#[test]
fn generate_from_seed_0_final_node() {
    check_generation("generate_from_seed 0 final node");
}

#[test]
fn generate_from_seed_ff_final_node() {
    check_generation("generate_from_seed FF final node");
}

#[test]
fn generate_from_seed_ff_alternate_bits_1() {
    check_generation("generate_from_seed FF alternate bits 1");
}

#[test]
fn generate_from_seed_ff_alternate_bits_2() {
    check_generation("generate_from_seed FF alternate bits 2");
}

#[test]
fn generate_from_seed_01_last_nontrivial_node() {
    check_generation("generate_from_seed 01 last nontrivial node");
}

#[test]
fn insert_secret_correct_sequence() {
    check_storage("insert_secret correct sequence");
}

#[test]
fn insert_secret_1_incorrect() {
    check_storage("insert_secret #1 incorrect");
}

#[test]
fn insert_secret_2_incorrect_1_derived_from_incorrect() {
    check_storage("insert_secret #2 incorrect (#1 derived from incorrect)");
}

#[test]
fn insert_secret_3_incorrect() {
    check_storage("insert_secret #3 incorrect");
}

#[test]
fn insert_secret_4_incorrect_1_2_3_derived_from_incorrect() {
    check_storage("insert_secret #4 incorrect (1,2,3 derived from incorrect)");
}

#[test]
fn insert_secret_5_incorrect() {
    check_storage("insert_secret #5 incorrect");
}

#[test]
fn insert_secret_6_incorrect_5_derived_from_incorrect() {
    check_storage("insert_secret #6 incorrect (5 derived from incorrect)");
}

#[test]
fn insert_secret_7_incorrect() {
    check_storage("insert_secret #7 incorrect");
}

#[test]
fn insert_secret_8_incorrect() {
    check_storage("insert_secret #8 incorrect");
}

const SEED: [u8; 32] = [0xab; 32];

fn secret(number: u64) -> PerCommitmentSecret {
    generate_from_seed(&SEED, CommitmentNumber(number)).expect("a number in range")
}

fn filled(numbers: core::ops::Range<u64>) -> SecretStore {
    let mut store = SecretStore::default();
    for number in numbers {
        store.insert(CommitmentNumber(number), secret(number)).expect("the next secret");
    }
    store
}

#[test]
fn every_revealed_secret_is_derived_and_no_other() {
    let store = filled(0..1000);
    for number in 0..1000 {
        assert_eq!(store.get(CommitmentNumber(number)), Some(secret(number)));
    }
    assert_eq!(store.get(CommitmentNumber(1000)), None);
    assert_eq!(store.get(CommitmentNumber(1 << 48)), None);
    assert_eq!(store.last(), Some(CommitmentNumber(999)));
    assert!(store.slots().count() <= 49);
}

#[test]
fn a_store_may_begin_late() {
    let store = filled(777..1500);
    for number in 777..1500 {
        assert_eq!(store.get(CommitmentNumber(number)), Some(secret(number)));
    }
    let again = SecretStore::from_slots(store.slots());
    assert_eq!(again, Ok(store));
}

#[test]
fn the_last_secret_is_the_seed() {
    let last = CommitmentNumber::MAX;
    let mut store = SecretStore::default();
    assert_eq!(store.insert(last, PerCommitmentSecret(SEED)), Ok(()));
    assert_eq!(store.get(CommitmentNumber(42)), Some(secret(42)));
    let past = CommitmentNumber(1 << 48);
    assert_eq!(store.insert(past, secret(0)), Err(SecretError::NumberOutOfRange));
}

#[test]
fn the_same_secret_again_changes_nothing() {
    let mut store = filled(0..100);
    let before = store.clone();
    assert_eq!(store.insert(CommitmentNumber(17), secret(17)), Ok(()));
    assert_eq!(store, before);
    let wrong = store.insert(CommitmentNumber(17), secret(18));
    assert_eq!(wrong, Err(SecretError::Inconsistent));
    assert_eq!(store, before);
}

#[test]
fn no_secret_is_left_out() {
    let mut store = filled(0..100);
    let gap = store.insert(CommitmentNumber(101), secret(101));
    assert_eq!(gap, Err(SecretError::OutOfOrder { expected: CommitmentNumber(100) }));
    assert_eq!(store.insert(CommitmentNumber(100), secret(100)), Ok(()));
}

#[test]
fn slots_make_the_same_store_at_every_length() {
    let mut store = SecretStore::default();
    for number in 0..300 {
        assert_eq!(SecretStore::from_slots(store.slots()), Ok(store.clone()), "{number}");
        store.insert(CommitmentNumber(number), secret(number)).expect("the next secret");
    }
}

#[test]
fn slots_of_different_seeds_are_refused() {
    let store = filled(0..300);
    for position in 0..store.slots().count() {
        let tampered = store.slots().enumerate().map(|(at, (index, value))| {
            let flip = u8::from(at == position);
            let mut bytes = value.0;
            bytes[31] ^= flip;
            (index, PerCommitmentSecret(bytes))
        });
        let result = SecretStore::from_slots(tampered);
        // A slot that covers none and that none covers cannot be told wrong.
        let (own, _) = store.slots().nth(position).expect("in range");
        let related =
            |(index, _): (SecretIndex, _)| index != own && (own.covers(index) || index.covers(own));
        assert_eq!(result.is_err(), store.slots().any(related), "slot {position}");
    }
}

#[test]
fn slots_of_one_bucket_or_left_behind_are_refused() {
    let slot = |number| {
        let index = SecretIndex::of(CommitmentNumber(number)).expect("in range");
        (index, secret(number))
    };
    let twice = SecretStore::from_slots([slot(0), slot(2)]);
    assert_eq!(twice, Err(SecretError::Inconsistent));
    // Bucket 0 held the secret of commitment 2 before that of commitment 3 arrived.
    let stale = SecretStore::from_slots([slot(0), slot(3)]);
    assert_eq!(stale, Err(SecretError::Inconsistent));
    assert_eq!(
        SecretStore::from_slots([slot(2), slot(3)]),
        Ok({
            let mut store = SecretStore::default();
            store.insert(CommitmentNumber(2), secret(2)).expect("first");
            store.insert(CommitmentNumber(3), secret(3)).expect("next");
            store
        })
    );
}
