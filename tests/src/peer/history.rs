//! The off-chain history: what each numbered commitment of either side holds.
//!
//! A commitment is remembered as its HTLC set, balances and feerate, shared between equal
//! neighbours; transactions and signatures are made from that when they are asked for. So old
//! states stay publishable, and a thousand empty updates cost next to nothing.

use std::sync::Arc;

use super::facts::Step;
use super::{
    Balances, Channel, ChannelParams, Format, HtlcRef, PeerError, Removal, Side, Staging,
    payment_hash,
};

/// Block heights end here, BIP 65.
const LOCKTIME_THRESHOLD: u32 = 500_000_000;

/// An HTLC to be offered by either side.
#[derive(Clone, Debug)]
pub struct NewHtlc {
    /// Unique within the channel.
    pub name: String,
    pub amount_msat: u64,
    /// Absolute height.
    pub cltv_expiry: u32,
    pub preimage: [u8; 32],
}

/// An HTLC of the channel's history, pending or not.
#[derive(Clone, Debug)]
pub struct Htlc {
    pub name: String,
    pub htlc: HtlcRef,
    pub amount_msat: u64,
    /// Absolute height.
    pub cltv_expiry: u32,
    pub preimage: [u8; 32],
    /// The hash that the preimage answers.
    pub payment_hash: [u8; 32],
}

impl Htlc {
    /// The amount of its output: BOLT 3 rounds down.
    pub(super) fn amount_sat(&self) -> u64 {
        self.amount_msat / 1000
    }
}

/// An HTLC that reaches only the next commitment.
#[derive(Clone, Debug)]
pub enum Staged {
    Offer(NewHtlc),
    Receive(NewHtlc),
}

/// What one commitment holds.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Positions in [`History::htlcs`], in the order of their statements.
    pub(super) htlcs: Vec<usize>,
    pub(super) balances: Balances,
    pub(super) feerate_per_kw: u32,
}

#[derive(Clone)]
pub(super) struct History {
    pub(super) htlcs: Vec<Htlc>,
    pub(super) steps: Vec<Step>,
    /// By commitment number.
    local: Vec<Arc<State>>,
    /// By commitment number; the last one is unrevoked and not yet current if `staged`.
    remote: Vec<Arc<State>>,
    staged: bool,
    next_local_id: u64,
    next_remote_id: u64,
}

impl History {
    pub(super) fn new(params: &ChannelParams) -> Result<Self, PeerError> {
        let msat = |sat: u64| sat.checked_mul(1000).ok_or(PeerError::AmountOverflow);
        let local_msat = msat(params.local_balance.to_sat())?;
        let remote_msat = msat(params.capacity.to_sat())?
            .checked_sub(local_msat)
            .ok_or(PeerError::AmountOverflow)?;
        let opening = Arc::new(State {
            htlcs: Vec::new(),
            balances: Balances { local_msat, remote_msat },
            feerate_per_kw: params.feerate_per_kw,
        });
        Ok(Self {
            htlcs: Vec::new(),
            steps: vec![Step::Remote(0), Step::Local(0)],
            local: vec![Arc::clone(&opening)],
            remote: vec![opening],
            staged: false,
            next_local_id: 0,
            next_remote_id: 0,
        })
    }
}

impl History {
    /// What the peer has in the newest commitment of either side, the least of both.
    pub(super) fn newest_of_remote(&self) -> Option<u64> {
        let newest = self.local.last().into_iter().chain(self.remote.last());
        newest.map(|state| state.balances.remote_msat).min()
    }

    /// Adds to the peer's balance in every commitment. One that had too little has nothing: it was
    /// there before the splice.
    pub(super) fn add_to_remote(&mut self, msat: i64) {
        for state in self.local.iter_mut().chain(&mut self.remote) {
            let state = Arc::make_mut(state);
            let balance = &mut state.balances.remote_msat;
            *balance = balance.saturating_add_signed(msat);
        }
    }
}

impl State {
    fn balance(&mut self, side: Side) -> &mut u64 {
        match side {
            Side::Local => &mut self.balances.local_msat,
            Side::Remote => &mut self.balances.remote_msat,
        }
    }

    fn hold(&mut self, at: usize, htlc: &Htlc) -> Result<(), PeerError> {
        let side = htlc.htlc.offerer;
        let balance = self.balance(side);
        *balance = balance.checked_sub(htlc.amount_msat).ok_or_else(|| {
            PeerError::InsufficientBalance {
                side,
                name: htlc.name.clone(),
                balance_msat: *balance,
                amount_msat: htlc.amount_msat,
            }
        })?;
        self.htlcs.push(at);
        Ok(())
    }

    fn release(&mut self, at: usize, htlc: &Htlc, removal: Removal) -> Result<(), PeerError> {
        let position = (self.htlcs.iter().position(|held| *held == at))
            .ok_or_else(|| PeerError::HtlcNotPending(htlc.name.clone()))?;
        self.htlcs.remove(position);
        let to = match removal {
            Removal::Fulfilled { .. } => htlc.htlc.offerer.other(),
            Removal::Failed => htlc.htlc.offerer,
        };
        let balance = self.balance(to);
        *balance = balance.checked_add(htlc.amount_msat).ok_or(PeerError::AmountOverflow)?;
        Ok(())
    }
}

impl Channel {
    /// We offer an HTLC.
    pub fn offer(&mut self, htlc: NewHtlc) -> Result<HtlcRef, PeerError> {
        self.add(Side::Local, htlc)
    }

    /// The peer offers an HTLC.
    pub fn receive(&mut self, htlc: NewHtlc) -> Result<HtlcRef, PeerError> {
        self.add(Side::Remote, htlc)
    }

    /// An HTLC is fulfilled off-chain.
    pub fn settle(&mut self, name: &str) -> Result<(), PeerError> {
        let preimage = self.htlc(name)?.preimage;
        self.remove(name, Removal::Fulfilled { preimage })
    }

    /// An HTLC is failed off-chain.
    pub fn cancel(&mut self, name: &str) -> Result<(), PeerError> {
        self.remove(name, Removal::Failed)
    }

    /// HTLCs of one offerer that go with one commitment.
    pub fn remove_together(&mut self, names: &[(String, Removal)]) -> Result<(), PeerError> {
        self.check_unstaged()?;
        let mut next = State::clone(&self.current());
        let mut removed = Vec::new();
        for (name, removal) in names {
            let at = self.position(name)?;
            next.release(at, self.htlc_at(at), *removal)?;
            removed.push((at, *removal));
        }
        let Some((first, _)) = removed.first() else { return Err(PeerError::EmptyBatch) };
        let remover = self.htlc_at(*first).htlc.offerer.other();
        self.advance(Arc::new(next), remover);
        self.history.steps.extend(removed.into_iter().map(|(at, by)| Step::Remove(at, by)));
        Ok(())
    }

    /// Whether an HTLC is in the state that both sides have agreed on.
    pub fn is_pending(&self, name: &str) -> bool {
        self.position(name).is_ok_and(|at| self.current().htlcs.contains(&at))
    }

    /// `count` new commitments on both sides that hold what the current ones hold.
    pub fn empty_updates(&mut self, count: u64) -> Result<(), PeerError> {
        self.check_unstaged()?;
        let state = self.current();
        for _ in 0..count {
            self.advance(Arc::clone(&state), self.params.opener);
        }
        Ok(())
    }

    /// A new feerate for both sides' commitments, in sat per 1000 weight units.
    pub fn update_fee(&mut self, feerate_per_kw: u32) -> Result<(), PeerError> {
        self.check_unstaged()?;
        if self.params.format == Format::ZeroFee {
            return Err(PeerError::NoUpdateFee);
        }
        let mut next = State::clone(&self.current());
        next.feerate_per_kw = feerate_per_kw;
        self.advance(Arc::new(next), self.params.opener);
        Ok(())
    }

    /// HTLCs that reach only the peer's next commitment, which stays unrevoked. Those that the
    /// peer offers are in a new current commitment of ours as well: the peer signed that first,
    /// and ours are not in it because the peer has not revoked for them.
    pub fn stage(&mut self, batch: Vec<Staged>) -> Result<Vec<HtlcRef>, PeerError> {
        self.check_unstaged()?;
        if batch.is_empty() {
            return Err(PeerError::EmptyBatch);
        }
        let mut ours = State::clone(&self.current());
        let mut theirs = ours.clone();
        let mut pending = Vec::new();
        for staged in batch {
            let (offerer, new) = match staged {
                Staged::Offer(new) => (Side::Local, new),
                Staged::Receive(new) => (Side::Remote, new),
            };
            let (at, htlc) = self.prepare(offerer, new, &pending)?;
            theirs.hold(at, &htlc)?;
            if offerer == Side::Remote {
                ours.hold(at, &htlc)?;
            }
            pending.push(htlc);
        }
        let refs = pending.iter().map(|htlc| htlc.htlc).collect();
        let received = pending.iter().any(|htlc| htlc.htlc.offerer == Side::Remote);
        for htlc in pending {
            self.record(htlc, Staging::Next);
        }
        if received {
            self.history.local.push(Arc::new(ours));
            self.history.steps.push(Step::Local(self.local_number()));
        }
        self.history.remote.push(Arc::new(theirs));
        self.history.staged = true;
        self.history.steps.push(Step::Remote(self.remote_number() + 1));
        Ok(refs)
    }

    /// Both sides name their shutdown scripts.
    pub fn shutdown(&mut self) -> Result<(), PeerError> {
        self.check_unstaged()?;
        self.history.steps.push(Step::Shutdown);
        Ok(())
    }

    /// The number of our current commitment.
    pub fn local_number(&self) -> u64 {
        (self.history.local.len() - 1) as u64
    }

    /// The number of the peer's current commitment; all below are revoked.
    pub fn remote_number(&self) -> u64 {
        let beyond = if self.history.staged { 2 } else { 1 };
        (self.history.remote.len() - beyond) as u64
    }

    /// The number of the peer's next commitment, if we signed one that it has not made current.
    pub fn remote_next_number(&self) -> Option<u64> {
        self.history.staged.then(|| self.remote_number() + 1)
    }

    /// An HTLC by its name.
    pub fn htlc(&self, name: &str) -> Result<&Htlc, PeerError> {
        (self.history.htlcs.iter().find(|htlc| htlc.name == name))
            .ok_or_else(|| PeerError::UnknownHtlc(name.to_owned()))
    }

    /// All HTLCs of the history, in the order of their statements.
    pub fn htlcs(&self) -> &[Htlc] {
        &self.history.htlcs
    }

    /// What the sides own beside the pending HTLCs, by the peer's current commitment.
    pub fn balances(&self) -> Balances {
        self.current().balances
    }

    pub(super) fn htlc_at(&self, at: usize) -> &Htlc {
        &self.history.htlcs[at]
    }

    pub(super) fn state(&self, owner: Side, number: u64) -> Result<&State, PeerError> {
        let states = match owner {
            Side::Local => &self.history.local,
            Side::Remote => &self.history.remote,
        };
        usize::try_from(number)
            .ok()
            .and_then(|at| states.get(at))
            .map(Arc::as_ref)
            .ok_or(PeerError::NoSuchCommitment { owner, number })
    }

    /// The state that both sides have agreed on.
    pub(super) fn current(&self) -> Arc<State> {
        Arc::clone(&self.history.remote[self.remote_number() as usize])
    }

    fn check_unstaged(&self) -> Result<(), PeerError> {
        if self.history.staged { Err(PeerError::CommitmentStaged) } else { Ok(()) }
    }

    fn add(&mut self, offerer: Side, new: NewHtlc) -> Result<HtlcRef, PeerError> {
        self.check_unstaged()?;
        let (at, htlc) = self.prepare(offerer, new, &[])?;
        let mut next = State::clone(&self.current());
        next.hold(at, &htlc)?;
        let id = htlc.htlc;
        self.record(htlc, Staging::Irrevocable);
        self.advance(Arc::new(next), offerer);
        Ok(id)
    }

    fn remove(&mut self, name: &str, removal: Removal) -> Result<(), PeerError> {
        self.remove_together(&[(name.to_owned(), removal)])
    }

    fn position(&self, name: &str) -> Result<usize, PeerError> {
        (self.history.htlcs.iter().position(|htlc| htlc.name == name))
            .ok_or_else(|| PeerError::UnknownHtlc(name.to_owned()))
    }

    /// Gives a new HTLC its place and id, behind `pending` ones of the same batch.
    fn prepare(
        &self,
        offerer: Side,
        new: NewHtlc,
        pending: &[Htlc],
    ) -> Result<(usize, Htlc), PeerError> {
        let bad = |name: String, field| Err(PeerError::BadHtlc { name, field });
        if self.history.htlcs.iter().chain(pending).any(|htlc| htlc.name == new.name) {
            return Err(PeerError::DuplicateHtlc(new.name));
        }
        if new.amount_msat == 0 {
            return bad(new.name, "amount");
        }
        if new.cltv_expiry == 0 || new.cltv_expiry >= LOCKTIME_THRESHOLD {
            return bad(new.name, "expiry");
        }
        let first = match offerer {
            Side::Local => self.history.next_local_id,
            Side::Remote => self.history.next_remote_id,
        };
        let before = pending.iter().filter(|htlc| htlc.htlc.offerer == offerer).count();
        let htlc = Htlc {
            name: new.name,
            htlc: HtlcRef { offerer, id: first + before as u64 },
            amount_msat: new.amount_msat,
            cltv_expiry: new.cltv_expiry,
            preimage: new.preimage,
            payment_hash: payment_hash(&new.preimage),
        };
        Ok((self.history.htlcs.len() + pending.len(), htlc))
    }

    fn record(&mut self, htlc: Htlc, staging: Staging) {
        match htlc.htlc.offerer {
            Side::Local => self.history.next_local_id += 1,
            Side::Remote => self.history.next_remote_id += 1,
        }
        self.history.steps.push(Step::Add(self.history.htlcs.len(), staging));
        self.history.htlcs.push(htlc);
    }

    /// Both sides go to a new commitment. The updater signs first, so that the other side's
    /// commitment is the first to change, BOLT 2.
    fn advance(&mut self, next: Arc<State>, updater: Side) {
        let revoked = self.remote_number();
        self.history.local.push(Arc::clone(&next));
        self.history.remote.push(next);
        let local = Step::Local(self.local_number());
        let remote = [Step::Remote(revoked + 1), Step::Revoke(revoked)];
        match updater {
            Side::Local => self.history.steps.extend(remote.into_iter().chain([local])),
            Side::Remote => self.history.steps.extend([local].into_iter().chain(remote)),
        }
    }
}
