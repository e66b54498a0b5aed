//! What the handle tells of the channels: reports, what a close would cost, blocks.
use super::Arbiter;
use crate::command::{Answer, Command, CommandError, Counts, Reserve};
use crate::epochs::Epochs;
use arb_core::ids::ChannelId;
use arb_core::report::{AllReports, ChannelReport, ClosingCost};
use bitcoin::FeeRate;

impl Arbiter {
    /// Everything about a channel; `None` if it is not watched, or forgotten.
    ///
    /// ```
    /// use arb_core::ids::ChannelId;
    /// use arb_watcher::{Arbiter, CommandError};
    ///
    /// async fn print(arbiter: &Arbiter, id: ChannelId) -> Result<(), CommandError> {
    ///     match arbiter.report(id).await {
    ///         Ok(Some(report)) => {
    ///             println!("{id} is {:?}, next at {:?}", report.phase, report.next);
    ///             for output in &report.outputs {
    ///                 println!("{}: {} is {:?}", output.outpoint, output.amount, output.state);
    ///             }
    ///         }
    ///         Ok(None) => println!("{id} is over, or never was"),
    ///         Err(CommandError::SetAside { why, again, .. }) => {
    ///             println!("{id} is set aside: {why}; tried again in {again:?}");
    ///         }
    ///         Err(error) => return Err(error),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The channel is set aside ([`CommandError::SetAside`] says why, and when it is tried again), the
    /// store cannot be read, or the driver has ended.
    pub async fn report(&self, id: ChannelId) -> Result<Option<ChannelReport>, CommandError> {
        match self.ask(Command::Report(id)).await? {
            Answer::Report(report) => Ok(report.map(|report| *report)),
            _ => Err(CommandError::Stopped),
        }
    }

    /// A dry run: what closing the channel now would cost if every transaction paid `feerate`, in
    /// which transactions, and when the last satoshi would be home; of a closed channel, what the
    /// rest costs. Nothing is done. `None`: we have no commitment that may be broadcast.
    ///
    /// ```
    /// use arb_core::ids::ChannelId;
    /// use arb_watcher::{Arbiter, CommandError};
    /// use bitcoin::FeeRate;
    ///
    /// async fn compare(arbiter: &Arbiter, id: ChannelId) -> Result<(), CommandError> {
    ///     for rate in [1, 10, 100].map(FeeRate::from_sat_per_vb_unchecked) {
    ///         if let Some(cost) = arbiter.closing_cost(id, rate).await? {
    ///             println!("at {rate}: {} in fees, home at {:?}", cost.fees, cost.home_at);
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// No such channel, or its records cannot be read.
    pub async fn closing_cost(
        &self,
        id: ChannelId,
        feerate: FeeRate,
    ) -> Result<Option<ClosingCost>, CommandError> {
        match self.ask(Command::ClosingCost { id, feerate }).await? {
            Answer::ClosingCost(cost) => Ok(cost.map(|cost| *cost)),
            _ => Err(CommandError::Stopped),
        }
    }

    /// What the wallet must have to defend all channels if every transaction paid `feerate`: an upper
    /// bound, in which nothing is shared between channels or HTLCs. Reads the facts of every channel, a
    /// few at a time; blocks and commands are taken meanwhile.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::Arbiter;
    /// use bitcoin::{Amount, FeeRate};
    #[doc = include_str!("../../doc/start.md")]
    /// let reserve = arbiter.reserve(FeeRate::from_sat_per_vb_unchecked(50)).await?;
    /// println!("{} for {} channels at 50 sat/vB", reserve.total(), reserve.channels);
    /// assert_eq!(reserve.total(), Amount::ZERO); // it watches none
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn reserve(&self, feerate: FeeRate) -> Result<Reserve, CommandError> {
        let mut all = Reserve::default();
        loop {
            let from = all.channels;
            let Answer::Reserve(page) = self.ask(Command::Reserve { feerate, from }).await? else {
                return Err(CommandError::Stopped);
            };
            if page.channels == 0 {
                return Ok(all);
            }
            all = all.and(page);
        }
    }

    /// Blocks as the arbiter digests them, the present tip first.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::{Arbiter, Epoch};
    #[doc = include_str!("../../doc/start.md")]
    /// let mut epochs = arbiter.epochs().await?;
    /// while let Some(epoch) = epochs.next().await {
    ///     if let Epoch::Connected { block, .. } = epoch {
    ///         println!("{} at height {}", block.hash, block.height.0);
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn epochs(&self) -> Result<Epochs, CommandError> {
        match self.ask(Command::Epochs).await? {
            Answer::Epochs(epochs) => Ok(epochs),
            _ => Err(CommandError::Stopped),
        }
    }

    /// What is open and under way.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::{Arbiter, Counts};
    #[doc = include_str!("../../doc/start.md")]
    /// arbiter.idle().await?;
    /// let notices = arbiter.notices().await?;
    /// assert_eq!(arbiter.counts().await?, Counts { notices: 1, ..Counts::default() });
    /// drop(notices);
    /// assert_eq!(arbiter.counts().await?, Counts::default());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn counts(&self) -> Result<Counts, CommandError> {
        match self.ask(Command::Counts).await? {
            Answer::Counts(counts) => Ok(counts),
            _ => Err(CommandError::Stopped),
        }
    }

    /// What there is to report of all channels: counts by phase, and everything about each channel
    /// that is not open and quiet. Quiet ones are counted only, so that their number costs nothing;
    /// the others are asked for in pages, and blocks and commands are taken between two.
    ///
    /// ```
    /// use arb_watcher::{Arbiter, CommandError};
    ///
    /// async fn print_what_is_pending(arbiter: &Arbiter) -> Result<(), CommandError> {
    ///     let all = arbiter.report_all().await?;
    ///     println!("{:?}, {} set aside", all.phases, all.quarantined.len());
    ///     for output in all.channels.iter().flat_map(|channel| &channel.outputs) {
    ///         println!("{}: {} is {:?}", output.outpoint, output.amount, output.state);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn report_all(&self) -> Result<AllReports, CommandError> {
        let (mut all, mut after) = (AllReports::default(), None);
        loop {
            let Answer::ReportPage(page) = self.ask(Command::ReportPage { after }).await? else {
                return Err(CommandError::Stopped);
            };
            after = page.next;
            all.take(*page);
            if after.is_none() {
                return Ok(all);
            }
        }
    }
}
