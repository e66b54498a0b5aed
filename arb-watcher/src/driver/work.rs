//! Work outside the driver's task: looking at the source, funding, signing, publishing, rescans.
//! Outcomes come back as inputs; one that panics or does not come back in time has failed.
use super::chain::{Asked, FollowError, Found};
use super::isolate::{Signed, Spoiler, sign};
use super::lanes::Lane;
use super::mempool::MempoolSlice;
use super::panics::Caught;
use super::rescan::Watching;
use super::scan::Scanned;
use super::{Around, Driver, measure};
use crate::scripts::ScriptsPort;
use arb_core::arbitrator::{HandedOut, Input, Refusal};
use arb_core::engine::{EngineInput, Task, TaskKey};
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{Batch, ChangeLog, Remedy};
use arb_core::ports::{Broadcast, PointRequest, ScriptOwner, Signer, Verdict};
use arb_core::units::{BlockRef, CommitmentNumber};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use futures_util::future::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

/// Most outcomes that become durable together.
const TOGETHER: usize = 256;

/// What a worker brings back.
pub(super) enum Outcome {
    Looked(Result<Found, FollowError>),
    Mempool(Result<MempoolSlice, FollowError>),
    Fees(Asked),
    /// Whose the scripts are that a transaction of the mempool pays, which may be a mutual close.
    SeenClose(Box<SeenClose>),
    Done(Box<Attempt>, Done),
    /// The past of some channels was scanned, and that of others is to be scanned on.
    Scanned {
        lane: Lane,
        done: Vec<Scanned>,
        rest: Vec<Watching>,
    },
    Released {
        slot: Slot,
        claim: OutPoint,
        result: Result<(), String>,
    },
    /// The coins of a transaction were to be reserved again.
    Reserved {
        slot: Slot,
        claim: OutPoint,
        result: Result<(), String>,
    },
    /// The job panicked.
    Panicked(Job),
}

/// Scripts and whose they are.
pub(super) type Verdicts = Vec<(ScriptBuf, ScriptOwner)>;

/// A transaction of the mempool that may be the mutual close of these channels.
pub(super) struct SeenClose {
    pub(super) slots: BTreeSet<Slot>,
    pub(super) tx: Transaction,
    pub(super) verdicts: Result<Verdicts, String>,
}

/// What became of a task.
pub(super) enum Done {
    Signed(BTreeMap<ChannelId, HandedOut>),
    Spoilt(Vec<Spoiler>),
    Published(Vec<(Txid, Verdict)>),
    Judged(Verdicts),
    /// What the signer says of a per-commitment point, if it can.
    Pointed(Option<(CommitmentNumber, PublicKey)>),
    Failed(Failed),
}

/// Why a task is to be tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The signer did not sign.
    #[error("signer: {}", .0.why)]
    Signer(SignerFailed),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A signer did not sign.
#[derive(Debug)]
pub(super) struct SignerFailed {
    /// The channels, of those that share the transaction.
    pub(super) channels: BTreeSet<ChannelId>,
    /// What the first of them says.
    pub(super) why: String,
}

impl Failed {
    pub(super) fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }
}

/// A task that is or was under way, and the tip at which it began.
#[derive(Clone)]
pub(super) struct Attempt {
    pub(super) slot: Slot,
    pub(super) key: TaskKey,
    pub(super) task: Task,
    pub(super) tip: Option<BlockRef>,
}

/// What a worker does, in case that it panics.
#[derive(Clone)]
pub(super) enum Job {
    Look,
    Mempool,
    Fees,
    Task(Box<Attempt>),
    Rescan(Lane, Vec<ChannelId>),
    SeenClose(Txid),
    Other,
}

/// The workers, and what each does.
#[derive(Default)]
pub(super) struct Workers {
    set: JoinSet<Outcome>,
    jobs: HashMap<Id, Job>,
}

impl Workers {
    pub(super) fn spawn(&mut self, job: Job, work: impl Future<Output = Outcome> + Send + 'static) {
        let id = self.set.spawn(work).id();
        self.jobs.insert(id, job);
    }

    /// The next outcome; `None` if nobody works.
    pub(super) async fn next(&mut self) -> Option<Outcome> {
        let joined = self.set.join_next_with_id().await?;
        Some(self.outcome(joined))
    }

    /// An outcome that is there already.
    pub(super) fn ready(&mut self) -> Option<Outcome> {
        let joined = self.set.try_join_next_with_id()?;
        Some(self.outcome(joined))
    }

    fn outcome(&mut self, joined: Result<(Id, Outcome), JoinError>) -> Outcome {
        match joined {
            Ok((id, outcome)) => {
                self.jobs.remove(&id);
                outcome
            }
            Err(error) => {
                tracing::error!(%error, "a worker ended");
                Outcome::Panicked(self.jobs.remove(&error.id()).unwrap_or(Job::Other))
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    pub(super) fn abort(&mut self) {
        self.set.abort_all();
    }
}

/// How an append of facts ended.
pub(super) struct Stored {
    pub(super) slot: Slot,
    pub(super) number: u64,
    pub(super) result: Result<(), NotStored>,
}

/// Why facts were not stored, and what to do about it.
pub(super) struct NotStored {
    pub(super) why: String,
    pub(super) remedy: Remedy,
}

/// Appends of facts that are still to be asked for, with what they are known by. The store is asked for
/// those of several commands at once: to wake it costs more than to prepare them.
pub(super) type Unsent = Vec<((Slot, u64), Batch)>;

/// Appends that do not pass through the engine. The driver itself waits for them: a task for each would be one
/// more that is woken.
#[derive(Default)]
pub(super) struct Appends(FuturesUnordered<Pin<Box<dyn Future<Output = Stored> + Send>>>);

impl Appends {
    pub(super) fn start(
        &mut self,
        (slot, number): (Slot, u64),
        append: impl Future<Output = Result<(), NotStored>> + Send + 'static,
    ) {
        self.0.push(Box::pin(async move {
            let result = Caught::new(append).await.unwrap_or_else(|what| {
                // What it left behind nobody knows.
                let why = format!("the store panicked: {what}");
                Err(NotStored { why, remedy: Remedy::Reopen })
            });
            Stored { slot, number, result }
        }));
    }

    /// The next that ended; `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<Stored> {
        self.0.next().await
    }

    /// One that has ended already.
    pub(super) fn ready(&mut self) -> Option<Stored> {
        self.next().now_or_never().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<A: Around> Driver<A> {
    /// Sends a worker to sign or publish.
    pub(super) fn start(&mut self, slot: Slot, key: TaskKey, task: Task) {
        let (ports, patience) = (self.ports.clone(), self.settings.patience);
        let attempt = Attempt { slot, key, task, tip: self.engine.tip() };
        let job = Job::Task(Box::new(attempt.clone()));
        let span = self.channel_span(slot, &attempt.task);
        let height = self.engine.height();
        match &attempt.task {
            Task::Sign(draft) => {
                let draft = (**draft).clone();
                let place = draft.wants_coins().then(|| {
                    let (slot, claim) = self.coins_of(slot, &draft);
                    self.tasks.fund(slot, claim);
                    self.line.join()
                });
                let work = async move {
                    let signed = sign(&ports, draft, place, height, patience).await;
                    let done = match signed {
                        Ok(Signed::Whole(all)) => Done::Signed(all),
                        Ok(Signed::Spoilt(spoilers)) => Done::Spoilt(spoilers),
                        Err(failed) => Done::Failed(failed),
                    };
                    Outcome::Done(Box::new(attempt), done)
                };
                self.workers.spawn(job, work.instrument(span));
            }
            Task::Publish(package) => {
                let package = package.clone();
                let work = async move {
                    let done = match timeout(patience, ports.broadcast.broadcast(package)).await {
                        Ok(Ok(verdicts)) => Done::Published(verdicts),
                        Ok(Err(error)) => Done::Failed(Failed::other(error)),
                        Err(_) => Done::Failed(Failed::other("no answer in time")),
                    };
                    Outcome::Done(Box::new(attempt), done)
                };
                self.workers.spawn(job, work.instrument(span));
            }
            Task::JudgeScripts(scripts) => {
                let scripts = scripts.clone();
                let work = async move {
                    let done = match judge(&ports.scripts, scripts, patience).await {
                        Ok(verdicts) => Done::Judged(verdicts),
                        Err(why) => Done::Failed(Failed::Other(why)),
                    };
                    Outcome::Done(Box::new(attempt), done)
                };
                self.workers.spawn(job, work.instrument(span));
            }
            Task::AskPoint(number) => {
                let (number, channel) = (*number, self.id_of(slot));
                let work = async move {
                    let said = match channel {
                        Some(channel) => {
                            let request = PointRequest { channel, number };
                            answer(patience, ports.signer.point(request)).await
                        }
                        None => Ok(None),
                    };
                    let done = match said {
                        Ok(point) => Done::Pointed(point.map(|point| (number, point))),
                        Err(why) => Done::Failed(Failed::Other(why)),
                    };
                    Outcome::Done(Box::new(attempt), done)
                };
                self.workers.spawn(job, work.instrument(span));
            }
            // They need no worker.
            Task::LoadRevokedHtlcs(_) | Task::Notify(_) | Task::Forget => {}
        }
    }

    /// Takes what has come back by now. What was signed meanwhile becomes durable together.
    pub(super) async fn on_outcomes(&mut self, first: Outcome) {
        let (mut inputs, mut others) = (Vec::new(), Vec::new());
        let mut next = Some(first);
        while let Some(outcome) = next {
            let (attempt, done) = match outcome {
                Outcome::Done(attempt, done) => (*attempt, done),
                Outcome::Panicked(Job::Task(attempt)) => {
                    let failed = match attempt.task {
                        Task::Sign(ref draft) => Failed::Signer(SignerFailed {
                            channels: draft.claims().map(|claim| claim.channel).collect(),
                            why: "the worker panicked".to_owned(),
                        }),
                        _ => Failed::Other("the worker panicked".to_owned()),
                    };
                    (*attempt, Done::Failed(failed))
                }
                other => {
                    others.push(other);
                    next = self.workers.ready();
                    continue;
                }
            };
            let published = matches!(done, Done::Published(_));
            let told = self.on_done(attempt, done);
            // What the network refuses changes what is wanted of that which was signed meanwhile.
            let refused = published && !told.is_empty();
            inputs.extend(told);
            if refused && self.step(std::mem::take(&mut inputs)).await.is_err() {
                return;
            }
            next = if inputs.len() < TOGETHER { self.workers.ready() } else { None };
        }
        if !inputs.is_empty() {
            // An error: the driver is to end.
            let _ = self.step(inputs).await;
        }
        for outcome in others {
            self.on_outcome(outcome).await;
        }
    }

    async fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Looked(found) => self.on_looked(found).await,
            Outcome::Mempool(found) => self.on_mempool(found).await,
            Outcome::Fees(fees) => self.on_late_fees(fees),
            Outcome::SeenClose(seen) => self.on_seen_close(*seen).await,
            Outcome::Scanned { lane, done, rest } => self.on_scanned(lane, done, rest).await,
            Outcome::Released { slot, claim, result } => self.on_released(slot, claim, result),
            Outcome::Reserved { slot, claim, result } => self.on_reserved(slot, claim, &result),
            Outcome::Panicked(Job::Look) => self.on_looked(Err(FollowError::Panicked)).await,
            Outcome::Panicked(Job::Mempool) => self.on_mempool(Err(FollowError::Panicked)).await,
            Outcome::Panicked(Job::Fees) => self.on_late_fees(Asked::Late),
            Outcome::Panicked(Job::SeenClose(txid)) => self.chain.mempool.unseen(&txid),
            Outcome::Panicked(Job::Rescan(lane, ids)) => self.on_scan_panicked(lane, ids),
            Outcome::Panicked(Job::Other | Job::Task(_)) | Outcome::Done(..) => {}
        }
    }

    /// What failed is tried again after a pause, and at the next block; what a new fact or feerate
    /// changed, at once.
    /// Gives what the engine is to be told.
    fn on_done(&mut self, attempt: Attempt, done: Done) -> Vec<EngineInput> {
        let Attempt { slot, key, task, tip } = attempt;
        let name = measure::task(&task);
        if matches!(done, Done::Signed(_)) && !self.tasks.wants(slot, &key, &task) {
            // Its claims are made in other company by now: nobody has seen it, nobody shall.
            tracing::debug!(slot = slot.0, "signed too late");
            self.tasks.dropped(slot, &key);
            self.may_have_coins(slot, &task);
            return Vec::new();
        }
        self.tasks.ended(slot, key.clone(), task.clone(), tip);
        if !matches!(done, Done::Signed(_)) {
            self.may_have_coins(slot, &task);
        }
        if let Task::Sign(draft) = &task {
            self.on_asked_signer(draft, tip, &done);
            if matches!(done, Done::Failed(Failed::Signer(_))) {
                self.not_signed(slot, draft);
            }
        }
        let inputs = match done {
            Done::Signed(all) => return self.on_signed(all),
            Done::Spoilt(spoilers) => return self.on_spoilt(spoilers),
            Done::Published(verdicts) => {
                self.tasks.heard(slot, key);
                return self.on_verdicts(slot, verdicts);
            }
            Done::Judged(verdicts) => vec![Input::ScriptsJudged(verdicts)],
            Done::Pointed(said) => {
                let learned = |(number, point)| Input::PointLearned { number, point };
                said.map(learned).into_iter().collect()
            }
            Done::Failed(why) => {
                tracing::warn!(slot = slot.0, task = name, %why, "tried again later");
                measure::failed(name);
                self.tasks.failed(slot, &key, Instant::now());
                return self.on_unheard(slot, &key, &task);
            }
        };
        let input = |input| EngineInput::Channel { slot, input: Box::new(input) };
        inputs.into_iter().map(input).collect()
    }

    /// Of what came to nothing coins may be reserved, perhaps after they were released: that goes the way of all
    /// that is not wanted.
    fn may_have_coins(&mut self, slot: Slot, task: &Task) {
        if let Task::Sign(draft) = task
            && draft.wants_coins()
        {
            let (slot, claim) = self.coins_of(slot, draft);
            self.tasks.fund(slot, claim);
            self.release_coins(slot);
        }
    }

    /// It goes into the log of each channel that it claims from, in one batch.
    fn on_signed(&self, all: BTreeMap<ChannelId, HandedOut>) -> Vec<EngineInput> {
        if let Some(out) = all.values().next() {
            measure::handed_out(out.kind);
        }
        let input = |(id, out)| {
            let input = Box::new(Input::Signed(Box::new(out)));
            Some(EngineInput::Channel { slot: self.engine.slot(&id)?, input })
        };
        all.into_iter().filter_map(input).collect()
    }

    /// From now on they are made by themselves, and the others without them.
    fn on_spoilt(&self, spoilers: Vec<Spoiler>) -> Vec<EngineInput> {
        let input = |Spoiler { channel, outpoint, why }| {
            tracing::warn!(%channel, %outpoint, why, "set aside");
            let input = Box::new(Input::SetAside { outpoint, why });
            Some(EngineInput::Channel { slot: self.engine.slot(&channel)?, input })
        };
        spoilers.into_iter().filter_map(input).collect()
    }

    /// What the network refused, for each channel whose transaction it is.
    fn on_verdicts(&mut self, slot: Slot, verdicts: Vec<(Txid, Verdict)>) -> Vec<EngineInput> {
        self.handed_over(slot, verdicts.iter().map(|(txid, _)| *txid));
        let mut told: Vec<(Txid, Option<Refusal>)> = Vec::new();
        for (txid, verdict) in verdicts {
            match verdict {
                Verdict::Accepted | Verdict::HandedOver => {
                    told.push((txid, None));
                    if self.tasks.is_accepted(txid) {
                        self.taken_apart(slot, txid);
                    }
                }
                Verdict::Known => told.push((txid, None)),
                Verdict::FeeTooLow(why) => {
                    tracing::info!(%txid, why, "outbid");
                    told.push((txid, Some(Refusal::Fee)));
                    if self.tasks.is_outbid(txid) {
                        self.taken_apart(slot, txid);
                    }
                }
                Verdict::Conflict(why) => {
                    tracing::info!(%txid, why, "conflicting");
                    told.push((txid, Some(Refusal::Conflict)));
                    // What it conflicts with may be in the mempool.
                    self.chain.rung();
                }
                Verdict::NotFinal(why) => tracing::warn!(%txid, why, "not final"),
                Verdict::Refused(why) => {
                    tracing::warn!(%txid, why, "refused");
                    told.push((txid, Some(Refusal::Invalid)));
                }
            }
        }
        let doubted = |slot: &Slot, txid| {
            self.engine.active(*slot).is_some_and(|active| active.state.acts().is_doubted(txid))
        };
        let told = told.into_iter().flat_map(|(txid, why)| {
            let owners = self.engine.owners_of(slot, txid).into_iter();
            let concerned = owners.filter(move |slot| why.is_some() || doubted(slot, txid));
            concerned.map(move |slot| {
                let input = Box::new(match why {
                    Some(why) => Input::Rejected { txid, why },
                    None => Input::Accepted { txid },
                });
                EngineInput::Channel { slot, input }
            })
        });
        told.collect()
    }

    /// What the network could not be asked to take may be nowhere. Of a package that is what pays: the last.
    fn on_unheard(&self, slot: Slot, key: &TaskKey, task: &Task) -> Vec<EngineInput> {
        let Task::Publish(package) = task else { return Vec::new() };
        let last = package.transactions.last().map(Transaction::compute_txid);
        let is_nowhere =
            |txid: &Txid| !self.tasks.is_heard(slot, key) && !self.tasks.is_in_mempool(txid);
        let Some(txid) = last.filter(is_nowhere) else { return Vec::new() };
        let is_new = |slot: &Slot| {
            self.engine.active(*slot).is_some_and(|active| !active.state.acts().is_doubted(txid))
        };
        let owners = self.engine.owners_of(slot, txid).into_iter().filter(is_new);
        owners
            .map(|slot| EngineInput::Channel { slot, input: Box::new(Input::Unheard { txid }) })
            .collect()
    }

    /// Whatever was one transaction with this one may have been handed over too early.
    fn taken_apart(&mut self, slot: Slot, txid: Txid) {
        let mut all = self.engine.taken_apart_with(slot, txid);
        all.insert(txid);
        self.tasks.taken_apart(&all);
    }

    async fn channel_input(&mut self, slot: Slot, input: Input) -> Result<(), crate::CommandError> {
        self.step(vec![EngineInput::Channel { slot, input: Box::new(input) }]).await
    }

    /// Penalty data of a revoked commitment, from the store.
    pub(super) async fn load_revoked(&mut self, slot: Slot, number: CommitmentNumber) {
        let why = match self.log.ended_htlcs(slot, number) {
            Ok(Ok(htlcs)) => {
                self.penalty_data(slot, number, true);
                let input = Input::RevokedHtlcsLoaded { number, htlcs };
                // An error: the driver is to end.
                let _ = self.channel_input(slot, input).await;
                return;
            }
            Ok(Err(damaged)) => damaged.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(slot = slot.0, why, "penalty data cannot be read");
        self.penalty_data(slot, number, false);
    }
}

/// What a port answers, if it does so in time.
pub(super) async fn answer<T, E: std::error::Error>(
    patience: Duration,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match timeout(patience, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Whose these scripts are, if the node says so in time.
pub(super) async fn judge(
    port: &ScriptsPort,
    scripts: Vec<ScriptBuf>,
    patience: Duration,
) -> Result<Verdicts, String> {
    let judged = timeout(patience, port.judge(scripts)).await;
    judged.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}
