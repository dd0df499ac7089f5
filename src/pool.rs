//! The pool: connections lent to callers, in order of arrival.
//!
//! Owns the handle that applications hold. The work is in the folder beside
//! it, from the inside out:
//!
//! - `slots`: the idle connections, a lock-free stack; `shelf`: whether one may
//!   be lent as it is; `entry`: what is known of each.
//! - `waiters`: the queue; `outage`: when to connect again; `keepers`: who
//!   keeps the time; `state`: every decision that needs the lock, as a state
//!   machine, with `settle` for who is served, `connects` for what opens,
//!   `upkeep` for what time does, `lifecycle` for what an operator does and
//!   `leaks` for what is held too long; `turn`: what goes into it and comes out.
//! - `shared`: the order of things; `tasks`: open, check, clean, close;
//!   `keeper`: the background task; `probe`: a connection aside, to ask how the
//!   database is.
//! - `builder`, `acquire`, `attempts`, `connection`, `transaction`, `retrying`, `repeat`, `streaming`,
//!   `release`, `hooks`, `info`, `manage`, `weak`, `snapshot`: what a user meets.
//!
//! Nothing here names a database or a runtime.

mod acquire;
mod attempts;
mod builder;
mod connection;
mod connects;
mod entry;
mod events;
#[cfg(all(test, not(millpond_loom)))]
mod histories;
mod hooks;
mod info;
mod keeper;
mod keepers;
mod leaks;
mod lifecycle;
mod login;
mod manage;
mod meters;
mod numbers;
mod outage;
mod probe;
mod release;
mod repeat;
mod retrying;
mod settle;
mod shared;
mod shelf;
mod slots;
mod snapshot;
mod state;
mod streaming;
mod tasks;
mod transaction;
mod turn;
mod upkeep;
mod waiters;
mod weak;

use std::fmt;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use millpond_driver::{Driver, Result, Row, Rows, TransactionOptions, Value};

pub use acquire::Acquire;
pub use builder::Builder;
pub use connection::PooledConnection;
pub use events::{CloseReason, Event, Observer};
pub use hooks::HookConnection;
pub use info::ConnectionInfo;
pub use leaks::Leak;
pub use manage::CloseReport;
pub use retrying::{Lent, RetriedTransaction};
pub use snapshot::Snapshot;
pub use transaction::Transaction;
pub use weak::WeakPool;

pub(crate) use repeat::{Lender, Repeated, run};

use attempts::Attempts;

use entry::{Borrower, Held};
use shared::Shared;
use shelf::Take;
use turn::{Caller, Entered};

/// The most connections a pool can have.
pub(crate) const MAX_CONNECTIONS: usize = slots::MAX_SLOTS;

/// A pool of connections to one database.
///
/// A handle: clones share the pool, and dropping the last one closes it.
///
/// ```
/// use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
///
/// Sim::new(1).run(async |sim| {
///     let pool = Pool::builder(Fake::new()).max_open_conns(8).runtime(sim).build().await?;
///     let mut conn = pool.acquire().await?;
///     let rows = conn.query("SELECT 1", &[]).await?;
///     assert_eq!(rows.scalar::<String>()?, "SELECT 1");
///     drop(conn);
///     assert_eq!(pool.snapshot().to_string(), "1 of 8 open: 0 in use, 1 idle; 0 waiting");
///     Ok::<_, millpond::Error>(())
/// })?;
/// # Ok::<_, millpond::Error>(())
/// ```
pub struct Pool<D: Driver> {
    shared: Arc<Shared<D>>,
}

impl<D: Driver> Pool<D> {
    /// Starts to set up a pool over a driver.
    pub fn builder(driver: D) -> Builder<D> {
        Builder::new(driver)
    }

    /// Waits for a connection, opening one if the pool may still grow.
    ///
    /// Callers are served strictly in order of arrival. The connection is at a
    /// clean boundary, and was used or checked a moment ago.
    ///
    /// ```
    /// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
    /// # use std::time::Duration;
    /// # Sim::new(1).run(async |sim| {
    /// # let pool = Pool::builder(Fake::new()).runtime(sim).build().await?;
    /// let conn = pool.acquire().timeout(Duration::from_secs(2)).label("checkout").await?;
    /// # drop(conn);
    /// # Ok::<_, millpond::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Timeout`](crate::ErrorKind::Timeout) at the deadline, with a
    ///   [report](crate::Error::report) and the last failed connect as source;
    /// - the connect's own error, at once, if it is
    ///   [permanent](crate::Error::is_permanent);
    /// - [`Overloaded`](crate::ErrorKind::Overloaded) if `max_waiters` wait
    ///   already; [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancellation
    ///
    /// Dropping the future gives up the place in the queue, and nothing else:
    /// see [`Acquire`].
    #[track_caller]
    pub fn acquire(&self) -> Acquire<'_, D> {
        Acquire::new(self, Location::caller())
    }

    /// Takes a connection if one is free now and nobody waits.
    ///
    /// If none is, one is opened or checked in the background where the limit
    /// allows, so that a later try may succeed. `None` also once the pool is
    /// closed.
    #[track_caller]
    pub fn try_acquire(&self) -> Option<PooledConnection<D>> {
        self.take_now(Location::caller(), None)
    }

    pub(crate) fn acquire_at(
        &self,
        place: &'static Location<'static>,
        label: Option<&'static str>,
    ) -> Acquire<'_, D> {
        let acquire = Acquire::new(self, place);
        match label {
            Some(label) => acquire.label(label),
            None => acquire,
        }
    }

    pub(crate) fn take_now(
        &self,
        place: &'static Location<'static>,
        label: Option<&'static str>,
    ) -> Option<PooledConnection<D>> {
        let shared = &self.shared;
        let borrower = Borrower { place, label };
        let serve = |held: Held<_>| {
            let connection = held.entry.id;
            shared.tell(|| Event::Acquired { connection, waited: Duration::ZERO, label });
            Some(PooledConnection::new(Arc::clone(shared), held))
        };
        let stale = match shared.shelf.take(|| shared.runtime.coarse_now(), borrower) {
            Take::Fresh(held) => {
                shared.keep_minimum();
                return serve(held);
            }
            Take::Stale(held) => Some(held),
            Take::Nothing => None,
        };
        let caller = Caller { borrower, patience: Some(Duration::ZERO), waker: &mut None };
        match shared.turn(|state, turn| state.enter(turn, caller, stale)) {
            Entered::Served(held) => serve(held),
            _ => None,
        }
    }

    /// Runs one statement on some connection and collects its rows.
    ///
    /// A connection that turns out to be dead before the statement was sent is
    /// replaced, up to `max_retries` times within the `acquire_timeout`, and the
    /// caller does not see it.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire) and [`PooledConnection::query`].
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves a statement under way to the pool, which
    /// stops it. Whether it took effect is unknown.
    #[track_caller]
    pub fn query<'a>(
        &'a self,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Future<Output = Result<Rows>> + Send + 'a {
        let place = Location::caller();
        async move {
            let mut attempts = Attempts::new(self, place);
            loop {
                let result = attempts.acquire().await?.query(sql, params).await;
                if let Some(result) = attempts.settle(result).await {
                    return result;
                }
            }
        }
    }

    /// Runs one statement on some connection and returns the number of rows it
    /// changed; 0 if the database does not say.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    ///
    /// # Cancellation
    ///
    /// As for `query`.
    #[track_caller]
    pub fn execute<'a>(
        &'a self,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Future<Output = Result<u64>> + Send + 'a {
        let query = self.query(sql, params);
        async move { Ok(query.await?.affected().unwrap_or(0)) }
    }

    /// Runs one statement on some connection and yields its rows one by one.
    ///
    /// The connection goes back when the stream has ended or is dropped.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire) and [`PooledConnection::query_stream`];
    /// an error ends the stream.
    ///
    /// # Cancellation
    ///
    /// Dropping the stream half-way leaves the rest to the pool, which stops
    /// the statement.
    #[track_caller]
    pub fn query_stream<'a>(
        &'a self,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Stream<Item = Result<Row>> + Send + 'a {
        let place = Location::caller();
        streaming::rows_of(move |outlet| async move {
            let mut attempts = Attempts::new(self, place);
            loop {
                let ended = {
                    let mut conn = attempts.acquire().await?;
                    let mut rows = pin!(conn.query_stream(sql, params));
                    loop {
                        match rows.next().await {
                            Some(Ok(row)) => outlet.give(row).await,
                            Some(Err(error)) => break Err(error),
                            None => break Ok(()),
                        }
                    }
                };
                // What was not sent has given no row.
                if let Some(ended) = attempts.settle(ended).await {
                    return ended;
                }
            }
        })
    }

    /// Runs several statements separated by semicolons, as migrations do, on
    /// some connection.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire) and [`PooledConnection::batch`].
    ///
    /// # Cancellation
    ///
    /// As for [`query`](Self::query).
    #[track_caller]
    pub fn batch<'a>(&'a self, sql: &'a str) -> impl Future<Output = Result<()>> + Send + 'a {
        let place = Location::caller();
        async move {
            let mut attempts = Attempts::new(self, place);
            loop {
                let result = attempts.acquire().await?.batch(sql).await;
                if let Some(result) = attempts.settle(result).await {
                    return result;
                }
            }
        }
    }

    /// Starts a transaction that owns its connection.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire) and [`PooledConnection::begin`].
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves no transaction open for the next borrower.
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<Transaction<'static, D>>> + Send + '_ {
        self.begin_with(TransactionOptions::new())
    }

    /// Starts a transaction with an isolation level or access mode.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    ///
    /// # Cancellation
    ///
    /// As for `begin`.
    #[track_caller]
    pub fn begin_with(
        &self,
        options: TransactionOptions,
    ) -> impl Future<Output = Result<Transaction<'static, D>>> + Send + '_ {
        let place = Location::caller();
        async move {
            let mut attempts = Attempts::new(self, place);
            loop {
                let result = Transaction::owned(attempts.acquire().await?, &options).await;
                if let Some(result) = attempts.settle(result).await {
                    return result;
                }
            }
        }
    }

    /// The pool in numbers, all from one moment.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.counts();
        if let Some(meters) = &self.shared.meters {
            snapshot.waits = Some(meters.waits.read().timings());
            snapshot.connects = Some(meters.connects.read().timings());
            snapshot.holds = Some(meters.holds(snapshot.released).timings());
            snapshot.statements = Some(meters.statements.read().timings());
        }
        snapshot
    }

    /// The same without what is measured, which takes longer to read.
    pub(crate) fn counts(&self) -> Snapshot {
        self.shared.read(|state| Snapshot::take(state, &self.shared.shelf))
    }

    /// The name of the pool in metrics.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The driver the pool was built with.
    pub fn driver(&self) -> &D {
        &self.shared.driver
    }
}

impl<D: Driver> Clone for Pool<D> {
    fn clone(&self) -> Self {
        self.shared.add_handle();
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<D: Driver> Drop for Pool<D> {
    fn drop(&mut self) {
        self.shared.drop_handle();
    }
}

impl<D: Driver> fmt::Debug for Pool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("driver", &self.driver().name())
            .field("state", &format_args!("{}", self.snapshot()))
            .finish_non_exhaustive()
    }
}
