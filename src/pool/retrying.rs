//! Work on the pool under a policy: one connection, or one transaction, for
//! each attempt.
//!
//! Owns what an attempt is, and whether it may have had an effect before it
//! failed. Whether and when there is another is decided in `retry`.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::pin;

use futures_core::future::BoxFuture;
use futures_util::future::select;
use millpond_driver::{
    AccessMode, Driver, Error, ErrorKind, Fate, Outcome, Result, Rows, TransactionOptions, Value,
};

use super::Pool;
use super::acquire::Acquire;
use super::connection::PooledConnection;
use super::transaction::Transaction;
use crate::retry::{Attempts, Replay, Retry, Work};
use crate::sync::{AtomicBool, Ordering};

impl<D: Driver> Pool<D> {
    /// Runs work on a connection, and again on another one where the policy
    /// says so.
    ///
    /// What may have had an effect is repeated only if it is
    /// [idempotent](Replay::Idempotent). Without that, work is repeated while
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
    /// ones; [`ErrorKind::Config`] if the policy is not valid.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves a statement under way to the pool, which
    /// stops it. Whether it took effect is unknown.
    #[track_caller]
    pub fn run<'p, T, W>(
        &'p self,
        policy: &'p Retry,
        mut work: W,
    ) -> impl Future<Output = Result<T>> + Send + 'p
    where
        T: Send + 'p,
        W: for<'a> FnMut(&'a mut Lent<'p, D>) -> BoxFuture<'a, Result<T>> + Send + 'p,
    {
        let place = Location::caller();
        async move {
            policy.validate()?;
            let mut attempts = policy.attempts(&*self.shared.runtime);
            loop {
                let (error, what) = match self.connection_for(&attempts, place).await {
                    Err(error) => (error, Work::Whole),
                    Ok(conn) => {
                        let mut lent = Lent::new(conn);
                        match work(&mut lent).await {
                            Ok(value) => {
                                attempts.succeeded();
                                return Ok(value);
                            }
                            Err(error) => (error, lent.what_failed()),
                        }
                    }
                };
                self.next(&mut attempts, error, what).await?;
            }
        }
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
    /// took place: that is [`ErrorKind::CommitUnknown`], and not repeated but
    /// for a policy that says [idempotent](Replay::Idempotent), or as
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
    /// ones; [`ErrorKind::Config`] if the policy is not valid.
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
        W: for<'a> FnMut(&'a mut Transaction<'p, D>) -> BoxFuture<'a, Result<T>> + Send + 'p,
    {
        RetriedTransaction {
            pool: self,
            policy,
            place: Location::caller(),
            options: TransactionOptions::new(),
            work: Box::new(work),
            verify: None,
        }
    }

    /// Waits for as long as is due before another attempt, if there is one.
    async fn next(&self, attempts: &mut Attempts<'_>, error: Error, what: Work) -> Result<()> {
        let wait = attempts.decide(error, what)?;
        self.shared.note_retry(attempts.course());
        attempts.rest(wait).await;
        Ok(())
    }

    async fn connection_for(
        &self,
        attempts: &Attempts<'_>,
        place: &'static Location<'static>,
    ) -> Result<PooledConnection<D>> {
        let left = attempts.left(self.shared.runtime.now());
        let limit = self.shared.rules(|rules| rules.acquire_timeout);
        Acquire::new(self, place).timeout(limit.min(left)).await
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
    fn new(conn: PooledConnection<D>) -> Self {
        Self { conn, worked: AtomicBool::new(false), lifetime: PhantomData }
    }

    fn what_failed(&self) -> Work {
        if self.worked.load(Ordering::Relaxed) { Work::Part } else { Work::Whole }
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

type BoxedWork<'p, D, T> =
    Box<dyn for<'a> FnMut(&'a mut Transaction<'p, D>) -> BoxFuture<'a, Result<T>> + Send + 'p>;

type BoxedVerify<'p, D> = Box<dyn FnMut(&'p Pool<D>) -> BoxFuture<'p, Result<bool>> + Send + 'p>;

/// A transaction under a policy, run by awaiting it. Made by
/// [`Pool::transaction`].
#[must_use = "a transaction does nothing until awaited"]
pub struct RetriedTransaction<'p, D: Driver, T> {
    pool: &'p Pool<D>,
    policy: &'p Retry,
    place: &'static Location<'static>,
    options: TransactionOptions,
    work: BoxedWork<'p, D, T>,
    verify: Option<BoxedVerify<'p, D>>,
}

impl<'p, D: Driver, T: Send + 'p> RetriedTransaction<'p, D, T> {
    /// An isolation level or access mode for each attempt. Default: the
    /// database's own. A transaction that only reads is as good twice, so it is
    /// repeated whatever the policy says of [`Replay`].
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.options = options;
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
        self.verify = Some(Box::new(move |pool| Box::pin(hook(pool))));
        self
    }

    async fn drive(mut self) -> Result<T> {
        let mut policy = self.policy.clone();
        policy.validate()?;
        if self.options.access == Some(AccessMode::ReadOnly) {
            // What only reads is as good twice.
            policy = policy.replay(Replay::Idempotent);
        }
        let mut attempts = policy.attempts(&*self.pool.shared.runtime);
        loop {
            match self.attempt(&attempts).await {
                Ok(value) => {
                    attempts.succeeded();
                    return Ok(value);
                }
                Err(error) => self.pool.next(&mut attempts, error, Work::Transaction).await?,
            }
        }
    }

    async fn attempt(&mut self, attempts: &Attempts<'_>) -> Result<T> {
        let conn = self.pool.connection_for(attempts, self.place).await?;
        let mut tx: Transaction<'p, D> = Transaction::owned(conn, &self.options).await?;
        match (self.work)(&mut tx).await {
            Ok(value) => match tx.commit().await {
                Ok(()) => Ok(value),
                Err(error) if error.kind() == ErrorKind::CommitUnknown => {
                    self.resolve(error).await.map(|()| value)
                }
                Err(error) => Err(error),
            },
            Err(error) => {
                // Its locks end before the wait for another attempt begins. If
                // it fails or takes too long, the pool closes the connection.
                if error.fate() != Fate::Discard {
                    let shared = &self.pool.shared;
                    let limit = shared.rules(|rules| rules.reset_timeout);
                    let pause = shared.runtime.sleep_until(shared.deadline(limit));
                    select(pin!(tx.rollback()), pause).await;
                }
                Err(error)
            }
        }
    }

    /// What is found out of a commit of which this error is all that is known.
    async fn resolve(&mut self, unknown: Error) -> Result<()> {
        let Some(verify) = &mut self.verify else { return Err(unknown) };
        match verify(self.pool).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::lost("the connection was lost and nothing committed")
                .with_outcome(Outcome::RolledBack)
                .with_cause(unknown.cause())
                .with_source(unknown)),
            Err(error) => Err(unknown.within(format_args!("cannot be verified ({error})"))),
        }
    }
}

impl<'p, D: Driver, T: Send + 'p> IntoFuture for RetriedTransaction<'p, D, T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'p, Result<T>>;

    fn into_future(self) -> BoxFuture<'p, Result<T>> {
        Box::pin(self.drive())
    }
}

impl<D: Driver, T> fmt::Debug for RetriedTransaction<'_, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetriedTransaction")
            .field("place", &format_args!("{}", self.place))
            .field("policy", &self.policy)
            .field("options", &self.options)
            .field("verifies", &self.verify.is_some())
            .finish_non_exhaustive()
    }
}
