//! What a connection, its stream and its task know together.
//!
//! Owns the answer to one question, without a round trip: is anything in
//! flight? Does not know statements, and does no I/O.
//!
//! Three places can hold a request: the client's queue, the client's write
//! buffer, and the server. The stream sees the last two. The queue is emptied by
//! the connection's task whenever it is polled, and putting a request into it
//! wakes the task. So the task's waker is this link, which notes being rung: a
//! task that has gone to sleep, and was not rung since, has left the queue
//! empty. That holds for whoever used the client, through the driver or past it.
//! Bytes from the server come by another waker and ring nothing: whether an
//! answer is owed is counted, and one that is owed to nobody disturbs nobody.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use millpond_driver::Error;

use crate::error;
use crate::notifications::Mailbox;
use crate::sniff::Sniffer;

/// The task has left nothing to send, and nothing has rung since.
const ASLEEP: u8 = 0;
/// The task is being polled, and may send something.
const AWAKE: u8 = 1;
/// The task is to be polled: there may be something to send.
const RUNG: u8 = 2;

/// The server does not tell its role.
const UNTOLD: u8 = 0;
const PRIMARY: u8 = 1;
const STANDBY: u8 = 2;

#[derive(Default)]
pub(crate) struct Link {
    /// One of the first three above.
    stage: AtomicU8,
    /// The transaction status as the server last told it.
    status: AtomicU8,
    /// Answers that somebody waits for. Written after `status`, read before it.
    owed: AtomicU32,
    /// The socket takes no more bytes for now, so the queue may not be empty.
    blocked: AtomicBool,
    /// Bytes that have left, modulo 2³².
    sent: AtomicU32,
    /// The tag of the last statement that completed.
    tag: AtomicU64,
    /// Whether answers still belong to their questions is to be proved.
    doubt: AtomicBool,
    /// Requests to cancel that may still reach the server.
    cancels: AtomicU32,
    /// One of the last three above.
    role: AtomicU8,
    /// The number by which the session is to be cancelled, 0 for none.
    process: AtomicU32,
    /// The server has told parameters that the task has not looked at.
    parameters_changed: AtomicBool,
    /// The connection is gone and its task is to end without goodbye.
    abandoned: AtomicBool,
    /// The task has ended.
    ended: AtomicBool,
    task: AtomicWaker,
    /// Whoever waits for the task to go to sleep or to end: there is one borrower.
    settler: AtomicWaker,
    past: Mutex<Past>,
}

/// What explains the end of a connection, and who is told of notifications.
#[derive(Debug, Default)]
pub(crate) struct Past {
    /// Why the task ended.
    pub(crate) end: Option<Error>,
    /// The last notice that was a warning: a server that is shot down says so
    /// there and nowhere else.
    pub(crate) warning: Option<Error>,
    pub(crate) mailbox: Option<Arc<Mailbox>>,
}

impl Link {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { stage: AtomicU8::new(RUNG), ..Self::default() })
    }

    /// For the stream: bytes have come.
    pub(crate) fn note_received(&self, sniffer: &mut Sniffer) {
        self.status.store(sniffer.status(), Ordering::Relaxed);
        self.tag.store(u64::from_be_bytes(sniffer.tag()), Ordering::Relaxed);
        if sniffer.take_doubt() {
            self.doubt.store(true, Ordering::Relaxed);
        }
        self.process.store(sniffer.process(), Ordering::Relaxed);
        self.owed.store(sniffer.owed(), Ordering::Release);
        if sniffer.take_parameters_changed() {
            self.parameters_changed.store(true, Ordering::Relaxed);
        }
    }

    /// For the stream: bytes have left.
    pub(crate) fn note_sent(&self, sniffer: &Sniffer, bytes: usize) {
        self.owed.store(sniffer.owed(), Ordering::Release);
        let before = self.sent.load(Ordering::Relaxed);
        self.sent.store(before.wrapping_add(bytes as u32), Ordering::Relaxed);
    }

    /// For the stream: the socket takes no more, or does again.
    pub(crate) fn note_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// For the task: it is polled.
    pub(crate) fn wakes(&self, cx: &Context<'_>) {
        self.task.register(cx.waker());
        // Polled for the sake of bytes from the server, it is not disturbed.
        if !self.is_asleep() {
            self.stage.swap(AWAKE, Ordering::AcqRel);
        }
    }

    /// For the task: it has nothing to do.
    pub(crate) fn sleeps(&self) {
        let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
        // If it was rung meanwhile, it is polled again.
        match self.stage.compare_exchange(AWAKE, ASLEEP, success, failure) {
            Ok(_) | Err(ASLEEP) => self.settler.wake(),
            Err(_) => {}
        }
    }

    /// For the task: whether parameters are to be looked at.
    pub(crate) fn take_parameters_changed(&self) -> bool {
        // Set by the stream, which only the task polls.
        let changed = self.parameters_changed.load(Ordering::Relaxed);
        if changed {
            self.parameters_changed.store(false, Ordering::Relaxed);
        }
        changed
    }

    /// Whether the server follows another one, if it tells.
    pub(crate) fn set_standby(&self, standby: Option<bool>) {
        let role = match standby {
            None => UNTOLD,
            Some(false) => PRIMARY,
            Some(true) => STANDBY,
        };
        self.role.store(role, Ordering::Relaxed);
    }

    pub(crate) fn is_standby(&self) -> Option<bool> {
        match self.role.load(Ordering::Relaxed) {
            UNTOLD => None,
            role => Some(role == STANDBY),
        }
    }

    /// The number by which the session is to be cancelled, 0 for none.
    pub(crate) fn process(&self) -> u32 {
        self.process.load(Ordering::Relaxed)
    }

    /// For the task: it is over.
    pub(crate) fn ends(&self) {
        self.ended.store(true, Ordering::Release);
        if let Some(mailbox) = self.past().mailbox.take() {
            mailbox.end();
        }
        self.settler.wake();
    }

    /// Has the task end without goodbye.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.task.wake();
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether nothing is in flight anywhere. `false` may mean that it is not
    /// known.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_asleep() && self.owed() == 0
    }

    /// Whether every request has left.
    fn is_asleep(&self) -> bool {
        self.stage.load(Ordering::Acquire) == ASLEEP && !self.blocked.load(Ordering::Relaxed)
    }

    /// How many answers the server owes for requests that have left.
    pub(crate) fn owed(&self) -> u32 {
        self.owed.load(Ordering::Acquire)
    }

    /// `I`, `T` or `E`, as the server last told it.
    pub(crate) fn status(&self) -> u8 {
        self.status.load(Ordering::Relaxed)
    }

    /// Whether it is to be proved that answers belong to their questions.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubt.load(Ordering::Relaxed)
    }

    /// It is proved.
    pub(crate) fn trust(&self) {
        self.doubt.store(false, Ordering::Relaxed);
    }

    /// A request to cancel leaves.
    pub(crate) fn cancel_leaves(&self) {
        self.cancels.fetch_add(1, Ordering::Relaxed);
    }

    /// The server has done with it.
    pub(crate) fn cancel_done(&self) {
        self.cancels.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a request to cancel may still come, and stop a later statement.
    pub(crate) fn may_be_cancelled(&self) -> bool {
        self.cancels.load(Ordering::Relaxed) > 0
    }

    /// Bytes that have left, modulo 2³².
    pub(crate) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The first bytes of the tag of the last statement that completed.
    pub(crate) fn tag(&self) -> [u8; 8] {
        self.tag.load(Ordering::Relaxed).to_be_bytes()
    }

    /// Waits until every request has left. `false`: the connection has ended.
    pub(crate) async fn written(&self) -> bool {
        self.until(Self::is_asleep).await
    }

    /// Waits until nothing is in flight. `false`: the connection has ended.
    pub(crate) async fn settled(&self) -> bool {
        self.until(Self::is_quiet).await
    }

    /// Waits for the end of the task.
    pub(crate) async fn over(&self) {
        self.until(|_| false).await;
    }

    async fn until(&self, reached: impl Fn(&Self) -> bool) -> bool {
        poll_fn(|cx| {
            self.settler.register(cx.waker());
            match (self.has_ended(), reached(self)) {
                (true, _) => Poll::Ready(false),
                (false, true) => Poll::Ready(true),
                (false, false) => Poll::Pending,
            }
        })
        .await
    }

    pub(crate) fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That the connection is gone, and why, as far as the server has said.
    pub(crate) fn lost(&self) -> Error {
        let past = self.past();
        error::lost(past.end.as_ref(), past.warning.as_ref())
    }
}

/// Rings: requests, and a socket that takes bytes again, wake the task through
/// here.
impl Wake for Link {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the task can be polled, or its poll would be forgotten.
        self.stage.store(RUNG, Ordering::Release);
        self.task.wake();
    }
}

/// The waker that rings a link.
pub(crate) fn bell(link: &Arc<Link>) -> Waker {
    Waker::from(Arc::clone(link))
}

/// Bytes from the server wake the task through here.
struct Inbound(Arc<Link>);

impl Wake for Inbound {
    fn wake(self: Arc<Self>) {
        self.0.task.wake();
    }
}

/// The waker that has the task polled and rings nothing.
pub(crate) fn inbound(link: &Arc<Link>) -> Waker {
    Waker::from(Arc::new(Inbound(Arc::clone(link))))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    fn polled(link: &Link) {
        link.wakes(&Context::from_waker(Waker::noop()));
        link.sleeps();
    }

    #[test]
    fn a_new_link_is_not_quiet_until_its_task_sleeps() {
        let link = Link::new();
        assert!(!link.is_quiet());
        polled(&link);
        assert!(link.is_quiet());
    }

    #[test]
    fn a_request_in_the_queue_is_in_flight() {
        let link = Link::new();
        polled(&link);
        bell(&link).wake();
        assert!(!link.is_quiet());
        polled(&link);
        assert!(link.is_quiet());
    }

    #[test]
    fn a_bell_during_a_poll_is_not_forgotten() {
        let link = Link::new();
        link.wakes(&Context::from_waker(Waker::noop()));
        bell(&link).wake();
        link.sleeps();
        assert!(!link.is_quiet());
    }

    #[test]
    fn bytes_from_the_server_that_nobody_waits_for_leave_it_quiet() {
        let link = Link::new();
        polled(&link);
        inbound(&link).wake();
        assert!(link.is_quiet());
        link.wakes(&Context::from_waker(Waker::noop()));
        assert!(link.is_quiet());
        // A request that comes during such a poll is as good as any.
        bell(&link).wake();
        link.sleeps();
        assert!(!link.is_quiet());
    }

    #[test]
    fn bytes_that_the_socket_does_not_take_are_in_flight() {
        let link = Link::new();
        link.note_blocked(true);
        polled(&link);
        assert!(!link.is_quiet());
        // It takes them again, and there may be more to send.
        link.wakes(&Context::from_waker(Waker::noop()));
        link.note_blocked(false);
        assert!(!link.is_quiet());
        link.sleeps();
        assert!(link.is_quiet());
    }

    #[test]
    fn whoever_waits_learns_of_sleep_and_of_the_end() {
        let link = Link::new();
        let mut settled = pin!(link.settled());
        assert_eq!(settled.as_mut().now_or_never(), None);
        polled(&link);
        assert_eq!(settled.now_or_never(), Some(true));
        link.ends();
        assert_eq!(link.settled().now_or_never(), Some(false));
    }
}
