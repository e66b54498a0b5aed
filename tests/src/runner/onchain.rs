//! What happens on chain: publications, the peer's claims, blocks, reorganisations, feerates.
use super::Failed;
use super::locate::paired_output;
use super::story::Runner;
use crate::peer::{
    Bundle, Claim, ClaimFee, ClosingStyle, Commitment, Format, PeerCoin, SecondLevel, Side,
};
use crate::scenario::ast::{
    BlockFill, ChannelName, ClaimGrouping, Dropped, Excluded, History, HtlcRef, OnChain, OutputRef,
    PublishedSpend,
};
use crate::world::Fill;
use arb_core::facts::Update;
use arb_core::ports::Verdict;
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};

/// What a replacement pays on top of everything that it replaces: more than its own relay.
const MORE: Amount = Amount::from_sat(2_000);
/// What a cluster of the mempool may weigh: 101 kvB.
const LARGEST_CLUSTER: u64 = 101_000 * 4;
/// Bytes of data in one transaction, at most: 100,000 with all around them are relayed.
const LARGEST_DATA: u64 = 95_000;

impl Runner<'_> {
    pub(super) async fn on_chain(&mut self, statement: &OnChain) -> Result<(), Failed> {
        match statement {
            OnChain::Publish { channel, spend, feerate } => {
                if *spend == PublishedSpend::Mutual && self.ldk.is_some() {
                    let tx = self.ldk_mutual(channel).await?;
                    return self.submit(&tx).await;
                }
                if *spend == PublishedSpend::Mutual && !self.has_agreed_scripts(channel)? {
                    // No mutual close without them: both sides have named them by now.
                    self.history(&History::Shutdown(channel.clone())).await?;
                }
                self.publish_after_splice(channel, *spend, *feerate).await
            }
            OnChain::PeerPays { channel, feerate } => {
                let commitment = self.published(channel).await?;
                let child = self.peer_child(channel, &commitment, *feerate).await?;
                self.submit(&child).await
            }
            OnChain::PeerCrowds { channel, feerate, heavy: false } => {
                self.peer_crowds(channel, *feerate).await
            }
            OnChain::PeerCrowds { channel, feerate, heavy: true } => {
                self.peer_crowds_heavily(channel, *feerate).await
            }
            OnChain::PeerClaims { htlcs, feerate, grouping } => {
                let rate = feerate.unwrap_or_else(|| self.estimate());
                self.peer_claims(htlcs, ClaimFee::from(rate), *grouping).await
            }
            OnChain::PeerClaimsSecondLevel(htlc) => self.peer_claims_second_level(htlc).await,
            OnChain::PeerReplaces { htlc, feerate } => self.peer_replaces(htlc, *feerate).await,
            OnChain::PeerWithdraws { htlc, feerate } => self.peer_withdraws(htlc, *feerate).await,
            OnChain::Mine { blocks, fill } => {
                for _ in 0..*blocks {
                    self.mine_one(fill).await?;
                }
                Ok(())
            }
            OnChain::Reorg { blocks, drop } => self.reorg(*blocks, drop).await,
            OnChain::Feerate { estimate, floor } => {
                self.world.faults.set_feerate(*estimate, *floor);
                match floor {
                    Some(floor) => Ok(self.world.backend.set_floor(*floor).await?),
                    None => Ok(()),
                }
            }
        }
    }

    pub(super) fn estimate(&self) -> FeeRate {
        self.world.faults.estimates().within(1)
    }

    fn has_agreed_scripts(&self, name: &ChannelName) -> Result<bool, Failed> {
        let mut told = self.chan(name)?.told.iter().flat_map(|(_, updates)| updates);
        Ok(told.any(|update| matches!(update, Update::Shutdown(_))))
    }

    /// Publishes a spend of the funding output. Where the channel's own splice is in its way in the mempool, a
    /// block takes the splice, and what is published spends the new funding output.
    async fn publish_after_splice(
        &mut self,
        name: &ChannelName,
        spend: PublishedSpend,
        feerate: Option<FeeRate>,
    ) -> Result<(), Failed> {
        let refused = match self.publish(name, spend, feerate).await {
            Err(refused) if self.splice_waits(name).await? => refused,
            published => return published,
        };
        self.block(&Fill::Mempool).await?;
        // There was no room for it.
        if self.splice_waits(name).await? {
            return Err(refused);
        }
        self.publish(name, spend, feerate).await
    }

    /// Whether the mempool holds a splice of the channel.
    async fn splice_waits(&self, name: &ChannelName) -> Result<bool, Failed> {
        let funding = self.on_chain_peer(name)?.funding()?;
        let spender = self.world.backend.mempool_spender(&funding).await?;
        let splices = &self.chan(name)?.splices;
        Ok(spender.is_some_and(|tx| splices.iter().any(|splice| splice.tx == tx)))
    }

    /// A spend of the funding output; a commitment with a child of the peer's, if it is to have one.
    async fn publish(
        &mut self,
        name: &ChannelName,
        spend: PublishedSpend,
        feerate: Option<FeeRate>,
    ) -> Result<(), Failed> {
        let peer = self.on_chain_peer(name)?;
        let commitment = match spend {
            PublishedSpend::Local => peer.local_commitment()?,
            PublishedSpend::Remote => peer.remote_current()?,
            PublishedSpend::RemoteNext => peer.remote_next()?,
            PublishedSpend::RemoteNumber(number) => peer.remote_commitment(number)?,
            PublishedSpend::Mutual => {
                let tx = peer.mutual_close(self.estimate(), ClosingStyle::Legacy)?;
                return self.submit(&tx).await;
            }
            PublishedSpend::Unknown => {
                let tx = peer.unknown_spend(self.estimate())?;
                return self.submit(&tx).await;
            }
            PublishedSpend::Invalid => {
                let tx = peer.remote_current()?.tx;
                return self.refused_spend(tx).await;
            }
        };
        let needs_child = peer.params().format == Format::ZeroFee;
        let rate = feerate.or_else(|| needs_child.then(|| self.estimate()));
        let Some(rate) = rate else { return self.submit(&commitment.tx).await };
        let child = self.peer_child(name, &commitment, rate).await?;
        self.submit_all(&[commitment.tx, child]).await
    }

    /// A child of the peer's on a commitment, so that both together pay the feerate.
    async fn peer_child(
        &self,
        name: &ChannelName,
        commitment: &Commitment,
        rate: FeeRate,
    ) -> Result<Transaction, Failed> {
        let coins = self.peer_coins(name).await?;
        Ok(self.on_chain_peer(name)?.anchor_child(commitment, rate, &coins)?.tx)
    }

    /// A child of the peer's on a commitment, and a chain of transactions on that, until the cluster is full.
    async fn peer_crowds(&mut self, name: &ChannelName, rate: FeeRate) -> Result<(), Failed> {
        let commitment = self.published(name).await?;
        let coins = self.peer_coins(name).await?;
        let child = self.on_chain_peer(name)?.anchor_child(&commitment, rate, &coins)?;
        self.submit(&child.tx).await?;
        let mut coin = child.change;
        while let Some(last) = coin {
            let next = self.on_chain_peer(name)?.pass_on(&last, ClaimFee::from(rate), 0)?;
            let verdicts = self.world.backend.submit(std::slice::from_ref(&next.tx)).await?;
            match verdicts.as_slice() {
                [Verdict::Accepted | Verdict::Known] => coin = next.change,
                [Verdict::Refused(why)] if why.starts_with("too-large-cluster") => return Ok(()),
                other => return Err(Failed::new("a cluster that fills", format!("{other:?}"))),
            }
        }
        Err(Failed::new("a coin to pass on", "none"))
    }

    /// A child of the peer's on a commitment, and few and large transactions on that, until the cluster takes
    /// no byte more.
    async fn peer_crowds_heavily(
        &mut self,
        name: &ChannelName,
        rate: FeeRate,
    ) -> Result<(), Failed> {
        let commitment = self.published(name).await?;
        let coins = self.peer_coins(name).await?;
        let child = self.on_chain_peer(name)?.anchor_child(&commitment, rate, &coins)?;
        self.submit(&child.tx).await?;
        let mut coin = child.change;
        while let Some(last) = coin {
            let room = LARGEST_CLUSTER.saturating_sub(self.cluster_weight(&commitment).await?);
            let peer = self.on_chain_peer(name)?;
            // What is not data is told by one with as much of it as there is room for, whatever its data's length takes.
            let most = (room / 4).min(LARGEST_DATA);
            let frame =
                peer.pass_on(&last, ClaimFee::from(rate), most)?.tx.weight().to_wu() / 4 - most;
            let Some(data) = (room / 4).checked_sub(frame + 1).filter(|data| *data > 0) else {
                return Ok(());
            };
            let next = peer.pass_on(&last, ClaimFee::from(rate), data.min(LARGEST_DATA))?;
            self.submit(&next.tx).await?;
            coin = next.change;
        }
        Err(Failed::new("a coin to pass on", "none"))
    }

    /// What the cluster of a transaction in the mempool weighs.
    async fn cluster_weight(&self, of: &Commitment) -> Result<u64, Failed> {
        let mut rest = self.world.backend.mempool().await?;
        let mut cluster: BTreeSet<Txid> = BTreeSet::from([of.txid()]);
        let mut weight = 0;
        loop {
            let parents = |tx: &Transaction| -> BTreeSet<Txid> {
                tx.input.iter().map(|input| input.previous_output.txid).collect()
            };
            let (near, far): (Vec<_>, Vec<_>) = rest.into_iter().partition(|tx| {
                cluster.contains(&tx.compute_txid()) || !parents(tx).is_disjoint(&cluster)
            });
            if near.is_empty() {
                return Ok(weight);
            }
            weight += near.iter().map(|tx| tx.weight().to_wu()).sum::<u64>();
            cluster.extend(
                near.iter().flat_map(|tx| core::iter::once(tx.compute_txid()).chain(parents(tx))),
            );
            rest = far;
        }
    }

    /// A spend of the funding output with a witness that is none: nobody takes it.
    async fn refused_spend(&mut self, mut tx: Transaction) -> Result<(), Failed> {
        for input in &mut tx.input {
            let mut elements = input.witness.to_vec();
            // The signatures in the wrong order.
            if let [_, one, other, _] = elements.as_mut_slice() {
                std::mem::swap(one, other);
            }
            input.witness = elements.into();
        }
        for verdict in self.world.backend.submit(std::slice::from_ref(&tx)).await? {
            self.trace.line(|| format!("     theirs {:.8} {verdict:?}", tx.compute_txid()));
            if !matches!(verdict, Verdict::Refused(_)) {
                return Err(Failed::new(
                    "the mempool to refuse what is not valid",
                    format!("{verdict:?}"),
                ));
            }
        }
        Ok(())
    }

    pub(super) async fn submit(&mut self, tx: &Transaction) -> Result<(), Failed> {
        self.submit_all(std::slice::from_ref(tx)).await
    }

    /// One transaction, or a package.
    async fn submit_all(&mut self, all: &[Transaction]) -> Result<(), Failed> {
        let verdicts = self.world.backend.submit(all).await?;
        for (tx, verdict) in all.iter().zip(verdicts) {
            self.trace.line(|| format!("     theirs {:.8} {verdict:?}", tx.compute_txid()));
            match verdict {
                Verdict::Accepted | Verdict::Known | Verdict::HandedOver => {}
                Verdict::Conflict(why)
                | Verdict::FeeTooLow(why)
                | Verdict::NotFinal(why)
                | Verdict::Refused(why) => {
                    return Err(Failed::new("the mempool to take the transaction", why));
                }
            }
        }
        Ok(())
    }

    /// Confirmed coins of the peer that nothing in the mempool spends.
    pub(super) async fn peer_coins(&self, name: &ChannelName) -> Result<Vec<PeerCoin>, Failed> {
        let mempool = self.world.backend.mempool().await?;
        let spent: BTreeSet<OutPoint> =
            mempool.iter().flat_map(|tx| &tx.input).map(|input| input.previous_output).collect();
        let peer = &self.chan(name)?.peer;
        let coins = self.world.ledger.coins(&peer.peer_script());
        let free = coins.into_iter().filter(|(outpoint, _)| !spent.contains(outpoint));
        Ok(free.map(|(outpoint, output)| peer.peer_coin(outpoint, output.value)).collect())
    }

    async fn peer_claims(
        &mut self,
        htlcs: &[HtlcRef],
        fee: ClaimFee,
        grouping: ClaimGrouping,
    ) -> Result<(), Failed> {
        let mut channels: BTreeMap<&ChannelName, Vec<&str>> = BTreeMap::new();
        for htlc in htlcs {
            channels.entry(&htlc.channel).or_default().push(&htlc.htlc);
        }
        if grouping == ClaimGrouping::Together && channels.len() > 1 {
            return Err(Failed::new("HTLCs of one channel to be taken together", "of several"));
        }
        let bundle = match grouping {
            ClaimGrouping::OneEach => Bundle::Separate,
            ClaimGrouping::Together => Bundle::Together,
        };
        for (name, names) in channels {
            let commitment = self.published(name).await?;
            let coins = self.peer_coins(name).await?;
            let peer = &self.chan(name)?.peer;
            let claims = peer.claim_htlcs(&commitment, &names, bundle, fee, &coins)?;
            self.submit_claims(claims).await?;
        }
        Ok(())
    }

    async fn submit_claims(&mut self, claims: Vec<Claim>) -> Result<(), Failed> {
        for claim in claims {
            self.submit(&claim.tx).await?;
        }
        Ok(())
    }

    async fn published(
        &mut self,
        name: &ChannelName,
    ) -> Result<std::sync::Arc<crate::peer::Commitment>, Failed> {
        let commitment = self.commitment(name).await?;
        commitment.ok_or_else(|| Failed::new(format!("a published commitment of {name}"), "none"))
    }

    async fn peer_claims_second_level(&mut self, htlc: &HtlcRef) -> Result<(), Failed> {
        let commitment = self.published(&htlc.channel).await?;
        let first = self.outpoint(&OutputRef::Htlc(htlc.clone())).await?;
        let second = first.and_then(|first| {
            let (_, tx) = self.world.ledger.spender(&first)?;
            paired_output(tx, &first)
        });
        let output = second.and_then(|second| {
            let txout = self.world.ledger.output(&second)?.clone();
            Some(SecondLevel { outpoint: second, txout })
        });
        let output = output
            .ok_or_else(|| Failed::new(format!("a confirmed second stage of {htlc}"), "none"))?;
        let fee = ClaimFee::from(self.estimate());
        let peer = &self.chan(&htlc.channel)?.peer;
        let claim = peer.claim_second_level(&commitment, &[output], fee)?;
        self.submit(&claim.tx).await
    }

    /// Replaces our unconfirmed spend: pays more than it and all that hangs on it.
    async fn peer_replaces(&mut self, htlc: &HtlcRef, rate: FeeRate) -> Result<(), Failed> {
        let output = OutputRef::Htlc(htlc.clone());
        let ours = match self.outpoint(&output).await? {
            Some(outpoint) => self.world.backend.mempool_spender(&outpoint).await?,
            None => None,
        };
        let ours = ours.filter(|tx| self.is_ours(&tx.compute_txid()));
        let ours =
            ours.ok_or_else(|| Failed::new(format!("our unconfirmed spend of {htlc}"), "none"))?;
        let fee = ClaimFee { rate, at_least: self.more_than(&ours).await? };
        self.peer_claims(std::slice::from_ref(htlc), fee, ClaimGrouping::OneEach).await
    }

    /// More than a transaction of the mempool pays, with its descendants.
    async fn more_than(&self, tx: &Transaction) -> Result<Amount, Failed> {
        let mut replaced = BTreeSet::from([tx.compute_txid()]);
        let mut at_least = MORE;
        for tx in self.world.backend.mempool().await? {
            let txid = tx.compute_txid();
            let child = tx.input.iter().any(|i| replaced.contains(&i.previous_output.txid));
            if child || replaced.contains(&txid) {
                at_least += self.world.fee(&tx).await?.unwrap_or_default();
                replaced.insert(txid);
            }
        }
        Ok(at_least)
    }

    /// The peer hands the coin that pays for its unconfirmed spend of an HTLC to itself: the spend is out of the
    /// mempool, and nothing is in its place.
    async fn peer_withdraws(&mut self, htlc: &HtlcRef, rate: FeeRate) -> Result<(), Failed> {
        let output = OutputRef::Htlc(htlc.clone());
        let spend = match self.outpoint(&output).await? {
            Some(outpoint) => self.world.backend.mempool_spender(&outpoint).await?,
            None => None,
        };
        let none = || {
            Failed::new(format!("an unconfirmed spend of {htlc} with a coin of the peer's"), "none")
        };
        let spend = spend.filter(|tx| !self.is_ours(&tx.compute_txid())).ok_or_else(none)?;
        let at_least = self.more_than(&spend).await?;
        let peer = &self.chan(&htlc.channel)?.peer;
        let coins = self.world.ledger.coins(&peer.peer_script());
        let pays = |outpoint: &OutPoint| spend.input.iter().any(|i| i.previous_output == *outpoint);
        let coin = coins.into_iter().find(|(outpoint, _)| pays(outpoint)).ok_or_else(none)?;
        let coin = peer.peer_coin(coin.0, coin.1.value);
        let elsewhere = peer.pass_on(&coin, ClaimFee { rate, at_least }, 0)?;
        self.submit(&elsewhere.tx).await
    }

    async fn mine_one(&mut self, fill: &BlockFill) -> Result<(), Failed> {
        let excluded = match fill {
            BlockFill::Mempool => return self.block(&Fill::Mempool).await,
            BlockFill::Empty => return self.block(&Fill::Empty).await,
            BlockFill::Without(excluded) => excluded,
        };
        let ours = excluded.contains(&Excluded::Ours);
        let mut touched = BTreeSet::new();
        for excluded in excluded {
            if let Excluded::Touching(output) = excluded {
                touched.extend(self.outpoint(output).await?);
            }
        }
        let (faults, ldk) = (std::sync::Arc::clone(&self.world.faults), self.ldk_faults());
        let is_ours = move |txid: &Txid| {
            faults.is_ours(txid) || ldk.as_ref().is_some_and(|ldk| ldk.is_ours(txid))
        };
        let unwanted = move |tx: &Transaction| {
            let touches = tx.input.iter().any(|input| touched.contains(&input.previous_output));
            touches || (ours && is_ours(&tx.compute_txid()))
        };
        self.block(&Fill::Without(&unwanted)).await
    }

    async fn reorg(&mut self, blocks: u32, drop: &[Dropped]) -> Result<(), Failed> {
        let mut gone: BTreeSet<Txid> = BTreeSet::new();
        for dropped in drop {
            gone.insert(self.dropped(dropped).await?);
        }
        let names = move |tx: &Transaction| gone.contains(&tx.compute_txid());
        let lost = self.world.disconnect(blocks, &names).await?;
        let lost = lost.into_iter().filter(|tx| !tx.is_coinbase() && !names(tx));
        let theirs: Vec<_> = lost.filter(|tx| !self.is_ours(&tx.compute_txid())).collect();
        self.returning.extend(theirs);
        for _ in 0..=blocks {
            self.block(&Fill::Mempool).await?;
        }
        Ok(())
    }

    /// A spend with a relative lock leaves the mempool while what it spends is unconfirmed again. The arbiter makes its
    /// own anew; others send theirs once they are final, unless something else has come before.
    pub(super) async fn hand_in_again(&mut self) -> Result<(), Failed> {
        for tx in std::mem::take(&mut self.returning) {
            let confirmed = self.world.ledger.tx(&tx.compute_txid()).is_some();
            if confirmed {
                continue;
            }
            let verdicts = self.world.backend.submit(std::slice::from_ref(&tx)).await?;
            if matches!(verdicts.first(), Some(Verdict::NotFinal(_))) {
                self.returning.push(tx);
            }
        }
        Ok(())
    }

    /// The confirmed transaction that a reorganisation loses.
    async fn dropped(&mut self, dropped: &Dropped) -> Result<Txid, Failed> {
        let missing = |what: String| Failed::new(what, "none");
        let (name, side) = match dropped {
            Dropped::Htlc(htlc) => {
                let outpoint = self.outpoint(&OutputRef::Htlc(htlc.clone())).await?;
                let spender = outpoint.and_then(|outpoint| self.world.ledger.spender(&outpoint));
                let txid = spender.map(|(_, tx)| tx.compute_txid());
                return txid.ok_or_else(|| missing(format!("a confirmed spend of {htlc}")));
            }
            Dropped::Local(name) => (name, Some(Side::Local)),
            Dropped::Remote(name) => (name, Some(Side::Remote)),
            Dropped::Mutual(name) | Dropped::Unknown(name) => (name, None),
            Dropped::Splice(name) => {
                let splices = self.chan(name)?.splices.iter().map(|s| s.tx.compute_txid());
                let mut confirmed = splices.filter(|txid| self.world.ledger.tx(txid).is_some());
                let last = confirmed.next_back();
                return last.ok_or_else(|| missing(format!("a confirmed splice of {name}")));
            }
        };
        let close = self.close(name).await?.filter(|close| close.height.is_some());
        let close = close.ok_or_else(|| missing(format!("a confirmed close of {name}")))?;
        let owner = close.commitment.as_ref().map(|commitment| commitment.owner);
        if owner != side {
            let found = match owner {
                Some(Side::Local) => "our commitment",
                Some(Side::Remote) => "the peer's commitment",
                None => "a close that is no commitment",
            };
            return Err(Failed::new(format!("a close of {name} as drop= names it"), found));
        }
        Ok(close.tx.compute_txid())
    }
}
