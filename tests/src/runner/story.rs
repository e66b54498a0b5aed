//! The state of a run, and the way from statement to statement.
use super::crash::CrashPlan;
use super::ldk::{Nodes, Proposed};
use super::node::{Node, refused};
use super::splice::Splice;
use super::trace::Trace;
use super::{Failed, history};
use crate::peer::{self, Channel, Commitment};
use crate::scenario::ast::{self, ChannelName, HashName, Step};
use crate::scenario::{ParseError, Scenario};
use crate::world::{Fill, Room, World, channel_id, channel_secrets, first_facts, number};
use arb_core::facts::{ChannelFacts, Update};
use arb_core::ids::ChannelId;
use arb_core::policy::{Joining, Policy};
use arb_core::report::ChannelReport;
use arb_core::units::BlockDelta;
use arb_watcher::{Alarms, ChainAlarm, ChannelNumbers, CommandError, Settings};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How deep the funding of every channel is when the story begins.
pub(super) const FUNDING_DEPTH: u32 = 200;
/// Coins of the peer for its own fees, in each channel whose HTLC transactions carry none.
const PEER_COINS: (usize, Amount) = (8, Amount::from_sat(200_000));
/// How long the arbiter may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long it is waited for while its disk is full: what is stuck goes on when there is room.
const PATIENCE_ON_FULL_DISK: Duration = Duration::from_millis(300);

/// What the arbiter was told, and the commitment number that it leads to.
pub(super) type ToldAt = (u64, Vec<Update>);

/// A channel of the story.
pub(super) struct Chan {
    pub(super) peer: Channel,
    pub(super) id: ChannelId,
    pub(super) funding: OutPoint,
    pub(super) splices: Vec<Splice>,
    /// The facts that it was registered with.
    pub(super) first: ChannelFacts,
    /// What the arbiter was told since, each with the commitment number that it leads to.
    pub(super) told: Vec<ToldAt>,
    /// What a full disk refused, and what came after it.
    pub(super) unsent: Vec<Vec<Update>>,
    pub(super) links: crate::world::Links,
    /// Commitment numbers, ours and the peer's, that the node has: it goes on to the next only
    /// when the arbiter has it too.
    pub(super) numbers: (u64, u64),
    /// Staged HTLCs that are not in the next commitment yet.
    pub(super) staged: Vec<history::Waiting>,
    /// The last report; of a forgotten channel the one when that happened.
    pub(super) report: Option<ChannelReport>,
    pub(super) forgotten: bool,
    /// The arbiter has lost some of what it was told.
    pub(super) lost: bool,
    /// Commitments that were seen on chain or in the mempool.
    pub(super) commitments: BTreeMap<Txid, Arc<Commitment>>,
}

/// A run of a scenario.
pub(super) struct Runner<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) world: World,
    pub(super) node: Node,
    pub(super) channels: BTreeMap<ChannelName, Chan>,
    /// Preimages that the node knows of its own.
    pub(super) preimages: BTreeSet<HashName>,
    /// Our transactions before the last `mark`.
    pub(super) marked: BTreeSet<Txid>,
    /// Heights at which a preimage of a received HTLC was told.
    pub(super) known_since: BTreeMap<(ChannelName, String), u32>,
    /// What others had in blocks that a reorganisation took: what is premature now they hand in again.
    pub(super) returning: Vec<Transaction>,
    pub(super) disk_is_full: bool,
    /// The arbiter has begun with a new store: what its wallet paid before that is in no report.
    pub(super) store_is_new: bool,
    pub(super) signer_works: bool,
    /// The same for LDK's signers.
    pub(super) signs: Arc<AtomicBool>,
    /// The nodes of a story with `node=ldk`.
    pub(super) ldk: Option<Nodes>,
    pub(super) trace: Trace,
    /// Height at which the story begins.
    pub(super) began: u32,
    /// Index of the statement that is under way.
    pub(super) at: usize,
}

fn policy(policy: &ast::Policy) -> Policy {
    Policy {
        act_depth: BlockDelta(policy.act_depth),
        offered_grace: BlockDelta(policy.offered_grace),
        fulfil_margin: BlockDelta(policy.fulfil_margin),
        upstream_margin: BlockDelta(policy.upstream_margin),
        forget_depth: BlockDelta(policy.forget_depth),
        joining: match policy.joining {
            ast::Joining::Never => Joining::Never,
            ast::Joining::Allowed => Joining::Allowed,
        },
        ..Policy::default()
    }
}

/// What a channel is opened with.
pub(super) fn params_of(channel: &ast::Channel) -> Result<peer::ChannelParams, Failed> {
    let format = match channel.format {
        ast::Format::StaticRemotekey => peer::Format::StaticRemoteKey,
        ast::Format::Anchors => peer::Format::Anchors,
        ast::Format::ZeroFee => peer::Format::ZeroFee,
        ast::Format::Taproot => {
            return Err(Failed::new("a supported format", format!("{:?}", channel.format)));
        }
    };
    let feerate_per_kw = u32::try_from(channel.feerate.to_sat_per_kwu())
        .map_err(|_| Failed::new("a feerate of 32 bits", channel.feerate))?;
    if !channel.local.0.is_multiple_of(1000) {
        return Err(Failed::new("local= in whole satoshis", format!("{}msat", channel.local.0)));
    }
    Ok(peer::ChannelParams {
        name: channel.name.0.clone(),
        format,
        capacity: channel.capacity,
        local_balance: channel.local.to_sat_rounded_down(),
        opener: match channel.opener {
            ast::Side::Local => peer::Side::Local,
            ast::Side::Remote => peer::Side::Remote,
        },
        local_delay: channel.local_delay,
        remote_delay: channel.remote_delay,
        dust: channel.dust,
        remote_dust: channel.remote_dust,
        feerate_per_kw,
        seed: 0,
    })
}

impl Chan {
    /// A channel at commitment #0.
    pub(super) fn new(
        peer: Channel,
        id: ChannelId,
        funding: OutPoint,
        first: ChannelFacts,
    ) -> Self {
        Self {
            peer,
            id,
            funding,
            splices: Vec::new(),
            first,
            told: Vec::new(),
            unsent: Vec::new(),
            links: BTreeMap::new(),
            numbers: (0, 0),
            staged: Vec::new(),
            report: None,
            forgotten: false,
            lost: false,
            commitments: BTreeMap::new(),
        }
    }
}

/// Whether peer and arbiter take a channel, whatever its funding output will be.
fn playable(channel: &ast::Channel) -> Result<(), Failed> {
    let mut peer = Channel::new(params_of(channel)?)?;
    peer.set_funding(OutPoint { txid: Txid::all_zeros(), vout: 0 })?;
    let facts = first_facts(&peer, 0)?;
    let verified = facts.verify(&Secp256k1::verification_only());
    verified.map_err(|error| Failed::new("a channel that the arbiter takes", error))
}

/// The first channel that no peer would open, or no arbiter watch.
pub fn unplayable(scenario: &Scenario) -> Option<ParseError> {
    if scenario.is_of_ldk() {
        return None;
    }
    let refused = |channel: &ast::Channel| Some((channel.line, playable(channel).err()?));
    let (line, Failed { expected, found }) = scenario.channels.iter().find_map(refused)?;
    Some(ParseError { file: scenario.file.clone(), line, expected, found })
}

impl<'a> Runner<'a> {
    /// Opens the channels, fills the wallets and starts the arbiter.
    pub(super) async fn begin(
        scenario: &'a Scenario,
        world: World,
        plan: Arc<CrashPlan>,
        trace: Trace,
    ) -> Result<Self, Failed> {
        let settings = Settings {
            policy: policy(&scenario.policy),
            retry: Duration::from_millis(20),
            ..Settings::default()
        };
        let mut runner = Self {
            scenario,
            world,
            node: Node::new(settings, plan)?,
            channels: BTreeMap::new(),
            preimages: BTreeSet::new(),
            marked: BTreeSet::new(),
            known_since: BTreeMap::new(),
            disk_is_full: false,
            store_is_new: false,
            signer_works: true,
            signs: Arc::new(AtomicBool::new(true)),
            returning: Vec::new(),
            ldk: None,
            trace,
            began: 0,
            at: 0,
        };
        if scenario.is_of_ldk() {
            runner.begin_with_ldk().await?;
            return Ok(runner);
        }
        runner.open_channels().await?;
        runner.began = runner.world.height();
        runner.node.start(&runner.world, Vec::new()).await?;
        runner.idle().await?;
        let firsts: Vec<ChannelFacts> =
            runner.channels.values().map(|chan| chan.first.clone()).collect();
        for facts in firsts {
            runner
                .command(|arbiter| {
                    let facts = facts.clone();
                    async move { arbiter.watch_channel(facts).await }
                })
                .await?;
        }
        runner.settle().await?;
        Ok(runner)
    }

    /// The same with LDK nodes, which open the channels themselves.
    async fn begin_with_ldk(&mut self) -> Result<(), Failed> {
        // LDK writes and publishes as well.
        self.node.plan.keep_apart();
        let proposed = self.propose_ldk().await?;
        let funding = |(proposed, script): &(Proposed, ScriptBuf)| {
            (script.clone(), proposed.peer.params().capacity)
        };
        let mut payments: Vec<(ScriptBuf, Amount)> = proposed.iter().map(funding).collect();
        let scripts = proposed.iter().map(|(proposed, _)| proposed.peer.peer_script()).collect();
        self.add_coins(&mut payments, scripts).await?;
        let peers = proposed.iter().map(|(proposed, _)| (&proposed.name, &proposed.peer));
        self.add_splices(&mut payments, &peers.collect());
        let outpoints = self.world.begin(&payments, FUNDING_DEPTH).await?;
        self.node.start(&self.world, Vec::new()).await?;
        self.idle().await?;
        let proposed = proposed.into_iter().map(|(proposed, _)| proposed);
        // A node that dies while it opens a channel has none.
        self.node.plan.set_paused(true);
        self.open_ldk(proposed.zip(outpoints).collect()).await?;
        self.settle().await?;
        self.node.plan.set_paused(false);
        Ok(())
    }

    async fn open_channels(&mut self) -> Result<(), Failed> {
        let mut peers = Vec::new();
        let mut payments: Vec<(ScriptBuf, Amount)> = Vec::new();
        for channel in &self.scenario.channels {
            let peer = Channel::new(params_of(channel)?)?;
            payments.push((peer.funding_script(), channel.capacity));
            peers.push((channel.name.clone(), peer));
        }
        let scripts = peers.iter().map(|(_, peer)| peer.peer_script()).collect();
        let wallet = self.add_coins(&mut payments, scripts).await?;
        self.add_splices(&mut payments, &peers.iter().map(|(name, peer)| (name, peer)).collect());
        self.fund(peers, &payments, &wallet).await
    }

    /// The coins of our wallet, and some for each peer. Gives the script of our wallet.
    async fn add_coins(
        &self,
        payments: &mut Vec<(ScriptBuf, Amount)>,
        peers: Vec<ScriptBuf>,
    ) -> Result<ScriptBuf, Failed> {
        let script = arb_core::ports::CoinSource::change_script(&self.world.wallet)
            .await
            .map_err(|error| Failed::new("a wallet script", error))?;
        for coins in &self.scenario.wallet.coins {
            let coin = (script.clone(), coins.value);
            payments.extend(std::iter::repeat_n(coin, coins.count as usize));
        }
        for script in peers {
            payments.extend(std::iter::repeat_n((script, PEER_COINS.1), PEER_COINS.0));
        }
        Ok(script)
    }

    /// Each peer has what its splices add, whatever that is.
    fn add_splices(
        &self,
        payments: &mut Vec<(ScriptBuf, Amount)>,
        peers: &BTreeMap<&ChannelName, &Channel>,
    ) {
        for statement in &self.scenario.story {
            if let Step::History(ast::History::Splice { channel, capacity, .. }) = &statement.step {
                let peer = peers.get(channel);
                payments.extend(peer.map(|peer| (peer.peer_script(), *capacity)));
            }
        }
    }

    async fn fund(
        &mut self,
        peers: Vec<(ChannelName, Channel)>,
        payments: &[(ScriptBuf, Amount)],
        wallet: &ScriptBuf,
    ) -> Result<(), Failed> {
        let outpoints = self.world.begin(payments, FUNDING_DEPTH).await?;
        let birth = (self.world.height() + 1).saturating_sub(FUNDING_DEPTH);
        for ((name, mut peer), funding) in peers.into_iter().zip(outpoints) {
            peer.set_funding(funding)?;
            // Commitment #0 is part of the registration.
            peer.take_facts(peer::Keep::Newest)?;
            let mut first = first_facts(&peer, birth)?;
            if self.policy().joining == Joining::Allowed {
                // What pays one script may share an output.
                first.destination = wallet.clone();
            }
            let id = channel_id(&funding);
            self.world.signer.insert(id, channel_secrets(peer.local_secrets()));
            self.world.signer.insert_seed(id, peer.local_secrets().commitment_seed);
            let chan = Chan::new(peer, id, funding, first);
            self.channels.insert(name, chan);
        }
        Ok(())
    }

    /// One statement, and rest after it.
    pub(super) async fn statement(&mut self, at: usize) -> Result<(), Failed> {
        let scenario = self.scenario;
        let Some(statement) = scenario.story.get(at) else { return Ok(()) };
        self.at = at;
        let height = self.world.height();
        self.trace.line(|| format!("{:>4} {} [tip {height}]", statement.line, statement.text));
        if !matches!(statement.step, Step::History(_)) {
            self.hang_up()?;
        }
        match &statement.step {
            Step::History(history) if self.ldk.is_some() => self.ldk_history(history).await?,
            Step::History(history) => self.history(history).await?,
            Step::OnChain(on_chain) => self.on_chain(on_chain).await?,
            Step::Arbiter(step) => self.arbiter_step(step).await?,
            Step::Expect(expectations) => {
                for expectation in expectations {
                    self.expect(expectation).await?;
                }
                return Ok(());
            }
            Step::Mark => {
                let ours = self.our_transactions().into_iter().flatten();
                self.marked = ours.map(|tx| tx.txid).collect();
                return Ok(());
            }
        }
        self.settle().await
    }

    /// A channel that the parser has found declared.
    pub(super) fn chan(&self, name: &ChannelName) -> Result<&Chan, Failed> {
        self.channels.get(name).ok_or_else(|| Failed::new("a declared channel", name))
    }

    pub(super) fn chan_mut(&mut self, name: &ChannelName) -> Result<&mut Chan, Failed> {
        self.channels.get_mut(name).ok_or_else(|| Failed::new("a declared channel", name))
    }

    /// What the node knows of every channel.
    pub(super) fn numbers(&self) -> Vec<ChannelNumbers> {
        let of_ldk = self.ldk.as_ref().map(Nodes::numbers).unwrap_or_default();
        let of = |chan: &Chan| {
            let (local, remote) = of_ldk.get(&chan.id).copied().unwrap_or(chan.numbers);
            ChannelNumbers { id: chan.id, local: number(local), remote: number(remote) }
        };
        self.channels.values().map(of).collect()
    }

    /// Whether the arbiter can act as it wants to.
    pub(super) fn room(&self) -> Room {
        let works = self.node.is_running()
            && self.signer_works
            && !self.disk_is_full
            && self.world.faults.broadcaster_works();
        if works { Room::Full } else { Room::None }
    }

    /// One block, and rest after it.
    pub(super) async fn block(&mut self, fill: &Fill<'_>) -> Result<(), Failed> {
        let room = match fill {
            Fill::Mempool => self.room(),
            Fill::Empty | Fill::Without(_) => Room::None,
        };
        self.hand_in_again().await?;
        self.world.mine(fill, room).await?;
        self.trace_block();
        self.show_ldk().await?;
        self.settle().await
    }

    fn trace_block(&mut self) {
        let height = self.world.height();
        let Some(block) = self.world.ledger.block(height) else { return };
        let txids: Vec<Txid> =
            block.transactions.iter().skip(1).map(Transaction::compute_txid).collect();
        self.trace.line(|| {
            let txids: Vec<String> = txids.iter().map(|txid| format!(" {txid:.8}")).collect();
            format!("     block {height}{}", txids.concat())
        });
    }

    /// Waits until the arbiter has nothing to do, gives it what it waits for from the node, and
    /// takes the reports.
    pub(super) async fn settle(&mut self) -> Result<(), Failed> {
        if !self.node.is_running() {
            return Ok(());
        }
        loop {
            self.idle().await?;
            let told = self.take_notices().await?;
            let read = self.node.read_events();
            let moved = self.ldk_turn().await?;
            if !told && !read && !moved {
                break;
            }
        }
        self.trace.transactions(&self.world.faults);
        self.take_reports().await?;
        if self.lock_splices().await? {
            self.idle().await?;
            self.take_reports().await?;
        }
        self.compare_htlcs()?;
        self.compare_balances().await
    }

    pub(super) async fn idle(&mut self) -> Result<(), Failed> {
        let patience = if self.disk_is_full { PATIENCE_ON_FULL_DISK } else { PATIENCE };
        let full = self.disk_is_full;
        let idle = self.command(|arbiter| async move {
            let mut alarms = arbiter.alarms();
            let lost = |alarms: &Alarms| alarms.chain == Some(ChainAlarm::ReorganisedTooDeeply);
            tokio::select! {
                biased;
                answer = tokio::time::timeout(patience, arbiter.idle()) => match answer {
                    Ok(answer) => answer.map(|()| None),
                    Err(_) => Ok(Some(format!("none in {PATIENCE:?}")).filter(|_| !full)),
                },
                Ok(_) = alarms.wait_for(lost) => {
                    Ok(Some("a reorganisation below all blocks that it remembers".to_owned()))
                }
            }
        });
        match idle.await? {
            None => Ok(()),
            Some(why) => Err(Failed::new("the arbiter to come to rest", why)),
        }
    }

    /// The node acknowledges every notice at once. True if there was one.
    async fn take_notices(&mut self) -> Result<bool, Failed> {
        let mut any = false;
        while let Some((channel, notice)) = self.node.notice().await {
            any = true;
            let plan = Arc::clone(&self.node.plan);
            if plan.point(|| format!("before the node hears of {:?}", notice.key())) {
                self.recover().await?;
                return Ok(true);
            }
            self.trace.line(|| format!("     notice {:?}", notice.key()));
            self.node.told.take(channel, &notice);
            plan.moved();
            if plan.point(|| format!("after the node heard of {:?}", notice.key())) {
                self.recover().await?;
                return Ok(true);
            }
            let key = notice.key();
            if self.disk_is_full {
                // It is repeated with the next block.
                continue;
            }
            let acknowledged =
                self.try_command(|arbiter| async move { arbiter.acknowledge(channel, key).await });
            match acknowledged.await? {
                Ok(()) => self.node.told.acknowledged(channel, &notice),
                // Forgotten meanwhile: nothing waits for the acknowledgement.
                Err(CommandError::UnknownChannel(_)) => {}
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(any && !self.disk_is_full)
    }

    /// The settings of the arbiter itself.
    pub(super) fn policy(&self) -> Policy {
        policy(&self.scenario.policy)
    }

    async fn take_reports(&mut self) -> Result<(), Failed> {
        let ids: Vec<(ChannelName, ChannelId)> =
            self.channels.iter().map(|(name, chan)| (name.clone(), chan.id)).collect();
        for (name, id) in ids {
            // Stuck on a full disk, it answers later: the last report stands until then.
            let full = self.disk_is_full;
            let patience = if full { PATIENCE_ON_FULL_DISK } else { PATIENCE };
            let asked = self.command(|arbiter| async move {
                match tokio::time::timeout(patience, arbiter.report(id)).await {
                    Ok(Err(CommandError::NotStored(_))) if full => Ok(None),
                    Ok(answer) => answer.map(Some),
                    Err(_) => Ok(None),
                }
            });
            let Some(report) = asked.await? else { continue };
            let last = self.node.last_reports.of(&id);
            let chan = self.chan_mut(&name)?;
            let before = chan.report.clone();
            match report {
                Some(report) => {
                    chan.forgotten = false;
                    chan.report = Some(report);
                }
                None => {
                    chan.forgotten = chan.report.is_some();
                    chan.report = last.or(chan.report.take());
                }
            }
            let (forgotten, after) = (chan.forgotten, chan.report.clone());
            self.trace.report(&name, before.as_ref(), after.as_ref(), forgotten);
        }
        Ok(())
    }
}
