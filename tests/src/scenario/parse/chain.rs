//! Statements about the chain and its mempool.

use super::Parser;
use crate::scenario::ast::{
    BlockFill, ChannelName, ClaimGrouping, Dropped, Excluded, OnChain, PublishedSpend,
};
use crate::scenario::error::Wrong;
use crate::scenario::lex::Args;
use crate::scenario::value;

impl Parser {
    pub(super) fn on_chain(
        &mut self,
        statement: &str,
        args: &mut Args<'_>,
    ) -> Result<Option<OnChain>, Wrong> {
        Ok(Some(match statement {
            "publish" => self.publish(args)?,
            "peer" => self.peer(args)?,
            "mine" => self.mine(args)?,
            "reorg" => self.reorg(args)?,
            "feerate" => OnChain::Feerate {
                estimate: value::feerate(args.next("a feerate")?)?,
                floor: args.optional("floor")?.map(value::feerate).transpose()?,
            },
            _ => return Ok(None),
        }))
    }

    fn publish(&mut self, args: &mut Args<'_>) -> Result<OnChain, Wrong> {
        let channel = self.names.channel(args.next("a channel")?)?;
        let what = value::one_of(&["local", "remote", "mutual", "unknown", "invalid"]);
        let spend = match args.next(&what)? {
            "local" => PublishedSpend::Local,
            "mutual" => PublishedSpend::Mutual,
            "unknown" => PublishedSpend::Unknown,
            "invalid" => PublishedSpend::Invalid,
            "remote" => self.published_remote(&channel, args)?,
            other => return Err(Wrong::new(what, other)),
        };
        let feerate = match spend {
            PublishedSpend::Mutual | PublishedSpend::Unknown | PublishedSpend::Invalid => None,
            PublishedSpend::Local
            | PublishedSpend::Remote
            | PublishedSpend::RemoteNext
            | PublishedSpend::RemoteNumber(_) => args.optional("feerate")?,
        };
        let feerate = feerate.map(value::feerate).transpose()?;
        Ok(OnChain::Publish { channel, spend, feerate })
    }

    fn published_remote(
        &self,
        channel: &ChannelName,
        args: &mut Args<'_>,
    ) -> Result<PublishedSpend, Wrong> {
        match args.next_if_any() {
            None => Ok(PublishedSpend::Remote),
            Some("next") if self.names.has_next(channel) => Ok(PublishedSpend::RemoteNext),
            Some("next") => Err(Wrong::new(format!("stage=next in {channel} before"), "next")),
            Some(text) => {
                let wrong = |_| Wrong::new("next or a commitment number like #5", text);
                let number = value::commitment_number(text).map_err(wrong)?;
                let last = self.names.last_remote_number(channel);
                if number > last {
                    return Err(Wrong::new(format!("a commitment number up to #{last}"), text));
                }
                Ok(PublishedSpend::RemoteNumber(number))
            }
        }
    }

    fn peer(&mut self, args: &mut Args<'_>) -> Result<OnChain, Wrong> {
        match args.next("claims, crowds, pays, replaces or withdraws")? {
            "claims" => self.peer_claims(args),
            "crowds" => Ok(OnChain::PeerCrowds {
                channel: self.names.channel(args.next("a channel")?)?,
                feerate: value::feerate(args.required("feerate")?)?,
                heavy: args.flag("heavy"),
            }),
            "pays" => Ok(OnChain::PeerPays {
                channel: self.names.channel(args.next("a channel")?)?,
                feerate: value::feerate(args.required("feerate")?)?,
            }),
            "replaces" => Ok(OnChain::PeerReplaces {
                htlc: self.names.htlc(args.next("an HTLC like a.h1")?)?,
                feerate: value::feerate(args.required("feerate")?)?,
            }),
            "withdraws" => Ok(OnChain::PeerWithdraws {
                htlc: self.names.htlc(args.next("an HTLC like a.h1")?)?,
                feerate: value::feerate(args.required("feerate")?)?,
            }),
            other => Err(Wrong::new("claims, crowds, pays, replaces or withdraws", other)),
        }
    }

    fn peer_claims(&mut self, args: &mut Args<'_>) -> Result<OnChain, Wrong> {
        let first = args.next("HTLCs like a.h1")?;
        if first == "second-level" {
            let htlc = self.names.htlc(args.next("an HTLC like a.h1")?)?;
            return Ok(OnChain::PeerClaimsSecondLevel(htlc));
        }
        let mut grouping = ClaimGrouping::OneEach;
        let mut htlcs = Vec::new();
        let mut word = Some(first);
        while let Some(text) = word {
            if text == "together" && grouping == ClaimGrouping::OneEach {
                grouping = ClaimGrouping::Together;
            } else {
                let htlc = self.names.htlc(text)?;
                if htlcs.contains(&htlc) {
                    return Err(Wrong::new("each HTLC once", format!("{text} again")));
                }
                htlcs.push(htlc);
            }
            word = args.next_if_any();
        }
        if htlcs.is_empty() {
            return Err(Wrong::new("HTLCs like a.h1", "the end of the line"));
        }
        let feerate = args.optional("feerate")?.map(value::feerate).transpose()?;
        Ok(OnChain::PeerClaims { htlcs, feerate, grouping })
    }

    fn mine(&mut self, args: &mut Args<'_>) -> Result<OnChain, Wrong> {
        let empty = args.flag("empty");
        let blocks =
            args.next_if_any().map_or(Ok(1), |text| value::positive("a number of blocks", text))?;
        let without = args.optional("without")?;
        let fill = match (empty, without) {
            (false, None) => BlockFill::Mempool,
            (true, None) => BlockFill::Empty,
            (true, Some(_)) => {
                return Err(Wrong::new("either empty or without=", "both of them"));
            }
            (false, Some(text)) => {
                let excluded = text.split(',').map(|text| match text {
                    "ours" => Ok(Excluded::Ours),
                    _ => self.names.output(text).map(Excluded::Touching).map_err(|wrong| {
                        Wrong::new(format!("ours or {}", wrong.expected), wrong.found)
                    }),
                });
                BlockFill::Without(excluded.collect::<Result<_, _>>()?)
            }
        };
        Ok(OnChain::Mine { blocks, fill })
    }

    fn reorg(&mut self, args: &mut Args<'_>) -> Result<OnChain, Wrong> {
        let blocks = value::positive("a number of blocks", args.next("a number of blocks")?)?;
        let drop = match args.optional("drop")? {
            None => Vec::new(),
            Some(text) => {
                text.split(',').map(|text| self.dropped(text)).collect::<Result<_, _>>()?
            }
        };
        Ok(OnChain::Reorg { blocks, drop })
    }

    /// `a.remote`, or `remote` where there is only one channel.
    fn dropped(&self, text: &str) -> Result<Dropped, Wrong> {
        let what = "local, remote, mutual, unknown, splice or an HTLC";
        let (channel, spend) = match text.split_once('.') {
            Some((channel, spend)) => (self.names.channel(channel)?, spend),
            None => {
                let only = self.names.only_channel().cloned();
                let wrong = || Wrong::new(format!("the channel in front of {what}"), text);
                (only.ok_or_else(wrong)?, text)
            }
        };
        match spend {
            "local" => Ok(Dropped::Local(channel)),
            "remote" => Ok(Dropped::Remote(channel)),
            "mutual" => Ok(Dropped::Mutual(channel)),
            "unknown" => Ok(Dropped::Unknown(channel)),
            "splice" => Ok(Dropped::Splice(channel)),
            _ => {
                let htlc = self.names.htlc(&format!("{channel}.{spend}"));
                htlc.map(Dropped::Htlc).map_err(|_| Wrong::new(what, text))
            }
        }
    }
}
