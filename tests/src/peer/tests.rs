//! What the peer is believed on: its transactions pass Bitcoin Core's script interpreter, its
//! amounts are BOLT 3's, and its story is the protocol's.

mod amounts;
mod claims;
mod closing;
mod commitments;
mod history;
mod sweeps;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, TxOut, Txid};

use super::{
    Channel, ChannelParams, Claim, Commitment, Format, NewHtlc, PeerCoin, PeerError, Side,
    preimage_named,
};

const FORMATS: [Format; 3] = [Format::StaticRemoteKey, Format::Anchors, Format::ZeroFee];
const SIDES: [Side; 2] = [Side::Local, Side::Remote];

/// Every format opened by either side.
fn kinds() -> impl Iterator<Item = (Format, Side)> {
    FORMATS.into_iter().flat_map(|format| SIDES.map(|opener| (format, opener)))
}

fn params(format: Format, opener: Side) -> ChannelParams {
    let (local_delay, remote_delay) = (100, 200);
    ChannelParams { format, opener, local_delay, remote_delay, ..ChannelParams::new("a") }
}

fn open(params: ChannelParams) -> Result<Channel, PeerError> {
    let mut channel = Channel::new(params)?;
    channel.set_funding(outpoint(1))?;
    Ok(channel)
}

fn outpoint(n: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([n; 32]), vout: 0 }
}

fn htlc(name: &str, sat: u64, cltv_expiry: u32) -> NewHtlc {
    NewHtlc {
        name: name.to_owned(),
        amount_msat: sat * 1000,
        cltv_expiry,
        preimage: preimage_named(name),
    }
}

/// Two HTLCs and one below dust from each side, at commitment #6.
fn busy(format: Format, opener: Side) -> Result<Channel, PeerError> {
    let mut channel = open(params(format, opener))?;
    channel.offer(htlc("o1", 50_000, 500))?;
    channel.receive(htlc("r1", 40_000, 500))?;
    channel.offer(htlc("o2", 30_000, 510))?;
    channel.receive(htlc("r2", 20_000, 510))?;
    channel.offer(htlc("o-dust", 300, 520))?;
    channel.receive(htlc("r-dust", 300, 520))?;
    Ok(channel)
}

/// The same with the second pair settled again: #6 is revoked.
fn moved_on(format: Format, opener: Side) -> Result<Channel, PeerError> {
    let mut channel = busy(format, opener)?;
    channel.settle("o2")?;
    channel.cancel("r2")?;
    Ok(channel)
}

fn coins(channel: &Channel, count: u8) -> Vec<PeerCoin> {
    (0..count).map(|n| channel.peer_coin(outpoint(100 + n), Amount::from_sat(20_000))).collect()
}

fn rate(sat_per_kw: u64) -> FeeRate {
    FeeRate::from_sat_per_kwu(sat_per_kw)
}

fn sum(outputs: &[TxOut]) -> Amount {
    outputs.iter().map(|output| output.value).sum()
}

/// Runs the scripts of every input.
fn scripts_pass(tx: &Transaction, prevouts: &[TxOut]) -> bool {
    let raw = serialize(tx);
    let utxos: Vec<_> = prevouts
        .iter()
        .map(|output| bitcoinconsensus::Utxo {
            script_pubkey: output.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: output.script_pubkey.len() as u32,
            value: output.value.to_sat() as i64,
        })
        .collect();
    tx.input.len() == prevouts.len()
        && prevouts.iter().enumerate().all(|(at, output)| {
            let (script, value) = (output.script_pubkey.as_bytes(), output.value.to_sat());
            bitcoinconsensus::verify(script, value, &raw, Some(&utxos), at).is_ok()
        })
}

/// A commitment's script passes, and its outputs and fee make up the capacity.
fn check_commitment(channel: &Channel, commitment: &Commitment) {
    assert!(scripts_pass(&commitment.tx, &[channel.funding_output()]));
    assert_eq!(commitment.tx.input[0].previous_output, outpoint(1));
    assert_eq!(commitment.outputs.len(), commitment.tx.output.len());
    let fee = channel.commitment_fee(commitment).expect("outputs exceed the capacity");
    assert_eq!(sum(&commitment.tx.output) + fee, channel.params().capacity);
}

/// A claim's scripts pass, its fee is what it says, and it spends what it says it spends.
fn check_claim(claim: &Claim) {
    assert!(scripts_pass(&claim.tx, &claim.prevouts));
    assert_eq!(sum(&claim.prevouts), sum(&claim.tx.output) + claim.fee);
    let spent: Vec<_> = claim.tx.input.iter().map(|input| input.previous_output).collect();
    assert!(spent.ends_with(&claim.coins));
    for output in &claim.tx.output {
        assert!(output.value >= output.script_pubkey.minimal_non_dust());
    }
    if let Some(change) = &claim.change {
        assert_eq!(change.outpoint.txid, claim.tx.compute_txid());
        assert_eq!(claim.tx.output.last(), Some(&change.txout));
    }
}

/// The fee is at the rate, and above it by no more than the uncertainty of signature lengths.
fn check_rate(claim: &Claim, sat_per_kw: u64) {
    let exact = rate(sat_per_kw).fee_wu(claim.tx.weight()).expect("small");
    assert!(claim.fee >= exact, "{} < {exact}", claim.fee);
    let slack = Amount::from_sat(sat_per_kw * 4 * claim.tx.input.len() as u64 / 1000 + 1);
    assert!(claim.fee <= exact + slack, "{} > {exact} + {slack}", claim.fee);
}
