//! Transactions: all or nothing, nested by savepoints, rolled back when
//! dropped.
//!
//! Owns how deep a connection is in transactions, and what must be rolled back
//! before its next statement. How a database begins and ends one is the
//! driver's; what is left open at release is cleaned by the pool.

use std::fmt;
use std::ops::{Deref, DerefMut};

use millpond_driver::{Cause, Driver, Error, Fate, Outcome, Result, TransactionOptions};

use super::connection::PooledConnection;

/// How deep a connection is in transactions begun through the pool: 1 in a
/// transaction, one more for each savepoint.
#[derive(Debug, Default)]
pub(super) struct Depth {
    now: u32,
    /// Transactions deeper than this were dropped and wait to be rolled back.
    unwind_to: Option<u32>,
    /// An error has undone all of it, for this cause.
    undone: Option<Cause>,
    /// The database said so. Else the connection is to go, and may work on until then.
    certain: bool,
    /// The savepoint of the next level is there still: that level was undone.
    left_over: bool,
}

impl Depth {
    fn abandon(&mut self, depth: u32) {
        let target = depth - 1;
        self.unwind_to = Some(self.unwind_to.map_or(target, |earlier| earlier.min(target)));
    }

    /// A first level is about to begin: dropped before the answer, it may have.
    fn begin(&mut self) {
        self.now = 1;
        self.unwind_to = Some(0);
    }

    /// This level has begun.
    fn begun(&mut self, depth: u32) {
        self.now = depth;
        self.unwind_to = None;
        self.left_over = false;
    }

    /// What begins the level after this one.
    fn next(&self) -> String {
        let name = savepoint(self.now + 1);
        match self.left_over {
            // Or each level that was undone would leave one, nested in the one before.
            true => format!("RELEASE SAVEPOINT {name}; SAVEPOINT {name}"),
            false => format!("SAVEPOINT {name}"),
        }
    }

    /// What has to be rolled back before the next statement.
    pub(super) fn unwinding(&self) -> Option<u32> {
        self.unwind_to
    }

    pub(super) fn unwound(&mut self) {
        if let Some(target) = self.unwind_to {
            self.rise_to(target, End::Rollback);
        }
    }

    fn rise_to(&mut self, depth: u32, how: End) {
        self.now = depth;
        self.unwind_to = self.unwind_to.filter(|target| *target < depth);
        self.undone = self.undone.filter(|_| depth > 0);
        self.certain &= depth > 0;
        self.left_over = how == End::Rollback && depth > 0;
    }

    /// A statement has failed so. What follows it in a transaction that is gone,
    /// or on a connection that goes with it, would take effect by itself.
    pub(super) fn note(&mut self, error: &Error) {
        let undone = error.outcome() == Outcome::RolledBack && error.fate() == Fate::Reusable;
        let gone = undone || error.fate() == Fate::Discard;
        if gone && self.now > 0 {
            self.undone.get_or_insert_with(|| error.cause());
            self.certain |= undone;
        }
    }

    pub(super) fn undone(&self) -> Option<Cause> {
        self.undone
    }

    /// Whether there is nothing left to roll back.
    pub(super) fn is_gone(&self) -> bool {
        self.undone.is_some() && self.certain
    }
}

/// What is said of a statement in a transaction that is gone, and why it is.
pub(super) fn undone(cause: Cause) -> Error {
    Error::statement("not sent: an earlier error has undone this transaction")
        .with_outcome(Outcome::RolledBack)
        .with_cause(cause)
}

/// The savepoint that starts level `depth`, for depths of 2 and more.
fn savepoint(depth: u32) -> String {
    format!("millpond_{depth}")
}

/// Undoes level `depth`, for depths of 2 and more. Its savepoint stays, so that this
/// may be said again if nobody knows whether it was heard.
pub(super) fn give_up(depth: u32) -> String {
    format!("ROLLBACK TO SAVEPOINT {}", savepoint(depth))
}

/// A transaction, from [`Pool::begin`](crate::Pool::begin) (which owns its
/// connection) or [`PooledConnection::begin`] (which borrows one).
///
/// Dereferences to the connection: statements run inside it, and `begin` on it
/// opens a savepoint. Where an error of one statement undoes all of it (a
/// deadlock, on MySQL), those that follow are refused with
/// [`Outcome::RolledBack`](crate::Outcome::RolledBack), `commit` included: they
/// would take effect alone. A transaction begun by a statement of your own is not
/// watched so. Dropping it without [`commit`](Self::commit) rolls back:
/// before the connection's next statement, or in the background if the
/// connection goes back to the pool.
///
/// ```
/// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
/// # Sim::new(1).run(async |sim| {
/// # let pool = Pool::builder(Fake::new()).runtime(sim).build().await?;
/// let mut tx = pool.begin().await?;
/// tx.execute("UPDATE account SET balance = balance - 1 WHERE id = 1", &[]).await?;
/// {
///     let mut attempt = tx.begin().await?;
///     attempt.execute("UPDATE account SET balance = balance + 1 WHERE id = 2", &[]).await?;
///     attempt.commit().await?;
/// }
/// tx.commit().await?;
/// # Ok::<_, millpond::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction<'a, D: Driver> {
    conn: Lease<'a, D>,
    depth: u32,
    ended: bool,
}

enum Lease<'a, D: Driver> {
    Owned(PooledConnection<D>),
    Lent(&'a mut PooledConnection<D>),
}

impl<'a, D: Driver> Transaction<'a, D> {
    pub(super) async fn owned(
        mut conn: PooledConnection<D>,
        options: &TransactionOptions,
    ) -> Result<Self> {
        let depth = conn.deepen(options).await?;
        Ok(Self { conn: Lease::Owned(conn), depth, ended: false })
    }

    async fn lent(conn: &'a mut PooledConnection<D>, options: &TransactionOptions) -> Result<Self> {
        let depth = conn.deepen(options).await?;
        Ok(Self { conn: Lease::Lent(conn), depth, ended: false })
    }

    /// Makes everything done in it permanent; for a savepoint, a part of the
    /// transaction around it.
    ///
    /// # Errors
    ///
    /// The database's refusal, after which nothing of it has taken effect, or
    /// [`ErrorKind::CommitUnknown`](crate::ErrorKind::CommitUnknown) if the
    /// connection was lost on the way: it may have been committed.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves it open whether the transaction was
    /// committed.
    pub async fn commit(self) -> Result<()> {
        self.end(End::Commit).await
    }

    /// Undoes everything done in it.
    ///
    /// # Errors
    ///
    /// The loss of the connection, after which the database undoes it.
    ///
    /// # Cancellation
    ///
    /// Dropping the future rolls back as dropping the transaction does.
    pub async fn rollback(self) -> Result<()> {
        self.end(End::Rollback).await
    }

    async fn end(mut self, how: End) -> Result<()> {
        let depth = self.depth;
        self.conn.rise(depth, how).await?;
        self.ended = true;
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
}

impl<D: Driver> PooledConnection<D> {
    /// Starts a transaction; inside one, a savepoint.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves no transaction open, neither for the next borrower
    /// nor for the next statement here; but what the native client is asked before
    /// that may be part of it.
    pub async fn begin(&mut self) -> Result<Transaction<'_, D>> {
        Transaction::lent(self, &TransactionOptions::new()).await
    }

    /// Starts a transaction with an isolation level or access mode.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query);
    /// [`Unsupported`](crate::ErrorKind::Unsupported) inside a transaction.
    ///
    /// # Cancellation
    ///
    /// As for [`begin`](Self::begin).
    pub async fn begin_with(&mut self, options: &TransactionOptions) -> Result<Transaction<'_, D>> {
        Transaction::lent(self, options).await
    }

    /// Starts a transaction that owns the connection, for who has one already.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin). The connection goes back to the pool.
    ///
    /// # Cancellation
    ///
    /// As for `begin`.
    pub async fn into_transaction(self) -> Result<Transaction<'static, D>> {
        Transaction::owned(self, &TransactionOptions::new()).await
    }

    /// Begins one level deeper and returns how deep that is.
    async fn deepen(&mut self, options: &TransactionOptions) -> Result<u32> {
        self.unwind().await?;
        let depth = self.depth().now + 1;
        if depth == 1 {
            self.depth().begin();
            let begun = self.run(async |driver, conn| driver.begin(conn, options).await).await;
            if let Err(error) = begun {
                if error.outcome() != Outcome::Unknown {
                    self.depth().unwound();
                }
                return Err(error);
            }
        } else if *options == TransactionOptions::new() {
            let sql = self.depth().next();
            // Dropped here it may be there, but nothing is in it.
            self.run(async |driver, conn| driver.batch(conn, &sql).await).await?;
        } else {
            return Err(Error::unsupported("options on a nested transaction"));
        }
        self.depth().begun(depth);
        Ok(depth)
    }

    /// Ends level `depth`.
    async fn rise(&mut self, depth: u32, how: End) -> Result<()> {
        if how == End::Rollback && self.depth().undone().is_some() {
            if depth == 1 && !self.depth().is_gone() {
                let ended = self.run(async |driver, conn| driver.rollback(conn).await).await;
                // Refused because it is gone, or gone with the connection.
                ended.or_else(|error| match error.fate() == Fate::Discard {
                    true => Ok(()),
                    false if error.outcome() == Outcome::Rejected => Ok(()),
                    false => Err(error),
                })?;
            }
            self.depth().rise_to(depth - 1, how);
            return Ok(());
        }
        // A rollback undoes what was left open within as well.
        if how == End::Commit {
            self.unwind().await?;
        }
        if depth > 1 {
            let name = savepoint(depth);
            let sql = match how {
                End::Commit => format!("RELEASE SAVEPOINT {name}"),
                End::Rollback => give_up(depth),
            };
            self.run(async |driver, conn| driver.batch(conn, &sql).await).await?;
        } else if how == End::Commit {
            let committed = self.run(async |driver, conn| driver.commit(conn).await).await;
            committed.map_err(|error| match error.outcome() {
                Outcome::Unknown => Error::commit_unknown(error),
                _ => error,
            })?;
        } else {
            self.run(async |driver, conn| driver.rollback(conn).await).await?;
        }
        self.depth().rise_to(depth - 1, how);
        Ok(())
    }
}

impl<D: Driver> Deref for Lease<'_, D> {
    type Target = PooledConnection<D>;

    fn deref(&self) -> &PooledConnection<D> {
        match self {
            Self::Owned(conn) => conn,
            Self::Lent(conn) => conn,
        }
    }
}

impl<D: Driver> DerefMut for Lease<'_, D> {
    fn deref_mut(&mut self) -> &mut PooledConnection<D> {
        match self {
            Self::Owned(conn) => conn,
            Self::Lent(conn) => conn,
        }
    }
}

impl<D: Driver> Deref for Transaction<'_, D> {
    type Target = PooledConnection<D>;

    fn deref(&self) -> &PooledConnection<D> {
        &self.conn
    }
}

impl<D: Driver> DerefMut for Transaction<'_, D> {
    fn deref_mut(&mut self) -> &mut PooledConnection<D> {
        &mut self.conn
    }
}

impl<D: Driver> Drop for Transaction<'_, D> {
    fn drop(&mut self) {
        if !self.ended {
            let depth = self.depth;
            self.conn.depth().abandon(depth);
        }
    }
}

impl<D: Driver> fmt::Debug for Transaction<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("conn", &**self)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}
