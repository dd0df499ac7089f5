//! Work and transactions under a policy, one attempt after another, whoever
//! lends the connections.
//!
//! Owns what an attempt is, and whether it may have had an effect before it
//! failed. Whether and when there is another is decided in `retry`; where its
//! connection comes from is the [`Lender`]'s.

use std::panic::Location;
use std::pin::pin;
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::future::{Either, select};
use millpond_driver::{
    AccessMode, Driver, Error, ErrorKind, Fate, Outcome, Result, Runtime, TransactionOptions,
};

use super::connection::PooledConnection;
use super::retrying::Lent;
use super::transaction::Transaction;
use crate::retry::{Attempts, Course, Replay, Retry, Work};
use crate::sync::{AtomicBool, Ordering};

/// Where attempts get their connections.
pub(crate) trait Lender<D: Driver>: Send + Sync {
    /// What it knows of a connection it has lent.
    type Tie: Send + Sync;

    /// What to wait with.
    fn runtime(&self) -> &dyn Runtime;

    /// A connection for one attempt, within this time.
    fn lend(
        &self,
        left: Duration,
        place: &'static Location<'static>,
    ) -> impl Future<Output = Result<(PooledConnection<D>, Self::Tie)>> + Send;

    /// Whether whatever is done on the connection is as good twice, because the
    /// server behind it takes no writes.
    fn is_harmless(&self, conn: &PooledConnection<D>, tie: &Self::Tie) -> bool;

    /// Ends when it is known from elsewhere that no answer will come, with why.
    fn given_up(&self, tie: &Self::Tie) -> impl Future<Output = Error> + Send;

    /// How long a rollback may take.
    fn patience(&self) -> Duration;

    /// There is going to be another attempt.
    fn note_retry(&self, course: &Course);
}

/// Waits for as long as is due before another attempt, if there is one.
async fn next<D: Driver>(
    lender: &impl Lender<D>,
    attempts: &mut Attempts<'_>,
    error: Error,
    what: Work,
) -> Result<()> {
    let wait = attempts.decide(error, what)?;
    lender.note_retry(attempts.course());
    attempts.rest(wait).await;
    Ok(())
}

/// Runs work on one connection after another.
pub(crate) async fn run<'p, D, L, T, W>(
    lender: L,
    policy: &'p Retry,
    place: &'static Location<'static>,
    mut work: W,
) -> Result<T>
where
    D: Driver,
    L: Lender<D>,
    W: for<'a> FnMut(&'a mut Lent<'p, D>) -> BoxFuture<'a, Result<T>>,
{
    policy.validate()?;
    let mut attempts = policy.attempts(lender.runtime());
    loop {
        let left = attempts.left(lender.runtime().now());
        let (error, what) = match lender.lend(left, place).await {
            Err(error) => (error, Work::Whole),
            Ok((conn, tie)) => {
                let harmless = lender.is_harmless(&conn, &tie);
                let mut lent = Lent::new(conn);
                let done = match select(work(&mut lent), pin!(lender.given_up(&tie))).await {
                    Either::Left((done, _)) => done,
                    Either::Right((error, _)) => Err(error),
                };
                match done {
                    Ok(value) => {
                        attempts.succeeded();
                        return Ok(value);
                    }
                    // It may have become a primary meanwhile.
                    Err(error) if harmless && lender.is_harmless(lent.conn(), &tie) => {
                        (error, Work::Harmless)
                    }
                    Err(error) => (error, lent.what_failed()),
                }
            }
        };
        next(&lender, &mut attempts, error, what).await?;
    }
}

type BoxedWork<'p, D, T> =
    Box<dyn for<'a> FnMut(&'a mut Transaction<'p, D>) -> BoxFuture<'a, Result<T>> + Send + 'p>;

type BoxedVerify<'p> = Box<dyn FnMut() -> BoxFuture<'p, Result<bool>> + Send + 'p>;

/// A transaction that is repeated.
pub(crate) struct Repeated<'p, D: Driver, T> {
    pub(crate) policy: &'p Retry,
    pub(crate) place: &'static Location<'static>,
    pub(crate) options: TransactionOptions,
    work: BoxedWork<'p, D, T>,
    pub(crate) verify: Option<BoxedVerify<'p>>,
}

impl<'p, D: Driver, T: Send + 'p> Repeated<'p, D, T> {
    pub(crate) fn new<W>(policy: &'p Retry, place: &'static Location<'static>, work: W) -> Self
    where
        W: for<'a> FnMut(&'a mut Transaction<'p, D>) -> BoxFuture<'a, Result<T>> + Send + 'p,
    {
        let options = TransactionOptions::new();
        Self { policy, place, options, work: Box::new(work), verify: None }
    }

    pub(crate) async fn drive(mut self, lender: impl Lender<D>) -> Result<T> {
        let mut policy = self.policy.clone();
        policy.validate()?;
        if self.options.access == Some(AccessMode::ReadOnly) {
            // What only reads is as good twice.
            policy = policy.replay(Replay::Idempotent);
        }
        let mut attempts = policy.attempts(lender.runtime());
        loop {
            let left = attempts.left(lender.runtime().now());
            let (done, what) = match lender.lend(left, self.place).await {
                Err(error) => (Err(error), Work::Transaction),
                Ok((conn, tie)) => {
                    let mut options = self.options.clone();
                    let harmless = lender.is_harmless(&conn, &tie) && options.access.is_none();
                    if harmless {
                        // So that it stays so, also on a node that is promoted.
                        options.access = Some(AccessMode::ReadOnly);
                    }
                    let done = self.attempt(&lender, conn, tie, &options).await;
                    (done, if harmless { Work::Harmless } else { Work::Transaction })
                }
            };
            match done {
                Ok(value) => {
                    attempts.succeeded();
                    return Ok(value);
                }
                Err(error) => next(&lender, &mut attempts, error, what).await?,
            }
        }
    }

    async fn attempt<L: Lender<D>>(
        &mut self,
        lender: &L,
        conn: PooledConnection<D>,
        tie: L::Tie,
        options: &TransactionOptions,
    ) -> Result<T> {
        // Kept until after the commit, in case that has to be verified.
        let mut value = None;
        let committing = AtomicBool::new(false);
        let work = self.work_once(lender, conn, options, &mut value, &committing);
        let committed = match select(pin!(work), pin!(lender.given_up(&tie))).await {
            Either::Left((done, _)) => done,
            Either::Right((error, _)) if committing.load(Ordering::Relaxed) => {
                Err(Error::commit_unknown(error))
            }
            Either::Right((error, _)) => Err(error),
        };
        match committed {
            // One of another pool's is the work's own affair.
            Err(error)
                if error.kind() == ErrorKind::CommitUnknown
                    && committing.load(Ordering::Relaxed) =>
            {
                self.resolve(error).await?;
            }
            committed => committed?,
        }
        Ok(value.expect("committed after the work"))
    }

    async fn work_once(
        &mut self,
        lender: &impl Lender<D>,
        conn: PooledConnection<D>,
        options: &TransactionOptions,
        value: &mut Option<T>,
        committing: &AtomicBool,
    ) -> Result<()> {
        let mut tx: Transaction<'p, D> = Transaction::owned(conn, options).await?;
        match (self.work)(&mut tx).await {
            Ok(done) => {
                *value = Some(done);
                committing.store(true, Ordering::Relaxed);
                tx.commit().await
            }
            Err(error) => {
                // Its locks end before the wait for another attempt begins. If
                // it fails or takes too long, the pool closes the connection.
                if error.fate() != Fate::Discard {
                    let runtime = lender.runtime();
                    let pause = runtime.sleep_until(runtime.now() + lender.patience());
                    select(pin!(tx.rollback()), pause).await;
                }
                Err(error)
            }
        }
    }

    /// What is found out of a commit of which this error is all that is known.
    async fn resolve(&mut self, unknown: Error) -> Result<()> {
        let Some(verify) = &mut self.verify else { return Err(unknown) };
        match verify().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::lost("the connection was lost and nothing committed")
                .with_outcome(Outcome::RolledBack)
                .with_cause(unknown.cause())
                .with_source(unknown)),
            Err(error) => Err(unknown.within(format_args!("cannot be verified ({error})"))),
        }
    }
}
