//! PostgreSQL as a [`Driver`].
//!
//! Owns the driver and what each call of the contract means here. Does not know
//! how a statement runs.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures_core::Stream;
use millpond_driver::{
    Cancel, Cause, ConnectContext, Driver, Error, Fate, Keepalive, NodeStatus, Outcome, Position,
    Reset, Result, Role, Row, Rows, Scope, ServerInfo, Session, TransactionOptions, Value,
};

use crate::options::{DEFAULT_PORT, Host, Options, TargetSession};
use crate::{PostgresConnection, TlsMode, dial, place, stream, url};

/// A PostgreSQL server, or several of which one is wanted.
///
/// ```
/// use millpond_postgres::{Postgres, TlsMode};
///
/// let orders = Postgres::new("db.example.com")
///     .user("shop")
///     .password("secret")
///     .database("orders")
///     .tls(TlsMode::VerifyFull);
/// let orders = Postgres::from_url(
///     "postgres://shop:secret@db-1.example.com,db-2.example.com/orders\
///      ?target_session_attrs=read-write",
/// )?;
/// # Ok::<(), millpond_driver::Error>(())
/// ```
#[derive(Clone)]
pub struct Postgres {
    pub(crate) options: Options,
}

impl Postgres {
    /// The server on this host: a name, an address, or the folder of a Unix
    /// socket, which begins with a slash.
    pub fn new(host: impl Into<String>) -> Self {
        Self { options: Options::new(vec![Host::new(host, DEFAULT_PORT)]) }
    }

    /// The server a URL names: `postgres://user:password@host:port/database`.
    ///
    /// Several hosts are separated by commas. The folder of a Unix socket is
    /// written as `%2Frun%2Fpostgresql` in place of a host, or as the parameter
    /// `host=/run/postgresql`. Parameters have the names that libpq gives them;
    /// [the crate](crate#urls) lists them.
    ///
    /// # Errors
    ///
    /// A part of the URL does not parse, or a parameter is unknown or has a bad
    /// value. The message names it and the rule, and never a password.
    pub fn from_url(url: &str) -> Result<Self> {
        url::parse(url)
    }

    /// Another host, tried when those before it fail.
    #[must_use]
    pub fn fallback_host(mut self, host: impl Into<String>, port: u16) -> Self {
        self.options.hosts.push(Host::new(host, port));
        self
    }

    /// The port, of all hosts named so far. Default: 5432.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.options.hosts.iter_mut().for_each(|host| host.port = port);
        self
    }

    /// Who logs in. Default: the user who runs this program.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.options.login.user(user);
        self
    }

    /// The password. Default: none.
    #[must_use]
    pub fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.options.login.password(password);
        self
    }

    /// The database. Default: the one named as the user.
    #[must_use]
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.options.login.dbname(database);
        self
    }

    /// The name by which an operator sees the connection, in
    /// `pg_stat_activity` and the log. Default: this program's.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.options.login.application_name(name);
        self
    }

    /// Whether connections are encrypted, and what the server must prove.
    /// Default: encrypted if the server offers it and this crate has TLS.
    #[must_use]
    pub fn tls(mut self, mode: TlsMode) -> Self {
        self.options.tls.mode = mode;
        self.options.tls.renew();
        self
    }

    /// A file of root certificates, in PEM. Default: the system's.
    #[must_use]
    pub fn root_certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.options.tls.roots = Some(file.into());
        self.options.tls.renew();
        self
    }

    /// Files of a certificate and its key, in PEM, by which the server knows us.
    /// Default: none.
    #[must_use]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.options.tls.identity = Some((certificate.into(), key.into()));
        self.options.tls.renew();
        self
    }

    /// Which of several servers is wanted. Default: any.
    #[must_use]
    pub fn target_session(mut self, session: TargetSession) -> Self {
        self.options.session = session;
        self
    }

    /// How long one host may take. Default: its share of what the pool allows.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.options.connect_timeout = Some(timeout);
        self
    }

    /// Probes of idle connections, `None` for none. Default: those of
    /// [`SocketOptions`](millpond_driver::SocketOptions).
    #[must_use]
    pub fn keepalive(mut self, keepalive: Option<Keepalive>) -> Self {
        self.options.socket.keepalive = keepalive;
        self
    }

    /// How many prepared statements a connection keeps. Default: 100.
    #[must_use]
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.options.statement_cache = statements;
        self
    }
}

/// As the client's own configuration says, but for the order of the hosts, which
/// is theirs. Of TLS it knows fewer modes: [`Postgres::tls`] has them all.
impl From<tokio_postgres::Config> for Postgres {
    fn from(config: tokio_postgres::Config) -> Self {
        Self { options: config.into() }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Postgres").field(&self.options).finish()
    }
}

/// What makes a session as it was after the login. `DISCARD ALL` would, but for
/// the prepared statements, which are no setting and are kept.
const FRESH: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES;";

const READ_ONLY: &str = "SET default_transaction_read_only = on;";

impl Driver for Postgres {
    type Connection = PostgresConnection;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<PostgresConnection> {
        // In a box: it is large, and who calls has other futures on its stack.
        Box::pin(dial::open(&self.options, cx)).await
    }

    async fn ping(&self, conn: &mut PostgresConnection) -> Result<()> {
        conn.run(async |client| client.check_connection().await).await
    }

    async fn query(
        &self,
        conn: &mut PostgresConnection,
        sql: &str,
        params: &[Value],
    ) -> Result<Rows> {
        conn.query(sql, params).await
    }

    fn name(&self) -> &'static str {
        "postgresql"
    }

    fn query_stream<'a>(
        &'a self,
        conn: &'a mut PostgresConnection,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Stream<Item = Result<Row>> + Send + 'a {
        stream::rows(conn, sql, params)
    }

    async fn batch(&self, conn: &mut PostgresConnection, sql: &str) -> Result<()> {
        conn.batch(sql).await
    }

    fn server(&self, conn: &PostgresConnection) -> ServerInfo {
        ServerInfo::new("postgresql", conn.version().to_owned())
    }

    fn session(&self, conn: &PostgresConnection) -> Session {
        conn.session()
    }

    async fn reset(&self, conn: &mut PostgresConnection, to: Reset) -> Result<()> {
        conn.settle().await?;
        let mut sql = String::new();
        if conn.status() != b'I' {
            sql.push_str("ROLLBACK;");
        }
        if to == Reset::Session {
            sql.push_str(FRESH);
        }
        if !sql.is_empty() {
            if conn.read_only {
                sql.push_str(READ_ONLY);
            }
            self.batch(conn, &sql).await?;
        }
        conn.prove().await
    }

    fn cancel(&self, conn: &PostgresConnection) -> Option<Cancel> {
        Some(conn.cancel())
    }

    async fn begin(
        &self,
        conn: &mut PostgresConnection,
        options: &TransactionOptions,
    ) -> Result<()> {
        self.batch(conn, &options.begin_sql()).await
    }

    async fn commit(&self, conn: &mut PostgresConnection) -> Result<()> {
        if let Err(error) = self.batch(conn, "COMMIT").await {
            // As by a constraint that is checked at the end.
            return Err(match error.outcome() {
                Outcome::Rejected => error.with_outcome(Outcome::RolledBack),
                _ => error,
            });
        }
        // The server's answer to the commit of a transaction that has failed.
        if conn.has_rolled_back() {
            return Err(Error::statement("the transaction had failed, so it was rolled back")
                .with_outcome(Outcome::RolledBack)
                .with_fate(Fate::Reusable)
                .with_cause(Cause::Caller)
                .with_scope(Scope::Transaction));
        }
        Ok(())
    }

    async fn rollback(&self, conn: &mut PostgresConnection) -> Result<()> {
        self.batch(conn, "ROLLBACK").await
    }

    async fn status(&self, conn: &mut PostgresConnection) -> Result<NodeStatus> {
        place::status(conn).await
    }

    /// New transactions refuse writes, unless they ask for them. One round trip,
    /// and none behind a pooler that is known: the setting would stay on a session
    /// of the server that others are given next.
    async fn set_read_only(&self, conn: &mut PostgresConnection, read_only: bool) -> Result<()> {
        match (read_only, conn.read_only) {
            (true, _) => place::refuse_writes(conn).await?,
            (false, true) => self.batch(conn, "RESET default_transaction_read_only").await?,
            // What was not set needs no reset.
            (false, false) => {}
        }
        conn.read_only = read_only;
        Ok(())
    }

    fn role(&self, conn: &PostgresConnection) -> Option<Role> {
        conn.role()
    }

    async fn position(&self, conn: &mut PostgresConnection) -> Result<Position> {
        place::position(conn).await
    }

    async fn reached(
        &self,
        conn: &mut PostgresConnection,
        position: &Position,
        limit: Duration,
    ) -> Result<bool> {
        place::reached(conn, position, limit).await
    }

    async fn close(&self, conn: PostgresConnection) {
        conn.close().await;
    }
}
