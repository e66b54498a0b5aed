//! What must be true at the end of every file, without being asked.
use super::Failed;
use super::command::script_aside;
use super::story::Runner;
use crate::peer::{Commitment, OutputRole, Side};
use crate::scenario::ast::ChannelName;
use crate::world::htlc_id;
use arb_core::arbitrator::{Alert, ChannelArbitrator, Now, Phase, Position, UpstreamVerdict};
use arb_core::classify::FundingSpend;
use arb_core::facts::Standing;
use arb_core::ids::ChannelId;
use arb_core::log::ChangeLog;
use arb_core::ports::CoinSource;
use arb_core::report::ChannelReport;
use arb_core::units::BlockHeight;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, CompressedPublicKey, OutPoint, ScriptBuf};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Runner<'_> {
    /// All checks. The arbiter is stopped afterwards.
    pub(super) async fn closing_checks(&mut self) -> Result<(), Failed> {
        if self.disk_is_full {
            self.disk_is_full = false;
            self.node.limit_disk(None)?;
        }
        self.settle().await?;
        if let Some(contradiction) = self.node.told.contradictions.first() {
            return Err(Failed::new("no contradiction in what the node is told", contradiction));
        }
        let names: Vec<ChannelName> = self.channels.keys().cloned().collect();
        for name in &names {
            self.check_upstream(name).await?;
            self.check_deadlines(name).await?;
        }
        self.check_value(&names).await?;
        self.check_ldk()?;
        self.check_replay().await?;
        self.check_leaks().await
    }

    /// Every satoshi of every channel is somewhere, and the reports say the same as the chain.
    async fn check_value(&mut self, names: &[ChannelName]) -> Result<(), Failed> {
        let mut unknown = Amount::ZERO;
        for name in names {
            let Some(value) = self.value(name).await? else { continue };
            let chan = self.chan(name)?;
            let capacity = self.on_chain_peer(name)?.params().capacity;
            let what = || format!("the value of channel {name} to add up");
            if value.total() != capacity {
                return Err(Failed::new(what(), format!("{capacity} is not the sum of {value:?}")));
            }
            let id = chan.id;
            let alerted = self.node.told.alerts.iter().any(|(of, _)| *of == id);
            if value.lost > Amount::ZERO && !alerted {
                return Err(Failed::new("an alert for what was lost", format!("{}", value.lost)));
            }
            let Some(report) = &chan.report else { continue };
            // Of an older funding output it knows nothing that happens beyond its unknown spend, which it alerts: what comes to the
            // node's static key there is home all the same.
            let is_unknown = matches!(
                report.phase,
                Phase::Closed(FundingSpend::Unknown) | Phase::Resolved(FundingSpend::Unknown)
            );
            let is_beyond = chan.lost && is_unknown;
            if is_beyond && alerted && report.received < value.ours {
                unknown += value.ours - report.received;
                continue;
            }
            if report.received != value.ours {
                let found = format!("{} reported, {} on chain", report.received, value.ours);
                return Err(Failed::new(what(), found));
            }
        }
        // What LDK publishes by itself is in no report.
        if self.ldk.is_some() {
            return Ok(());
        }
        let reports = || self.channels.values().filter_map(|chan| chan.report.as_ref());
        let reported: i64 = reports().map(ChannelReport::recovered).sum();
        let reported = reported.saturating_add(signed(unknown));
        let wallet = self.gained().await?;
        let is_explained = reported == wallet || (self.store_is_new && reported > wallet);
        if !is_explained {
            let fees: Amount = reports().map(|report| report.fees).sum();
            let found = format!(
                "{reported}sat recovered by the reports ({fees} in fees), {wallet}sat in the wallet"
            );
            return Err(Failed::new("reports that agree with the chain", found));
        }
        Ok(())
    }

    /// What we own by the chain alone, beyond the coins that the story began with: unspent outputs
    /// to scripts that need no further claim.
    async fn gained(&self) -> Result<i64, Failed> {
        let change = self.world.wallet.change_script().await;
        let change = change.map_err(|e| Failed::new("a script", e))?;
        let mut scripts = BTreeSet::from([change, script_aside()]);
        for chan in self.channels.values() {
            scripts.insert(chan.first.destination.clone());
            scripts.insert(chan.peer.shutdown_script(Side::Local));
            scripts.insert(p2wpkh(&chan.peer.keys(Side::Local).payment_basepoint));
        }
        let coins = scripts.iter().flat_map(|script| self.world.ledger.coins(script));
        let owned: Amount = coins.map(|(_, output)| output.value).sum();
        let coins = self.scenario.wallet.coins.iter();
        let began: Amount = coins.map(|coins| coins.value * u64::from(coins.count)).sum();
        Ok(signed(owned) - signed(began))
    }

    /// The node never fails upstream what the peer took with the preimage, unless it had to
    /// because the incoming HTLC was about to expire, and then it is told.
    async fn check_upstream(&mut self, name: &ChannelName) -> Result<(), Failed> {
        let Some(commitment) = self.confirmed_commitment(name).await? else { return Ok(()) };
        let chan = self.chan(name)?;
        for htlc in chan.peer.htlcs().iter().filter(|htlc| htlc.htlc.offerer == Side::Local) {
            let id = htlc_id(htlc.htlc);
            let Some(verdict) = self.node.told.upstream.get(&(chan.id, id)) else { continue };
            let Some(vout) = commitment.htlc_index(&htlc.name) else { continue };
            let outpoint = OutPoint { txid: commitment.txid(), vout };
            let Some((_, tx)) = self.world.ledger.spender(&outpoint) else { continue };
            let revealed = tx.input.iter().any(|input| {
                input.previous_output == outpoint
                    && input.witness.iter().any(|element| element == htlc.preimage)
            });
            let alert = (chan.id, Alert::PreimageAfterFail(id));
            let told = self.node.told.alerts.contains(&alert);
            if revealed && *verdict == UpstreamVerdict::Failed && !told {
                let expected = format!("{name}.{} fulfilled upstream", htlc.name);
                return Err(Failed::new(expected, "failed, although its preimage is on chain"));
            }
        }
        Ok(())
    }

    async fn confirmed_commitment(
        &mut self,
        name: &ChannelName,
    ) -> Result<Option<std::sync::Arc<Commitment>>, Failed> {
        let close = self.close(name).await?.filter(|close| close.height.is_some());
        Ok(close.and_then(|close| close.commitment))
    }

    /// The peer got nothing that we could have taken before, in a block that had room for it.
    async fn check_deadlines(&mut self, name: &ChannelName) -> Result<(), Failed> {
        let close = self.close(name).await?;
        let Some((height, commitment)) =
            close.and_then(|close| Some((close.height?, close.commitment?)))
        else {
            return Ok(());
        };
        let chan = self.chan(name)?;
        let remembers = chan.report.as_ref().is_some_and(|report| {
            !matches!(report.close, Some(arb_core::arbitrator::CloseKind::Future(_)))
        });
        let revoked = chan.is_revoked(&commitment) && remembers;
        // An HTLC transaction without a fee of its own needs a coin.
        let needs_coins = commitment.owner == Side::Local
            && chan.peer.params().format != crate::peer::Format::StaticRemoteKey;
        let coins = &self.scenario.wallet.coins;
        if needs_coins && coins.iter().all(|coins| coins.count == 0) {
            return Ok(());
        }
        for (vout, role) in &commitment.outputs {
            let outpoint = OutPoint { txid: commitment.txid(), vout: *vout };
            let open_since = match role {
                OutputRole::Htlc { .. } | OutputRole::ToLocal if revoked => height,
                OutputRole::Htlc { name: htlc, .. } => {
                    let known = self.known_since.get(&(name.clone(), htlc.clone()));
                    let Some(known) = known else { continue };
                    height.max(*known)
                }
                OutputRole::ToLocal
                | OutputRole::ToRemote
                | OutputRole::Anchor(_)
                | OutputRole::SharedAnchor => continue,
            };
            self.check_not_missed(name, &outpoint, open_since)?;
            let second = self.world.ledger.spender(&outpoint).and_then(|(at, tx)| {
                let second = super::locate::paired_output(tx, &outpoint)?;
                (revoked && !self.is_ours(&tx.compute_txid())).then_some((at, second))
            });
            if let Some((at, second)) = second {
                self.check_not_missed(name, &second, at)?;
            }
        }
        Ok(())
    }

    fn check_not_missed(
        &self,
        name: &ChannelName,
        outpoint: &OutPoint,
        open_since: u32,
    ) -> Result<(), Failed> {
        let Some((spent, tx)) = self.world.ledger.spender(outpoint) else { return Ok(()) };
        let chances = self.world.ledger.chances(open_since, spent);
        if self.is_ours(&tx.compute_txid()) || chances == 0 {
            return Ok(());
        }
        let expected = format!("output {outpoint} of {name} to be ours");
        let found = format!("the peer took it after {chances} blocks that had room for our claim");
        Err(Failed::new(expected, found))
    }

    /// The log says all that the arbiter knew.
    async fn check_replay(&mut self) -> Result<(), Failed> {
        let live: BTreeMap<ChannelId, ChannelReport> = (self.channels.values())
            .filter(|chan| !chan.forgotten)
            .filter_map(|chan| Some((chan.id, chan.report.clone()?)))
            .collect();
        self.node.stop().await;
        let log = self.node.open_store().await?;
        let unreadable = |error: &dyn std::fmt::Display| Failed::new("a readable store", error);
        let now = Now {
            tip: BlockHeight(self.world.height()),
            position: Position::AtTip,
            policy: self.policy(),
            standing: Standing::Current,
            link: None,
            floor: self.world.faults.estimates().floor,
            mutual_close: None,
        };
        let mut replayed = BTreeMap::new();
        for stored in log.channels().map_err(|error| unreadable(&error))? {
            let facts = log.facts(stored.slot).map_err(|error| unreadable(&error))?;
            let facts = facts.ok_or_else(|| unreadable(&"no facts"))?;
            let facts = facts.map_err(|error| unreadable(&error))?;
            let changes = log.changes(stored.slot).map_err(|error| unreadable(&error))?;
            let changes = changes.map_err(|error| unreadable(&error))?;
            let state = ChannelArbitrator::replay(&changes);
            replayed.insert(stored.id, ChannelReport::of(&facts, &state, &now));
        }
        for (id, report) in &live {
            // Whether facts are outdated, and the peer connected, is said at every start and not stored.
            let standing = |report: &ChannelReport| {
                let mut report = report.clone();
                report.link = None;
                report.alerts.retain(|alert| !is_of_the_driver(alert));
                report.next = None;
                report
            };
            let again = replayed.get(id).map(standing);
            if again.as_ref() != Some(&standing(report)) {
                let expected = format!("the log to lead to {report:?}");
                return Err(Failed::new(expected, format!("{again:?}")));
            }
        }
        if replayed.len() != live.len() {
            let expected = format!("{} channels in the store", live.len());
            return Err(Failed::new(expected, replayed.len()));
        }
        Ok(())
    }

    /// Nothing of the arbiter goes on after it was stopped.
    async fn check_leaks(&self) -> Result<(), Failed> {
        if matches!(self.world.backend, crate::world::Backend::Bitcoind(_)) {
            // The node's connections have tasks of their own.
            return Ok(());
        }
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        for _ in 0..1_000 {
            if alive() == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(Failed::new("no task after the arbiter was stopped", format!("{} tasks", alive())))
    }
}

fn p2wpkh(key: &PublicKey) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&CompressedPublicKey(*key).wpubkey_hash())
}

fn signed(amount: Amount) -> i64 {
    i64::try_from(amount.to_sat()).unwrap_or(i64::MAX)
}

/// Whether the driver found it out by itself: no part of the log.
const fn is_of_the_driver(alert: &Alert) -> bool {
    matches!(
        alert,
        Alert::OutdatedFacts
            | Alert::Quarantined
            | Alert::SignerFailing
            | Alert::PenaltyDataUnreadable(_)
    )
}
