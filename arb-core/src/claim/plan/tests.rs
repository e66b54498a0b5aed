//! The scheduler, driven block by block: nothing is forgotten, nothing is claimed twice, and no
//! price falls, whatever happens to the other claims of a transaction.
use super::*;
use crate::arbitrator::{Change, HandedOut, Rejections, TxKind};
use crate::claim::trough::Troughs;
use crate::claim::{Presigned, SigningKey, SingleSpend, Unlock};
use alloc::collections::{BTreeMap, BTreeSet};
use bitcoin::Transaction;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::transaction::Version;
use bitcoin::{ScriptBuf, Sequence, TxIn, TxOut};
use proptest::prelude::*;

mod coins;
mod pressed;
mod unheard;

const START: u32 = 1_000;

fn outpoint(vout: u32) -> OutPoint {
    OutPoint { txid: Txid::all_zeros(), vout }
}

fn claim(vout: u32, kind: TxKind, value: u64, left: Option<u32>) -> Claim {
    let script = ScriptBuf::from_bytes([0x51].to_vec());
    Claim {
        channel: ChannelId([0; 32]),
        outpoint: outpoint(vout),
        output: TxOut { value: Amount::from_sat(value), script_pubkey: script.clone() },
        path: SpendPath::Single(Box::new(SingleSpend {
            kind,
            htlc: None,
            script: Some(ScriptBuf::from_bytes([0; 130].to_vec())),
            unlock: Unlock::Nothing,
            key: SigningKey::Payment,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            lock_time: LockTime::ZERO,
            version: bitcoin::transaction::Version::TWO,
        })),
        open_at: BlockHeight(START),
        deadline: left.map(|left| match kind {
            TxKind::Penalty => {
                Deadline::Penalty { by: BlockHeight(START + left), second_stage: None }
            }
            _ => Deadline::By(BlockHeight(START + left)),
        }),
        value_at_risk: Amount::from_sat(value),
        destination: script,
    }
}

fn flat(sat_per_vb: u32) -> FeeEstimates {
    let rate = FeeRate::from_sat_per_vb_u32(sat_per_vb);
    FeeEstimates {
        targets: vec![(1, rate)],
        floor: FeeRate::BROADCAST_MIN,
        troughs: Troughs::default(),
    }
}

/// The claims of a channel, and a shell that signs whatever it is asked for.
struct World {
    claims: Vec<Claim>,
    acts: Acts,
    tip: BlockHeight,
    estimates: FeeEstimates,
}

impl World {
    fn new(claims: Vec<Claim>) -> Self {
        Self { claims, acts: Acts::default(), tip: BlockHeight(START), estimates: flat(10) }
    }

    fn steps(&self) -> Vec<Step> {
        plan(&self.claims, &self.acts, self.tip, &self.estimates)
    }

    /// Signs until there is nothing to sign, and gives what is to be published.
    fn settle(&mut self) -> Vec<Transaction> {
        for _ in 0..50 {
            let (mut published, mut signed) = (Vec::new(), false);
            for step in self.steps() {
                match step {
                    Step::Sign(draft) => signed |= self.sign(*draft),
                    Step::Publish(package) => published.extend(package.transactions),
                }
            }
            if !signed {
                return published;
            }
        }
        panic!("it goes on and on");
    }

    fn sign(&mut self, draft: Draft) -> bool {
        let Ok(unsigned) = draft.assemble(&[], None) else { return false };
        let signature = Signature::from_compact(&[1; 64]).expect("in range");
        let count = unsigned.requests().count();
        let transaction = unsigned.signed(&vec![signature; count]);
        let mut is_new = false;
        for out in unsigned.handed_out(&transaction, self.tip).into_values() {
            // Else it is the same signature once more.
            is_new |= self.acts.ours(out.txid()).is_none() || self.acts.is_back(&out);
            self.acts.apply(&Change::HandedOut(Box::new(out)));
        }
        is_new
    }

    fn take(&mut self, vout: u32) {
        self.claims.retain(|claim| claim.outpoint != outpoint(vout));
    }

    fn refuse(&mut self, transaction: &Transaction, why: Refusal) {
        let rejections = Rejections { why, last: self.tip };
        self.acts.rejected.insert(transaction.compute_txid(), rejections);
    }

    /// The feerate of what is published, by output.
    fn rates(&self, published: &[Transaction]) -> BTreeMap<u32, u64> {
        let mut rates = BTreeMap::new();
        for transaction in published {
            let out = self.acts.ours(transaction.compute_txid()).expect("it is in the log");
            let rate = fee::feerate_of(out.fee, transaction.weight()).expect("a weight");
            for input in &transaction.input {
                let twice = rates.insert(input.previous_output.vout, rate.to_sat_per_kwu());
                assert_eq!(twice, None, "one output in two transactions");
            }
        }
        rates
    }
}

fn inputs(transactions: &[Transaction]) -> Vec<usize> {
    transactions.iter().map(|tx| tx.input.len()).collect()
}

fn commitment() -> SpendPath {
    let secret = SecretKey::from_slice(&[7; 32]).expect("a valid key");
    let key = PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret);
    let input = TxIn { previous_output: outpoint(0), ..TxIn::default() };
    let output = TxOut { value: Amount::from_sat(99_000), script_pubkey: ScriptBuf::new() };
    SpendPath::LocalCommitment(Box::new(Presigned {
        transaction: Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![output],
        },
        script: ScriptBuf::new(),
        key: SigningKey::Funding(key),
        local_funding: key,
        remote_funding: key,
        remote_signature: Signature::from_compact(&[1; 64]).expect("in range"),
        anchor: None,
    }))
}

#[test]
fn what_was_signed_wrongly_is_signed_anew_at_its_price_after_ever_longer_pauses() {
    for path in [None, Some(commitment())] {
        let mut world = World::new(vec![claim(0, TxKind::Claim, 100_000, None)]);
        if let Some(path) = path {
            world.claims[0].path = path;
        }
        let published = world.settle();
        world.refuse(&published[0], Refusal::Invalid);
        let fee = world.acts.handed_out[0].fee;
        let mut anew = Vec::new();
        for block in 1..=30 {
            world.tip = BlockHeight(START + block);
            let drafts = world.steps().into_iter().filter_map(|step| match step {
                Step::Sign(draft) => Some(draft),
                Step::Publish(_) => None,
            });
            for draft in drafts {
                assert!(draft.fee == fee || draft.fee == Amount::ZERO, "{}", draft.fee);
                anew.push(block);
                world.refuse(&published[0], Refusal::Invalid);
            }
        }
        assert_eq!(anew, [1, 2, 4, 8, 14, 20, 26]);
    }
}

#[test]
fn a_group_that_is_formed_anew_goes_on_where_it_was() {
    let mut world = World::new((0..3).map(|v| claim(v, TxKind::Claim, 100_000, None)).collect());
    assert_eq!(inputs(&world.settle()), [3]);
    world.tip = BlockHeight(START + 1);
    world.estimates = flat(40);
    let published = world.settle();
    let before = world.rates(&published);
    assert!(before.values().all(|rate| *rate >= 10_000), "{before:?}");
    // Fees fall, and the peer takes one of them.
    world.estimates = flat(2);
    world.take(1);
    let published = world.settle();
    assert_eq!(inputs(&published), [2]);
    let after = world.rates(&published);
    assert!(after.iter().all(|(vout, rate)| rate >= &before[vout]), "{after:?} {before:?}");
}

#[test]
fn what_two_groups_leave_goes_on_at_the_higher_of_their_prices() {
    for rates in [[40, 2], [2, 40]] {
        let pair = |at: u32| [at, at + 1].map(|v| claim(v, TxKind::Claim, 100_000, None));
        let mut world = World::new(pair(0).to_vec());
        world.estimates = flat(rates[0]);
        world.settle();
        world.claims.extend(pair(2));
        world.estimates = flat(rates[1]);
        let published = world.settle();
        assert_eq!(inputs(&published), [2, 2]);
        let before = world.rates(&published);
        // The peer takes one of each, in one block.
        world.estimates = flat(1);
        world.take(1);
        world.take(3);
        let published = world.settle();
        assert_eq!(inputs(&published), [2]);
        let after = world.rates(&published)[&0];
        assert!(after >= before[&0].max(before[&2]), "{after} after {before:?}");
    }
}

#[test]
fn whoever_is_outbid_in_a_race_bids_half_more_at_once() {
    let by = BlockHeight(START + 50);
    for (deadline, at_once) in [(Deadline::Race(Some(by)), true), (Deadline::By(by), false)] {
        let mut world = World::new(vec![claim(0, TxKind::Claim, 100_000, None)]);
        world.claims[0].deadline = Some(deadline);
        let published = world.settle();
        let before = world.rates(&published)[&0];
        world.refuse(&published[0], Refusal::Fee);
        let published = world.settle();
        let after = world.rates(&published)[&0];
        assert_eq!(after + 3 >= before + before / 2, at_once, "{after} after {before}");
        assert!(at_once || after == before, "{after} after {before}");
    }
}

#[test]
fn the_most_valuable_penalty_pays_for_the_split() {
    let values = [20_000, 500_000, 60_000];
    let penalty = |(vout, value)| claim(vout, TxKind::Penalty, value, Some(144));
    let mut world = World::new((0..).zip(values).map(penalty).collect());
    let first = world.settle();
    assert_eq!(inputs(&first), [3]);
    let all = world.acts.handed_out[0].fee;
    world.tip = BlockHeight(START + 127);
    let drafts: Vec<Draft> = (world.steps().into_iter())
        .filter_map(|step| match step {
            Step::Sign(draft) => Some(*draft),
            Step::Publish(_) => None,
        })
        .collect();
    // The others wait until it is in the log.
    let [heir] = drafts.as_slice() else { panic!("{} drafts", drafts.len()) };
    assert_eq!(heir.claim.outpoint, outpoint(1));
    assert!(heir.least > all);
    let published = world.settle();
    assert_eq!(inputs(&published), [1, 1, 1]);
    let fee = |at: usize| world.acts.ours(published[at].compute_txid()).expect("ours").fee;
    assert!(fee(1) > all);
    assert!(fee(0) < all && fee(2) < all);
}

#[test]
fn several_pay_for_the_split_where_none_can_alone() {
    let penalty = |vout| claim(vout, TxKind::Penalty, 5_000, Some(144));
    let mut world = World::new((0..8).map(penalty).collect());
    assert_eq!(inputs(&world.settle()), [8]);
    let all = world.acts.handed_out[0].fee;
    assert!(all > Amount::from_sat(5_000), "one cannot pay {all}");
    world.tip = BlockHeight(START + 127);
    let published = world.settle();
    // The fewest that can, of those that are worth as much; and each of the others by itself.
    assert_eq!(inputs(&published), [2, 1, 1, 1, 1, 1, 1]);
    let fee = |tx: &Transaction| world.acts.ours(tx.compute_txid()).expect("ours").fee;
    assert!(fee(&published[0]) > all);
    assert!(published[1..].iter().all(|tx| fee(tx) < all));
}

#[test]
fn those_that_pay_for_a_split_together_pay_once() {
    let penalty = |vout| claim(vout, TxKind::Penalty, 5_000, Some(144));
    let mut world = World::new((0..3).map(penalty).collect());
    world.estimates = flat(20);
    assert_eq!(inputs(&world.settle()), [3]);
    world.tip = BlockHeight(START + 127);
    assert_eq!(inputs(&world.settle()), [2, 1]);
    let signed = world.acts.handed_out.len();
    assert_eq!(signed, 3, "the whole, two of them, and the third");
}

#[test]
fn what_costs_more_than_it_brings_leaves_when_fees_rise() {
    let values = [1_000_000, 3_000, 3_000];
    let by = |(vout, value)| claim(vout, TxKind::Claim, value, Some(60));
    let mut world = World::new((0..).zip(values).map(by).collect());
    assert_eq!(inputs(&world.settle()), [3]);
    world.tip = BlockHeight(START + 20);
    world.estimates = flat(100);
    let published = world.settle();
    let all = world.acts.handed_out[0].fee;
    let dear = published.iter().find(|tx| tx.input[0].previous_output == outpoint(0));
    let dear = dear.expect("the large one is claimed");
    assert_eq!(dear.input.len(), 1, "by itself");
    assert!(world.acts.ours(dear.compute_txid()).expect("ours").fee > all);
}

#[test]
fn a_budget_holds_for_its_claim_in_whatever_company() {
    let by = |vout| claim(vout, TxKind::Claim, 100_000, Some(60));
    let mut world = World::new((0..3).map(by).collect());
    world.acts.budgets.insert(Some(outpoint(1)), Amount::from_sat(2_000));
    assert_eq!(inputs(&world.settle()), [3]);
    for (rate, together) in [(5, 3), (12, 3), (60, 2)] {
        world.tip = BlockHeight(world.tip.0 + 5);
        world.estimates = flat(rate);
        let published = world.settle();
        assert!(inputs(&published).contains(&together), "{rate}: {:?}", inputs(&published));
        for out in &world.acts.handed_out {
            let share = out.claims.contains(&outpoint(1)).then(|| out.share(outpoint(1)));
            assert!(share.is_none_or(|share| share.to_sat() <= 2_001), "{rate}: {share:?}");
        }
    }
}

#[test]
fn what_costs_the_others_more_than_it_brings_stays_apart() {
    let values = [100_000, 1_000, 50_000, 1_100];
    let sweep = |(vout, value)| claim(vout, TxKind::Penalty, value, Some(144));
    let mut world = World::new((0..).zip(values).map(sweep).collect());
    world.estimates = flat(50);
    let published = world.settle();
    let together: Vec<_> = published.iter().filter(|tx| tx.input.len() > 1).collect();
    let [together] = together.as_slice() else { panic!("{:?}", inputs(&published)) };
    let vouts: Vec<u32> = together.input.iter().map(|i| i.previous_output.vout).collect();
    assert_eq!(vouts, [0, 2]);
    // As long as fees are low, all of them go together.
    let mut world = World::new((0..).zip(values).map(sweep).collect());
    world.estimates = flat(2);
    assert_eq!(inputs(&world.settle()), [4]);
}

// incident lnd-10842
#[test]
fn a_bad_input_is_found_and_the_others_do_not_pay_for_it() {
    let mut world = World::new((0..8).map(|v| claim(v, TxKind::Claim, 100_000, None)).collect());
    let bad = |tx: &Transaction| tx.input.iter().any(|i| i.previous_output.vout == 5);
    let mut published = world.settle();
    // In one block: whatever holds the bad one is refused.
    for _ in 0..3 {
        let refused: Vec<Transaction> = published.iter().filter(|tx| bad(tx)).cloned().collect();
        for transaction in &refused {
            world.refuse(transaction, Refusal::Invalid);
        }
        published = world.settle();
    }
    let mut counts = inputs(&published);
    counts.sort_unstable();
    assert_eq!(counts, [1, 1, 2, 4]);
    let rates = world.rates(&published);
    assert!(rates.values().all(|rate| (2_500..2_600).contains(rate)), "{rates:?}");
}

#[derive(Clone, Debug)]
enum Event {
    Take(u32),
    Contest(u32),
    Refuse(usize, Refusal),
    Feerate(u32),
    Blocks(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let why = prop_oneof![Just(Refusal::Fee), Just(Refusal::Conflict), Just(Refusal::Invalid)];
    prop_oneof![
        (0u32..8).prop_map(Event::Take),
        (0u32..8).prop_map(Event::Contest),
        (0usize..8, why).prop_map(|(at, why)| Event::Refuse(at, why)),
        (1u32..100).prop_map(Event::Feerate),
        (1u32..40).prop_map(Event::Blocks),
    ]
}

prop_compose! {
    fn any_claim(vout: u32)(
        kind in prop_oneof![Just(TxKind::Penalty), Just(TxKind::Claim), Just(TxKind::Sweep)],
        value in 20_000u64..2_000_000,
        left in 20u32..160,
    ) -> Claim {
        claim(vout, kind, value, (kind != TxKind::Sweep).then_some(left))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_due_claim_is_published_once_and_never_for_less(
        claims in (0u32..8).map(any_claim).collect::<Vec<_>>(),
        events in prop::collection::vec(event(), 0..12),
    ) {
        let mut world = World::new(claims);
        let mut published = world.settle();
        let mut invalid = BTreeSet::new();
        for event in events {
            let before = world.rates(&published);
            match event {
                Event::Take(vout) => world.take(vout),
                Event::Contest(vout) => {
                    world.acts.contested.insert(outpoint(vout));
                }
                Event::Refuse(at, why) => {
                    let Some(transaction) = published.get(at).cloned() else { continue };
                    world.refuse(&transaction, why);
                    if why == Refusal::Invalid {
                        let vouts = transaction.input.iter().map(|i| i.previous_output.vout);
                        invalid.extend(vouts);
                    }
                }
                Event::Feerate(rate) => world.estimates = flat(rate),
                Event::Blocks(blocks) => world.tip = BlockHeight(world.tip.0 + blocks),
            }
            prop_assert_eq!(world.steps(), world.steps());
            published = world.settle();
            let after = world.rates(&published);
            // What has no deadline may wait for better times, on the first day.
            let first_day = world.tip.0 < START + fee::PATIENT;
            for claim in &world.claims {
                let patient = first_day && claim.deadline.is_none();
                prop_assert!(patient || after.contains_key(&claim.outpoint.vout));
            }
            for (vout, rate) in &after {
                let all = published.iter().find(|tx| {
                    tx.input.iter().any(|input| input.previous_output.vout == *vout)
                });
                let all = all.expect("it is published");
                let out = world.acts.ours(all.compute_txid()).expect("ours");
                let spent = all.output.iter().map(|output| output.value).sum::<Amount>();
                // Rounding of a few units, and what a smaller transaction cannot afford.
                let poor = out.fee.to_sat() * 8 >= spent.to_sat();
                let never = before.get(vout).copied().unwrap_or(0);
                prop_assert!(
                    rate + 3 >= never || poor || invalid.contains(vout),
                    "{}: {} after {}", vout, rate, never
                );
            }
        }
    }
}

#[test]
fn a_package_says_what_it_claims_and_until_when() {
    let deadlines = [Some(40), Some(41), None, None];
    let claims = (0..).zip(deadlines).map(|(v, at)| claim(v, TxKind::Claim, 100_000, at));
    let mut claims: Vec<Claim> = claims.collect();
    // Every block of a race counts, from its beginning on.
    claims[3].deadline = Some(Deadline::Race(None));
    let began = claims[3].open_at;
    let mut world = World::new(claims);
    world.settle();
    let mut stakes: Vec<Stake> = Vec::new();
    for step in world.steps() {
        let Step::Publish(package) = step else { panic!("all is signed") };
        let spent = |tx: &Transaction| tx.input.iter().map(|i| i.previous_output).collect();
        let spent: Vec<OutPoint> =
            package.transactions.iter().flat_map(|tx| -> Vec<_> { spent(tx) }).collect();
        assert_eq!(package.stakes.iter().map(|s| s.outpoint).collect::<Vec<_>>(), spent);
        stakes.extend(package.stakes);
    }
    stakes.sort_by_key(|stake| stake.outpoint);
    let channels: Vec<_> = world.claims.iter().map(|claim| claim.channel).collect();
    assert_eq!(stakes.iter().map(|stake| stake.channel).collect::<Vec<_>>(), channels);
    let told: Vec<_> = stakes.iter().map(|stake| stake.deadline).collect();
    assert_eq!(told, [Some(BlockHeight(1_040)), Some(BlockHeight(1_041)), None, Some(began)]);
}

#[test]
fn a_budget_of_the_operator_is_the_most_that_is_paid() {
    let mut world = World::new(vec![claim(0, TxKind::Claim, 100_000, Some(1))]);
    world.acts.budgets.insert(None, Amount::from_sat(5_000));
    world.settle();
    assert_eq!(world.acts.handed_out.last().map(|out| out.fee.to_sat() <= 5_000), Some(true));
    // One for the very output stands above that for the channel.
    world.acts.budgets.insert(Some(outpoint(0)), Amount::from_sat(20_000));
    world.settle();
    let fee = world.acts.handed_out.last().map_or(0, |out| out.fee.to_sat());
    assert!((5_001..=20_000).contains(&fee), "{fee}");
    // What the output itself pays for cannot cost more than it is worth.
    world.acts.budgets.insert(Some(outpoint(0)), Amount::from_sat(1_000_000));
    world.settle();
    let fee = world.acts.handed_out.last().map_or(0, |out| out.fee.to_sat());
    assert!((20_001..100_000).contains(&fee), "{fee}");
}

// incident lnd-10897
#[test]
fn what_only_comes_along_has_no_transaction_of_its_own() {
    let mut anchor = claim(1, TxKind::Sweep, 330, None);
    anchor.value_at_risk = Amount::ZERO;
    // Three of them would pay for a transaction.
    let others = [2, 3].map(|vout| Claim { outpoint: outpoint(vout), ..anchor.clone() });
    let mut alone = World::new([&[anchor.clone()][..], &others].concat());
    alone.estimates = flat(1);
    alone.settle();
    assert!(alone.acts.handed_out.is_empty());
    for claim in &mut alone.claims {
        claim.value_at_risk = claim.output.value;
    }
    assert_eq!(inputs(&alone.settle()), [3]);
    let balance = || claim(0, TxKind::Sweep, 50_000, None);
    let made = |sat_per_vb| {
        let mut world = World::new(vec![balance(), anchor.clone()]);
        world.estimates = flat(sat_per_vb);
        world.settle();
        world.acts.handed_out.iter().map(|out| out.claims.len()).collect::<Vec<_>>()
    };
    assert_eq!(made(1), [2], "it brings more than it costs");
    assert_eq!(made(20), [1], "it does not");
}

/// An HTLC transaction that the wallet pays.
fn stage(vout: u32) -> Claim {
    let mut claim = claim(vout, TxKind::Sweep, 50_000, Some(30));
    let input = bitcoin::TxIn { previous_output: outpoint(vout), ..bitcoin::TxIn::default() };
    let transaction = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![claim.output.clone()],
    };
    claim.path = SpendPath::SecondStage(Box::new(crate::claim::SecondStage {
        htlc: crate::ids::HtlcId { offerer: crate::ids::Side::Local, id: u64::from(vout) },
        transaction,
        script: ScriptBuf::from_bytes([0; 130].to_vec()),
        key: SigningKey::Payment,
        remote_signature: Signature::from_compact(&[1; 64]).expect("in range"),
        extensible: Extensible::Yes,
        preimage: None,
    }));
    claim
}

#[test]
fn what_the_network_refuses_leaves_the_coins_to_others() {
    let mut world = World::new(vec![stage(0), stage(1)]);
    world.acts.set_aside.insert(outpoint(0), "bad-witness-nonstandard".into());
    let signed = |world: &World| -> Vec<(u32, bool)> {
        let first = |step: &Step| match step {
            Step::Sign(draft) => Some((draft.claim.outpoint.vout, draft.last)),
            Step::Publish(_) => None,
        };
        world.steps().iter().filter_map(first).collect()
    };
    assert_eq!(signed(&world), [(0, true), (1, false)]);
    let part = Part { claims: &world.claims, acts: &world.acts, joining: Joining::Never };
    let leads = leads(&[part], world.tip, &world.estimates);
    assert_eq!(leads.iter().map(|(_, lead)| lead.vout).collect::<Vec<_>>(), [1]);
}

/// A transaction that the network would not have keeps no coins, unless it was to take the place of one that it has.
#[test]
fn what_the_network_has_none_of_keeps_no_coins() {
    let handed_out = |n: u32, world: &World| HandedOut {
        kind: TxKind::HtlcTimeout,
        transaction: Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: LockTime::from_consensus(n),
            input: vec![],
            output: vec![],
        }
        .into(),
        claims: vec![outpoint(0)],
        others: vec![],
        coins: vec![outpoint(9)],
        fee: Amount::from_sat(1_000),
        at: world.tip,
    };
    let mut world = World::new(vec![stage(0)]);
    world.acts.handed_out.extend([handed_out(1, &world), handed_out(2, &world)]);
    let keeps = |world: &World| {
        let part = Part { claims: &world.claims, acts: &world.acts, joining: Joining::Never };
        !leads(&[part], world.tip, &world.estimates).is_empty()
    };
    let refuse = |world: &mut World, n: usize| {
        let transaction = world.acts.handed_out[n].transaction.transaction().clone();
        world.refuse(&transaction, Refusal::Invalid);
    };
    assert!(keeps(&world));
    refuse(&mut world, 1);
    assert!(keeps(&world), "the network has the first");
    refuse(&mut world, 0);
    assert!(!keeps(&world));
}
