//! Random stories with LDK nodes: payments, forwards, splices, closes, stops, reorganisations and ways to be shown
//! blocks, in every format and mode.
//!
//! The runner compares at every step: each commitment with LDK's monitors on both sides; of an open channel
//! the HTLCs and the balance with what LDK's channel manager lists; at every block each balance of
//! LDK's, and what it is a result of, with the report; and at the end each outcome with LDK's events.
//! What may differ: LDK waits for ever for a peer that leaves its expired HTLC; it sees a preimage with the
//! block, and the arbiter in the mempool, as long as it is there; and what LDK's child takes from the anchor
//! that is for everybody is not ours for the report, since nothing on chain says so.
use arb_tests::ldk::Delivery;
use arb_tests::runner::{Options, Outcome, Verdict, run};
use arb_tests::scenario::ast::Scenario;
use arb_tests::scenario::{parse, unsupported};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

const SEED: u64 = 20;

/// An HTLC that is pending.
struct Pending {
    name: String,
    /// Of a forward, the incoming HTLC of channel `b`.
    incoming: Option<String>,
    ours: bool,
    has_output: bool,
}

/// A story that grows by choices.
struct Story<'a> {
    choices: std::slice::Iter<'a, u8>,
    lines: Vec<String>,
    pending: Vec<Pending>,
    /// Commitments of channel `a` so far.
    number: u32,
    names: u32,
    /// Channel `b` had a forward.
    forwards: bool,
    splice: Option<Splice>,
}

/// A splice of channel `a`.
#[derive(Clone, Copy)]
struct Splice {
    /// The first commitment of its funding output.
    since: u32,
    /// Blocks that it has; `None`: nobody publishes it.
    depth: Option<u8>,
}

const FORMATS: [&str; 3] = ["anchors", "static_remotekey", "zero_fee"];

impl Story<'_> {
    /// One of `of`.
    fn choose(&mut self, of: u8) -> u8 {
        self.choices.next().copied().unwrap_or_default() % of
    }

    fn one_of<'t>(&mut self, of: &[&'t str]) -> &'t str {
        let at = self.choose(u8::try_from(of.len()).unwrap_or(u8::MAX));
        of[usize::from(at)]
    }

    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn htlc(&mut self) {
        let kind = self.choose(3);
        let ours = kind != 0;
        let has_output = self.choose(4) != 0;
        // No two amounts are equal: LDK names what it forwarded by its amount.
        self.names += 1;
        let own = self.names;
        let sat = if has_output { 5_000 + 1_000 * u32::from(self.choose(40)) } else { 200 } + own;
        let expiry = 60 + u32::from(self.choose(40));
        let name = format!("h{own}");
        let mut incoming = None;
        match kind {
            0 => self.say(format!("receive a {name} amount={sat}sat expiry=+{expiry}")),
            1 => self.say(format!("offer a {name} amount={sat}sat expiry=+{expiry}")),
            _ => {
                let (more, later) = (sat + 1_000, expiry + 60);
                self.say(format!("receive b {name} amount={more}sat expiry=+{later}"));
                self.say(format!(
                    "offer a {name} amount={sat}sat expiry=+{expiry} upstream=b.{name}"
                ));
                incoming = Some(format!("b {name}"));
                self.forwards = true;
            }
        }
        self.pending.push(Pending { name, incoming, ours, has_output });
        self.number += 1;
    }

    fn remove(&mut self) {
        if self.pending.is_empty() {
            return self.htlc();
        }
        let at = usize::from(self.choose(8)) % self.pending.len();
        let verb = self.one_of(&["settle", "cancel"]);
        let gone = self.pending.remove(at);
        self.say(format!("{verb} a {}", gone.name));
        if let Some(incoming) = gone.incoming {
            self.say(format!("{verb} {incoming}"));
        }
        self.number += 1;
    }

    /// The peer adds to the channel, which goes on with one funding output or two.
    fn splice(&mut self) {
        // At six blocks it is locked.
        let depth = self.choose(3).checked_mul(3).filter(|depth| *depth > 0);
        self.splice = Some(Splice { since: self.number, depth });
        match depth {
            None => self.say("splice a capacity=1_500_000sat confirm=no"),
            Some(depth) => {
                self.say("splice a capacity=1_500_000sat");
                self.say(format!("mine {depth}"));
            }
        }
    }

    /// The first commitment of the funding output that is there, and whether the channel has no other.
    fn funding(&self) -> (u32, bool) {
        match self.splice {
            None => (0, true),
            Some(Splice { depth: None, .. }) => (0, false),
            Some(Splice { since, depth: Some(depth) }) => (since, depth >= 6),
        }
    }

    /// How the channel ends, if it can in this way; true if the peer's current commitment is what closes it.
    fn close(&mut self, way: Close) -> bool {
        for at in 0..self.pending.len() {
            if !self.pending[at].ours && self.choose(2) == 0 {
                let name = self.pending[at].name.clone();
                self.say(format!("preimage a.{name}"));
            }
        }
        let number = self.number;
        let (since, alone) = self.funding();
        let (line, close) = match way {
            Close::Ours => ("fail a".to_owned(), format!("local#{number}")),
            Close::Revoked if number > since => {
                let revoked = since + u32::from(self.choose(8)) % (number - since);
                (format!("publish a remote #{revoked}"), format!("revoked#{revoked}"))
            }
            Close::Mutual if alone && self.pending.is_empty() => {
                ("publish a mutual".to_owned(), "mutual".to_owned())
            }
            Close::Theirs | Close::Revoked | Close::Mutual => {
                ("publish a remote".to_owned(), format!("remote#{number}"))
            }
        };
        let by_the_peer = close.starts_with("remote");
        self.say(line);
        self.say("mine 2");
        self.say(format!("expect a close={close}"));
        by_the_peer
    }

    fn after(&mut self) {
        match self.choose(7) {
            0 => self.say("restart"),
            1 => self.say("kill"),
            2 | 3 => {
                let blocks = 1 + self.choose(5);
                self.say(format!("reorg {blocks}"));
            }
            4 => {
                let blocks = 1 + self.choose(9);
                self.say(format!("offline {blocks}"));
            }
            _ => {
                let blocks = 1 + self.choose(30);
                self.say(format!("mine {blocks}"));
            }
        }
    }
}

/// How channel `a` ends.
#[derive(Clone, Copy, Debug)]
enum Close {
    Ours,
    Theirs,
    Revoked,
    Mutual,
}

/// What is not left to chance: so few stories would not have all of it.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Of channel `a`.
    format: &'static str,
    mode: &'static str,
    close: Close,
    delivery: Delivery,
}

impl Frame {
    /// Each format in each mode, with each way to close and each way to be shown blocks.
    fn of(case: usize) -> Self {
        const MODES: [&str; 3] = ["own", "observe", "guard"];
        const CLOSES: [Close; 4] = [Close::Ours, Close::Revoked, Close::Theirs, Close::Mutual];
        let (format, round) = (case % FORMATS.len(), case / FORMATS.len());
        let of_mode = format + FORMATS.len() * (round / MODES.len());
        Self {
            format: FORMATS[format],
            mode: MODES[round % MODES.len()],
            close: CLOSES[(of_mode + round) % CLOSES.len()],
            delivery: Delivery::ALL[case % Delivery::ALL.len()],
        }
    }
}

fn story(frame: Frame, choices: &[u8]) -> String {
    let (lines, pending) = (Vec::new(), Vec::new());
    let (choices, number, names, forwards, splice) = (choices.iter(), 0, 0, false, None);
    let mut story = Story { choices, lines, pending, number, names, forwards, splice };
    for channel in ["a", "b"] {
        let format = if channel == "a" { frame.format } else { story.one_of(&FORMATS) };
        let opener = story.one_of(&["local", "remote"]);
        story.say(format!("channel {channel} node=ldk format={format} opener={opener}"));
    }
    story.say(format!("mode {}", frame.mode));
    for _ in 0..1 + story.choose(7) {
        match story.choose(4) {
            0 => story.remove(),
            1 if story.splice.is_none() => story.splice(),
            _ => story.htlc(),
        }
        if story.choose(6) == 0 {
            story.say("kill");
        }
    }
    let by_the_peer = story.close(frame.close);
    if by_the_peer && story.choose(2) == 0 {
        let taken = story.pending.iter().find(|htlc| htlc.ours && htlc.has_output);
        if let Some(name) = taken.map(|htlc| htlc.name.clone()) {
            story.say(format!("peer claims a.{name}"));
            story.say("mine");
        }
    }
    for _ in 0..story.choose(6) {
        story.after();
    }
    if story.forwards {
        let close = story.one_of(&["fail b", "publish b remote"]);
        story.say(close);
        story.say("mine");
        story.after();
    }
    story.say("mine 400");
    story.say("expect a phase=forgotten");
    if story.forwards {
        story.say("expect b phase=forgotten");
    }
    story.lines.join("\n")
}

/// Assertions of LDK's debug builds that fail where nothing is wrong, or that LDK survives without: a forwarded
/// HTLC is claimed a second time, by what the chain shows, while another claim still blocks the channel that it
/// was forwarded to (rust-lightning#4739); and a claim that LDK has made already is made again.
const KNOWN_ASSERTIONS: [&str; 3] = [
    "assertion failed: found_blocker",
    "assertion failed: cfg!(fuzzing) || self.pending_claim_requests.get(&claim_id).is_none()",
    "assertion failed: self.pending_claim_requests.get(&claim_id).is_none()",
];

/// How a story ends; `None` if by one of [`KNOWN_ASSERTIONS`].
fn outcome(scenario: &Scenario, options: Options) -> Option<Outcome> {
    let is_known =
        |panic: &dyn Any| panic.downcast_ref().is_some_and(|why| KNOWN_ASSERTIONS.contains(why));
    match catch_unwind(AssertUnwindSafe(|| run(scenario, options))) {
        Ok(outcome) => Some(outcome),
        Err(panic) if is_known(&*panic) => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// Once LDK has mended it, no story needs to be left out any more.
#[test]
fn ldk_still_asserts_that_a_second_claim_blocks_as_the_first() {
    let story = "channel a node=ldk
        channel b node=ldk
        receive b h1 amount=44_001sat expiry=+140
        offer a h1 amount=43_001sat expiry=+80 upstream=b.h1
        receive a h2 amount=17_004sat expiry=+94
        preimage a.h2
        publish a remote
        mine 2
        peer claims a.h1
        mine
        restart";
    let scenario = parse("story", story).expect("a story");
    let ended = outcome(&scenario, Options::default()).map(|outcome| outcome.verdict);
    assert_eq!(ended, None);
}

fn holds(frame: Frame, choices: &[u8]) -> Result<(), TestCaseError> {
    let text = story(frame, choices);
    let scenario = parse("random", &text);
    let scenario = scenario.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
    if let Some(error) = unsupported(&scenario) {
        return Err(TestCaseError::fail(format!("{error}\n{text}")));
    }
    let options = Options { delivery: frame.delivery, ..Options::default() };
    let Some(Outcome { verdict, compared, .. }) = outcome(&scenario, options) else {
        return Err(TestCaseError::reject("an assertion of LDK's own"));
    };
    match verdict {
        // Each of them has a channel that is closed.
        Verdict::Passed if compared.closed > 0 && compared.htlcs > 0 && compared.balances > 0 => {
            Ok(())
        }
        Verdict::Passed => Err(TestCaseError::fail(format!("only {compared:?}\n{text}"))),
        Verdict::Failed { line, failed, .. } => {
            let why = format!("line {line}: {failed:?}\nblocks: {:?}\n{text}", options.delivery);
            Err(TestCaseError::fail(why))
        }
    }
}

/// The same stories in every run, unless `PROPTEST_RNG_SEED` says otherwise: LDK's debug builds assert more than
/// holds, and the check of a change should not depend on chance. `PROPTEST_CASES` stories, or twice each format in each mode.
#[test]
fn ldk_and_the_arbiter_agree() {
    let asked = ProptestConfig::default();
    let stories = match std::env::var("PROPTEST_CASES") {
        Ok(_) => usize::try_from(asked.cases).expect("a number of stories"),
        Err(_) => 18,
    };
    let seed = match asked.rng_seed {
        RngSeed::Random => SEED,
        RngSeed::Fixed(seed) => seed,
    };
    agree(seed, (0..stories).map(|case| (case, Frame::of(case))), &asked);
}

/// Stories of each run's own: what fails is run again with `PROPTEST_RNG_SEED`, and as many stories as it takes, in
/// `ldk_and_the_arbiter_agree`.
#[test]
fn ldk_and_the_arbiter_agree_on_stories_of_chance() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    let seed = u64::from(now.subsec_nanos()) + 1_000 * now.as_secs();
    let first = usize::try_from(seed % 36).expect("a small number");
    let cases = (first..first + 4).map(|case| (case, Frame::of(case)));
    agree(seed, cases, &ProptestConfig::default());
}

fn agree(seed: u64, cases: impl Iterator<Item = (usize, Frame)>, asked: &ProptestConfig) {
    for (case, frame) in cases {
        let rng_seed = RngSeed::Fixed(seed.wrapping_add(case as u64));
        let config =
            ProptestConfig { cases: 1, failure_persistence: None, rng_seed, ..asked.clone() };
        let choices = proptest::collection::vec(any::<u8>(), 48);
        let held = TestRunner::new(config).run(&choices, |choices| holds(frame, &choices));
        if let Err(error) = held {
            panic!("story {case} of seed {seed}, {frame:?}: {error}");
        }
    }
}

#[test]
fn no_format_mode_close_or_delivery_is_left_out() {
    let frames: Vec<Frame> = (0..18).map(Frame::of).collect();
    let all = |of: fn(&Frame) -> String| {
        frames.iter().map(of).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(all(|frame| format!("{} {}", frame.format, frame.mode)), 9);
    assert_eq!(all(|frame| format!("{:?} {}", frame.close, frame.mode)), 12);
    assert_eq!(all(|frame| format!("{:?}", frame.delivery)), Delivery::ALL.len());
}
