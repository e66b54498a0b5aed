//! Whoever waits until nothing is under way: each for a round through the mempool that began after it
//! had asked, and for no later one.
use crate::command::Reply;

#[derive(Default)]
pub(super) struct Idlers(Vec<Idler>);

struct Idler {
    /// How many rounds had begun when it asked.
    begun: u64,
    reply: Reply<()>,
}

impl Idlers {
    pub(super) fn push(&mut self, begun: u64, reply: Reply<()>) {
        self.tidy();
        self.0.push(Idler { begun, reply });
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are gone are forgotten.
    pub(super) fn tidy(&mut self) {
        self.0.retain(|idler| !idler.reply.is_closed());
    }

    /// Nothing is under way, and this round through the mempool was the last to end.
    pub(super) fn answer(&mut self, ended: u64) {
        for idler in self.0.extract_if(.., |idler| idler.begun < ended) {
            idler.reply.send(Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut idlers = Idlers::default();
        for _ in 0..1_000 {
            idlers.push(0, Reply::new(oneshot::channel().0));
        }
        assert_eq!(idlers.len(), 1);
    }

    #[test]
    fn a_round_that_had_begun_before_is_not_enough() {
        let mut idlers = Idlers::default();
        let (first, mut of_first) = oneshot::channel();
        let (second, mut of_second) = oneshot::channel();
        idlers.push(0, Reply::new(first));
        idlers.push(1, Reply::new(second));
        idlers.answer(1);
        assert!(of_first.try_recv().is_ok());
        assert!(of_second.try_recv().is_err());
        idlers.answer(2);
        assert!(of_second.try_recv().is_ok() && idlers.is_empty());
    }
}
