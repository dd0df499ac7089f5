//! The pool's own work on connections: open, check, clean, close.
//!
//! Each piece is a short task on the runtime, so a caller that gives up costs
//! nothing. Owns the seats: guards that give the slot back however the task
//! ends, by return, panic, or being dropped with its runtime. Decides nothing.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::select;
use millpond_driver::{
    Cancel, ConnectContext, Driver, Error, ErrorKind, Phase, Reset, Result, Session,
};

use super::connects::Newborn;
use super::entry::{Entry, Held, is_death};
use super::events::{CloseReason, Event};
use super::info::ConnectionInfo;
use super::keeper::Keeper;
use super::shared::Shared;
use super::slots::Index;
use super::turn::{Check, Job, Work};
use crate::sync::Ordering;

/// How long a goodbye may take before the connection is simply dropped.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

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

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = Box::pin(task);
        // A spawn that panics drops the task; its seat gives the slot back.
        let _ = catch_unwind(AssertUnwindSafe(|| self.runtime.spawn(task)));
    }

    /// Opens a connection that may be lent.
    pub(super) async fn connect(&self) -> Result<Newborn<D::Connection>> {
        let limit = self.rules(|rules| rules.connect_timeout);
        let start = self.runtime.now();
        let cx = ConnectContext::new(&self.runtime, self.deadline(limit));
        // Whom the connect waits for, if not for the database.
        let mut asking = None;
        let work = async {
            let mut conn = match &self.hooks.login {
                None => self.driver.connect(&cx).await?,
                Some(login) => {
                    asking = Some("no credentials");
                    let given = login.ask().await;
                    asking = None;
                    let given = given?;
                    self.driver.connect(&cx.with_credentials(&given)).await?
                }
            };
            let reads_only = self.keep_from_writing(&mut conn).await?;
            let id = self.next_id();
            let hook = self.hooks.after_connect.as_ref();
            asking = hook.map(|_| "no end of the hook after_connect");
            let info = ConnectionInfo::newborn(id);
            if let Err(refusal) = self.call_unhurried(hook, &mut conn, info).await {
                self.driver.close(conn).await;
                return Err(refusal);
            }
            Ok((conn, id, reads_only))
        };
        let opened = self.attempt(Phase::Connecting, limit, work).await;
        let took = self.runtime.now().saturating_duration_since(start);
        let error = match opened {
            Ok((conn, id, reads_only)) => return Ok(Newborn { conn, id, took, reads_only }),
            Err(error) => match asking.filter(|_| error.is_timeout()) {
                Some(what) => Error::timeout(Phase::Connecting, format!("{what} within {limit:?}")),
                None => error,
            },
        };
        if error.kind() != ErrorKind::Closed {
            if let Some(meters) = &self.meters {
                meters.connect_errors.add(&error);
            }
            self.tell(|| Event::ConnectFailed { error: &error, took });
        }
        Err(error)
    }

    /// Has a new session refuse writes, if it is to. Whether it does: not every
    /// database can.
    async fn keep_from_writing(&self, conn: &mut D::Connection) -> Result<bool> {
        let wanted = self.hooks.reads_only.as_ref();
        if !wanted.is_some_and(|wanted| wanted.load(Ordering::Acquire)) {
            return Ok(false);
        }
        match self.driver.set_read_only(conn, true).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Measures and tells that a connection has been opened.
    pub(super) fn note_opened(&self, connection: u64, took: Duration) {
        if let Some(meters) = &self.meters {
            meters.connects.record(connection as usize, took);
        }
        self.tell(|| Event::Connected { connection, took });
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
    let pinged = match how.ping {
        true => {
            let ping = shared.driver.ping(seat.conn());
            shared.attempt(Phase::Checking, limit, ping).await
        }
        false => Ok(()),
    };
    let hook = shared.hooks.before_acquire.as_ref().filter(|_| how.admit && pinged.is_ok());
    let admitted = shared.call(hook, limit, seat.conn(), info).await;
    let (held, work) = seat.leave();
    if let Some(error) = pinged.as_ref().err().or_else(|| admitted.as_ref().err()) {
        shared.note_unfit(held.entry.id, error);
    }
    shared.turn(|state, turn| {
        state.done(work);
        match (pinged, admitted) {
            (Ok(()), Ok(())) => state.checked(turn, held, how),
            (Err(error), _) | (_, Err(error)) if error.kind() == ErrorKind::Closed => {
                turn.fx.waste.push(error);
                state.retire(turn, held, CloseReason::PoolClosed);
            }
            (Ok(()), Err(refusal)) => state.refused(turn, held, refusal),
            (Err(error), _) => {
                state.note_failed_check(turn, error);
                state.bury(turn, held, CloseReason::FailedCheck);
            }
        }
    });
}

async fn clean<D: Driver>(mut seat: Seat<D>, how: Cleaning) {
    let shared = Arc::clone(&seat.shared);
    // For all of it together.
    let end = shared.deadline(shared.rules(|rules| rules.reset_timeout));
    let left = || end.saturating_duration_since(shared.runtime.now());
    let info = seat.info();
    if let Some(cancel) = how.cancel {
        // A pool that closes leaves nothing running either. Undelivered or too
        // late: the reset waits for the statement itself.
        let cancelled = pin!(AssertUnwindSafe(cancel.run()).catch_unwind());
        select(cancelled, shared.runtime.sleep_until(end)).await;
    }
    let reset = match how.then {
        Then::Reset(to) => {
            let reset = shared.driver.reset(seat.conn(), to);
            shared.attempt(Phase::Statement, left(), reset).await
        }
        Then::Keep | Then::Close => Ok(()),
    };
    let proved = how.then == Then::Keep || proved(shared.session(seat.conn()));
    let reason = match &reset {
        _ if how.then == Then::Close => Some(CloseReason::Discarded),
        Err(error) if error.kind() == ErrorKind::Closed => Some(CloseReason::PoolClosed),
        Err(error) if is_death(error) => Some(CloseReason::Dead),
        Err(_) => Some(CloseReason::Unclean),
        Ok(()) => (!proved).then_some(CloseReason::Unclean),
    };
    let (reason, dead) = match reason {
        Some(reason) => (Some(reason), reason == CloseReason::Dead),
        None => match shared.welcome_back(&mut seat, how.then, end, info).await {
            Ok(()) => (None, false),
            Err(error) if error.kind() == ErrorKind::Closed => {
                (Some(CloseReason::PoolClosed), false)
            }
            Err(refusal) => {
                shared.note_unfit(info.id, &refusal);
                (Some(CloseReason::Refused), is_death(&refusal))
            }
        },
    };
    let (mut held, work) = seat.leave();
    shared.turn(|state, turn| {
        state.done(work);
        match reason {
            None => {
                held.entry.refresh();
                if how.then != Then::Keep {
                    // The reset has been answered.
                    held.entry.era = turn.shelf.era();
                }
                state.put(turn, held);
            }
            Some(reason) if dead => state.bury(turn, held, reason),
            Some(reason) => state.retire(turn, held, reason),
        }
    });
}

async fn close<D: Driver>(seat: Seat<D>) {
    let shared = Arc::clone(&seat.shared);
    let info = seat.info();
    let (conn, seat) = seat.part();
    shared.farewell(conn, info).await;
    // The connection is gone for certain: only now may another take its place.
    seat.vacate();
}

impl<D: Driver> Shared<D> {
    /// Calls the hooks that a connection has come back to, once it is clean.
    async fn welcome_back(
        &self,
        seat: &mut Seat<D>,
        then: Then,
        end: Instant,
        info: ConnectionInfo,
    ) -> Result<()> {
        let left = || end.saturating_duration_since(self.runtime.now());
        // What it had set was cleared with all other settings of the session.
        let again = then == Then::Reset(Reset::Session);
        let hook = self.hooks.after_connect.as_ref().filter(|_| again);
        self.call(hook, left(), seat.conn(), info).await?;
        self.call(self.hooks.after_release.as_ref(), left(), seat.conn(), info).await
    }

    /// Says goodbye, within its limit.
    pub(super) async fn farewell(&self, mut conn: D::Connection, info: ConnectionInfo) {
        let goodbye = async {
            // Whatever it says, the connection goes; and a pool that is closed
            // says goodbye as well.
            let hook = self.hooks.before_close.as_ref();
            let _ = self.call_unhurried(hook, &mut conn, info).await;
            self.driver.close(conn).await;
        };
        let goodbye = pin!(AssertUnwindSafe(goodbye).catch_unwind());
        select(goodbye, self.runtime.sleep_until(self.deadline(GOODBYE))).await;
    }

    /// Tells that a connection is not to be lent.
    fn note_unfit(&self, connection: u64, error: &Error) {
        if error.kind() != ErrorKind::Closed {
            self.tell(|| Event::CheckFailed { connection, error });
        }
    }
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
        self.shared.note_opened(newborn.id, newborn.took);
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
        let Entry { conn, attached, .. } = *entry;
        let closing =
            Closing { shared: Arc::clone(&self.shared), index: Some(index), work: self.work };
        drop_quietly(attached);
        (conn, closing)
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

/// Drops a value that is not ours; a panic of its `Drop` ends with it.
pub(super) fn drop_quietly<T>(value: T) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}
