//! What any monitor's bytes say, of an open channel or a closed one: what stands in front of that which
//! depends on the chain.
use super::{Canon, Read, commitments, legacy, points, secrets, theirs};
use crate::ldk02::facts::bytes::{Bytes, Unreadable};
use arb_core::facts::SecretStore;
use arb_core::facts::secrets::SecretIndex;
use arb_core::ids::{PerCommitmentSecret, Preimage};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Txid};
use std::collections::BTreeMap;

/// A beginning of a monitor. Numbers count down, as LDK's do.
#[derive(Clone, Debug)]
pub(in crate::ldk02::facts) struct Known {
    pub(in crate::ldk02::facts) destination: ScriptBuf,
    pub(in crate::ldk02::facts) remote_number: u64,
    pub(in crate::ldk02::facts) local_number: u64,
    /// What the peer has revealed.
    pub(in crate::ldk02::facts) secrets: SecretStore,
    /// Preimages by their hash.
    pub(in crate::ldk02::facts) preimages: BTreeMap<[u8; 32], Preimage>,
}

/// Reads the beginning of a monitor.
pub(in crate::ldk02::facts) fn known(bytes: &[u8]) -> Read<Known> {
    let mut all = Bytes(bytes);
    let mut unused = Canon::of(bytes);
    all.version()?;
    let (_update, _obscures): (u64, u64) = (all.value()?, all.number()?);
    let destination: ScriptBuf = all.value()?;
    match all.value::<u8>()? {
        // Our commitment is on chain: its delayed output.
        0 => {
            let (_script, _keys): (ScriptBuf, [PublicKey; 2]) =
                (all.value()?, [all.value()?, all.value()?]);
        }
        1 => {}
        _ => return Err(Unreadable("a truth value is neither").into()),
    }
    let (_to_remote, _shutdown): (ScriptBuf, ScriptBuf) = (all.value()?, all.value()?);
    all.take(32)?; // what keys are derived from
    let _revocation: PublicKey = all.value()?;
    all.take(34)?; // funding output
    let _funding_script: ScriptBuf = all.value()?;
    let (_remote, _before): (Option<Txid>, Option<Txid>) = (all.value()?, all.value()?);
    theirs(&mut all)?;
    let _witness_script: ScriptBuf = all.value()?;
    let _value: u64 = all.value()?;
    points(&mut all)?;
    let _delay: u16 = all.value()?;
    let slot = |(index, secret): (u64, [u8; 32])| {
        Some((SecretIndex::new(index)?, PerCommitmentSecret(secret)))
    };
    let slots: Option<Vec<_>> = secrets(&mut all)?.into_iter().map(slot).collect();
    let secrets = slots.and_then(|slots| SecretStore::from_slots(slots).ok());
    let secrets = secrets.ok_or(Unreadable("a secret does not fit the others"))?;
    commitments(&mut all, &mut unused)?;
    // The peer's commitments on chain, and the newest commitment that has each hash.
    for _ in 0..2 {
        for _ in 0..all.value::<u64>()? {
            all.take(38)?;
        }
    }
    if all.truth()? {
        legacy(&mut all)?;
    }
    legacy(&mut all)?;
    let (remote_number, local_number) = (all.number()?, all.number()?);
    let mut preimages = BTreeMap::new();
    for _ in 0..all.value::<u64>()? {
        let preimage = Preimage(all.value()?);
        preimages.insert(preimage.hash().0, preimage);
    }
    Ok(Known { destination, remote_number, local_number, secrets, preimages })
}
