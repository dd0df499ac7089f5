//! The pool's own work on connections: open, check, clean, close.
//!
//! Each piece is a short task on the runtime, so a caller that gives up costs
//! nothing. Owns the seats: guards that give the slot back however the task
//! ends, by return, panic, or being dropped with its runtime. Decides nothing.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select;
use millpond_driver::{Cancel, ConnectContext, Driver, Error, Phase, Reset, Result, Session};

use super::connects::Newborn;
use super::entry::{Entry, Held, is_death};
use super::events::{CloseReason, Event};
use super::info::ConnectionInfo;
use super::keeper::Keeper;
use super::shared::Shared;
use super::slots::Index;
use super::turn::{Check, Job, Work};

/// How long a goodbye may take before the connection is simply dropped.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a returned connection is to be made clean.
#[derive(Debug)]
pub(super) struct Cleaning {
    /// Stops what runs on it.
    pub(super) cancel: Option<Cancel>,
    pub(super) then: Then,
}

/// What follows once nothing runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Keep,
    Reset(Reset),
    Close,
}

impl Cleaning {
    /// Whether one round trip will do.
    pub(super) fn is_quick(&self) -> bool {
        self.cancel.is_none() && self.then != Then::Close
    }
}

impl<D: Driver> Shared<D> {
    pub(super) fn start(self: &Arc<Self>, job: Job<D::Connection>) {
        match job {
            Job::Connect(index) => self.spawn(open(Opening::new(self, index))),
            Job::Check(held, how) => self.spawn(check(Seat::new(self, held, Work::Checking), how)),
            Job::Close(held) => self.spawn(close(Seat::new(self, held, Work::Closing))),
            Job::Keep(number) => self.spawn(Keeper::new(Arc::clone(self), number)),
        }
    }

    /// Cleans a connection that was in use and has been noted as cleaning.
    pub(super) fn start_cleaning(self: &Arc<Self>, held: Held<D::Connection>, how: Cleaning) {
        let seat = Seat::new(self, held, Work::Cleaning { quick: how.is_quick() });
        self.spawn(clean(seat, how));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = Box::pin(task);
        // A spawn that panics drops the task; its seat gives the slot back.
        let _ = catch_unwind(AssertUnwindSafe(|| self.runtime.spawn(task)));
    }

    pub(super) async fn connect(&self) -> Result<Newborn<D::Connection>> {
        let limit = self.rules(|rules| rules.connect_timeout);
        let start = self.runtime.now();
        let cx = ConnectContext::new(&self.runtime, self.deadline(limit));
        let mut asking = false;
        let work = async {
            let mut conn = match &self.hooks.login {
                None => self.driver.connect(&cx).await?,
                Some(login) => {
                    asking = true;
                    let given = login.ask().await;
                    asking = false;
                    let given = given?;
                    self.driver.connect(&cx.with_credentials(&given)).await?
                }
            };
            let id = self.next_id();
            let hook = self.hooks.after_connect.as_ref();
            if let Err(refusal) = self.call(hook, &mut conn, ConnectionInfo::newborn(id)).await {
                self.driver.close(conn).await;
                return Err(refusal);
            }
            Ok(Newborn { conn, id })
        };
        let opened = self.attempt(Phase::Connecting, limit, work).await;
        let opened = opened.map_err(|error| match asking && error.is_timeout() {
            true => Error::timeout(Phase::Connecting, format!("no credentials within {limit:?}")),
            false => error,
        });
        let took = self.runtime.now().saturating_duration_since(start);
        match &opened {
            Ok(newborn) => {
                if let Some(meters) = &self.meters {
                    meters.connects.record(newborn.id as usize, took);
                }
                self.tell(|| Event::Connected { connection: newborn.id, took });
            }
            Err(error) => {
                if let Some(meters) = &self.meters {
                    meters.connect_errors.add(error);
                }
                self.tell(|| Event::ConnectFailed { error, took });
            }
        }
        opened
    }
}

async fn open<D: Driver>(seat: Opening<D>) {
    match seat.shared.connect().await {
        Ok(newborn) => seat.opened(newborn),
        Err(error) => seat.failed(error),
    }
}

async fn check<D: Driver>(mut seat: Seat<D>, how: Check) {
    let shared = Arc::clone(&seat.shared);
    let limit = shared.rules(|rules| rules.check_timeout);
    let info = seat.info();
    let work = async {
        if how.ping {
            shared.driver.ping(seat.conn()).await?;
        }
        let hook = shared.hooks.before_acquire.as_ref().filter(|_| how.admit);
        Ok(shared.call(hook, seat.conn(), info).await)
    };
    let checked = shared.attempt(Phase::Checking, limit, work).await;
    let (held, work) = seat.leave();
    if let Err(error) | Ok(Err(error)) = &checked {
        shared.tell(|| Event::CheckFailed { connection: held.entry.id, error });
    }
    shared.turn(|state, turn| {
        state.done(work);
        match checked {
            Ok(Ok(())) => state.checked(turn, held, how),
            Ok(Err(refusal)) => state.refused(turn, held, refusal),
            Err(error) => {
                state.failed_check = Some(error);
                state.bury(turn, held, CloseReason::FailedCheck);
            }
        }
    });
}

async fn clean<D: Driver>(mut seat: Seat<D>, how: Cleaning) {
    let shared = Arc::clone(&seat.shared);
    let limit = shared.rules(|rules| rules.reset_timeout);
    let info = seat.info();
    if let Some(cancel) = how.cancel {
        // A pool that closes leaves nothing running either. Undelivered or too
        // late: the reset waits for the statement itself.
        let cancelled = pin!(AssertUnwindSafe(cancel.run()).catch_unwind());
        select(cancelled, shared.runtime.sleep_until(shared.deadline(limit))).await;
    }
    let work = async {
        match how.then {
            Then::Keep => {}
            Then::Reset(to) => {
                shared.driver.reset(seat.conn(), to).await?;
                // It was cleared with all other settings of the session.
                let hook = shared.hooks.after_connect.as_ref().filter(|_| to == Reset::Session);
                shared.call(hook, seat.conn(), info).await?;
            }
            Then::Close => return Ok(false),
        }
        shared.call(shared.hooks.after_release.as_ref(), seat.conn(), info).await?;
        Ok(true)
    };
    let cleaned = shared.attempt(Phase::Statement, limit, work).await;
    let clean = matches!(cleaned, Ok(true)) && proved(shared.session(seat.conn()));
    let dead = cleaned.is_err_and(|error| is_death(&error));
    let (mut held, work) = seat.leave();
    shared.turn(|state, turn| {
        state.done(work);
        if clean {
            held.entry.refresh();
            if how.then != Then::Keep {
                // The reset has been answered.
                held.entry.era = turn.shelf.era();
            }
            state.put(turn, held);
        } else if dead {
            state.bury(turn, held, CloseReason::Dead);
        } else {
            let reason =
                if how.then == Then::Close { CloseReason::Discarded } else { CloseReason::Unclean };
            state.retire(turn, held, reason);
        }
    });
}

async fn close<D: Driver>(seat: Seat<D>) {
    let shared = Arc::clone(&seat.shared);
    let info = seat.info();
    let (mut conn, seat) = seat.part();
    {
        let goodbye = async {
            // Whatever it says, the connection goes.
            let _ = shared.call(shared.hooks.before_close.as_ref(), &mut conn, info).await;
            shared.driver.close(conn).await;
        };
        let goodbye = pin!(AssertUnwindSafe(goodbye).catch_unwind());
        let limit = shared.runtime.sleep_until(shared.deadline(GOODBYE));
        select(goodbye, limit).await;
    }
    // The connection is gone for certain: only now may another take its place.
    seat.vacate();
}

/// Whether a session is clean right after a successful reset. A driver that
/// cannot tell has just been proved by the answer.
fn proved(session: Session) -> bool {
    matches!(session, Session::Clean | Session::Unverified)
}

/// The right to open a connection for a slot.
#[derive(Debug)]
pub(super) struct Opening<D: Driver> {
    pub(super) shared: Arc<Shared<D>>,
    index: Option<Index>,
}

impl<D: Driver> Opening<D> {
    pub(super) fn new(shared: &Arc<Shared<D>>, index: Index) -> Self {
        Self { shared: Arc::clone(shared), index: Some(index) }
    }

    pub(super) fn opened(mut self, newborn: Newborn<D::Connection>) {
        let index = self.index.take().expect("taken once");
        self.shared.turn(|state, turn| state.opened(turn, index, newborn));
    }

    pub(super) fn failed(mut self, error: Error) {
        let index = self.index.take().expect("taken once");
        self.shared.turn(|state, turn| state.open_failed(turn, index, error));
    }
}

impl<D: Driver> Drop for Opening<D> {
    fn drop(&mut self) {
        if let Some(index) = self.index.take() {
            self.shared.turn(|state, turn| state.open_lost(turn, index));
        }
    }
}

/// A connection that the pool works on.
#[derive(Debug)]
pub(super) struct Seat<D: Driver> {
    shared: Arc<Shared<D>>,
    held: Option<Held<D::Connection>>,
    work: Work,
}

impl<D: Driver> Seat<D> {
    pub(super) fn new(shared: &Arc<Shared<D>>, held: Held<D::Connection>, work: Work) -> Self {
        Self { shared: Arc::clone(shared), held: Some(held), work }
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        let Held { index, entry } = self.held.as_ref().expect("held until the seat is left");
        let now = self.shared.runtime.now();
        let until = if matches!(self.work, Work::Cleaning { .. }) { entry.idle_since } else { now };
        ConnectionInfo::of(entry, self.shared.shelf.note(index), now, until)
    }

    pub(super) fn conn(&mut self) -> &mut D::Connection {
        &mut self.held.as_mut().expect("held until the seat is left").entry.conn
    }

    pub(super) fn leave(mut self) -> (Held<D::Connection>, Work) {
        (self.held.take().expect("left once"), self.work)
    }

    /// The connection alone, and the slot alone.
    fn part(mut self) -> (D::Connection, Closing<D>) {
        let Held { index, entry } = self.held.take().expect("parted once");
        let Entry { conn, .. } = *entry;
        (conn, Closing { shared: Arc::clone(&self.shared), index: Some(index), work: self.work })
    }
}

impl<D: Driver> Drop for Seat<D> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            let seat = Self { shared: Arc::clone(&self.shared), held: Some(held), work: self.work };
            let (conn, closing) = seat.part();
            drop_quietly(conn);
            drop(closing);
        }
    }
}

/// A slot whose connection is on its way out.
#[derive(Debug)]
struct Closing<D: Driver> {
    shared: Arc<Shared<D>>,
    index: Option<Index>,
    work: Work,
}

impl<D: Driver> Closing<D> {
    fn vacate(mut self) {
        let index = self.index.take().expect("vacated once");
        self.shared.turn(|state, turn| state.vacate(turn, index));
    }
}

impl<D: Driver> Drop for Closing<D> {
    fn drop(&mut self) {
        if let Some(index) = self.index.take() {
            self.shared.turn(|state, turn| state.conn_lost(turn, index, self.work));
        }
    }
}

/// Drops a connection; a panic of its `Drop` ends with it.
fn drop_quietly<C>(conn: C) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(conn)));
}
