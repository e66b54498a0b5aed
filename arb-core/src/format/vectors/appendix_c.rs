//! BOLT 3 appendix C: static_remotekey without anchors.
use super::{Record, run};
use crate::format::CommitmentFormat;

fn check(name: &str) {
    let vector = Record::named(include_str!("appendix_c.txt"), name);
    run::check(&vector, CommitmentFormat::StaticRemotekey);
}

#[test]
fn simple_commitment_tx_with_no_htlcs() {
    check("simple commitment tx with no HTLCs");
}

#[test]
fn all_five_htlcs_untrimmed_minimum_feerate() {
    check("commitment tx with all five HTLCs untrimmed (minimum feerate)");
}

#[test]
fn seven_outputs_untrimmed_maximum_feerate() {
    check("commitment tx with seven outputs untrimmed (maximum feerate)");
}

#[test]
fn six_outputs_untrimmed_minimum_feerate() {
    check("commitment tx with six outputs untrimmed (minimum feerate)");
}

#[test]
fn six_outputs_untrimmed_maximum_feerate() {
    check("commitment tx with six outputs untrimmed (maximum feerate)");
}

#[test]
fn five_outputs_untrimmed_minimum_feerate() {
    check("commitment tx with five outputs untrimmed (minimum feerate)");
}

#[test]
fn five_outputs_untrimmed_maximum_feerate() {
    check("commitment tx with five outputs untrimmed (maximum feerate)");
}

#[test]
fn four_outputs_untrimmed_minimum_feerate() {
    check("commitment tx with four outputs untrimmed (minimum feerate)");
}

#[test]
fn four_outputs_untrimmed_maximum_feerate() {
    check("commitment tx with four outputs untrimmed (maximum feerate)");
}

#[test]
fn three_outputs_untrimmed_minimum_feerate() {
    check("commitment tx with three outputs untrimmed (minimum feerate)");
}

#[test]
fn three_outputs_untrimmed_maximum_feerate() {
    check("commitment tx with three outputs untrimmed (maximum feerate)");
}

#[test]
fn two_outputs_untrimmed_minimum_feerate() {
    check("commitment tx with two outputs untrimmed (minimum feerate)");
}

#[test]
fn two_outputs_untrimmed_maximum_feerate() {
    check("commitment tx with two outputs untrimmed (maximum feerate)");
}

#[test]
fn one_output_untrimmed_minimum_feerate() {
    check("commitment tx with one output untrimmed (minimum feerate)");
}

#[test]
fn fee_greater_than_funder_amount() {
    check("commitment tx with fee greater than funder amount");
}

#[test]
fn three_htlc_outputs_2_offered_having_the_same_amount_and_preimage() {
    check("commitment tx with 3 htlc outputs, 2 offered having the same amount and preimage");
}
