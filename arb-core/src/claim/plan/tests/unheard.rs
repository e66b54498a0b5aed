//! What was offered to nobody by a deadline that is past is not paid afterwards.
use super::*;

const VALUE: u64 = 500_000;

fn sat_per_kwu(rate: u32) -> u64 {
    FeeRate::from_sat_per_vb_u32(rate).to_sat_per_kwu()
}

impl World {
    /// Some blocks, in each of which the network is not heard about what it is handed over. What is published last, by output.
    fn outage(&mut self, blocks: u32) -> BTreeMap<u32, u64> {
        let mut rates = BTreeMap::new();
        for _ in 0..blocks {
            rates = self.unanswered();
            self.tip = BlockHeight(self.tip.0 + 1);
        }
        rates
    }

    fn unanswered(&mut self) -> BTreeMap<u32, u64> {
        let published = self.settle();
        for transaction in &published {
            self.acts.apply(&Change::Unheard { txid: transaction.compute_txid() });
        }
        self.rates(&published)
    }

    fn answered(&mut self) -> BTreeMap<u32, u64> {
        let published = self.settle();
        for transaction in &published {
            self.acts.apply(&Change::Accepted { txid: transaction.compute_txid() });
        }
        self.rates(&published)
    }
}

fn penalty() -> World {
    World::new(vec![claim(0, TxKind::Penalty, VALUE, Some(30))])
}

#[test]
fn after_its_deadline_a_claim_that_was_offered_to_nobody_pays_what_the_next_blocks_take() {
    let mut world = penalty();
    // The last block in time: to be in it may cost all of it, whoever hears of it.
    let last = world.outage(30)[&0];
    assert!(last > 100 * sat_per_kwu(10), "{last}");
    let since = world.acts.handed_out.len();
    for _ in 0..60 {
        let now = world.outage(1)[&0];
        assert!((sat_per_kwu(10)..=sat_per_kwu(12)).contains(&now), "{now}");
    }
    let signed = world.acts.handed_out.len() - since;
    assert!(signed <= 1, "{signed}");
    assert!(world.answered()[&0] <= sat_per_kwu(12));
}

#[test]
fn the_price_of_its_first_transaction_is_that_of_its_newest() {
    let mut world = penalty();
    let first = world.settle();
    world.outage(31);
    // Signed once more, it is another transaction only if it pays another price.
    let rate = world.rates(&first)[&0];
    world.estimates =
        FeeEstimates { targets: vec![(1, FeeRate::from_sat_per_kwu(rate))], ..flat(10) };
    world.outage(2);
    let published = world.settle();
    let newest = world.acts.handed_out.last().expect("some are signed");
    assert_eq!(published, [newest.transaction.transaction().clone()]);
    let now = world.rates(&published)[&0];
    assert!(now <= rate.max(sat_per_kwu(12)), "{now}, at first {rate}");
}

#[test]
fn a_transaction_that_comes_back_is_the_newest() {
    let mut acts = Acts::default();
    let mut world = penalty();
    let mut signed = |rate| {
        world.acts = Acts::default();
        world.estimates = flat(rate);
        let published = world.settle();
        world.acts.ours(published[0].compute_txid()).expect("it is in the log").clone()
    };
    let (cheap, dear) = (signed(10), signed(50));
    for out in [&cheap, &dear] {
        acts.apply(&Change::HandedOut(Box::new(out.clone())));
    }
    let newest = |acts: &Acts| acts.handed_out.last().map(HandedOut::txid);
    let again = HandedOut { at: BlockHeight(cheap.at.0 + 40), ..cheap.clone() };
    // Somebody may have the dear one.
    assert!(!acts.is_back(&again));
    acts.apply(&Change::HandedOut(Box::new(again.clone())));
    assert_eq!(newest(&acts), Some(dear.txid()));
    acts.apply(&Change::Unheard { txid: dear.txid() });
    assert!(acts.is_back(&again));
    acts.apply(&Change::HandedOut(Box::new(again.clone())));
    assert_eq!((newest(&acts), acts.handed_out.len()), (Some(cheap.txid()), 2));
    assert_eq!(acts.handed_out.last().map(|out| out.at), Some(again.at));
    // The network takes the cheap one, and the dear one, which it was never asked for, is wanted again.
    acts.apply(&Change::Accepted { txid: cheap.txid() });
    assert!(acts.is_back(&dear));
    acts.apply(&Change::HandedOut(Box::new(dear.clone())));
    assert_eq!((newest(&acts), acts.handed_out.len()), (Some(dear.txid()), 2));
}

#[test]
fn what_a_mempool_had_is_paid_for_ever() {
    let mut world = penalty();
    world.outage(25);
    let heard = world.answered()[&0];
    world.tip = BlockHeight(START + 26);
    // What is dearer than that is offered to nobody, and counts no more.
    let dearer = world.outage(4)[&0];
    assert!(dearer > heard.saturating_mul(3), "{dearer} after {heard}");
    world.outage(1);
    let later = world.answered()[&0];
    assert!((heard..=heard.saturating_mul(2)).contains(&later), "{later} after {heard}");
}

#[test]
fn once_its_deadline_is_past_the_price_falls_once() {
    let mut world = penalty();
    world.outage(30);
    let (mut before, mut signed) = (world.outage(1)[&0], world.acts.handed_out.len());
    for block in 0..288 {
        world.estimates = flat(if block % 12 < 6 { 10 } else { 40 });
        let now = world.outage(1)[&0];
        assert!(now >= before, "block {block}: {now} after {before}");
        before = now;
    }
    signed = world.acts.handed_out.len() - signed;
    assert!(signed <= 2, "{signed}");
}

#[test]
fn several_deadlines_of_one_transaction_count_each() {
    // The second is far away when the first is missed.
    let deadlines = |second| {
        World::new(vec![
            claim(0, TxKind::Claim, VALUE, Some(14)),
            claim(1, TxKind::Claim, VALUE, Some(second)),
        ])
    };
    let mut world = deadlines(26);
    let missed = world.outage(14)[&0];
    assert!(missed > 20 * sat_per_kwu(10), "{missed}");
    world.outage(1);
    let rates = world.outage(1);
    assert!(rates[&0] < missed.div_ceil(4), "{} after {missed}", rates[&0]);
    // In the last stretch before the second, what is to be in by then is dear again, and only that.
    let last = world.outage(10);
    assert!(last[&1] > 20 * sat_per_kwu(10), "{}", last[&1]);
}

#[test]
fn what_was_offered_to_nobody_waits_for_what_takes_its_place() {
    let mut world = penalty();
    world.outage(30);
    // The signer is away: whoever takes the old one meanwhile has all that it pays.
    let is_published = |world: &World| {
        let steps = world.steps();
        assert!(steps.iter().any(|step| matches!(step, Step::Sign(_))), "{steps:?}");
        steps.iter().any(|step| matches!(step, Step::Publish(_)))
    };
    for _ in 0..12 {
        assert!(!is_published(&world));
        world.tip = BlockHeight(world.tip.0 + 1);
    }
    // Without a signer for long, it is better than nothing.
    assert!(is_published(&world));
}
