//! Random stories with LDK nodes: payments, closes, stops, reorganisations and ways to be shown blocks, in
//! both formats and every mode.
//!
//! The runner compares at every step: each commitment with LDK's monitors on both sides, every balance of
//! LDK's with the report at every block, and at the end each outcome with LDK's events.
use arb_tests::ldk::Delivery;
use arb_tests::runner::{Options, Verdict, run};
use arb_tests::scenario::{parse, unsupported};
use proptest::prelude::*;

/// An HTLC that is pending.
struct Pending {
    name: String,
    ours: bool,
    has_output: bool,
}

/// A story that grows by choices.
struct Story<'a> {
    choices: std::slice::Iter<'a, u8>,
    lines: Vec<String>,
    pending: Vec<Pending>,
    /// Commitments so far.
    number: u32,
    names: u32,
}

impl Story<'_> {
    /// One of `of`.
    fn choose(&mut self, of: u8) -> u8 {
        self.choices.next().copied().unwrap_or_default() % of
    }

    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn htlc(&mut self) {
        let ours = self.choose(2) == 0;
        let has_output = self.choose(4) != 0;
        let sat = if has_output { 5_000 + 1_000 * u32::from(self.choose(40)) } else { 200 };
        let expiry = 60 + u32::from(self.choose(40));
        let verb = if ours { "offer" } else { "receive" };
        self.names += 1;
        let name = format!("h{}", self.names);
        self.say(format!("{verb} a {name} amount={sat}sat expiry=+{expiry}"));
        self.pending.push(Pending { name, ours, has_output });
        self.number += 1;
    }

    fn remove(&mut self) {
        if self.pending.is_empty() {
            return self.htlc();
        }
        let at = usize::from(self.choose(8)) % self.pending.len();
        let verb = if self.choose(2) == 0 { "settle" } else { "cancel" };
        let gone = self.pending.remove(at);
        self.say(format!("{verb} a {}", gone.name));
        self.number += 1;
    }

    /// How the channel ends; true if the peer's current commitment is what closes it.
    fn close(&mut self) -> bool {
        for at in 0..self.pending.len() {
            if !self.pending[at].ours && self.choose(2) == 0 {
                let name = self.pending[at].name.clone();
                self.say(format!("preimage a.{name}"));
            }
        }
        match self.choose(4) {
            0 => self.say("fail a"),
            1 if self.number > 0 => {
                let revoked = u32::from(self.choose(8)) % self.number;
                self.say(format!("publish a remote #{revoked}"));
            }
            2 if self.pending.is_empty() => self.say("publish a mutual"),
            _ => {
                self.say("publish a remote");
                return true;
            }
        }
        false
    }

    fn after(&mut self) {
        match self.choose(6) {
            0 => self.say("restart"),
            1 => self.say("kill"),
            2 => {
                let blocks = 1 + self.choose(2);
                self.say(format!("reorg {blocks}"));
            }
            3 => {
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

fn story(choices: &[u8]) -> String {
    let (lines, pending) = (Vec::new(), Vec::new());
    let mut story = Story { choices: choices.iter(), lines, pending, number: 0, names: 0 };
    let format = ["anchors", "static_remotekey"][usize::from(story.choose(2))];
    let opener = ["local", "remote"][usize::from(story.choose(2))];
    story.say(format!("channel a node=ldk format={format} opener={opener}"));
    let mode = ["own", "observe", "guard"][usize::from(story.choose(3))];
    story.say(format!("mode {mode}"));
    for _ in 0..1 + story.choose(7) {
        match story.choose(3) {
            0 => story.remove(),
            _ => story.htlc(),
        }
        if story.choose(6) == 0 {
            story.say("kill");
        }
    }
    let by_the_peer = story.close();
    story.say("mine 2");
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
    story.say("mine 400");
    story.say("expect a phase=forgotten");
    story.lines.join("\n")
}

fn holds(choices: &[u8]) -> Result<(), TestCaseError> {
    let text = story(choices);
    let scenario = parse("random", &text);
    let scenario = scenario.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
    if let Some(error) = unsupported(&scenario) {
        return Err(TestCaseError::fail(format!("{error}\n{text}")));
    }
    let style = choices.last().map_or(0, |last| usize::from(*last)) % Delivery::ALL.len();
    let options = Options { delivery: Delivery::ALL[style], ..Options::default() };
    match run(&scenario, options).verdict {
        Verdict::Passed => Ok(()),
        Verdict::Failed { line, failed, .. } => {
            let why = format!("line {line}: {failed:?}\nblocks: {:?}\n{text}", options.delivery);
            Err(TestCaseError::fail(why))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ldk_and_the_arbiter_agree(choices in proptest::collection::vec(any::<u8>(), 48)) {
        holds(&choices)?;
    }
}
