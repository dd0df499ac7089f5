//! What a database must be able to do to be pooled.
//!
//! Owns the [`Driver`] trait and the small types in its signatures. Does not
//! know which database stands behind it, how connections are kept, or when any
//! of this is called: the pool decides that.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    BoxFuture, Credentials, Error, Fate, NodeStatus, Outcome, Position, Result, Role, Row, Rows,
    Runtime, Value,
};

/// A database, seen by a pool.
///
/// Three functions make a driver: [`connect`](Self::connect),
/// [`ping`](Self::ping) and [`query`](Self::query). Everything else has a
/// default that is *safe*: it may cost a round trip, it never hands on a dirty
/// connection. Override a default to say more about the database.
///
/// Implementors write plain `async fn`:
///
/// ```
/// use millpond_driver::{ConnectContext, Driver, Result, Rows, Value};
///
/// struct Echo;
///
/// impl Driver for Echo {
///     type Connection = ();
///
///     async fn connect(&self, _cx: &ConnectContext<'_>) -> Result<()> {
///         Ok(())
///     }
///     async fn ping(&self, _conn: &mut ()) -> Result<()> {
///         Ok(())
///     }
///     async fn query(&self, _conn: &mut (), sql: &str, _params: &[Value]) -> Result<Rows> {
///         Ok(Rows::one("echo", sql))
///     }
/// }
/// ```
///
/// # Cancellation
///
/// Every future here may be dropped at any await point. What a dropped future
/// leaves behind must show in [`session`](Self::session): a driver that cannot
/// tell answers [`Session::Unverified`], which is the default.
pub trait Driver: Send + Sync + 'static {
    /// One session with the database. Applications reach it through the
    /// pooled connection, so it is usually (or dereferences to) the client's
    /// own type.
    type Connection: Send + 'static;

    /// Opens a session: dial, TLS, login, session set-up.
    ///
    /// # Errors
    ///
    /// Everything that keeps the session from being usable, with
    /// [`Outcome::NotSent`] and a [`Cause`](crate::Cause) that tells a wrong
    /// password from a server that is starting.
    ///
    /// # Cancellation
    ///
    /// Dropped when `cx.deadline()` has passed or the pool closes. Must leave
    /// nothing open.
    fn connect(
        &self,
        cx: &ConnectContext<'_>,
    ) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// One round trip that proves the session answers.
    ///
    /// # Errors
    ///
    /// Any error means the connection is dead.
    fn ping(&self, conn: &mut Self::Connection) -> impl Future<Output = Result<()>> + Send;

    /// Runs one statement and collects its rows.
    ///
    /// # Errors
    ///
    /// The database's refusal or the loss of the connection; see [`Error`].
    fn query<'a>(
        &'a self,
        conn: &'a mut Self::Connection,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Future<Output = Result<Rows>> + Send + 'a;

    /// The database system, by OpenTelemetry's `db.system.name`: `postgresql`,
    /// `mysql`, `mariadb`, `sqlite`. Default: `other_sql`.
    fn name(&self) -> &'static str {
        "other_sql"
    }

    /// Runs one statement and yields its rows one by one.
    ///
    /// Default: collects them with [`query`](Self::query) first.
    ///
    /// # Errors
    ///
    /// As for `query`; an error ends the stream.
    fn query_stream<'a>(
        &'a self,
        conn: &'a mut Self::Connection,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Stream<Item = Result<Row>> + Send + 'a {
        stream::once(self.query(conn, sql, params))
            .map_ok(|rows| stream::iter(rows).map(Ok))
            .try_flatten()
    }

    /// Runs several statements separated by semicolons, as migrations do.
    ///
    /// Default: one [`query`](Self::query) without parameters.
    ///
    /// # Errors
    ///
    /// The first statement that fails; those before it have taken effect.
    fn batch<'a>(
        &'a self,
        conn: &'a mut Self::Connection,
        sql: &'a str,
    ) -> impl Future<Output = Result<()>> + Send + 'a {
        async move { self.query(conn, sql, &[]).await.map(drop) }
    }

    /// Who answered: system and version, known once connected.
    fn server(&self, _conn: &Self::Connection) -> ServerInfo {
        ServerInfo::new(self.name(), "")
    }

    /// The state the connection is in, without I/O.
    ///
    /// Read at every release, so it must cost nanoseconds. Default:
    /// [`Session::Unverified`], which makes the pool [`reset`](Self::reset) the
    /// connection off the caller's path before it is lent again. That is enough
    /// where a connection is used through the driver only. A client that can
    /// lose its place, so that answers no longer belong to questions, needs
    /// better: a driver that knows, or a reset that proves it.
    fn session(&self, _conn: &Self::Connection) -> Session {
        Session::Unverified
    }

    /// Brings the connection back to a clean boundary, settling whatever is in
    /// flight.
    ///
    /// Default: for [`Reset::Boundary`], `ROLLBACK`. A database without an open
    /// transaction accepts or refuses it; either answer proves that none is
    /// open. For [`Reset::Session`], an error.
    ///
    /// # Errors
    ///
    /// Any error makes the pool close the connection.
    fn reset(
        &self,
        conn: &mut Self::Connection,
        to: Reset,
    ) -> impl Future<Output = Result<()>> + Send {
        async move {
            match to {
                Reset::Boundary => match self.query(conn, "ROLLBACK", &[]).await {
                    Err(refused)
                        if refused.outcome() == Outcome::Rejected
                            && refused.fate() != Fate::Discard =>
                    {
                        Ok(())
                    }
                    other => other.map(drop),
                },
                Reset::Session => Err(Error::unsupported("clearing session settings")),
            }
        }
    }

    /// A handle that stops the statement running on `conn`, usable from
    /// anywhere, owning all it needs. Default: `None`.
    ///
    /// Asked for while no future borrows the connection, so either before a
    /// statement starts or after its future was dropped. Run beside a statement
    /// that is still awaited, it ends that statement early and leaves the
    /// connection in step. It must not be able to hit a later statement of
    /// another user: the pool uses it only on a connection it holds itself.
    fn cancel(&self, _conn: &Self::Connection) -> Option<Cancel> {
        None
    }

    /// Starts a transaction. Default: SQL text.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    fn begin<'a>(
        &'a self,
        conn: &'a mut Self::Connection,
        options: &'a TransactionOptions,
    ) -> impl Future<Output = Result<()>> + Send + 'a {
        async move {
            let sql = options.begin_sql();
            self.query(conn, &sql, &[]).await.map(drop)
        }
    }

    /// Commits the open transaction. Default: `COMMIT`.
    ///
    /// # Errors
    ///
    /// [`Outcome::Unknown`] where the answer was lost: the transaction may have
    /// been committed.
    fn commit(&self, conn: &mut Self::Connection) -> impl Future<Output = Result<()>> + Send {
        async move { self.query(conn, "COMMIT", &[]).await.map(drop) }
    }

    /// Rolls the open transaction back. Default: `ROLLBACK`.
    ///
    /// # Errors
    ///
    /// As for [`query`](Self::query).
    fn rollback(&self, conn: &mut Self::Connection) -> impl Future<Output = Result<()>> + Send {
        async move { self.query(conn, "ROLLBACK", &[]).await.map(drop) }
    }

    /// One round trip that asks the node for its role, lag and position.
    /// Default: a [`ping`](Self::ping), everything unknown.
    ///
    /// # Errors
    ///
    /// As for `ping`.
    fn status(
        &self,
        conn: &mut Self::Connection,
    ) -> impl Future<Output = Result<NodeStatus>> + Send {
        async move {
            self.ping(conn).await?;
            Ok(NodeStatus::default())
        }
    }

    /// Makes the session refuse writes, so that any statement on it may be
    /// repeated. Survives [`reset`](Self::reset). Default: an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the
    /// database has no such mode.
    fn set_read_only(
        &self,
        _conn: &mut Self::Connection,
        _read_only: bool,
    ) -> impl Future<Output = Result<()>> + Send {
        async { Err(Error::unsupported("read-only sessions")) }
    }

    /// The role of the node, as the session was told last, without I/O. It
    /// costs nanoseconds, and is asked for whenever a session of a cluster is
    /// lent. Default: `None`, the session is told nothing.
    fn role(&self, _conn: &Self::Connection) -> Option<Role> {
        None
    }

    /// The place in the log of the cluster up to which this node has committed
    /// or replayed, whichever session did. Default: an error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where the
    /// database tells no such place, or is not set to.
    fn position(
        &self,
        _conn: &mut Self::Connection,
    ) -> impl Future<Output = Result<Position>> + Send {
        async { Err(Error::unsupported("positions in the log")) }
    }

    /// Waits until what is before this place in the log can be read here, for
    /// no longer than `limit`. Whether it can. Default: an error.
    ///
    /// # Errors
    ///
    /// As for [`position`](Self::position), and
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a position that is
    /// none of this database.
    fn reached<'a>(
        &'a self,
        _conn: &'a mut Self::Connection,
        _position: &'a Position,
        _limit: Duration,
    ) -> impl Future<Output = Result<bool>> + Send + 'a {
        async { Err(Error::unsupported("positions in the log")) }
    }

    /// Says goodbye on the wire and closes. Default: drops the connection.
    ///
    /// # Cancellation
    ///
    /// The pool bounds it; a dropped goodbye must still close the socket.
    fn close(&self, conn: Self::Connection) -> impl Future<Output = ()> + Send {
        async move { drop(conn) }
    }
}

/// What a driver may use while it connects: the runtime, the deadline, why the
/// connection is wanted, and what to log in with.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectContext<'a> {
    runtime: &'a Arc<dyn Runtime>,
    deadline: Instant,
    purpose: Purpose,
    credentials: Option<&'a Credentials>,
}

impl<'a> ConnectContext<'a> {
    /// A context for serving users until `deadline`.
    pub fn new(runtime: &'a Arc<dyn Runtime>, deadline: Instant) -> Self {
        Self { runtime, deadline, purpose: Purpose::Serve, credentials: None }
    }

    /// The same context for another purpose.
    #[must_use]
    pub fn with_purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// The same context with credentials for this one connect.
    #[must_use]
    pub fn with_credentials(mut self, credentials: &'a Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// The runtime to dial, sleep and spawn with. Clone it to keep it.
    pub fn runtime(&self) -> &'a Arc<dyn Runtime> {
        self.runtime
    }

    /// When the pool stops waiting and drops the future.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Why the connection is wanted.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// What to log in with this time, in place of what the driver was
    /// configured with; the next connect may be given others, or none. A driver
    /// without a login ignores them.
    pub fn credentials(&self) -> Option<&'a Credentials> {
        self.credentials
    }
}

/// Why a connection is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// To be lent to users.
    Serve,
    /// To ask a node how it is, outside the pool's limit.
    Probe,
    /// To keep an in-memory database alive, outside the pool's limit.
    Anchor,
}

/// The state of a connection as its driver can tell without I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Session {
    /// At a boundary: nothing in flight, nothing unread, no transaction.
    Clean,
    /// In an open transaction.
    InTransaction,
    /// In a transaction that can only be rolled back.
    FailedTransaction,
    /// A statement is in flight or rows are unread.
    Busy,
    /// Not known: it was used in a way the driver could not follow.
    Unverified,
    /// The connection is gone.
    Closed,
}

/// How far [`Driver::reset`] goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Reset {
    /// To a boundary: nothing in flight, no open transaction. Prepared
    /// statements survive.
    #[default]
    Boundary,
    /// To a boundary, and session settings, temporary objects and locks of the
    /// last user are cleared as well.
    Session,
}

/// What answered a connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServerInfo {
    /// OpenTelemetry's `db.system.name`.
    pub system: Cow<'static, str>,
    /// As the server says it; empty if unknown.
    pub version: Cow<'static, str>,
}

impl ServerInfo {
    /// System and version.
    pub fn new(
        system: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { system: system.into(), version: version.into() }
    }
}

/// A handle that stops a running statement. See [`Driver::cancel`].
pub struct Cancel(BoxFuture<'static, Result<()>>);

impl Cancel {
    /// A handle that does `work` once, when it is run.
    pub fn new(work: impl Future<Output = Result<()>> + Send + 'static) -> Self {
        Self(Box::pin(work))
    }

    /// Sends the cancel request. `Ok` means that the server took it, not that
    /// the statement has ended.
    ///
    /// # Errors
    ///
    /// The request could not be delivered.
    ///
    /// # Cancellation
    ///
    /// A dropped request may or may not have reached the server.
    pub async fn run(self) -> Result<()> {
        self.0.await
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cancel")
    }
}

/// How a transaction sees concurrent ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IsolationLevel {
    /// `READ UNCOMMITTED`
    ReadUncommitted,
    /// `READ COMMITTED`
    ReadCommitted,
    /// `REPEATABLE READ`
    RepeatableRead,
    /// `SERIALIZABLE`
    Serializable,
}

impl IsolationLevel {
    /// The words of the SQL standard.
    pub fn as_sql(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "READ UNCOMMITTED",
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// Whether a transaction writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccessMode {
    /// `READ WRITE`
    ReadWrite,
    /// `READ ONLY`
    ReadOnly,
}

impl AccessMode {
    /// The words of the SQL standard.
    pub fn as_sql(self) -> &'static str {
        match self {
            Self::ReadWrite => "READ WRITE",
            Self::ReadOnly => "READ ONLY",
        }
    }
}

/// What a transaction asks of the database. The default asks for the
/// database's own defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TransactionOptions {
    /// Isolation level, if not the session's.
    pub isolation: Option<IsolationLevel>,
    /// Access mode, if not the session's.
    pub access: Option<AccessMode>,
}

impl TransactionOptions {
    /// The database's own defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for an isolation level.
    #[must_use]
    pub fn isolation(mut self, level: IsolationLevel) -> Self {
        self.isolation = Some(level);
        self
    }

    /// Asks for an access mode.
    #[must_use]
    pub fn access(mut self, mode: AccessMode) -> Self {
        self.access = Some(mode);
        self
    }

    /// The statement of the SQL standard that starts such a transaction:
    /// `BEGIN` where nothing special is asked for.
    pub fn begin_sql(&self) -> Cow<'static, str> {
        let isolation = self.isolation.map(|level| format!("ISOLATION LEVEL {}", level.as_sql()));
        let access = self.access.map(|mode| mode.as_sql().to_owned());
        let modes: Vec<String> = isolation.into_iter().chain(access).collect();
        if modes.is_empty() {
            Cow::Borrowed("BEGIN")
        } else {
            Cow::Owned(format!("START TRANSACTION {}", modes.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_transaction_starts_with_begin() {
        assert_eq!(TransactionOptions::new().begin_sql(), "BEGIN");
    }

    #[test]
    fn transaction_modes_are_listed_in_the_standards_order() {
        let options = TransactionOptions::new()
            .access(AccessMode::ReadOnly)
            .isolation(IsolationLevel::Serializable);
        assert_eq!(
            options.begin_sql(),
            "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY"
        );
    }
}
