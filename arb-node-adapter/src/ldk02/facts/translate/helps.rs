//! What can only help: secrets and preimages, told by themselves.
use super::{Translation, Untranslated, remote_id};
use crate::ldk02::facts::monitor::Known;
use crate::ldk02::facts::update::Step;
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{HtlcLink, Update};
use arb_core::ids::{HtlcId, Side};

impl Translation<'_> {
    /// Secrets and preimages of an update whose other steps do not hold. What does not follow from the facts
    /// is left out.
    pub(in crate::ldk02::facts) fn helps(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Local(step) => {
                    for (source, preimage) in &step.claimed {
                        let id = self.own().ok().and_then(|book| book.offered.get(source).copied());
                        let Some(id) = id else { continue };
                        let source =
                            PreimageSource::Downstream(HtlcId { offerer: Side::Local, id });
                        self.learn(*preimage, source);
                    }
                }
                Step::Preimage { preimage, recipient_of } => {
                    if self.preimage(*preimage, recipient_of.as_deref()).is_err() {
                        self.learn(*preimage, PreimageSource::Node);
                    }
                }
                Step::Secret { number, secret } => {
                    let revoked = Update::RemoteRevoked { number: *number, secret: *secret };
                    let _unfit = self.tell(revoked);
                }
                Step::Remote(_)
                | Step::ForceClosed
                | Step::Shutdown(_)
                | Step::Nothing
                | Step::Splice(_)
                | Step::Locked(_) => {}
            }
        }
    }

    /// What a monitor knows, however it came to know it: the secrets that the facts wait for, and the preimages of
    /// received HTLCs. One that is linked to none is ours to take: a forward would have been seen.
    pub(in crate::ldk02::facts) fn known(&mut self, known: &Known) -> Result<(), Untranslated> {
        loop {
            let number = self.own()?.facts.candidates.current.remote.number;
            let Some(secret) = known.secrets.get(number) else { break };
            if self.tell(Update::RemoteRevoked { number, secret }).is_err() {
                break;
            }
        }
        let book = self.own()?;
        let closed = book.received().filter(|(id, _)| !book.opened.contains(id));
        let opened = closed.filter_map(|(id, record)| {
            Some((id, record.htlc.link, *known.preimages.get(&record.htlc.hash.0)?))
        });
        for (id, link, preimage) in opened.collect::<Vec<_>>() {
            let source = match link {
                HtlcLink::ForwardedTo { .. } => PreimageSource::Linked(remote_id(id)),
                HtlcLink::Uncommitted | HtlcLink::Final => {
                    self.tell(Update::HtlcLinked { id: remote_id(id), link: HtlcLink::Final })?;
                    PreimageSource::Node
                }
                HtlcLink::OwnPayment | HtlcLink::ForwardOf { .. } => continue,
            };
            self.open(id, preimage, source)?;
        }
        Ok(())
    }
}
