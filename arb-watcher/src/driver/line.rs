//! The line before the wallet: claims ask for coins in the order in which they were handed to workers, one at a time. There may not be
//! enough for all, and whoever asks first is served.
use std::future::Future;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The end of the line.
#[derive(Debug, Default)]
pub(super) struct Line(Option<oneshot::Receiver<()>>);

/// A place in the line. The next has its turn when this is dropped, however its holder ends.
#[derive(Debug)]
pub(super) struct Place {
    before: Option<oneshot::Receiver<()>>,
    _next: oneshot::Sender<()>,
}

impl Line {
    /// The place behind all others.
    pub(super) fn join(&mut self) -> Place {
        let (next, done) = oneshot::channel();
        Place { before: self.0.replace(done), _next: next }
    }
}

impl Place {
    /// Does it after all that stand before, or after so long if they are not done by then.
    pub(super) async fn after_those_before<T>(
        mut self,
        work: impl Future<Output = T>,
        patience: Duration,
    ) -> T {
        if let Some(before) = self.before.take() {
            // That it was dropped is what is waited for.
            let _ = timeout(patience, before).await;
        }
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[tokio::test(start_paused = true)]
    async fn they_come_in_their_order_and_nobody_waits_for_who_is_gone() {
        let (mut line, came) = (Line::default(), Arc::new(Mutex::new(Vec::new())));
        let patience = Duration::from_secs(30);
        let places: Vec<Place> = (0..5).map(|_| line.join()).collect();
        let mut all = Vec::new();
        for (at, place) in places.into_iter().enumerate().rev() {
            let came = came.clone();
            let work = async move {
                came.lock().expect("no panic with the lock").push(at);
                match at {
                    1 => panic!("it ends so"),
                    2 => std::future::pending().await,
                    _ => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            };
            all.push(tokio::spawn(place.after_those_before(work, patience)));
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(*came.lock().expect("no panic with the lock"), [0, 1, 2]);
        tokio::time::sleep(patience).await;
        let mut all = came.lock().expect("no panic with the lock").clone();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
    }
}
