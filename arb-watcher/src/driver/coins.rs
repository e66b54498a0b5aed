//! Coins of the wallet: each claim has its own reserved for as long as it is ours to make, and not longer. The wallet
//! is asked by workers; it may be slow, refuse, or panic.
use super::panics::Caught;
use super::work::{Job, Outcome, answer};
use super::{Around, Driver};
use arb_core::claim::build::Draft;
use arb_core::engine::CoinsInUse;
use arb_core::ids::Slot;
use arb_core::ports::CoinSource;
use bitcoin::OutPoint;
use std::error::Error;
use std::future::Future;
use std::time::Duration;
use tokio::time::sleep;

impl<A: Around> Driver<A> {
    /// Coins in transactions that were handed out before the restart stay theirs. A start does not wait for the
    /// wallet, which is told it again until it has taken it; who wants coins stands behind that in the line.
    pub(super) fn reserve_coins(&mut self) {
        self.plan();
        let slots: Vec<Slot> = self.engine.actives().map(|(slot, _)| slot).collect();
        let mut in_use = Vec::new();
        for slot in slots {
            let of_channel = self.of_channel(slot, |driver| driver.engine.coins_to_reserve(slot));
            in_use.extend(of_channel.unwrap_or_default().into_iter().map(|used| (slot, used)));
        }
        for (slot, CoinsInUse { claim, coins, .. }) in in_use {
            self.tasks.fund(slot, claim);
            let (ports, settings) = (self.ports.clone(), self.settings);
            let place = self.line.join();
            self.workers.spawn(Job::Other, async move {
                let reserve = || reserve(&ports.coins, settings.patience, claim, &coins);
                let mut result = place.after_those_before(reserve(), settings.patience).await;
                while result.is_err() {
                    sleep(settings.retry).await;
                    result = reserve().await;
                }
                Outcome::Reserved { slot, claim, result }
            });
        }
    }

    /// Coins of claims that are no longer ours to make, or are made with others, go back to the
    /// wallet.
    pub(super) fn release_coins(&mut self, slot: Slot) {
        // What is set aside may still be on its way, with its coins.
        if !self.tasks.is_funded(slot) || self.quarantine.holds(slot) {
            return;
        }
        let wanted = self.of_channel(slot, |driver| driver.engine.funded_outpoints(slot));
        let Ok(mut wanted) = wanted else { return };
        // What is being signed has selected its coins, perhaps.
        wanted.extend(self.tasks.being_signed());
        for claim in self.tasks.unfund(slot, &wanted) {
            self.give_back(slot, claim);
        }
    }

    /// The coins of a claim go back to the wallet, before anybody asks who has not asked yet.
    fn give_back(&mut self, slot: Slot, claim: OutPoint) {
        let (ports, patience) = (self.ports.clone(), self.settings.patience);
        let place = self.line.join();
        self.workers.spawn(Job::Other, async move {
            let release = of_wallet(patience, ports.coins.release(claim));
            let result = place.after_those_before(release, patience).await;
            Outcome::Released { slot, claim, result }
        });
    }

    /// The signer has not signed what coins were selected for, and nothing of it is out: if that goes on, others may have
    /// them until it does.
    pub(super) fn not_signed(&mut self, slot: Slot, draft: &Draft) {
        let (owner, claim) = self.coins_of(slot, draft);
        if draft.divisible
            && self.tasks.is_doubted(slot, draft)
            && self.tasks.has_coins(owner, &claim)
        {
            self.tasks.has_no_coins(owner, &claim);
            self.give_back(owner, claim);
        }
    }

    /// In whose name a draft has its coins. It may be a claim of another channel that is joined.
    pub(super) fn coins_of(&self, slot: Slot, draft: &Draft) -> (Slot, OutPoint) {
        let (channel, claim) = draft.coins_as;
        (self.engine.slot(&channel).unwrap_or(slot), claim)
    }

    /// Coins in a transaction that is ours again, after a reorganisation or since the network takes it after all, are
    /// reserved again: nothing is signed for it, and something else would spend them.
    pub(super) fn keep_coins(&mut self, slot: Slot) {
        if self.quarantine.holds(slot) {
            return;
        }
        let kept = self.of_channel(slot, |driver| {
            driver.engine.coins_to_keep(slot, |claim| driver.tasks.has_coins(slot, claim))
        });
        for CoinsInUse { claim, coins, .. } in kept.unwrap_or_default() {
            self.tasks.fund(slot, claim);
            let (ports, patience) = (self.ports.clone(), self.settings.patience);
            // Before anybody asks who has not asked yet.
            let place = self.line.join();
            self.workers.spawn(Job::Other, async move {
                let reserve = reserve(&ports.coins, patience, claim, &coins);
                let result = place.after_those_before(reserve, patience).await;
                Outcome::Reserved { slot, claim, result }
            });
        }
    }

    pub(super) fn on_released(&mut self, slot: Slot, claim: OutPoint, result: Result<(), String>) {
        if let Err(why) = result {
            tracing::warn!(why, "coins are released later");
            self.tasks.fund(slot, claim);
        }
    }

    pub(super) fn on_reserved(&mut self, slot: Slot, claim: OutPoint, result: &Result<(), String>) {
        match result {
            // It may have come to an end meanwhile.
            Ok(()) => {
                self.tasks.fund(slot, claim);
                self.release_coins(slot);
            }
            Err(_) => self.tasks.has_no_coins(slot, &claim),
        }
    }
}

async fn reserve<C: CoinSource>(
    wallet: &C,
    patience: Duration,
    claim: OutPoint,
    coins: &[OutPoint],
) -> Result<(), String> {
    let reserved = of_wallet(patience, wallet.reserve(claim, coins.to_vec())).await;
    if let Err(why) = &reserved {
        tracing::warn!(%claim, why, "coins are not reserved again");
    }
    reserved
}

/// The wallet's answer: an error if there is none in time, or if it panics.
async fn of_wallet<T, E: Error>(
    patience: Duration,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    let answered = Caught::new(answer(patience, asked)).await;
    answered.unwrap_or_else(|what| Err(format!("the wallet has panicked: {what}")))
}
