//! Work on the pool under a policy: one connection, or one transaction, for
//! each attempt.
//!
//! Owns the calls, and what is lent for an attempt. How attempts follow each
//! other is in `repeat`.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::Duration;

use futures_core::future::BoxFuture;
use millpond_driver::{
    Driver, Error, Outcome, Result, Role, Rows, Runtime, TransactionOptions, Value,
};

use super::Pool;
use super::acquire::Acquire;
use super::connection::PooledConnection;
use super::info::ConnectionInfo;
use super::repeat::{self, Lender, Repeated};
use super::transaction::Transaction;
use crate::retry::{Course, Retry, Work};
use crate::sync::{AtomicBool, Ordering};

impl<D: Driver> Pool<D> {
    /// Runs work on a connection, and again on another one where the policy
    /// says so.
    ///
    /// What may have had an effect is repeated only if it is
    /// [idempotent](crate::retry::Replay::Idempotent). Without that, work is repeated while
    /// no statement of it has taken effect: of several statements, or native
    /// use of the connection, only what fails at the first. Several that belong
    /// together are a [transaction](Self::transaction).
    ///
    /// ```
    /// # use millpond::{Error, Outcome, Pool, drivers::fake::{Act, Fake}, testing::sim::Sim};
    /// use millpond::Retry;
    /// use millpond::retry::Replay;
    ///
    /// # Sim::new(1).run(async |sim| {
    /// # let server = Fake::new();
    /// # let pool = Pool::builder(server.clone()).runtime(sim).build().await?;
    /// # server.next_queries([Act::cut()]);
    /// let reads = Retry::new().replay(Replay::Idempotent);
    /// let user = String::from("ada");
    /// let rows = pool
    ///     .run(&reads, |conn| Box::pin(async { conn.query("hello", &[(&*user).into()]).await }))
    ///     .await?;
    /// # assert_eq!((rows.len(), server.counts().queries), (1, 2));
    /// # Ok::<_, millpond::Error>(())
    /// # })?;
    /// # Ok::<_, millpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// That of the last attempt, with those of the [earlier](Error::earlier)
    /// ones; [`ErrorKind::Config`](crate::ErrorKind::Config) if the policy is not valid.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves a statement under way to the pool, which
    /// stops it. Whether it took effect is unknown.
    #[track_caller]
    pub fn run<'p, T, W>(
        &'p self,
        policy: &'p Retry,
        work: W,
    ) -> impl Future<Output = Result<T>> + Send + 'p
    where
        T: Send + 'p,
        W: for<'a> FnMut(&'a mut Lent<'p, D>) -> BoxFuture<'a, Result<T>> + Send + 'p,
    {
        repeat::run(self, policy, Location::caller(), work)
    }

    /// Runs a transaction: begins, does the work, commits; and all of that
    /// again where the policy says so.
    ///
    /// The work is repeated after a conflict with another transaction, and
    /// whenever the connection is lost before the commit. An error from it
    /// rolls back and comes out, [`Error::aborted`] with a reason of the
    /// application's own. So that it can be repeated, the work does nothing
    /// outside of the transaction that must happen once; that includes
    /// statements that commit by themselves, as those that define tables do on
    /// MySQL.
    ///
    /// If the connection is lost during the commit, nobody knows whether it
    /// took place: that is [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown), and not repeated but
    /// for a policy that says [idempotent](crate::retry::Replay::Idempotent), or as
    /// [`verify`](RetriedTransaction::verify) finds out.
    ///
    /// ```
    /// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
    /// use millpond::{Retry, params};
    ///
    /// # Sim::new(1).run(async |sim| {
    /// # let pool = Pool::builder(Fake::new()).runtime(sim).build().await?;
    /// let policy = Retry::new().max_attempts(10);
    /// let (from, to, amount) = (1, 2, 50);
    /// pool.transaction(&policy, |tx| {
    ///     Box::pin(async move {
    ///         let update = "UPDATE account SET balance = balance + ? WHERE id = ?";
    ///         tx.execute(update, &params![-amount, from]).await?;
    ///         tx.execute(update, &params![amount, to]).await
    ///     })
    /// })
    /// .await?;
    /// # Ok::<_, millpond::Error>(())
    /// # })?;
    /// # Ok::<_, millpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// That of the last attempt, with those of the [earlier](Error::earlier)
    /// ones; [`ErrorKind::Config`](crate::ErrorKind::Config) if the policy is not valid.
    ///
    /// # Cancellation
    ///
    /// Dropping the future rolls back; during the commit it is left open
    /// whether that took place.
    #[track_caller]
    pub fn transaction<'p, T, W>(
        &'p self,
        policy: &'p Retry,
        work: W,
    ) -> RetriedTransaction<'p, D, T>
    where
        T: Send + 'p,
        W: for<'a> FnMut(&'a mut Transaction<'p, D>) -> BoxFuture<'a, Result<T>> + Send + 'p,
    {
        let repeated = Repeated::new(policy, Location::caller(), work);
        RetriedTransaction { pool: self, repeated }
    }
}

impl<D: Driver> Lender<D> for &Pool<D> {
    type Tie = ();

    fn runtime(&self) -> &dyn Runtime {
        &*self.shared.runtime
    }

    async fn lend(
        &self,
        left: Duration,
        place: &'static Location<'static>,
    ) -> Result<(PooledConnection<D>, ())> {
        let limit = self.shared.rules(|rules| rules.acquire_timeout);
        Ok((Acquire::new(self, place).timeout(limit.min(left)).await?, ()))
    }

    fn is_harmless(&self, _conn: &PooledConnection<D>, (): &()) -> bool {
        // Nobody has asked the server whether it takes writes.
        false
    }

    fn given_up(&self, (): &()) -> impl Future<Output = Error> + Send {
        std::future::pending()
    }

    fn patience(&self) -> Duration {
        // Longer than anybody waits, and not beyond what a clock can say.
        const DAY: Duration = Duration::from_secs(3600 * 24);
        self.shared.rules(|rules| rules.reset_timeout).min(DAY)
    }

    fn note_retry(&self, course: &Course) {
        self.shared.note_retry(course);
    }
}

/// A connection lent for one attempt of [`Pool::run`].
///
/// Dereferences to the pooled connection. It knows whether the attempt may have
/// had an effect, by its own statements; whatever is done through the
/// connection behind it is taken to have had one.
pub struct Lent<'p, D: Driver> {
    conn: PooledConnection<D>,
    /// Something was done that may have taken effect.
    worked: AtomicBool,
    /// So that work may borrow what lives as long as the pool's borrow.
    lifetime: PhantomData<&'p Pool<D>>,
}

impl<D: Driver> Lent<'_, D> {
    pub(super) fn new(conn: PooledConnection<D>) -> Self {
        Self { conn, worked: AtomicBool::new(false), lifetime: PhantomData }
    }

    pub(super) fn what_failed(&self) -> Work {
        if self.worked.load(Ordering::Relaxed) { Work::Part } else { Work::Whole }
    }

    pub(super) fn conn(&self) -> &PooledConnection<D> {
        &self.conn
    }

    /// The name of the pool, which in a cluster is that of the node. To look at
    /// the connection is no work done on it.
    pub fn pool_name(&self) -> &str {
        self.conn.pool_name()
    }

    /// Whether the session [refuses writes](PooledConnection::is_read_only).
    pub fn is_read_only(&self) -> bool {
        self.conn.is_read_only()
    }

    /// The connection's facts.
    pub fn info(&self) -> ConnectionInfo {
        self.conn.info()
    }

    /// The role of the node, as the session was told last.
    pub fn role(&self) -> Option<Role> {
        self.conn.role()
    }

    /// Runs one statement and collects its rows.
    ///
    /// # Errors
    ///
    /// As for [`PooledConnection::query`].
    ///
    /// # Cancellation
    ///
    /// As for [`PooledConnection::query`]; the work counts as done.
    pub async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Rows> {
        let before = self.worked.load(Ordering::Relaxed);
        self.worked.store(true, Ordering::Relaxed);
        let result = self.conn.query(sql, params).await;
        // A procedure may commit in parts, and say that the last one was undone.
        let without_effect =
            |error: &Error| matches!(error.outcome(), Outcome::NotSent | Outcome::Rejected);
        if result.as_ref().is_err_and(without_effect) {
            self.worked.store(before, Ordering::Relaxed);
        }
        result
    }

    /// Runs one statement and returns the number of rows it changed; 0 if the
    /// database does not say.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    ///
    /// # Cancellation
    ///
    /// As for `query`.
    pub async fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64> {
        Ok(self.query(sql, params).await?.affected().unwrap_or(0))
    }
}

impl<D: Driver> Deref for Lent<'_, D> {
    type Target = PooledConnection<D>;

    fn deref(&self) -> &PooledConnection<D> {
        self.worked.store(true, Ordering::Relaxed);
        &self.conn
    }
}

impl<D: Driver> DerefMut for Lent<'_, D> {
    fn deref_mut(&mut self) -> &mut PooledConnection<D> {
        self.worked.store(true, Ordering::Relaxed);
        &mut self.conn
    }
}

impl<D: Driver> fmt::Debug for Lent<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("conn", &self.conn).finish_non_exhaustive()
    }
}

/// A transaction under a policy, run by awaiting it. Made by
/// [`Pool::transaction`].
#[must_use = "a transaction does nothing until awaited"]
pub struct RetriedTransaction<'p, D: Driver, T> {
    pool: &'p Pool<D>,
    repeated: Repeated<'p, D, T>,
}

impl<'p, D: Driver, T: Send + 'p> RetriedTransaction<'p, D, T> {
    /// An isolation level or access mode for each attempt. Default: the
    /// database's own. A transaction that only reads is as good twice, so it is
    /// repeated whatever the policy says of [`Replay`](crate::retry::Replay).
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.repeated.options = options;
        self
    }

    /// Finds out whether a commit of unknown outcome took place. Default: it
    /// stays unknown.
    ///
    /// The answer must be certain. The server may still be at work on a commit
    /// whose connection is gone, so looking for a row is not enough: write a
    /// row with a unique key in the transaction and try to insert the same one
    /// here, which waits for its end. On `true` the transaction has succeeded;
    /// on `false` it was not committed, and is repeated as the policy allows.
    /// An error leaves it unknown.
    pub fn verify<V, F>(mut self, mut hook: V) -> Self
    where
        V: FnMut(&'p Pool<D>) -> F + Send + 'p,
        F: Future<Output = Result<bool>> + Send + 'p,
    {
        let pool = self.pool;
        self.repeated.verify = Some(Box::new(move || Box::pin(hook(pool))));
        self
    }
}

impl<'p, D: Driver, T: Send + 'p> IntoFuture for RetriedTransaction<'p, D, T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'p, Result<T>>;

    fn into_future(self) -> BoxFuture<'p, Result<T>> {
        Box::pin(self.repeated.drive(self.pool))
    }
}

impl<D: Driver, T> fmt::Debug for RetriedTransaction<'_, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetriedTransaction")
            .field("place", &format_args!("{}", self.repeated.place))
            .field("policy", &self.repeated.policy)
            .field("options", &self.repeated.options)
            .field("verifies", &self.repeated.verify.is_some())
            .finish_non_exhaustive()
    }
}
