//! The way into the driver: a bounded queue, and room in it that is reserved before it is used.
use crate::command::{Answer, Command, CommandError, Envelope};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::oneshot;

type Reserving =
    Pin<Box<dyn Future<Output = Result<OwnedPermit<Envelope>, SendError<()>>> + Send + Sync>>;

/// A handle's end of the queue. A clone of it has reserved nothing.
pub(crate) struct Sender {
    queue: mpsc::Sender<Envelope>,
    room: Room,
}

/// Room in the queue for one command.
enum Room {
    None,
    Awaited(Reserving),
    Reserved(OwnedPermit<Envelope>),
}

impl Sender {
    pub(crate) const fn new(queue: mpsc::Sender<Envelope>) -> Self {
        Self { queue, room: Room::None }
    }

    /// Resolves once the driver takes no more commands.
    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }

    /// Waits for room.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CommandError>> {
        loop {
            match &mut self.room {
                Room::Reserved(_) => return Poll::Ready(Ok(())),
                Room::None => {
                    self.room = Room::Awaited(Box::pin(self.queue.clone().reserve_owned()));
                }
                Room::Awaited(reserving) => {
                    let reserved = ready!(reserving.as_mut().poll(cx));
                    self.room = reserved.map_or(Room::None, Room::Reserved);
                    if matches!(self.room, Room::None) {
                        return Poll::Ready(Err(CommandError::Stopped));
                    }
                }
            }
        }
    }

    /// Sends a command once there is room, and waits for the answer without holding the queue open.
    pub(crate) async fn ask(mut self, command: Command) -> Result<Answer, CommandError> {
        if !matches!(self.room, Room::Reserved(_)) {
            let permit = self.queue.clone().reserve_owned().await;
            self.room = Room::Reserved(permit.map_err(|_| CommandError::Stopped)?);
        }
        let answering = self.send(command);
        drop(self);
        answering.await
    }

    /// Sends a command into the room that was reserved; without any, into what room there is.
    pub(crate) fn send(&mut self, command: Command) -> Answering {
        let (answer, mut answered) = oneshot::channel();
        let envelope = Envelope { command, answer };
        let refused = match std::mem::replace(&mut self.room, Room::None) {
            Room::Reserved(permit) => {
                permit.send(envelope);
                None
            }
            Room::None | Room::Awaited(_) => self.queue.try_send(envelope).err(),
        };
        if let Some(refused) = refused {
            let (why, envelope) = match refused {
                TrySendError::Full(envelope) => (CommandError::Busy, envelope),
                TrySendError::Closed(envelope) => (CommandError::Stopped, envelope),
            };
            // The other end is in this function's hands.
            let _ = envelope.answer.send(Err(why));
        }
        if self.queue.is_closed() {
            // Into a place that was reserved before the driver ended: nobody takes it from there.
            answered.close();
        }
        Answering(answered)
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        Self::new(self.queue.clone())
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reserved = matches!(self.room, Room::Reserved(_));
        f.debug_struct("Sender").field("reserved", &reserved).finish_non_exhaustive()
    }
}

/// The answer to a command that was sent. Dropping it takes nothing back that the driver has
/// begun, and leaves nothing behind.
#[derive(Debug)]
#[must_use = "an answer must be awaited"]
pub struct Answering(oneshot::Receiver<Result<Answer, CommandError>>);

impl Future for Answering {
    type Output = Result<Answer, CommandError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(answer.unwrap_or(Err(CommandError::Stopped)))
    }
}
