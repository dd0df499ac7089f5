//! A borrowed connection: the guard that gives it back.
//!
//! Owns the connection while it is borrowed, marks statements in flight so
//! that a dropped future is noticed, and remembers the worst error. What
//! becomes of it afterwards is decided in `release`.

use std::fmt;
use std::future::ready;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use millpond_driver::{
    Driver, Error, ErrorKind, Fate, Outcome, Position, Result, Role, Row, Rows, ServerInfo, Value,
};

use super::entry::{Entry, Held, is_death};
use super::events::Event;
use super::info::ConnectionInfo;
use super::meters::Timing;
use super::release::span;
use super::shared::Shared;
use super::streaming;
use super::tasks::drop_quietly;
use super::transaction::{self, Depth};

/// A connection borrowed from a [`Pool`](crate::Pool).
///
/// Dereferences to the driver's own connection for everything its client can
/// do. Dropping it gives it back, anywhere: outside a runtime, while
/// unwinding, in a destructor. What was left unclean (an open transaction, a
/// statement whose future was dropped) is cleaned in the background before
/// anybody else gets it, or the connection is closed.
///
/// Nobody can use it after that, or give it back twice:
///
/// ```compile_fail,E0382
/// # async fn twice<D: millpond::Driver>(pool: millpond::Pool<D>) -> millpond::Result<()> {
/// let mut conn = pool.acquire().await?;
/// conn.discard();
/// conn.query("SELECT 1", &[]).await?;
/// # Ok(())
/// # }
/// ```
pub struct PooledConnection<D: Driver> {
    shared: Arc<Shared<D>>,
    /// `None` only while it is being dropped.
    held: Option<Held<D::Connection>>,
}

impl<D: Driver> PooledConnection<D> {
    #[inline]
    pub(super) fn new(shared: Arc<Shared<D>>, held: Held<D::Connection>) -> Self {
        Self { shared, held: Some(held) }
    }

    /// Runs one statement and collects its rows.
    ///
    /// # Errors
    ///
    /// The database's refusal, or the loss of the connection.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves the statement to the pool, which stops it
    /// when the connection is given back. Whether it took effect is unknown. A next
    /// statement on this connection waits for its end, or is refused, as the driver
    /// has it: after a time limit of your own, give the connection back.
    pub async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Rows> {
        self.unwind().await?;
        self.run(async |driver, conn| driver.query(conn, sql, params).await).await
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

    /// Runs several statements separated by semicolons, as migrations do.
    ///
    /// # Errors
    ///
    /// The first statement that fails; those before it have taken effect.
    ///
    /// # Cancellation
    ///
    /// As for [`query`](Self::query).
    pub async fn batch(&mut self, sql: &str) -> Result<()> {
        self.unwind().await?;
        self.run(async |driver, conn| driver.batch(conn, sql).await).await
    }

    /// Proves with one round trip that the database answers.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from answering.
    ///
    /// # Cancellation
    ///
    /// As for [`query`](Self::query).
    pub async fn ping(&mut self) -> Result<()> {
        self.run(async |driver, conn| driver.ping(conn).await).await
    }

    /// Runs one statement and yields its rows one by one.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query); an error ends the stream.
    ///
    /// # Cancellation
    ///
    /// Dropping the stream half-way leaves the rest to the pool, which stops
    /// the statement when the connection is given back.
    pub fn query_stream<'a>(
        &'a mut self,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Stream<Item = Result<Row>> + Send + 'a {
        stream::once(async move {
            self.unwind().await?;
            let entry = &mut *self.held.as_mut().expect("held until dropped").entry;
            let Entry { conn, id, in_flight, fate, dead, depth, .. } = entry;
            let left_over = std::mem::replace(in_flight, true);
            let mut timing = Timing::start(&self.shared, *id);
            let rows = self.shared.driver.query_stream(conn, sql, params);
            let steps = rows.map(Some).chain(stream::once(ready(None)));
            Ok(steps.filter_map(move |step| {
                match &step {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        *fate = error.fate().max(*fate);
                        *dead |= error.fate() == Fate::Discard && is_death(error);
                        depth.note(error);
                        // The server's last word; an error of ours may leave rows unread.
                        if error.kind() == ErrorKind::Statement && error.fate() != Fate::Discard {
                            *in_flight = left_over;
                        }
                        timing.end(Some(error));
                    }
                    // Reached only by who reads to the end.
                    None => {
                        *in_flight = left_over;
                        timing.end(None);
                    }
                }
                ready(step)
            }))
        })
        .try_flatten()
    }

    /// Runs one statement and yields its rows one by one, in a stream that owns the
    /// connection: to be spawned, or to be the body of an answer. The connection goes
    /// back when the stream has ended or is dropped.
    ///
    /// ```
    /// # use millpond::{Pool, Result, Row, drivers::fake::Fake, params};
    /// # use futures_core::Stream;
    /// async fn orders(pool: &Pool<Fake>, of: i64) -> Result<impl Stream<Item = Result<Row>> + use<>> {
    ///     let conn = pool.acquire().await?;
    ///     let sql = "SELECT id, total FROM orders WHERE customer = $1";
    ///     Ok(conn.into_stream(sql.into(), params![of].into()))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`query_stream`](Self::query_stream).
    ///
    /// # Cancellation
    ///
    /// As for `query_stream`.
    pub fn into_stream(
        mut self,
        sql: String,
        params: Vec<Value>,
    ) -> impl Stream<Item = Result<Row>> + Send + 'static {
        streaming::rows_of(move |outlet| async move {
            let mut rows = pin!(self.query_stream(&sql, &params));
            while let Some(row) = rows.next().await {
                outlet.give(row?).await;
            }
            Ok(())
        })
    }

    /// Rolls back what dropped transactions have left open.
    pub(super) async fn unwind(&mut self) -> Result<()> {
        let undone = self.depth().undone();
        let Some(target) = self.depth().unwinding() else {
            return undone.map_or(Ok(()), |cause| Err(transaction::undone(cause)));
        };
        if let Some(cause) = undone.filter(|_| target > 0 || self.depth().is_gone()) {
            self.depth().unwound();
            return if target == 0 { Ok(()) } else { Err(transaction::undone(cause)) };
        }
        let rolled_back = if target == 0 {
            self.run(async |driver, conn| driver.rollback(conn).await).await
        } else {
            let sql = transaction::give_up(target + 1);
            self.run(async |driver, conn| driver.query(conn, &sql, &[]).await.map(drop)).await
        };
        match rolled_back {
            // Refused because the transaction is gone already.
            Err(error) if target == 0 && error.outcome() == Outcome::Rejected => {}
            other => other?,
        }
        self.depth().unwound();
        Ok(())
    }

    pub(super) fn depth(&mut self) -> &mut Depth {
        &mut self.entry_mut().depth
    }

    /// The same for what is no statement of the application's: it is not measured,
    /// for who waits for a replica to catch up learns nothing of how quick it is.
    async fn ask<T>(
        &mut self,
        work: impl AsyncFnOnce(&D, &mut D::Connection) -> Result<T>,
    ) -> Result<T> {
        let entry = &mut *self.held.as_mut().expect("held until dropped").entry;
        let left_over = std::mem::replace(&mut entry.in_flight, true);
        let result = work(&self.shared.driver, &mut entry.conn).await;
        entry.in_flight = left_over;
        if let Err(error) = &result {
            entry.note(error);
        }
        result
    }

    /// Runs driver code with the mark of a statement in flight.
    pub(super) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&D, &mut D::Connection) -> Result<T>,
    ) -> Result<T> {
        let entry = &mut *self.held.as_mut().expect("held until dropped").entry;
        // Armed before the first byte, disarmed after the last; but one that was
        // dropped before this is not made up for.
        let left_over = std::mem::replace(&mut entry.in_flight, true);
        let mut timing = Timing::start(&self.shared, entry.id);
        let result = timing.around(work(&self.shared.driver, &mut entry.conn)).await;
        timing.end(result.as_ref().err());
        entry.in_flight = left_over;
        if let Err(error) = &result {
            entry.note(error);
        }
        result
    }

    /// The connection's facts.
    pub fn info(&self) -> ConnectionInfo {
        let Held { index, entry } = self.held.as_ref().expect("held until dropped");
        let Shared { runtime, shelf, .. } = &*self.shared;
        ConnectionInfo::of(entry, shelf.note(index), runtime.now(), entry.lent_at)
    }

    /// Attaches a value of the application's to the connection, for as long as
    /// that lives; returns the one of this type that it replaces.
    pub fn attach<T: Send + Sync + 'static>(&mut self, value: T) -> Option<T> {
        if let Some(old) = self.attached_mut::<T>() {
            return Some(std::mem::replace(old, value));
        }
        self.entry_mut().attached.push(Box::new(value));
        None
    }

    /// The value of this type that is attached to the connection.
    pub fn attached<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.entry().attached.iter().find_map(|value| value.downcast_ref())
    }

    /// The value of this type that is attached to the connection.
    pub fn attached_mut<T: Send + Sync + 'static>(&mut self) -> Option<&mut T> {
        self.entry_mut().attached.iter_mut().find_map(|value| value.downcast_mut())
    }

    /// Takes the connection out of the pool for good, as it is: the pool may
    /// open another in its place, and does not close this one. Values attached
    /// to it are dropped.
    pub fn detach(mut self) -> D::Connection {
        let held = self.held.take().expect("held until dropped");
        self.shared.note_return(&held);
        let Held { index, entry } = held;
        let Entry { conn, attached, lent_at, id, .. } = *entry;
        let now = self.shared.runtime.coarse_now();
        self.shared.tell(|| Event::Released { connection: id, held: span(lent_at, now) });
        self.shared.measure(id, lent_at, now);
        self.shared.turn(|state, turn| state.detached(turn, index));
        drop_quietly(attached);
        conn
    }

    /// Closes the connection instead of giving it back.
    pub fn discard(mut self) {
        self.entry_mut().fate = Fate::Discard;
    }

    /// Takes an error of the driver's own client into account: one that
    /// condemns the connection has it closed instead of given back.
    pub fn note_error(&mut self, error: &Error) {
        self.entry_mut().note(error);
    }

    /// The connection's number in its pool, in order of birth.
    pub fn id(&self) -> u64 {
        self.entry().id
    }

    /// When it was opened, by the runtime's clock.
    pub fn opened_at(&self) -> Instant {
        self.entry().born
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.shared.runtime.now().saturating_duration_since(self.entry().born)
    }

    /// Whether the session was told to refuse writes when it was opened, as on a
    /// replica of a [cluster](crate::balance::Cluster). Statements that ask for
    /// writes all the same are not kept from them.
    pub fn is_read_only(&self) -> bool {
        self.entry().reads_only
    }

    /// The name of the pool, which in a cluster is that of the node.
    pub fn pool_name(&self) -> &str {
        &self.shared.name
    }

    /// The role of the node, as the session was told last.
    pub fn role(&self) -> Option<Role> {
        self.shared.driver.role(self)
    }

    /// The place in the log up to which the node has committed: what was
    /// committed before can be read wherever it is [reached](Self::reached).
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the database tells
    /// none, or as for [`query`](Self::query).
    ///
    /// # Cancellation
    ///
    /// As for `query`.
    pub async fn position(&mut self) -> Result<Position> {
        self.unwind().await?;
        self.ask(async |driver, conn| driver.position(conn).await).await
    }

    /// Waits until what is before this place in the log can be read here, for no
    /// longer than `limit`. Whether it can.
    ///
    /// # Errors
    ///
    /// As for [`position`](Self::position), and
    /// [`Config`](crate::ErrorKind::Config) for one of another database.
    ///
    /// # Cancellation
    ///
    /// As for [`query`](Self::query).
    pub async fn reached(&mut self, position: &Position, limit: Duration) -> Result<bool> {
        self.unwind().await?;
        self.ask(async |driver, conn| driver.reached(conn, position, limit).await).await
    }

    /// System and version of the server.
    pub fn server(&self) -> ServerInfo {
        self.shared.driver.server(self)
    }

    fn entry(&self) -> &Entry<D::Connection> {
        &self.held.as_ref().expect("held until dropped").entry
    }

    fn entry_mut(&mut self) -> &mut Entry<D::Connection> {
        &mut self.held.as_mut().expect("held until dropped").entry
    }
}

impl<D: Driver> Deref for PooledConnection<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        &self.entry().conn
    }
}

impl<D: Driver> DerefMut for PooledConnection<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        &mut self.entry_mut().conn
    }
}

impl<D: Driver> Drop for PooledConnection<D> {
    #[inline]
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.shared.release(held);
        }
    }
}

impl<D: Driver> fmt::Debug for PooledConnection<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledConnection")
            .field("driver", &self.shared.driver.name())
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
