//! The engine with its log, a chain, the peer, and the hands of a shell.
use arb_core::arbitrator::{BlockView, ChannelArbitrator, FailReason, HandedOut, Input, NoticeKey};
use arb_core::arbitrator::{Position, PreimageSource, Refusal};
use arb_core::claim::build::Draft;
use arb_core::claim::trough::Troughs;
use arb_core::engine::{Active, ChainArbitrator, EngineInput, Loaded, Task};
use arb_core::facts::{HtlcLink, Update};
use arb_core::format::sighash;
use arb_core::ids::{PerCommitmentSecret, Preimage, Side, Slot};
use arb_core::log::{Batch, BatchId, ChangeLog, Write};
use arb_core::memory::MemoryLog;
use arb_core::policy::Policy;
use arb_core::ports::{Coin, FeeEstimates, ScriptOwner, SignRequest};
use arb_core::units::{BlockRef, CommitmentNumber};
use arb_tests::peer::{self, Bundle, ClaimFee, ClosingStyle, Commitment, OutputRole, PeerCoin};
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::SecretKey;
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, FeeRate, OutPoint, Transaction, TxMerkleNode, TxOut,
    Weight, Witness,
};
use std::sync::Arc;

use super::chain::{Chain, Mined, label};
use super::story::{Close, Op, Story, Told, wallet_script};

/// The only channel.
pub(crate) const SLOT: Slot = Slot(0);

pub(crate) struct World {
    pub(crate) told: Told,
    pub(crate) chain: Chain,
    pub(crate) engine: ChainArbitrator,
    pub(crate) log: MemoryLog,
    /// What we published and no block holds.
    pub(crate) ours: Vec<Transaction>,
    /// Commitments that were in a block once.
    pub(crate) commitments: Vec<Commitment>,
    wallet: SecretKey,
    wallet_coins: Vec<OutPoint>,
    peer_coins: Vec<PeerCoin>,
    /// Numbers that the node's facts end at.
    local: u64,
    remote: u64,
}

pub(crate) fn estimates() -> FeeEstimates {
    let rate = |n| FeeRate::from_sat_per_vb_u32(n);
    FeeEstimates {
        targets: vec![(2, rate(12)), (6, rate(8)), (144, rate(2))],
        floor: FeeRate::BROADCAST_MIN,
        troughs: Troughs::default(),
    }
}

/// An engine as a restart finds it, not yet at the source's tip.
pub(crate) fn restart(log: &MemoryLog) -> ChainArbitrator {
    let mut engine = ChainArbitrator::new(Policy::default(), log.blocks().expect("memory"));
    engine.set_estimates(estimates());
    for channel in log.channels().expect("memory") {
        let facts = log.facts(channel.slot).expect("memory").expect("known").expect("memory");
        let changes = log.changes(channel.slot).expect("memory").expect("memory");
        let state = ChannelArbitrator::replay(&changes);
        engine.restore(channel.slot, Arc::from(facts), state);
    }
    engine
}

/// Stages, appends, commits.
pub(crate) fn step(engine: &mut ChainArbitrator, log: &mut MemoryLog, inputs: &[EngineInput]) {
    let mut loaded = Loaded::new();
    let transition = loop {
        match engine.stage(inputs, &loaded, &mut |_| ()) {
            Ok(transition) => break transition,
            Err(needed) => {
                for slot in needed.0 {
                    let facts = log.facts(slot).expect("memory").expect("known").expect("memory");
                    loaded.insert(slot, Arc::from(facts));
                }
            }
        }
    };
    if transition.is_empty() {
        engine.commit_empty(transition).map(|_| ()).expect("nothing to write");
        return;
    }
    let receipt = log.append(transition.batch().clone()).into_inner().expect("memory");
    let _ = engine.commit(transition, receipt).expect("its own receipt");
}

pub(crate) fn block_of(mined: &Mined) -> Block {
    let header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::from_consensus(0),
        nonce: 0,
    };
    Block { header, txdata: mined.transactions.clone() }
}

/// Connects a block by scanning it.
pub(crate) fn connect(
    engine: &mut ChainArbitrator,
    log: &mut MemoryLog,
    mined: &Mined,
    position: Position,
) {
    let touched = engine.scan(&block_of(mined)).touched;
    step(engine, log, &[EngineInput::Block { at: mined.at, touched, position }]);
}

pub(crate) fn channel_input(input: Input) -> EngineInput {
    EngineInput::Channel { slot: SLOT, input: Box::new(input) }
}

impl World {
    pub(crate) fn new(story: &Story) -> Self {
        let mut chain = Chain::new();
        let mut told = story.tell(|output| chain.endow(output));
        let wallet = SecretKey::from_slice(&label(9, 9)).expect("a key");
        let value = Amount::from_sat(200_000);
        let script_pubkey = wallet_script(&wallet, &told.secp);
        let coin = TxOut { value, script_pubkey };
        let wallet_coins = (0..6).map(|_| chain.endow(coin.clone())).collect();
        let mut peer_coins = Vec::new();
        for _ in 0..6 {
            let output = TxOut { value, script_pubkey: told.channel.peer_script() };
            peer_coins.push(told.channel.peer_coin(chain.endow(output), value));
        }
        let mut log = MemoryLog::new();
        let mut engine = ChainArbitrator::new(Policy::default(), vec![chain.tip()]);
        engine.set_estimates(estimates());
        let facts = Box::new(told.facts.clone());
        let watch = EngineInput::Watch { slot: SLOT, facts, history: Vec::new() };
        let begin =
            Batch { id: BatchId(u64::MAX), writes: vec![Write::BlockConnected(chain.tip())] };
        let _ = log.append(begin).into_inner().expect("memory");
        step(&mut engine, &mut log, &[watch]);
        let htlcs = std::mem::take(&mut told.ended);
        let ended = Write::EndedHtlcs { slot: SLOT, htlcs };
        let ended = Batch { id: BatchId(u64::MAX), writes: vec![ended] };
        let _ = log.append(ended).into_inner().expect("memory");
        step(&mut engine, &mut log, &[EngineInput::ReachedTip]);
        let candidate = &told.facts.candidates.current;
        let (local, remote) = (candidate.local.number.0, candidate.remote.number.0);
        Self {
            told,
            chain,
            engine,
            log,
            ours: Vec::new(),
            commitments: Vec::new(),
            wallet,
            wallet_coins,
            peer_coins,
            local,
            remote,
        }
    }

    /// The channel as the engine has it; `None` while it is quiet.
    pub(crate) fn active(&self) -> Option<&Active> {
        self.engine.active(SLOT)
    }

    pub(crate) fn input(&mut self, input: Input) {
        step(&mut self.engine, &mut self.log, &[channel_input(input)]);
    }

    /// Blocks that an op makes are handed to `each` before they are connected.
    pub(crate) fn apply(&mut self, op: Op, each: &mut dyn FnMut(&Self, &Mined)) {
        match op {
            Op::Mine(count) => {
                for number in 0..count {
                    // An empty block like those before it says nothing new.
                    let ends = number == 0 || number + 1 == count;
                    let each: &mut dyn FnMut(&Self, &Mined) =
                        if ends { &mut *each } else { &mut |_, _| {} };
                    self.connect(Vec::new(), each);
                }
            }
            Op::Block { close, peer, together, ours } => {
                let transactions = self.transactions(close, peer, together, ours);
                self.connect(transactions, each);
            }
            Op::Work { acknowledge } => self.work(acknowledge),
            Op::Reorg { depth, again } => self.reorg(depth, again, each),
            Op::Restart => {
                self.engine = restart(&self.log);
                step(&mut self.engine, &mut self.log, &[EngineInput::ReachedTip]);
            }
            Op::Preimage(hash) => self.preimage(hash),
            Op::Fail => self.input(Input::Fail(FailReason::Requested)),
            Op::Reject => {
                for tx in std::mem::take(&mut self.ours) {
                    self.input(Input::Rejected { txid: tx.compute_txid(), why: Refusal::Conflict });
                }
            }
            Op::Mempool(peer) => {
                for tx in self.transactions(None, peer, false, false) {
                    self.input(Input::SeenInMempool(Box::new(tx)));
                }
            }
            Op::Revoke => self.revoke(),
        }
    }

    fn connect(&mut self, transactions: Vec<Transaction>, each: &mut dyn FnMut(&Self, &Mined)) {
        let mined = self.chain.mine(transactions);
        each(self, &mined);
        connect(&mut self.engine, &mut self.log, &mined, Position::AtTip);
    }

    fn reorg(&mut self, depth: u8, again: bool, each: &mut dyn FnMut(&Self, &Mined)) {
        let (fork_point, taken) = self.chain.disconnect(usize::from(depth));
        step(&mut self.engine, &mut self.log, &[EngineInput::Disconnected { fork_point }]);
        for block in taken.iter().filter(|_| again) {
            let mut fits: Vec<Transaction> = Vec::new();
            for tx in &block.transactions {
                if self.chain.check(&fits, tx).is_ok() {
                    fits.push(tx.clone());
                }
            }
            self.connect(fits, each);
        }
    }

    /// What the next block holds.
    fn transactions(
        &mut self,
        close: Option<Close>,
        peer: u8,
        together: bool,
        ours: bool,
    ) -> Vec<Transaction> {
        let mut block = Vec::new();
        let mut take = |chain: &Chain, tx: &Transaction| {
            let fits = chain.check(&block, tx).is_ok();
            if fits {
                block.push(tx.clone());
            }
            fits
        };
        if let Some((tx, commitment)) = close.and_then(|close| self.close(close))
            && take(&self.chain, &tx)
        {
            self.commitments.extend(commitment);
        }
        // Who comes first gets the outputs.
        let mut all = Vec::new();
        let own = self.ours.clone();
        if ours {
            all.extend(own.iter().filter(|_| peer.is_multiple_of(2)).cloned());
        }
        let commitments = self.commitments.clone();
        for commitment in commitments.iter().rev() {
            all.extend(self.peer_claims(commitment, peer, together));
        }
        if ours {
            all.extend(own.iter().cloned());
        }
        for tx in &all {
            take(&self.chain, tx);
        }
        block
    }

    fn close(&mut self, close: Close) -> Option<(Transaction, Option<Commitment>)> {
        let channel = &mut self.told.channel;
        let number = |n: u8, below: u64| (below > 0).then(|| u64::from(n) % below);
        let commitment = match close {
            Close::Local => channel.local_commitment_at(self.local),
            Close::Remote => channel.remote_commitment(self.remote),
            Close::Next => channel.remote_commitment(self.remote + 1),
            Close::Revoked(n) => channel.remote_commitment(number(n, self.remote)?),
            Close::Outdated(n) => channel.local_commitment_at(number(n, self.local)?),
            Close::Newer => {
                channel.empty_updates(3).ok()?;
                channel.local_commitment_at(self.local + 3)
            }
            Close::Future => {
                channel.empty_updates(3).ok()?;
                channel.remote_commitment(self.remote + 3)
            }
            Close::Mutual => {
                let tx = channel.mutual_close(FeeRate::BROADCAST_MIN, ClosingStyle::Simple).ok()?;
                return Some((tx, None));
            }
            Close::Unknown => {
                return Some((channel.unknown_spend(FeeRate::BROADCAST_MIN).ok()?, None));
            }
        };
        let commitment = commitment.ok()?;
        Some((commitment.tx.clone(), Some(commitment)))
    }

    /// Whatever the peer can sign; the chain says what it may do.
    fn peer_claims(&self, commitment: &Commitment, peer: u8, together: bool) -> Vec<Transaction> {
        let channel = &self.told.channel;
        let fee = ClaimFee::from(FeeRate::BROADCAST_MIN);
        let htlcs = commitment.outputs.values().filter_map(|role| match role {
            OutputRole::Htlc { name, .. } => Some(name.as_str()),
            _ => None,
        });
        let chosen = |(index, _): &(usize, &str)| peer >> (index % 7) & 1 == 1;
        let names: Vec<&str> = htlcs.enumerate().filter(chosen).map(|(_, name)| name).collect();
        let bundle = if together { Bundle::Together } else { Bundle::Separate };
        let claims = channel.claim_htlcs(commitment, &names, bundle, fee, &self.peer_coins);
        let mut claims = claims.unwrap_or_default();
        if peer & 0x80 != 0 {
            let second: Vec<_> =
                claims.iter().flat_map(|c| c.second_level.values().cloned()).collect();
            for output in second {
                claims.extend(channel.claim_second_level(commitment, &[output], fee));
            }
            if commitment.owner == peer::Side::Remote {
                claims.extend(channel.claim_to_local(commitment, fee));
            } else {
                claims.extend(channel.claim_penalty(commitment, fee));
                claims.extend(channel.claim_to_remote(commitment, fee));
            }
        }
        claims.into_iter().map(|claim| claim.tx).collect()
    }

    /// The node learns a preimage, in the way that serves the first HTLC with that hash.
    fn preimage(&mut self, number: u8) {
        let facts = match self.active() {
            Some(active) => active.facts.clone(),
            None => Arc::new(self.told.facts.clone()),
        };
        let Some((id, record)) = facts.htlcs.iter().nth(number as usize % 8) else { return };
        let hash = record.htlc.hash;
        let preimages = (0..3).map(|n| Preimage(label(3, n)));
        let Some(preimage) = preimages.into_iter().find(|p| p.hash() == hash) else { return };
        let source = match record.htlc.link {
            HtlcLink::Final => PreimageSource::Node,
            HtlcLink::ForwardedTo { .. } => PreimageSource::Linked(*id),
            HtlcLink::OwnPayment | HtlcLink::ForwardOf { .. } => PreimageSource::Downstream(*id),
            HtlcLink::Uncommitted => return,
        };
        self.input(Input::Preimage { preimage, source });
    }

    fn revoke(&mut self) {
        let secret = self.told.channel.remote_secrets().commitment_secret(self.remote);
        let update = Update::RemoteRevoked {
            number: CommitmentNumber(self.remote),
            secret: PerCommitmentSecret(secret.expect("a secret").secret_bytes()),
        };
        let facts = self.log.facts(SLOT).expect("memory").expect("known").expect("memory");
        let facts = Arc::from(facts);
        if let Ok(updated) = self.engine.verify_updates(SLOT, &facts, &[update], &self.told.secp) {
            self.remote += 1;
            self.told.facts = (**updated.facts()).clone();
            let (updated, history) = (Box::new(updated), Vec::new());
            let input = EngineInput::Facts { slot: SLOT, updated, history };
            step(&mut self.engine, &mut self.log, &[input]);
        }
    }

    /// An engine and a log that know the blocks and no channel.
    pub(crate) fn without_channels(&self) -> (ChainArbitrator, MemoryLog) {
        let mut log = MemoryLog::new();
        let blocks = self.log.blocks().expect("memory");
        let writes = blocks.into_iter().map(Write::BlockConnected).collect();
        let batch = Batch { id: BatchId(u64::MAX), writes };
        let _ = log.append(batch).into_inner().expect("memory");
        (restart(&log), log)
    }

    /// The tasks of now, done in order; signing leads to publishing.
    pub(crate) fn work(&mut self, acknowledge: bool) {
        for _ in 0..3 {
            for task in self.engine.tasks(SLOT).into_values() {
                match task {
                    Task::Sign(draft) => {
                        if let Some(out) = self.sign(*draft) {
                            self.input(Input::Signed(Box::new(out)));
                        }
                    }
                    Task::Publish(package) => {
                        for tx in package.transactions {
                            let txid = tx.compute_txid();
                            if !self.ours.iter().any(|known| known.compute_txid() == txid) {
                                self.ours.push(tx);
                            }
                        }
                    }
                    Task::LoadRevokedHtlcs(number) => {
                        let htlcs = self.log.ended_htlcs(SLOT, number);
                        let htlcs = htlcs.expect("memory").expect("memory");
                        self.input(Input::RevokedHtlcsLoaded { number, htlcs });
                    }
                    Task::AskPoint(number) => {
                        let secrets = self.told.channel.local_secrets();
                        let secret = secrets.commitment_secret(number.0).expect("in range");
                        let point = secret.public_key(&self.told.secp);
                        self.input(Input::PointLearned { number, point });
                    }
                    Task::JudgeScripts(scripts) => {
                        let other = |script| (script, ScriptOwner::Other);
                        let verdicts = scripts.into_iter().map(other).collect();
                        self.input(Input::ScriptsJudged(verdicts));
                    }
                    Task::Notify(notice) if acknowledge => {
                        self.input(Input::NoticeAcknowledged(notice.key()));
                    }
                    Task::Notify(_) | Task::Forget => {}
                }
            }
        }
        // The newest first: a replacement takes the place of what it replaces.
        let coins = self.chain.coins(&[]);
        self.ours.retain(|tx| {
            let gone = |i: &bitcoin::TxIn| !coins.contains_key(&i.previous_output);
            !tx.input.iter().all(gone)
        });
        let mut ours = std::mem::take(&mut self.ours);
        ours.sort_by_key(|tx| std::cmp::Reverse(self.fee_of(tx)));
        self.ours = ours;
    }

    fn fee_of(&self, tx: &Transaction) -> Amount {
        let ours = self.active().and_then(|a| a.state.acts().ours(tx.compute_txid()));
        ours.map_or(Amount::ZERO, |out| out.fee)
    }

    /// Funds and signs; `None` where it would cost more than it brings.
    pub(crate) fn sign(&self, draft: Draft) -> Option<HandedOut> {
        let unspent = self.chain.coins(&[]);
        let script = wallet_script(&self.wallet, &self.told.secp);
        let value = Amount::from_sat(200_000);
        let mut coins = Vec::new();
        if draft.wants_coins() {
            let number = u64::from(draft.claim.outpoint.vout) as usize;
            let own = self.wallet_coins.get(number % self.wallet_coins.len())?;
            unspent.get(own)?;
            coins.push(Coin {
                outpoint: *own,
                output: TxOut { value, script_pubkey: script.clone() },
                satisfaction_weight: Weight::from_wu(109),
            });
        }
        let unsigned = draft.assemble(&coins, Some(script.clone())).ok()?;
        let sign = |request: SignRequest| {
            // incident attack-10
            // BOLT 3 H3: whatever the peer leaves open, we sign all of it.
            assert_eq!(request.sighash, EcdsaSighashType::All, "{:?}", request.key);
            let key = self.told.secrets.signing_key(&request.key, &self.told.secp).expect("a key");
            let spent = &request.prevouts[request.input];
            let message = sighash(
                &request.transaction,
                request.input,
                spent,
                request.script.as_deref(),
                request.sighash,
            );
            self.told.secp.sign_ecdsa(&message.expect("a sighash"), &key)
        };
        let signatures: Vec<_> = unsigned.requests().map(sign).collect();
        let mut tx = unsigned.signed(&signatures);
        let all = EcdsaSighashType::All;
        for input in tx.input.len() - unsigned.coins.len()..tx.input.len() {
            let prevout = &unsigned.prevouts[input];
            let message = sighash(&unsigned.transaction, input, prevout, None, all);
            let signature = self.told.secp.sign_ecdsa(&message.expect("a sighash"), &self.wallet);
            let signature = bitcoin::ecdsa::Signature { signature, sighash_type: all };
            let public = self.wallet.public_key(&self.told.secp);
            tx.input[input].witness = Witness::p2wpkh(&signature, &public);
        }
        unsigned.handed_out(&tx, self.engine.height()).into_values().next()
    }

    /// Whether the peer has shown the preimage of an HTLC that we offered, in a block.
    pub(crate) fn shown(&self, preimage: &Preimage) -> bool {
        let shows = |tx: &Transaction| {
            let elements = tx.input.iter().flat_map(|i| i.witness.iter());
            elements.into_iter().any(|element| element == preimage.0)
        };
        let commitments = self.commitments.iter().flat_map(|c| {
            let txid = c.txid();
            (0..c.tx.output.len() as u32).map(move |vout| OutPoint { txid, vout })
        });
        commitments.filter_map(|o| self.chain.spender(o)).any(shows)
    }
}

pub(crate) fn view(at: BlockRef, transactions: Vec<Transaction>) -> Input {
    Input::BlockConnected(BlockView { at, transactions })
}

/// A block as a rescan finds it.
pub(crate) fn view_of(mined: &Mined) -> BlockView {
    BlockView { at: mined.at, transactions: mined.transactions.clone() }
}

pub(crate) fn is_upstream(key: &NoticeKey) -> bool {
    matches!(key, NoticeKey::Upstream(duty) if duty.htlc.offerer == Side::Local)
}
