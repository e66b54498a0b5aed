//! Mutual closes and spends that match nothing.

use std::collections::BTreeSet;

use bitcoin::absolute::LockTime;
use bitcoin::{Amount, ScriptBuf, Sequence};

use super::{busy, htlc, kinds, open, params, rate, scripts_pass, sum};
use crate::peer::{ClosingStyle, FactStep, Format, Keep, PeerError, Side};

#[test]
fn a_mutual_close_pays_both_and_the_opener_pays_for_it() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let mut channel = open(params(format, opener))?;
        channel.offer(htlc("h", 100_000, 500))?;
        channel.settle("h")?;
        for (style, sequence) in [
            (ClosingStyle::Legacy, Sequence::MAX),
            (ClosingStyle::Simple, Sequence::ENABLE_RBF_NO_LOCKTIME),
        ] {
            let tx = channel.mutual_close(rate(1_000), style)?;
            assert!(scripts_pass(&tx, &[channel.funding_output()]));
            assert_eq!((tx.lock_time, tx.input[0].sequence), (LockTime::ZERO, sequence));
            let fee = channel.params().capacity - sum(&tx.output);
            let exact = rate(1_000).fee_wu(tx.weight()).expect("small");
            assert!(fee >= exact && fee <= exact + Amount::from_sat(5));
            let value = |side| {
                let script = channel.shutdown_script(side);
                let output = tx.output.iter().find(|output| output.script_pubkey == script);
                output.map(|output| output.value)
            };
            let [local, remote] = [400_000, 600_000].map(Amount::from_sat);
            let (local, remote) = match opener {
                Side::Local => (local - fee, remote),
                Side::Remote => (local, remote - fee),
            };
            assert_eq!((value(Side::Local), value(Side::Remote)), (Some(local), Some(remote)));
        }
    }
    Ok(())
}

#[test]
fn dust_is_left_out_and_pending_htlcs_forbid_it() -> Result<(), PeerError> {
    let mut params = params(Format::Anchors, Side::Remote);
    params.local_balance = Amount::from_sat(293);
    let channel = open(params)?;
    let tx = channel.mutual_close(rate(253), ClosingStyle::Legacy)?;
    assert_eq!(tx.output.len(), 1);
    assert_eq!(tx.output[0].script_pubkey, channel.shutdown_script(Side::Remote));

    let busy = busy(Format::Anchors, Side::Local)?;
    let refused = busy.mutual_close(rate(253), ClosingStyle::Legacy);
    assert_eq!(refused.err(), Some(PeerError::HtlcsPending));
    Ok(())
}

#[test]
fn shutdown_scripts_are_told_and_used() -> Result<(), PeerError> {
    let mut channel = open(params(Format::Anchors, Side::Local))?;
    let ours = ScriptBuf::new_op_return([7; 20]);
    channel.set_shutdown_script(Side::Local, ours.clone());
    channel.take_facts(Keep::Newest)?;
    channel.shutdown()?;
    let remote = channel.shutdown_script(Side::Remote);
    let told = channel.take_facts(Keep::Newest)?;
    assert_eq!(told, [FactStep::ShutdownScripts { local: ours.clone(), remote: remote.clone() }]);
    let tx = channel.mutual_close(rate(253), ClosingStyle::Simple)?;
    let scripts: BTreeSet<_> = tx.output.iter().map(|o| o.script_pubkey.clone()).collect();
    assert_eq!(scripts, BTreeSet::from([ours, remote]));
    Ok(())
}

#[test]
fn an_unknown_spend_matches_nothing() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let channel = busy(format, opener)?;
        let tx = channel.unknown_spend(rate(1_000))?;
        assert!(scripts_pass(&tx, &[channel.funding_output()]));
        let sequence = tx.input[0].sequence.to_consensus_u32();
        assert_ne!(sequence >> 24, 0x80);
        assert!(sequence < 0xFFFF_FFFD && !tx.input[0].sequence.is_relative_lock_time());
        for side in [Side::Local, Side::Remote] {
            assert!(tx.output.iter().all(|o| o.script_pubkey != channel.shutdown_script(side)));
        }
        assert!(sum(&tx.output) < channel.params().capacity);
    }
    Ok(())
}
