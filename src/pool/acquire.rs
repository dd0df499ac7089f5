//! The future of an acquire.
//!
//! Owns the caller's place in the queue and gives it up when dropped. Never
//! runs driver code: connects and checks are the pool's own tasks.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use millpond_driver::{Driver, Error, Result};

use super::connection::PooledConnection;
use super::entry::{Borrower, Held};
use super::events::Event;
use super::keeper::Keeper;
use super::shared::Shared;
use super::shelf::Take;
use super::snapshot::report;
use super::turn::{Caller, Entered, Look};
use super::waiters::{Answer, Ticket};
use super::{Pool, entry};
use crate::metrics::{Span, Wait};

/// Waits for a connection. Made by [`Pool::acquire`].
///
/// Does nothing until polled; the queue is joined, and the timeout starts, at
/// the first poll.
///
/// # Cancellation
///
/// Dropping it gives up the place in the queue. A connection already handed to
/// it goes to the next caller; one still opening finishes and lies idle.
///
/// # Panics
///
/// When polled after it has completed.
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire<'a, D: Driver> {
    pool: &'a Pool<D>,
    borrower: Borrower,
    timeout: Option<Duration>,
    progress: Progress<D>,
}

enum Progress<D: Driver> {
    Start,
    Waiting { ticket: Option<Ticket>, since: Instant, keeper: Option<Box<Keeper<D>>>, span: Wait },
    Done,
}

impl<'a, D: Driver> Acquire<'a, D> {
    pub(super) fn new(pool: &'a Pool<D>, place: &'static Location<'static>) -> Self {
        let borrower = Borrower { place, label: None };
        Self { pool, borrower, timeout: None, progress: Progress::Start }
    }

    /// Waits at most this long, whatever it takes: waiting, checking,
    /// connecting. Zero: not at all. Default: the pool's `acquire_timeout`.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Names the borrower in errors and reports of others who wait for it.
    pub fn label(mut self, label: &'static str) -> Self {
        self.borrower.label = Some(label);
        self
    }

    fn start(&mut self, cx: &mut Context<'_>) -> Poll<Result<PooledConnection<D>>> {
        let shared = &self.pool.shared;
        let stale = match shared.shelf.take(|| shared.runtime.coarse_now(), self.borrower) {
            Take::Fresh(held) => {
                shared.keep_minimum();
                return self.serve(held, Duration::ZERO);
            }
            Take::Stale(held) => Some(held),
            Take::Nothing => None,
        };
        let mut waker = Some(cx.waker().clone());
        let (entered, since) = shared.turn(|state, turn| {
            let patience = self.timeout;
            let caller = Caller { borrower: self.borrower, patience, waker: &mut waker };
            (state.enter(turn, caller, stale), turn.now)
        });
        match entered {
            Entered::Served(held) => self.serve(held, Duration::ZERO),
            Entered::Refused(error) => self.fail(error),
            Entered::NotNow => self.fail(timed_out(shared, Duration::ZERO)),
            Entered::Queued(ticket) => {
                self.queue(ticket, since);
                Poll::Pending
            }
            Entered::QueuedAndStarting(ticket) => {
                self.queue(ticket, since);
                self.wait(cx)
            }
        }
    }

    fn queue(&mut self, ticket: Ticket, since: Instant) {
        let span = Span::wait(&self.pool.shared.name, self.borrower.label);
        self.progress = Progress::Waiting { ticket: Some(ticket), since, keeper: None, span };
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<PooledConnection<D>>> {
        let shared = &self.pool.shared;
        let Progress::Waiting { ticket, keeper, .. } = &mut self.progress else {
            unreachable!("waits only while waiting")
        };
        if let Some(answer) = shared.answer(ticket) {
            return self.collect(answer);
        }
        let place = ticket.as_ref().expect("in the queue");
        let mut waker = Some(cx.waker().clone());
        match shared.turn(|state, turn| state.look(turn, place, &mut waker)) {
            Look::Answered => {
                let answer = shared.answer(ticket).expect("answered");
                return self.collect(answer);
            }
            Look::Wait => {}
            Look::StandIn(number) => {
                *keeper = Some(Box::new(Keeper::new(Arc::clone(shared), number)));
            }
        }
        if let Some(standing_in) = keeper {
            if Pin::new(standing_in).poll(cx).is_ready() {
                *keeper = None;
            }
        }
        Poll::Pending
    }

    fn collect(
        &mut self,
        answer: Answer<Held<D::Connection>>,
    ) -> Poll<Result<PooledConnection<D>>> {
        let Progress::Waiting { since, keeper, span, .. } =
            std::mem::replace(&mut self.progress, Progress::Done)
        else {
            unreachable!("collects only while waiting")
        };
        drop(keeper);
        let shared = &self.pool.shared;
        match answer {
            Answer::Granted(held) => {
                let waited = shared.runtime.now().saturating_duration_since(since);
                if let Some(meters) = &shared.meters {
                    meters.waits.record(held.entry.id as usize, waited);
                }
                self.serve(held, waited)
            }
            Answer::Failed(error) => {
                span.note(&error);
                self.fail(error)
            }
            Answer::Expired => {
                let waited = shared.runtime.now().saturating_duration_since(since);
                let error = timed_out(shared, waited);
                span.note(&error);
                self.fail(error)
            }
            Answer::Pending => unreachable!("answered"),
        }
    }

    #[inline]
    fn serve(
        &mut self,
        held: Held<D::Connection>,
        waited: Duration,
    ) -> Poll<Result<PooledConnection<D>>> {
        // Not dropped: it is `Start` or `Done`, and asking costs the fast path.
        std::mem::forget(std::mem::replace(&mut self.progress, Progress::Done));
        let (connection, label) = (held.entry.id, self.borrower.label);
        self.pool.shared.tell(|| Event::Acquired { connection, waited, label });
        Poll::Ready(Ok(PooledConnection::new(Arc::clone(&self.pool.shared), held)))
    }

    fn fail(&mut self, error: Error) -> Poll<Result<PooledConnection<D>>> {
        self.progress = Progress::Done;
        let label = self.borrower.label;
        self.pool.shared.tell(|| Event::AcquireFailed { error: &error, label });
        Poll::Ready(Err(error))
    }
}

/// The error of a caller that has waited so long in vain.
fn timed_out<D: Driver>(shared: &Shared<D>, waited: Duration) -> Error {
    let now = shared.runtime.now();
    let (report, cause) = shared.read(|state| {
        let cause = state.outage.last().or(state.failed_check.as_ref());
        (report(state, &shared.shelf, now, waited), cause.cloned())
    });
    let error = Error::acquire_timeout(report);
    match cause {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}

impl<D: Driver> Future for Acquire<'_, D> {
    type Output = Result<PooledConnection<D>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.progress {
            Progress::Start => self.start(cx),
            Progress::Waiting { .. } => self.wait(cx),
            Progress::Done => panic!("Acquire polled after completion"),
        }
    }
}

impl<D: Driver> Drop for Acquire<'_, D> {
    fn drop(&mut self) {
        if let Progress::Waiting { ticket: Some(ticket), keeper, .. } =
            std::mem::replace(&mut self.progress, Progress::Done)
        {
            let shared = &self.pool.shared;
            let now = shared.runtime.coarse_now();
            let waker = shared.hurried_turn(now, |state, turn| state.abandon(turn, ticket));
            drop((waker, keeper));
        }
    }
}

impl<D: Driver> fmt::Debug for Acquire<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry::Borrower { place, label } = self.borrower;
        f.debug_struct("Acquire")
            .field("place", &format_args!("{place}"))
            .field("label", &label)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
