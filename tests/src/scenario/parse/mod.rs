//! The parser: line by line, each statement checked against the names declared so far.

mod arbiter;
mod before;
mod chain;
mod expect;
mod history;

use std::collections::BTreeSet;

use super::ast::{
    Channel, History, Policy, ReceivedRole, Scenario, Stage, Statement, Step, Wallet,
};
use super::error::{ParseError, Wrong};
use super::lex::{Args, words};
use super::names::Names;

/// Parses a scenario; `file_name` is for messages only.
///
/// Statements of later work parse; [`super::unsupported`] refuses them.
///
/// # Errors
/// The first line that the language does not allow.
pub fn parse(file_name: &str, text: &str) -> Result<Scenario, ParseError> {
    let mut parser = Parser::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        parser.line = index + 1;
        parser.read(line).map_err(|wrong| wrong.at(file_name, index + 1))?;
    }
    parser.finish(file_name)
}

/// What has been read so far.
#[derive(Debug)]
struct Parser {
    line: usize,
    names: Names,
    bolt: Vec<String>,
    incidents: Vec<String>,
    channels: Vec<Channel>,
    wallet: Wallet,
    policy: Policy,
    /// Keys of `wallet` and `policy` that are already given.
    given: BTreeSet<&'static str>,
    story: Vec<Statement>,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            line: 0,
            names: Names::default(),
            bolt: Vec::new(),
            incidents: Vec::new(),
            channels: Vec::new(),
            wallet: before::default_wallet(),
            policy: before::DEFAULT_POLICY,
            given: BTreeSet::new(),
            story: Vec::new(),
        }
    }
}

impl Parser {
    fn read(&mut self, line: &str) -> Result<(), Wrong> {
        let words = words(line);
        let Some((&statement, rest)) = words.split_first() else { return Ok(()) };
        if before::STATEMENTS.contains(&statement) {
            if !self.story.is_empty() {
                let expected = format!("{statement} before the first statement of the story");
                return Err(Wrong::new(expected, "it after that"));
            }
            return self.read_before(statement, rest);
        }
        let mut args = Args::new(rest)?;
        let step = self.step(statement, &mut args)?;
        args.finish()?;
        self.story.push(Statement { line: self.line, text: words.join(" "), step });
        Ok(())
    }

    fn step(&mut self, statement: &str, args: &mut Args<'_>) -> Result<Step, Wrong> {
        if let Some(history) = self.history(statement, args)? {
            return Ok(Step::History(history));
        }
        if let Some(on_chain) = self.on_chain(statement, args)? {
            return Ok(Step::OnChain(on_chain));
        }
        if let Some(arbiter) = self.arbiter(statement, args)? {
            return Ok(Step::Arbiter(arbiter));
        }
        match statement {
            "expect" => Ok(Step::Expect(self.expect(args)?)),
            "mark" => Ok(Step::Mark),
            _ => Err(Wrong::new("a statement of the language", statement)),
        }
    }

    /// What can only be known at the end: who forwards what, and which preimage a name means.
    fn finish(self, file_name: &str) -> Result<Scenario, ParseError> {
        let Self { names, bolt, incidents, channels, wallet, policy, mut story, .. } = self;
        if let Some((line, hash)) = names.untold() {
            return Err(Wrong::new("a hash that an HTLC carries", hash).at(file_name, line));
        }
        for statement in &mut story {
            resolve(&mut statement.step, &names);
        }
        let file = file_name.to_owned();
        Ok(Scenario { file, bolt, incidents, channels, wallet, policy, story })
    }
}

fn resolve(step: &mut Step, names: &Names) {
    match step {
        Step::History(History::Offer(offer)) => offer.hash = names.preimage_name(&offer.hash),
        Step::History(History::Receive(receive)) => {
            receive.hash = names.preimage_name(&receive.hash);
            let outgoing = names.outgoing(&receive.htlc).cloned();
            receive.role = match (receive.stage, outgoing) {
                (Stage::Next, _) => ReceivedRole::Uncommitted,
                (Stage::Committed, Some(outgoing)) => ReceivedRole::Forwarded { outgoing },
                (Stage::Committed, None) => ReceivedRole::Final,
            };
        }
        Step::Arbiter(super::ast::ArbiterStep::Preimage(told)) => {
            if let Some(hash) = names.told_preimage(told) {
                *told = hash;
            }
        }
        Step::History(_) | Step::OnChain(_) | Step::Arbiter(_) | Step::Expect(_) | Step::Mark => {}
    }
}
