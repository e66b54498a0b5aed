//! `LdkEvents`: those of LDK's events that are the arbiter's affair.
use super::egress::{Egress, Mode};
use super::facts::{FactSink, NAMESPACE, Refusal};
use arb_core::arbitrator::{Alert, OutputState};
use arb_core::facts::Update;
use arb_core::ids::ChannelId;
use arb_core::picture::Role;
use arb_core::report::{ChannelReport, OutputReport};
use arb_core::units::BlockHeight;
use bitcoin::OutPoint;
use core::fmt;
use core::future::Future;
use core::ops::Deref;
use lightning::chain::channelmonitor::ANTI_REORG_DELAY;
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::events::bump_transaction::BumpTransactionEvent;
use lightning::events::{ClosureReason, Event, FundingInfo, ReplayEvent};
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::sign::SpendableOutputDescriptor;
use lightning::util::persist::KVStoreSync;
use lightning::util::ser::{Readable, Writeable};
use std::sync::Arc;

/// Second namespace of the outputs that LDK has told of, one record each.
pub const SPENDABLE: &str = "spendable";

/// Second namespace: one record for each of these outputs that was acknowledged as the arbiter's to sweep. It
/// is the arbiter's last word on the output: [`UNSPENT`] or [`SPENT`]; or [`UNKNOWN`], if it has said nothing yet.
const OF_ARBITER: &str = "of_arbiter";

const VERSION: u8 = 1;

const UNSPENT: [u8; 2] = [VERSION, 0];
const SPENT: [u8; 2] = [VERSION, 1];
const UNKNOWN: [u8; 2] = [VERSION, 2];

/// What the arbiter has of an output, in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It sees to the output.
    Yes,
    /// It sees that the output is paid to us and needs no claim: our balance on the peer's commitment, in a format
    /// without a delay for it. What spends it is the payment key of LDK's channel signer, no wallet's.
    Home,
    /// A transaction of the block at this height spends it.
    Spent(BlockHeight),
    /// It watches the channel, and has not seen the output yet.
    NotYet,
    /// It does not watch the channel, or cannot claim the output, as one of a commitment that it has no facts of.
    NotWatched,
}

impl Known {
    /// What a channel's report says of an output; `None`: the arbiter has no report of the channel.
    #[must_use]
    pub fn of(report: Option<&ChannelReport>, outpoint: OutPoint) -> Self {
        let Some(report) = report else { return Self::NotWatched };
        let output = report.outputs.iter().find(|output| output.outpoint == outpoint);
        let is_lost = report.alerts.contains(&Alert::OutputLost(outpoint));
        match output {
            None => Self::NotYet,
            Some(OutputReport { spent_at: Some(at), .. }) => Self::Spent(*at),
            Some(output) if is_lost || output.role == Role::Unidentified => Self::NotWatched,
            Some(output) if is_home(output) => Self::Home,
            Some(_) => Self::Yes,
        }
    }
}

/// Whether nobody makes a transaction for our balance on the peer's commitment.
fn is_home(output: &OutputReport) -> bool {
    let is_final = matches!(output.state, OutputState::Resolved | OutputState::Irrevocable);
    output.role == Role::ToRemote && output.spent_by.is_none() && is_final
}

/// Asks the arbiter for an output of a closed channel: [`Known::of`] the channel's report, where nothing better is
/// known.
pub trait Claims: Sync {
    /// What the arbiter's log has of it; `Err` says why that is not known at the moment.
    fn known(
        &self,
        channel: ChannelId,
        outpoint: OutPoint,
    ) -> impl Future<Output = Result<Known, String>> + Send;
}

/// Whose an event is after [`LdkEvents::handle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handled {
    /// The arbiter's: the node has nothing to do.
    Arbiter,
    /// The node's, as if there were no arbiter.
    Node,
    /// Both: of these spendable outputs those at a key of LDK's are the node's, for its sweeper, and the others the
    /// arbiter's. At a key of LDK's is every [`StaticOutput`](SpendableOutputDescriptor::StaticOutput), unless
    /// the destination is the wallet's, and every
    /// [`StaticPaymentOutput`](SpendableOutputDescriptor::StaticPaymentOutput) that may be spent without a delay
    /// ([`Known::Home`]). LDK 0.2.7 tells of each output by itself.
    NodeStatic,
    /// The node's; and the channel was never funded, so that the arbiter watches in vain.
    NeverFunded,
}

/// Hands LDK's events to the arbiter before they are acknowledged. Called within the node's own
/// handler, first:
///
/// - `SpendableOutputs`: remembered durably; the arbiter claims them in [`Mode::Own`], until the mode is another or the
///   channel is handed back ([`for_node`](Self::for_node)). The node's sweeper has them in the other modes, and those that the arbiter does not watch, from here or
///   from [`kept`](Self::kept). It has every
///   [`StaticOutput`](SpendableOutputDescriptor::StaticOutput) in all modes: that is at the channel's destination, where
///   the arbiter's claims pay as well, and with `KeysManager` that is a key of LDK's own, no wallet's. Not if the
///   destination is the wallet's: [`paying_the_wallet`](Self::paying_the_wallet). And in any case it has our balance on
///   the peer's commitment where that needs no claim ([`Known::Home`]).
/// - `BumpTransaction`: in [`Mode::Own`] the arbiter closes and claims at its own price; otherwise
///   LDK's handler, with [`LdkCoins`](super::LdkCoins). So too what the arbiter has published nothing for
///   [`GRACE`](super::GRACE) blocks after LDK first told of it: it may not be able to.
/// - `DiscardFunding`: the funding candidate goes, unless a block has shown it.
/// - `ChannelClosed`: an intent, where LDK publishes a commitment of ours.
#[derive(Debug)]
pub struct LdkEvents<K, S, C> {
    store: K,
    sink: S,
    claims: C,
    egress: Arc<Egress>,
    /// Whether channels' destinations are the node's wallet's.
    pays_wallet: bool,
}

/// An output that LDK told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The channel, if LDK said it.
    pub channel: Option<ChannelId>,
    /// LDK's descriptor.
    pub descriptor: SpendableOutputDescriptor,
}

/// The key-value store failed, or a record in it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptError(pub String);

impl fmt::Display for KeptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for KeptError {}

impl<K, S, C> LdkEvents<K, S, C>
where
    K: Deref<Target: KVStoreSync>,
    S: FactSink,
    C: Claims,
{
    /// Events go to `sink`; `claims` is asked for outputs; what LDK tells of is kept in `store`.
    pub const fn new(store: K, sink: S, claims: C, egress: Arc<Egress>) -> Self {
        Self { store, sink, claims, egress, pays_wallet: false }
    }

    /// The same, and the signer provider's destination scripts are the node's wallet's: nobody has to sweep what
    /// is there. `KeysManager`'s are not. What is at a channel's payment key ([`Known::Home`]) is the node's to
    /// sweep all the same.
    #[must_use]
    pub fn paying_the_wallet(self) -> Self {
        Self { pays_wallet: true, ..self }
    }

    /// Handles one event of the channel manager or of the chain monitor. What it is about is durable
    /// with the arbiter when this returns.
    ///
    /// # Errors
    /// Not now: LDK says it again.
    pub async fn handle(&self, event: &Event) -> Result<Handled, ReplayEvent> {
        if let Event::SpendableOutputs { outputs, channel_id } = event {
            self.spendable(outputs, channel_id.map(|id| ChannelId(id.0))).await
        } else if let Event::BumpTransaction(bump) = event {
            self.bump(bump).await
        } else if let Event::DiscardFunding { channel_id, funding_info } = event {
            self.discard(ChannelId(channel_id.0), funding_info).await
        } else if let Event::ChannelClosed { channel_id, reason, .. } = event {
            self.closed(ChannelId(channel_id.0), reason).await
        } else {
            Ok(Handled::Node)
        }
    }

    /// Outputs that LDK has told of and that were not [`taken`](Self::taken), for a sweeper of the
    /// node's: LDK does not tell of them again, whatever the mode is by then.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn kept(&self) -> Result<Vec<Kept>, KeptError> {
        let failed = |error: lightning::io::Error| KeptError(error.to_string());
        let keys = self.store.list(NAMESPACE, SPENDABLE).map_err(failed)?;
        let read = |key: &String| {
            let bytes = self.store.read(NAMESPACE, SPENDABLE, key).map_err(failed)?;
            decode(&bytes).ok_or_else(|| KeptError(format!("{key} cannot be read")))
        };
        keys.iter().map(read).collect()
    }

    /// Outputs that were acknowledged as the arbiter's to sweep and are so no longer: the mode is not [`Mode::Own`] any
    /// more, the channel was handed back, or the arbiter has [ended](Egress::ended); and those of which the arbiter said only after that
    /// that they are the node's. For the node's sweeper, and to be
    /// [`taken`](Self::taken) once it has them; until then each call gives them again. To be called after each block, for
    /// nobody else tells of them. With that, what the arbiter itself has swept is kept no more once it is buried.
    ///
    /// What is spent in a block is not given: a sweeper that has a spent output in all of its transactions has none
    /// confirmed. Where the arbiter does not say, since it has ended, or has set aside or does not know a channel that was handed back, its
    /// last word counts, which is as old as the last call at which it said anything; with another mode alone nothing is given then.
    /// What it has not seen yet comes when it has.
    ///
    /// # Errors
    /// As [`kept`](Self::kept), or the store takes nothing at the moment.
    pub async fn for_node(&self) -> Result<Vec<Kept>, KeptError> {
        let failed = |error: lightning::io::Error| KeptError(error.to_string());
        let left = self.store.list(NAMESPACE, OF_ARBITER).map_err(failed)?;
        let (height, has_ended) = self.egress.height_and_end();
        let mut for_node = Vec::new();
        for kept in self.kept()? {
            let outpoint = outpoint(&kept.descriptor);
            let Some(channel) = kept.channel.filter(|_| left.contains(&key(outpoint))) else {
                continue;
            };
            let known = match has_ended {
                true => None,
                false => self.claims.known(channel, outpoint).await.ok(),
            };
            let said = self.store.read(NAMESPACE, OF_ARBITER, &key(outpoint)).map_err(failed)?;
            let is_left = has_ended || self.egress.is_left(channel);
            let (says, is_nodes) = match known {
                Some(Known::Spent(at)) if height.saturating_sub(at.0) >= ANTI_REORG_DELAY => {
                    self.taken(outpoint)?;
                    continue;
                }
                Some(Known::NotYet) => continue,
                Some(Known::Spent(_)) => (SPENT.to_vec(), false),
                Some(Known::Yes) => (UNSPENT.to_vec(), false),
                Some(Known::Home) => (UNSPENT.to_vec(), true),
                // Of what it has had it says the same once it has resolved and forgotten the channel.
                Some(Known::NotWatched) if said == UNKNOWN => (said.clone(), true),
                Some(Known::NotWatched) | None if !is_left => continue,
                Some(Known::NotWatched) | None => (said.clone(), false),
            };
            if said != says {
                let written = self.store.write(NAMESPACE, OF_ARBITER, &key(outpoint), says.clone());
                written.map_err(failed)?;
            }
            if says != SPENT && (is_nodes || !self.is_arbiters(channel)) {
                for_node.push(kept);
            }
        }
        Ok(for_node)
    }

    /// The output is spent for good, or in the sweeper's own books: it is kept no more.
    ///
    /// # Errors
    /// The store takes nothing at the moment.
    pub fn taken(&self, outpoint: OutPoint) -> Result<(), KeptError> {
        let key = key(outpoint);
        let removed = self.store.remove(NAMESPACE, OF_ARBITER, &key, false);
        let removed = removed.and_then(|()| self.store.remove(NAMESPACE, SPENDABLE, &key, false));
        removed.map_err(|error| KeptError(error.to_string()))
    }

    fn is_arbiters(&self, channel: ChannelId) -> bool {
        self.egress.mode() == Mode::Own && !self.egress.is_left(channel)
    }

    /// What an event is about cannot be told to the arbiter at the moment: LDK is to say it again, unless there is no arbiter any
    /// more ([`Egress::ended`]) and LDK goes on alone. LDK handles no other event before.
    fn again(&self) -> Result<(), ReplayEvent> {
        let (_, has_ended) = self.egress.height_and_end();
        if has_ended { Ok(()) } else { Err(ReplayEvent()) }
    }

    async fn spendable(
        &self,
        outputs: &[SpendableOutputDescriptor],
        channel: Option<ChannelId>,
    ) -> Result<Handled, ReplayEvent> {
        for descriptor in outputs {
            let bytes = encode(channel, descriptor);
            let key = key(outpoint(descriptor));
            self.store.write(NAMESPACE, SPENDABLE, &key, bytes).map_err(|_| ReplayEvent())?;
        }
        let Some(channel) = channel.filter(|channel| self.is_arbiters(*channel)) else {
            return Ok(Handled::Node);
        };
        let (mut for_node, mut for_arbiter) = (false, Vec::new());
        for descriptor in outputs {
            if matches!(descriptor, SpendableOutputDescriptor::StaticOutput { .. }) {
                for_node |= !self.pays_wallet;
                continue;
            }
            let outpoint = outpoint(descriptor);
            match self.claims.known(channel, outpoint).await {
                Ok(Known::Yes | Known::Spent(_)) => for_arbiter.push((key(outpoint), UNSPENT)),
                Ok(Known::Home) => for_node = true,
                Ok(Known::NotWatched) => return Ok(Handled::Node),
                // It says so in a moment, or has set the channel aside, and then LDK is not held up: what it tells of after this
                // are its own claims.
                Ok(Known::NotYet) | Err(_) => {
                    if !self.egress.is_overdue([outpoint].into_iter()) {
                        return Err(ReplayEvent());
                    }
                    for_arbiter.push((key(outpoint), UNKNOWN));
                }
            }
        }
        // LDK does not tell of them again, so it is remembered whose they are.
        for (key, said) in &for_arbiter {
            let left = self.store.write(NAMESPACE, OF_ARBITER, key, (*said).into());
            left.map_err(|_| ReplayEvent())?;
        }
        Ok(match (for_node, for_arbiter.is_empty()) {
            (false, _) => Handled::Arbiter,
            (true, true) => Handled::Node,
            (true, false) => Handled::NodeStatic,
        })
    }

    async fn bump(&self, event: &BumpTransactionEvent) -> Result<Handled, ReplayEvent> {
        match event {
            BumpTransactionEvent::ChannelClose { channel_id, commitment_tx, .. } => {
                let channel = ChannelId(channel_id.0);
                if !self.is_arbiters(channel) {
                    return Ok(Handled::Node);
                }
                let funding = commitment_tx.input.iter().map(|input| input.previous_output);
                match self.sink.closed(channel).await {
                    // LDK tells of it again.
                    Ok(()) | Err(Refusal::SetAside(_)) => Ok(self.unless_overdue(funding)),
                    Err(Refusal::Later(_)) => Err(ReplayEvent()),
                    Err(_) => Ok(Handled::Node),
                }
            }
            BumpTransactionEvent::HTLCResolution { channel_id, htlc_descriptors, .. } => {
                let channel = ChannelId(channel_id.0);
                if !self.is_arbiters(channel) {
                    return Ok(Handled::Node);
                }
                for descriptor in htlc_descriptors {
                    // What it has not seen yet it claims when it has. What it cannot tell, as of a channel that it has set
                    // aside, it may not be able to claim: that is LDK's as soon as it is overdue.
                    let known = self.claims.known(channel, descriptor.outpoint()).await;
                    if known == Ok(Known::NotWatched) {
                        return Ok(Handled::Node);
                    }
                }
                // That it sees an output is not to say that it can claim it: the preimage may be LDK's alone.
                let outputs = htlc_descriptors.iter().map(|descriptor| descriptor.outpoint());
                Ok(self.unless_overdue(outputs))
            }
        }
    }

    /// LDK tells of its claims again and again until they confirm.
    fn unless_overdue(&self, outputs: impl Iterator<Item = OutPoint>) -> Handled {
        if self.egress.is_overdue(outputs) { Handled::Node } else { Handled::Arbiter }
    }

    async fn discard(
        &self,
        channel: ChannelId,
        info: &FundingInfo,
    ) -> Result<Handled, ReplayEvent> {
        let fundings: Vec<OutPoint> = match info {
            FundingInfo::OutPoint { outpoint } => vec![outpoint.into_bitcoin_outpoint()],
            // Which of its outputs it was is not said.
            FundingInfo::Tx { transaction } => {
                let txid = transaction.compute_txid();
                let of = |(vout, _)| OutPoint { txid, vout };
                (0..).zip(&transaction.output).map(of).collect()
            }
        };
        let is_first = fundings.iter().any(|funding| begins(channel, funding));
        let gone = fundings.into_iter().map(|funding| Update::CandidateDiscarded { funding });
        match self.sink.update(channel, gone.collect(), Vec::new()).await {
            Ok(()) | Err(Refusal::NotWatched) => Ok(Handled::Node),
            Err(Refusal::Later(_)) => self.again().map(|()| Handled::Node),
            // A channel is not without a funding output, and this is its only one: LDK discards the first one
            // with the channel.
            Err(Refusal::Refused(_) | Refusal::Fenced | Refusal::SetAside(_)) if is_first => {
                Ok(Handled::NeverFunded)
            }
            // A splice that a block has shown: the arbiter keeps it. Or it has set the channel aside, which holds up no event of
            // others: LDK discards what another funding output has replaced, and that it is still watched for does no harm.
            Err(Refusal::Refused(_) | Refusal::Fenced | Refusal::SetAside(_)) => Ok(Handled::Node),
        }
    }

    async fn closed(
        &self,
        channel: ChannelId,
        reason: &ClosureReason,
    ) -> Result<Handled, ReplayEvent> {
        match reason {
            ClosureReason::HolderForceClosed { .. }
            | ClosureReason::CounterpartyForceClosed { .. }
            | ClosureReason::ProcessingError { .. }
            | ClosureReason::OutdatedChannelManager
            | ClosureReason::HTLCsTimedOut { .. }
            | ClosureReason::PeerFeerateTooLow { .. } => match self.sink.closed(channel).await {
                Err(Refusal::Later(_)) => self.again().map(|()| Handled::Node),
                // What the recorder has to tell of the same close waits until the channel is not set aside any more.
                Ok(()) | Err(_) => Ok(Handled::Node),
            },
            ClosureReason::FundingTimedOut
            | ClosureReason::DisconnectedPeer
            | ClosureReason::CounterpartyCoopClosedUnfundedChannel
            | ClosureReason::LocallyCoopClosedUnfundedChannel
            | ClosureReason::FundingBatchClosure => Ok(Handled::NeverFunded),
            // A block says it, or will.
            ClosureReason::LegacyCooperativeClosure
            | ClosureReason::CounterpartyInitiatedCooperativeClosure
            | ClosureReason::LocallyInitiatedCooperativeClosure
            | ClosureReason::CommitmentTxConfirmed => Ok(Handled::Node),
        }
    }
}

/// Whether it is the first funding output of a channel, which LDK names it by.
fn begins(channel: ChannelId, funding: &OutPoint) -> bool {
    let index = u16::try_from(funding.vout);
    let named = |index| {
        let first = LdkOutPoint { txid: funding.txid, index };
        LdkChannelId::v1_from_funding_outpoint(first).0 == channel.0
    };
    index.is_ok_and(named)
}

fn outpoint(descriptor: &SpendableOutputDescriptor) -> OutPoint {
    descriptor.spendable_outpoint().into_bitcoin_outpoint()
}

fn key(outpoint: OutPoint) -> String {
    format!("{}_{}", outpoint.txid, outpoint.vout)
}

fn encode(channel: Option<ChannelId>, descriptor: &SpendableOutputDescriptor) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(channel.map(|channel| channel.0).encode());
    bytes.extend(descriptor.encode());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let channel: Option<[u8; 32]> = Readable::read(&mut rest).ok()?;
    let descriptor = SpendableOutputDescriptor::read(&mut rest).ok()?;
    let channel = channel.map(ChannelId);
    rest.is_empty().then_some(Kept { channel, descriptor })
}
