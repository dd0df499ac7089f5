//! MySQL and MariaDB as a [`Driver`].
//!
//! Says for each call what is sent, and keeps the marks of the connection in
//! order around it. Does not know how an answer is read, nor what an error
//! means.

use futures_core::Stream;
use millpond_driver::{
    Cancel, ConnectContext, Driver, Error, NodeStatus, Reset, Result, Row, Rows, ServerInfo,
    Session, TransactionOptions, Value,
};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};

use crate::error::Fault;
use crate::reactor::Reactor;
use crate::{Mysql, MysqlConnection, answer, error, status, value};

/// What every session begins with: text as UTF-8, `TIMESTAMP` in UTC, and each
/// statement for itself.
const SETUP: &str = "SET NAMES utf8mb4, time_zone = '+00:00', autocommit = 1";

impl Driver for Mysql {
    type Connection = MysqlConnection;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<MysqlConnection> {
        self.check()?;
        let reactor = Reactor::current();
        let opened = reactor.run(open(self.opts.clone())).await;
        let (client, version) = opened.map_err(|error| error::connect(error, &self.place()))?;
        Ok(MysqlConnection::new(client, reactor, version, cx.runtime()))
    }

    async fn ping(&self, conn: &mut MysqlConnection) -> Result<()> {
        let (reactor, client) = conn.start()?;
        let pinged = reactor.run(client.ping()).await;
        conn.finish(pinged.map_err(Fault::Native), "")
    }

    async fn query(&self, conn: &mut MysqlConnection, sql: &str, params: &[Value]) -> Result<Rows> {
        let params = value::encode(params)?;
        let (reactor, client) = conn.ready().await?;
        let rows = reactor.run(answer::collect(client, sql, params)).await;
        conn.finish(rows, sql)
    }

    fn name(&self) -> &'static str {
        "mysql"
    }

    fn query_stream<'a>(
        &'a self,
        conn: &'a mut MysqlConnection,
        sql: &'a str,
        params: &'a [Value],
    ) -> impl Stream<Item = Result<Row>> + Send + 'a {
        answer::rows(conn, sql, params)
    }

    async fn batch(&self, conn: &mut MysqlConnection, sql: &str) -> Result<()> {
        command(conn, sql).await
    }

    fn server(&self, conn: &MysqlConnection) -> ServerInfo {
        conn.server_info()
    }

    fn session(&self, conn: &MysqlConnection) -> Session {
        conn.session()
    }

    /// Both kinds end with the proof that the connection is in step. One that
    /// owes an answer is not reset: nobody knows how much of it has been read.
    async fn reset(&self, conn: &mut MysqlConnection, to: Reset) -> Result<()> {
        match to {
            Reset::Boundary => conn.prove("ROLLBACK; ").await,
            Reset::Session => {
                let (reactor, client) = conn.start()?;
                let known = reactor.run(client.reset()).await;
                if !conn.finish(known.map_err(Fault::Native), "")? {
                    return Err(Error::unsupported("resetting sessions of so old a server"));
                }
                let mode = if conn.read_only { READ_ONLY } else { "" };
                let back = match self.opts.db_name() {
                    Some(database) => format!("USE `{}`; ", database.replace('`', "``")),
                    None => String::new(),
                };
                conn.prove(&format!("{back}{SETUP}; {mode}")).await
            }
            _ => Err(Error::unsupported("this kind of reset")),
        }
    }

    /// `KILL QUERY`, by a connection of its own that is opened when the handle
    /// is run.
    fn cancel(&self, conn: &MysqlConnection) -> Option<Cancel> {
        let opts = OptsBuilder::from_opts(self.opts.clone())
            .db_name(None::<String>)
            .init(Vec::<String>::new())
            .setup(Vec::<String>::new());
        let (opts, place, id) = (Opts::from(opts), self.place(), conn.id());
        Some(Cancel::new(async move {
            let kill = async {
                let mut client = Conn::new(opts).await?;
                client.query_drop(format!("KILL QUERY {id}")).await?;
                client.disconnect().await
            };
            let killed = Reactor::current().run(kill).await;
            killed.map_err(|error| error::connect(error, &place))
        }))
    }

    /// One round trip. An isolation level is set for the next transaction only,
    /// and the next one is this.
    async fn begin(&self, conn: &mut MysqlConnection, options: &TransactionOptions) -> Result<()> {
        let access = options.access.map_or("", |mode| mode.as_sql());
        match options.isolation {
            None if access.is_empty() => command(conn, "BEGIN").await,
            None => command(conn, &format!("START TRANSACTION {access}")).await,
            Some(level) => {
                let level = level.as_sql();
                let sql =
                    format!("SET TRANSACTION ISOLATION LEVEL {level}; START TRANSACTION {access}");
                command(conn, &sql).await
            }
        }
    }

    async fn commit(&self, conn: &mut MysqlConnection) -> Result<()> {
        command(conn, "COMMIT").await
    }

    async fn rollback(&self, conn: &mut MysqlConnection) -> Result<()> {
        command(conn, "ROLLBACK").await
    }

    async fn status(&self, conn: &mut MysqlConnection) -> Result<NodeStatus> {
        let sql = status::sql(conn.server());
        let (reactor, client) = conn.ready().await?;
        let told = reactor.run(status::read(client, sql)).await;
        conn.finish(told.map_err(Fault::Native), sql)
    }

    async fn set_read_only(&self, conn: &mut MysqlConnection, read_only: bool) -> Result<()> {
        command(conn, if read_only { READ_ONLY } else { READ_WRITE }).await?;
        conn.read_only = read_only;
        Ok(())
    }

    async fn close(&self, conn: MysqlConnection) {
        if let Some((reactor, client)) = conn.part() {
            // A peer that does not hear it has gone already.
            let _ = reactor.run(client.disconnect()).await;
        }
    }
}

const READ_ONLY: &str = "SET SESSION TRANSACTION READ ONLY; ";
const READ_WRITE: &str = "SET SESSION TRANSACTION READ WRITE; ";

/// Dials, logs in and sets the session up. Gives the server's version.
async fn open(opts: Opts) -> mysql_async::Result<(Conn, String)> {
    let mut client = Conn::new(opts).await?;
    let version = answer::last_text(&mut client, &format!("{SETUP}; SELECT VERSION()")).await?;
    Ok((client, version.unwrap_or_default()))
}

/// Runs statements whose rows nobody wants.
async fn command(conn: &mut MysqlConnection, sql: &str) -> Result<()> {
    let (reactor, client) = conn.ready().await?;
    let done = reactor.run(answer::discard(client, sql)).await;
    conn.finish(done, sql)
}
