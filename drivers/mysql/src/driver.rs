//! MySQL and MariaDB as a [`Driver`].
//!
//! Says for each call what is sent, and keeps the marks of the connection in
//! order around it. Does not know how an answer is read, nor what an error
//! means.

use std::time::Duration;

use futures_core::Stream;
use millpond_driver::{
    Cancel, Code, ConnectContext, Driver, Error, NodeStatus, Position, Reset, Result, Row, Rows,
    ServerInfo, Session, TransactionOptions, Value,
};
use mysql_async::prelude::Queryable;
use mysql_async::{ChangeUserOpts, Conn, Opts, Params};

use crate::connection::Server;
use crate::error::Fault;
use crate::reactor::{Abrupt, Reactor};
use crate::status::Asks;
use crate::{Mysql, MysqlConnection, answer, error, place, status, value};

/// What every session begins with: text as UTF-8, `TIMESTAMP` in UTC, and each
/// statement for itself.
const SETUP: &str = "SET NAMES utf8mb4, time_zone = '+00:00', autocommit = 1";

impl Driver for Mysql {
    type Connection = MysqlConnection;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<MysqlConnection> {
        self.check()?;
        self.prepare_tls();
        let reactor = Reactor::current();
        let login = self.login(cx.credentials());
        let opened = reactor.run(Abrupt::new(open(login.clone()))).await;
        let (client, server) = opened.map_err(|error| error::connect(error, &self.place()))?;
        self.last_login.set(&login);
        Ok(MysqlConnection::new(client, reactor, server, login, cx.runtime()))
    }

    async fn ping(&self, conn: &mut MysqlConnection) -> Result<()> {
        let (reactor, client) = conn.start()?;
        let pinged = reactor.run(client.ping()).await;
        conn.finish(pinged.map_err(Fault::Native), "")
    }

    async fn query(&self, conn: &mut MysqlConnection, sql: &str, params: &[Value]) -> Result<Rows> {
        let params = value::encode(params)?;
        conn.foresee(sql, &params);
        let epoch = conn.epoch();
        let (reactor, client) = conn.ready().await?;
        let rows = reactor.run(answer::collect(client, sql, params, epoch)).await;
        conn.end(rows, sql).await
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
        conn.foresee(sql, &Params::Empty);
        let (reactor, client) = conn.ready().await?;
        let done = reactor.run(answer::discard(client, sql)).await;
        conn.end(done, sql).await
    }

    fn server(&self, conn: &MysqlConnection) -> ServerInfo {
        conn.server_info()
    }

    fn session(&self, conn: &MysqlConnection) -> Session {
        match conn.session() {
            Session::Clean if conn.is_somebody_else() => Session::Unverified,
            session => session,
        }
    }

    /// Both kinds end with the proof that the connection is in step, and leave the
    /// session as it was set up, which its client can undo. A connection that
    /// owes an answer is not reset: nobody knows how much of it has been read.
    /// Nor is one whose client has logged in as another user.
    async fn reset(&self, conn: &mut MysqlConnection, to: Reset) -> Result<()> {
        if conn.is_somebody_else() {
            return Err(Error::unsupported("resetting a session of another user"));
        }
        let mode = if conn.read_only { READ_ONLY } else { "" };
        match to {
            Reset::Boundary if conn.is_set_up() => {
                conn.prove("ROLLBACK; SET autocommit = 1; ").await
            }
            Reset::Boundary => {
                conn.prove(&format!("ROLLBACK; {SETUP}; {mode}")).await?;
                conn.was_set_up();
                Ok(())
            }
            Reset::Session => {
                let login = self.last_login.in_place_of(conn.login());
                let (reactor, client) = conn.start()?;
                let cleared = reactor.run(clear(client, self.opts.db_name(), &login)).await;
                conn.finish(cleared.map_err(Fault::Native), "")?;
                conn.forget_statements();
                let back = match self.opts.db_name() {
                    Some(database) => format!("USE `{}`; ", database.replace('`', "``")),
                    None => String::new(),
                };
                conn.prove(&format!("{back}{SETUP}; {mode}")).await?;
                conn.was_set_up();
                Ok(())
            }
            _ => Err(Error::unsupported("this kind of reset")),
        }
    }

    /// `KILL QUERY`, by a connection of its own that is opened when the handle
    /// is run. Where the address leads to another server by then, the same
    /// number is somebody else's there, and nothing is sent. It logs in with
    /// what is good then, as far as this driver knows.
    fn cancel(&self, conn: &MysqlConnection) -> Option<Cancel> {
        let (driver, login, id) = (self.clone(), conn.login().clone(), conn.id());
        let node = conn.server().node.clone();
        Some(Cancel::new(async move {
            let (place, login) = (driver.place(), driver.last_login.in_place_of(&login));
            let killer = driver.with(|opts| {
                opts.user(login.user())
                    .pass(login.pass())
                    .db_name(None::<String>)
                    .init(Vec::<String>::new())
                    .setup(Vec::<String>::new())
            });
            let kill = async {
                let mut client = Conn::new(killer.opts).await?;
                let met = answer::last_text(&mut client, &format!("SELECT {NODE}")).await?;
                if met.as_deref() != Some(&*node) {
                    return Err(Fault::Ours(error::elsewhere(&place)));
                }
                client.query_drop(format!("KILL QUERY {id}")).await?;
                Ok(client.disconnect().await?)
            };
            match Reactor::current().run(Abrupt::new(kill)).await {
                Err(Fault::Native(error) | Fault::Later(error)) => {
                    Err(error::connect(error, &place))
                }
                Err(Fault::Ours(error)) => Err(error),
                Ok(()) => Ok(()),
            }
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

    /// One round trip: once in two, where the server has no names for its
    /// transactions.
    async fn status(&self, conn: &mut MysqlConnection) -> Result<NodeStatus> {
        /// A variable that the server does not know.
        const UNKNOWN: Code = Code::Number(1193);

        loop {
            let asks = Asks { gtids: !conn.knows_no_gtids, galera: conn.galera != Some(false) };
            let (family, sql) = (conn.server().family, status::sql(conn.server(), asks));
            let (reactor, client) = conn.ready().await?;
            let told = reactor.run(status::read(client, &sql, family, asks)).await;
            match conn.finish(told.map_err(Fault::Native), &sql) {
                Err(error) if asks.gtids && error.code() == Some(&UNKNOWN) => {
                    conn.knows_no_gtids = true;
                }
                Err(error) => return Err(error),
                Ok((status, galera)) => {
                    conn.galera = Some(galera);
                    return Ok(status);
                }
            }
        }
    }

    async fn set_read_only(&self, conn: &mut MysqlConnection, read_only: bool) -> Result<()> {
        command(conn, if read_only { READ_ONLY } else { READ_WRITE }).await?;
        conn.read_only = read_only;
        Ok(())
    }

    async fn position(&self, conn: &mut MysqlConnection) -> Result<Position> {
        place::position(conn).await
    }

    async fn reached(
        &self,
        conn: &mut MysqlConnection,
        position: &Position,
        limit: Duration,
    ) -> Result<bool> {
        place::reached(conn, position, limit).await
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

/// What tells a server from others.
const NODE: &str = "CONCAT_WS(' ', @@hostname, @@port, @@server_id)";

/// Dials, logs in, sets the session up and asks who answers.
async fn open(opts: Opts) -> mysql_async::Result<(Conn, Server)> {
    let mut client = Conn::new(opts).await?;
    let sql = format!("{SETUP}; SELECT CONCAT(VERSION(), '\n', {NODE})");
    let told = answer::last_text(&mut client, &sql).await?.unwrap_or_default();
    let (version, node) = told.split_once('\n').unwrap_or((&told, ""));
    let server = Server::new(version, node);
    Ok((client, server))
}

/// Clears what the last user left in the session. A reset keeps the database
/// that is in use, and old servers have none; a new login does all of it.
async fn clear(client: &mut Conn, database: Option<&str>, login: &Opts) -> mysql_async::Result<()> {
    if database.is_none() || !client.reset().await? {
        let password = login.pass().map(str::to_owned);
        client.change_user(ChangeUserOpts::default().with_pass(password)).await?;
    }
    Ok(())
}

/// Runs statements of the driver's, of which none but the last has an effect
/// outside the session.
async fn command(conn: &mut MysqlConnection, sql: &str) -> Result<()> {
    let (reactor, client) = conn.ready().await?;
    let done = reactor.run(client.query_drop(sql)).await;
    conn.end(done.map_err(Fault::Native), sql).await
}
