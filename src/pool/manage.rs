//! What an operator does with a running pool: look at who holds what, change
//! settings, pause, put connections out, close.
//!
//! Owns the calls and their reports. What follows from them is decided in
//! `lifecycle` and `state`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use millpond_driver::{Driver, Error, Fate, Holder, Outcome, Result, Session};

use super::Pool;
use super::connects::Newborn;
use super::events::{CloseReason, Event};
use super::info::ConnectionInfo;
use super::snapshot::Snapshot;
use super::state::State;
use super::tasks::Seat;
use super::turn::Work;
use super::weak::WeakPool;
use crate::config::PoolConfig;

/// How long [`Pool::close`] waits for goodbyes.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

impl<D: Driver> Pool<D> {
    /// Who holds a connection, longest first.
    pub fn holders(&self) -> Vec<Holder> {
        self.shared.shelf.holders(self.shared.runtime.now())
    }

    /// The settings that have been made. Those that have not are as documented.
    pub fn config(&self) -> PoolConfig {
        self.shared.rules(|rules| rules.made.clone())
    }

    /// Changes settings of the running pool.
    ///
    /// They hold from the next decision on: a connection keeps the lifetime it
    /// drew, a caller the timeout it came with. Idle ones are closed if `reset`
    /// changes, for what their last borrower left was not reset so. A lower `max_open_conns` closes
    /// idle connections at once and those in use when they come back, before
    /// anybody who waits is served. On a closed pool this has no effect.
    ///
    /// ```
    /// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
    /// # Sim::new(1).run(async |sim| {
    /// # let pool = Pool::builder(Fake::new()).runtime(sim).build().await?;
    /// pool.reconfigure(|config| config.max_open_conns(50).max_idle_conns(20))?;
    /// # Ok::<_, millpond::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`PoolConfig::validate`], and for another `idle_order` or
    /// `metrics_enabled`: these stay as the pool was built. Nothing has changed
    /// then.
    pub fn reconfigure(&self, change: impl Fn(PoolConfig) -> PoolConfig) -> Result<()> {
        loop {
            let before = self.config();
            let rules = change(before.clone()).resolve()?;
            let done = self.shared.turn(|state, turn| {
                // Somebody else may have changed them meanwhile.
                if state.rules.made != before {
                    return Ok(false);
                }
                state.rules.allows_change_to(&rules)?;
                if !state.is_closed() {
                    self.shared.live.set(&rules);
                    state.reconfigure(turn, rules);
                }
                Ok(true)
            });
            if done? {
                return Ok(());
            }
        }
    }

    /// Changes how many connections the pool may have; 0: unlimited. Lowers
    /// `max_idle_conns` and `min_idle_conns` where they are above it.
    ///
    /// # Errors
    ///
    /// As for [`reconfigure`](Self::reconfigure).
    pub fn resize(&self, max_open_conns: usize) -> Result<()> {
        self.reconfigure(|config| config.limited_to(max_open_conns))
    }

    /// Lends and opens nothing until [`resume`](Self::resume): callers wait,
    /// each to its own deadline, as while the database fails over. Borrowed
    /// connections go on and can be given back. Pausing twice is as good as
    /// once, and has no effect on a closed pool.
    pub fn pause(&self) {
        self.shared.turn(State::pause);
    }

    /// Ends a pause and serves those who wait. Without a pause this has no
    /// effect.
    pub fn resume(&self) {
        self.shared.turn(State::resume);
    }

    /// Has all connections of the moment closed: idle ones now, borrowed ones
    /// when they come back, those being opened when they are. Callers are served with new ones. Returns how many
    /// it concerns.
    pub fn evict(&self) -> usize {
        self.shared.turn(|state, turn| state.evict(turn, None))
    }

    /// The same for the connection of this number, if it still exists.
    pub fn evict_one(&self, id: u64) -> bool {
        self.shared.turn(|state, turn| state.evict(turn, Some(id))) > 0
    }

    /// Closes the idle connections that `keep` does not want, and returns their
    /// facts. Each that is idle now is asked about once, unless it is lent
    /// before its turn. One that is kept is lent again only if `keep` has left
    /// it clean.
    ///
    /// # Panics
    ///
    /// If `keep` does. The connection it was asked about is closed; the others
    /// stay.
    pub fn retain(
        &self,
        mut keep: impl FnMut(&ConnectionInfo, &mut D::Connection) -> bool,
    ) -> Vec<ConnectionInfo> {
        let shared = &self.shared;
        let mut closed = Vec::new();
        for id in shared.turn(State::idle) {
            let Some(held) = shared.turn(|state, turn| state.take_idle(turn, id)) else {
                continue;
            };
            let mut seat = Seat::new(shared, held, Work::Checking);
            let info = seat.info();
            let kept = catch_unwind(AssertUnwindSafe(|| keep(&info, seat.conn())));
            let (held, work) = seat.leave();
            match kept {
                Ok(true) => shared.put_back(held, work),
                Ok(false) => {
                    shared.turn(|state, turn| {
                        state.done(work);
                        state.retire(turn, held, CloseReason::Evicted);
                    });
                    closed.push(info);
                }
                Err(panic) => {
                    shared.turn(|state, turn| {
                        state.done(work);
                        state.retire(turn, held, CloseReason::Discarded);
                    });
                    resume_unwind(panic);
                }
            }
        }
        closed
    }

    /// Takes in a connection that was opened elsewhere, such as one that was
    /// [detached](crate::PooledConnection::detach). It is checked before it is
    /// lent; `after_connect` does not run on it.
    ///
    /// # Errors
    ///
    /// [`Overloaded`](crate::ErrorKind::Overloaded) if the pool is full,
    /// [`Closed`](crate::ErrorKind::Closed), that the connection is broken or not
    /// at a clean boundary, or
    /// [`Config`](crate::ErrorKind::Config) for the pool of a node of a cluster; each with the connection.
    pub fn add(&self, conn: D::Connection) -> Result<(), (D::Connection, Error)> {
        let session = self.shared.session(&conn);
        if !matches!(session, Session::Clean | Session::Unverified) {
            let error = Error::statement(format!("the session is {session:?}, not clean"));
            return Err((conn, error.with_outcome(Outcome::NotSent).with_fate(Fate::Discard)));
        }
        if self.shared.hooks.reads_only.is_some() {
            // Nobody knows what its session was told.
            let error = Error::config("a node of a cluster opens its connections itself");
            return Err((conn, error));
        }
        let id = self.shared.next_id();
        let newborn = Newborn { conn, id, took: Duration::ZERO, reads_only: false };
        self.shared.turn(|state, turn| state.add(turn, newborn))?;
        self.shared.tell(|| Event::Connected { connection: id, took: Duration::ZERO });
        Ok(())
    }

    /// It is known from elsewhere that the database takes connections again:
    /// nothing is waited for before the next connect.
    pub(crate) fn is_known_to_answer(&self) {
        self.shared.turn(State::answers_again);
    }

    /// A handle that does not keep the pool open.
    pub fn downgrade(&self) -> WeakPool<D> {
        WeakPool { shared: Arc::downgrade(&self.shared) }
    }

    /// Closes the pool: callers that wait get
    /// [`Closed`](crate::ErrorKind::Closed), idle connections say goodbye,
    /// connects under way are dropped.
    ///
    /// Does not wait for borrowed connections; they close when they come back.
    /// The answer says who still holds one. Closing twice is harmless.
    ///
    /// # Cancellation
    ///
    /// The pool is closed from the first poll on, whatever becomes of the
    /// future.
    pub async fn close(&self) -> CloseReport {
        self.end(CLOSE_LIMIT, |now| now.open == now.in_use && now.opening == 0).await
    }

    /// Closes the pool and waits until every connection has come back and is
    /// closed, or for `limit`. No connection is taken from its borrower.
    ///
    /// # Cancellation
    ///
    /// As for [`close`](Self::close).
    pub async fn drain(&self, limit: Duration) -> CloseReport {
        self.end(limit, |now| now.open == 0 && now.opening == 0).await
    }

    async fn end(&self, limit: Duration, done: impl Fn(&Snapshot) -> bool) -> CloseReport {
        let shared = &self.shared;
        shared.close();
        let done = |state: &State<_>| done(&Snapshot::take(state, &shared.shelf));
        shared.wait_for_end(Some(limit), done).await;
        let now = shared.runtime.now();
        shared.read(|state| {
            let snapshot = Snapshot::take(state, &shared.shelf);
            CloseReport {
                still_held: shared.shelf.holders(now),
                still_closing: snapshot.open - snapshot.in_use + snapshot.opening,
            }
        })
    }

    /// Whether the pool has been closed.
    pub fn is_closed(&self) -> bool {
        self.shared.read(State::is_closed)
    }
}

/// What was left when a close or drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Who still holds a connection, longest first.
    pub still_held: Vec<Holder>,
    /// Connections whose goodbye was still under way.
    pub still_closing: usize,
}

impl CloseReport {
    /// Whether every connection is closed.
    pub fn is_complete(&self) -> bool {
        self.still_held.is_empty() && self.still_closing == 0
    }
}

impl fmt::Display for CloseReport {
    /// For example `2 connections still held: for 4.2s by "checkout" at
    /// src/cart.rs:41:20, for 12ms at src/main.rs:9:21`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_complete() {
            return f.write_str("all connections closed");
        }
        let connections = if self.still_held.len() == 1 { "connection" } else { "connections" };
        write!(f, "{} {connections} still held", self.still_held.len())?;
        for (n, holder) in self.still_held.iter().enumerate() {
            write!(f, "{} {holder}", if n == 0 { ":" } else { "," })?;
        }
        if self.still_closing > 0 {
            write!(f, "; {} still closing", self.still_closing)?;
        }
        Ok(())
    }
}
