//! Reports of all channels. Quiet ones have nothing to report and are counted: however many there
//! are, they cost nothing. The others come in pages, so that no step is long.
use crate::arbitrator::Phase;
use crate::engine::ChainArbitrator;
use crate::ids::{ChannelId, Slot};
use crate::report::ChannelReport;
use crate::units::BlockHeight;
use alloc::vec::Vec;

/// A page of reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportPage {
    /// The tip that the page is made at.
    pub tip: BlockHeight,
    /// Number of channels that are open and have nothing to report.
    pub quiet: usize,
    /// Channels that are set aside. The engine knows none: whoever drives it adds them to the first
    /// page.
    pub quarantined: Vec<ChannelId>,
    /// Channels that have something to report, by slot.
    pub channels: Vec<ChannelReport>,
    /// The last slot of the page, to go on from; `None`: this is the last page.
    pub next: Option<Slot>,
}

/// What there is to report of all channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllReports {
    /// The tip that the first channel's report is made at. Blocks may come between channels: each
    /// report names its own.
    pub tip: BlockHeight,
    /// How many channels stand where.
    pub phases: PhaseCounts,
    /// Channels that are set aside because their records cannot be read. They are in no count.
    pub quarantined: Vec<ChannelId>,
    /// Every channel with anything to report. One that is open and quiet is counted only.
    pub channels: Vec<ChannelReport>,
}

/// How many channels stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PhaseCounts {
    /// Open, quiet ones included.
    pub open: usize,
    /// To be failed, no funding output spent yet.
    pub failing: usize,
    /// Closed, not everything is resolved.
    pub closed: usize,
    /// Irrevocably resolved, not yet forgotten.
    pub resolved: usize,
}

impl PhaseCounts {
    /// One channel more.
    pub const fn count(&mut self, phase: &Phase) {
        let counter = match phase {
            Phase::Open => &mut self.open,
            Phase::Failing => &mut self.failing,
            Phase::Closed(_) => &mut self.closed,
            Phase::Resolved(_) => &mut self.resolved,
        };
        *counter = counter.saturating_add(1);
    }
}

impl AllReports {
    /// Takes a page in. The first one says how many quiet channels there are.
    pub fn take(&mut self, page: ReportPage) {
        if self.channels.is_empty() && self.phases == PhaseCounts::default() {
            self.tip = page.tip;
            self.phases.open = page.quiet;
        }
        self.quarantined.extend(page.quarantined);
        for report in page.channels {
            self.phases.count(&report.phase);
            self.channels.push(report);
        }
    }
}

impl ChainArbitrator {
    /// Reports of at most `most` channels with a slot above `after`. `at` is told of each channel before it is
    /// looked at, and `None` after the last.
    ///
    /// ```
    /// use arb_core::engine::ChainArbitrator;
    /// use arb_core::policy::Policy;
    /// use arb_core::report::AllReports;
    ///
    /// let arbiter = ChainArbitrator::new(Policy::default(), vec![]);
    /// let (mut all, mut after) = (AllReports::default(), None);
    /// loop {
    ///     let page = arbiter.report_page(after, 64, &mut |_| ());
    ///     after = page.next;
    ///     all.take(page);
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(all.phases.open, 0);
    /// ```
    #[must_use]
    pub fn report_page(
        &self,
        after: Option<Slot>,
        most: usize,
        at: &mut dyn FnMut(Option<Slot>),
    ) -> ReportPage {
        let mut rest = self.active_after(after).peekable();
        let (mut channels, mut last) = (Vec::new(), None);
        while channels.len() < most.max(1)
            && let Some((slot, active)) = rest.next()
        {
            at(Some(slot));
            let picture = active.picture.as_deref();
            let now = self.now(slot, &active.facts);
            channels.push(ChannelReport::by(&active.facts, &active.state, picture, &now));
            last = Some(slot);
        }
        at(None);
        let next = if rest.peek().is_some() { last } else { None };
        let quiet = self.len().saturating_sub(self.active_len());
        ReportPage { tip: self.height(), quiet, quarantined: Vec::new(), channels, next }
    }
}
