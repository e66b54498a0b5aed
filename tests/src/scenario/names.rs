//! What a file has declared so far, and what may therefore be named.

use std::collections::{BTreeMap, BTreeSet};

use super::ast::{ChannelName, HashName, HtlcRef, OutputRef, Side, SubscriberName};
use super::error::Wrong;
use super::value;

/// Words that stand for something else where a channel or a subscriber could be named.
const NOT_A_CHANNEL: [&str; 1] = ["ours"];
/// Words that stand for something else where an HTLC could be named.
const NOT_AN_HTLC: [&str; 8] =
    ["local", "remote", "mutual", "unknown", "splice", "to_local", "to_remote", "anchor"];

/// Every name of a file, and what the rules of the history need to know of it.
#[derive(Debug, Default)]
pub(super) struct Names {
    channels: BTreeMap<ChannelName, ChannelSoFar>,
    /// Every subscriber that ever was, and whether it is subscribed now.
    subscribers: BTreeMap<SubscriberName, Subscribed>,
    /// Hash names that HTLCs carry.
    hashes: BTreeSet<HashName>,
    /// Hash names that turned out to stand for another's preimage.
    same: BTreeMap<HashName, HashName>,
    /// Incoming HTLC to the outgoing one that forwards it.
    forwarded: BTreeMap<HtlcRef, HtlcRef>,
    /// Hashes that `preimage` names, and where.
    told: Vec<(usize, HashName)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscribed {
    Yes,
    NoMore,
}

#[derive(Debug, Default)]
struct ChannelSoFar {
    /// The current commitment number of both sides.
    number: u64,
    staged: bool,
    htlcs: BTreeMap<String, HtlcSoFar>,
}

#[derive(Debug)]
struct HtlcSoFar {
    offerer: Side,
    hash: HashName,
    /// Without `hash=`: the name stands for whatever the HTLC's payment turns out to be.
    own_hash: bool,
    live: bool,
    staged: bool,
}

/// A new HTLC, as far as names are concerned.
#[derive(Debug)]
pub(super) struct NewHtlc<'a> {
    pub(super) htlc: &'a HtlcRef,
    pub(super) offerer: Side,
    pub(super) hash: Option<&'a str>,
    pub(super) upstream: Option<&'a HtlcRef>,
    pub(super) staged: bool,
}

impl Names {
    pub(super) fn declare_channel(&mut self, text: &str) -> Result<ChannelName, Wrong> {
        let name = ChannelName(value::name("a channel name", text)?.to_owned());
        if NOT_A_CHANNEL.contains(&text) || self.channels.contains_key(&name) {
            return Err(Wrong::new("a channel name that is not taken", text));
        }
        self.channels.insert(name.clone(), ChannelSoFar::default());
        Ok(name)
    }

    /// A channel that is declared.
    pub(super) fn channel(&self, text: &str) -> Result<ChannelName, Wrong> {
        let name = ChannelName(text.to_owned());
        if self.channels.contains_key(&name) {
            return Ok(name);
        }
        Err(Wrong::new("a declared channel", text))
    }

    /// The channel that is meant where none is named: the only one.
    pub(super) fn only_channel(&self) -> Option<&ChannelName> {
        let mut names = self.channels.keys();
        names.next().filter(|_| names.next().is_none())
    }

    /// A channel whose history may go on: nothing is staged in it.
    pub(super) fn unstaged_channel(&self, text: &str) -> Result<ChannelName, Wrong> {
        let name = self.channel(text)?;
        if self.channels.get(&name).is_some_and(|channel| channel.staged) {
            let expected = format!("no more history of {name} after stage=next");
            return Err(Wrong::new(expected, "another history statement"));
        }
        Ok(name)
    }

    pub(super) fn htlc_name(&self, channel: &ChannelName, text: &str) -> Result<HtlcRef, Wrong> {
        value::name("an HTLC name", text)?;
        let taken =
            self.channels.get(channel).is_some_and(|so_far| so_far.htlcs.contains_key(text));
        if taken || NOT_AN_HTLC.contains(&text) {
            return Err(Wrong::new(format!("an HTLC name that is not taken in {channel}"), text));
        }
        Ok(HtlcRef { channel: channel.clone(), htlc: text.to_owned() })
    }

    fn find(&self, htlc: &HtlcRef) -> Option<&HtlcSoFar> {
        self.channels.get(&htlc.channel)?.htlcs.get(&htlc.htlc)
    }

    /// `a.h1`: an HTLC that is declared.
    pub(super) fn htlc(&self, text: &str) -> Result<HtlcRef, Wrong> {
        let wrong = || Wrong::new("a declared HTLC like a.h1", text);
        let (channel, htlc) = text.split_once('.').ok_or_else(wrong)?;
        let htlc = HtlcRef { channel: ChannelName(channel.to_owned()), htlc: htlc.to_owned() };
        self.find(&htlc).ok_or_else(wrong)?;
        Ok(htlc)
    }

    /// `a.h1`, `a.h1.second`, `a.to_local`, `a.to_remote` or `a.anchor`.
    pub(super) fn output(&self, text: &str) -> Result<OutputRef, Wrong> {
        let wrong =
            || Wrong::new("a declared output like a.h1, a.h1.second, a.to_local or a.anchor", text);
        let (channel, rest) = text.split_once('.').ok_or_else(wrong)?;
        let channel = self.channel(channel).map_err(|_| wrong())?;
        match rest {
            "to_local" => return Ok(OutputRef::ToLocal(channel)),
            "to_remote" => return Ok(OutputRef::ToRemote(channel)),
            "anchor" => return Ok(OutputRef::Anchor(channel)),
            _ => {}
        }
        let (htlc, second) = match rest.strip_suffix(".second") {
            Some(htlc) => (htlc, true),
            None => (rest, false),
        };
        let htlc = HtlcRef { channel, htlc: htlc.to_owned() };
        self.find(&htlc).ok_or_else(wrong)?;
        Ok(if second { OutputRef::SecondStage(htlc) } else { OutputRef::Htlc(htlc) })
    }

    /// An incoming HTLC that may be forwarded.
    pub(super) fn upstream(&self, text: &str) -> Result<HtlcRef, Wrong> {
        let htlc = self.htlc(text)?;
        let fits = self
            .find(&htlc)
            .is_some_and(|so_far| so_far.offerer == Side::Remote && so_far.live && !so_far.staged);
        if fits && !self.forwarded.contains_key(&htlc) {
            return Ok(htlc);
        }
        Err(Wrong::new("a live received HTLC, irrevocably committed and not forwarded yet", text))
    }

    /// Registers an HTLC and says which hash it carries.
    pub(super) fn declare_htlc(&mut self, new: &NewHtlc<'_>) -> Result<HashName, Wrong> {
        let own = HashName(new.htlc.to_string());
        let given = match new.hash {
            Some(text) if text != own.0 => Some(self.given_hash(text)?),
            Some(_) | None => None,
        };
        let hash = self.agreed_hash(&own, given.clone(), new.upstream)?;
        if let Some(upstream) = new.upstream {
            self.forwarded.insert(upstream.clone(), new.htlc.clone());
        }
        self.hashes.insert(hash.clone());
        let channel = self.channels.entry(new.htlc.channel.clone()).or_default();
        channel.staged |= new.staged;
        channel.number += u64::from(!new.staged);
        let so_far = HtlcSoFar {
            offerer: new.offerer,
            hash: hash.clone(),
            own_hash: given.is_none() && new.upstream.is_none(),
            live: true,
            staged: new.staged,
        };
        channel.htlcs.insert(new.htlc.htlc.clone(), so_far);
        Ok(hash)
    }

    /// A hash that `hash=` names: a global name, or the HTLC whose hash is meant.
    fn given_hash(&self, text: &str) -> Result<HashName, Wrong> {
        if text.contains('.') {
            let htlc = self.htlc(text)?;
            let hash = self.find(&htlc).map(|so_far| so_far.hash.clone());
            return hash.ok_or_else(|| Wrong::new("a declared HTLC", text));
        }
        Ok(HashName(value::name("a hash name", text)?.to_owned()))
    }

    /// A forwarded HTLC carries the hash of the incoming one: one payment, one preimage.
    fn agreed_hash(
        &mut self,
        own: &HashName,
        given: Option<HashName>,
        upstream: Option<&HtlcRef>,
    ) -> Result<HashName, Wrong> {
        let incoming = upstream.and_then(|upstream| self.find(upstream));
        let Some((theirs, own_name)) =
            incoming.map(|so_far| (so_far.hash.clone(), so_far.own_hash))
        else {
            return Ok(given.unwrap_or_else(|| own.clone()));
        };
        let Some(given) = given else { return Ok(theirs) };
        if self.preimage_name(&given) != self.preimage_name(&theirs) {
            if !own_name {
                return Err(Wrong::new(
                    format!("hash={theirs}, as upstream"),
                    format!("hash={given}"),
                ));
            }
            let given = self.preimage_name(&given);
            self.same.insert(theirs, given);
        }
        Ok(given)
    }

    /// The one name of a preimage.
    pub(super) fn preimage_name(&self, hash: &HashName) -> HashName {
        let mut name = hash;
        while let Some(other) = self.same.get(name) {
            name = other;
        }
        name.clone()
    }

    /// The outgoing HTLC that forwards an incoming one.
    pub(super) fn outgoing(&self, incoming: &HtlcRef) -> Option<&HtlcRef> {
        self.forwarded.get(incoming)
    }

    /// Takes a live HTLC out of the commitments.
    pub(super) fn remove_htlc(
        &mut self,
        channel: &ChannelName,
        text: &str,
    ) -> Result<HtlcRef, Wrong> {
        let so_far = self.channels.entry(channel.clone()).or_default();
        let live = so_far.htlcs.get_mut(text).filter(|htlc| htlc.live);
        let Some(htlc) = live else {
            return Err(Wrong::new(format!("the name of a live HTLC of {channel}"), text));
        };
        htlc.live = false;
        so_far.number += 1;
        Ok(HtlcRef { channel: channel.clone(), htlc: text.to_owned() })
    }

    /// Adds commitments that change no HTLC.
    pub(super) fn advance(&mut self, channel: &ChannelName, by: u64) -> Result<(), Wrong> {
        let so_far = self.channels.entry(channel.clone()).or_default();
        let number = so_far.number.checked_add(by).filter(|number| *number < 1 << 48);
        so_far.number = number.ok_or_else(|| {
            // BOLT 3: commitment numbers have 48 bits.
            Wrong::new("fewer than 2^48 commitments", format!("{by} more"))
        })?;
        Ok(())
    }

    /// The current commitment number of both sides.
    pub(super) fn number(&self, channel: &ChannelName) -> u64 {
        self.channels.get(channel).map_or(0, |so_far| so_far.number)
    }

    /// Whether the peer has a next, unrevoked commitment.
    pub(super) fn has_next(&self, channel: &ChannelName) -> bool {
        self.channels.get(channel).is_some_and(|so_far| so_far.staged)
    }

    /// The last commitment number that the peer has.
    pub(super) fn last_remote_number(&self, channel: &ChannelName) -> u64 {
        self.number(channel) + u64::from(self.has_next(channel))
    }

    pub(super) fn subscribe(&mut self, text: &str) -> Result<SubscriberName, Wrong> {
        let name = SubscriberName(value::name("a subscriber name", text)?.to_owned());
        let free = !NOT_A_CHANNEL.contains(&text)
            && !self.channels.contains_key(&ChannelName(text.to_owned()))
            && self.subscribers.get(&name) != Some(&Subscribed::Yes);
        if !free {
            return Err(Wrong::new("a subscriber name that is not taken", text));
        }
        self.subscribers.insert(name.clone(), Subscribed::Yes);
        Ok(name)
    }

    pub(super) fn unsubscribe(&mut self, text: &str) -> Result<SubscriberName, Wrong> {
        let name = self.subscribed(text)?;
        self.subscribers.insert(name.clone(), Subscribed::NoMore);
        Ok(name)
    }

    /// Somebody who is subscribed.
    pub(super) fn subscribed(&self, text: &str) -> Result<SubscriberName, Wrong> {
        let name = SubscriberName(text.to_owned());
        match self.subscribers.get(&name) {
            Some(Subscribed::Yes) => Ok(name),
            Some(Subscribed::NoMore) | None => Err(Wrong::new("a subscriber", text)),
        }
    }

    /// Somebody who is or was subscribed.
    pub(super) fn subscriber(&self, text: &str) -> Option<SubscriberName> {
        let name = SubscriberName(text.to_owned());
        self.subscribers.contains_key(&name).then_some(name)
    }

    /// A hash that `preimage` names; whether any HTLC carries it is seen at the end of the file.
    pub(super) fn tell(&mut self, line: usize, text: &str) -> HashName {
        let hash = HashName(text.to_owned());
        self.told.push((line, hash.clone()));
        hash
    }

    /// The name of the preimage that `preimage` means: of a hash name, or of an HTLC.
    pub(super) fn told_preimage(&self, told: &HashName) -> Option<HashName> {
        if self.hashes.contains(told) {
            return Some(self.preimage_name(told));
        }
        let htlc = self.htlc(&told.0).ok()?;
        self.find(&htlc).map(|so_far| self.preimage_name(&so_far.hash))
    }

    /// The first `preimage` of the file that names a hash which no HTLC carries.
    pub(super) fn untold(&self) -> Option<(usize, &HashName)> {
        let unknown = self.told.iter().find(|(_, hash)| self.told_preimage(hash).is_none());
        unknown.map(|(line, hash)| (*line, hash))
    }
}
