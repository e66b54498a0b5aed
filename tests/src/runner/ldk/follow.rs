//! What LDK's nodes end by themselves as soon as they are connected: the other side of a forward, or what
//! expires too soon. The model follows, as if the story had said so.
use super::check::Outcome;
use super::{Runner, US};
use crate::peer::{Removal, Side};
use crate::runner::Failed;
use crate::scenario::ast::{ChannelName, HtlcRef};

impl Runner<'_> {
    /// The model of a channel has no HTLC any more that was removed since the call, and that it has still.
    pub(super) fn follow(&mut self, channel: &ChannelName) -> Result<(), Failed> {
        let nodes = self.nodes()?;
        let (id, removed) = (nodes.ends(channel)?.id, nodes.lines.take_removed());
        for removed in removed.into_iter().filter(|removed| removed.channel == id) {
            let offerer = if removed.by == US { Side::Remote } else { Side::Local };
            let model = &mut self.chan_mut(channel)?.peer;
            let (mut together, mut ended) = (Vec::new(), Vec::new());
            for (id, fulfilled) in removed.htlcs {
                let known = model.htlcs().iter();
                let mut known = known.filter(|of| of.htlc.offerer == offerer && of.htlc.id == id);
                let Some(known) = known.next().filter(|of| model.is_pending(&of.name)) else {
                    continue;
                };
                let (removal, outcome) = if fulfilled {
                    (Removal::Fulfilled { preimage: known.preimage }, Outcome::Sent)
                } else {
                    (Removal::Failed, Outcome::Failed)
                };
                together.push((known.name.clone(), removal));
                ended.push((known.name.clone(), outcome));
            }
            if together.is_empty() {
                continue;
            }
            model.remove_together(&together)?;
            for (htlc, outcome) in ended {
                self.trace.line(|| format!("     ldk {channel}.{htlc} {outcome:?}"));
                let htlc = HtlcRef { channel: channel.clone(), htlc };
                self.nodes_mut()?.ended.insert(htlc, outcome);
            }
        }
        Ok(())
    }
}
