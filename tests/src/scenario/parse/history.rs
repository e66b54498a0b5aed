//! Statements of the off-chain history.

use super::Parser;
use crate::scenario::ast::{
    ChannelName, History, HtlcRef, Offer, Receive, ReceivedRole, Side, SpliceConfirmation, Stage,
};
use crate::scenario::error::Wrong;
use crate::scenario::lex::Args;
use crate::scenario::names::NewHtlc;
use crate::scenario::value;

const CONFIRMATIONS: [(&str, SpliceConfirmation); 2] =
    [("yes", SpliceConfirmation::Confirms), ("no", SpliceConfirmation::StaysUnconfirmed)];

impl Parser {
    pub(super) fn history(
        &mut self,
        statement: &str,
        args: &mut Args<'_>,
    ) -> Result<Option<History>, Wrong> {
        Ok(Some(match statement {
            "offer" => self.offer(args)?,
            "receive" => self.receive(args)?,
            "settle" => History::Settle(self.removed(args)?),
            "cancel" => History::Cancel(self.removed(args)?),
            "update" => self.update(args)?,
            "update_fee" => self.update_fee(args)?,
            "splice" => self.splice(args)?,
            "shutdown" => History::Shutdown(self.growing(args)?),
            "forget-since" => self.forget_since(args)?,
            _ => return Ok(None),
        }))
    }

    /// The channel of a history statement that may not follow a staged one.
    fn growing(&self, args: &mut Args<'_>) -> Result<ChannelName, Wrong> {
        self.names.unstaged_channel(args.next("a channel")?)
    }

    /// The channel and the stage of an `offer` or `receive`.
    fn staging(&self, args: &mut Args<'_>) -> Result<(ChannelName, Stage), Wrong> {
        let channel = args.next("a channel")?;
        match args.optional("stage")? {
            None => Ok((self.names.unstaged_channel(channel)?, Stage::Committed)),
            Some(text) => {
                let stage = value::choice(text, &[("next", Stage::Next)])?;
                Ok((self.names.channel(channel)?, stage))
            }
        }
    }

    fn offer(&mut self, args: &mut Args<'_>) -> Result<History, Wrong> {
        let (channel, stage) = self.staging(args)?;
        let htlc = self.names.htlc_name(&channel, args.next("an HTLC name")?)?;
        let amount = value::amount(args.required("amount")?)?;
        let expiry = value::above_tip(args.required("expiry")?)?;
        let hash = args.optional("hash")?;
        let upstream = args.optional("upstream")?.map(|text| self.names.upstream(text));
        let upstream = upstream.transpose()?;
        let new = NewHtlc {
            htlc: &htlc,
            offerer: Side::Local,
            hash,
            upstream: upstream.as_ref(),
            staged: stage == Stage::Next,
        };
        let hash = self.names.declare_htlc(&new)?;
        Ok(History::Offer(Offer { htlc, amount, expiry, hash, upstream, stage }))
    }

    fn receive(&mut self, args: &mut Args<'_>) -> Result<History, Wrong> {
        let (channel, stage) = self.staging(args)?;
        let htlc = self.names.htlc_name(&channel, args.next("an HTLC name")?)?;
        let amount = value::amount(args.required("amount")?)?;
        let expiry = value::above_tip(args.required("expiry")?)?;
        let hash = args.optional("hash")?;
        let staged = stage == Stage::Next;
        let new = NewHtlc { htlc: &htlc, offerer: Side::Remote, hash, upstream: None, staged };
        let hash = self.names.declare_htlc(&new)?;
        // A later `offer` may forward it: the role is settled at the end of the file.
        let role = ReceivedRole::Final;
        Ok(History::Receive(Receive { htlc, amount, expiry, hash, role, stage }))
    }

    fn removed(&mut self, args: &mut Args<'_>) -> Result<HtlcRef, Wrong> {
        let channel = self.growing(args)?;
        self.names.remove_htlc(&channel, args.next("an HTLC name")?)
    }

    fn update(&mut self, args: &mut Args<'_>) -> Result<History, Wrong> {
        let channel = self.growing(args)?;
        let count = value::count::<u64>("a number of commitments", args.required("n")?)?;
        self.names.advance(&channel, count)?;
        Ok(History::Update { channel, count })
    }

    fn update_fee(&mut self, args: &mut Args<'_>) -> Result<History, Wrong> {
        let channel = self.growing(args)?;
        let feerate = value::feerate(args.next("a feerate")?)?;
        self.names.advance(&channel, 1)?;
        Ok(History::UpdateFee { channel, feerate })
    }

    fn splice(&mut self, args: &mut Args<'_>) -> Result<History, Wrong> {
        let channel = self.growing(args)?;
        let capacity = value::whole_sat(args.required("capacity")?)?;
        let confirm = args
            .optional("confirm")?
            .map_or(Ok(SpliceConfirmation::Confirms), |text| value::choice(text, &CONFIRMATIONS))?;
        Ok(History::Splice { channel, capacity, confirm })
    }

    fn forget_since(&mut self, args: &mut Args<'_>) -> Result<History, Wrong> {
        let channel = self.growing(args)?;
        let text = args.next("a commitment number like #5")?;
        let number = value::commitment_number(text)?;
        let last = self.names.number(&channel);
        if number > last {
            return Err(Wrong::new(format!("a commitment number up to #{last}"), text));
        }
        Ok(History::ForgetSince { channel, number })
    }
}
