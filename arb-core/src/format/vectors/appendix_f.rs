//! BOLT 3 appendix F: anchors with zero-fee HTLC transactions.
use super::{Record, run};
use crate::format::CommitmentFormat;

fn check(name: &str) {
    let vector = Record::named(include_str!("appendix_f.txt"), name);
    run::check(&vector, CommitmentFormat::Anchors);
}

#[test]
fn simple_commitment_tx_with_no_htlcs() {
    check("simple commitment tx with no HTLCs");
}

#[test]
fn simple_commitment_tx_with_no_htlcs_and_single_anchor() {
    check("simple commitment tx with no HTLCs and single anchor");
}

#[test]
fn seven_outputs_untrimmed() {
    check("commitment tx with seven outputs untrimmed");
}

#[test]
fn six_outputs_untrimmed_minimum_dust_limit() {
    check("commitment tx with six outputs untrimmed (minimum dust limit)");
}

#[test]
fn four_outputs_untrimmed_minimum_dust_limit() {
    check("commitment tx with four outputs untrimmed (minimum dust limit)");
}

#[test]
fn three_outputs_untrimmed_minimum_dust_limit() {
    check("commitment tx with three outputs untrimmed (minimum dust limit)");
}

#[test]
fn two_outputs_untrimmed_minimum_dust_limit() {
    check("commitment tx with two outputs untrimmed (minimum dust limit)");
}

#[test]
fn one_output_untrimmed_minimum_dust_limit() {
    check("commitment tx with one output untrimmed (minimum dust limit)");
}

#[test]
fn three_htlc_outputs_2_offered_having_the_same_amount_and_preimage() {
    check("commitment tx with 3 htlc outputs, 2 offered having the same amount and preimage");
}
