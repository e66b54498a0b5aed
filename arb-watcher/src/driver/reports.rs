//! Reports: what the engine says of a channel, and what the driver found out by itself.
use super::Driver;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::ChangeLog;
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use arb_core::report::{ChannelReport, ReportPage};

/// Channels that are reported of in one step: blocks and commands come between two.
const PAGE: usize = 32;

impl<L, S, B, F, K, C> Driver<L, S, B, F, K, C>
where
    L: ChangeLog,
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    pub(super) fn report(&mut self, id: ChannelId) -> Option<Box<ChannelReport>> {
        let slot = self.engine.slot(&id)?;
        let facts = self.readable(slot).ok()?;
        let now = self.engine.now(slot, &facts);
        let mut report = match self.engine.active(slot) {
            Some(active) => ChannelReport::of(&facts, &active.state, &now),
            None => ChannelReport::quiet(&facts, &now),
        };
        self.add_alarms(&mut report);
        Some(Box::new(report))
    }

    /// A page of reports, and with the first one the channels that are set aside.
    pub(super) fn report_page(&self, after: Option<Slot>) -> ReportPage {
        let mut page = self.engine.report_page(after, PAGE);
        page.channels.iter_mut().for_each(|report| self.add_alarms(report));
        if after.is_none() {
            page.quarantined = self.quarantine.ids().collect();
        }
        page
    }

    fn add_alarms(&self, report: &mut ChannelReport) {
        for alert in self.notices.alarms_of(report.id) {
            if !report.alerts.contains(&alert) {
                report.alerts.push(alert);
            }
        }
    }
}
