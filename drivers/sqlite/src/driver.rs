//! SQLite as a [`Driver`].
//!
//! Owns the driver and its options, and says for each call whether it stays on
//! the caller's thread. Does not know how a statement runs, nor how it gets to
//! another thread.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_core::Stream;
use millpond_driver::{
    AccessMode, Cancel, ConnectContext, Driver, Error, NodeStatus, Position, Reset, Result, Role,
    Row, Rows, ServerInfo, Session, TransactionOptions, Value,
};

use crate::open::Database;
use crate::options::{JournalMode, Mode, Options, Synchronous};
use crate::{SqliteConnection, stream, url};

/// A SQLite database: a file, or one in memory that lives as long as its
/// driver.
///
/// Clones are the same database. It has no login: credentials that a connect is
/// given are not looked at.
///
/// ```
/// use std::time::Duration;
/// use millpond_sqlite::{Mode, Sqlite};
///
/// let orders = Sqlite::file("orders.db").mode(Mode::ReadWrite).busy_timeout(Duration::from_secs(2));
/// let orders = Sqlite::from_url("sqlite:orders.db?mode=rw&busy_timeout=2s")?;
/// let scratch = Sqlite::memory();
/// # Ok::<(), millpond_driver::Error>(())
/// ```
#[derive(Clone)]
pub struct Sqlite {
    database: Arc<Database>,
    pub(crate) options: Options,
}

impl Sqlite {
    /// The database in this file, which is created if it does not exist.
    /// `:memory:` is [`memory`](Self::memory).
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { database: Arc::new(Database::file(path.into())), options: Options::default() }
    }

    /// A new database in memory, shared by all connections of this driver and
    /// its clones, and gone with them.
    pub fn memory() -> Self {
        Self { database: Arc::new(Database::memory()), options: Options::default() }
    }

    /// The database a URL names: `sqlite:relative.db`, `sqlite:///var/app.db`,
    /// `sqlite::memory:`. `%20` is a blank in the path. Parameters have the
    /// names of the options below, as in
    /// `sqlite:app.db?mode=ro&busy_timeout=250ms`.
    ///
    /// # Errors
    ///
    /// The URL names no file, or a parameter is unknown or has a bad value; the
    /// message says which, and what is known.
    pub fn from_url(url: &str) -> Result<Self> {
        url::parse(url)
    }

    /// What connections may do with the file. Default: read and write, creating
    /// it.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.options.mode = mode;
        self
    }

    /// How long a statement waits for another connection's lock. Default: 5 s.
    ///
    /// It replaces `PRAGMA busy_timeout`, which has no effect.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.options.busy_timeout = timeout;
        self
    }

    /// The journal mode of a writable file. Default: write-ahead log, or what
    /// the file system allows.
    #[must_use]
    pub fn journal_mode(mut self, mode: JournalMode) -> Self {
        self.options.journal_mode = Some(mode);
        self
    }

    /// How often SQLite waits for the disk. Default: normal with a write-ahead
    /// log, else SQLite's own.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.options.synchronous = Some(synchronous);
        self
    }

    /// Whether foreign keys are enforced. Default: they are.
    #[must_use]
    pub fn foreign_keys(mut self, enforced: bool) -> Self {
        self.options.foreign_keys = enforced;
        self
    }

    /// How many prepared statements a connection keeps. Default: 100.
    #[must_use]
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.options.statement_cache = statements;
        self
    }

    /// How many steps of SQLite's machine a statement that only reads may run
    /// on the caller's thread before it moves to one that may block; up to
    /// twice as many, in fact. Default: 1000, some tens of microseconds. 0: no
    /// statement runs on the caller's thread.
    #[must_use]
    pub fn inline_steps(mut self, steps: u32) -> Self {
        self.options.inline_steps = steps;
        self
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.database).field(&self.options).finish()
    }
}

impl Driver for Sqlite {
    type Connection = SqliteConnection;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<SqliteConnection> {
        let (opened, answer) = oneshot::channel();
        let (database, options) = (Arc::clone(&self.database), self.options);
        let runtime = Arc::clone(cx.runtime());
        cx.runtime().spawn_blocking(Box::new(move || {
            // With nobody waiting any more it is closed here.
            drop(opened.send(database.open(&options, &runtime)));
        }));
        let engine = answer.await.map_err(|_| Error::connect("the runtime has ended"))??;
        let gate = Arc::clone(&self.database.gate);
        let runtime = Arc::clone(cx.runtime());
        Ok(SqliteConnection::new(engine, runtime, gate, self.options.busy_timeout))
    }

    async fn ping(&self, conn: &mut SqliteConnection) -> Result<()> {
        // Takes no lock: a database that is busy is alive.
        conn.settle().await?.command("SELECT 1")
    }

    async fn query(
        &self,
        conn: &mut SqliteConnection,
        sql: &str,
        params: &[Value],
    ) -> Result<Rows> {
        conn.breathe().await;
        match conn.try_inline(sql, params) {
            Some(rows) => rows,
            // In a box, so that the future of a quick read is small.
            None => Box::pin(conn.query(sql, params)).await,
        }
    }

    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn query_stream<'a>(
        &'a self,
        conn: &'a mut SqliteConnection,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Stream<Item = Result<Row>> + Send + 'a {
        stream::rows(conn, sql, params)
    }

    async fn batch(&self, conn: &mut SqliteConnection, sql: &str) -> Result<()> {
        let sql = sql.to_owned();
        conn.on_thread(move |engine, _| engine.batch(&sql)).await
    }

    fn server(&self, _conn: &SqliteConnection) -> ServerInfo {
        ServerInfo::new("sqlite", rusqlite::version())
    }

    fn session(&self, conn: &SqliteConnection) -> Session {
        conn.session()
    }

    /// To a boundary: stops what runs, waits for it, and rolls back. To a fresh
    /// session: refused, because nobody can tell which settings were changed;
    /// opening another connection is cheap and clears them all.
    async fn reset(&self, conn: &mut SqliteConnection, to: Reset) -> Result<()> {
        if to != Reset::Boundary {
            return Err(Error::unsupported("clearing session settings"));
        }
        conn.interrupt();
        if conn.settle().await?.session() == Session::InTransaction {
            self.rollback(conn).await?;
        }
        Ok(())
    }

    fn cancel(&self, conn: &SqliteConnection) -> Option<Cancel> {
        Some(conn.cancel())
    }

    /// Takes the write lock at once, for a transaction that reads first and
    /// wants to write later cannot wait for it. One that only reads takes no
    /// lock, and refuses statements that write. SQLite's transactions are
    /// serializable, whatever less is asked for.
    async fn begin(&self, conn: &mut SqliteConnection, options: &TransactionOptions) -> Result<()> {
        let quiet = conn.gate.is_quiet();
        let engine = conn.settle().await?;
        let reads = options.access == Some(AccessMode::ReadOnly);
        if reads || !engine.is_writable() {
            engine.command("BEGIN")?;
            engine.guard(reads);
            return Ok(());
        }
        engine.guard(false);
        // Those who wait already go first.
        if quiet {
            if let Some(begun) = engine.command_inline("BEGIN IMMEDIATE") {
                return begun;
            }
        }
        conn.on_thread(|engine, _| engine.command("BEGIN IMMEDIATE")).await
    }

    /// Repeated while SQLite is busy, for as long as a statement waits for a
    /// lock.
    async fn commit(&self, conn: &mut SqliteConnection) -> Result<()> {
        let engine = conn.settle().await?;
        if engine.has_only_read() {
            return conn.end_reading("COMMIT");
        }
        conn.on_thread(|engine, _| engine.commit()).await
    }

    async fn rollback(&self, conn: &mut SqliteConnection) -> Result<()> {
        let engine = conn.settle().await?;
        if engine.has_only_read() {
            return conn.end_reading("ROLLBACK");
        }
        conn.on_thread(|engine, _| engine.command("ROLLBACK")).await
    }

    async fn status(&self, conn: &mut SqliteConnection) -> Result<NodeStatus> {
        let engine = conn.settle().await?;
        engine.command("SELECT 1")?;
        let mut status = NodeStatus::default();
        status.role = Role::Standalone;
        status.writable = Some(engine.is_writable());
        Ok(status)
    }

    async fn set_read_only(&self, conn: &mut SqliteConnection, read_only: bool) -> Result<()> {
        conn.settle().await?.set_read_only(read_only)
    }

    /// The only one there is: every connection of a database reads what has been
    /// committed on any other.
    async fn position(&self, _conn: &mut SqliteConnection) -> Result<Position> {
        Ok(Position::new(EVERYWHERE))
    }

    async fn reached(
        &self,
        _conn: &mut SqliteConnection,
        position: &Position,
        _limit: Duration,
    ) -> Result<bool> {
        if position.as_str() == EVERYWHERE {
            return Ok(true);
        }
        Err(Error::config(format!("the only position here is {EVERYWHERE}, not `{position}`")))
    }

    async fn close(&self, mut conn: SqliteConnection) {
        conn.close().await;
    }
}

/// The place in a log that SQLite has not.
const EVERYWHERE: &str = "committed";
