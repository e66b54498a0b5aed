//! Statements about what the arbiter is told and what befalls it.

use super::Parser;
use crate::scenario::ast::{ArbiterStep, BumpTarget, DeliveryMode, Mode, PortState, Whose};
use crate::scenario::error::Wrong;
use crate::scenario::lex::Args;
use crate::scenario::value;

const SWITCH: [(&str, PortState); 2] = [("off", PortState::Fails), ("on", PortState::Works)];
const DISK: [(&str, PortState); 2] = [("full", PortState::Fails), ("ok", PortState::Works)];
const MODES: [(&str, Mode); 3] =
    [("observe", Mode::Observe), ("guard", Mode::Guard), ("own", Mode::Own)];

impl Parser {
    pub(super) fn arbiter(
        &mut self,
        statement: &str,
        args: &mut Args<'_>,
    ) -> Result<Option<ArbiterStep>, Wrong> {
        Ok(Some(match statement {
            "fail" => ArbiterStep::Fail(self.names.channel(args.next("a channel")?)?),
            "preimage" => {
                let hash = args.next("a hash name")?;
                ArbiterStep::Preimage(self.names.tell(self.line, hash))
            }
            "subscribe" => self.subscribe(args)?,
            "acknowledge" => {
                ArbiterStep::Acknowledge(self.names.subscribed(args.next("a subscriber")?)?)
            }
            "unsubscribe" => {
                ArbiterStep::Unsubscribe(self.names.unsubscribe(args.next("a subscriber")?)?)
            }
            "bump" => self.bump(args)?,
            "restart" => ArbiterStep::Restart,
            "kill" => ArbiterStep::Kill,
            "offline" => {
                let blocks = args.next("a number of blocks")?;
                ArbiterStep::Offline(value::positive("a number of blocks", blocks)?)
            }
            "signer" => match (args.optional("wrong")?, args.optional("off")?) {
                (Some(output), None) => ArbiterStep::SignedWrongly(self.names.output(output)?),
                (None, Some(channel)) => ArbiterStep::SignerOffFor(self.names.channel(channel)?),
                _ => ArbiterStep::Signer(value::choice(args.next("on or off")?, &SWITCH)?),
            },
            "broadcaster" => {
                let state = value::choice(args.next("on or off")?, &SWITCH)?;
                let whose = match args.optional("only")? {
                    None => Whose::Everybody,
                    Some(text) => value::choice(text, &[("ldk", Whose::Ldk)])?,
                };
                ArbiterStep::Broadcaster { state, whose }
            }
            "mode" => {
                let words: Vec<&str> = MODES.iter().map(|(word, _)| *word).collect();
                ArbiterStep::Mode(value::choice(args.next(&value::one_of(&words))?, &MODES)?)
            }
            "disk" => ArbiterStep::Disk(value::choice(args.next("full or ok")?, &DISK)?),
            _ => return Ok(None),
        }))
    }

    fn subscribe(&mut self, args: &mut Args<'_>) -> Result<ArbiterStep, Wrong> {
        let channel = self.names.channel(args.next("a channel")?)?;
        let subscriber = self.names.subscribe(args.next("a subscriber name")?)?;
        let delivery = match args.next_if_any() {
            None => DeliveryMode::Detached,
            Some(text) => value::choice(text, &[("acknowledged", DeliveryMode::Acknowledged)])?,
        };
        Ok(ArbiterStep::Subscribe { channel, subscriber, delivery })
    }

    fn bump(&mut self, args: &mut Args<'_>) -> Result<ArbiterStep, Wrong> {
        let text = args.next("a channel, or an output like a.h1")?;
        let target = if text.contains('.') {
            BumpTarget::Output(self.names.output(text)?)
        } else {
            BumpTarget::Channel(self.names.channel(text)?)
        };
        if let Some(budget) = args.optional("budget")? {
            let budget = value::whole_sat(budget)?;
            return Ok(ArbiterStep::Budget { target, budget });
        }
        if let Some(deadline) = args.optional("deadline")? {
            let deadline = value::above_tip(deadline)?;
            return Ok(ArbiterStep::Deadline { target, deadline });
        }
        if let Some(place) = args.optional("to")? {
            value::choice(place, &[("aside", ())])?;
            return Ok(ArbiterStep::SendAside(target));
        }
        let feerate = value::feerate(args.required("feerate")?)?;
        Ok(ArbiterStep::Bump { target, feerate })
    }
}
