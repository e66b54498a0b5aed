//! What LDK nodes cannot do, as far as the file shows it: refused by name.

use super::ast::{
    ArbiterStep, Channel, ChannelName, History, HtlcRef, Offer, OnChain, PublishedSpend, Receive,
    ReceivedRole, Scenario, SpliceConfirmation, Stage, Statement, Step, Whose,
};
use super::error::Wrong;
use bitcoin::Amount;

/// LDK's dust limit, on both sides.
const DUST: Amount = Amount::from_sat(354);
/// What LDK takes for either side's delay, in blocks.
const DELAYS: (u16, u16) = (144, 2016);
/// LDK fails a payment to it that expires earlier, in blocks above the tip.
pub(crate) const FINAL_EXPIRY: u32 = 42;
/// Blocks after which LDK locks a splice; it makes no other one before.
const SPLICE_DEPTH: u32 = 6;
/// Blocks that LDK wants between the two expiries of a payment that it forwards.
pub(crate) const FORWARDING_DELTA: u32 = 48;

/// The first line that LDK nodes cannot follow, or that only they could.
pub(super) fn cannot(scenario: &Scenario) -> Option<(usize, Wrong)> {
    if !scenario.is_of_ldk() {
        return scenario.story.iter().find_map(|statement| match statement.step {
            Step::Arbiter(
                ArbiterStep::Mode(_) | ArbiterStep::Broadcaster { whose: Whose::Ldk, .. },
            ) => {
                let expected = format!("node=ldk, where there is {}", statement.text);
                Some((statement.line, Wrong::new(expected, "no LDK node")))
            }
            _ => None,
        });
    }
    let channel = |channel: &Channel| Some((channel.line, channel_cannot(channel)?));
    let step = |(at, statement): (usize, &Statement)| {
        let expected = step_cannot(scenario, at, &statement.step)?;
        Some((statement.line, Wrong::new(expected, &statement.text)))
    };
    let channels = scenario.channels.iter().find_map(channel);
    channels.or_else(|| scenario.story.iter().enumerate().find_map(step))
}

fn channel_cannot(channel: &Channel) -> Option<Wrong> {
    let name = &channel.name;
    if channel.node.is_none() {
        return Some(Wrong::new(
            "node=ldk at every channel, or at none",
            format!("{name} without"),
        ));
    }
    for (key, dust) in [("dust", channel.dust), ("remote_dust", channel.remote_dust)] {
        if dust != DUST {
            let expected = format!("{key}=354sat with node=ldk");
            return Some(Wrong::new(expected, format!("{key}={}sat", dust.to_sat())));
        }
    }
    let (least, most) = DELAYS;
    for (key, delay) in
        [("local_delay", channel.local_delay), ("remote_delay", channel.remote_delay)]
    {
        if !(least..=most).contains(&delay) {
            let expected = format!("{key}= from {least} to {most} with node=ldk");
            return Some(Wrong::new(expected, format!("{key}={delay}")));
        }
    }
    None
}

/// What LDK nodes could do in the place of this statement.
fn step_cannot(scenario: &Scenario, at: usize, step: &Step) -> Option<String> {
    let no = |what: &str| Some(format!("{what} with node=ldk"));
    match step {
        Step::History(history) => history_cannot(scenario, at, history),
        Step::OnChain(OnChain::Publish { spend, .. }) => match spend {
            // Nobody but the owner of LDK's own keys could make one that LDK would sign.
            PublishedSpend::Local
            | PublishedSpend::Remote
            | PublishedSpend::RemoteNext
            | PublishedSpend::RemoteNumber(_)
            | PublishedSpend::Mutual
            | PublishedSpend::Unknown
            | PublishedSpend::Invalid => None,
        },
        Step::Arbiter(ArbiterStep::Preimage(hash)) => {
            let received = scenario.story[..at].iter().any(|statement| {
                matches!(&statement.step, Step::History(History::Receive(Receive {
                    hash: carried,
                    role: ReceivedRole::Final,
                    ..
                })) if carried == hash)
            });
            if received { None } else { no("preimage of a payment that the node received,") }
        }
        Step::Arbiter(ArbiterStep::SignedWrongly(_)) => {
            no("no wrong signature, for LDK's signer signs,")
        }
        Step::Arbiter(ArbiterStep::SignerOffFor(_)) => {
            no("no signer of one channel, for LDK's signer signs,")
        }
        Step::OnChain(_) | Step::Arbiter(_) | Step::Expect(_) | Step::Mark => None,
    }
}

fn history_cannot(scenario: &Scenario, at: usize, history: &History) -> Option<String> {
    let no = |what: &str| Some(format!("{what} with node=ldk"));
    match history {
        History::Update { .. } => no("no update, for LDK signs no commitment without a change,"),
        History::Splice { channel, capacity, .. } => {
            splice_cannot(scenario, at, channel, *capacity)
        }
        History::ForgetSince { .. } => {
            no("no forget-since, for LDK refuses to run without its data,")
        }
        History::Offer(Offer { htlc, stage: Stage::Next, .. })
        | History::Receive(Receive { htlc, stage: Stage::Next, .. }) => {
            let twice = staged(scenario).filter(|other| other.channel == htlc.channel).count() > 1;
            if twice { no("one stage=next of a channel") } else { None }
        }
        History::Receive(receive) => receive_cannot(scenario, at, receive),
        History::Offer(_)
        | History::Settle(_)
        | History::Cancel(_)
        | History::UpdateFee { .. }
        | History::Shutdown(_) => None,
    }
}

/// The peer adds its coins by LDK's own hand, to a channel that rests, and one splice at a time.
fn splice_cannot(
    scenario: &Scenario,
    at: usize,
    channel: &ChannelName,
    capacity: Amount,
) -> Option<String> {
    let no = |what: &str| Some(format!("{what} with node=ldk"));
    let opened = scenario.channels.iter().find(|of| of.name == *channel).map(|of| of.capacity);
    let (mut before, mut depth) = (opened.unwrap_or_default(), None);
    for statement in scenario.story.iter().take(at) {
        match &statement.step {
            Step::History(History::Splice { channel: of, capacity, confirm }) if of == channel => {
                before = *capacity;
                depth = Some((0, *confirm));
            }
            Step::OnChain(OnChain::Mine { blocks, .. }) => {
                depth = depth.map(|(depth, confirm)| (depth + blocks, confirm));
            }
            _ => {}
        }
    }
    if capacity <= before {
        return no("no splice that takes something out, for LDK takes its fee from there,");
    }
    if staged(scenario).any(|htlc| htlc.channel == *channel) {
        return no("no splice and stage=next of one channel");
    }
    match depth {
        None => None,
        Some((depth, SpliceConfirmation::Confirms)) if depth >= SPLICE_DEPTH => None,
        Some(_) => no("no second splice before the first has 6 blocks"),
    }
}

fn receive_cannot(scenario: &Scenario, at: usize, receive: &Receive) -> Option<String> {
    let no = |what: String| Some(format!("{what} with node=ldk"));
    let ReceivedRole::Forwarded { outgoing } = &receive.role else {
        let early = receive.expiry.0 < FINAL_EXPIRY;
        return early.then(|| format!("expiry= of at least +{FINAL_EXPIRY} with node=ldk"));
    };
    let (distance, offer) = outgoing_of(scenario, at, outgoing)?;
    if distance.is_none() {
        return no("no block between an HTLC and its forwarding".to_owned());
    }
    if offer.stage == Stage::Next {
        return no("no stage=next of a forwarded HTLC".to_owned());
    }
    if receive.expiry.0 < offer.expiry.0.saturating_add(FORWARDING_DELTA) {
        return no(format!("{FORWARDING_DELTA} blocks between the expiries of what is forwarded"));
    }
    if receive.amount.0 < offer.amount.0 {
        return no("no forwarding of more than was received".to_owned());
    }
    None
}

fn staged(scenario: &Scenario) -> impl Iterator<Item = &HtlcRef> {
    scenario.story.iter().filter_map(|statement| match &statement.step {
        Step::History(History::Offer(Offer { htlc, stage: Stage::Next, .. }))
        | Step::History(History::Receive(Receive { htlc, stage: Stage::Next, .. })) => Some(htlc),
        _ => None,
    })
}

/// The statement that forwards an HTLC; with it `Some(())` if no statement in between lets a block
/// pass.
pub(crate) fn outgoing_of<'a>(
    scenario: &'a Scenario,
    at: usize,
    outgoing: &HtlcRef,
) -> Option<(Option<()>, &'a Offer)> {
    let mut distance = Some(());
    for statement in scenario.story.iter().skip(at) {
        match &statement.step {
            Step::History(History::Offer(offer)) if offer.htlc == *outgoing => {
                return Some((distance, offer));
            }
            Step::OnChain(OnChain::Mine { .. } | OnChain::Reorg { .. })
            | Step::Arbiter(ArbiterStep::Offline(_)) => distance = None,
            _ => {}
        }
    }
    None
}
