//! Wallet coins that are gone: a reorganisation took the block that made them, or they were spent
//! elsewhere.
use super::*;
use crate::claim::AnchorLock;
use crate::ids::PerCommitmentSecret;

fn handed_out(kind: TxKind, claim: u32, coin: u32, at: BlockHeight) -> HandedOut {
    let input = |vout| bitcoin::TxIn { previous_output: outpoint(vout), ..Default::default() };
    let script_pubkey = ScriptBuf::from_bytes(vec![0x51]);
    HandedOut {
        kind,
        transaction: Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input(claim), input(coin)],
            output: vec![TxOut { value: Amount::from_sat(1_000), script_pubkey }],
        }
        .into(),
        claims: vec![outpoint(claim)],
        others: vec![],
        coins: vec![outpoint(coin)],
        fee: Amount::from_sat(20_000),
        at,
    }
}

/// What is to be signed, and how many transactions are published.
fn steps(world: &World) -> (Vec<Draft>, usize) {
    let (mut drafts, mut published) = (Vec::new(), 0);
    for step in world.steps() {
        match step {
            Step::Sign(draft) => drafts.push(*draft),
            Step::Publish(_) => published += 1,
        }
    }
    (drafts, published)
}

/// Hands out a transaction that spends `coin`, which is refused at once, and goes on to where that
/// counts.
fn refused(world: &mut World, kind: TxKind, coin: u32, why: Refusal) -> HandedOut {
    let out = handed_out(kind, 0, coin, world.tip);
    world.acts.handed_out.push(out.clone());
    world.refuse(&out.transaction, why);
    world.tip = BlockHeight(world.tip.0 + 1);
    out
}

#[test]
fn a_second_stage_whose_coin_is_gone_is_made_with_another() {
    let mut world = World::new(vec![stage(0)]);
    let out = refused(&mut world, TxKind::HtlcTimeout, 9, Refusal::Conflict);
    let (drafts, published) = steps(&world);
    assert_eq!((drafts.len(), published), (1, 1), "and the coin may come back");
    let paid = fee::feerate_of(out.fee, out.transaction.weight()).expect("a weight");
    assert!(drafts[0].feerate >= paid, "{} after {paid}", drafts[0].feerate);
    let floor = fee::fee_of(world.estimates.floor, drafts[0].weight());
    assert_eq!(drafts[0].least, floor, "it replaces nothing");
}

#[test]
fn what_is_refused_for_its_fee_keeps_its_coin() {
    let mut world = World::new(vec![stage(0)]);
    let out = refused(&mut world, TxKind::HtlcTimeout, 9, Refusal::Fee);
    let weight = out.transaction.weight();
    let replaces = |draft: &Draft| draft.least >= fee::replacement_fee(out.fee, weight);
    let (drafts, _) = steps(&world);
    assert!(drafts.len() == 1 && drafts.iter().all(replaces));
}

/// The network does not say which input it misses: if it is not the coin, not every block has its
/// transaction.
#[test]
fn what_is_missed_again_and_again_is_made_every_third_block() {
    let mut world = World::new(vec![stage(0)]);
    let mut made = Vec::new();
    for block in 0..12 {
        if !steps(&world).0.is_empty() {
            made.push(block);
            refused(&mut world, TxKind::HtlcTimeout, 20 + block, Refusal::Conflict);
        } else {
            world.tip = BlockHeight(world.tip.0 + 1);
        }
    }
    assert_eq!(made, [0, 1, 3, 6, 9]);
}

fn anchor(parent: Txid) -> Claim {
    let path = SpendPath::Anchor {
        lock: AnchorLock::Keyed {
            script: ScriptBuf::from_bytes(vec![0; 40]),
            key: SigningKey::Revocation(PerCommitmentSecret([1; 32])),
        },
        parent,
        ours: Amount::from_sat(500_000),
        lost: Vec::new(),
    };
    Claim { path, ..claim(0, TxKind::Anchor, 330, None) }
}

#[test]
fn a_child_whose_coin_is_gone_is_made_with_another() {
    let parent = handed_out(TxKind::Commitment, 5, 6, BlockHeight(START));
    let parent = HandedOut { fee: Amount::from_sat(100), coins: vec![], ..parent };
    let mut world = World::new(vec![anchor(parent.txid())]);
    world.acts.handed_out.push(parent.clone());
    let child = refused(&mut world, TxKind::Anchor, 9, Refusal::Conflict);
    // Fees have fallen: that is no reason to pay less.
    world.estimates = flat(2);
    let (drafts, _) = steps(&world);
    assert_eq!(drafts.len(), 1);
    let weight = child.transaction.weight() + parent.transaction.weight();
    let paid = fee::feerate_of(child.fee + parent.fee, weight).expect("a weight");
    assert!(drafts[0].feerate >= paid, "{} after {paid}", drafts[0].feerate);
    // Without its parent it would be refused whatever its coin.
    world.refuse(&parent.transaction, Refusal::Conflict);
    world.tip = BlockHeight(world.tip.0 + 1);
    assert_eq!(steps(&world).0, []);
}

/// BIP 431: neither is relayed without the other.
#[test]
fn a_commitment_without_fee_waits_for_its_child() {
    let parent = handed_out(TxKind::Commitment, 5, 6, BlockHeight(START));
    let version = bitcoin::transaction::Version(3);
    let transaction = Transaction { version, ..parent.transaction.transaction().clone() }.into();
    let parent = HandedOut { transaction, fee: Amount::ZERO, coins: vec![], ..parent };
    let lock = AnchorLock::Shared;
    let ours = Amount::from_sat(500_000);
    let path = SpendPath::Anchor { lock, parent: parent.txid(), ours, lost: vec![] };
    let anchor = Claim { path, ..claim(0, TxKind::Anchor, 0, None) };
    let key = bitcoin::secp256k1::SecretKey::from_slice(&[1; 32]).expect("a key");
    let public = key.public_key(&bitcoin::secp256k1::Secp256k1::new());
    let presigned = crate::claim::Presigned {
        transaction: parent.transaction.transaction().clone(),
        script: ScriptBuf::new(),
        key: SigningKey::Payment,
        local_funding: public,
        remote_funding: public,
        remote_signature: Signature::from_compact(&[1; 64]).expect("a signature"),
        anchor: Some(0),
    };
    let path = SpendPath::LocalCommitment(Box::new(presigned));
    let commitment = Claim { path, ..claim(5, TxKind::Commitment, 1_000_000, None) };
    let mut world = World::new(vec![commitment, anchor]);
    world.acts.handed_out.push(parent.clone());
    let published = |world: &World| {
        let package = world.steps().into_iter().find_map(|step| match step {
            Step::Publish(package) => Some(package.transactions),
            Step::Sign(_) => None,
        });
        package.map_or(0, |package| package.len())
    };
    let signs = |world: &World| world.steps().iter().any(|step| matches!(step, Step::Sign(_)));
    assert_eq!((published(&world), signs(&world)), (0, true));
    // There is nothing to pay a child with: what the network says to it alone is in the log then.
    let waiting = World { tip: BlockHeight(START + 1), ..World::new(world.claims.clone()) };
    let waiting = World { acts: world.acts.clone(), ..waiting };
    assert_eq!((published(&waiting), signs(&waiting)), (1, true));
    let child = handed_out(TxKind::Anchor, 0, 9, BlockHeight(START));
    world.acts.handed_out.push(child);
    assert_eq!(published(&world), 2);
}

/// Nobody knows what another's child pays that keeps ours out: ours is raised up to what is mined at once, and shortly
/// before the deadline as far as the budget goes.
#[test]
fn a_child_is_not_raised_without_end_against_anothers() {
    let parent = handed_out(TxKind::Commitment, 5, 6, BlockHeight(START));
    let parent = HandedOut { fee: Amount::ZERO, coins: vec![], ..parent };
    let at_risk = Amount::from_sat(1_000_000);
    let deadline = BlockHeight(START + 60);
    let claim = Claim {
        value_at_risk: at_risk,
        deadline: Some(Deadline::By(deadline)),
        ..anchor(parent.txid())
    };
    let mut world = World::new(vec![claim]);
    world.acts.handed_out.push(parent);
    world.estimates = flat(10);
    let mut bids = Vec::new();
    while world.tip < deadline {
        for draft in steps(&world).0 {
            bids.push((world.tip.until(deadline).0, draft.feerate.to_sat_per_kwu()));
            assert!(draft.fee.to_sat() <= at_risk.to_sat() / 2, "{} of {at_risk}", draft.fee);
            let coin = 20 + u32::try_from(bids.len()).expect("few");
            let out =
                HandedOut { fee: draft.fee, ..handed_out(TxKind::Anchor, 0, coin, world.tip) };
            world.refuse(&out.transaction, Refusal::Fee);
            world.acts.handed_out.push(out);
        }
        world.tip = BlockHeight(world.tip.0 + 1);
    }
    let far: Vec<u64> = bids.iter().filter(|(left, _)| *left > 20).map(|(_, rate)| *rate).collect();
    let most = 5 * 2_500;
    assert!(far.len() > 3 && far.iter().all(|rate| *rate <= most), "{bids:?}");
    assert!(far.iter().any(|rate| *rate * 10 >= most * 9), "{bids:?}");
    assert!(bids.iter().any(|(left, rate)| *left <= 6 && *rate > 2 * most), "{bids:?}");
}
