//! Numbers, ids, balances, and the order in which the node is told.

use bitcoin::Amount;
use lightning::ln::chan_utils::CounterpartyCommitmentSecrets;

use super::{busy, htlc, kinds, open, params};
use crate::peer::{
    Balances, FactStep, Format, HtlcRef, Keep, NewHtlc, PeerError, Removal, Side, Staged, Staging,
};

/// One word a step.
fn words(steps: &[FactStep]) -> Vec<String> {
    steps
        .iter()
        .map(|step| match step {
            FactStep::AddHtlc { htlc, staging: Staging::Irrevocable } => format!("+{}", htlc.name),
            FactStep::AddHtlc { htlc, staging: Staging::Next } => format!("+{}?", htlc.name),
            FactStep::RemoveHtlc { htlc, removal: Removal::Failed } => {
                format!("failed {:?} {}", htlc.offerer, htlc.id)
            }
            FactStep::RemoveHtlc { htlc, removal: Removal::Fulfilled { .. } } => {
                format!("fulfilled {:?} {}", htlc.offerer, htlc.id)
            }
            FactStep::LocalCommitment(facts) => format!("local {}", facts.number),
            FactStep::RemoteCommitment(facts) => format!("remote {}", facts.number),
            FactStep::RevocationSecret { number, .. } => format!("revoked {number}"),
            FactStep::ShutdownScripts { .. } => "shutdown".to_owned(),
        })
        .collect()
}

#[test]
fn steps_come_in_the_order_of_the_protocol() -> Result<(), PeerError> {
    let mut channel = open(params(Format::Anchors, Side::Local))?;
    let told = |channel: &mut crate::peer::Channel| {
        channel.take_facts(Keep::Every).map(|steps| words(&steps))
    };
    assert_eq!(told(&mut channel)?, ["remote 0", "local 0"]);
    channel.offer(htlc("o", 50_000, 500))?;
    assert_eq!(told(&mut channel)?, ["+o", "remote 1", "revoked 0", "local 1"]);
    channel.receive(htlc("r", 50_000, 500))?;
    assert_eq!(told(&mut channel)?, ["+r", "local 2", "remote 2", "revoked 1"]);
    channel.settle("o")?;
    assert_eq!(told(&mut channel)?, ["local 3", "remote 3", "revoked 2", "fulfilled Local 0"]);
    channel.cancel("r")?;
    assert_eq!(told(&mut channel)?, ["remote 4", "revoked 3", "local 4", "failed Remote 0"]);
    channel.update_fee(500)?;
    channel.empty_updates(2)?;
    channel.shutdown()?;
    let newest = words(&channel.take_facts(Keep::Newest)?);
    assert_eq!(
        newest,
        [
            "remote 5",
            "revoked 4",
            "remote 6",
            "revoked 5",
            "remote 7",
            "revoked 6",
            "local 7",
            "shutdown"
        ]
    );
    assert!(told(&mut channel)?.is_empty());
    Ok(())
}

#[test]
fn every_statement_adds_one_to_both_numbers() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let mut channel = busy(format, opener)?;
        let numbers = |channel: &crate::peer::Channel| {
            (channel.local_number(), channel.remote_number(), channel.remote_next_number())
        };
        assert_eq!(numbers(&channel), (6, 6, None));
        channel.settle("o1")?;
        channel.cancel("r1")?;
        assert_eq!(numbers(&channel), (8, 8, None));
        channel.empty_updates(3)?;
        assert_eq!(numbers(&channel), (11, 11, None));
        if format == Format::ZeroFee {
            assert_eq!(channel.update_fee(300), Err(PeerError::NoUpdateFee));
        } else {
            channel.update_fee(300)?;
            assert_eq!(numbers(&channel), (12, 12, None));
        }
    }
    Ok(())
}

#[test]
fn balances_follow_the_htlcs() -> Result<(), PeerError> {
    let mut channel = open(params(Format::Anchors, Side::Local))?;
    let balances = |local_sat: u64, remote_sat: u64| Balances {
        local_msat: local_sat * 1000,
        remote_msat: remote_sat * 1000,
    };
    channel.offer(htlc("o", 50_000, 500))?;
    channel.receive(htlc("r", 40_000, 500))?;
    assert_eq!(channel.balances(), balances(450_000, 460_000));
    channel.settle("o")?;
    assert_eq!(channel.balances(), balances(450_000, 510_000));
    channel.settle("r")?;
    assert_eq!(channel.balances(), balances(490_000, 510_000));
    channel.offer(htlc("o2", 10_000, 500))?;
    channel.cancel("o2")?;
    assert_eq!(channel.balances(), balances(490_000, 510_000));
    assert_eq!(channel.remote_facts(1)?.balances, balances(450_000, 500_000));
    Ok(())
}

#[test]
fn ids_count_for_each_offerer() -> Result<(), PeerError> {
    let mut channel = busy(Format::Anchors, Side::Local)?;
    let refs = channel.stage(vec![
        Staged::Receive(htlc("r3", 1_000, 500)),
        Staged::Offer(htlc("o3", 1_000, 500)),
        Staged::Receive(htlc("r4", 1_000, 500)),
    ])?;
    let id = |offerer, id| HtlcRef { offerer, id };
    assert_eq!(refs, [id(Side::Remote, 3), id(Side::Local, 3), id(Side::Remote, 4)]);
    assert_eq!(channel.htlc("o2")?.htlc, id(Side::Local, 1));
    assert_eq!(channel.htlc("r-dust")?.htlc, id(Side::Remote, 2));
    Ok(())
}

#[test]
fn staged_offers_leave_our_commitment_alone() -> Result<(), PeerError> {
    let mut channel = open(params(Format::Anchors, Side::Local))?;
    channel.take_facts(Keep::Every)?;
    channel.stage(vec![Staged::Offer(htlc("o", 50_000, 500))])?;
    assert_eq!((channel.local_number(), channel.remote_number()), (0, 0));
    assert_eq!(channel.remote_next_number(), Some(1));
    assert_eq!(channel.revocation_secret(0)?, None);
    assert_eq!(words(&channel.take_facts(Keep::Every)?), ["+o?", "remote 1"]);
    assert_eq!(channel.offer(htlc("x", 1_000, 500)).err(), Some(PeerError::CommitmentStaged));
    assert_eq!(channel.empty_updates(1), Err(PeerError::CommitmentStaged));
    assert_eq!(channel.shutdown(), Err(PeerError::CommitmentStaged));
    Ok(())
}

#[test]
fn staged_receives_are_in_our_commitment_too() -> Result<(), PeerError> {
    let mut channel = open(params(Format::Anchors, Side::Local))?;
    channel.take_facts(Keep::Every)?;
    let batch =
        vec![Staged::Receive(htlc("r", 40_000, 500)), Staged::Offer(htlc("o", 50_000, 500))];
    channel.stage(batch)?;
    assert_eq!((channel.local_number(), channel.remote_number()), (1, 0));
    assert_eq!(words(&channel.take_facts(Keep::Every)?), ["+r?", "+o?", "local 1", "remote 1"]);
    let balances = channel.local_facts(1)?.balances;
    assert_eq!((balances.local_msat, balances.remote_msat), (500_000_000, 460_000_000));
    let balances = channel.remote_facts(1)?.balances;
    assert_eq!((balances.local_msat, balances.remote_msat), (450_000_000, 460_000_000));
    Ok(())
}

#[test]
fn a_thousand_updates_keep_every_secret_and_every_state() -> Result<(), PeerError> {
    let mut channel = busy(Format::Anchors, Side::Local)?;
    channel.take_facts(Keep::Every)?;
    let old = channel.remote_facts(6)?.txid;
    channel.empty_updates(1000)?;
    channel.settle("o1")?;
    let steps = channel.take_facts(Keep::Newest)?;
    let mut store = CounterpartyCommitmentSecrets::new();
    let provide = |store: &mut CounterpartyCommitmentSecrets, number: u64, secret| {
        store.provide_secret((1 << 48) - 1 - number, secret)
    };
    for number in 0..6 {
        let secret = channel.revocation_secret(number)?.expect("revoked");
        assert_eq!(provide(&mut store, number, secret), Ok(()));
    }
    let mut next = 6;
    for step in &steps {
        if let FactStep::RevocationSecret { number, secret } = step {
            assert_eq!(*number, next);
            assert_eq!(provide(&mut store, next, *secret), Ok(()));
            next += 1;
        }
    }
    assert_eq!((next, channel.remote_number()), (1007, 1007));
    assert_eq!(channel.revocation_secret(1007)?, None);
    for step in &steps {
        if let FactStep::RemoteCommitment(facts) = step {
            let current = facts.number == 1007;
            assert_eq!(facts.txid, current.then(|| channel.remote_current().unwrap().txid()));
        }
    }
    let locals = steps.iter().filter(|step| matches!(step, FactStep::LocalCommitment(_)));
    assert_eq!(locals.count(), 1);
    assert_eq!(Some(channel.remote_commitment(6)?.txid()), old);
    assert!(channel.remote_commitment(500)?.htlc_index("o1").is_some());
    assert!(channel.remote_current()?.htlc_index("o1").is_none());
    Ok(())
}

#[test]
fn equal_htlcs_take_outputs_in_the_order_of_their_statements() -> Result<(), PeerError> {
    for (format, opener) in kinds() {
        let mut channel = open(params(format, opener))?;
        let twin = |name: &str| NewHtlc { name: name.to_owned(), ..htlc("twin", 7_000, 500) };
        let names = ["z", "a", "m"];
        for name in names {
            channel.offer(twin(name))?;
        }
        for name in ["rz", "ra"] {
            channel.receive(twin(name))?;
        }
        for commitment in [channel.local_commitment()?, channel.remote_current()?] {
            let indexes = names.map(|name| commitment.htlc_index(name));
            assert!(indexes.is_sorted() && indexes.iter().all(Option::is_some));
            assert!(commitment.htlc_index("rz") < commitment.htlc_index("ra"));
        }
        // The oldest goes: the younger ones move up.
        channel.settle("z")?;
        let commitment = channel.local_commitment()?;
        assert_eq!(commitment.htlc_index("z"), None);
        assert!(commitment.htlc_index("a") < commitment.htlc_index("m"));
    }
    Ok(())
}

#[test]
fn impossible_stories_are_refused_and_change_nothing() -> Result<(), PeerError> {
    let mut channel = busy(Format::Anchors, Side::Local)?;
    let before = (channel.local_number(), channel.balances(), channel.htlcs().len());
    let poor = channel.offer(htlc("big", 450_000, 500));
    assert!(matches!(poor, Err(PeerError::InsufficientBalance { side: Side::Local, .. })));
    assert!(matches!(channel.offer(htlc("o1", 1, 500)), Err(PeerError::DuplicateHtlc(_))));
    assert!(matches!(channel.offer(htlc("n", 0, 500)), Err(PeerError::BadHtlc { .. })));
    let late = channel.receive(htlc("n", 1, 500_000_000));
    assert!(matches!(late, Err(PeerError::BadHtlc { .. })));
    assert!(matches!(channel.settle("nobody"), Err(PeerError::UnknownHtlc(_))));
    assert_eq!(channel.stage(Vec::new()).err(), Some(PeerError::EmptyBatch));
    let twice = vec![Staged::Offer(htlc("t", 1, 500)), Staged::Receive(htlc("t", 1, 500))];
    assert!(matches!(channel.stage(twice), Err(PeerError::DuplicateHtlc(_))));
    assert_eq!(before, (channel.local_number(), channel.balances(), channel.htlcs().len()));
    assert_eq!(channel.remote_next().err(), Some(PeerError::NoNextCommitment));
    let beyond = PeerError::NoSuchCommitment { owner: Side::Remote, number: 7 };
    assert_eq!(channel.remote_commitment(7).err(), Some(beyond));
    channel.settle("o1")?;
    assert!(matches!(channel.cancel("o1"), Err(PeerError::HtlcNotPending(_))));

    let mut wrong = params(Format::Anchors, Side::Local);
    wrong.local_balance = wrong.capacity + Amount::ONE_SAT;
    assert_eq!(crate::peer::Channel::new(wrong).err(), Some(PeerError::BadParameter("local")));
    Ok(())
}

#[test]
fn names_and_seeds_give_other_keys() -> Result<(), PeerError> {
    let a = open(params(Format::Anchors, Side::Local))?;
    let mut other = params(Format::Anchors, Side::Local);
    other.seed = 1;
    let b = open(other.clone())?;
    other.name = "b".to_owned();
    let c = open(other)?;
    assert_ne!(a.funding_script(), b.funding_script());
    assert_ne!(b.funding_script(), c.funding_script());
    assert_ne!(a.keys(Side::Local), a.keys(Side::Remote));
    assert_eq!(a.keys(Side::Local), open(params(Format::Anchors, Side::Local))?.keys(Side::Local));
    Ok(())
}
