//! Reports: what the engine says of a channel, and what the driver found out by itself.
use super::durable::Unreadable;
use super::{Around, Driver};
use crate::command::{CommandError, Reserve};
use arb_core::arbitrator::ChannelArbitrator;
use arb_core::facts::Standing;
use arb_core::ids::{ChannelId, Slot};
use arb_core::report::{self, ChannelReport, ClosingCost, ReportPage};
use bitcoin::{Amount, FeeRate};

/// Channels that are reported of in one step: blocks and commands come between two.
const PAGE: usize = 32;

impl<A: Around> Driver<A> {
    /// `None`: it is not watched.
    pub(super) fn report(
        &mut self,
        id: ChannelId,
    ) -> Result<Option<Box<ChannelReport>>, CommandError> {
        let Some(slot) = self.engine.slot(&id) else {
            return match self.unknown(id) {
                CommandError::UnknownChannel(_) => Ok(None),
                aside => Err(aside),
            };
        };
        let facts = self.readable(slot).map_err(|why| match why {
            Unreadable::Channel(_) => self.unknown(id),
            Unreadable::Medium(_) => why.into(),
        })?;
        let report = self.of_channel(slot, |driver| {
            let now = driver.engine.now(slot, &facts);
            let mut report = match driver.engine.active(slot) {
                Some(active) => ChannelReport::of(&facts, &active.state, &now),
                None => ChannelReport::quiet(&facts, &now),
            };
            driver.add_alarms(&mut report);
            report
        })?;
        Ok(Some(Box::new(report)))
    }

    /// A page of reports, and with the first one the channels that are set aside.
    pub(super) fn report_page(&mut self, after: Option<Slot>) -> ReportPage {
        let mut page = self.of_each(|driver, at| driver.engine.report_page(after, PAGE, at));
        page.channels.iter_mut().for_each(|report| self.add_alarms(report));
        if after.is_none() {
            page.quarantined = self.quarantine.ids().collect();
        }
        page
    }

    /// What closing a channel would cost, or the rest of a closed one.
    pub(super) fn closing_cost(
        &mut self,
        id: ChannelId,
        feerate: FeeRate,
    ) -> Result<Option<Box<ClosingCost>>, CommandError> {
        let slot = self.engine.slot(&id).ok_or_else(|| self.unknown(id))?;
        let facts = self.readable(slot)?;
        let now = self.engine.now(slot, &facts);
        if now.standing == Standing::Outdated {
            // Nothing of ours may be broadcast for it.
            return Ok(None);
        }
        self.of_channel(slot, |driver| {
            let quiet = ChannelArbitrator::default();
            let state = driver.engine.active(slot).map_or(&quiet, |active| &active.state);
            state.closing_cost(&facts, &now, feerate).map(Box::new)
        })
    }

    /// What the wallet needs for a page of channels.
    pub(super) fn reserve(&mut self, feerate: FeeRate, from: usize) -> Reserve {
        let mut sum = Reserve::default();
        for slot in self.engine.slice(from, PAGE) {
            let mut one = Reserve { channels: 1, ..Reserve::default() };
            if let Ok(facts) = self.readable(slot) {
                let needed = self.of_channel(slot, |driver| {
                    let active = driver.engine.active(slot);
                    let Some(active) = active.filter(|active| active.picture.is_some()) else {
                        return (report::reserve(&facts, feerate), Amount::ZERO);
                    };
                    let now = driver.engine.now(slot, &facts);
                    let rest = active.state.closing_cost(&facts, &now, feerate);
                    (Amount::ZERO, rest.map_or(Amount::ZERO, |rest| rest.wallet))
                });
                (one.open, one.closed) = needed.unwrap_or_default();
            }
            sum = sum.and(one);
        }
        sum
    }

    fn add_alarms(&self, report: &mut ChannelReport) {
        for alert in self.notices.alarms_of(report.id) {
            if !report.alerts.contains(&alert) {
                report.alerts.push(alert);
            }
        }
    }
}
