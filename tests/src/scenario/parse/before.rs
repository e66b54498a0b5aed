//! Statements before the story: `bolt`, `incident`, `channel`, `wallet`, `policy`.

use bitcoin::{Amount, FeeRate};

use super::Parser;
use crate::scenario::ast::{Channel, Coins, Format, Joining, MilliSat, Policy, Side, Wallet};
use crate::scenario::error::Wrong;
use crate::scenario::lex::Args;
use crate::scenario::value;

pub(super) const STATEMENTS: [&str; 5] = ["bolt", "incident", "channel", "wallet", "policy"];

const FORMATS: [(&str, Format); 4] = [
    ("static_remotekey", Format::StaticRemotekey),
    ("anchors", Format::Anchors),
    ("zero_fee", Format::ZeroFee),
    ("taproot", Format::Taproot),
];
const SIDES: [(&str, Side); 2] = [("local", Side::Local), ("remote", Side::Remote)];

const CAPACITY: Amount = Amount::from_sat(1_000_000);
const LOCAL_BALANCE: MilliSat = MilliSat(500_000_000);
const DELAY: u16 = 144;
const DUST: Amount = Amount::from_sat(354);
const COMMITMENT_FEERATE: FeeRate = FeeRate::from_sat_per_kwu(253);

pub(super) const DEFAULT_POLICY: Policy = Policy {
    act_depth: 3,
    offered_grace: 2,
    fulfil_margin: 18,
    upstream_margin: 3,
    forget_depth: 100,
    joining: Joining::Never,
};

const JOINING: [(&str, Joining); 2] = [("never", Joining::Never), ("allowed", Joining::Allowed)];

pub(super) fn default_wallet() -> Wallet {
    Wallet { coins: vec![Coins { count: 10, value: Amount::from_sat(100_000) }] }
}

impl Parser {
    pub(super) fn read_before(&mut self, statement: &str, words: &[&str]) -> Result<(), Wrong> {
        match statement {
            "bolt" => self.bolt.extend(ids("a requirement id", words)?),
            "incident" => self.incidents.extend(ids("an incident id", words)?),
            "channel" => self.channel(words)?,
            "wallet" => self.wallet(words)?,
            _ => self.policy(words)?,
        }
        Ok(())
    }

    fn channel(&mut self, words: &[&str]) -> Result<(), Wrong> {
        let mut args = Args::new(words)?;
        let name = args.next("a channel name")?;
        let or = |value: Option<&str>, default| value.map_or(Ok(default), value::whole_sat);
        let delay =
            |value: Option<&str>| value.map_or(Ok(DELAY), |text| value::count("a delay", text));
        let channel = Channel {
            line: self.line,
            name: self.names.declare_channel(name)?,
            format: args
                .optional("format")?
                .map_or(Ok(Format::Anchors), |text| value::choice(text, &FORMATS))?,
            capacity: or(args.optional("capacity")?, CAPACITY)?,
            local: args.optional("local")?.map_or(Ok(LOCAL_BALANCE), value::amount)?,
            opener: args
                .optional("opener")?
                .map_or(Ok(Side::Local), |text| value::choice(text, &SIDES))?,
            local_delay: delay(args.optional("local_delay")?)?,
            remote_delay: delay(args.optional("remote_delay")?)?,
            dust: or(args.optional("dust")?, DUST)?,
            remote_dust: or(args.optional("remote_dust")?, DUST)?,
            feerate: args.optional("feerate")?.map_or(Ok(COMMITMENT_FEERATE), value::feerate)?,
            node: args
                .optional("node")?
                .map(|text| value::name("a node", text))
                .transpose()?
                .map(str::to_owned),
        };
        args.finish()?;
        if channel.local.0 > channel.capacity.to_sat() * 1000 {
            let expected =
                format!("local= of at most the capacity, {} sat", channel.capacity.to_sat());
            return Err(Wrong::new(expected, format!("{} msat", channel.local.0)));
        }
        self.channels.push(channel);
        Ok(())
    }

    fn wallet(&mut self, words: &[&str]) -> Result<(), Wrong> {
        let mut args = Args::new(words)?;
        if let Some(text) = args.optional("coins")? {
            self.give("coins")?;
            self.wallet = Wallet { coins: value::coins(text)? };
        }
        args.finish()
    }

    fn policy(&mut self, words: &[&str]) -> Result<(), Wrong> {
        let mut args = Args::new(words)?;
        let mut policy = self.policy;
        for (key, setting) in [
            ("act_depth", &mut policy.act_depth),
            ("offered_grace", &mut policy.offered_grace),
            ("fulfil_margin", &mut policy.fulfil_margin),
            ("upstream_margin", &mut policy.upstream_margin),
            ("forget_depth", &mut policy.forget_depth),
        ] {
            if let Some(text) = args.optional(key)? {
                self.give(key)?;
                *setting = value::count("a number of blocks", text)?;
            }
        }
        if let Some(text) = args.optional("joining")? {
            self.give("joining")?;
            policy.joining = value::choice(text, &JOINING)?;
        }
        self.policy = policy;
        args.finish()
    }

    /// Notes a setting, which a file may make only once.
    fn give(&mut self, key: &'static str) -> Result<(), Wrong> {
        if self.given.insert(key) {
            return Ok(());
        }
        Err(Wrong::new(format!("{key}= once in a file"), format!("{key}= again")))
    }
}

fn ids(what: &str, words: &[&str]) -> Result<Vec<String>, Wrong> {
    if words.is_empty() {
        return Err(Wrong::new(what, "the end of the line"));
    }
    words.iter().map(|word| Ok(value::name(what, word)?.to_owned())).collect()
}
